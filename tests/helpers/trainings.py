"""Short trainings of the tiny network."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet.calibration import SharedCalibration, quantize
from edgenet.calibration.quantize import constant_weights
from edgenet.calibration.training.augment import Pictures, batches
from edgenet.calibration.training.distill import distillation, divergence
from edgenet.calibration.training.keras_graph import FakeQuantized, fake_quantized, float_model
from edgenet.calibration.training.loop import Place, Settings, State, Task, Training
from edgenet.calibration.training.qat import bits_of, logits, precision_of, start
from edgenet.calibration.training.strategy import open_strategy, policy
from edgenet.export import Network
from edgenet.export.tflite_file import write_tflite
from edgenet.frameworks import tensorflow
from edgenet.images import normalise
from edgenet.options import FinetuneJob
from edgenet.targets import SAFE_BITS
from helpers import tiny

# Looked for, not imported: half of collecting all tests was TensorFlow.
needs_training = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_model_optimization") is None, reason="needs edgenet[qat]"
)


def settings(**changes: Any) -> Settings:
    return replace(Settings(epochs=3, batch=8, learning_rate=0.02, ema=0.9), **changes)


def small_job(model: str, out: Path, photos: Path, **changes: Any) -> FinetuneJob:
    """Return a job of an epoch a stage and two views, which learns fast."""
    job = replace(FinetuneJob(model, out, str(photos), views=2, first_layer_rate=1.0), **changes)
    return replace(job, settings=replace(job.settings, epochs=1, batch=8, learning_rate=0.02))


def network_file(folder: Path) -> Path:
    """Write the tiny network as a stranger's float .tflite would be: nothing but the network."""
    path = folder / "mine.tflite"
    path.write_bytes(write_tflite(tiny.trained()))
    return path


def student_of(shared: SharedCalibration, bits: int = 8, **learn: bool) -> FakeQuantized:
    own = bits_of(shared.graph, bits)
    graph = quantize(
        shared.graph, precision_of(bits), shared.calibration, weights=start(shared, own, calibrating(shared))
    )
    latent = {op.outputs[0]: w for op in graph.ops if (w := _float(shared, op.outputs[0])) is not None}
    return fake_quantized(graph, latent, own, in_pairs=bits == SAFE_BITS, **learn)


def calibrating(shared: SharedCalibration) -> Pictures:
    assert shared.pixels is not None
    return Pictures(shared.pixels, np.full(len(shared.pixels), -1), shared.network.preprocessing)


def _float(shared: SharedCalibration, name: str) -> np.ndarray | None:
    op = next((op for op in shared.graph.ops if op.outputs[0] == name), None)
    return None if op is None else constant_weights(shared.graph, op)


def training(
    shared: SharedCalibration, pictures: Pictures, folder: Path, strategy: Any = None, **changes: Any
) -> tuple[FakeQuantized, Training]:
    s, strategy = settings(**changes), strategy or open_strategy("cpu")
    with strategy.scope():
        student, teacher = student_of(shared), float_model(shared.network.graph)
    x = normalise(pictures.pixels[:10, 16:36, 16:36], pictures.preprocessing)
    wanted = logits(shared.network.graph, "logits", x)

    def validate() -> dict[str, float]:
        return {"loss": divergence(wanted, np.asarray(student.model(x, training=False)))}

    def data(epoch: int) -> Any:
        return batches(pictures, s.batch, s.seed, epoch, ("flip", "crop", "colour"), tiny.CLASSES)

    loss = distillation(teacher, 1.0, 0.0)
    task = Task(student.model, loss, data, len(pictures) // s.batch, validate)
    return student, Training(task, s, Place(folder, {}, strategy))


def labelled_training(
    network: Network, pictures: Pictures, folder: Path, half: str | None, strategy: Any = None
) -> Training:
    """Train the float network on labels, its layers computing in `half`."""
    s, strategy = settings(epochs=2, learning_rate=0.005), strategy or open_strategy("cpu")
    with strategy.scope(), policy(half):
        model = float_model(network.graph)
    model.trainable = True
    tf = tensorflow()

    def loss(z: Any, _: Any, target: Any) -> Any:
        return -tf.reduce_sum(target * tf.nn.log_softmax(tf.cast(z, tf.float32)), -1)

    def data(epoch: int) -> Any:
        return batches(pictures, s.batch, s.seed, epoch, (), tiny.CLASSES)

    measured = list(data(0))

    def validate() -> dict[str, float]:
        return {"loss": float(np.mean([np.mean(loss(model(x, training=False), x, y)) for x, y in measured]))}

    steps = len(pictures) // s.batch
    return Training(Task(model, loss, data, steps, validate, half), s, Place(folder, {}, strategy))


class Rewound:
    """A training that begins anew each time: its step is traced once, which takes longer than the steps themselves."""

    def __init__(self, run: Training) -> None:
        self._run = run
        self._begin = [v.numpy() for v in run.everything()]

    def to(self, folder: Path, **place: Any) -> Training:
        """Return the training as it was before its first step; it keeps its checkpoints in `folder`."""
        run = self._run
        for v, a in zip(run.everything(), self._begin, strict=True):
            v.assign(a)
        run.best = self._begin[: len(run.trained) + len(run.other)]
        run.state, run.place = State(), replace(run.place, folder=folder, **place)
        return run
