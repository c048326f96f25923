"""A loaded model in a child process: what native code does there, crash or hang, is an error here and not the end.

The child is runner.py; this is its other side. The child ends with `close`, with its parent (by the kernel on Linux,
else when its standard input closes), and when it does not answer in time.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numpy as np

from edgenet.device_bench import runner
from edgenet.device_bench.shared_memory import SharedMemory
from edgenet.errors import DeviceError, InputError, without_exceptions
from edgenet.export import runtime as runtime_module
from edgenet.results import plain
from edgenet.sandbox import policy

_MAX_NOISE_BYTES = 1 << 16  # what a login shell may say before the first answer
_MAX_HEADER_BYTES, _MAX_PAYLOAD_BYTES = 1 << 22, 1 << 32  # of an answer: a board may say anything
_END_TIMEOUT_S = 10.0
_LOAD_TIMEOUT_S = 180.0  # for starting the child and loading the model
CONFINED = ("--confine", policy.__file__)  # for runner.py: a model file may do nothing but compute
_FIRST_TIMEOUT_S = 45.0  # for the first inference on this machine; of a batch, for each picture so much again / 10


@dataclass(frozen=True)
class Burst:
    """Runs one after another: nanoseconds of each timed one, and the number of untimed ones before them.

    `pace_ns` is, for each, what a fixed piece of work took beside it (see `pace.py`); empty where that is not known.
    """

    samples_ns: tuple[int, ...]
    lead_runs: int = 0
    pace_ns: tuple[int, ...] = ()


@dataclass(frozen=True)
class Memory:
    """Resident memory of the child: the peak since just before the model was loaded, and what it was then."""

    peak_rss_bytes: int
    baseline_rss_bytes: int


@dataclass(frozen=True)
class WorkerInfo:
    """What a worker has loaded. Dimensions that the file leaves open are -1; `layout` is that of the file."""

    runtime: str
    version: str
    delegate: str
    io_dtype: str
    input_shape: tuple[int, ...]
    layout: str
    size_px: tuple[int, int]  # height, width
    output_names: tuple[str, ...]
    output_shape: tuple[int, ...]
    output_dtype: str
    load_ns: int
    baseline_rss_bytes: int
    python: str
    numpy: str
    shares_memory: bool = False


@dataclass(frozen=True)
class Launch:
    """Starts runner.py some other way than as a child of this process, on a board say.

    `explain` is told the exit status of a child that ended and what it printed, and returns why, in words, or None.
    """

    command: Sequence[str]
    name: str | None = None  # what to call the file in messages; None takes its path there
    explain: Callable[[int, str], str | None] = lambda status, said: None


class Worker:
    """A child process that holds one model. Use it in a `with` block, from one thread.

    On Linux the child is tied to the thread that starts it where that is the main thread.

    Args:
        path: the model file.
        threads: threads of one inference when timed; `predict` uses as many for a batch.
        runtime: litert, onnxruntime, openvino or, on this machine, tensorflow; None takes the format's own.
        delegate: cpu, gpu or npu, as `runtime.load` takes it; None is the CPU.
        cores: the cores to run on, none for all that this process may use; those of this machine only.
        launch: where the child is not on this machine; `path` is then a path there.
        timeout_s: for each request after loading (the time that `run` is asked to take comes on top).
        shared: memory of this process that the child may read: batches that lie in it are not sent; here only.

    Raises:
        InputError: the file is not a model that this runtime loads.
        DeviceError: the runtime is missing, the child crashed, hung, or spoke something else.
    """

    def __init__(
        self,
        path: Path | str,
        threads: int = 1,
        runtime: str | None = None,
        *,
        delegate: str | None = None,
        cores: Sequence[int] = (),
        launch: Launch | None = None,
        timeout_s: float = 600.0,
        shared: SharedMemory | None = None,
    ) -> None:
        if threads < 1:
            raise InputError(f"threads must be at least 1, was {threads}")
        if launch is None:
            _check_weights(Path(path))
        self.path, self._timeout_s, self._first = path, timeout_s, True
        self._shared = shared if launch is None else None
        self._first_s = timeout_s  # for the first inference, which tells whether the model ends
        if launch is None:
            memory = ["--shared", shared.path] if shared is not None else []
            launch = Launch(_child(runtime, cores, delegate) + memory, str(path))
            path, self._first_s = Path(path).resolve(), _FIRST_TIMEOUT_S
        self.name, self._explain = launch.name or str(path), launch.explain
        # A file, not a pipe: it never fills, however much is said.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                list(launch.command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, bufsize=0
            )
        except BaseException as e:
            self._stderr.close()
            if not isinstance(e, OSError):
                raise
            raise DeviceError(
                f"cannot start {launch.command[0]}: {e.strerror}; give the path of a program that runs"
            ) from e
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        request: dict[str, Any] = {"do": "load", "path": str(path), "threads": threads, "runtime": runtime}
        if delegate is not None:
            request["delegate"] = delegate
        try:
            info, _ = self._ask(request, timeout_s=_LOAD_TIMEOUT_S)
        except BaseException:
            self.close()
            raise
        with self._sense(info):
            known = {name: info[name] for name in WorkerInfo.__dataclass_fields__ if name in info}
            self.info = plain.read(WorkerInfo, known)

    @property
    def pid(self) -> int:
        return self._process.pid

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Return (N, classes) float32 for (N, H, W, 3) of what the file takes, as `Predictor.predict` does.

        Raises:
            InputError: the batch does not fit the file.
            DeviceError: the child crashed or hung.
        """
        first_s = min(self._timeout_s, self._first_s * (1 + len(batch) / 10))
        request = _array_header("predict", batch)
        at = self._shared.offset_of(batch) if self._shared is not None and self.info.shares_memory else None
        sent = _bytes(batch) if at is None else b""
        header, payload = self._ask(request if at is None else request | {"at": at}, sent, first_s)
        self._first_s = self._timeout_s
        with self._sense(header):
            return np.frombuffer(payload, "<f4").reshape(header["shape"]).astype(np.float32, copy=False)

    def set_input(self, batch: np.ndarray) -> None:
        """Set the images that `run` computes: (1, H, W, 3), or the batch that the file fixes. Raises as `predict`."""
        self._ask(_array_header("input", batch), _bytes(batch))

    def run(
        self,
        runs: int,
        time_ns: int = 0,
        *,
        lead_ns: int = 0,
        limit_ns: int | None = None,
        pace_limit_ns: int | None = None,
        patience_ns: int = 0,
    ) -> Burst:
        """Time inference in the child, by its monotonic clock around nothing but the call.

        Args:
            runs, time_ns: at least as many runs, and at least that long.
            lead_ns: run untimed that long before, at least once; 0 for not at all.
            limit_ns: start no run after it, even if there were fewer than `runs`; one is always made.
            pace_limit_ns: measure the pace beside each run, and count only those within it; 0 for all.
            patience_ns: how much longer to go on for runs that count.

        Raises:
            DeviceError: the child crashed or hung.
        """
        limit_ns = limit_ns if limit_ns is not None else 1 << 62
        request = {"do": "run", "runs": runs, "time_ns": time_ns, "lead_ns": lead_ns, "limit_ns": limit_ns}
        request |= {"pace_limit_ns": pace_limit_ns, "patience_ns": patience_ns}
        if self._first_s < self._timeout_s:
            alone = {"runs": 1, "time_ns": 0, "lead_ns": 0, "pace_limit_ns": None, "patience_ns": 0}
            self._ask(request | alone, timeout_s=self._first_s)
            self._first_s = self._timeout_s
        timeout_s = self._timeout_s + (time_ns + lead_ns + patience_ns) / 1e9
        header, payload = self._ask(request, timeout_s=timeout_s)
        with self._sense(header):
            values, n = np.frombuffer(payload, "<i8").tolist(), int(header["n"])
            return Burst(tuple(values[:n]), int(header["lead_runs"]), tuple(values[n:]))

    def memory(self) -> Memory:
        """Return the memory of the child; 0 where its system does not tell. Raises DeviceError."""
        header, _ = self._ask({"do": "memory"})
        with self._sense(header):
            return plain.read(Memory, header)

    def cpu_ns(self) -> int:
        """Return the CPU time that the child has used so far, over all its threads. Raises DeviceError."""
        header, _ = self._ask({"do": "cpu"})
        with self._sense(header):
            return int(header["cpu_ns"])

    def stderr(self) -> str:
        """Return what the child and its native libraries have printed so far."""
        if self._stderr.closed:
            return ""
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace")

    def close(self) -> None:
        """End the child. May be called twice."""
        process = self._process
        if process.poll() is None:
            process.kill()  # it holds nothing that a gentle end would save
        with suppress(subprocess.TimeoutExpired):  # a driver may hold it; it is nothing that anybody waits for
            process.wait(timeout=_END_TIMEOUT_S)
        for stream in (process.stdin, process.stdout, self._stderr):
            if stream is not None:
                stream.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _ask(
        self, request: dict[str, Any], payload: memoryview | bytes = b"", timeout_s: float | None = None
    ) -> tuple[dict[str, Any], bytearray]:
        if self._stderr.closed:
            raise DeviceError(f"the process that ran {self.name} has ended; load the file again")
        do = request["do"]
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + timeout_s
        try:
            self._send(runner.pack(request, len(payload)), deadline)
            self._send(payload, deadline)
            header, answer = self._receive(deadline)
        except TimeoutError:
            self.close()
            raise DeviceError(
                f"{self.name}: no answer to '{do}' in {timeout_s:g} s, so its process was ended; "
                "the machine is overloaded or the runtime hangs on this file"
            ) from None
        except (EOFError, BrokenPipeError):
            self._died(do)
        if "error" in header:
            said, kind = " ".join(str(header["error"]).split()), header.get("kind")
            message = without_exceptions(said.replace(str(self.path), self.name), self.name)
            if kind in ("load", "input"):
                raise InputError(message)
            raise DeviceError(message if kind == "missing" else f"{self.name}: '{do}' failed: {message}")
        return header, answer

    def _send(self, data: memoryview | bytes, deadline: float) -> None:
        view = memoryview(data).cast("B")
        while view:
            _, ready, _ = select.select([], [self._to], [], _left(deadline))
            if not ready:
                raise TimeoutError
            view = view[os.write(self._to, view) :]

    def _receive(self, deadline: float) -> tuple[dict[str, Any], bytearray]:
        head = self._read(runner.HEAD.size, deadline)
        noise = 0
        while not head.startswith(runner.MAGIC):
            if not self._first or noise > _MAX_NOISE_BYTES:
                self._garbled(head)
            del head[0]
            head += self._read(1, deadline)
            noise += 1
        self._first = False
        _, header_bytes, payload_bytes = runner.HEAD.unpack(head)
        if header_bytes > _MAX_HEADER_BYTES or payload_bytes > _MAX_PAYLOAD_BYTES:
            self._garbled(head)
        try:
            header = json.loads(self._read(header_bytes, deadline))
        except (ValueError, RecursionError):
            self._garbled(head)
        if not isinstance(header, dict):
            self._garbled(head)
        return header, self._read(payload_bytes, deadline)

    def _read(self, n: int, deadline: float) -> bytearray:
        data = bytearray()
        while len(data) < n:
            ready, _, _ = select.select([self._from], [], [], _left(deadline))
            if not ready:
                raise TimeoutError
            chunk = os.read(self._from, min(n - len(data), 1 << 20))  # more is only asked for when it is there
            if not chunk:
                raise EOFError
            data += chunk
        return data

    def _garbled(self, seen: bytearray) -> NoReturn:
        self.close()
        raise DeviceError(
            f"{self.name}: its process answered {bytes(seen[:20])!r}, which is not edgenet's protocol; "
            "is runner.py there of another version, or does a login script print?"
        )

    @contextmanager
    def _sense(self, header: dict[str, Any]) -> Iterator[None]:
        """Take an answer apart; one without a value that belongs to it, or with one of another kind, is garbled."""
        try:
            yield
        except (KeyError, ValueError, TypeError, OverflowError):
            self._garbled(bytearray(str(header).encode(errors="replace")))

    def _died(self, do: str) -> NoReturn:
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            how, why = "closed its output", None
        else:
            how, why = describe_exit(status), self._explain(status, self.stderr())
        # onnxruntime complains that it may not keep an identifier of this machine on the disk
        lines = [line.strip() for line in self.stderr().splitlines()]
        said = [line for line in lines if line and "telemetry" not in line]
        last = f"; it said last: {without_exceptions(said[-1][:200])}" if said else ""
        self.close()
        raise DeviceError(why or f"{self.name}: its process {how} at '{do}'{last}")


