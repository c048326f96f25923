"""Fixtures: Lite0 with its weights, and files of it, calibrated once for all tests of this folder."""

from pathlib import Path

import pytest

from edgenet.calibration import SharedCalibration
from edgenet.errors import MissingDependency
from edgenet.export import Network, export_graph, find_source
from edgenet.images import imagenet_classes, limit, load_pixels, open_images, split
from edgenet.results import ImageSet
from helpers.fork_server import WITH_TENSORFLOW
from helpers.once import made_once
from helpers.places import IMAGENET_MINI

# name -> precision, type of the input and output
LITE0 = {"float32": ("float32", "float32"), "int8": ("int8", "float32"), "uint8": ("int8", "uint8")}


@pytest.fixture(scope="session")
def photographs() -> tuple[ImageSet, ImageSet]:
    """Photographs of ImageNet, 25 to calibrate with and 175 to measure on."""
    if not IMAGENET_MINI.is_dir():
        pytest.skip(f"no {IMAGENET_MINI.name} beside the project")
    return split(limit(open_images(IMAGENET_MINI, *imagenet_classes()), 200), 25)


@pytest.fixture(scope="session")
def lite0_network() -> Network:
    try:
        return find_source("efficientnet-lite0").network()
    except MissingDependency as e:
        pytest.skip(str(e))


@pytest.fixture(scope="session")
def lite0_files(
    lite0_network: Network, photographs: tuple[ImageSet, ImageSet], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The .tflite files of LITE0, int8 with all corrections. Read only."""

    def make(out: Path) -> None:
        pixels = load_pixels(photographs[0], lite0_network.preprocessing)
        shared = SharedCalibration(lite0_network, pixels, photographs[0].fingerprint)
        for name, (precision, io) in LITE0.items():
            graph, ranges = shared.quantized(precision), shared.calibration
            export_graph(
                lite0_network, graph, out / name, format="tflite", precision=precision, io=io, calibration=ranges
            )

    folder = made_once(tmp_path_factory, "lite0", make)
    return {name: next((folder / name).glob("*.tflite")) for name in LITE0}


@pytest.fixture
def forks_with_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The children that read models are forked with TensorFlow imported."""
    for name, value in WITH_TENSORFLOW.items():
        monkeypatch.setenv(name, value)
