"""`edgenet finetune`: a classifier learns the classes of a folder: a new head, the top layers, all.

The model is one of the zoo or a file of the user's. Each stage is kept only where the held-back pictures say that it is
better (calibration/training/transfer.py); what was chosen learns once more from all pictures, theirs too. The paper's
section 5.3. What it writes: OUT/MODEL-finetuned.tflite, a float file with batch norm folded that carries its classes
and its preprocessing, so that `edgenet qat`, `export` and `run` take it as it is; OUT/training (checkpoints and
TensorBoard logs, a folder a stage); results.json with context.training, and report.html.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenet.calibration.training.loop import FOLDER, identity_of
from edgenet.calibration.training.strategy import check_strategy
from edgenet.device_bench.steadiness import seconds_of
from edgenet.errors import InputError
from edgenet.evaluate import Candidate, evaluate
from edgenet.export import find_source
from edgenet.export.graph import Graph, fingerprint
from edgenet.export.network import Source
from edgenet.files import sha256_of
from edgenet.images import Preprocessing, divide, hold_back, names_in, open_images, subset
from edgenet.images.preprocess_option import preprocessing_of
from edgenet.images.roles import history_of, joined, merged, new_pictures, part
from edgenet.jobs.finetune_then import add_then, job_after
from edgenet.jobs.output_folder import context_of, images_record, report_page, results_in
from edgenet.models import weights as weights_module
from edgenet.models import zoo
from edgenet.models.efficientnet import deploy
from edgenet.options import FinetuneJob, Progress, check_training
from edgenet.preflight import Room, check_finetune, check_qat, check_room
from edgenet.results import RESULTS_FILE, Artifact, ImageSet, Results
from edgenet.results.records import Finding, PictureHistory
from edgenet.results.training import PictureCounts, Score

if TYPE_CHECKING:
    from edgenet.calibration.training.transfer import Learned
    from edgenet.images.decode import Skipped

KIND = "finetune"  # of the TrainingRecord
SUFFIX = "-finetuned"  # of the model's name
EVALUATION = 0.2  # of the pictures
SINGLE_CODE, UNREADABLE_CODE = "single-pictures", "unreadable-pictures"  # of findings
_SHOWN = 5  # names in a finding


@dataclass(frozen=True)
class _Task:
    """What is known before anything is written: the model, the classes, and the pictures in parts."""

    source: Source
    graph: Graph  # the float network with the head that it had
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    pictures: str  # fingerprint of all
    train: ImageSet
    held_back: ImageSet
    evaluation: ImageSet
    findings: tuple[Finding, ...]


def finetune(
    job: FinetuneJob, progress: Progress = lambda *_: None, note: Callable[[str], None] = lambda _: None
) -> Results:
    """Do the job and return its results; the trained network is OUT/MODEL-finetuned.tflite.

    Raises:
        InputError: the model cannot be trained, fewer than two classes, too few pictures, OUT is another run's.
    """
    task = _prepare(job)
    for finding in task.findings:
        note(f"{finding.severity}: {finding}")
    identity = _identity(job, task)
    _check_same_run(job, identity)
    page, done = report_page(task.classes), _done(job, task)
    with results_in(job.out, command=KIND, model=_name(task), resume=done, page=page) as results:
        if not done:
            _teach(job, task, identity, results, progress, note)
            results.save(job.out)
        if job.then is not None:
            add_then(job, results, _head_alone(task), progress, note)
    return results


def _done(job: FinetuneJob, task: _Task) -> bool:
    """Whether an earlier start of the same command had finished learning, and was stopped at what follows."""
    if job.then is None or not (job.out / RESULTS_FILE).exists() or not _plan_is_there(job):
        return False
    results = Results.load(job.out)
    ids = {f"{_name(task)}.tflite", _head_alone(task)}
    kept = [a for a in results.artifacts if a.id in ids and (job.out / a.path).exists()]
    whole = len(kept) == len(ids) and all(sha256_of(job.out / a.path) == a.sha256 for a in kept)
    return whole and results.context.training is not None and ids <= {e.artifact for e in results.evaluations}


def _head_alone(task: _Task) -> str:
    """Return the id of the network with the new head, all else as it was, which `--then` compares with."""
    return f"{_name(task)}_head.tflite"


def _teach(
    job: FinetuneJob,
    task: _Task,
    identity: dict[str, Any],
    results: Results,
    progress: Progress,
    note: Callable[[str], None],
) -> None:
    """Learn, write and measure what was learned, and note how it went."""
    history = task.source.pictures
    used = images_record(task.evaluation, taught=task.train, chose=task.held_back, history=history)
    results.context = replace(context_of(job.command, "auto", used), calibration_findings=task.findings)
    learned = _learn(job, task, identity, results, progress, note)
    used = images_record(task.evaluation, taught=_taught(task, learned), chose=task.held_back, history=history)
    results.context = replace(results.context, images=used)
    _write(job, task, learned, results, progress)
    record = learned.outcome.record(
        KIND,
        learned.settings,
        before=Score(held_back_accuracy_of_the_new_head=learned.stages[0].held_back_accuracy),
        after=Score(top1=results.evaluations[0].top1 if results.evaluations else None),
        pictures=PictureCounts(len(task.train), len(task.held_back), len(task.evaluation)),
        classes=len(task.classes),
        stages=learned.stages,
        kept=learned.kept,
        activations=learned.activations,
        again=learned.again,
    )
    record = replace(record, settings={**record.settings, **_asked(job)})
    results.context = replace(results.context, training=record)


def _name(task: _Task) -> str:
    return task.source.name.removesuffix(SUFFIX) + SUFFIX


def _asked(job: FinetuneJob) -> dict[str, Any]:
    """Return the options of this command that are none of Settings."""
    names = ("layers", "first_layer_rate", "label_smoothing", "views", "refit", "time")
    return {name: getattr(job, name) for name in names}


def _plan_is_there(job: FinetuneJob) -> bool:
    """Whether OUT holds what an earlier start began; `_check_same_run` has seen that it is the same run's."""
    from edgenet.calibration.training.lesson import PLAN

    return (job.out / FOLDER / PLAN).exists()


