"""export: each precision and each input type is a file that loads, takes what it says, and computes what float does."""

import importlib
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest

from edgenet.calibration import PRECISIONS, quantize
from edgenet.errors import InputError
from edgenet.export import FORMATS, IO_DTYPES, Network, export_graph, runtime
from edgenet.export.inspect import inspect
from edgenet.export.metadata import read_buffers, read_files, read_metadata
from edgenet.files import sha256_of
from edgenet.images import load_pixels, normalise
from edgenet.results import Artifact, Calibration, ImageSet
from helpers import tiny

export = importlib.import_module("edgenet.export")  # `edgenet.export` is the function of the package

# Largest difference of a probability from the float file's, by the steps of weights and activations.
TOLERANCE = {
    "float32": 1e-6,
    "float16": 5e-3,
    "weight-only": 0.05,
    "dynamic": 0.06,
    "int8": 0.1,
    "int16x8": 0.05,
    "int4": 0.3,
}


@pytest.fixture(scope="module")
def pixels(tiny_images: tuple[ImageSet, ImageSet]) -> np.ndarray:
    return load_pixels(tiny_images[1], tiny.PREPROCESSING)  # (30, 20, 20, 3) uint8


def written(network: Network, calibration: Calibration, out: Path, precision: str, io: str = "float32") -> Artifact:
    graph = quantize(network.graph, precision, calibration)
    used = calibration if precision in ("int8", "int16x8", "int4") else None
    return export_graph(network, graph, out, format="tflite", precision=precision, io=io, calibration=used)


def probabilities(path: Path, pixels: np.ndarray) -> np.ndarray:
    model = runtime.load(path)
    return model.predict(normalise(pixels, tiny.PREPROCESSING) if model.io_dtype == "float32" else pixels)


@pytest.mark.parametrize(("precision", "io"), itertools.product(PRECISIONS, IO_DTYPES))
def test_every_precision_and_input_type_agrees_with_float(
    precision: str, io: str, tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path, pixels: np.ndarray
) -> None:
    reference = probabilities(tmp_path / written(tiny_network, tiny_calibration, tmp_path, "float32").path, pixels)
    a = written(tiny_network, tiny_calibration, tmp_path / "io", precision, io)
    y = probabilities(tmp_path / "io" / a.path, pixels)
    assert y.shape == (30, tiny.CLASSES)
    step = (
        0.0 if io == "float32" else 1 / 256
    )  # of an 8-bit probability; a float behind raw pixels has all of the error
    assert np.abs(y - reference).max() <= TOLERANCE[precision] + step
    assert (y.argmax(axis=1) == reference.argmax(axis=1)).mean() >= 0.96  # one of thirty may stand on the border


