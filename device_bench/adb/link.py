"""`adb`, and what is done with one phone over it: commands, files, and a folder that is gone afterwards.

`run_adb` is the only place that calls adb. On this side a command is a list, never a text for a shell; on the phone,
where adb leaves no choice but a shell, every word is quoted by shlex, and file names never get there: a file is called
by its sha256.
"""

import contextlib
import re
import secrets
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from edgenet.device_bench import child
from edgenet.errors import DeviceError, EdgenetError, MissingDependency
from edgenet.files import sha256_of

TIMEOUT_S = 30.0
_ROOT = "/data/local/tmp"


class Reply(NamedTuple):
    """What a call of adb gave: exit status, standard output and standard error."""

    status: int
    out: str
    err: str


class Listed(NamedTuple):
    """A line of `adb devices -l`; `state` is "device" of one that can be used."""

    serial: str
    state: str
    model: str


def run_adb(*arguments: str, timeout_s: float = TIMEOUT_S) -> Reply:
    """Call adb with `arguments`.

    Raises:
        MissingDependency: there is no adb on PATH.
        DeviceError: it cannot be started, or did not end in time.
    """
    program = find_adb()
    try:
        done = child.run([program, *arguments], timeout_s)
    except subprocess.TimeoutExpired:
        raise DeviceError(f"no answer from adb in {timeout_s:g} s: the phone or its connection hangs") from None
    except OSError as e:
        raise DeviceError(f"cannot start {program}: {e.strerror}; install adb again") from None
    out, err = (text.decode(errors="replace").replace("\r\n", "\n") for text in (done.out, done.err))
    return Reply(done.status, out, err)


def find_adb() -> str:
    """Return the path of adb. Raises MissingDependency."""
    program = shutil.which("adb")
    if program is None:
        how = "apt-get install adb, or Google's platform-tools on PATH"
        raise MissingDependency("adb", "", "an Android phone", install=how)
    return program


def parse_devices(text: str) -> list[Listed]:
    """Return the phones in what `adb devices -l` printed."""
    found = []
    for line in text.partition("List of devices attached")[2].splitlines():
        if m := re.match(r"(\S.*?)\s+(no permissions|[a-z]+)\b(.*)", line):
            model = re.search(r"\bmodel:(\S+)", m[3])
            found.append(Listed(m[1], m[2], model[1].replace("_", " ") if model else ""))
    return found


class Link:
    """A phone, by its serial number. `close` removes the folder that it was given there."""

    def __init__(self, serial: str) -> None:
        self.serial = serial
        self._run = secrets.token_hex(6)
        self.folder = f"{_ROOT}/edgenet-{self._run}"
        self._made, self._abandoned = False, False  # the folder; a process on the phone that nobody waits for
        self._pushed: dict[str, str] = {}  # sha256 -> path on the phone

    def close(self) -> None:
        """Remove what was left on the phone. May be called twice; a phone that is gone is no error."""
        if not self._made:
            return
        with contextlib.suppress(EdgenetError):
            if self._abandoned:
                # The brackets keep the pattern from fitting the shell that this command itself is.
                self.shell(f"pkill -f {shlex.quote(f'[e]dgenet-{self._run}/')}")
            self.shell(f"rm -rf {shlex.quote(self.folder)}")
        self._made, self._abandoned = False, False
        self._pushed = {}

    def make_folder(self) -> None:
        """Make the folder, once."""
        if not self._made:
            self._made = True  # before: a folder whose making was lost has to go as well
            status, text = self.shell(f"mkdir -p {shlex.quote(self.folder)}")
            if status:
                raise DeviceError(f"cannot make {self.folder} on the phone: {one_line(text)}")

    def shell(self, script: str, timeout_s: float = TIMEOUT_S) -> tuple[int, str]:
        """Run a script in the phone's shell; return its exit status and all that it printed.

        The status comes in the output, behind a word that nobody else says: old phones have no other way, and without
        it a connection that broke would look like a program that had nothing more to say.

        Raises:
            DeviceError: the phone is not there, or was lost before the script ended.
        """
        end = f"edgenet-{secrets.token_hex(8)}"
        wrapped = f"{{ {script}\n}} 2>&1\nedgenet_status=$?\necho\necho {end}:$edgenet_status"
        try:
            reply = run_adb("-s", self.serial, "shell", wrapped, timeout_s=timeout_s)
        except BaseException:  # ctrl-c too
            self._abandoned = True
            raise
        text, found, status = reply.out.rpartition(f"\n{end}:")
        if not found or not status.strip().isdigit():
            self._abandoned = True
            said = one_line(reply.err) or "the connection to the phone was lost before the command ended"
            raise DeviceError(said)
        return int(status), text

    def push(self, path: Path, digest: str) -> str:
        """Copy a file to the phone, under its sha256, and check it there; return its path there. Once a run is enough.

        Raises:
            InputError: there is no such file.
            DeviceError: it did not arrive whole.
        """
        if digest in self._pushed:
            return self._pushed[digest]
        self.make_folder()
        remote = f"{self.folder}/{digest}"
        size_bytes = path.stat().st_size
        self.transfer("push", str(path.resolve()), remote, size_bytes=size_bytes)
        arrived = self._digest_there(remote)
        if arrived != digest:
            raise DeviceError(f"a file arrived damaged on the phone (sha256 {arrived[:12]}, sent {digest[:12]})")
        self._pushed[digest] = remote
        return remote

    def _digest_there(self, remote: str) -> str:
        status, text = self.shell(f"sha256sum {shlex.quote(remote)}", timeout_s=120)
        words = text.split()
        if status == 0 and words and re.fullmatch(r"[0-9a-f]{64}", words[0]):
            return words[0]
        with tempfile.TemporaryDirectory() as folder:  # an old phone without sha256sum: look at what it has
            back = Path(folder) / "back"
            self.transfer("pull", remote, str(back), size_bytes=0)
            return sha256_of(back)

    def transfer(self, *arguments: str, size_bytes: int) -> None:
        """Call adb's push or pull. Raises DeviceError."""
        reply = run_adb("-s", self.serial, *arguments, timeout_s=120 + size_bytes / 1e6)
        if reply.status:
            said = one_line(reply.err) or one_line(reply.out)
            raise DeviceError(said or f"the connection to the phone was lost during adb {arguments[0]}")


def one_line(text: str, limit: int = 300) -> str:
    """Return what adb or the phone said as one line, without the noise of a server that starts."""
    lines = [re.sub(r"^(adb: )?(error|failed): ", "", line.strip()) for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("* daemon")]
    return " ".join(" ".join(lines).split())[:limit]
