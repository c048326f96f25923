"""Accuracy of files on the same pixels: top-1, top-5, agreement with a reference, flips, and how sure the numbers are.

Pictures are decoded once and streamed past all files, so that memory does not grow with their number. Each file runs in
a child process of its own: one that crashes becomes a failure, and the others go on.

Intervals: Wilson's score interval for a fraction; for the drop, which compares the same pictures, Agresti and Min's
adjusted Wald interval for matched pairs (https://doi.org/10.1002/sim.1781). McNemar's test is the exact binomial one.

An answer with a number that is not finite (NaN, infinity) is none: it is never right and agrees with nothing.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgenet.errors import DeviceError, EdgenetError, InputError
from edgenet.images import Preprocessing, normalise, stream
from edgenet.results import NO_ANSWER, Confusion, Evaluation, Failure, Flip, ImageSet, Warning

if TYPE_CHECKING:
    from edgenet.device_bench import Device

Z95 = 1.959964  # 97.5 % quantile of the normal distribution
MAX_FLIPS = 200  # kept in the results; the counts are of all
MAX_CONFUSIONS = 20  # kept in the results, the most frequent


@dataclass(frozen=True)
class Candidate:
    """A file to evaluate, on this machine or on `device`; then the reference is the same file here, given before it."""

    id: str
    path: Path
    sha256: str = ""
    device: "Device | None" = None


@dataclass
class _Tally:
    """What is kept of one file: a few numbers a picture, never its outputs."""

    runtime: str
    io_dtype: str
    eight_bit: bool
    top1: list[np.ndarray] = field(default_factory=list)  # (n,) int, NO_ANSWER where a number is not finite
    top5: list[np.ndarray] = field(default_factory=list)  # (n, 5) int, the same
    confidence: list[np.ndarray] = field(default_factory=list)  # (n,) of top-1
    signal: float = 0.0
    noise: float = 0.0
    on_device: bool = False
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
) -> tuple[list[Evaluation], list[Failure]]:
    """Return an Evaluation of each candidate that ran, and a Failure of each that did not.

    Args:
        reference: id of the candidate that the others are compared with; None compares with nothing.
        threads: cores that each file may use; all by default.
        progress: called with (pictures done, pictures in all).

    Raises:
        InputError: more than 1 % of the pictures cannot be read.
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
                    here = tallies.get(reference or "")
                    if here is None:
                        raise DeviceError("it does not run on this machine, so there is nothing to compare with")
                    tallies[c.id] = _Tally(here.runtime, here.io_dtype, here.eight_bit, on_device=True)
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
            _count(outputs, tallies, reference)
            seen.append(chunk.indices)
            if progress:
                progress(sum(map(len, seen)), len(images))
    if not seen:
        return [], failures
    indices = np.concatenate(seen)
    by_id = {c.id: c for c in candidates}
    ref = tallies.get(reference) if reference else None
    evaluations = [
        _evaluation(by_id[id], tally, images, indices, len(pictures.skipped), reference if ref else None, ref)
        for id, tally in tallies.items()
    ]
    return evaluations, failures


def _count(outputs: Mapping[str, np.ndarray], tallies: Mapping[str, _Tally], reference: str | None) -> None:
    base = outputs.get(reference) if reference else None
    base_logits = None if base is None or not np.isfinite(base).all() else centred_logits(base)
    for id, y in outputs.items():  # (n, classes)
        tally = tallies[id]
        finite = np.isfinite(y)
        answered = finite.all(axis=1)
        tally.nonfinite_outputs += int((~finite).sum())
        tally.nonfinite_images += int((~answered).sum())
        order = np.argsort(-y, axis=1, kind="stable")[:, :5]  # ties: the lower index first, as argmax has it
        sure = np.take_along_axis(y, order[:, :1], axis=1)[:, 0]
        order = np.where(answered[:, None], order, NO_ANSWER)
        tally.top1.append(order[:, 0])
        tally.top5.append(order)
        tally.confidence.append(np.where(answered, sure, 0))
        if base is not None and tally.on_device:
            _count_bits(y, base, tally)
        if base_logits is not None and id != reference and not tally.eight_bit and answered.all():
            tally.signal += float(np.square(base_logits).sum())
            tally.noise += float(np.square(centred_logits(y) - base_logits).sum())


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


