"""qnn: what Qualcomm's compilers make of a file, and what the emulator of the NPU answers, with the real package."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from edgenet.calibration import Recipe, SharedCalibration
from edgenet.device_bench import Worker
from edgenet.device_bench.device import Compiler, Request
from edgenet.device_bench.qnn.chip import FIRST_HTP, chips
from edgenet.device_bench.qnn.device import Hexagon, find, open_device
from edgenet.device_bench.qnn.emulator import Emulator
from edgenet.errors import InputError, MissingDependency
from edgenet.export import Network, export_graph, find_source
from edgenet.images import limit, load_pixels, normalise, open_images
from edgenet.jobs.bench import evaluate_on
from edgenet.results import ImageSet
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


@needs_qnn
def test_a_chip_for_which_qnn_estimates_a_time_has_it_with_bounds(files: dict[str, Path]) -> None:
    with open_device("QCS9100") as device:
        (onnx, tflite), failures = bench(device, files["onnx int8 uint8"], files["tflite int8 uint8"])
    assert failures == []
    low, high = onnx.inference_bounds_ms or (0, 0)
    assert 0 < low <= (onnx.inference_ms or 0) <= high < 1
    assert (onnx.cycles or 0) > 1000
    assert "its estimate for QCS9100, not measured" in onnx.basis
    assert onnx.memory_bytes["read from DRAM"] > 0
    assert tflite.memory_bytes["read from DRAM"] > 0
    assert tflite.inference_ms is None
    assert "LiteRT's plugin asks it for no time" in tflite.basis


@needs_qnn
def test_compiled_files_load_by_the_names_that_they_are_given(
    sm8750: Hexagon, files: dict[str, Path], tmp_path: Path, pixels: np.ndarray
) -> None:
    found = sm8750.compile(files["onnx int8 uint8"], tmp_path)
    stem = files["onnx int8 uint8"].stem
    assert [p.name for p in found.files] == [f"{stem}_SM8750.onnx", f"{stem}_SM8750_qnn.bin"]
    assert (found.device, found.n_accelerated) == ("qnn:SM8750", found.n_operators)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in found.files)
    with Emulator(found.files[0], sm8750.chip, processes=1) as emulator:
        answers = emulator.predict(pixels[:2])
    assert np.array_equal(answers, sm8750.predict(files["onnx int8 uint8"], pixels[:2]))


@needs_qnn
def test_what_is_compiled_does_not_depend_on_where_the_file_lies(
    sm8750: Hexagon, files: dict[str, Path], tmp_path: Path
) -> None:
    found = []
    for name in ("short", "a much longer name of a folder"):
        moved, out = tmp_path / name / files["onnx int8 uint8"].name, tmp_path / f"{name} compiled"
        moved.parent.mkdir()
        out.mkdir()
        shutil.copyfile(files["onnx int8 uint8"], moved)
        with open_device("SM8750") as device:
            assert isinstance(device, Hexagon)
            found.append([p.read_bytes() for p in device.compile(moved, out).files])
    assert found[0] == found[1]


@needs_qnn
def test_an_evaluation_that_the_emulator_answered_says_so(
    files: dict[str, Path], tiny_images: tuple[ImageSet, ImageSet], tiny_network: Network
) -> None:
    paths = [files["tflite int16x8 float32"], files["tflite int8 uint8"]]
    few = limit(tiny_images[1], 6)
    (e,), (failure,) = evaluate_on(["qnn:SM8750"], paths, few, tiny_network.preprocessing)
    assert e.emulated.startswith("QNN's emulator 2.")
    assert "Hexagon v79" in e.emulated
    assert (e.artifact, e.device, e.n_images) == (str(paths[1]), "qnn:SM8750", 6)
    assert e.agreement == 1
    assert (failure.artifact, failure.device) == (str(paths[0]), "qnn:SM8750")
    assert "16-bit activations" in failure.why


@needs_qnn
def test_the_device_is_listed_with_what_answers_in_its_place(sm8750: Hexagon) -> None:
    (found,) = find()
    assert found["id"] == "qnn:SM8750"
    assert "56 Snapdragons" in found["name"]
    assert sm8750.info()["emulator"].startswith("QNN's emulator")
    assert sm8750.info()["measures"] is False
    for request in (Request(runtime="litert"), Request(delegate="gpu"), Request(cores=(0,))):
        with pytest.raises(InputError, match="only compiles"):
            sm8750.bench([], request)


@needs_qnn
@pytest.mark.long
@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2"])
def test_all_operators_of_int8_efficientnet_lite_run_on_every_snapdragon(name: str, tmp_path: Path) -> None:
    try:
        network = find_source(name).network()
    except MissingDependency as e:
        pytest.skip(str(e))
    images = limit(open_images("sample", (), ()), 1)
    shared = SharedCalibration(network, load_pixels(images, network.preprocessing), "", Recipe(corrections=()))
    a = export_graph(network, shared.quantized("int8"), tmp_path, format="tflite", precision="int8", io="uint8")
    for chip in chips().values():
        if chip.hexagon >= FIRST_HTP:
            with Hexagon(chip.soc, chip) as device:
                (e,), failures = bench(device, tmp_path / a.path)
            assert (failures, e.left) == ([], ())
            assert e.n_accelerated == e.n_operators > 60


def test_the_device_is_a_compiler() -> None:
    assert issubclass(Hexagon, Compiler)
