"""`edgenet finetune`: a network of the zoo learns the classes of a folder: a new head, the top layers, all.

Each stage is kept only where the held-back pictures say that it is better. The paper's section 5.3. What it writes:
OUT/MODEL-finetuned.tflite, a float file with batch norm folded that carries its classes and its preprocessing, so that
`edgenet qat`, `export` and `run` take it as it is; OUT/training (checkpoints and TensorBoard logs, a folder a stage);
results.json with context.training, and report.html.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgenet.calibration.training.loop import FOLDER, check_resumable, identity_of
from edgenet.calibration.training.strategy import check_strategy
from edgenet.errors import InputError
from edgenet.evaluate import Candidate, evaluate
from edgenet.images import Preprocessing, divide, hold_back, names_in, open_images, subset
from edgenet.images.preprocess_option import preprocessing_of
from edgenet.images.roles import history_of, merged, new_pictures
from edgenet.jobs.output_folder import context_of, images_record, report_page, results_in
from edgenet.models import weights as weights_module
from edgenet.models import zoo
from edgenet.models.weights import Weights
from edgenet.options import LAYERS, FinetuneJob, Progress, Settings, check_training
from edgenet.preflight import check_finetune
from edgenet.results import ImageSet, Results
from edgenet.results.records import Finding, PictureCounts, PictureHistory, Score, TrainedStage

if TYPE_CHECKING:
    from edgenet.calibration.training.augment import Pictures
    from edgenet.calibration.training.loop import Outcome, Place
    from edgenet.calibration.training.stages import HeldBack

KIND = "finetune"  # of the TrainingRecord
SUFFIX = "-finetuned"  # of the model's name
EVALUATION = 0.2  # of the pictures
HEAD_STEPS, HEAD_RATE = 300, 0.01
HEAD_PRIOR = 0.5  # weight decay times pictures: 1 / variance of the weights' prior
HEAD_LEAST_SPREAD = 0.1  # of the mean: a feature that hardly varies would have huge weights
RATE_BATCH = 16  # pictures of the batch that --learning-rate is meant for
_CHUNK = 32


@dataclass(frozen=True)
class _Task:
    """What is known before anything is written: the model and its weights, the classes, and the pictures in parts."""

    spec: zoo.ModelSpec
    weights: Weights
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    pictures: str  # fingerprint of all
    train: ImageSet
    held_back: ImageSet
    evaluation: ImageSet
    history: PictureHistory  # of the pretrained weights
    findings: tuple[Finding, ...]


def finetune(
    job: FinetuneJob, progress: Progress = lambda *_: None, note: Callable[[str], None] = lambda _: None
) -> Results:
    """Do the job and return its results; the trained network is OUT/MODEL-finetuned.tflite.

    Raises:
        InputError: the model is none of the zoo's, fewer than two classes, too few pictures, OUT is another run's.
    """
    task = _prepare(job)
    identity = _identity(job, task)
    for layers in LAYERS[1:]:
        check_resumable(job.out / FOLDER / layers, identity_of(_of_batch(job.settings), {**identity, "layers": layers}))
    page = report_page(task.classes)
    with results_in(job.out, command=KIND, model=task.spec.name + SUFFIX, resume=False, page=page) as results:
        used = images_record(task.evaluation, taught=task.train, chose=task.held_back, history=task.history)
        results.context = replace(context_of(job.command, "auto", used), calibration_findings=task.findings)
        trained = _train(job, task, identity, progress, note)
        _write(job, task, trained.arrays, results, progress)
        record = trained.outcome.record(
            KIND,
            job.settings,
            before=Score(held_back_accuracy_of_the_new_head=trained.stages[0].held_back_accuracy),
            after=Score(top1=results.evaluations[0].top1 if results.evaluations else None),
            pictures=PictureCounts(len(task.train), len(task.held_back), len(task.evaluation)),
            classes=len(task.classes),
            stages=trained.stages,
            kept=trained.kept,
        )
        asked = {"layers": job.layers, "first_layer_rate": job.first_layer_rate}
        record = replace(record, settings={**record.settings, **asked})
        results.context = replace(results.context, training=record)
    return results


def _prepare(job: FinetuneJob) -> _Task:
    """Check the arguments, divide the pictures, read the weights. Raises InputError."""
    if job.model not in zoo.MODELS:
        raise InputError(
            f"finetune trains the zoo's models, and '{job.model}' is none (valid: {', '.join(zoo.MODELS)}): "
            "train an own model in its own framework, then give it to `edgenet qat`"
        )
    check_training(job.augment, job.strategy, job.mixed_precision)
    check_strategy(job.strategy)
    spec = zoo.spec(job.model)
    check_finetune(job)
    classes = classes_of_folder(job.images)
    images = labelled(open_images(job.images, (), classes))
    test = None if job.images_test is None else labelled(open_images(job.images_test, (), classes))
    train, held_back, measuring = _divide(images, test, classes, job.settings.batch)
    history = PictureHistory(complete=job.weights is None)
    evaluation, findings = new_pictures(measuring, history, spec.name, train, held_back)
    if not evaluation:
        raise InputError(f"{'; '.join(f.message for f in findings)}: give pictures that are not copies")
    # The head is a new one: how many classes a file is for does not matter.
    loaded = weights_module.load(spec, job.weights, None if job.weights else spec.classes)
    spec = loaded.network(spec)
    preprocessing = preprocessing_of(spec, job.resolution_px)
    findings = (*loaded.findings, *findings)
    fingerprint = images.fingerprint
    return _Task(spec, loaded, preprocessing, classes, fingerprint, train, held_back, evaluation, history, findings)


def _divide(
    images: ImageSet, test: ImageSet | None, classes: Sequence[str], batch: int
) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Return the pictures that train, that are held back, and that measure. Raises InputError where too few train."""
    if test is None:
        evaluation, rest = divide(images, max(1, round(EVALUATION * len(images))))
    else:
        evaluation, rest = test, images
    held_back, train = hold_back(rest)
    seen = {label for label in train.labels if label is not None}
    missing = [n for i, n in enumerate(classes) if i not in seen]
    if missing or len(train) < batch:
        what = f"no picture of {missing[0]} is left" if missing else f"{len(train)} pictures are left"
        raise InputError(
            f"{what} to train on, after {len(evaluation)} that measure and {len(held_back)} held back, and a batch has "
            f"{batch}: give more pictures"
        )
    return train, held_back, evaluation


