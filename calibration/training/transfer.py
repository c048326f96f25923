"""Fine-tuning as a whole: a network that knows other classes learns those of a folder, in three stages.

1. A new head is fitted to the features of several views of each picture: seconds, once the features are there.
2. The top layers learn from what the frozen ones below make of those views, computed once and kept on disk.
3. All layers learn, from pictures that are augmented anew each time, a little smaller than those it will see: things
   look larger in a random crop, https://arxiv.org/abs/1906.06423, and it takes less time.

Each stage begins with the best weights that came before and is kept where the held-back pictures say so (stages.py).
Everything stays a graph: what is trained is what is exported.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.calibration.execute import Executor
from edgenet.calibration.training import stages
from edgenet.calibration.training.activations import Activations, Look, activations, delete, expected_bytes
from edgenet.calibration.training.augment import Pictures, batches, centre
from edgenet.calibration.training.cut import Cut, above, below, head_of, sharpened, top_cut, with_head, with_trained
from edgenet.calibration.training.head import fit_head
from edgenet.calibration.training.keras_graph import float_model
from edgenet.calibration.training.loop import Outcome, Place, Task, Training, differs, identity_of, joined
from edgenet.calibration.training.rate import find_rate
from edgenet.calibration.training.stages import HeldBack, Measured, measured, rate_factors
from edgenet.calibration.training.strategy import policy
from edgenet.door import open_regular, parse_json, reading
from edgenet.errors import InputError
from edgenet.export.graph import Graph
from edgenet.files import atomic_write
from edgenet.frameworks import tensorflow
from edgenet.images import normalise
from edgenet.images.decode import cores
from edgenet.options import LAYERS, Settings
from edgenet.results.training import KeptActivations, TrainedStage

SMALLEST_CROP = 0.743  # of the side that evaluation cuts out: 65 % of a picture of the zoo's networks
# The side that all layers learn at, of networks from 192 px on; smaller ones learn at their own.
SMALLER, SMALLER_FROM_PX, MULTIPLE_PX = 6 / 7, 192, 16
ALL_PART = 0.5  # of the learning rate, where all layers learn: those below the top have less to unlearn
RATE_BATCH = 16  # pictures of the batch that --learning-rate is meant for
PLAN = "plan.json"
TOP_PART = 0.35  # of the time that is left for training
MEASURED_STEPS = 3  # whose time tells that of an epoch
# Operators that take a picture of any size as they are, beside those that only see one number a channel.
_ANY_SIZE = {
    "CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "SUB", "MUL", "MEAN", "SUM", "PAD", "MAX_POOL_2D", "CONCATENATION", "RELU",
    "RELU6", "LEAKY_RELU", "HARD_SWISH", "GELU", "LOGISTIC", "TANH", "FULLY_CONNECTED", "SOFTMAX",
}  # fmt: skip


@dataclass(frozen=True)
class Lesson:
    """What a network is to learn, and how.

    Attributes:
        graph: the network with the head that it had.
        pictures: fingerprint of what trains.
        layers: what learns at most, one of LAYERS.
        views: of each picture, whose activations are kept.
        half: the type of 16 bits to compute in, None for float32.
        time_s: what all of it may take, None for as long as the settings say.
        n_evaluation: pictures that measure in the end, which takes time too.
    """

    graph: Graph
    classes: int
    train: Pictures
    held_back: Pictures
    pictures: str
    layers: str
    augment: tuple[str, ...]
    views: int
    label_smoothing: float
    first_layer_rate: float
    half: str | None
    settings: Settings
    time_s: float | None = None
    n_evaluation: int = 0

    @property
    def features(self) -> str:
        """The activation that the head reads."""
        return str(head_of(self.graph).inputs[0])

    @property
    def cut(self) -> Cut:
        """Where the top begins."""
        return top_cut(self.graph)

    @property
    def kept_bytes(self) -> int:
        """What the activations take on disk, about."""
        return 0 if self.layers == "head" else expected_bytes(self.cut.shape, len(self.train), self.views)


@dataclass(frozen=True)
class Plan:
    """How long the stages are, and their learning rate; kept on disk, so that a run that goes on has the same one."""

    views: int
    epochs: Mapping[str, int]  # of each stage but the head
    learning_rate: float | None  # None where the head alone learns


@dataclass(frozen=True)
class Learned:
    """The network that is returned, how training went, each stage, and which of them is kept."""

    graph: Graph
    head_alone: Graph  # the network with the new head, all else as it was
    outcome: Outcome
    stages: tuple[TrainedStage, ...]
    kept: str
    activations: KeptActivations
    settings: Settings


def stored_plan(folder: Path, identity: str) -> Plan | None:
    """Return the plan of the run that began in a folder, None where none did. Raises InputError for another run's."""
    path = folder / PLAN
    if not path.exists():
        return None
    with reading(path, "a whole plan", "delete its folder to start anew"), open_regular(path) as f:
        stored = parse_json(f.read().decode())
        other = str(stored["identity"])
        plan = Plan(int(stored["views"]), dict(stored["epochs"]), stored["learning_rate"])
    if other != identity:
        raise InputError(differs(path, other, identity))
    return plan


