"""Fine-tuning in stages: how fast each layer may learn, and whether a stage was worth it.

The top layers learn first, then all, each from the best that came before: gradual unfreezing with rates that fall from
layer to layer, after Howard and Ruder, https://arxiv.org/abs/1801.06146, sections 3.2 and 3.3.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgenet.calibration.training.cut import depths
from edgenet.export.graph import Graph
from edgenet.frameworks import tensorflow

# Standard errors by which a stage has to be better. One picture put right, with all others as they were, is about one:
# as much as a dozen held-back pictures can show. A stage that is truly worse by one looks this good once in 15 times.
CLEARLY = 0.5
LEAST_SIZE = 0.01  # of a channel's weights beside those of its layer: one that is all zeros may learn too
_CHUNK = 32
MOST_SHARPENED = 8.0  # times; as much the other way
_HALVINGS = 40  # of the interval in which the sharpness lies


def rate_factors(graph: Graph, model: Any, first_layer_rate: float) -> tuple[np.ndarray, ...]:
    """Return what the learning rate is multiplied by for each trainable variable of a `float_model` of the graph.

    A step of Adam has one size whatever the weight's. Folding batch norm has given the channels of a layer sizes that
    differ a hundredfold, so that a channel's step is a part of the size of its own weights (their root mean square),
    as in https://arxiv.org/abs/1708.03888. A bias is in the units of what the layer gives, and so are the others of its
    layer; the head gives logits, whose unit is 1. From the head to the first layer steps shrink geometrically to
    `first_layer_rate`.
    """
    of, found = depths(graph), []
    for layer in model.layers:
        for i, v in enumerate(layer.trainable_variables):
            if i == 0:
                size: Any = _size_of_channels(v.numpy(), "depthwise_kernel" in v.name)
            else:
                size = 1.0 if of[layer.name] == 0 else np.sqrt((v.numpy() ** 2).mean())
            found.append(np.asarray(first_layer_rate ** of[layer.name] * size, np.float32))
    return tuple(found)


def _size_of_channels(kernel: np.ndarray, depthwise: bool) -> np.ndarray:
    """Return the root mean square of the weights of each output channel, in a shape that broadcasts to the kernel."""
    axes = (0, 1) if depthwise else tuple(range(kernel.ndim - 1))
    size = np.sqrt((kernel.astype(np.float64) ** 2).mean(axes, keepdims=True))
    return np.maximum(size, LEAST_SIZE * max(float(np.sqrt((size**2).mean())), 1e-6))


class HeldBack:
    """Measures the held-back pictures with the weights that a model has at that moment.

    Args:
        logits: the model, or that above a cut.
        x: what it is given for pictures i to j, float32.
        labels: (N,).
    """

    def __init__(self, logits: Any, x: Callable[[int, int], np.ndarray], labels: np.ndarray) -> None:
        self._infer = tensorflow().function(lambda v: logits(v, training=False), reduce_retracing=True)
        self._x, self._labels = x, labels

    def measure(self) -> "Measured":
        n = len(self._labels)
        found = [np.asarray(self._infer(self._x(i, min(i + _CHUNK, n))), np.float64) for i in range(0, n, _CHUNK)]
        return measured(np.concatenate(found), self._labels)


def measured(logits: np.ndarray, labels: np.ndarray, sharpness: float | None = None) -> "Measured":
    """Return what logits (N, classes) are worth: labels (N,).

    They are multiplied by one number first, that with which the loss is least unless it is given. How sure a network is
    of its answers moves with the learning rate and the smoothing of the labels, by more than what it learns: by the
    plain loss an early epoch of few right answers looks better than a late one of many.
    """
    z = logits.astype(np.float64)
    z = z - z.max(1, keepdims=True)
    sharpness = sharpness_of(z, labels) if sharpness is None else sharpness
    losses = np.log(np.exp(sharpness * z).sum(1)) - sharpness * z[np.arange(len(z)), labels]
    return Measured(losses, z.argmax(1) == labels, sharpness)


def sharpness_of(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the factor of logits (N, classes) that makes the cross entropy with labels (N,) least.

    The inverse of the temperature of https://arxiv.org/abs/1706.04599, by halving: the loss is convex in it. As Platt
    has it (1999, section 2.2), one more picture than were seen might have been wrong: each label gives 1 / (n + 2) of
    itself to all classes, or a few answers that are all right would be made as good as certain.
    """
    low, high = -math.log(MOST_SHARPENED), math.log(MOST_SHARPENED)
    given = 1 / (len(labels) + 2)
    wanted = (1 - given) * logits[np.arange(len(logits)), labels] + given * logits.mean(1)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        p = np.exp(math.exp(middle) * logits)
        p /= p.sum(1, keepdims=True)
        low, high = (low, middle) if ((p * logits).sum(1) - wanted).mean() > 0 else (middle, high)
    return math.exp((low + high) / 2)


@dataclass(frozen=True)
class Measured:
    """Cross entropy of each held-back picture, (N,), whether it is right, (N,), and what multiplied the logits."""

    losses: np.ndarray
    right: np.ndarray
    sharpness: float = 1.0

    @property
    def loss(self) -> float:
        return float(self.losses.mean())

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())

    def row(self, before: "Measured") -> dict[str, float]:
        """Return what the training loop notes of it: learned and forgotten are pictures, since `before`."""
        learned, forgotten = int((self.right & ~before.right).sum()), int((before.right & ~self.right).sum())
        return {"loss": self.loss, "accuracy": self.accuracy, "learned": learned, "forgotten": forgotten}


@dataclass(frozen=True)
class Gain:
    """By how much the loss of the held-back pictures fell from one stage to the next, and its standard error."""

    mean: float
    error: float

    @property
    def is_real(self) -> bool:
        """Whether it is more than noise. The cheaper stage is the safer one: it wins a tie."""
        return self.mean > CLEARLY * self.error


def gain(before: Measured, after: Measured) -> Gain:
    """Compare two stages picture by picture: both saw the same ones."""
    fell = before.losses - after.losses
    n = len(fell)
    error = float(fell.std(ddof=1) / np.sqrt(n)) if n > 1 else float("inf")
    return Gain(float(fell.mean()), error)
