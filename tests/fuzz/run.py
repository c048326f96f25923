"""Feed damaged files to the readers: `make fuzz`, or `python -m fuzz.run [READER ...]` in the folder tests/.

    --seconds S   for each reader; --cases N instead gives each so many files
    --seed TEXT   another seed, other files; the same seed, the same files
    --out DIR     where a finding's files are written; tests/corpus keeps those that were mended
    --json        print one object at the end, and end with status 0 whatever was found

Each file must be read, or refused by an EdgenetError of one line, in CPU_S seconds of computing. A process that fuzzes
is ended by nothing but a library in C++, where one parses the file. Anything else is a finding.
"""

import argparse
import hashlib
import json
import mmap
import os
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgenet.errors import EdgenetError, printable
from fuzz.mutate import Files, mutated
from fuzz.readers import READERS, Reader, use_this_process

CPU_S = 10
MEMORY_BYTES = 3 << 30  # of data, beyond what the imports take; a reader's child has about half of it
_BATCH = 500
_EXCEPTION = re.compile(r"Traceback|\b[A-Z]\w*(Error|Exception)\b|a fault of edgenet")
_LEAST = 50  # files for each reader, however slow this machine is
_ALIKE = 2  # findings with the same end that are kept


@dataclass
class Tally:
    """What came of a reader's files: how many were read, refused, and ended a process that was made to be ended."""

    ends: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


def run(name: str, seconds: float | None, cases: int | None, seed: str, out: Path, folder: Path) -> Tally:
    """Feed damaged files to one reader, until `cases` of them or for so many seconds."""
    reader, tally, started = READERS[name], Tally(), time.monotonic()
    seeds = reader.make(folder)
    if not reader.tensorflow:  # which starts threads, and so must not be asked before a fork
        write(seeds[0], folder / name)
        attempt(reader, folder / name)  # imports what each fork would import again
        started = time.monotonic()
    done = 0
    while (cases is None or done < cases) and (seconds is None or time.monotonic() - started < seconds):
        most = min(_BATCH, cases - done) if cases is not None else _BATCH
        until = None if seconds is None else started + seconds
        done = _batch(name, reader, seeds, seed, done, most, until, folder, tally)
    for finding in tally.findings:
        files = damaged(seeds, name, seed, finding["case"])
        at = out / f"{name}-{hashlib.sha256(b''.join(files.values())).hexdigest()[:12]}"
        write(files, at)
        finding["files"] = str(at)
    tally.seconds = time.monotonic() - started
    return tally


def damaged(seeds: list[Files], name: str, seed: str, case: int) -> Files:
    """Return the files of a case; the first ones are good."""
    whole = seeds[case % len(seeds)]
    return whole if case < len(seeds) else mutated(whole, seeds, f"{name} {seed} {case}")


def write(files: Files, folder: Path) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def attempt(reader: Reader, folder: Path) -> tuple[str, str]:
    """Read what lies in a folder; return how that ended, "read" or "refused", or what is wrong, and why."""
    path = folder / reader.main if reader.main else folder
    try:
        reader.read(path)
    except EdgenetError as e:
        line = printable(str(e))
        if "\n" in str(e):
            return "several lines", str(e)
        if _EXCEPTION.search(line):
            return "exception named", line
        return "refused", line
    except BaseException as e:
        where = traceback.extract_tb(e.__traceback__)[-1]
        return f"raised {type(e).__name__} in {Path(where.filename).name}, line {where.lineno}", str(e)[:500]
    return "read", ""


def _batch(
    name: str, reader: Reader, seeds: list[Files], seed: str, first: int, n: int, until: float | None, folder: Path,
    tally: Tally,
) -> int:  # fmt: skip
    """Read `n` files in a process of their own; return the number of the next one."""
    shared = mmap.mmap(-1, 8)  # the case that is being read
    shared[:] = struct.pack("q", first)
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        with os.fdopen(write_end, "w", buffering=1) as out:
            for case, end, why in _cases(name, reader, seeds, seed, range(first, first + n), until, folder, shared):
                out.write(json.dumps([case, end, why]) + "\n")
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as said:
        lines = [json.loads(line) for line in said.read().splitlines() if line.endswith("]")]
    _, status = os.waitpid(pid, 0)
    for case, end, why in lines:
        tally.ends[end] += 1
        if end not in ("read", "refused") and tally.ends[end] <= _ALIKE:
            tally.findings.append({"reader": name, "seed": seed, "case": case, "end": end, "why": why})
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return first + len(lines)
    (case,) = struct.unpack("q", shared[:])
    ended = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    contained = reader.native and reader.in_child and code != -signal.SIGPROF
    tally.ends["ended its process" if contained else f"ended by {ended}"] += 1
    if not contained:
        tally.findings.append({"reader": name, "seed": seed, "case": case, "end": f"ended by {ended}", "why": ""})
    return case + 1


def _cases(
    name: str, reader: Reader, seeds: list[Files], seed: str, cases: range, until: float | None, folder: Path,
    shared: mmap.mmap,
) -> Iterator[tuple[int, str, str]]:  # fmt: skip
    """Yield what comes of each case."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    place = Path(tempfile.mkdtemp(dir=folder))
    for case in cases:
        if until is not None and time.monotonic() > until and case >= _LEAST:
            return
        shared[:] = struct.pack("q", case)
        shutil.rmtree(place, ignore_errors=True)
        try:
            write(damaged(seeds, name, seed, case), place)
        except (OSError, ValueError):  # pragma: no cover
            continue
        signal.setitimer(signal.ITIMER_PROF, CPU_S)  # its end is this process's, native code or not
        end, why = attempt(reader, place)
        signal.setitimer(signal.ITIMER_PROF, 0)
        yield case, end, why


def main() -> None:
    """Fuzz the readers that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", choices=[[], *READERS], default=[], metavar="READER")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--cases", type=int)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--out", type=Path, default=Path("../build/fuzz"))
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.seconds is None and asked.cases is None:
        parser.error("give --seconds or --cases")
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    names = sorted(asked.readers or READERS, key=lambda n: READERS[n].tensorflow)  # which is imported when it has to be
    use_this_process()
    found = {}
    with tempfile.TemporaryDirectory(prefix="edgenet-fuzz-") as folder:
        for name in names:
            if READERS[name].tensorflow:
                import tensorflow  # noqa: F401  (imported, not started: a fork has no thread of it)
            tally = found[name] = run(name, asked.seconds, asked.cases, asked.seed, asked.out, Path(folder))
            if not asked.json:
                ends = ", ".join(f"{n} {end}" for end, n in sorted(tally.ends.items()))
                print(f"{name}: {tally.ends.total()} files in {tally.seconds:.0f} s: {ends}", flush=True)
                for f in tally.findings:
                    print(f"  case {f['case']} of seed {f['seed']}: {f['end']}: {f['why'][:300]}\n    {f['files']}")
    if asked.json:
        print(json.dumps({name: vars(tally) for name, tally in found.items()}))
        return
    sys.exit(1 if any(t.findings for t in found.values()) else 0)


if __name__ == "__main__":
    main()
