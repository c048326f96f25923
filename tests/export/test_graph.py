"""export/graph.py: what a graph knows of itself, the schema's enums, and where a kernel's windows lie."""

import numpy as np
import pytest

from edgenet.errors import InputError
from edgenet.export import Network
from edgenet.export.graph import (
    Activation,
    Graph,
    Op,
    Padding,
    Quantization,
    Tensor,
    Window,
    along_axis,
    fused,
    multiply_adds,
    same_pads,
)
from edgenet.export.tflite_file import schema


def test_logits_are_what_the_softmax_reads(tiny_network: Network) -> None:
    g = tiny_network.graph
    assert g.logits() == "logits"
    assert g.with_outputs(["logits"]).logits() == "logits"  # no softmax: the output itself


def test_producers_consumers_and_activations_agree_with_the_operators(tiny_network: Network) -> None:
    g = tiny_network.graph
    assert g.activations()[0] == "image"
    assert len(g.activations()) == 1 + len(g.ops)
    assert [g.ops[i].kind for i in g.consumers()["stem"]] == ["CONV_2D", "ADD"]
    assert g.ops[g.producers()["added"]].kind == "ADD"
    assert "image" not in g.producers()
    assert g.constant("pooled_axes").tolist() == [1, 2]  # type: ignore[union-attr]
    assert g.constant("image") is None
    assert g.constant(None) is None


def test_one_scale_is_per_tensor() -> None:
    q = Quantization.per_tensor(0.5, 3)
    assert (q.scale.dtype, q.zero_point.dtype, len(q.scale)) == (np.float32, np.int64, 1)


def test_the_enums_have_the_schemas_numbers() -> None:
    s = schema()
    assert {a.name: a.value for a in Activation} == {
        a.name: getattr(s.ActivationFunctionType, a.name) for a in Activation
    }
    assert {p.name: p.value for p in Padding} == {p.name: getattr(s.Padding, p.name) for p in Padding}


@pytest.mark.parametrize("activation", Activation)
def test_an_activation_stays_within_its_bounds_and_reaches_them(activation: Activation) -> None:
    import tensorflow as tf

    functions = {"NONE": tf.identity, "RELU": tf.nn.relu, "RELU_N1_TO_1": lambda x: tf.clip_by_value(x, -1, 1),
                 "RELU6": tf.nn.relu6, "TANH": tf.tanh}  # fmt: skip
    x = np.array([-np.inf, -30.0, -0.5, 0.0, 0.5, 30.0, np.inf], np.float32)
    y = np.asarray(functions[activation.name](x))
    low, high = activation.bounds
    assert (y.min(), y.max()) == (low, high)
    assert activation.clips == np.array_equal(y, np.clip(x, low, high))


def test_an_option_holds_a_plain_number_as_a_file_does() -> None:
    assert fused() == fused(Activation.NONE) == {"fusedActivationFunction": 0}
    assert repr(fused(Activation.RELU6)) == "{'fusedActivationFunction': 3}"  # fingerprints are made of it


def test_an_operator_tells_its_activation_and_its_window() -> None:
    options = {**fused(Activation.RELU6), "padding": 1, "strideH": 2, "strideW": 1}
    op = Op("CONV_2D", ("x", "w"), ("y",), options)
    assert op.activation == Activation.RELU6
    assert op.window == Window(Padding.VALID, (2, 1), (1, 1))
    dilated = Op("CONV_2D", ("x", "w"), ("y",), {**options, "dilationHFactor": 3, "dilationWFactor": 2})
    assert dilated.window.dilations == (3, 2)
    assert Op("RESHAPE", ("x",), ("y",)).activation == Activation.NONE


@pytest.mark.parametrize("option", ["fusedActivationFunction", "padding"])
def test_a_number_that_the_schema_does_not_have_is_refused(option: str) -> None:
    op = Op("CONV_2D", ("x", "w"), ("y",), {"padding": 0, "strideH": 1, "strideW": 1, option: 77})
    with pytest.raises(InputError, match=rf"CONV_2D \(y\) has {option} 77, not one of 0 "):
        _ = op.window, op.activation


