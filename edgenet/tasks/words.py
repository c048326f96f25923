"""What the figures of each kind of classifier are called, wherever they are shown."""

from collections.abc import Iterator
from dataclasses import dataclass

from edgenet.results.records import Figure, Measures

NBSP = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Words:
    """Names for one task.

    Attributes:
        right: the share of the labelled pictures with a right answer; within a sentence.
        title: the same at the head of a column or tile.
        answer: what two files may have in common on a picture.
    """

    right: str
    title: str
    answer: str


WORDS = {
    "classes": Words("top-1", "Top-1", "top-1"),
    "binary": Words("accuracy", "Accuracy", "answer"),
    "labels": Words("exact match", "Exact match", "labels"),
    "embedding": Words("recall@1", "Recall@1", "nearest picture"),
}


def figures_of(m: Measures | None) -> Iterator[tuple[str, Figure]]:
    """Yield the name and the value of each figure that is there."""
    if m is None:
        return
    several = bool(m.labels)
    named = (
        ("ROC AUC", m.auc),
        ("mean average precision" if several else "average precision", m.average_precision),
        ("mean F1" if several else "F1", m.f1),
        ("labels right one by one", m.decisions),
        ("cosine with float32", m.cosine),
        ("nearest to its own float32 embedding", m.recall_at_1),
    )
    for name, value in named:
        if value is not None:
            yield name, value


def figure(f: Figure) -> str:
    """Return a figure with its interval: "0.9897 (95 %: 0.9819 to 0.9957)"."""
    low, high = f.ci95
    return f"{f.value:.4f} (95{NBSP}%: {low:.4f} to {high:.4f})"
