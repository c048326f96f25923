"""What a run notes of how its files came about: results.json's "context", a noun a class.

Everything is frozen and plain, so that a page reads attributes and results_json.py reads and writes it by its types.
What a command does not note has its default. A field made by `absent()` is left out of the file while it has that
default; every other field is always there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgenet.results_json import absent


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with the calibration pictures. `code` is what `--allow` takes."""

    code: str = ""
    severity: str = ""  # danger | warning | info
    message: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy} ({self.code})"


# ------------------------------------------------------------------------------------------------------------- pictures


@dataclass(frozen=True)
class ImagesUsed:
    """Pictures that a command used for one purpose."""

    n: int = 0
    fingerprint: str = ""  # of the ImageSet
    sha256: tuple[str, ...] = absent(())  # of each picture, hex


@dataclass(frozen=True)
class ImagesRecord:
    """Which pictures calibrated, and which measured."""

    root: str = ""
    evaluation: ImagesUsed | None = absent(None)
    calibration: ImagesUsed | None = absent(None)


# ---------------------------------------------------------------------------------------------------------- calibration


@dataclass(frozen=True)
class CalibratedTensor:
    """What was seen of an activation, and the range that int8 is laid over. All numbers are real ones.

    `counts` are equal bins over [seen_low, seen_high].
    """

    name: str
    low: float
    high: float
    seen_low: float
    seen_high: float
    counts: tuple[int, ...]
    scale: float
    zero_point: int
    kind: str = ""  # the operator that makes it, in TFLite's words


@dataclass(frozen=True)
class CalibrationRecord:
    """The calibration that every integer file shares."""

    method: str = ""
    corrections: tuple[str, ...] = ()
    n_images: int = 0
    fingerprint: str = ""
    tensors: tuple[CalibratedTensor, ...] = ()
    # Where memory set limits to the corrections of weights: they saw only so many of the pictures, and a part of the
    # inputs of these layers at a time.
    correction_images: int | None = absent(None)
    corrected_in_parts: tuple[str, ...] = absent(())


# --------------------------------------------------------------------------------------------------------------- search


@dataclass(frozen=True)
class SearchStep:
    """One file of the search for a budget. `drop`, `agreement` are fractions of 1."""

    n: int
    what: str
    why: str
    met: bool
    drop: float | None = None  # of top-1, against float32
    agreement: float | None = None
    sqnr_db: float | None = None
    median_ms: float | None = None
    size_bytes: int = 0
    exceptions: Mapping[str, str] = field(default_factory=dict)  # operator's output -> the precision it is kept in
    artifact: str | None = None


@dataclass(frozen=True)
class Sensitivity:
    """What is left of the logits' signal when this layer alone is quantized."""

    name: str
    kind: str = ""
    sqnr_db: float | None = None


@dataclass(frozen=True)
class SearchRecord:
    """How a budget was met in one format, or not. `sensitivity` has the worst layer first."""

    budget: str = ""
    met: bool = False
    steps: tuple[SearchStep, ...] = ()
    sensitivity: tuple[Sensitivity, ...] = ()


# ------------------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Epoch:
    """A point of the training curve; epoch 0 is before training, and has what is known of the held-back pictures."""

    epoch: int = 0
    held_back_loss: float | None = absent(None)
    held_back_agreement: float | None = absent(None)
    held_back_accuracy: float | None = absent(None)
    loss: float | None = absent(None)
    learning_rate: float | None = absent(None)
    images_per_s: float | None = absent(None)


@dataclass(frozen=True)
class Score:
    """What was measured of a network before or after training; fractions of 1."""

    agreement: float | None = None
    agreement_ci95: tuple[float, float] | None = None
    top1: float | None = None
    sqnr_db: float | None = None
    n_images: int | None = None
    held_back_accuracy_of_the_new_head: float | None = absent(None)  # of `finetune`, before all layers learned


@dataclass(frozen=True)
class TrainedFile:
    """Which file of one format `qat` returned. `after` is None where no epoch was better than post-training."""

    format: str = ""
    kept: str = ""  # "ptq" or "qat"
    why: str = ""
    before: Score | None = None
    after: Score | None = None


@dataclass(frozen=True)
class PictureCounts:
    """How many pictures learned, decided which epoch is the best, and measured."""

    train: int = 0
    held_back: int = 0
    evaluation: int = 0
    calibration: int | None = absent(None)


@dataclass(frozen=True)
class Likeness:
    """On which part of the held-back pictures the trained simulation and the file have one first answer."""

    before: float | None = None
    after: float | None = None


@dataclass(frozen=True)
class TrainingRecord:
    """How a training went, and what it brought. Those fields that one of the two commands lacks are left out."""

    kind: str = ""  # "qat" or "finetune"
    curve: tuple[Epoch, ...] = ()
    best_epoch: int = 0
    stopped_early: bool = False
    seconds: float | None = None  # without what was spent on validation
    images_per_s: float | None = None
    before: Score | None = None
    after: Score | None = None
    pictures: PictureCounts = field(default_factory=PictureCounts)
    settings: Mapping[str, Any] = field(default_factory=dict)  # calibration/training/loop.py's Settings
    classes: int | None = absent(None)  # finetune
    kept: str = absent("")  # qat: "ptq" or "qat", of the first file
    why: str = absent("")
    files: tuple[TrainedFile, ...] = absent(())
    simulated_like_file: Likeness | None = absent(None)
    distillation: Mapping[str, Any] | None = absent(None)  # calibration/training/qat.py's Distillation
    weight_bits: int | None = absent(None)


# ------------------------------------------------------------------------------------------------------ scale and paper


@dataclass(frozen=True)
class ScaledNetwork:
    """A network that could be proposed. `tilt` is a factor on the compound scale's width; 1 is on the scale."""

    phi: float
    tilt: float
    width: float
    depth: float
    resolution_px: int
    multiply_adds: int
    parameters: int
    latency_ms: float | None = None  # once it is measured


@dataclass(frozen=True)
class ScaleRecord(ScaledNetwork):
    """The network that fills a latency budget, and those that were measured on the way, in that order."""

    family: str = ""
    device: str = ""
    budget_ms: float = 0.0
    met: bool = False
    measured: tuple[ScaledNetwork, ...] = ()


@dataclass(frozen=True)
class Counts:
    """Numbers that are trained, and multiply-adds of one picture, counted from the layers."""

    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class PaperRecord:
    """What a run of `edgenet paper` was asked for, and the networks that it counted."""

    images: str = ""  # fingerprint of the pictures that measure
    counts: Mapping[str, Counts] = field(default_factory=dict)  # by the network's name
    tables: tuple[str, ...] = ()
    quick: bool = False


# -------------------------------------------------------------------------------------------------------------- context


@dataclass(frozen=True)
class Context:
    """When, where and with what the results came about, and what each command noted."""

    created: str = absent("")  # ISO 8601, UTC
    host: str = absent("")
    cpu_model: str = absent("")
    isa: tuple[str, ...] = absent(())
    cores: int | None = absent(None)
    edgenet_version: str = absent("")
    versions: Mapping[str, str] = absent({})
    command: str = absent("")
    target: str = absent("")
    images: ImagesRecord | None = absent(None)
    calibration_findings: tuple[Finding, ...] = ()
    calibration: CalibrationRecord | None = absent(None)
    search: Mapping[str, SearchRecord] = absent({})  # by format, where a budget was given
    training: TrainingRecord | None = absent(None)
    scale: ScaleRecord | None = absent(None)
    paper: PaperRecord | None = absent(None)
