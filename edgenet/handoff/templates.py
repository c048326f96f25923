"""The texts of a hand-over: the templates in files/, filled with what is read from the model file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgenet import templating
from edgenet.handoff.deployed import Deployed
from edgenet.handoff.npu import NpuFile
from edgenet.images import Preprocessing
from edgenet.report.formatting import interval, megabytes, milliseconds, percent
from edgenet.results import Evaluation, Measurement, TensorInfo
from edgenet.results.records import Context
from edgenet.tasks.words import WORDS, figure, figures_of

_FILES = Path(__file__).with_name("files")

# What the code was written for. LiteRT is the version that runs the file here; both have the API that is called.
VERSIONS = {
    "com.google.ai.edge.litert:litert": "2.3.0",
    "com.google.mediapipe:tasks-vision": "1.0.0",
    "junit:junit": "4.13.2",
    "androidx.test.ext:junit": "1.2.1",
    "androidx.test:runner": "1.6.2",
}
COMPILE_SDK, MIN_SDK = 35, 24  # MediaPipe Tasks asks for 24, LiteRT for 23
_TEST_ONLY = ("junit:", "androidx.test")
_MEDIAPIPE = "com.google.mediapipe:tasks-vision"
_BYTES = {"float32": 4, "uint8": 1, "int8": 1}


@dataclass(frozen=True)
class Dependency:
    """A line of Gradle's dependencies."""

    configuration: str  # implementation | androidTestImplementation
    package: str
    version: str


@dataclass(frozen=True)
class Code:
    """What the files of code are filled with; floats are literals of Kotlin."""

    asset: str  # the model's file name
    n_classes: int
    n_labels: int
    labels_are: str
    scores_are: str
    threshold: str  # "" where the answer is not yes or no
    n_cases: int
    height_px: int
    width_px: int
    channels: int
    crop_padding_px: int
    interpolation: str
    order: str  # RGB | BGR | GREY
    mean: str
    std: str
    input_dtype: str
    input_bytes: int  # of one number
    output_dtype: str
    output_bytes: int
    output_scale: str
    output_zero_point: int | None
    with_mediapipe: bool
    with_npu: bool
    embeds: bool
    compile_sdk: int
    min_sdk: int
    dependencies: tuple[Dependency, ...]


@dataclass(frozen=True)
class Readme:
    """What README.md is filled with. `accuracy`, `latency` and `why_not_mediapipe` are "" where there is nothing."""

    name: str
    precision: str
    asset: str
    size: str
    sha256: str
    task: str
    mediapipe: str  # the class that runs it by MediaPipe Tasks
    what: str  # the output holds
    labels: str  # what stands in labels.txt
    said: str  # of how the scores are read, "" where that is clear
    n_cases: int
    shape: str
    size_px: str
    is_square: bool
    short_px: int
    crop_padding_px: int
    interpolation: str
    order: str  # RGB | BGR | grey
    normalisation: str
    assumed: bool  # whether crop and interpolation are not in the file
    input: str
    output: str
    weights: str
    accuracy: str
    latency: str
    why_not_mediapipe: str
    tolerance: str
    why_tolerance: str
    dependencies: tuple[Dependency, ...]
    npu: tuple[NpuFile, ...]
    npu_tolerance: str


@dataclass(frozen=True)
class _Words:
    """What the numbers of a kind of network are called."""

    what: str
    labels: str
    said: str
    labels_are: str
    scores_are: str


def _words(model: Deployed) -> _Words:
    n, threshold = model.n_outputs, f"{model.task.threshold:g}"
    if model.task.kind == "binary":
        no, yes = model.negative, model.labels[0]
        return _Words(
            f"1 score, of {_cell(yes)}",
            "the name of what the score is of",
            f"A score above {threshold} says {_cell(yes)}, any other {_cell(no)}.",
            "The name of what the score is of.",
            f"The score of yes: above {threshold} it says yes",
        )
    if model.task.kind == "labels":
        return _Words(
            f"{n} scores, each of a label",
            f"the names of the {n} labels, in the order of the scores",
            f"Each label stands for itself: a score above {threshold} says that it is there.",
            "The name of each label, in the order of the scores.",
            f"The score of each label: above {threshold} it is there",
        )
    if model.task.kind == "embedding":
        said = "Two pictures are the more alike the larger the cosine between their embeddings is."
        return _Words(f"an embedding of {n} numbers", "", said, "", "The embedding")
    return _Words(
        f"{n} scores",
        f"the names of the {n} classes, in the order of the scores",
        "",
        "The name of each class, in the order of the probabilities.",
        "The score of each class",
    )


