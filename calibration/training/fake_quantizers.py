"""Integers that can learn: quantizers for tensorflow-model-optimization, and layers for operators without weights.

Between layers run levels: stored integers less their zero point, in float32. What learns is kept in steps of its own
grid, so that one learning rate fits all layers:

    weights   in steps of their scale: integers are clip(round(v)), the gradient passes through the rounding
              (https://arxiv.org/abs/1712.05877)
    biases    in steps of the output's scale
    scales    of activations (their range) and of weights, by their natural logarithm, with the gradient of
              learned step sizes (https://arxiv.org/abs/1902.08153), which follows from the rounding's

While it trains, scales are multiplied into the weights, which costs nothing. When it is evaluated, sums are integers,
exact in float32 up to 2^24, and brought to the output's scale as XNNPACK does (see reference.py): otherwise a sum of
the first layers that is rounded differently here and there has changed half of all levels at the network's end.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from edgenet.errors import MissingDependency
from edgenet.export.tensorflow_operators import FUNCTIONS, ON_REALS, activated, axes
from edgenet.frameworks import keras, quiet, tensorflow
from edgenet.targets import PAIR_LIMIT

MOST_MOVED = 1.0  # in the natural logarithm of a scale: further off, calibration was wrong or the learning rate is
Step = Callable[[], Any]


@dataclass(frozen=True)
class Links:
    """What the integers around one layer mean. The scales are functions: they may learn.

    low, high: levels that the output's type holds. activation: "relu", "relu6" or None, a further bound.
    """

    inputs: tuple[Step, ...] = (lambda: np.float32(1.0),)
    output: Step = lambda: np.float32(1.0)
    low: int = -128
    high: int = 127
    activation: str | None = None


def ratio_of(moved: Any) -> Any:
    """Return by how much a scale was multiplied; tensors in, tensors out."""
    tf = tensorflow()
    return tf.exp(tf.clip_by_value(tf.cast(moved, tf.float32), -MOST_MOVED, MOST_MOVED))


def tfmot() -> Any:
    """Return tensorflow_model_optimization.quantization.keras. Raises MissingDependency."""
    keras()
    try:
        with quiet():
            from tensorflow_model_optimization.quantization import keras as quantization
    except ImportError:
        name = "tensorflow-model-optimization"
        raise MissingDependency(name, "qat", "quantization-aware training") from None
    return quantization


def _exact_add(tf: Any, x: list[Any], links: Links) -> Any:
    """XNNPACK's vadd: multipliers of 21 bits with one shift, rounded half up. Exact in float64."""
    a, b, out = (tf.cast(step(), tf.float32) for step in (*links.inputs, links.output))
    ra, rb = a / out, b / out
    exponent = tf.floor(tf.math.log(tf.cast(tf.maximum(ra, rb), tf.float64)) / np.log(2.0))
    unit = tf.pow(tf.constant(2.0, tf.float64), 20.0 - exponent)
    ma, mb = (tf.round(tf.cast(r, tf.float64) * unit) for r in (ra, rb))
    total = tf.cast(x[0], tf.float64) * ma + tf.cast(x[1], tf.float64) * mb
    return tf.cast(tf.floor(total / unit + 0.5), tf.float32)


def _exact_mean(tf: Any, x: list[Any], options: Mapping[str, Any], links: Links) -> Any:
    """The sum of integers, scaled once."""
    sums = tf.reduce_sum(x[0], axes(x[1]), keepdims=bool(options.get("keepDims")))
    n = np.prod([x[0].shape[a] for a in axes(x[1])])
    return sums * (links.inputs[0]() / (links.output() * np.float32(n)))


def _shared_pairs(tf: Any, q: Any) -> Any:
    """`quantize.share_pairs` in Keras' layout, where the inputs are the axis before the last."""
    first, second = q[..., ::2, :], q[..., 1::2, :]
    room = PAIR_LIMIT - tf.abs(first)
    return tf.reshape(tf.stack([first, tf.clip_by_value(second, -room, room)], axis=-2), tf.shape(q))


