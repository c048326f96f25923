"""Accuracy of files on the same pixels: top-1, top-5, agreement with a reference, flips, and how sure the numbers are.

What an answer is depends on the task (edgenet.tasks), and with it when it is right and when two files agree:

    classes, binary    a class                               right: it is the label
    labels             a decision for each label             right: all of them are
    embedding          the other picture that is nearest     right: it has the same label (recall@1)

Pictures are decoded once and streamed past all files, so that memory does not grow with their number. Each file runs in
a child process of its own: one that crashes becomes a failure, and the others go on.

Intervals: Wilson's score interval for a fraction; for the drop, which compares the same pictures, Agresti and Min's
adjusted Wald interval for matched pairs (https://doi.org/10.1002/sim.1781). McNemar's test is the exact binomial one.

An answer with a number that is not finite (NaN, infinity) is none: it is never right and agrees with nothing.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgenet.errors import DeviceError, EdgenetError, InputError
from edgenet.images import Preprocessing, normalise, stream
from edgenet.results import NO_ANSWER, Confusion, Evaluation, Failure, Flip, ImageSet, Warning
from edgenet.results.answers import PictureAnswers, pack
from edgenet.results.records import Measures
from edgenet.tasks import CLASSES, Task
from edgenet.tasks.measures import (
    MAX_NUMBERS,
    measures_of_embeddings,
    measures_of_labels,
    measures_of_yes,
    rows_of_labels,
    rows_of_yes,
    signal_of,
)
from edgenet.tasks.statistics import nearest, unit

if TYPE_CHECKING:
    from edgenet.device_bench import Device

Z95 = 1.959964  # 97.5 % quantile of the normal distribution
MAX_FLIPS = 200  # kept in the results; the counts are of all
MAX_CONFUSIONS = 2000  # kept in the results, the most frequent


@dataclass(frozen=True)
class Candidate:
    """A file to evaluate, on this machine or on `device`; then `here` is the id of the same file here, given before."""

    id: str
    path: Path
    sha256: str = ""
    device: "Device | None" = None
    here: str = ""


@dataclass
class _Tally:
    """What is kept of one file: a few numbers a picture; of several labels and of embeddings all, up to a bound."""

    runtime: str
    io_dtype: str
    eight_bit: bool
    top1: list[np.ndarray] = field(default_factory=list)  # (n,) int, NO_ANSWER where a number is not finite
    top5: list[np.ndarray] = field(default_factory=list)  # (n, 5) int, the same
    confidence: list[np.ndarray] = field(default_factory=list)  # (n,) of top-1
    kept: list[np.ndarray] = field(default_factory=list)  # (n, K) float32: see _count
    n_kept: int = 0  # numbers
    signal: float = 0.0
    noise: float = 0.0
    here: str = ""  # whose numbers those of a device are compared with, bit by bit
    n_outputs: int = 0
    differing: int = 0
    largest: float = 0.0
    nonfinite_outputs: int = 0
    nonfinite_images: int = 0


def evaluate(
    candidates: Sequence[Candidate],
    images: ImageSet,
    preprocessing: Preprocessing,
    *,
    reference: str | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    task: Task = CLASSES,
) -> tuple[list[Evaluation], list[Failure]]:
    """Return an Evaluation of each candidate that ran, and a Failure of each that did not.

    Args:
        reference: id of the candidate that the others are compared with; None compares with nothing.
        threads: cores that each file may use; all by default.
        progress: called with (pictures done, pictures in all).
        task: what the outputs mean.

    Raises:
        InputError: more than 1 % of the pictures cannot be read; there are more than the measures of the task can hold.
    """
    from edgenet.device_bench import Worker

    tallies: dict[str, _Tally] = {}
    failures: list[Failure] = []
    seen: list[np.ndarray] = []
    with ExitStack() as stack:
        predictors: dict[str, Callable[[np.ndarray], np.ndarray]] = {}

        def fail(c: Candidate, e: EdgenetError) -> None:
            predictors.pop(c.id, None)
            tallies.pop(c.id, None)
            device = c.device.id if c.device is not None else "local"
            remedy = "the other files were evaluated; see `edgenet inspect`"
            failures.append(Failure("evaluate", c.id, device, why=str(e), remedy=remedy))

        for c in candidates:
            try:
                if c.device is not None:
                    here = tallies.get(c.here)
                    if here is None:
                        raise DeviceError("it does not run on this machine, so there is nothing to compare with")
                    tallies[c.id] = _Tally(here.runtime, here.io_dtype, here.eight_bit, here=c.here)
                    predictors[c.id] = partial(c.device.predict, c.path)
                    continue
                worker = stack.enter_context(Worker(c.path, threads=threads or os.cpu_count() or 1))
                predictors[c.id] = worker.predict
                tallies[c.id] = _Tally(worker.info.runtime, worker.info.io_dtype, worker.info.output_dtype != "float32")
            except (DeviceError, InputError) as e:
                fail(c, e)
        pictures = stream(images, preprocessing)
        for chunk in pictures:
            if not predictors:
                break
            normalised = normalise(chunk.pixels, preprocessing)
            outputs: dict[str, np.ndarray] = {}
            for c in candidates:
                if c.id in predictors:
                    try:
                        batch = normalised if tallies[c.id].io_dtype == "float32" else chunk.pixels
                        outputs[c.id] = predictors[c.id](batch)
                    except DeviceError as e:
                        fail(c, e)
            _count(task, outputs, tallies, reference)
            seen.append(chunk.indices)
            if progress:
                progress(sum(map(len, seen)), len(images))
    if not seen:
        return [], failures
    indices = np.concatenate(seen)
    by_id = {c.id: c for c in candidates}
    kept = _Pictures(task, images, indices, len(pictures.skipped))
    answers = {id: _answers(kept, tally) for id, tally in tallies.items()}
    ref = answers.get(reference) if reference else None
    found = [_evaluation(by_id[id], kept, a, (reference or "") if ref else "", ref) for id, a in answers.items()]
    return [replace(e, **_as_here(answers, e.artifact, reference)) for e in found], failures


def _as_here(answers: Mapping[str, "_Answers"], id: str, reference: str | None) -> dict[str, Any]:
    """Return how often a device gives the first answer of the same file here, where that is not the reference."""
    here = answers[id].tally.here
    if not here or here == reference or here not in answers:
        return {}
    same, n = _n_alike(answers[id], answers[here]), len(answers[id].answered)
    return {"agreement_here": same / n, "agreement_here_ci95": wilson(same, n)}


def _count(task: Task, outputs: Mapping[str, np.ndarray], tallies: Mapping[str, _Tally], reference: str | None) -> None:
    base = outputs.get(reference) if reference else None
    base_logits = None if base is None or not np.isfinite(base).all() else _logits(task, base)
    for id, y in outputs.items():  # (n, outputs)
        tally = tallies[id]
        finite = np.isfinite(y)
        answered = finite.all(axis=1)
        tally.nonfinite_outputs += int((~finite).sum())
        tally.nonfinite_images += int((~answered).sum())
        if task.kind in ("classes", "binary"):
            _count_classes(np.concatenate([1 - y, y], axis=1) if task.kind == "binary" else y, answered, tally)
        else:
            _keep(np.asarray(y, np.float32), tally, len(y[0]))
        if tally.here in outputs:
            _count_bits(y, outputs[tally.here], tally)
        if base_logits is not None and id != reference and not tally.eight_bit and answered.all():
            tally.signal += float(np.square(base_logits).sum())
            tally.noise += float(np.square(_logits(task, y) - base_logits).sum())


def _count_classes(y: np.ndarray, answered: np.ndarray, tally: _Tally) -> None:
    """Count answers that exclude each other. y: (n, classes); answered: (n,) bool."""
    order = np.argsort(-y, axis=1, kind="stable")[:, :5]  # ties: the lower index first, as argmax has it
    sure = np.take_along_axis(y, order[:, :1], axis=1)[:, 0]
    order = np.where(answered[:, None], order, NO_ANSWER)
    tally.top1.append(order[:, 0])
    tally.top5.append(order)
    tally.confidence.append(np.where(answered, sure, 0))
    if y.shape[1] == 2:  # of yes, or of the second class
        tally.kept.append(np.asarray(y[:, 1:], np.float32))


def _keep(y: np.ndarray, tally: _Tally, a_picture: int) -> None:
    tally.kept.append(y)
    tally.n_kept += y.size
    if tally.n_kept > MAX_NUMBERS:
        raise InputError(
            f"of more than {MAX_NUMBERS // a_picture} pictures with {a_picture} numbers each the measures do not fit "
            f"into memory: give --limit {MAX_NUMBERS // a_picture}"
        )


def _logits(task: Task, y: np.ndarray) -> np.ndarray:
    return centred_logits(y) if task.kind == "classes" else signal_of(task, y)


def _count_bits(y: np.ndarray, base: np.ndarray, tally: _Tally) -> None:
    ours, theirs = (np.ascontiguousarray(a, np.float32) for a in (base, y))
    tally.n_outputs += ours.size
    tally.differing += int(np.count_nonzero(ours.view(np.uint32) != theirs.view(np.uint32)))
    with np.errstate(invalid="ignore"):
        apart = float(np.abs(theirs.astype(np.float64) - ours).max(initial=0.0))
    tally.largest = max(tally.largest, apart) if math.isfinite(apart) else math.inf


def centred_logits(y: np.ndarray) -> np.ndarray:
    """Return logits with mean zero a picture, from logits or from probabilities (softmax forgets only their mean).

    y: (N, classes). Returns (N, classes) float64.
    """
    y = y.astype(np.float64)
    if y.min() >= 0 and np.allclose(y.sum(axis=1), 1, atol=1e-2):
        y = np.log(np.maximum(y, np.finfo(np.float32).tiny))
    return y - y.mean(axis=1, keepdims=True)


@dataclass(frozen=True)
class _Pictures:
    """The pictures that were read: `indices` (n,) into the set."""

    task: Task
    images: ImageSet
    indices: np.ndarray
    n_skipped: int

    @property
    def labels(self) -> np.ndarray:
        """(n,) class indices, -1 where unknown. Of several labels a picture 0 stands for known."""
        if self.images.label_sets:
            return np.array([-1 if self.images.label_sets[i] is None else 0 for i in self.indices])
        return np.array([-1 if self.images.labels[i] is None else self.images.labels[i] for i in self.indices])

    def truth(self, n_labels: int) -> np.ndarray:
        """Which labels each picture has: (n, L) bool; none where they are unknown."""
        truth = np.zeros((len(self.indices), n_labels), bool)
        for row, i in zip(truth, self.indices, strict=True):
            row[list(self.images.label_sets[i] or ())] = True
        return truth


@dataclass(frozen=True)
class _Answers:
    """What one file answers to each of n pictures."""

    pictures: _Pictures
    tally: _Tally
    answer: np.ndarray  # (n,) or (n, K): two files agree on a picture where all of it is the same
    answered: np.ndarray  # (n,) bool: all its numbers are finite
    right: np.ndarray  # (n,) bool
    top1: np.ndarray  # (n,) int, the class that is answered; NO_ANSWER where that is none
    confidence: np.ndarray  # (n,) in that class
    kept: np.ndarray | None  # (n, K) float32 that the measures of the task need; None where one is not finite

    @cached_property
    def rows(self) -> np.ndarray | None:
        """The figures of yes and no, or of several labels, with their resamples; the reference's are needed often."""
        p, known = self.pictures, self.pictures.labels >= 0
        if self.kept is None or p.images.groups or not known.any():
            return None
        kept = self.kept[known]
        if p.task.kind == "labels":
            return rows_of_labels(kept, p.truth(kept.shape[1])[known], p.task.threshold)
        return rows_of_yes(kept[:, 0], p.labels[known] == 1, p.task.threshold)


