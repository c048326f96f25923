"""A Keras layer for an operator without weights. Import it late: it loads TensorFlow.

On levels (stored integers less their zero point, float32) it computes as XNNPACK does when it is evaluated, and with
real numbers in between while it trains.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgenet.calibration.training.links import Links
from edgenet.export.tensorflow_operators import FUNCTIONS, ON_REALS, activated, axes
from edgenet.frameworks import keras, tensorflow

tf = tensorflow()


class Operator(keras().layers.Layer):  # type: ignore[misc]
    """One operator of the graph that has no weights.

    Args:
        kind, options: of the graph's operator.
        constants: its constant inputs, by their position as text, since a model's configuration is JSON.
        activation: "relu", "relu6" or None, for real numbers only.
    """

    def __init__(self, kind: str, options: Any, constants: Any, activation: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind, self.options, self.constants, self.activation = kind, options, constants, activation
        self.links: Links | None = None  # None: real numbers in, real numbers out

    def call(self, inputs: Any, training: Any = None) -> Any:
        """Return levels of the output for levels of the inputs, or real numbers for real numbers."""
        fed = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        links = self.links
        if links is not None and not training and self.kind == "ADD" and not self.constants:
            return _exact_add(fed, links)
        if links is not None and self.kind in ON_REALS and not (self.kind == "MEAN" and not training):
            fed = [x * tf.cast(step(), x.dtype) for x, step in zip(fed, links.inputs, strict=True)]
        for i in sorted(self.constants, key=int):
            fed.insert(int(i), self.constants[i])
        if links is not None and not training and self.kind == "MEAN":
            return _exact_mean(fed, self.options, links)
        y = FUNCTIONS[self.kind](tf, fed, self.options)
        if links is None:
            return activated(tf, y, self.activation)
        return y / tf.cast(links.output(), y.dtype) if self.kind in ON_REALS else y

    def get_config(self) -> dict[str, Any]:
        """Return what the layer is made again from when a model is cloned."""
        own = {n: getattr(self, n) for n in ("kind", "options", "constants", "activation")}
        return {**super().get_config(), **own}


def _exact_add(x: list[Any], links: Links) -> Any:
    """XNNPACK's vadd: multipliers of 21 bits with one shift, rounded half up. Exact in float64."""
    a, b, out = (tf.cast(step(), tf.float32) for step in (*links.inputs, links.output))
    ra, rb = a / out, b / out
    exponent = tf.floor(tf.math.log(tf.cast(tf.maximum(ra, rb), tf.float64)) / np.log(2.0))
    unit = tf.pow(tf.constant(2.0, tf.float64), 20.0 - exponent)
    ma, mb = (tf.round(tf.cast(r, tf.float64) * unit) for r in (ra, rb))
    total = tf.cast(x[0], tf.float64) * ma + tf.cast(x[1], tf.float64) * mb
    return tf.cast(tf.floor(total / unit + 0.5), tf.float32)


def _exact_mean(x: list[Any], options: Mapping[str, Any], links: Links) -> Any:
    """The sum of integers, scaled once."""
    sums = tf.reduce_sum(x[0], axes(x[1]), keepdims=bool(options.get("keepDims")))
    n = np.prod([x[0].shape[a] for a in axes(x[1])])
    return sums * (links.inputs[0]() / (links.output() * np.float32(n)))
