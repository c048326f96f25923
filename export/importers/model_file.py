"""A model file that was checked and not built yet."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgenet.export.graph import Graph
from edgenet.files import sha256_of
from edgenet.images import Preprocessing
from edgenet.results.records import UNKNOWN_HISTORY, PictureHistory
from edgenet.tasks import Task


@dataclass(frozen=True)
class ModelFacts:
    """What a model file says of itself, read without building it.

    `shape` is the input's (N, H, W, C), None where it is open. `classes`, `preprocessing` and `labels` are None where
    the file does not say. `pictures` are those that taught it, where it says so.
    `ending` is how it ends (see classifier.py), "" where only the built graph tells; `task` what edgenet noted in it.
    """

    shape: tuple[int | None, ...]
    sha256: str
    classes: int | None = None
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] | None = None
    pictures: PictureHistory = UNKNOWN_HISTORY
    hint: str = ""  # what it says of its preprocessing, where that is not all
    ending: str = ""
    task: Task | None = None


@dataclass(frozen=True)
class ModelFile:
    """A model file, looked at; `build((H, W, C))` gives the float graph for an input of that size."""

    facts: ModelFacts
    build: Callable[[tuple[int, int, int]], Graph]


def sha256_of_all(files: Sequence[Path]) -> str:
    """Return one sha256 for one file or several."""
    digests = [sha256_of(f) for f in files]
    if len(files) == 1:
        return digests[0]
    text = "".join(f"{f.name} {d}\n" for f, d in zip(files, digests, strict=True))
    return hashlib.sha256(text.encode()).hexdigest()
