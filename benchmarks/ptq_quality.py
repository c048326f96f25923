"""INT8 files of EfficientNet-Lite beside those of TFLiteConverter, ai-edge-quantizer, onnxruntime and nncf.

    .venv/bin/python benchmarks/ptq_quality.py [--models lite0,lite1,lite2] [--images DIR] [--limit N] [--advised]

100 pictures of the folder calibrate, the rest measure; all tools get the same ones, in one process, with the settings
that their documentation starts with. Every file runs in its own runtime, on the same pixels, against float32 in TFLite.

The vendors get the network without its softmax: an 8-bit softmax has ties, which would cost them agreement that their
quantization did not lose. onnxruntime and nncf start from edgenet's clean float ONNX file. edgenet's files are what
`edgenet export` writes, softmax and all.

edgenet's weights have 8 bits or, where a machine's kernels saturate (x86 without VNNI), 7. Both are measured. What a
machine without VNNI answers is measured by holding OpenVINO to AVX2 (ONEDNN_MAX_CPU_ISA), where the CPU has more, and
shown in integers: no pair of 7-bit weights can saturate, so such a machine adds exactly what XNNPACK, which is exact
everywhere, adds; the .tflite rows are both sets of integers in XNNPACK on all pictures, and the reference arithmetic
has to give the same logits to the last bit on the first few (--exact-images). The 7-bit one is shown and not judged:
for no target is a .tflite file written with 7 bits.

400 pictures cannot tell 98.5 % from 99 %: the standard error is half a point. So each is shown to every file in six
views, three crops (the model's own, a wider and a narrower one), each also mirrored, and what is judged is all of them.
The pictures as the model crops them stand in columns of their own, and rows that miss the bar there are named.

R is the smallest of (views on which a vendor's file disagrees with float32) / (those on which edgenet's does) over
the files that `edgenet export` writes for x86, with VNNI and without, and the vendors' of the same format; at 1 or more
edgenet is first everywhere. Of two that disagree alike the one with the higher SQNR of the logits is first. Bar:
R >= 1, and each of those files agrees on 98.5 % and loses at most 0.3 points. --advised adds the settings for accuracy
that onnxruntime and nncf advise; they are shown, and not part of R.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import vendors
from rich.console import Console
from rich.table import Table

from edgenet.calibration import SharedCalibration
from edgenet.calibration.integer_reference import integer_logits, saturated_share
from edgenet.device_bench import Worker
from edgenet.evaluate import centred_logits, sqnr_db
from edgenet.export import FORMATS, Network, export_graph, find_source
from edgenet.export.runtime import load
from edgenet.files import size_of
from edgenet.images import Preprocessing, limit, load_pixels, normalise, open_images, split
from edgenet.results import ImageSet
from edgenet.targets import SATURATING_FORMATS, target, weight_bits

N_CALIBRATION = 100
MIN_AGREEMENT, MAX_DROP = 0.985, 0.003
HERE, AVX2 = "here", "AVX2 only"
NARROWER_PX, WIDER_PX = 64, 0  # what the crop leaves out at the sides, at the network's size; the models' own is 32


@dataclass(frozen=True)
class Made:
    """A file to measure. `judged`: edgenet's must hold the bar where it runs, a vendor's takes part in R."""

    tool: str
    bits: int  # of edgenet's weights; 0 for a vendor's file
    format: str
    path: Path
    seconds: float
    judged: bool = True
    machine: str = HERE


@dataclass(frozen=True)
class Measured:
    """What a file answers, beside what float32 answers on the same views of pictures."""

    made: Made
    n: int
    differs_on: int
    top1: float | None  # None where no picture has a label
    drop: float | None
    sqnr_db: float

    @property
    def agreement(self) -> float:
        return 1 - self.differs_on / self.n


def timed(what: Callable[[], Any]) -> tuple[Any, float]:
    """Return what the call returns, and the seconds that it took, in silence."""
    start = time.perf_counter()
    with vendors.silence():
        result = what()
    return result, time.perf_counter() - start


def make_ours(shared: SharedCalibration, network: Network, out: Path) -> Iterator[Made]:
    """Write edgenet's INT8 files, with weights of 8 and of 7 bits."""
    here = target("auto")
    for bits in (8, 7):
        (out / f"bits{bits}").mkdir()
        for format in FORMATS:
            start = time.perf_counter()
            with vendors.silence():
                artifact = export_graph(
                    network,
                    shared.quantized("int8", bits),
                    out / f"bits{bits}",
                    format=format,
                    precision="int8",
                    calibration=shared.calibration,
                )
            seconds = time.perf_counter() - start
            # 8 bits have to hold where sums are exact, 7 bits where they may not be.
            judged = bits <= weight_bits(here, format) and (bits == 8 or format in SATURATING_FORMATS)
            yield Made(f"edgenet, {bits} bits", bits, format, out / f"bits{bits}" / artifact.path, seconds, judged)


