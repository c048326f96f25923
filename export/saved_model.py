"""Write a float graph as a TensorFlow SavedModel, for timing in TensorFlow itself: one function, weights as variables.

A SavedModel keeps variables in files of their own, so that, unlike a flatbuffer, it holds more than 2 GB.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.errors import InputError
from edgenet.export.graph import WEIGHT_AXIS, Graph, Op
from edgenet.export.tensorflow_operators import FUNCTIONS, activated, keras_activation, to_tensorflow
from edgenet.files import atomic_folder
from edgenet.frameworks import quiet, tensorflow

SUFFIX = ".savedmodel"


def to_saved_model(graph: Graph, path: Path) -> Path:
    """Write `graph` into the folder `path`, whole or not at all.

    The function `serve` takes (1, H, W, 3) float32, normalised, and returns the graph's output.

    Raises:
        InputError: an operator that is not known here, or quantized numbers.
    """
    module = _module(graph)
    tf = tensorflow()
    with atomic_folder(path) as tmp, quiet():
        tf.saved_model.save(module, str(tmp))
    return path


def _module(graph: Graph) -> Any:
    """Return a tf.Module with the function `serve`."""
    tf = tensorflow()
    module = tf.Module()
    steps = [(op, _function(tf, graph, op)) for op in graph.ops]
    source = graph.inputs[0]

    def serve(image: Any) -> Any:
        made = {source: image}
        for op, compute in steps:
            fed = [made[n] for n in op.inputs if n in made]
            made[op.outputs[0]] = compute(fed)
        return made[graph.outputs[0]]

    shape = graph.tensors[source].shape
    module.serve = tf.function(serve, input_signature=[tf.TensorSpec(shape, tf.float32, "image")])
    module.variables_used = [v for _, compute in steps for v in getattr(compute, "variables", ())]
    return module


def _function(tf: Any, graph: Graph, op: Op) -> Callable[[list[Any]], Any]:
    """Return what the operator does with those of its inputs that are computed."""
    activation = keras_activation(op)
    if op.kind in WEIGHT_AXIS:
        return _weighted(tf, graph, op, activation)
    constants = {i: graph.constant(n) for i, n in enumerate(op.inputs) if n and graph.constant(n) is not None}
    shape = list(graph.tensors[op.outputs[0]].shape)
    functions: dict[str, Callable[[Any, list[Any], Any], Any]] = {
        **FUNCTIONS,
        "SLICE": lambda tf, x, o: tf.slice(x[0], x[1], x[2]),
        **{kind: lambda tf, x, o: tf.reshape(x[0], shape) for kind in ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")},
    }
    if op.kind not in functions:
        raise InputError(f"{op.outputs[0]} is a {op.kind}, which is not written for TensorFlow")

    def compute(fed: list[Any]) -> Any:
        x = list(fed)
        for i in sorted(constants):
            x.insert(i, constants[i])
        return activated(tf, functions[op.kind](tf, x, op.options), activation)

    return compute


def _weighted(tf: Any, graph: Graph, op: Op, activation: str | None) -> Callable[[list[Any]], Any]:
    w = graph.constant(op.inputs[1])
    if w is None or w.dtype != np.float32:
        raise InputError(f"{op.outputs[0]} ({op.kind}): its weights are not float32 constants")
    b = graph.constant(op.inputs[2]) if len(op.inputs) > 2 else None
    w = to_tensorflow(op.kind, w, graph.tensors[str(op.inputs[0])].shape[-1])
    kernel = tf.Variable(np.ascontiguousarray(w), trainable=False)
    bias = None if b is None else tf.Variable(b, trainable=False)

    def compute(fed: list[Any]) -> Any:
        x = fed[0]
        if op.kind == "FULLY_CONNECTED":
            y = tf.linalg.matmul(tf.reshape(x, [-1, kernel.shape[0]]), kernel)
        else:
            window = op.window
            convolve = tf.nn.conv2d if op.kind == "CONV_2D" else tf.nn.depthwise_conv2d
            y = convolve(x, kernel, [1, *window.strides, 1], window.padding.name, dilations=window.dilations)
        return activated(tf, y if bias is None else tf.nn.bias_add(y, bias), activation)

    compute.variables = [kernel] if bias is None else [kernel, bias]  # type: ignore[attr-defined]
    return compute
