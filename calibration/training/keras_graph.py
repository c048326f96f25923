"""A graph as a tf-keras model: the float one, and the quantized one whose simulated integers can learn.

The quantized model is made from the very graph that `quantize()` returns and every exporter writes, operator by
operator, and wrapped by tensorflow-model-optimization (`quantize_annotate_layer` and `quantize_apply` with quantizers
of our own, see fake_quantizers.py). So what is trained is what is exported, and before the first step it answers as the
post-training file does.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgenet.calibration.quantize import FREE, INTEGER, Weight, adds_in_pairs, share_pairs
from edgenet.calibration.training.links import Links, Step, ratio_of
from edgenet.errors import InputError
from edgenet.export.graph import WEIGHT_AXIS, Graph, Op
from edgenet.export.tensorflow_operators import FUNCTIONS, from_tensorflow, keras_activation, to_tensorflow
from edgenet.frameworks import keras, quiet, tfmot
from edgenet.results import Calibration

NEAR = 0.49  # of a step: how far from its integer a latent weight may start
# Operators that only move numbers: their output has the input's scale, and nothing is rounded.
MOVES = {"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "PAD", "MAX_POOL_2D"}
# Operators that read a scale as it is, so that it may move.
_READS_ANY_SCALE = set(WEIGHT_AXIS) | FREE | MOVES | {"DEQUANTIZE", "LOGISTIC", "TANH"}


def float_model(graph: Graph, any_size: bool = False) -> Any:
    """Return a float graph as a tf-keras model from (N, H, W, 3) float32, normalised, to (N, classes) logits.

    Args:
        any_size: of the picture, where no operator is bound to the graph's own.

    Raises:
        InputError: an operator that cannot be trained.
        MissingDependency: tf-keras is not installed.
    """
    with custom_objects():
        shape = (None, None, 3) if any_size else graph.tensors[graph.inputs[0]].shape[1:]
        model = _assemble(graph, graph.logits(), lambda layer, op: layer, quantized=False, shape=shape)
    for op in graph.ops:
        if op.kind in WEIGHT_AXIS and layer_name(op.outputs[0]) in _names(model):
            w, bias = graph.constant(op.inputs[1]), _bias(graph, op)
            assert w is not None
            arrays = [to_tensorflow(op.kind, w, _inputs(graph, op))]
            model.get_layer(layer_name(op.outputs[0])).set_weights(arrays if bias is None else [*arrays, bias])
    model.trainable = False
    return model


def trained_constants(graph: Graph, model: Any) -> dict[str, np.ndarray]:
    """Return the weights that a `float_model` of the graph, or of a part of it, has now, by the graph's names."""
    found: dict[str, np.ndarray] = {}
    for op in graph.ops:
        if op.kind in WEIGHT_AXIS and layer_name(op.outputs[0]) in _names(model):
            arrays = [np.asarray(v, np.float32) for v in model.get_layer(layer_name(op.outputs[0])).get_weights()]
            found[str(op.inputs[1])] = np.ascontiguousarray(from_tensorflow(op.kind, arrays[0]))
            if len(arrays) > 1:
                found[str(op.inputs[2])] = arrays[1]
    return found


def custom_objects() -> Any:
    """Return the context in which Keras knows our layers by name."""
    from edgenet.calibration.training.fake_quantizers import CUSTOM_OBJECTS

    return keras().utils.custom_object_scope(CUSTOM_OBJECTS)


@dataclass(frozen=True)
class FakeQuantized:
    """The quantized graph as a model that can be trained, and the way back."""

    model: Any  # (N, H, W, 3) float32, normalised -> (N, classes) logits on the grid of the file's
    quantized: Graph
    bits: Mapping[str, int]
    in_pairs: bool = False

    def trained(self, calibration: Calibration) -> tuple[dict[str, Weight], Calibration]:
        """Return the integers that the model has now and its ranges, for `quantize(graph, "int8", ...)`."""
        weights, ranges = {}, dict(calibration.ranges)
        steps = _Steps(self.quantized, self.model)
        for op in self.quantized.ops:
            name, q = op.outputs[0], self.quantized.tensors[op.outputs[0]].quantization
            if layer_name(name) not in _names(self.model):
                continue
            values = _values(self.model.get_layer(layer_name(name)))
            if values.get("output_moved"):
                assert q is not None
                step, zero = float(steps.of(name)()), int(q.zero_point[0])
                ranges[name] = ((-128 - zero) * step, (127 - zero) * step)
            if op.kind in WEIGHT_AXIS:
                pairs = self.in_pairs and _in_pairs(self.quantized, op)
                factor = np.asarray(self.model.get_layer(layer_name(name)).quantize_config.factor())
                fed = float(steps.of(str(op.inputs[0]))())
                weights[name] = _read_weight(self.quantized, op, values, self.bits.get(name, 8), pairs, factor, fed)
        return weights, replace(calibration, ranges=ranges, method=f"{calibration.method}+trained")


