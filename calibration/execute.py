"""Run a float graph and look at any of its activations: LiteRT with the wanted tensors made outputs of the file."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgenet.errors import MissingDependency
from edgenet.export.graph import Graph
from edgenet.export.tflite_file import write_tflite
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
        with quiet():  # LiteRT says on stderr that it uses XNNPACK
            self._interpreter: Any = Interpreter(model_content=model, num_threads=threads)
            self._interpreter.allocate_tensors()
        self._inputs = [d["index"] for d in self._interpreter.get_input_details()]
        self._outputs = [d["index"] for d in self._interpreter.get_output_details()]

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Return copies of the activations in the order of `names`. inputs: the graph's, in its order and shapes."""
        for index, x in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(index, x)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(i) for i in self._outputs]
