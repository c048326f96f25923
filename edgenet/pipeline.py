"""The whole way: export -> evaluate -> bench -> report, in an output folder that a later run goes on with.

What is finished is written at once, whole, with the hash of what it was made from; a run that was cut redoes only what
is missing or no longer fits. Two runs never share an output folder.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.calibration import NEEDS_CALIBRATION, PRECISIONS, Recipe
from edgenet.calibration.summary import calibration_record
from edgenet.errors import EdgenetError, InputError
from edgenet.evaluate import Candidate, evaluate
from edgenet.export import FORMATS, IO_DTYPES, Source, find_source
from edgenet.images import Preprocessing, limit, open_images, split, stream
from edgenet.jobs.accuracy_budget import Budget, Search, search
from edgenet.jobs.file_factory import USES_IMAGES, Interface, Making
from edgenet.jobs.output_folder import context_of, earlier, exclusive, images_record, refuse_another_model
from edgenet.records import Context, Finding
from edgenet.report.formatting import failed
from edgenet.results import (
    Artifact,
    Estimate,
    Evaluation,
    Failure,
    ImageSet,
    Measurement,
    Results,
    sha256_of,
)
from edgenet.targets import check_formats, target

DEFAULT_PRECISIONS = ("float32", "float16", "dynamic", "int8")
REFERENCE_PRECISION = "float32"
Progress = Callable[[str, int, int], None]  # (what is being done, done, in all)


@dataclass(frozen=True)
class Job:
    """What one command asks for. A recipe file (TOML) has the same names."""

    model: str
    out: Path
    images: str | None = None
    formats: tuple[str, ...] = ("tflite",)
    precisions: tuple[str, ...] = DEFAULT_PRECISIONS
    devices: tuple[str, ...] = ("local",)
    calibration_images: int = 100
    limit: int | None = None
    threads: int = 1
    io: str = "float32"
    batch: int | str = 1  # or "dynamic"
    logits: bool = False
    weights: Path | None = None
    random_weights: bool = False
    preprocess: str | None = None
    labels: Path | None = None
    target: str = "auto"
    calibration_method: str = Recipe.method
    corrections: tuple[str, ...] = Recipe.corrections
    max_accuracy_drop: float | None = None  # points
    min_sqnr: float | None = None  # dB
    allow: tuple[str, ...] = ()
    command: str = ""


@dataclass
class _Images:
    """The pictures of a job, split once."""

    calibration: ImageSet | None = None
    evaluation: ImageSet | None = None
    notes: list[str] = field(default_factory=list)


def run(job: Job, progress: Progress = lambda *_: None, *, only_export: bool = False) -> Results:
    """Do the job and return its results; OUT/results.json and OUT/report.html are there when it ends.

    Args:
        only_export: stop when the files are written.

    Raises:
        InputError: the arguments, the images or the output folder are wrong. Nothing was written then.
    """
    check(job)
    source = find_source(job.model, job.weights, job.random_weights, preprocess=job.preprocess, labels=job.labels)
    images = _open(job, source, only_export)
    findings = _lint(job, source, images)
    with exclusive(job.out):
        results = earlier(job.out)
        refuse_another_model(results, job.out, source.name)
        results.failures.clear()
        results.context = replace(
            context_of(job.command, job.target, images.calibration, images.evaluation),
            calibration=results.context.calibration,
            search=results.context.search,
            calibration_findings=tuple(findings),
        )
        _export(job, source, images, results, progress)
        if not only_export:
            assert images.evaluation is not None
            _evaluate(job, images.evaluation, results, progress)
            _bench(job, images.evaluation, results, progress)
            from edgenet.report import write_report

            write_report(results, job.out, source.class_names)
        return results


def check(job: Job) -> None:
    """Say what can be told without opening anything. Raises InputError."""
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
    if Budget(job.max_accuracy_drop, job.min_sqnr) and "int8" not in job.precisions:
        raise InputError("a budget is for int8: add --precision int8")
    if job.random_weights and job.max_accuracy_drop is not None:
        raise InputError("with random weights accuracy means nothing: give --min-sqnr 20 (dB) as the budget")
    check_allowed(job.allow)
    for name, number in (("--calibration-images", job.calibration_images), ("--threads", job.threads)):
        if number < 1:
            raise InputError(f"{name} must be at least 1, was {number}")
    if job.limit is not None and job.limit < 2:
        raise InputError(f"--limit must be at least 2 (some pictures calibrate, some measure), was {job.limit}")
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


def batch_of(text: int | str) -> int | None:
    """Return the batch that `--batch` names, None for "dynamic". Raises InputError."""
    if text == "dynamic":
        return None
    with suppress(ValueError):
        if int(text) >= 1:
            return int(text)
    raise InputError(f"--batch must be a whole number from 1, or dynamic; it was '{text}'")


def _impossible(job: Job) -> list[tuple[str, str]]:
    """The pairs of format and precision that do not exist: an error, but when the precisions are the default's, or all
    formats are wanted, each in what it has."""
    return [(f, p) for f in job.formats for p in job.precisions if p not in FORMATS[f].precisions]


def _open(job: Job, source: Source, only_export: bool) -> _Images:
    if job.images is None:
        needing = [p for p in job.precisions if p in NEEDS_CALIBRATION]
        if needing or not only_export:
            what = f"precision {needing[0]}" if needing else "measuring accuracy"
            raise InputError(f"{what} needs images: give --images DIR (a folder of photographs) or --images sample")
        return _Images()
    images = open_images(job.images, source.class_ids, source.class_names)
    if job.limit is not None:
        images = limit(images, job.limit)
    calibration, evaluation = split(images, job.calibration_images)
    if not calibration or not evaluation:
        raise InputError(
            f"{images.root} holds {len(images)} picture{'s' * (len(images) != 1)}, and those that calibrate "
            "do not measure: give two or more, some hundreds to tell files apart"
        )
    return _Images(calibration, evaluation)


def _lint(job: Job, source: Source, images: _Images) -> list[Finding]:
    """Look at the calibration pictures, if any are needed, before anything is written; stop where they are bad."""
    from edgenet.calibration.image_checks import lint, refuse

    if images.calibration is None or not set(job.precisions) & set(USES_IMAGES):
        return []
    pixels = stream(images.calibration, source.preprocessing)
    findings = lint(pixels, images.calibration, source.preprocessing, images.evaluation)
    refuse(findings, job.allow)
    return findings


def _export(job: Job, source: Source, images: _Images, results: Results, progress: Progress) -> None:
    recipe_ = Recipe(job.calibration_method, job.corrections)
    made = Making(
        source, images.calibration, target(job.target), recipe_, Interface(job.io, batch_of(job.batch), job.logits)
    )
    wanted = [(f, p) for p in job.precisions for f in job.formats if p in FORMATS[f].precisions]
    budget, evaluation = Budget(job.max_accuracy_drop, job.min_sqnr), images.evaluation or images.calibration
    searched: dict[int, Search] = {}  # by the bits of the weights
    for done, (format, precision) in enumerate(wanted):
        id = f"{source.name}_{precision}{FORMATS[format].suffix}"
        options = made.options(format, precision, budget.text if budget else "")
        if _is_whole(job.out, results, id, options):
            continue
        progress("export", done, len(wanted))
        try:
            if budget and precision == "int8":
                assert evaluation is not None  # int8 came with images, or it would have been refused
                bits = made.bits(format, precision)
                found = search(made, format, evaluation, budget, job.threads, progress, earlier=searched.get(bits))
                searched.setdefault(bits, found)
                searches = {**results.context.search, format: found.record}
                results.context = replace(results.context, search=searches)
                artifact = made.export(job.out, format, precision, found.variant, budget.text)
            else:
                artifact = made.export(job.out, format, precision)
            results.put(artifact)
            if shared := made.calibration_of(artifact):
                results.context = replace(results.context, calibration=calibration_record(shared))
        except InputError:
            raise
        except EdgenetError as e:
            # What an earlier run left under this name is not what was asked for.
            results.artifacts = [a for a in results.artifacts if a.id != id]
            results.put(Failure("export", id, why=str(e), remedy="see docs/troubleshooting.md"))
        results.save(job.out)
    progress("export", len(wanted), len(wanted))
    if not budget:
        results.context = replace(results.context, search={})
    ids = [f"{source.name}_{p}{FORMATS[f].suffix}" for f, p in wanted]
    same = made.options(*wanted[0])
    results.artifacts = [
        a for a in results.artifacts if all(a.options.get(k) == same[k] for k in ("weights", "preprocessing", "labels"))
    ]
    results.artifacts.sort(key=lambda a: ids.index(a.id) if a.id in ids else len(ids))
    results.save(job.out)


def _is_whole(out: Path, results: Results, id: str, options: dict[str, Any]) -> bool:
    """Whether an earlier run wrote this file, from the same things, and it is still what was written."""
    found = next((a for a in results.artifacts if a.id == id), None)
    if found is None or found.options != options or not (out / found.path).exists():
        return False
    return sha256_of(out / found.path) == found.sha256


def _present(job: Job, results: Results) -> list[Artifact]:
    """All files of the folder, also those that an earlier run made: only what is measured together can be compared."""
    return [a for a in results.artifacts if (job.out / a.path).exists()]


def _evaluate(job: Job, images: ImageSet, results: Results, progress: Progress) -> None:
    artifacts = _present(job, results)
    known = {(e.artifact, e.artifact_sha256) for e in results.evaluations if e.images == images.fingerprint}
    missing = [a for a in artifacts if (a.id, a.sha256) not in known]
    if not missing:
        return
    reference = next((a for a in artifacts if a.precision == REFERENCE_PRECISION), None)
    if reference in missing:
        missing = artifacts  # what was compared with the old reference is worth nothing
    elif reference is not None:
        missing = [reference, *missing]
    evaluations, failures = evaluate(
        [Candidate(a.id, job.out / a.path, a.sha256) for a in missing],
        images,
        Preprocessing.from_json(missing[0].preprocessing),
        reference=reference.id if reference else None,
        progress=lambda done, total: progress("evaluate", done, total),
    )
    _put(job, results, evaluations, failures)


def _bench(job: Job, images: ImageSet, results: Results, progress: Progress) -> None:
    from edgenet.device_bench import Request
    from edgenet.jobs import bench

    artifacts = _present(job, results)
    known = {(m.device, m.artifact, m.artifact_sha256) for m in results.measurements if m.threads == job.threads}
    known |= {(e.device, e.artifact, e.artifact_sha256) for e in results.estimates}
    devices = [d for d in job.devices if not all((d, a.id, a.sha256) in known for a in artifacts)]
    if not devices:
        return
    picture = _first_picture(images, Preprocessing.from_json(artifacts[0].preprocessing))
    # All of them, also those measured before: only files timed in turn, in one run, can be compared.
    request = Request(job.threads, plan=bench.RUN_PLAN, pixels=picture)
    try:
        found, failures = bench.bench_on(
            devices,
            [(a.id, job.out / a.path) for a in artifacts],
            request,
            lambda done, total: progress("bench", done, total),
        )
    except InputError as e:  # what the one device cannot do is no reason to throw away the files
        found = []
        failures = [Failure("bench", device=devices[0], why=str(e), remedy="choose another --device")]
    _put(job, results, found, failures)


def _first_picture(images: ImageSet, preprocessing: Preprocessing) -> np.ndarray:
    """The pixels to time with; a file that cannot be read is not the one."""
    for chunk in stream(images, preprocessing, chunk=1, workers=1):
        return chunk.pixels[0]
    raise InputError(f"{images.root} holds no picture that can be read")


def _put(
    job: Job,
    results: Results,
    found: Sequence[Evaluation] | Sequence[Measurement | Estimate],
    failures: Sequence[Failure],
) -> None:
    for item in found:
        results.put(item)
    for failure in failures:
        results.put(failure)
    results.save(job.out)


def recipe(path: Path) -> dict[str, Any]:
    """Read a recipe: a TOML file whose keys are the fields of Job.

    Raises:
        InputError: not TOML, or an unknown key or a value of the wrong type.
    """
    import tomllib

    kinds = {"model": "a text", "images": "a text", "out": "a text", "io": "a text", "weights": "a text",
             "formats": "a list of texts", "precisions": "a list of texts", "devices": "a list of texts",
             "calibration_images": "a whole number", "limit": "a whole number", "threads": "a whole number",
             "random_weights": "true or false", "preprocess": "a text", "labels": "a text", "target": "a text",
             "allow": "a list of texts", "calibration_method": "a text", "corrections": "a list of texts",
             "max_accuracy_drop": "a number", "min_sqnr": "a number",
             "batch": "a whole number or 'dynamic'", "logits": "true or false"}  # fmt: skip
    fits: dict[str, Callable[[Any], bool]] = {
        "a text": lambda v: isinstance(v, str),
        "a list of texts": lambda v: isinstance(v, list) and all(isinstance(item, str) for item in v),
        "a number": lambda v: type(v) in (int, float),
        "a whole number": lambda v: type(v) is int,
        "a whole number or 'dynamic'": lambda v: type(v) is int or v == "dynamic",
        "true or false": lambda v: isinstance(v, bool),
    }
    try:
        data = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"no recipe {path}: give a zoo model's name or the path of a .toml file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise InputError(f"{path} is not TOML ({e})") from None
    for key, value in data.items():
        if key not in kinds:
            raise InputError(f"{path}: unknown key '{key}' (valid: {', '.join(kinds)})")
        if not fits[kinds[key]](value):
            raise InputError(f"{path}: {key} must be {kinds[key]}, was {value!r}")
    if "model" not in data:
        raise InputError(f"{path}: the key 'model' is missing; it names what to export")
    return data


def unmeasured(results: Results) -> Sequence[str]:
    """Return what was asked for and did not come about, one line each."""
    return [f"{f.stage} {failed(f)}: {f.why} ({f.remedy})" for f in results.failures]


@dataclass(frozen=True)
class Described:
    """What a model file says of itself: how its input is made and what its outputs mean."""

    id: str
    path: Path
    precision: str
    preprocessing: Preprocessing
    class_ids: tuple[str, ...]
    class_names: tuple[str, ...]


def describe(path: Path) -> Described:
    """Return what a file that edgenet wrote says of itself.

    Raises:
        InputError: it is not a model, or does not say how its input is made.
    """
    from edgenet.export.importers.labels import class_labels, labels_in
    from edgenet.export.inspect import inspect

    found = inspect(path)
    if not found.edgenet or "preprocessing" not in found.edgenet:
        raise InputError(
            f"{path} does not say how its input is made (edgenet did not write it): export it with edgenet"
        )
    classes = found.outputs[0].shape[-1]
    ids, names = class_labels(classes, None, labels_in(path))
    preprocessing = Preprocessing.from_json(found.edgenet["preprocessing"])
    return Described(path.name, path, found.precision, preprocessing, ids, names)


def evaluate_files(
    paths: Sequence[Path],
    images: str,
    reference: Path | None,
    limit_to: int | None,
    progress: Progress = lambda *_: None,
    devices: Sequence[str] = (),
) -> Results:
    """Return evaluations of files that edgenet wrote, all on the same pictures.

    Args:
        reference: the file to compare with; by default the first float32 one among `paths`, if any.
        devices: where to run them; each is then compared with what the same file answers here.

    Raises:
        InputError: a file is not a model, or the files do not take the same pixels.
    """
    files = [describe(p) for p in dict.fromkeys([*([reference] if reference else []), *paths])]
    first = files[0]
    for f in files[1:]:
        if f.preprocessing != first.preprocessing or len(f.class_ids) != len(first.class_ids):
            raise InputError(f"{f.path} and {first.path} do not take the same pixels: evaluate one model at a time")
    if devices and reference:
        raise InputError("with --device a file is compared with itself on this machine: leave --reference out")
    if limit_to is not None and limit_to < 1:
        raise InputError(f"--limit must be at least 1, was {limit_to}")
    pictures = open_images(images, first.class_ids, first.class_names)
    if limit_to is not None:
        pictures = limit(pictures, limit_to)
    if devices:
        from edgenet.jobs.bench import evaluate_on

        evaluations, failures = evaluate_on(
            devices,
            [f.path for f in files],
            pictures,
            first.preprocessing,
            lambda done, total: progress("evaluate", done, total),
        )
        return Results(Context(images=images_record(None, pictures)), evaluations=evaluations, failures=failures)
    floating = next((f.path for f in files if f.precision == REFERENCE_PRECISION), None)
    base = reference or floating
    evaluations, failures = evaluate(
        [Candidate(str(f.path), f.path, sha256_of(f.path)) for f in files],
        pictures,
        first.preprocessing,
        reference=str(base) if base else None,
        progress=lambda done, total: progress("evaluate", done, total),
    )
    return Results(Context(images=images_record(None, pictures)), evaluations=evaluations, failures=failures)
