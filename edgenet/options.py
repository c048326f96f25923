"""The options of every command: one frozen dataclass a job, one field an option.

A field has the option's name, type, default and help, and nothing else repeats them: cli_options.py makes click's
options from here, and a recipe (TOML) is read by the same fields. Nothing heavy is imported, so that help is quick.
"""

# ruff: noqa: RUF009 (`option` and `same_as` return fields, not values)

import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from edgenet.data_sets import measuring_part
from edgenet.errors import InputError
from edgenet.option_fields import Range, check_values, one_of, option, option_fields, same_as
from edgenet.targets import AUTO as AUTO_TARGET
from edgenet.targets import FORMATS, TARGETS
from edgenet.tasks import AUTO, KINDS

Progress = Callable[[str, int, int], None]  # (what is being done, done, in all)

# Names that several parts of edgenet have to agree on.
CORRECTIONS = ("equalization", "spare-channels", "reconstruction", "feedback", "bias-correction")
RANGE_METHODS = ("min-max", "moving-average", "percentile", "mse", "entropy", "auto")
AUGMENTATIONS = ("flip", "crop", "colour", "mixup")
STRATEGIES = ("auto", "cpu", "mirrored", "tpu", "multiworker")
THEN = ("int8", "qat")  # what may follow finetune
LAYERS = ("head", "top", "all")  # what may learn in finetune, from the cheapest stage on
MIXED_PRECISIONS = ("off", "auto", "float16", "bfloat16")
KEPT_PRECISIONS = ("float32", "float16", "int16", "weight-only")  # of single operators of an integer file
PRECISIONS = ("float32", "float16", "weight-only", "dynamic", "int8", "int16x8", "int4")
DEFAULT_PRECISIONS = ("float32", "float16", "dynamic", "int8")
IO_DTYPES = ("float32", "uint8", "int8")
DEVICES = ("local", "adb:", "ssh:", "qemu:", "ethos-u:", "edgetpu", "qnn:", "litert-npu:", "rknn:", "micro")
RUNTIMES = ("litert", "onnxruntime", "openvino")
DELEGATES = ("cpu", "gpu", "nnapi", "npu")
TABLES = ("2", "3", "4", "5", "7", "lite", "ladder")  # of the EfficientNet paper, and two of our own
QUICK_TABLES = ("4",)
MAX_THREADS = 1024
NOT_EMPTY = ("formats", "precisions", "devices")


def _imply_test(job: Any) -> None:
    """Have the test pictures of a data set measure, where none are named."""
    if job.images is not None and job.images_test is None:
        object.__setattr__(job, "images_test", measuring_part(job.images))  # of a frozen dataclass that is being made


# --------------------------------------------------------------------------------------------- calibration and training


@dataclass(frozen=True)
class Recipe:
    """How the numbers of an integer file are chosen. Every correction can be switched off."""

    method: str = "auto"
    corrections: tuple[str, ...] = CORRECTIONS

    def __post_init__(self) -> None:
        one_of("--calibration-method", self.method, RANGE_METHODS)
        for c in self.corrections:
            if c not in CORRECTIONS:
                raise InputError(f"unknown correction '{c}' (valid: {', '.join(CORRECTIONS)}, or none)")