def _answers(p: _Pictures, tally: _Tally) -> _Answers:
    labels = p.labels
    kept = np.concatenate(tally.kept) if tally.kept else None
    finite = None if tally.nonfinite_outputs else kept
    if p.task.kind in ("classes", "binary"):
        top1 = np.concatenate(tally.top1)
        right = _right(as_labels(top1, p.images), labels)
        return _Answers(p, tally, top1, top1 != NO_ANSWER, right, top1, np.concatenate(tally.confidence), finite)
    assert kept is not None
    answered, n = np.isfinite(kept).all(axis=1), len(kept)
    if p.task.kind == "labels":
        decisions = kept > p.task.threshold
        right = answered & (labels >= 0) & (decisions == p.truth(kept.shape[1])).all(axis=1)
        return _Answers(p, tally, decisions, answered, right, np.full(n, NO_ANSWER), np.zeros(n), finite)
    vectors = unit(np.where(answered[:, None], kept, 0))
    other, cosine = nearest(vectors, vectors, others=True) if n > 1 else (np.zeros(n, int), np.zeros(n))
    top1 = np.where(answered, labels[other], NO_ANSWER)
    right = _right(top1, labels)
    return _Answers(p, tally, other, answered, right, top1, cosine, None if finite is None else vectors)


def _evaluation(c: Candidate, p: _Pictures, found: _Answers, reference: str, ref: _Answers | None) -> Evaluation:
    tally, images, labels = found.tally, p.images, p.labels
    labelled, several = labels >= 0, p.task.kind == "labels"
    n, n_labelled, hits = len(p.indices), int(labelled.sum()), int(found.right.sum())
    top5 = None
    if n_labelled and p.task.kind == "classes":
        top5 = int(_right(as_labels(np.concatenate(tally.top5), images), labels[:, None]).any(axis=1).sum())
    compared = _compared(p, found, ref) if ref is not None and reference != c.id else {}
    wrong = labelled & ~found.right
    return Evaluation(
        artifact=c.id,
        images=images.fingerprint,
        n_images=n,
        n_labelled=n_labelled,
        n_skipped=p.n_skipped,
        top1=hits / n_labelled if n_labelled else None,
        top1_ci95=wilson(hits, n_labelled) if n_labelled else None,
        top5=top5 / n_labelled if top5 is not None else None,
        top5_ci95=wilson(top5, n_labelled) if top5 is not None else None,
        runtime=tally.runtime,
        artifact_sha256=c.sha256,
        reference=reference if compared else None,
        classes={} if several else _by_class(labels[labelled], labels[found.right]),
        confusions=() if several else _confusions(labels[wrong], found.top1[wrong]),
        nonfinite_outputs=tally.nonfinite_outputs,
        nonfinite_images=tally.nonfinite_images,
        warnings=tuple(_warnings(p, tally, n_labelled)),
        outputs_compared=tally.n_outputs,
        outputs_differing=tally.differing if tally.here else None,
        largest_difference=tally.largest if tally.here and math.isfinite(tally.largest) else None,
        task=p.task.kind,
        measures=_measures(found, ref if compared else None),
        answers=_by_content(p, found),
        **compared,
    )


