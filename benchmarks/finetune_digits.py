"""EfficientNet-Lite0 fine-tuned on scikit-learn's 1,797 handwritten digits, then its INT8 form trained.

    .venv/bin/python benchmarks/finetune_digits.py [--out DIR]

The held-out fifth measures. Bars: 97 % in at most 5 minutes; INT8 loses at most 0.5 points. There is no other tool
beside it: the comparison is with the float network, and with the file that post-training quantization gives.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from edgenet.report.formatting import points
from edgenet.results import Results

TOP1_BAR, SECONDS_BAR, DROP_BAR_POINTS = 0.97, 300.0, 0.5
PX = 96


def write_digits(root: Path) -> None:
    """Write the digits as class folders of 64 x 64 pictures."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for i, (x, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = root / f"digit_{label}"
        folder.mkdir(parents=True, exist_ok=True)
        big = Image.fromarray(np.uint8(np.clip(x * 16, 0, 255))).resize((64, 64), Image.Resampling.BICUBIC)
        big.convert("RGB").save(folder / f"{i}.png")


def edgenet(*arguments: object) -> float:
    """Run a command and return its seconds."""
    start = time.perf_counter()
    subprocess.run([str(Path(sys.executable).with_name("edgenet")), *map(str, arguments)], check=True)
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="Keep what is made in this folder.")
    out = parser.parse_args().out
    with contextlib.nullcontext(out) if out else tempfile.TemporaryDirectory() as work:
        digits, tuned, trained = (Path(work) / name for name in ("digits", "tuned", "trained"))
        write_digits(digits)
        seconds = edgenet(
            "finetune", "efficientnet-lite0", "--images", digits, "--out", tuned,
            "--resolution", PX, "--augment", "crop",
        )  # fmt: skip
        top1 = Results.load(tuned).evaluations[0].top1 or 0.0
        print(f"finetune: {100 * top1:.1f} % on the held-out fifth, {seconds:.0f} s", flush=True)
        qat_seconds = edgenet(
            "qat", tuned / "efficientnet-lite0-finetuned.tflite", "--images", digits, "--out", trained,
            "--epochs", 6, "--learning-rate", 0.002, "--train-images", 1000, "--augment", "crop",
        )  # fmt: skip
        evaluations = {e.artifact: e for e in Results.load(trained).evaluations}
        for e in evaluations.values():
            print(
                f"  {e.artifact}: {100 * (e.top1 or 0):.1f} %, lost {points(e.top1_drop)} points, {qat_seconds:.0f} s"
            )
        drop = evaluations["efficientnet-lite0-finetuned_int8.tflite"].top1_drop
    met = top1 >= TOP1_BAR and seconds <= SECONDS_BAR and drop is not None and 100 * drop <= DROP_BAR_POINTS
    print(f"finetune_digits: {100 * top1:.1f} %")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
