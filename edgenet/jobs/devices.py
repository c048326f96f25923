"""What a run does on its devices: the files that chips ask for, times and estimates, and what an emulator answers.

A computer or a phone runs every file. A chip takes the files that are for it (edgenet/targets.py), and a run writes
what it lacks: the same integers with integer input and output, say.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from edgenet.device_bench import Request, open_device
from edgenet.device_bench.registry import parse
from edgenet.errors import EdgenetError, InputError
from edgenet.evaluate import Candidate
from edgenet.farm.job import Farm, farm
from edgenet.files import check_held
from edgenet.images import Preprocessing, limit, stream
from edgenet.jobs import bench
from edgenet.jobs.file_factory import Form
from edgenet.options import Job, Progress
from edgenet.report.devices import ranked_on
from edgenet.results import Artifact, Estimate, Evaluation, Failure, ImageSet, Measurement, Results
from edgenet.targets import not_for, target, target_of
from edgenet.tasks import Task

REFERENCE_PRECISION = "float32"


def forms(job: Job) -> list[tuple[str, Form]]:
    """Return the int8 files, (format, form), that the devices ask for and that the job itself does not write.

    A chip's own formats are written whatever the job's are: for some chips a compiler estimates a time for .onnx alone.
    """
    if "int8" not in job.precisions:
        return []
    own, found = target(job.target), dict[tuple[str, str, bool], Form]()
    for device in job.devices:
        t = target_of(device)
        if t is None:
            continue
        served = t.io_dtype == job.io and (t.dense_per_channel or not own.dense_per_channel)
        for format in t.formats:
            if served and format in job.formats:
                continue
            key = (format, t.io_dtype, t.dense_per_channel)
            before = found[key].devices if key in found else ()
            found[key] = Form(t.io_dtype, found[key].target if key in found else t, (*before, device))
    return [(format, form) for (format, *_), form in found.items()]


def present(job: Job, results: Results) -> list[Artifact]:
    """Return all files in the folder, also those of an earlier run: only files measured together can be compared."""
    return [a for a in results.artifacts if (job.out / a.path).exists()]


def put(
    job: Job,
    results: Results,
    found: Sequence[Evaluation] | Sequence[Measurement | Estimate],
    failures: Sequence[Failure],
) -> None:
    """Put what came about and what did not into the results, and save them."""
    for item in found:
        results.put(item)
    for failure in failures:
        results.put(failure)
    results.save(job.out)


def unmeasured(job: Job, artifacts: Sequence[Artifact], results: Results) -> list[str]:
    """Return the devices on which a file that is for them was neither timed nor estimated."""
    known = {(m.device, m.artifact, m.artifact_sha256) for m in results.measurements if m.threads == job.threads}
    known |= {(e.device, e.artifact, e.artifact_sha256) for e in results.estimates}

    def done(device: str) -> bool:
        files = files_for(device, artifacts)
        return bool(files) and all((device, a.id, a.sha256) in known for a in files)

    return [d for d in job.devices if not done(d)]


def files_for(device: str, artifacts: Sequence[Artifact]) -> list[Artifact]:
    """Return the files that are for a device."""
    return [a for a in artifacts if not not_for(device, a.format, a.precision)]


def bench_devices(job: Job, images: ImageSet, results: Results, progress: Progress) -> None:
    """Time the files on the computers and phones of the job, and estimate them for its chips."""
    check_held(job.out)
    artifacts = present(job, results)
    devices = unmeasured(job, artifacts, results)
    if not artifacts or not devices:  # somebody removed the files: the end of the run says so
        return
    picture = first_picture(images, Preprocessing.from_json(artifacts[0].preprocessing))
    request = Request(job.threads, plan=bench.RUN_PLAN, pixels=picture)
    computers = [d for d in devices if target_of(d) is None]
    groups = [computers, *([d] for d in devices if d not in computers)]
    steps = [0, 0]  # of the groups that are done

    def step(done: int, total: int) -> None:
        progress("bench", steps[0] + done, max(steps[1] + total, steps[0] + done))

    for group in filter(None, groups):
        # All files, also those that were measured before: only files timed in turn, in one run, can be compared.
        files = [(a.id, job.out / a.path) for a in files_for(group[0], artifacts)]
        with farm(job.cluster) as who:
            put(job, results, *_bench_group(group, files, request, step, who))
        steps = [steps[0] + len(files), steps[1] + len(files)]


def _bench_group(
    devices: Sequence[str],
    files: Sequence[tuple[str, Path]],
    request: Request,
    step: Callable[[int, int], None],
    who: Farm,
) -> tuple[list[Measurement | Estimate], list[Failure]]:
    if not files:
        t = target_of(devices[0])
        takes = "" if t is None else f": it takes {' and '.join(t.precisions)} {' and '.join(t.formats)} files"
        why = f"no file of this run is for it{takes}"
        return [], [Failure("bench", device=devices[0], why=why, remedy="add --precision int8")]
    try:
        return bench.bench_on(devices, files, request, step, who)
    except InputError as e:  # the device cannot do what was asked; the files are good all the same
        return [], [Failure("bench", device=devices[0], why=str(e), remedy="choose another --device")]


def first_picture(images: ImageSet, preprocessing: Preprocessing) -> np.ndarray:
    """Return the first picture that can be read, (H, W, 3) uint8, to time with."""
    for chunk in stream(images, preprocessing, chunk=1, workers=1):
        return chunk.pixels[0]
    raise InputError(f"{images.root} holds no picture that can be read: give other photographs, or --images sample")


def emulate_devices(job: Job, task: Task, images: ImageSet, results: Results, progress: Progress) -> None:
    """Where a chip has an emulator, let it answer some of the pictures by the file that is best for the chip."""
    pictures = limit(images, job.emulated_images)
    artifacts = present(job, results)
    floating = next((a for a in artifacts if a.precision == REFERENCE_PRECISION), None)
    for device in job.devices:
        files = [a for a in ranked_on(results, device) if a in artifacts]
        if target_of(device) is None or not files or _is_emulated(device, files, pictures, results):
            continue
        step = partial(progress, f"emulate {parse(device)[0]}")
        found, failures = _emulate(device, files, job.out, floating, pictures, task, step)
        if found or failures:
            put(job, results, found, failures)


def _is_emulated(device: str, files: Sequence[Artifact], pictures: ImageSet, results: Results) -> bool:
    known = {
        (e.artifact, e.artifact_sha256)
        for e in results.evaluations
        if e.device == device and e.images == pictures.fingerprint
    }
    return any((a.id, a.sha256) in known for a in files)


def _emulate(
    device: str,
    files: Sequence[Artifact],
    out: Path,
    floating: Artifact | None,
    pictures: ImageSet,
    task: Task,
    step: bench.Progress,
) -> tuple[list[Evaluation], list[Failure]]:
    """Evaluate the first of the files that the emulator takes; nothing where the device has none."""
    reference = Candidate(floating.id, out / floating.path, floating.sha256) if floating else None
    refused = ""
    try:
        with open_device(device) as opened:
            info = opened.info()
            if not info.get("emulator"):
                return [], []
            for a in files:
                file = Candidate(a.id, out / a.path, a.sha256)
                how = Preprocessing.from_json(a.preprocessing)
                try:
                    return bench.answers_on(opened, info, file, pictures, how, step, task, reference)
                except InputError as e:  # its emulator does not take this file
                    refused = refused or str(e)
    except EdgenetError as e:
        refused = str(e)
    return [], [Failure("evaluate", device=device, why=refused, remedy=bench.REMEDY)]
