"""Commands and files on another machine, by the OpenSSH client with the user's own configuration and known hosts.

The host key is always checked, as the user's configuration says; nothing is ever asked. EDGENET_SSH_CONFIG names
another configuration file, as `ssh -F` does. Everything of ours there is under ~/.cache/edgenet. The other side needs
sh, mkdir, mktemp, mv, rm, find, touch, tar and sha256sum, as busybox has them too.
"""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgenet.device_bench import child
from edgenet.errors import DeviceError, InputError

CONFIG_VARIABLE = "EDGENET_SSH_CONFIG"
FOLDER = ".cache/edgenet"
_SSH_FAILED = 255  # ssh's own exit status where not the command failed but the way there
_KEEP_DAYS = 14  # models that nobody used so long are removed
_OPTIONS = (
    "BatchMode=yes",
    "ConnectTimeout=15",
    "ServerAliveInterval=10",  # a board that is gone is noticed in 30 s
    "ServerAliveCountMax=3",
    "LogLevel=INFO",  # quieter, and why it failed is not told
    "RemoteCommand=none",
    "ClearAllForwardings=yes",
)
# What ssh says -> what is wrong and what to do. The first that is found counts.
_REASONS = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is not the one that is known: the system was installed anew, or another machine answers in its "
        "place. Find out which; only then remove the old key: ssh-keygen -R {known_as}",
    ),
    (
        "Host key verification failed|host key is known",
        "its host key is not known here: run `ssh {arguments}` once, and accept the fingerprint if it is the board's",
    ),
    (
        r"Permission denied \(|Too many authentication failures",
        "it let nobody in with the keys that ssh offered: run `ssh-copy-id {arguments}`; a key with a passphrase "
        "belongs into ssh-agent, because nothing can be asked here",
    ),
    (
        "Could not resolve hostname",
        "no machine of that name is known: check the name (`ssh {arguments}` must work), or give its address",
    ),
    ("Connection refused", "no ssh server listens there: start it (sudo systemctl enable --now ssh), or name its port"),
    (
        "Connection timed out|Operation timed out|No route to host|Network is unreachable",
        "it does not answer: is it on and in this network?",
    ),
    (
        r"Bad configuration option|Bad owner or permissions|Can't open user config file|bad configuration options",
        "your ssh configuration has an error: {said}",
    ),
    (
        r"closed by|onnection to \S+ closed|Connection reset|Broken pipe|not responding|disconnect",
        "the connection was lost: is the board on, does its power supply hold, is the network stable?",
    ),
    (
        r"(?m)^(ssh|kex|banner|command-line|Unable to negotiate|no matching|percent_|Control)",
        "ssh failed: {said}; `ssh {arguments}` must work without a question",
    ),
)
_DISK_FULL = re.compile(r"No space left|Disk quota|Wrote only \d+ of")


