"""`edgenet run --dry-run`: it says what the run does, refuses what the run refuses, and writes nothing."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from edgenet import pipeline
from edgenet.dry_run import text, times
from edgenet.dry_run.plan import COMPILED, MEASURED, plan
from edgenet.dry_run.times import Measured, measure, steps_of
from edgenet.errors import InputError
from edgenet.files import LOCK_FILE
from edgenet.options import Job
from edgenet.results import Results
from helpers import tiny
from helpers.command_line import Edgenet

NOW = Measured(0.010, 0.002, {"litert": 0.3}, 1_000_000, False)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "find_source", tiny.source)
    monkeypatch.setattr(times, "_START_TIMEOUT_S", 60)


@pytest.fixture
def job(tiny_folder: Path, tmp_path: Path) -> Job:
    return Job("tiny", tmp_path / "OUT", str(tiny_folder), calibration_images=10)


def everything(folder: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in sorted(folder.rglob("*"))}


def test_the_plan_is_what_the_run_then_makes(edgenet: Edgenet, tiny_folder, tmp_path) -> None:
    asked = ("run", "tiny", "--images", tiny_folder, "--out", tmp_path / "OUT", "--precision", "float32", "--precision",
             "int8", "--format", "tflite", "--format", "onnx", "--calibration-images", 10)  # fmt: skip
    before = everything(tmp_path)
    said = edgenet(*asked, "--dry-run", "--json")
    assert said.returncode == 0, said.stderr
    assert everything(tmp_path) == before
    plan = json.loads(said.stdout)
    done = edgenet(*asked)
    assert done.returncode == 0, done.stderr
    results = Results.load(tmp_path / "OUT")
    assert {Path(f["path"]).name for f in plan["files"]} == {a.path for a in results.artifacts}
    assert all(f["io"] == a.io_dtype for f, a in zip(plan["files"], results.artifacts, strict=True))
    images = results.context.images
    assert (plan["pictures"]["calibrate"], plan["pictures"]["measure"]) == (images.calibration.n, images.evaluation.n)
    assert plan["devices"] == [{"device": "local", "how": "measured", "n_files": 4}]
    assert len(results.measurements) == 4
    assert plan["findings"][0]["message"] == results.context.calibration_findings[0].message

    again = json.loads(edgenet(*asked, "--dry-run", "--json").stdout)
    assert all(f["is_there"] for f in again["files"])
    assert [f["size_bytes"] for f in again["files"]] == [a.size_bytes for a in results.artifacts]
    assert again["steps"] == []
    assert "An earlier run did all of it" in edgenet(*asked, "--dry-run").stdout

    more = json.loads(edgenet(*asked, "--precision", "float16", "--dry-run", "--json").stdout)
    assert [f["is_there"] for f in more["files"]] == [True] * 4 + [False] * 2
    assert [s["name"] for s in more["steps"]] == ["export", "evaluate", "bench"]
    assert "but for 4 with a median of the run before" in more["steps"][-1]["how"]


def test_the_terminal_says_the_same_in_words(edgenet: Edgenet, tiny_folder, tmp_path) -> None:
    said = edgenet("run", "tiny", "--images", tiny_folder, "--out", tmp_path / "OUT", "--calibration-images", 10,
                   "--dry-run")  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert "tiny_int8.tflite" in said.stdout
    assert "10 calibrate, 30 measure (30 of them labelled)" in said.stdout
    assert "Device local: times 4 files" in said.stdout
    assert "Nothing was written." in said.stdout
    assert not (tmp_path / "OUT").exists()


def test_devices_ask_for_files_and_chips_compile(job) -> None:
    found = plan(replace(job, precisions=("float32", "int8"), devices=("local", "ethos-u:ethos-u55-256")))
    assert [(d.device, d.how) for d in found.devices] == [("local", MEASURED), ("ethos-u:ethos-u55-256", COMPILED)]
    assert found.files[-1].made_for == ("ethos-u:ethos-u55-256",)
    assert found.files[-1].io == "int8"
    assert found.pictures.emulated == 30
    assert [s.what for s in found.steps if s.name == "compile"] == ["ethos-u:ethos-u55-256"]


@pytest.mark.parametrize("change", [
    ({"precisions": ("int9",)}, "unknown precision 'int9'"),
    ({"devices": ("phone",)}, "unknown device 'phone'"),
    ({"images": "nowhere"}, "nowhere"),
    ({"images": None}, "needs images"),
    ({"keep": ("no_such_layer=float32",)}, "no_such_layer"),
    ({"allow": ("no-such-code",)}, "no-such-code"),
], ids=lambda c: next(iter(c[0])))  # fmt: skip
def test_what_the_run_refuses_at_once_is_refused(change, job) -> None:
    with pytest.raises(InputError, match=change[1]):
        plan(replace(job, **change[0]))
    assert not job.out.exists()


def test_a_folder_that_the_run_would_refuse_is_refused(job, edgenet: Edgenet, tiny_folder) -> None:
    from helpers.past_runs import a_run, written

    written(job.out, a_run(0))
    with pytest.raises(InputError, match="holds files of efficientnet-lite0"):
        plan(job)


def test_a_file_of_the_users_that_the_run_would_not_replace_is_told(job) -> None:
    job.out.mkdir()
    (job.out / "tiny_int8.tflite").write_text("mine")
    with pytest.raises(InputError, match=r"tiny_int8\.tflite is there already, and edgenet did not make it"):
        plan(job)
    assert (job.out / "tiny_int8.tflite").read_text() == "mine"


def test_a_folder_in_use_is_told_and_its_lock_stays(job) -> None:
    import fcntl

    job.out.mkdir()
    with (job.out / LOCK_FILE).open("wb") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="is in use by another run"):
            plan(job)
    assert plan(job).files  # of a run that was killed
    assert (job.out / LOCK_FILE).exists()


def test_a_place_below_a_file_is_told(job, tmp_path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is no folder that you may write to"):
        plan(replace(job, out=tmp_path / "file" / "OUT"))


# ------------------------------------------------------------------------------------------------------------- times


def estimated(job: Job, monkeypatch: pytest.MonkeyPatch, now: Measured = NOW, results: Results | None = None):
    monkeypatch.setattr(times, "measure", lambda *_: now)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    prepared = pipeline.prepare(job)
    there = [False] * len(pipeline.files_of_job(job))
    return {s.name: s for s in steps_of(job, prepared, results or Results(), there)}


def test_times_are_computed_from_what_was_measured(job, monkeypatch) -> None:
    steps = estimated(replace(job, precisions=("float32", "int8")), monkeypatch)
    busy = 22 * 0.010 * 10 + 1.5
    assert steps["calibrate"].seconds == pytest.approx((busy / 2, 2 * busy))
    about = 30 * (0.002 + 2 * 0.010 / 2) + 2 * 0.3  # pictures, and the start of a process a file
    assert steps["evaluate"].seconds == pytest.approx((about / 2, about * 2))
    short, long = 0.3 / 2 + 0.1 + 1.0 / 10, 0.3 * 2 + 0.1 + 1.0 / 10  # a turn: 5 runs take less than a tenth of 1 s
    assert steps["bench"].seconds == pytest.approx((10 * 3 * short, 3 * (3.0 + 0.3) + 20 * 3 * long))
    assert steps["export"].seconds is None


def test_a_slower_network_takes_longer_in_every_step(job, monkeypatch) -> None:
    first = estimated(job, monkeypatch)
    second = estimated(job, monkeypatch, replace(NOW, run_s=0.1, n_weights=10**7))
    for name in ("calibrate", "evaluate", "bench"):
        assert second[name].seconds[0] > first[name].seconds[0]


@pytest.mark.parametrize(("change", "now"), [({"corrections": ()}, NOW), ({"calibration_method": "mse"}, NOW),
                                             ({}, replace(NOW, gated=True))])  # fmt: skip
def test_what_cannot_be_told_is_left_open_with_the_reason(change, now, job, monkeypatch) -> None:
    step = estimated(replace(job, **change), monkeypatch, now)["calibrate"]
    assert step.seconds is None
    assert step.how.startswith("cannot be told")


def test_nothing_calibrates_where_only_float_files_are_made(job, monkeypatch) -> None:
    assert "calibrate" not in estimated(replace(job, precisions=("float32", "float16")), monkeypatch)


def test_a_search_and_another_machine_cannot_be_told(job, monkeypatch) -> None:
    steps = estimated(replace(job, precisions=("float32", "int8"), min_sqnr=30.0), monkeypatch)
    assert "depends on what it finds" in steps["export"].how
    monkeypatch.setattr(pipeline, "check_run", lambda *_: None)
    phone = estimated(replace(job, devices=("adb:X",)), monkeypatch)["bench"]
    assert phone.seconds is None


def test_what_is_measured_now_is_measured(job) -> None:
    found = measure(pipeline.prepare(job), ["litert"])
    assert 0 < found.run_s < 60
    assert 0 < found.decode_s < 60
    assert found.start_s["litert"] > 0
    assert found.n_weights == sum(t.data.size for t in tiny.graph().tensors.values() if t.data is not None)
    assert not found.gated


@pytest.mark.parametrize(
    ("seconds", "words"),
    [((5.2, 21.0), "5 to 21 s"), ((51.7, 206.9), "0.9 to 3 minutes"), ((300, 1200), "5 to 20 minutes"),
     ((4000, 16000), "1 to 4 hours"), ((0.04, 0.16), "0.04 to 0.2 s"),
     ((9.6, 26.2), "10 to 26 s")],
)  # fmt: skip
def test_durations_are_rounded_to_what_an_estimate_is_worth(seconds, words) -> None:
    assert text.duration(seconds) == words