@cache
def kit() -> dict[str, Any]:
    """Return the classes that subclass Keras' and tensorflow-model-optimization's, made when first asked for."""
    tf, api, k = tensorflow(), tfmot(), keras()

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def rounded(x: Any, low: Any, high: Any) -> Any:
        """clip(round(x)), half to even; the gradient passes within the bounds, the fused operator being the fastest."""

        def gradient(upstream: Any) -> Any:
            passed, at_low, at_high = tf.quantization.fake_quant_with_min_max_vars_gradient(
                upstream, x, low, high, num_bits=8
            )
            return passed, at_low, at_high

        return tf.clip_by_value(tf.round(x), low, high), gradient

    class Operator(k.layers.Layer):  # type: ignore[misc, name-defined]
        """One operator of the graph that has no weights."""

        def __init__(self, kind: str, options: Any, constants: Any, activation: Any = None, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.kind, self.options, self.constants, self.activation = kind, options, constants, activation
            self.links: Links | None = None  # None: real numbers in, real numbers out

        def call(self, inputs: Any, training: Any = None) -> Any:
            fed = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
            links = self.links
            if links is not None and not training and self.kind == "ADD" and not self.constants:
                return _exact_add(tf, fed, links)
            if links is not None and self.kind in ON_REALS and not (self.kind == "MEAN" and not training):
                fed = [x * tf.cast(step(), x.dtype) for x, step in zip(fed, links.inputs, strict=True)]
            for i in sorted(self.constants, key=int):
                fed.insert(int(i), self.constants[i])
            if links is not None and not training and self.kind == "MEAN":
                return _exact_mean(tf, fed, self.options, links)
            y = FUNCTIONS[self.kind](tf, fed, self.options)
            if links is None:
                return activated(tf, y, self.activation)
            return y / tf.cast(links.output(), y.dtype) if self.kind in ON_REALS else y

        def get_config(self) -> dict[str, Any]:
            own = {n: getattr(self, n) for n in ("kind", "options", "constants", "activation")}
            return {**super().get_config(), **own}

    class Levels(api.quantizers.Quantizer):  # type: ignore[misc, name-defined]
        """The output: levels of 8 bits."""

        def __init__(self, config: "Config") -> None:
            self.config = config

        def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
            made = {"step": layer.add_weight(f"{name}_step", (), initializer="ones", trainable=False)}
            if self.config.learn_range:
                made["moved"] = layer.add_weight(f"{name}_moved", (), initializer="zeros", trainable=True)
            return made

        def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:
            links, x = self.config.links, tf.cast(inputs, tf.float32)
            if not training and self.config.factor is not None:
                x = x * self.config.factor()
            low, high = tf.constant(float(links.low)), tf.constant(float(links.high))
            if links.activation is not None:
                low = tf.maximum(low, 0.0)
            if links.activation == "relu6":
                high = tf.minimum(high, tf.round(6.0 / tf.stop_gradient(links.output())))
            return tf.cast(rounded(x, low, high), inputs.dtype)

        def get_config(self) -> dict[str, Any]:
            return {}

    class Kernel(api.quantizers.Quantizer):  # type: ignore[misc, name-defined]
        """Weights in steps of their scale, one scale per output channel, symmetric."""

        def __init__(self, config: "Config") -> None:
            self.config, self.limit = config, 127.0 if config.in_pairs else float(2 ** (config.bits - 1) - 1)

        def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
            shape = tensor_shape[-2:] if name == "depthwise_kernel" else tensor_shape[-1:]
            made = {"scale": layer.add_weight(f"{name}_scale", shape, initializer="ones", trainable=False)}
            if self.config.learn_scale:
                made["moved"] = layer.add_weight(f"{name}_moved", shape, initializer="zeros", trainable=True)

            def factor() -> Any:  # from the sum of products to the output's levels, per channel
                links, scale = self.config.links, tf.cast(made["scale"], tf.float32)
                scale = scale * ratio_of(made["moved"]) if "moved" in made else scale
                return links.inputs[0]() * scale / links.output()

            self.per_channel = factor
            self.config.factor = lambda: tf.reshape(factor(), [-1])
            return made

        def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:
            v = tf.cast(inputs, tf.float32)
            if "moved" in weights:
                v = v / ratio_of(weights["moved"])
            v = tf.clip_by_value(v, -self.limit, self.limit)
            q = tf.round(v)
            v = v + tf.stop_gradient((_shared_pairs(tf, q) if self.config.in_pairs else q) - v)
            return tf.cast(v * self.per_channel() if training else v, inputs.dtype)

        def get_config(self) -> dict[str, Any]:
            return {}

    class Bias(api.quantizers.Quantizer):  # type: ignore[misc, name-defined]
        """A bias in steps of the output; the file has it in 32 bits, which matters to the exact sums only."""

        def __init__(self, config: "Config") -> None:
            self.config = config

        def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
            return {}

        def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:
            return inputs if training else tf.round(tf.cast(inputs, tf.float32) / self.config.factor())  # type: ignore[misc]

        def get_config(self) -> dict[str, Any]:
            return {}

    class Config(api.QuantizeConfig):  # type: ignore[misc, name-defined]
        """Which variables of a layer are quantized and how."""

        def __init__(self, bits: int, rounds: bool, learn_range: bool, learn_scale: bool, in_pairs: bool) -> None:
            self.bits, self.rounds, self.learn_range, self.learn_scale = bits, rounds, learn_range, learn_scale
            self.in_pairs = in_pairs
            self.links = Links()
            self.factor: Step | None = None

        def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
            found: list[tuple[Any, Any]] = [(getattr(layer, n), Kernel(self)) for n in self._kernels(layer)]
            return found + ([(layer.bias, Bias(self))] if getattr(layer, "bias", None) is not None else [])

        def _kernels(self, layer: Any) -> list[str]:
            return [n for n in ("kernel", "depthwise_kernel") if hasattr(layer, n)][-1:]

        def get_activations_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
            return []

        def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
            for name, w in zip((*self._kernels(layer), "bias"), quantize_weights, strict=False):
                setattr(layer, name, w)

        def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
            """Nothing to set: activations are quantized as outputs; the interface demands the method."""

        def get_output_quantizers(self, layer: Any) -> list[Any]:
            return [Levels(self)] if self.rounds else []

        def get_config(self) -> dict[str, Any]:
            return {n: getattr(self, n) for n in ("bits", "rounds", "learn_range", "learn_scale", "in_pairs")}

    class Scheme(api.QuantizeScheme):  # type: ignore[misc, name-defined]
        """Nothing but what is annotated: the graph says what is quantized, and batch norm is folded already."""

        def get_layout_transformer(self) -> Any:
            return self

        def get_quantize_registry(self) -> Any:
            return self

        def apply(self, model: Any, layer_quantize_map: Any) -> tuple[Any, Any]:
            return model, layer_quantize_map

        def supports(self, layer: Any) -> bool:
            return False

    made = (Operator, Levels, Kernel, Bias, Config, Scheme)
    return {**{c.__name__: c for c in made}, "relu6": tf.nn.relu6}
