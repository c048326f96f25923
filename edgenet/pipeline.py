"""The whole way: export -> evaluate -> bench -> report, in an output folder that a later run goes on with.

What is finished is written at once, whole, with the hash of what it was made from; a run that was cut redoes only what
is missing or no longer fits. Two runs never share an output folder.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from edgenet.calibration import NEEDS_CALIBRATION, PRECISIONS
from edgenet.calibration.summary import calibration_record
from edgenet.errors import EdgenetError, InputError
from edgenet.evaluate import Candidate, evaluate
from edgenet.export import FORMATS, IO_DTYPES, Source, find_source
from edgenet.export.importers.labels import NO_YES
from edgenet.farm.job import Farm, farm
from edgenet.files import sha256_of, size_of
from edgenet.history import store
from edgenet.images import Classes, Preprocessing, names_in, open_images, stream
from edgenet.images.roles import divide_by_role
from edgenet.jobs.accuracy_budget import Search, options_of, searches
from edgenet.jobs.budget_verdict import Budget
from edgenet.jobs.devices import REFERENCE_PRECISION, bench_devices, emulate_devices, forms, present, put
from edgenet.jobs.file_factory import USES_IMAGES, FileFactory, Form, Interface
from edgenet.jobs.keep import parse as parse_keep
from edgenet.jobs.output_folder import context_of, images_record, report_page, results_in
from edgenet.options import DEFAULT_PRECISIONS, Job, Progress, Recipe
from edgenet.preflight import check_run
from edgenet.results import Artifact, Failure, ImageSet, Results
from edgenet.results.records import (
    NAMES_FROM_FOLDERS,
    TAKEN_FOR_EMBEDDING,
    EvaluationTime,
    Finding,
)
from edgenet.targets import check_formats, target
from edgenet.tasks import AUTO, Task

Wanted = tuple[str, str, Form | None]  # format, precision, and what devices ask for beside the job's own


@dataclass(frozen=True)
class PicturesOfJob:
    """The pictures of a job, split once; None where no picture is needed."""

    calibration: ImageSet | None = None
    evaluation: ImageSet | None = None  # empty where no picture is new to the network
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """A job that was checked, with its model found and its pictures split. Nothing is written yet."""

    source: Source
    images: PicturesOfJob
    factory: FileFactory
    findings: tuple[Finding, ...]


def prepare(job: Job, only_export: bool = False) -> Prepared:
    """Check the job, find its model and split its pictures.

    Raises:
        InputError: the arguments or the images are wrong.
        MissingDependency: a package is missing.
        DeviceError: a device is not there.
    """
    _check_all(job, only_export)
    source = find_source(
        job.model, job.weights, job.random_weights, preprocess=job.preprocess, labels=job.labels, task=job.task,
        output=job.output,
    )  # fmt: skip
    source, named = _meaning(job, source)
    images = _open(job, source, only_export)
    factory = _factory(job, source, images)
    findings = (*source.findings, *named, *images.findings, *_lint(job, source, images))
    return Prepared(source, images, factory, findings)


def _check_all(job: Job, only_export: bool) -> None:
    check(job)
    if job.history is not None:
        store.check(job.history)
    check_run(job, only_export)


def run(
    job: Job, progress: Progress = lambda *_: None, *, only_export: bool = False, prepared: Prepared | None = None
) -> Results:
    """Do the job and return its results; OUT/results.json and OUT/report.html are there when it ends.

    Args:
        only_export: stop when the files are written.
        prepared: of this job, where somebody prepared it before.

    Raises:
        InputError: the arguments, the images or the output folder are wrong. Nothing was written then.
    """
    if prepared is None:
        prepared = prepare(job, only_export)
    else:
        _check_all(job, only_export)
    source, images = prepared.source, prepared.images
    page = None if only_export else report_page(_names_of(source, job))
    with results_in(job.out, model=source.name, page=page) as results:
        _note_context(job, source, images, prepared.findings, results)
        with farm(job.cluster) as who:  # it is left before anything is timed
            _export(job, prepared.factory, images, results, progress, who)
            if not only_export and images.evaluation:
                _evaluate(job, source.task, images.evaluation, results, progress, who)
        if not only_export:
            assert images.calibration is not None
            assert images.evaluation is not None
            bench_devices(job, images.evaluation or images.calibration, results, progress)
            if images.evaluation:
                emulate_devices(job, source.task, images.evaluation, results, progress)
        _note_lost(job, results)
    if job.history is not None:
        store.add_finished(job.history, job.out)
    return results


def _note_lost(job: Job, results: Results) -> None:
    """Note as failures those files that somebody removed or cut while the run went on."""
    for a in results.artifacts:
        path = job.out / a.path
        if a.precision in job.precisions and not (path.exists() and size_of(path) == a.size_bytes):
            why = "it was removed or altered while the command went on"
            results.put(Failure("export", a.id, why=why, remedy="the same command makes it again"))


def _note_context(
    job: Job, source: Source, images: PicturesOfJob, findings: tuple[Finding, ...], results: Results
) -> None:
    """Write into the results how this run is made. What describes files of an earlier run, which may stay, is kept."""
    results.failures.clear()
    used = None
    if images.evaluation is not None:
        used = images_record(images.evaluation, calibration=images.calibration, history=source.pictures)
    results.context = replace(
        context_of(job.command, job.target, used),
        calibration=results.context.calibration,
        search=results.context.search,
        calibration_findings=findings,
    )


def check(job: Job) -> None:
    """Check the arguments that need no file to be opened. Raises InputError."""
    from edgenet.calibration.image_checks import check_allowed
    from edgenet.device_bench.registry import parse

    for device in job.devices:
        parse(device)
    known = {"format": tuple(FORMATS), "precision": PRECISIONS, "io": IO_DTYPES}
    asked = [("format", f) for f in job.formats] + [("precision", p) for p in job.precisions]
    for what, value in [*asked, ("io", job.io)]:
        if value not in known[what]:
            raise InputError(f"unknown {what} '{value}' (valid: {', '.join(known[what])})")
    for format, precision in _impossible(job):
        if job.precisions != DEFAULT_PRECISIONS and set(job.formats) != set(FORMATS):
            valid = ", ".join(FORMATS[format].precisions)
            raise InputError(f"format {format} has no precision {precision} (valid: {valid})")
    _check_interface(job)
    check_formats(target(job.target), job.formats)
    Recipe(job.calibration_method, job.corrections)
    if parse_keep(job.keep, target(job.target)) and not set(job.precisions) & set(NEEDS_CALIBRATION):
        *some, last = NEEDS_CALIBRATION
        raise InputError(f"--keep is for {', '.join(some)} and {last} files: add --precision int8")
    if Budget(job.max_accuracy_drop, job.min_sqnr) and "int8" not in job.precisions:
        raise InputError("--max-accuracy-drop and --min-sqnr search for an int8 file: add --precision int8")
    if job.random_weights and job.max_accuracy_drop is not None:
        raise InputError("with random weights accuracy means nothing: give --min-sqnr 20 (dB) as the budget")
    if job.min_sqnr is not None and job.io != "float32":
        raise InputError(
            f"--min-sqnr is of logits, and with --io {job.io} the output has 8 bits: "
            "give --max-accuracy-drop, or leave --io out"
        )
    check_allowed(job.allow)
    if job.task != AUTO:
        Task(job.task)
    if job.out.exists() and not job.out.is_dir():
        raise InputError(f"--out {job.out} is a file: give a folder, new or of an earlier run")


def _check_interface(job: Job) -> None:
    asked = [o for o, given in (("--batch", batch_of(job.batch) != 1), ("--logits", job.logits)) if given]
    fixed = [f for f in job.formats if FORMATS[f].fixed]
    if asked and fixed and set(job.formats) != set(FORMATS):
        able = " or ".join(name for name, f in FORMATS.items() if not f.fixed)
        raise InputError(
            f"{asked[0]} is not for {fixed[0]}, which takes one picture and gives probabilities (what Android's tasks "
            f"read): leave it out, or give --format {able}"
        )


def batch_of(batch: int | str) -> int | None:
    """Return the pictures that a file takes at once, None where `--batch` is "dynamic"."""
    return batch if isinstance(batch, int) else None


def _impossible(job: Job) -> list[tuple[str, str]]:
    """Return the pairs of format and precision that do not exist.

    They are an error, unless the precisions are the default's, or all formats are wanted: then each format is written
    in the precisions that it has.
    """
    return [(f, p) for f in job.formats for p in job.precisions if p not in FORMATS[f].precisions]


def _open(job: Job, source: Source, only_export: bool) -> PicturesOfJob:
    if job.images is None:
        needing = [p for p in job.precisions if p in NEEDS_CALIBRATION]
        if needing or not only_export:
            what = f"precision {needing[0]}" if needing else "measuring accuracy"
            raise InputError(f"{what} needs images: give --images DIR (a folder of photographs) or --images sample")
        return PicturesOfJob()
    images = open_images(job.images, source.class_ids, source.class_names, source.task)
    test = job.images_test and open_images(job.images_test, source.class_ids, source.class_names, source.task)
    divided = divide_by_role(
        images, job.calibration_images, source.pictures, model=source.name, test=test or None, at_most=job.limit
    )
    if not divided.evaluation and Budget(job.max_accuracy_drop, job.min_sqnr):
        raise InputError(
            f"a budget is held on pictures that are new to {source.name}, and {(test or images).root} has none: "
            "give --images-test DIR"
        )
    return PicturesOfJob(divided.calibration, divided.evaluation, divided.findings)


def _meaning(job: Job, source: Source) -> tuple[Source, list[Finding]]:
    """Return the source with two class folders as the names of no and yes, where nobody named them; and what to say.

    Which folder is yes follows Keras' image_dataset_from_directory: the second in the order of their names.
    """
    if source.task.kind == "embedding" and job.task == AUTO:
        return source, [Finding(
            TAKEN_FOR_EMBEDDING, "info",
            f"what {source.name} gives is taken for an embedding: it ends in a vector of length 1 or in an average",
            "give --task classes where it classifies",
        )]  # fmt: skip
    if source.task.kind != "binary" or source.class_names != NO_YES or job.images is None:
        return source, []
    names, known = names_in(job.images), Classes(NO_YES, NO_YES)
    if len(names) != 2 or all(known.knows(name) for name in names):
        return source, []
    found = Finding(
        NAMES_FROM_FOLDERS, "info",
        f"no is '{names[0]}' and yes is '{names[1]}': the folders in the order of their names, as Keras counts them",
        "give --labels FILE, no first, where it is the other way round",
    )  # fmt: skip
    return replace(source, class_ids=names, class_names=names), [found]


def _names_of(source: Source, job: Job) -> tuple[str, ...]:
    """Return the names of the classes that pictures have: of embeddings, the folder's own."""
    if source.task.kind != "embedding":
        return source.class_names
    images = job.images_test or job.images
    return names_in(images) if images else ()


