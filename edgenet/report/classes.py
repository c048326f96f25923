"""The section on single classes: which are recognized worst, what changed there, and what is taken for what.

A class with few pictures tells nothing: the interval of ten already spans half of everything. Such classes are counted
and not listed, so that no table shows 0 % and 100 % where a single picture decides.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from edgenet.evaluate import paired_difference, wilson
from edgenet.report.formatting import MISSING, counted, interval, number, percent, points
from edgenet.report.pieces import Cell, Line, Table, table, two_lines
from edgenet.report.plots.confusion import Matrix, is_whole, matrix
from edgenet.report.rows import Row
from edgenet.report.view import View
from edgenet.results import Evaluation
from edgenet.results.records import Measures

FEWEST = 10  # pictures of a class that is listed; at ten a 95 % interval can span 53 points already
_ALL_OF = 12  # classes or fewer are listed whole
_WORST, _CHANGED, _CONFUSED = 8, 4, 6


@dataclass(frozen=True)
class Classes:
    """The section; `notes` say what is left out, and how to read the rest."""

    lead: str
    table: Table | None
    confusions: Table | None
    notes: tuple[str, ...]
    matrix: Matrix | None = None


class _Class(NamedTuple):
    """What is known of one class."""

    label: int
    n: int
    right: int
    float_right: int | None  # of the float32 file, None where it is the file itself or there is none
    fixed: int
    broken: int


def classes(view: View) -> Classes | None:
    """The worst classes of the file that the page is about, beside float32, and its most frequent confusions."""
    r = _file(view)
    e = r.evaluation if r else None
    if r is not None and e is not None and e.measures is not None and e.measures.labels:
        return _labels(view, r, e.measures)
    if r is None or e is None or not e.classes:
        return None
    base = view.baseline.evaluation if view.baseline and not r.is_baseline else None
    found = _counts(e, base)
    listed = [c for c in found if c.n >= FEWEST]
    confusions = _confusions(view, e, base)
    lead = f"{r.name}, class by class" + (", beside float32 on the same pictures." if base else ".")
    notes = _notes(found, listed, confusions, base is not None)
    return Classes(lead, _table(view, listed, base is not None), confusions, notes, matrix(view, e, base))


def _labels(view: View, r: Row, m: Measures) -> Classes:
    """Every label that occurs, those that are found worst first."""
    base = view.baseline.evaluation if view.baseline and not r.is_baseline else None
    of_base = {own.label: own for own in base.measures.labels} if base and base.measures else {}
    lines = []
    for own in sorted(m.labels, key=lambda own: (own.average_precision or 0.0, own.label)):
        other = of_base.get(own.label)
        lines.append(
            Line((
                Cell(view.class_name(own.label)),
                Cell(str(own.n)),
                two_lines(number(own.average_precision, 3), number(other.average_precision, 3) if other else ""),
                two_lines(number(own.f1, 3), number(other.f1, 3) if other else ""),
                Cell(MISSING if own.changed is None else str(own.changed)),
            ))
        )  # fmt: skip
    lead = f"{r.name}, label by label" + (", float32 in small print." if of_base else ".")
    titles = ("Label", "Pictures", "Average precision", "F1", "Decisions changed")
    notes = (f"F1 and the decisions are those at a score of {m.threshold:g}.",) if m.threshold is not None else ()
    return Classes(lead, table("", titles, lines), None, notes)


def _file(view: View) -> Row | None:
    """The file that the page is about; where that is float32 or none, the first int8 file: what would it have cost?"""
    evaluated = [r for r in view.rows if r.evaluation]
    int8 = [r for r in evaluated if r.artifact.precision == "int8"]
    chosen = [view.chosen] if view.chosen and not view.chosen.is_baseline else []
    return next(iter([*chosen, *int8, *evaluated]), None)


def _counts(e: Evaluation, base: Evaluation | None) -> list[_Class]:
    """Every class with a picture, the least accurate first."""
    of_base: Mapping[str, tuple[int, int]] = base.classes if base and base.images == e.images else {}
    found = []
    for label, (n, right) in e.classes.items():
        fixed, broken = e.class_flips.get(label, (0, 0))
        float_right = of_base[label][1] if label in of_base else None
        found.append(_Class(int(label), n, right, float_right, fixed, broken))
    return sorted(found, key=lambda c: (c.right / c.n, c.label))


def _table(view: View, listed: list[_Class], compared: bool) -> Table | None:
    if not listed:
        return None
    titles = ("Class", "Right", "Pictures", *(("In float32", "Points lost", "Fixed / broken") if compared else ()))
    if len(listed) <= _ALL_OF:
        return table("Every class, the least accurate first", titles, [_line(view, c, compared) for c in listed])
    worst = listed[:_WORST]
    changed = sorted((c for c in listed if c.broken > c.fixed and c not in worst), key=lambda c: c.fixed - c.broken)
    groups = {"Least accurate": worst, "Lost most against float32": changed[:_CHANGED]}
    lines = {name: [_line(view, c, compared) for c in some] for name, some in groups.items() if some}
    return Table(f"The least accurate of {_classes(len(listed))}", titles, lines)


def _line(view: View, c: _Class, compared: bool) -> Line:
    cells = [
        Cell(view.label_name(c.label)),
        two_lines(percent(c.right / c.n), interval(wilson(c.right, c.n))),
        Cell(f"{c.right} of {c.n}"),
    ]
    if compared:
        lost = two_lines(points((c.broken - c.fixed) / c.n), interval(paired_difference(c.broken, c.fixed, c.n)))
        was = MISSING if c.float_right is None else f"{c.float_right} of {c.n}"
        cells += [Cell(was), lost, Cell(f"{c.fixed} / {c.broken}")]
    return Line(tuple(cells))


def _confusions(view: View, e: Evaluation, base: Evaluation | None) -> Table | None:
    """What is taken for what more than once: a single picture may be wrong for any reason."""
    often = [c for c in e.confusions if c.n > 1][:_CONFUSED]
    if not often:
        return None
    by_float = {(c.label, c.answer): c.n for c in base.confusions} if base else {}
    unknown = MISSING if base and not is_whole(base) else "0"
    titles = ("Pictures of", "Taken for", "Pictures", "Share", *(("In float32",) if base else ()))
    lines = []
    for c in often:
        n = e.classes[str(c.label)][0]
        cells = [
            Cell(view.label_name(c.label)),
            Cell(view.class_name(c.answer)),
            Cell(f"{c.n} of {n}"),
            two_lines(percent(c.n / n, 0), interval(wilson(c.n, n))),
        ]
        if base:
            cells.append(Cell(str(by_float.get((c.label, c.answer), unknown))))
        lines.append(Line(tuple(cells)))
    return table("The most frequent confusions", titles, lines)


def _classes(n: int) -> str:
    return "1 class" if n == 1 else f"{n} classes"


def _notes(found: list[_Class], listed: list[_Class], confusions: Table | None, compared: bool) -> tuple[str, ...]:
    out = []
    if not listed:
        most = max(c.n for c in found)
        has = f"has {counted(most, 'picture')}" if len(found) == 1 else f"has more than {counted(most, 'picture')}"
        who = "Its only class" if len(found) == 1 else f"None of the {len(found)} classes"
        out.append(
            f"{who} {has} that measure{'s' * (most == 1)}: too few to tell one class from another. "
            f"From {FEWEST} pictures a class on, the worst are listed here."
        )
    elif len(listed) < len(found):
        left = _classes(len(found) - len(listed))
        out.append(f"Left out: {left} with fewer than {FEWEST} pictures, which cannot tell much of a class.")
    if listed:
        out.append("In small print: 95 % intervals.")
    if len(listed) > _ALL_OF:
        out.append("The worst of many classes are partly so by chance.")
    if listed and compared:
        out.append("Fixed: wrong in float32, right in this file; broken: the other way round.")
    if not confusions:
        out.append("No wrong answer was given to two pictures of one class.")
    return tuple(out)