@dataclass(frozen=True)
class Done:
    """A command that has ended there."""

    status: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line of output. What a login script prints stands before it."""
        lines = [line for line in self.out.splitlines() if line.strip()]
        return lines[-1] if lines else ""


@dataclass(frozen=True)
class Bundle:
    """Files that lie beside each other there, in a folder that is called by their content."""

    kind: str  # code | models | wheels
    files: tuple[tuple[str, Path, str], ...]  # name there, path here, sha256

    @property
    def folder(self) -> str:
        """Where it lies, relative to ~/.cache/edgenet."""
        text = "\n".join(f"{sha256} {name}" for name, _, sha256 in self.files)
        return f"{self.kind}/{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    @property
    def size_bytes(self) -> int:
        return sum(path.stat().st_size for _, path, _ in self.files)


@dataclass(frozen=True)
class Connection:
    """Where commands run; `user` and `port` None leave them to the user's configuration."""

    host: str
    user: str | None = None
    port: int | None = None

    @property
    def id(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return "ssh:" + (f"{self.user}@" if self.user else "") + host + (f":{self.port}" if self.port else "")

    @property
    def arguments(self) -> list[str]:
        """What stands after `ssh` to get there."""
        port = ["-p", str(self.port)] if self.port else []
        return [*port, f"{self.user}@{self.host}" if self.user else self.host]

    def command(self, script: str, *words: str) -> list[str]:
        """Return the command that runs `script` there by sh, with `words` as $1, $2, ...

        `script` is one line, and has no exclamation mark: the login shell need not be sh, and csh would not take it.
        """
        if not shutil.which("ssh"):
            raise DeviceError(f"{self.id}: the OpenSSH client is not installed: apt install openssh-client")
        config = os.environ.get(CONFIG_VARIABLE)
        options = [*(["-F", config] if config else []), *(word for o in _OPTIONS for word in ("-o", o))]
        return ["ssh", "-T", *options, *self.arguments, "exec " + shlex.join(["sh", "-c", script, "sh", *words])]

    def run(
        self,
        script: str,
        *words: str,
        stdin: bytes | IO[bytes] = b"",
        timeout_s: float = 60.0,
        doing: str = "a command",
    ) -> Done:
        """Run `script` there as `command` says.

        Raises:
            DeviceError: the machine cannot be reached, the connection broke, or it took longer than `timeout_s`.
        """
        command = self.command(script, *words)
        try:
            done = child.run(command, timeout_s, stdin=stdin)
        except subprocess.TimeoutExpired:
            raise DeviceError(f"{self.id}: {doing} did not end in {timeout_s:g} s; is the board overloaded?") from None
        except OSError as e:
            raise DeviceError(f"{self.id}: cannot start ssh: {e.strerror}") from e
        out, err = done.out.decode(errors="replace"), done.err.decode(errors="replace")
        if done.status == _SSH_FAILED:
            raise DeviceError(self.reason(_SSH_FAILED, err) or f"{self.id}: ssh failed")
        return Done(done.status, out, err)

    def reason(self, status: int, said: str) -> str | None:
        """Return in one line why ssh ended with `status` after printing `said`; None where the command there failed."""
        if status != _SSH_FAILED:
            return None
        known_as = f"'[{self.host}]:{self.port}'" if self.port and self.port != 22 else self.host
        arguments = shlex.join(self.arguments)
        for pattern, text in _REASONS:
            if found := re.search(pattern, said):
                line = said[said.rfind("\n", 0, found.start()) + 1 :].partition("\n")[0].strip()
                return f"{self.id}: {text.format(known_as=known_as, arguments=arguments, said=line[:200])}"
        # ssh itself says nothing of a process that a signal ended, nor where it shared another ssh's connection.
        last = ([line.strip() for line in said.splitlines() if line.strip()] or [""])[-1]
        words = f" (it said last: {last[:200]})" if last else ""
        return (
            f"{self.id}: the process there was killed, out of memory perhaps (`dmesg` there tells), or a shared "
            f"connection ended{words}"
        )

    def carry(self, bundles: Sequence[Bundle]) -> None:
        """Have `bundles` there, whole; those whose content is there already are not sent again.

        Raises:
            DeviceError: the connection failed, or the disk there is full or may not be written to.
        """
        manifest = "".join(f"{sha256}  {b.folder}/{name}\n" for b in bundles for name, _, sha256 in b.files)
        script = (
            f'export LC_ALL=C; mkdir -p "$HOME/{FOLDER}/models" && cd "$HOME/{FOLDER}" || exit 1; touch -c "$@"; '
            f"find models -mindepth 1 -maxdepth 1 -mtime +{_KEEP_DAYS} -exec rm -rf {{}} +; "
            "sha256sum -c - 2>/dev/null; exit 0"
        )
        done = self.run(script, *(b.folder for b in bundles), stdin=manifest.encode(), doing="looking for files")
        if done.status:
            raise self._not_written(done, 0)
        there = {line.removesuffix(": OK") for line in done.out.splitlines() if line.endswith(": OK")}
        absent = [b for b in bundles if not all(f"{b.folder}/{name}" in there for name, _, _ in b.files)]
        if absent:
            self._send(absent)

    def _send(self, bundles: Sequence[Bundle]) -> None:
        size_bytes = sum(b.size_bytes for b in bundles)
        folders = list(dict.fromkeys(b.folder for b in bundles))
        # A bundle gets its name when it is whole.
        script = (
            f'export LC_ALL=C; cd "$HOME/{FOLDER}" && T=$(mktemp -d incoming.XXXXXX) || exit 1; '
            'trap \'rm -rf "$T"\' EXIT; tar -xof - -C "$T" || exit 1; '
            'for d in "$@"; do mkdir -p "${d%/*}" && rm -rf "$d" && mv "$T/$d" "$d" || exit 1; done'
        )
        with tempfile.TemporaryFile() as archive:
            with tarfile.open(fileobj=archive, mode="w") as tar:
                for b in {b.folder: b for b in bundles}.values():
                    for name, path, _ in b.files:
                        with path.open("rb") as f:
                            member = tarfile.TarInfo(f"{b.folder}/{name}")
                            member.size = path.stat().st_size
                            tar.addfile(member, f)
            archive.seek(0)
            timeout_s = 120 + size_bytes / 100_000  # a slow radio link
            done = self.run(script, *folders, stdin=archive, timeout_s=timeout_s, doing="sending files")
        if done.status:
            raise self._not_written(done, size_bytes)

    def _not_written(self, done: Done, size_bytes: int) -> DeviceError:
        said = ([line.strip() for line in done.err.splitlines() if line.strip()] or ["no reason told"])[0]
        if is_disk_full(done.err):
            return DeviceError(f"{self.id}: its disk is full: {size_bytes / 1e6:.1f} MB are needed in ~/{FOLDER}")
        return DeviceError(f"{self.id}: cannot write to ~/{FOLDER} there: {said[:200]}")


def is_disk_full(said: str) -> bool:
    """Tell from what tar, Python or pip printed whether a disk is full."""
    return _DISK_FULL.search(said) is not None


def parse(address: str) -> Connection:
    """Return the connection of `[USER@]HOST[:PORT]`; HOST may be a name from the user's ssh configuration, or [IPv6].

    Raises:
        InputError: it is something else.
    """
    found = re.fullmatch(
        r"(?:(?P<user>\w[\w.+@\\-]*)@)?(?:\[(?P<ipv6>[0-9a-fA-F:.]+(?:%\w+)?)\]|(?P<host>\w[\w.-]*))(?::(?P<port>\d{1,5}))?",
        address,
        re.ASCII,
    )
    port = int(found["port"]) if found and found["port"] else None
    if not found or port == 0 or (port or 0) > 65535:
        raise InputError(f"'{address}' is not an ssh address (valid: ssh:[USER@]HOST[:PORT], ssh:pi@192.168.1.20 say)")
    return Connection(found["ipv6"] or found["host"], found["user"], port)


def bundle(kind: str, files: Sequence[tuple[str, Path]]) -> Bundle:
    """Return files by (name there, path here). Raises InputError where one cannot be read."""
    rows = []
    for name, path in files:
        try:
            with path.open("rb") as f:
                rows.append((name, path, hashlib.file_digest(f, "sha256").hexdigest()))
        except OSError as e:
            raise InputError(f"cannot read {path}: {e.strerror}") from e
    return Bundle(kind, tuple(rows))
