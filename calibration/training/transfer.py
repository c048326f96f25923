"""Fine-tuning as a whole: a network that knows other classes learns those of a folder, in three stages.

1. A new head is fitted to the features of several views of each picture: seconds, once the features are there.
2. The top layers learn from what the frozen ones below make of those views, computed once and kept on disk.
3. All layers learn, from pictures that are augmented anew each time, a little smaller than those it will see: things
   look larger in a random crop, https://arxiv.org/abs/1906.06423, and it takes less time.

Each stage begins with the best weights that came before and is kept where the held-back pictures say so (stages.py).
What they chose is then done once more from all pictures, theirs too (again.py). Everything stays a graph: what is
trained is what is exported.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from edgenet.calibration.execute import Executor
from edgenet.calibration.training import again, stages
from edgenet.calibration.training.activations import Activations, Look, activations, delete
from edgenet.calibration.training.activations import joined as joined_views
from edgenet.calibration.training.again import Chosen
from edgenet.calibration.training.augment import Pictures, batches, centre
from edgenet.calibration.training.cut import above, below, head_of, sharpened, with_head, with_trained
from edgenet.calibration.training.head import fit_head
from edgenet.calibration.training.keras_graph import float_model
from edgenet.calibration.training.lesson import Lesson, Plan, store_plan, stored_plan, training_px
from edgenet.calibration.training.loop import (
    Diverged,
    Outcome,
    Place,
    Task,
    Training,
    identity_of,
    joined,
)
from edgenet.calibration.training.rate import find_rate
from edgenet.calibration.training.stages import HeldBack, Measured, measured, rate_factors
from edgenet.calibration.training.strategy import policy
from edgenet.export.graph import Graph
from edgenet.frameworks import tensorflow
from edgenet.images import normalise
from edgenet.images.decode import cores
from edgenet.options import LAYERS, Settings
from edgenet.results.training import KeptActivations, LearnedAgain, TrainedStage

SMALLEST_CROP = 0.743  # of the side that evaluation cuts out: 65 % of a picture of the zoo's networks
ALL_PART = 0.5  # of the learning rate, where all layers learn: those below the top have less to unlearn
RATE_BATCH = 16  # pictures of the batch that --learning-rate is meant for
TOP_PART = 0.35  # of the time that is left for training
MEASURED_STEPS = 3  # whose time tells that of an epoch


@dataclass(frozen=True)
class Learned:
    """The network that is returned, how training went, each stage, and which of them is kept.

    `again`: how it learned once more from all pictures, None where that was not asked for.
    """

    graph: Graph
    head_alone: Graph  # the network with the new head, all else as it was
    outcome: Outcome
    stages: tuple[TrainedStage, ...]
    kept: str
    activations: KeptActivations
    settings: Settings
    again: LearnedAgain | None = None


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
    kept, best, plan, head_alone = "head", first, run.plan(started), run.graph
    chosen: list[Chosen] = []
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
            chosen.append(Chosen(layers, found.best_epoch, found.seconds / max(1, len(found.curve) - 1)))
        elif better.mean <= 0:  # it is not promising, and a next stage takes longer
            break
    settings = replace(lesson.settings, learning_rate=plan.learning_rate)
    graph, told = run.graph, None
    if lesson.both is not None:
        spent_s = max(time.monotonic() - started, outcome.seconds)  # a run that goes on has a clock of its own
        graph, head_alone, told = _once_more(run, chosen, plan, best, head_alone, spent_s)
    # How sure it should be is what pictures said that had not taught it.
    graph, head_alone = sharpened(graph, best.sharpness), sharpened(head_alone, first.sharpness)
    return Learned(graph, head_alone, outcome, tuple(kept_stages), kept, run.record(), settings, told)


def _once_more(
    run: "_Run", chosen: Sequence[Chosen], plan: Plan, best: Measured, head_alone: Graph, spent_s: float
) -> tuple[Graph, Graph, LearnedAgain]:
    """Do what was chosen again from all pictures; return the better network, that with its head alone, how it went.

    The two networks are as they were where there is no time, or what learned once more is broken.
    """
    assert run.lesson.both is not None
    n, part = len(run.lesson.both), run.part_again(chosen, plan, spent_s)
    if not part:
        run.note(f"again: no time is left to learn once more from all {n} pictures")
        return run.graph, head_alone, LearnedAgain(n, why="time")
    started = time.monotonic()
    run.note(f"again: learning once more from all {n} pictures, those that were held back too")
    other = run.from_all("top" in {c.layers for c in chosen})
    head, loss, epochs, seconds = other.graph, math.nan, 0, time.monotonic() - started
    try:
        for stage in chosen:
            wanted = {stage.layers: stage.epochs_again(part)}
            other.graph, outcome = other.train_blind(stage.layers, replace(plan, epochs=wanted))
            epochs, seconds = epochs + wanted[stage.layers], seconds + outcome.seconds
        loss = other.worth(best.sharpness).loss
    except Diverged:
        pass  # the loss is no number, which is told below
    why = again.reason_against(loss, best.loss)
    told = LearnedAgain(n, epochs, round(seconds, 1), loss if math.isfinite(loss) else None, not why, why)
    of = "the loss of the held-back pictures, which it has learned,"
    if why == "diverged":
        run.note("again: not kept, it diverged: the loss is no number")
    else:
        run.note(f"again: {'not kept, ' * bool(why)}{of} is {loss:.4g}; it was {best.loss:.4g} before")
    return (run.graph, head_alone, told) if why else (other.graph, head, told)


class _Run:
    """A lesson under way: the graph as it is so far, and what was computed of the pictures."""

    def __init__(self, lesson: Lesson, place: Place, note: Callable[[str], None]) -> None:
        self.lesson, self.place, self.note = lesson, place, note
        self.graph, self.cut = lesson.graph, lesson.cut
        self.kept: Activations | None = None
        self.late: Activations | None = None  # of the held-back pictures, where it learns once more
        self.view_seconds = self.head_seconds = 0.0

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
        first = self._activations(lesson.train, lesson.pictures, 1)
        self.view_seconds = time.monotonic() - started
        if lesson.time_s is not None and self.view_seconds > 1:
            n_views = max(1, min(n_views, int(lesson.time_s / 6 / self.view_seconds)))
        self.kept = first if n_views == 1 else self._activations(lesson.train, lesson.pictures, n_views)
        kernel, bias = self._new_head(self.kept)
        z = self._held_back_at(lesson.features) @ kernel + bias
        return measured(z, lesson.held_back.labels)

    def _new_head(self, kept: Activations) -> tuple[np.ndarray, np.ndarray]:
        """Give the graph a head that is fitted to views of pictures; return its kernel and bias."""
        lesson, n_views = self.lesson, len(kept.features)
        x, labels = np.concatenate(kept.features), np.tile(kept.labels, n_views)
        self.note(f"fitting the new head to {len(x)} views")
        started = time.monotonic()
        kernel, bias = fit_head(x, labels, lesson.classes, lesson.label_smoothing, n_views)
        self.head_seconds = time.monotonic() - started
        self.note(f"the new head took {self.head_seconds:.0f} s")
        self.graph = with_head(lesson.graph, kernel, bias)
        return kernel, bias

    def _activations(self, pictures: Pictures, about: str, n_views: int, keep_cut: bool | None = None) -> Activations:
        lesson = self.lesson
        keep_cut = lesson.layers != "head" if keep_cut is None else keep_cut
        changes = tuple(a for a in lesson.augment if a != "mixup")
        look = Look(n_views, changes, SMALLEST_CROP, lesson.settings.seed)
        return activations(
            lesson.graph, lesson.features, self.cut.name, pictures, about, look, self.place.folder,
            self.place.progress, keep_cut,
        )  # fmt: skip

    def _held_back_at(self, name: str, graph: Graph | None = None) -> np.ndarray:
        """Return an activation for the held-back pictures, (N, ...) float32; of the frozen part unless told."""
        pictures = self.lesson.held_back
        run = Executor(below(graph or self.lesson.graph, name), [name], cores())
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
        if self.late is not None:
            n, size = made.pictures + len(self.late), made.size_bytes + self.late.size_bytes
            made = replace(made, pictures=n, size_bytes=size)
        delete(self.place.folder)
        return made

    # ------------------------------------------------------------------------------------------------------ once more

    def from_all(self, with_cut: bool) -> "_Run":
        """Return a run of the same lesson from all pictures, which has a new head that is fitted to them.

        Args:
            with_cut: the top layers are to learn.
        """
        lesson, kept = self.lesson, self.kept
        assert kept is not None
        assert lesson.both is not None
        n_views = len(kept.features)
        self.late = self._activations(lesson.held_back, lesson.held_back_pictures, n_views, with_cut)
        place = replace(
            self.place, folder=self.place.folder / again.FOLDER, identity={**self.place.identity, "again": True}
        )
        other = _Run(replace(lesson, train=lesson.both, both=None), place, partial(_tell, self.note, "again"))
        other.kept = joined_views(kept, self.late)
        other._new_head(other.kept)
        return other

    def worth(self, sharpness: float) -> Measured:
        """Return what the graph, as it is now, makes of the held-back pictures, its logits times `sharpness`."""
        logits = str(head_of(self.graph).outputs[0])
        return measured(self._held_back_at(logits, self.graph), self.lesson.held_back.labels, sharpness)

    def part_again(self, chosen: Sequence[Chosen], plan: Plan, spent_s: float) -> float:
        """Return which part of the chosen epochs is done once more: all, where the time is enough.

        It is kept with the plan, so that a run that goes on does as much.
        """
        lesson, part = self.lesson, plan.again
        if lesson.time_s is None:
            return 1.0
        if part is None:
            else_s = self._measuring_seconds(1) + self._late_seconds(plan.views)
            part = again.part_that_fits(chosen, lesson.times_the_pictures, lesson.time_s - spent_s - else_s)
            self._keep(replace(plan, again=part))
        return part

    def _measuring_seconds(self, times: int) -> float:
        """Return what it takes to measure in the end, and the held-back pictures so many times before."""
        lesson = self.lesson
        seen = lesson.n_evaluation + len(lesson.held_back) * times
        return seen * self.view_seconds / max(1, len(lesson.train))

    def _late_seconds(self, n_views: int) -> float:
        """Return what the views of the held-back pictures and a second head take; 0 where it learns only once."""
        times = self.lesson.times_the_pictures
        return max(0.0, times - 1) * n_views * self.view_seconds + times * self.head_seconds

    # -------------------------------------------------------------------------------------------------------- the plan

    def plan(self, started: float) -> Plan:
        """Return how long each stage is and how fast it learns; the same for a run that goes on."""
        lesson = self.lesson
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
        self._keep(plan)
        return plan

    def _keep(self, plan: Plan) -> None:
        store_plan(self.place.folder, identity_of(self.lesson.settings, self.place.identity), plan)

    def _planned(self, started: float, wanted: Mapping[str, int], rate: float | None) -> Plan:
        """Find the rate with the top layers, and how many epochs of each stage fit into the time."""
        lesson, epochs = self.lesson, dict(wanted)
        settings = replace(lesson.settings, learning_rate=1.0)
        assert self.kept is not None
        top = self._training("top", settings, self.place)
        if rate is None:
            rate = find_rate(top, top.task.data(0))
            self.note(f"learning rate {rate:.2g}, a quarter of that at which the loss rises")
        if lesson.time_s is not None:
            n_views, times = len(self.kept.features), 1 + lesson.times_the_pictures
            else_s = self._measuring_seconds(sum(wanted.values())) + self._late_seconds(n_views)
            left = lesson.time_s - (time.monotonic() - started) - else_s
            each = {"top": self._epoch_seconds(top) * times}  # with what may be learned once more
            if "all" in wanted:
                each["all"] = self._epoch_seconds(self._training("all", settings, self.place)) * times
                left_top = TOP_PART * left
            else:
                left_top = left
            epochs["top"] = max(1, min(wanted["top"], int(left_top / each["top"])))
            if "all" in wanted:
                epochs["all"] = max(0, min(wanted["all"], int((left - epochs["top"] * each["top"]) / each["all"])))
            told = ", ".join(f"{n} epochs of {layers} at {each[layers] / times:.0f} s" for layers, n in epochs.items())
            once_more = ", and as many once more from all pictures" * (lesson.both is not None)
            self.note(f"into {lesson.time_s / 60:.0f} min fit {told}{once_more}")
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
        s, own = self._stage(layers, plan)
        held: list[HeldBack] = []
        run = self._training(layers, s, own, lambda: held[0].measure().row(before))
        held.append(self._held_back(layers, run.model))
        outcome = run.run()
        return with_trained(self.graph, run.model), held[0].measure(), outcome

    def train_blind(self, layers: str, plan: Plan) -> tuple[Graph, Outcome]:
        """Train a stage to its end; return the network with the last weights: no picture is held back to choose any."""
        run = self._training(layers, *self._stage(layers, plan))
        outcome = run.run()
        return with_trained(self.graph, run.model), outcome

    def _stage(self, layers: str, plan: Plan) -> tuple[Settings, Place]:
        assert plan.learning_rate is not None
        rate = plan.learning_rate * (ALL_PART if layers == "all" else 1.0)
        own = replace(
            self.place,
            folder=self.place.folder / layers,
            identity={**self.place.identity, "layers": layers},
            note=partial(_tell, self.note, layers),
        )
        return replace(self.lesson.settings, epochs=plan.epochs[layers], learning_rate=rate), own

    def _training(
        self, layers: str, settings: Settings, place: Place, validate: Callable[[], dict[str, float]] | None = None
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
