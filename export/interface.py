"""The input and output of a file: float32, or raw 8-bit pixels and 8-bit probabilities (`--io`); logits on request.

With uint8 the input is the pixel itself, 0..255; with int8 it is the pixel minus 128. Either way the file normalises.
"""

from dataclasses import replace

import numpy as np

from edgenet.errors import InputError
from edgenet.export.graph import Graph, Op, Quantization, Tensor, fused
from edgenet.images import Preprocessing
from edgenet.options import IO_DTYPES

LOGITS = "logits"
PROBABILITY = {"int8": Quantization.per_tensor(1 / 256, -128), "uint8": Quantization.per_tensor(1 / 256, 0)}


def with_io(graph: Graph, io: str, preprocessing: Preprocessing) -> Graph:
    """Return `graph`, which takes and gives float32, with an interface of type `io`.

    Raises:
        InputError: unknown type, or an output that has no 8-bit form.
    """
    if io not in IO_DTYPES:
        raise InputError(f"unknown --io '{io}' (valid: {', '.join(IO_DTYPES)})")
    if io == "float32":
        return graph
    return _integer_output(_raw_pixels(graph, io, preprocessing), io)


def with_logits(graph: Graph) -> Graph:
    """Return the graph with what its softmax reads as a second output, called `logits`.

    Raises:
        InputError: it ends in no softmax.
    """
    logits = graph.logits()
    if logits == graph.outputs[0]:
        raise InputError("--logits needs a network that ends in a softmax: leave it out, the output is what there is")
    new = {LOGITS: f"{LOGITS}_stored", logits: LOGITS} if logits != LOGITS else {}
    renamed = graph.renamed(new)
    return replace(renamed, outputs=(*renamed.outputs, LOGITS))


def pixel_quantization(preprocessing: Preprocessing, io: str) -> Quantization | None:
    """Return the scale and zero point with which a stored pixel is the normalised input, None where none are."""
    mean, std = set(preprocessing.mean), set(preprocessing.std)
    if len(mean) != 1 or len(std) != 1 or not float(next(iter(mean))).is_integer():
        return None
    return Quantization.per_tensor(1 / next(iter(std)), int(next(iter(mean))) - (128 if io == "int8" else 0))


def _raw_pixels(graph: Graph, io: str, preprocessing: Preprocessing) -> Graph:
    image = graph.inputs[0]
    shape = graph.tensors[image].shape
    exact = pixel_quantization(preprocessing, io)
    tensors = dict(graph.tensors)
    tensors[image] = Tensor(image, shape, io, None, exact or Quantization.per_tensor(1.0, -128 if io == "int8" else 0))
    front, rest, floating = [], [], f"{image}_normalised"
    rename = {image: floating}
    for op in graph.ops:
        quantized = tensors[op.outputs[0]]
        if exact and op.kind == "QUANTIZE" and op.inputs[0] == image and quantized.dtype == "int8":
            if io == "int8" and quantized.quantization is not None and exact.equals(quantized.quantization):
                rename[op.outputs[0]] = image  # the input is what this made: nothing to do
            else:
                rest.append(op)  # uint8 -> int8, a shift by 128
                continue
        else:
            rest.append(replace(op, inputs=tuple(None if n is None else rename.get(n, n) for n in op.inputs)))
    if any(floating in op.inputs for op in rest):
        source = floating if exact else f"{image}_raw"
        tensors[source] = Tensor(source, shape, "float32")
        front.append(Op("DEQUANTIZE", (image,), (source,), options_type="DequantizeOptions"))
        if not exact:
            std = np.array(preprocessing.std, np.float32)
            scale, shift = f"{image}_scale", f"{image}_shift"
            tensors[scale] = Tensor(scale, std.shape, "float32", 1 / std)
            tensors[shift] = Tensor(shift, std.shape, "float32", -np.array(preprocessing.mean, np.float32) / std)
            scaled = f"{image}_scaled"
            tensors[scaled], tensors[floating] = Tensor(scaled, shape, "float32"), Tensor(floating, shape, "float32")
            front.append(Op("MUL", (source, scale), (scaled,), fused(), "MulOptions"))
            front.append(Op("ADD", (scaled, shift), (floating,), fused(), "AddOptions"))
    return replace(graph, tensors=tensors, ops=(*front, *rest))


def _integer_output(graph: Graph, io: str) -> Graph:
    out = graph.outputs[0]
    producers = graph.producers()
    last = graph.ops[producers[out]]
    before = graph.ops[producers[str(last.inputs[0])]] if last.inputs[0] in producers else None
    tensors, ops = dict(graph.tensors), list(graph.ops)
    shape = tensors[out].shape
    stored = tensors[str(before.inputs[0])] if before is not None and before.kind == "DEQUANTIZE" else None
    if last.kind == "SOFTMAX" and stored is not None and stored.dtype == "int8":
        int8 = out if io == "int8" else f"{out}_int8"
        tensors[int8] = Tensor(int8, shape, "int8", None, PROBABILITY["int8"])
        ops = [op for op in ops if op is not last and op is not before]
        ops.append(replace(last, inputs=(stored.name,), outputs=(int8,)))
        if io == "uint8":
            ops.append(Op("QUANTIZE", (int8,), (out,), options_type="QuantizeOptions"))
            tensors[out] = Tensor(out, shape, "uint8", None, PROBABILITY["uint8"])
    elif last.kind in ("SOFTMAX", "LOGISTIC"):
        floating = f"{out}_float32"
        tensors[floating] = replace(tensors[out], name=floating)
        tensors[out] = Tensor(out, shape, io, None, PROBABILITY[io])
        ops[producers[out]] = replace(last, outputs=(floating,))
        ops.append(Op("QUANTIZE", (floating,), (out,), options_type="QuantizeOptions"))
    else:
        raise InputError(
            f"--io {io} needs an output that ends in a softmax, this one ends in {last.kind}: use --io float32"
        )
    return replace(graph, tensors=tensors, ops=tuple(ops))
