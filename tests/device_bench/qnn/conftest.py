"""Files of the tiny network for a Hexagon, and the device that compiles them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgenet.calibration import quantize
from edgenet.device_bench.qnn.device import Hexagon, open_device
from edgenet.export import Network, export_graph
from edgenet.images import load_pixels
from edgenet.results import Calibration, ImageSet


@pytest.fixture(scope="session")
def files(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The tiny network in int8 with uint8 input and output, and others; by format, precision and io."""
    out = tmp_path_factory.mktemp("hexagon")
    found = {}
    for format, precision, io in (
        ("tflite", "int8", "uint8"),
        ("onnx", "int8", "uint8"),
        ("tflite", "dynamic", "float32"),
        ("tflite", "int16x8", "float32"),
        ("onnx", "int16x8", "float32"),
        ("tflite", "int8", "int8"),
        ("onnx", "int8", "float32"),
    ):
        graph = quantize(tiny_network.graph, precision, tiny_calibration)
        folder = out / f"{precision}-{io}"
        folder.mkdir(exist_ok=True)
        artifact = export_graph(tiny_network, graph, folder, format=format, precision=precision, io=io)
        found[f"{format} {precision} {io}"] = folder / artifact.path
    return found


@pytest.fixture(scope="session")
def sm8750() -> Iterator[Hexagon]:
    """The device; what it compiled it keeps for the tests after."""
    with open_device("SM8750") as device:
        yield device


@pytest.fixture(scope="session")
def pixels(tiny_network: Network, tiny_images: tuple[ImageSet, ImageSet]) -> np.ndarray:
    """(30, 20, 20, 3) uint8."""
    return load_pixels(tiny_images[1], tiny_network.preprocessing)


@pytest.fixture(scope="session")
def compiled(files: dict[str, Path], sm8750: Hexagon, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The int8 .tflite compiled for SM8750. Read only."""
    return sm8750.compile(files["tflite int8 uint8"], tmp_path_factory.mktemp("compiled")).files[0]
