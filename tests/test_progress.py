"""Progress in a log: plain lines on stderr, a stage at a time and seldom, and none in the way of --json."""

import json
import re
import threading
from pathlib import Path

import pytest

from edgenet.cli_output import LINES, LINES_APART_S, ProgressLines
from helpers.command_line import Edgenet

LINE = re.compile(r"[a-z]+: \d+ of \d+, after \d+:\d\d min")


class Log:
    """What was told, by a clock that the test moves."""

    def __init__(self) -> None:
        self.now, self.lines = 100.0, list[str]()
        self.progress = ProgressLines(self.lines.append, lambda: self.now)


def test_a_stage_that_begins_has_a_line_however_soon_it_follows() -> None:
    log = Log()
    log.progress("export", 0, 4)
    log.progress("export", 4, 4)
    log.progress("evaluate", 32, 400)
    assert log.lines == ["export: 0 of 4, after 0:00 min", "evaluate: 32 of 400, after 0:00 min"]


def test_within_a_stage_lines_are_fifteen_seconds_apart_whatever_happens_between() -> None:
    log = Log()
    for second in range(100):
        log.now = 100.0 + second
        log.progress("bench", second, 100)
    assert [line.partition(",")[0] for line in log.lines] == [f"bench: {s} of 100" for s in range(0, 100, 15)]
    assert LINES_APART_S == 15
    assert log.lines[-1] == "bench: 90 of 100, after 1:30 min"


def test_a_step_that_takes_minutes_has_a_line_in_each_and_none_before_there_is_something_to_say() -> None:
    log = Log()
    log.now += 100
    log.progress.repeat()
    assert log.lines == []
    log.progress("export", 0, 2)
    for _ in range(20):
        log.now += 15
        log.progress.repeat()
    assert log.lines == [f"export: 0 of 2, after {1 + n}:40 min" for n in range(6)]


def test_nothing_watches_when_the_work_is_done() -> None:
    log, done = Log(), threading.Event()
    watcher = threading.Thread(target=log.progress.watch, args=(done,))
    watcher.start()
    done.set()
    watcher.join(30)
    assert not watcher.is_alive()


def test_a_log_gets_a_plain_line_a_stage_and_stdout_only_the_json(
    edgenet: Edgenet, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LINES)
    done = edgenet(
        "run", "tiny", "--images", tiny_folder, "--out", tmp_path / "OUT", "--precision", "float32", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["schema"] == 2
    lines = done.stderr.splitlines()
    assert all(LINE.fullmatch(line) for line in lines), lines
    assert [line.partition(":")[0] for line in lines][:3] == ["export", "evaluate", "bench"]


def test_a_log_that_wants_none_gets_none(edgenet: Edgenet, tiny_folder: Path, tmp_path: Path) -> None:
    done = edgenet("export", "tiny", "--images", tiny_folder, "--out", tmp_path / "OUT", "--precision", "float32")
    assert (done.returncode, done.stderr) == (0, "")