def transfer(lesson: Lesson, place: Place, note: Callable[[str], None]) -> Learned:
    """Teach a network; `place.folder` keeps all that a run needs to go on.

    Raises:
        InputError: the network does not end in a dense layer, has an operator that cannot be trained, or diverges;
            a checkpoint is another run's.
    """
    started = time.monotonic()
    run = _Run(lesson, place, note)
    first = run.fit_head()
    note(f"the new head alone: {first.accuracy:.1%} of the held-back pictures are right, loss {first.loss:.4g}")
    kept_stages = [TrainedStage("head", first.accuracy, first.loss, seconds=round(time.monotonic() - started, 1))]
    row = first.row(first)
    outcome = Outcome(({"epoch": 0, **{f"held_back_{k}": v for k, v in row.items()}},), 0, 0.0, 0, False)
    kept, best, plan, head_alone = "head", first, run.plan(started), sharpened(run.graph, first.sharpness)
    for layers in LAYERS[1 : LAYERS.index(lesson.layers) + 1]:
        if not plan.epochs[layers]:
            note(f"{layers}: no epoch fits into the time")
            continue
        graph, after, found = run.train(layers, plan, best)
        after = after if found.best_epoch else best  # the weights are as they were
        better = stages.gain(best, after)
        counts = after.row(best)
        kept_stages.append(TrainedStage(
            layers, after.accuracy, after.loss, len(found.curve) - 1, round(found.seconds, 1), better.mean,
            better.error, int(counts["learned"]), int(counts["forgotten"]),
        ))  # fmt: skip
        outcome = joined(outcome, found, better.is_real)
        if better.is_real:
            best, kept, run.graph = after, layers, graph
        elif better.mean <= 0:  # it is not promising, and a next stage takes longer
            break
    settings = replace(lesson.settings, learning_rate=plan.learning_rate)
    graph = sharpened(run.graph, best.sharpness)
    return Learned(graph, head_alone, outcome, tuple(kept_stages), kept, run.record(), settings)