def fake_quantized(
    quantized: Graph,
    latent: Mapping[str, np.ndarray],
    bits: Mapping[str, int],
    *,
    in_pairs: bool = False,
    learn_ranges: bool = True,
    learn_scales: bool = False,
) -> FakeQuantized:
    """Return an int8 graph as a model that answers as its file does, and can learn.

    Args:
        quantized: from `quantize(graph, "int8", ...)`.
        latent: float weights by the operator's output: a weight starts as near to its own as its integer allows.
        bits: of each operator's weights, by the operator's output; 8 where it does not say.
        in_pairs: two weights whose products a kernel adds first share PAIR_LIMIT, as `gptq.Rounding` has it.
        learn_ranges: let the ranges of activations move, where no other scale hangs on them.
        learn_scales: let the scales of weights move.

    Raises:
        InputError: an operator that cannot be trained.
        MissingDependency: tf-keras or tensorflow-model-optimization is not installed.
    """
    api = tfmot()
    from edgenet.calibration.training.fake_quantizers import LayerConfig, OnlyAnnotated

    free = _free_ranges(quantized) if learn_ranges else set()

    def wrap(layer: Any, op: Op) -> Any:
        out = op.outputs[0]
        rounds = quantized.tensors[out].quantization is not None and op.kind not in MOVES
        if not rounds and op.kind not in WEIGHT_AXIS:
            return layer
        pairs = in_pairs and _in_pairs(quantized, op)
        config = LayerConfig(bits.get(out, 8), rounds, out in free, learn_scales, pairs)
        return api.quantize_annotate_layer(layer, quantize_config=config)

    with quiet(), custom_objects(), api.quantize_scope():
        annotated = _assemble(quantized, quantized_logits(quantized), wrap, quantized=True)
        model = api.quantize_apply(annotated, scheme=OnlyAnnotated(), quantized_layer_name_prefix="")
    steps = _Steps(quantized, model)
    for op in quantized.ops:
        if layer_name(op.outputs[0]) in _names(model):
            _calibrate(model.get_layer(layer_name(op.outputs[0])), quantized, op, latent)
            steps.link(op)
    return FakeQuantized(model, quantized, dict(bits), in_pairs)


def _in_pairs(graph: Graph, op: Op) -> bool:
    return op.kind in WEIGHT_AXIS and adds_in_pairs(op.kind, graph.tensors[str(op.inputs[1])].shape)


class _Steps:
    """Finds the scale of each activation as the model has it now: a variable's, which may learn."""

    def __init__(self, graph: Graph, model: Any) -> None:
        self.graph, self.model, self.producers = graph, model, graph.producers()

    def of(self, name: str) -> Step:
        """Return a function that gives the scale of an activation, 1 where it is a real number."""
        if self.graph.tensors[name].quantization is None:
            return lambda: np.float32(1.0)
        if name in self.graph.inputs:  # of a network above a cut: levels come in
            q = self.graph.tensors[name].quantization
            assert q is not None
            fixed = np.float32(q.scale[0])
            return lambda: fixed
        op = self.graph.ops[self.producers[name]]
        if op.kind in MOVES:
            return self.of(str(op.inputs[0]))
        by_name = {_variable(v): v for v in self.model.get_layer(layer_name(name)).weights}
        step, moved = by_name["output_step"], by_name.get("output_moved")
        return lambda: step if moved is None else step * ratio_of(moved)

    def link(self, op: Op) -> None:
        """Tell the layer of an operator what the integers of its inputs and its output mean."""
        layer = self.model.get_layer(layer_name(op.outputs[0]))
        q = self.graph.tensors[op.outputs[0]].quantization
        zero = 0 if q is None else int(q.zero_point[0])
        low, high = (bound - zero for bound in INTEGER["int8"])
        fed = [n for n in op.inputs if n is not None and not _is_constant(self.graph, n)]
        links = Links(
            inputs=tuple(self.of(n) for n in fed),
            output=self.of(op.outputs[0]),
            low=low,
            high=high,
            activation=keras_activation(op),
        )
        holders: tuple[Any, ...] = (layer, getattr(layer, "layer", None), getattr(layer, "quantize_config", None))
        for holder in holders:
            if hasattr(holder, "links"):
                holder.links = links


