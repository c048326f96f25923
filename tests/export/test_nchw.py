"""onnx.py and openvino.py: what must hold of both, as both turn TFLite's layout."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from edgenet.calibration import Recipe, SharedCalibration
from edgenet.errors import InputError
from edgenet.export import IO_DTYPES, Network, onnx, openvino, runtime
from edgenet.export.inspect import inspect
from edgenet.images import limit, load_pixels, normalise
from edgenet.results import Calibration, ImageSet
from helpers import operators, tiny
from helpers.nchw_files import ABOUT, EXACT_BITS, quantized, run, tflite_result, written
from helpers.nchw_files import pictures as pictures
from helpers.nchw_files import pixels as pixels

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


class Format(NamedTuple):
    """`tolerance`: the largest difference of a probability from the TFLite file's of the same graph, by precision.

    onnxruntime keeps to the integers, but a number on the border between two steps may be rounded to the other, and
    dynamic activations are rounded otherwise. OpenVINO rescales in float32 before it rounds.
    """

    name: str
    write: Callable[..., Path]
    suffix: str
    tolerance: dict[str, float]
    io_tolerance: float


EXACT = {"float32": 1e-5, "float16": 1e-5, "weight-only": 1e-5, "int16x8": 2e-3}
BOTH = (
    Format("onnx", onnx.to_onnx, ".onnx", EXACT | {"dynamic": 0.06, "int8": 0.01, "int4": 0.01}, 1 / 256),
    Format("openvino", openvino.to_openvino, ".xml", EXACT | {"int8": 0.05, "int4": 0.05}, 1 / 256 + 0.01),
)
PRECISIONS = [pytest.param(f, p, id=f"{f.name}-{p}") for f in BOTH for p in f.tolerance]
in_both = pytest.mark.parametrize("format", BOTH, ids=lambda f: f.name)


def test_every_precision_of_both_is_tested() -> None:
    assert [set(f.tolerance) for f in BOTH] == [set(onnx.PRECISIONS), set(openvino.PRECISIONS)]


@in_both
@pytest.mark.parametrize("case", operators.CASES)
def test_an_operator_computes_what_tflite_does(
    case: str, format: Format, tiny_network: Network, pictures: np.ndarray, tmp_path: Path
) -> None:
    graph = operators.CASES[case]
    expected = tflite_result(graph, pictures)
    y = run(format.write(tiny_network, graph, tmp_path / f"one{format.suffix}", ABOUT), pictures)
    assert y.shape == expected.shape
    assert np.abs(y - expected).max() <= 2e-5 * max(1, np.abs(expected).max())


@pytest.mark.parametrize(("format", "precision"), PRECISIONS)
def test_every_precision_computes_what_the_tflite_file_of_the_same_graph_does(
    format: Format,
    precision: str,
    tiny_network: Network,
    tiny_calibration: Calibration,
    tmp_path: Path,
    pixels: np.ndarray,
) -> None:
    x = normalise(pixels, tiny.PREPROCESSING)
    y, z = (
        runtime.load(tmp_path / written(tiny_network, tiny_calibration, tmp_path, precision, name).path).predict(x)
        for name in (format.name, "tflite")
    )
    assert y.shape == (30, tiny.CLASSES)
    assert np.abs(y - z).max() <= format.tolerance[precision]


@in_both
@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("io", IO_DTYPES)
def test_a_file_takes_and_gives_what_it_says(
    io: str,
    precision: str,
    format: Format,
    tiny_network: Network,
    tiny_calibration: Calibration,
    tmp_path: Path,
    pixels: np.ndarray,
) -> None:
    a = written(tiny_network, tiny_calibration, tmp_path, precision, format.name, io=io)
    b = written(tiny_network, tiny_calibration, tmp_path / "float", precision, format.name)
    inputs, outputs = [("image", io, (1, 3, tiny.PX, tiny.PX))], [("probabilities", io, (1, tiny.CLASSES))]
    for found in (a, inspect(tmp_path / a.path)):
        assert [(t.name, t.dtype, t.shape) for t in found.inputs] == inputs
        assert [(t.name, t.dtype, t.shape) for t in found.outputs] == outputs
    model = runtime.load(tmp_path / a.path)
    assert (model.io_dtype, model.output.dtype, model.output.name) == (io, io, "probabilities")
    y = model.predict(normalise(pixels, tiny.PREPROCESSING) if io == "float32" else pixels)
    z = runtime.load(tmp_path / "float" / b.path).predict(normalise(pixels, tiny.PREPROCESSING))
    assert np.abs(y - z).max() <= (1e-6 if io == "float32" else format.io_tolerance)


@pytest.mark.parametrize(("format", "precision"), PRECISIONS)
def test_the_same_graph_gives_the_same_bytes(
    format: Format, precision: str, tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    a = written(tiny_network, tiny_calibration, tmp_path / "a", precision, format.name)
    b = written(tiny_network, tiny_calibration, tmp_path / "b", precision, format.name)
    assert a.sha256 == b.sha256
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert files
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@in_both
def test_an_operator_without_a_form_is_named_with_what_holds_it(
    format: Format, tiny_network: Network, tmp_path: Path
) -> None:
    graph = operators.CASES["a sigmoid"]
    odd = replace(graph, ops=(*graph.ops[:-1], replace(graph.ops[-1], kind="REVERSE_V2")))
    with pytest.raises(InputError, match=r"REVERSE_V2 .*use the format tflite"):
        format.write(tiny_network, odd, tmp_path / f"x{format.suffix}", ABOUT)
    assert list(tmp_path.iterdir()) == []


@in_both
def test_logits_that_only_a_float_softmax_reads_are_not_rounded(
    format: Format, tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path, pixels: np.ndarray
) -> None:
    graph = quantized(tiny_network.graph, "int8", tiny_calibration)
    q = graph.tensors["logits"].quantization
    assert q is not None
    graph, x = graph.with_outputs(["logits_float32"]), normalise(pixels, tiny.PREPROCESSING)
    rounded = tflite_result(graph, x) / q.scale[0]
    y = run(format.write(tiny_network, graph, tmp_path / f"a{format.suffix}", ABOUT), x) / q.scale[0]
    assert np.abs(rounded - np.rint(rounded)).max() < 1e-3  # TFLite's kernel gives 8 bits
    assert np.abs(y - np.rint(y)).max() > 0.4
    assert np.sqrt(np.mean((y - rounded) ** 2)) < 2


@pytest.fixture(scope="module")
def lite0(
    lite0_network: Network, photographs: tuple[ImageSet, ImageSet], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Network, Calibration, np.ndarray, np.ndarray]:
    """Lite0, its ranges, a hundred photographs (100, 224, 224, 3), and the float file's answers (100, 1000)."""
    out, network, how = tmp_path_factory.mktemp("lite0"), lite0_network, lite0_network.preprocessing
    calibration = SharedCalibration(
        network, load_pixels(photographs[0], how), recipe=Recipe(corrections=())
    ).calibration
    x = normalise(load_pixels(limit(photographs[1], 100), how), how)
    reference = runtime.load(out / written(network, calibration, out, "float32", "tflite").path, 2).predict(x)
    return network, calibration, x, reference


@pytest.mark.slow
@in_both
def test_lite0_in_int8_agrees_with_the_float_network_on_photographs(
    format: Format, lite0: tuple[Network, Calibration, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    network, calibration, x, reference = lite0
    file = written(network, calibration, tmp_path, "int8", format.name, bits=EXACT_BITS)
    y = runtime.load(tmp_path / file.path, 2).predict(x)
    assert (y.argmax(axis=1) == reference.argmax(axis=1)).mean() >= (0.975 if EXACT_BITS == 8 else 0.95)
