"""onnx.py: every operator computes what TFLite does, and the integers, scales and zero points are the graph's own."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import operators
import pytest
import tiny

from edgenet.calibration import Recipe, SharedCalibration, measure_ranges, quantize
from edgenet.calibration.execute import Executor
from edgenet.errors import InputError
from edgenet.export import IO_DTYPES, Network, export_graph, find_source, runtime
from edgenet.export.graph import Graph
from edgenet.export.inspect import inspect
from edgenet.export.onnx import BESIDE, PRECISIONS, to_onnx
from edgenet.images import load_pixels, normalise, open_images, split
from edgenet.results import Artifact, Calibration, ImageSet, sha256_of

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

ABOUT = {"edgenet_version": "0"}
IMAGENET_MINI = Path(__file__).parents[2] / "shared" / "imagenet-mini"
# Largest difference of a probability from the TFLite file's of the same graph. Integers and scales are the same, but a
# number on the border between two steps may be rounded to the other. Dynamic activations are rounded otherwise.
TOLERANCE = {"float32": 1e-5, "float16": 1e-5, "weight-only": 1e-5, "dynamic": 0.06, "int8": 0.01, "int16x8": 2e-3}


def written(
    network: Network, calibration: Calibration, out: Path, precision: str, format: str = "onnx", io: str = "float32"
) -> Artifact:
    graph = quantize(network.graph, precision, calibration)
    return export_graph(network, graph, out, format=format, precision=precision, io=io, calibration=calibration)


def session(path: Path, optimized: Path | None = None) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(path: Path, x: np.ndarray) -> np.ndarray:
    """Return the first output of a file for NHWC pictures, one at a time, in TFLite's layout."""
    s = session(path)
    y = np.concatenate([s.run(None, {"image": a[None].transpose(0, 3, 1, 2)})[0] for a in x])
    return y.transpose(0, 2, 3, 1) if y.ndim == 4 else y


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(4, *operators.SHAPE[1:])).astype(np.float32)


@pytest.fixture(scope="module")
def pixels(tiny_images: tuple[ImageSet, ImageSet]) -> np.ndarray:
    return load_pixels(tiny_images[1], tiny.PREPROCESSING)


def tflite_result(graph: Graph, x: np.ndarray) -> np.ndarray:
    execute = Executor(graph, graph.outputs, 1)
    return np.concatenate([execute(a[None])[0] for a in x])


@pytest.mark.parametrize("case", operators.CASES)
def test_an_operator_computes_what_tflite_does(
    case: str, tiny_network: Network, pictures: np.ndarray, tmp_path: Path
) -> None:
    graph = operators.CASES[case]
    expected = tflite_result(graph, pictures)
    y = run(to_onnx(tiny_network, graph, tmp_path / "one.onnx", ABOUT), pictures)
    assert y.shape == expected.shape
    assert np.abs(y - expected).max() <= 2e-5 * max(1, np.abs(expected).max())