def _calibrate(layer: Any, graph: Graph, op: Op, latent: Mapping[str, np.ndarray]) -> None:
    """Put the graph's scales, integers and biases into the variables of one wrapped layer."""
    values: dict[str, np.ndarray | float] = {}
    q = graph.tensors[op.outputs[0]].quantization
    if q is not None:
        values["output_step"] = float(q.scale[0])
    if op.kind in WEIGHT_AXIS:
        t = graph.tensors[str(op.inputs[1])]
        assert t.data is not None
        assert t.quantization is not None
        integers, (steps, _) = t.data.astype(np.float32), t.quantization.broadcast(t.data.ndim)
        if op.outputs[0] in latent:
            integers = np.clip(latent[op.outputs[0]] / steps, integers - NEAR, integers + NEAR)
        kernel, x = _kernel(op.kind), _inputs(graph, op)
        values[kernel] = to_tensorflow(op.kind, integers, x)
        own = np.shape(values[kernel])[-2 if op.kind == "DEPTHWISE_CONV_2D" else -1 :]  # axes with a scale each
        values[f"{kernel}_scale"] = to_tensorflow(op.kind, np.broadcast_to(steps, t.data.shape), x).reshape(-1, *own)[0]
        bias = _bias(graph, op)
        if bias is not None:
            values["bias"] = bias / (float(q.scale[0]) if q is not None else 1.0)
    for v in layer.weights:
        if _variable(v) in values:
            v.assign(np.asarray(values[_variable(v)], np.float32).reshape(v.shape))


def _read_weight(
    graph: Graph, op: Op, values: Mapping[str, np.ndarray], bits: int, pairs: bool, factor: np.ndarray, fed: float
) -> Weight:
    """Return what a layer has learned. factor: (C,) from its sums to the output's levels; fed: the input's step."""
    kernel = _kernel(op.kind)
    ratio = np.asarray(ratio_of(values[f"{kernel}_moved"])) if f"{kernel}_moved" in values else np.float32(1)
    limit = 127 if pairs else 2 ** (bits - 1) - 1
    integers = np.rint(np.clip(values[kernel] / ratio, -limit, limit))
    scales = np.broadcast_to(values[f"{kernel}_scale"] * ratio, integers.shape)
    axis, t = WEIGHT_AXIS[op.kind], graph.tensors[str(op.inputs[1])]
    stored = from_tensorflow(op.kind, integers)
    stored = (share_pairs(stored) if pairs else stored).astype(np.int8)
    per_channel = np.moveaxis(from_tensorflow(op.kind, scales), axis, 0).reshape(stored.shape[axis], -1)[:, 0]
    assert t.quantization is not None
    scale = per_channel[:1] if len(t.quantization.scale) == 1 else per_channel
    bias = None
    if "bias" in values:
        # The very integer that the simulation adds: rounding it differently would change all later layers.
        added = np.rint(values["bias"] / factor).astype(np.float64)
        bias = (added * (np.float64(fed) * scale)).astype(np.float32)
    return Weight(np.ascontiguousarray(stored), scale.astype(np.float32), axis, bias, bits)


# --------------------------------------------------------------------------------------------------------- assembling


def _assemble(
    graph: Graph, output: str, wrap: Callable[[Any, Op], Any], quantized: bool, shape: Sequence[int | None] = ()
) -> Any:
    """Return the model from the graph's input to tensor `output`, each layer called after its operator's output."""
    k = keras()
    image = k.layers.Input(shape or graph.tensors[graph.inputs[0]].shape[1:], name="picture")
    made: dict[str, Any] = {graph.inputs[0]: image}
    for op in graph.ops:
        fed = [made[n] for n in op.inputs if n in made]
        made[op.outputs[0]] = wrap(_layer(graph, op, quantized), op)(fed[0] if len(fed) == 1 else fed)
        if op.outputs[0] == output:
            break
    return k.Model(image, made[output])