def make_theirs(model_name: str, float_onnx: Path, pictures: np.ndarray, out: Path, advised: bool) -> Iterator[Made]:
    """Write the vendors' INT8 files. pictures: (N, H, W, 3) float32, normalised."""
    import openvino

    model = vendors.keras_model(model_name, logits=True)
    path, seconds = timed(lambda: vendors.tflite_converter(model, "int8", pictures, out / "converter.tflite"))
    yield Made("TFLiteConverter", 0, "tflite", path, seconds)

    floating, _ = timed(lambda: vendors.tflite_converter(model, "float32", pictures, out / "float.tflite"))
    path, seconds = timed(lambda: vendors.ai_edge_quantizer(floating, pictures, out / "aeq.tflite"))
    yield Made("ai-edge-quantizer static_wi8_ai8", 0, "tflite", path, seconds)

    def onnxruntime(name: str, **settings: Any) -> tuple[Path, float]:
        return timed(lambda: vendors.quantize_static(float_onnx, pictures, out / name, **settings))

    def nncf(name: str, **settings: Any) -> tuple[Path, float]:
        return timed(
            lambda: vendors.nncf_quantize(openvino.convert_model(float_onnx), pictures, out / name, **settings)
        )

    yield Made("onnxruntime quantize_static", 0, "onnx", *onnxruntime("ort.onnx"))
    yield Made("nncf.quantize", 0, "openvino", *nncf("nncf.xml"))
    if advised:
        advice = vendors.onnxruntime_advice(vnni=not target("auto").saturating_formats)
        yield Made("onnxruntime, as advised", 0, "onnx", *onnxruntime("ort_advised.onnx", **advice), judged=False)
        settings = vendors.nncf_advice()
        yield Made("nncf, as advised", 0, "openvino", *nncf("nncf_advised.xml", **settings), judged=False)


@contextmanager
def held_to_avx2() -> Iterator[None]:
    """Make OpenVINO in the child processes started meanwhile believe that the CPU has AVX2 and no more."""
    os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX2"
    try:
        yield
    finally:
        del os.environ["ONEDNN_MAX_CPU_ISA"]


def answer(path: Path, pixels: np.ndarray, network: Network) -> np.ndarray:
    """Return what a file says of (N, H, W, 3) uint8 pictures: (N, classes) float32, logits or probabilities."""
    # Normalised numbers for every file: one with an int8 input rounds them to its own scale.
    chunks = [pixels[i : i + 64] for i in range(0, len(pixels), 64)]
    with Worker(path, threads=os.cpu_count() or 1) as worker:
        return np.concatenate([worker.predict(normalise(c, network.preprocessing)) for c in chunks])


def views(images: ImageSet, preprocessing: Preprocessing) -> np.ndarray:
    """Return six views of each picture, first all as the model crops them: (6 N, H, W, 3) uint8."""
    paddings = (preprocessing.crop_padding_px, NARROWER_PX, WIDER_PX)
    crops = [load_pixels(images, replace(preprocessing, crop_padding_px=p)) for p in paddings]
    if any(len(c) != len(images) for c in crops):
        raise SystemExit(f"{len(images) - len(crops[0])} pictures of {images.root} cannot be read")
    return np.concatenate([*crops, *(c[:, :, ::-1] for c in crops)])


