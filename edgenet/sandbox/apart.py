"""Have a function of edgenet read a file in a child process, and get back plain values, or one line of why not.

The child can read files and compute, nothing else (see policy.py), for as long and with as much memory as the size of
the file explains. Whatever it does, it ends as an InputError that names the file.
"""

import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from edgenet.errors import DeviceError, EdgenetError, InputError, MissingDependency, without_exceptions
from edgenet.sandbox import child
from edgenet.sandbox.policy import Policy

_MIB = 1 << 20
_MAX_TEXT = 1000  # characters of a message
_MAX_FILES = 10_000  # of a folder that are counted
_IDLE_S = 30  # that a child may spend, all together, neither computing nor waiting for a core or a disk
_TICK_S = 1.0
_OTHERS = 20  # how many other programs may slow it down
_LONGEST_S = 7200
_SAID_BYTES = 4096
_ADVICE = "it is damaged, or made to do harm: save or copy it again, or give another"


@dataclass(frozen=True)
class Effort:
    """What reading may take: of computing time and memory a fixed part, and more for each MiB of the file."""

    cpu_s: float
    cpu_s_per_mib: float
    mib: int
    mib_per_mib: float
    writes: bool = False  # in a folder of its own

    def policy(self, size_bytes: int, folder: str | None) -> Policy:
        mib = size_bytes / _MIB
        wanted = int(self.mib + self.mib_per_mib * mib + 32 * (os.cpu_count() or 1)) * _MIB  # each thread has a stack
        return Policy(
            writes_in=folder,
            cpu_s=min(int(self.cpu_s + self.cpu_s_per_mib * mib), _LONGEST_S),
            data_bytes=min(wanted, memory_bytes() or wanted),
            file_bytes=4 << 30 if folder else 0,
        )


PARSING = Effort(cpu_s=30, cpu_s_per_mib=1, mib=1024, mib_per_mib=12)
BUILDING = Effort(cpu_s=50, cpu_s_per_mib=4, mib=4096, mib_per_mib=20)  # with TensorFlow
UNPACKING = Effort(cpu_s=50, cpu_s_per_mib=2, mib=4096, mib_per_mib=20, writes=True)


def read_apart(call: str, path: Path, arguments: Mapping[str, Any], effort: Effort = PARSING) -> Any:
    """Return what a function gives that is called in a child process.

    Args:
        call: "module:function", of edgenet; it takes `arguments` and gives plain values (see wire.py).
        path: the file or folder that is read; it names the work in messages.

    Raises:
        InputError, MissingDependency: as the function; or the child did not end well, whatever the reason.
        DeviceError: no process can be started.
    """
    size_bytes = _size_of(path)
    with _folder(effort.writes) as folder:
        policy = effort.policy(size_bytes, folder)
        with _started(folder) as process:
            request = {
                "path": _search_path(), "policy": asdict(policy), "call": call, "arguments": dict(arguments)
            }  # fmt: skip
            answer = _Answer(process, path, policy)
            answer.send(json.dumps(request).encode() + b"\n")
            return _given(answer.receive(), path, policy)


def clean(text: str) -> str:
    """Return what came from a file as it may be shown: one line, of bounded length, without escape sequences."""
    text = re.sub(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?)", "", text)  # colours, a window's title
    text = " ".join(printable(text, " ").split())
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 4]} ..."


def printable(text: str, instead: str = "?") -> str:
    """Return `text` with something in the place of each character that a terminal would obey or not show."""
    return "".join(c if c.isprintable() else instead for c in text)


def _given(answer: Any, path: Path, policy: Policy) -> Any:
    """Return the value of an answer, or raise the error that it holds."""
    if not isinstance(answer, dict):
        raise InputError(f"{path} cannot be read: {_ADVICE}")
    if "given" in answer:
        return answer["given"]
    said = without_exceptions(clean(str(answer.get("said", ""))), str(path))
    missing = answer.get("missing")
    if isinstance(missing, list) and len(missing) == 2:
        error = MissingDependency(clean(str(missing[0])), clean(str(missing[1])), "reading")
        error.args = (said,)
        raise error
    if "refused" in answer:
        kinds: dict[str, type[EdgenetError]] = {"DeviceError": DeviceError}
        if path.name not in said:
            said = f"{path}: {said}"
        raise kinds.get(str(answer["refused"]), InputError)(said)
    if "memory" in answer:
        raise InputError(f"reading {path} takes more than {(policy.data_bytes or 0) >> 20} MiB of memory: {_ADVICE}")
    reason = said.split(". ")[0][:200]
    raise InputError(f"{path} cannot be read{f' ({reason})' if ' ' in reason else ''}: {_ADVICE}")


