"""Run the command line in this process on hostile input, and hold it to what is promised of every command."""

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgenet import cli, pipeline
from edgenet.results import Results
from helpers import tiny

LIMIT_S = 60
Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    """End a test that hangs; what is waited for does not matter then."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"nothing came in {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def tree(folder: Path) -> dict[str, object]:
    """Return all that is below a folder, with what tells whether it was changed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        found[path.relative_to(folder).as_posix()] = (about.st_mode, about.st_size, about.st_mtime_ns)
    return found


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Run a command that must be refused, and return its one line; the working folder is as it was then.

    The line is the reader's own: not that of an error which nobody foresaw, nor one that names an exception.
    """
    monkeypatch.setattr(pipeline, "find_source", tiny.source)
    monkeypatch.chdir(tmp_path)

    def run(*args: object, status: int = 2) -> str:
        before = tree(tmp_path)
        done = CliRunner().invoke(cli.main, [str(a) for a in args], prog_name="edgenet")
        assert done.exit_code == status, (done.exit_code, done.output, done.exception)
        assert done.stdout == ""
        assert done.stderr.startswith("edgenet: ")
        assert done.stderr.count("\n") == 1, done.stderr
        line = done.stderr.removesuffix("\n")
        assert not re.search(r"Traceback|[A-Z]\w*(Error|Exception)\b|a fault of edgenet", line), line
        assert re.search(r"[\x00-\x1f\x7f\x80-\x9f\u202e]", line) is None
        assert len(line) < 3000
        assert tree(tmp_path) == before
        return line

    return run


@pytest.fixture
def a_run(tmp_path: Path) -> Results:
    """The results of a run, that a test changes and saves as tmp_path/OUT/results.json."""
    from helpers.hand_built import some_results

    (tmp_path / "OUT").mkdir()
    return some_results()
