"""Runs in SQLite: each once, several writers at a time, and no database of anybody else's is touched."""

import hashlib
import os
import sqlite3
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from edgenet.errors import InputError
from edgenet.history import store
from edgenet.history.kept import content_of, kept
from edgenet.results import Results
from helpers.past_runs import a_run, written


@pytest.fixture
def run(tmp_path) -> Path:
    return written(tmp_path / "out", a_run(0))


@pytest.fixture
def database(tmp_path, run) -> Path:
    path = tmp_path / "runs.db"
    store.add(path, [run])
    return path


def rows(path: Path) -> list[store.Row]:
    with store.reading_history(path) as history:
        return history.rows()


def read(path: Path) -> None:
    with store.reading_history(path) as history:
        for row in history.rows():
            history.results(row.id)


def content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_kept_of_a_run_comes_back_as_it_was(database) -> None:
    with store.reading_history(database) as history:
        (row,) = history.rows()
        assert history.results(row.id).to_json() == kept(a_run(0)).to_json()


def test_the_same_run_added_twice_is_one_row(database, run, tmp_path) -> None:
    assert store.add(database, [run]) == [store.Added(run, False)]
    copy = written(tmp_path / "copy", a_run(0))
    assert store.add(database, [copy]) == [store.Added(copy, False)]
    (row,) = rows(database)
    assert row.place == copy  # where it was seen last


def test_a_command_that_found_everything_done_is_no_new_run(database, tmp_path) -> None:
    results = a_run(0)
    results.context = replace(results.context, created="2027-01-01T00:00:00+00:00", command="edgenet run again")
    store.add(database, [written(tmp_path / "again", results)])
    assert [r.created for r in rows(database)] == ["2026-05-01T05:02:11+00:00"]


@pytest.mark.parametrize("what", ["artifacts", "evaluations", "measurements"])
def test_a_run_that_made_or_measured_anything_else_is_another(what) -> None:
    changes = {
        "artifacts": {"sha256": "e" * 64},
        "evaluations": {"top1": 0.1},
        "measurements": {"samples_ns": (1,) * 120},
    }
    results = a_run(0)
    rows = getattr(results, what)
    rows[0] = replace(rows[0], **changes[what])
    assert content_of(results) != content_of(a_run(0))


def test_runs_stand_by_the_time_when_they_were_made_not_added(tmp_path) -> None:
    path = tmp_path / "runs.db"
    for n in (2, 0, 1):
        store.add(path, [written(tmp_path / f"run-{n}", a_run(n))])
    assert [r.place.name for r in rows(path)] == ["run-0", "run-1", "run-2"]


def test_times_with_other_zones_or_none_are_put_in_order(tmp_path) -> None:
    path, made = tmp_path / "runs.db", ("2026-05-03T01:00:00+03:00", "2026-05-02T23:00:00", "2026-05-02T22:30:00Z")
    for n, created in enumerate(made):
        results = a_run(n)
        results.context = replace(results.context, created=created)
        store.add(path, [written(tmp_path / f"run-{n}", results)])
    assert [r.created for r in rows(path)] == [f"2026-05-02T{t}:00+00:00" for t in ("22:00", "22:30", "23:00")]


@pytest.mark.parametrize("created", ["", "yesterday", "0001-01-01T00:00:00+14:00", "9" * 5000])
def test_a_run_that_does_not_say_when_it_was_made_stands_where_it_was_added(created, tmp_path) -> None:
    results = a_run(0)
    results.context = replace(results.context, created=created)
    store.add(tmp_path / "runs.db", [written(tmp_path / "out", results)])
    assert rows(tmp_path / "runs.db")[0].created > "2026-05-01"


def test_a_tree_with_database_and_runs_may_be_moved(tmp_path) -> None:
    written(tmp_path / "a/runs/out", a_run(0))
    store.add(tmp_path / "a/runs.db", [tmp_path / "a/runs/out"])
    (tmp_path / "a").rename(tmp_path / "b")
    assert rows(tmp_path / "b/runs.db")[0].place == tmp_path / "b/runs/out"


def test_a_run_elsewhere_is_found_from_anywhere(tmp_path, run, monkeypatch) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    store.add(Path("home/runs.db"), [Path("out")])
    monkeypatch.chdir("/")
    assert rows(tmp_path / "home/runs.db")[0].place == run


