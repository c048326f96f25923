"""`edgenet finetune`: a network of the zoo learns the classes of a folder: first a new head, then all layers.

The paper's section 5.3. What it writes: OUT/MODEL-finetuned.tflite, a float file with batch norm folded that carries
its classes and its preprocessing, so that `edgenet qat`, `export` and `run` take it as it is; OUT/training (checkpoints
and TensorBoard logs); results.json with context.training, and report.html.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgenet.calibration.training.loop import FOLDER, check_resumable, identity_of
from edgenet.calibration.training.strategy import check_strategy
from edgenet.errors import InputError
from edgenet.evaluate import Candidate, evaluate
from edgenet.images import Preprocessing, divide, hold_back, open_images, subset, tfds
from edgenet.images.folders import class_names_in
from edgenet.images.roles import history_of, merged, new_pictures
from edgenet.jobs.output_folder import context_of, images_record, report_page, results_in
from edgenet.models import weights as weights_module
from edgenet.models import zoo
from edgenet.models.weights import Weights
from edgenet.options import FinetuneJob, Progress, check_training
from edgenet.preflight import check_finetune
from edgenet.records import Finding, PictureCounts, PictureHistory, Score
from edgenet.results import ImageSet, Results

if TYPE_CHECKING:
    from edgenet.calibration.training.augment import Pictures

KIND = "finetune"  # of the TrainingRecord
SUFFIX = "-finetuned"  # of the model's name
EVALUATION = 0.2  # of the pictures
HEAD_STEPS, HEAD_RATE, HEAD_DECAY = 300, 0.01, 1e-4
SMOOTHING = 0.1  # of the labels
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
    check_resumable(job.out / FOLDER, identity_of(job.settings, identity))
    page = report_page(task.classes)
    with results_in(job.out, command=KIND, model=task.spec.name + SUFFIX, resume=False, page=page) as results:
        used = images_record(task.evaluation, taught=task.train, chose=task.held_back, history=task.history)
        results.context = replace(context_of(job.command, "auto", used), calibration_findings=task.findings)
        arrays, outcome, before = _train(job, task, identity, progress, note)
        _write(job, task, arrays, results, progress)
        record = outcome.record(
            KIND,
            job.settings,
            before=Score(held_back_accuracy_of_the_new_head=before),
            after=Score(top1=results.evaluations[0].top1 if results.evaluations else None),
            pictures=PictureCounts(len(task.train), len(task.held_back), len(task.evaluation)),
            classes=len(task.classes),
        )
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
    px = job.resolution_px or spec.resolution_px
    if not 32 <= px <= 1024:
        raise InputError(f"--resolution must be from 32 to 1024, was {px}")
    check_finetune(job)
    classes = classes_of_folder(job.images)
    images = labelled(open_images(job.images, (), classes))
    test = None if job.images_test is None else labelled(open_images(job.images_test, (), classes))
    train, held_back, measuring = _divide(images, test, classes, job.settings.batch)
    history = PictureHistory(complete=job.weights is None)
    evaluation, findings = new_pictures(measuring, history, spec.name, train, held_back)
    if not evaluation:
        raise InputError(f"{'; '.join(f.message for f in findings)}: give pictures that are not copies")
    loaded = weights_module.load(spec, job.weights, spec.classes)
    preprocessing = Preprocessing(px, spec.mean, spec.std)
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
    }


def classes_of_folder(images: str | Path) -> tuple[str, ...]:
    """Return the classes of a folder: the names of its folders, or the labels of its labels.csv, sorted.

    Raises:
        InputError: no such folder, no photographs, no labels, or fewer than two classes.
    """
    if str(images) == "sample":
        raise InputError("the sample photographs have no classes: give finetune a folder with a folder for each class")
    names = class_names_in(tfds.folder_of(str(images)) if tfds.is_tfds(images) else Path(images))
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


def _train(
    job: FinetuneJob, task: _Task, identity: dict[str, Any], progress: Progress, note: Callable[[str], None]
) -> tuple[dict[str, np.ndarray], Any, float]:
    """Train the head, then all layers.

    Returns:
        the weights in training form, the Outcome, and the accuracy of the head alone on the held-back pictures.
    """
    from edgenet.calibration.training.augment import batches, load_pictures
    from edgenet.calibration.training.loop import Place, Task, Training
    from edgenet.calibration.training.strategy import half_type, open_strategy, policy
    from edgenet.frameworks import keras
    from edgenet.models.efficientnet import get_weights

    s, n, folder = job.settings, len(task.classes), job.out / FOLDER
    strategy = open_strategy(job.strategy)  # fails before a picture is decoded, where hardware is missing
    pictures = load_pictures((task.train,), task.preprocessing, folder)
    held_back = load_pictures((task.held_back,), task.preprocessing, folder)
    keras().utils.set_random_seed(s.seed)
    half = half_type(job.mixed_precision, strategy)
    with strategy.scope(), policy(half):
        model, logits = _model_with_new_head(task)
    before = _set_head(model, pictures, held_back, n, progress)
    note(f"the new head alone: {before:.1%} of the held-back pictures are right")
    what = Task(
        logits,
        _smoothed_cross_entropy(n),
        lambda epoch: batches(pictures, s.batch, s.seed, epoch, job.augment, n),
        len(pictures) // s.batch,
        _validation(logits, held_back),
        half,
    )
    outcome = Training(what, s, Place(folder, identity, strategy, progress, note)).run()
    return get_weights(model), outcome, before


def _model_with_new_head(task: _Task) -> tuple[Any, Any]:
    """Return the pretrained Keras model with a new classifier, and the same up to its logits."""
    from edgenet.frameworks import keras
    from edgenet.models.efficientnet import build, get_weights, set_weights

    k = keras()
    model = build(task.spec, len(task.classes), task.preprocessing.resolution_px)
    kept = {name: a for name, a in task.weights.arrays.items() if not name.startswith("classifier/")}
    set_weights(model, {**get_weights(model), **kept})
    for layer in model.layers:  # statistics of small batches break what the network knows within a few steps
        if isinstance(layer, k.layers.BatchNormalization):
            layer.trainable = False
    return model, k.Model(model.input, model.get_layer("classifier").output)


def _set_head(model: Any, pictures: "Pictures", held_back: "Pictures", classes: int, progress: Progress) -> float:
    """Fit the classifier to the features of the pictures; return its accuracy on those that were held back."""
    from edgenet.calibration.training.augment import centre
    from edgenet.frameworks import keras, tensorflow
    from edgenet.images import normalise

    pooled = keras().Model(model.input, model.get_layer("pool").output)
    infer = tensorflow().function(pooled, reduce_retracing=True)

    def features(of: "Pictures") -> np.ndarray:
        found = []
        for i in range(0, len(of), _CHUNK):
            x = normalise(centre(of.subset(slice(i, i + _CHUNK))), of.preprocessing)
            found.append(np.asarray(infer(x, training=False), np.float32))
            progress("features", min(i + _CHUNK, len(of)), len(of))
        return np.concatenate(found)  # (N, C)

    x, held_x = features(pictures), features(held_back)
    kernel, bias = fit_head(x, pictures.labels, classes)
    model.get_layer("classifier").set_weights([kernel, bias])
    return float(((held_x @ kernel + bias).argmax(1) == held_back.labels).mean())


def _validation(logits: Any, held_back: "Pictures") -> Callable[[], dict[str, float]]:
    """Return what measures cross entropy and accuracy on the held-back pictures with the weights of the moment."""
    from edgenet.calibration.training.augment import centre
    from edgenet.frameworks import tensorflow
    from edgenet.images import normalise

    infer = tensorflow().function(lambda x: logits(x, training=False), reduce_retracing=True)
    held = normalise(centre(held_back), held_back.preprocessing)
    wanted = held_back.labels

    def validate() -> dict[str, float]:
        z = np.concatenate([np.asarray(infer(held[i : i + _CHUNK])) for i in range(0, len(held), _CHUNK)])
        z = z.astype(np.float64) - z.max(1, keepdims=True)
        cross = np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), wanted]
        return {"loss": float(cross.mean()), "accuracy": float((z.argmax(1) == wanted).mean())}

    return validate


def _smoothed_cross_entropy(classes: int) -> Callable[[Any, Any, Any], Any]:
    """Return the loss of each picture, (B,): cross entropy with labels that keep SMOOTHING for the other classes."""
    from edgenet.frameworks import tensorflow

    tf = tensorflow()

    def loss(z: Any, _: Any, target: Any) -> Any:
        soft = target * (1 - SMOOTHING) + SMOOTHING / classes
        return -tf.reduce_sum(soft * tf.nn.log_softmax(tf.cast(z, tf.float32)), -1)

    return loss


def fit_head(x: np.ndarray, labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel (C, classes) and bias (classes,) of a softmax regression: features (N, C) float32, labels (N,).

    Adam on all features at once, features brought to unit variance meanwhile; nothing in it is random.
    """
    mean, spread = x.mean(0), x.std(0) + 1e-3
    z = np.c_[(x - mean) / spread, np.ones(len(x))].astype(np.float64)
    target = np.eye(classes)[labels]
    w, m, v = (np.zeros((z.shape[1], classes)) for _ in range(3))
    for t in range(1, HEAD_STEPS + 1):
        y = z @ w
        p = np.exp(y - y.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        g = z.T @ (p - target) / len(z) + HEAD_DECAY * w
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
