"""What `edgenet finetune --then` does after learning: INT8 files of the network, and what each step did to the answers.

The network is read back from the file that was written, as `edgenet qat` would. What was done already is found in OUT.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgenet.errors import InputError
from edgenet.export import find_source
from edgenet.jobs import qat
from edgenet.options import Distillation, FinetuneJob, Progress, QatJob
from edgenet.results import Evaluation, ImageSet, Results
from edgenet.results.nouns import NO_ANSWER
from edgenet.results.training import ChangedConfusion, Step, ThenRecord, TrainingRecord

LABELS_WEIGHT = 0.3  # of the labels beside what the float network answers: the folder has them
MOST_CONFUSIONS = 20
BEFORE, AFTER, INT8, TRAINED = "float before", "float after", "INT8", "trained INT8"


def job_after(job: FinetuneJob, model: str) -> QatJob:
    """Return what `edgenet qat` would be asked for: the same pictures and seed, and the top layers alone learn."""
    own = QatJob(model, job.out, job.images)
    settings = replace(own.settings, epochs=job.settings.epochs, batch=job.settings.batch, seed=job.settings.seed)
    distill = Distillation(
        labels_weight=LABELS_WEIGHT, augment=job.augment, layers="top", views=job.views, strategy=job.strategy,
        mixed_precision=job.mixed_precision,
    )  # fmt: skip
    return replace(own, images_test=job.images_test, settings=settings, distill=distill)


def add_then(job: FinetuneJob, results: Results, head: str, progress: Progress, note: Callable[[str], None]) -> None:
    """Add the INT8 files of the network that was learned to its results, and what changed from step to step.

    Args:
        results: of the learning; its first file is the network.
        head: id of the file with nothing but a new head.
    """
    learned, training = results.artifacts[0], results.context.training
    assert training is not None  # what learned noted it
    after = job_after(job, str(job.out / learned.path))
    source = find_source(after.model)
    parts, found = qat.prepare(after, source)
    told = results.context.calibration_findings
    new = tuple(f for f in found if f.code not in {t.code for t in told})
    results.context = replace(results.context, calibration_findings=(*told, *new))
    files = {BEFORE: head, AFTER: learned.id}
    record: TrainingRecord | None = None
    if job.then == "qat":
        record = qat.train_and_write(after, source, parts, results, progress, note, {"tflite": learned})
        kept = next(iter(record.files), None)
        both = {kind: f"{source.name}_int8_{kind}.tflite" for kind in ("ptq", "qat")}
        final = f"{source.name}_int8.tflite"
        both |= {kept.kept: final} if kept else {}
        files |= {INT8: both["ptq"]} | ({TRAINED: both["qat"]} if kept and kept.after is not None else {})
    else:
        qat.quantize_and_write(after, source, parts, results, progress, learned)
        files |= {INT8: f"{source.name}_int8.tflite"}
    by_id = {e.artifact: e for e in results.evaluations}
    steps = {name: by_id[id] for name, id in files.items() if id in by_id}
    pairs = changed_confusions(steps, parts.evaluation)
    then = ThenRecord(
        what=str(job.then),
        steps=tuple(_step(name, e, results, steps.get(AFTER)) for name, e in steps.items()),
        confusions=pairs[:MOST_CONFUSIONS],
        n_confusions=len(pairs),
    )
    if record is not None:
        then = replace(
            then, curve=record.curve, best_epoch=record.best_epoch, seconds=record.seconds, kept=record.kept,
            why=record.why,
        )  # fmt: skip
    results.context = replace(results.context, training=replace(training, then=then))


def _step(name: str, e: Evaluation, results: Results, reference: Evaluation | None) -> Step:
    size = next(a.size_bytes for a in results.artifacts if a.id == e.artifact)
    same = None
    if reference is not None and e is not reference and e.answers and reference.answers:
        a, b = e.answers.top1_each, reference.answers.top1_each
        same = None if a is None or b is None or len(a) != len(b) else float((a == b).mean())
    return Step(name, e.artifact, e.top1, e.top1_ci95, same, size)


def changed_confusions(steps: Mapping[str, Evaluation], images: ImageSet) -> tuple[ChangedConfusion, ...]:
    """Return the wrong answers whose number is not the same in all steps, what changed most since "float after" first.

    Raises:
        InputError: the steps were measured on other pictures than `images`.
    """
    labels = _in_order(images)
    counts = []
    for e in steps.values():
        if e.answers is None or (top1 := e.answers.top1_each) is None or len(top1) != len(labels):
            raise InputError(f"{e.artifact} was not measured on {images.root}: give another --out")
        counts.append(
            Counter((int(y), int(a)) for y, a in zip(labels, top1, strict=True) if y >= 0 and a not in (y, NO_ANSWER))
        )
    names = list(steps)
    base = names.index(AFTER) if AFTER in names else 0
    found = []
    for pair in set().union(*counts):
        n = tuple(c[pair] for c in counts)
        if len(set(n)) > 1:
            found.append(ChangedConfusion(*pair, n))
    return tuple(sorted(found, key=lambda c: (-_moved(c.n, base), c.label, c.answer)))


def _moved(n: Sequence[int], base: int) -> int:
    later = [abs(v - n[base]) for v in n[base + 1 :]]
    return 2 * max(later, default=0) + int(len(set(n)) > 1)


def _in_order(images: ImageSet) -> np.ndarray:
    """Return the labels, -1 for none, in the order of the pictures' content, as answers have it."""
    order = sorted(range(len(images)), key=lambda i: (images.digests[i], str(images.labels[i])))
    return np.array([-1 if images.labels[i] is None else images.labels[i] for i in order])