class _Run:
    """A lesson under way: the graph as it is so far, and what was computed of the pictures."""

    def __init__(self, lesson: Lesson, place: Place, note: Callable[[str], None]) -> None:
        self.lesson, self.place, self.note = lesson, place, note
        self.graph, self.cut = lesson.graph, lesson.cut
        self.kept: Activations | None = None
        self.view_seconds = 0.0

    # ------------------------------------------------------------------------------------------------------- the head

    def fit_head(self) -> Measured:
        """Give the graph a head that is fitted to the features, and return what it is worth."""
        lesson, started = self.lesson, time.monotonic()
        n_views = lesson.views
        if lesson.layers != "head":
            self.note(
                f"keeping {n_views} views of {len(lesson.train)} pictures at {self.cut.name}, "
                f"{lesson.kept_bytes / 1e6:,.0f} MB on disk: {1 - self.cut.work:.0%} of the work is done once"
            )
        first = self._activations(1)
        self.view_seconds = time.monotonic() - started
        if lesson.time_s is not None and self.view_seconds > 1:
            n_views = max(1, min(n_views, int(lesson.time_s / 6 / self.view_seconds)))
        self.kept = first if n_views == 1 else self._activations(n_views)
        x, labels = np.concatenate(self.kept.features), np.tile(self.kept.labels, n_views)
        self.note(f"fitting the new head to {len(x)} views")
        started = time.monotonic()
        kernel, bias = fit_head(x, labels, lesson.classes, lesson.label_smoothing, n_views)
        self.note(f"the new head took {time.monotonic() - started:.0f} s")
        self.graph = with_head(lesson.graph, kernel, bias)
        z = self._held_back_at(lesson.features) @ kernel + bias
        return measured(z, lesson.held_back.labels)

    def _activations(self, n_views: int) -> Activations:
        lesson = self.lesson
        changes = tuple(a for a in lesson.augment if a != "mixup")
        look = Look(n_views, changes, SMALLEST_CROP, lesson.settings.seed)
        return activations(
            lesson.graph, lesson.features, self.cut.name, lesson.train, lesson.pictures, look, self.place.folder,
            self.place.progress, lesson.layers != "head",
        )  # fmt: skip

    def _held_back_at(self, name: str) -> np.ndarray:
        """Return an activation of the frozen part for the held-back pictures, (N, ...) float32."""
        pictures = self.lesson.held_back
        run = Executor(below(self.lesson.graph, name), [name], cores())
        pixels = centre(pictures)
        found = [run(normalise(pixels[i : i + 1], pictures.preprocessing))[0][0] for i in range(len(pixels))]
        return np.stack(found)

    def record(self) -> KeptActivations:
        """Return what was kept on disk, and delete it."""
        assert self.kept is not None
        made = KeptActivations(
            views=len(self.kept.features), pictures=len(self.kept), size_bytes=self.kept.size_bytes,
            at=self.cut.name if self.kept.cut else self.lesson.features,
            work_saved=1 - self.cut.work if self.kept.cut else 1.0,
        )  # fmt: skip
        delete(self.place.folder)
        return made

    # -------------------------------------------------------------------------------------------------------- the plan

    def plan(self, started: float) -> Plan:
        """Return how long each stage is and how fast it learns; the same for a run that goes on."""
        path, lesson = self.place.folder / PLAN, self.lesson
        assert self.kept is not None
        identity = identity_of(lesson.settings, self.place.identity)
        if (stored := stored_plan(self.place.folder, identity)) is not None:
            return stored
        wanted = dict.fromkeys(LAYERS[1 : LAYERS.index(lesson.layers) + 1], lesson.settings.epochs)
        rate = lesson.settings.learning_rate
        if rate is not None:
            rate *= (lesson.settings.batch / RATE_BATCH) ** 0.5
        plan = Plan(len(self.kept.features), wanted, rate)
        if wanted and (rate is None or lesson.time_s is not None):
            plan = self._planned(started, wanted, rate)
        self.place.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as tmp:
            tmp.write_text(json.dumps({"identity": identity, **asdict(plan)}))
        return plan

    def _planned(self, started: float, wanted: Mapping[str, int], rate: float | None) -> Plan:
        """Find the rate with the top layers, and how many epochs of each stage fit into the time."""
        lesson, epochs = self.lesson, dict(wanted)
        settings = replace(lesson.settings, learning_rate=1.0)
        assert self.kept is not None
        top = self._training("top", settings, self.place, lambda: {"loss": 0.0})
        if rate is None:
            rate = find_rate(top, top.task.data(0))
            self.note(f"learning rate {rate:.2g}, a quarter of that at which the loss rises")
        if lesson.time_s is not None:
            seen = lesson.n_evaluation + len(lesson.held_back) * sum(wanted.values())
            measuring = seen * self.view_seconds / max(1, len(lesson.train))
            left = lesson.time_s - (time.monotonic() - started) - measuring
            each = {"top": self._epoch_seconds(top)}
            if "all" in wanted:
                each["all"] = self._epoch_seconds(self._training("all", settings, self.place, lambda: {"loss": 0.0}))
                left_top = TOP_PART * left
            else:
                left_top = left
            epochs["top"] = max(1, min(wanted["top"], int(left_top / each["top"])))
            if "all" in wanted:
                epochs["all"] = max(0, min(wanted["all"], int((left - epochs["top"] * each["top"]) / each["all"])))
            told = ", ".join(f"{n} epochs of {layers} at {each[layers]:.0f} s" for layers, n in epochs.items())
            self.note(f"into {lesson.time_s / 60:.0f} min fit {told}")
        return Plan(len(self.kept.features), epochs, rate)

    def _epoch_seconds(self, run: Training) -> float:
        """Return what an epoch takes, by some steps, after which all weights are as before."""
        before, took = [v.numpy() for v in run.everything()], []
        for x, target in islice(run.task.data(0), MEASURED_STEPS + 1):
            started = time.monotonic()
            run.one_step(x, target, 0.0)
            took.append(time.monotonic() - started)
        for v, a in zip(run.everything(), before, strict=True):
            v.assign(a)
        return float(np.median(took[1:] or took)) * run.task.steps_per_epoch

    # ------------------------------------------------------------------------------------------------------ the stages

    def train(self, layers: str, plan: Plan, before: Measured) -> tuple[Graph, Measured, Outcome]:
        """Train a stage; return the network with the weights of its best epoch, epoch 0 among them."""
        assert plan.learning_rate is not None
        rate = plan.learning_rate * (ALL_PART if layers == "all" else 1.0)
        s = replace(self.lesson.settings, epochs=plan.epochs[layers], learning_rate=rate)
        own = replace(
            self.place,
            folder=self.place.folder / layers,
            identity={**self.place.identity, "layers": layers},
            note=partial(_tell, self.note, layers),
        )
        held: list[HeldBack] = []
        run = self._training(layers, s, own, lambda: held[0].measure().row(before))
        held.append(self._held_back(layers, run.model))
        outcome = run.run()
        return with_trained(self.graph, run.model), held[0].measure(), outcome

    def _training(
        self, layers: str, settings: Settings, place: Place, validate: Callable[[], dict[str, float]]
    ) -> Training:
        lesson, s, kept = self.lesson, settings, self.kept
        assert kept is not None
        px = training_px(self.graph)
        own_px = lesson.train.preprocessing.resolution_px
        graph = above(self.graph, self.cut.name) if layers == "top" else self.graph
        with place.strategy.scope(), policy(lesson.half):
            model = float_model(graph, any_size=layers == "all" and px != own_px)
        model.trainable = True
        if layers == "top":
            data = partial(_from_kept, kept, s, lesson.classes, "mixup" in lesson.augment)
        else:
            data = partial(_from_pictures, lesson, s, px)
        return Training(
            Task(
                model, smoothed_cross_entropy(lesson.label_smoothing), data, len(lesson.train) // s.batch, validate,
                lesson.half, rate_factors(graph, model, lesson.first_layer_rate), math.ceil(s.warmup * s.epochs),
            ),
            s,
            place,
        )  # fmt: skip

    def _held_back(self, layers: str, model: Any) -> HeldBack:
        pictures = self.lesson.held_back
        if layers == "top":
            at_cut = self._held_back_at(self.cut.name)
            return HeldBack(model, lambda i, j: at_cut[i:j], pictures.labels)
        pixels = centre(pictures)
        return HeldBack(model, lambda i, j: normalise(pixels[i:j], pictures.preprocessing), pictures.labels)


