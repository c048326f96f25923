"""CIFAR-10 and CIFAR-100, whose pictures stand one behind the other in binary files: written as pictures once.

A record is one or two bytes of labels and 32 x 32 pixels, all red ones first. Pictures go to $XDG_CACHE_HOME/edgenet,
as BMP: the same bytes whoever writes them, since what a picture's content hashes to decides what it is used for.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from edgenet.cache.store import root as cache_root
from edgenet.door import TABLE_BYTES, read_bytes, read_text
from edgenet.errors import InputError

SIDE_PX = 32
_PIXEL_BYTES = 3 * SIDE_PX * SIDE_PX


@dataclass(frozen=True)
class Binary:
    """What a binary version has: files by split, that of the names, bytes of labels, of which the last counts."""

    name: str
    splits: dict[str, tuple[str, ...]]
    names: str
    label_bytes: int

    @property
    def files(self) -> tuple[str, ...]:
        return (*(f for files in self.splits.values() for f in files), self.names)


CIFAR_10: Binary = Binary(
    "cifar10",
    {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
    "batches.meta.txt",
    1,
)
CIFAR_100: Binary = Binary("cifar100", {"train": ("train.bin",), "test": ("test.bin",)}, "fine_label_names.txt", 2)


def read(binary: Binary, root: Path, splits: Sequence[str]) -> tuple[tuple[str, ...], list[tuple[str, int]]]:
    """Return the names of the classes, and each picture's file with its class.

    Raises:
        InputError: a file cannot be read, has parts of a record, or a class that has no name; the cache is full.
    """
    names = tuple(line.strip() for line in read_text(root / binary.names).split("\n") if line.strip())
    entries: list[tuple[str, int]] = []
    for split in splits:
        for name in binary.splits[split]:
            entries += _pictures(binary, root / name, len(names))
    return names, entries


def _pictures(binary: Binary, path: Path, classes: int) -> list[tuple[str, int]]:
    """Return the pictures of one binary file, which are written where they are not there yet."""
    data = read_bytes(path, TABLE_BYTES)
    record = binary.label_bytes + _PIXEL_BYTES
    if not data or len(data) % record:
        raise InputError(f"{path} has {len(data):,} bytes, which are no records of {record:,}: get it again")
    records = np.frombuffer(data, np.uint8).reshape(-1, record)
    labels = records[:, binary.label_bytes - 1]
    if labels.max() >= classes:
        raise InputError(f"{path}: class {labels.max()}, and {binary.names} names {classes}: get both again")
    cache = cache_root() / "official"
    folder = cache / f"{binary.name}-{path.stem}-{hashlib.sha256(data).hexdigest()[:12]}"
    if not folder.is_dir():
        _write(records[:, binary.label_bytes :].reshape(-1, 3, SIDE_PX, SIDE_PX), folder)
    return [(str(folder / f"{i:05d}.bmp"), int(label)) for i, label in enumerate(labels)]


def _write(pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]", folder: Path) -> None:
    """Write (N, 3, H, W) as pictures, all or none."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            for i, picture in enumerate(pixels.transpose(0, 2, 3, 1)):
                Image.fromarray(picture).save(work / f"{i:05d}.bmp")
            try:
                work.rename(folder)
            except OSError:  # another process was first
                if not folder.is_dir():
                    raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as e:
        raise InputError(
            f"cannot write pictures to {folder.parent}: {e.strerror}; make room there, or set XDG_CACHE_HOME"
        ) from None
