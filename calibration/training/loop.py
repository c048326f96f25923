"""The training loop of qat and finetune: warm-up and cosine, EMA, early stopping, checkpoints.

A checkpoint holds all that the next step depends on; data depends on (seed, epoch, step) alone. It is written at the
end of each epoch and on SIGINT and SIGTERM, whole or not at all. So a run that was interrupted ends with the same
weights as one that was not.
"""

import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.door import open_regular, parse_json, reading
from edgenet.errors import InputError
from edgenet.files import atomic_write
from edgenet.frameworks import keras, tensorflow
from edgenet.options import Settings
from edgenet.results.training import Epoch, TrainingRecord

FOLDER, CHECKPOINT, LOGS = "training", "checkpoint.npz", "tensorboard"  # the first in OUT, the others in it
# (model's output, x, target) -> (B,) losses.
Loss = Callable[[Any, Any, Any], Any]
Progress = Callable[[str, int, int], None]


class Diverged(InputError):
    """The loss is no number any more."""


@dataclass
class State:
    """Where a run is."""

    epoch: int = 0  # epochs done
    step: int = 0  # steps done of the epoch that is under way
    best_epoch: int = 0
    best_loss: float | None = None  # None before the first epoch, and where nothing is measured
    loss_sum: float = 0.0  # of the epoch that is under way
    seconds: float = 0.0
    finished: bool = False
    curve: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """How training went. The model holds the best weights; `curve` has an entry for each epoch, 0 being before."""

    curve: tuple[dict[str, float], ...]
    best_epoch: int
    seconds: float  # of training, without what was spent on validation
    pictures_seen: int
    stopped_early: bool

    def record(self, kind: str, settings: Settings, **rest: Any) -> TrainingRecord:
        """Return what results.json keeps; `rest` are the other fields of the record."""
        return TrainingRecord(
            kind=kind,
            curve=tuple(Epoch(**row) for row in self.curve),  # type: ignore[arg-type]  # "epoch" is a whole number
            best_epoch=self.best_epoch,
            stopped_early=self.stopped_early,
            seconds=round(self.seconds, 1),
            images_per_s=round(self.pictures_seen / max(self.seconds, 1e-9), 2),
            settings=asdict(settings),
            **rest,
        )


def joined(first: Outcome, then: Outcome, better: bool) -> Outcome:
    """Return two trainings, one after the other, as one; the best epoch is the first's unless the second is `better`.

    Epoch 0 of the second is the best of the first, and left out.
    """
    done = first.curve[-1]["epoch"]
    return Outcome(
        (*first.curve, *({**row, "epoch": done + row["epoch"]} for row in then.curve[1:])),
        int(done) + then.best_epoch if better else first.best_epoch,
        first.seconds + then.seconds,
        first.pictures_seen + then.pictures_seen,
        first.stopped_early or then.stopped_early,
    )


@dataclass(frozen=True)
class Task:
    """A model and what it learns.

    Attributes:
        model: a tf-keras model, made in the scope of the strategy that it is trained with.
        loss: of each picture of a batch; the mean is minimised.
        data: epoch -> a tf.data.Dataset of (x, target) batches of the settings' size, the same for the same epoch.
        steps_per_epoch: batches of an epoch.
        validate: -> numbers of the held-back pictures, "loss" among them, with the weights that the model has then.
            None where nothing is held back: then the weights of the last epoch are the best.
        half: the type of 16 bits that the model computes in, None for float32. Weights, their average and the optimizer
            are float32 in any case; float16 gets a loss scale that adapts itself.
        factors: what the learning rate is multiplied by for each of the model's trainable variables, in shapes that
            broadcast to theirs; empty is 1 for all.
        rising_epochs: of the start, which patience does not count: before the learning rate falls, the loss of what is
            new to a network may rise.
    """

    model: Any
    loss: Loss
    data: Callable[[int], Any]
    steps_per_epoch: int
    validate: Callable[[], dict[str, float]] | None
    half: str | None = None
    factors: tuple[np.ndarray, ...] = ()
    rising_epochs: int = 0


@dataclass(frozen=True)
class Place:
    """Where a run computes and keeps its checkpoints, and whom it tells how far it is.

    Attributes:
        folder: for checkpoints and logs; a run that was stopped goes on there. Each worker of a cluster has its own.
        identity: what the run depends on beside the settings; a checkpoint of another run is refused.
        strategy: from `open_strategy`, opened before anything else of TensorFlow ran.
        note: gets a line at the end of each epoch.
    """

    folder: Path
    identity: Mapping[str, Any]
    strategy: Any
    progress: Progress = lambda *_: None
    note: Callable[[str], None] = lambda _: None


