"""What `import edgenet` offers, for type checkers and editors. python tests/helpers/public_names.py writes it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgenet.compare.nouns import Comparison as Comparison
from edgenet.errors import DeviceError as DeviceError
from edgenet.errors import EdgenetError as EdgenetError
from edgenet.errors import GateFailed as GateFailed
from edgenet.errors import InputError as InputError
from edgenet.errors import MissingDependency as MissingDependency
from edgenet.export.inspect.inspection import Inspection as Inspection
from edgenet.library.calls import File
from edgenet.library.quantized import Quantized as Quantized
from edgenet.options import Progress
from edgenet.results import Artifact as Artifact
from edgenet.results import Estimate as Estimate
from edgenet.results import Evaluation as Evaluation
from edgenet.results import Failure as Failure
from edgenet.results import Measurement as Measurement
from edgenet.results import Results as Results

__version__: str
__all__: list[str]

def bench(
    artifacts: File | Sequence[File],
    *,
    explain: bool = False,
    out: File | None = None,
    devices: str | Sequence[str] = ("local",),
    threads: int = 1,
    runtime: str | None = None,
    delegate: str | None = None,
    cores: str | None = None,
    sustained: str | None = None,
    require_full_delegation: bool = False,
    publish: bool = False,
    cluster: str | None = None,
    max_arena: str | None = None,
    progress: Progress | None = None,
) -> Results: ...
def compare(
    old: File,
    new: File,
    *,
    files: str | Sequence[str] = (),
    max_accuracy_drop: float | None = None,
    max_slowdown: str | None = None,
    max_growth: str | None = None,
    strict: bool = False,
    remeasure: bool = False,
    time: str = "1m",
    devices: str | Sequence[str] = ("local",),
    junit: str | Path | None = None,
    markdown: str | Path | None = None,
    progress: Progress | None = None,
) -> Comparison: ...
def evaluate(
    artifacts: File | Sequence[File],
    *,
    reference: File | None = None,
    images: str | Path | None = None,
    devices: str | Sequence[str] = (),
    limit: int | None = None,
    cluster: str | None = None,
    progress: Progress | None = None,
) -> Results: ...
def export(
    model: Any,
    *,
    out: str | Path,
    example_input: Any = None,
    images: str | Path | None = None,
    images_test: str | Path | None = None,
    formats: str | Sequence[str] = ("tflite",),
    precisions: str | Sequence[str] = ("float32", "float16", "dynamic", "int8"),
    calibration_images: int = 100,
    limit: int | None = None,
    cluster: str | None = None,
    io: str = "float32",
    batch: int | str = 1,
    logits: bool = False,
    weights: str | Path | None = None,
    random_weights: bool = False,
    preprocess: str | None = None,
    labels: str | Path | None = None,
    task: str = "auto",
    output: str | None = None,
    target: str = "auto",
    calibration_method: str = "auto",
    corrections: str | Sequence[str] = (
        "equalization",
        "spare-channels",
        "reconstruction",
        "feedback",
        "bias-correction",
    ),
    keep: str | Sequence[str] = (),
    max_accuracy_drop: float | None = None,
    min_sqnr: float | None = None,
    allow: str | Sequence[str] = (),
    progress: Progress | None = None,
) -> Results: ...
def inspect(
    artifact: File,
) -> Inspection: ...
def quantize(
    model: Any,
    *,
    precision: str = "int8",
    example_input: Any = None,
    images: str | Path | None = None,
    images_test: str | Path | None = None,
    formats: str | Sequence[str] = ("tflite",),
    calibration_images: int = 100,
    limit: int | None = None,
    weights: str | Path | None = None,
    random_weights: bool = False,
    preprocess: str | None = None,
    labels: str | Path | None = None,
    task: str = "auto",
    output: str | None = None,
    target: str = "auto",
    calibration_method: str = "auto",
    corrections: str | Sequence[str] = (
        "equalization",
        "spare-channels",
        "reconstruction",
        "feedback",
        "bias-correction",
    ),
    keep: str | Sequence[str] = (),
    allow: str | Sequence[str] = (),
    progress: Progress | None = None,
) -> Quantized: ...
def run(
    model: Any,
    *,
    out: str | Path,
    example_input: Any = None,
    images: str | Path | None = None,
    images_test: str | Path | None = None,
    formats: str | Sequence[str] = ("tflite",),
    precisions: str | Sequence[str] = ("float32", "float16", "dynamic", "int8"),
    devices: str | Sequence[str] = ("local",),
    calibration_images: int = 100,
    limit: int | None = None,
    cluster: str | None = None,
    threads: int = 1,
    emulated_images: int = 100,
    io: str = "float32",
    batch: int | str = 1,
    logits: bool = False,
    weights: str | Path | None = None,
    random_weights: bool = False,
    preprocess: str | None = None,
    labels: str | Path | None = None,
    task: str = "auto",
    output: str | None = None,
    target: str = "auto",
    calibration_method: str = "auto",
    corrections: str | Sequence[str] = (
        "equalization",
        "spare-channels",
        "reconstruction",
        "feedback",
        "bias-correction",
    ),
    keep: str | Sequence[str] = (),
    max_accuracy_drop: float | None = None,
    min_sqnr: float | None = None,
    max_arena: str | None = None,
    history: str | Path | None = None,
    allow: str | Sequence[str] = (),
    progress: Progress | None = None,
) -> Results: ...
