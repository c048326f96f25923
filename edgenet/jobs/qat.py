"""`edgenet qat`: post-training files -> training -> trained files, measured on the same pictures; the better stays.

What it writes: OUT/MODEL_int8.* (the better of both; _int4 where weights have 4 bits), OUT/ptq and OUT/qat (each by
itself), OUT/MODEL_float32.* that all are compared with, OUT/training (checkpoints, TensorBoard logs), results.json with
context.training, and report.html. `edgenet finetune --then` does the same behind its own training.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgenet import pipeline
from edgenet.calibration.float_reasons import float_reasons
from edgenet.calibration.image_checks import lint, refuse
from edgenet.calibration.training.loop import FOLDER, check_resumable, identity_of
from edgenet.calibration.training.qat import WEIGHT_BITS, precision_of
from edgenet.calibration.training.strategy import check_strategy
from edgenet.errors import InputError
from edgenet.evaluate import Candidate, evaluate
from edgenet.export import FORMATS, Source, export_graph, find_source
from edgenet.images import divide, hold_back, open_images, split, stream
from edgenet.images.roles import apart, history_of, joined, merged, new_pictures, part, recognised
from edgenet.jobs.file_factory import FileFactory, Interface
from edgenet.jobs.output_folder import context_of, images_record, report_page, results_in
from edgenet.options import Progress, QatJob, Recipe
from edgenet.preflight import check_qat
from edgenet.report.formatting import percent
from edgenet.results import Artifact, Evaluation, ImageSet, Results
from edgenet.results.records import Finding, ImagesRecord, PictureHistory
from edgenet.results.training import Likeness, PictureCounts, Score, TrainedFile, TrainingRecord
from edgenet.targets import target, weight_bits

if TYPE_CHECKING:
    from edgenet.calibration.training.qat import Trained

KIND = "qat"  # of the TrainingRecord


@dataclass(frozen=True)
class Parts:
    """Which pictures do what; no picture is in two parts."""

    calibration: ImageSet
    train: ImageSet
    held_back: ImageSet
    evaluation: ImageSet


@dataclass(frozen=True)
class _Choice:
    """The measurements of one format's two files, and which of them is kept."""

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


def qat(job: QatJob, progress: Progress = lambda *_: None, note: Callable[[str], None] = lambda _: None) -> Results:
    """Do the job and return its results.

    Raises:
        InputError: the arguments, the pictures or the output folder are wrong; nothing was trained then.
        MissingDependency: tensorflow-model-optimization or what it needs is not installed.
    """
    pipeline.check(job.job)
    check_strategy(job.distill.strategy)
    if job.weight_bits is not None and job.weight_bits not in WEIGHT_BITS:
        raise InputError(f"--weight-bits must be one of {', '.join(map(str, WEIGHT_BITS))}, was {job.weight_bits}")
    check_qat(job)
    source = find_source(job.model, job.weights, preprocess=job.preprocess, labels=job.labels)
    parts, found = prepare(job, source)
    page = report_page(source.class_names)
    with results_in(job.out, command=KIND, model=source.name, resume=False, page=page) as results:
        context = context_of(job.command, job.target, _images_used(parts, source))
        results.context = replace(context, calibration_findings=(*source.findings, *found))
        record = train_and_write(job, source, parts, results, progress, note)
        results.context = replace(results.context, training=record)
    return results


def prepare(job: QatJob, source: Source) -> tuple[Parts, tuple[Finding, ...]]:
    """Return the pictures in their parts, and what there is to say of them. Raises InputError before any work."""
    if source.task.kind != "classes" or not source.preprocessing.is_plain:
        what = f"the task is {source.task.kind}" if source.task.kind != "classes" else "its input is grey or no square"
        raise InputError(f"{source.name}: {what}; qat trains classifiers of square colour pictures: use `edgenet run`")
    parts, findings = split_pictures(job, source)
    pixels = stream(parts.calibration, source.preprocessing)
    found = lint(pixels, parts.calibration, source.preprocessing, parts.evaluation)
    refuse(found, job.allow)
    check_resumable(job.out / FOLDER, identity_of(job.settings, _identity(job, source, parts)))
    return parts, (*findings, *found)


def train_and_write(
    job: QatJob,
    source: Source,
    parts: Parts,
    results: Results,
    progress: Progress,
    note: Callable[[str], None],
    floats: Mapping[str, Artifact] | None = None,
) -> TrainingRecord:
    """Train, write and measure the files of `parts`; add them to `results`, and return how training went.

    Args:
        floats: the float files that all are compared with, by format; they are written where there are none.
    """
    factory = _factory(job, source, parts)
    trained = _train(job, factory, parts, _identity(job, source, parts), progress, note)
    choices = _write(job, factory, trained, parts, results, progress, floats)
    return _record(job, trained, parts, choices)