def measure(made: Made, y: np.ndarray, reference: np.ndarray, labels: np.ndarray) -> Measured:
    """Compare a file's answers with float32's, both (N, classes); labels (N,), -1 for none."""
    top1, wanted, labelled = y.argmax(1), reference.argmax(1), labels >= 0
    base = centred_logits(reference)
    noise = float(np.square(centred_logits(y) - base).sum())
    right, was_right = (top1 == labels)[labelled], (wanted == labels)[labelled]
    return Measured(
        made,
        len(y),
        int((top1 != wanted).sum()),
        float(right.mean()) if labelled.any() else None,
        float(was_right.mean() - right.mean()) if labelled.any() else None,
        sqnr_db(float(np.square(base).sum()), noise) or float("inf"),
    )


def check_integers(shared: SharedCalibration, files: list[Made], x: np.ndarray) -> list[str]:
    """Return what is wrong with the claim that x86, with VNNI and without, adds what XNNPACK adds; nothing if it holds.

    x: (N, H, W, 3) float32, normalised.
    """
    wrong = []
    for bits, arithmetics in ((8, ("exact",)), (7, ("exact", "saturating"))):
        graph = shared.quantized("int8", bits)
        path = next(m.path for m in files if m.format == "tflite" and m.bits == bits)
        there = centred_logits(load(path).predict(x))
        for arithmetic in arithmetics:
            far = float(np.abs(centred_logits(integer_logits(graph, x, arithmetic)) - there).max())
            if far > 1e-3:  # a level of the logits is some 0.1; what softmax and logarithm round, some 1e-5
                wrong.append(f"{bits} bits, {arithmetic} arithmetic: logits are {far:.3g} from XNNPACK's")
        if bits == 7 and any(saturated_share(graph).values()):
            wrong.append("7 bits: some pair of weights can saturate")
    return wrong


def ratio(mine: Measured, other: Measured) -> float:
    """Return how many times as often `other` disagrees with float; where alike, below 1 if its SQNR is higher."""
    if mine.differs_on == other.differs_on:
        return 1.0 if mine.sqnr_db >= other.sqnr_db else 0.99
    return max(other.differs_on, 0.5) / max(mine.differs_on, 0.5)


def show(title: str, rows: list[Measured], plain: list[Measured]) -> None:
    """Print a row a file: what it does on all views, and on the pictures as they are."""
    table = Table("format", "runs on", "tool", "lost, points", "agrees", "differs on", "SQNR, dB")
    for name in ("pictures: lost", "agrees", "MB", "s"):
        table.add_column(name)
    table.title = title
    order = sorted(
        zip(rows, plain, strict=True),
        key=lambda pair: (list(FORMATS).index(pair[0].made.format), pair[0].made.machine != HERE),
    )
    for m, own in order:
        numbers = [_points(m.drop), _percent(m.agreement), str(m.differs_on), f"{m.sqnr_db:.1f}"]
        numbers += [_points(own.drop), _percent(own.agreement)]
        size = f"{size_of(m.made.path) / 1e6:.2f}"
        note = " (not written for it)" if m.made.bits and not m.made.judged else ""
        table.add_row(m.made.format, m.made.machine, m.made.tool + note, *numbers, size, f"{m.made.seconds:.1f}")
    Console(width=150).print(table)


def _points(drop: float | None) -> str:
    return "" if drop is None else f"{100 * drop:+.2f}"


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.2f} %"


