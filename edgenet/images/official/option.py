"""`--images NAME:DIR[#SPLIT]`: a data set in its official layout (layouts.py).

Without a SPLIT it is all but the test split, which measures (data_sets.py).
"""

import functools
import itertools
import os
from dataclasses import dataclass
from pathlib import Path

from edgenet.errors import InputError
from edgenet.images.class_names import Classes
from edgenet.images.official.layouts import LAYOUTS, Layout

_SHOWN = 3


@dataclass(frozen=True)
class Listing:
    """Pictures of a data set in the order of their names: whole paths, and each one's class of the set's own."""

    classes: tuple[str, ...]
    files: tuple[str, ...]
    labels: tuple[int, ...]


def layout_of(images: str) -> Layout:
    """Return the layout of NAME:DIR."""
    return LAYOUTS[images.partition(":")[0]]


@functools.lru_cache(maxsize=8)
def listing(images: str) -> Listing:
    """Return the pictures of NAME:DIR[#SPLIT].

    Raises:
        InputError: no such folder or split, files that are missing or damaged, no pictures.
        MissingDependency: SciPy is not installed, which reads .mat files.
    """
    name, folder, split = _parts(images)
    layout = LAYOUTS[name]
    classes, entries = layout.read(layout.root(folder), (split,) if split else layout.learning)
    entries = sorted(set(entries))
    if not entries:
        raise InputError(f"{images}: no pictures are listed: get the lists again from {layout.page}")
    twice = next((a[0] for a, b in itertools.pairwise(entries) if a[0] == b[0]), None)
    if twice:
        raise InputError(f"{images}: {os.path.basename(twice)} has two classes: get the lists again from {layout.page}")
    return Listing(classes, tuple(file for file, _ in entries), tuple(label for _, label in entries))


def classes_of(images: str) -> tuple[str, ...]:
    """Return the class names of NAME:DIR[#SPLIT], in the data set's own order. Raises as `listing`."""
    return listing(images).classes


def indices_in(images: str, classes: Classes) -> list[int]:
    """Return which class of a model each class of the data set is: by its name, else by its number.

    A model whose classes have numbers and no names, as many as the data set, has the data set's own order: from 0, or
    from 1 where its numbers do.

    Raises:
        InputError: the model has other classes.
    """
    names = classes_of(images)
    if not classes.count:
        return list(range(len(names)))
    if all(classes.knows(name) for name in names):
        found = [classes.index_of(name) for name in names]
        if len(set(found)) == len(found):
            return found
    numbers = [int(i) for i in classes.ids if i.isascii() and i.isdecimal() and len(i) < 10]
    for first in (0, 1):
        if sorted(numbers) == list(range(first, first + len(names))) and len(classes.ids) == len(names):
            return [numbers.index(first + i) for i in range(len(names))]
    shown = ", ".join(names[:_SHOWN])
    raise InputError(
        f"the {len(names)} classes of {images} ({shown}, ...) are not the {classes.count} of this model: give one that "
        f"has learned them, as `edgenet finetune efficientnet-lite0 --images {images} --out OUT` does"
    )


def _parts(images: str) -> tuple[str, Path, str]:
    name, _, rest = images.partition(":")
    folder, mark, split = rest.rpartition("#")
    if not mark:
        folder, split = rest, ""
    if mark and split not in LAYOUTS[name].splits:
        raise InputError(f"{images}: {name} has no split '{split}' (valid: {', '.join(LAYOUTS[name].splits)})")
    if not folder:
        raise InputError(f"'{images}' names no folder: write {name}:DIR, with what {LAYOUTS[name].page} hands out")
    return name, Path(folder), split
