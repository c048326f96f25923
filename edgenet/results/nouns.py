"""The nouns that a run writes to disk.

Values are frozen. Units stand in the names; accuracies and agreement are fractions of 1; times are kept as raw
nanoseconds and every statistic is derived from them when asked.
"""

import hashlib
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from edgenet.results.answers import PictureAnswers
from edgenet.results.plain import absent, read, write
from edgenet.results.records import Measures
from edgenet.results.tensor_info import TensorInfo

_MOST_MS = 1e12  # of a time
NO_ANSWER = -1  # in the place of a class: the file gave NaN or infinity


@dataclass(frozen=True)
class Warning:
    """Something to beware of. Programs go by `code` and `value` (warning_codes.py); `text` is for a reader."""

    code: str
    text: str
    value: float | None = None


@dataclass(frozen=True)
class ImageSet:
    """Image files with what is known of them. `labels[i]` is a class index, or None where it has no label."""

    root: str
    files: tuple[str, ...]  # absolute, or a name that edgenet.images can open
    labels: tuple[int | None, ...]
    digests: tuple[str, ...]  # sha256 of each file's content, hex
    fingerprint: str  # sha256 over digests and labels, order-independent
    n_set: int = 0  # images in the set that this one was split from; 0 where it was not split
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # folder -> the classes that are right for it;
    # its pictures have the first of them as their label
    label_sets: tuple[tuple[int, ...] | None, ...] = ()  # of several labels a picture: all of them, None where unknown

    def __len__(self) -> int:
        return len(self.files)

    @property
    def n_labelled(self) -> int:
        return sum(label is not None for label in self.label_sets or self.labels)


@dataclass(frozen=True)
class Calibration:
    """Ranges of the activations of one network on one image set, the numbers that every format is quantized with."""

    ranges: Mapping[str, tuple[float, float]]  # tensor -> (low, high), real numbers
    method: str
    images: str  # fingerprint of the ImageSet
    n_images: int
    network: str  # sha256 of the float network that was observed
    fixed: Mapping[str, tuple[float, int]] = field(
        default_factory=dict
    )  # tensor -> int8 (scale, zero point) known exactly
    # tensor -> the range that 16 bits cover. Not in the fingerprint: network and pictures decide it.
    wide: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """sha256 over all that decides the numbers, in hex."""
        text = json.dumps([dict(self.ranges), self.method, self.images, self.n_images, self.network, dict(self.fixed)])
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class OtherPrecision:
    """Operators of one kind that compute in another precision than their integer file, for one reason."""

    kind: str  # as the graph calls it
    precision: str  # float32 | float16 | weight-only | int16 | int8
    why: str  # output | pixels | normalises | no-kernel | computed-weights | kept
    operators: tuple[str, ...]  # their outputs
    multiply_adds_share: float  # of the file's, a fraction of 1


@dataclass(frozen=True)
class Artifact:
    """A model file that edgenet wrote. `path` is relative to the folder of its results.json."""

    id: str
    model: str
    format: str
    precision: str
    path: str
    size_bytes: int
    sha256: str
    io_dtype: str
    calibration: str | None = None  # fingerprint of the calibration, None where none was used
    weights: str = ""  # where the weights came from; "random" says that accuracy means nothing
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    preprocessing: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)  # what was asked of the exporter; decides a resume
    mixture: dict[str, str] = field(default_factory=dict)  # operator's output -> precision, where it is another one
    keep: tuple[str, ...] = absent(())  # values of --keep that ask for this mixture
    other_precisions: tuple[OtherPrecision, ...] = absent(())  # all operators of an integer file that are not integer
    made_for: tuple[str, ...] = absent(())  # devices of the run that ask for this form of the integers
    weight_bits: int | None = absent(None)  # of those weights that have fewer than 8 bits; int4 files alone have some
    stored_bits: int | None = absent(None)  # what the file takes for each of these: 8 where a runtime has no kernel
    export_s: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        place = PurePath(self.path)
        if not self.path or "\0" in self.path or place.is_absolute() or ".." in place.parts:
            raise ValueError(f".path must be relative to the folder and within it, was {self.path[:80]!r}")


