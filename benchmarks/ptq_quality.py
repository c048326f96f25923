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
everywhere, adds; the last rows are both sets of integers in XNNPACK on all pictures, and the reference arithmetic has
to give the same logits to the last bit on the first few (--exact-images).

R is the smallest of (pictures on which a vendor's file disagrees with float32) / (those on which edgenet's does) over
all pairs of one format and one machine; at 1 or more edgenet is first everywhere. Of two that disagree alike the higher
SQNR of the logits is first. Bar: R >= 1, and every file of edgenet agrees on 98.5 % and loses at most 0.3 points.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import vendors
from rich.console import Console
from rich.table import Table

from edgenet.calibration import SharedCalibration
from edgenet.calibration.reference import integer_logits, saturated_share
from edgenet.evaluate import Candidate, centred_logits, evaluate
from edgenet.export import FORMATS, Network, export_graph, find_source
from edgenet.images import limit, load_pixels, normalise, open_images, split
from edgenet.results import Artifact, Evaluation, ImageSet, sha256_of, size_of
from edgenet.targets import SATURATING_FORMATS, target, weight_bits

N_CALIBRATION = 100
MIN_AGREEMENT, MAX_DROP = 0.985, 0.003
OURS = "edgenet"
HERE, AVX2 = "here", "AVX2 only"


@dataclass(frozen=True)
class Made:
    """A file to measure. `judged`: edgenet's must hold the bar on this machine, a vendor's takes part in R."""

    tool: str
    format: str
    path: Path
    seconds: float
    judged: bool = True
    machine: str = HERE

    @property
    def id(self) -> str:
        return f"{self.format} {self.tool} {self.machine}"


@dataclass(frozen=True)
class Measured:
    made: Made
    evaluation: Evaluation

    @property
    def disagreements(self) -> int:
        assert self.evaluation.agreement is not None
        return round((1 - self.evaluation.agreement) * self.evaluation.n_images)

    @property
    def sqnr_db(self) -> float:
        return self.evaluation.sqnr_db or 0.0


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
        folder = out / f"bits{bits}"
        folder.mkdir()
        for format in FORMATS:

            def export(format: str = format, bits: int = bits, folder: Path = folder) -> Artifact:
                return export_graph(
                    network, shared.quantized("int8", bits), folder,
                    format=format, precision="int8", calibration=shared.calibration,
                )  # fmt: skip

            artifact, seconds = timed(export)
            # 8 bits have to hold where sums are exact; XNNPACK's are everywhere, so 7 bits are judged everywhere.
            judged = bits <= weight_bits(here, format)
            yield Made(f"{OURS}, {bits} bits", format, folder / artifact.path, seconds, judged)


def make_theirs(model_name: str, float_onnx: Path, pictures: np.ndarray, out: Path, advised: bool) -> Iterator[Made]:
    """Write the vendors' INT8 files."""
    import openvino

    model = vendors.keras_model(model_name, logits=True)
    path, seconds = timed(lambda: vendors.tflite_converter(model, "int8", pictures, out / "converter.tflite"))
    yield Made("TFLiteConverter", "tflite", path, seconds)

    floating, _ = timed(lambda: vendors.tflite_converter(model, "float32", pictures, out / "float.tflite"))
    path, seconds = timed(lambda: vendors.ai_edge_quantizer(floating, pictures, out / "aeq.tflite"))
    yield Made("ai-edge-quantizer", "tflite", path, seconds)

    path, seconds = timed(lambda: vendors.quantize_static(float_onnx, pictures, out / "ort.onnx"))
    yield Made("onnxruntime quantize_static", "onnx", path, seconds)

    def nncf(name: str, **settings: Any) -> Path:
        return vendors.nncf_quantize(openvino.convert_model(float_onnx), pictures, out / name, **settings)

    path, seconds = timed(lambda: nncf("nncf.xml"))
    yield Made("nncf.quantize", "openvino", path, seconds)
    if not advised:
        return
    vnni = not target("auto").saturating_formats
    advice = vendors.onnxruntime_advice(vnni)
    path, seconds = timed(lambda: vendors.quantize_static(float_onnx, pictures, out / "ort_advised.onnx", **advice))
    yield Made("onnxruntime, as advised for x86", "onnx", path, seconds)
    path, seconds = timed(lambda: nncf("nncf_advised.xml", **vendors.nncf_advice()))
    yield Made("nncf, accurate, overflow fix", "openvino", path, seconds)


@contextmanager
def held_to_avx2() -> Iterator[None]:
    """Make OpenVINO in the child processes started meanwhile believe that the CPU has AVX2 and no more."""
    os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX2"
    try:
        yield
    finally:
        del os.environ["ONEDNN_MAX_CPU_ISA"]


def measure(files: list[Made], reference: Path, images: ImageSet, network: Network) -> tuple[Evaluation, list[Measured]]:
    """Return what the float file and each of the others answer on the same pictures."""
    candidates = [Candidate("float32", reference, sha256_of(reference))]
    candidates += [Candidate(m.id, m.path, sha256_of(m.path)) for m in files]
    evaluations, failures = evaluate(candidates, images, network.preprocessing, reference="float32")
    if failures:
        raise SystemExit(f"{failures[0].what} failed: {failures[0].why}")
    by_id = {e.artifact: e for e in evaluations}
    return by_id["float32"], [Measured(m, by_id[m.id]) for m in files]


