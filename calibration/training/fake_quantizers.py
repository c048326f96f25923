"""Integers that can learn: quantizers for tensorflow-model-optimization. Import it late: it loads TensorFlow.

Between layers run levels: stored integers less their zero point, in float32. What learns is kept in steps of its own
grid, so that one learning rate fits all layers:

    weights   in steps of their scale: integers are clip(round(v)), the gradient passes through the rounding
              (https://arxiv.org/abs/1712.05877)
    biases    in steps of the output's scale
    scales    of activations (their range) and of weights, by their natural logarithm, with the gradient of
              learned step sizes (https://arxiv.org/abs/1902.08153), which follows from the rounding's

While it trains, scales are multiplied into the weights, which costs nothing. When it is evaluated, sums are integers,
exact in float32 up to 2^24, and brought to the output's scale as XNNPACK does (see integer_reference.py): otherwise a
sum of the first layers that is rounded differently here and there has changed half of all levels at the network's end.
"""

from typing import Any

from edgenet.calibration.training.links import Links, Step, ratio_of
from edgenet.calibration.training.operator_layer import Operator
from edgenet.frameworks import tensorflow, tfmot
from edgenet.targets import PAIR_LIMIT

tf, api = tensorflow(), tfmot()


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _rounded(x: Any, low: Any, high: Any) -> Any:
    """clip(round(x)), half to even; the gradient passes within the bounds, the fused operator being the fastest."""

    def gradient(upstream: Any) -> Any:
        passed, at_low, at_high = tf.quantization.fake_quant_with_min_max_vars_gradient(
            upstream, x, low, high, num_bits=8
        )
        return passed, at_low, at_high

    return tf.clip_by_value(tf.round(x), low, high), gradient


def _shared_pairs(q: Any) -> Any:
    """`quantize.share_pairs` in Keras' layout, where the inputs are the axis before the last."""
    first, second = q[..., ::2, :], q[..., 1::2, :]
    room = PAIR_LIMIT - tf.abs(first)
    return tf.reshape(tf.stack([first, tf.clip_by_value(second, -room, room)], axis=-2), tf.shape(q))


