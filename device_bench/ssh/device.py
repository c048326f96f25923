"""`ssh:[USER@]HOST[:PORT]`: a Raspberry Pi, or any Linux machine that ssh reaches and `edgenet devices prepare` set up.

runner.py and runtime.py are carried over and run there by the environment that was prepared; times are taken by the
runner, so the network is in none of them.
"""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from edgenet.device_bench import describe, runner
from edgenet.device_bench.device import Progress, Request
from edgenet.device_bench.rounds import Place, bench_workers, busy_between, check_unique, failure
from edgenet.device_bench.ssh.connection import FOLDER, Bundle, Connection, bundle, parse
from edgenet.device_bench.worker import Launch, Worker
from edgenet.errors import DeviceError, InputError
from edgenet.export import runtime as runtime_module
from edgenet.files import files_of
from edgenet.results import Failure, Measurement

PREPARED = "venv/edgenet.json"  # written when the environment there is complete
_NOT_PREPARED = 90  # an exit status of ours
_CHANGING = ("clock_khz", "temperature_c", "throttled", "load_average")  # told again after timing
_COUNTERS = ("busy_s", "stolen_s", "uptime_s")


def open_device(address: str) -> "Board":
    """Return the device of `[USER@]HOST[:PORT]`; nothing is asked of it yet. Raises InputError."""
    return Board(parse(address))


def check_present(address: str) -> None:
    """Ask the machine what it is. Raises InputError, and DeviceError where it cannot be reached or is not prepared."""
    open_device(address).info()


def find() -> list[dict[str, Any]]:
    """Return none: machines that ssh reaches are not announced anywhere, and guessing would knock at doors."""
    return []


