"""The confusion matrix of a file beside float32's: how many pictures of each class got which answer.

Up to 120 classes are shown whole, of more those that take part in the most frequent confusions. What was answered
beyond the classes that are shown stands in a last column, so that each row adds up to the pictures of its class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from edgenet.report.formatting import counted
from edgenet.report.view import View
from edgenet.results import NO_ANSWER, Evaluation

MOST_CLASSES = 120
_OF_MORE = 20  # classes that are shown of more than that
_WIDE = 24  # columns: more do not fit on paper
_HEAT = (0.0, 0.05, 0.1, 0.2, 0.4, 1.01)  # shares of a class's pictures, where the next colour begins
_OTHER = -2  # stands for the answers that have no column


@dataclass(frozen=True)
class Count:
    """A cell: `change` is what it has more than float32, "" where that is as many or not known."""

    text: str
    change: str = ""
    said: str = ""  # in words
    kind: str = ""  # CSS class: right, h1 to h5


@dataclass(frozen=True)
class Matrix:
    """The matrix; a row is the name of a class and its cells."""

    summary: str
    caption: str
    titles: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Count, ...]], ...]
    wide: bool
    notes: tuple[str, ...]


def matrix(view: View, e: Evaluation, base: Evaluation | None) -> Matrix | None:
    """Return the matrix of an evaluation; None where nothing was confused, or there is one class.

    Args:
        base: of the float32 file, None where `e` is of that file or there is none.
    """
    if base is not None and (base.images != e.images or not base.classes):
        base = None
    whole = len(e.classes) <= MOST_CLASSES
    shown = sorted(map(int, e.classes)) if whole else _most_confused(e)
    if len(shown) < 2 or not (e.confusions or (base and base.confusions)):
        return None
    labels = [k for k in shown if str(k) in e.classes]
    ours, theirs = _counts(e, labels, shown), _counts(base, labels, shown) if base else None
    found = (ours, theirs or {})
    extra = [a for a in (_OTHER, NO_ANSWER) if any(c[k].get(a) for c in found for k in labels if k in c)]
    columns = [*shown, *extra]
    rows = tuple(
        (view.label_name(k), tuple(_cell(view, k, a, ours[k], theirs[k] if theirs else None) for a in columns))
        for k in labels
    )
    names = {_OTHER: "another class", **{a: view.class_name(a) for a in columns if a != _OTHER}}
    what = f"all {len(labels)} classes" if whole else f"the {len(shown)} classes that are confused most"
    return Matrix(
        summary=f"Confusion matrix of {what}",
        caption="A row is what the pictures show, a column what the file takes them for.",
        titles=tuple(names[a] for a in columns),
        rows=rows,
        wide=len(columns) > _WIDE,
        notes=_notes(e, base, whole),
    )


def is_whole(e: Evaluation) -> bool:
    """Return whether every wrong answer is among the confusions, none left out as rare."""
    return sum(c.n for c in e.confusions) == sum(n - right for n, right in e.classes.values())


def _most_confused(e: Evaluation) -> list[int]:
    """Return classes of the most frequent confusions; a single picture may be wrong for any reason."""
    found: dict[int, None] = {}
    for c in e.confusions:
        pair = [c.label, *([] if c.answer == NO_ANSWER else [c.answer])]
        if c.n < 2 or len({*found, *pair}) > _OF_MORE:
            break
        found |= dict.fromkeys(pair)
    return sorted(found)


def _counts(e: Evaluation, labels: Sequence[int], shown: Sequence[int]) -> dict[int, dict[int, int]]:
    """Return label -> answer -> pictures; every picture of the label is in it once."""
    columns = {*shown, NO_ANSWER}
    counts = {k: {k: e.classes.get(str(k), (0, 0))[1]} for k in labels}
    for c in e.confusions:
        if c.label in counts and c.answer in columns:
            counts[c.label][c.answer] = c.n
    for k, row in counts.items():
        row[_OTHER] = e.classes.get(str(k), (0, 0))[0] - sum(row.values())
    return counts


def _cell(view: View, label: int, answer: int, row: Mapping[int, int], of_float: Mapping[int, int] | None) -> Count:
    n, was = row.get(answer, 0), None if of_float is None else of_float.get(answer, 0)
    if not n and not was:
        return Count("")
    total = max(sum(row.values()), 1)
    name = view.label_name(label)
    taken = "another class" if answer == _OTHER else view.class_name(answer)
    said = f"{n} of {counted(total, 'picture')} of {name} " + ("right" if answer == label else f"taken for {taken}")
    if was is not None:
        said += f"; float32: {was}"
    change = "" if was is None or was == n else f"{n - was:+d}".replace("-", "−")
    level = next(i for i, (low, high) in enumerate(pairwise(_HEAT), 1) if low <= n / total < high)
    return Count(str(n), change, said, "right" if answer == label else f"h{level}" if n else "")


def _notes(e: Evaluation, base: Evaluation | None, whole: bool) -> tuple[str, ...]:
    out = ["The redder a cell, the larger its part of the pictures of its row; an empty cell is 0."]
    if base is not None:
        out.append("In small print: how many more or less than in float32.")
    if whole and not (is_whole(e) and (base is None or is_whole(base))):
        out.append("The rarest confusions are counted as another class: the results keep the most frequent.")
    return tuple(out)
