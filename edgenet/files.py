"""The files that a model is: their size, their hash; and the one way in which edgenet writes a file."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgenet.errors import InputError

_WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO}
# Suffix of a model -> of the file beside it that may hold its weights: always OpenVINO's, and of an .onnx over 2 GB.
WEIGHTS_BESIDE = {".xml": ".bin", ".onnx": ".onnx.data"}


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


def sha256_of(path: Path) -> str:
    """Return the sha256 of all files that a model is, one after another, in hex."""
    digest = hashlib.sha256()
    for p in files_of(path):
        with open(p, "rb") as f:
            while chunk := f.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends well, else delete it.

    Raises:
        InputError: the disk is full or the place cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part" + path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as e:
        raise InputError(f"cannot write {path}: {e.strerror}; choose another --out folder") from None
    tmp = Path(name)
    try:
        yield tmp
        os.chmod(tmp, 0o644)
        with open(tmp, "rb") as f:
            os.fsync(f.fileno())
        os.replace(tmp, path)
    except OSError as e:
        if e.errno not in _WRITE_ERRORS:
            raise
        raise InputError(f"cannot write {path}: {e.strerror}; free some space or choose another --out") from e
    finally:
        tmp.unlink(missing_ok=True)
