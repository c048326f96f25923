"""What a float graph must be to count as an image classifier, and the small changes that make it the canonical one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.errors import InputError
from edgenet.export.graph import Graph, Op, Tensor
from edgenet.export.importers.fuse import drop_unused
from edgenet.images import Preprocessing


def float_constants(path: Path, graph: Graph) -> Graph:
    """Return a .tflite's graph with float16 constants widened; refuse a quantized one.

    Raises:
        InputError: integers stand for real numbers in it.
    """
    give = "give the float file that it was made from"
    for name in (*graph.inputs, *graph.outputs):
        if graph.tensors[name].dtype != "float32":
            raise InputError(f"{path} is quantized, {name} is {graph.tensors[name].dtype}: {give}")
    tensors, ops = dict(graph.tensors), []
    for op in graph.ops:
        half = graph.tensors[str(op.inputs[0])] if op.kind == "DEQUANTIZE" else None
        if half is not None and half.dtype == "float16" and half.data is not None:
            tensors[op.outputs[0]] = replace(tensors[op.outputs[0]], data=half.data.astype(np.float32))
        else:
            ops.append(op)
    graph = drop_unused(replace(graph, tensors=tensors, ops=tuple(ops)))
    for t in graph.tensors.values():
        if t.dtype in ("int8", "uint8", "int16", "float16"):
            raise InputError(f"{path} is quantized, {t.name} is {t.dtype}: {give}")
    return graph


def checked(path: Path, graph: Graph) -> Graph:
    """Return `graph` if it is a float classifier of one picture.

    Raises:
        InputError: several inputs or outputs, an open shape, numbers that are no float32, an output of several axes.
    """
    for what, names in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        if len(names) != 1:
            raise InputError(f"{path} has {len(names)} {what} ({', '.join(names)}); an image classifier has one")
    for name in (graph.inputs[0], graph.outputs[0]):
        t = graph.tensors[name]
        if t.dtype != "float32":
            raise InputError(f"{path}: {name} is {t.dtype}; edgenet needs a network of float32: save it as one")
    for t in graph.tensors.values():
        if t.dtype == "float16" or any(n < 0 for n in t.shape):
            what = "has an open shape" if t.dtype != "float16" else "is float16 (mixed precision)"
            raise InputError(f"{path}: {t.name} {what}; save the network in float32 with fixed shapes")
    shape = graph.tensors[graph.outputs[0]].shape
    if int(np.prod(shape)) != max(shape, default=0):
        raise InputError(f"{path} gives an output of {'x'.join(map(str, shape))}; a classifier's is 1 x classes")
    return graph


def as_classifier(graph: Graph) -> tuple[Graph, str]:
    """Return the graph with an output of (1, classes) probabilities, and what was added for that, "" for nothing."""
    out = graph.outputs[0]
    shape = graph.tensors[out].shape
    tensors, ops = dict(graph.tensors), list(graph.ops)

    def emit(kind: str, inputs: tuple[str, ...], like: str, options: dict[str, Any], options_type: str) -> str:
        name = like
        while name in tensors:
            name += "_"
        tensors[name] = Tensor(name, (1, int(np.prod(shape))), "float32")
        ops.append(Op(kind, inputs, (name,), options, options_type))
        return name

    if len(shape) != 2:
        wanted = np.array([1, np.prod(shape)], np.int32)
        tensors[f"{out}_shape"] = Tensor(f"{out}_shape", (2,), "int32", wanted)
        out = emit("RESHAPE", (out, f"{out}_shape"), "flat_output", {"newShape": wanted}, "ReshapeOptions")
    producers, last = graph.producers(), graph.outputs[0]
    while last in producers and graph.ops[producers[last]].kind in ("RESHAPE", "SQUEEZE"):
        last = str(graph.ops[producers[last]].inputs[0])
    kind = graph.ops[producers[last]].kind if last in producers else ""
    added = ""
    if kind == "LOG_SOFTMAX":
        old = graph.ops[producers[last]]
        ops[producers[last]] = Op("SOFTMAX", old.inputs, old.outputs, {"beta": 1.0}, "SoftmaxOptions")
        added = "its log-softmax made a softmax"
    elif kind not in ("SOFTMAX", "LOGISTIC"):
        out = emit("SOFTMAX", (out,), "probabilities", {"beta": 1.0}, "SoftmaxOptions")
        added = "a softmax added"
    return replace(graph, tensors=tensors, ops=tuple(ops), outputs=(out,)), added


def rgb_input(graph: Graph, preprocessing: Preprocessing) -> tuple[Graph, Preprocessing]:
    """Return a network of BGR pictures as one of RGB: the first convolution's weights are turned, not each picture.

    Where something else reads the picture, both come back as they were.
    """
    image, consumers = graph.inputs[0], graph.consumers()
    readers = [(i, image) for i in consumers[image]]
    for i, _ in list(readers):
        if graph.ops[i].kind == "PAD":
            readers.remove((i, image))
            readers += [(j, graph.ops[i].outputs[0]) for j in consumers[graph.ops[i].outputs[0]]]
    convolutions = [
        graph.ops[i] for i, name in readers if graph.ops[i].kind == "CONV_2D" and graph.ops[i].inputs[0] == name
    ]
    weights = [graph.constant(op.inputs[1]) for op in convolutions]
    if preprocessing.channel_order == "rgb" or len(convolutions) != len(readers) or any(
        w is None or w.shape[3] != 3 for w in weights
    ):  # fmt: skip
        return graph, preprocessing
    tensors, ops = dict(graph.tensors), list(graph.ops)
    for (i, _), w in zip(readers, weights, strict=True):
        assert w is not None
        name = f"{graph.ops[i].inputs[1]}_rgb"
        tensors[name] = Tensor(name, w.shape, "float32", np.ascontiguousarray(w[..., ::-1]))
        ops[i] = replace(ops[i], inputs=(ops[i].inputs[0], name, *ops[i].inputs[2:]))
    turned = replace(preprocessing, channel_order="rgb", mean=preprocessing.mean[::-1], std=preprocessing.std[::-1])
    return replace(graph, tensors=tensors, ops=tuple(ops)), turned
