"""What TFLite's operators without weights, activations and paddings are called in TensorFlow and Keras."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgenet.errors import InputError
from edgenet.export.graph import Activation, Op, Padding

_KERAS = {Activation.NONE: None, Activation.RELU: "relu", Activation.RELU6: "relu6"}


def keras_activation(op: Op) -> str | None:
    """Return what Keras calls the operator's fused activation. Raises InputError for one that it does not have."""
    if op.activation not in _KERAS:
        valid = ", ".join(a.name for a in _KERAS)
        raise InputError(
            f"{op.outputs[0]} ({op.kind}) has the fused activation {op.activation.name}, which has no form in "
            f"TensorFlow here (valid: {valid})"
        )
    return _KERAS[op.activation]


def activated(tf: Any, x: Any, activation: str | None) -> Any:
    """Return `x` after the activation that `keras_activation` named."""
    return x if activation is None else {"relu": tf.nn.relu, "relu6": tf.nn.relu6}[activation](x)


def _pool(tf: Any, x: Any, o: Mapping[str, Any], mode: str) -> Any:
    window, strides = (o["filterHeight"], o["filterWidth"]), (o["strideH"], o["strideW"])
    return tf.nn.pool(x, window, mode, strides, Padding(o["padding"]).name)


def axes(constant: Any) -> list[int]:
    """Return the axes that a constant operand names, as whole numbers."""
    return [int(a) for a in np.atleast_1d(constant)]


def to_tensorflow(kind: str, w: np.ndarray, inputs: int) -> np.ndarray:
    """Return weights of an operator with `inputs` channels in TensorFlow's layout instead of TFLite's.

    OHWI -> HWIO, (1, H, W, C * m) -> (H, W, C, m), (out, in) -> (in, out).
    """
    if kind == "DEPTHWISE_CONV_2D":
        return w.reshape(*w.shape[1:3], inputs, -1)
    return w.transpose(1, 2, 3, 0) if kind == "CONV_2D" else w.T


def from_tensorflow(kind: str, w: np.ndarray) -> np.ndarray:
    """Return weights in TFLite's layout instead of TensorFlow's: what `to_tensorflow` was given."""
    if kind == "DEPTHWISE_CONV_2D":
        return w.reshape(1, *w.shape[:2], -1)
    return w.transpose(3, 0, 1, 2) if kind == "CONV_2D" else w.T


Function = Callable[[Any, list[Any], Mapping[str, Any]], Any]
# kind -> function of (tf, inputs in the operator's order, constants among them as numbers; options).
ON_LEVELS: dict[str, Function] = {  # these give the input's scale: levels in, levels out
    "AVERAGE_POOL_2D": lambda tf, x, o: _pool(tf, x[0], o, "AVG"),
    "MAX_POOL_2D": lambda tf, x, o: _pool(tf, x[0], o, "MAX"),
    "PAD": lambda tf, x, o: tf.pad(x[0], np.asarray(x[1], np.int32)),
    "CONCATENATION": lambda tf, x, o: tf.concat(x, int(o["axis"])),
    **{kind: lambda tf, x, o: tf.reshape(x[0], [-1, *o["shape"]]) for kind in ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")},
}
ON_REALS: dict[str, Function] = {
    "ADD": lambda tf, x, o: x[0] + x[1],
    "SUB": lambda tf, x, o: x[0] - x[1],
    "MUL": lambda tf, x, o: x[0] * x[1],
    "MEAN": lambda tf, x, o: tf.reduce_mean(x[0], axes(x[1]), keepdims=bool(o.get("keepDims"))),
    "SUM": lambda tf, x, o: tf.reduce_sum(x[0], axes(x[1]), keepdims=bool(o.get("keepDims"))),
    "RELU": lambda tf, x, o: tf.nn.relu(x[0]),
    "RELU6": lambda tf, x, o: tf.nn.relu6(x[0]),
    "LEAKY_RELU": lambda tf, x, o: tf.nn.leaky_relu(x[0], o["alpha"]),
    "HARD_SWISH": lambda tf, x, o: x[0] * tf.nn.relu6(x[0] + 3.0) / 6.0,
    "GELU": lambda tf, x, o: tf.nn.gelu(x[0], bool(o.get("approximate"))),
    "LOGISTIC": lambda tf, x, o: tf.sigmoid(x[0]),
    "TANH": lambda tf, x, o: tf.tanh(x[0]),
    "SOFTMAX": lambda tf, x, o: tf.nn.softmax(x[0]),
    "QUANTIZE": lambda tf, x, o: tf.identity(x[0]),
    "DEQUANTIZE": lambda tf, x, o: tf.identity(x[0]),
}
FUNCTIONS = {**ON_LEVELS, **ON_REALS}