@dataclass(frozen=True)
class Settings:
    """How a network is trained. `learning_rate` is the peak's; None where a test is to find it."""

    epochs: int = option("Times that each picture is seen.", metavar="N", within=Range(least=1, most=100_000))
    batch: int = option("Pictures a step, over all devices.", metavar="N", within=Range(least=1, most=65_536))
    learning_rate: float | None = option(
        "At its peak.", metavar="R", default_text="found by a test", within=Range(above=0, most=100)
    )
    warmup: float = option(
        "Part of all steps until the learning rate's peak.", 0.1, metavar="F", within=Range(least=0, below=1)
    )
    ema: float = option(
        "Of the weights' exponential average, 0 for none.", 0.98, metavar="F", within=Range(least=0, below=1)
    )
    patience: int = option(
        "Epochs without a better held-back loss before it stops.", 8, metavar="N", within=Range(least=1, most=100_000)
    )
    seed: int = option("Of everything random.", 0, metavar="N", within=Range(least=0, most=2**31 - 1))

    def __post_init__(self) -> None:
        check_values(self)

    @property
    def peak(self) -> float:
        """The learning rate at its peak, which is known."""
        assert self.learning_rate is not None
        return self.learning_rate

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step, 0 <= step < steps: linear warm-up, then a cosine to zero."""
        rising = int(self.warmup * steps)
        if step < rising:
            return self.peak * (step + 1) / rising
        return self.peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def check_training(augment: tuple[str, ...], strategy: str, mixed_precision: str) -> None:
    """Raise InputError for a name that does not exist."""
    for name in augment:
        if name not in AUGMENTATIONS:
            raise InputError(f"unknown augmentation '{name}' (valid: {', '.join(AUGMENTATIONS)}, or none)")
    one_of("--strategy", strategy, STRATEGIES)
    one_of("--mixed-precision", mixed_precision, MIXED_PRECISIONS)


@dataclass(frozen=True)
class Distillation:
    """How a quantized network learns from the float one, and which of its numbers may change."""

    temperature: float = option("Of the distillation.", 1.0, metavar="T", within=Range(above=0, most=1000))
    labels_weight: float = option(
        "Of the labels beside the float network's answers, 0 to 1.", 0.0, metavar="W", within=Range(least=0, most=1)
    )
    augment: tuple[str, ...] = option(
        f"{','.join(AUGMENTATIONS)} or none.",
        ("flip", "crop", "colour"),
        metavar="LIST",
        with_commas=True,
        words={"none": ()},
        choices=(*AUGMENTATIONS, "none"),
    )
    layers: str = option("What learns: top, the half next to the head, or all.", "all", metavar="top|all")
    views: int = option(
        "Of each picture, that the top layers learn from.", 6, metavar="N", within=Range(least=1, most=1000)
    )
    learn_ranges: bool = option("Whether the ranges of activations learn.", True, off="fixed-ranges")
    learn_scales: bool | None = option(
        "Whether the scales of weights learn.", None, off="fixed-scales", default_text="with 4 bits"
    )
    strategy: str = option(
        f"{', '.join(STRATEGIES[:-1])} or {STRATEGIES[-1]} (tf.distribute).", "auto", metavar="S", choices=STRATEGIES
    )
    mixed_precision: str = option(
        f"{', '.join(MIXED_PRECISIONS[:-1])} or {MIXED_PRECISIONS[-1]}.", "auto", metavar="M", choices=MIXED_PRECISIONS
    )

    def __post_init__(self) -> None:
        check_training(self.augment, self.strategy, self.mixed_precision)
        one_of("--layers", self.layers, LAYERS[1:])
        check_values(self)


# --------------------------------------------------------------------------------------------------------------- jobs


@dataclass(frozen=True)
class Job:
    """What `edgenet run` and `edgenet export` are asked for. A recipe file (TOML) has the same names."""

    model: str
    out: Path = option(
        "Folder for what is made; a later run goes on with it.", missing="a folder for what is made, e.g. --out OUT"
    )
    images: str | None = option(
        "Photographs: a folder, the sample, a data set.",
        None,
        metavar="DIR|sample|NAME:DIR|tfds:NAME",
        path=True,
        choices=("sample",),
        missing="a folder of photographs, e.g. --images photos/",
    )
    images_test: str | None = option(
        "Photographs that only measure; a part of --images by default.", None, metavar="DIR|NAME:DIR", path=True
    )
    formats: tuple[str, ...] = option(
        f"{', '.join(FORMATS)} or all; may be repeated.", ("tflite",), name="format", metavar="F",
        words={"all": FORMATS}, choices=(*FORMATS, "all"),
    )  # fmt: skip
    precisions: tuple[str, ...] = option(
        "float32, float16, weight-only, dynamic, int8, int16x8 or int4; may be repeated.",
        DEFAULT_PRECISIONS,
        name="precision",
        metavar="P",
        choices=PRECISIONS,
    )
    devices: tuple[str, ...] = option(
        "Where: local, adb:SERIAL, ssh:USER@HOST, ...; may be repeated.", ("local",), name="device", metavar="D",
        choices=DEVICES,
    )  # fmt: skip
    calibration_images: int = option(
        "Pictures to calibrate with.", 100, metavar="N", within=Range(least=1, most=1_000_000)
    )
    # Some calibrate, some measure; `evaluate`, which has the same option, is content with one.
    limit: int | None = option("Use only N pictures.", None, metavar="N", within=Range(least=2, most=1_000_000_000))
    cluster: str | None = option("A Ray cluster whose machines do the work.", None, metavar="auto|ray://HOST:PORT")
    threads: int = option("Threads of one inference.", 1, metavar="N", within=Range(least=1, most=MAX_THREADS))
    emulated_images: int = option(
        "Pictures that the emulator of a chip answers.", 100, metavar="N", within=Range(least=1, most=1_000_000)
    )
    io: str = option("float32 (normalised), uint8 or int8 (raw pixels).", "float32", metavar="TYPE", choices=IO_DTYPES)
    batch: int | str = option(
        "Pictures an ONNX or OpenVINO file takes at once.",
        1,
        metavar="N|dynamic",
        within=Range(least=1, most=4096),
        word="dynamic",
    )
    logits: bool = option("Logits as a second output of ONNX and OpenVINO files.", False)
    weights: Path | None = option("Pretrained weights; the zoo's own by default.", None)
    random_weights: bool = option("Build without trained weights, for latency only.", False)
    preprocess: str | None = option(
        "How the input of an own model or --weights is made: a preset (torch, tf, ...) or settings.",
        None,
        metavar="TEXT",
    )
    labels: Path | None = option("Names of the classes of an own model or of --weights, one a line.", None)
    task: str = option(
        "What the output means: auto, classes, binary, labels or embedding.", AUTO, metavar="KIND",
        choices=(AUTO, *KINDS),
    )  # fmt: skip
    output: str | None = option("Which output is wanted, where the model has several.", None, metavar="NAME")
    target: str = option(
        "What runs the files: auto, pixel-8, coral, ...", "auto", metavar="NAME", choices=(AUTO_TARGET, *TARGETS)
    )
    calibration_method: str = option(
        "How ranges are chosen: auto, min-max, mse, ...", Recipe.method, metavar="M", choices=RANGE_METHODS
    )
    corrections: tuple[str, ...] = option(
        "What makes up for rounding: all, none, or some by name.",
        Recipe.corrections,
        metavar="LIST",
        with_commas=True,
        words={"all": CORRECTIONS, "none": ()},
        choices=(*CORRECTIONS, "all", "none"),
    )
    keep: tuple[str, ...] = option(
        "Operators of int8, int16x8 and int4 files, by name, that keep float32, float16 or int16; may be repeated.",
        (),
        metavar="REGEX=PRECISION",
    )
    max_accuracy_drop: float | None = option(
        "Search for an int8 file that loses no more.", None, metavar="POINTS", within=Range(least=0, most=100)
    )
    min_sqnr: float | None = option(
        "Search for an int8 file whose logits are as clean as this.",
        None,
        metavar="DB",
        within=Range(least=0, most=1000),
    )
    max_arena: str | None = option("Fail where no file takes so little memory on --device micro.", None, metavar="SIZE")
    history: Path | None = option("Add the run to this database of runs, too.", None, metavar="DB")
    allow: tuple[str, ...] = option(
        "Calibrate with pictures that are bad in this way; may be repeated.", (), metavar="CODE"
    )
    command: str = ""

    def __post_init__(self) -> None:
        check_values(self)
        _imply_test(self)
        empty = [f.option.name for f in option_fields(Job, self) if f.name in NOT_EMPTY and not f.default]
        if empty:
            raise InputError(f"--{empty[0]} is an empty list: name one at least, or leave it out")


@dataclass(frozen=True)
class QatJob:
    """What `edgenet qat` is asked for."""

    model: str
    out: Path = same_as(Job, "out")
    images: str = same_as(Job, "images", default=MISSING)
    images_test: str | None = same_as(Job, "images_test")
    formats: tuple[str, ...] = same_as(Job, "formats")
    io: str = same_as(Job, "io")
    calibration_images: int = same_as(Job, "calibration_images")
    train_images: int | None = option(
        "Pictures to train on.", None, metavar="N", default_text="three quarters of the rest",
        within=Range(least=1, most=1_000_000_000),
    )  # fmt: skip
    weight_bits: int | None = option(
        "Of the weights.", None, metavar="4|7|8", default_text="8, or 7 where the target's sums saturate",
        within=Range(least=1, most=8),
    )  # fmt: skip
    target: str = same_as(Job, "target")
    weights: Path | None = same_as(Job, "weights")
    preprocess: str | None = same_as(Job, "preprocess")
    labels: Path | None = same_as(Job, "labels")
    allow: tuple[str, ...] = same_as(Job, "allow")
    # Training starts so near to the float network that larger steps undo what the rounding had chosen: its loss rises.
    settings: Settings = field(default=Settings(epochs=20, batch=16, learning_rate=1e-4))
    distill: Distillation = field(default=Distillation())
    command: str = ""

    def __post_init__(self) -> None:
        check_values(self)
        _imply_test(self)

    @property
    def job(self) -> Job:
        """The same as a job of `edgenet export`, with the two precisions that are compared."""
        shared = {f.name for f in fields(Job)} & {f.name for f in fields(self)}
        precisions = ("float32", "int4" if self.weight_bits == 4 else "int8")
        return Job(**{name: getattr(self, name) for name in shared}, precisions=precisions)


@dataclass(frozen=True)
class FinetuneJob:
    """What `edgenet finetune` is asked for."""

    model: str
    out: Path = same_as(Job, "out")
    images: str = same_as(Job, "images", default=MISSING)
    images_test: str | None = same_as(Job, "images_test")
    resolution_px: int | None = option(
        "Side of the input; the model's own by default.", None, name="resolution", metavar="PX",
        within=Range(least=32, most=1024),
    )  # fmt: skip
    weights: Path | None = same_as(Job, "weights")
    preprocess: str | None = same_as(Job, "preprocess")
    augment: tuple[str, ...] = same_as(Distillation, "augment")
    strategy: str = same_as(Distillation, "strategy")
    mixed_precision: str = same_as(Distillation, "mixed_precision")
    layers: str = option(
        "What learns at most: the new head, the upper half too, or all. A later stage is kept where it is better.",
        "all",
        metavar="head|top|all",
        choices=LAYERS,
    )
    first_layer_rate: float = option(
        "Learning rate of the first layer, as a part of the head's; of those between, it falls from one to the next.",
        0.1,
        metavar="F",
        within=Range(above=0, most=1),
    )
    label_smoothing: float = option(
        "Part of each label that is spread over all classes.", 0.1, metavar="F", within=Range(least=0, below=1)
    )
    views: int = option(
        "Of each picture, whose activations the head and the top layers learn from.", 6, metavar="N",
        within=Range(least=1, most=1000),
    )  # fmt: skip
    refit: bool = option(
        "Whether it learns once more in the end, what was chosen, from all pictures: the held-back ones too.", True,
        off="no-refit",
    )  # fmt: skip
    time: str | None = option("What learning may take: 20m. The epochs are fitted to it.", None, metavar="TIME")
    then: str | None = option(
        "Quantize the result too: int8, or qat, which goes on training it in int8.", None, metavar="int8|qat"
    )
    settings: Settings = field(
        default=Settings(epochs=12, batch=16, learning_rate=None, warmup=0.2, ema=0.9, patience=12)
    )
    command: str = ""

    def __post_init__(self) -> None:
        one_of("--layers", self.layers, LAYERS)
        if self.then is not None:
            one_of("--then", self.then, THEN)
        check_values(self)
        _imply_test(self)


@dataclass(frozen=True)
class ScaleJob:
    """What `edgenet scale` is asked for."""

    device: str = option(
        "Where to measure: local, adb:SERIAL, micro, ...", metavar="D", missing="--device local, say", choices=DEVICES
    )
    out: Path = same_as(Job, "out")
    budget: str | None = option("What one picture may take: 30ms.", None, metavar="TIME")
    family: str | None = option(
        "What is scaled.", None, metavar="F", default_text="efficientnet-lite; mobilenet-v1 on a microcontroller"
    )
    threads: int = same_as(Job, "threads")
    arena: str | None = option("RAM of a microcontroller that the network may take: 512KB.", None, metavar="SIZE")
    flash: str | None = option("Flash of a microcontroller that the file may take: 1MB.", None, metavar="SIZE")
    classes: int = option("What the network tells apart.", 1000, metavar="N", within=Range(least=2, most=100_000))
    command: str = ""

    def __post_init__(self) -> None:
        check_values(self)


@dataclass(frozen=True)
class PaperJob:
    """What `edgenet paper` is asked for. `tables` empty is all, or with `quick` table 4 without GPipe's network."""

    out: Path = same_as(Job, "out")
    tables: tuple[str, ...] = option(
        f"{', '.join(TABLES[:-1])} or {TABLES[-1]}; all by default.", (), name="table", metavar="T", choices=TABLES
    )
    quick: bool = option("Table 4 without GPipe's network, in minutes.", False)
    images: str = same_as(Job, "images", default="sample")
    trained: tuple[str, ...] = option(
        "For table 5: a folder that `finetune` filled, or a model file of the classes of --images; may be repeated.",
        (),
        metavar="OUT|FILE",
    )
    preprocess: str | None = same_as(Job, "preprocess")
    devices: tuple[str, ...] = same_as(Job, "devices")
    command: str = ""

    def __post_init__(self) -> None:
        check_values(self)

    @property
    def wanted(self) -> tuple[str, ...]:
        return self.tables or (QUICK_TABLES if self.quick else TABLES)