# A quantized PADV2 demands a constant of the picture's own scale; TFLite does not run what has another.
@pytest.mark.parametrize("case", [c for c in operators.CASES if c != "a picture padded with a number"])
def test_a_quantized_operator_is_at_most_one_step_from_tflite(
    case: str, tiny_network: Network, pictures: np.ndarray, tmp_path: Path
) -> None:
    graph = operators.CASES[case]
    ranges = measure_ranges(graph, (a[None] for a in pictures))
    quantized = quantize(graph, "int8", Calibration(ranges, "min-max", "", len(pictures), ""))
    expected = tflite_result(quantized, pictures)
    y = run(to_onnx(tiny_network, quantized, tmp_path / "one.onnx", ABOUT), pictures)
    last = quantized.ops[-1]
    step = 0.0
    if last.kind == "DEQUANTIZE":
        q = quantized.tensors[str(last.inputs[0])].quantization
        assert q is not None
        step = float(q.scale[0]) * 1.001
    assert np.abs(y - expected).max() <= step + 1e-5 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_computes_what_the_tflite_file_of_the_same_graph_does(
    precision: str, tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path, pixels: np.ndarray
) -> None:
    x = normalise(pixels, tiny.PREPROCESSING)
    a = written(tiny_network, tiny_calibration, tmp_path, precision)
    b = written(tiny_network, tiny_calibration, tmp_path, precision, "tflite")
    y, z = (runtime.load(tmp_path / f.path).predict(x) for f in (a, b))
    assert y.shape == (30, tiny.CLASSES)
    assert np.abs(y - z).max() <= TOLERANCE[precision]


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("io", IO_DTYPES)
def test_a_file_takes_and_gives_what_it_says(
    io: str, precision: str, tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path, pixels: np.ndarray
) -> None:
    a = written(tiny_network, tiny_calibration, tmp_path, precision, io=io)
    b = written(tiny_network, tiny_calibration, tmp_path / "float", precision)
    s = session(tmp_path / a.path)
    assert [(i.name, i.shape) for i in s.get_inputs()] == [("image", [1, 3, tiny.PX, tiny.PX])]
    assert [(o.name, o.shape) for o in s.get_outputs()] == [("probabilities", [1, tiny.CLASSES])]
    assert [(t.name, t.dtype, t.shape) for t in a.inputs] == [("image", io, (1, 3, tiny.PX, tiny.PX))]
    model = runtime.load(tmp_path / a.path)
    assert (model.io_dtype, model.output.dtype) == (io, io)
    y = model.predict(normalise(pixels, tiny.PREPROCESSING) if io == "float32" else pixels)
    z = runtime.load(tmp_path / "float" / b.path).predict(normalise(pixels, tiny.PREPROCESSING))
    assert np.abs(y - z).max() <= (1e-6 if io == "float32" else 1 / 256)