def check_integers(shared: SharedCalibration, files: list[Made], x: np.ndarray) -> list[str]:
    """Return what is wrong with the claim that both profiles of x86 add what XNNPACK adds; nothing where it holds.

    x: (N, H, W, 3) float32, normalised.
    """
    from edgenet.export.runtime import load

    wrong = []
    for bits, arithmetics in ((8, ("exact",)), (7, ("exact", "saturating"))):
        graph = shared.quantized("int8", bits)
        path = next(m.path for m in files if m.format == "tflite" and m.tool.endswith(f"{bits} bits"))
        there = centred_logits(load(path).predict(x))
        step = float(graph.tensors[graph.logits()].quantization.scale[0]) if graph.tensors[graph.logits()].quantization else 0.0
        for arithmetic in arithmetics:
            logits = integer_logits(graph, x, arithmetic)
            far = float(np.abs(centred_logits(logits) - there).max())
            if far > 1e-3:
                wrong.append(f"{bits} bits, {arithmetic}: logits are {far:.3g} from XNNPACK's (a level is {step:.3g})")
        if bits == 7 and any(saturated_share(graph).values()):
            wrong.append("7 bits: some pair of weights can saturate")
    return wrong


def ratio(mine: Measured, other: Measured) -> float:
    """Return how many times as often `other` disagrees with float; where alike, below 1 if its SQNR is higher."""
    if mine.disagreements == other.disagreements:
        return 1.0 if mine.sqnr_db >= other.sqnr_db else 0.99
    return max(other.disagreements, 0.5) / max(mine.disagreements, 0.5)


def show(name: str, images: ImageSet, base: Evaluation, rows: list[Measured]) -> None:
    n = f"{base.n_images} pictures, {base.n_labelled} labelled"
    table = Table(
        "format", "runs on", "tool", "top-1", "lost, points", "agrees", "differs on", "SQNR, dB", "MB", "s",
        title=f"{name}, INT8, {N_CALIBRATION} calibration pictures, {n}",
    )  # fmt: skip
    table.add_row("tflite", HERE, "float32", _percent(base.top1), "", "", "", "", "", "")
    for m in sorted(rows, key=lambda m: (list(FORMATS).index(m.made.format), m.made.machine != HERE)):
        e = m.evaluation
        lost = "" if e.top1_drop is None else f"{100 * e.top1_drop:+.2f}"
        tool = m.made.tool if m.made.judged else f"{m.made.tool} (not for this machine)"
        table.add_row(
            m.made.format, m.made.machine, tool, _percent(e.top1), lost, _percent(e.agreement), str(m.disagreements),
            f"{m.sqnr_db:.1f}", f"{size_of(m.made.path) / 1e6:.2f}", f"{m.made.seconds:.1f}",
        )  # fmt: skip
    Console(width=140).print(table)


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.2f} %"


def run(model: str, images_dir: str, n: int | None, n_exact: int, advised: bool) -> tuple[float, list[str]]:
    """Measure one model; return its smallest ratio and what does not hold the bar."""
    source = find_source(model)
    images = open_images(images_dir, source.class_ids, source.class_names)
    calibration, evaluation = split(images if n is None else limit(images, n), N_CALIBRATION)
    pixels = load_pixels(calibration, source.preprocessing)
    with vendors.silence():
        network = source.network()
    shared = SharedCalibration(network, pixels, calibration.fingerprint)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        floats = {
            format: out / export_graph(network, network.graph, out, format=format, precision="float32").path
            for format in ("tflite", "onnx")
        }
        import onnx

        float_onnx = out / "float.onnx"
        onnx.utils.extract_model(str(floats["onnx"]), str(float_onnx), ["image"], ["logits"])
        files = list(make_ours(shared, network, out))
        theirs = make_theirs(model, float_onnx, normalise(pixels, source.preprocessing), out, advised)
        base, rows = measure([*files, *theirs], floats["tflite"], evaluation, network)
        if not target("auto").saturating_formats:
            again = [
                Made(m.made.tool, m.made.format, m.made.path, m.made.seconds, m.made.tool != f"{OURS}, 8 bits", AVX2)
                for m in rows
                if m.made.format == "openvino"
            ]
            with held_to_avx2():
                rows += measure(again, floats["tflite"], evaluation, network)[1]
        first = load_pixels(limit(evaluation, n_exact), source.preprocessing) if n_exact else pixels[:0]
        wrong = check_integers(shared, files, normalise(first, source.preprocessing)) if n_exact else []
        show(model, evaluation, base, rows)
    print(f"  integers: {'; '.join(wrong) or f'XNNPACK, exact and saturating arithmetic give the same logits on {len(first)} pictures'}")
    return judge(model, rows, wrong)


def judge(model: str, rows: list[Measured], wrong: list[str]) -> tuple[float, list[str]]:
    smallest, faults = float("inf"), [f"{model}: {w}" for w in wrong]
    ours = [m for m in rows if m.made.tool.startswith(OURS) and m.made.judged]
    for mine in ours:
        e, what = mine.evaluation, f"{model}, {mine.made.format}, {mine.made.tool}, {mine.made.machine}"
        assert e.agreement is not None
        if e.agreement < MIN_AGREEMENT:
            faults.append(f"{what}: agrees on {_percent(e.agreement)}")
        if e.top1_drop is not None and e.top1_drop > MAX_DROP + 1e-9:
            faults.append(f"{what}: loses {100 * e.top1_drop:.2f} points")
        if not _shipped(mine.made):
            continue
        for other in rows:
            same = (other.made.format, other.made.machine) == (mine.made.format, mine.made.machine)
            if same and not other.made.tool.startswith(OURS):
                r = ratio(mine, other)
                smallest = min(smallest, r)
                if r < 1:
                    faults.append(f"{what}: {other.made.tool} is before it")
    return smallest, faults


def _shipped(made: Made) -> bool:
    """Whether `edgenet export` writes this file for the machine that the row is of."""
    saturating = made.machine == AVX2 and made.format in SATURATING_FORMATS
    bits = 7 if saturating else weight_bits(target("auto"), made.format)
    return made.tool == f"{OURS}, {bits} bits"


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
