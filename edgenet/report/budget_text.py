"""The search for a budget in words and rows: the same for the terminal and for the page."""

import math
import shlex
from collections.abc import Sequence

from edgenet.report.formatting import MISSING, counted, decibels, megabytes, milliseconds, number, percent
from edgenet.results.records import CANNOT_TELL, FAILED, MET, MISSED, SearchRecord, SearchStep, verdict_of

IN_WORDS = {MET: "within", CANNOT_TELL: "cannot tell", MISSED: "over", FAILED: "failed"}
LIMITS_NOTE = (
    "The limits are those of the loss. They hold for all steps together, so they are wider than the 95 % interval of "
    "one file, and each step's are a little wider than the last's. A file meets the budget where its upper limit does."
)
CHOICE_NOTE = "The file was chosen by the same pictures that measure it: on others it may lose a little more."


def titles(s: SearchRecord) -> tuple[str, ...]:
    """Return the names of the columns, the step's first."""
    return ("Step", "Points lost", *(("Limits",) if _has_limits(s) else ()), "Agreement", "SQNR", "Median", "Size")


def figures(s: SearchRecord, step: SearchStep) -> tuple[str, ...]:
    """Return what a step cost, a text for each column but the first."""
    limits = (_limits(step),) if _has_limits(s) else ()
    return (
        _points(_loss(step)),
        *limits,
        percent(step.agreement),
        decibels(step.sqnr_db),
        milliseconds(step.median_ms),
        megabytes(step.size_bytes) if step.size_bytes else MISSING,
    )


def outcome(s: SearchRecord) -> str:
    """Return in a few sentences whether the budget was met, by which step, and how sure that is."""
    kept, n = s.kept, len(s.steps)
    if kept is None:  # results of an earlier version do not name the step
        return "The budget is met." if verdict_of(s) == MET else "No file meets the budget."
    what = f"{kept.what if kept.exceptions else 'the file without a budget'} ({_measured(s, kept)})"
    which = f"Step {kept.n} of {n} was kept: {what}."
    needed = rounded_up(kept.pictures_needed) if kept.pictures_needed else ""
    if verdict_of(s) == MET:
        return f"The budget is met. {which}"
    if verdict_of(s) == CANNOT_TELL:
        cannot = "1 picture cannot" if kept.n_images == 1 else f"{number(kept.n_images, 0)} pictures cannot"
        would = (
            f"About {needed} would tell."
            if needed
            else "The loss lies at the budget: no number of pictures would tell."
        )
        return f"{cannot} tell whether the budget is met. {which} {would}"
    nearest = f"The nearest was kept, step {kept.n} of {n}: {what}." if n > 1 else which
    doubt = f" It may be within all the same: about {needed} pictures would tell." if needed else ""
    return f"No file meets the budget. {nearest}{doubt}"


def repeated(keep: Sequence[str]) -> str:
    """Return the options that ask for a mixture, as a shell takes them."""
    return " ".join(f"--keep {shlex.quote(text)}" for text in keep)


def note(s: SearchRecord) -> str:
    """Return what to know of the table's figures."""
    kept = s.kept
    limits = LIMITS_NOTE if _has_limits(s) else ""
    return f"{limits} {CHOICE_NOTE}".strip() if kept is not None and kept.n > 1 else limits


def _measured(s: SearchRecord, step: SearchStep) -> str:
    if s.min_sqnr_db is not None or step.limits is None:
        return decibels(step.sqnr_db) if step.sqnr_db is not None else f"{_points(_loss(step))} points lost"
    on = f" on {counted(step.n_images, 'picture')}" if step.n_images else ""
    points = "points lost" if step.drop is not None else "points of agreement lost"
    return f"{_points(_loss(step))} {points}{on}, {_limits(step)} by its limits"


def rounded_up(n: int) -> str:
    """Return a number with two significant digits, never less than it is: 2,284 becomes "2,300"."""
    unit = 10 ** max(len(str(n)) - 2, 0)
    return f"{math.ceil(n / unit) * unit:,}"


def _has_limits(s: SearchRecord) -> bool:
    return any(step.limits for step in s.steps)


def _loss(step: SearchStep) -> float | None:
    if step.drop is None and step.agreement is not None:
        return 1 - step.agreement
    return step.drop


def _points(fraction: float | None) -> str:
    """A difference in points. Budgets are of half a point and less, hence two decimals."""
    return number(None if fraction is None else fraction * 100, 2)


def _limits(step: SearchStep) -> str:
    return MISSING if step.limits is None else f"{_points(step.limits[0])} to {_points(step.limits[1])}"
