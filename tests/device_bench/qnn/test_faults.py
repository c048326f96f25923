"""qnn where something is wrong: a compiler that crashes, hangs or writes half a file, and what is not there."""

import os
import signal
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from edgenet.device_bench import tool
from edgenet.device_bench.qnn import device as device_module
from edgenet.device_bench.qnn import packages, tflite_compiler
from edgenet.device_bench.qnn.chip import find_chip
from edgenet.device_bench.qnn.device import Hexagon, find, open_device
from edgenet.device_bench.qnn.emulator import Emulator
from edgenet.device_bench.registry import parse
from edgenet.errors import DeviceError, InputError, MissingDependency
from edgenet.results import Failure
from helpers.hexagon import bench, needs_qnn
from helpers.processes import is_held

# What a compiler may do, as a shell script: where to write is told by --o=, or by the last argument but one.
FATES = {
    "killed": "kill -9 $$",
    "fails": "echo 'no licence' >&2; exit 7",
    "hangs": "sleep 60",
    "writes nothing": "exit 0",
    "writes half": 'head -c 3000 "$HALF" >"$OUT"',
}
SAID = {
    "killed": "was killed by SIGKILL (out of memory?)",
    "fails": "ended with exit status 7; it said last: no licence",
    "hangs": "was ended after 0.5 s: it hangs on this file",
    "writes nothing": "wrote n",
    "writes half": "half a file",
}