def _lint(job: Job, source: Source, images: PicturesOfJob) -> list[Finding]:
    """Look at the calibration pictures, if any are needed, before anything is written; stop where they are bad."""
    from edgenet.calibration.image_checks import lint, refuse

    if images.calibration is None or not set(job.precisions) & set(USES_IMAGES):
        return []
    pixels = stream(images.calibration, source.preprocessing)
    findings = lint(pixels, images.calibration, source.preprocessing, images.evaluation)
    refuse(findings, job.allow)
    return findings


def _factory(job: Job, source: Source, images: PicturesOfJob) -> FileFactory:
    """Return what writes the files. Raises InputError where --keep names no operator: the network is built for that."""
    recipe = Recipe(job.calibration_method, job.corrections)
    interface = Interface(job.io, batch_of(job.batch), job.logits)
    runs_on = target(job.target)
    keep = parse_keep(job.keep, runs_on)
    factory = FileFactory(source, images.calibration, runs_on, recipe, interface, keep=keep)
    _ = factory.kept  # before anything is written
    return factory


def files_of_job(job: Job) -> list[Wanted]:
    """Return the files that a job writes, in that order: its own, and what its devices ask for beside them."""
    own = ((f, p, None) for p in job.precisions for f in job.formats if p in FORMATS[f].precisions)
    return [*own, *((f, "int8", form) for f, form in forms(job))]