def _from_kept(kept: Activations, s: Settings, classes: int, mixup: bool, epoch: int) -> Any:
    return kept.batches(s.batch, s.seed, epoch, classes, mixup)


def _from_pictures(lesson: Lesson, s: Settings, px: int, epoch: int) -> Any:
    return batches(
        lesson.train, s.batch, s.seed, epoch, lesson.augment, lesson.classes, smallest_crop=SMALLEST_CROP, px=px
    )


def training_px(graph: Graph) -> int:
    """Return the side of the pictures that all layers learn from: smaller than the network's own where it can be."""
    px = graph.tensors[graph.inputs[0]].shape[1]
    if px < SMALLER_FROM_PX or not _takes_any_size(graph):
        return px
    return round(SMALLER * px / MULTIPLE_PX) * MULTIPLE_PX


def _takes_any_size(graph: Graph) -> bool:
    def is_vector(name: str | None) -> bool:
        return name is None or sum(n > 1 for n in graph.tensors[name].shape) <= 1

    for op in graph.ops:
        if op.kind not in _ANY_SIZE and not all(map(is_vector, (*op.inputs[:1], *op.outputs))):
            return False
        if op.kind in ("ADD", "SUB", "MUL") and not all(
            is_vector(n) for n in op.inputs if graph.constant(n) is not None
        ):
            return False
    return True


def smoothed_cross_entropy(smoothing: float) -> Callable[[Any, Any, Any], Any]:
    """Return a loss (logits, x, target) -> (B,) with targets of which a part is spread over all classes.

    What the head was fitted to as well, so that the next stage begins at its best.
    """
    tf = tensorflow()

    def loss(z: Any, _: Any, target: Any) -> Any:
        classes = target.shape[-1]
        wanted = (1 - smoothing) * target + smoothing / classes
        return -tf.reduce_sum(wanted * tf.nn.log_softmax(tf.cast(z, tf.float32)), -1)

    return loss


def _tell(note: Callable[[str], None], layers: str, line: str) -> None:
    note(f"{layers}: {line}")