def quantize_and_write(
    job: QatJob, source: Source, parts: Parts, results: Results, progress: Progress, floating: Artifact
) -> None:
    """Write and measure the post-training file of each format, beside a float file, without any training."""
    factory = _factory(job, source, parts)
    made = [factory.export(job.out, format, _precision(job)) for format in job.formats]
    evaluations, failures = evaluate(
        [Candidate(a.id, job.out / a.path, a.sha256) for a in (floating, *made)],
        parts.evaluation,
        factory.network.preprocessing,
        reference=floating.id,
        progress=lambda done, total: progress("evaluate", done, total),
    )
    for items in (made, evaluations, failures):
        for item in items:
            results.put(item)


def _factory(job: QatJob, source: Source, parts: Parts) -> FileFactory:
    return FileFactory(
        source, parts.calibration, target(job.target), Recipe(), Interface(job.io), set_aside=parts.evaluation
    )


def _precision(job: QatJob) -> str:
    return precision_of(_bits(job)[0])


def split_pictures(job: QatJob, source: Source) -> tuple[Parts, tuple[Finding, ...]]:
    """Four parts that share no picture, by content hash, and what there is to say of them.

    Pictures that the network has seen before teach again. Those that were set aside to measure when it was trained
    measure again, so that both trainings are judged by the same ones.
    """
    images = open_images(job.images, source.class_ids, source.class_names)
    n_classes = len({label for label in images.labels if label is not None})
    if job.distill.labels_weight and n_classes < 2:
        what = "no picture has a label" if not n_classes else "all labels are of one class"
        raise InputError(
            f"--labels-weight {job.distill.labels_weight}, and in {images.root} {what}: leave the option out, or give "
            "labelled pictures of several classes"
        )
    if job.distill.labels_weight and images.groups:
        raise InputError(
            f"--labels-weight {job.distill.labels_weight}, and the class map in {images.root} gives a picture several "
            "classes, of which none is the one to learn: leave the option out"
        )
    calibration, train, evaluation = _roles(job, source, images)
    held_back, train = hold_back(train)
    evaluation, findings = new_pictures(evaluation, source.pictures, source.name, calibration, train, held_back)
    if len(train) < job.settings.batch or not evaluation:
        why = next((f"; {f.message}" for f in findings if f.code == "no-own-pictures"), "")
        raise InputError(
            f"{images.root} holds {len(images)} pictures: {len(calibration)} calibrate, {len(held_back)} are held "
            f"back, {len(evaluation)} measure, which leaves {len(train)} to train on and a batch has "
            f"{job.settings.batch}{why}: give more pictures, or change --train-images"
        )
    return Parts(calibration, train, held_back, evaluation), findings