def memory_bytes() -> int | None:
    """Return the memory of this machine, None where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _size_of(path: Path) -> int:
    """Return the bytes of a file, with those beside it that begin as it does, or of a folder."""
    try:
        if path.is_dir():
            found = (Path(at) / name for at, _, names in os.walk(path) for name in names)
        else:
            found = path.parent.glob(f"{_literal(path.stem)}*")
        return sum(p.stat().st_size for p, _ in zip(found, range(_MAX_FILES), strict=False) if p.is_file())
    except OSError:
        return 0


def _literal(text: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", text)


def _search_path() -> list[str]:
    """Return where Python looks for modules, but for the working folder."""
    here = os.path.realpath(os.curdir)
    return [p for p in sys.path if os.path.isabs(p) and os.path.realpath(p) != here]


@contextmanager
def _folder(wanted: bool) -> Iterator[str | None]:
    if not wanted:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="edgenet-") as folder:
        yield folder


@contextmanager
def _started(folder: str | None) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-I", child.__file__]
    if threading.current_thread() is threading.main_thread():  # the kernel watches the thread, not the process
        command += ["--parent", str(os.getpid())]
    own = {
        "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3", "OPENBLAS_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1", **({"TMPDIR": folder} if folder else {}),
    }  # fmt: skip
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
            env={**os.environ, **own}, start_new_session=True,
        )  # fmt: skip
    except OSError as e:
        raise DeviceError(f"cannot start {sys.executable}: {e.strerror}; end other programs and try again") from None
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


class _Answer:
    """Both ends of the pipes of one child, and its deadlines."""

    def __init__(self, process: "subprocess.Popen[bytes]", path: Path, policy: Policy) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process, self._path, self._policy = process, path, policy
        self._to, self._from, self._err = process.stdin.fileno(), process.stdout.fileno(), process.stderr.fileno()
        for fd in (self._to, self._from, self._err):
            os.set_blocking(fd, False)
        self._said = bytearray()
        self._idle_s, self._looked = 0.0, time.monotonic()
        self._deadline = time.monotonic() + _OTHERS * (policy.cpu_s or 60)

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._wait(writing=True):
                try:
                    view = view[os.write(self._to, view) :]
                except BrokenPipeError:
                    self._died()

    def receive(self) -> Any:
        """Return the child's message. Raises InputError."""
        from edgenet.sandbox import wire

        try:
            return wire.unpack(self._read, self._policy.data_bytes or 1 << 30)
        except (ValueError, MemoryError):
            raise InputError(f"{self._path} cannot be read: its reader gave no sense; {_ADVICE}") from None

    def _read(self, n: int) -> bytearray:
        data = bytearray(n)
        view, at = memoryview(data), 0
        while at < n:
            if not self._wait():
                continue
            got = os.readv(self._from, [view[at : at + (1 << 20)]])
            if not got:
                self._died()
            at += got
        return data

    def _wait(self, writing: bool = False) -> bool:
        """Return whether the wanted pipe is ready; keep what is said, and both deadlines."""
        reading = [fd for fd in (None if writing else self._from, self._err) if fd is not None and fd >= 0]
        ready, able, _ = select.select(reading, [self._to] if writing else [], [], _TICK_S)
        if self._err in ready:
            chunk = os.read(self._err, 1 << 16)
            self._said = (self._said + chunk)[-_SAID_BYTES:]
            if not chunk:
                self._err = -1
        self._check_time()
        return bool(able) if writing else self._from in ready

    def _check_time(self) -> None:
        """Raise InputError where the child has been idle for too long, or does not end."""
        now = time.monotonic()
        if now - self._looked < _TICK_S:
            return
        if not _works(self._process.pid):
            self._idle_s += now - self._looked
        self._looked = now
        if self._idle_s > _IDLE_S or now > self._deadline:
            self._process.kill()
            what = "does not go on" if now <= self._deadline else "does not end"
            raise InputError(f"reading {self._path} {what}: {_ADVICE}")

    def _died(self) -> NoReturn:
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            status = 0
        path, limit = self._path, self._policy.cpu_s
        if status == -signal.SIGXCPU:
            raise InputError(f"reading {path} took more than {limit} s of computing: {_ADVICE}")
        if status < 0:
            name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
            memory = " (out of memory?)" if name == "SIGKILL" else ""
            raise InputError(f"reading {path} ended its process by {name}{memory}: {_ADVICE}")
        lines = clean(self._said.decode(errors="replace").strip().rsplit("\n", 1)[-1])[:200]
        raise InputError(f"reading {path} ended its process{f', which said: {lines}' if lines else ''}: {_ADVICE}")


def _works(pid: int) -> bool:
    """Return whether a thread of a process computes, or waits for a core or a disk; True where nobody tells."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return True
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/stat") as f:
                if f.read().rpartition(")")[2].split()[0] in "RD":
                    return True
        except (OSError, IndexError):  # it has just ended
            continue
    return False