class Board:
    """A machine that ssh reaches. A `Device`; one session of edgenet at a time should measure on it."""

    kind = "ssh"

    def __init__(self, connection: Connection) -> None:
        self.connection, self.id = connection, connection.id
        self._predictors: dict[tuple[Path, str], Worker] = {}
        self._runtimes: dict[str, str] = {}  # what is installed there, as it told last

    def info(self) -> dict[str, Any]:
        """Return what the machine is and how busy, read there (`describe.describe`).

        Raises:
            DeviceError: it cannot be reached, or is not prepared.
        """
        found = self._describe()
        return {key: value for key, value in found.items() if key not in _COUNTERS}

    def bench(
        self, artifacts: Sequence[tuple[str, Path]], request: Request, progress: Progress | None = None
    ) -> tuple[list[Measurement], list[Failure]]:
        """Time files there as on this machine: `rounds.bench_workers`.

        Raises:
            InputError: another delegate than the CPU, or a core that is not there.
        """
        check_unique([id for id, _ in artifacts])
        if request.delegate not in (None, "cpu"):
            raise InputError(f"{self.id} runs on the CPU only, not on '{request.delegate}' (valid: cpu)")
        bundles: dict[str, Bundle | InputError] = {}
        for id, path in artifacts:
            try:
                bundles[id] = model_bundle(path, request.runtime)
            except InputError as e:
                bundles[id] = e
        remedy = {
            InputError: "export the file again, or give a file that the runtime loads",
            DeviceError: "see that the board is on, reachable and prepared (`edgenet devices prepare`), and run again",
        }
        try:
            about = self._describe()
            cores = about["cores_total"] or 0
            beyond = [core for core in request.cores if core >= cores]
            if beyond:
                raise InputError(f"{self.id} has no core {beyond[0]} (valid: 0 to {cores - 1})")
            self.connection.carry([code_bundle(), *(b for b in bundles.values() if isinstance(b, Bundle))])
        except DeviceError as e:
            return [], [failure("", self.id, e, remedy)]

        def open_worker(id: str, path: Path) -> Worker:
            found = bundles[id]
            if isinstance(found, InputError):
                raise found
            timeout_s = request.plan.max_time_s + 120
            return self._open(path, found, request.threads, request.runtime, request.cores, timeout_s)

        # Not fresh: what ended workers had used would be taken for other processes' work.
        watch = partial(self._watch, about)
        place = Place(self.id, open_worker, watch, remedy, fresh=False, virtual=about["virtual"])
        return bench_workers(artifacts, request, place, progress)

    def predict(self, path: Path, batch: np.ndarray) -> np.ndarray:
        """Return (N, classes) float32 for (N, H, W, 3) of what the file takes, computed there on all cores.

        Raises:
            InputError: the file is not a model, or the batch does not fit it.
            DeviceError: the connection or the runtime failed.
        """
        found = model_bundle(path, None)
        key = (path, found.folder)
        if key not in self._predictors:
            cores = self._describe()["cores"]
            self.connection.carry([code_bundle(), found])
            self._predictors[key] = self._open(path, found, cores, None, (), 600.0)
        try:
            return self._predictors[key].predict(batch)
        except DeviceError:
            self._predictors.pop(key).close()  # a later call may have a connection again
            raise

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        while self._predictors:
            self._predictors.popitem()[1].close()

    def _describe(self) -> dict[str, Any]:
        script = (
            f'cd "$HOME/{FOLDER}" 2>/dev/null && [ -f {PREPARED} ] || exit {_NOT_PREPARED}; exec venv/bin/python -I -'
        )
        done = self.connection.run(script, stdin=Path(describe.__file__).read_bytes(), doing="asking what it is")
        if done.status == _NOT_PREPARED:
            raise DeviceError(f"{self.id} is not set up for edgenet yet: run `edgenet devices prepare {self.id}` once")
        try:
            found: dict[str, Any] = json.loads(done.last)
        except ValueError:
            said = (done.err.strip().splitlines() or ["it said nothing"])[-1]
            raise DeviceError(
                f"{self.id}: Python there does not work (exit status {done.status}: {said[:200]}); "
                f"run `edgenet devices prepare {self.id}` again"
            ) from None
        self._runtimes = found["runtimes"]
        return found

    def _open(
        self, path: Path, found: Bundle, threads: int, runtime: str | None, cores: Sequence[int], timeout_s: float
    ) -> Worker:
        there = f"{found.folder}/{found.files[0][0]}"
        name = runtime_module.runtime_for(there, runtime)
        if name not in self._runtimes:
            raise DeviceError(
                f"{self.id} has no {name}, which runs {path.suffix} files: "
                f"run `edgenet devices prepare {self.id} --runtime {name}`"
            )
        # --parent: sshd's process of this session, with which the runner is to end, whatever native code is doing.
        script = f'cd "$HOME/{FOLDER}" && exec venv/bin/python -I "$1/runner.py" --parent "$PPID" ${{2:+--cores "$2"}}'
        command = self.connection.command(script, code_bundle().folder, ",".join(map(str, cores)))
        return Worker(
            there,
            threads,
            runtime,
            launch=Launch(command, str(path), self.connection.reason),
            timeout_s=timeout_s,
        )

    def _watch(self, about: dict[str, Any], workers: Callable[[], list[Worker]]) -> Callable[[], dict[str, Any]]:
        """Watch the machine as `rounds.Watch` says; `about` is what it told before the files were loaded."""
        before, ours_s = about, None
        with suppress(DeviceError):  # the workers fail too then, and say why
            before, ours_s = self._describe(), _cpu_s(workers())

        def tell() -> dict[str, Any]:
            after, others = {}, busy_between({}, {}, 0.0)
            with suppress(DeviceError):
                after = self._describe()
                if ours_s is not None:
                    others = busy_between(before, after, _cpu_s(workers()) - ours_s)
            again = {f"{key}_after": after.get(key) for key in _CHANGING}
            return {key: v for key, v in before.items() if key not in _COUNTERS} | again | others

        return tell


def code_bundle() -> Bundle:
    """Return the two scripts that run a model."""
    files = [("runner.py", Path(runner.__file__)), ("runtime.py", Path(runtime_module.__file__))]
    return bundle("code", files)


def model_bundle(path: Path, runtime: str | None) -> Bundle:
    """Return a model file, an OpenVINO .xml with its .bin, under a name that says nothing but its type.

    Raises:
        InputError: it is not a file that `runtime` (None: any) reads, or one whose weights stand in an .onnx.data.
    """
    try:
        runtime_module.runtime_for(os.fspath(path), runtime)
    except runtime_module.LoadError as e:
        raise InputError(str(e)) from e
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    suffix = path.suffix.lower()
    if suffix == ".onnx" and len(parts := files_of(path)) > 1:  # it names the other, which cannot be called otherwise
        raise InputError(f"{path} has its weights in {parts[1].name}: give an .xml or a .tflite file of the network")
    beside = [("model.bin", path.with_suffix(".bin"))] if suffix == ".xml" else []
    return bundle("models", [(f"model{suffix}", path), *beside])


def _cpu_s(workers: Sequence[Worker]) -> float:
    return sum(w.cpu_ns() for w in workers) / 1e9