class OutputQuantizer(api.quantizers.Quantizer):  # type: ignore[misc, name-defined]
    """The output: levels of 8 bits."""

    def __init__(self, config: "LayerConfig") -> None:
        self.config = config

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Add the output's scale to the layer, and what moves it where it learns."""
        made = {"step": layer.add_weight(f"{name}_step", (), initializer="ones", trainable=False)}
        if self.config.learn_range:
            made["moved"] = layer.add_weight(f"{name}_moved", (), initializer="zeros", trainable=True)
        return made

    def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:
        """Return levels: sums of a layer in training, in evaluation sums of integers times a factor."""
        links, x = self.config.links, tf.cast(inputs, tf.float32)
        if not training and self.config.factor is not None:
            x = x * self.config.factor()
        low, high = tf.constant(float(links.low)), tf.constant(float(links.high))
        if links.activation is not None:
            low = tf.maximum(low, 0.0)
        if links.activation == "relu6":
            high = tf.minimum(high, tf.round(6.0 / tf.stop_gradient(links.output())))
        return tf.cast(_rounded(x, low, high), inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return nothing: a quantizer is made by its layer's LayerConfig."""
        return {}


class WeightQuantizer(api.quantizers.Quantizer):  # type: ignore[misc, name-defined]
    """Weights in steps of their scale, one scale per output channel, symmetric."""

    def __init__(self, config: "LayerConfig") -> None:
        self.config, self.limit = config, 127.0 if config.in_pairs else float(2 ** (config.bits - 1) - 1)

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Add the scales to the layer, and what moves them where they learn."""
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
        """Return integers in evaluation; in training, integers times what brings their sums to levels."""
        v = tf.cast(inputs, tf.float32)
        if "moved" in weights:
            v = v / ratio_of(weights["moved"])
        v = tf.clip_by_value(v, -self.limit, self.limit)
        q = tf.round(v)
        v = v + tf.stop_gradient((_shared_pairs(q) if self.config.in_pairs else q) - v)
        return tf.cast(v * self.per_channel() if training else v, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return nothing: a quantizer is made by its layer's LayerConfig."""
        return {}


class BiasQuantizer(api.quantizers.Quantizer):  # type: ignore[misc, name-defined]
    """A bias in steps of the output; the file has it in 32 bits, which matters to the exact sums only."""

    def __init__(self, config: "LayerConfig") -> None:
        self.config = config

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Add nothing: a bias has the scale of the products."""
        return {}

    def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:
        """Return the bias as it is in training, as an integer in evaluation."""
        return inputs if training else tf.round(tf.cast(inputs, tf.float32) / self.config.factor())  # type: ignore[misc]

    def get_config(self) -> dict[str, Any]:
        """Return nothing: a quantizer is made by its layer's LayerConfig."""
        return {}


class LayerConfig(api.QuantizeConfig):  # type: ignore[misc, name-defined]
    """Which variables of a layer are quantized and how.

    Args:
        bits: of the weights.
        rounds: whether the output is rounded to levels.
        learn_range, learn_scale: whether the output's range and the weights' scales learn.
        in_pairs: two weights whose products a kernel adds first share PAIR_LIMIT.
    """

    def __init__(self, bits: int, rounds: bool, learn_range: bool, learn_scale: bool, in_pairs: bool) -> None:
        self.bits, self.rounds, self.learn_range, self.learn_scale = bits, rounds, learn_range, learn_scale
        self.in_pairs = in_pairs
        self.links = Links()
        self.factor: Step | None = None

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        """Return the layer's kernel and bias, each with its quantizer."""
        found: list[tuple[Any, Any]] = [(getattr(layer, n), WeightQuantizer(self)) for n in self._kernels(layer)]
        return found + ([(layer.bias, BiasQuantizer(self))] if getattr(layer, "bias", None) is not None else [])

    def _kernels(self, layer: Any) -> list[str]:
        return [n for n in ("kernel", "depthwise_kernel") if hasattr(layer, n)][-1:]

    def get_activations_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        """Return nothing: activations are quantized as outputs."""
        return []

    def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
        """Put the quantized kernel and bias into the layer, for its call."""
        for name, w in zip((*self._kernels(layer), "bias"), quantize_weights, strict=False):
            setattr(layer, name, w)

    def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
        """Set nothing: activations are quantized as outputs; the interface demands the method."""

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        """Return the output's quantizer, where the output is rounded."""
        return [OutputQuantizer(self)] if self.rounds else []

    def get_config(self) -> dict[str, Any]:
        """Return what the configuration is made again from when a model is cloned."""
        return {n: getattr(self, n) for n in ("bits", "rounds", "learn_range", "learn_scale", "in_pairs")}


class OnlyAnnotated(api.QuantizeScheme):  # type: ignore[misc, name-defined]
    """Nothing but what is annotated: the graph says what is quantized, and batch norm is folded already.

    It is its own layout transformer and its own registry, both of which do nothing.
    """

    def get_layout_transformer(self) -> Any:
        """Return what changes the model's layers before it is quantized."""
        return self

    def get_quantize_registry(self) -> Any:
        """Return what knows how a layer without annotation is quantized."""
        return self

    def apply(self, model: Any, layer_quantize_map: Any) -> tuple[Any, Any]:
        """Return the model unchanged."""
        return model, layer_quantize_map

    def supports(self, layer: Any) -> bool:
        """Return that no layer is quantized without an annotation."""
        return False


# What Keras has to know by name when it clones a model.
CUSTOM_OBJECTS = {
    **{c.__name__: c for c in (Operator, OutputQuantizer, WeightQuantizer, BiasQuantizer, LayerConfig, OnlyAnnotated)},
    "relu6": tf.nn.relu6,
}
