"""`edgenet qat`: post-training files -> training -> trained files, measured on the same pictures; the better stays.

What it writes: OUT/MODEL_int8.* (the better of both), OUT/ptq and OUT/qat (each by itself), OUT/MODEL_float32.*
that all are compared with, OUT/training (checkpoints, TensorBoard logs), results.json with context.training, and
report.html.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenet import pipeline
from edgenet.calibration.image_checks import lint, refuse
from edgenet.calibration.shared import Recipe
from edgenet.calibration.training.loop import FOLDER, Settings, check_resumable, identity_of
from edgenet.calibration.training.qat import WEIGHT_BITS, Distillation
from edgenet.errors import InputError
from edgenet.evaluate import Candidate, evaluate
from edgenet.export import FORMATS, Source, export_graph, find_source
from edgenet.images import divide, hold_back, open_images, split, stream
from edgenet.jobs.file_factory import Interface, Making
from edgenet.jobs.output_folder import context_of, earlier, exclusive, refuse_another_command, refuse_another_model
from edgenet.records import Likeness, PictureCounts, Score, TrainedFile, TrainingRecord
from edgenet.report.formatting import percent
from edgenet.results import Artifact, Evaluation, ImageSet, Results
from edgenet.targets import target, weight_bits

if TYPE_CHECKING:
    from edgenet.calibration.training.qat import Trained
    from edgenet.export.graph import Graph

KIND = "qat"  # of the TrainingRecord
# Training starts so near to the float network that larger steps undo what the rounding had chosen: its loss rises.
SETTINGS = Settings(epochs=20, batch=16, learning_rate=1e-4)


@dataclass(frozen=True)
class QatJob:
    """What one command asks for."""

    model: str
    out: Path
    images: str
    formats: tuple[str, ...] = ("tflite",)
    io: str = "float32"
    calibration_images: int = 100
    train_images: int | None = None  # three quarters of what calibration leaves, by default
    weight_bits: int | None = None  # 8, or 7 where a format's sums would saturate on the target
    target: str = "auto"
    weights: Path | None = None
    preprocess: str | None = None
    labels: Path | None = None
    allow: tuple[str, ...] = ()
    settings: Settings = SETTINGS
    distill: Distillation = field(default_factory=Distillation)
    command: str = ""

    @property
    def job(self) -> pipeline.Job:
        """The same as a job of the pipeline, with the two precisions that are compared."""
        return pipeline.Job(
            self.model, self.out, self.images, self.formats, ("float32", "int8"), io=self.io, weights=self.weights,
            calibration_images=self.calibration_images, preprocess=self.preprocess, labels=self.labels,
            target=self.target, allow=self.allow, command=self.command,
        )  # fmt: skip


@dataclass(frozen=True)
class _Parts:
    calibration: ImageSet
    train: ImageSet
    held_back: ImageSet
    evaluation: ImageSet


@dataclass(frozen=True)
class _Choice:
    """What was measured of one format's two files, and which of them is returned."""

    format: str
    kept: str  # "ptq" or "qat"
    why: str
    before: Evaluation | None
    after: Evaluation | None  # the trained file's; None where no epoch was better than step 0

    @property
    def record(self) -> TrainedFile:
        return TrainedFile(self.format, self.kept, self.why, _score(self.before), _score(self.after))


def _score(e: Evaluation | None) -> Score | None:
    return None if e is None else Score(e.agreement, e.agreement_ci95, e.top1, e.sqnr_db, e.n_images)


