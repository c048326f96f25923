"""Files that edgenet wrote: what they say of themselves, and how often they are right."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgenet.data_sets import measuring_part
from edgenet.errors import InputError
from edgenet.evaluate import Candidate, evaluate
from edgenet.farm.job import farm
from edgenet.files import sha256_of
from edgenet.images import Preprocessing, limit, open_images
from edgenet.images.roles import merged, new_pictures, read_history
from edgenet.jobs.devices import REFERENCE_PRECISION
from edgenet.jobs.output_folder import images_record
from edgenet.options import Progress
from edgenet.results import Results
from edgenet.results.records import Context, PictureHistory
from edgenet.tasks import CLASSES, Task


@dataclass(frozen=True)
class Described:
    """A model file with what is stored in it: how its input is made and what its outputs mean."""

    id: str
    path: Path
    precision: str
    preprocessing: Preprocessing
    class_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    pictures: PictureHistory  # those that it has seen
    task: Task


def describe(path: Path) -> Described:
    """Read how the input of a file that edgenet wrote is made, and its classes.

    Raises:
        InputError: it is not a model, or does not say how its input is made.
    """
    from edgenet.export.inspect import inspect

    found = inspect(path)
    if not found.edgenet or "preprocessing" not in found.edgenet:
        raise InputError(
            f"{path} does not say how its input is made (edgenet did not write it): export it with edgenet"
        )
    ids, names, task = _classes_of(path, found)
    preprocessing = Preprocessing.from_json(found.edgenet["preprocessing"])
    return Described(path.name, path, found.precision, preprocessing, ids, names, read_history(found.edgenet), task)


def _classes_of(path: Path, found: Any) -> tuple[tuple[str, ...], tuple[str, ...], Task]:
    """Return ids and names of the classes of an inspected file, and what its output means."""
    from edgenet.export.importers.labels import class_labels, labels_in, own_names

    own = found.edgenet or {}
    task, inside = Task.from_json(own.get("task")) or CLASSES, labels_in(path)
    n = task.n_names(found.outputs[0].shape[-1])
    return *class_labels(n, None, own_names(own, inside) if inside else None, task), task


def classes_in(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return ids and names of the classes of a model file, whoever wrote it. Raises InputError."""
    from edgenet.export.inspect import inspect

    return _classes_of(path, inspect(path))[:2]


def evaluate_files(
    paths: Sequence[Path],
    images: str,
    reference: Path | None,
    limit_to: int | None,
    progress: Progress = lambda *_: None,
    devices: Sequence[str] = (),
    cluster: str | None = None,
) -> Results:
    """Return evaluations of files that edgenet wrote, all on the same pictures.

    Args:
        reference: the file to compare with; by default the first float32 one among `paths`, if any.
        devices: where to run them; each is then compared with what the same file answers here, bit by bit, and its
            agreement is with the reference, where one is named, else with that.
        cluster: whose machines answer, in the place of this one.

    Raises:
        InputError: a file is not a model, or the files do not take the same pixels.
        DeviceError: there is no such cluster.
    """
    files = [describe(p) for p in dict.fromkeys([*([reference] if reference else []), *paths])]
    first = files[0]
    for f in files[1:]:
        like = (f.preprocessing, f.task, len(f.class_ids)) == (first.preprocessing, first.task, len(first.class_ids))
        if not like:
            raise InputError(f"{f.path} and {first.path} do not take the same pixels: evaluate one model at a time")
    if limit_to is not None and limit_to < 1:
        raise InputError(f"--limit must be at least 1, was {limit_to}")
    history = merged(*(f.pictures for f in files))
    opened = open_images(measuring_part(images) or images, first.class_ids, first.class_names, first.task)
    pictures, findings = new_pictures(opened, history, " and ".join(dict.fromkeys(f.id for f in files)))
    if not pictures:
        raise InputError("; ".join(f"{f.message}" for f in findings) + ": give pictures that are new to it")
    if limit_to is not None:
        pictures = limit(pictures, limit_to)
    context = Context(images=images_record(pictures, history=history), calibration_findings=findings)
    if devices:
        from edgenet.jobs.bench import evaluate_on

        evaluations, failures = evaluate_on(
            devices,
            list(dict.fromkeys(paths)),
            pictures,
            first.preprocessing,
            lambda done, total: progress("evaluate", done, total),
            first.task,
            reference,
        )
        return Results(context, evaluations=evaluations, failures=failures)
    floating = next((f.path for f in files if f.precision == REFERENCE_PRECISION), None)
    base = reference or floating
    with farm(cluster) as who:
        who.join()
        evaluations, failures = evaluate(
            [Candidate(str(f.path), f.path, sha256_of(f.path)) for f in files],
            pictures,
            first.preprocessing,
            reference=str(base) if base else None,
            progress=lambda done, total: progress("evaluate", done, total),
            task=first.task,
            answering=who.answering,
            keep=True,
        )
    return Results(context, evaluations=evaluations, failures=[*failures, *who.failures])