def _check_same_run(job: FinetuneJob, identity: dict[str, Any]) -> None:
    """Raise InputError where OUT holds what another run began, before anything is computed."""
    from edgenet.calibration.training.lesson import stored_plan

    stored_plan(job.out / FOLDER, identity_of(job.settings, identity))


def _prepare(job: FinetuneJob) -> _Task:
    """Check the arguments, divide the pictures, build the network. Raises InputError."""
    check_training(job.augment, job.strategy, job.mixed_precision)
    check_strategy(job.strategy)
    if job.time is not None:
        seconds_of(job.time, "--time")
    check_finetune(job)
    if job.then == "qat":
        check_qat(job_after(job, job.model))
    source, graph, preprocessing = _network(job)
    classes = classes_of_folder(job.images)
    images = labelled(open_images(job.images, (), classes))
    test = None if job.images_test is None else labelled(open_images(job.images_test, (), classes))
    single = _single(images, classes)
    train, held_back, measuring = _divide(images, test, classes, job.settings.batch)
    evaluation, findings = new_pictures(measuring, source.pictures, source.name, train, held_back)
    if not evaluation:
        raise InputError(f"{'; '.join(f.message for f in findings)}: give pictures that are not copies")
    found = (*source.findings, *single, *findings)
    return _Task(source, graph, preprocessing, classes, images.fingerprint, train, held_back, evaluation, found)


def _network(job: FinetuneJob) -> tuple[Source, Graph, Preprocessing]:
    """Return the model, its float graph with the head that it has, and how its input is made. Raises InputError."""
    from edgenet.calibration.training.cut import head_of

    if job.model not in zoo.MODELS:
        return _file(job)
    if job.preprocess is not None:
        raise InputError(f"--preprocess is for a model file; {job.model} is of the zoo, which knows it: leave it out")
    spec = zoo.spec(job.model)
    # The head is a new one: how many classes a file is for does not matter.
    loaded = weights_module.load(spec, job.weights, None if job.weights else spec.classes)
    spec = loaded.network(spec)
    preprocessing = preprocessing_of(spec, job.resolution_px)
    graph = deploy(spec, loaded.arrays, preprocessing.resolution_px)
    head_of(graph)
    history = PictureHistory(complete=job.weights is None)
    source = Source(
        spec.name, preprocessing, (), (), loaded.provenance, loaded.sha256, lambda: graph, pictures=history,
        findings=loaded.findings,
    )  # fmt: skip
    return source, graph, preprocessing


