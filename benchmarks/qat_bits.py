"""EfficientNet-Lite0 in 8, 7 and 4 bits, before and after `edgenet qat`, in all formats, against the float network.

    .venv/bin/python benchmarks/qat_bits.py [--images DIR] [--bits 8,7,4] [--epochs N] [--train-images N] [--out DIR]

One `edgenet qat --format all` for each number of bits: 100 pictures calibrate, 300 train (a part of them decides which
epoch is kept), the rest measure; labels are not used to train. What stands beside it is the post-training file that a
user would ship instead, from the same calibration, measured on the same pictures in the same run. With 4 bits only
pointwise convolutions and the classifier have 4. With --out DIR a run that was stopped goes on there.

100 pictures cannot tell half a point, so every file is also shown six views of each (as in ptq_quality.py, three crops,
each also mirrored), and R is of those; the command itself has decided by the pictures which file it returns.

R is the smallest of
    7 bits   (disagreement of the 8-bit TFLite file + half a point) / (disagreement of the 7-bit file), in ONNX and in
             OpenVINO: 7-bit weights are for x86 without VNNI, where no pair of them can saturate (see ptq_quality.py)
    4 bits   the part that training brought back of the agreement that the 4-bit TFLite file had lost against the 8-bit
             one, over one half
where all are files that the command returns, and a disagreement is at least half a picture. Bar: R >= 1. The 4-bit
file that training starts from is edgenet's own, with all corrections; a line says what is left where each weight is
rounded to the nearest instead.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ptq_quality import N_CALIBRATION, answer, views
from rich.console import Console
from rich.table import Table

from edgenet.calibration import Recipe, SharedCalibration
from edgenet.calibration.gptq import gptq_weights
from edgenet.calibration.quantize import quantize
from edgenet.calibration.shared import rounding_of
from edgenet.calibration.training.qat import WEIGHT_BITS, bits_of, precision_of
from edgenet.export import FORMATS, Network, export_graph, find_source
from edgenet.images import divide, load_pixels, open_images, split
from edgenet.report.formatting import decibels, number, percent
from edgenet.results import ImageSet, Results
from edgenet.results.training import Score

SLACK, MOST = 0.005, 0.5  # of agreement; of what was lost


@dataclass(frozen=True)
class Views:
    """On how many of the `n` views a file agrees with float32, as a fraction."""

    n: int
    before: float
    after: float | None


@dataclass(frozen=True)
class Row:
    """One format of one run. `after` is None where no epoch was better than the post-training file."""

    bits: int
    format: str
    kept: str
    before: Score
    after: Score | None
    best_epoch: int
    epochs: int
    seconds: float  # of the whole command, calibration and evaluation included
    views: Views | None = None

    @property
    def returned(self) -> float:
        """Agreement on the views."""
        assert self.views is not None
        return self.views.after if self.kept == "qat" and self.views.after is not None else self.views.before


def train(model: str, bits: int, options: Sequence[object], out: Path) -> list[Row]:
    """Run the command and return a row for each format."""
    start = time.perf_counter()
    command = [str(Path(sys.executable).with_name("edgenet")), "qat", model, "--format", "all", "--weight-bits",
               str(bits), *map(str, options), "--out", str(out)]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    told = Results.load(out).context.training
    assert told is not None  # the command noted it
    return [
        Row(bits, f.format, f.kept, f.before or Score(), f.after, told.best_epoch, len(told.curve) - 1, seconds)
        for f in told.files
    ]


def pictures(model: str, images_dir: str, n_train: int) -> tuple[Network, ImageSet, np.ndarray]:
    """Return the float network, the pictures that calibrate, and the views of those that measure."""
    source = find_source(model)
    calibration, rest = split(open_images(images_dir, source.class_ids, source.class_names), N_CALIBRATION)
    return source.network(), calibration, views(divide(rest, n_train)[1], source.preprocessing)


def on_views(model: str, images_dir: str, n_train: int, out: Path, rows: Sequence[Row]) -> list[Row]:
    """Return the rows with what their files say of the views of the pictures that measured."""
    network, _, pixels = pictures(model, images_dir, n_train)
    told: dict[Path, np.ndarray] = {}

    def agreement(r: Row, kind: str) -> float:
        folder, suffix = out / f"bits{r.bits}", FORMATS[r.format].suffix
        for path in (
            floating := folder / f"{model}_float32.tflite",
            file := folder / kind / f"{model}_{precision_of(r.bits)}{suffix}",
        ):
            if path not in told:
                told[path] = answer(path, pixels, network).argmax(1)
        return float((told[file] == told[floating]).mean())

    return [
        replace(r, views=Views(len(pixels), agreement(r, "ptq"), None if r.after is None else agreement(r, "qat")))
        for r in rows
    ]


def rounded_to_nearest(model: str, images_dir: str, n_train: int, folder: Path) -> float:
    """Return the agreement on the views of the 4-bit TFLite file without a correction; `folder` has the float one."""
    network, calibration, pixels = pictures(model, images_dir, n_train)
    shared = SharedCalibration(network, load_pixels(calibration, network.preprocessing), recipe=Recipe(corrections=()))
    rounding = rounding_of(shared.recipe, bits_of(shared.graph, 4))  # without corrections
    weights = gptq_weights(shared.graph, shared.inputs(), shared.calibration, rounding, images=1)
    graph = quantize(shared.graph, "int4", shared.calibration, weights=weights)
    (folder / "nearest").mkdir(exist_ok=True)
    made = export_graph(
        network, graph, folder / "nearest", format="tflite", precision="int4", calibration=shared.calibration
    )
    file = folder / "nearest" / made.path
    told, floating = (answer(p, pixels, network).argmax(1) for p in (file, folder / f"{model}_float32.tflite"))
    return float((told == floating).mean())


def show(model: str, rows: Sequence[Row]) -> None:
    n, views = rows[0].before.n_images, rows[0].views
    assert views is not None
    titles = ("bits", "format", f"of {n} pictures", "trained", f"of {views.n} views", "trained")
    titles += ("SQNR before", "trained", "returned", "best epoch", "s")
    table = Table(*titles, title=f"{model}: agreement with float32")
    for r in rows:
        after = r.after or Score()
        assert r.views is not None
        table.add_row(
            str(r.bits), r.format, percent(r.before.agreement), percent(after.agreement),
            percent(r.views.before), percent(r.views.after), decibels(r.before.sqnr_db),
            decibels(after.sqnr_db), r.kept, f"{r.best_epoch} of {r.epochs}", number(r.seconds, 0),
        )  # fmt: skip
    Console(width=130).print(table)


def ratios(rows: Sequence[Row]) -> dict[str, float]:
    """Return what R is the smallest of, by name; nothing without the 8-bit TFLite file."""
    by = {(r.bits, r.format): r for r in rows}
    base = by.get((8, "tflite"))
    if base is None or base.views is None:
        return {}
    least = 0.5 / base.views.n
    allowed = 1 - base.returned + SLACK
    found = {
        f"7 bits, {format}": allowed / max(1 - by[7, format].returned, least)
        for format in ("onnx", "openvino")
        if (7, format) in by
    }
    four = by.get((4, "tflite"))
    if four is not None and four.views is not None:
        lost = max(base.returned - four.views.before, least)
        found["4 bits, tflite"] = (four.returned - four.views.before) / lost / MOST
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
        out = args.out or Path(work)
        rows = [r for b in wanted for r in train(args.model, b, options, out / f"bits{b}")]
        rows = on_views(args.model, args.images, args.train_images, out, rows)
        show(args.model, rows)
        if 4 in wanted:
            nearest = rounded_to_nearest(args.model, args.images, args.train_images, out / "bits4")
            print(f"4 bits, each weight rounded to the nearest: {percent(nearest)} of the views")
    found = ratios(rows)
    for name, r in found.items():
        print(f"  {name}: {r:.2f}")
    smallest = min(found.values(), default=0.0)
    print(f"qat_bits: {smallest:.2f} x")
    return 0 if smallest >= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
