"""What each correction of post-training quantization brings, beside plain int8: rows of docs/quantization.md.

    .venv/bin/python benchmarks/ptq_ablation.py [--models lite0,lite2] [--images DIR] [--limit N]

100 pictures of the folder calibrate; the rest measure, each in the six views of ptq_quality.py. INT8 TFLite files,
against float32. R is the smallest of (views on which the file without corrections disagrees with float32) / (those on
which the one with all of them does). Bar: R > 1.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import vendors
from ptq_quality import N_CALIBRATION, Made, answer, measure, views
from rich.console import Console
from rich.table import Table

from edgenet.calibration import CORRECTIONS, Recipe, SharedCalibration
from edgenet.export import export_graph, find_source
from edgenet.images import limit, load_pixels, open_images, split

ROWS = (
    (),
    ("bias-correction",),
    ("feedback", "bias-correction"),
    ("reconstruction", "feedback", "bias-correction"),
    ("equalization", "reconstruction", "feedback", "bias-correction"),
    CORRECTIONS,
)


def run(model: str, images_dir: str, n: int | None) -> float:
    """Measure one model, print its table, return the ratio."""
    source = find_source(model)
    images = open_images(images_dir, source.class_ids, source.class_names)
    calibration, evaluation = split(images if n is None else limit(images, n), N_CALIBRATION)
    calibrating, pixels = load_pixels(calibration, source.preprocessing), views(evaluation, source.preprocessing)
    labels = np.array([-1 if label is None else label for label in evaluation.labels])
    labels = np.tile(labels, len(pixels) // len(labels))
    with vendors.silence():
        network = source.network()
    table = Table(
        "corrections", "agrees", "differs on", "lost, points", "SQNR, dB", title=f"{model}, {len(pixels)} views"
    )
    differs = []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        plain = export_graph(network, network.graph, out, format="tflite", precision="float32")
        reference = answer(out / plain.path, pixels, network)
        for corrections in ROWS:
            shared = SharedCalibration(network, calibrating, calibration.fingerprint, Recipe(corrections=corrections))
            graph, numbers = shared.quantized("int8"), shared.calibration
            made = export_graph(network, graph, out, format="tflite", precision="int8", calibration=numbers)
            path = out / made.path
            m = measure(Made("edgenet", 8, "tflite", path, 0), answer(path, pixels, network), reference, labels)
            differs.append(m.differs_on)
            name = "all" if corrections == CORRECTIONS else ", ".join(corrections) or "none"
            lost = "" if m.drop is None else f"{100 * m.drop:+.2f}"
            table.add_row(name, f"{100 * m.agreement:.2f} %", str(m.differs_on), lost, f"{m.sqnr_db:.1f}")
    Console(width=130).print(table)
    return differs[0] / max(differs[-1], 0.5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="lite0,lite2")
    parser.add_argument("--images", default="../shared/imagenet-mini")
    parser.add_argument("--limit", type=int)
    args = parser.parse_args()
    names = [n if n.startswith("efficientnet") else f"efficientnet-{n}" for n in args.models.split(",")]
    smallest = min(run(name, args.images, args.limit) for name in names)
    print(f"ptq_ablation: {smallest:.2f} x")
    return 0 if smallest > 1 else 1


if __name__ == "__main__":
    sys.exit(main())
