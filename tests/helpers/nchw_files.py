"""What the tests of .onnx files and of OpenVINO's share: writing one, running one, pictures for it.

A test file imports the fixtures by name (`from nchw_files import pixels as pixels`).
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet.calibration import quantize
from edgenet.calibration.execute import Executor
from edgenet.calibration.quantize import layer_bits, round_weights
from edgenet.export import Network, export_graph
from edgenet.export.graph import Graph
from edgenet.images import load_pixels
from edgenet.results import Artifact, Calibration, ImageSet
from edgenet.targets import target, weight_bits
from helpers import operators, tiny

ABOUT = {"edgenet_version": "0"}
# Sums of products saturate in OpenVINO and onnxruntime on x86 without VNNI unless weights have 7 bits; not in TFLite.
EXACT_BITS = weight_bits(target("auto"), "onnx")


def quantized(graph: Graph, precision: str, calibration: Calibration | None = None, bits: int = EXACT_BITS) -> Graph:
    """Return `graph` with integers that all runtimes add alike on this machine."""
    own = layer_bits(graph, bits) if precision == "int4" else bits
    return quantize(graph, precision, calibration, weights=round_weights(graph, own))


def written(
    network: Network, calibration: Calibration, out: Path, precision: str, format: str, io: str = "float32",
    bits: int = 8,
) -> Artifact:  # fmt: skip
    graph = quantized(network.graph, precision, calibration, bits)
    return export_graph(network, graph, out, format=format, precision=precision, io=io, calibration=calibration)


def session(path: Path, optimized: Path | None = None) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def compiled(path: Path) -> Any:
    import openvino as ov

    return ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def run(path: Path, x: np.ndarray) -> np.ndarray:
    """Return the first output of a file for NHWC pictures, one at a time, in TFLite's layout."""
    pictures = [a[None].transpose(0, 3, 1, 2) for a in x]
    if path.suffix == ".onnx":
        s = session(path)
        y = np.concatenate([s.run(None, {"image": a})[0] for a in pictures])
    else:
        model = compiled(path)
        y = np.concatenate([model(a)[0].copy() for a in pictures])
    return y.transpose(0, 2, 3, 1) if y.ndim == 4 else y


def tflite_result(graph: Graph, x: np.ndarray) -> np.ndarray:
    execute = Executor(graph, graph.outputs, 1)
    return np.concatenate([execute(a[None])[0] for a in x])


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(4, *operators.SHAPE[1:])).astype(np.float32)


@pytest.fixture(scope="module")
def pixels(tiny_images: tuple[ImageSet, ImageSet]) -> np.ndarray:
    return load_pixels(tiny_images[1], tiny.PREPROCESSING)