@dataclass(frozen=True)
class Flip:
    """A picture whose top-1 is not the reference's."""

    file: str
    label: int | None
    reference_class: int
    artifact_class: int
    reference_confidence: float  # softmax probability of reference_class by the reference
    artifact_confidence: float  # softmax probability of artifact_class by the artifact


@dataclass(frozen=True)
class Confusion:
    """A wrong answer, and how many pictures with this label got it."""

    label: int
    answer: int  # a class index, or NO_ANSWER
    n: int


@dataclass(frozen=True)
class Evaluation:
    """Accuracy of one artifact on one image set, and how it differs from the reference artifact.

    `top1`, `top5` are over labelled pictures, None where there are none; `agreement` is the fraction of all pictures
    whose top-1 is the reference's. `*_ci95` are (low, high).
    """

    artifact: str
    images: str  # fingerprint of the ImageSet
    n_images: int
    n_labelled: int
    top1: float | None
    top1_ci95: tuple[float, float] | None
    top5: float | None
    top5_ci95: tuple[float, float] | None
    runtime: str
    artifact_sha256: str = ""
    n_skipped: int = 0
    reference: str | None = None  # id of the artifact compared with
    agreement: float | None = None
    agreement_ci95: tuple[float, float] | None = None
    top1_drop: float | None = None  # reference's top1 minus this one's
    top1_drop_ci95: tuple[float, float] | None = None
    flips_fixed: int | None = None  # wrong by the reference, right by this artifact
    flips_broken: int | None = None  # right by the reference, wrong by this artifact
    mcnemar_p: float | None = None
    sqnr_db: float | None = None
    flips: tuple[Flip, ...] = ()
    classes: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # label -> (pictures, right)
    class_flips: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # label -> (fixed, broken), where any
    confusions: tuple[Confusion, ...] = ()  # the most frequent first
    nonfinite_outputs: int = 0  # numbers that are NaN or infinity
    nonfinite_images: int = 0  # pictures with such an answer: it is no answer
    warnings: tuple[Warning, ...] = ()
    device: str = "local"
    outputs_compared: int = 0  # numbers that another device gave, compared with this machine's of the same file
    outputs_differing: int | None = None  # those that are not the same bit for bit
    largest_difference: float | None = None
    difference: str = ""  # why they differ, in words
    agreement_here: float | None = absent(None)  # with the same file on this machine, where that is not the reference
    agreement_here_ci95: tuple[float, float] | None = absent(None)
    emulated: str = absent("")  # what computed the answers in the device's place, with its version; "" for the device
    task: str = absent("classes")  # what the output means: edgenet.tasks.KINDS
    measures: Measures | None = absent(None)  # what else the task is measured by
    answers: PictureAnswers | None = absent(None)  # to each picture of the set, also those that were not read

    def __post_init__(self) -> None:
        counts = [*self.classes.items(), *self.class_flips.items()]
        if not all(label.isdecimal() and len(label) < 10 and min(pair) >= 0 for label, pair in counts):
            raise ValueError(f" of {self.artifact}: a class is an index, and its counts are 0 or more")
        if not all(0 < n >= right for n, right in self.classes.values()):
            raise ValueError(f" of {self.artifact}: of a class's pictures no more can be right than there are")
        if not {str(c.label) for c in self.confusions} <= set(self.classes):
            raise ValueError(f" of {self.artifact}: a label that is taken for another is one of the classes")


