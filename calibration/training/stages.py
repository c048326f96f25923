"""Fine-tuning in stages: which layers may learn, how fast each of them, and whether a stage was worth it.

The top layers learn first, then all, each from the best that came before: gradual unfreezing with rates that fall from
layer to layer, after Howard and Ruder, https://arxiv.org/abs/1801.06146, sections 3.2 and 3.3.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgenet.calibration.training.augment import Pictures, centre
from edgenet.frameworks import keras, tensorflow
from edgenet.images import normalise

TOP = 1 / 3  # of the blocks, counted from the head: most of the weights, and a third of the work
# Standard errors by which a stage has to be better. One picture put right, with all others as they were, is about one:
# as much as a dozen held-back pictures can show. A stage that is truly worse by one looks this good once in 15 times.
CLEARLY = 0.5
_CHUNK = 32


def depths(model: Any) -> dict[str, float]:
    """Return how far each layer with weights is from the head: 0 for the classifier, 1 for the first block.

    Layers of one block, "block3_expand_conv" and "block3_project_bn", stand at one depth.
    """
    named = {layer.name: layer.name.split("_")[0] for layer in model.layers if layer.weights}  # from input to output
    blocks = list(dict.fromkeys(named.values()))
    last = len(blocks) - 1
    return {name: (last - blocks.index(block)) / max(1, last) for name, block in named.items()}


def let_learn(model: Any, layers: str) -> None:
    """Make the "top" layers or "all" of them trainable, but for batch norm, which keeps its statistics meanwhile.

    The head was fitted to features of those. With the statistics of each batch in their place training begins worse
    than guessing, and on 1,222 handwritten digits, unlike anything in ImageNet, three epochs did not make up for it.
    """
    of, norm = depths(model), keras().layers.BatchNormalization
    for layer in model.layers:
        if layer.name in of:
            layer.trainable = (layers == "all" or of[layer.name] <= TOP) and not isinstance(layer, norm)


def rate_factors(model: Any, first_layer_rate: float) -> tuple[float, ...]:
    """Return what part of the learning rate each trainable variable has: 1 at the head, falling geometrically."""
    of = depths(model)
    found = {
        id(v): first_layer_rate ** of[layer.name]
        for layer in model.layers
        if layer.name in of
        for v in layer.trainable_variables
    }
    return tuple(found[id(v)] for v in model.trainable_variables)


class HeldBack:
    """Measures the held-back pictures with the weights that a model has at that moment."""

    def __init__(self, logits: Any, pictures: Pictures) -> None:
        self._infer = tensorflow().function(lambda x: logits(x, training=False), reduce_retracing=True)
        self._pixels, self._pictures = centre(pictures), pictures

    def logits(self) -> np.ndarray:
        """Return the logits of the pictures, (N, classes) float64."""
        found = []
        for i in range(0, len(self._pixels), _CHUNK):
            x = normalise(self._pixels[i : i + _CHUNK], self._pictures.preprocessing)
            found.append(np.asarray(self._infer(x), np.float64))
        return np.concatenate(found)

    def measure(self) -> "Measured":
        z, labels = self.logits(), self._pictures.labels
        z = z - z.max(1, keepdims=True)
        losses = np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), labels]
        return Measured(losses, float((z.argmax(1) == labels).mean()))


@dataclass(frozen=True)
class Measured:
    """Cross entropy of each held-back picture, (N,), and the part of them that is right."""

    losses: np.ndarray
    accuracy: float

    @property
    def loss(self) -> float:
        return float(self.losses.mean())

    def row(self) -> dict[str, float]:
        """Return what the training loop notes of it."""
        return {"loss": self.loss, "accuracy": self.accuracy}


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