def run(model: str, images_dir: str, n: int | None, n_exact: int, advised: bool) -> tuple[float, list[str]]:
    """Measure one model; return its smallest ratio and what does not hold the bar."""
    import onnx

    source = find_source(model)
    images = open_images(images_dir, source.class_ids, source.class_names)
    calibration, evaluation = split(images if n is None else limit(images, n), N_CALIBRATION)
    calibrating, pixels = load_pixels(calibration, source.preprocessing), views(evaluation, source.preprocessing)
    labels = np.array([-1 if label is None else label for label in evaluation.labels])
    with vendors.silence():
        network = source.network()
    shared = SharedCalibration(network, calibrating, calibration.fingerprint)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        tflite, float_onnx = (
            out / export_graph(network, network.graph, out, format=format, precision="float32").path
            for format in ("tflite", "onnx")
        )
        onnx.utils.extract_model(str(float_onnx), str(out / "logits.onnx"), ["image"], ["logits"])
        files = list(make_ours(shared, network, out))
        pictures = normalise(calibrating, source.preprocessing)
        files += make_theirs(model, out / "logits.onnx", pictures, out, advised)

        reference = answer(tflite, pixels, network)
        rows, plain = [], []

        def add(m: Made) -> None:
            y = answer(m.path, pixels, network)
            rows.append(measure(m, y, reference, np.tile(labels, len(pixels) // len(labels))))
            plain.append(measure(m, y[: len(labels)], reference[: len(labels)], labels))

        for m in files:
            add(m)
        if not target("auto").saturating_formats:
            with held_to_avx2():
                for m in [m for m in files if m.format == "openvino"]:
                    add(replace(m, machine=AVX2, judged=m.judged and m.bits != 8))
        wrong = check_integers(shared, files, normalise(pixels[:n_exact], source.preprocessing)) if n_exact else []
        says = f"{len(calibration)} pictures to calibrate, {len(labels)} to measure, {len(pixels)} views of them"
        show(f"{model}, INT8, {says}", rows, plain)
    for fault in judge(model, plain, [])[1]:
        print(f"  on the {len(labels)} pictures alone: {fault}")
    if n_exact and not wrong:
        print(f"  integers: exact, saturating (7 bits) and XNNPACK's sums are the same on {n_exact} pictures")
    return judge(model, rows, wrong)


def judge(model: str, rows: list[Measured], wrong: list[str]) -> tuple[float, list[str]]:
    """Return the smallest ratio, and what does not hold the bar."""
    smallest, faults = float("inf"), [f"{model}: {w}" for w in wrong]
    for mine in [m for m in rows if m.made.bits and m.made.judged]:
        what = f"{model}, {mine.made.format}, {mine.made.tool}, {mine.made.machine}"
        if mine.agreement < MIN_AGREEMENT - 1e-9:
            faults.append(f"{what}: agrees on {_percent(mine.agreement)}")
        if mine.drop is not None and mine.drop > MAX_DROP + 1e-9:
            faults.append(f"{what}: loses {100 * mine.drop:.2f} points")
        for other in rows:
            same = (other.made.format, other.made.machine) == (mine.made.format, mine.made.machine)
            if same and other.made.judged and not other.made.bits:
                r = ratio(mine, other)
                smallest = min(smallest, r)
                if r < 1:
                    faults.append(f"{what}: {other.made.tool} is before it")
    return smallest, faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="lite0,lite1,lite2")
    parser.add_argument("--images", default="../shared/imagenet-mini")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--exact-images", type=int, default=8, help="pictures for the reference arithmetic")
    parser.add_argument("--advised", action="store_true", help="also the vendors' settings for accuracy")
    args = parser.parse_args()
    smallest, faults = float("inf"), []
    for name in args.models.split(","):
        model = name if name.startswith("efficientnet") else f"efficientnet-{name}"
        r, found = run(model, args.images, args.limit, args.exact_images, args.advised)
        smallest, faults = min(smallest, r), faults + found
    for fault in faults:
        print(f"  below the bar: {fault}")
    print(f"ptq_quality: {smallest:.2f} x")
    return 0 if smallest >= 1 and not faults else 1


if __name__ == "__main__":
    sys.exit(main())
