"""Set up a board for edgenet, once: a virtual environment of its own there, with NumPy and the runtimes asked for.

Packages come from the package index that the board is configured for, or from wheels carried over. Nothing is ever
compiled there, and nothing outside ~/.cache/edgenet is changed. A runtime counts as installed when Python there has
imported it: wheels exist that install and then crash on an older core.
"""

import json
import re
import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgenet.device_bench.describe import RUNTIME_PACKAGES
from edgenet.device_bench.ssh.connection import FOLDER, Bundle, Connection, Done, bundle, is_disk_full
from edgenet.device_bench.ssh.device import PREPARED
from edgenet.errors import DeviceError, InputError

MIN_PYTHON = (3, 9)  # what runner.py and runtime.py keep to
# The system's own Python first: its venv module and its wheels are the likeliest to be there.
_PYTHONS = ("python3", "python3.13", "python3.12", "python3.11", "python3.10", "python3.9", "python3.14")
_PROBE = (
    "import json,platform,struct,sys,sysconfig;print(json.dumps(dict(version=sys.version_info[:3],exe=sys.argv[1],"
    "machine=platform.machine(),bits=struct.calcsize(chr(80))*8,libc=platform.libc_ver()[0],"
    "platform=sysconfig.get_platform())))"
)
_IMPORTS = {
    "ai-edge-litert": "import numpy; from ai_edge_litert.interpreter import Interpreter",
    "tflite-runtime": "import numpy; from tflite_runtime.interpreter import Interpreter",
    "onnxruntime": "import numpy, onnxruntime",
    "openvino": "import numpy, openvino",
}
# tflite-runtime is built for NumPy 1, and Python tells only on import.
_REQUIREMENTS = {package: (package, "numpy") for package in _IMPORTS} | {
    "tflite-runtime": ("tflite-runtime", "numpy<2")
}
_INSTALL_TIMEOUT_S = 3600.0  # OpenVINO is large, and SD cards are slow


@dataclass(frozen=True)
class Python:
    """A Python on the board."""

    exe: str
    version: tuple[int, int, int]
    machine: str
    bits: int
    libc: str

    @property
    def text(self) -> str:
        return f"Python {'.'.join(map(str, self.version))} ({self.machine}, {self.bits} bit)"


@dataclass(frozen=True)
class Prepared:
    """What a board has now. `done` is what had to be done for that, in words; empty where all was there."""

    device: str
    python: str
    packages: dict[str, str]
    done: tuple[str, ...]


