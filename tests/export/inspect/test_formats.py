"""inspect on ONNX and OpenVINO files: the same tiny network in every precision that their own tools make."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from edgenet.errors import InputError
from edgenet.export.inspect import inspect, multiply_adds
from helpers.damage import refusals

MULTIPLY_ADDS = 8 * 8 * 16 * 27 + 8 * 8 * 16 * 9 + 8 * 8 * 80 * 16 + 80 * 16
PARAMETERS = 27 * 16 + 9 * 16 + 16 * 80 + 80 * 16 + 16 + 80
RNG = np.random.default_rng(0)
WEIGHTS = {
    name: RNG.normal(0, 0.2, shape).astype(np.float32)
    for name, shape in {
        "conv": (16, 3, 3, 3), "depthwise": (16, 1, 3, 3), "pointwise": (80, 16, 1, 1), "dense": (80, 16),
        "bias": (16,), "bias2": (80,),
    }.items()
}  # fmt: skip


def _onnx_model(batch: int | str = 1):
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node
    nodes = [
        node("Conv", ["image", "conv", "bias"], ["a"], strides=[2, 2], pads=[0, 0, 1, 1]),
        node("Clip", ["a", "low", "high"], ["a6"]),
        node("Conv", ["a6", "depthwise"], ["b"], group=16, pads=[1, 1, 1, 1]),
        node("Clip", ["b", "low", "high"], ["b6"]),
        node("Add", ["a6", "b6"], ["residual"]),
        node("Conv", ["residual", "pointwise", "bias2"], ["c"]),
        node("Clip", ["c", "low", "high"], ["c6"]),
        node("GlobalAveragePool", ["c6"], ["mean"]),
        node("Flatten", ["mean"], ["flat"]),
        node("MatMul", ["flat", "dense"], ["logits"]),
        node("Softmax", ["logits"], ["score"]),
    ]
    constants = {**WEIGHTS, "low": np.float32(0), "high": np.float32(6)}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 16, 16])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [batch, 16])],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="test", producer_version="1"
    )


@pytest.fixture(scope="module")
def onnx_files(tmp_path_factory) -> dict[str, Path]:
    onnx = pytest.importorskip("onnx")
    tool = pytest.importorskip("onnxruntime.quantization")
    folder = tmp_path_factory.mktemp("onnx")
    names = ("float32", "qdq", "qdq7", "int16x8", "qoperator", "dynamic", "weight-only", "float16")
    out = {name: folder / f"tiny_{name}.onnx" for name in names}
    onnx.save(_onnx_model(), out["float32"])

    class Pictures(tool.CalibrationDataReader):
        def __init__(self):
            rng = np.random.default_rng(1)
            self.left = [{"image": rng.normal(0, 1, (1, 3, 16, 16)).astype(np.float32)} for _ in range(4)]

        def get_next(self):
            return self.left.pop() if self.left else None

    i8, u8, u16 = tool.QuantType.QInt8, tool.QuantType.QUInt8, tool.QuantType.QUInt16
    static = {"weight_type": i8, "activation_type": u8, "per_channel": True}
    tool.quantize_static(out["float32"], out["qdq"], Pictures(), **static)
    tool.quantize_static(out["float32"], out["qdq7"], Pictures(), **static, reduce_range=True)
    tool.quantize_static(out["float32"], out["int16x8"], Pictures(), **{**static, "activation_type": u16})
    tool.quantize_static(
        out["float32"], out["qoperator"], Pictures(), **static, quant_format=tool.QuantFormat.QOperator
    )
    tool.quantize_dynamic(out["float32"], out["dynamic"], weight_type=i8)
    onnx.save(_stored(_onnx_model(), "weight-only"), out["weight-only"])
    onnx.save(_stored(_onnx_model(), "float16"), out["float16"])
    return out


def _stored(model, precision: str):
    """Return `model` with its matrices stored as int8 behind a DequantizeLinear, or as float16 behind a Cast."""
    from onnx import TensorProto, helper, numpy_helper

    before = []
    for name in ("conv", "depthwise", "pointwise", "dense"):
        tensor = next(t for t in model.graph.initializer if t.name == name)
        model.graph.initializer.remove(tensor)
        values = WEIGHTS[name]
        if precision == "float16":
            stored = {f"{name}_h": values.astype(np.float16)}
            before.append(helper.make_node("Cast", [f"{name}_h"], [name], to=TensorProto.FLOAT))
        else:
            axis = 1 if name == "dense" else 0
            scale = np.abs(values).max(tuple(i for i in range(values.ndim) if i != axis)) / 127
            q = np.round(values / scale.reshape([-1 if i == axis else 1 for i in range(values.ndim)])).astype(np.int8)
            stored = {f"{name}_q": q, f"{name}_s": scale}
            before.append(helper.make_node("DequantizeLinear", list(stored), [name], axis=axis))
        model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in stored.items())
    nodes = [*before, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "precision", "conv"),
    [
        ("float32", "float32", "float32"),
        ("qdq", "int8", "int8"),
        ("qdq7", "int8", "int8"),
        ("int16x8", "int16x8", "int16x8"),
        ("qoperator", "int8", "int8"),
        ("dynamic", "dynamic", "dynamic"),
        ("weight-only", "weight-only", "weight-only"),
        ("float16", "float16", "float16 weights"),
    ],
)
def test_onnx_precision_is_told_by_the_graph(onnx_files, name, precision, conv):
    i = inspect(onnx_files[name])
    assert (i.format, i.precision) == ("onnx", precision)
    kind = {"qoperator": "QLinearConv", "dynamic": "ConvInteger"}.get(name, "Conv")
    assert i.operators[kind] == {conv: 3}
    assert i.multiply_adds == multiply_adds(onnx_files[name]) == MULTIPLY_ADDS
    # onnxruntime's dynamic form adds the bias behind the convolution, reshaped.
    assert i.parameters == PARAMETERS
    assert i.weights_bytes + i.graph_bytes == i.size_bytes == onnx_files[name].stat().st_size
    json.dumps(dataclasses.asdict(i))


def test_onnx_weights_are_told_by_bits_and_channels(onnx_files):
    full, seven = inspect(onnx_files["qdq"]), inspect(onnx_files["qdq7"])
    assert (full.weight_quantization.per_channel, full.weight_quantization.per_tensor) == (4, 0)
    assert full.weight_quantization.symmetric
    assert (full.weight_quantization.bits, seven.weight_quantization.bits) == (8, 7)
    assert (full.weight_quantization.saturates, seven.weight_quantization.saturates) == (True, False)
    assert any("saturating 16 bits" in w for w in full.warnings)
    assert not any("saturating 16 bits" in w for w in seven.warnings)
    assert "float32 input and output" in full.why


def test_onnx_operators_of_onnxruntimes_own_are_warned_of_but_counted(onnx_files):
    i = inspect(onnx_files["qoperator"])
    assert any("QLinearAdd" in w and "other runtimes refuse" in w for w in i.warnings)
    assert i.operators["QLinearAdd"] == {"int8": 1}


def test_onnx_quantization_in_part_is_mixed(onnx_files, tmp_path):
    import onnx

    model = onnx.load(onnx_files["qdq"])
    last = next(n for n in model.graph.node if n.op_type == "MatMul")
    last.input[0] = "image_flat"  # feeds the dense layer with floats
    model.graph.input.append(onnx.helper.make_tensor_value_info("image_flat", onnx.TensorProto.FLOAT, [1, 80]))
    onnx.save(model, tmp_path / "a.onnx")
    i = inspect(tmp_path / "a.onnx")
    assert i.precision == "mixed"
    assert "3 in int8, 1 in weight-only" in i.why


def test_onnx_dynamic_batch_names_opset_and_provenance_are_shown(tmp_path):
    onnx = pytest.importorskip("onnx")
    model = _onnx_model("N")
    about = {"model": "tiny-net", "precision": "float32"}
    onnx.helper.set_model_props(model, {"edgenet": json.dumps(about), "author": "Ada"})
    onnx.save(model, tmp_path / "a.onnx")
    i = inspect(tmp_path / "a.onnx")
    assert i.batch is None
    assert i.inputs[0].shape == (-1, 3, 16, 16)
    assert (i.name, i.edgenet, i.metadata) == ("tiny-net", about, {"author": "Ada"})
    assert i.versions["opset"] == "17"
    assert i.multiply_adds == MULTIPLY_ADDS
    assert any("dynamic shape" in w for w in i.warnings)


def test_a_damaged_onnx_file_is_an_input_error_or_a_valid_answer(onnx_files, tmp_path):
    assert refusals(onnx_files["qdq"].read_bytes(), tmp_path / "a.onnx", n=150) > 30


@pytest.fixture(scope="module")
def openvino_files(tmp_path_factory) -> dict[str, Path]:
    ov = pytest.importorskip("openvino")
    from openvino import opset13 as op

    folder = tmp_path_factory.mktemp("openvino")

    def scales(values, axis):
        return np.abs(values).max(tuple(i for i in range(values.ndim) if i != axis), keepdims=True) / 127

    def net(weights, activations):
        def weight(name, shape=None):
            values = WEIGHTS[name].reshape(shape or WEIGHTS[name].shape)
            if weights == "float32":
                return op.constant(values)
            scale = scales(values, 1 if name == "dense" else 0)
            q = np.round(values / scale).astype(np.int8)
            stored = op.constant(q if weights == "int8" else (q.astype(np.int16) + 128).astype(np.uint8))
            real = op.convert(stored, np.float32)
            if weights == "uint8":
                real = op.subtract(real, op.convert(op.constant(np.full(scale.shape, 128, np.uint8)), np.float32))
            return op.multiply(real, op.constant(scale))

        def fake(x, low, high):
            if not activations:
                return x
            ends = [np.float32(low), np.float32(high)] * 2
            return op.fake_quantize(x, *ends, levels=activations)

        def conv(x, name, stride, pads, bias):
            x = op.convolution(x, weight(name), [stride] * 2, pads, pads, [1, 1])
            return op.clamp(op.add(x, op.constant(WEIGHTS[bias].reshape(1, -1, 1, 1))), 0.0, 6.0)

        image = op.parameter([1, 3, 16, 16], np.float32, name="image")
        x = fake(conv(fake(image, -2, 2), "conv", 2, [1, 1], "bias"), 0, 6)
        y = op.group_convolution(x, weight("depthwise", (16, 1, 1, 3, 3)), [1, 1], [1, 1], [1, 1], [1, 1])
        x = fake(op.add(op.clamp(y, 0.0, 6.0), x), 0, 12)
        x = fake(op.reduce_mean(conv(x, "pointwise", 1, [0, 0], "bias2"), op.constant([2, 3]), False), 0, 6)
        score = op.softmax(op.matmul(x, weight("dense"), False, False), 1)
        score.output(0).get_tensor().set_names({"score"})
        model = ov.Model([score], [image], "tiny")
        model.set_rt_info(json.dumps({"model": "tiny-net"}), ["edgenet"])
        return model

    out = {}
    for name, weights, levels, half in (
        ("float32", "float32", 0, False),
        ("float16", "float32", 0, True),
        ("int8", "int8", 256, True),
        ("int16x8", "int8", 65536, True),
        ("weight-only", "int8", 0, False),
        ("weight-only-u8", "uint8", 0, False),
    ):
        out[name] = folder / f"tiny_{name}.xml"
        ov.save_model(net(weights, levels), out[name], compress_to_fp16=half)
    return out


@pytest.mark.parametrize(
    ("name", "precision", "conv"),
    [
        ("float32", "float32", "float32"),
        ("float16", "float16", "float16 weights"),
        ("int8", "int8", "int8"),
        ("int16x8", "int16x8", "int16x8"),
        ("weight-only", "weight-only", "weight-only"),
        ("weight-only-u8", "weight-only", "weight-only"),
    ],
)
def test_openvino_precision_is_told_by_the_graph(openvino_files, name, precision, conv):
    i = inspect(openvino_files[name])
    assert (i.format, i.precision) == ("openvino", precision)
    assert i.operators["Convolution"] == {conv: 2}
    assert i.operators["GroupConvolution"] == {conv: 1}
    assert i.multiply_adds == multiply_adds(openvino_files[name]) == MULTIPLY_ADDS
    assert i.parameters == PARAMETERS
    blob = openvino_files[name].with_suffix(".bin")
    assert i.size_bytes == openvino_files[name].stat().st_size + blob.stat().st_size
    assert i.weights_bytes == blob.stat().st_size
    assert (i.name, i.batch, i.inputs[0].name, i.outputs[0].name) == ("tiny-net", 1, "image", "score")
    json.dumps(dataclasses.asdict(i))


def test_openvino_reads_the_same_operators(openvino_files):
    ov = pytest.importorskip("openvino")
    model = ov.Core().read_model(openvino_files["int8"])
    kinds = [o.get_type_name().lower() for o in model.get_ops()]
    i = inspect(openvino_files["int8"])
    for kind, counts in i.operators.items():
        assert sum(counts.values()) == kinds.count(kind.lower())
    assert i.n_operators == len([k for k in kinds if k not in ("parameter", "constant", "result")])


def test_openvino_bias_clamp_and_residual_are_fused_into_the_integer_convolution(openvino_files):
    i = inspect(openvino_files["int8"])
    assert i.operators["Add"] == {"int8": 3}
    assert i.operators["Clamp"] == {"int8": 3}
    assert i.why.endswith("SoftMax in float32; float32 input and output")


def test_openvino_zero_points_and_bits_are_told(openvino_files):
    symmetric = inspect(openvino_files["int8"]).weight_quantization
    assert (symmetric.symmetric, symmetric.per_channel, symmetric.bits) == (True, 4, 8)
    assert symmetric.activations_symmetric
    shifted = inspect(openvino_files["weight-only-u8"]).weight_quantization
    assert (shifted.symmetric, shifted.bits) == (False, 8)


def test_openvino_without_its_weights_or_with_half_of_them_is_refused(openvino_files, tmp_path):
    path = tmp_path / "a.xml"
    path.write_bytes(openvino_files["int8"].read_bytes())
    with pytest.raises(InputError, match=r"needs its weights a\.bin"):
        inspect(path)
    whole = openvino_files["int8"].with_suffix(".bin").read_bytes()
    (tmp_path / "a.bin").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is cut short"):
        inspect(path)
    with pytest.raises(InputError, match=r"give a\.xml"):
        inspect(tmp_path / "a.bin")


def test_a_damaged_openvino_file_is_an_input_error_or_a_valid_answer(openvino_files, tmp_path):
    (tmp_path / "a.bin").write_bytes(openvino_files["int8"].with_suffix(".bin").read_bytes())
    assert refusals(openvino_files["int8"].read_bytes(), tmp_path / "a.xml", n=100) > 100


def test_entities_in_xml_are_refused(tmp_path):
    bomb = '<!DOCTYPE net [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><net name="&b;"><layers/></net>'
    (tmp_path / "a.xml").write_text(bomb)
    with pytest.raises(InputError, match="declares no entities"):
        inspect(tmp_path / "a.xml")
