"""Quantization-aware training: the post-training file's network goes on learning what the float network answers.

It starts from the best post-training integers and the calibrated ranges, so that step 0 is the post-training file, and
what is kept at the end is the best that a held-back part of the pictures saw, step 0 among it.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from edgenet.calibration.execute import Executor
from edgenet.calibration.gptq import gptq_weights
from edgenet.calibration.quantize import FEW_BITS, Weight, constant_weights, layer_bits, quantize
from edgenet.calibration.shared import SharedCalibration, rounding_of, spread
from edgenet.calibration.training.activations import Answers, Look, answers, delete
from edgenet.calibration.training.augment import Pictures, batches, centre
from edgenet.calibration.training.cut import above, weighty_cut
from edgenet.calibration.training.distill import cross_entropy, distillation, divergence
from edgenet.calibration.training.keras_graph import (
    FakeQuantized,
    fake_quantized,
    float_model,
    layer_name,
    quantized_logits,
)
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
LONGER, WIDER = 50.0, 4.0  # steps of training where weights have few bits; there, of weights that have 8
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


def precision_of(weight_bits: int) -> str:
    """Return the precision of a file whose weights have so many bits at least."""
    return "int4" if weight_bits == FEW_BITS else "int8"


def bits_of(graph: Graph, weight_bits: int, most: int = 8) -> dict[str, int]:
    """Return the bits of each operator's weights, by its output; with 4, as `layer_bits` has it."""
    if weight_bits == FEW_BITS:
        return layer_bits(graph, most)
    return {op.outputs[0]: min(weight_bits, most) for op in graph.ops if constant_weights(graph, op) is not None}


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


@dataclass(frozen=True)
class _Taught:
    """What learns: the whole network from pictures, or its top from what the frozen rest makes of them."""

    network: Graph  # quantized, from the picture or from the cut on
    teacher: Any  # a model; None where the answers are kept
    data: Callable[[int], Any]
    held_back: Callable[[int, int], np.ndarray]


