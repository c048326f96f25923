"""Sets of photographs: opened from a folder with labels and content hashes, split, limited and divided."""

import csv
import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgenet import data_sets
from edgenet.door import PICTURE_BYTES, open_regular
from edgenet.errors import InputError
from edgenet.images import official, sample, tfds
from edgenet.images.class_names import Classes
from edgenet.images.decode import Skipped, cores, refuse_too_many
from edgenet.images.folders import Entry, class_groups, class_names_in, list_folder
from edgenet.results import ImageSet
from edgenet.tasks import CLASSES, Task

HELD_BACK, LEAST_HELD_BACK, MOST_HELD_BACK = 0.15, 8, 512  # of the training pictures; pictures
_SCANNED_AT_ONCE = 1024
# The first bytes of every format above but TIFF's and the ISO ones: tells text and empty files at no cost.
_MAGIC = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"BM", b"GIF8", b"II", b"MM", b"P")


def open_images(
    path: str | Path, class_ids: Sequence[str], class_names: Sequence[str], task: Task = CLASSES
) -> ImageSet:
    """List the photographs of a folder with their labels and content hashes; "sample" means the sample photographs.

    "tfds:NAME" is a data set of TensorFlow Datasets (tfds.py), "flowers102:DIR" one in its official layout (official).

    The folder holds class folders named by WordNet id, index or class name; or photographs with a labels.csv
    (file,label); or photographs only. Files come in the order of their names.

    Args:
        class_ids: the WordNet id of each class, or nothing where the model's classes have none.
        class_names: the name of each class. With neither, labels can only be indices.
        task: of several labels a picture, labels.csv separates them by |. For embeddings the folder's own names are the
            classes.

    Raises:
        InputError: no such folder, no photographs in it, a label that the model does not know, more than 1 % of the
            files are plainly not images.
        MissingDependency: the sample photographs, or what reads tfds:NAME or .mat files, are not installed.
    """
    if str(path) == "sample":
        return _open_sample()
    several = task.kind == "labels"
    classes = Classes((), names_in(path)) if task.kind == "embedding" else Classes(class_ids, class_names)
    listed = _official if data_sets.is_named(str(path)) else _folder
    entries, groups = listed(str(path), classes, several)
    files = tuple(file for file, _ in entries)
    digests, bad = [], []
    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(files), _SCANNED_AT_ONCE):  # what waits in a pool takes memory
            part = files[start : start + _SCANNED_AT_ONCE]
            for file, (digest, why) in zip(part, pool.map(_scan, part), strict=True):
                digests.append(digest)
                if why:
                    bad.append(Skipped(file, why))
    refuse_too_many(bad, len(files))
    if several:
        sets = [label if isinstance(label, tuple) else None for _, label in entries]
        return _image_set(str(path), files, [None] * len(files), digests, label_sets=sets)
    labels = [label if isinstance(label, int) else None for _, label in entries]
    return _image_set(str(path), files, labels, digests, groups=groups)


def _folder(path: str, classes: Classes, several: bool) -> tuple[list[Entry], dict[str, tuple[int, ...]]]:
    """Return the pictures of a folder, as whole paths with their labels, and what stands for several classes."""
    root = folder_of(path)
    entries = list_folder(root, classes, several=several)
    groups = {} if several else class_groups(root, classes)
    return [(os.path.abspath(root / name), label) for name, label in entries], groups


def _official(images: str, classes: Classes, several: bool) -> tuple[list[Entry], dict[str, tuple[int, ...]]]:
    """The same of a data set in its official layout."""
    found, index = official.listing(images), official.indices_in(images, classes)
    labels = (index[label] for label in found.labels)
    return [(file, (i,) if several else i) for file, i in zip(found.files, labels, strict=True)], {}


def folder_of(path: str | Path) -> Path:
    """Return the folder that `--images` names. Raises InputError, MissingDependency."""
    return tfds.folder_of(str(path)) if tfds.is_tfds(path) else Path(path)


def names_in(path: str | Path) -> tuple[str, ...]:
    """Return the names of a folder's own classes, sorted; none where the pictures are not labelled.

    Those of a data set in its official layout come in its own order.

    Raises:
        InputError: not a folder, or no photographs in it.
    """
    if str(path) == "sample":
        return ()
    return official.classes_of(str(path)) if data_sets.is_named(str(path)) else class_names_in(folder_of(path))


