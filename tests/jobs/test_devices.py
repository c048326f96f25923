"""jobs/devices.py: the files that chips ask for, what each takes, and what their emulators answer in a run."""

import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from edgenet import pipeline, targets
from edgenet.device_bench import Request, Worker
from edgenet.device_bench.registry import KINDS, Kind
from edgenet.errors import DeviceError, InputError
from edgenet.jobs import bench
from edgenet.jobs.devices import files_for, forms
from edgenet.options import Job
from edgenet.pipeline import run
from edgenet.results import Estimate, Failure, LeftOperators, Results
from helpers import tiny
from helpers.hand_built import an_artifact


class Chip:
    """An accelerator that takes int8 .tflite with uint8 input whole, and whose emulator is this machine."""

    kind = "chip"
    emulator: ClassVar[str] = "emulator 1.0"
    fail: ClassVar[dict[str, Exception]] = {}
    asked: ClassVar[list[tuple[str, int]]] = []

    def __init__(self, address: str) -> None:
        self.id = f"chip:{address}"
        if address in self.fail:
            raise self.fail[address]

    def info(self) -> dict[str, Any]:
        return {"machine": "npu", "emulator": self.emulator, "runtimes": {}}

    def bench(
        self, artifacts: Sequence[tuple[str, Path]], request: Request, progress: object = None
    ) -> tuple[list[Estimate], list[Failure]]:
        found = []
        for id, _ in artifacts:
            left = () if "_io-" in id else (LeftOperators("QUANTIZE", 1, "float32"),)
            found.append(Estimate(id, self.id, "compiler 1", "compiled", 5, 5 - len(left), left, compiled_bytes=1000))
        return found, []

    def predict(self, path: Path, batch: np.ndarray) -> np.ndarray:
        self.asked.append((path.name, len(batch)))
        with Worker(path) as worker:
            return worker.predict(batch)

    def __enter__(self) -> "Chip":
        return self

    def __exit__(self, *error: object) -> None:
        pass


@pytest.fixture
def chips(monkeypatch: pytest.MonkeyPatch) -> type[Chip]:
    module = types.ModuleType("edgenet.device_bench.chip_for_tests")
    module.open_device, module.find, module.__spec__ = Chip, list, types.SimpleNamespace()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(KINDS, "chip", Kind(module.__name__, "NAME"))
    row = targets.Target("chip", "a chip", targets.EXACT, ("tflite",), io_dtype="uint8", precisions=("int8",))
    monkeypatch.setitem(targets.TARGETS, "chip", row)
    monkeypatch.setitem(targets.OF_KIND, "chip", "chip")
    monkeypatch.setattr(Chip, "fail", {})
    monkeypatch.setattr(Chip, "asked", [])
    monkeypatch.setattr(bench, "RUN_PLAN", tiny.SHORT)
    return Chip


def job(folder: Path, out: Path, *devices: str, **more: Any) -> Job:
    given = {"precisions": ("float32", "int8"), "calibration_images": 10, "emulated_images": 12, **more}
    return Job("tiny", out, str(folder), devices=devices, **given)


# which files


def test_a_chip_asks_for_a_file_with_its_own_input_and_output(chips: type[Chip]) -> None:
    asked = forms(Job("m", Path("out"), devices=("local", "chip:a", "chip:b", "ethos-u:ethos-u55-256")))
    assert [(format, form.io, form.devices, form.tag) for format, form in asked] == [
        ("tflite", "uint8", ("chip:a", "chip:b"), "_io-uint8"),
        ("tflite", "int8", ("ethos-u:ethos-u55-256",), "_io-int8"),
    ]


def test_a_file_that_the_job_writes_anyway_is_not_written_twice(chips: type[Chip]) -> None:
    assert forms(Job("m", Path("out"), devices=("chip:a",), io="uint8")) == []
    assert forms(Job("m", Path("out"), devices=("chip:a",), precisions=("float32",))) == []
    assert forms(Job("m", Path("out"), devices=("local", "adb:X"))) == []


def test_a_chip_with_one_scale_for_dense_weights_gets_a_file_of_its_own() -> None:
    ((format, form),) = forms(Job("m", Path("out"), devices=("edgetpu",), io="uint8", target="x86-vnni"))
    assert (format, form.tag) == ("tflite", "_io-uint8-one-scale")
    assert forms(Job("m", Path("out"), devices=("edgetpu",), io="uint8", target="coral")) == []


def test_a_chip_that_takes_none_of_the_jobs_formats_gets_one_in_its_own(chips: type[Chip]) -> None:
    ((format, _),) = forms(Job("m", Path("out"), formats=("onnx",), devices=("chip:a",)))
    assert format == "tflite"


def test_a_device_takes_the_files_that_are_for_it(chips: type[Chip]) -> None:
    files = [an_artifact("float32", 1), an_artifact("int8", 1), an_artifact("int8", 1, id="x", format="onnx")]
    assert files_for("chip:a", files) == files[1:2]
    assert files_for("local", files) == files
    assert targets.not_for("chip:a", "tflite", "float32") == "it takes int8 files"
    assert targets.not_for("chip:a", "onnx", "int8") == "it takes tflite files"


# a run


@pytest.fixture
def tiny_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "find_source", tiny.source)
    tiny.shorten_timing(monkeypatch.setattr)