def _layer(graph: Graph, op: Op, quantized: bool) -> Any:
    layers, name = keras().layers, layer_name(op.outputs[0])
    # In integers an activation is a bound of the output's range.
    activation = None if quantized else keras_activation(op)
    if op.kind in WEIGHT_AXIS:
        w = graph.constant(op.inputs[1])
        if w is None:
            raise InputError(f"{op.outputs[0]} ({op.kind}) cannot be trained: its weights are computed")
        shared = {"use_bias": _bias(graph, op) is not None, "activation": activation, "name": name}
        if op.kind == "FULLY_CONNECTED":
            return layers.Dense(w.shape[0], **shared)
        window = op.window
        geometry = {"strides": window.strides, "padding": window.padding.name.lower(),
                    "dilation_rate": window.dilations}  # fmt: skip
        if op.kind == "DEPTHWISE_CONV_2D":
            multiplier = w.shape[3] // _inputs(graph, op)
            return layers.DepthwiseConv2D(w.shape[1:3], depth_multiplier=multiplier, **geometry, **shared)
        if w.shape[3] != _inputs(graph, op):
            raise InputError(f"{op.outputs[0]} is a grouped convolution, which TensorFlow cannot train on a CPU")
        return layers.Conv2D(w.shape[0], w.shape[1:3], **geometry, **shared)
    if op.kind not in FUNCTIONS:
        valid = ", ".join(sorted({*WEIGHT_AXIS, *FUNCTIONS}))
        raise InputError(
            f"{op.outputs[0]} is a {op.kind}, which cannot be trained (valid: {valid}): `edgenet run` quantizes this "
            "network without training"
        )
    constants = {str(i): _real(graph, n).tolist() for i, n in enumerate(op.inputs) if n and _is_constant(graph, n)}
    options = {key: v.tolist() if isinstance(v, np.ndarray) else v for key, v in op.options.items()}
    if op.kind in ("RESHAPE", "SQUEEZE", "EXPAND_DIMS"):
        options["shape"] = list(graph.tensors[op.outputs[0]].shape[1:])
    from edgenet.calibration.training.operator_layer import Operator

    return Operator(op.kind, options, constants, activation, name=name)


def _is_constant(graph: Graph, name: str) -> bool:
    return graph.tensors[name].data is not None


def _real(graph: Graph, name: str) -> np.ndarray:
    t = graph.tensors[name]
    assert t.data is not None
    return t.data if t.quantization is None else t.quantization.real(t.data)


def _bias(graph: Graph, op: Op) -> np.ndarray | None:
    name = op.inputs[2] if len(op.inputs) > 2 else None
    return None if name is None else _real(graph, name).astype(np.float32)


def _inputs(graph: Graph, op: Op) -> int:
    return graph.tensors[str(op.inputs[0])].shape[-1]


def _kernel(kind: str) -> str:
    return "depthwise_kernel" if kind == "DEPTHWISE_CONV_2D" else "kernel"


def layer_name(tensor: str) -> str:
    """Return what the layer is called that computes a tensor of the graph: Keras takes fewer characters."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", tensor)


def _names(model: Any) -> set[str]:
    return {layer.name for layer in model.layers}


def _variable(v: Any) -> str:
    return str(v.name).rsplit("/", 1)[-1].split(":")[0]


def _values(layer: Any) -> dict[str, np.ndarray]:
    return {_variable(v): np.asarray(v) for v in layer.weights}


def quantized_logits(graph: Graph) -> str:
    """Return the float tensor that the softmax reads, or the float output where there is no softmax."""
    op = graph.ops[graph.producers()[graph.outputs[0]]]
    return str(op.inputs[0]) if op.kind == "SOFTMAX" else graph.outputs[0]


def _free_ranges(graph: Graph) -> set[str]:
    """Return the activations whose range may move: chosen by calibration, and no other scale is tied to them."""
    consumers = graph.consumers()

    def readers(name: str) -> set[str]:
        kinds: set[str] = set()
        for i in consumers[name]:
            op = graph.ops[i]
            kinds |= {op.kind} | (readers(op.outputs[0]) if op.kind in MOVES else set())
        return kinds

    chosen = (op.outputs[0] for op in graph.ops if op.kind in set(WEIGHT_AXIS) | FREE)
    return {n for n in chosen if graph.tensors[n].quantization is not None and readers(n) <= _READS_ANY_SCALE}
