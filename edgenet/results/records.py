"""What a run notes of how its files came about: results.json's "context", a noun a class.

Everything is frozen and plain, so that a page reads attributes and plain.py reads and writes it by its types.
What a command does not note has its default. A field made by `absent()` is left out of the file while it has that
default; every other field is always there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgenet.results.plain import absent
from edgenet.results.training import TrainingRecord


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with the calibration pictures. `code` is what `--allow` takes."""

    code: str = ""
    severity: str = ""  # danger | warning | info
    message: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy} ({self.code})"


# Codes of findings that are not of the calibration pictures but of what the network has seen (images/roles.py), or of
# its weights (models/ports.py).
ROLE_CODES = ("seen-before", "copies", "no-own-pictures", "unknown-training", "unknown-padding")
# Codes of findings that are of what the answers mean, where nobody said it.
NAMES_FROM_FOLDERS, TAKEN_FOR_EMBEDDING = MEANING_CODES = ("names-from-folders", "taken-for-embedding")


# ------------------------------------------------------------------------------------------------------------- pictures


@dataclass(frozen=True)
class ImagesUsed:
    """Pictures that a command used for one purpose."""

    n: int = 0
    fingerprint: str = ""  # of the ImageSet
    sha256: tuple[str, ...] = absent(())  # of each picture, hex


@dataclass(frozen=True)
class PictureTable:
    """Pictures, to be known again by content and by look: see images/roles.py, which makes and reads both texts."""

    n: int = 0
    contents: str = ""  # base64 of the first 8 bytes of each content's sha256, sorted
    looks: str = ""  # base64 of 72 bytes a picture, for as many of them as the table has room for


@dataclass(frozen=True)
class PictureHistory:
    """Which pictures a network has seen, and what for. A model file carries it; later commands keep the roles apart."""

    taught: PictureTable | None = absent(None)  # decided weights
    chose: PictureTable | None = absent(None)  # decided which epoch is kept
    calibrated: PictureTable | None = absent(None)  # decided ranges and roundings
    measured: PictureTable | None = absent(None)  # were set aside to measure, by the command that trained
    complete: bool = absent(True)  # False: other pictures taught the network before, nobody knows which


NOTHING_SEEN, UNKNOWN_HISTORY = PictureHistory(), PictureHistory(complete=False)


@dataclass(frozen=True)
class ImagesRecord:
    """Which pictures had which role in this run, and `history`: in those before, as the model's file says."""

    root: str = ""
    evaluation: ImagesUsed | None = absent(None)
    calibration: ImagesUsed | None = absent(None)
    taught: ImagesUsed | None = absent(None)
    chose: ImagesUsed | None = absent(None)
    history: PictureHistory | None = absent(None)
    class_map: Mapping[str, tuple[int, ...]] = absent({})  # folder -> the classes that are right for it, if several


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


# ------------------------------------------------------------------------------------------------------------- measures


@dataclass(frozen=True)
class Figure:
    """A number between 0 and 1 with its 95 % interval, and how far it is below the float32 file's on the same pictures.

    `drop` and `drop_ci95` are None for the reference itself, and where nothing was compared.
    """

    value: float
    ci95: tuple[float, float]
    drop: float | None = absent(None)
    drop_ci95: tuple[float, float] | None = absent(None)


@dataclass(frozen=True)
class LabelMeasure:
    """How one label of several was found. `changed` counts the pictures on which the reference decides otherwise."""

    label: int
    n: int  # pictures that have it
    average_precision: float | None = None
    f1: float | None = None
    changed: int | None = None


@dataclass(frozen=True)
class Measures:
    """What a task is measured by beside the share of right answers, over `n_images`; the others' measures are left out.

    Attributes:
        auc: area under the ROC curve of yes against no; of two classes, of the second against the first.
        average_precision: of yes; of several labels, the mean over those that occur.
        f1: of the answers at the threshold, likewise.
        decisions: answers of yes or no that are right, of all pictures and labels.
        cosine: between this file's embedding of a picture and the reference's, on average.
        cosine_least: of the picture where it is least.
        recall_at_1: pictures whose embedding is nearest to the reference's embedding of the same picture.
    """

    n_images: int = 0
    threshold: float | None = absent(None)
    auc: Figure | None = absent(None)
    average_precision: Figure | None = absent(None)
    f1: Figure | None = absent(None)
    decisions: Figure | None = absent(None)
    labels: tuple[LabelMeasure, ...] = absent(())
    cosine: Figure | None = absent(None)
    cosine_least: float | None = absent(None)
    recall_at_1: Figure | None = absent(None)


# --------------------------------------------------------------------------------------------------------------- search


MET, CANNOT_TELL, MISSED, FAILED = "met", "cannot tell", "missed", "failed"  # verdicts on a budget