def qat(
    job: QatJob, progress: pipeline.Progress = lambda *_: None, note: Callable[[str], None] = lambda _: None
) -> Results:
    """Do the job and return its results.

    Raises:
        InputError: the arguments, the pictures or the output folder are wrong; nothing was trained then.
        MissingDependency: tensorflow-model-optimization or what it needs is not installed.
    """
    pipeline.check(job.job)
    if job.weight_bits is not None and job.weight_bits not in WEIGHT_BITS:
        raise InputError(f"--weight-bits must be one of {', '.join(map(str, WEIGHT_BITS))}, was {job.weight_bits}")
    if job.train_images is not None and job.train_images < 1:
        raise InputError(f"--train-images must be at least 1, was {job.train_images}")
    source = find_source(job.model, job.weights, preprocess=job.preprocess, labels=job.labels)
    parts = _split(job, source)
    findings = lint(
        stream(parts.calibration, source.preprocessing), parts.calibration, source.preprocessing, parts.evaluation
    )
    refuse(findings, job.allow)
    identity = _identity(job, source, parts)
    check_resumable(job.out / FOLDER, identity_of(job.settings, identity))
    with exclusive(job.out):
        known = earlier(job.out)
        refuse_another_command(known, job.out, KIND)
        refuse_another_model(known, job.out, source.name)
        context = context_of(job.command, job.target, parts.calibration, parts.evaluation)
        results = Results(replace(context, calibration_findings=tuple(findings)))
        making = Making(source, parts.calibration, target(job.target), Recipe(), Interface(job.io))
        trained = _train(job, making, parts, identity, progress, note)
        choices = _write(job, making, trained, parts, results, progress)
        results.context = replace(results.context, training=_record(job, trained, parts, choices))
        results.save(job.out)
        from edgenet.report import write_report

        write_report(results, job.out, source.class_names)
        return results


def _split(job: QatJob, source: Source) -> _Parts:
    """Four parts that share no picture, by content hash: calibration first, as every other command has it."""
    images = open_images(job.images, source.class_ids, source.class_names)
    n_classes = len({label for label in images.labels if label is not None})
    if job.distill.labels_weight and n_classes < 2:
        what = "no picture has a label" if not n_classes else "all labels are of one class"
        raise InputError(
            f"--labels-weight {job.distill.labels_weight}, and in {images.root} {what}: leave the option out, or give "
            "labelled pictures of several classes"
        )
    calibration, rest = split(images, job.calibration_images)
    wanted = job.train_images if job.train_images is not None else 3 * len(rest) // 4
    train, evaluation = divide(rest, wanted)
    held_back, train = hold_back(train)
    if len(train) < job.settings.batch or not evaluation:
        raise InputError(
            f"{images.root} holds {len(images)} pictures: {len(calibration)} calibrate, {len(held_back)} are held "
            f"back, {max(0, len(evaluation))} measure, which leaves {len(train)} to train on and a batch has "
            f"{job.settings.batch}: give more pictures, or change --train-images"
        )
    return _Parts(calibration, train, held_back, evaluation)


def _identity(job: QatJob, source: Source, parts: _Parts) -> dict[str, Any]:
    about = {f"{name}_pictures": part.fingerprint for name, part in vars(parts).items()}
    distill = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(job.distill).items()}
    return {
        "command": KIND,
        "model": source.name,
        "weights": source.sha256,
        "preprocessing": source.preprocessing.to_json(),
        "weight_bits": _bits(job),
        **distill,
        **about,
    }


def _bits(job: QatJob) -> list[int]:
    """Return [bits of the weights, bits of those that keep more]."""
    most = min(weight_bits(target(job.target), f) for f in job.formats)
    if job.weight_bits is None:
        return [most, most]
    return [job.weight_bits, most if job.weight_bits == 4 else job.weight_bits]


def _train(
    job: QatJob,
    making: Making,
    parts: _Parts,
    identity: dict[str, Any],
    progress: pipeline.Progress,
    note: Callable[[str], None],
) -> "Trained":
    from edgenet.calibration.training.augment import load_pictures
    from edgenet.calibration.training.qat import layer_bits, train
    from edgenet.calibration.training.strategy import open_strategy

    strategy = open_strategy(job.distill.strategy)
    shared, folder = making.shared(making.recipe), job.out / FOLDER
    note(f"calibrating on {len(parts.calibration)} pictures, training on {len(parts.train) + len(parts.calibration)}")
    preprocessing = making.network.preprocessing
    return train(
        shared,
        load_pictures((parts.train, parts.calibration), preprocessing, folder),
        load_pictures((parts.held_back,), preprocessing, folder),
        layer_bits(shared.graph, *_bits(job)),
        job.distill,
        job.settings,
        folder,
        identity,
        strategy,
        progress,
        note,
    )


