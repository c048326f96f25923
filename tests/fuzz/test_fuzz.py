"""Damaged files of every format are read or refused in a line, CASES of each; `make fuzz` takes an hour.

FUZZ_SECONDS gives each reader that time instead. The files are the same in every run, and what one finds is mended and
kept in tests/corpus, which is read again here.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fuzz.mutate import mutated
from fuzz.readers import READERS
from helpers.places import TESTS

CASES = 150
SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
CORPUS = sorted((TESTS / "corpus").iterdir())


def fuzz(*args: object, out: Path) -> dict[str, Any]:
    """Run fuzz.run and return what it prints, with a reader's findings also where it found some."""
    command = [sys.executable, "-m", "fuzz.run", *map(str, args), "--json", "--out", str(out)]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=900 + 30 * SECONDS * len(READERS))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])  # libraries print before it
    return found


@pytest.fixture(scope="module")
def tallies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return fuzz(*(("--seconds", SECONDS) if SECONDS else ("--cases", CASES)), out=tmp_path_factory.mktemp("findings"))


@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_file_is_read_or_refused_in_a_line(reader: str, tallies: dict[str, Any]) -> None:
    tally = tallies[reader]
    assert tally["findings"] == []
    # A worker's answer is so short that hardly a damaged one is still an answer.
    assert tally["ends"].get("read", 0) > 0 or reader == "worker", "not even the good files were read"
    assert tally["ends"].get("refused", 0) > 0 or reader in ("micro", "phone"), "no file was damaged"


@pytest.mark.parametrize("case", CORPUS, ids=lambda p: p.name)
def test_what_fuzzing_once_found_is_read_or_refused_in_a_line(case: Path, replayed: dict[str, Any]) -> None:
    end, why = replayed[case.name]
    assert end in ("read", "refused"), why


@pytest.fixture(scope="module")
def replayed() -> dict[str, Any]:
    command = [sys.executable, "-m", "fuzz.replay", *map(str, CORPUS)]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_fault_of_a_reader_is_found_and_its_file_is_kept(tmp_path: Path) -> None:
    """A reader that raises, crashes and computes without an end."""
    code = (
        "import sys; from fuzz import run, readers\n"
        "def read(path):\n"
        "    data = path.read_bytes()\n"
        "    if b'\\xff' in data: raise KeyError('x')\n"
        "    if len(data) < 3: import os; os.kill(os.getpid(), 11)\n"
        "    while b'\\x80' in data: pass\n"
        "readers.READERS['bad'] = readers.Reader('f', read, lambda folder: [{'f': b'abcdefgh'}], in_child=False)\n"
        "run.CPU_S = 0.2\n"
        "sys.argv[1:] = ['bad', '--cases', '120', '--json', '--out', sys.argv[1]]\n"
        "run.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=TESTS, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    findings = json.loads(done.stdout)["bad"]["findings"]
    ends = {f["end"] for f in findings}
    assert {"ended by SIGSEGV", "ended by SIGPROF"} <= ends
    assert any(end.startswith("raised KeyError in ") for end in ends)
    for finding in findings:
        assert (Path(finding["files"]) / "f").exists()


def test_the_same_seed_damages_a_file_in_the_same_way() -> None:
    files, others = {"a": bytes(range(200)), "b": b'{"x": [1, 2]}'}, [{"c": b"other"}]
    cases = [mutated(files, others, f"seed {n}") for n in range(200)]
    assert cases == [mutated(files, others, f"seed {n}") for n in range(200)]
    assert len({tuple(c.items()) for c in cases}) > 150
    assert cases != [mutated(files, others, f"another {n}") for n in range(200)]
