"""device.py against a double of rknn-toolkit2 in another interpreter, and, under `device`, against the real one."""

import os
import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgenet.calibration import Recipe, SharedCalibration, quantize
from edgenet.device_bench import list_devices
from edgenet.device_bench.device import Compiler, Request
from edgenet.device_bench.rknn import environment
from edgenet.device_bench.rknn.device import CHIPS, Rknn, open_device
from edgenet.device_bench.worker import Worker
from edgenet.errors import DeviceError, InputError, MissingDependency
from edgenet.export import Network, export_graph, find_source
from edgenet.images import limit, load_pixels, normalise, open_images, split
from edgenet.results import Calibration, ImageSet, Results
from edgenet.targets import target, weight_bits
from helpers.command_line import Edgenet
from helpers.places import IMAGENET_MINI
from helpers.processes import is_held
from helpers.rknn_environment import make_environment

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
PIXELS = np.random.default_rng(0).integers(0, 256, (9, 20, 20, 3), np.uint8)


@pytest.fixture(scope="session")
def tiny_onnx(tiny_network: Network, tiny_calibration: Calibration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network in int8, with uint8 input and output."""
    out = tmp_path_factory.mktemp("rknn")
    g = quantize(tiny_network.graph, "int8", tiny_calibration)
    return out / export_graph(tiny_network, g, out, format="onnx", precision="int8", io="uint8").path


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment with the double."""
    place = make_environment(tmp_path / "environment")
    monkeypatch.setenv(environment.FOLDER_VARIABLE, str(place))
    return place


def test_a_machine_without_the_environment_gets_one_sentence_with_the_command(
    tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edgenet: Edgenet
) -> None:
    monkeypatch.setenv(environment.FOLDER_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(MissingDependency, match="needs rknn-toolkit2, which is not installed: run `edgenet devices pr"):
        open_device("RK3588")
    assert all(d["kind"] != "rknn" for d in list_devices())
    done = edgenet("bench", tiny_onnx, "--device", "rknn:RK3588")
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "edgenet: the device rknn:RK3588 needs rknn-toolkit2, which is not installed: "
        "run `edgenet devices prepare rknn` once"
    )


def test_an_unknown_chip_lists_those_that_there_are(double: Path) -> None:
    with pytest.raises(InputError, match=r"unknown Rockchip chip 'RK9999' \(valid: RK3588, RK3576, .*RV1103B\)"):
        open_device("RK9999")
    with pytest.raises(InputError, match=r"RK2118.* aborts"):
        open_device("RK2118")
    assert [open_device(chip.lower()).id for chip in CHIPS] == [f"rknn:{chip}" for chip in CHIPS]


def test_the_environment_is_listed_as_a_device(double: Path) -> None:
    (found,) = (d for d in list_devices() if d["kind"] == "rknn")
    assert (found["id"], found["runtimes"]) == ("rknn:RK3588", {"rknn-toolkit2": "2.5.0"})


def test_the_simulator_is_asked_for_the_answers_of_the_files_own_integers(double: Path, tiny_onnx: Path) -> None:
    with Worker(tiny_onnx) as here, open_device("RK3588") as there:
        np.testing.assert_array_equal(there.predict(tiny_onnx, PIXELS), here.predict(PIXELS))
        assert there.info()["emulator"] == "rknn-toolkit2 2.5.0 simulator, the same for every chip"
        with pytest.raises(InputError, match="takes images of 20 x 20 x 3"):
            there.predict(tiny_onnx, PIXELS[:, :9])


def test_a_file_is_estimated_and_compiled(double: Path, tiny_onnx: Path, tmp_path: Path) -> None:
    """The log that the double prints is lite0's."""
    with open_device("RK3588") as device:
        assert isinstance(device, Compiler)
        (estimate,), failures = device.bench([("tiny", tiny_onnx)], Request())
        assert (failures, estimate.n_accelerated, estimate.n_operators) == ([], 61, 62)
        assert estimate.compiled_bytes == 5_000_004
        out = tmp_path / "out"
        out.mkdir()
        compiled = device.compile(tiny_onnx, out)
    assert compiled.files == (out / f"{tiny_onnx.stem}_rk3588.rknn",)
    assert compiled.files[0].stat().st_size == 5_000_004
    assert sorted(out.iterdir()) == [compiled.files[0]]
    results = Results(estimates=[estimate])
    results.save(tmp_path / "saved")
    assert Results.load(tmp_path / "saved").estimates == [estimate]


@pytest.mark.parametrize(
    ("mode", "why", "remedy"),
    [
        (
            "refuse",
            "does not compile .* for RK3588: The Conv('x') not supported 'float16'",
            "give an int8 .onnx",
        ),
        ("silent", "it does not compile the file, and gives no reason", "give an int8 .onnx"),
        ("crash", "rknn-toolkit2 was killed by SIGSEGV", "run it again"),
        ("half", "says that it compiled .* and wrote no whole file", "run it again"),
        ("hang", "rknn-toolkit2 was ended after 3 s", "run it again"),
    ],
)
def test_a_compiler_that_fails_is_a_failure_with_a_remedy_and_the_next_file_goes_on(
    double: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch, mode: str, why: str, remedy: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("RKNN_DOUBLE", mode)
    found = environment.find()
    assert found is not None
    out = tmp_path / "out"
    out.mkdir()
    with Rknn("RK3588", found, timeout_s=3.0 if mode == "hang" else 60.0) as device:
        estimates, (first, second) = device.bench([("a", tiny_onnx), ("b", tmp_path / "none.onnx")], Request())
        assert estimates == []
        assert (first.stage, first.artifact, first.device) == ("bench", "a", "rknn:RK3588")
        assert re.search(re.escape(why).replace(r"\.\*", ".*"), first.why), first.why
        assert first.remedy.startswith(remedy)
        assert second.artifact == "b"
        if mode != "hang":
            with pytest.raises((InputError, DeviceError)):
                device.compile(tiny_onnx, out)
    assert [p for p in out.rglob("*") if p.is_file()] == []  # nothing half written


def test_a_simulator_that_is_killed_is_an_error_and_starts_again(
    double: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_device("RK3588") as device:
        monkeypatch.setenv("RKNN_DOUBLE", "crash-later")
        with pytest.raises(DeviceError, match="was killed by SIGKILL"):
            device.predict(tiny_onnx, PIXELS)
        monkeypatch.delenv("RKNN_DOUBLE")
        assert device.predict(tiny_onnx, PIXELS).shape == (9, 5)
        (worker,) = device._workers.values()
        assert is_held(worker.pid)


def test_a_compiler_that_is_killed_from_outside_is_a_failure(
    double: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKNN_DOUBLE", "hang")

    def kill() -> None:
        for _ in range(600):
            for p in Path("/proc").glob("[0-9]*"):
                try:
                    words = (p / "cmdline").read_bytes().split(b"\0")
                    ours = (p / "environ").read_bytes().split(b"\0")
                except OSError:
                    continue
                if any(w.endswith(b"toolkit.py") for w in words) and f"PYTHONPATH={double}/double".encode() in ours:
                    os.kill(int(p.name), signal.SIGKILL)
                    return
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    with open_device("RK3588") as device:
        _, (failure,) = device.bench([("tiny", tiny_onnx)], Request())
    killer.join()
    assert "was killed by SIGKILL" in failure.why


def test_the_command_line_bounds_what_can_be_asked(double: Path, tiny_onnx: Path) -> None:
    with open_device("RK3588") as device, pytest.raises(InputError, match="only compiles: leave out the runtime"):
        device.bench([("tiny", tiny_onnx)], Request(runtime="onnxruntime"))


@pytest.mark.device
def test_the_real_simulator_agrees_with_onnxruntime_and_a_spoiled_scale_changes_it(
    tiny_onnx: Path, tiny_network: Network, tiny_images: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    """Needs `edgenet devices prepare rknn`. Had the toolkit scales of its own, spoiling one would do nothing."""
    import onnx

    if environment.find() is None:
        pytest.skip("needs `edgenet devices prepare rknn`")
    pixels = load_pixels(tiny_images[1], tiny_network.preprocessing)
    model = onnx.load(tiny_onnx)
    for scale in model.graph.initializer:
        if scale.name in ("logits_weights_scale", "logits_bias_scale"):
            half = onnx.numpy_helper.to_array(scale) * np.float32(0.5)
            scale.CopyFrom(onnx.numpy_helper.from_array(half, scale.name))
    spoiled = tmp_path / "spoiled.onnx"
    onnx.save(model, spoiled)
    with Worker(tiny_onnx) as here, Worker(spoiled) as worse, open_device("RK3588") as there:
        for path, runs in ((tiny_onnx, here), (spoiled, worse)):
            answers = there.predict(path, pixels)
            assert np.abs(answers - runs.predict(pixels)).max() < 0.1
            assert (answers.argmax(1) == runs.predict(pixels).argmax(1)).mean() >= 0.95
        assert np.abs(there.predict(spoiled, pixels) - there.predict(tiny_onnx, pixels)).max() > 0.1


@pytest.mark.device
@pytest.mark.slow
def test_the_real_simulator_answers_a_hundred_pictures_as_float32_and_as_the_file_here(tmp_path: Path) -> None:
    """Needs `edgenet devices prepare rknn`, the weights of lite0 and ../shared/imagenet-mini."""
    if environment.find() is None:
        pytest.skip("needs `edgenet devices prepare rknn`")
    if not IMAGENET_MINI.is_dir():
        pytest.skip("needs ../shared/imagenet-mini")
    try:
        network = find_source("efficientnet-lite0").network()
    except MissingDependency as e:
        pytest.skip(str(e))
    calibrating, measuring = split(open_images(IMAGENET_MINI, network.class_ids, network.class_names), 40)
    bits = weight_bits(target("auto"), "onnx")  # onnxruntime here is one of the two that are compared
    pixels = load_pixels(calibrating, network.preprocessing)
    shared = SharedCalibration(network, pixels, calibrating.fingerprint, Recipe())
    int8 = export_graph(network, shared.quantized("int8", bits), tmp_path, format="onnx", precision="int8", io="uint8")
    exact = export_graph(network, network.graph, tmp_path, format="onnx", precision="float32", io="float32")
    x = load_pixels(limit(measuring, 100), network.preprocessing)
    with Worker(tmp_path / int8.path) as here, Worker(tmp_path / exact.path) as float32, open_device("RK3588") as there:
        simulated = there.predict(tmp_path / int8.path, x).argmax(1)
        assert len(simulated) == 100
        assert (simulated == here.predict(x).argmax(1)).sum() >= 98
        assert (simulated == float32.predict(normalise(x, network.preprocessing)).argmax(1)).sum() >= 98
        (estimate,), failures = there.bench([("lite0", tmp_path / int8.path)], Request())
    assert failures == []
    assert len(estimate.layers) == estimate.n_operators > 50
    assert estimate.n_accelerated >= estimate.n_operators - 2
    assert estimate.cycles is not None
    assert 1_000_000 < estimate.cycles < 3_000_000
