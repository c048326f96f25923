"""A board for tests: a real sshd on loopback with keys of its own, a home folder of its own, and a PATH of its own.

What stands on its PATH is what the board has: the tools that connection.py needs, and a Python or none. Wheels are
made from the packages installed here, so that pip has something to install there without a network. A test module
imports the fixture `keys` `as` itself, which tells ruff that pytest uses it.
"""

import ensurepip
import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from edgenet.device_bench.ssh.connection import Connection, parse

TOOLS = ("sh", "mkdir", "mktemp", "mv", "rm", "find", "touch", "tar", "sha256sum", "env", "cat")
REAL_PYTHON = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
BATCH = np.random.default_rng(0).normal(0, 1, (5, 20, 20, 3)).astype(np.float32)  # pictures for the tiny network


@dataclass(frozen=True)
class Keys:
    """The user's side: a folder with `client`, `stranger` (a key that no board knows) and one `host` key."""

    folder: Path

    def public(self, name: str) -> str:
        return (self.folder / f"{name}.pub").read_text().strip()


@dataclass(frozen=True)
class FakeBoard:
    """A running sshd. `config` is the ssh configuration of a user who knows it."""

    port: int
    home: Path
    folder: Path
    keys: Keys
    pid: int

    @property
    def id(self) -> str:
        return f"ssh:127.0.0.1:{self.port}"

    @property
    def config(self) -> Path:
        return self.write_config("config", "client", self.keys.public("host"))

    @property
    def cache(self) -> Path:
        return self.home / ".cache/edgenet"

    def write_config(self, name: str, key: str, host_key: str | None) -> Path:
        """Write an ssh configuration with `key`, whose known hosts have `host_key` for this board, or nothing."""
        known = self.folder / f"{name}.known_hosts"
        known.write_text(f"[127.0.0.1]:{self.port} {host_key}\n" if host_key else "")
        config = self.folder / name
        config.write_text(
            f"Host *\n  UserKnownHostsFile {known}\n  GlobalKnownHostsFile /dev/null\n"
            f"  IdentityFile {self.keys.folder / key}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
        )
        return config

    def wait_until_idle(self) -> None:
        """Return when the connections of earlier work are gone."""
        deadline = time.monotonic() + 10
        while self.sessions():
            assert time.monotonic() < deadline, "a connection stays open"
            time.sleep(0.02)

    def sessions(self) -> list[int]:
        """Return the processes of sshd that serve a connection each."""
        return [pid for pid in children(self.pid) if _is_sshd(pid)]


def missing() -> str:
    """Return why no board can be started here, or ""."""
    for program in ("ssh", "ssh-keygen"):
        if not shutil.which(program):
            return f"{program} is not installed"
    return "" if sshd() else "openssh-server is not installed"


def sshd() -> str | None:
    return shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


needs_sshd = pytest.mark.skipif(bool(missing()), reason=missing() or "-")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("keys"))


def connection(b: FakeBoard) -> Connection:
    return parse(b.id.removeprefix("ssh:"))


def make_keys(folder: Path) -> Keys:
    for name in ("client", "stranger", "host"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)]
        subprocess.run(command, check=True)
    return Keys(folder)


