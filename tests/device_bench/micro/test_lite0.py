"""micro, on a real network: INT8 EfficientNet-Lite0 answers in tflite-micro as in LiteRT's reference kernels."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from edgenet.calibration import Recipe, SharedCalibration
from edgenet.device_bench import open_device
from edgenet.device_bench.device import Request
from edgenet.errors import MissingDependency
from edgenet.export import Network, export_graph, find_source
from edgenet.export.graph import Graph
from edgenet.images import limit, load_pixels, normalise, open_images
from helpers.places import IMAGENET_MINI
from helpers.reference_kernels import by_reference_kernels, taken, with_the_dense_layer_in_fixed_point

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("tflite_micro") is None, reason="needs edgenet[micro]"),
    pytest.mark.skipif(not IMAGENET_MINI.exists(), reason="needs ../shared/imagenet-mini"),
]


@pytest.fixture(scope="module")
def lite0() -> tuple[Network, Graph]:
    """The network, and its int8 graph."""
    try:
        network = find_source("efficientnet-lite0").network()
    except MissingDependency as e:
        pytest.skip(str(e))
    pixels = load_pixels(
        limit(open_images(IMAGENET_MINI, network.class_ids, network.class_names), 2), network.preprocessing
    )
    return network, SharedCalibration(network, pixels, "", Recipe(corrections=())).quantized("int8")


def pictures(network: Network, n: int) -> np.ndarray:
    """(n, 224, 224, 3) uint8."""
    images = open_images(IMAGENET_MINI, network.class_ids, network.class_names)
    return load_pixels(limit(images, n), network.preprocessing)


def same_answers(lite0: tuple[Network, Graph], io: str, n: int, folder: Path) -> int:
    """Return on how many of n pictures all 1,000 numbers are the same, bit for bit.

    With integer output an 8-bit softmax hides the few logits that LiteRT's dense layer rounds otherwise; with float
    they are seen, and LiteRT's kernels are compared with that layer in TFLite's own arithmetic.
    """
    network, int8 = lite0
    a = export_graph(network, int8, folder, format="tflite", precision="int8", io=io)
    pixels = load_pixels(
        limit(open_images(IMAGENET_MINI, network.class_ids, network.class_names), n), network.preprocessing
    )
    batch = normalise(pixels, network.preprocessing) if io == "float32" else pixels
    with open_device("micro") as device:
        there = device.predict(folder / a.path, batch)
    by_kernels = with_the_dense_layer_in_fixed_point if io == "float32" else by_reference_kernels
    here = by_kernels(folder / a.path, taken(batch, io))
    assert len(np.unique(here.argmax(axis=1))) > n / 2  # it tells pictures apart
    return int((there.view(np.uint32) == here.view(np.uint32)).all(axis=1).sum())


@pytest.mark.slow
@pytest.mark.parametrize("io", ["int8", "uint8", "float32"])
def test_lite0_answers_as_the_reference_kernels_whatever_it_takes_and_gives(
    lite0: tuple[Network, Graph], io: str, tmp_path: Path
) -> None:
    assert same_answers(lite0, io, 3, tmp_path) == 3


@pytest.mark.long
def test_lite0_answers_100_pictures_to_the_bit(lite0: tuple[Network, Graph], tmp_path: Path) -> None:
    assert same_answers(lite0, "int8", 100, tmp_path) == 100


@pytest.mark.slow
def test_lite0_takes_a_microcontroller_with_more_than_a_megabyte(lite0: tuple[Network, Graph], tmp_path: Path) -> None:
    network, int8 = lite0
    a = export_graph(network, int8, tmp_path, format="tflite", precision="int8", io="int8")
    with open_device("micro") as device:
        (e,), failures = device.bench([("lite0", tmp_path / a.path)], Request())
    assert not failures
    assert e.left == ()
    # The widest place: 112 x 112 x 96 numbers of a byte, and 112 x 112 x 24 in front of them.
    assert e.memory_bytes["activations"] == 112 * 112 * (96 + 24)