def test_a_folder_whose_name_is_no_utf8_is_kept(tmp_path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9 ?#%41"))
    written(folder, a_run(0))
    store.add(tmp_path / "runs.db", [folder])
    assert rows(tmp_path / "runs.db")[0].place == folder


def test_only_the_last_run_of_a_folder_is_what_lies_there(tmp_path, database, run) -> None:
    (run / "results.json").unlink()
    (run / "report.html").unlink()
    run.rmdir()
    store.add(database, [written(run, a_run(1))])
    assert [r.is_latest for r in rows(database)] == [False, True]


def test_of_several_runs_all_are_added_or_none(tmp_path, run) -> None:
    empty = written(tmp_path / "empty", Results())
    with pytest.raises(InputError, match="empty: it has no file and no figure"):
        store.add(tmp_path / "runs.db", [run, empty])
    assert not (tmp_path / "runs.db").exists()


# -------------------------------------------------------------------------------------------------- writers at one time

_ADDS = """
import sys
from pathlib import Path
from edgenet.history import store
for out in sys.argv[2:]:
    store.add(Path(sys.argv[1]), [Path(out)])
"""


def test_two_processes_that_write_at_once_lose_nothing(tmp_path) -> None:
    path = tmp_path / "runs.db"
    outs = [written(tmp_path / f"run-{n}", a_run(n)) for n in range(12)]
    shared = outs[:4]  # both add these
    parts = (outs[:8], [*shared, *outs[8:]])
    children = [subprocess.Popen([sys.executable, "-c", _ADDS, path, *part]) for part in parts]
    assert [c.wait(120) for c in children] == [0, 0]
    assert [r.place for r in rows(path)] == outs
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    assert [p.name for p in tmp_path.glob("runs.db*")] == ["runs.db"]  # no journal stays


def test_a_writer_waits_for_another_and_then_says_so(database, run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(store, "_WAIT_S", 0.1)
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(InputError, match=r"runs\.db: database is locked; another process writes to it, try again"):
            store.add(database, [written(tmp_path / "new", a_run(1))])
        assert len(rows(database)) == 1  # reading goes on
    finally:
        other.close()


def test_a_run_that_ended_is_not_lost_when_the_database_is_in_use(database, run, monkeypatch) -> None:
    monkeypatch.setattr(store, "_WAIT_S", 0.1)
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(InputError, match=r"is finished, but cannot use .*; then give `edgenet history .* --add .*out`"):
        store.add_finished(database, run)
    other.close()


# ----------------------------------------------------------------------------------------------- databases of strangers


def somebody_elses(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE notes (text)")
    connection.close()


def somebody_elses_with_a_log(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE notes (text)")
    connection.close()


def a_newer_schema(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA application_id = {store.APPLICATION}")
        connection.execute("PRAGMA user_version = 2")
        connection.execute("CREATE TABLE runs (id)")
    connection.close()


def _ours(path: Path) -> None:
    store.add(path, [written(path.parent / f"of-{path.name}", a_run(0))])


def cut(path: Path) -> None:
    _ours(path)
    os.truncate(path, 5000)


def overwritten(path: Path) -> None:
    _ours(path)
    with path.open("r+b") as f:
        f.seek(4096)
        f.write(b"\xa5" * 4096)


def with_a_trigger(path: Path) -> None:
    _ours(path)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM runs; END")
    connection.close()


def with_another_table(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA application_id = {store.APPLICATION}")
        connection.execute("PRAGMA user_version = 1")
        connection.execute("CREATE VIEW runs AS SELECT 1 AS id")
    connection.close()


def a_text(path: Path) -> None:
    path.write_text("id,when\n" * 40)


def a_folder(path: Path) -> None:
    path.mkdir()


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


STRANGERS = {
    somebody_elses: "is the database of another application",
    somebody_elses_with_a_log: "is the database of another application",
    a_newer_schema: "has schema 2, this edgenet knows 1: update edgenet",
    cut: "is damaged",
    overwritten: "is damaged",
    with_a_trigger: "is damaged .*its tables are not those that edgenet makes",
    with_another_table: "is damaged .*its tables are not those that edgenet makes",
    a_text: "is no database of edgenet's",
    a_folder: "is a folder, not a file",
    a_fifo: "is a FIFO, not a file",
}


@pytest.mark.parametrize("make", STRANGERS, ids=lambda f: f.__name__)
def test_a_strangers_database_is_a_line_and_stays_as_it_is(make, tmp_path) -> None:
    path = tmp_path / "x.db"
    make(path)
    out = written(tmp_path / "new", a_run(1))
    before = content(path) if path.is_file() else None
    beside = sorted(p.name for p in tmp_path.iterdir())

    def add() -> None:
        store.add(path, [out])

    for use in (add, lambda: read(path)):
        with pytest.raises(InputError, match=STRANGERS[make]) as e:
            use()
        assert "\n" not in str(e.value)
    assert (content(path) if path.is_file() else None) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == beside


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("results", b"no zlib"),
        ("results", zlib.compress(b"[]")),
        ("results", zlib.compress(b"{}")),
        ("results", zlib.compress(b"[" * 100_000)),
        ("results", zlib.compress(b'{"artifacts": [{"id": 1}]}')),
        ("results", "a text"),
        ("created", "yesterday"),
        ("created", b"2026"),
        ("created", "<script>alert(1)</script>"),
        ("place", "a text"),
        ("place", b""),
        ("place", b"a\0b"),
    ],
)
def test_a_row_that_is_not_as_edgenet_writes_it_is_a_line(sql, value, database) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute(f"UPDATE runs SET {sql} = ?", (value,))
    connection.close()
    with pytest.raises(InputError, match=r"runs\.db is damaged") as e:
        read(database)
    assert "\n" not in str(e.value)


def test_a_row_that_grows_beyond_all_bounds_is_refused_before_it_does(database, monkeypatch) -> None:
    monkeypatch.setattr(store, "RESULTS_BYTES", 1 << 20)
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE runs SET results = ?", (zlib.compress(b" " * (1 << 26)),))
    connection.close()
    with pytest.raises(InputError, match="is cut or too large"), store.reading_history(database) as history:
        history.results(1)


def test_a_database_that_is_not_there_is_made_by_adding_only(tmp_path) -> None:
    path = tmp_path / "runs.db"
    with pytest.raises(InputError, match=r"no file .*runs\.db: `edgenet history .* --add OUT` makes it"):
        rows(path)
    store.check(path)
    assert not path.exists()


def test_an_empty_file_becomes_a_database(tmp_path, run) -> None:
    path = tmp_path / "runs.db"
    path.touch()
    with pytest.raises(InputError, match="is empty"):
        rows(path)
    store.add(path, [run])
    assert len(rows(path)) == 1


def test_a_folder_that_is_not_there_is_said_before_the_work(tmp_path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        store.check(tmp_path / "gone/runs.db")
