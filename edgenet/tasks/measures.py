"""What the kinds of classifier are measured by beside the share of right answers, of one file and against another."""

from collections.abc import Callable

import numpy as np

from edgenet.records import Figure, LabelMeasure, Measures
from edgenet.tasks.statistics import Z95, Ranked, f1, interval_of, interval_of_difference, nearest, resampled
from edgenet.tasks.task import Task

MAX_NUMBERS = 2**24  # of one file that are kept for these measures: 64 MiB


def measures_of_yes(
    scores: np.ndarray, truth: np.ndarray, threshold: float, reference: np.ndarray | None = None
) -> Measures | None:
    """Return ROC AUC, average precision and F1 of answers of yes or no; None where all pictures are of one kind.

    Args:
        scores: (N,) of yes, of the labelled pictures. `reference` those of the float32 file.
        truth: (N,) bool.
    """
    rarer = int(min(truth.sum(), (~truth).sum()))
    if rarer == 0:
        return None

    def statistic(of: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        ranked, answers = Ranked.of(of, truth), (of > threshold)[:, None]
        return lambda w: np.array([*ranked.figures(w), f1(answers, truth[:, None], w)[0]])

    area, precision, harmonic = _figures(statistic, scores, reference, rarer)
    return Measures(len(truth), threshold, auc=area, average_precision=precision, f1=harmonic)


def measures_of_labels(
    scores: np.ndarray, truth: np.ndarray, threshold: float, reference: np.ndarray | None = None
) -> Measures | None:
    """Return mean average precision and mean F1 over the labels that occur, the right decisions, and each label's own.

    Args:
        scores: (N, L), of the labelled pictures. `reference` those of the float32 file.
        truth: (N, L) bool.
    """
    there = np.flatnonzero(truth.any(axis=0))  # a label that no picture has cannot be found
    if not len(there):
        return None

    def each(of: np.ndarray) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, float]]:
        ranked = [Ranked.of(of[:, k], truth[:, k]) for k in there]
        answers = of > threshold
        right = (answers == truth).mean(axis=1)

        def figures(w: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
            precision = np.array([r.figures(w)[1] for r in ranked])
            return precision, f1(answers[:, there], truth[:, there], w), float(w @ right / w.sum())

        return figures

    def statistic(of: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        figures = each(of)

        def means(w: np.ndarray) -> np.ndarray:
            precision, harmonic, right = figures(w)
            some = bool(np.isfinite(precision).any())
            return np.array([np.nanmean(precision), np.nanmean(harmonic), right] if some else [np.nan, np.nan, right])

        return means

    rarest = int(truth[:, there].sum(axis=0).min())
    precision, harmonic, decisions = _figures(statistic, scores, reference, rarest)
    own, own_f1, _ = each(scores)(np.ones(len(truth)))
    changed = None if reference is None else ((scores > threshold) != (reference > threshold)).sum(axis=0)
    labels = tuple(
        LabelMeasure(int(k), int(truth[:, k].sum()), float(a), float(f), None if changed is None else int(changed[k]))
        for k, a, f in zip(there, own, own_f1, strict=True)
    )
    return Measures(len(truth), threshold, average_precision=precision, f1=harmonic, decisions=decisions, labels=labels)


def measures_of_embeddings(vectors: np.ndarray, reference: np.ndarray) -> Measures:
    """Return how near a file's embeddings are to the float32 file's of the same pictures: (N, D) each, of length 1."""
    n = len(vectors)
    cosine = np.einsum("nd,nd->n", vectors.astype(np.float64), reference)
    mean = float(cosine.mean())
    half = Z95 * float(cosine.std(ddof=1)) / n**0.5 if n > 1 else 0.0
    found = nearest(vectors, reference, others=False)[0] == np.arange(n)
    recall = float(found.mean())
    interval = interval_of(np.full(2, recall), n)  # of a fraction: Wilson's
    return Measures(
        n,
        cosine=Figure(mean, (mean - half, min(1.0, mean + half))),
        cosine_least=float(cosine.min()),
        recall_at_1=Figure(recall, interval),
    )


def _figures(
    statistic: Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]],
    scores: np.ndarray,
    reference: np.ndarray | None,
    trials: int,
) -> list[Figure]:
    """Return each figure that a statistic has, with its interval, and its drop below the reference's."""
    own = resampled(statistic(scores), len(scores))
    theirs = None if reference is None else resampled(statistic(reference), len(scores))
    figures = []
    for k in range(own.shape[1]):
        lost, interval = None, None
        if theirs is not None:
            drops = theirs[:, k] - own[:, k]
            lost, interval = float(drops[0]), interval_of_difference(drops, trials)
        figures.append(Figure(float(own[0, k]), interval_of(own[:, k], trials), lost, interval))
    return figures


def signal_of(task: Task, outputs: np.ndarray) -> np.ndarray:
    """Return the numbers whose signal-to-noise ratio counts: the logits of sigmoids, an embedding as it is. (N, K)."""
    y = outputs.astype(np.float64)
    if task.kind == "embedding":
        return y
    p = np.clip(y, 2.0**-24, 1 - 2.0**-24)  # as near to 1 as float32 comes
    return np.log(p) - np.log1p(-p)
