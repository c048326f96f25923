"""What INT8 and int16x8 cost on networks with real weights, beside the vendors' own quantizers, in one run.

    .venv/bin/python benchmarks/networks.py [--networks b0-flowers,lite0] [--limit 400] [--shared ../shared]
        [--calibration-images 100] [--draw SEED] [--only-edgenet]

A row of NETWORKS is a trained network, pictures to calibrate with, and others to measure on. Every tool gets the same
100 calibration pictures (or as many as asked for; --draw draws others of the same folder) and starts from the same
float network without its softmax; every file runs in its own runtime on the same pixels, against float32 in TFLite.
"float against source" compares that with the file as the user has it.

    edgenet              as `edgenet export` writes for this machine: 7-bit weights where its sums saturate
    nncf                 nncf.quantize, with its defaults, and for accuracy (MIXED, fast_bias_correction=False)
    onnxruntime          quantize_static, weights per channel, 8-bit and 16-bit activations
    ai-edge-quantizer    static_wi8_ai8

SQNR is of the logits, a picture: the median says what a picture can expect, and a few odd pictures do not decide it.

Bars, for every INT8 file of edgenet: at most 0.5 points of top-1 lost, 98 % agreement, and a median SQNR that is at
worst 0.5 dB below the best vendor's; on `hard` rows, where vendors lose much, 3 dB above it and at least 25 dB. For
int16x8: 6 dB more than INT8, what quantize_static's 16 bits have, and on hard rows 38 dB. R is the smallest of (noise
of the best vendor's INT8 file) / (noise of edgenet's) over the INT8 files, as amplitudes.
"""

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import vendors
from rich.console import Console
from rich.table import Table

from edgenet.calibration import SharedCalibration
from edgenet.device_bench import Worker
from edgenet.evaluate import centred_logits, wilson
from edgenet.export import FORMATS, Network, export_graph, find_source
from edgenet.export.importers.fuse import drop_unused
from edgenet.images import Pixels, limit, load_pixels, normalise, open_images, split, subset
from edgenet.results import ImageSet
from edgenet.targets import target, weight_bits

N_CALIBRATION = 100
SLOW_PICTURES = 64  # for int16x8 in TFLite, whose kernels have no SIMD: a second a picture
MAX_DROP, MIN_AGREEMENT = 0.005, 0.98
MIN_DB, MIN_LEAD_DB = {"int8": 25.0, "int16x8": 38.0}, 3.0
MAX_BEHIND_DB = 0.5
BETTER_DB = 6.0  # int16x8 than int8


VendorFile = tuple[str, str, str, Callable[[], Path]]


@dataclass(frozen=True)
class Row:
    """A network. `evaluation` is None where one folder is split. `hard`: the bars in dB hold for it."""

    model: str
    preprocess: str | None
    calibration: str
    evaluation: str | None
    hard: bool


NETWORKS = {
    "b0-flowers": Row(
        "models/efficientnet_b0_flowers102.onnx", "torch", "flowers102/train", "flowers102/test", hard=True
    ),
    "lite0": Row("efficientnet-lite0", None, "imagenet-mini", None, hard=False),
    "lite1": Row("efficientnet-lite1", None, "imagenet-mini", None, hard=False),
    "lite2": Row("efficientnet-lite2", None, "imagenet-mini", None, hard=False),
}


@dataclass(frozen=True)
class Made:
    """A file to measure; `ours` says whether edgenet wrote it."""

    tool: str
    format: str
    precision: str
    path: Path
    seconds: float

    @property
    def ours(self) -> bool:
        return self.tool == "edgenet"


@dataclass(frozen=True)
class Measured:
    """What a file answers beside float32, on the same n pictures."""

    made: Made
    n: int
    median_db: float
    whole_db: float
    agreement: float
    top1: float
    drop: float


