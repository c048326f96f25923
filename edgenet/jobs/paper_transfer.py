"""The paper's table 5: networks that have learned a data set, measured on its official test pictures.

Training takes half an hour a network, so files come from the outside: folders of `edgenet finetune`, or models of the
user's own. A file of edgenet's is measured as it is; another is read as any model is, and written as a .tflite file.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edgenet import data_sets
from edgenet.errors import EdgenetError, InputError
from edgenet.export import find_source
from edgenet.export.importers.find import kind_of
from edgenet.export.inspect import inspect
from edgenet.files import atomic_write, sha256_of, size_of
from edgenet.images import Classes, Preprocessing, official
from edgenet.images.roles import read_history
from edgenet.jobs.evaluate_files import describe, evaluate_files
from edgenet.jobs.file_factory import FileFactory, Interface
from edgenet.jobs.paper_files import in_child
from edgenet.models import zoo
from edgenet.options import PaperJob, Recipe
from edgenet.paper.plan import paper_of
from edgenet.results import RESULTS_FILE, Artifact, Failure, Results
from edgenet.results.records import PictureHistory, Transfer
from edgenet.targets import target

FOLDER = "transfer"  # in OUT/files
_LIKE = 0.02  # by which the parameters of a file and of the network that it is called after may differ: batch norm's


@dataclass(frozen=True)
class Trained:
    """A file that was given, what results.json calls it, and whether another tool wrote it."""

    path: Path
    id: str
    is_foreign: bool


def check(job: PaperJob) -> None:
    """Raise InputError where what is asked of table 5 does not fit together."""
    whole = data_sets.is_named(job.images) and "#" not in job.images
    if data_sets.is_named(job.images) and not whole:
        raise InputError(f"--images {job.images}: the paper's comparison divides a data set itself; leave #... out")
    if job.trained and not whole:
        names = ", ".join(f"{name}:DIR" for name in data_sets.NAMES)
        raise InputError(f"--trained files are measured on a data set of table 5: give it as --images (valid: {names})")
    if job.trained and "5" not in job.wanted:
        raise InputError("--trained is for table 5: give --table 5 too")


def find(job: PaperJob) -> list[Trained]:
    """Return the files that are to be measured.

    Raises:
        InputError: one is not there, is no model, has other classes, or does not say how its input is made.
    """
    found = [_trained(file, job) for given in job.trained for file in _files(Path(given))]
    return list({t.id: t for t in found}.values())


def _files(path: Path) -> list[Path]:
    """Return the files that stand for what the user gave: of a folder of a training, what it wrote as .tflite."""
    if not path.is_dir() or (path / "saved_model.pb").is_file():
        return [path]
    if not (path / RESULTS_FILE).is_file():
        raise InputError(
            f"--trained {path} has no {RESULTS_FILE}: give the --out folder of `edgenet finetune`, or a file"
        )
    made = [path / a.path for a in Results.load(path).artifacts if a.format == "tflite"]
    if not made:
        raise InputError(f"--trained {path} holds no finished training: the same `edgenet finetune` goes on with it")
    return made


def _trained(path: Path, job: PaperJob) -> Trained:
    own = inspect(path).edgenet if kind_of(path) == "tflite" else None
    source = None
    if own and "preprocessing" in own:
        about = describe(path)
        ids, names = about.class_ids, about.class_names
    else:
        source = find_source(str(path), preprocess=job.preprocess)
        ids, names = source.class_ids, source.class_names
    try:
        official.indices_in(job.images, Classes(ids, names))
    except InputError as e:
        raise InputError(f"--trained {path}: {e}") from None
    # Two trainings of one network have files of the same name: the content tells them apart.
    sha256, name = (source.sha256, f"{source.name}_float32.tflite") if source else (sha256_of(path), path.name)
    return Trained(path, f"{FOLDER}/{sha256[:8]}-{name}", source is not None)


def measure(job: PaperJob, trained: list[Trained], results: Results, progress: Callable[[str, int, int], None]) -> None:
    """Put the files, their accuracies and what is to be known of them into the results; save after each."""
    for i, t in enumerate(trained):
        progress("table 5", i, len(trained))
        if not is_measured(t, results):
            try:
                _measure(job, t, results)
            except EdgenetError as e:
                results.put(Failure("evaluate", t.id, why=str(e), remedy="see docs/paper.md"))
            results.save(job.out)
    progress("table 5", len(trained), len(trained))


def is_measured(t: Trained, results: Results) -> bool:
    """Whether an earlier run has measured this very file."""
    return any(e.artifact == t.id for e in results.evaluations)


def _measure(job: PaperJob, t: Trained, results: Results) -> None:
    folder = job.out / "files" / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    artifact = in_child(_write, t.path, job.preprocess, t.id, folder) if t.is_foreign else _copy(t, folder)
    path = folder / Path(artifact.path).name
    found = inspect(path)
    history = read_history(found.edgenet)
    results.put(artifact)
    network = _network(artifact.model, found.parameters, len(official.classes_of(job.images)))
    test = official.listing(f"{job.images}#test")
    _note(results, Transfer(
        artifact=t.id,
        network=network.name if network else "",
        parameters=zoo.parameters(network) if network else found.parameters,
        taught=_taught(history),
        resolution_px=Preprocessing.from_json(artifact.preprocessing).short_px,
        test_pictures=len(test.files),
    ))  # fmt: skip
    given = evaluate_files([path], job.images, None, None)
    for evaluation in given.evaluations:
        results.put(replace(evaluation, artifact=t.id))
    for failure in given.failures:
        results.put(replace(failure, artifact=t.id))


def _copy(t: Trained, folder: Path) -> Artifact:
    """Put a file of edgenet's into OUT/files, so that the folder is whole, and return what it is."""
    own = inspect(t.path).edgenet or {}
    name = Path(t.id).name
    with atomic_write(folder / name) as tmp:
        shutil.copyfile(t.path, tmp)
    about = describe(folder / name)
    return Artifact(
        id=t.id, model=str(own.get("model", t.path.stem)), format="tflite", precision=about.precision,
        path=f"files/{t.id}", size_bytes=size_of(folder / name), sha256=sha256_of(folder / name),
        io_dtype=str(own.get("io_dtype", "")), weights=str(own.get("weights", "")),
        preprocessing=about.preprocessing.to_json(),
    )  # fmt: skip


