"""`edgenet paper`: the comparison of the EfficientNet paper, measured on this machine and on others.

Tan and Le, https://arxiv.org/abs/1905.11946. Table 4 is timed as the paper did it (batch 1, one core, the mean of 20
runs) and by our own rules (interleaved rounds, the median with an interval); then all variants in float32 and INT8.
results.json is written after each measurement; the same command goes on after the last one.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgenet.data_sets import is_named
from edgenet.device_bench.device import Request
from edgenet.device_bench.registry import open_device, parse
from edgenet.device_bench.timing import Plan
from edgenet.errors import EdgenetError, InputError
from edgenet.evaluate import Candidate, evaluate
from edgenet.files import delete_parts, files_of, sha256_of, size_of
from edgenet.images import Preprocessing, imagenet_classes, names_in, open_images, stream
from edgenet.images.decode import memory_left_bytes
from edgenet.images.roles import divide_by_role
from edgenet.jobs import paper_transfer
from edgenet.jobs.output_folder import machine_context, results_in
from edgenet.jobs.paper_files import count_all, write
from edgenet.models import zoo
from edgenet.options import TABLES, PaperJob, Progress
from edgenet.paper.networks import NAMES, scaled_counts
from edgenet.paper.page import write_pages
from edgenet.paper.plan import LADDER, PAIRS, Bench, Step, file_id, paper_of, steps, time_plan, too_large
from edgenet.preflight import check_paper
from edgenet.results import Artifact, Estimate, Failure, ImageSet, Measurement, Results
from edgenet.results.records import NOTHING_SEEN, PaperRecord

CALIBRATION_IMAGES = 100


@dataclass(frozen=True)
class _Pictures:
    calibration: ImageSet
    evaluation: ImageSet
    pixels: np.ndarray  # (H, W, 3) uint8, what is computed on while timing


def run(job: PaperJob, progress: Progress = lambda *_: None, say: Callable[[str], None] = lambda _: None) -> Results:
    """Do the job; OUT/results.json, paper.html, paper.md and paper.csv are there when it ends.

    Args:
        say: takes the time plan, line by line, before anything is measured.

    Raises:
        InputError: the arguments, the images or the output folder are wrong. Nothing was written then.
    """
    _check(job)
    check_paper(job, memory_left_bytes())
    pictures = _open(job.images)
    trained = paper_transfer.find(job)
    with results_in(job.out, command="paper", page=write_pages) as results:
        _context(job, pictures, results)
        planned = [s for s in steps(job) if _left(s, results, pictures)]
        new = [t for t in trained if not paper_transfer.is_measured(t, results)]
        for line in time_plan(planned) if planned or not new else ():
            say(line)
        for t in new:
            say(f"{t.path}: to be measured on {len(pictures.evaluation):,} pictures")
        _tidy(job.out, results)
        _count(job, results)
        for done, step in enumerate(planned):
            progress("paper", done, len(planned))
            _run(job, step, pictures, results)
        progress("paper", len(planned), len(planned))
        paper_transfer.measure(job, trained, results, progress)
    return results


def _check(job: PaperJob) -> None:
    for name in job.tables:
        if name not in TABLES:
            raise InputError(f"unknown --table {name} (valid: {', '.join(TABLES)})")
    paper_transfer.check(job)
    for device in job.devices:
        parse(device)
    if job.out.exists() and not job.out.is_dir():
        raise InputError(f"--out {job.out} is a file: give a folder, new or of an earlier run")


def _open(images: str) -> _Pictures:
    pictures, test = _official(images) if is_named(images) else (open_images(images, *imagenet_classes()), None)
    divided = divide_by_role(pictures, CALIBRATION_IMAGES, NOTHING_SEEN, model="the zoo", test=test)
    calibration, evaluation = divided.calibration, divided.evaluation
    for chunk in stream(evaluation, Preprocessing(600, zoo.LITE_MEAN, zoo.LITE_STD), chunk=1, workers=1):
        return _Pictures(calibration, evaluation, chunk.pixels[0])
    raise InputError(f"{images} holds no picture that can be read: give other photographs, or --images sample")


def _official(images: str) -> tuple[ImageSet, ImageSet]:
    """Return the pictures of a data set that teach and those that measure, unlabelled: no class is ImageNet's."""
    own = names_in(images)
    teach, measure = (open_images(part, (), own) for part in (images, f"{images}#test"))
    return replace(teach, labels=(None,) * len(teach)), replace(measure, labels=(None,) * len(measure))


