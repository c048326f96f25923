"""The fastest INT8 file of edgenet on this machine against TFLiteConverter's, at one thread.

    .venv/bin/python benchmarks/int8_latency.py [--images DIR] [--model efficientnet-lite0] [--threads 1]

One `edgenet run --format all` writes, evaluates and times its files and recommends one by itself. Then its INT8 files
of all three formats and the vendor's take turns in one measurement, each in its own runtime. The ratio is that of the
medians, its interval the exact one over rounds. Bar: 1.4 times as fast, no more loss, and the file `run` recommends
is the fastest here too (or one that cannot be told from it). "No more loss": top-1 falls by no more than the vendor's
does, or, where the vendor's changed answers happened to be lucky ones, no more answers are changed.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import vendors
from rich.console import Console
from rich.table import Table

from edgenet.device_bench import Plan, Request, bench
from edgenet.evaluate import Candidate, evaluate
from edgenet.export import FORMATS, find_source
from edgenet.files import sha256_of
from edgenet.images import Preprocessing, limit, load_pixels, normalise, open_images, split
from edgenet.report.formatting import failed
from edgenet.report.recommendation import recommend
from edgenet.report.rows import Ratio, speedup
from edgenet.results import Evaluation, ImageSet, Measurement, Results

BAR = 1.4
VENDOR = "TFLiteConverter int8"


def run_edgenet(model: str, images: str, out: Path, threads: int, n: int | None) -> tuple[Results, str | None]:
    """Return the results of one command, and the file that it recommends."""
    command = [str(Path(sys.executable).with_name("edgenet")), "run", model, "--format", "all", "--images", images]
    command += ["--out", str(out), "--threads", str(threads), *(["--limit", str(n)] if n else [])]
    subprocess.run(command, check=True, capture_output=True)
    results = Results.load(out)
    return results, recommend(results).artifact


def evaluations(files: dict[str, Path], images: ImageSet, preprocessing: Preprocessing) -> dict[str, Evaluation]:
    """Return what each file answers on the same pictures, compared with the one called float32."""
    candidates = [Candidate(id, path, sha256_of(path)) for id, path in files.items()]
    found, failures = evaluate(candidates, images, preprocessing, reference="float32")
    if failures:
        raise SystemExit(f"{failed(failures[0])} failed: {failures[0].why}")
    return {e.artifact: e for e in found}


def show(
    timings: Sequence[Measurement], accuracy: Mapping[str, Evaluation], recommended: str | None, threads: int
) -> int:
    """Print table and verdict; return the exit status."""
    vendor = next(m for m in timings if m.artifact == VENDOR)
    ours = [m for m in timings if m is not vendor]
    fastest = min(ours, key=lambda m: m.median_ms)
    tied = {m.artifact for m in ours if m is fastest or not _told_apart(m, fastest)}
    table = Table(
        "INT8 file",
        "runtime",
        f"median ms, {threads} thread{'s' * (threads > 1)}",
        "times as fast",
        "lost, points",
        "agrees",
    )
    for m in timings:
        e, against = accuracy[m.artifact], speedup(vendor, m)
        lost = "" if e.top1_drop is None else f"{100 * e.top1_drop:+.2f}"
        times = "" if m is vendor else _ratio_text(against)
        table.add_row(m.artifact, m.runtime, f"{m.median_ms:.2f}", times, lost, f"{100 * (e.agreement or 0):.2f} %")
    Console(width=140).print(table)
    for m in timings:
        for warning in m.warnings:
            print(f"  {m.artifact}: {warning.text}")
    print(f"  edgenet run recommends {recommended}")

    faults = []
    if recommended not in tied:
        faults.append(f"fastest here is {fastest.artifact}, and `edgenet run` recommends {recommended}")
    mine, theirs = accuracy[fastest.artifact], accuracy[VENDOR]
    if mine.top1_drop is not None and theirs.top1_drop is not None and mine.top1_drop > theirs.top1_drop:
        worse = f"{fastest.artifact} loses {100 * mine.top1_drop:.2f} points, the vendor's {100 * theirs.top1_drop:.2f}"
        # A file that answers as float32 does cannot follow one that gained by luck: agreement decides then.
        if (mine.agreement or 0) < (theirs.agreement or 0):
            faults.append(worse)
        else:
            print(f"  {worse}; but it agrees with float32 on no fewer pictures")
    for fault in faults:
        print(f"  below the bar: {fault}")
    ratio = speedup(vendor, fastest)
    assert ratio is not None
    if ratio.ci98:
        print(f"  98 % interval of the ratio: {ratio.ci98[0]:.2f} to {ratio.ci98[1]:.2f}")
    print(f"int8_latency: {ratio.value:.2f} x")
    return 0 if ratio.value >= BAR and not faults else 1


def _told_apart(a: Measurement, b: Measurement) -> bool:
    ratio = speedup(a, b)
    return ratio is not None and ratio.told_apart


def _ratio_text(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    interval = f" ({ratio.ci98[0]:.2f} to {ratio.ci98[1]:.2f})" if ratio.ci98 else ""
    return f"{ratio.value:.2f}{interval}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", default="../shared/imagenet-mini")
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=int)
    args = parser.parse_args()
    source = find_source(args.model)
    images = open_images(args.images, source.class_ids, source.class_names)
    calibration, evaluation = split(images if args.limit is None else limit(images, args.limit), 100)
    pixels = load_pixels(calibration, source.preprocessing)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        results, recommended = run_edgenet(args.model, args.images, out, args.threads, args.limit)
        vendor = out / "vendor.tflite"
        with vendors.silence():
            pictures = normalise(pixels, source.preprocessing)
            vendors.tflite_converter(vendors.keras_model(args.model), "int8", pictures, vendor)
        files = {a.id: out / a.path for a in results.artifacts if a.precision == "int8"}
        assert len(files) == len(FORMATS), f"run wrote {', '.join(files)}"
        floating = out / next(a.path for a in results.artifacts if a.id.endswith("float32.tflite"))
        request = Request(args.threads, plan=Plan(max_rounds=20), pixels=pixels[0])
        timings, failures = bench([*files.items(), (VENDOR, vendor)], request)
        accuracy = evaluations({"float32": floating, **files, VENDOR: vendor}, evaluation, source.preprocessing)
    if failures:
        raise SystemExit(f"{failed(failures[0])} failed: {failures[0].why}")
    return show(timings, accuracy, recommended, args.threads)


if __name__ == "__main__":
    sys.exit(main())