def _write(path: Path, preprocess: str | None, id: str, folder: Path) -> Artifact:
    """Write a model of another tool's as a float .tflite file; in a child process, which a source cannot be sent to."""
    source = find_source(str(path), preprocess=preprocess)
    factory = FileFactory(source, None, target("auto"), Recipe(), Interface())
    made = factory.export(folder, "tflite", "float32")
    (folder / made.path).rename(folder / Path(id).name)
    return replace(made, id=id, path=f"files/{id}")


def _network(model: str, parameters: int, classes: int) -> zoo.ModelSpec | None:
    """Return the network of the zoo that a model is by its name and its number of parameters."""
    name = model.lower().replace("_", "-")
    for spec in zoo.MODELS.values():
        own = replace(spec, classes=classes)
        if (name == spec.name or name.startswith(f"{spec.name}-")) and (
            abs(parameters / zoo.parameters(own) - 1) < _LIKE
        ):
            return own
    return None


def _taught(history: PictureHistory) -> int | None:
    """Return how many pictures decided the weights, None where the file does not say all."""
    tables = [t for t in (history.taught, history.chose) if t is not None]
    return sum(t.n for t in tables) if history.complete and history.taught is not None else None


def _note(results: Results, transfer: Transfer) -> None:
    """Keep what is to be known of a file, in the place of what an earlier run knew."""
    paper = paper_of(results)
    others = tuple(t for t in paper.transfers if t.artifact != transfer.artifact)
    results.context = replace(results.context, paper=replace(paper, transfers=(*others, transfer)))