def _context(job: PaperJob, pictures: _Pictures, results: Results) -> None:
    earlier = results.context.paper
    if earlier and earlier.images != pictures.evaluation.fingerprint:
        raise InputError(f"--out {job.out} was measured on other images: give the same --images or another --out")
    asked = {*(earlier.tables if earlier else ()), *job.wanted}
    paper = PaperRecord(
        images=pictures.evaluation.fingerprint,
        counts=earlier.counts if earlier else {},
        tables=tuple(table for table in TABLES if table in asked),
        quick=job.quick and (earlier is None or earlier.quick),
        dataset=job.images.partition(":")[0] if is_named(job.images) else "",
        transfers=earlier.transfers if earlier else (),
    )
    results.context = replace(machine_context(job.command), paper=paper)
    results.failures.clear()


def _count(job: PaperJob, results: Results) -> None:
    """Count the networks of the tables that are wanted, and the scaled ones of tables 3 and 7."""
    paper = paper_of(results)
    known = dict(paper.counts)
    wanted = {name for pair in PAIRS for name in pair if "4" in job.wanted}
    if "2" in job.wanted:
        wanted |= {*NAMES, *LADDER}
    if "lite" in job.wanted or "ladder" in job.wanted:
        wanted |= set(LADDER)
    if missing := sorted(wanted - set(known)):
        found, problems = count_all(missing)
        known.update(found)
        for name, why in problems.items():
            results.put(Failure("count", name, why=why, remedy="see docs/paper.md"))
    for table in ("3", "7"):
        if table in job.wanted:
            known.update(scaled_counts(table))
    results.context = replace(results.context, paper=replace(paper, counts=known))
    results.save(job.out)


def _ids(step: Step, bench: Bench) -> list[str]:
    """Return the ids of the files that fit on this machine, of those that are timed together."""
    free = memory_left_bytes()
    names = [n for n in step.networks if not too_large(n, bench.format, free)]
    return [step.id(n, bench.format, p) for n in names for p in step.precisions]


def _is_measured(step: Step, bench: Bench, results: Results) -> bool:
    found = {
        m.artifact
        for m in results.measurements
        if (m.device, m.threads) == (bench.device, bench.threads) and bench.runtime in (None, m.runtime)
    }
    found |= {e.artifact for e in results.estimates if e.device == bench.device}
    return set(_ids(step, bench)) <= found


def _unevaluated(step: Step, results: Results, pictures: _Pictures) -> bool:
    """Whether the accuracy of the step's network can be measured, and was not."""
    if pictures.evaluation.n_labelled == 0 or "int8" not in step.precisions:
        return False
    found = {e.artifact for e in results.evaluations}
    ids = [file_id(step.networks[0], "tflite", p) for p in step.precisions]
    made = [a for a in results.artifacts if a.id in ids]
    return not made or any(a.weights != "random" and a.id not in found for a in made)


def _left(step: Step, results: Results, pictures: _Pictures) -> bool:
    """Whether a step has work left. A file that cannot fit is a failure already here: no work is needed to know it."""
    for name in step.networks:
        for format in dict.fromkeys(b.format for b in step.benches):
            if why := too_large(name, format, memory_left_bytes()):
                for precision in step.precisions:
                    remedy = "the other runtimes hold it, or a machine with more memory"
                    results.put(Failure("fit", step.id(name, format, precision), why=why, remedy=remedy))
    return not all(_is_measured(step, b, results) for b in step.benches) or _unevaluated(step, results, pictures)


