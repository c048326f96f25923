"""`edgenet paper`: what it measures, that it goes on where it was killed, and what does not fit."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgenet.device_bench.timing import Plan
from edgenet.errors import DeviceError, InputError
from edgenet.jobs import paper, paper_files
from edgenet.jobs.paper_files import in_child
from edgenet.options import PaperJob
from edgenet.paper.networks import counts, published_name, scaled_counts
from edgenet.paper.plan import (
    LADDER,
    PAIRS,
    PAPER_PLAN,
    PAPER_RUNS,
    RUNTIMES,
    about,
    file_id,
    paper_of,
    steps,
    time_plan,
    too_large,
)
from helpers import paper_tiny


def run(*args: object, kill: int = 0) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PAPER_KILL": str(kill)}
    command = [sys.executable, paper_tiny.__file__, "paper", *map(str, args)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def measured(out: Path) -> dict[tuple[Any, ...], list[float]]:
    found = json.loads((out / "results.json").read_text())["measurements"]
    return {(m["artifact"], m["runtime"], m["threads"]): m["samples_ms"] for m in found}


@pytest.fixture(scope="module")
def resumed(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(the folder of a run that was killed before its second timing, the same run whole, by the same command)."""
    killed = tmp_path_factory.mktemp("paper") / "killed"
    assert run("--out", killed, "--quick", "--images", tiny_folder, kill=2).returncode == -9
    whole = killed.parent / "whole"
    shutil.copytree(killed, whole)
    done = run("--out", whole, "--quick", "--images", tiny_folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("Time plan:")
    return killed, whole


def test_a_run_that_was_killed_goes_on_and_measures_nothing_twice(resumed: tuple[Path, Path]) -> None:
    before, after = map(measured, resumed)
    assert {runtime for _, runtime, _ in before} == {"litert"}
    assert {runtime for _, runtime, _ in after} == {"litert", "openvino", "onnxruntime"}
    assert len(after) == 6
    assert all(after[key] == samples for key, samples in before.items())


def test_table_4_is_timed_as_the_paper_did_it_and_its_files_are_not_kept(resumed: tuple[Path, Path]) -> None:
    out = resumed[1]
    results = json.loads((out / "results.json").read_text())
    for m in results["measurements"]:
        assert (m["n_runs"], m["threads"], len(m["device_info"]["pinned_to"])) == (20, 1, 1)
        assert len(set(m["rounds"])) == 10
    assert results["context"]["paper"]["counts"]["efficientnet-b1"]["parameters"] == 7_794_184
    assert [p.name for p in (out / "files" / "table4").iterdir()] == []
    assert {p.name for p in out.iterdir()} == {"files", "results.json", "paper.html", "paper.md", "paper.csv"}


@pytest.mark.long
def test_the_lite_table_measures_accuracy_where_weights_and_labels_are(tmp_path: Path, tiny_folder: Path) -> None:
    out = tmp_path / "out"
    done = run("--out", out, "--quick", "--table", "lite", "--images", tiny_folder)
    assert done.returncode == 0, done.stderr
    results = json.loads((out / "results.json").read_text())
    assert {e["artifact"] for e in results["evaluations"]} == {
        "efficientnet-lite0_float32.tflite",
        "efficientnet-lite0_int8.tflite",
    }
    assert all(e["top1"] is not None for e in results["evaluations"])
    assert (out / "files" / "efficientnet-lite0_int8.tflite").exists()
    assert not (out / "files" / "efficientnet-lite1_int8.tflite").exists(), "random weights are of no use to anyone"
    assert {m["threads"] for m in results["measurements"]} == {1, min(4, os.cpu_count() or 1)}
    again = run("--out", out, "--quick", "--table", "lite", "--images", tiny_folder)
    assert "Everything is measured" in again.stderr


def test_other_pictures_are_not_mixed_with_earlier_ones(tmp_path: Path, tiny_folder: Path) -> None:
    out = tmp_path / "out"
    assert run("--out", out, "--table", "5", "--images", tiny_folder).returncode == 0
    done = run("--out", out, "--table", "5", "--images", "sample")
    assert done.returncode == 2
    assert "other images" in done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--table", "6"), "valid: 2, 3, 4, 5, 7, lite, ladder"),
        (("--device", "toaster"), "unknown device"),
        (("--images", "nowhere"), "nowhere"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(args: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = run("--out", tmp_path / "out", *args)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "out").exists()


def test_without_out_nothing_begins() -> None:
    assert "--out is missing" in run("--quick").stderr


def test_quick_leaves_out_gpipe_and_all_of_it_has_every_variant() -> None:
    quick, whole = steps(PaperJob(Path("x"), quick=True)), steps(PaperJob(Path("x")))
    assert [s.networks for s in quick] == [PAIRS[0]]
    assert [s.networks for s in whole[:2]] == list(PAIRS)
    assert {n for s in whole[2:] for n in s.networks} == set(LADDER)
    assert {b.runtime for b in whole[0].benches} == set(RUNTIMES)


def test_every_device_is_measured_on_and_only_this_machine_is_pinned() -> None:
    job = PaperJob(Path("x"), tables=("ladder",), devices=("local", "adb:X"))
    for step in steps(job):
        assert [(b.device, b.pinned) for b in step.benches] == [("local", True), ("adb:X", False)]


def test_a_network_of_two_gigabytes_is_no_flatbuffer() -> None:
    assert "2.2 GB" in too_large("amoebanet-b", "tflite", None)
    assert too_large("amoebanet-b", "openvino", None) == too_large("amoebanet-b", "onnx", None) == ""
    assert "memory" in too_large("amoebanet-b", "openvino", 4 * 10**9)
    assert too_large("efficientnet-b7", "tflite", 4 * 10**9) == ""


def test_what_cannot_fit_is_noted_without_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgenet.results import Results

    monkeypatch.setattr(paper, "memory_left_bytes", lambda: 10**9)
    results = Results()
    step = next(s for s in steps(PaperJob(Path("x"), tables=("4",))) if "amoebanet-b" in s.networks)
    paper._left(step, results, None)  # type: ignore[arg-type]
    said = {f.artifact: f.why for f in results.failures if f.stage == "fit"}
    assert set(said) >= {file_id("amoebanet-b", f, "float32", "table4") for f in RUNTIMES.values()}
    assert "memory" in said["table4/amoebanet-b_float32.xml"]


def test_a_child_that_is_killed_is_an_error_and_not_the_end() -> None:
    with pytest.raises(DeviceError, match="memory"):
        in_child(os._exit, 9)


def test_the_time_plan_names_every_step_and_their_sum() -> None:
    planned = steps(PaperJob(Path("x")))
    lines = time_plan(planned)
    assert [s.title for s in planned] == [line[12:].strip() for line in lines[1:-1]]
    assert "in all" in lines[-1]
    assert [about(s) for s in (12.4, 600, 7200)] == ["12 s", "10 min", "2.0 h"]


def test_the_paper_s_twenty_runs_are_in_rounds_enough_for_an_interval() -> None:
    from edgenet.device_bench.comparison import signed_rank_critical

    plan: Plan = PAPER_PLAN
    assert plan.min_runs == PAPER_RUNS == 20
    assert plan.rounds == plan.max_rounds
    assert signed_rank_critical(plan.rounds, 0.02) > 0


def test_networks_are_called_as_in_the_paper() -> None:
    assert [published_name(n) for pair in PAIRS for n in pair] == [
        "ResNet-152", "EfficientNet-B1", "GPipe", "EfficientNet-B7",
    ]  # fmt: skip


def test_the_networks_of_tables_3_and_7_are_counted_by_the_names_that_the_page_looks_up() -> None:
    seven, three = scaled_counts("7"), scaled_counts("3")
    assert (len(seven), len(three)) == (5, 14)
    assert seven["table 7: EfficientNet-B0, Baseline model (EfficientNet-B0)"] == counts("efficientnet-b0")
    assert three["table 3: ResNet-50, resolution r=2"].multiply_adds == pytest.approx(16.4e9, rel=0.01)


def test_a_network_that_cannot_be_counted_is_said_and_the_others_are() -> None:
    found, problems = paper_files._count_all(["efficientnet-b0", "nothing-net"])
    assert (set(found), set(problems)) == ({"efficientnet-b0"}, {"nothing-net"})


def test_results_of_another_command_are_not_taken_for_the_paper_s() -> None:
    from edgenet.results import Results

    with pytest.raises(InputError, match="edgenet paper"):
        paper_of(Results())