def _write(
    job: QatJob, making: Making, trained: "Trained", parts: _Parts, results: Results, progress: pipeline.Progress
) -> list[_Choice]:
    """Write and measure both files of each format, and the better one of each under the name that is shipped."""
    network = making.network
    calibrations = {"ptq": making.shared(making.recipe).calibration, "qat": trained.calibration}
    graphs = {"ptq": trained.before, "qat": trained.after}
    kinds = ("ptq", "qat") if trained.outcome.best_epoch > 0 else ("ptq",)

    def export(graph: "Graph", out: Path, format: str, kind: str) -> Artifact:
        options = {**making.options(format, "int8"), "weight_bits": _bits(job)[0], "training": kind}
        return export_graph(
            network, graph, out, format=format, precision="int8", io=job.io, calibration=calibrations[kind],
            options=options,
        )  # fmt: skip

    def candidate(format: str, kind: str) -> Artifact:
        a = export(graphs[kind], job.out / kind, format, kind)
        name, suffix = a.path.split(".", 1)[0], FORMATS[format].suffix
        return replace(a, id=f"{name}_{kind}{suffix}", path=f"{kind}/{a.path}")

    floats = {format: making.export(job.out, format, "float32") for format in job.formats}
    made = {(format, kind): candidate(format, kind) for format in job.formats for kind in kinds}
    reference = floats[job.formats[0]]
    evaluations, failures = evaluate(
        [Candidate(a.id, job.out / a.path, a.sha256) for a in (*floats.values(), *made.values())],
        parts.evaluation,
        network.preprocessing,
        reference=reference.id,
        progress=lambda done, total: progress("evaluate", done, total),
    )
    by_id = {e.artifact: e for e in evaluations}
    choices = []
    for format in job.formats:
        before, after = (by_id.get(made[format, k].id) if k in kinds else None for k in ("ptq", "qat"))
        kept, why = _choose(before, after, len(kinds) > 1)
        choices.append(_Choice(format, kept, why, before, after))
        final = export(graphs[kept], job.out, format, kept)
        others = [made[format, kind] for kind in kinds if kind != kept]
        for a in (floats[format], final, *others):
            results.put(a)
        if (measured := by_id.get(made[format, kept].id)) is not None:
            by_id[final.id] = replace(measured, artifact=final.id, artifact_sha256=final.sha256)
    for a in results.artifacts:
        if a.id in by_id:
            results.put(by_id[a.id])
    for failure in failures:
        results.put(failure)
    return choices


def _choose(before: Evaluation | None, after: Evaluation | None, better: bool) -> tuple[str, str]:
    """Return "ptq" or "qat", and why. The held-back pictures decide; those that measure have a veto."""
    if not better:
        return "ptq", "no epoch brought the held-back pictures nearer to the float network than post-training had"
    if after is None or after.agreement is None:
        return "ptq", "the trained file could not be measured"
    for number, says in (("agreement", "agrees with float"), ("top1", "is right")):  # labels settle a tie
        old, new = getattr(before, number, None), getattr(after, number)
        if old is None or new is None or new > old:
            break
        if new < old:
            return "ptq", (
                f"the trained file {says} on {percent(new)} of the pictures that measure, the post-training one on "
                f"{percent(old)}, though the held-back pictures had come nearer to float"
            )
    return "qat", "the held-back pictures came nearer to the float network"


def _record(job: QatJob, trained: "Trained", parts: _Parts, choices: list[_Choice]) -> TrainingRecord:
    files = tuple(choice.record for choice in choices)
    first = files[0]
    return trained.outcome.record(
        KIND,
        job.settings,
        before=first.before,
        after=first.after or first.before,
        kept=first.kept,
        why=first.why,
        files=files,
        simulated_like_file=Likeness(trained.matches_before, trained.matches_after),
        pictures=PictureCounts(**{name: len(part) for name, part in vars(parts).items()}),
        distillation=asdict(job.distill),
        weight_bits=_bits(job)[0],
    )