def _identity(job: FinetuneJob, task: _Task) -> dict[str, Any]:
    """Return what the trained weights depend on beside the settings; a checkpoint of another identity is refused."""
    return {
        "command": KIND,
        "model": task.spec.name,
        "weights": task.weights.sha256,
        "classes": list(task.classes),
        "pictures": task.pictures,
        "resolution_px": task.preprocessing.resolution_px,
        "augment": list(job.augment),
        "strategy": job.strategy,
        "mixed_precision": job.mixed_precision,
        "first_layer_rate": job.first_layer_rate,
    }


def classes_of_folder(images: str | Path) -> tuple[str, ...]:
    """Return the classes of a folder: the names of its folders, or the labels of its labels.csv, sorted.

    Raises:
        InputError: no such folder, no photographs, no labels, or fewer than two classes.
    """
    if str(images) == "sample":
        raise InputError("the sample photographs have no classes: give finetune a folder with a folder for each class")
    names = names_in(images)
    if len(names) < 2:
        raise InputError(
            f"{images} has {len(names)} class{'es' * (len(names) != 1)}: finetune needs a folder with a folder of "
            "photographs for each of two classes or more"
        )
    return names


def labelled(images: ImageSet) -> ImageSet:
    """Return the pictures that have a label: a table may leave some without."""
    kept = [i for i, label in enumerate(images.labels) if label is not None]
    return images if len(kept) == len(images) else subset(images, kept)


@dataclass(frozen=True)
class _Trained:
    """The weights that are returned, in training form, how training went, and each stage with the one that is kept."""

    arrays: dict[str, np.ndarray]
    outcome: "Outcome"
    stages: tuple[TrainedStage, ...]
    kept: str


