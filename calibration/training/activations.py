"""What a frozen part of a network makes of pictures, computed once and kept on disk: layers above it learn from that.

Each picture is seen in several views: as it is, then flipped, cropped and coloured as training does. A view of all
pictures is two files, named after all that decides their content, so that a run that was stopped goes on after the
last whole view, and no other network or picture is ever read from them.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from edgenet.calibration.execute import Executor
from edgenet.calibration.training.augment import SMALLEST_CROP, Pictures, mixed, order_of, view
from edgenet.calibration.training.cut import below
from edgenet.door import reading
from edgenet.export.graph import Graph, fingerprint
from edgenet.files import atomic_write
from edgenet.frameworks import tensorflow
from edgenet.images.decode import cores
from edgenet.options import Progress

FOLDER = "activations"
_HALF = float(np.finfo(np.float16).max)
_LIMITS = {"float16": (-_HALF, _HALF), "float32": (-np.inf, np.inf)}


@dataclass(frozen=True)
class Look:
    """Which views of each picture: how many, of which changes, from which seed."""

    n: int
    augment: tuple[str, ...] = ()
    smallest_crop: float = SMALLEST_CROP
    seed: int = 0


@dataclass(frozen=True)
class Stacked:
    """Two arrays of rows as one, the second's rows after the first's, both where they are: on disk."""

    first: "np.ndarray | Stacked"
    second: "np.ndarray | Stacked"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.first.shape[0] + self.second.shape[0], *self.first.shape[1:])

    def __getitem__(self, row: int) -> np.ndarray:
        n = self.first.shape[0]
        found: np.ndarray = self.first[row] if row < n else self.second[row - n]
        return found


@dataclass(frozen=True)
class Activations:
    """Views of pictures at a cut of a network.

    Attributes:
        cut: (N, ...) float16 for each view, on disk; empty where only features are wanted.
        features: (N, C) float32 for each view: what the head reads.
        labels: (N,).
        size_bytes: on disk.
    """

    cut: tuple[np.ndarray | Stacked, ...]
    features: tuple[np.ndarray, ...]
    labels: np.ndarray
    size_bytes: int

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batch: int, seed: int, epoch: int, classes: int, mixup: bool = False) -> Any:
        """Return an epoch as a tf.data.Dataset of (x, target): x (B, ...) float32 at the cut, target (B, classes).

        A picture's view is another one from epoch to epoch, and the views of a batch differ.
        """
        tf = tensorflow()
        views = self.cut or self.features
        n, shape = len(self), views[0].shape[1:]
        order = order_of(n, seed, epoch)[: n // batch * batch].reshape(-1, batch)

        def fetch(rows: Any) -> np.ndarray:
            return np.stack([views[(epoch + i) % len(views)][i] for i in rows]).astype(np.float32)

        def pair(rows: Any) -> tuple[Any, Any]:
            x = tf.numpy_function(fetch, [rows], tf.float32, stateful=False)
            return tf.ensure_shape(x, (batch, *shape)), tf.one_hot(tf.gather(tf.constant(self.labels), rows), classes)

        data = tf.data.Dataset.from_tensor_slices(order.astype(np.int64)).map(pair)
        return mixed(data, seed, epoch) if mixup else data


def joined(first: Activations, second: Activations) -> Activations:
    """Return as many views of two sets of pictures as those of one set; what is on disk stays where it is.

    The cut is left out where the second has none.
    """
    cut = tuple(Stacked(*pair) for pair in zip(first.cut, second.cut, strict=True)) if second.cut else ()
    features = tuple(np.concatenate(pair) for pair in zip(first.features, second.features, strict=True))
    labels = np.concatenate([first.labels, second.labels])
    return Activations(cut, features, labels, first.size_bytes + second.size_bytes)


@dataclass(frozen=True)
class Answers:
    """Views of pictures at a cut of a quantized network, and what the float network answers to each.

    Attributes:
        cut: (N, ...) int8 for each view, on disk.
        wanted: (N, classes) float32 logits of the float network, for each view.
        labels: (N,), -1 for none.
        zero_point: of the integers at the cut.
    """

    cut: tuple[np.ndarray, ...]
    wanted: tuple[np.ndarray, ...]
    labels: np.ndarray
    zero_point: int

    def levels(self, number: int, i: int, j: int) -> np.ndarray:
        """Return view `number` of pictures i to j as the layers above the cut take it: (n, ...) float32."""
        return self.cut[number][i:j].astype(np.float32) - np.float32(self.zero_point)

    def batches(self, batch: int, seed: int, epoch: int) -> Any:
        """Return an epoch as a tf.data.Dataset of (x, target): x (B, ...) levels, target (B, 2 * classes).

        The first half of a target is one-hot, or zero where a picture has no label; the second is the float network's
        logits. A picture's view is another one from epoch to epoch, and the views of a batch differ.
        """
        tf = tensorflow()
        n, shape, classes = len(self.labels), self.cut[0].shape[1:], self.wanted[0].shape[1]
        order = order_of(n, seed, epoch)[: n // batch * batch].reshape(-1, batch)

        def fetch(rows: Any) -> tuple[np.ndarray, np.ndarray]:
            picked = [((epoch + i) % len(self.cut), i) for i in rows]
            x = np.stack([self.cut[v][i] for v, i in picked]).astype(np.float32) - np.float32(self.zero_point)
            return x, np.stack([self.wanted[v][i] for v, i in picked])

        def pair(rows: Any) -> tuple[Any, Any]:
            x, wanted = tf.numpy_function(fetch, [rows], (tf.float32, tf.float32), stateful=False)
            label = tf.one_hot(tf.gather(tf.constant(self.labels), rows), classes)
            wanted = tf.ensure_shape(wanted, (batch, classes))
            return tf.ensure_shape(x, (batch, *shape)), tf.concat([label, wanted], -1)

        return tf.data.Dataset.from_tensor_slices(order.astype(np.int64)).map(pair)


def answers(
    frozen: Graph, cut: str, teacher: Graph, pictures: Pictures, about: str, look: Look, folder: Path,
    progress: Progress,
) -> Answers:  # fmt: skip
    """Return views of pictures at `cut` of the quantized graph `frozen`, with the float graph `teacher`'s logits.

    What is on disk already is not computed again.

    Args:
        about: which pictures they are, beside their number.
        folder: of the run; the files are in FOLDER there.
    """
    lower, logits = below(frozen, cut), teacher.logits()
    q = frozen.tensors[cut].quantization
    assert q is not None
    told = [
        fingerprint(lower), repr(q), fingerprint(teacher), about, len(pictures), pictures.preprocessing.to_json(),
        list(look.augment), look.smallest_crop, look.seed,
    ]  # fmt: skip
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
    n, classes = len(pictures), int(np.prod(teacher.tensors[logits].shape))
    runs: list[Executor] = []
    found: list[tuple[np.ndarray, np.ndarray]] = []
    shapes = ((n, *frozen.tensors[cut].shape[1:]), (n, classes))
    for number in range(look.n):
        paths = [folder / FOLDER / f"{key}-{number}-{kind}.npy" for kind in ("levels", "answers")]
        if not all(p.exists() for p in paths):
            runs = runs or [Executor(lower, [cut], cores()), Executor(teacher, [logits], cores())]
            with ExitStack() as stack:
                parts = [stack.enter_context(atomic_write(p)) for p in paths]
                types = (np.int8, np.float32)
                files = [open_memmap(*v) for v in zip(parts, ("w+",) * 2, types, shapes, strict=True)]
                for i, x in enumerate(view(pictures, look.seed, number, look.augment, look.smallest_crop)):
                    for file, run in zip(files, runs, strict=True):
                        file[i] = run(np.asarray(x)[None])[0].reshape(file.shape[1:])
                    progress("views", number * n + i + 1, look.n * n)
                for file in files:
                    file.flush()
        found.append((_mapped(paths[0], shapes[0]), _mapped(paths[1], shapes[1])))
    return Answers(tuple(a for a, _ in found), tuple(b for _, b in found), pictures.labels, int(q.zero_point[0]))


def expected_bytes(shape: Sequence[int], n: int, n_views: int) -> int:
    """Return what the activations of n pictures take on disk; shape: of one at the cut."""
    return int(np.prod(shape)) * np.dtype(np.float16).itemsize * n * n_views


def activations(
    graph: Graph,
    features: str,
    cut: str,
    pictures: Pictures,
    fingerprint_of_pictures: str,
    look: Look,
    folder: Path,
    progress: Progress,
    keep_cut: bool = True,
) -> Activations:
    """Return what a network makes of views of pictures; what is on disk already is not computed again.

    Args:
        features: what the head reads, (1, C).
        cut: the activation to keep beside them. It is computed in any case: features that LiteRT computes along with
            it differ in their last bits from those that it computes alone, and the head should not hang on that.
        folder: of the run; the files are in FOLDER there.
        keep_cut: False where the head alone learns.
    """
    names = [features] if cut == features else [features, cut]
    lower = below(graph, features)
    about = [
        fingerprint(lower), names, fingerprint_of_pictures, pictures.preprocessing.to_json(),
        list(look.augment), look.smallest_crop, look.seed,
    ]  # fmt: skip
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
    kinds, total = ("features", "cut")[: len(names) if keep_cut else 1], look.n * len(pictures)
    run: Executor | None = None
    found: list[list[np.ndarray]] = []
    shapes = [(len(pictures), *graph.tensors[name].shape[1:]) for name in names]
    for number in range(look.n):
        paths = [folder / FOLDER / f"{key}-{number}-{kind}.npy" for kind in kinds]
        if not all(p.exists() for p in paths):
            run = run or Executor(lower, names, cores())
            with ExitStack() as stack:
                parts = [stack.enter_context(atomic_write(p)) for p in paths]
                types = (np.float32, np.float16)
                files = [open_memmap(*v) for v in zip(parts, ("w+",) * 2, types, shapes, strict=False)]
                for i, x in enumerate(view(pictures, look.seed, number, look.augment, look.smallest_crop)):
                    for file, value in zip(files, run(np.asarray(x)[None]), strict=False):
                        file[i] = np.clip(value[0], *(_LIMITS[file.dtype.name]))
                    progress("features", number * len(pictures) + i + 1, total)
                for file in files:
                    file.flush()
        found.append([_mapped(p, shape) for p, shape in zip(paths, shapes, strict=False)])
    kept = tuple(arrays[1] for arrays in found) if len(kinds) > 1 else ()
    size = sum(a.nbytes for arrays in found for a in arrays)
    return Activations(kept, tuple(arrays[0] for arrays in found), pictures.labels, size)


def _mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array of this shape that lies on disk. Raises InputError where the file is another."""
    with reading(path, "what this run kept of its pictures", "delete it to compute it again"):
        found: np.ndarray = np.load(path, mmap_mode="r")
        if found.shape != shape:
            raise ValueError(f"it has the shape {found.shape}, and {shape} is wanted")
    return found


def delete(folder: Path) -> None:
    """Delete what was kept for a run that has ended."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