def _file(job: FinetuneJob) -> tuple[Source, Graph, Preprocessing]:
    """Return the same of a model file. Raises InputError."""
    from edgenet.calibration.training.cut import head_of

    if job.resolution_px is not None:
        raise InputError(f"--resolution is for models of the zoo; {job.model} has its own: leave it out")
    source = find_source(job.model, job.weights, preprocess=job.preprocess)
    if not source.preprocessing.is_plain:
        raise InputError(
            f"{source.name}: its input is grey or no square; finetune trains networks of square colour pictures"
        )
    network = source.network()
    head_of(network.graph)
    return source, network.graph, network.preprocessing


def _single(images: ImageSet, classes: Sequence[str]) -> tuple[Finding, ...]:
    """Return what there is to say of classes with one picture."""
    counts = Counter(images.labels)
    single = [name for i, name in enumerate(classes) if counts[i] == 1]
    if not single:
        return ()
    shown = ", ".join(single[:_SHOWN]) + ", ..." * (len(single) > _SHOWN)
    return (Finding(
        SINGLE_CODE, "warning", f"{len(single)} of {len(classes)} classes have one picture in {images.root} ({shown})",
        "it can teach, and then nothing tells whether the class is learned: give more of them",
    ),)  # fmt: skip


def _divide(
    images: ImageSet, test: ImageSet | None, classes: Sequence[str], batch: int
) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Return the pictures that train, that are held back, and that measure. Raises InputError where too few train."""
    if test is None:
        evaluation, rest = divide(images, max(1, round(EVALUATION * len(images))))
    else:
        evaluation, rest = test, images
    held_back, train = _taught_first(*hold_back(rest))
    seen = {label for label in train.labels if label is not None}
    missing = [n for i, n in enumerate(classes) if i not in seen]
    if missing or len(train) < batch:
        what = f"no picture of {missing[0]} is left" if missing else f"{len(train)} pictures are left"
        raise InputError(
            f"{what} to train on, after {len(evaluation)} that measure and {len(held_back)} held back, and a batch has "
            f"{batch}: give more pictures"
        )
    return train, held_back, evaluation


def _taught_first(held_back: ImageSet, train: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Return the two parts with those held-back pictures among what trains whose class would else have none there."""
    seen = set(train.labels)
    moved = [i for i, label in enumerate(held_back.labels) if label not in seen]
    if not moved:
        return held_back, train
    left = [i for i in range(len(held_back)) if i not in moved]
    return part(held_back, left), joined(train, part(held_back, moved))


def _identity(job: FinetuneJob, task: _Task) -> dict[str, Any]:
    """Return what the trained weights depend on beside the settings; a checkpoint of another identity is refused."""
    return {
        "command": KIND,
        "model": task.source.name,
        "weights": task.source.sha256,
        "network": fingerprint(task.graph),
        "classes": list(task.classes),
        "pictures": task.pictures,
        "resolution_px": task.preprocessing.resolution_px,
        "augment": list(job.augment),
        "strategy": job.strategy,
        "mixed_precision": job.mixed_precision,
        **_asked(job),
    }


def classes_of_folder(images: str | Path) -> tuple[str, ...]:
    """Return the classes of a folder: the names of its folders, or the labels of its labels.csv, sorted.

    Raises:
        InputError: no such folder, no photographs, no labels, or fewer than two classes.
    """
    if str(images) == "sample":
        raise InputError("the sample photographs have no classes: give finetune a folder with a folder for each class")
    names = names_in(images)
    if len(names) < 2:
        raise InputError(
            f"{images} has {len(names)} class{'es' * (len(names) != 1)}: finetune needs a folder with a folder of "
            "photographs for each of two classes or more"
        )
    return names


def labelled(images: ImageSet) -> ImageSet:
    """Return the pictures that have a label: a table may leave some without."""
    kept = [i for i, label in enumerate(images.labels) if label is not None]
    return images if len(kept) == len(images) else subset(images, kept)