def _train(
    job: FinetuneJob, task: _Task, identity: dict[str, Any], progress: Progress, note: Callable[[str], None]
) -> _Trained:
    """Fit the head, then train the top layers, then all, as long as the held-back loss falls; keep what is better."""
    from edgenet.calibration.training.augment import load_pictures
    from edgenet.calibration.training.loop import Outcome, Place, joined
    from edgenet.calibration.training.stages import HeldBack, gain
    from edgenet.calibration.training.strategy import half_type, open_strategy, policy
    from edgenet.frameworks import keras
    from edgenet.models.efficientnet import get_weights

    folder = job.out / FOLDER
    strategy = open_strategy(job.strategy)  # fails before a picture is decoded, where hardware is missing
    pictures = load_pictures((task.train,), task.preprocessing, folder)
    held_pictures = load_pictures((task.held_back,), task.preprocessing, folder)
    keras().utils.set_random_seed(job.settings.seed)
    half = half_type(job.mixed_precision, strategy)
    with strategy.scope(), policy(half):
        model, logits = _model_with_new_head(task)
    _set_head(model, pictures, len(task.classes), progress)
    held_back = HeldBack(logits, held_pictures)
    best = held_back.measure()
    note(f"the new head alone: {best.accuracy:.1%} of the held-back pictures are right, loss {best.loss:.4g}")
    stages = [TrainedStage("head", best.accuracy, best.loss)]
    outcome = Outcome(({"epoch": 0, **{f"held_back_{k}": v for k, v in best.row().items()}},), 0, 0.0, 0, False)
    kept, weights = "head", get_weights(model)
    for layers in LAYERS[1 : LAYERS.index(job.layers) + 1]:
        what = _Stage(layers, model, logits, half, held_back)
        own = {**identity, "layers": layers}
        place = Place(folder / layers, own, strategy, progress, partial(_tell, note, layers))
        found = _train_stage(job, what, pictures, len(task.classes), place)
        after = held_back.measure()
        better = gain(best, after)
        seconds, epochs = round(found.seconds, 1), len(found.curve) - 1
        stages.append(TrainedStage(layers, after.accuracy, after.loss, epochs, seconds, better.mean, better.error))
        outcome = joined(outcome, found, better.is_real)
        if better.is_real:
            best, kept, weights = after, layers, get_weights(model)
        elif better.mean <= 0:  # it is not promising, and a next stage takes longer
            break
    return _Trained(weights, outcome, tuple(stages), kept)


@dataclass(frozen=True)
class _Stage:
    """What a stage trains: the "top" layers of a model or "all"."""

    layers: str
    model: Any
    logits: Any
    half: str | None
    held_back: "HeldBack"


def _train_stage(job: FinetuneJob, stage: _Stage, pictures: "Pictures", classes: int, place: "Place") -> "Outcome":
    """Train the layers of a stage; the model ends with the weights of the best epoch, epoch 0 among them."""
    from edgenet.calibration.training.augment import batches
    from edgenet.calibration.training.loop import Task, Training
    from edgenet.calibration.training.stages import let_learn, rate_factors

    s = job.settings
    let_learn(stage.model, stage.layers)
    what = Task(
        stage.logits,
        _cross_entropy,
        lambda epoch: batches(pictures, s.batch, s.seed, epoch, job.augment, classes),
        len(pictures) // s.batch,
        lambda: stage.held_back.measure().row(),
        stage.half,
        rate_factors(stage.logits, job.first_layer_rate),
        math.ceil(s.warmup * s.epochs),
    )
    return Training(what, _of_batch(s), place).run()


def _of_batch(settings: Settings) -> Settings:
    """Return the settings with the learning rate of their batch, https://arxiv.org/abs/2205.10287.

    What Adam's steps have of noise grows with the rate and falls with the root of the batch.
    """
    return replace(settings, learning_rate=settings.learning_rate * (settings.batch / RATE_BATCH) ** 0.5)


def _tell(note: Callable[[str], None], layers: str, line: str) -> None:
    note(f"{layers}: {line}")


def _model_with_new_head(task: _Task) -> tuple[Any, Any]:
    """Return the pretrained Keras model with a new classifier, and the same up to its logits."""
    from edgenet.frameworks import keras
    from edgenet.models.efficientnet import build, get_weights, set_weights

    model = build(task.spec, len(task.classes), task.preprocessing.resolution_px)
    kept = {name: a for name, a in task.weights.arrays.items() if not name.startswith("classifier/")}
    set_weights(model, {**get_weights(model), **kept})
    return model, keras().Model(model.input, model.get_layer("classifier").output)