def timed(what: Callable[[], Path]) -> tuple[Path, float]:
    """Return the file that the call writes, and the seconds that it took, in silence."""
    start = time.perf_counter()
    with vendors.silence():
        path = what()
    return path, time.perf_counter() - start


def make_ours(shared: SharedCalibration, network: Network, out: Path, precisions: Sequence[str]) -> Iterator[Made]:
    """Write edgenet's files for this machine."""
    here = target("auto")
    for precision in precisions:
        for format in FORMATS:
            bits = weight_bits(here, format) if precision == "int8" else 8

            def write(format: str = format, precision: str = precision, bits: int = bits) -> Path:
                graph = shared.quantized(precision, bits)
                calibration = shared.calibration
                made = export_graph(network, graph, out, format=format, precision=precision, calibration=calibration)
                return out / made.path

            yield Made("edgenet", format, precision, *timed(write))


def without_softmax(network: Network, out: Path) -> dict[str, Path]:
    """Write the float network as it is before its softmax; return the files by format."""
    graph = drop_unused(replace(network.graph, outputs=(network.graph.logits(),)))
    folder = out / "logits"
    folder.mkdir()
    return {
        format: folder / export_graph(network, graph, folder, format=format, precision="float32").path
        for format in ("tflite", "onnx")
    }


def vendors_files(
    floating: dict[str, Path], x: np.ndarray, out: Path
) -> list[tuple[str, str, str, Callable[[], Path]]]:
    """Return what each vendor's tool is called, its format and precision, and the call that writes its file.

    floating: float32 files by format, without the softmax, whose 8 bits would round most probabilities to zero;
    x: (N, H, W, 3) float32, normalised.
    """
    import nncf
    import openvino
    from onnxruntime.quantization import QuantType

    def static(name: str, activation_type: Any) -> Callable[[], Path]:
        settings = {"weight_type": QuantType.QInt8, "activation_type": activation_type, "per_channel": True}
        return lambda: vendors.quantize_static(floating["onnx"], x, out / name, **settings)

    def of_nncf(name: str, **settings: Any) -> Callable[[], Path]:
        return lambda: vendors.nncf_quantize(openvino.convert_model(floating["onnx"]), x, out / name, **settings)

    accurate = {"preset": nncf.QuantizationPreset.MIXED, "fast_bias_correction": False}
    tflite = out / "aeq.tflite"
    return [
        ("quantize_static u8s8", "onnx", "int8", static("u8.onnx", QuantType.QUInt8)),
        ("quantize_static u16s8", "onnx", "int16x8", static("u16.onnx", QuantType.QUInt16)),
        ("nncf", "openvino", "int8", of_nncf("nncf.xml")),
        ("nncf, for accuracy", "openvino", "int8", of_nncf("nncf_accurate.xml", **accurate)),
        ("ai-edge-quantizer", "tflite", "int8", lambda: vendors.ai_edge_quantizer(floating["tflite"], x, tflite)),
    ]


def make_theirs(floating: dict[str, Path], x: np.ndarray, out: Path) -> Iterator[Made]:
    """Write the vendors' files. x: (N, H, W, 3) float32, normalised."""
    for tool, format, precision, write in vendors_files(floating, x, out):
        yield Made(tool, format, precision, *timed(write))


def answer(path: Path, pixels: Pixels, network: Network) -> np.ndarray:
    """Return what a file says of (N, H, W, 3) uint8 pictures: (N, classes) float32, logits or probabilities."""
    chunks = [pixels[i : i + 32] for i in range(0, len(pixels), 32)]
    with Worker(path, threads=os.cpu_count() or 1) as worker:
        return np.concatenate([worker.predict(normalise(c, network.preprocessing)) for c in chunks])


