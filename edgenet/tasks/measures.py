"""What the kinds of classifier are measured by beside the share of right answers, of one file and against another."""

from collections.abc import Callable

import numpy as np

from edgenet.results.records import Figure, LabelMeasure, Measures
from edgenet.tasks.statistics import Z95, Ranked, f1, interval_of, interval_of_difference, nearest, resampled
from edgenet.tasks.task import Task

MAX_NUMBERS = 2**24  # of one file that are kept for these measures: 64 MiB


def rows_of_yes(scores: np.ndarray, truth: np.ndarray, threshold: float) -> np.ndarray:
    """Return ROC AUC, average precision and F1 of answers of yes or no, and of each resample: (1 + resamples, 3).

    Args:
        scores: (N,) of yes, of the labelled pictures.
        truth: (N,) bool.
    """
    ranked, answers = Ranked.of(scores, truth), (scores > threshold)[:, None]
    return resampled(lambda w: np.array([*ranked.figures(w), f1(answers, truth[:, None], w)[0]]), len(truth))


def measures_of_yes(
    rows: np.ndarray, truth: np.ndarray, threshold: float, reference: np.ndarray | None = None
) -> Measures | None:
    """Return the measures of answers of yes or no; None where all pictures are of one kind.

    Args:
        rows: of `rows_of_yes`. `reference` those of the float32 file.
        truth: (N,) bool.
    """
    rarer = int(min(truth.sum(), (~truth).sum()))
    if rarer == 0:
        return None
    area, precision, harmonic = _figures(rows, reference, rarer)
    return Measures(len(truth), threshold, auc=area, average_precision=precision, f1=harmonic)


def rows_of_labels(scores: np.ndarray, truth: np.ndarray, threshold: float) -> np.ndarray:
    """Return mean average precision and mean F1 over the labels that occur, and the share of right decisions.

    (1 + resamples, 3): of the pictures, and of each resample.

    Args:
        scores: (N, L), of the labelled pictures.
        truth: (N, L) bool.
    """
    there = np.flatnonzero(truth.any(axis=0))  # a label that no picture has cannot be found
    right = ((scores > threshold) == truth).mean(axis=1)
    each = _each_label(scores, truth, threshold, there)

    def means(w: np.ndarray) -> np.ndarray:
        precision, harmonic = each(w)
        some = len(there) > 0 and bool(np.isfinite(precision).any())
        both = [np.nanmean(precision), np.nanmean(harmonic)] if some else [np.nan, np.nan]
        return np.array([*both, w @ right / w.sum()])

    return resampled(means, len(truth))


def measures_of_labels(
    rows: np.ndarray,
    scores: np.ndarray,
    truth: np.ndarray,
    threshold: float,
    reference: tuple[np.ndarray, np.ndarray] | None = None,
) -> Measures | None:
    """Return the measures of several labels a picture, and each label's own; None where no label occurs.

    Args:
        rows: of `rows_of_labels`.
        scores, truth: as there. `reference` rows and scores of the float32 file.
    """
    there = np.flatnonzero(truth.any(axis=0))
    if not len(there):
        return None
    rarest = int(truth[:, there].sum(axis=0).min())
    precision, harmonic, decisions = _figures(rows, reference[0] if reference else None, rarest)
    own, own_f1 = _each_label(scores, truth, threshold, there)(np.ones(len(truth)))
    changed = ((scores > threshold) != (reference[1] > threshold)).sum(axis=0) if reference else None
    labels = tuple(
        LabelMeasure(int(k), int(truth[:, k].sum()), float(a), float(f), None if changed is None else int(changed[k]))
        for k, a, f in zip(there, own, own_f1, strict=True)
    )
    return Measures(len(truth), threshold, average_precision=precision, f1=harmonic, decisions=decisions, labels=labels)


def _each_label(
    scores: np.ndarray, truth: np.ndarray, threshold: float, labels: np.ndarray
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return what gives average precision and F1 of each of these labels, for pictures that count so often each."""
    ranked = [Ranked.of(scores[:, k], truth[:, k]) for k in labels]
    answers, true = (scores > threshold)[:, labels], truth[:, labels]
    return lambda w: (np.array([r.figures(w)[1] for r in ranked]), f1(answers, true, w))


def measures_of_embeddings(vectors: np.ndarray, reference: np.ndarray) -> Measures:
    """Return how near a file's embeddings are to the float32 file's of the same pictures: (N, D) each, of length 1."""
    n = len(vectors)
    cosine = np.minimum(np.einsum("nd,nd->n", vectors.astype(np.float64), reference), 1.0)  # float32 ends at 1 + 1e-7
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


def _figures(own: np.ndarray, theirs: np.ndarray | None, trials: int) -> list[Figure]:
    """Return each figure of some rows, with its interval, and its drop below the reference's."""
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