@pytest.mark.usefixtures("tiny_model")
def test_a_run_ends_with_every_device_in_one_results_file(chips: type[Chip], tiny_folder: Path, tmp_path: Path) -> None:
    results = run(job(tiny_folder, tmp_path / "out", "local", "chip:a", "chip:b"))
    assert results.failures == []
    assert [(a.id, a.made_for) for a in results.artifacts] == [
        ("tiny_float32.tflite", ()),
        ("tiny_int8.tflite", ()),
        ("tiny_int8_io-uint8.tflite", ("chip:a", "chip:b")),
    ]
    assert {(e.device, e.artifact) for e in results.estimates} == {
        (device, id) for device in ("chip:a", "chip:b") for id in ("tiny_int8.tflite", "tiny_int8_io-uint8.tflite")
    }
    assert {m.device for m in results.measurements} == {"local"}
    emulated = [e for e in results.evaluations if e.device != "local"]
    assert [(e.device, e.artifact, e.n_images, e.emulated) for e in emulated] == [
        (device, "tiny_int8_io-uint8.tflite", 12, "emulator 1.0") for device in ("chip:a", "chip:b")
    ]
    for e in emulated:
        assert e.reference == "tiny_float32.tflite"
        assert (e.outputs_compared, e.outputs_differing, e.agreement_here) == (60, 0, 1.0)
        here = next(x for x in results.evaluations if (x.artifact, x.device) == (e.artifact, "local"))
        assert e.agreement is not None
        assert here.n_images == 30
    assert Results.load(tmp_path / "out") == results


@pytest.mark.usefixtures("tiny_model")
def test_a_second_run_emulates_nothing_again_and_another_device_only_itself(
    chips: type[Chip], tiny_folder: Path, tmp_path: Path
) -> None:
    run(job(tiny_folder, tmp_path / "out", "local", "chip:a"))
    chips.asked.clear()
    run(job(tiny_folder, tmp_path / "out", "local", "chip:a"))
    assert chips.asked == []
    results = run(job(tiny_folder, tmp_path / "out", "local", "chip:a", "chip:b"))
    assert chips.asked == [("tiny_int8_io-uint8.tflite", 12)]
    assert results.artifacts[-1].made_for == ("chip:a", "chip:b")
    run(job(tiny_folder, tmp_path / "out", "local", "chip:a", emulated_images=20))
    assert chips.asked[1:] == [("tiny_int8_io-uint8.tflite", 20)]


@pytest.mark.usefixtures("tiny_model")
def test_a_chip_that_is_not_there_is_a_failure_with_a_remedy_and_the_run_goes_on(
    chips: type[Chip], tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = InputError("unknown chip 'c' (valid: a, b)")
    monkeypatch.setattr(chips, "fail", {"c": wrong, "d": DeviceError("its compiler was killed")})
    results = run(job(tiny_folder, tmp_path / "out", "local", "chip:c", "chip:d", "chip:a"))
    assert [(f.stage, f.device, f.why) for f in results.failures] == [
        ("bench", "chip:c", str(wrong)),
        ("bench", "chip:d", "its compiler was killed"),
    ]
    assert all(f.remedy for f in results.failures)
    assert {e.device for e in results.evaluations} == {"local", "chip:a"}
    with pytest.raises(InputError, match="unknown chip 'c'"):
        run(job(tiny_folder, tmp_path / "alone", "chip:c"))
    assert not (tmp_path / "alone").exists()


@pytest.mark.usefixtures("tiny_model")
def test_an_emulator_that_dies_is_a_failure_of_its_device_alone(
    chips: type[Chip], tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Chip, path: Path, batch: np.ndarray) -> np.ndarray:
        if self.id == "chip:a":
            raise DeviceError("the emulator was ended by signal 9")
        return np.full((len(batch), 5), 0.2, np.float32)

    monkeypatch.setattr(chips, "predict", killed)
    results = run(job(tiny_folder, tmp_path / "out", "local", "chip:a", "chip:b"))
    assert [(f.stage, f.device, f.why) for f in results.failures] == [
        ("evaluate", "chip:a", "the emulator was ended by signal 9")
    ]
    (e,) = (e for e in results.evaluations if e.device == "chip:b")
    assert e.agreement is not None
    assert e.agreement < 0.5
    assert e.outputs_differing
    assert e.agreement_here is not None


@pytest.mark.usefixtures("tiny_model")
def test_the_emulator_runs_the_next_best_file_where_it_does_not_take_the_best(
    chips: type[Chip], tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = chips.predict

    def only_float_input(self: Chip, path: Path, batch: np.ndarray) -> np.ndarray:
        if "_io-" in path.name:
            raise InputError("the emulator takes no integer input")
        return answer(self, path, batch)

    monkeypatch.setattr(chips, "predict", only_float_input)
    results = run(job(tiny_folder, tmp_path / "out", "local", "chip:a"))
    assert results.failures == []
    assert [e.artifact for e in results.evaluations if e.device == "chip:a"] == ["tiny_int8.tflite"]


@pytest.mark.usefixtures("tiny_model")
def test_a_chip_for_which_there_is_no_file_is_a_failure_that_says_what_it_takes(
    chips: type[Chip], tiny_folder: Path, tmp_path: Path
) -> None:
    results = run(job(tiny_folder, tmp_path / "out", "local", "chip:a", precisions=("float32",)))
    (f,) = results.failures
    assert (f.device, f.artifact) == ("chip:a", "")
    assert f.why == "no file of this run is for it: it takes int8 tflite files"
    assert f.remedy == "add --precision int8"


@pytest.mark.usefixtures("tiny_model")
def test_files_of_an_earlier_run_stay_as_they_are_where_a_chip_joins(
    chips: type[Chip], tiny_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    before = run(job(tiny_folder, out, "local")).artifacts
    after = run(job(tiny_folder, out, "local", "chip:a")).artifacts
    assert [a.sha256 for a in after[:2]] == [a.sha256 for a in before]
    assert after[2].made_for == ("chip:a",)
