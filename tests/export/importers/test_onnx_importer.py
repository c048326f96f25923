"""onnx_importer.py: an imported network gives what onnxruntime gives, and no TRANSPOSE is left where none is needed.

The networks are built from the operators that torch.onnx.export writes. Parity is to 1e-4 of the largest number: both
sides compute in float32, in another order.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgenet.calibration.execute import Executor
from edgenet.errors import InputError
from edgenet.export.graph import Graph
from edgenet.export.importers.onnx_importer import from_onnx, input_shape, load_onnx
from helpers.torch_style import TorchStyle, inverted_residual


def imported(path: Path) -> Graph:
    model = load_onnx(path)
    shape = input_shape(model, str(path))
    return from_onnx(model, [1, *(32 if n is None else n for n in shape[1:])])


def assert_parity(path: Path, tolerance: float = 1e-4) -> Counter[str]:
    """Check LiteRT on the imported graph against onnxruntime on the file; return its operators."""
    graph = imported(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name, rng = session.get_inputs()[0].name, np.random.default_rng(1)
    run = Executor(graph, graph.outputs, 1)
    nchw = session.get_inputs()[0].shape[1] == 3
    for _ in range(2):
        x = rng.normal(0, 1, graph.tensors["image"].shape).astype(np.float32)
        want = session.run(None, {name: x.transpose(0, 3, 1, 2) if nchw else x})[0]
        got = run(x)[0]
        assert got.shape == (1, want.size)
        np.testing.assert_allclose(got.ravel(), want.ravel(), rtol=0, atol=tolerance * max(1.0, np.abs(want).max()))
        assert np.ptp(want) > 1e-3  # the comparison means something
    return Counter(op.kind for op in graph.ops)


def save(t: TorchStyle, out: str, path: Path, classes: int = 5) -> Path:
    return t.save(path / "net.onnx", out, classes)


def test_batch_norm_and_relu6_are_folded_and_stride_2_is_padded_as_torch_does(tmp_path: Path) -> None:
    t = TorchStyle()
    x = t.relu6(t.batch_norm(t.conv("input", 3, 16, 3, 2), 16))
    x = inverted_residual(t, inverted_residual(t, x, 16, 24, 2, 6), 24, 24, 1, 6)
    kinds = assert_parity(save(t, t.head(x, 24, 5), tmp_path))
    assert kinds == {
        "CONV_2D": 5, "DEPTHWISE_CONV_2D": 2, "ADD": 1, "PAD": 2, "MEAN": 1, "RESHAPE": 1, "FULLY_CONNECTED": 1,
    }  # fmt: skip


def test_a_flattened_picture_moves_the_rows_of_the_dense_layer_and_not_the_picture(tmp_path: Path) -> None:
    t = TorchStyle()
    x = t.node("Relu", [t.conv("input", 3, 8, 5, 4, padding=2, bias=True)])
    x = t.node("Flatten", [t.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])], axis=1)
    x = t.node("Dropout", [t.node("Relu", [t.gemm(x, 8 * 16, 32)])])
    kinds = assert_parity(save(t, t.gemm(x, 32, 5), tmp_path))
    assert "TRANSPOSE" not in kinds
    assert kinds["FULLY_CONNECTED"] == 2


def test_a_flattened_picture_that_two_read_comes_out_in_the_order_of_each(tmp_path: Path) -> None:
    t = TorchStyle(px=8)
    x = t.node("Flatten", [t.conv("input", 3, 4, 3, bias=True)], axis=1)
    half = [t.weight(np.array(v, np.int64)) for v in ([0], [100], [1])]
    y = t.node("Slice", [x, *half])  # features by number: only ONNX's order has them
    kinds = assert_parity(save(t, t.node("Add", [t.gemm(x, 256, 5), t.gemm(y, 100, 5)]), tmp_path))
    assert kinds["TRANSPOSE"] == 1


def test_the_shape_chain_of_a_view_is_folded(tmp_path: Path) -> None:
    t = TorchStyle()
    x = t.node("GlobalAveragePool", [t.conv("input", 3, 8, bias=True)])
    batch = t.node("Gather", [t.node("Shape", [x]), t.weight(np.int64(0))], axis=0)
    parts = [t.node("Unsqueeze", [batch, t.weight(np.array([0]))]), t.weight(np.array([-1]))]
    x = t.node("Reshape", [x, t.node("Concat", parts, axis=0)])
    kinds = assert_parity(save(t, t.gemm(x, 8, 5), tmp_path))
    assert kinds == {"CONV_2D": 1, "MEAN": 1, "RESHAPE": 1, "FULLY_CONNECTED": 1}


def test_squeeze_and_excite_with_hard_swish_keeps_its_layout(tmp_path: Path) -> None:
    t = TorchStyle()
    x = t.conv("input", 3, 16, 3, 2, bias=True)
    x = t.node("Mul", [x, t.node("HardSigmoid", [x], alpha=1 / 6, beta=0.5)])
    s = t.node("Relu", [t.conv(t.node("GlobalAveragePool", [x]), 16, 4, 1, bias=True)])
    x = t.node("Mul", [t.node("HardSigmoid", [t.conv(s, 4, 16, 1, bias=True)], alpha=1 / 6), x])
    x = t.node("Mul", [x, t.node("Sigmoid", [x])])
    kinds = assert_parity(save(t, t.head(x, 16, 5), tmp_path))
    assert kinds["HARD_SWISH"] == 1
    assert "TRANSPOSE" not in kinds


def test_a_channel_shuffle_moves_numbers_once(tmp_path: Path) -> None:
    t = TorchStyle()
    x = t.conv("input", 3, 12, bias=True)
    x = t.node("Reshape", [x, t.weight(np.array([1, 3, 4, 32, 32]))])
    x = t.node("Transpose", [x], perm=[0, 2, 1, 3, 4])
    x = t.node("Reshape", [x, t.weight(np.array([1, -1, 32, 32]))])
    a, b = t.node("Split", [x, t.weight(np.array([4, 8]))], 2, axis=1)
    x = t.node("Concat", [t.node("Relu", [b]), a], axis=1)
    kinds = assert_parity(save(t, t.head(t.conv(x, 12, 8, bias=True), 8, 5), tmp_path))
    assert kinds["TRANSPOSE"] == 1


def test_a_transformer_block_with_layer_norm_and_spelt_out_gelu(tmp_path: Path) -> None:
    d, heads, n = 16, 4, 17
    t = TorchStyle()

    def linear(x: str, inputs: int, outputs: int) -> str:
        y = t.node("MatMul", [x, t.weight(t.normal(inputs, outputs, scale=inputs**-0.5))])
        return t.node("Add", [t.weight(t.normal(outputs, scale=0.1)), y])

    def norm(x: str) -> str:
        return t.node("LayerNormalization", [x, t.weight(t.normal(d)), t.weight(t.normal(d))], axis=-1, epsilon=1e-6)

    x = t.conv("input", 3, d, 8, 8, padding=0, bias=True)
    x = t.node("Reshape", [x, t.weight(np.array([0, d, -1]))])
    x = t.node("Transpose", [x], perm=[0, 2, 1])
    token = t.node("Expand", [t.weight(t.normal(1, 1, d)), t.weight(np.array([1, 1, 1]))])
    x = t.node("Add", [t.node("Concat", [token, x], axis=1), t.weight(t.normal(1, n, d))])
    y = t.node("Reshape", [linear(norm(x), d, 3 * d), t.weight(np.array([1, n, 3, heads, d // heads]))])
    y = t.node("Transpose", [y], perm=[2, 0, 3, 1, 4])
    q, k, v = (t.node("Gather", [y, t.weight(np.int64(i))], axis=0) for i in range(3))
    scores = t.node("MatMul", [q, t.node("Transpose", [k], perm=[0, 1, 3, 2])])
    scores = t.node("Softmax", [t.node("Mul", [scores, t.weight(np.float32(0.5))])], axis=-1)
    y = t.node("Transpose", [t.node("MatMul", [scores, v])], perm=[0, 2, 1, 3])
    x = t.node("Add", [x, linear(t.node("Reshape", [y, t.weight(np.array([1, n, d]))]), d, d)])
    y = linear(norm(x), d, 2 * d)
    erf = t.node("Erf", [t.node("Div", [y, t.weight(np.float32(2**0.5))])])
    y = t.node("Mul", [y, t.node("Add", [erf, t.weight(np.float32(1))])])
    x = t.node("Add", [x, linear(t.node("Mul", [y, t.weight(np.float32(0.5))]), 2 * d, d)])
    x = t.node("Gather", [norm(x), t.weight(np.int64(0))], axis=1)
    kinds = assert_parity(save(t, t.gemm(x, d, 5), tmp_path), 1e-3)  # LiteRT approximates GELU
    assert kinds["GELU"] == 1


def test_channels_last_blocks_cost_no_transpose(tmp_path: Path) -> None:
    t = TorchStyle(opset=20)
    x = t.conv("input", 3, 8, 4, 4, padding=0, bias=True)
    y = t.node("Transpose", [t.conv(x, 8, 8, 7, groups=8, bias=True)], perm=[0, 2, 3, 1])
    y = t.node("LayerNormalization", [y, t.weight(t.normal(8)), t.weight(t.normal(8))], axis=-1)
    y = t.node("Gelu", [t.node("MatMul", [y, t.weight(t.normal(8, 8))])])
    x = t.node("Add", [x, t.node("Transpose", [y], perm=[0, 3, 1, 2])])
    x = t.node("ReduceMean", [x, t.weight(np.array([-2, -1]))], keepdims=0)
    assert "TRANSPOSE" not in assert_parity(save(t, t.gemm(x, 8, 5), tmp_path))


def pool(kind: str, **attributes: Any) -> Callable[[TorchStyle, str], str]:
    return lambda t, x: t.node(kind, [x], kernel_shape=[3, 3], strides=[2, 2], **attributes)


def unary(kind: str, **attributes: Any) -> Callable[[TorchStyle, str], str]:
    return lambda t, x: t.node(kind, [x], **attributes)


def with_constant(kind: str, value: Any, first: bool = False) -> Callable[[TorchStyle, str], str]:
    def add(t: TorchStyle, x: str) -> str:
        c = t.weight(np.asarray(value, np.float32))
        return t.node(kind, [c, x] if first else [x, c])

    return add


def resize(mode: str, where: str, factor: float, **attributes: Any) -> Callable[[TorchStyle, str], str]:
    def add(t: TorchStyle, x: str) -> str:
        scales = t.weight(np.array([1, 1, factor, factor], np.float32))
        return t.node("Resize", [x, "", scales], mode=mode, coordinate_transformation_mode=where, **attributes)

    return add


CHANNELS = np.arange(1, 9, dtype=np.float32).reshape(8, 1, 1)
CASES: dict[str, Callable[[TorchStyle, str], str]] = {
    "conv, 3 groups of 4": lambda t, x: t.conv(t.conv(x, 8, 12), 12, 8, groups=4, bias=True),
    "conv, depth multiplier 2": lambda t, x: t.conv(t.conv(x, 8, 16, groups=8, bias=True), 16, 8),
    "conv, dilated": lambda t, x: t.conv(x, 8, 8, 3, padding=2, dilation=2),
    "conv, auto_pad": lambda t, x: t.conv(x, 8, 8, 3, 2, auto_pad="SAME_UPPER"),
    "conv, auto_pad at the start": lambda t, x: t.conv(x, 8, 8, 3, 2, auto_pad="SAME_LOWER"),
    "conv, uneven pads": lambda t, x: t.conv(x, 8, 8, 3, 2, pads=[0, 1, 2, 0]),
    "conv, batch norm before": lambda t, x: t.conv(t.node("Relu", [t.batch_norm(t.node("Tanh", [x]), 8)]), 8, 8),
    "max pool, negative numbers, padded": pool("MaxPool", pads=[1, 1, 1, 1]),
    "max pool, negative numbers, rounded up": pool("MaxPool", pads=[1, 1, 1, 1], ceil_mode=1),
    "max pool, same": pool("MaxPool", auto_pad="SAME_UPPER"),
    "average pool, pads count": pool("AveragePool", pads=[1, 1, 1, 1], count_include_pad=1),
    "average pool, pads do not count": pool("AveragePool", pads=[1, 1, 1, 1], count_include_pad=0),
    "average pool, rounded up": pool("AveragePool", ceil_mode=1),
    "global max pool": unary("GlobalMaxPool"),
    "local response": unary("LRN", size=5, alpha=0.5, beta=0.75, bias=1.0),
    "leaky relu": unary("LeakyRelu", alpha=0.1),
    "elu": unary("Elu"),
    "softplus": unary("Softplus"),
    "mish": unary("Mish"),
    "hard sigmoid, default": unary("HardSigmoid"),
    "hard swish": unary("HardSwish"),
    "prelu": with_constant("PRelu", CHANNELS / 10),
    "scale a channel": with_constant("Mul", CHANNELS),
    "divide": with_constant("Div", CHANNELS),
    "one minus": with_constant("Sub", 1.0, first=True),
    "one over": lambda t, x: t.node("Div", [t.weight(np.float32(1)), t.node("Exp", [x])]),
    "square": with_constant("Pow", 2.0),
    "clip at other limits": lambda t, x: t.node("Clip", [x, t.weight(np.float32(-0.3)), t.weight(np.float32(0.7))]),
    "maximum": with_constant("Max", 0.25),
    "pad": lambda t, x: t.node("Pad", [x, t.weight(np.array([0, 0, 1, 2, 0, 0, 3, 0]))]),
    "pad, reflect": lambda t, x: t.node("Pad", [x, t.weight(np.array([0, 0, 1, 2, 0, 0, 3, 0]))], mode="reflect"),
    "pad, one": lambda t, x: t.node("Pad", [x, t.weight(np.array([0, 0, 1, 1, 0, 0, 1, 1])), t.weight(np.float32(1))]),
    "slice with steps": lambda t, x: t.node(
        "Slice", [x, *(t.weight(np.array(v)) for v in ([1, 0], [30, 1 << 60], [2, 3], [2, 3]))]
    ),
    "gather channels": lambda t, x: t.node("Gather", [x, t.weight(np.array([7, 6, 5, 4, 3, 2, 1, 0]))], axis=1),
    "gather into two axes": lambda t, x: t.node(
        "Reshape",
        [t.node("Gather", [x, t.weight(np.arange(8)[::-1].reshape(2, 4))], axis=1), t.weight(np.array([1, 8, 32, 32]))],
    ),
    "gather all, as torch's as_strided": lambda t, x: t.node(
        "Reshape",
        [t.node("Gather", [x, t.weight(np.arange(8).reshape(2, 4))], axis=1), t.weight(np.array([1, 8, 32, 32]))],
    ),
    "length of each pixel": lambda t, x: t.node(
        "Div", [x, t.node("ReduceL2", [x, t.weight(np.array([1]))], keepdims=1)]
    ),
    "resize, bilinear": resize("linear", "half_pixel", 1.5),
    "resize, corners": resize("linear", "align_corners", 2.0),
    "resize, nearest as torch": resize("nearest", "asymmetric", 2.0, nearest_mode="floor"),
    "resize, nearest half pixel": resize("nearest", "half_pixel", 2.0, nearest_mode="round_prefer_floor"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_operator_gives_what_onnxruntime_gives(case: str, tmp_path: Path) -> None:
    t = TorchStyle(opset=18)
    kinds = assert_parity(save(t, t.head(CASES[case](t, t.conv("input", 3, 8, bias=True)), 8, 5), tmp_path))
    assert "TRANSPOSE" not in kinds


def test_padding_that_equals_same_is_not_written_out(tmp_path: Path) -> None:
    t = TorchStyle()
    x = t.node("Pad", ["input", t.weight(np.array([0, 0, 0, 0, 0, 0, 1, 1]))])  # as timm's tf_ models do
    kinds = assert_parity(save(t, t.head(t.conv(x, 3, 8, 3, 2, padding=0), 8, 5), tmp_path))
    assert "PAD" not in kinds


def test_a_network_in_nhwc_as_tf2onnx_writes_it_loses_its_transposes(tmp_path: Path) -> None:
    t = TorchStyle()
    t.inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 32, 32, 3])]
    x = t.conv(t.node("Transpose", ["input"], perm=[0, 3, 1, 2]), 3, 8, bias=True)
    x = t.node("ReduceMean", [t.node("Transpose", [x], perm=[0, 2, 3, 1])], axes=[1, 2], keepdims=0)
    assert "TRANSPOSE" not in assert_parity(save(t, t.gemm(x, 8, 5), tmp_path))


def test_weights_in_a_file_beside_it_are_read(tmp_path: Path) -> None:
    t = TorchStyle()
    path = tmp_path / "net.onnx"
    onnx.save(t.model(t.head(t.conv("input", 3, 8), 8, 5)), str(path), save_as_external_data=True, location="net.data",
              size_threshold=0)  # fmt: skip
    assert assert_parity(path)["CONV_2D"] == 1
    (tmp_path / "net.data").unlink()
    with pytest.raises(InputError, match=r"keeps its weights in net\.data, which is not beside it"):
        load_onnx(path)


def test_a_float16_network_is_computed_in_float32(tmp_path: Path) -> None:
    t = TorchStyle()
    out = t.head(t.conv("input", 3, 8), 8, 5)
    model = t.model(out)
    for w in model.graph.initializer:
        w.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(w).astype(np.float16), w.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, str(tmp_path / "half.onnx"))
    graph = imported(tmp_path / "half.onnx")
    assert {t.dtype for t in graph.tensors.values()} <= {"float32", "int32"}


REFUSED: dict[str, tuple[Callable[[TorchStyle], str], str]] = {
    "unknown operator": (
        lambda t: t.node("GridSample", ["input", "input"]),
        r"operator GridSample \(node /0/GridSample\)",
    ),
    "custom operator": (lambda t: t.node("Fancy", ["input"], domain="my.ops"), r"custom operator my\.ops\.Fancy"),
    "quantized": (
        lambda t: t.node("QuantizeLinear", ["input", t.weight(np.float32(1)), t.weight(np.uint8(0))]),
        r"quantized already, by QuantizeLinear .*give the float model",
    ),
    "shape work on a picture": (lambda t: t.node("Erf", ["input"]), r"Erf \(node /0/Erf\) works on activations"),
    "computed weights": (
        lambda t: t.node("Conv", ["input", "input"], kernel_shape=[3, 3]),
        r"Conv \(node /0/Conv\) computes its weights",
    ),
    "training": (
        lambda t: t.node("Dropout", ["input", t.weight(np.float32(0.5)), t.weight(np.array(True))]),
        r"training mode.*model\.eval",
    ),
    "a map of outputs": (lambda t: t.conv("input", 3, 5), r"has the shape \(1, 5, 32, 32\); a classifier's is"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_form_is_named_with_its_node(case: str, tmp_path: Path) -> None:
    build, message = REFUSED[case]
    t = TorchStyle()
    path = save(t, build(t), tmp_path)
    with pytest.raises(InputError, match=message) as e:
        imported(path)
    assert "\n" not in str(e.value)


def test_control_flow_is_refused(tmp_path: Path) -> None:
    t = TorchStyle()
    branch = helper.make_graph([helper.make_node("Relu", ["input"], ["b"])], "g", [],
                               [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)])  # fmt: skip
    out = t.node("If", [t.weight(np.array(True))], then_branch=branch, else_branch=branch)
    with pytest.raises(InputError, match=r"control flow, If \(node /0/If\)"):
        load_onnx(save(t, out, tmp_path))


@pytest.mark.parametrize("keep", [0, 10, 200, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_refused(keep: float, tmp_path: Path) -> None:
    t = TorchStyle()
    path = save(t, t.head(t.conv("input", 3, 8), 8, 5), tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep if keep >= 1 or keep == 0 else keep * len(data))])
    with pytest.raises(InputError, match=r"not a whole ONNX file|export or copy it again|damaged"):
        imported(path)
