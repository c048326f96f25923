"""What one core can do at most, by two measurements: a matrix product in each runtime, and copies of many sizes.

Together they make the roofline that operators are held against (Williams et al. 2009,
https://doi.org/10.1145/1498765.1498785). The copies are of several sizes because a layer's numbers lie in a cache.
"""

import statistics
import threading
import time
from collections.abc import Callable

import numpy as np

from edgenet.export.graph import Graph, Op, Quantization, Tensor, fused
from edgenet.export.tflite_file import write_tflite

# The product (M, K) by (K, N), as a 1x1 convolution of SIDE_PX x SIDE_PX: large enough for a kernel to reach its pace,
# and in float32 small enough for a cache of 1 MB.
SIDE_PX, DEPTH, FILTERS = 12, 512, 256
MULTIPLY_ADDS = SIDE_PX * SIDE_PX * DEPTH * FILTERS
COPY_BYTES = (1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26)  # read and written together
_SCALE = 0.01
_COPY_S = 0.04


def fastest_us(invoke: Callable[[], object], time_s: float = 0.25, runs: int = 20) -> float:
    """Return the time in microseconds that a tenth of the runs keep below: a limit is what can be reached."""
    samples: list[float] = []
    start = time.perf_counter()
    while len(samples) < runs or time.perf_counter() - start < time_s:
        before = time.perf_counter_ns()
        invoke()
        samples.append((time.perf_counter_ns() - before) / 1e3)
    return statistics.quantiles(samples, n=10)[0]


def product_weights() -> tuple[np.ndarray, np.ndarray]:
    """Return float weights (FILTERS, 1, 1, DEPTH) that int8 holds exactly at a scale of 0.01, and an input for them."""
    rng = np.random.default_rng(0)
    weights = rng.integers(-60, 61, (FILTERS, 1, 1, DEPTH)).astype(np.float32) * _SCALE
    return weights, rng.integers(-100, 101, (1, SIDE_PX, SIDE_PX, DEPTH)).astype(np.float32) * _SCALE


def product_tflite(arithmetic: str) -> tuple[bytes, np.ndarray]:
    """Return the product as a .tflite file, "float32" or "int8" from end to end, and an input for it."""
    weights, x = product_weights()
    shape = (1, SIDE_PX, SIDE_PX, FILTERS)
    q, dtype, bias_dtype = None, "float32", "float32"
    per_filter = bias_q = out_q = None
    if arithmetic == "int8":
        dtype, bias_dtype, q = "int8", "int32", Quantization.per_tensor(_SCALE)
        zeros = np.zeros(FILTERS, np.int64)
        per_filter = Quantization(np.full(FILTERS, _SCALE, np.float32), zeros)
        bias_q = Quantization(np.full(FILTERS, _SCALE * _SCALE, np.float32), zeros)
        out_q = Quantization.per_tensor(0.1)
        weights, x = (np.rint(v / _SCALE).astype(np.int8) for v in (weights, x))
    tensors = {
        "x": Tensor("x", x.shape, dtype, None, q),
        "w": Tensor("w", weights.shape, dtype, weights, per_filter),
        "b": Tensor("b", (FILTERS,), bias_dtype, np.zeros(FILTERS, bias_dtype), bias_q),
        "y": Tensor("y", shape, dtype, None, out_q),
    }
    options = {"padding": 0, "strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}
    op = Op("CONV_2D", ("x", "w", "b"), ("y",), {**options, **fused()}, "Conv2DOptions")
    return write_tflite(Graph("product", tensors, (op,), ("x",), ("y",)), signature=None), x


def copy_rates(threads: int = 1) -> list[float]:
    """Return the bytes a second that copies of `COPY_BYTES` move, a byte read and a byte written counted as two."""
    return [_copy_rate(max(size // 2 // threads, 1), threads) for size in COPY_BYTES]


def _copy_rate(each_bytes: int, threads: int) -> float:
    rates = [0.0] * threads
    begin = threading.Barrier(threads)

    def copy(i: int) -> None:
        source, target = np.ones(each_bytes, np.uint8), np.zeros(each_bytes, np.uint8)
        np.copyto(target, source)
        batch = max(1, (1 << 20) // each_bytes)  # looking at the clock must not count
        best = float("inf")
        begin.wait()
        start = time.perf_counter()
        while time.perf_counter() - start < _COPY_S:
            before = time.perf_counter()
            for _ in range(batch):
                np.copyto(target, source)
            best = min(best, (time.perf_counter() - before) / batch)
        rates[i] = 2 * each_bytes / best

    workers = [threading.Thread(target=copy, args=(i,)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(rates)
