"""The Python environment of rknn-toolkit2: where it is, and `edgenet devices prepare rknn`, which makes it.

It needs older packages than edgenet, so it has an environment and an interpreter of its own. It is made in a folder
beside its place and renamed when it works. A killed `prepare` goes on where it was: each package that is whole is
noted, and one that is not noted is installed over what is there.
"""

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgenet.device_bench.ssh.connection import is_disk_full
from edgenet.device_bench.worker import describe_exit
from edgenet.errors import DeviceError, InputError, MissingDependency

COMMAND = "edgenet devices prepare rknn"
PACKAGE = "rknn-toolkit2"
FOLDER_VARIABLE = "EDGENET_RKNN"
DOWNLOAD_MB, INSTALLED_MB = 500, 1350  # measured; both are said before anything is done
LICENCE = (
    "rknn-toolkit2 is Rockchip's, under the RKNN SDK licence: for making applications for Rockchip's products. "
    "edgenet ships nothing of it"
)
_LIST = Path(__file__).with_name("requirements.txt")
_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"  # PyPI's torch for Linux brings CUDA, gigabytes of it
_PYTHONS = ((3, 11), (3, 12), (3, 10))
_MARK = "edgenet.json"  # in the environment, when it is whole: what it has
_NOTES = "edgenet-installed.json"  # in one that is being made: the packages that are whole
_PIP_TIMEOUT_S = 3600.0
_CHECK = "from rknn.api import RKNN; RKNN(verbose=False)"