def code(model: Deployed, n_cases: int, with_npu: bool = False) -> dict[str, str]:
    """Return the files of code, name -> text. Without MediaPipe's where it cannot run the model."""
    p, out = model.preprocessing, model.output
    with_mediapipe, words = not model.not_for_mediapipe, _words(model)
    view = Code(
        asset=model.asset,
        n_classes=model.n_outputs,
        n_labels=len(model.labels),
        labels_are=words.labels_are,
        scores_are=words.scores_are,
        threshold=_float(model.task.threshold) if model.task.kind in ("binary", "labels") else "",
        n_cases=n_cases,
        height_px=p.size_px[0],
        width_px=p.size_px[1],
        channels=p.channels,
        crop_padding_px=p.crop_padding_px,
        interpolation=p.interpolation,
        order=p.channel_order.upper(),
        mean=", ".join(map(_float, p.mean)),
        std=", ".join(map(_float, p.std)),
        input_dtype=model.input.dtype,
        input_bytes=_BYTES[model.input.dtype],
        output_dtype=out.dtype,
        output_bytes=_BYTES[out.dtype],
        output_scale=_float(out.scale or 1.0),
        output_zero_point=out.zero_point,
        with_mediapipe=with_mediapipe,
        with_npu=with_npu,
        embeds=model.task.kind == "embedding",
        compile_sdk=COMPILE_SDK,
        min_sdk=MIN_SDK,
        dependencies=dependencies(with_mediapipe),
    )
    names = ["build.gradle.kts", "Preprocessing.kt", "Bitmaps.kt", "LiteRtClassifier.kt", "GoldenTest.kt"]
    names += [f"{_mediapipe_class(model)}.kt"] * with_mediapipe + ["NpuClassifier.kt", "NpuGoldenTest.kt"] * with_npu
    return {name: templating.text(name, view, _FILES) for name in names}


def _mediapipe_class(model: Deployed) -> str:
    return "MediaPipeEmbedder" if model.task.kind == "embedding" else "MediaPipeClassifier"


def readme(
    model: Deployed, n_cases: int, accuracy: Sequence[str], latency: Sequence[str], npu: Sequence[NpuFile] = ()
) -> str:
    """Return README.md; `accuracy` and `latency` are sentences, none where nothing was measured."""
    p, words = model.preprocessing, _words(model)
    view = Readme(
        name=model.name,
        precision=model.precision,
        asset=model.asset,
        size=megabytes(model.size_bytes),
        sha256=model.sha256,
        task=model.task.kind,
        mediapipe=_mediapipe_class(model),
        what=words.what,
        labels=words.labels,
        said=words.said,
        n_cases=n_cases,
        shape=" x ".join(map(str, (1, *p.shape))),
        size_px=str(p.resolution_px) if p.width_px is None else f"{p.resolution_px} x {p.width_px}",
        is_square=p.width_px is None,
        short_px=p.short_px,
        crop_padding_px=p.crop_padding_px,
        interpolation=p.interpolation,
        order="grey" if p.channels == 1 else p.channel_order.upper(),
        normalisation=_normalisation(p, model.input),
        assumed=model.assumed,
        input=_quantized(model.input),
        output=_quantized(model.output),
        weights=_cell(model.weights),
        accuracy="; ".join(map(_cell, accuracy)),
        latency="; ".join(map(_cell, latency)),
        why_not_mediapipe=model.not_for_mediapipe,
        tolerance=f"{model.tolerance:g}" + (" of their span" if model.task.kind == "embedding" else ""),
        why_tolerance="sum in another order" if model.tolerance < 0.01 else "round integers in other places",
        dependencies=dependencies(not model.not_for_mediapipe),
        npu=tuple(npu),
        npu_tolerance=f"{npu[0].tolerance:g}" if npu else "",
    )
    return templating.text("README.md", view, _FILES)


def dependencies(with_mediapipe: bool) -> tuple[Dependency, ...]:
    """Return what Gradle has to load, with versions."""
    return tuple(
        Dependency("androidTestImplementation" if name.startswith(_TEST_ONLY) else "implementation", name, version)
        for name, version in VERSIONS.items()
        if name != _MEDIAPIPE or with_mediapipe
    )


def accuracy_sentence(e: Evaluation) -> str:
    """Return what was measured of a file's answers."""
    said = []
    if e.top1 is not None:
        right = WORDS[e.task].right
        said.append(f"{right} {percent(e.top1)} (95 %: {interval(e.top1_ci95)}) on {e.n_labelled} labelled pictures")
    said += [f"{name} {figure(f)}" for name, f in figures_of(e.measures)]
    if e.agreement is not None:
        said.append(f"{percent(e.agreement)} of {e.n_images} pictures have the {WORDS[e.task].answer} of {e.reference}")
    by = f"on {e.device}, emulated by {e.emulated}" if e.emulated else f"by {e.runtime}"
    return f"{', '.join(said) or f'{e.n_images} pictures without labels'} {by}"


def latency_sentence(m: Measurement, context: Context) -> str:
    """Return what was measured of a file's time."""
    here = f"a computer ({context.cpu_model})" if context.cpu_model else "a computer"
    where = here if m.device == "local" else m.device
    threads = f"{m.threads} thread{'s' * (m.threads != 1)}"
    beware = "; ".join(w.text for w in m.cautions)
    care = f" (with care: {beware})" if beware else ""
    return (
        f"{milliseconds(m.median_ms)} median, {milliseconds(m.p90_ms)} p90, by {m.runtime} on {where}, {threads}{care}"
    )


def _quantized(t: TensorInfo) -> str:
    return t.dtype if t.scale is None else f"{t.dtype}, scale {t.scale:.6g}, zero point {t.zero_point}"


def _normalisation(p: Preprocessing, x: TensorInfo) -> str:
    if x.dtype != "float32":
        return "raw pixels: the file normalises them itself"
    return f"(pixel - {_numbers(p.mean)}) / {_numbers(p.std)}"


def _float(value: float) -> str:
    """Return a Kotlin Float that is exactly the nearest one to `value`."""
    import numpy as np

    text = str(np.float32(value))
    return f"{text if set(text) & set('.e') else text + '.0'}f"


def _numbers(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else f"[{', '.join(f'{v:g}' for v in values)}]"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