@dataclass(frozen=True)
class Measurement:
    """Latency of one artifact on one device: raw samples, from which the statistics are derived.

    `round_*` have one item for each round that the artifact was in, as it began. `self_ratio` is the first file of the
    run against itself, measured as if it were two: what differs there is noise. `pace_ns` is what a fixed piece of work
    took beside each sample; the runs beside which it took longer are no samples but `disturbed_*`.
    """

    artifact: str
    device: str
    runtime: str
    threads: int
    samples_ns: tuple[int, ...]
    rounds: tuple[int, ...] = ()  # the round that each sample belongs to
    round_s: tuple[float, ...] = ()  # since the measurement began
    round_mhz: tuple[float | None, ...] = ()
    round_celsius: tuple[float | None, ...] = ()
    pace_ns: tuple[int, ...] = ()
    disturbed_ns: tuple[int, ...] = ()
    disturbed_rounds: tuple[int, ...] = ()
    disturbed_pace_ns: tuple[int, ...] = ()
    processes: int = 1  # that the rounds were spread over
    effective_runs: float | None = None  # independent runs that the samples are worth
    self_ratio: float | None = None
    self_ratio_ci98: tuple[float, float] | None = None
    sustained_s: float = 0.0  # how long it ran without a pause, where that was asked for
    warmup_runs: int = 0
    load_ns: int = 0
    peak_rss_bytes: int = 0
    baseline_rss_bytes: int = 0  # before the model was loaded: the peak minus this is the model's
    artifact_sha256: str = ""
    runtime_version: str = ""
    delegate: str = ""
    device_info: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Warning, ...] = ()

    def __post_init__(self) -> None:
        for kept, aside in ((self.rounds, self.disturbed_rounds), (self.pace_ns, self.disturbed_pace_ns)):
            if (kept or aside) and (len(kept), len(aside)) != (len(self.samples_ns), len(self.disturbed_ns)):
                raise ValueError(f" of {self.artifact}: each run has its round and its pace, or none has")

    def quantile_ms(self, q: float) -> float:
        """Return the `q` quantile (0..1) of the samples in milliseconds, linearly interpolated."""
        s = sorted(self.samples_ns)
        i = q * (len(s) - 1)
        low = int(i)
        high = min(low + 1, len(s) - 1)
        return (s[low] + (s[high] - s[low]) * (i - low)) / 1e6

    @property
    def median_ms(self) -> float:
        return self.quantile_ms(0.5)

    @property
    def p90_ms(self) -> float:
        return self.quantile_ms(0.9)

    @property
    def p95_ms(self) -> float:
        return self.quantile_ms(0.95)

    @property
    def n_runs(self) -> int:
        return len(self.samples_ns)

    @property
    def every_run_ns(self) -> tuple[int, ...]:
        """The samples, and after them the disturbed runs."""
        return self.samples_ns + self.disturbed_ns

    @property
    def every_run_median_ms(self) -> float:
        """The median of all runs, the disturbed ones too."""
        return statistics.median(self.every_run_ns) / 1e6

    @property
    def every_round(self) -> tuple[int, ...]:
        """The round that each of `every_run_ns` belongs to."""
        return self.rounds + self.disturbed_rounds

    @property
    def cautions(self) -> tuple[Warning, ...]:
        """What speaks against this file's own times: all warnings but those that set it against another file."""
        return tuple(w for w in self.warnings if w.code != "cannot-tell")

    @property
    def load_ms(self) -> float:
        return self.load_ns / 1e6

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = write(self)
        del out["samples_ns"], out["disturbed_ns"], out["load_ns"]
        out["samples_ms"] = [ns / 1e6 for ns in self.samples_ns]
        out["disturbed_ms"] = [ns / 1e6 for ns in self.disturbed_ns]
        for name in ("median_ms", "every_run_median_ms", "p90_ms", "p95_ms", "n_runs", "load_ms"):
            out[name] = getattr(self, name)
        return out

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Measurement":
        """Return the measurement that `to_json` gave. Raises ValueError."""
        ms = read(_Times, data)
        ns = {
            "samples_ns": [round(t * 1e6) for t in ms.samples_ms],
            "disturbed_ns": [round(t * 1e6) for t in ms.disturbed_ms],
            "load_ns": round(ms.load_ms * 1e6),
        }
        return read(cls, {**data, **ns})


@dataclass(frozen=True)
class _Times:
    """The times of a measurement as results.json has them."""

    samples_ms: tuple[float, ...]
    load_ms: float
    disturbed_ms: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.samples_ms:
            raise ValueError(".samples_ms is empty: a measurement has one run at least")
        if not all(0 <= t <= _MOST_MS for t in (*self.samples_ms, *self.disturbed_ms, self.load_ms)):
            raise ValueError(f".samples_ms, .disturbed_ms and .load_ms must be from 0 to {_MOST_MS:g}")