def _run(job: PaperJob, step: Step, pictures: _Pictures, results: Results) -> None:
    benches = [b for b in step.benches if not _is_measured(step, b, results)]
    accuracy = _unevaluated(step, results, pictures)
    wanted = dict.fromkeys(id for b in benches for id in _ids(step, b))
    if accuracy:
        wanted |= dict.fromkeys(file_id(step.networks[0], "tflite", p) for p in step.precisions)
    folder = job.out / "files" / step.group
    made = _write(step, tuple(wanted), folder, pictures, results)
    results.save(job.out)
    for bench in benches:
        files = [(a.id, job.out / a.path) for a in made if a.id in _ids(step, bench)]
        if files:
            _time(bench, step.plan, files, pictures, results)
            results.save(job.out)
    if accuracy:
        _evaluate([a for a in made if a.format == "tflite" and a.weights != "random"], job.out, pictures, results)
        results.save(job.out)
    _tidy(job.out, results)


def _write(step: Step, ids: Sequence[str], folder: Path, pictures: _Pictures, results: Results) -> list[Artifact]:
    made: list[Artifact] = []
    for name in step.networks:
        formats = dict.fromkeys([*(b.format for b in step.benches), "tflite"])
        files = [(f, p) for f in formats for p in step.precisions if step.id(name, f, p) in ids]
        if not files:
            continue
        try:
            artifacts, failures = write(name, files, folder, pictures.calibration)
        except EdgenetError as e:
            artifacts = []
            why, remedy = str(e), "see docs/paper.md"
            failures = [Failure("export", step.id(name, f, p), why=why, remedy=remedy) for f, p in files]
        inside = f"{step.group}/" if step.group else ""
        made += [replace(a, id=f"{inside}{a.id}", path=f"files/{inside}{a.path}") for a in artifacts]
        failures = [replace(f, artifact=f"{inside}{f.artifact.removeprefix(inside)}") for f in failures]
        for failure in failures:
            results.put(failure)
    for a in made:
        results.put(a)
    return made


def _time(bench: Bench, plan: Plan, files: Sequence[tuple[str, Path]], pictures: _Pictures, results: Results) -> None:
    cores = _last_core() if bench.pinned else ()
    request = Request(bench.threads, bench.runtime, cores=cores, plan=plan, pixels=pictures.pixels)
    found: Sequence[Measurement | Estimate] = ()
    try:
        with open_device(bench.device) as device:
            found, failures = device.bench(files, request)
    except EdgenetError as e:
        failures = [Failure("bench", device=bench.device, why=str(e), remedy="see `edgenet devices`")]
    for item in found:
        results.put(item)
    for failure in failures:
        results.put(replace(failure, runtime=bench.runtime or ""))


def _evaluate(artifacts: Sequence[Artifact], out: Path, pictures: _Pictures, results: Results) -> None:
    if not artifacts:
        return
    evaluations, failures = evaluate(
        [Candidate(a.id, out / a.path, a.sha256) for a in artifacts],
        pictures.evaluation,
        Preprocessing.from_json(artifacts[0].preprocessing),
        reference=next((a.id for a in artifacts if a.precision == "float32"), None),
    )
    for evaluation in evaluations:
        results.put(evaluation)
    for failure in failures:
        results.put(failure)


def _last_core() -> tuple[int, ...]:
    """The core to pin to: the last, because the first serves most interrupts; none where the system does not pin."""
    return (max(os.sched_getaffinity(0)),) if hasattr(os, "sched_getaffinity") else ()


def _tidy(out: Path, results: Results) -> None:
    """Delete files with random weights, which are gigabytes of no use, and what a killed child left half written."""
    for a in results.artifacts:
        path = out / a.path
        own = path.resolve().is_relative_to(out.resolve()) and path.exists() and size_of(path) == a.size_bytes
        if a.weights == "random" and own and sha256_of(path) == a.sha256:  # results.json may be anybody's
            _remove(path)
    delete_parts(out)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
        return
    for file in files_of(path):
        file.unlink(missing_ok=True)