def test_scales_zero_points_and_weights_are_the_graphs(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    graph = quantize(tiny_network.graph, "int8", tiny_calibration)
    model = onnx.load(tmp_path / written(tiny_network, tiny_calibration, tmp_path, "int8").path)
    data = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    producers = {n.output[0]: n for n in model.graph.node}
    checked = 0
    for name, t in graph.tensors.items():
        if t.quantization is None or name == "logits":
            continue
        if t.data is None:
            node = producers[name]
            assert node.op_type == "QuantizeLinear"
            scale, zero = (data[n] for n in node.input[1:])
            assert zero.dtype == np.uint8
            assert (scale, zero) == (t.quantization.scale[0], t.quantization.zero_point[0] + 128)
        else:
            perm = (3, 0, 1, 2) if name.startswith("depthwise") else (0, 3, 1, 2)
            assert data[name].dtype == t.dtype
            assert np.array_equal(data[name], t.data.transpose(perm) if t.data.ndim == 4 else t.data)
            node = producers[f"{name}_dequantized"]
            assert np.array_equal(data[node.input[1]], t.quantization.scale)
            if t.dtype == "int32":  # what onnxruntime demands of a bias: the product of the other two scales
                assert len(node.input) == 2
        checked += 1
    assert checked == 20  # 8 activations, and the weights and biases of 6 layers
    assert producers["logits_float32"].op_type == "Gemm"  # not rounded: the kernel gives float32


def test_onnxruntime_computes_an_int8_file_in_integers(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    session(tmp_path / written(tiny_network, tiny_calibration, tmp_path, "int8").path, tmp_path / "optimized.onnx")
    kinds = [n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert [kinds.count(k) for k in ("QLinearConv", "QLinearAdd", "QLinearGlobalAveragePool", "QGemm")] == [5, 1, 1, 1]
    assert not {"Conv", "Gemm", "Add", "Clip", "GlobalAveragePool"} & set(kinds)


@pytest.mark.parametrize("precision", ["float16", "weight-only"])
def test_onnxruntime_unpacks_smaller_weights_once_when_it_loads(
    precision: str, tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    session(tmp_path / written(tiny_network, tiny_calibration, tmp_path, precision).path, tmp_path / "optimized.onnx")
    kinds = {n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert not {"Cast", "Mul", "DequantizeLinear"} & kinds


def test_a_clip_that_the_quantized_range_does_not_imply_is_kept(tiny_network: Network, tmp_path: Path) -> None:
    graph = operators.CASES["a depthwise convolution"]
    out = graph.outputs[0]
    x = np.random.default_rng(2).normal(0, 8, (4, *operators.SHAPE[1:])).astype(np.float32)
    ranges = measure_ranges(graph, (a[None] for a in x))
    quantized = quantize(
        graph, "int8", Calibration(ranges, "min-max", "", 4, "", {out: (0.1, 0)})
    )  # holds -12.8 to 12.7
    y = run(to_onnx(tiny_network, quantized, tmp_path / "one.onnx", ABOUT), x)
    expected = tflite_result(quantized, x)
    assert (expected.min(), expected.max()) == (0, pytest.approx(6))
    assert np.abs(y - expected).max() < 1e-6


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_file_has_a_transpose(
    precision: str, tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    model = onnx.load(tmp_path / written(tiny_network, tiny_calibration, tmp_path, precision).path)
    onnx.checker.check_model(model, full_check=True)
    assert not {"Transpose", "Reshape"} & {n.op_type for n in model.graph.node}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_file_says_what_it_is(
    precision: str, tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    a = written(tiny_network, tiny_calibration, tmp_path, precision)
    model = onnx.load(tmp_path / a.path)
    assert (a.id, model.producer_name) == (f"tiny_{precision}.onnx", "edgenet")
    properties = {p.key: p.value for p in model.metadata_props}
    assert properties["labels"].split("\n") == list(tiny_network.class_names)
    about = json.loads(properties["edgenet"])
    assert (about["precision"], about["preprocessing"]) == (precision, tiny.PREPROCESSING.to_json())
    if precision != "dynamic":  # so small a network has no weights that are worth a hybrid kernel
        assert inspect(tmp_path / a.path).precision == precision


def test_dynamic_quantization_takes_the_weights_integers(tiny_network: Network, tmp_path: Path) -> None:
    b = operators.Build()
    y = operators.convolution(b, operators.convolution(b, "image", 40, 2, operators.SAME, operators.RELU6), 40, 1, 0)
    operators.dense(b, operators.mean(b, y, [1, 2], False), 30)
    graph = b.graph()
    x = np.random.default_rng(3).normal(size=(4, *operators.SHAPE[1:])).astype(np.float32)
    path = to_onnx(tiny_network, quantize(graph, "dynamic"), tmp_path / "x_dynamic.onnx", ABOUT)
    assert inspect(path).precision == "dynamic"
    kinds = [n.op_type for n in onnx.load(path).graph.node]
    assert [kinds.count(k) for k in ("ConvInteger", "MatMulInteger", "Transpose")] == [2, 1, 0]
    y, expected = run(path, x), tflite_result(graph, x)
    assert 10 * np.log10((expected**2).sum() / ((y - expected) ** 2).sum()) > 35  # dB; 8 bits cannot be far below


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_same_graph_gives_the_same_bytes(
    precision: str, tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    a = written(tiny_network, tiny_calibration, tmp_path / "a", precision)
    b = written(tiny_network, tiny_calibration, tmp_path / "b", precision)
    assert sha256_of(tmp_path / "a" / a.path) == b.sha256 == a.sha256


def test_the_batch_may_be_another_or_open(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path, pixels: np.ndarray
) -> None:
    graph = quantize(tiny_network.graph, "int8", tiny_calibration)
    x = normalise(pixels, tiny.PREPROCESSING).transpose(0, 3, 1, 2)
    one, four, any_ = (to_onnx(tiny_network, graph, tmp_path / f"{n}.onnx", ABOUT, batch=n) for n in (1, 4, None))
    expected = np.concatenate([session(one).run(None, {"image": a[None]})[0] for a in x[:12]])
    assert session(any_).get_inputs()[0].shape == ["batch", 3, tiny.PX, tiny.PX]
    assert np.array_equal(session(any_).run(None, {"image": x[:12]})[0], expected)
    assert np.array_equal(session(four).run(None, {"image": x[:4]})[0], expected[:4])


def test_an_operator_without_a_form_is_named_with_what_holds_it(tiny_network: Network, tmp_path: Path) -> None:
    graph = operators.CASES["a sigmoid"]
    odd = replace(graph, ops=(*graph.ops[:-1], replace(graph.ops[-1], kind="REVERSE_V2")))
    with pytest.raises(InputError, match=r"REVERSE_V2 .*use the format tflite"):
        to_onnx(tiny_network, odd, tmp_path / "x.onnx", ABOUT)
    assert list(tmp_path.iterdir()) == []


def test_a_shape_that_is_computed_is_refused(tiny_network: Network, tmp_path: Path) -> None:
    graph = operators.CASES["a mean that keeps the axes"]
    computed = replace(graph.tensors[str(graph.ops[0].inputs[1])], data=None)
    with pytest.raises(InputError, match="only fixed shapes"):
        to_onnx(
            tiny_network, replace(graph, tensors={**graph.tensors, computed.name: computed}), tmp_path / "x.onnx", ABOUT
        )


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_constants_too_large_for_one_file_stand_in_one_beside_it(
    precision: str,
    tiny_network: Network,
    tiny_calibration: Calibration,
    tmp_path: Path,
    pixels: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = normalise(pixels, tiny.PREPROCESSING)
    whole = written(tiny_network, tiny_calibration, tmp_path, precision)
    path, beside = tmp_path / whole.path, (tmp_path / whole.path).with_suffix(BESIDE)
    expected, known = runtime.load(path).predict(x), inspect(path)
    assert not beside.exists()

    monkeypatch.setattr("edgenet.export.onnx.LARGEST_BYTES", 1000)
    parted = written(tiny_network, tiny_calibration, tmp_path, precision)
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, beside.name]
    assert np.array_equal(runtime.load(path).predict(x), expected)
    onnx.checker.check_model(str(path), full_check=True)
    offsets = [int(e.value) for t in onnx.load(str(path), load_external_data=False).graph.initializer
               for e in t.external_data if e.key == "offset"]  # fmt: skip
    assert offsets
    assert {o % 4096 for o in offsets} == {0}
    found = inspect(path)
    assert (found.precision, found.parameters, found.warnings) == (known.precision, known.parameters, known.warnings)
    assert found.size_bytes == parted.size_bytes == path.stat().st_size + beside.stat().st_size

    monkeypatch.undo()
    again = written(tiny_network, tiny_calibration, tmp_path, precision)
    assert again.sha256 == whole.sha256
    assert not beside.exists()


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_lite0_in_int8_agrees_with_the_float_network_on_photographs(format: str, tmp_path: Path) -> None:
    if not IMAGENET_MINI.is_dir():
        pytest.skip(f"no {IMAGENET_MINI.name} beside the project")
    pytest.importorskip("openvino" if format == "openvino" else "onnxruntime")
    network = find_source("efficientnet-lite0").network()
    calibration_images, rest = split(open_images(IMAGENET_MINI, network.class_ids, network.class_names), 100)
    pixels = load_pixels(calibration_images, network.preprocessing)
    calibration = SharedCalibration(network, pixels, recipe=Recipe(corrections=())).calibration
    x = normalise(load_pixels(replace(rest, files=rest.files[:100]), network.preprocessing), network.preprocessing)
    reference = runtime.load(tmp_path / written(network, calibration, tmp_path, "float32", "tflite").path, 2).predict(x)
    y = runtime.load(tmp_path / written(network, calibration, tmp_path, "int8", format).path, 2).predict(x)
    assert (y.argmax(axis=1) == reference.argmax(axis=1)).mean() >= 0.975
