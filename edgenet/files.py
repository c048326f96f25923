"""The files that a model is: their size, their hash; and the one way in which edgenet writes a file."""

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgenet.door import open_regular
from edgenet.errors import DeviceError, InputError

LOCK_FILE = ".edgenet.lock"  # in a folder that a run fills
PARTS = ".edgenet-parts"  # the folder, beside what is written, that holds it until it is whole
_WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO, errno.EISDIR}
# Suffix of a model -> of the file beside it that may hold its weights: always OpenVINO's, and of an .onnx over 2 GB.
WEIGHTS_BESIDE = {".xml": ".bin", ".onnx": ".onnx.data"}


_UNITS_BYTES = {"B": 1, "KB": 1000, "KIB": 1 << 10, "MB": 1000**2, "MIB": 1 << 20, "GB": 1000**3, "GIB": 1 << 30}


def parse_bytes(option: str, text: str, least: int = 1, most: int = 1 << 40) -> int:
    """Return "512KB" or "1.5 MiB" in bytes: KB and MB are thousands, KiB and MiB are 1,024ths of what is above.

    Args:
        option: what was given, --arena say, for the message.

    Raises:
        InputError: it is no size, or out of range.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-zA-Z]+)\s*", text)
    if found is None or found[2].upper() not in _UNITS_BYTES:
        raise InputError(f"{option} '{text}' is no size: give a number and KB, KiB, MB or MiB, e.g. {option} 512KB")
    size = float(found[1]) * _UNITS_BYTES[found[2].upper()]
    if not least <= size <= most:
        raise InputError(f"{option} '{text}' is out of range (valid: {least:,} to {most:,} bytes)")
    return int(size)


def files_of(path: Path) -> list[Path]:
    """Return the files that a model is: a folder's by name, or the model's own and the one beside it with weights."""
    if path.is_dir():
        return [p for p in sorted(path.rglob("*")) if p.is_file()]
    beside = WEIGHTS_BESIDE.get(path.suffix.lower())
    weights = path.with_suffix(beside) if beside else path
    return [path, weights] if beside and weights.is_file() else [path]


def size_of(path: Path) -> int:
    """Return the bytes of all files that a model is."""
    return sum(p.stat().st_size for p in files_of(path))


def sha256_of(path: Path, *, alone: bool = False) -> str:
    """Return the sha256 of all files that a model is, one after another, in hex.

    Args:
        alone: of this file only.

    Raises:
        InputError: one is no regular file.
        OSError: one cannot be read.
    """
    digest = hashlib.sha256()
    for p in [path] if alone else files_of(path):
        with open_regular(p) as f:
            while chunk := f.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def atomic_write(path: Path, instead: str = "--out") -> Iterator[Path]:
    """Yield a temporary path near `path`; rename it to `path` when the block ends well, else delete it.

    Args:
        instead: what to choose another of where it cannot be written, for messages.

    Raises:
        InputError: the disk is full or the place cannot be written to.
    """
    with _part_of(path, lambda **where: _closed(tempfile.mkstemp(**where, suffix=path.suffix)), instead) as tmp:
        try:
            yield tmp
            check_held(path.parent)
            os.chmod(tmp, 0o644)
            with open(tmp, "rb") as f:
                os.fsync(f.fileno())
            _made.get(Path(os.path.abspath(path.parent)), set()).add(path.name)
            os.replace(tmp, path)
        except OSError as e:
            check_held(path.parent)
            if e.errno not in _WRITE_ERRORS:
                raise
            raise InputError(f"cannot write {path}: {e.strerror}; free some space or choose another {instead}") from e


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder near `path`; it takes the place of `path` when the block ends well, else it goes.

    Raises:
        InputError: the place cannot be written to.
    """
    with _part_of(path, lambda **where: tempfile.mkdtemp(**where)) as tmp:
        yield tmp
        check_held(path.parent)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(tmp, path)


_held: dict[Path, os.stat_result] = {}  # the folders that this process fills
_foreign: dict[Path, frozenset[str]] = {}  # names in them of files that are the user's
_made: dict[Path, set[str]] = {}  # and of those that this process put there
_PART = re.compile(r".+\.[a-z0-9_]{8}(\.[^.]+)?", re.DOTALL)  # as tempfile makes it in `_part_of`


@contextmanager
def hold(folder: Path, foreign: Collection[str] = ()) -> Iterator[set[str]]:
    """Write in the block to this very folder: not to one that took its name after somebody removed it.

    Yields the names of the files that are made in it; the set grows.

    Args:
        foreign: names of files in it that are the user's: one is never replaced.

    Raises:
        InputError: at a write, in the place of one of `foreign`.
        DeviceError: at a write, or when the block ends well, the folder is no longer there.
    """
    place = Path(os.path.abspath(folder))
    _held[place] = os.stat(place)
    _foreign[place], _made[place] = frozenset(foreign), set()
    try:
        yield _made[place]
        check_held(place)
    finally:
        del _held[place], _foreign[place], _made[place]


def check_held(path: Path) -> None:
    """Raise DeviceError where the folder that this process fills, and `path` is in, was removed or replaced."""
    for folder in (place := Path(os.path.abspath(path)), *place.parents):
        if folder not in _held:
            continue
        with suppress(OSError):
            if os.path.samestat(os.stat(folder), _held[folder]):
                continue
        raise DeviceError(f"{folder} was removed or replaced while this command filled it: run it again")


@contextmanager
def _part_of(path: Path, make: Callable[..., str], instead: str = "--out") -> Iterator[Path]:
    """Yield what `make` makes in the folder PARTS beside `path`, and delete it where it is still there in the end."""
    check_held(path.parent)
    if path.name in _foreign.get(Path(os.path.abspath(path.parent)), ()):
        raise InputError(f"{path} is there already, and edgenet did not make it: move it, or choose another {instead}")
    parts = path.parent / PARTS
    if parts.is_symlink():
        raise InputError(f"{parts} is a link, and what is half written would land elsewhere: remove it")
    try:
        parts.mkdir(parents=True, exist_ok=True)
        tmp = Path(make(prefix=f"{path.name}.", dir=parts))
    except OSError as e:
        with suppress(OSError):
            parts.rmdir()
        raise InputError(f"cannot write {path}: {e.strerror}; choose another {instead}") from None
    try:
        yield tmp
    finally:
        _delete(tmp)
        with suppress(OSError):  # another file is on its way
            parts.rmdir()


def _closed(made: tuple[int, str]) -> str:
    os.close(made[0])
    return made[1]


def delete_parts(out: Path) -> None:
    """Delete what a killed run left half written in `out`, up to two folders down.

    Only in folders called PARTS, and there only what is called as edgenet calls it: whatever else looks half written is
    the user's. A link of that name is left alone.
    """
    for pattern in (PARTS, f"*/{PARTS}", f"*/*/{PARTS}"):
        for parts in out.glob(pattern):
            if parts.is_symlink() or not parts.is_dir():
                continue
            between = parts.parent.relative_to(out).parts
            if any((out.joinpath(*between[: n + 1]) / LOCK_FILE).exists() for n in range(len(between))):
                continue  # another run's folder, below this one
            for part in parts.iterdir():
                if _PART.fullmatch(part.name):
                    _delete(part)
            with suppress(OSError):
                parts.rmdir()


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