@dataclass(frozen=True)
class LeftOperators:
    """Operators of one kind that an accelerator leaves to the CPU for one reason."""

    kind: str  # TFLite's name
    n: int
    why: str


@dataclass(frozen=True)
class CompiledLayer:
    """A layer as an accelerator's compiler made it; `cycles` is 0 where the compiler gives none."""

    name: str
    kind: str  # as the compiler calls it
    on: str  # NPU | CPU
    arithmetic: str  # as the compiler calls it: INT8, FLOAT16
    cycles: int
    moved_bytes: int


@dataclass(frozen=True)
class Estimate:
    """What an accelerator would make of an artifact, by a compiler or a list of operators: computed, never measured.

    Numbers that the tool does not give are None. Memory is what one inference needs: `sram_bytes` on the chip,
    `dram_bytes` and `flash_bytes` outside of it, where the weights are.

    Attributes:
        inference_bounds_ms: lower and upper bound of the time, where the tool gives them.
        compiled_bytes: size of the file that the tool made of the artifact for this chip.
        memory_bytes: memory of one inference by its purpose, where the tool tells more than the three above.
        layers: in the order in which they run, where the tool lists them.
    """

    artifact: str
    device: str
    tool: str  # with its version
    basis: str  # what the tool did, in words
    n_operators: int
    n_accelerated: int
    left: tuple[LeftOperators, ...] = ()
    cycles: int | None = None
    clock_hz: float | None = None
    inference_ms: float | None = None
    sram_bytes: int | None = None
    dram_bytes: int | None = None
    flash_bytes: int | None = None
    artifact_sha256: str = ""
    settings: dict[str, Any] = field(default_factory=dict)  # what the tool assumed: memories, bandwidths
    warnings: tuple[Warning, ...] = ()
    inference_bounds_ms: tuple[float, float] | None = absent(None)
    compiled_bytes: int | None = absent(None)
    memory_bytes: Mapping[str, int] = absent({})
    layers: tuple[CompiledLayer, ...] = absent(())

    def __post_init__(self) -> None:
        if self.n_accelerated + sum(o.n for o in self.left) != self.n_operators:
            raise ValueError(f"{self.artifact}: {self.n_accelerated} operators and {self.left} are not all operators")


@dataclass(frozen=True)
class Layer:
    """What one operator of a file took on a device, and what it had to do in that time."""

    name: str
    kind: str  # as the runtime calls it
    arithmetic: str  # int8 | float32
    kernel: str  # what computed it, as far as the runtime tells
    time_us: float
    multiply_adds: int
    moved_bytes: int  # inputs, weights and outputs, each once


@dataclass(frozen=True)
class Explanation:
    """Why an artifact is as fast as it is on a device: its operators against what the same core can do at most.

    `multiply_adds_per_s` is what a matrix product reached in the same runtime, by arithmetic; `copy_bytes_per_s` what
    copies of `copy_bytes` moved, reading and writing.
    """

    artifact: str
    device: str
    runtime: str
    threads: int
    precision: str
    median_ms: float  # of the whole file, from its measurement
    fastest_ms: float
    how: str  # the operators were timed
    layers: tuple[Layer, ...]
    multiply_adds_per_s: dict[str, float]
    copy_bytes: tuple[int, ...]
    copy_bytes_per_s: tuple[float, ...]
    sentences: tuple[str, ...] = ()
    artifact_sha256: str = ""


@dataclass(frozen=True)
class Failure:
    """Something that was asked for and did not come about. The run went on."""

    stage: str  # export | evaluate | bench | explain | count | fit (known before: it cannot be held here)
    artifact: str = ""  # id of the file concerned, "" where it is none's or all files'
    device: str = ""  # "" where no device has to do with it
    runtime: str = ""  # "" where it is the device's own, or none has to do with it
    why: str = ""
    remedy: str = ""
