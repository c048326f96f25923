"""`edgenet finetune`: a network of the zoo learns the classes of a folder: first a new head, then all layers.

The paper's section 5.3. What it writes: OUT/MODEL-finetuned.tflite, a float file with batch norm folded that carries
its classes and its preprocessing, so that `edgenet qat`, `export` and `run` take it as it is; OUT/training (checkpoints
and TensorBoard logs); results.json with context.training, and report.html.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.calibration.training.augment import check_augmentations
from edgenet.calibration.training.loop import FOLDER, Settings, check_resumable, identity_of
from edgenet.calibration.training.strategy import check_mixed, check_strategy
from edgenet.errors import InputError
from edgenet.evaluate import Candidate, evaluate
from edgenet.images import Preprocessing, divide, hold_back, open_images, subset, tfds
from edgenet.images.folders import written_classes
from edgenet.jobs.output_folder import context_of, earlier, exclusive, refuse_another_command, refuse_another_model
from edgenet.models import weights as weights_module
from edgenet.models import zoo
from edgenet.pipeline import Progress
from edgenet.records import PictureCounts, Score
from edgenet.results import ImageSet, Results

KIND, SUFFIX = "finetune", "-finetuned"  # of the TrainingRecord; of the model's name
EVALUATION = 0.2  # of the pictures
HEAD_STEPS, HEAD_RATE, HEAD_DECAY = 300, 0.01, 1e-4
SMOOTHING = 0.1  # of the labels
_CHUNK = 32


@dataclass(frozen=True)
class FinetuneJob:
    """What one command asks for."""

    model: str
    out: Path
    images: str
    resolution_px: int | None = None
    weights: Path | None = None
    augment: tuple[str, ...] = ("flip", "crop", "colour")
    strategy: str = "auto"
    mixed_precision: str = "auto"
    settings: Settings = field(
        default_factory=lambda: Settings(epochs=5, batch=16, learning_rate=0.0005, ema=0.9, patience=3)
    )
    command: str = ""


def finetune(
    job: FinetuneJob, progress: Progress = lambda *_: None, note: Callable[[str], None] = lambda _: None
) -> Results:
    """Do the job and return its results; the trained network is OUT/MODEL-finetuned.tflite.

    Raises:
        InputError: the model is none of the zoo's, fewer than two classes, too few pictures, OUT is another run's.
    """
    if job.model not in zoo.MODELS:
        raise InputError(
            f"finetune trains the zoo's models, and '{job.model}' is none (valid: {', '.join(zoo.MODELS)}): "
            "train an own model in its own framework, then give it to `edgenet qat`"
        )
    check_augmentations(job.augment)
    check_strategy(job.strategy)
    check_mixed(job.mixed_precision)
    spec = zoo.spec(job.model)
    px = job.resolution_px or spec.resolution_px
    if not 32 <= px <= 1024:
        raise InputError(f"--resolution must be from 32 to 1024, was {px}")
    names = class_folders(job.images)
    images = labelled(open_images(job.images, (), names))
    evaluation, rest = divide(images, max(1, round(EVALUATION * len(images))))
    held_back, train = hold_back(rest)
    seen = {label for label in train.labels if label is not None}
    missing = [n for i, n in enumerate(names) if i not in seen]
    if missing or len(train) < job.settings.batch:
        what = f"no picture of {missing[0]} is left" if missing else f"{len(train)} pictures are left"
        raise InputError(
            f"{what} to train on, after {len(evaluation)} that measure and {len(held_back)} held back, and a batch has "
            f"{job.settings.batch}: give more pictures"
        )
    loaded = weights_module.load(spec, job.weights, spec.classes)
    preprocessing = Preprocessing(px, spec.mean, spec.std)
    identity = {
        "command": KIND,
        "model": spec.name,
        "weights": loaded.sha256,
        "classes": list(names),
        "pictures": images.fingerprint,
        "resolution_px": px,
        "augment": list(job.augment),
        "strategy": job.strategy,
        "mixed_precision": job.mixed_precision,
    }
    check_resumable(job.out / FOLDER, identity_of(job.settings, identity))
    with exclusive(job.out):
        known = earlier(job.out)
        refuse_another_command(known, job.out, KIND)
        refuse_another_model(known, job.out, spec.name + SUFFIX)
        results = Results(context=context_of(job.command, "auto", None, evaluation))
        from edgenet.calibration.training.augment import load_pictures
        from edgenet.calibration.training.strategy import open_strategy

        strategy = open_strategy(job.strategy)  # it says what is not there before a picture is decoded
        pictures = load_pictures((train,), preprocessing, job.out / FOLDER)
        held = load_pictures((held_back,), preprocessing, job.out / FOLDER)
        run = _Run(job, spec, loaded.arrays, names, preprocessing, pictures, held, strategy)
        arrays, outcome, before = run.train(identity, progress, note)
        provenance = f"{loaded.provenance}, finetuned"
        _write(job, spec, arrays, names, preprocessing, provenance, evaluation, results, progress)
        record = outcome.record(
            KIND,
            job.settings,
            before=Score(held_back_accuracy_of_the_new_head=before),
            after=Score(top1=results.evaluations[0].top1 if results.evaluations else None),
            pictures=PictureCounts(len(train), len(held_back), len(evaluation)),
            classes=len(names),
        )
        results.context = replace(results.context, training=record)
        results.save(job.out)
        from edgenet.report import write_report

        write_report(results, job.out, names)
        return results


def class_folders(images: str | Path) -> tuple[str, ...]:
    """Return the classes of a folder: the names of its folders, or the labels of its labels.csv, sorted.

    Raises:
        InputError: no such folder, no photographs, no labels, or fewer than two classes.
    """
    if str(images) == "sample":
        raise InputError("the sample photographs have no classes: give finetune a folder with a folder for each class")
    names = written_classes(tfds.folder_of(str(images)) if tfds.is_tfds(images) else Path(images))
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


class _Run:
    """Head, then all: both with the same pictures."""

    def __init__(
        self,
        job: FinetuneJob,
        spec: zoo.ModelSpec,
        arrays: Any,
        names: tuple[str, ...],
        preprocessing: Preprocessing,
        pictures: Any,
        held_back: Any,
        strategy: Any,
    ) -> None:
        self.job, self.spec, self.arrays, self.names = job, spec, arrays, names
        self.preprocessing, self.pictures, self.held_back = preprocessing, pictures, held_back
        self.strategy = strategy

    def train(
        self, identity: dict[str, Any], progress: Progress, note: Callable[[str], None]
    ) -> tuple[dict[str, np.ndarray], Any, float]:
        """Return the training form's weights, what training gave, and the held-back accuracy of the head alone."""
        from edgenet.calibration.training.augment import batches, centre
        from edgenet.calibration.training.loop import Training
        from edgenet.calibration.training.strategy import half_type, policy
        from edgenet.frameworks import keras, tensorflow
        from edgenet.images import normalise
        from edgenet.models.efficientnet import build, get_weights, set_weights

        tf, k, s = tensorflow(), keras(), self.job.settings
        k.utils.set_random_seed(s.seed)
        strategy = self.strategy
        half = half_type(self.job.mixed_precision, strategy)
        n = len(self.names)
        with strategy.scope(), policy(half):
            model = build(self.spec, n, self.preprocessing.resolution_px)
            fresh = get_weights(model)
            kept = {name: a for name, a in self.arrays.items() if not name.startswith("classifier/")}
            set_weights(model, {**fresh, **kept})
            for layer in model.layers:  # statistics of small batches break what the network knows within a few steps
                if isinstance(layer, k.layers.BatchNormalization):
                    layer.trainable = False
            logits = k.Model(model.input, model.get_layer("classifier").output)
        pooled = tf.function(k.Model(model.input, model.get_layer("pool").output), reduce_retracing=True)

        def features(pictures: Any) -> np.ndarray:
            found = []
            for i in range(0, len(pictures), _CHUNK):
                x = normalise(centre(pictures.subset(slice(i, i + _CHUNK))), self.preprocessing)
                found.append(np.asarray(pooled(x, training=False), np.float32))
                progress("features", min(i + _CHUNK, len(pictures)), len(pictures))
            return np.concatenate(found)

        x, held_x = features(self.pictures), features(self.held_back)
        kernel, bias = fit_head(x, self.pictures.labels, n)
        before = float(((held_x @ kernel + bias).argmax(1) == self.held_back.labels).mean())
        note(f"the new head alone: {before:.1%} of the held-back pictures are right")
        model.get_layer("classifier").set_weights([kernel, bias])
        infer = tf.function(lambda v: logits(v, training=False), reduce_retracing=True)
        held = normalise(centre(self.held_back), self.preprocessing)
        wanted = self.held_back.labels

        def validate() -> dict[str, float]:
            z = np.concatenate([np.asarray(infer(held[i : i + _CHUNK])) for i in range(0, len(held), _CHUNK)])
            z = z.astype(np.float64) - z.max(1, keepdims=True)
            cross = np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), wanted]
            return {"loss": float(cross.mean()), "accuracy": float((z.argmax(1) == wanted).mean())}

        def loss(z: Any, _: Any, target: Any) -> Any:
            soft = target * (1 - SMOOTHING) + SMOOTHING / n
            return -tf.reduce_sum(soft * tf.nn.log_softmax(tf.cast(z, tf.float32)), -1)

        outcome = Training(
            logits,
            loss,
            lambda epoch: batches(self.pictures, s.batch, s.seed, epoch, self.job.augment, n),
            len(self.pictures) // s.batch,
            validate,
            s,
            self.job.out / FOLDER,
            identity,
            strategy,
            half=half,
            progress=progress,
            note=note,
        ).run()
        return get_weights(model), outcome, before


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


def _write(
    job: FinetuneJob,
    spec: zoo.ModelSpec,
    arrays: dict[str, np.ndarray],
    names: tuple[str, ...],
    preprocessing: Preprocessing,
    provenance: str,
    evaluation: ImageSet,
    results: Results,
    progress: Progress,
) -> None:
    import os

    from edgenet.export import export_graph
    from edgenet.export.network import Source
    from edgenet.models.efficientnet import deploy

    source = Source(
        spec.name + SUFFIX, preprocessing, names, names, provenance, "",
        lambda: deploy(spec, arrays, preprocessing.resolution_px),
    )  # fmt: skip
    network = source.network()
    a = export_graph(network, network.graph, job.out, format="tflite", precision="float32")
    path = f"{network.name}.tflite"
    os.replace(job.out / a.path, job.out / path)
    a = replace(a, id=path, path=path)
    results.put(a)
    evaluations, failures = evaluate(
        [Candidate(a.id, job.out / a.path, a.sha256)],
        evaluation,
        preprocessing,
        progress=lambda done, total: progress("evaluate", done, total),
    )
    for item in evaluations:
        results.put(item)
    for failure in failures:
        results.put(failure)