def picture_db(y: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the SQNR of each picture's logits in dB, (N,)."""
    base, noise = centred_logits(reference), centred_logits(y) - centred_logits(reference)
    return 10 * np.log10(np.square(base).sum(1) / np.maximum(np.square(noise).sum(1), 1e-12))


def measure(made: Made, y: np.ndarray, reference: np.ndarray, labels: np.ndarray) -> Measured:
    """Compare a file's answers with float32's, both (N, classes); labels (N,)."""
    reference, labels = reference[: len(y)], labels[: len(y)]
    base = centred_logits(reference)
    whole = 10 * np.log10(np.square(base).sum() / np.square(centred_logits(y) - base).sum())
    top1, wanted = y.argmax(1), reference.argmax(1)
    right, was_right = float((top1 == labels).mean()), float((wanted == labels).mean())
    median = float(np.median(picture_db(y, reference)))
    return Measured(made, len(y), median, float(whole), float((top1 == wanted).mean()), right, was_right - right)


def pictures_of(
    row: Row, shared: Path, source: Any, n: int, wanted: int = N_CALIBRATION, draw: int | None = None
) -> tuple[ImageSet, ImageSet]:
    """Return the pictures that calibrate, `wanted` of them, and those that measure, n at most.

    Args:
        draw: the seed of those that calibrate; None takes the first ones.
    """
    calibration = open_images(shared / row.calibration, source.class_ids, source.class_names)
    if row.evaluation is None:
        calibration, evaluation = split(calibration, N_CALIBRATION)
        calibration = limit(calibration, min(wanted, N_CALIBRATION))
    elif draw is not None:
        drawn = np.random.default_rng(draw).choice(len(calibration), wanted, replace=False)
        calibration = subset(calibration, np.sort(drawn).tolist())
    else:
        calibration = limit(calibration, wanted)
    if row.evaluation is not None:
        evaluation = open_images(shared / row.evaluation, source.class_ids, source.class_names)
    return calibration, limit(evaluation, min(n, len(evaluation)))


def source_answers(model: Path, pixels: Pixels, network: Network) -> np.ndarray:
    """Return what the user's own .onnx file says in onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    x = normalise(pixels, network.preprocessing).transpose(0, 3, 1, 2)
    return np.concatenate([session.run(None, {name: np.ascontiguousarray(a[None])})[0] for a in x])


def run(name: str, args: argparse.Namespace) -> tuple[float, list[str]]:
    """Measure one network; return its smallest ratio and what does not hold the bars."""
    row, shared_folder = NETWORKS[name], args.shared
    is_file = row.model.endswith(".onnx")
    model = shared_folder / row.model
    source = find_source(str(model) if is_file else row.model, preprocess=row.preprocess)
    calibration, evaluation = pictures_of(row, shared_folder, source, args.limit, args.calibration_images, args.draw)
    calibrating, pixels = (load_pixels(images, source.preprocessing) for images in (calibration, evaluation))
    labels = np.array(evaluation.labels)
    with vendors.silence():
        network = source.network()
    shared = SharedCalibration(network, calibrating, calibration.fingerprint)
    rows: list[Measured] = []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        floating = out / export_graph(network, network.graph, out, format="tflite", precision="float32").path
        reference = answer(floating, pixels, network)
        if is_file:
            own = picture_db(reference, source_answers(model, pixels, network))
            print(f"{name}: float32 in TFLite against the file as it is: {np.median(own):.0f} dB")
        x = normalise(calibrating, source.preprocessing)
        files = make_ours(shared, network, out, args.precision)
        theirs = () if args.only_edgenet else make_theirs(without_softmax(network, out), x, out)
        for made in itertools.chain(files, theirs):
            slow = made.format == "tflite" and made.precision == "int16x8"
            y = answer(made.path, pixels[:SLOW_PICTURES] if slow else pixels, network)
            rows.append(measure(made, y, reference, labels))
    right = float((reference.argmax(1) == labels).mean())
    show(f"{name}: {len(calibration)} pictures calibrate, {len(labels)} measure; float32 {100 * right:.2f} %", rows)
    more = len(shared.graph.ops) - len(network.graph.ops)
    scaled = sum(n.endswith("_unscaled") for n in shared.graph.activations())
    print(f"{name}: {more} multiplications more in int8, {scaled} of them of a SiLU")
    return judge(name, rows, row.hard)


def show(title: str, rows: list[Measured]) -> None:
    """Print a row a file, the formats in turn."""
    table = Table("format", "precision", "tool", "median dB", "whole dB", "agrees", "top-1", "lost, points", "n", "s")
    table.title = title
    for m in sorted(rows, key=lambda m: (list(FORMATS).index(m.made.format), m.made.precision, not m.made.ours)):
        numbers = [f"{m.median_db:.1f}", f"{m.whole_db:.1f}", agreement(m), f"{100 * m.top1:.2f} %"]
        counts = [f"{100 * m.drop:+.2f}", str(m.n), f"{m.made.seconds:.0f}"]
        table.add_row(m.made.format, m.made.precision, m.made.tool, *numbers, *counts)
    Console(width=140).print(table)


def agreement(m: Measured) -> str:
    """Return the agreement with its 95 % interval."""
    low, high = wilson(round(m.agreement * m.n), m.n)
    return f"{100 * m.agreement:.2f} % ({100 * low:.1f} to {100 * high:.1f})"


def judge(name: str, rows: list[Measured], hard: bool) -> tuple[float, list[str]]:
    """Return the smallest ratio of noise over the INT8 files, and what does not hold the bars."""
    best = {
        p: max((m.median_db for m in rows if m.made.precision == p and not m.made.ours), default=-np.inf)
        for p in MIN_DB
    }
    ours = [m for m in rows if m.made.ours]
    eight = {m.made.format: m.median_db for m in ours if m.made.precision == "int8"}
    faults = []
    for m in ours:
        what, precision = f"{name}, {m.made.format}, {m.made.precision}", m.made.precision
        if m.drop > MAX_DROP + 1e-9:
            faults.append(f"{what}: loses {100 * m.drop:.2f} points")
        if m.agreement < MIN_AGREEMENT - 1e-9:
            faults.append(f"{what}: agrees on {100 * m.agreement:.2f} %")
        if hard and m.median_db < MIN_DB[precision]:
            faults.append(f"{what}: {m.median_db:.1f} dB")
        lead = (MIN_LEAD_DB if hard else -MAX_BEHIND_DB) if precision == "int8" else 0.0
        if m.median_db < best[precision] + lead:
            faults.append(f"{what}: {m.median_db:.1f} dB, the best vendor's has {best[precision]:.1f}")
        if precision == "int16x8" and eight and m.median_db < eight[m.made.format] + BETTER_DB:
            faults.append(f"{what}: only {m.median_db - eight[m.made.format]:.1f} dB better than int8")
    return float(10 ** ((min(eight.values(), default=np.inf) - best["int8"]) / 20)), faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default="b0-flowers,lite0", help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--limit", type=int, default=400, help="pictures to measure on")
    parser.add_argument("--calibration-images", type=int, default=N_CALIBRATION, help="pictures to calibrate with")
    parser.add_argument("--draw", type=int, metavar="SEED", help="calibrate with pictures drawn from the folder")
    parser.add_argument(
        "--precision", action="append", choices=list(MIN_DB), help="of edgenet's files: both by default"
    )
    parser.add_argument("--only-edgenet", action="store_true", help="make no vendor's files")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    args = parser.parse_args()
    args.precision = args.precision or list(MIN_DB)
    smallest, faults = float("inf"), list[str]()
    for name in args.networks.split(","):
        r, found = run(name, args)
        smallest, faults = min(smallest, r), faults + found
    for fault in faults:
        print(f"  below the bar: {fault}")
    print(f"networks: {smallest:.2f} x")
    return 0 if not faults else 1


if __name__ == "__main__":
    sys.exit(main())