def fake(folder: Path, fate: str, half: Path) -> Path:
    """Write a program that does what FATES says of `fate`; `half` is what it writes half of."""
    program = folder / "compiler"
    program.write_text(
        f'#!/bin/sh\nHALF="{half}"\n'
        'for a in "$@"; do BEFORE="$LAST"; LAST="$a"; case "$a" in --o=*) OUT="${a#--o=}";; esac; done\n'
        f': "${{OUT:=$BEFORE}}"\n{FATES[fate]}\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def one_failure(path: Path, fate: str = "") -> Failure:
    """Compile with whatever compiler there is, and return the failure; nothing half written is left."""
    with Hexagon("SM8750", find_chip("SM8750"), timeout_s=0.5 if fate == "hangs" else 60) as device:
        estimates, (failure,) = bench(device, path)
        assert estimates == []
        assert device._folder is not None
        assert list(device._folder.iterdir()) == []
    return failure


@needs_qnn
@pytest.mark.parametrize("fate", FATES)
def test_a_compiler_of_tflite_files_that_fails_is_a_failure_with_a_remedy(
    fate: str, files: dict[str, Path], compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tools").mkdir()
    fake(tmp_path, fate, compiled).rename(tmp_path / "tools" / "apply_plugin_main")
    monkeypatch.setattr(tflite_compiler, "litert_folder", lambda: tmp_path)
    failure = one_failure(files["tflite int8 uint8"], fate)
    assert failure.why.startswith("LiteRT's plugin for Qualcomm ")
    assert SAID[fate] in failure.why
    assert failure.remedy
    assert str(tmp_path) not in failure.why


@needs_qnn
@pytest.mark.parametrize("fate", FATES)
def test_a_compiler_of_onnx_files_that_fails_is_a_failure_with_a_remedy(
    fate: str, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = files["onnx int8 uint8"]
    program = fake(tmp_path, fate, path)
    monkeypatch.setattr(tool.sys, "executable", str(program))
    failure = one_failure(path, fate)
    assert failure.why.startswith("onnxruntime-qnn ")
    # Half an .onnx comes without the note that says it is whole.
    assert SAID[fate] in failure.why or (fate == "writes half" and "wrote no done.json" in failure.why)
    assert failure.remedy


@needs_qnn
def test_a_compiled_tflite_that_is_cut_behind_the_model_is_half_a_file(
    files: dict[str, Path], compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(compiled.read_bytes()[:-100])
    (tmp_path / "tools").mkdir()
    monkeypatch.setitem(FATES, "writes half", 'cat "$HALF" >"$OUT"')
    fake(tmp_path, "writes half", cut).rename(tmp_path / "tools" / "apply_plugin_main")
    monkeypatch.setattr(tflite_compiler, "litert_folder", lambda: tmp_path)
    why = one_failure(files["tflite int8 uint8"]).why
    assert "LiteRT's plugin for Qualcomm wrote half a file" in why
    assert "bytes are needed" in why


@needs_qnn
def test_an_emulator_that_is_killed_is_an_error_and_the_next_call_starts_another(
    files: dict[str, Path], pixels: np.ndarray
) -> None:
    path = files["tflite int8 uint8"]
    with Hexagon("SM8750", find_chip("SM8750"), processes=1) as device:
        answers = device.predict(path, pixels[:1])
        (emulator,) = device._emulators.values()
        assert is_held(emulator._workers[0].pid)
        os.kill(emulator._workers[0].pid, signal.SIGKILL)
        with pytest.raises(DeviceError, match="in the emulator: its process was killed by SIGKILL"):
            device.predict(path, pixels[:1])
        assert np.array_equal(device.predict(path, pixels[:1]), answers)


@needs_qnn
def test_an_emulator_that_does_not_answer_is_ended(
    files: dict[str, Path], sm8750: Hexagon, pixels: np.ndarray, tmp_path: Path
) -> None:
    compiled = sm8750.compile(files["onnx int8 uint8"], tmp_path).files[0]
    with (
        Emulator(compiled, sm8750.chip, processes=1, timeout_s=0.0) as emulator,
        pytest.raises(DeviceError, match=r"in the emulator.*hangs on this file"),
    ):
        emulator.predict(pixels[:1])


@needs_qnn
def test_half_a_context_binary_does_not_load(files: dict[str, Path], sm8750: Hexagon, tmp_path: Path) -> None:
    compiled, binary = sm8750.compile(files["onnx int8 uint8"], tmp_path).files
    binary.write_bytes(binary.read_bytes()[: binary.stat().st_size // 2])
    with pytest.raises((InputError, DeviceError), match="in the emulator"):
        Emulator(compiled, sm8750.chip, processes=1)


@needs_qnn
def test_16_bit_activations_are_refused_with_the_reason(files: dict[str, Path], pixels: np.ndarray) -> None:
    with open_device("SM8750") as device:
        _, failures = bench(device, files["tflite int16x8 float32"], files["onnx int16x8 float32"])
        assert len(failures) == 2
        assert all("16-bit activations" in f.why and "wrong answers" in f.why for f in failures)
        with pytest.raises(DeviceError, match="16-bit activations"):
            device.predict(files["onnx int16x8 float32"], pixels.astype(np.float32))


@needs_qnn
def test_what_is_no_model_or_compiled_already_fails_and_the_others_go_on(
    files: dict[str, Path], compiled: Path, tmp_path: Path
) -> None:
    garbage, cut, xml, gone = (tmp_path / n for n in ("garbage.tflite", "cut.onnx", "model.xml", "gone.tflite"))
    garbage.write_bytes(b"garbage\n" * 100)
    cut.write_bytes(files["onnx int8 uint8"].read_bytes()[:5000])
    xml.write_text("<net/>")
    seen: list[tuple[int, int, str]] = []
    with open_device("SM8750") as device:
        whole = files["tflite int8 uint8"]
        paths = [garbage, cut, xml, gone, compiled, whole]
        from edgenet.device_bench.device import Request

        estimates, failures = device.bench([(p.name, p) for p in paths], Request(), lambda *step: seen.append(step))
    assert [e.artifact for e in estimates] == [whole.name]
    why = {f.artifact: f.why for f in failures}
    assert "no .tflite or .onnx file" in why["model.xml"]
    assert "compiled already: give the file that it was compiled from" in why[compiled.name]
    assert set(why) == {p.name for p in paths[:-1]}
    assert all(f.remedy and f.stage == "bench" and f.device == "qnn:SM8750" for f in failures)
    assert seen[-1] == (6, 6, whole.name)


@needs_qnn
def test_a_tflite_that_is_not_whole_on_the_npu_is_not_emulated(files: dict[str, Path], pixels: np.ndarray) -> None:
    with open_device("SM8750") as device:
        (e,), failures = bench(device, files["tflite dynamic float32"])
        assert failures == []
        assert 0 < sum(o.n for o in e.left) < e.n_operators
        assert all("does not take FLOAT_32, SFIXED_POINT_8" in o.why for o in e.left)
        (warning,) = e.warnings
        assert (warning.code, warning.value) == ("left-to-cpu", sum(o.n for o in e.left))
        assert "--precision int8 --io uint8" in warning.text
        with pytest.raises(DeviceError, match="stay on the CPU, and the emulator runs"):
            device.predict(files["tflite dynamic float32"], pixels.astype(np.float32))


def test_a_machine_without_the_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "qnn_folder", lambda: None)
    assert find() == []
    with pytest.raises(MissingDependency, match=r"qnn:SM8750 needs onnxruntime-qnn.*edgenet\[qnn\]"):
        open_device("SM8750")


@needs_qnn
def test_another_machine_than_linux_on_x86_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module.packages.platform, "machine", lambda: "aarch64")
    assert find() == []
    with pytest.raises(DeviceError, match="needs 64-bit Linux on x86"):
        open_device("SM8750")


def test_the_device_is_written_with_a_chip() -> None:
    assert parse("qnn:Galaxy S25") == ("qnn", "Galaxy S25")
    with pytest.raises(InputError, match="lacks its SOC: write qnn:SOC"):
        parse("qnn")


def test_nothing_heavy_is_loaded_to_open_a_device() -> None:
    assert "onnxruntime_qnn" not in sys.modules