@dataclass(frozen=True)
class Environment:
    """An environment that works. `packages` has the versions of all that was installed."""

    folder: Path
    python: str  # version of its Python
    packages: dict[str, str]

    @property
    def interpreter(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def version(self) -> str:
        return self.packages[PACKAGE]


@dataclass(frozen=True)
class Prepared:
    """What `prepare` gives back. `done` is what had to be done, in words; empty where all was there."""

    device: str
    python: str
    packages: dict[str, str]
    done: tuple[str, ...]


def folder() -> Path:
    """Return where the environment is, or will be."""
    if own := os.environ.get(FOLDER_VARIABLE):
        return Path(own).expanduser().absolute()
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser() / "edgenet" / "rknn"


def find() -> Environment | None:
    """Return the environment, None where there is no whole one."""
    place = folder()
    try:
        said = json.loads((place / _MARK).read_text(encoding="utf-8"))
        found = Environment(place, str(said["python"]), {str(k): str(v) for k, v in said["packages"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return found if PACKAGE in found.packages and os.access(found.interpreter, os.X_OK) else None


def require(purpose: str) -> Environment:
    """Return the environment.

    Raises:
        MissingDependency: there is none; one sentence with the command that makes it.
    """
    if (found := find()) is None:
        raise MissingDependency(PACKAGE, "", purpose, install=f"run `{COMMAND}` once")
    return found


def prepare(wheels: Path | None = None, say: Callable[[str], None] = lambda text: None) -> Prepared:
    """Make the environment, or mend it where it is not whole, does not start or has other versions than the list.

    Args:
        wheels: a folder of wheels; a package that is in there is not downloaded.
        say: called with each step that begins.

    Raises:
        InputError: `wheels` is no folder of wheels, or the place is in use for something else.
        DeviceError: no Python that has wheels of all packages, no network, no space, or another `prepare` is at work.
    """
    requirements, place = _requirements(), folder()
    wanted = dict(requirements)
    carried = _wheels(wheels)
    found = find()
    if found is not None and found.packages == wanted:
        say(f"looking whether {PACKAGE} in {place} starts")
        if _problem(found.interpreter) is None:
            return Prepared("rknn", _python_text(found.python), found.packages, ())
    _check_place(place)
    python = _find_python()
    with _alone(place):
        say(
            f"making an environment in {place}: it downloads about {DOWNLOAD_MB} MB and takes {INSTALLED_MB / 1e3:.1f} "
            f"GB ({FOLDER_VARIABLE} names another folder). {LICENCE}"
        )
        done = _install(place, python, requirements, carried, say)
    made = find()
    assert made is not None
    return Prepared("rknn", _python_text(made.python), made.packages, tuple(done))


def _install(
    place: Path,
    python: str,
    requirements: list[tuple[str, str]],
    carried: dict[str, Path],
    say: Callable[[str], None],
) -> list[str]:
    """Install into a folder beside `place`, which takes its place in the end; return the steps."""
    part, done = place.with_name(f"{place.name}.part"), []

    def step(text: str) -> None:
        say(text)
        done.append(text)

    notes = part / _NOTES
    key = hashlib.sha256(f"{python}{requirements}".encode()).hexdigest()
    whole: list[str] = []
    with suppress(OSError, ValueError, KeyError, TypeError):
        said = json.loads(notes.read_text(encoding="utf-8"))
        whole = list(said["whole"]) if said["key"] == key else []
    if not whole or not os.access(part / "bin" / "python", os.X_OK):
        whole = []
        shutil.rmtree(part, ignore_errors=True)
        _check_space(place.parent)
        step(f"making an environment with {python}")
        _run([python, "-I", "-m", "venv", str(part)], "making an environment", 300)
    for name, version in requirements:
        if f"{name}=={version}" in whole:
            continue
        step(f"installing {name} {version}")
        _pip(part, name, version, carried)
        whole.append(f"{name}=={version}")
        _write(notes, {"key": key, "whole": whole})
    step(f"looking whether {PACKAGE} starts")
    if (problem := _problem(part / "bin" / "python")) is not None:
        notes.unlink(missing_ok=True)  # the next try begins anew
        raise DeviceError(f"{PACKAGE} was installed and does not start: {problem}; run `{COMMAND}` again")
    version_text = _run([str(part / "bin/python"), "-I", "-c", "import platform;print(platform.python_version())"],
                        "asking for the version", 60)  # fmt: skip
    _write(part / _MARK, {"python": version_text.strip(), "packages": dict(requirements)})
    old = place.with_name(f"{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        os.replace(place, old)
    os.replace(part, place)
    shutil.rmtree(old, ignore_errors=True)
    return done


def _pip(part: Path, name: str, version: str, carried: dict[str, Path]) -> None:
    command = [str(part / "bin" / "python"), "-I", "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    # What a killed pip left has no list of its files: nothing can be uninstalled then, only written over.
    command += ["--no-deps", "--ignore-installed", "--only-binary=:all:", "--retries=2", "--timeout=60"]
    wheel = carried.get(_normal(name))
    if wheel is not None:
        command += ["--no-index", str(wheel)]
    else:
        command += ["--index-url", _TORCH_INDEX] if name == "torch" else []
        command += [f"{name}=={version}"]
    try:
        _run(command, f"installing {name}", _PIP_TIMEOUT_S)
    except DeviceError as e:
        said = str(e)
        if is_disk_full(said):
            raise DeviceError(
                f"the disk is full: {part} takes {INSTALLED_MB / 1e3:.1f} GB; free some space, or name another folder "
                f"by {FOLDER_VARIABLE}, and run `{COMMAND}` again: it goes on where it was"
            ) from None
        raise DeviceError(
            f"{said}; where there is no network, put a wheel of {name} {version} into a folder and run "
            f"`{COMMAND} --wheels DIR`"
        ) from None


def _requirements() -> list[tuple[str, str]]:
    lines = (line.partition("#")[0].strip() for line in _LIST.read_text(encoding="utf-8").splitlines())
    pairs = [line.split("==") for line in lines if line]
    return [(name, version) for name, version in pairs]


def _wheels(given: Path | None) -> dict[str, Path]:
    """Return package -> its wheel in the folder, of those that the list names in that version."""
    if given is None:
        return {}
    try:
        files = sorted(p for p in given.iterdir() if p.suffix == ".whl" and p.is_file())
    except OSError as e:
        raise InputError(f"cannot read the folder of wheels {given}: {e.strerror}") from e
    if not files:
        raise InputError(f"no wheels (*.whl) in {given}: fill it with `pip download --no-deps -r {_LIST}`")
    wanted = {(_normal(name), version) for name, version in _requirements()}
    found: dict[str, Path] = {}
    for p in files:
        name, version, *_ = [*p.name.split("-"), "", ""]
        if (_normal(name), version) in wanted:
            found[_normal(name)] = p.absolute()
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _find_python() -> str:
    """Return a Python that all packages have wheels for. This one, if it is such."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        raise DeviceError(
            f"{PACKAGE} has packages for Linux on x86-64 only, and this is {platform.system()} on {platform.machine()}"
        )
    if sys.version_info[:2] in _PYTHONS:
        return sys.executable
    for major, minor in _PYTHONS:
        found = shutil.which(f"python{major}.{minor}")
        if found is not None:
            with suppress(DeviceError):
                _run([found, "-I", "-c", "import ensurepip, venv"], "trying it", 60)
                return found
    raise DeviceError(f"{PACKAGE} needs Python 3.10, 3.11 or 3.12 with its venv module: apt install python3.11-venv")


def _problem(python: Path) -> str | None:
    """Return why rknn-toolkit2 does not start there, None where it does."""
    try:
        _run([str(python), "-I", "-c", _CHECK], PACKAGE, 300)
    except DeviceError as e:
        return str(e)
    return None


def _check_place(place: Path) -> None:
    if not place.exists():
        return
    try:
        ours = not place.is_dir() or (place / "pyvenv.cfg").is_file() or not any(place.iterdir())
    except OSError as e:
        raise InputError(f"cannot read {place}: {e.strerror}; name another folder by {FOLDER_VARIABLE}") from e
    if not place.is_dir() or not ours:
        raise InputError(
            f"{place} is in use for something else: name another folder by {FOLDER_VARIABLE}, one that is not there yet"
        )


def _check_space(parent: Path) -> None:
    parent.mkdir(parents=True, exist_ok=True)
    free_mb = shutil.disk_usage(parent).free / 1e6
    if free_mb < INSTALLED_MB + DOWNLOAD_MB:
        raise DeviceError(
            f"{parent} has {free_mb / 1e3:.1f} GB of free space, and the environment takes "
            f"{(INSTALLED_MB + DOWNLOAD_MB) / 1e3:.1f} GB while it is made: name another folder by {FOLDER_VARIABLE}"
        )


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Hold a lock that a killed process cannot leave behind. Raises DeviceError where another one holds it."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = open(place.with_name(f"{place.name}.lock"), "w")  # noqa: SIM115
    except OSError as e:
        raise InputError(f"cannot write {place}: {e.strerror}; name another folder by {FOLDER_VARIABLE}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DeviceError(f"another `{COMMAND}` is at work on {place}: wait for it") from None
        yield


def _run(command: list[str], doing: str, timeout_s: float) -> str:
    """Return what a program printed on standard output. Raises DeviceError with the last that it said."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout_s
        )
    except OSError as e:
        raise DeviceError(f"{doing}: cannot start {command[0]}: {e.strerror}") from None
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{doing} took more than {timeout_s:g} s and was ended") from None
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in said if "ERROR" in line or "Error" in line] or said
        raise DeviceError(f"{doing} {describe_exit(done.returncode)}: {(errors or ['it says nothing'])[-1][:300]}")
    return done.stdout


def _python_text(version: str) -> str:
    return f"Python {version}"


def _write(path: Path, value: object) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(new, path)
