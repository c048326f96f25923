"""What the paper's tables are made of: plain values, of which each figure says where it comes from."""

from dataclasses import dataclass

from edgenet.report.formatting import MISSING
from edgenet.results import Evaluation, Results
from edgenet.results.records import Counts

MEASURED, COMPUTED, QUOTED, NOTHING = "measured", "computed", "quoted", ""


@dataclass(frozen=True)
class Cell:
    """A figure: its value in the column's unit, how it is written, and where it comes from."""

    text: str
    kind: str = NOTHING  # measured | computed | quoted, "" for words
    value: float | None = None
    note: str = ""  # a second, smaller line


@dataclass(frozen=True)
class Table:
    """A table of the page. The first cell of a row names it."""

    id: str
    title: str
    lead: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


def top1(results: Results, id: str) -> Cell:
    """Return what a file's accuracy was measured to be, with its interval and of how many pictures."""
    e: Evaluation | None = next((e for e in results.evaluations if e.artifact == id), None)
    if e is None or e.top1 is None:
        return Cell(MISSING)
    interval = f"{e.top1_ci95[0] * 100:.1f} to {e.top1_ci95[1] * 100:.1f}" if e.top1_ci95 else ""
    return Cell(f"{e.top1 * 100:.1f} %", MEASURED, e.top1 * 100, f"{interval}, {e.n_labelled} pictures")


def quoted(printed: str | None, unit: str) -> Cell:
    """Return a published figure as it was printed."""
    if not printed:
        return Cell(MISSING)
    return Cell(f"{printed} {unit}", QUOTED, float(printed))


def counted(count: Counts | None, what: str, unit: float, name: str) -> Cell:
    """Return a count of a network in a larger unit."""
    if count is None:
        return Cell(MISSING)
    value = getattr(count, what) / unit
    return Cell(f"{value:.2f} {name}" if value < 10 else f"{value:.1f} {name}", COMPUTED, value)