@contextmanager
def board(
    folder: Path, keys: Keys, *, python: str | None = None, home: Path | None = None, **env: str
) -> Iterator[FakeBoard]:
    """Run a board in `folder` until the block ends.

    Args:
        python: the text of `python3` there, a shell script; None takes one that starts ours; "" for no Python.
        env: what its sessions find in their environment.
    """
    home = folder / "home" if home is None else home
    programs = folder / "bin"
    for path in (home, programs):
        path.mkdir(parents=True, exist_ok=True)
    # Login scripts that print are a fact of life.
    (home / ".bashrc").write_text("echo Welcome to the board\n")
    for tool in TOOLS:
        (programs / tool).symlink_to(str(shutil.which(tool)))
    if python != "":
        (programs / "python3").write_text(python or f'#!/bin/sh\nexec {REAL_PYTHON} "$@"\n')
        (programs / "python3").chmod(0o755)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd asks for it; Debian makes it when it is started
    authorized = folder / "authorized_keys"
    authorized.write_text(keys.public("client") + "\n")
    port = _free_port()
    settings = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": keys.folder / "host", "PidFile": "none",
        "AuthorizedKeysFile": authorized, "StrictModes": "no", "UsePAM": "no", "PermitRootLogin": "yes",
        "PasswordAuthentication": "no", "KbdInteractiveAuthentication": "no", "PrintMotd": "no", "MaxStartups": "100",
        "KexAlgorithms": "curve25519-sha256", "Ciphers": "aes128-gcm@openssh.com",  # the cheapest
    }  # fmt: skip
    # 0 is what turns compiling off: https://pip.pypa.io/en/stable/topics/configuration/#boolean-options
    variables = {"HOME": str(home), "PATH": str(programs), "PIP_NO_COMPILE": "0", **env}
    set_env = " ".join(f'"{name}={value}"' for name, value in variables.items())
    config = folder / "sshd_config"
    config.write_text("".join(f"{k} {v}\n" for k, v in settings.items()) + f"SetEnv {set_env}\n")
    with (folder / "sshd.log").open("wb") as log:
        server = subprocess.Popen([str(sshd()), "-D", "-e", "-f", str(config)], stderr=log)
    try:
        _wait_for(port, server, folder / "sshd.log")
        yield FakeBoard(port, home, folder, keys, server.pid)
    finally:
        for pid in children(server.pid):
            kill(pid)
        server.kill()
        server.wait()


def give_environment(b: FakeBoard) -> None:
    """Put an environment with nothing but pip on a board: unpacked, which is quicker than ensurepip."""
    venv = b.cache / "venv"
    subprocess.run([str(REAL_PYTHON), "-m", "venv", "--without-pip", str(venv)], check=True)
    carried = sorted((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))
    if carried:
        with zipfile.ZipFile(carried[-1]) as wheel:
            wheel.extractall(next(venv.glob("lib/python3*/site-packages")))
    else:  # a distribution that carries pip elsewhere
        subprocess.run([str(venv / "bin/python"), "-I", "-m", "ensurepip", "--default-pip"], check=True)


def children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def descendants(pid: int) -> list[int]:
    found = children(pid)
    return found + [d for c in found for d in descendants(c)]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def make_wheels(out: Path, *packages: str) -> Path:
    """Write wheels of packages that are installed here, and of what they need; their own tests and types stay here."""
    out.mkdir(parents=True, exist_ok=True)
    waiting, seen = list(packages), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        d = metadata.distribution(name)
        waiting += [_name(r) for r in d.requires or [] if "extra ==" not in r and _is_installed(_name(r))]
        said = [line[5:] for line in (d.read_text("WHEEL") or "").splitlines() if line.startswith("Tag: ")][-1]
        stem = f"{d.metadata['Name'].replace('-', '_')}-{d.version}"
        with zipfile.ZipFile(out / f"{stem}-{said}.whl", "w") as wheel:
            for f in d.files or []:
                path = Path(str(d.locate_file(f)))
                if not {"..", "tests"} & set(f.parts) and f.suffix not in (".pyc", ".pyi") and path.is_file():
                    wheel.write(path, str(f))
    return out


def make_wheel(out: Path, name: str, version: str, files: dict[str, str], requires: str = "") -> Path:
    """Write a wheel of pure Python from file names and texts."""
    out.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    rows = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: edgenet\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows[f"{info}/RECORD"] = "".join(f"{f},,\n" for f in [*rows, f"{info}/RECORD"])
    path = out / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for f, text in rows.items():
            wheel.writestr(f, text)
    return path


def _name(requirement: str) -> str:
    return next(requirement[:i] for i in range(len(requirement) + 1) if not _is_name(requirement[i : i + 1]))


def _is_name(character: str) -> bool:
    return character.isalnum() or (character != "" and character in "._-")


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _is_sshd(pid: int) -> bool:
    return command_of(pid).startswith("sshd")


def kill(pid: int) -> None:
    """Kill a process of a board that may have ended by itself."""
    with suppress(ProcessLookupError):
        os.kill(pid, 9)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(100):
        if server.poll() is not None:
            raise RuntimeError(f"sshd does not start: {log.read_text()}")
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("sshd does not listen")
