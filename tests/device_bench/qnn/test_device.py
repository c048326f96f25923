"""qnn: what Qualcomm's compilers make of a file, and what the emulator of the NPU answers, with the real package."""

from pathlib import Path

import numpy as np
import pytest

from edgenet.device_bench import Worker
from edgenet.device_bench.device import Compiler
from edgenet.device_bench.qnn.device import Hexagon
from edgenet.export import Network
from edgenet.images import normalise
from helpers.hexagon import bench, needs_qnn


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
    batch = normalise(pixels, tiny_network.preprocessing) if kind.endswith("float32") else pixels
    with Worker(files[kind]) as here:
        ours = here.predict(batch)
    theirs = sm8750.predict(files[kind], batch)
    assert theirs.shape == ours.shape
    assert np.mean(theirs.argmax(1) == ours.argmax(1)) >= 0.95
    assert np.abs(theirs - ours).max() < 0.1


def test_the_device_is_a_compiler() -> None:
    assert issubclass(Hexagon, Compiler)
