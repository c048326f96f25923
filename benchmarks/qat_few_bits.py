"""4-bit weights of a finetuned network: post-training beside `edgenet qat --weight-bits 4`, on pictures with labels.

    .venv/bin/python benchmarks/qat_few_bits.py --out DIR [--model FILE] [--images DIR] [--images-test DIR] [--epochs N]

Without --model, EfficientNet-Lite0 is finetuned first, as `edgenet finetune --time 6m` does. What a user would ship
without training is the file of `edgenet export --precision int4`: it is made and measured in the same run, on the same
pictures as the float network, its int8 file and what `qat` trained. A run that was stopped goes on in DIR.

R is the smallest of: the part of the accuracy that 4 bits lost which training brought back, over one half; and 1.5
points over the points that the trained file is below float (0.1 at least). Bar: R >= 1.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from edgenet.report.formatting import megabytes, percent
from edgenet.results import Results

HALF, POINTS, LEAST = 0.5, 0.015, 0.001


def edgenet(*asked: object) -> str:
    """Run a command and return what it printed."""
    command = [str(Path(sys.executable).with_name("edgenet")), *map(str, asked)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@dataclass(frozen=True)
class Row:
    """A file, on the pictures that measure."""

    id: str
    format: str
    top1: float
    agreement: float  # with float
    size_bytes: int


def post_training(model: Path, photos: Sequence[str], test: str, out: Path) -> list[Row]:
    """Export float32, int8 and int4 in all formats, measure them, and return a row for each."""
    precisions = [word for p in ("float32", "int8", "int4") for word in ("--precision", p)]
    edgenet("export", model, *photos, *precisions, "--format", "all", "--out", out)
    made = Results.load(out).artifacts
    paths = {str(out / a.path): a for a in made}
    floating = next(path for path, a in paths.items() if a.precision == "float32")
    told = json.loads(edgenet("evaluate", *paths, "--images", test, "--reference", floating, "--json"))
    return [
        Row(paths[e["artifact"]].id, paths[e["artifact"]].format, e["top1"], e["agreement"] or 1.0,
            paths[e["artifact"]].size_bytes)
        for e in told["evaluations"]
    ]  # fmt: skip


def trained_files(out: Path) -> list[Row]:
    """Return a row for each file that `edgenet qat` returned."""
    results = Results.load(out)
    by_id = {e.artifact: e for e in results.evaluations}
    return [
        Row(a.id, a.format, e.top1 or 0.0, e.agreement or 1.0, a.size_bytes)
        for a in results.artifacts
        if a.precision == "int4" and "/" not in a.path and (e := by_id.get(a.id))
    ]


def show(rows: Sequence[Row]) -> None:
    table = Table("file", "top-1", "agreement with float", "size")
    for r in rows:
        table.add_row(r.id, percent(r.top1), percent(r.agreement), megabytes(r.size_bytes))
    Console(width=110).print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="a finetuned network; one is made by default")
    parser.add_argument("--images", default="../shared/flowers102/train")
    parser.add_argument("--images-test", default="../shared/flowers102/test")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--views", type=int, default=3)
    args = parser.parse_args()
    photos = ("--images", args.images, "--images-test", args.images_test)
    model = args.model or args.out / "finetuned" / "efficientnet-lite0-finetuned.tflite"
    if not model.exists():
        edgenet("finetune", "efficientnet-lite0", *photos, "--time", "6m", "--out", args.out / "finetuned")
    started = time.perf_counter()
    before = post_training(model, photos, args.images_test, args.out / "post-training")
    print(f"post-training, three formats: {time.perf_counter() - started:.0f} s")
    started, out = time.perf_counter(), args.out / "trained"
    edgenet(
        "qat", model, *photos, "--weight-bits", 4, "--layers", "top", "--labels-weight", 0.3, "--epochs", args.epochs,
        "--views", args.views, "--format", "all", "--out", out,
    )  # fmt: skip
    print(f"qat: {time.perf_counter() - started:.0f} s")
    after = trained_files(out)
    show([*before, *after])
    floating = next(r.top1 for r in before if "_float32" in r.id)
    found = {}
    for r in after:
        post = next(b.top1 for b in before if b.format == r.format and "_int4" in b.id)
        found[f"{r.format}, won back"] = (r.top1 - post) / max(floating - post, LEAST) / HALF
        found[f"{r.format}, near float"] = POINTS / max(floating - r.top1, LEAST)
    for name, r in found.items():
        print(f"  {name}: {r:.2f}")
    smallest = min(found.values())
    print(f"qat_few_bits: {smallest:.2f} x")
    return 0 if smallest >= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