@pytest.mark.parametrize("padding", Padding)
@pytest.mark.parametrize(("size", "kernel", "stride", "dilation"), [
    (7, 3, 1, 1), (7, 3, 2, 1), (8, 3, 2, 1), (9, 5, 3, 1), (6, 1, 2, 1), (9, 3, 1, 2), (4, 2, 3, 1), (11, 3, 1, 4),
])  # fmt: skip
def test_a_window_lies_where_tensorflows_does(
    size: int, kernel: int, stride: int, dilation: int, padding: Padding
) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(1, size, 12, 1)), rng.normal(size=(kernel, 2, 1, 1))
    wanted = np.asarray(tf.nn.conv2d(x, w, [1, stride, stride, 1], padding.name, dilations=[dilation, 1]))[0, :, :, 0]
    window = Window(padding, (stride, stride), (dilation, 1))
    assert window.output_size((size, 12), (kernel, 2)) == wanted.shape
    padded = np.pad(x[0, :, :, 0], window.pads((size, 12), (kernel, 2)))
    got = [
        sum(padded[i * stride + a * dilation, j * stride + b] * w[a, b, 0, 0] for a in range(kernel) for b in range(2))
        for i, j in np.ndindex(wanted.shape)
    ]
    np.testing.assert_allclose(np.reshape(got, wanted.shape), wanted, rtol=1e-12, atol=1e-12)


def test_same_puts_the_odd_pixel_at_the_end() -> None:
    assert same_pads(8, 3, 2) == (0, 1)
    assert same_pads(7, 3, 2) == (1, 1)
    assert same_pads(4, 1, 3) == (0, 0)  # a stride beyond the kernel needs nothing


def test_scales_broadcast_along_their_axis_and_one_scale_along_any() -> None:
    assert along_axis(np.arange(3), 0, 4).shape == (3, 1, 1, 1)
    assert along_axis(np.arange(3), 3, 4).shape == (1, 1, 1, 3)
    assert along_axis(np.arange(1), 7, 2).shape == (1, 1)
    assert along_axis(np.arange(1), 0, 0).shape == ()


def test_real_numbers_are_the_stored_ones_less_the_zero_point_times_the_scale() -> None:
    q = Quantization(np.array([0.5, 2.0], np.float32), np.array([1, -1]), axis=1)
    real = q.real(np.array([[1, 2], [3, -1]], np.int8))
    assert real.dtype == np.float32
    assert real.tolist() == [[0.0, 6.0], [1.0, 0.0]]


@pytest.mark.parametrize(
    ("kind", "shapes", "out", "options", "products"),
    [
        ("CONV_2D", [(1, 8, 8, 3), (4, 3, 3, 3)], (1, 8, 8, 4), {}, 8 * 8 * 4 * 27),
        ("DEPTHWISE_CONV_2D", [(1, 8, 8, 6), (1, 3, 3, 6)], (1, 4, 4, 6), {}, 4 * 4 * 6 * 9),
        ("FULLY_CONNECTED", [(1, 10), (7, 10)], (1, 7), {}, 70),
        ("BATCH_MATMUL", [(1, 3, 5, 2), (1, 3, 2, 4)], (1, 3, 5, 4), {"adjX": False}, 3 * 5 * 4 * 2),
        ("BATCH_MATMUL", [(1, 3, 2, 5), (1, 3, 2, 4)], (1, 3, 5, 4), {"adjX": True}, 3 * 5 * 4 * 2),
        ("TRANSPOSE_CONV", [(4,), (6, 3, 3, 2), (1, 4, 4, 2)], (1, 8, 8, 6), {}, 4 * 4 * 2 * 6 * 9),
        ("ADD", [(1, 9), (1, 9)], (1, 9), {}, 0),
    ],
)
def test_products_are_counted_in_all_that_multiplies_matrices(
    kind: str, shapes: list[tuple[int, ...]], out: tuple[int, ...], options: dict[str, bool], products: int
) -> None:
    names = tuple(f"in{i}" for i in range(len(shapes)))
    tensors = {n: Tensor(n, shape, "float32") for n, shape in (*zip(names, shapes, strict=True), ("out", out))}
    op = Op(kind, names, ("out",), options)
    assert multiply_adds(Graph("net", tensors, (op,), names, ("out",)), op) == products
