"""`edgenet history` and `run --history` as their users meet them."""

import json
from pathlib import Path

import pytest

from helpers.command_line import Edgenet
from helpers.past_runs import a_run, written


def test_a_run_adds_itself_and_the_history_lists_it(tmp_path, tiny_folder, edgenet: Edgenet) -> None:
    database, out = tmp_path / "runs.db", tmp_path / "out"
    done = edgenet("run", "tiny", "--images", tiny_folder, "--out", out, "--precision", "int8", "--precision",
                   "float32", "--calibration-images", 10, "--history", database)  # fmt: skip
    assert done.returncode == 0, done.stderr
    listed = edgenet("history", database, "--file", "*_int8*", "--json")
    assert listed.returncode == 0, listed.stderr
    (run,) = json.loads(listed.stdout)["runs"]
    results = json.loads((out / "results.json").read_text())
    by_aspect = {f["aspect"]: f for f in run["figures"]}
    assert run["place"] == str(out)
    assert by_aspect["accuracy"]["value"] == next(
        e["top1"] for e in results["evaluations"] if e["artifact"] == "tiny_int8.tflite"
    )
    assert by_aspect["latency"]["value"] == next(
        m["median_ms"] for m in results["measurements"] if m["artifact"] == "tiny_int8.tflite"
    )
    assert by_aspect["size"]["value"] == (out / "tiny_int8.tflite").stat().st_size
    paged = edgenet("history", database, "--page", tmp_path / "page")
    assert paged.returncode == 0, paged.stderr
    assert 'href="../out/report.html"' in (tmp_path / "page/index.html").read_text()


def test_a_database_of_somebody_elses_stops_a_run_before_the_work(tmp_path, tiny_folder, edgenet: Edgenet) -> None:
    (tmp_path / "notes.txt").write_text("mine " * 40)
    done = edgenet("run", "tiny", "--images", tiny_folder, "--out", tmp_path / "out", "--history",
                   tmp_path / "notes.txt")  # fmt: skip
    assert done.returncode == 2
    assert "notes.txt is no database of edgenet's: it stays as it is" in done.stderr
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine " * 40


def test_several_folders_are_added_at_once_and_the_table_says_what_is_worse(tmp_path, edgenet: Edgenet) -> None:
    outs = [written(tmp_path / f"run-{n}", a_run(n, slower=1.0 + 0.3 * n)) for n in range(2)]
    done = edgenet("history", tmp_path / "runs.db", "--add", *outs)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("was added") == 2
    assert "run 2 is worse than run 1: efficientnet-lite0_int8: latency" in done.stdout
    assert "2 runs from 2026-05-01 to 2026-05-02; in 1 of them something is worse than before" in done.stdout
    again = edgenet("history", tmp_path / "runs.db", "--add", outs[0], "--json")
    assert json.loads(again.stdout)["added"] == [{"out": str(outs[0]), "is_new": False}]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("runs.db",), "no file runs.db: `edgenet history runs.db --add OUT` makes it"),
        (("runs.db", "--add", "gone"), "no results.json in gone: give the --out folder of an earlier run"),
        (("runs.db", "out"), "what is out? Give `edgenet history runs.db --add out` to add a run"),
        (("out", "--add", "out"), "out is a folder, not a file"),
        (("gone/runs.db", "--add", "out"), "cannot open gone/runs.db: unable to open database file"),
        (("runs.db", "--add", "out", "--since", "now"), "--since takes a day such as 2026-11-24, it was 'now'"),
        (("runs.db", "--add", "out", "--max-slowdown", "3"), "--max-slowdown takes per cent, such as 3% or 0.5%"),
        (("runs.db", "--add", "out", "--model", "x"), "--model x fits nothing in the database"),
        (("", "--add", "out"), "the path is empty"),
    ],
)
def test_what_is_wrong_is_a_line_and_exit_status_2(args, says, tmp_path: Path, edgenet: Edgenet) -> None:
    written(tmp_path / "out", a_run(0))
    done = edgenet("history", *args, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
