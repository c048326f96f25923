"""Android's own way in: MediaPipe Tasks' ImageClassifier loads our files and gives our answers."""

from pathlib import Path

import numpy as np
import pytest

from edgenet.calibration import SharedCalibration
from edgenet.errors import MissingDependency
from edgenet.export import export_graph, find_source
from edgenet.export.runtime import load
from edgenet.images import imagenet_classes, limit, load_pixels, normalise, open_images, split
from helpers.places import IMAGENET_MINI

CASES = (("float32", "float32"), ("int8", "float32"), ("int8", "uint8"))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(not IMAGENET_MINI.exists(), reason="needs the photographs beside the project")
def test_image_classifier_gives_our_top_1_by_name_on_25_photographs(tmp_path: Path) -> None:
    mediapipe = pytest.importorskip("mediapipe")
    from mediapipe.tasks.python import BaseOptions, vision

    try:
        source = find_source("efficientnet-lite0")
    except MissingDependency as e:
        pytest.skip(str(e))
    network = source.network()
    calibration_images, rest = split(open_images(IMAGENET_MINI, *imagenet_classes()), 25)
    shared = SharedCalibration(network, load_pixels(calibration_images, network.preprocessing))
    # A wrong scale, layout or label moves most of 25 answers, as it would most of 100.
    pixels = load_pixels(limit(rest, 25), network.preprocessing)  # (25, 224, 224, 3) uint8, cropped to the input
    for precision, io in CASES:
        graph = shared.quantized(precision)
        artifact = export_graph(network, graph, tmp_path / io, format="tflite", precision=precision, io=io)
        path = tmp_path / io / artifact.path
        batch = pixels if io == "uint8" else normalise(pixels, network.preprocessing)
        ours = [network.class_names[i] for i in load(str(path), threads=2).predict(batch).argmax(axis=1)]
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
        assert same == 25, f"{precision}, {io}: {same} of 25"
