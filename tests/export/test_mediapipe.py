"""Android's own way in: MediaPipe Tasks' ImageClassifier loads our files and gives our answers."""

from pathlib import Path

import numpy as np
import pytest

from edgenet.export import Network
from edgenet.export.runtime import load
from edgenet.images import limit, load_pixels, normalise
from edgenet.results import ImageSet


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_image_classifier_gives_our_top_1_by_name_on_25_photographs(
    lite0_network: Network, lite0_files: dict[str, Path], photographs: tuple[ImageSet, ImageSet]
) -> None:
    mediapipe = pytest.importorskip("mediapipe")
    from mediapipe.tasks.python import BaseOptions, vision

    # A wrong scale, layout or label moves most of 25 answers, as it would most of 100.
    how = lite0_network.preprocessing
    pixels = load_pixels(limit(photographs[1], 25), how)  # (25, 224, 224, 3) uint8, cropped to the input
    for name, path in lite0_files.items():
        batch = pixels if name == "uint8" else normalise(pixels, how)
        ours = [lite0_network.class_names[i] for i in load(str(path), threads=2).predict(batch).argmax(axis=1)]
        options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=str(path)), max_results=1)
        with vision.ImageClassifier.create_from_options(options) as classifier:
            theirs = [
                classifier.classify(mediapipe.Image(mediapipe.ImageFormat.SRGB, np.ascontiguousarray(p)))
                .classifications[0]
                .categories[0]
                .category_name
                for p in pixels
            ]
        same = sum(a == b for a, b in zip(ours, theirs, strict=True))
        assert same == 25, f"{name}: {same} of 25"