def _evaluation(
    c: Candidate,
    tally: _Tally,
    images: ImageSet,
    indices: np.ndarray,
    n_skipped: int,
    reference: str | None,
    ref: _Tally | None,
) -> Evaluation:
    labels = np.array([-1 if images.labels[i] is None else images.labels[i] for i in indices])
    labelled = labels >= 0
    top1, top5 = np.concatenate(tally.top1), np.concatenate(tally.top5)
    right = _right(as_labels(top1, images), labels)
    n, n_labelled = len(indices), int(labelled.sum())
    hits, hits5 = int(right.sum()), int(_right(as_labels(top5, images), labels[:, None]).any(axis=1).sum())
    compared = _compared(tally, images, indices, labels, ref) if ref is not None and reference != c.id else {}
    warnings = []
    if n_labelled == 0:
        warnings.append(Warning("no-labels", "no labels: agreement is measured, accuracy is not"))
    if images.groups:
        text = f"right is each class that the folder stands for in the class map: {class_map_text(images.groups)}"
        warnings.append(Warning("class-map", text, len(images.groups)))
    if tally.eight_bit:
        text = "the output has 8 bits: ties are broken by the lower index, and logits cannot be compared"
        warnings.append(Warning("8-bit-output", text))
    if bad := tally.nonfinite_images:
        text = f"answers of NaN or infinity on {bad} of {n} pictures: these count as wrong"
        warnings.append(Warning("nonfinite-outputs", text, bad))
    return Evaluation(
        artifact=c.id,
        images=images.fingerprint,
        n_images=n,
        n_labelled=n_labelled,
        n_skipped=n_skipped,
        top1=hits / n_labelled if n_labelled else None,
        top1_ci95=wilson(hits, n_labelled) if n_labelled else None,
        top5=hits5 / n_labelled if n_labelled else None,
        top5_ci95=wilson(hits5, n_labelled) if n_labelled else None,
        runtime=tally.runtime,
        artifact_sha256=c.sha256,
        reference=reference if compared else None,
        classes=_by_class(labels[labelled], labels[right]),
        confusions=_confusions(labels[labelled & ~right], top1[labelled & ~right]),
        nonfinite_outputs=tally.nonfinite_outputs,
        nonfinite_images=tally.nonfinite_images,
        warnings=tuple(warnings),
        outputs_compared=tally.n_outputs,
        outputs_differing=tally.differing if tally.on_device else None,
        largest_difference=tally.largest if tally.on_device and math.isfinite(tally.largest) else None,
        **compared,
    )


def _right(answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return where an answer is its picture's label; a picture without one, -1, has no right answer."""
    return (answers == labels) & (labels >= 0)


def _compared(tally: _Tally, images: ImageSet, indices: np.ndarray, labels: np.ndarray, ref: _Tally) -> dict[str, Any]:
    """Return the fields of an Evaluation that compare a file with the reference on the same pictures."""
    top1, ref_top1 = np.concatenate(tally.top1), np.concatenate(ref.top1)
    right, ref_right = (_right(as_labels(of, images), labels) for of in (top1, ref_top1))
    n, n_labelled = len(indices), int((labels >= 0).sum())
    same = int(((top1 == ref_top1) & (top1 != NO_ANSWER)).sum())
    is_fixed, is_broken = right & ~ref_right, ~right & ref_right
    finite = not tally.nonfinite_outputs and not ref.nonfinite_outputs
    compared: dict[str, Any] = {
        "agreement": same / n,
        "agreement_ci95": wilson(same, n),
        "sqnr_db": sqnr_db(tally.signal, tally.noise) if finite else None,
        "flips": _flips(images, indices, tally, ref, ref_top1, top1),
    }
    if n_labelled:
        fixed, broken = int(is_fixed.sum()), int(is_broken.sum())
        compared |= {
            "top1_drop": (broken - fixed) / n_labelled,
            "top1_drop_ci95": paired_difference(broken, fixed, n_labelled),
            "flips_fixed": fixed,
            "flips_broken": broken,
            "mcnemar_p": mcnemar(fixed, broken),
            "class_flips": _by_class(labels[is_fixed], labels[is_broken]),
        }
    return compared


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


def _flips(
    images: ImageSet, indices: np.ndarray, tally: _Tally, ref: _Tally, ref_top1: np.ndarray, top1: np.ndarray
) -> tuple[Flip, ...]:
    """The pictures whose class changed, worst first: broken ones, then those that the reference was surest of.

    Where several classes are right for a folder, a change among them is none.
    """
    sure, now_sure = np.concatenate(ref.confidence), np.concatenate(tally.confidence)
    was, now = as_labels(ref_top1, images), as_labels(top1, images)
    flips = []
    for k, i in enumerate(indices):
        if was[k] != now[k]:
            label, before, after = images.labels[i], int(ref_top1[k]), int(top1[k])
            right = before if was[k] == label else after if now[k] == label else label
            flips.append(Flip(images.files[i], right, before, after, float(sure[k]), float(now_sure[k])))
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