def _by_content(p: _Pictures, found: _Answers) -> PictureAnswers:
    """Return the answers in the order of the pictures' sha256, with those that were not read."""
    n, images = len(p.images), p.images
    right, wrong, top1 = np.zeros(n, bool), np.zeros(n, bool), np.full(n, NO_ANSWER)
    right[p.indices], wrong[p.indices], top1[p.indices] = found.right, (p.labels >= 0) & ~found.right, found.top1
    labels = images.label_sets or images.labels
    order = sorted(range(n), key=lambda i: (images.digests[i], str(labels[i])))
    has_class = p.task.kind in ("classes", "binary")
    return pack(right[order], wrong[order], top1[order] if has_class else None)


def _warnings(p: _Pictures, tally: _Tally, n_labelled: int) -> Iterator[Warning]:
    if n_labelled == 0:
        yield Warning("no-labels", "no labels: agreement is measured, accuracy is not")
    if groups := p.images.groups:
        text = f"right is each class that the folder stands for in the class map: {class_map_text(groups)}"
        yield Warning("class-map", text, len(groups))
    if tally.eight_bit:
        text = "the output has 8 bits: ties are broken by the lower index, and logits cannot be compared"
        yield Warning("8-bit-output", text)
    if bad := tally.nonfinite_images:
        text = f"answers of NaN or infinity on {bad} of {len(p.indices)} pictures: these count as wrong"
        yield Warning("nonfinite-outputs", text, bad)