def _export(
    job: Job, factory: FileFactory, images: PicturesOfJob, results: Results, progress: Progress, who: Farm
) -> None:
    """Write the files that an earlier run did not leave whole."""
    budget = Budget(job.max_accuracy_drop, job.min_sqnr)
    find, search_options = None, {}
    if budget and images.evaluation is not None:  # there are some: int8 was asked for
        find = cache(searches(factory, images.evaluation, budget, job.threads, progress, who))
        search_options = options_of(budget, images.evaluation)
    wanted = files_of_job(job)
    for done, (format, precision, form) in enumerate(wanted):
        searched = format in job.formats
        options = factory.options(format, precision, search_options if searched else {}, form)
        if found := whole(job.out, results, factory.id(format, precision, form), options):
            results.put(replace(found, made_for=form.devices if form else ()))
            continue
        progress("export", done, len(wanted))
        _write(job, factory, (format, precision, form), find if searched else None, results)
        results.save(job.out)
    progress("export", len(wanted), len(wanted))
    if not budget:
        results.context = replace(results.context, search={})
    _drop_files_of_other_inputs(factory, wanted, results)


def _write(
    job: Job,
    factory: FileFactory,
    wanted: Wanted,
    find: Callable[[str], Search] | None,
    results: Results,
) -> None:
    """Write one file. What the writer refuses is a failure of this file, and the others go on.

    Args:
        find: searches for the int8 file of a format within the budget; None where there is no budget.
    """
    format, precision, form = wanted
    id = factory.id(format, precision, form)
    try:
        if find is not None and precision == "int8":
            found = find(format)
            results.context = replace(results.context, search={**results.context.search, format: found.record})
            artifact = factory.export(job.out, format, precision, found.variant, found.options, form)
        else:
            artifact = factory.export(job.out, format, precision, form=form)
        results.put(artifact)
        if shared := factory.calibration_of(artifact):
            results.context = replace(results.context, calibration=calibration_record(shared))
    except InputError:
        raise
    except EdgenetError as e:
        # What an earlier run left under this name is not what was asked for.
        results.artifacts = [a for a in results.artifacts if a.id != id]
        results.put(Failure("export", id, why=str(e), remedy="see docs/troubleshooting.md"))