@dataclass(frozen=True)
class BenchJob:
    """How `edgenet bench` is asked to time files."""

    devices: tuple[str, ...] = same_as(Job, "devices")
    threads: int = same_as(Job, "threads")
    runtime: str | None = option(
        "litert, onnxruntime or openvino; a format's own by default.", None, metavar="R", choices=RUNTIMES
    )
    delegate: str | None = option(
        "What runs the network there: cpu, gpu, nnapi, npu.", None, metavar="D", choices=DELEGATES
    )
    cores: str | None = option("Run on these cores only, such as 2,3.", None, metavar="LIST")
    sustained: str | None = option("Run each file without a pause for so long, such as 10m.", None, metavar="TIME")
    require_full_delegation: bool = option("Fail where an operator stays on the CPU of an accelerator's device.", False)
    publish: bool = option("By MLPerf's single-stream rules: 1,024 queries and 60 s at least.", False)
    cluster: str | None = same_as(Job, "cluster")
    max_arena: str | None = option("Fail where a file takes more memory on --device micro.", None, metavar="SIZE")

    def __post_init__(self) -> None:
        check_values(self)


@dataclass(frozen=True)
class CacheJob:
    """What `edgenet cache` is asked for."""

    prune: bool = option("Remove steps, all by default; nothing that edgenet did not make.", False)
    older_than: str | None = option("With --prune: those not used for so long, such as 30d.", None, metavar="AGE")
    max: str | None = option(
        "With --prune: those used longest ago, until the rest takes no more.", None, metavar="SIZE"
    )

    def __post_init__(self) -> None:
        check_values(self)
