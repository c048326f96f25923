#!/usr/bin/env python3
"""Classify photographs with {{ rknn }} on a board with a {{ chip }}, or prove that it answers as it did before.

    python3 classify.py PHOTO.jpg [PHOTO.jpg ...]     the five likeliest classes of each
    python3 classify.py --verify                      the golden pictures; exit status 1 where an answer is another one

It needs NumPy, Pillow and rknn-toolkit-lite2, Rockchip's Python runtime for boards with Linux.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
ROWS, COLUMNS, CHANNELS = {{ rows }}, {{ columns }}, {{ channels }}
CROP_PADDING = {{ crop_padding }}  # the middle that is seen: side / (side + this) of the short side
ORDER = "{{ order }}"
RESAMPLING = Image.Resampling.{{ resampling }}


class Classifier:
    """The compiled network on the NPU."""

    def __init__(self):
        from rknnlite.api import RKNNLite

        self._rknn = RKNNLite()
        if self._rknn.load_rknn(str(HERE / "{{ rknn }}")) != 0 or self._rknn.init_runtime() != 0:
            sys.exit("{{ rknn }} does not load: it is compiled for a {{ chip }}, and needs its NPU driver")

    def scores(self, pixels):
        """Return the scores, (classes,) float32, of (ROWS, COLUMNS, CHANNELS) uint8 pixels."""
        # The network's input is the pixel minus 128 as int8. Passed through as it is: as uint8 the runtime would take
        # it for a number from 0 to 255 and quantize it once more.
        x = (pixels ^ np.uint8(128)).view(np.int8)[None]
        (y,) = self._rknn.inference(inputs=[np.ascontiguousarray(x)], data_format=["nhwc"], inputs_pass_through=[1])
        return np.asarray(y, np.float32).reshape(-1)

    def close(self):
        self._rknn.release()


def read(path):
    """Return a photograph as the network sees it: its middle, resized."""
    picture = Image.open(path).convert("L" if CHANNELS == 1 else "RGB")
    short = min(picture.height * COLUMNS, picture.width * ROWS)  # of the largest crop of the input's shape
    side = min(ROWS, COLUMNS) / (min(ROWS, COLUMNS) + CROP_PADDING)
    height, width = int(short * side / COLUMNS), int(short * side / ROWS)
    top, left = (picture.height - height + 1) // 2, (picture.width - width + 1) // 2
    picture = picture.crop((left, top, left + width, top + height)).resize((COLUMNS, ROWS), RESAMPLING)
    pixels = np.asarray(picture, np.uint8).reshape(ROWS, COLUMNS, CHANNELS)
    return np.ascontiguousarray(pixels[..., ::-1]) if ORDER == "bgr" else pixels


def verify(classifier):
    """Return how many golden pictures get another answer."""
    golden = json.loads((HERE / "golden" / "golden.json").read_text(encoding="utf-8"))
    wrong = 0
    for case in golden["cases"]:
        pixels = np.fromfile(HERE / "golden" / case["pixels"], np.uint8).reshape(ROWS, COLUMNS, CHANNELS)
        there = classifier.scores(pixels)
        before = np.fromfile(HERE / "golden" / case["scores"], "<f4")
        apart = float(np.abs(there - before).max()) if there.shape == before.shape else float("inf")
        ok = apart <= golden["tolerance"] and int(there.argmax()) == case["top1"]
        wrong += not ok
        print(f"{'ok' if ok else 'FAILED':6} {case['photograph']}: a score differs by {apart:.4f} at most, "
              f"allowed {golden['tolerance']:g}")
    return wrong


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    classifier = Classifier()
    labels = (HERE / "labels.txt").read_text(encoding="utf-8").splitlines()
    try:
        if sys.argv[1:] == ["--verify"]:
            sys.exit(1 if verify(classifier) else 0)
        for path in sys.argv[1:]:
            scores = classifier.scores(read(path))
            for i in scores.argsort()[::-1][:5]:
                print(f"{path}: {labels[i]} {scores[i]:.3f}")
    finally:
        classifier.close()


if __name__ == "__main__":
    main()