def _set_head(model: Any, pictures: "Pictures", classes: int, progress: Progress) -> None:
    """Fit the classifier to the features of the pictures."""
    from edgenet.calibration.training.augment import centre
    from edgenet.frameworks import keras, tensorflow
    from edgenet.images import normalise

    pooled = keras().Model(model.input, model.get_layer("pool").output)
    infer = tensorflow().function(pooled, reduce_retracing=True)
    found = []
    for i in range(0, len(pictures), _CHUNK):
        x = normalise(centre(pictures.subset(slice(i, i + _CHUNK))), pictures.preprocessing)
        found.append(np.asarray(infer(x, training=False), np.float32))
        progress("features", min(i + _CHUNK, len(pictures)), len(pictures))
    kernel, bias = fit_head(np.concatenate(found), pictures.labels, classes)
    model.get_layer("classifier").set_weights([kernel, bias])


def _cross_entropy(z: Any, _: Any, target: Any) -> Any:
    """Return the loss of each picture, (B,): what the head was fitted to, so that the next stage begins at its best.

    With smoothed labels, say, the sure answers of a fitted head would be a loss above that of guessing, and the first
    steps of all layers would undo it.
    """
    from edgenet.frameworks import tensorflow

    tf = tensorflow()
    return -tf.reduce_sum(target * tf.nn.log_softmax(tf.cast(z, tf.float32)), -1)


def fit_head(x: np.ndarray, labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel (C, classes) and bias (classes,) of a softmax regression: features (N, C) float32, labels (N,).

    Adam on all features at once, features brought to unit variance meanwhile; nothing in it is random. The weights have
    a Gaussian prior: few pictures can be told apart by ever larger weights, which make the answers on others too sure
    and each later step of the layers below a large one.
    """
    mean, spread = x.mean(0), x.std(0)
    spread = spread + HEAD_LEAST_SPREAD * max(float(spread.mean()), 1e-6)
    z = np.c_[(x - mean) / spread, np.ones(len(x))].astype(np.float64)
    target = np.eye(classes)[labels]
    decay = np.r_[np.full(x.shape[1], HEAD_PRIOR / len(x)), 0.0][:, None]  # none of the bias
    w, m, v = (np.zeros((z.shape[1], classes)) for _ in range(3))
    for t in range(1, HEAD_STEPS + 1):
        y = z @ w
        p = np.exp(y - y.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        g = z.T @ (p - target) / len(z) + decay * w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w -= HEAD_RATE * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    kernel = w[:-1] / spread[:, None]
    return kernel.astype(np.float32), (w[-1] - mean @ kernel).astype(np.float32)


def _write(job: FinetuneJob, task: _Task, arrays: dict[str, np.ndarray], results: Results, progress: Progress) -> None:
    """Write OUT/MODEL-finetuned.tflite and measure it."""
    from edgenet.export import export_graph
    from edgenet.export.network import Source
    from edgenet.models.efficientnet import deploy

    source = Source(
        task.spec.name + SUFFIX, task.preprocessing, task.classes, task.classes,
        f"{task.weights.provenance}, finetuned", "",
        lambda: deploy(task.spec, arrays, task.preprocessing.resolution_px),
        pictures=merged(
            task.history, history_of(taught=task.train, chose=task.held_back, measured=task.evaluation)
        ),
    )  # fmt: skip
    network = source.network()
    a = export_graph(network, network.graph, job.out, format="tflite", precision="float32")
    path = f"{network.name}.tflite"
    os.replace(job.out / a.path, job.out / path)
    a = replace(a, id=path, path=path)
    results.put(a)
    evaluations, failures = evaluate(
        [Candidate(a.id, job.out / a.path, a.sha256)],
        task.evaluation,
        task.preprocessing,
        progress=lambda done, total: progress("evaluate", done, total),
    )
    for item in evaluations:
        results.put(item)
    for failure in failures:
        results.put(failure)
