"""Quantization-aware training: the post-training file's network goes on learning what the float network answers.

It starts from the best post-training integers and the calibrated ranges, so that step 0 is the post-training file, and
what is kept at the end is the best that a held-back part of the pictures saw, step 0 among it.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgenet.calibration.execute import Executor
from edgenet.calibration.gptq import gptq_weights
from edgenet.calibration.quantize import Weight, constant_weights, quantize
from edgenet.calibration.shared import SharedCalibration, rounding_of, spread
from edgenet.calibration.training.augment import Pictures, batches, centre
from edgenet.calibration.training.distill import distillation, divergence
from edgenet.calibration.training.keras_graph import fake_quantized, float_model, quantized_logits
from edgenet.calibration.training.loop import Outcome, Place, Task, Training
from edgenet.calibration.training.strategy import half_type, policy
from edgenet.errors import EdgenetError
from edgenet.export.graph import Graph
from edgenet.frameworks import tensorflow
from edgenet.images import normalise
from edgenet.options import Distillation, Settings
from edgenet.results import Calibration
from edgenet.targets import SAFE_BITS

WEIGHT_BITS = (4, 7, 8)
MOST_DIFFERENCE = 0.005  # between simulated and integer arithmetic, in agreement
START_BYTES = 2**32  # of activations while the weights are rounded to start from; training takes more
_CHUNK = 16


@dataclass(frozen=True)
class Trained:
    """The graphs before and after, and how it went. `after` is `before` where training brought nothing."""

    before: Graph
    after: Graph
    calibration: Calibration  # with the trained ranges
    outcome: Outcome
    matches_before: float  # part of the held-back pictures on which simulation and integers have one top-1
    matches_after: float


def layer_bits(graph: Graph, weight_bits: int, most: int = 8) -> dict[str, int]:
    """Return the bits of each operator's weights, by its output.

    With 4 bits only pointwise (1 x 1) convolutions have 4: depthwise ones, the first layer and the classifier keep
    `most`, since they have few weights or decide the answer.
    """
    bits = {}
    for op in graph.ops:
        w = constant_weights(graph, op)
        if w is not None:
            pointwise = op.kind == "CONV_2D" and w.shape[1:3] == (1, 1)
            bits[op.outputs[0]] = min(weight_bits, most) if weight_bits > 4 or pointwise else most
    return bits


def start(shared: SharedCalibration, bits: Mapping[str, int], pictures: Pictures) -> dict[str, Weight]:
    """Return the post-training weights with these bits, corrected as the calibration's recipe says.

    Where some layers have fewer bits than others, all pictures have a say in the rounding, not the calibration's alone:
    the coarser the steps, the more there is to make good, and the more pictures that takes.
    """
    one = set(bits.values())
    if len(one) == 1:
        return shared.weights("int8", one.pop())
    inputs = (normalise(centre(pictures.subset([i])), pictures.preprocessing) for i in spread(len(pictures)))
    rounding = rounding_of(shared.recipe, bits)
    return gptq_weights(shared.graph, inputs, shared.calibration, rounding, images=len(pictures), max_bytes=START_BYTES)


def train(
    shared: SharedCalibration,
    pictures: Pictures,
    held_back: Pictures,
    bits: Mapping[str, int],
    distill: Distillation,
    settings: Settings,
    place: Place,
) -> Trained:
    """Train the quantized network and return it as graphs that every exporter takes.

    Args:
        shared: the network with its calibration.
        pictures: to train on; labels are used where `distill.labels_weight` says so.
        held_back: what decides which weights are kept, never trained on.
        bits: of each operator's weights (`layer_bits`).

    Raises:
        InputError: the network has an operator that cannot be trained; another run's checkpoint; the loss diverged.
        MissingDependency: tensorflow-model-optimization is not installed.
        EdgenetError: simulated and exported network differ, which would be a bug.
    """
    # The student's sums of integers need float32's 24 bits, so that it answers as the file; the teacher's do not.
    # The teacher comes first: what cannot be trained is told before minutes of calibration.
    with place.strategy.scope(), policy(half_type(distill.mixed_precision, place.strategy)):
        teacher = float_model(shared.network.graph)
    weights = start(shared, bits, pictures)
    before = quantize(shared.graph, "int8", shared.calibration, weights=weights)
    latent = dict(_float_weights(shared.graph))
    with place.strategy.scope():
        student = fake_quantized(
            before, latent, bits, in_pairs=set(bits.values()) == {SAFE_BITS},  # as SharedCalibration.weights rounds
            learn_ranges=distill.learn_ranges, learn_scales=distill.learn_scales,
        )  # fmt: skip
    x = normalise(centre(held_back), held_back.preprocessing)
    wanted = logits(shared.network.graph, shared.network.graph.logits(), x)
    infer = tensorflow().function(lambda v: student.model(v, training=False), reduce_retracing=True)

    def simulated() -> np.ndarray:
        return np.concatenate([np.asarray(infer(x[i : i + _CHUNK])) for i in range(0, len(x), _CHUNK)])

    def validate() -> dict[str, float]:
        given = simulated()
        return {"loss": divergence(wanted, given), "agreement": _same(wanted, given)}

    matches_before = _checked(before, x, simulated(), wanted, "before training")
    classes = wanted.shape[1]
    task = Task(
        student.model,
        distillation(teacher, distill.temperature, distill.labels_weight),
        lambda epoch: batches(pictures, settings.batch, settings.seed, epoch, distill.augment, classes),
        len(pictures) // settings.batch,
        validate,
    )
    outcome = Training(task, settings, place).run()
    if outcome.best_epoch == 0:
        return Trained(before, before, shared.calibration, outcome, matches_before, matches_before)
    found, calibration = student.trained(shared.calibration)
    after = quantize(shared.graph, "int8", calibration, weights=found)
    return Trained(
        before, after, calibration, outcome, matches_before, _checked(after, x, simulated(), wanted, "after training")
    )


def logits(graph: Graph, name: str, x: np.ndarray) -> np.ndarray:
    """Return tensor `name` of a graph as LiteRT computes it for x, (N, H, W, 3) float32: (N, classes)."""
    run = Executor(graph, [name], os.cpu_count() or 1)
    return np.concatenate([run(v[None])[0].reshape(1, -1) for v in x])


def _checked(graph: Graph, x: np.ndarray, simulated: np.ndarray, wanted: np.ndarray, when: str) -> float:
    """Hold the simulation against the integers of the graph that is exported."""
    stored = logits(graph, quantized_logits(graph), x)
    if _apart(_same(wanted, stored), _same(wanted, simulated), len(x)):
        raise EdgenetError(
            f"{when} the simulated network agrees with float on {_same(wanted, simulated):.3f} of the held-back "
            f"pictures and the file on {_same(wanted, stored):.3f}: please report this as a bug, with the model"
        )
    return _same(stored, simulated)


def _apart(a: float, b: float, n: int) -> bool:
    """Whether two agreements over n pictures differ by more than MOST_DIFFERENCE, and by more than a single picture.

    One picture whose two best classes all but tie may fall either way; of fewer than 200 it is more than the limit.
    """
    return abs(a - b) * n > max(1.5, MOST_DIFFERENCE * n)


def _same(a: np.ndarray, b: np.ndarray) -> float:
    return float((a.argmax(-1) == b.argmax(-1)).mean())


def _float_weights(graph: Graph) -> Sequence[tuple[str, np.ndarray]]:
    return [(op.outputs[0], w) for op in graph.ops if (w := constant_weights(graph, op)) is not None]