def prepare(
    connection: Connection,
    runtimes: Sequence[str] = ("litert",),
    wheels: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Prepared:
    """Set up the environment on a board, or complete the one that is there.

    Args:
        runtimes: litert, onnxruntime, openvino; what was installed before stays.
        wheels: a folder of wheels for the board; its package index is not asked then.
        say: called with each step that begins.

    Raises:
        InputError: an unknown runtime, or a folder without wheels.
        DeviceError: the board cannot be reached, has no Python, venv module, network or space, or nothing for its
            processor is to be had.
    """
    for name in runtimes:
        if name not in RUNTIME_PACKAGES:
            raise InputError(f"unknown runtime '{name}' (valid: {', '.join(RUNTIME_PACKAGES)})")
    carried = None if wheels is None else _wheel_bundle(wheels)
    board = _Board(connection)
    done: list[str] = []

    def step(text: str) -> None:
        say(text)
        done.append(text)

    say(f"looking for Python on {connection.id}")
    python = board.find_python()
    if not board.has_environment():
        step(f"making an environment in ~/{FOLDER}/venv with {python.text}")
        board.make_environment(python)
    wanted = [name for name in runtimes if not any(board.imports(p) for p in RUNTIME_PACKAGES[name])]
    if wanted and carried is not None:
        step(f"carrying {len(carried.files)} wheels over ({carried.size_bytes / 1e6:.1f} MB)")
        connection.carry([carried])
    try:
        for name in wanted:
            _install(board, python, name, carried, step)
    finally:
        if wanted and carried is not None:  # they are in the environment now, and boards are small
            with suppress(DeviceError):
                connection.run(f'rm -rf "$HOME/{FOLDER}/wheels"', doing="removing the wheels")
    packages = board.finish()
    return Prepared(connection.id, python.text, packages, tuple(done))


def _install(
    board: "_Board", python: Python, runtime: str, carried: Bundle | None, step: Callable[[str], None]
) -> None:
    """Install the first package for `runtime` that installs and imports."""
    reasons: list[str] = []
    for package in RUNTIME_PACKAGES[runtime]:
        step(f"installing {package}")
        installed = board.pip("install", _REQUIREMENTS[package], carried)
        if installed.status == 0:
            if board.imports(package):
                return
            reasons.append(f"{package} installs but does not start there")
            board.pip("uninstall", (package,), None)
            continue
        said = installed.out + installed.err
        if is_disk_full(said):
            raise DeviceError(f"{board.id}: its disk is full: {package} does not fit; free some space and run it again")
        if carried is None and re.search("Failed to establish|NewConnectionError|name resolution|Max retries", said):
            raise DeviceError(
                f"{board.id}: the board reaches no package index; get the wheels here and carry them over: "
                f"{_download(python, package)}, then "
                f"edgenet devices prepare {board.id} --runtime {runtime} --wheels DIR"
            )
        reasons.append(_why_not(package, python, carried, said))
    raise DeviceError(f"{board.id}: no {runtime} for {python.text}: {'; '.join(reasons)}")


def _why_not(package: str, python: Python, carried: Bundle | None, said: str) -> str:
    errors = [line.partition("ERROR:")[2].strip() for line in said.splitlines() if "ERROR:" in line]
    lacking = re.search(r"(?:that satisfies the requirement|No matching distribution found for) ([\w.-]+)", said)
    if lacking is None:
        return f"pip cannot install {package}: {(errors or ['it does not say why'])[0][:200]}"
    what = lacking[1] if lacking[1] == package else f"{lacking[1]}, which {package} needs,"
    if carried is None:
        libc = "" if python.libc else " (its C library is not glibc, for which such wheels are built)"
        return f"its package index has no wheel of {what} that fits{libc}"
    prefix = lacking[1].replace("-", "_").replace(".", "_").lower() + "_"
    same = [name for name, _, _ in carried.files if re.sub(r"[-.]", "_", name).lower().startswith(prefix)]
    if not same:
        return f"no wheel of {what} is in the folder"
    return f"{same[0]} in the folder does not fit"


def _download(python: Python, package: str) -> str:
    machine = {"armv8l": "armv7l"}.get(python.machine, python.machine) if python.bits == 32 else python.machine
    tags = [f"--platform {tag}_{machine}" for tag in ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "linux")]
    version = f"--python-version {python.version[0]}.{python.version[1]}"
    what = shlex.join(_REQUIREMENTS[package])
    return f"pip download -d DIR --only-binary=:all: {version} {' '.join(tags)} {what}"


def _wheel_bundle(folder: Path) -> Bundle:
    try:
        found = sorted(p for p in folder.iterdir() if p.name.endswith(".whl") and p.is_file())
    except OSError as e:
        raise InputError(f"cannot read the folder of wheels {folder}: {e.strerror}") from e
    odd = [p.name for p in found if not re.fullmatch(r"[\w.+-]+\.whl", p.name, re.ASCII)]
    if odd:
        raise InputError(f"{odd[0]!r} in {folder} is not the name of a wheel: take it out")
    if not found:
        raise InputError(f"no wheels (*.whl) in {folder}: fill it with `pip download` for the board's processor")
    return bundle("wheels", [(p.name, p) for p in found])


