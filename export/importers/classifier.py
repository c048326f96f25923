"""What a float graph must be to count as an image classifier, and the small changes that make it the canonical one."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.errors import InputError
from edgenet.export.graph import Graph, Op, Tensor, fused
from edgenet.export.importers.fuse import drop_unused
from edgenet.images import Preprocessing
from edgenet.tasks import CLASSES, Task


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


def chosen_output(path: object, names: Sequence[str], asked: str | None) -> str:
    """Return the output that is wanted: the only one, or that with the name that was asked for.

    Raises:
        InputError: there are several and none was asked for, or there is none of that name.
    """
    listed = f"{path} has {len(names)} output{'s' * (len(names) != 1)} ({', '.join(names)})"
    if asked is None and len(names) != 1:
        raise InputError(f"{listed}; an image classifier has one: choose it, --output NAME")
    if asked is not None and asked not in names:
        raise InputError(f"{listed} and none called '{asked}': give --output one of these")
    return asked or names[0]


def checked(path: Path, graph: Graph) -> Graph:
    """Return `graph` if it is a float classifier of one picture.

    Raises:
        InputError: several inputs or outputs, an open shape, numbers that are no float32, an output of several axes.
    """
    if len(graph.inputs) != 1:
        raise InputError(
            f"{path} has {len(graph.inputs)} inputs ({', '.join(graph.inputs)}); an image classifier has one"
        )
    chosen_output(path, graph.outputs, None)
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


def ending_of(graph: Graph) -> str:
    """Return how a network ends: softmax | sigmoid | normalised (to the length 1) | pooled | linear."""
    producers = graph.producers()
    last = _before_reshapes(graph, graph.outputs[0])
    kind = graph.ops[producers[last]].kind if last in producers else ""
    if kind in ("DIV", "MUL") and _divides_by_length(graph, graph.ops[producers[last]]):
        return "normalised"
    return _ENDINGS.get(kind, "linear")


_ENDINGS = {
    "SOFTMAX": "softmax", "LOG_SOFTMAX": "softmax", "LOGISTIC": "sigmoid", "L2_NORMALIZATION": "normalised",
    "MEAN": "pooled", "AVERAGE_POOL_2D": "pooled", "MAX_POOL_2D": "pooled", "REDUCE_MAX": "pooled",
}  # fmt: skip


def _before_reshapes(graph: Graph, name: str) -> str:
    """Return the tensor that is only given another shape until it is `name`."""
    producers = graph.producers()
    while name in producers and graph.ops[producers[name]].kind in ("RESHAPE", "SQUEEZE"):
        name = str(graph.ops[producers[name]].inputs[0])
    return name


def _divides_by_length(graph: Graph, op: Op) -> bool:
    """Whether an operator divides, or multiplies, a vector by what its own sum of squares gives."""
    producers = graph.producers()
    vector, way, summed = str(op.inputs[0]), str(op.inputs[1]), False
    for _ in range(8):  # square, sum, root, maximum with a small number, reshapes
        if way == vector:
            return summed
        if way not in producers:
            return False
        before = graph.ops[producers[way]]
        summed = summed or before.kind == "SUM"
        way = next((str(n) for n in before.inputs if n is not None and graph.constant(n) is None), "")
    return False


def as_classifier(graph: Graph, task: Task = CLASSES) -> tuple[Graph, str]:
    """Return the graph with an output of (1, N) as its task has it, and what was added for that, "" for nothing.

    That is probabilities: of classes by a softmax, of yes or of each label by a sigmoid. An embedding stays as it is.
    """
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
    producers, last = graph.producers(), _before_reshapes(graph, graph.outputs[0])
    kind = graph.ops[producers[last]].kind if last in producers else ""
    added = ""
    if task.kind in ("binary", "labels"):
        if kind != "LOGISTIC":
            out = emit("LOGISTIC", (out,), "probabilities", {}, "NONE")
            added = "a sigmoid added"
    elif task.kind == "classes" and kind == "LOG_SOFTMAX":
        old = graph.ops[producers[last]]
        ops[producers[last]] = Op("SOFTMAX", old.inputs, old.outputs, {"beta": 1.0}, "SoftmaxOptions")
        added = "its log-softmax made a softmax"
    elif task.kind == "classes" and kind not in ("SOFTMAX", "LOGISTIC"):
        out = emit("SOFTMAX", (out,), "probabilities", {"beta": 1.0}, "SoftmaxOptions")
        added = "a softmax added"
    made = replace(graph, tensors=tensors, ops=tuple(ops), outputs=(out,))
    return (_spelt_out(made) if task.kind == "embedding" else made), added


def _spelt_out(graph: Graph) -> Graph:
    """Return the graph with a last L2_NORMALIZATION as the operators that it stands for, which all formats have.

    As LiteRT's kernel computes it: x / max(sqrt(sum(x^2)), 1e-6).
    """
    producers, last = graph.producers(), _before_reshapes(graph, graph.outputs[0])
    if last not in producers or graph.ops[producers[last]].kind != "L2_NORMALIZATION":
        return graph
    at = producers[last]
    vector, shape, tensors = str(graph.ops[at].inputs[0]), graph.tensors[last].shape, dict(graph.tensors)
    one = (*shape[:-1], 1)
    made = {name: f"{last}_{name}" for name in ("axes", "least", "squares", "sum", "root", "length")}
    tensors[made["axes"]] = Tensor(made["axes"], (1,), "int32", np.array([len(shape) - 1], np.int32))
    tensors[made["least"]] = Tensor(made["least"], (1,), "float32", np.array([1e-6], np.float32))
    tensors |= {
        made[n]: Tensor(made[n], shape if n == "squares" else one, "float32")
        for n in ("squares", "sum", "root", "length")
    }
    spelt = (
        Op("MUL", (vector, vector), (made["squares"],), fused(), "MulOptions"),
        Op("SUM", (made["squares"], made["axes"]), (made["sum"],), {"keepDims": True}, "ReducerOptions"),
        Op("SQRT", (made["sum"],), (made["root"],)),
        Op("MAXIMUM", (made["root"], made["least"]), (made["length"],), {}, "MaximumMinimumOptions"),
        Op("DIV", (vector, made["length"]), (last,), fused(), "DivOptions"),
    )
    return replace(graph, tensors=tensors, ops=(*graph.ops[:at], *spelt, *graph.ops[at + 1 :]))


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
