"""What a .tflite classifier is to those who call it, as the file itself says."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.errors import InputError
from edgenet.export.importers.labels import labels_in, own_names
from edgenet.export.inspect import inspect
from edgenet.files import sha256_of
from edgenet.images import Preprocessing, normalise
from edgenet.results import TensorInfo
from edgenet.tasks import CLASSES, Task

# How far scores may be from the golden ones. LiteRT's own kernels differ from each other on ten photographs by up to
# 0.000002 in float32 and by up to 0.044 in int8 (lite0: XNNPACK against the reference kernels).
# tests/handoff/test_write.py measures that, and that a wrong input is further off than is allowed.
TOLERANCE = {"float": 0.005, "integer": 0.06}
_FLOATS = ("float32", "float16", "weight-only")


@dataclass(frozen=True)
class Deployed:
    """What a .tflite classifier is to those who call it, as the file itself says."""

    path: Path
    name: str
    precision: str
    sha256: str
    size_bytes: int
    input: TensorInfo  # (1, H, W, C)
    output: TensorInfo  # (1, N)
    preprocessing: Preprocessing
    assumed: bool  # whether crop and interpolation are not in the file
    labels: tuple[str, ...]  # one for each number of the output, none of an embedding
    weights: str
    task: Task = CLASSES
    negative: str = ""  # the name of no, where the output is the score of yes alone

    @property
    def asset(self) -> str:
        """The name of the file among Android's assets."""
        return re.sub(r"[^A-Za-z0-9._-]", "_", self.path.name)

    @property
    def not_for_mediapipe(self) -> str:
        """Why MediaPipe Tasks cannot run the file as it is, "" where it can."""
        if self.input.dtype not in ("float32", "uint8") or self.output.dtype not in ("float32", "uint8"):
            kinds = " and ".join(dict.fromkeys((self.input.dtype, self.output.dtype)))
            return f"MediaPipe Tasks takes float32 or uint8, this file {kinds}: export it with --io float32 or uint8"
        if self.preprocessing.channel_order != "rgb":
            return f"MediaPipe Tasks gives RGB, this file takes {self.preprocessing.channel_order.upper()}"
        return ""

    @property
    def n_outputs(self) -> int:
        return self.output.shape[-1]

    @property
    def tolerance(self) -> float:
        return TOLERANCE["float" if self.precision in _FLOATS else "integer"]

    def input_of(self, pixels: np.ndarray) -> np.ndarray:
        """Return the input tensor, (N, H, W, C), for (N, H, W, C) uint8 pixels."""
        if self.input.dtype == "float32":
            return normalise(pixels, self.preprocessing)
        return pixels if self.input.dtype == "uint8" else (pixels ^ np.uint8(128)).view(np.int8)


def read_deployed(path: Path) -> Deployed:
    """Read what a .tflite classifier is.

    Raises:
        InputError: it is no .tflite image classifier of one picture, or does not say how its input is made or what its
            outputs are called.
    """
    if path.suffix.lower() != ".tflite":
        raise InputError(f"{path} cannot be handed over: Android's runtimes read .tflite; export with --format tflite")
    found = inspect(path)
    if len(found.inputs) != 1 or len(found.outputs) != 1:
        raise InputError(
            f"{path} has {len(found.inputs)} inputs and {len(found.outputs)} outputs: one each is a classifier"
        )
    x, y = found.inputs[0], found.outputs[0]
    if len(x.shape) != 4 or x.shape[0] != 1 or x.shape[3] not in (1, 3) or min(x.shape) < 1:
        raise InputError(
            f"{path} takes {x.shape}: a hand-over needs one picture of a fixed size, RGB or grey, (1, H, W, 3 or 1)"
        )
    own = found.edgenet or {}
    task = Task.from_json(own.get("task")) or CLASSES
    classes = int(np.prod(y.shape))
    if y.shape[-1:] != (classes,) or (classes < 2 and task.kind != "binary"):
        raise InputError(f"{path} gives {y.shape}: a classifier gives one score for each class, (1, classes)")
    for t in (x, y):
        if t.dtype not in ("float32", "uint8", "int8"):
            raise InputError(f"{path}: {t.name} is {t.dtype}; edgenet hands over float32, uint8 and int8")
    labels = labels_in(path) or ()
    if task.kind != "embedding" and len(labels) != classes:
        raise InputError(f"{path} carries {len(labels)} labels for {classes} classes: export it with edgenet")
    preprocessing, assumed = _preprocessing(path, found.edgenet, found.metadata, x)
    return Deployed(
        path, found.name or path.stem, found.precision, sha256_of(path), path.stat().st_size, x, y, preprocessing,
        assumed, labels, str(own.get("weights", "not known")), task, (own_names(own, ()) or ("",))[0],
    )  # fmt: skip


def _preprocessing(
    path: Path, edgenet: dict[str, Any] | None, about: dict[str, Any], x: TensorInfo
) -> tuple[Preprocessing, bool]:
    if edgenet and "preprocessing" in edgenet:
        return Preprocessing.from_json(edgenet["preprocessing"]), False
    mean, std = about.get("mean", ()), about.get("std", ())
    if len(mean) not in (1, 3) or len(std) != len(mean):
        raise InputError(f"{path} does not say how its input is normalised: export it with edgenet")
    n, order = x.shape[3], "rgb" if x.shape[3] == 3 else "grey"
    mean, std = ((*v, *v, *v)[:n] for v in (mean, std))
    of_file = Preprocessing(x.shape[1], mean, std, 0, "bilinear", order, x.shape[2])
    if x.dtype != "float32":  # does the stored number stand for the raw pixel?
        ends = np.array([[0.0] * n, [255.0] * n])
        real = (ends - of_file.mean) / of_file.std
        stored = np.rint(real / (x.scale or np.nan)) + (x.zero_point or 0) + (128 if x.dtype == "int8" else 0)
        if not np.array_equal(stored, ends):
            raise InputError(
                f"{path} takes {x.dtype} that is not the pixel itself: export it with edgenet --io {x.dtype}"
            )
    return of_file, True
