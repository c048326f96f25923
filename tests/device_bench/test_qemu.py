"""device_bench/qemu.py: what it refuses, and with a root (docs/boards.md), whether Arm kernels answer as ours do.

EDGENET_ARM_ROOT names the root for the `device` tests, EDGENET_IMAGENET the pictures (imagenet-mini or the like).
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgenet.device_bench import Worker, qemu
from edgenet.device_bench.device import Request
from edgenet.errors import DeviceError, InputError
from edgenet.export import Network
from edgenet.images import limit, load_pixels, normalise, open_images, split
from edgenet.results import ImageSet


@pytest.fixture
def fake_root(tmp_path: Path) -> Path:
    """A folder that looks like a root; nothing in it runs."""
    (tmp_path / "arm/usr/bin").mkdir(parents=True)
    (tmp_path / "arm/usr/bin/python3.11").write_text("not a program")
    return tmp_path / "arm"


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A PATH on which the emulator is found, where it is not installed; only what does not run it needs this."""
    program = tmp_path / "bin/qemu-aarch64-static"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho this is not the emulator >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        qemu.open_device(str(tmp_path / "nowhere"))


def test_a_folder_without_a_python_is_refused_with_the_recipe(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"make_arm_root\.sh"):
        qemu.open_device(str(tmp_path))


def test_a_missing_emulator_names_its_package(fake_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(fake_root))
    with pytest.raises(DeviceError, match="apt install qemu-user-static"):
        qemu.open_device(str(fake_root))


def test_times_under_emulation_are_refused(fake_root: Path, emulator: None, tiny_files: dict[str, Path]) -> None:
    with (
        qemu.open_device(str(fake_root)) as device,
        pytest.raises(InputError, match="times under emulation mean nothing"),
    ):
        device.bench([("int8", tiny_files["int8"])], Request())


def test_only_tflite_files_run_there(fake_root: Path, emulator: None, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").touch()
    with qemu.open_device(str(fake_root)) as device, pytest.raises(InputError, match=r"\.tflite files only"):
        device.predict(tmp_path / "net.onnx", np.zeros((1, 20, 20, 3), np.float32))


def test_a_python_that_does_not_start_is_an_error_with_its_words(
    fake_root: Path, emulator: None, tiny_files: dict[str, Path]
) -> None:
    with qemu.open_device(str(fake_root)) as device:
        with pytest.raises(DeviceError, match="this is not the emulator"):
            device.info()
        with pytest.raises(DeviceError, match="this is not the emulator"):
            device.predict(tiny_files["int8"], np.zeros((1, 20, 20, 3), np.float32))


@pytest.mark.skipif(not shutil.which("qemu-aarch64-static"), reason="qemu-user-static is not installed")
def test_the_real_emulator_says_that_a_text_is_no_program(fake_root: Path) -> None:
    with qemu.open_device(str(fake_root)) as device, pytest.raises(DeviceError, match="does not start"):
        device.info()


@pytest.fixture(scope="module")
def arm() -> qemu.Emulated:
    root = os.environ.get("EDGENET_ARM_ROOT")
    if not root:
        pytest.skip("EDGENET_ARM_ROOT names no root; docs/boards.md has the recipe")
    return qemu.open_device(root)


@pytest.mark.device
def test_the_emulated_machine_says_what_it_is(arm: qemu.Emulated) -> None:
    info = arm.info()
    assert info["machine"] == "aarch64"
    assert info["cpu_model"] == "cortex-a72, emulated"
    assert info["runtimes"]["litert"] == "2.14.0"
    assert info["numpy"].startswith("1.26")
    assert "mean nothing" in info["note"]


@pytest.mark.device
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_tiny_network_answers_on_arm_as_here(
    arm: qemu.Emulated,
    tiny_files: dict[str, Path],
    tiny_network: Network,
    tiny_images: tuple[ImageSet, ImageSet],
    precision: str,
) -> None:
    pictures = normalise(load_pixels(tiny_images[1], tiny_network.preprocessing), tiny_network.preprocessing)
    with arm as device, Worker(tiny_files[precision]) as here:
        there, ours = device.predict(tiny_files[precision], pictures), here.predict(pictures)
    # Floats are summed in another order; integers round to a neighbouring step here and there (logits: 0.04 a step).
    assert np.abs(there - ours).max() <= (1e-5 if precision == "float32" else 0.01)
    assert np.array_equal(there.argmax(1), ours.argmax(1))


@pytest.mark.device
def test_int8_lite0_on_arm_agrees_with_this_machine_on_99_of_100_pictures(
    arm: qemu.Emulated, tmp_path: Path, edgenet, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recipe: docs/boards.md. Under emulation a picture takes about a second."""
    folder = os.environ.get("EDGENET_IMAGENET")
    if not folder:
        pytest.skip("EDGENET_IMAGENET names no folder of ImageNet pictures")
    from edgenet.export import find_source

    done = edgenet(
        "export", "efficientnet-lite0", "--format", "tflite", "--precision", "int8",
        "--images", folder, "--out", tmp_path, timeout_s=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    source = find_source("efficientnet-lite0")
    _, evaluation = split(open_images(folder, source.class_ids, source.class_names), 100)
    batch = normalise(load_pixels(limit(evaluation, 100), source.preprocessing), source.preprocessing)
    path = tmp_path / "efficientnet-lite0_int8.tflite"
    with arm as device, Worker(path) as here:
        there, ours = device.predict(path, batch), here.predict(batch)
    agreeing = int((there.argmax(1) == ours.argmax(1)).sum())
    furthest = float(np.abs(there - ours).max())
    with capsys.disabled():
        print(
            f"\nArm agrees on {agreeing} of {len(batch)} pictures; no probability is further away than {furthest:.4f}"
        )
    assert len(batch) == 100
    assert agreeing >= 99
