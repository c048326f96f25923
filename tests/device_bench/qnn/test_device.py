"""qnn: what Qualcomm's compilers make of a file, and what the emulator of the NPU answers, with the real package."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgenet.calibration import quantize
from edgenet.device_bench import Worker
from edgenet.device_bench.device import Compiler, Request
from edgenet.device_bench.qnn.device import Hexagon, open_device
from edgenet.export import Network, export_graph
from edgenet.images import load_pixels
from edgenet.results import Calibration, Estimate, Failure, ImageSet

needs_qnn = pytest.mark.skipif(importlib.util.find_spec("onnxruntime_qnn") is None, reason="needs edgenet[qnn]")


@pytest.fixture(scope="module")
def files(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The tiny network in int8 with uint8 input and output, and others; by format, precision and io."""
    out = tmp_path_factory.mktemp("hexagon")
    found = {}
    for format, precision, io in (
        ("tflite", "int8", "uint8"),
        ("onnx", "int8", "uint8"),
        ("tflite", "dynamic", "float32"),
        ("tflite", "int16x8", "float32"),
        ("onnx", "int16x8", "float32"),
        ("tflite", "int8", "int8"),
        ("onnx", "int8", "float32"),
    ):
        graph = quantize(tiny_network.graph, precision, tiny_calibration)
        folder = out / f"{precision}-{io}"
        folder.mkdir(exist_ok=True)
        artifact = export_graph(tiny_network, graph, folder, format=format, precision=precision, io=io)
        found[f"{format} {precision} {io}"] = folder / artifact.path
    return found


@pytest.fixture(scope="module")
def sm8750() -> Iterator[Hexagon]:
    """The device; what it compiled it keeps for the tests after."""
    with open_device("SM8750") as device:
        yield device


@pytest.fixture(scope="module")
def pixels(tiny_network: Network, tiny_images: tuple[ImageSet, ImageSet]) -> np.ndarray:
    """(30, 20, 20, 3) uint8."""
    return load_pixels(tiny_images[1], tiny_network.preprocessing)


def bench(device: Hexagon, *paths: Path) -> tuple[list[Estimate], list[Failure]]:
    return device.bench([(p.name, p) for p in paths], Request())


@needs_qnn
@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_all_of_an_int8_file_with_integer_ends_runs_on_the_npu(
    format: str, sm8750: Hexagon, files: dict[str, Path]
) -> None:
    (e,), failures = bench(sm8750, files[f"{format} int8 uint8"])
    assert failures == []
    assert (e.left, e.warnings) == ((), ())
    assert e.n_accelerated == e.n_operators > 8
    assert e.compiled_bytes > 10_000
    assert (e.inference_ms, e.inference_bounds_ms, e.cycles) == (None, None, None)
    assert e.device == "qnn:SM8750"
    assert e.settings["hexagon"] == 79


@needs_qnn
@pytest.mark.parametrize("kind", ["tflite int8 uint8", "onnx int8 uint8", "tflite int8 int8", "onnx int8 float32"])
def test_the_emulator_answers_as_the_file_does_here(
    kind: str, sm8750: Hexagon, files: dict[str, Path], pixels: np.ndarray, tiny_network: Network
) -> None:
    from edgenet.images import normalise

    batch = normalise(pixels, tiny_network.preprocessing) if kind.endswith("float32") else pixels
    with Worker(files[kind]) as here:
        ours = here.predict(batch)
    theirs = sm8750.predict(files[kind], batch)
    assert theirs.shape == ours.shape
    assert np.mean(theirs.argmax(1) == ours.argmax(1)) >= 0.95
    assert np.abs(theirs - ours).max() < 0.1


def test_the_device_is_a_compiler() -> None:
    assert issubclass(Hexagon, Compiler)
