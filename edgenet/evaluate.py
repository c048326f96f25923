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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from edgenet.errors import DeviceError, InputError
from edgenet.farm.answers import (
    LOST_REMEDY,
    Answering,
    Candidate,
    FileAnswers,
    Opened,
    Work,
    answer_here,
    centred_logits,
    concatenated,
)
from edgenet.images import Preprocessing
from edgenet.results import NO_ANSWER, Confusion, Evaluation, Failure, Flip, ImageSet, Warning
from edgenet.results.answers import PictureAnswers, pack
from edgenet.results.records import EvaluationTime, Measures
from edgenet.tasks import CLASSES, Task
from edgenet.tasks.measures import (
    MAX_NUMBERS,
    measures_of_embeddings,
    measures_of_labels,
    measures_of_yes,
    rows_of_labels,
    rows_of_yes,
)
from edgenet.tasks.statistics import nearest, unit

__all__ = ["Candidate", "centred_logits", "evaluate", "mcnemar", "paired_difference", "sqnr_db", "wilson"]

Z95 = 1.959964  # 97.5 % quantile of the normal distribution
MAX_FLIPS = 200  # kept in the results; the counts are of all
MAX_CONFUSIONS = 2000  # kept in the results, the most frequent


@dataclass
class _Tally:
    """What is kept of one file: a few numbers a picture; of several labels and of embeddings all, up to a bound."""

    file: Opened
    here: str = ""  # whose numbers those of a device are compared with, bit by bit
    blocks: list[FileAnswers] = field(default_factory=list)
    n_kept: int = 0  # numbers

    def put(self, block: FileAnswers, task: Task) -> None:
        """Add the next block. Raises InputError where what its task needs does not fit into memory."""
        self.blocks.append(block)
        if block.kept is None or task.kind in ("classes", "binary"):
            return
        self.n_kept += block.kept.size
        if self.n_kept > MAX_NUMBERS:
            a_picture = block.kept.shape[1]
            raise InputError(
                f"of more than {MAX_NUMBERS // a_picture} pictures with {a_picture} numbers each the measures do not "
                f"fit into memory: give --limit {MAX_NUMBERS // a_picture}"
            )

    def all(self, name: str) -> np.ndarray | None:
        """Return an array of FileAnswers over all pictures."""
        return concatenated([getattr(block, name) for block in self.blocks])

    def sum(self, name: str) -> Any:
        """Return a number of FileAnswers, added up in the order of the blocks."""
        return sum(getattr(block, name) for block in self.blocks)

    @property
    def largest(self) -> float:
        return max((block.largest for block in self.blocks), default=0.0)


def evaluate(
    candidates: Sequence[Candidate],
    images: ImageSet,
    preprocessing: Preprocessing,
    *,
    reference: str | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    task: Task = CLASSES,
    answering: Answering = answer_here,
    keep: bool = False,
    spent: Callable[[EvaluationTime], None] | None = None,
) -> tuple[list[Evaluation], list[Failure]]:
    """Return an Evaluation of each candidate that ran, and a Failure of each that did not.

    Args:
        reference: id of the candidate that the others are compared with; None compares with nothing.
        threads: cores that each file may use; all by default.
        progress: called with (pictures done, pictures in all).
        task: what the outputs mean.
        spent: called with where the time went, where that was this machine's.
        keep: have the reference's answers kept, and take them from there (edgenet.cache).
        answering: who runs the files: this machine, or those of a cluster (farm.job). The numbers are the same.

    Raises:
        InputError: more than 1 % of the pictures cannot be read; there are more than the measures of the task can hold.
    """
    by_id = {c.id: c for c in candidates}
    tallies: dict[str, _Tally] = {}
    failed: dict[str, str] = {}
    seen: list[np.ndarray] = []
    n_skipped = 0
    try:
        for block in answering(Work(tuple(candidates), preprocessing, task, reference, threads, keep), images):
            failed = {**block.failed, **failed}  # the first reason counts
            for id, found in block.files.items():
                tallies.setdefault(id, _Tally(found.file, by_id[id].here)).put(found, task)
            n_skipped += len(block.skipped)
            if spent and block.time is not None:
                spent(block.time)
            if block.files:
                seen.append(block.indices)
            if progress and len(block.indices):
                progress(sum(map(len, seen)), len(images))
    except DeviceError as e:  # of a cluster; a file that fails is told by its block
        return [], [Failure("evaluate", device="cluster", why=str(e), remedy=LOST_REMEDY)]
    failures = [_failure(by_id[id], failed[id]) for id in failed]
    tallies = {c.id: tallies[c.id] for c in candidates if c.id in tallies and c.id not in failed}
    if not seen:
        return [], failures
    kept = _Pictures(task, images, np.concatenate(seen), n_skipped)
    answers = {id: _answers(kept, tally) for id, tally in tallies.items()}
    ref = answers.get(reference) if reference else None
    evaluations = [_evaluation(by_id[id], kept, a, (reference or "") if ref else "", ref) for id, a in answers.items()]
    return [replace(e, **_as_here(answers, e.artifact, reference)) for e in evaluations], failures


def _failure(c: Candidate, why: str) -> Failure:
    device = c.device.id if c.device is not None else "local"
    return Failure("evaluate", c.id, device, why=why, remedy="the other files were evaluated; see `edgenet inspect`")


def _as_here(answers: Mapping[str, "_Answers"], id: str, reference: str | None) -> dict[str, Any]:
    """Return how often a device gives the first answer of the same file here, where that is not the reference."""
    here = answers[id].tally.here
    if not here or here == reference or here not in answers:
        return {}
    same, n = _n_alike(answers[id], answers[here]), len(answers[id].answered)
    return {"agreement_here": same / n, "agreement_here_ci95": wilson(same, n)}


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
    kept = tally.all("kept")
    finite = None if tally.sum("nonfinite_outputs") else kept
    if p.task.kind in ("classes", "binary"):
        top1, confidence = tally.all("top1"), tally.all("confidence")
        assert top1 is not None
        assert confidence is not None
        right = _right(as_labels(top1, p.images), labels)
        return _Answers(p, tally, top1, top1 != NO_ANSWER, right, top1, confidence, finite)
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
        best = tally.all("top5")
        assert best is not None
        top5 = int(_right(as_labels(best, images), labels[:, None]).any(axis=1).sum())
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
        runtime=tally.file.runtime,
        artifact_sha256=c.sha256,
        reference=reference if compared else None,
        classes={} if several else _by_class(labels[labelled], labels[found.right]),
        confusions=() if several else _confusions(labels[wrong], found.top1[wrong]),
        nonfinite_outputs=tally.sum("nonfinite_outputs"),
        nonfinite_images=tally.sum("nonfinite_images"),
        warnings=tuple(_warnings(p, tally, n_labelled)),
        outputs_compared=tally.sum("n_outputs"),
        outputs_differing=tally.sum("differing") if tally.here else None,
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
    if tally.file.eight_bit:
        text = "the output has 8 bits: ties are broken by the lower index, and logits cannot be compared"
        yield Warning("8-bit-output", text)
    if bad := tally.sum("nonfinite_images"):
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
    finite = not found.tally.sum("nonfinite_outputs") and not ref.tally.sum("nonfinite_outputs")
    compared: dict[str, Any] = {
        "agreement": same / n,
        "agreement_ci95": wilson(same, n),
        "sqnr_db": sqnr_db(found.tally.sum("signal"), found.tally.sum("noise")) if finite else None,
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