def describe_exit(status: int) -> str:
    """Return how a process ended, in words, from what `Popen.wait` gives (or a shell: 128 + signal)."""
    number = -status if status < 0 else status - 128 if status > 128 else 0
    if not number:
        return f"ended with exit status {status}"
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _array_header(do: str, batch: np.ndarray) -> dict[str, Any]:
    return {"do": do, "dtype": batch.dtype.newbyteorder("<").str, "shape": list(batch.shape)}


def _bytes(batch: np.ndarray) -> memoryview:
    little = np.ascontiguousarray(batch, batch.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data


def _check_weights(path: Path) -> None:
    """Raise InputError where the weights beside an .xml are a FIFO or the like, for which OpenVINO would wait."""
    weights = path.with_suffix(".bin")
    if path.suffix.lower() == ".xml" and weights.exists() and not weights.is_file():
        raise InputError(f"{weights} is no regular file: put the weights of {path.name} there")


def _child(runtime: str | None, cores: Sequence[int], delegate: str | None) -> list[str]:
    """Return the command that starts runner.py here, where a model file may do nothing but compute."""
    module = "tensorflow_runtime.py" if runtime == "tensorflow" else "runtime.py"
    command = child_command(Path(runtime_module.__file__).parent / module)
    if runtime != "edgetpu":  # to find the stick on the USB, its driver opens a socket
        command += [*CONFINED, *(["--devices"] if delegate not in (None, "cpu") else [])]
    return command + (["--cores", ",".join(map(str, cores))] if cores else [])


def child_command(module: Path | str) -> list[str]:
    """Return the command that starts runner.py here, with `module` in the place of runtime.py."""
    command = [sys.executable, "-P", runner.__file__, "--runtime", str(module)]
    if threading.current_thread() is threading.main_thread():  # the kernel watches the thread, not the process
        command += ["--parent", str(os.getpid())]
    return command