def _roles(job: QatJob, source: Source, images: ImageSet) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Return the pictures that calibrate, that teach or are held back, and that may measure."""
    known, new = apart(images, source.pictures)
    set_aside = recognised(new, [source.pictures.measured])
    if job.images_test is not None:
        learning, evaluation = images, open_images(job.images_test, source.class_ids, source.class_names)
    elif set_aside.any():
        evaluation = part(new, np.flatnonzero(set_aside))
        learning = joined(known, part(new, np.flatnonzero(~set_aside)))
    elif len(known) >= len(new):
        learning, evaluation = known, new
    else:
        calibration, rest = split(new, job.calibration_images)
        wanted = job.train_images if job.train_images is not None else 3 * len(rest) // 4
        train, evaluation = divide(rest, wanted)
        return calibration, joined(known, train), evaluation
    calibration, train = split(learning, job.calibration_images)
    return calibration, train if job.train_images is None else divide(train, job.train_images)[0], evaluation


def _images_used(parts: Parts, source: Source) -> ImagesRecord:
    return images_record(
        parts.evaluation,
        calibration=parts.calibration,
        taught=parts.train,
        chose=parts.held_back,
        history=source.pictures,
    )


def _history(factory: FileFactory, parts: Parts, kind: str) -> PictureHistory:
    """Return which pictures had a role in an int8 file: the trained one also learned from what calibrates."""
    taught = joined(parts.train, parts.calibration) if kind == "qat" else None
    return merged(factory.pictures("int8"), history_of(taught=taught, chose=parts.held_back))


def _identity(job: QatJob, source: Source, parts: Parts) -> dict[str, Any]:
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
    factory: FileFactory,
    parts: Parts,
    identity: dict[str, Any],
    progress: Progress,
    note: Callable[[str], None],
) -> "Trained":
    from edgenet.calibration.training.augment import load_pictures
    from edgenet.calibration.training.loop import Place
    from edgenet.calibration.training.qat import bits_of, train
    from edgenet.calibration.training.strategy import open_strategy

    strategy = open_strategy(job.distill.strategy)
    shared, folder = factory.shared(factory.recipe), job.out / FOLDER
    note(f"calibrating on {len(parts.calibration)} pictures, training on {len(parts.train) + len(parts.calibration)}")
    preprocessing = factory.network.preprocessing
    return train(
        shared,
        load_pictures((parts.train, parts.calibration), preprocessing, folder),
        load_pictures((parts.held_back,), preprocessing, folder),
        bits_of(shared.graph, *_bits(job)),
        job.distill,
        job.settings,
        Place(folder, identity, strategy, progress, note),
        f"{parts.train.fingerprint} {parts.calibration.fingerprint} {parts.held_back.fingerprint}",
    )


def _write(
    job: QatJob,
    factory: FileFactory,
    trained: "Trained",
    parts: Parts,
    results: Results,
    progress: Progress,
    floats: Mapping[str, Artifact] | None = None,
) -> list[_Choice]:
    """Write and measure both files of each format, and the better one of each under the name that is shipped."""
    kinds = ("ptq", "qat") if trained.outcome.best_epoch > 0 else ("ptq",)
    floats = floats or {format: factory.export(job.out, format, "float32") for format in job.formats}
    made = {
        (format, kind): _candidate(job, factory, trained, parts, format, kind)
        for format in job.formats
        for kind in kinds
    }
    evaluations, failures = evaluate(
        [Candidate(a.id, job.out / a.path, a.sha256) for a in (*floats.values(), *made.values())],
        parts.evaluation,
        factory.network.preprocessing,
        reference=floats[job.formats[0]].id,
        progress=lambda done, total: progress("evaluate", done, total),
    )
    by_id = {e.artifact: e for e in evaluations}
    choices = []
    for format in job.formats:
        before, after = (by_id.get(made[format, k].id) if k in kinds else None for k in ("ptq", "qat"))
        kept, why = _choose(before, after, len(kinds) > 1, bool(job.distill.labels_weight))
        choices.append(_Choice(format, kept, why, before, after))
        final = _export(job, factory, trained, parts, job.out, format, kept)
        if (measured := by_id.get(made[format, kept].id)) is not None:
            by_id[final.id] = replace(measured, artifact=final.id, artifact_sha256=final.sha256)
        for a in (floats[format], final, *(made[format, kind] for kind in kinds if kind != kept)):
            results.put(a)
            if a.id in by_id:
                results.put(by_id[a.id])
    for failure in failures:
        results.put(failure)
    return choices


def _export(
    job: QatJob, factory: FileFactory, trained: "Trained", parts: Parts, out: Path, format: str, kind: str
) -> Artifact:
    """Write the int8 file of a format: "ptq" as it was before training, "qat" as it is after."""
    before, precision = kind == "ptq", _precision(job)
    graph = trained.before if before else trained.after
    return export_graph(
        factory.network,
        graph,
        out,
        format=format,
        precision=precision,
        io=job.io,
        calibration=factory.shared(factory.recipe).calibration if before else trained.calibration,
        pictures=_history(factory, parts, kind),
        options={**factory.options(format, precision), "weight_bits": _bits(job)[0], "training": kind},
        reasons=float_reasons(graph, precision),
    )


def _candidate(job: QatJob, factory: FileFactory, trained: "Trained", parts: Parts, format: str, kind: str) -> Artifact:
    """Write OUT/ptq/... or OUT/qat/..., one of the two files that are compared."""
    a = _export(job, factory, trained, parts, job.out / kind, format, kind)
    name, suffix = a.path.split(".", 1)[0], FORMATS[format].suffix
    return replace(a, id=f"{name}_{kind}{suffix}", path=f"{kind}/{a.path}")


def _choose(
    before: Evaluation | None, after: Evaluation | None, better: bool, by_labels: bool = False
) -> tuple[str, str]:
    """Return "ptq" or "qat", and why. The held-back pictures decide; those that measure have a veto.

    by_labels: the network learned from labels too, so that to be right counts before to agree with float.
    """
    if not better:
        return "ptq", "no epoch brought the held-back pictures nearer to the float network than post-training had"
    if after is None or after.agreement is None:
        return "ptq", "the trained file could not be measured"
    asked = (("agreement", "agrees with float"), ("top1", "is right"))  # the second settles a tie
    for number, says in asked[::-1] if by_labels else asked:
        old, new = getattr(before, number, None), getattr(after, number)
        if old is None or new is None:
            continue
        if new > old:
            break
        if new < old:
            return "ptq", (
                f"the trained file {says} on {percent(new)} of the pictures that measure, the post-training one on "
                f"{percent(old)}, though the held-back pictures had come nearer to float"
            )
    return "qat", "the held-back pictures came nearer to the float network"


def _record(job: QatJob, trained: "Trained", parts: Parts, choices: list[_Choice]) -> TrainingRecord:
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
