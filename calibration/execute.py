"""Run a float graph and look at any of its activations: LiteRT with the wanted tensors made outputs of the file."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgenet.errors import MissingDependency
from edgenet.export.graph import Graph, write_tflite
from edgenet.frameworks import quiet


class Executor:
    """Computes the named activations of a graph, one picture at a time.

    XNNPACK runs the whole graph at the speed of inference, since nothing but the list of outputs is changed.
    """

    def __init__(self, graph: Graph, names: Sequence[str], threads: int) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise MissingDependency("ai-edge-litert", "tflite", "calibration") from None
        self.names = tuple(names)
        model = write_tflite(graph.with_outputs(self.names), signature=None)
        with quiet():
            self._interpreter: Any = Interpreter(model_content=model, num_threads=threads)
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [d["index"] for d in self._interpreter.get_output_details()]

    def __call__(self, x: np.ndarray) -> list[np.ndarray]:
        """Return copies of the activations for one input, in the order of `names`. x: the graph's input shape."""
        self._interpreter.set_tensor(self._input, x)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(i) for i in self._outputs]