def _drop_files_of_other_inputs(factory: FileFactory, wanted: Sequence[Wanted], results: Results) -> None:
    """Forget files with other weights, preprocessing or labels; the rest is sorted as it was asked for."""
    now = factory.options(*wanted[0][:2])
    alike = ("weights", "preprocessing", "labels", "task")
    results.artifacts = [a for a in results.artifacts if all(a.options.get(k) == now[k] for k in alike)]
    ids = [factory.id(*each) for each in wanted]
    results.artifacts.sort(key=lambda a: ids.index(a.id) if a.id in ids else len(ids))


def whole(out: Path, results: Results, id: str, options: dict[str, Any]) -> Artifact | None:
    """Return the file that an earlier run wrote from the same inputs, if its bytes have not changed since."""
    found = next((a for a in results.artifacts if a.id == id), None)
    if found is None or found.options != options or not (out / found.path).exists():
        return None
    return found if sha256_of(out / found.path) == found.sha256 else None


def _evaluate(job: Job, task: Task, images: ImageSet, results: Results, progress: Progress, who: Farm) -> None:
    artifacts = present(job, results)
    known = {
        (e.artifact, e.artifact_sha256)
        for e in results.evaluations
        if e.images == images.fingerprint and e.device == "local"
    }
    missing = [a for a in artifacts if (a.id, a.sha256) not in known]
    if not missing:
        return
    reference = next((a for a in artifacts if a.precision == REFERENCE_PRECISION), None)
    if reference in missing:
        missing = artifacts  # comparisons with the old reference mean nothing
    elif reference is not None:
        missing = [reference, *missing]
    times: list[EvaluationTime] = []
    evaluations, failures = evaluate(
        [Candidate(a.id, job.out / a.path, a.sha256) for a in missing],
        images,
        Preprocessing.from_json(missing[0].preprocessing),
        reference=reference.id if reference else None,
        progress=lambda done, total: progress("evaluate", done, total),
        task=task,
        answering=who.answering,
        keep=True,
        spent=times.append,
    )
    results.context = replace(results.context, evaluation_time=times[-1] if times else None)
    put(job, results, evaluations, [*failures, *who.failures])
