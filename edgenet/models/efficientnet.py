"""The EfficientNet family from one row of the zoo: the training form in Keras, the deploy form as a graph.

Tan and Le, https://arxiv.org/abs/1905.11946 (table 1; scaling in section 3.3). MBConv blocks follow MobileNetV2,
https://arxiv.org/abs/1801.04381, with squeeze-and-excite, https://arxiv.org/abs/1709.01507, but in the Lite variants.
Layers are named so that weights.py can find them: stem_conv, block{i}_expand_conv, ..., head_conv, classifier.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgenet.export.graph import Graph
from edgenet.frameworks import keras
from edgenet.models.resnet_mobilenet import efficientnet
from edgenet.models.weights import expected_shapes
from edgenet.models.zoo import (
    ModelSpec,
    ScaledBlock,
    head_filters,
    pads_apart,
    scaled_blocks,
    squeeze_filters,
    stem_filters,
)

if TYPE_CHECKING:
    import tf_keras

BATCH_NORM_MOMENTUM = 0.99


def build(spec: ModelSpec, classes: int | None = None, resolution_px: int | None = None) -> "tf_keras.Model":
    """Return the training form of `spec` as a tf-keras model with the initialiser's weights.

    Args:
        classes: length of the output; the row's by default.
        resolution_px: side of the square input; the row's by default.

    Returns:
        a model from (N, H, W, 3) float32, normalised, to (N, classes) float32 probabilities. Its last two layers are
        `classifier` (logits) and `probabilities` (softmax).

    Raises:
        MissingDependency: tf-keras is not installed.
    """
    layers = keras().layers
    net = _Layers(layers, spec)
    px = resolution_px or spec.resolution_px
    image = x = layers.Input((px, px, 3), name="image")  # (N, H, W, 3)
    x = net.activation(net.conv(x, "stem", stem_filters(spec), kernel=3, stride=2), "stem")
    blocks = scaled_blocks(spec)
    for i, block in enumerate(blocks):
        x = _mbconv(net, x, f"block{i}", block)
    x = net.activation(net.conv(x, "head", head_filters(spec)), "head")  # (N, H/32, W/32, C)
    x = layers.GlobalAveragePooling2D(name="pool")(x)  # (N, C)
    if spec.dropout:
        x = layers.Dropout(spec.dropout, name="dropout")(x)
    x = layers.Dense(classes or spec.classes, kernel_initializer=_DENSE_INIT, name="classifier")(x)
    return keras().Model(image, layers.Softmax(name="probabilities")(x), name=spec.name.replace("-", "_"))


def _mbconv(net: "_Layers", x: Any, name: str, block: ScaledBlock) -> Any:
    inputs = x  # (N, H, W, in_filters)
    if block.expand_ratio != 1:
        x = net.activation(net.conv(x, f"{name}_expand", block.in_filters * block.expand_ratio), f"{name}_expand")
    x = net.activation(net.depthwise(x, f"{name}_depthwise", block.kernel, block.stride), f"{name}_depthwise")
    if filters := squeeze_filters(net.spec, block):
        x = net.squeeze_excite(x, name, filters)
    x = net.conv(x, f"{name}_project", block.out_filters)  # linear bottleneck: no activation
    return net.layers.Add(name=f"{name}_add")([x, inputs]) if block.skip else x


# The official code's: normal by fan-out for convolutions (depthwise ones by their kernel alone), uniform for the head.
_CONV_INIT = {
    "class_name": "VarianceScaling",
    "config": {"scale": 2.0, "mode": "fan_out", "distribution": "untruncated_normal"},
}
_DENSE_INIT = {
    "class_name": "VarianceScaling",
    "config": {"scale": 1 / 3, "mode": "fan_out", "distribution": "uniform"},
}


class _Layers:
    """Makes named layers; holds what all of them share."""

    def __init__(self, layers: Any, spec: ModelSpec) -> None:
        self.layers, self.spec = layers, spec

    def conv(self, x: Any, name: str, filters: int, kernel: int = 1, stride: int = 1) -> Any:
        x, padding = self._padded(x, name, kernel, stride)
        x = self.layers.Conv2D(filters, kernel, stride, padding=padding, use_bias=False,
                               kernel_initializer=_CONV_INIT, name=f"{name}_conv")(x)  # fmt: skip
        return self._norm(x, name)

    def depthwise(self, x: Any, name: str, kernel: int, stride: int) -> Any:
        x, padding = self._padded(x, name, kernel, stride)
        x = self.layers.DepthwiseConv2D(kernel, stride, padding=padding, use_bias=False,
                                        depthwise_initializer=_CONV_INIT, name=f"{name}_conv")(x)  # fmt: skip
        return self._norm(x, name)

    def _padded(self, x: Any, name: str, kernel: int, stride: int) -> tuple[Any, str]:
        """Return what a convolution reads, and how it pads that itself."""
        if not pads_apart(self.spec, x.shape[1], stride):
            return x, "same"
        return self.layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x), "valid"

    def _norm(self, x: Any, name: str) -> Any:
        return self.layers.BatchNormalization(
            momentum=BATCH_NORM_MOMENTUM, epsilon=self.spec.norm_epsilon, name=f"{name}_bn"
        )(x)

    def activation(self, x: Any, name: str) -> Any:
        if self.spec.lite:
            return self.layers.ReLU(6.0, name=f"{name}_relu6")(x)
        return self.layers.Activation("swish", name=f"{name}_silu")(x)

    def squeeze_excite(self, x: Any, name: str, filters: int) -> Any:
        s = self.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_se_pool")(x)  # (N, 1, 1, C)
        s = self.layers.Conv2D(filters, 1, kernel_initializer=_CONV_INIT, name=f"{name}_se_reduce")(s)
        s = self.activation(s, f"{name}_se")
        s = self.layers.Conv2D(x.shape[-1], 1, kernel_initializer=_CONV_INIT, name=f"{name}_se_expand")(s)
        return self.layers.Multiply(name=f"{name}_se_scale")(
            [x, self.layers.Activation("sigmoid", name=f"{name}_se_gate")(s)]
        )


def set_weights(model: "tf_keras.Model", arrays: Mapping[str, np.ndarray]) -> None:
    """Give `model` the arrays named "layer/variable", as weights.py returns them; every variable must be named."""
    for layer in model.layers:
        if layer.weights:
            layer.set_weights([arrays[f"{layer.name}/{_variable_name(v)}"] for v in layer.weights])


def get_weights(model: "tf_keras.Model") -> dict[str, np.ndarray]:
    """Return every variable of `model` as {"layer/variable": array}."""
    return {f"{layer.name}/{_variable_name(v)}": np.asarray(v) for layer in model.layers for v in layer.weights}


def _variable_name(variable: Any) -> str:
    return str(variable.name).rsplit("/", 1)[-1].split(":")[0]


def fold_batch_norm(arrays: Mapping[str, np.ndarray], epsilon: float) -> dict[str, np.ndarray]:
    """Return the deploy form's weights: each batch norm folded into the convolution before it.

    y = gamma * (conv(x) - mean) / sqrt(var + eps) + beta is a convolution with kernel * s and bias beta - mean * s,
    s = gamma / sqrt(var + eps), eps being `epsilon`, per output channel. Computed in float64, returned as float32.
    """
    out = {name: a for name, a in arrays.items() if "_bn/" not in name}
    for gamma_name in (name for name in arrays if name.endswith("_bn/gamma")):
        base = gamma_name.removesuffix("_bn/gamma")
        gamma, beta, mean, var = (
            arrays[f"{base}_bn/{v}"].astype(np.float64) for v in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        s = gamma / np.sqrt(var + epsilon)  # (C,)
        kernel = f"{base}_conv/kernel" if f"{base}_conv/kernel" in arrays else f"{base}_conv/depthwise_kernel"
        per_channel = s if kernel.endswith("/kernel") else s[:, None]  # depthwise kernels are (k, k, C, 1)
        out[kernel] = (arrays[kernel] * per_channel).astype(np.float32)
        out[f"{base}_conv/bias"] = (beta - mean * s).astype(np.float32)
    return out


def with_batch_statistics(spec: ModelSpec, arrays: Mapping[str, np.ndarray], x: np.ndarray) -> dict[str, np.ndarray]:
    """Return `arrays` with the moving statistics of every batch norm taken from one batch.

    Without it a network with the initialiser's weights has activations that vanish or explode, and neither its latency
    nor its quantization is that of a real one.

    Args:
        x: (N, H, W, 3) float32, normalised.
    """
    model = build(spec, arrays["classifier/bias"].shape[0], x.shape[1])
    set_weights(model, arrays)
    for layer in model.layers:
        if isinstance(layer, keras().layers.BatchNormalization):
            layer.momentum = 0.0
    model(x, training=True)
    return get_weights(model)


def deploy(spec: ModelSpec, arrays: Mapping[str, np.ndarray], resolution_px: int | None = None) -> Graph:
    """Return the deploy form with the training form's weights: batch norm folded, no dropout, a batch of 1.

    It is drawn operator by operator, as TensorFlow's converter would write it, which takes seconds to load.
    """
    classes = arrays["classifier/bias"].shape[0]
    spec = replace(spec, classes=classes, resolution_px=resolution_px or spec.resolution_px)
    folded = fold_batch_norm(arrays, spec.norm_epsilon)
    layers = {n.split("/")[0]: n for n in expected_shapes(spec, classes) if n.endswith("kernel")}  # name -> kernel
    weights = [w for layer, n in layers.items() for w in (_outputs_first(folded[n]), folded[f"{layer}/bias"])]
    return _named(efficientnet(spec).graph_of(weights), list(layers))


def _outputs_first(kernel: np.ndarray) -> np.ndarray:
    """Keras's layout -> TFLite's: (h, w, in, out), (h, w, channels, 1) or (in, out) -> (out, h, w, in), ..."""
    return np.ascontiguousarray(np.moveaxis(kernel, -1, 0))


def _named(graph: Graph, layers: list[str]) -> Graph:
    """Call what a layer gives as the layer, and what another operator gives as the layer before it and its kind.

    Zeros around a picture belong to the layer after them.
    """
    new, left, layer = {}, deque(layers), ""
    for op in graph.ops:
        if op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            layer = left.popleft()
            new[op.outputs[0]] = layer
            new.update({str(n): f"{layer}/{v}" for n, v in zip(op.inputs[1:], ("kernel", "bias"), strict=True)})
        elif op.kind == "PAD":
            new[op.outputs[0]] = f"{left[0].removesuffix('_conv')}_pad"
        else:
            new[op.outputs[0]] = f"{layer.removesuffix('_conv')}_{op.kind.lower()}"
    return graph.renamed(new)
