"""From runs to trends: which figures there are, which run each is held against, and what is worse."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgenet.compare.nouns import ACCURACY, LATENCY, SIZE
from edgenet.errors import InputError
from edgenet.history import store
from edgenet.history.figures import ESTIMATE, Series, figures_of
from edgenet.history.options import HistoryJob
from edgenet.history.trends import PastRun, past_runs, selected, trends_of
from edgenet.results import Estimate, Failure, Results, Warning
from helpers.past_runs import a_run, written

INT8 = "efficientnet-lite0_int8"


def history_of(tmp_path: Path, *runs: Results, **asked: object) -> tuple[PastRun, ...]:
    database = tmp_path / "runs.db"
    store.add(database, [written(tmp_path / f"run-{n}", r) for n, r in enumerate(runs)])
    with store.reading_history(database) as history:
        return past_runs(history, HistoryJob(**asked))


def worse(run: PastRun) -> list[tuple[str, str]]:
    return sorted((s.file, s.aspect) for s in run.worse)


def test_a_run_has_a_figure_for_each_file_and_aspect_with_its_interval() -> None:
    found = {(f.series.file, f.series.aspect): f for f in figures_of(a_run(0))}
    assert len(found) == 5 * 3
    right, time, size = (found[INT8, a] for a in (ACCURACY, LATENCY, SIZE))
    assert (right.low, right.high) == pytest.approx((right.value - 0.015, right.value + 0.014))
    assert right.n == 2000
    assert time.low is not None
    assert time.high is not None
    assert time.low < time.value < time.high < 1.1 * time.value
    assert (size.value, size.low) == (5_316_608, None)


def test_a_latency_says_on_which_machine_and_how() -> None:
    (series,) = (f.series for f in figures_of(a_run(0)) if (f.series.file, f.series.aspect) == (INT8, LATENCY))
    assert series == Series("efficientnet-lite0", INT8, LATENCY, "local", "litert", "build-7", "2 threads")


def test_an_estimate_is_no_measurement() -> None:
    run = a_run(0)
    run.put(Estimate(INT8, "ethos-u:x", "Vela 5.2", "compiled", 2, 2, inference_ms=3.0, inference_bounds_ms=(2.0, 4.0)))
    (found,) = (f for f in figures_of(run) if f.series.device == "ethos-u:x")
    assert (found.series.aspect, found.series.how, found.value) == (ESTIMATE, "Vela", 3.0)


def test_pictures_without_labels_have_no_accuracy() -> None:
    run = a_run(0)
    run.evaluations = [replace(e, n_labelled=0, top1=None, top1_ci95=None) for e in run.evaluations]
    assert {f.series.aspect for f in figures_of(run)} == {LATENCY, SIZE}


def test_runs_that_differ_by_chance_are_not_worse(tmp_path) -> None:
    assert [worse(run) for run in history_of(tmp_path, *map(a_run, range(6)))] == [[]] * 6


def test_a_planted_slowdown_loss_and_growth_are_each_found_where_they_began(tmp_path) -> None:
    runs = history_of(
        tmp_path, a_run(0), a_run(1, slower=1.2), a_run(2, slower=1.2, worse=0.1),
        a_run(3, slower=1.2, worse=0.1, larger=200_000), a_run(4, slower=1.2, worse=0.1, larger=200_000),
    )  # fmt: skip
    assert [worse(run) for run in runs] == [[], [(INT8, LATENCY)], [(INT8, ACCURACY)], [(INT8, SIZE)], []]
    assert runs[1].before[next(iter(runs[1].worse))] == 1


def test_the_limits_of_compare_decide_on_marks(tmp_path) -> None:
    runs = (a_run(0), a_run(1, slower=1.2, larger=200_000))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert worse(history_of(tmp_path / "a", *runs)[1]) == [(INT8, LATENCY), (INT8, SIZE)]
    assert worse(history_of(tmp_path / "b", *runs, max_slowdown="50%", max_growth="10%")[1]) == []


def test_machines_that_take_turns_are_each_held_against_their_own_past(tmp_path) -> None:
    slow = {"host": "build-8", "slower": 2.0}
    runs = history_of(tmp_path, a_run(0), a_run(1, **slow), a_run(2), a_run(3, **slow), a_run(4, slower=1.2))
    assert [worse(run) for run in runs] == [[], [], [], [], [(INT8, LATENCY)]]
    latency = [t for t in trends_of(runs) if (t.series.file, t.series.aspect) == (INT8, LATENCY)]
    assert [(t.series.machine, len(t.points)) for t in latency] == [("build-7", 3), ("build-8", 2)]
    assert [t.newest.worse is not None for t in latency] == [True, False]


def test_a_file_that_failed_where_the_run_before_had_it_is_lost(tmp_path) -> None:
    broken = a_run(1)
    broken.evaluations = [e for e in broken.evaluations if e.artifact != INT8]
    broken.put(Failure("evaluate", INT8, why="it crashed", remedy="look"))
    (lost,) = history_of(tmp_path, a_run(0), broken)[1].lost
    assert (lost.file, lost.aspect, lost.how) == (INT8, ACCURACY, "failed")


def test_runs_that_cannot_be_compared_say_why(tmp_path) -> None:
    other = a_run(1)
    other.artifacts = [replace(a, options={"labels": "b"}) for a in other.artifacts]
    first = a_run(0)
    first.artifacts = [replace(a, options={"labels": "a"}) for a in first.artifacts]
    run = history_of(tmp_path, first, other)[1]
    assert "classes have other names" in run.refused
    assert worse(run) == []


def test_a_figure_that_cannot_be_compared_is_not_called_as_good(tmp_path) -> None:
    busy = a_run(1, slower=1.2)
    busy.measurements = [replace(m, warnings=(Warning("busy", "other programs ran"),)) for m in busy.measurements]
    runs = history_of(tmp_path, a_run(0), busy)
    assert worse(runs[1]) == []
    assert {(s.file, s.aspect, f.how) for s, f in runs[1].unclear.items() if s.file == INT8} == {
        (INT8, LATENCY, "unsteady")
    }
    (newest,) = (t.newest for t in trends_of(runs) if (t.series.file, t.series.aspect) == (INT8, LATENCY))
    assert newest.unclear is not None


def test_runs_of_other_models_do_not_meet(tmp_path) -> None:
    other = a_run(1, slower=3.0)
    other.artifacts = [replace(a, id=f"x_{a.precision}", model="x") for a in other.artifacts]
    other.evaluations = [replace(e, artifact=f"x_{e.artifact.rpartition('_')[2]}") for e in other.evaluations]
    other.measurements = [replace(m, artifact=f"x_{m.artifact.rpartition('_')[2]}") for m in other.measurements]
    runs = history_of(tmp_path, a_run(0), other, a_run(2))
    assert [run.refused for run in runs] == ["", "", ""]
    assert {t.series.model: len(t.points) for t in trends_of(runs)} == {"efficientnet-lite0": 2, "x": 1}


# ---------------------------------------------------------------------------------------------------- what is asked for


def test_runs_are_chosen_by_model_device_file_and_day(tmp_path) -> None:
    phone = a_run(1)
    phone.measurements = [replace(m, device="adb:1234") for m in phone.measurements[:1]]
    runs = history_of(tmp_path, a_run(0), phone, a_run(2))

    def chosen(**asked: object) -> list[int]:
        return [run.row.id for run in selected(runs, HistoryJob(**asked))]

    assert chosen() == [1, 2, 3]
    assert chosen(devices=("adb:*",)) == [2]
    assert chosen(since="2026-05-02") == [2, 3]
    assert chosen(models=("efficientnet-*",), since="2026-05-03") == [3]
    (run,) = selected(runs, HistoryJob(devices=("adb:1234",)))
    assert {(f.series.file, f.series.aspect) for f in run.figures} == {
        ("efficientnet-lite0_float32", LATENCY),
        ("efficientnet-lite0_float32", SIZE),
    }
    assert {f for run in selected(runs, HistoryJob(files=("*_int8",))) for f in run.files} == {INT8}


def test_what_was_worse_stays_marked_when_the_run_before_was_not_asked_for(tmp_path) -> None:
    runs = history_of(tmp_path, a_run(0), a_run(1, slower=1.2))
    assert [worse(run) for run in selected(runs, HistoryJob(since="2026-05-02"))] == [[(INT8, LATENCY)]]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"models": ("b0",)}, r"--model b0 fits nothing in the database \(it has efficientnet-lite0\)"),
        ({"devices": ("adb:1",)}, r"--device adb:1 fits nothing in the database \(it has local\)"),
        ({"files": ("x",)}, "--file x fits nothing"),
    ],
)
def test_a_name_that_fits_nothing_is_a_line(asked, says, tmp_path) -> None:
    runs = history_of(tmp_path, a_run(0))
    with pytest.raises(InputError, match=says):
        selected(runs, HistoryJob(**asked))


@pytest.mark.parametrize("since", ["yesterday", "2026-13-01", "2026", "2026-11-24T05"])
def test_since_takes_a_day(since) -> None:
    with pytest.raises(InputError, match="--since takes a day such as 2026-11-24"):
        HistoryJob(since=since)