class Training:
    """Trains a task's model and leaves the best weights in it."""

    def __init__(self, task: Task, settings: Settings, place: Place) -> None:
        if task.steps_per_epoch < 1:
            raise InputError(f"fewer pictures to train on than --batch {settings.batch}: give more, or a smaller batch")
        self.task, self.settings, self.place, self.state = task, settings, place, State()
        self.model, self.identity = task.model, identity_of(settings, place.identity)
        tf = tensorflow()
        tf.keras.utils.set_random_seed(settings.seed)
        with place.strategy.scope():
            self.optimizer = keras().optimizers.Adam(settings.peak, beta_2=0.99, epsilon=1e-8)
            if task.half == "float16":
                self.optimizer = keras().mixed_precision.LossScaleOptimizer(self.optimizer)
            self.trained = list(task.model.trainable_variables)
            self.optimizer.build(self.trained)
            self.average = [tf.Variable(v, trainable=False, name="average") for v in self.trained]
        self.other = [v for v in task.model.weights if all(v is not t for t in self.trained)]
        self.best = [v.numpy() for v in (*self.trained, *self.other)]
        self._step = tf.function(self._distributed_step, autograph=False)
        self.writer: Any = None

    # ---------------------------------------------------------------------------------------------------- one step

    def _replica_step(self, x: Any, target: Any) -> Any:
        tf = tensorflow()
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(self.task.loss(self.model(x, training=True), x, target)) / self.settings.batch
            scaled = self.optimizer.get_scaled_loss(loss) if hasattr(self.optimizer, "get_scaled_loss") else loss
        gradients = tape.gradient(scaled, self.trained)
        if hasattr(self.optimizer, "get_unscaled_gradients"):
            gradients = self.optimizer.get_unscaled_gradients(gradients)
        self.optimizer.apply_gradients(zip(gradients, self.trained, strict=True))
        return loss

    def _distributed_step(self, x: Any, target: Any) -> Any:
        tf = tensorflow()
        # Adam's steps do not depend on the size of a gradient, so that the step itself is what a factor shortens.
        factors = self.task.factors or (np.float32(1),) * len(self.trained)
        slow = [(v, tf.identity(v), f) for v, f in zip(self.trained, factors, strict=True) if np.any(f != 1)]
        loss = self.place.strategy.run(self._replica_step, (x, target))
        for v, before, factor in slow:
            v.assign(before + factor * (v - before))
        for average, v in zip(self.average, self.trained, strict=True):
            average.assign(self.settings.ema * average + (1 - self.settings.ema) * v)
        return self.place.strategy.reduce(tf.distribute.ReduceOp.SUM, loss, axis=None)

    def one_step(self, x: Any, target: Any, rate: float) -> float:
        """Take a step at a learning rate and return the loss of its batch."""
        self.optimizer.learning_rate = rate
        return float(self._step(x, target))

    # ------------------------------------------------------------------------------------------------------- the run

    def run(self) -> Outcome:
        """Train, or go on where a checkpoint ends.

        Raises:
            InputError: the checkpoint is another run's.
            Diverged: the loss is no number any more.
            KeyboardInterrupt: SIGINT or SIGTERM came; a checkpoint was written.
        """
        self._resume()
        if not self.state.finished:
            self.writer = tensorflow().summary.create_file_writer(str(self.place.folder / LOGS))
            with _signals() as asked, self.writer.as_default():
                if not self.state.curve:
                    self._assess(None)
                    self._save()
                while not self.state.finished:
                    self._epoch(asked)
            self.writer.close()
        self._assign(self.best)
        s = self.state
        seen = s.epoch * self.task.steps_per_epoch * self.settings.batch
        return Outcome(tuple(s.curve), s.best_epoch, s.seconds, seen, s.epoch < self.settings.epochs)

    def _epoch(self, asked: list[int]) -> None:
        s, started = self.state, time.monotonic()
        data = self.task.data(s.epoch).skip(s.step).prefetch(2)
        total = self.settings.epochs * self.task.steps_per_epoch
        for x, target in self.place.strategy.experimental_distribute_dataset(data):
            number = s.epoch * self.task.steps_per_epoch + s.step
            rate = self.settings.rate(number, total)
            loss = self.one_step(x, target, rate)
            if not math.isfinite(loss):
                either = ", a longer --warmup or --mixed-precision off" if self.task.half else " or a longer --warmup"
                raise Diverged(
                    f"training diverged: the loss of step {number + 1} is {loss} at learning rate {rate:.3g}. Try "
                    f"--learning-rate {self.settings.peak / 4:.2g}{either}, and another --out: "
                    "this one's checkpoint is of these settings"
                )
            s.step += 1
            s.loss_sum += loss
            self.place.progress("train", number + 1, total)
            if asked:
                s.seconds += time.monotonic() - started
                self._save()
                raise KeyboardInterrupt
        elapsed = time.monotonic() - started
        s.seconds += elapsed
        mean, images_per_s = s.loss_sum / self.task.steps_per_epoch, s.step * self.settings.batch / max(elapsed, 1e-9)
        s.epoch, s.step, s.loss_sum = s.epoch + 1, 0, 0.0
        about = {"loss": mean, "learning_rate": rate, "images_per_s": round(images_per_s, 2)}
        self._assess({**about, "seconds": round(elapsed, 1)})
        in_vain = s.epoch - max(s.best_epoch, self.task.rising_epochs)
        s.finished = s.epoch >= self.settings.epochs or in_vain >= self.settings.patience
        self._save()

    def _assess(self, trained: dict[str, float] | None) -> None:
        """Measure the held-back pictures with the average of the weights; keep it where it is the best so far.

        Where nothing is measured, the last is the best.
        """
        s, live = self.state, [v.numpy() for v in self.trained]
        averages = [v.numpy() for v in self.average]
        for v, a in zip(self.trained, averages, strict=True):
            v.assign(a)
        found = self.task.validate() if self.task.validate else {}
        if found and not math.isfinite(found["loss"]):
            found = {**found, "loss": float(np.finfo(np.float32).max)}
        if not found or s.best_loss is None or found["loss"] < s.best_loss:
            s.best_loss, s.best_epoch = found.get("loss"), s.epoch
            self.best = [*averages, *(v.numpy() for v in self.other)]
        for v, a in zip(self.trained, live, strict=True):
            v.assign(a)
        row: dict[str, float] = {"epoch": s.epoch, **{f"held_back_{k}": v for k, v in found.items()}, **(trained or {})}
        s.curve.append(row)
        tf = tensorflow()
        about = tf.compat.v1.SummaryMetadata(plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"))
        for name, value in row.items():  # tf.summary.scalar wants TensorBoard itself installed
            tf.summary.write(name, tf.constant(value, tf.float32), step=s.epoch, metadata=about)
        self.writer.flush()
        left = s.seconds / max(s.epoch, 1) * (self.settings.epochs - s.epoch)
        shown = "  ".join(f"{k.replace('_', ' ')} {v:.4g}" for k, v in row.items() if k != "epoch")
        told = (f"epoch {s.epoch}/{self.settings.epochs}", shown, f"{_clock(left)} left" if s.epoch else "")
        self.place.note("  ".join(filter(None, told)))

    # -------------------------------------------------------------------------------------------------- checkpoints

    def everything(self) -> list[Any]:
        """Return all variables that the next step depends on."""
        inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        variables = inner.variables() if callable(inner.variables) else inner.variables
        scale = getattr(self.optimizer, "_loss_scale", None)  # float16's, with its counter of good steps
        scaling = [] if scale is None else list(scale._weights.values())
        return [*self.trained, *self.other, *self.average, *variables, *scaling]

    def _save(self) -> None:
        arrays = {f"v{i}": v.numpy() for i, v in enumerate(self.everything())}
        arrays |= {f"b{i}": b for i, b in enumerate(self.best)}
        about = json.dumps({"identity": self.identity, "state": asdict(self.state)})
        with atomic_write(self.place.folder / CHECKPOINT) as tmp, open(tmp, "wb") as f:
            np.savez(f, about=np.array(about), **arrays)

    def _resume(self) -> None:
        path = self.place.folder / CHECKPOINT
        if not path.exists():
            return
        check_resumable(self.place.folder, self.identity)
        about = _about(path)
        with reading(path, "a whole checkpoint", "delete it to start anew"):
            with open_regular(path) as f, np.load(f, allow_pickle=False) as stored:
                self.best = [stored[f"b{i}"] for i in range(len(self.best))]
                for i, v in enumerate(self.everything()):
                    v.assign(stored[f"v{i}"])
            self.state = State(**about["state"])

    def _assign(self, arrays: Sequence[np.ndarray]) -> None:
        for v, a in zip((*self.trained, *self.other), arrays, strict=True):
            v.assign(a)


def identity_of(settings: Settings, identity: Mapping[str, Any]) -> str:
    """Return all that distinguishes a run from others, as text."""
    return json.dumps({**asdict(settings), **identity}, sort_keys=True)


def check_resumable(folder: Path, identity: str) -> None:
    """Raise InputError where `folder` has a checkpoint of another run, or a damaged one. Loads no TensorFlow."""
    path = folder / CHECKPOINT
    if path.exists() and (other := _about(path)["identity"]) != identity:
        raise InputError(differs(path, other, identity))


def _about(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says of itself. Raises InputError where it is damaged."""
    with reading(path, "a whole checkpoint", "delete it to start anew"):
        with open_regular(path) as f, np.load(f, allow_pickle=False) as stored:
            about: dict[str, Any] = parse_json(str(stored["about"]))
        return about


def differs(path: Path, old: str, new: str) -> str:
    """Return in a sentence that a file is of another run, whose identity is `old`."""
    a, b = json.loads(old), json.loads(new)
    changed = sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))
    shown = ", ".join(f"{k} was {a.get(k)!s:.40}, is {b.get(k)!s:.40}" for k in changed[:3])
    return f"{path} is of another run ({shown}): give the same command to go on, or another --out"


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM while the block runs, so that a step is finished and saved first."""
    asked: list[int] = []
    saved = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            saved[number] = signal.signal(number, lambda n, _: asked.append(n))
        except ValueError:  # not the main thread: nobody sends it signals
            continue
    try:
        yield asked
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
