"""Networks of tf_keras.applications and rows away from them: counted without weights, built with random ones.

Counting builds the model inside a TensorFlow graph, where a variable is a name and a shape: nothing is allocated.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from edgenet.export.graph import Graph
from edgenet.frameworks import keras, tensorflow

_STATISTICS_PICTURES = 2


@dataclass(frozen=True)
class KerasNetwork:
    """A model of tf_keras.applications. `build(applications, options)` calls its function with the options given.

    Raises (all but making it):
        MissingDependency: tf-keras is not installed.
    """

    name: str
    resolution_px: int
    build: Callable[..., Any]

    @cached_property
    def _layers(self) -> list[tuple[int, int, int]]:
        """(parameters, multiply-adds, moving statistics) of each layer with weights."""
        with tensorflow().Graph().as_default(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the call is deprecated, and building without it takes twice as long
            keras().backend.set_learning_phase(0)
            model = self._model()
            return [_count(layer) for layer in model.layers if layer.weights]

    @property
    def parameters(self) -> int:
        """The numbers that are trained, batch norm's scale and shift among them, not its moving statistics."""
        return sum(parameters for parameters, _, _ in self._layers)

    @property
    def multiply_adds(self) -> int:
        """Of one picture: convolutions and the last layer, padding counted."""
        return sum(madds for _, madds, _ in self._layers)

    @property
    def moving_statistics(self) -> int:
        """Batch norm's means and variances, which some authors count as parameters."""
        return sum(statistics for _, _, statistics in self._layers)

    def graph(self, seed: int = 0) -> Graph:
        """Return the float graph with the initialiser's weights and batch norm's statistics of made pictures.

        Without the statistics activations would vanish or explode from layer to layer, and denormals take the time of
        many ordinary numbers.
        """
        from edgenet.device_bench import example_picture
        from edgenet.export.network import from_keras

        keras().backend.clear_session()
        keras().utils.set_random_seed(seed)
        model = self._model()
        pictures = np.stack([example_picture(self.resolution_px, seed + i) for i in range(_STATISTICS_PICTURES)])
        for layer in model.layers:
            if isinstance(layer, keras().layers.BatchNormalization):
                layer.momentum = 0.0
        model((pictures.astype(np.float32) - 127) / 128, training=True)
        return from_keras(model)

    def _model(self) -> Any:
        px = self.resolution_px
        return self.build(keras().applications, weights=None, input_shape=(px, px, 3))


def _count(layer: Any) -> tuple[int, int, int]:
    """Every number of a kernel is multiplied once for each pixel that comes out; scales and biases are added."""
    parameters = sum(math.prod(w.shape) for w in layer.trainable_weights)
    pixels = math.prod(layer.output_shape[1:-1])  # 1 for a dense layer
    kernels = sum(math.prod(w.shape) for w in layer.trainable_weights if len(w.shape) > 1)
    statistics = sum(math.prod(w.shape) for w in layer.non_trainable_weights)
    return parameters, kernels * pixels, statistics
