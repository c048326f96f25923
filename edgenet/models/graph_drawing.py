"""Draw a network operator by operator: shapes and counts at once, weights only when a graph is asked for.

A `Blueprint` holds no weight, so that a network of two gigabytes is counted in milliseconds and without TensorFlow;
`graph` draws the weights and gives the hub's float graph (export/graph.py), which every format is written from. No
converter is between, because TensorFlow's writes a flatbuffer, which holds no more than 2 GB.

Weights are He's (https://arxiv.org/abs/1502.01852): normal, each layer scaled by the mean square of what it reads,
which is followed through the network. So no activation dies out into denormals or grows without bound, and the
latency is that of a trained network.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgenet.export.graph import Activation, Graph, Op, Padding, Tensor, fused

RELU, RELU6 = Activation.RELU, Activation.RELU6
_KEPT = {None: 1.0, RELU: 0.5, RELU6: 0.5}  # of the mean square of what is centred on 0
_BIAS_DEVIATION = 0.05  # biases that are not zero, as folding batch norm leaves them


@dataclass(frozen=True)
class Feature:
    """What an operator gives: (1, height, width, channels) float32, or (1, channels) where `size` is empty."""

    name: str
    size: tuple[int, ...]  # (height, width) px
    channels: int
    power: float = 1.0  # the mean square that its numbers are expected to have
    centred: bool = True  # its mean is about 0: no activation has cut it

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, *self.size, self.channels)


@dataclass
class Blueprint:
    """A network that is being drawn. `parameters` counts batch norm's scale and shift, not its moving statistics."""

    name: str
    resolution_px: int
    parameters: int = 0
    multiply_adds: int = 0
    _tensors: dict[str, Tensor] = field(default_factory=dict)
    _draws: dict[str, Callable[[np.random.Generator], np.ndarray]] = field(default_factory=dict)
    _ops: list[Op] = field(default_factory=list)
    _relus: dict[str, Feature] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (1, self.resolution_px, self.resolution_px, 3)
        self._tensors["image"] = Tensor("image", shape, "float32")

    @property
    def image(self) -> Feature:
        """The input: (1, H, W, 3), normalised."""
        return Feature("image", (self.resolution_px,) * 2, 3)

    @property
    def widest(self) -> int:
        """The most numbers that one operator reads and writes beside its weights: no network runs in less memory."""
        return max(
            sum(math.prod(self._tensors[n].shape) for n in {*op.inputs, *op.outputs} if n and n not in self._draws)
            for op in self._ops
        )

    # ------------------------------------------------------------------------------------------------ with weights

    def conv(
        self,
        x: Feature,
        filters: int,
        kernel: int | tuple[int, int] = 1,
        stride: int | tuple[int, int] = 1,
        activation: Activation | None = None,
        *,
        norm: bool = True,
        bias: bool = False,
        padding: Padding = Padding.SAME,
    ) -> Feature:
        """Convolve, then batch norm, folded; `norm` and `bias` say what is counted."""
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        fan_in = height * width * x.channels
        strides = (stride, stride) if isinstance(stride, int) else stride
        size = _strided(_inside(x.size, (height, width), padding), strides)
        w = self._weights((filters, height, width, x.channels), fan_in, x.power)
        inputs = (x.name, w, self._bias(filters))
        self.parameters += fan_in * filters + (2 * filters if norm else 0) + (filters if bias else 0)
        self.multiply_adds += fan_in * filters * math.prod(size)
        options = {**_window(strides, padding), **fused(activation)}
        return self._emit("CONV_2D", inputs, size, filters, options, "Conv2DOptions", 1.0, activation)

    def depthwise(
        self,
        x: Feature,
        kernel: int,
        stride: int = 1,
        activation: Activation | None = None,
        *,
        norm: bool = True,
        dilation: int = 1,
        padding: Padding = Padding.SAME,
    ) -> Feature:
        """Convolve each channel on its own, as `conv` does."""
        reach = (kernel - 1) * dilation + 1
        size = _strided(_inside(x.size, (reach, reach), padding), (stride, stride))
        w = self._weights((1, kernel, kernel, x.channels), kernel * kernel, x.power)
        self.parameters += kernel * kernel * x.channels + (2 * x.channels if norm else 0)
        self.multiply_adds += kernel * kernel * x.channels * math.prod(size)
        window = {**_window((stride, stride), padding), "dilationWFactor": dilation, "dilationHFactor": dilation}
        options = {**window, "depthMultiplier": 1, **fused(activation)}
        inputs = (x.name, w, self._bias(x.channels))
        return self._emit(
            "DEPTHWISE_CONV_2D", inputs, size, x.channels, options, "DepthwiseConv2DOptions", 1.0, activation
        )

    def classifier(self, x: Feature, classes: int = 1000) -> Feature:
        """Average over the picture, then the last layer with a bias and the softmax."""
        axes = self._constant("axes", np.array([1, 2], np.int32))
        pooled = self._emit("MEAN", (x.name, axes), (), x.channels, {"keepDims": False}, "ReducerOptions", x.power)
        w = self._weights((classes, x.channels), x.channels, x.power)
        self.parameters += (x.channels + 1) * classes
        self.multiply_adds += x.channels * classes
        dense = {**fused(), "weightsFormat": 0, "keepNumDims": False}
        inputs = (pooled.name, w, self._bias(classes))
        logits = self._emit("FULLY_CONNECTED", inputs, (), classes, dense, "FullyConnectedOptions")
        return self._emit("SOFTMAX", (logits.name,), (), classes, {"beta": 1.0}, "SoftmaxOptions")

    # --------------------------------------------------------------------------------------------- without weights

    def relu(self, x: Feature) -> Feature:
        """Return max(x, 0), computed once however often it is asked for."""
        if x.name not in self._relus:
            y = self._emit("RELU", (x.name,), x.size, x.channels, {}, "NONE")
            self._relus[x.name] = Feature(y.name, y.size, y.channels, x.power * (0.5 if x.centred else 1), False)
        return self._relus[x.name]

    def silu(self, x: Feature) -> Feature:
        """Return x * sigmoid(x)."""
        return self.scaled(x, self._gate(x), power=0.36 * x.power, centred=False)

    def squeeze_excite(self, x: Feature, filters: int, activation: Activation | None = None) -> Feature:
        """Scale each channel by a gate made of all channels' averages; `activation` None inside it is SiLU."""
        axes = self._constant("axes", np.array([1, 2], np.int32))
        pooled = self._emit("MEAN", (x.name, axes), (1, 1), x.channels, {"keepDims": True}, "ReducerOptions", x.power)
        few = self.conv(pooled, filters, activation=activation, norm=False, bias=True)
        gate = self._gate(self.conv(few if activation else self.silu(few), x.channels, norm=False, bias=True))
        return self.scaled(x, gate, power=0.29 * x.power, centred=x.centred)

    def scaled(self, x: Feature, by: Feature, power: float, centred: bool) -> Feature:
        """Return the product, of the shape of `x`; `power` and `centred` describe it."""
        y = self._emit("MUL", (x.name, by.name), x.size, x.channels, fused(), "MulOptions")
        return Feature(y.name, x.size, x.channels, power, centred)

    def _gate(self, x: Feature) -> Feature:
        return self._emit("LOGISTIC", (x.name,), x.size, x.channels, {}, "NONE")

    def pool(self, x: Feature, kind: str, kernel: int, stride: int = 1) -> Feature:
        """Take the "max" or the "average" of windows, with "SAME" padding that does not count."""
        op = {"max": "MAX_POOL_2D", "average": "AVERAGE_POOL_2D"}[kind]
        options = {
            "padding": 0, "strideW": stride, "strideH": stride,
            "filterWidth": kernel, "filterHeight": kernel, **fused(),
        }  # fmt: skip
        size = _strided(x.size, (stride, stride))
        y = self._emit(op, (x.name,), size, x.channels, options, "Pool2DOptions")
        return Feature(y.name, size, x.channels, x.power, x.centred and kind == "average")

    def add(self, a: Feature, b: Feature, activation: Activation | None = None) -> Feature:
        """Return a + b."""
        if a.shape != b.shape:
            raise ValueError(f"cannot add {a} and {b}")
        options = fused(activation)
        power = a.power + b.power
        y = self._emit("ADD", (a.name, b.name), a.size, a.channels, options, "AddOptions", power, activation)
        centred = a.centred and b.centred
        return y if centred else Feature(y.name, y.size, y.channels, power, False)

    def concat(self, parts: Sequence[Feature]) -> Feature:
        """Put channels of the same size side by side."""
        if len(parts) == 1:
            return parts[0]
        channels = sum(p.channels for p in parts)
        power = sum(p.power * p.channels for p in parts) / channels
        options = {"axis": 3, **fused()}
        names = tuple(p.name for p in parts)
        y = self._emit("CONCATENATION", names, parts[0].size, channels, options, "ConcatenationOptions", power)
        return Feature(y.name, y.size, channels, power, all(p.centred for p in parts))

    def padded(self, x: Feature, by_px: int) -> Feature:
        """Put rows and columns of zeros on all four sides."""
        pads = self._constant("pads", np.array([[0, 0], [by_px, by_px], [by_px, by_px], [0, 0]], np.int32))
        size = tuple(n + 2 * by_px for n in x.size)
        y = self._emit("PAD", (x.name, pads), size, x.channels, {}, "PadOptions")
        return Feature(y.name, size, x.channels, x.power, x.centred)

    def shifted(self, x: Feature) -> Feature:
        """Return x moved by one pixel up and to the left, with zeros where nothing came in."""
        height, width = x.size
        begin = self._constant("begin", np.array([0, 1, 1, 0], np.int32))
        size = self._constant("size", np.array([1, height - 1, width - 1, x.channels], np.int32))
        cut = self._emit("SLICE", (x.name, begin, size), (height - 1, width - 1), x.channels, {}, "SliceOptions")
        pads = self._constant("pads", np.array([[0, 0], [0, 1], [0, 1], [0, 0]], np.int32))
        y = self._emit("PAD", (cut.name, pads), x.size, x.channels, {}, "PadOptions")
        return Feature(y.name, x.size, x.channels, x.power, x.centred)

    # ------------------------------------------------------------------------------------------------------ result

    def graph(self, seed: int = 0) -> Graph:
        """Draw the weights and return the float graph; the last operator gives its output."""
        rng = np.random.default_rng(seed)
        return self.graph_of([draw(rng) for draw in self._draws.values()])

    def graph_of(self, weights: Sequence[np.ndarray]) -> Graph:
        """Return the float graph with these weights: each layer's and its bias, in TFLite's layout, layer by layer."""
        tensors = dict(self._tensors)
        for name, data in zip(self._draws, weights, strict=True):
            if data.shape != tensors[name].shape:
                raise ValueError(f"{name} is {tensors[name].shape}, not {data.shape}")
            tensors[name] = replace(tensors[name], data=data)
        return Graph(self.name, tensors, tuple(self._ops), ("image",), self._ops[-1].outputs)

    def _weights(self, shape: tuple[int, ...], fan_in: int, power: float) -> str:
        """Name weights that make the mean square of the output 1."""
        deviation = 1 / math.sqrt(fan_in * power)
        return self._drawn("weights", lambda rng: _normal(rng, shape, deviation), shape)

    def _bias(self, n: int) -> str:
        return self._drawn("bias", lambda rng: _normal(rng, (n,), _BIAS_DEVIATION), (n,))

    def _constant(self, name: str, data: np.ndarray) -> str:
        name = f"{name}_{len(self._tensors)}"
        self._tensors[name] = Tensor(name, data.shape, str(data.dtype), data)
        return name

    def _drawn(self, name: str, draw: Callable[[np.random.Generator], np.ndarray], shape: tuple[int, ...]) -> str:
        name = f"{name}_{len(self._tensors)}"
        self._tensors[name] = Tensor(name, shape, "float32")
        self._draws[name] = draw
        return name

    def _emit(
        self,
        kind: str,
        inputs: tuple[str, ...],
        size: tuple[int, ...],
        channels: int,
        options: dict[str, Any],
        options_type: str,
        power: float = 1.0,
        activation: Activation | None = None,
    ) -> Feature:
        name = f"{kind.lower()}_{len(self._ops)}"
        out = Feature(name, size, channels, power * _KEPT[activation], activation is None)
        self._tensors[name] = Tensor(name, out.shape, "float32")
        self._ops.append(Op(kind, inputs, (name,), options, options_type))
        return out


def _normal(rng: np.random.Generator, shape: tuple[int, ...], deviation: float) -> np.ndarray:
    drawn = rng.standard_normal(shape, np.float32)
    drawn *= np.float32(deviation)
    return drawn


def _inside(size: tuple[int, ...], kernel: tuple[int, int], padding: Padding) -> tuple[int, ...]:
    """Return how many windows there are: as many as pixels with "SAME" padding, those that lie inside without."""
    return size if padding is Padding.SAME else tuple(n - k + 1 for n, k in zip(size, kernel, strict=True))


def _strided(size: tuple[int, ...], strides: tuple[int, int]) -> tuple[int, ...]:
    """Return how many of so many windows strides leave."""
    return tuple(math.ceil(n / s) for n, s in zip(size, strides, strict=True))


def _window(strides: tuple[int, int], padding: Padding) -> dict[str, int]:
    height, width = strides
    return {"padding": int(padding), "strideW": width, "strideH": height, "dilationWFactor": 1, "dilationHFactor": 1}
