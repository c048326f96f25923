"""What a run would do: the files, devices and pictures, room on the disk, and about how long each step takes.

It begins as the run does, so that what the run would refuse at once is refused here too. Nothing is written.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgenet.dry_run.times import Step, steps_of
from edgenet.jobs.devices import forms
from edgenet.jobs.output_folder import look
from edgenet.options import Job
from edgenet.pipeline import Prepared, files_of_job, prepare, whole
from edgenet.preflight import existing, rooms_of_run, size_bytes_of
from edgenet.results import ImageSet, Results
from edgenet.results.records import Finding
from edgenet.targets import not_for, target_of

MEASURED, COMPILED = "measured", "compiled"  # what becomes of a file on a device


@dataclass(frozen=True)
class PlannedFile:
    """A file that a run makes, or keeps because an earlier run made it of the same things.

    `size_bytes` is the file's own where it is there, else estimated from the number of weights. `made_for`: the
    devices that ask for it beside the job's own files.
    """

    path: Path
    format: str
    precision: str
    io: str
    size_bytes: int
    is_there: bool
    made_for: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedDevice:
    """What a device does with how many of the files: a computer or a phone measures, a chip's compiler estimates."""

    device: str
    how: str
    n_files: int


@dataclass(frozen=True)
class Pictures:
    """How many pictures do what. `emulated` answer on a chip's emulator, where a device has one."""

    root: str
    calibrate: int
    measure: int
    labelled: int
    emulated: int


@dataclass(frozen=True)
class Plan:
    """All that a run would do."""

    model: str
    out: Path
    files: tuple[PlannedFile, ...]
    devices: tuple[PlannedDevice, ...]
    pictures: Pictures
    steps: tuple[Step, ...]
    needed_bytes: int  # about
    free_bytes: int
    findings: tuple[Finding, ...]


def plan(job: Job) -> Plan:
    """Return what `edgenet run` would do. Raises what it would raise before its work."""
    prepared = prepare(job)
    factory = prepared.factory
    names = [factory.id(*wanted) for wanted in files_of_job(job)]
    results = look(job.out, prepared.source.name, names)
    files = _files(job, prepared, results)
    devices = tuple(_device(d, files) for d in job.devices)
    needed = sum(room.size_bytes for room in rooms_of_run(job))
    free = shutil.disk_usage(existing(job.out)).free
    pictures = _pictures(job, prepared)
    steps = steps_of(job, prepared, results, [f.is_there for f in files])
    return Plan(prepared.source.name, job.out, files, devices, pictures, steps, int(needed), free, prepared.findings)


def _files(job: Job, prepared: Prepared, results: Results) -> tuple[PlannedFile, ...]:
    factory = prepared.factory
    search = _search_options(job, prepared)
    found = []
    for format, precision, form in files_of_job(job):
        searched = search if format in job.formats else {}
        id = factory.id(format, precision, form)
        there = whole(job.out, results, id, factory.options(format, precision, searched, form))
        size = there.size_bytes if there else int(size_bytes_of(job.model, precision))
        io = form.io if form else job.io
        made_for = form.devices if form else ()
        found.append(PlannedFile(job.out / id, format, precision, io, size, there is not None, made_for))
    return tuple(found)


def _search_options(job: Job, prepared: Prepared) -> Mapping[str, str]:
    from edgenet.jobs.accuracy_budget import options_of
    from edgenet.jobs.budget_verdict import Budget

    budget = Budget(job.max_accuracy_drop, job.min_sqnr)
    images = prepared.images.evaluation
    return options_of(budget, images) if budget and images is not None else {}


def _device(device: str, files: tuple[PlannedFile, ...]) -> PlannedDevice:
    how = MEASURED if target_of(device) is None else COMPILED
    return PlannedDevice(device, how, sum(not not_for(device, f.format, f.precision) for f in files))


def _pictures(job: Job, prepared: Prepared) -> Pictures:
    images = prepared.images
    calibrate, measure = (images.calibration or _NONE), (images.evaluation or _NONE)
    chips = any(target_of(d) is not None for d in job.devices) or bool(forms(job))
    emulated = min(job.emulated_images, len(measure)) if chips else 0
    return Pictures(str(job.images or ""), len(calibrate), len(measure), measure.n_labelled, emulated)


_NONE = ImageSet("", (), (), (), "")
