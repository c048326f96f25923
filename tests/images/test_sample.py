"""edgenet.sample: photographs out of installed packages."""

import importlib.util

import numpy as np
import pytest

from edgenet.errors import InputError, MissingDependency
from edgenet.images import Preprocessing, decode, load_pixels, open_images, sample, split, thumbnail

PRE = Preprocessing(resolution_px=64, mean=(127.0,) * 3, std=(128.0,) * 3)
needs_sample = pytest.mark.skipif(
    not all(importlib.util.find_spec(p) for p in ("skimage", "sklearn")), reason="needs edgenet[sample]"
)


@needs_sample
def test_the_sample_is_96_different_unlabelled_crops_of_colour_photographs():
    opened = open_images("sample", [], [])
    assert (len(opened), opened.n_labelled, opened.root) == (96, 0, "sample")
    assert len(set(opened.digests)) == 96
    pixels = load_pixels(opened, PRE)
    assert len(np.unique(pixels.reshape(96, -1), axis=0)) == 96
    assert (pixels.std(axis=(1, 2)) > 5).all(), "a picture without content"
    assert (np.abs(np.diff(pixels.astype(int), axis=3)).mean(axis=(1, 2, 3)) > 2).all(), "a picture without colour"
    assert thumbnail(opened.files[0])[:2] == b"\xff\xd8"


@needs_sample
def test_a_split_of_the_sample_keeps_the_crops_of_a_photograph_together():
    calibration, evaluation = split(open_images("sample", [], []), 100)
    sides = [{sample.photograph_of(f)[0] for f in side.files} for side in (calibration, evaluation)]
    assert not sides[0] & sides[1]
    assert (len(calibration), len(evaluation)) == (48, 48)
    few, rest = split(open_images("sample", [], []), 5)
    assert (len(few), len(rest)) == (5, 80)


@needs_sample
def test_the_first_window_is_the_whole_photograph_and_opens_by_name():
    assert sample.crop("sample:china.jpg#0").size == (640, 427)
    assert sample.crop("sample:china.jpg#1").size == (576, 384)
    assert decode("sample:chelsea.png#3", PRE).shape == (64, 64, 3)


@pytest.mark.parametrize("name", ["sample:dog.jpg#0", "sample:china.jpg", "sample:china.jpg#16", "sample:china.jpg#-1"])
def test_an_unknown_sample_lists_the_valid_ones(name):
    with pytest.raises(InputError, match=r"valid are sample:PHOTO#0 to #15 with PHOTO one of chelsea\.png"):
        decode(name, PRE)


@pytest.mark.parametrize(("absent", "package"), [("skimage", "scikit-image"), ("sklearn", "scikit-learn")])
def test_a_missing_package_names_the_extra(monkeypatch, absent, package):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else real(name))
    with pytest.raises(MissingDependency, match=rf"sample photographs needs {package}.*edgenet\[sample\]"):
        open_images("sample", [], [])
