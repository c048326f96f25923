"""What LiteRT's reference kernels answer, which every microcontroller computes too but for one rounding.

LiteRT's reference of the dense layer brings sums to the output's scale in floating point and rounds once. tflite-micro
does it as all its kernels, and LiteRT's other ones, do: by a multiplier of 31 bits and a shift, with a rounding each.
So a few logits in a thousand are one step off.
"""

from pathlib import Path
from typing import Any

import numpy as np

from edgenet.calibration.integer_reference import multiply_by_quantized_multiplier
from edgenet.export.tflite_file import schema

DENSE = "FULLY_CONNECTED"


def by_reference_kernels(path: Path, batch: np.ndarray) -> np.ndarray:
    """Return the answers to what the file takes: (N, classes) float32, dequantized."""
    answers, (scale, zero_point) = _answers(path.read_bytes(), batch)
    found = answers.astype(np.float32)
    return (found - np.float32(zero_point)) * np.float32(scale) if scale else found


def with_the_dense_layer_in_fixed_point(path: Path, batch: np.ndarray) -> np.ndarray:
    """Return the answers as `by_reference_kernels` does, with the dense layer's sums rounded as TFLite's others are."""
    model = path.read_bytes()
    (place,) = (i for i, kind in enumerate(kinds(model)) if kind == DENSE)
    features, _ = _answers(cut(model, 0, place), batch)
    logits = dense(cut(model, place, place + 1), features)
    answers, (scale, zero_point) = _answers(cut(model, place + 1, None), logits)
    found = answers.astype(np.float32)
    return (found - np.float32(zero_point)) * np.float32(scale) if scale else found


def dense(model: bytes, x: np.ndarray) -> np.ndarray:
    """Return what a file of one dense layer without an activation answers, by a multiplier of 31 bits and a shift.

    x: (N, channels) int8 -> (N, classes) int8.
    """
    whole = schema().ModelT.InitFromPackedBuf(model, 0)
    graph = whole.subgraphs[0]
    (op,) = graph.operators
    assert op.builtinOptions.fusedActivationFunction == 0
    given, weights, biases = (graph.tensors[i] for i in op.inputs)
    told = graph.tensors[op.outputs[0]]

    def numbers(t: Any, dtype: type) -> np.ndarray:
        return np.frombuffer(bytes(whole.buffers[t.buffer].data), dtype).reshape(t.shape).astype(np.int64)

    def scale(t: Any) -> np.ndarray:
        return np.asarray(t.quantization.scale, np.float32).astype(np.float64)

    levels = x.reshape(len(x), -1).astype(np.int64) - given.quantization.zeroPoint[0]
    sums = levels @ numbers(weights, np.int8).T + numbers(biases, np.int32)
    factor = scale(given) * scale(weights) / scale(told)
    rounded = multiply_by_quantized_multiplier(sums, factor) + told.quantization.zeroPoint[0]
    return rounded.clip(-128, 127).astype(np.int8)


def kinds(model: bytes) -> list[str]:
    """Return TFLite's names of the main graph's operators, in their order."""
    s = schema()
    names = {number: name for name, number in vars(s.BuiltinOperator).items() if isinstance(number, int)}
    whole = s.ModelT.InitFromPackedBuf(model, 0)
    codes = [names[max(c.builtinCode, c.deprecatedBuiltinCode)] for c in whole.operatorCodes]
    return [codes[op.opcodeIndex] for op in whole.subgraphs[0].operators]


def cut(model: bytes, first: int, end: int | None) -> bytes:
    """Return a .tflite file with the operators of the main graph from `first` up to `end`, which stand in a row."""
    import flatbuffers

    whole = schema().ModelT.InitFromPackedBuf(model, 0)
    graph = whole.subgraphs[0]
    graph.operators = graph.operators[first:end]
    graph.inputs, graph.outputs = [graph.operators[0].inputs[0]], graph.operators[-1].outputs
    whole.signatureDefs = whole.metadata = None
    builder = flatbuffers.Builder(1024)
    builder.Finish(whole.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _answers(model: bytes, batch: np.ndarray) -> tuple[np.ndarray, tuple[float, int]]:
    """Return the answers as they stand in the output, and its scale and zero point; scale 0 where it has none."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    it = Interpreter(model_content=model, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    it.allocate_tensors()
    given, told = it.get_input_details()[0], it.get_output_details()[0]
    found = []
    for x in batch:
        it.set_tensor(given["index"], x.reshape(given["shape"]))
        it.invoke()
        found.append(it.get_tensor(told["index"])[0])
    return np.stack(found), told["quantization"]


def taken(pixels: np.ndarray, io: str) -> np.ndarray:
    """Return raw pixels as a file with integer input takes them; what is no uint8 as it is."""
    return (pixels ^ np.uint8(128)).view(np.int8) if io == "int8" and pixels.dtype == np.uint8 else pixels
