"""The float graph that everything is made from, and its conversion from Keras and TensorFlow."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgenet.errors import InputError
from edgenet.export.graph import WEIGHT_AXIS, Graph
from edgenet.export.interface import LOGITS
from edgenet.export.tflite_file import read_tflite, write_tflite
from edgenet.frameworks import quiet, tensorflow
from edgenet.images import Pixels, Preprocessing, imagenet_classes
from edgenet.results.records import NOTHING_SEEN, Finding, PictureHistory
from edgenet.tasks import CLASSES, Task

INPUT, OUTPUT = "image", "probabilities"

_FACTORS = ("MUL", "DIV", "PRELU", "SQUARED_DIFFERENCE")  # infinity in what they are given is in all that follows
MAX_CLASSES = 1_000_000  # ImageNet-21k has 21,843; a million names take 0.1 GB


@dataclass(frozen=True)
class Network:
    """A float graph, how its input is made, and what its outputs mean."""

    name: str
    graph: Graph
    preprocessing: Preprocessing
    class_ids: tuple[str, ...]  # WordNet ids, or the names again where the classes have none
    class_names: tuple[str, ...]
    weights: str  # where they came from; "random" says that accuracy means nothing
    fingerprint: str  # sha256 of the float graph
    pictures: PictureHistory = NOTHING_SEEN  # those that it has seen
    task: Task = CLASSES

    @property
    def resolution_px(self) -> int:
        return self.preprocessing.resolution_px


@dataclass(frozen=True)
class Source:
    """A model that was found and verified, but not built yet: building may load TensorFlow, finding does not."""

    name: str
    preprocessing: Preprocessing
    class_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    weights: str
    sha256: str  # of the weights
    build: Callable[[], Graph]
    # Of random weights: builds with the batch statistics of pixels, (N, H, W, 3) uint8.
    build_on: Callable[[Pixels], Graph] | None = None
    pictures: PictureHistory = NOTHING_SEEN  # those that it has seen
    findings: tuple[Finding, ...] = ()  # what is doubtful about it
    task: Task = CLASSES

    def network(self, pixels: Pixels | None = None) -> Network:
        """Build the float graph: pictures in RGB, probabilities out, canonical names.

        Args:
            pixels: (N, H, W, 3) uint8, which random weights take the statistics of their batch norm from.

        Raises:
            InputError: the graph has another number of classes than there are names, or weights that are not finite.
        """
        from edgenet.export.importers.classifier import as_classifier, rgb_input

        on_pixels = self.build_on is not None and pixels is not None
        built = self.build_on(pixels) if on_pixels else self.build()  # type: ignore[misc, arg-type]
        graph, added = as_classifier(built, self.task)
        graph, preprocessing = rgb_input(graph, self.preprocessing)
        graph = canonical_names(graph)
        classes = self.task.n_names(graph.tensors[graph.outputs[0]].shape[-1])
        if classes != len(self.class_names):
            raise InputError(f"{self.name} has {classes} classes and {len(self.class_names)} names: give --labels FILE")
        _refuse_nonfinite(self.name, graph)
        fingerprint = hashlib.sha256(write_tflite(graph)).hexdigest()
        weights = f"{self.weights}, {added}" if added else self.weights
        return Network(
            self.name, graph, preprocessing, self.class_ids, self.class_names, weights, fingerprint, self.pictures,
            self.task,
        )  # fmt: skip


def _refuse_nonfinite(name: str, graph: Graph) -> None:
    """Raise InputError where a constant holds NaN, or infinity that is no limit and no mask; or an option does.

    A minimum may be infinite, and so may parts of what is added, which is how attention masks. Weights, factors, and
    all of what is added may not.
    """
    no_infinity = {n for op in graph.ops if op.kind in (*WEIGHT_AXIS, *_FACTORS) for n in op.inputs}
    added = {n for op in graph.ops if op.kind in ("ADD", "SUB") for n in op.inputs}
    for t in graph.tensors.values():
        if t.data is None or t.data.dtype.kind != "f":
            continue
        infinite = np.isinf(t.data)
        wrong = np.isnan(t.data)
        if t.name in no_infinity or (t.name in added and infinite.all()):
            wrong |= infinite
        if bad := int(wrong.sum()):
            raise InputError(
                f"{name} cannot answer: {bad} of the {t.data.size} numbers in its weights {t.name} are NaN or "
                "infinity; give a checkpoint from before training diverged"
            )
    for op in graph.ops:
        for option, value in op.options.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(
                    f"{name} cannot answer: {option} of {op.kind} {op.outputs[0]} is {value}, which is no number to "
                    "compute with; save the network again"
                )


def classes_of(n: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return ids and names of `n` classes: ImageNet's where there are 1000, numbers where nobody named them.

    Raises:
        InputError: there are more than any classifier has: a name would be made for each.
    """
    if not 0 <= n <= MAX_CLASSES:
        raise InputError(f"{n:,} classes are declared, and at most {MAX_CLASSES:,} are read: this is no classifier")
    if n == 1000:
        return imagenet_classes()
    names = tuple(f"class {i}" for i in range(n))
    return tuple(str(i) for i in range(n)), names


def canonical_names(graph: Graph) -> Graph:
    """Return the graph with its input called `image`, its output `probabilities` and the softmax's input `logits`."""
    new = {graph.outputs[0]: OUTPUT, graph.inputs[0]: INPUT}
    if graph.logits() != graph.outputs[0]:
        new[graph.logits()] = LOGITS
    taken = [n for n in graph.tensors if n in new.values() and new.get(n) != n]
    new.update({n: f"{n}_" for n in taken if n not in new})
    return graph.renamed(new)


def from_keras(model: Any, shape: tuple[int, ...] | None = None, output: int = 0) -> Graph:
    """Return a Keras model (2 or 3) with one image input as a float graph with a static batch of 1.

    Args:
        shape: the input's, (1, H, W, C); the model's own by default.
        output: which one is wanted, where it has several.

    One traced function, frozen and converted, is many times faster than `TFLiteConverter.from_keras_model`, which
    writes a whole SavedModel first; the operators come out the same.
    """
    tf = tensorflow()
    shape = shape or (1, *model.inputs[0].shape[1:])

    def answer(image: Any) -> Any:
        found = model(image, training=False)
        found = list(found.values()) if isinstance(found, dict) else found
        return found[output] if isinstance(found, list | tuple) else found

    function = tf.function(answer, input_signature=[tf.TensorSpec(shape, tf.float32, INPUT)])
    return from_function(function.get_concrete_function())


def from_function(concrete: Any) -> Graph:
    """Return a concrete TensorFlow function with static shapes as a float graph."""
    tf = tensorflow()
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    frozen = convert_variables_to_constants_v2(concrete)
    with quiet():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
        converter.experimental_lower_to_saved_model = False  # for that it would make a folder, and leave it empty
        return read_tflite(converter.convert())