def split(images: ImageSet, n_calibration: int) -> tuple[ImageSet, ImageSet]:
    """Split a set into (calibration, evaluation), disjoint by content.

    The order of the content hashes decides, not file names: the same photographs in another folder split alike. Equal
    files, and crops of one sample photograph, stay on one side. The calibration side has at most `n_calibration`
    pictures and at most half of the set: its length is the number that was really used.
    """
    target = min(n_calibration, len(images) // 2)
    groups: dict[str, list[int]] = {}
    for i in sorted(range(len(images)), key=lambda i: (images.digests[i], images.files[i])):
        groups.setdefault(group_of(images, i), []).append(i)
    in_order = [groups[key] for key in sorted(groups)]
    chosen: list[int] = []
    taken: list[int] = []
    for group in in_order:
        if len(chosen) + len(group) <= target:
            chosen += group
            taken += group
    if not chosen and target > 0 and len(in_order) > 1:  # every group is larger: a part of one, and the rest unused
        chosen, taken = in_order[0][:target], in_order[0]
    unused = set(taken)
    n_set = images.n_set or len(images)
    return (
        _subset(images, sorted(chosen), n_set),
        _subset(images, [i for i in range(len(images)) if i not in unused], n_set),
    )


def limit(images: ImageSet, n: int) -> ImageSet:
    """Return `n` pictures of the set, those with the lowest content hashes; the whole set where it has no more.

    Raises:
        InputError: n is below 1.
    """
    if n < 1:
        raise InputError(f"a limit of {n} images leaves none: give at least 1")
    if n >= len(images):
        return images
    kept = sorted(range(len(images)), key=lambda i: (images.digests[i], images.files[i]))[:n]
    return _subset(images, sorted(kept), 0)


def subset(images: ImageSet, kept: Sequence[int]) -> ImageSet:
    """Return the pictures with these indices as a set of their own."""
    return _subset(images, kept, 0)


def duplicates(images: ImageSet) -> tuple[tuple[str, ...], ...]:
    """Return the groups of files that have the same content; they stay in the set."""
    groups: dict[str, list[str]] = {}
    for file, digest in zip(images.files, images.digests, strict=True):
        groups.setdefault(digest, []).append(file)
    return tuple(tuple(files) for files in groups.values() if len(files) > 1)


def divide(images: ImageSet, n: int) -> tuple[ImageSet, ImageSet]:
    """Return about `n` pictures of the set and the others, by content hash; pictures of one content stay together.

    Both parts remember the size of the whole, of which 1 % may be unreadable.
    """
    keys = [group_of(images, i) for i in range(len(images))]
    order = sorted(range(len(images)), key=lambda i: (keys[i], images.digests[i], images.files[i]))
    ends = [i for i in range(1, len(order)) if keys[order[i]] != keys[order[i - 1]]] + [len(order)]
    n = min(ends, key=lambda end: (abs(end - n), end)) if 0 < n < len(order) else max(0, min(n, len(order)))
    whole = images.n_set or len(images)
    first, rest = (replace(subset(images, sorted(part)), n_set=whole) for part in (order[:n], order[n:]))
    return first, rest


def hold_back(train: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Return the pictures that decide which epoch is kept, and those that are left to train on."""
    return divide(train, min(MOST_HELD_BACK, max(LEAST_HELD_BACK, round(HELD_BACK * len(train)))))


@functools.cache
def imagenet_classes() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the WordNet ids and the names of ImageNet's 1000 classes, in the order of the networks' outputs."""
    with open(Path(__file__).with_name("imagenet_classes.csv"), newline="", encoding="utf-8") as f:
        rows = sorted(csv.DictReader(f), key=lambda row: int(row["index"]))
    return tuple(row["wnid"] for row in rows), tuple(row["name"] for row in rows)


def _open_sample() -> ImageSet:
    hashes: dict[str, str] = {}
    digests = []
    for name in sample.names():
        photo, number = sample.photograph_of(name)
        if photo not in hashes:
            hashes[photo] = hashlib.sha256(sample.path_of(photo).read_bytes()).hexdigest()
        digests.append(hashlib.sha256(f"{hashes[photo]}#{number}".encode()).hexdigest())
    return _image_set("sample", sample.names(), [None] * len(digests), digests)


def _scan(file: str) -> tuple[str, str]:
    # The content's sha256, and why it cannot be an image ("" where it may be one).
    digest = hashlib.sha256()
    try:
        with open_regular(file, PICTURE_BYTES) as f:
            head = block = f.read(1 << 20)
            while block:
                digest.update(block)
                block = f.read(1 << 20)
    except (OSError, InputError) as e:
        why = str(e.strerror) if isinstance(e, OSError) else str(e).removeprefix(f"{file} ")
        return hashlib.sha256(f"unreadable {file}".encode(errors="surrogateescape")).hexdigest(), why
    if not head:
        return digest.hexdigest(), "the file is empty"
    looks_right = head.startswith(_MAGIC) or head[4:8] == b"ftyp"
    return digest.hexdigest(), "" if looks_right else "not an image"


def _image_set(root: str, files: Sequence[str], labels: Sequence[int | None], digests: Sequence[str],
               n_set: int = 0, groups: Mapping[str, tuple[int, ...]] | None = None,
               label_sets: Sequence[tuple[int, ...] | None] = ()) -> ImageSet:  # fmt: skip
    if label_sets:
        texts = ["unknown" if s is None else "|".join(map(str, s)) for s in label_sets]
        lines = sorted(f"{d} several {text}\n" for d, text in zip(digests, texts, strict=True))
        fingerprint = hashlib.sha256("".join(lines).encode()).hexdigest()
        return ImageSet(
            root, tuple(files), tuple(labels), tuple(digests), fingerprint, n_set, label_sets=tuple(label_sets)
        )
    lines = sorted(f"{d} {'' if label is None else label}\n" for d, label in zip(digests, labels, strict=True))
    lines += sorted({f"{','.join(map(str, accepted))}\n" for accepted in (groups or {}).values()})
    fingerprint = hashlib.sha256("".join(lines).encode()).hexdigest()
    return ImageSet(root, tuple(files), tuple(labels), tuple(digests), fingerprint, n_set, groups or {})


def _subset(images: ImageSet, kept: Sequence[int], n_set: int) -> ImageSet:
    def pick(values: Sequence[Any]) -> list[Any]:
        return [values[i] for i in kept]

    return _image_set(images.root, pick(images.files), pick(images.labels), pick(images.digests), n_set, images.groups,
                      pick(images.label_sets) if images.label_sets else ())  # fmt: skip


def group_of(images: ImageSet, i: int) -> str:
    """Return what must stay with picture i on one side of a split; a hash, since groups are taken in its order."""
    if sample.is_sample(images.files[i]):
        return hashlib.sha256(sample.photograph_of(images.files[i])[0].encode()).hexdigest()
    return images.digests[i]
