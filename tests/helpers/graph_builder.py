"""Builds a float graph operator by operator, with weights that are given or drawn."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgenet.export.graph import Activation, Graph, Op, Padding, Tensor, Window, fused

NONE, RELU, RELU6 = Activation.NONE, Activation.RELU, Activation.RELU6
SAME, VALID = Padding.SAME, Padding.VALID


class Builder:
    """Collects operators. Each method returns the name of the tensor that it made: the one it was given, or a new one.

    The input is called `image`. Weights have their operator's name and _w, biases and _b, axes and _axes.
    """

    def __init__(self, *shape: int, seed: int = 0) -> None:
        self.tensors = {"image": Tensor("image", shape, "float32")}
        self.ops: list[Op] = []
        self.rng = np.random.default_rng(seed)

    def constant(self, data: Any, dtype: str = "float32", name: str = "") -> str:
        name, array = name or f"constant_{len(self.tensors)}", np.asarray(data, dtype)
        self.tensors[name] = Tensor(name, array.shape, dtype, array)
        return name

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.normal(0, 0.5, shape)

    def op(
        self,
        kind: str,
        inputs: Sequence[str],
        shape: Sequence[int],
        type: str = "NONE",
        *,
        out: str = "",
        dtype: str = "float32",
        **options: Any,
    ) -> str:
        out = self._name(kind, out)
        self.tensors[out] = Tensor(out, tuple(shape), dtype)
        self.ops.append(Op(kind, tuple(inputs), (out,), options, type))
        return out

    def _name(self, kind: str, out: str) -> str:
        return out or f"{kind.lower()}_{len(self.ops)}"

    def conv(
        self, x: str, out: str, w: Any, b: Any, activation: Activation = NONE, stride: int = 1,
        padding: Padding = SAME, dilation: int = 1,
    ) -> str:  # fmt: skip
        """w: (out, kernel, kernel, in)."""
        return self._convolution("CONV_2D", "Conv2DOptions", x, out, w, b, activation,
                                 Window(padding, (stride, stride), (dilation, dilation)))  # fmt: skip

    def depthwise(self, x: str, out: str, w: Any, b: Any, activation: Activation = NONE, stride: int = 1) -> str:
        """w: (1, kernel, kernel, C * multiplier). SAME padding."""
        return self._convolution("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions", x, out, w, b, activation,
                                 Window(SAME, (stride, stride)),
                                 depthMultiplier=np.shape(w)[3] // self.tensors[x].shape[3])  # fmt: skip

    def _convolution(
        self, kind: str, type: str, x: str, out: str, w: Any, b: Any, activation: Activation, window: Window,
        **options: Any,
    ) -> str:  # fmt: skip
        out = self._name(kind, out)
        inputs = [x, self.constant(w, name=f"{out}_w"), self.constant(b, name=f"{out}_b")]
        shape = (1, *window.output_size(self.tensors[x].shape[1:3], np.shape(w)[1:3]), len(b))
        (down, across), (rows, columns) = window.strides, window.dilations
        return self.op(kind, inputs, shape, type, out=out, padding=window.padding.value, strideW=across, strideH=down,
                       dilationWFactor=columns, dilationHFactor=rows, **options, **fused(activation))  # fmt: skip

    def dense(self, x: str, out: str, w: Any, b: Any, activation: Activation = NONE) -> str:
        """w: (out, in). What `x` has in front of its last axis becomes rows."""
        out, shape = self._name("FULLY_CONNECTED", out), self.tensors[x].shape
        inputs = [x, self.constant(w, name=f"{out}_w"), self.constant(b, name=f"{out}_b")]
        options = {**fused(activation), "weightsFormat": 0, "keepNumDims": False}
        rows = int(np.prod(shape)) // np.shape(w)[1]
        return self.op("FULLY_CONNECTED", inputs, (rows, len(b)), "FullyConnectedOptions", out=out, **options)

    def add(self, a: str, b: str, out: str = "", activation: Activation = NONE) -> str:
        return self.op("ADD", [a, b], self.tensors[a].shape, "AddOptions", out=out, **fused(activation))

    def mean(self, x: str, out: str = "", axes: Sequence[int] = (1, 2), keep: bool = False, kind: str = "MEAN") -> str:
        out, shape = self._name(kind, out), self.tensors[x].shape
        kept = [1 if i in axes else n for i, n in enumerate(shape) if keep or i not in axes]
        inputs = [x, self.constant(axes, "int32", f"{out}_axes")]
        return self.op(kind, inputs, kept, "ReducerOptions", out=out, keepDims=keep)

    def pool(self, x: str, kind: str, padding: Padding, size: int = 3, stride: int = 2, out: str = "") -> str:
        _, height, width, channels = self.tensors[x].shape
        output_size = Window(padding, (stride, stride)).output_size((height, width), (size, size))
        return self.op(kind, [x], (1, *output_size, channels), "Pool2DOptions", out=out, padding=padding.value,
                       strideW=stride, strideH=stride, filterWidth=size, filterHeight=size, **fused())  # fmt: skip

    def graph(self, out: str = "", name: str = "main") -> Graph:
        """Return the graph with output `out`, by default what was made last."""
        return Graph(name, self.tensors, tuple(self.ops), ("image",), (out or self.ops[-1].outputs[0],))