@dataclass(frozen=True)
class SearchStep:
    """One file of the search for a budget. `drop`, `agreement` and `limits` are fractions of 1.

    `verdict` is "met" where the upper limit of the loss is within the budget, "cannot tell" where only the loss itself
    is, "missed" where that is not; "failed" where the file could not be written or measured, `failure` says why.
    """

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
    artifact: str | None = None  # the id of the file that was kept, where it is this one
    verdict: str = absent("")  # results of an earlier version have none
    limits: tuple[float, float] | None = absent(None)  # of the loss, low and high; they hold for the whole search
    n_images: int | None = absent(None)  # that the loss is of: the labelled ones, all where none is labelled
    pictures_needed: int | None = absent(None)  # to tell, where the budget is between the limits
    failure: str = absent("")


@dataclass(frozen=True)
class Sensitivity:
    """What is left of the logits' signal when this layer alone is quantized."""

    name: str
    kind: str = ""
    sqnr_db: float | None = None


@dataclass(frozen=True)
class SearchRecord:
    """How a budget was met in one format, or not. `verdict` and `met` are those of the step that was kept.

    `sensitivity` has the worst layer first.
    """

    budget: str = ""
    met: bool = False
    steps: tuple[SearchStep, ...] = ()
    sensitivity: tuple[Sensitivity, ...] = ()
    verdict: str = absent("")
    max_drop: float | None = absent(None)  # the budget: a fraction of 1
    min_sqnr_db: float | None = absent(None)

    @property
    def kept(self) -> SearchStep | None:
        """The step whose file was kept."""
        return next((s for s in self.steps if s.artifact), None)


def verdict_of(x: SearchStep | SearchRecord) -> str:
    """Return what was found of the budget; results of an earlier version only say whether it was met."""
    return x.verdict or (MET if x.met else MISSED)


# ------------------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class ScaledNetwork:
    """A network that could be proposed. `tilt` is a factor on the compound scale's width; 1 is on the scale.

    For a microcontroller it is a factor on the resolution, and the INT8 file is measured by its memory.
    """

    phi: float
    tilt: float
    width: float
    depth: float
    resolution_px: int
    multiply_adds: int
    parameters: int
    latency_ms: float | None = None  # once it is measured
    arena_bytes: int | None = absent(None)  # RAM that tflite-micro takes
    flash_bytes: int | None = absent(None)  # the file's


@dataclass(frozen=True)
class ScaleRecord(ScaledNetwork):
    """The network that fills a budget, and those that were measured on the way, in that order.

    The budget is `budget_ms`, or for a microcontroller one of the other two or both.
    """

    family: str = ""
    device: str = ""
    budget_ms: float = 0.0
    met: bool = False
    measured: tuple[ScaledNetwork, ...] = ()
    budget_arena_bytes: int | None = absent(None)
    budget_flash_bytes: int | None = absent(None)
    classes: int = absent(1000)


@dataclass(frozen=True)
class Counts:
    """Numbers that are trained, and multiply-adds of one picture, counted from the layers."""

    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Transfer:
    """A network that has learned a data set of the paper's table 5, and how it stands to the paper's."""

    artifact: str  # its file, whose evaluation has the accuracy
    network: str = ""  # of the zoo, "" where it is none
    parameters: int = 0  # trained ones; of a network that is none of the zoo's, those of its file
    taught: int | None = None  # pictures that decided its weights, None where its file does not say
    resolution_px: int = 0
    test_pictures: int = 0  # of the data set, those among them that it has seen


@dataclass(frozen=True)
class PaperRecord:
    """What a run of `edgenet paper` was asked for, and the networks that it counted."""

    images: str = ""  # fingerprint of the pictures that measure
    counts: Mapping[str, Counts] = field(default_factory=dict)  # by the network's name
    tables: tuple[str, ...] = ()
    quick: bool = False
    dataset: str = absent("")  # of table 5, whose pictures measure: "flowers102"
    transfers: tuple[Transfer, ...] = absent(())


# -------------------------------------------------------------------------------------------------------------- context


@dataclass(frozen=True)
class EvaluationTime:
    """Where the time of the last evaluation on this machine went, in seconds by the clock."""

    total_s: float = 0.0
    inference_s: float = 0.0
    loading_s: float = 0.0  # of files
    pictures_s: float = 0.0  # in which no file had anything to do, because pictures were still decoded


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
    evaluation_time: EvaluationTime | None = absent(None)
    calibration_findings: tuple[Finding, ...] = ()
    calibration: CalibrationRecord | None = absent(None)
    search: Mapping[str, SearchRecord] = absent({})  # by format, where a budget was given
    training: TrainingRecord | None = absent(None)
    scale: ScaleRecord | None = absent(None)
    paper: PaperRecord | None = absent(None)