def train(
    shared: SharedCalibration,
    pictures: Pictures,
    held_back: Pictures,
    bits: Mapping[str, int],
    distill: Distillation,
    settings: Settings,
    place: Place,
    about: str = "",
) -> Trained:
    """Train the quantized network and return it as graphs that every exporter takes.

    Args:
        shared: the network with its calibration.
        pictures: to train on; labels are used where `distill.labels_weight` says so.
        held_back: what decides which weights are kept, never trained on.
        bits: of each operator's weights (`bits_of`).
        about: fingerprint of both sets of pictures.

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
    precision = precision_of(min(bits.values(), default=8))
    before = quantize(shared.graph, precision, shared.calibration, weights=weights)
    latent = dict(_float_weights(shared.graph))
    x = normalise(centre(held_back), held_back.preprocessing)
    wanted = logits(shared.network.graph, shared.network.graph.logits(), x)
    classes = wanted.shape[1]
    cut = _cut(before, distill)
    if cut is None:
        data = partial(_from_pictures, pictures, settings, distill, classes)
        taught = _Taught(before, teacher, data, lambda i, j: x[i:j])
    else:
        taught = _top(shared, before, cut, pictures, held_back, distill, settings, place, about)
    with place.strategy.scope():
        student = fake_quantized(
            taught.network, latent, bits, in_pairs=set(bits.values()) == {SAFE_BITS},  # as SharedCalibration.weights
            learn_ranges=distill.learn_ranges, learn_scales=learns_scales(distill, bits),
        )  # fmt: skip
    infer = tensorflow().function(lambda v: student.model(v, training=False), reduce_retracing=True)

    def simulated() -> np.ndarray:
        parts = [np.asarray(infer(taught.held_back(i, min(i + _CHUNK, len(x))))) for i in range(0, len(x), _CHUNK)]
        return np.concatenate(parts)

    def validate() -> dict[str, float]:
        given, w = simulated(), distill.labels_weight
        loss = divergence(wanted, given)
        if w and (held_back.labels >= 0).any():
            loss = (1 - w) * loss + w * cross_entropy(held_back.labels, given)
        return {"loss": loss, "agreement": _same(wanted, given)}

    matches_before = _checked(before, x, simulated(), wanted, "before training")
    task = Task(
        student.model,
        distillation(taught.teacher, distill.temperature, distill.labels_weight),
        taught.data,
        len(pictures) // settings.batch,
        validate,
        factors=step_factors(student, bits),
    )
    outcome = Training(task, settings, place).run()
    delete(place.folder)
    if outcome.best_epoch == 0:
        return Trained(before, before, shared.calibration, outcome, matches_before, matches_before)
    found, calibration = student.trained(shared.calibration)
    after = quantize(shared.graph, precision, calibration, weights={**weights, **found})
    return Trained(
        before, after, calibration, outcome, matches_before, _checked(after, x, simulated(), wanted, "after training")
    )


def learns_scales(distill: Distillation, bits: Mapping[str, int]) -> bool:
    """Whether the scales of weights learn: where nobody said, those of few bits."""
    return FEW_BITS in bits.values() if distill.learn_scales is None else distill.learn_scales


def step_factors(student: FakeQuantized, bits: Mapping[str, int]) -> tuple[np.ndarray, ...]:
    """Return what the learning rate is multiplied by for each trainable variable; nothing where no weight has few bits.

    A rate is meant for steps of 8 bits, which are hundreds in a weight. Of FEW_BITS a weight has a few, so that
    nothing would ever be rounded otherwise: all steps are longer. A scale moves a whole channel, so that its gradient
    is divided by sqrt(N Qp), N weights of Qp steps, in LSQ (https://arxiv.org/abs/1902.08153, section 2.2); Adam's
    step does not depend on the gradient's size, so that the step is divided.
    """
    if FEW_BITS not in bits.values():
        return ()
    of = {layer_name(name): n for name, n in bits.items()}
    found = []
    for layer in student.model.layers:
        own = of.get(layer.name, 8)
        size = next((int(np.prod(v.shape)) for v in layer.trainable_variables if "kernel:" in v.name), 1)
        for v in layer.trainable_variables:
            if v.name.endswith("output_moved:0"):
                factor = 1.0
            elif "_moved" in v.name:
                n = size / max(1, int(np.prod(v.shape)))
                factor = LONGER / np.sqrt(n * (2 ** (own - 1) - 1))
            elif "kernel" in v.name:
                factor = LONGER * (1.0 if own == FEW_BITS else WIDER)
            else:
                factor = LONGER
            found.append(np.asarray(factor, np.float32))
    return tuple(found)


def _from_pictures(pictures: Pictures, s: Settings, distill: Distillation, classes: int, epoch: int) -> Any:
    return batches(pictures, s.batch, s.seed, epoch, distill.augment, classes)


def _cut(graph: Graph, distill: Distillation) -> str | None:
    """Return where the top begins that learns alone; None where all learns."""
    if distill.layers == "all":
        return None
    cut = weighty_cut(graph).name
    return cut if graph.tensors[cut].dtype == "int8" else None


def _top(
    shared: SharedCalibration, before: Graph, cut: str, pictures: Pictures, held_back: Pictures, distill: Distillation,
    settings: Settings, place: Place, about: str,
) -> _Taught:  # fmt: skip
    changes = tuple(a for a in distill.augment if a != "mixup")
    teacher, progress = shared.network.graph, place.progress

    def kept(of: Pictures, look: Look, role: str) -> Answers:
        return answers(before, cut, teacher, of, f"{role} {about}", look, place.folder, progress)

    # Not computed by a run that has ended.
    seen = cache(lambda: kept(pictures, Look(distill.views, changes, seed=settings.seed), "taught"))
    held = kept(held_back, Look(1, changes, seed=settings.seed), "held back")
    return _Taught(
        above(before, cut),
        None,
        lambda epoch: seen().batches(settings.batch, settings.seed, epoch),
        partial(held.levels, 0),
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