def _measures(found: _Answers, ref: _Answers | None) -> Measures | None:
    """Return what the task is measured by beside right answers; None where there is no such thing to go by."""
    p = found.pictures
    if p.task.kind == "embedding":
        comparable = found.kept is not None and ref is not None and ref.kept is not None
        return measures_of_embeddings(found.kept, ref.kept) if comparable else None  # type: ignore[arg-type, union-attr]
    rows, theirs = found.rows, None if ref is None else ref.rows
    if rows is None or found.kept is None or (ref is not None and theirs is None):
        return None
    known = p.labels >= 0
    if p.task.kind == "labels":
        reference = None if ref is None or ref.kept is None or theirs is None else (theirs, ref.kept[known])
        kept = found.kept[known]
        return measures_of_labels(rows, kept, p.truth(kept.shape[1])[known], p.task.threshold, reference)
    return measures_of_yes(rows, p.labels[known] == 1, p.task.threshold, theirs)


def _right(answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return where an answer is its picture's label; a picture without one, -1, has no right answer."""
    return (answers == labels) & (labels >= 0)


def _compared(p: _Pictures, found: _Answers, ref: _Answers) -> dict[str, Any]:
    """Return the fields of an Evaluation that compare a file with the reference on the same pictures."""
    labels = p.labels
    n, n_labelled, several = len(labels), int((labels >= 0).sum()), p.task.kind == "labels"
    same = _n_alike(found, ref)
    is_fixed, is_broken = found.right & ~ref.right, ~found.right & ref.right
    finite = not found.tally.nonfinite_outputs and not ref.tally.nonfinite_outputs
    compared: dict[str, Any] = {
        "agreement": same / n,
        "agreement_ci95": wilson(same, n),
        "sqnr_db": sqnr_db(found.tally.signal, found.tally.noise) if finite else None,
        "flips": () if several else _flips(p, found, ref),
    }
    if n_labelled:
        fixed, broken = int(is_fixed.sum()), int(is_broken.sum())
        compared |= {
            "top1_drop": (broken - fixed) / n_labelled,
            "top1_drop_ci95": paired_difference(broken, fixed, n_labelled),
            "flips_fixed": fixed,
            "flips_broken": broken,
            "mcnemar_p": mcnemar(fixed, broken),
            "class_flips": {} if several else _by_class(labels[is_fixed], labels[is_broken]),
        }
    return compared


def _n_alike(a: _Answers, b: _Answers) -> int:
    """Return on how many pictures two files answer the same."""
    alike = a.answer == b.answer
    return int(((alike.all(axis=1) if alike.ndim > 1 else alike) & a.answered & b.answered).sum())


def _by_class(first: np.ndarray, second: np.ndarray) -> dict[str, tuple[int, int]]:
    """Return how often each label is among the first ones and among the second ones. (n,) and (m,) int."""
    size = int(max(first.max(initial=-1), second.max(initial=-1))) + 1
    counts = (np.bincount(labels, minlength=size) for labels in (first, second))
    return {str(k): (int(a), int(b)) for k, (a, b) in enumerate(zip(*counts, strict=True)) if a or b}


def _confusions(labels: np.ndarray, answers: np.ndarray) -> tuple[Confusion, ...]:
    """Return which wrong answers were given how often, the most frequent first. labels, answers: (n,) int."""
    pairs, counts = np.unique(np.stack([labels, answers]), axis=1, return_counts=True)
    found = [Confusion(int(k), int(a), int(n)) for (k, a), n in zip(pairs.T, counts, strict=True)]
    return tuple(sorted(found, key=lambda c: (-c.n, c.label, c.answer))[:MAX_CONFUSIONS])


def class_map_text(groups: Mapping[str, tuple[int, ...]]) -> str:
    """Return which folders stand for how many classes, in words."""
    return ", ".join(f"{name} for {len(accepted)} classes" for name, accepted in groups.items())


def as_labels(classes: np.ndarray, images: ImageSet) -> np.ndarray:
    """Return class indices, of any shape, with those that are right for a folder replaced by its label."""
    labels = classes.copy()
    for accepted in images.groups.values():
        labels[np.isin(classes, accepted)] = accepted[0]
    return labels


def _flips(p: _Pictures, found: _Answers, ref: _Answers) -> tuple[Flip, ...]:
    """The pictures whose class changed, worst first: broken ones, then those that the reference was surest of.

    Where several classes are right for a folder, a change among them is none.
    """
    images = p.images
    was, now = as_labels(ref.top1, images), as_labels(found.top1, images)
    flips = []
    for k in np.flatnonzero(was != now):
        i = p.indices[k]
        label, before, after = images.labels[i], int(ref.top1[k]), int(found.top1[k])
        right = before if was[k] == label else after if now[k] == label else label
        flips.append(Flip(images.files[i], right, before, after, float(ref.confidence[k]), float(found.confidence[k])))
    flips.sort(key=lambda f: (f.label is None or f.label != f.reference_class, -f.reference_confidence, f.file))
    return tuple(flips[:MAX_FLIPS])


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of the fraction hits / n."""
    p, z2 = hits / n, Z95 * Z95
    centre, half = p + z2 / (2 * n), Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low, high = (centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n)
    return 0.0 if hits == 0 else low, 1.0 if hits == n else high  # exactly so; rounding would leave 1e-19


def paired_difference(lost: int, won: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of (lost - won) / n for matched pairs; half a pair is added to each cell."""
    b, c, m = lost + 0.5, won + 0.5, n + 2
    d = (b - c) / m
    half = Z95 * math.sqrt(max(b + c - (b - c) ** 2 / m, 0.0)) / m
    return max(-1.0, d - half), min(1.0, d + half)


def mcnemar(fixed: int, broken: int) -> float:
    """Return the two-sided p of McNemar's exact test: were as many pictures fixed as broken but for chance?"""
    n, k = fixed + broken, min(fixed, broken)
    log_half = n * math.log(0.5)
    tail = math.fsum(
        math.exp(math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + log_half) for i in range(k + 1)
    )
    return min(1.0, 2 * tail)


def sqnr_db(signal: float, noise: float) -> float | None:
    """Return 10 log10(signal / noise): how far the logits moved. None where nothing was compared or nothing differs."""
    return 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None