class _Board:
    """The commands on a board that setting up is made of."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.id = connection, connection.id

    def find_python(self) -> Python:
        script = (
            'probe=$1; shift; for p in "$@"; do p=$(command -v "$p") && "$p" -c "$probe" "$p" 2>/dev/null; done; exit 0'
        )
        done = self.connection.run(script, _PROBE, *_PYTHONS, doing="looking for Python")
        found = []
        for line in done.out.splitlines():
            try:
                said: dict[str, Any] = json.loads(line)
                found.append(Python(said["exe"], tuple(said["version"]), said["machine"], said["bits"], said["libc"]))
            except (ValueError, KeyError, TypeError):  # what a login script prints
                continue
        least = ".".join(map(str, MIN_PYTHON))
        if not found:
            raise DeviceError(
                f"{self.id} has no Python: install Python {least} or newer there (apt install python3-venv)"
            )
        for python in found:
            if python.version >= MIN_PYTHON:
                return python
        newest = max(p.version for p in found)
        raise DeviceError(
            f"{self.id} has Python {'.'.join(map(str, newest))} only: install Python {least} or newer there"
        )

    def has_environment(self) -> bool:
        return self._python("-I", "-m", "pip", "--version").status == 0

    def make_environment(self, python: Python) -> None:
        # pip by hand: venv keeps to itself why it could not put it there.
        script = (
            f'mkdir -p "$HOME/{FOLDER}" && cd "$HOME/{FOLDER}" && rm -rf venv && "$1" -m venv --without-pip venv && '
            "exec venv/bin/python -I -m ensurepip --default-pip"
        )
        done = self.connection.run(script, python.exe, timeout_s=300, doing="making an environment")
        if done.status == 0:
            return
        said = done.out + done.err
        if is_disk_full(said):
            raise DeviceError(f"{self.id}: its disk is full: an environment of Python takes 20 MB in ~/{FOLDER}")
        if re.search("No module named '?(venv|ensurepip)|ensurepip is not available", said):
            package = f"python{python.version[0]}.{python.version[1]}-venv"
            raise DeviceError(f"{self.id}: Python there has no venv module: sudo apt install {package}, on the board")
        last = ([line.strip() for line in said.splitlines() if line.strip()] or [f"exit status {done.status}"])[-1]
        raise DeviceError(f"{self.id}: cannot make an environment in ~/{FOLDER}: {last[:200]}")

    def imports(self, package: str) -> bool:
        """Tell whether Python there imports the package; a crash is a no."""
        return self._python("-I", "-c", _IMPORTS[package], timeout_s=180).status == 0

    def pip(self, verb: str, requirements: Sequence[str], carried: Bundle | None) -> Done:
        options = ["--disable-pip-version-check", "--no-input"]
        if verb == "uninstall":
            return self._python("-I", "-m", "pip", *options, "uninstall", "--yes", *requirements)
        options += ["install", "--only-binary=:all:", "--retries=2", "--timeout=20"]
        if carried is not None:
            options += ["--no-index", "--find-links", carried.folder]
        return self._python("-I", "-m", "pip", *options, *requirements, timeout_s=_INSTALL_TIMEOUT_S)

    def finish(self) -> dict[str, str]:
        """Note what the environment has, which marks it as complete; return that."""
        code = (
            "import json,os,importlib.metadata as m;"
            "names='numpy "
            + " ".join(_IMPORTS)
            + "'.split();have={d.metadata['Name'].lower().replace('_','-'):d.version "
            "for d in m.distributions()};found={n:have[n] for n in names if n in have};"
            "f=open('venv/edgenet.tmp','w');json.dump(found,f);f.close();"
            f"os.replace('venv/edgenet.tmp','{PREPARED}');print(json.dumps(found))"
        )
        done = self._python("-I", "-c", code)
        try:
            found: dict[str, str] = json.loads(done.last)
        except ValueError:
            said = (done.err.strip().splitlines() or [f"exit status {done.status}"])[-1]
            raise DeviceError(f"{self.id}: cannot write in ~/{FOLDER}: {said[:200]}") from None
        return found

    def _python(self, *words: str, timeout_s: float = 60.0) -> Done:
        # No exec: sh ends with 128 + signal where Python crashes, ssh by itself only with 255, as if it had failed.
        script = f'cd "$HOME/{FOLDER}" 2>/dev/null && [ -x venv/bin/python ] && venv/bin/python "$@"; exit $?'
        return self.connection.run(script, *words, timeout_s=timeout_s, doing=f"`python {words[-1][:40]}`")
