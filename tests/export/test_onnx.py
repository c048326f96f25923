"""onnx.py: the integers, scales and zero points are the graph's own, and onnxruntime computes with them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgenet.calibration import measure_ranges, quantize
from edgenet.errors import InputError
from edgenet.export import Network, runtime
from edgenet.export import onnx as onnx_writer
from edgenet.export.inspect import inspect
from edgenet.export.onnx import BESIDE, PRECISIONS, to_onnx
from edgenet.images import normalise
from edgenet.results import Calibration
from helpers import operators, tiny
from helpers.graph_builder import RELU6, SAME, Builder
from helpers.nchw_files import ABOUT, EXACT_BITS, quantized, run, session, tflite_result, written
from helpers.nchw_files import pictures as pictures
from helpers.nchw_files import pixels as pixels

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


# A quantized PADV2 demands a constant of the picture's own scale; TFLite does not run what has another.
@pytest.mark.parametrize("case", [c for c in operators.CASES if c != "a picture padded with a number"])
def test_a_quantized_operator_is_at_most_one_step_from_tflite(
    case: str, tiny_network: Network, pictures: np.ndarray, tmp_path: Path
) -> None:
    graph = operators.CASES[case]
    ranges = measure_ranges(graph, (a[None] for a in pictures))
    graph = quantized(graph, "int8", Calibration(ranges, "min-max", "", len(pictures), ""))
    expected = tflite_result(graph, pictures)
    y = run(to_onnx(tiny_network, graph, tmp_path / "one.onnx", ABOUT), pictures)
    last = graph.ops[-1]
    step = 0.0
    if last.kind == "DEQUANTIZE":
        q = graph.tensors[str(last.inputs[0])].quantization
        assert q is not None
        step = float(q.scale[0]) * 1.001
    assert np.abs(y - expected).max() <= step + 1e-5 * max(1, np.abs(expected).max())


def test_scales_zero_points_and_weights_are_the_graphs(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    graph = quantize(tiny_network.graph, "int8", tiny_calibration)
    model = onnx.load(tmp_path / written(tiny_network, tiny_calibration, tmp_path, "int8", "onnx").path)
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
    session(
        tmp_path / written(tiny_network, tiny_calibration, tmp_path, "int8", "onnx").path, tmp_path / "optimized.onnx"
    )
    kinds = [n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert [kinds.count(k) for k in ("QLinearConv", "QLinearAdd", "QLinearGlobalAveragePool", "QGemm")] == [5, 1, 1, 1]
    assert not {"Conv", "Gemm", "Add", "Clip", "GlobalAveragePool"} & set(kinds)


@pytest.mark.parametrize("precision", ["float16", "weight-only"])
def test_onnxruntime_unpacks_smaller_weights_once_when_it_loads(
    precision: str, tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    session(
        tmp_path / written(tiny_network, tiny_calibration, tmp_path, precision, "onnx").path,
        tmp_path / "optimized.onnx",
    )
    kinds = {n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert not {"Cast", "Mul", "DequantizeLinear"} & kinds


def test_a_clip_that_the_quantized_range_does_not_imply_is_kept(tiny_network: Network, tmp_path: Path) -> None:
    graph = operators.CASES["a depthwise convolution"]
    out = graph.outputs[0]
    x = np.random.default_rng(2).normal(0, 8, (4, *operators.SHAPE[1:])).astype(np.float32)
    ranges = measure_ranges(graph, (a[None] for a in x))
    graph = quantized(graph, "int8", Calibration(ranges, "min-max", "", 4, "", {out: (0.1, 0)}))  # holds -12.8 to 12.7
    y = run(to_onnx(tiny_network, graph, tmp_path / "one.onnx", ABOUT), x)
    expected = tflite_result(graph, x)
    assert (expected.min(), expected.max()) == (0, pytest.approx(6))
    assert np.abs(y - expected).max() < 1e-6


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_file_has_a_transpose(
    precision: str, tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    model = onnx.load(tmp_path / written(tiny_network, tiny_calibration, tmp_path, precision, "onnx").path)
    onnx.checker.check_model(model, full_check=True)
    assert not {"Transpose", "Reshape"} & {n.op_type for n in model.graph.node}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_file_says_what_it_is(
    precision: str, tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    a = written(tiny_network, tiny_calibration, tmp_path, precision, "onnx")
    model = onnx.load(tmp_path / a.path)
    assert (a.id, model.producer_name) == (f"tiny_{precision}.onnx", "edgenet")
    properties = {p.key: p.value for p in model.metadata_props}
    assert properties["labels"].split("\n") == list(tiny_network.class_names)
    about = json.loads(properties["edgenet"])
    assert (about["precision"], about["preprocessing"]) == (precision, tiny.PREPROCESSING.to_json())
    if precision != "dynamic":  # so small a network has no weights that are worth a hybrid kernel
        assert inspect(tmp_path / a.path).precision == precision


def test_dynamic_quantization_takes_the_weights_integers(tiny_network: Network, tmp_path: Path) -> None:
    b = Builder(*operators.SHAPE)
    y = operators.convolution(b, operators.convolution(b, "image", 40, 2, SAME, RELU6), 40, 1, SAME)
    operators.dense(b, b.mean(y), 30)
    graph = b.graph()
    x = np.random.default_rng(3).normal(size=(4, *operators.SHAPE[1:])).astype(np.float32)
    path = to_onnx(tiny_network, quantized(graph, "dynamic"), tmp_path / "x_dynamic.onnx", ABOUT)
    assert inspect(path).precision == "dynamic"
    kinds = [n.op_type for n in onnx.load(path).graph.node]
    assert [kinds.count(k) for k in ("ConvInteger", "MatMulInteger", "Transpose")] == [2, 1, 0]
    y, expected = run(path, x), tflite_result(graph, x)
    lost_db = 6 * (8 - EXACT_BITS)
    assert 10 * np.log10((expected**2).sum() / ((y - expected) ** 2).sum()) > 35 - lost_db  # 8 bits cannot be far below


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
    whole = written(tiny_network, tiny_calibration, tmp_path, precision, "onnx")
    path, beside = tmp_path / whole.path, (tmp_path / whole.path).with_suffix(BESIDE)
    expected, known = runtime.load(path).predict(x), inspect(path)
    assert not beside.exists()

    monkeypatch.setattr(onnx_writer, "LARGEST_BYTES", 1000)
    parted = written(tiny_network, tiny_calibration, tmp_path, precision, "onnx")
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
    again = written(tiny_network, tiny_calibration, tmp_path, precision, "onnx")
    assert again.sha256 == whole.sha256
    assert not beside.exists()
