"""`edgenet qat`: post-training files -> training -> trained files, measured on the same pictures; the better stays.

What it writes: OUT/MODEL_int8.* (the better of both), OUT/ptq and OUT/qat (each by itself), OUT/MODEL_float32.*
that all are compared with, OUT/training (checkpoints, TensorBoard logs), results.json with context["training"], and
report.html.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenet import pipeline
from edgenet.calibration.qat import WEIGHT_BITS, Distillation
from edgenet.calibration.shared import Recipe
from edgenet.calibration.training import Settings, check_resumable, identity_of
from edgenet.errors import InputError
from edgenet.evaluate import Candidate, evaluate
from edgenet.export import FORMATS, Source, export_graph, find_source
from edgenet.images import open_images, split, subset
from edgenet.making import Interface, Making
from edgenet.results import Artifact, Evaluation, ImageSet, Results
from edgenet.targets import target, weight_bits

if TYPE_CHECKING:
    from edgenet.calibration.qat import Trained
    from edgenet.export.graph import Graph

FOLDER = "training"
HELD_BACK = 0.15  # of the training pictures
MIN_HELD_BACK = 8


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
    settings: Settings = field(default_factory=lambda: Settings(epochs=20, batch=16, learning_rate=0.001))
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


def qat(
    job: QatJob, progress: pipeline.Progress = lambda *_: None, note: Callable[[str], None] = lambda _: None
) -> Results:
    """Do the job and return its results.

    Raises:
        InputError: the arguments, the pictures or the output folder are wrong; nothing was trained then.
        MissingDependency: tensorflow-model-optimization or what it needs is not installed.
    """
    pipeline._check(job.job, only_export=False)
    if job.weight_bits is not None and job.weight_bits not in WEIGHT_BITS:
        raise InputError(f"--weight-bits must be one of {', '.join(map(str, WEIGHT_BITS))}, was {job.weight_bits}")
    source = find_source(job.model, job.weights, preprocess=job.preprocess, labels=job.labels)
    parts = _split(job, source)
    findings = pipeline._lint(job.job, source, pipeline._Images(parts.calibration, parts.evaluation))
    identity = _identity(job, source, parts)
    check_resumable(job.out / FOLDER, identity_of(job.settings, identity))
    with pipeline._exclusive(job.out):
        results = _opened(job, source, parts)
        results.context["calibration_findings"] = [asdict(f) for f in findings]
        making = Making(source, parts.calibration, target(job.target), Recipe(), Interface(job.io))
        trained = _train(job, making, parts, identity, progress, note)
        _write(job, making, trained, parts, results, progress)
        results.save(job.out)
        from edgenet.report import write_report

        write_report(results, job.out, source.class_names)
        return results


def _split(job: QatJob, source: Source) -> _Parts:
    """Four parts that share no picture, by content hash: calibration first, as every other command has it."""
    images = open_images(job.images, source.class_ids, source.class_names)
    if job.distill.labels_weight and not images.n_labelled:
        raise InputError(f"--labels-weight {job.distill.labels_weight}, and no picture of {images.root} has a label")
    calibration, rest = split(images, job.calibration_images)
    wanted = job.train_images if job.train_images is not None else 3 * len(rest) // 4
    train, evaluation = divide(rest, wanted)
    held_back, train = divide(train, max(MIN_HELD_BACK, round(HELD_BACK * len(train))))
    if len(train) < job.settings.batch or not evaluation:
        raise InputError(
            f"{images.root} holds {len(images)} pictures: {len(calibration)} calibrate, {len(held_back)} are held "
            f"back, {max(0, len(evaluation))} measure, which leaves {len(train)} to train on and a batch has "
            f"{job.settings.batch}: give more pictures, or change --train-images"
        )
    return _Parts(calibration, train, held_back, evaluation)


def divide(images: ImageSet, n: int) -> tuple[ImageSet, ImageSet]:
    """Return about `n` pictures of the set and the others, by content hash; equal pictures stay together."""
    order = sorted(range(len(images)), key=lambda i: (images.digests[i], images.files[i]))
    n = min(n, len(order))
    while 0 < n < len(order) and images.digests[order[n]] == images.digests[order[n - 1]]:
        n -= 1
    return subset(images, sorted(order[:n])), subset(images, sorted(order[n:]))


def _identity(job: QatJob, source: Source, parts: _Parts) -> dict[str, Any]:
    about = {f"{name}_pictures": part.fingerprint for name, part in vars(parts).items()}
    distill = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(job.distill).items()}
    return {
        "model": source.name,
        "weights": source.sha256,
        "preprocessing": source.preprocessing.to_json(),
        "weight_bits": _bits(job),
        **distill,
        **about,
    }


def _bits(job: QatJob) -> tuple[int, int]:
    """Return (bits of the weights, bits of those that keep more)."""
    most = min(weight_bits(target(job.target), f) for f in job.formats)
    if job.weight_bits is None:
        return most, most
    return job.weight_bits, most if job.weight_bits == 4 else job.weight_bits


def _opened(job: QatJob, source: Source, parts: _Parts) -> Results:
    results = pipeline._earlier(job.out)
    if results.artifacts and "training" not in results.context:
        raise InputError(f"--out {job.out} is of another command: one folder is for one, choose another --out")
    others = sorted({a.model for a in results.artifacts} - {source.name})
    if others:
        raise InputError(
            f"--out {job.out} holds files of {others[0]}: one folder is for one model, choose another --out"
        )
    return Results(context=pipeline._context(job.job, pipeline._Images(parts.calibration, parts.evaluation)))


def _train(
    job: QatJob,
    making: Making,
    parts: _Parts,
    identity: dict[str, Any],
    progress: pipeline.Progress,
    note: Callable[[str], None],
) -> "Trained":
    from edgenet.calibration.augment import load_pictures
    from edgenet.calibration.qat import joined, layer_bits, train
    from edgenet.calibration.strategy import open_strategy

    strategy = open_strategy(job.distill.strategy)
    shared, folder = making.shared(making.recipe), job.out / FOLDER
    note(f"calibrating on {len(parts.calibration)} pictures, training on {len(parts.train) + len(parts.calibration)}")
    preprocessing = making.network.preprocessing
    pictures = joined(
        load_pictures(parts.train, preprocessing, folder), load_pictures(parts.calibration, preprocessing, folder)
    )
    held_back = load_pictures(parts.held_back, preprocessing, folder)
    return train(
        shared,
        pictures,
        held_back,
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
) -> None:
    network, shared = making.network, making.shared(making.recipe)
    bits = _bits(job)[0]

    def export(graph: "Graph", format: str, kind: str) -> Artifact:
        calibration = trained.calibration if kind == "qat" else shared.calibration
        options = {**making.options(format, "int8"), "weight_bits": bits, "training": kind}
        a = export_graph(
            network, graph, job.out / kind, format=format, precision="int8", io=job.io, calibration=calibration,
            options=options,
        )  # fmt: skip
        name, suffix = a.path.split(".", 1)[0], FORMATS[format].suffix
        return replace(a, id=f"{name}_{kind}{suffix}", path=f"{kind}/{a.path}")

    def name_of(format: str) -> str:
        return f"{network.name}_int8{FORMATS[format].suffix}"

    better = trained.outcome.best_epoch > 0
    made: dict[tuple[str, str], Artifact] = {}
    for format in job.formats:
        results.put(making.export(job.out, format, "float32"))
        made[format, "ptq"] = export(trained.before, format, "ptq")
        if better:
            made[format, "qat"] = export(trained.after, format, "qat")
    reference = results.artifacts[0]
    candidates = [reference, *made.values(), *results.artifacts[1:]]
    evaluations, failures = evaluate(
        [Candidate(a.id, job.out / a.path, a.sha256) for a in candidates],
        parts.evaluation,
        network.preprocessing,
        reference=reference.id,
        progress=lambda done, total: progress("evaluate", done, total),
    )
    for failure in failures:
        results.put(failure)
    by_id = {e.artifact: e for e in evaluations}
    first = job.formats[0]
    pair = [by_id.get(made[first, kind].id) for kind in ("ptq", "qat") if (first, kind) in made]
    kept, why = _choose(pair, trained)
    for format in job.formats:
        source = made[format, kept]
        final = export_graph(
            network,
            trained.after if kept == "qat" else trained.before,
            job.out,
            format=format,
            precision="int8",
            io=job.io,
            calibration=trained.calibration if kept == "qat" else shared.calibration,
            options=source.options,
        )
        results.put(final)
        if source.id in by_id:
            results.put(replace(by_id[source.id], artifact=final.id, artifact_sha256=final.sha256))
        for kind in ("ptq", "qat"):
            if kind != kept and (format, kind) in made:
                results.put(made[format, kind])
                if made[format, kind].id in by_id:
                    results.put(by_id[made[format, kind].id])
    for a in results.artifacts:
        if a.precision == "float32" and a.id in by_id:
            results.put(by_id[a.id])
    results.context["training"] = _context(job, trained, parts, pair, kept, why)


def _choose(pair: Sequence[Evaluation | None], trained: "Trained") -> tuple[str, str]:
    """Return "ptq" or "qat", and why. The held-back pictures decide; those that measure have a veto."""
    if len(pair) < 2:
        return "ptq", "no epoch brought the held-back pictures nearer to the float network than post-training had"
    before, after = pair
    if before is None or after is None or before.agreement is None or after.agreement is None:
        return "qat", "the held-back pictures came nearer to the float network"
    if after.agreement < before.agreement:
        return "ptq", (
            f"the trained file agrees with float on {after.agreement:.1%} of the pictures that measure, the "
            f"post-training one on {before.agreement:.1%}, though the held-back pictures had come nearer to float"
        )
    return "qat", "the held-back pictures came nearer to the float network"


def _context(
    job: QatJob, trained: "Trained", parts: _Parts, pair: Sequence[Evaluation | None], kept: str, why: str
) -> dict[str, Any]:
    numbers = ("agreement", "agreement_ci95", "top1", "sqnr_db", "n_images")

    def measured(e: Evaluation | None) -> dict[str, Any] | None:
        return None if e is None else {n: getattr(e, n) for n in numbers}

    return {
        "curve": list(trained.outcome.curve),
        "best_epoch": trained.outcome.best_epoch,
        "stopped_early": trained.outcome.stopped_early,
        "seconds": round(trained.outcome.seconds, 1),
        "before": measured(pair[0]),
        "after": measured(pair[1]) if len(pair) > 1 else measured(pair[0]),
        "kept": kept,
        "why": why,
        "simulated_like_file": {"before": trained.matches_before, "after": trained.matches_after},
        "pictures": {name: len(part) for name, part in vars(parts).items()},
        "settings": asdict(job.settings),
        "distillation": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(job.distill).items()},
        "weight_bits": _bits(job)[0],
    }