def _learn(
    job: FinetuneJob,
    task: _Task,
    identity: dict[str, Any],
    results: Results,
    progress: Progress,
    note: Callable[[str], None],
) -> "Learned":
    """Decode the pictures, say which cannot be read, and train."""
    from edgenet.calibration.training.augment import load_pictures
    from edgenet.calibration.training.lesson import Lesson
    from edgenet.calibration.training.loop import Place
    from edgenet.calibration.training.strategy import half_type, open_strategy
    from edgenet.calibration.training.transfer import transfer
    from edgenet.frameworks import keras

    folder = job.out / FOLDER
    strategy = open_strategy(job.strategy)  # fails before a picture is decoded, where hardware is missing
    both = load_pictures((task.train, task.held_back), task.preprocessing, folder)
    n_train = len(task.train) - len({s.file for s in both.skipped} & set(task.train.files))
    train, held_back = both.subset(slice(n_train)), both.subset(slice(n_train, None))
    if both.skipped:
        finding = _unreadable(both.skipped)
        note(f"{finding.severity}: {finding}")
        found = (*results.context.calibration_findings, finding)
        results.context = replace(results.context, calibration_findings=found)
    keras().utils.set_random_seed(job.settings.seed)
    lesson = Lesson(
        task.graph, len(task.classes), train, held_back, task.train.fingerprint, job.layers, job.augment, job.views,
        job.label_smoothing, job.first_layer_rate, half_type(job.mixed_precision, strategy), job.settings,
        None if job.time is None else seconds_of(job.time, "--time"), len(task.evaluation),
        both if job.refit else None, task.held_back.fingerprint,
    )  # fmt: skip
    check_room([Room(job.out, lesson.kept_bytes)])
    return transfer(lesson, Place(folder, identity, strategy, progress, note), note)


def _unreadable(skipped: Sequence["Skipped"]) -> Finding:
    shown = "; ".join(f"{Path(s.file).name}: {s.why}" for s in skipped[:_SHOWN]) + "; ..." * (len(skipped) > _SHOWN)
    return Finding(
        UNREADABLE_CODE, "warning", f"{len(skipped)} of the pictures that teach cannot be read ({shown})",
        "they are left out: repair or remove them",
    )  # fmt: skip


def _write(job: FinetuneJob, task: _Task, learned: "Learned", results: Results, progress: Progress) -> None:
    """Write OUT/MODEL-finetuned.tflite and measure it; with --then also OUT/MODEL-finetuned_head.tflite."""
    taught = _taught(task, learned)  # who chose and taught counts once
    chose = task.held_back if taught is task.train else None
    history = history_of(taught=taught, chose=chose, measured=task.evaluation)
    history = merged(task.source.pictures, history)
    made = [_file_of(job.out, task, learned.graph, history, f"{_name(task)}.tflite")]
    if job.then is not None:
        made.append(_file_of(job.out, task, learned.head_alone, history, _head_alone(task)))
    evaluations, failures = evaluate(
        [Candidate(a.id, job.out / a.path, a.sha256) for a in made],
        task.evaluation,
        task.preprocessing,
        progress=lambda done, total: progress("evaluate", done, total),
    )
    for items in (made, evaluations, failures):
        for item in items:
            results.put(item)


def _taught(task: _Task, learned: "Learned") -> ImageSet:
    """Return the pictures that taught what is returned: with those that were held back, where it learned once more."""
    once_more = learned.again is not None and learned.again.kept
    return joined(task.train, task.held_back) if once_more else task.train


def _file_of(out: Path, task: _Task, graph: Graph, history: PictureHistory, path: str) -> Artifact:
    """Write a float network as OUT/path, and return what it is."""
    from edgenet.export import export_graph

    source = Source(
        _name(task), task.preprocessing, task.classes, task.classes, f"{task.source.weights}, finetuned", "",
        lambda: graph, pictures=history,
    )  # fmt: skip
    network = source.network()
    a = export_graph(network, network.graph, out, format="tflite", precision="float32")
    os.replace(out / a.path, out / path)
    return replace(a, id=path, path=path)
