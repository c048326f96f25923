"""Five precisions of EfficientNet-Lite0: one `edgenet export` against five calls of TFLiteConverter.from_keras_model.

    .venv/bin/python benchmarks/export_time.py --images photos/ [--model efficientnet-lite0]

edgenet's time is of the whole command, from the start of the process: loading TensorFlow, building, calibrating with
100 pictures, writing five files. TFLiteConverter's is of its five calls alone, on the training form, with the same 100
pictures; its process, TensorFlow and the network are loaded before the clock starts. Bar: at most a fifth.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

PRECISIONS = ("float32", "float16", "dynamic", "int8", "int16x8")
BAR = 5.0


def vendor_seconds(model_name: str, images: str) -> dict[str, float]:
    """Return the seconds that each call of the converter takes."""
    from edgenet.frameworks import quiet, tensorflow
    from edgenet.images import Preprocessing, imagenet_classes, load_pixels, normalise, open_images, split
    from edgenet.models import weights, zoo
    from edgenet.models.efficientnet import build, set_weights

    tf = tensorflow()
    spec = zoo.spec(model_name)
    model = build(spec)
    set_weights(model, weights.load(spec).arrays)
    preprocessing = Preprocessing(spec.resolution_px, spec.mean, spec.std)
    pixels = load_pixels(split(open_images(images, *imagenet_classes()), 100)[0], preprocessing)
    print(f"  both calibrate with the same {len(pixels)} pictures", flush=True)

    def representative_dataset() -> Iterator[list[Any]]:
        for p in pixels:
            yield [normalise(p[None], preprocessing)]

    def int8(c: Any) -> None:
        c.optimizations, c.representative_dataset = [tf.lite.Optimize.DEFAULT], representative_dataset
        c.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]

    def int16x8(c: Any) -> None:
        c.optimizations, c.representative_dataset = [tf.lite.Optimize.DEFAULT], representative_dataset
        c.target_spec.supported_ops = [tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8]

    def float16(c: Any) -> None:
        c.optimizations, c.target_spec.supported_types = [tf.lite.Optimize.DEFAULT], [tf.float16]

    def dynamic(c: Any) -> None:
        c.optimizations = [tf.lite.Optimize.DEFAULT]

    settings: dict[str, Callable[[Any], None]] = {
        "float32": lambda c: None, "float16": float16, "dynamic": dynamic, "int8": int8, "int16x8": int16x8
    }  # fmt: skip
    seconds = {}
    for precision in PRECISIONS:
        start = time.perf_counter()
        with quiet():
            converter = tf.lite.TFLiteConverter.from_keras_model(model)
            settings[precision](converter)
            converter.convert()
        seconds[precision] = time.perf_counter() - start
        print(f"  TFLiteConverter {precision}: {seconds[precision]:.1f} s", flush=True)
    return seconds


def edgenet_seconds(model_name: str, images: str) -> float:
    """Return the seconds of one command that writes all five."""
    with tempfile.TemporaryDirectory() as out:
        command = [
            str(Path(sys.executable).with_name("edgenet")),
            "export",
            model_name,
            "--images",
            images,
            "--out",
            out,
        ]
        for precision in PRECISIONS:
            command += ["--precision", precision]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.perf_counter() - start
        assert len(list(Path(out).glob("*.tflite"))) == len(PRECISIONS)
        return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", default="sample")
    parser.add_argument("--model", default="efficientnet-lite0")
    args = parser.parse_args()
    ours = edgenet_seconds(args.model, args.images)
    print(f"  edgenet, all five: {ours:.1f} s", flush=True)
    theirs = vendor_seconds(args.model, args.images)
    ours_again = edgenet_seconds(args.model, args.images)
    table = Table("what", *PRECISIONS, "all five, s")
    table.add_row(
        "TFLiteConverter.from_keras_model", *(f"{theirs[p]:.1f}" for p in PRECISIONS), f"{sum(theirs.values()):.1f}"
    )
    table.add_row("edgenet export (before, after)", *("" for _ in PRECISIONS), f"{ours:.1f}, {ours_again:.1f}")
    Console(width=120).print(table)
    ratio = sum(theirs.values()) / max(ours, ours_again)
    print(f"export_time: {ratio:.1f} x")
    return 0 if ratio >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