@pytest.mark.parametrize(("precision", "io"), itertools.product(PRECISIONS, IO_DTYPES))
def test_a_file_is_what_its_name_says(
    precision: str, io: str, tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    a = written(tiny_network, tiny_calibration, tmp_path, precision, io)
    found = inspect(tmp_path / a.path)
    assert (a.id, a.path) == (f"tiny_{precision}.tflite",) * 2
    assert [(t.name, t.dtype, t.shape) for t in found.inputs] == [("image", io, (1, tiny.PX, tiny.PX, 3))]
    assert [(t.name, t.dtype, t.shape) for t in found.outputs] == [("probabilities", io, (1, tiny.CLASSES))]
    assert [(t.name, t.dtype) for t in a.inputs + a.outputs] == [("image", io), ("probabilities", io)]
    assert found.precision == precision
    assert found.warnings == ()
    if io != "float32":
        assert found.outputs[0].scale == pytest.approx(1 / 256)
        assert found.inputs[0].scale == pytest.approx(1 / 128)  # the stored pixel is the normalised one
        assert found.inputs[0].zero_point == (127 if io == "uint8" else -1)


def test_raw_pixels_and_normalised_ones_give_the_same_float_result(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path, pixels: np.ndarray
) -> None:
    a = written(tiny_network, tiny_calibration, tmp_path / "a", "int8", "float32")
    b = written(tiny_network, tiny_calibration, tmp_path / "b", "int8", "uint8")
    y, z = probabilities(tmp_path / "a" / a.path, pixels), probabilities(tmp_path / "b" / b.path, pixels)
    assert np.abs(y - z).max() <= 1.5 / 256  # the softmax of the one is rounded to 8 bits


def test_mean_and_std_per_channel_are_computed_in_the_file(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path, pixels: np.ndarray
) -> None:
    """ImageNet's statistics have no integer zero point: the file divides, instead of reading the pixel as it is."""
    from dataclasses import replace

    from edgenet.images import Preprocessing

    other = replace(
        tiny_network, preprocessing=Preprocessing(tiny.PX, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    )
    for io in ("uint8", "int8"):
        a = export_graph(other, other.graph, tmp_path / io, format="tflite", precision="float32", io=io)
        y = runtime.load(tmp_path / io / a.path).predict(pixels)
        f = export_graph(other, other.graph, tmp_path / "f", format="tflite", precision="float32")
        expected = runtime.load(tmp_path / "f" / f.path).predict(normalise(pixels, other.preprocessing))
        assert np.abs(y - expected).max() <= 1.1 / 256  # a probability of 1 is stored as 255 / 256


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_same_call_gives_the_same_bytes(
    precision: str, tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    a = written(tiny_network, tiny_calibration, tmp_path / "a", precision)
    b = written(tiny_network, tiny_calibration, tmp_path / "b", precision)
    assert a.sha256 == b.sha256 == sha256_of(tmp_path / "b" / b.path)
    assert (tmp_path / "a" / a.path).stat().st_size == a.size_bytes


def test_metadata_labels_and_provenance_are_in_the_file(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    a = written(tiny_network, tiny_calibration, tmp_path, "int8")
    model = (tmp_path / a.path).read_bytes()
    assert read_files(model)["labels.txt"].decode().splitlines() == list(tiny_network.class_names)
    about = json.loads(read_buffers(model)["edgenet"])
    assert about["model"] == "tiny"
    assert about["precision"] == "int8"
    assert about["preprocessing"] == tiny.PREPROCESSING.to_json()
    assert about["calibration"] == tiny_calibration.fingerprint == a.calibration
    assert about["weights"] == "least squares"
    assert "tiny" in json.dumps(read_metadata(model))
    float_file = written(tiny_network, tiny_calibration, tmp_path, "float32")
    assert json.loads(read_buffers((tmp_path / float_file.path).read_bytes())["edgenet"])["calibration"] is None


def test_unknown_formats_and_input_types_list_the_valid_ones(tiny_network: Network, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown format 'coreml' \(valid: tflite"):
        export_graph(tiny_network, tiny_network.graph, tmp_path, format="coreml", precision="float32")
    with pytest.raises(InputError, match=r"unknown --io 'float16' \(valid: float32, uint8, int8\)"):
        export_graph(tiny_network, tiny_network.graph, tmp_path, format="tflite", precision="float32", io="float16")
    with pytest.raises(InputError, match=r"unknown precision 'int3'.*int16x8"):
        quantize(tiny_network.graph, "int3")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
def test_full_integer_without_calibration_is_refused(precision: str, tiny_network: Network) -> None:
    with pytest.raises(InputError, match="needs images"):
        quantize(tiny_network.graph, precision)


def test_an_export_that_fails_leaves_the_old_file_and_no_part(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = written(tiny_network, tiny_calibration, tmp_path, "float32")

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    def half(network: Network, graph: object, path: Path, about: dict) -> None:
        path.write_bytes(b"half")
        full()

    monkeypatch.setitem(FORMATS, "tflite", FORMATS["tflite"]._replace(write=half))
    with pytest.raises(InputError, match="No space left on device"):
        written(tiny_network, tiny_calibration, tmp_path, "float32")
    assert [p.name for p in tmp_path.iterdir()] == [a.path]
    assert sha256_of(tmp_path / a.path) == a.sha256


def test_the_package_is_its_table_of_contents() -> None:
    assert sorted(export.__all__) == sorted(set(export.__all__))
    assert all(hasattr(export, name) for name in export.__all__)


# ------------------------------------------------------------------------------------------------------ real weights


@pytest.mark.slow
def test_lite0_in_int8_is_small_and_agrees_with_float(
    lite0_network: Network, lite0_files: dict[str, Path], photographs: tuple[ImageSet, ImageSet]
) -> None:
    from edgenet.evaluate import Candidate, evaluate

    assert lite0_files["int8"].stat().st_size <= 5.4e6
    assert inspect(lite0_files["int8"]).precision == "int8"
    candidates = [Candidate(name, lite0_files[name]) for name in ("float32", "int8")]
    (float32, int8), failures = evaluate(candidates, photographs[1], lite0_network.preprocessing, reference="float32")
    assert failures == []
    assert float32.top1 is not None
    assert float32.top1 >= 0.82  # .874 on all 500, give or take what 175 can tell
    assert int8.agreement is not None
    assert int8.agreement >= 0.95
