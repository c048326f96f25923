"""EfficientNet-Lite0 in 8, 7 and 4 bits, before and after `edgenet qat`, in all formats, against the float network.

    .venv/bin/python benchmarks/qat_bits.py [--images DIR] [--bits 8,7,4] [--epochs N] [--train-images N] [--out DIR]

One `edgenet qat --format all` for each number of bits: 100 pictures calibrate, 300 train (a part of them decides which
epoch is kept), the rest measure; labels are not used to train. What stands beside it is the post-training file that a
user would ship instead, from the same calibration, measured on the same pictures in the same run. With 4 bits only
pointwise convolutions have 4. With --out DIR a run that was stopped goes on there.

R is the smallest of
    7 bits   (disagreement of the 8-bit TFLite file + half a point) / (disagreement of the 7-bit file), in ONNX and in
             OpenVINO: 7-bit weights are for x86 without VNNI, where no pair of them can saturate (see ptq_quality.py)
    4 bits   the part that training brought back of the agreement that the 4-bit TFLite file had lost against the 8-bit
             one, over one half
where all are files that the command returns, and a disagreement is at least half a picture. Bar: R >= 1.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from edgenet.calibration.qat import WEIGHT_BITS
from edgenet.results import Results
from edgenet.text import decibels, number, percent, points

SLACK, MOST = 0.005, 0.5  # of agreement; of what was lost


@dataclass(frozen=True)
class Row:
    """One format of one run. `after` is None where no epoch was better than the post-training file."""

    bits: int
    format: str
    kept: str
    before: dict[str, Any]
    after: dict[str, Any] | None
    best_epoch: int
    epochs: int
    seconds: float  # of the whole command, calibration and evaluation included

    @property
    def returned(self) -> dict[str, Any]:
        return self.after if self.kept == "qat" and self.after else self.before


def train(model: str, bits: int, options: Sequence[object], out: Path) -> list[Row]:
    """Run the command and return a row for each format."""
    start = time.perf_counter()
    command = [str(Path(sys.executable).with_name("edgenet")), "qat", model, "--format", "all", "--weight-bits",
               str(bits), *map(str, options), "--out", str(out)]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    told = Results.load(out).context["training"]
    return [
        Row(bits, f["format"], f["kept"], f["before"], f["after"], told["best_epoch"], len(told["curve"]) - 1, seconds)
        for f in told["files"]
    ]


def show(model: str, rows: Sequence[Row]) -> None:
    n = rows[0].before["n_images"]
    titles = ("bits", "format", "before", "trained", "points", "SQNR before", "trained", "returned", "best epoch", "s")
    table = Table(*titles, title=f"{model}: agreement with float on {n} pictures")
    for r in rows:
        after = r.after or {}
        change = None if r.after is None else r.after["agreement"] - r.before["agreement"]
        table.add_row(
            str(r.bits), r.format, percent(r.before["agreement"]), percent(after.get("agreement")), points(change),
            decibels(r.before["sqnr_db"]), decibels(after.get("sqnr_db")), r.kept, f"{r.best_epoch} of {r.epochs}",
            number(r.seconds, 0),
        )  # fmt: skip
    Console(width=120).print(table)


def ratios(rows: Sequence[Row]) -> dict[str, float]:
    """Return what R is the smallest of, by name; nothing without the 8-bit TFLite file."""
    by = {(r.bits, r.format): r for r in rows}
    base = by.get((8, "tflite"))
    if base is None:
        return {}
    least = 0.5 / base.before["n_images"]
    allowed = 1 - base.returned["agreement"] + SLACK
    found = {
        f"7 bits, {format}": allowed / max(1 - by[7, format].returned["agreement"], least)
        for format in ("onnx", "openvino")
        if (7, format) in by
    }
    if (4, "tflite") in by:
        four = by[4, "tflite"]
        lost = max(base.returned["agreement"] - four.before["agreement"], least)
        found["4 bits, tflite"] = (four.returned["agreement"] - four.before["agreement"]) / lost / MOST
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--images", default="../shared/imagenet-mini")
    parser.add_argument("--bits", default="8,7,4")
    parser.add_argument("--epochs", type=int, help="the command's own by default")
    parser.add_argument("--train-images", type=int, default=300)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--out", type=Path, help="a folder that stays; a temporary one by default")
    args = parser.parse_args()
    wanted = [int(b) for b in args.bits.split(",")]
    if unknown := set(wanted) - set(WEIGHT_BITS):
        parser.error(f"--bits {unknown.pop()}: valid are {', '.join(map(str, WEIGHT_BITS))}")
    options = ["--images", args.images, "--train-images", args.train_images, "--batch", args.batch]
    options += ["--epochs", args.epochs] if args.epochs else []
    with tempfile.TemporaryDirectory() as work:
        rows = [r for b in wanted for r in train(args.model, b, options, (args.out or Path(work)) / f"bits{b}")]
    show(args.model, rows)
    found = ratios(rows)
    for name, r in found.items():
        print(f"  {name}: {r:.2f}")
    smallest = min(found.values(), default=0.0)
    print(f"qat_bits: {smallest:.2f} x")
    return 0 if smallest >= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
