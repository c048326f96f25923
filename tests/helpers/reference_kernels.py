"""What LiteRT's reference kernels answer, which every microcontroller computes too."""

from pathlib import Path

import numpy as np


def by_reference_kernels(path: Path, batch: np.ndarray) -> np.ndarray:
    """Return the answers to what the file takes: (N, classes) float32, dequantized."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    it = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    it.allocate_tensors()
    given, told = it.get_input_details()[0], it.get_output_details()[0]
    found = []
    for x in batch:
        it.set_tensor(given["index"], x[None])
        it.invoke()
        found.append(it.get_tensor(told["index"])[0].astype(np.float32))
    scale, zero_point = told["quantization"]
    answers = np.stack(found)
    return (answers - np.float32(zero_point)) * np.float32(scale) if scale else answers


def taken(pixels: np.ndarray, io: str) -> np.ndarray:
    """Return raw pixels as a file with integer input takes them; what is no uint8 as it is."""
    return (pixels ^ np.uint8(128)).view(np.int8) if io == "int8" and pixels.dtype == np.uint8 else pixels
