"""Findings in words: a row of a table, and a sentence that says why something fails or cannot be told."""

import math
from collections.abc import Sequence

from edgenet.compare.nouns import (
    ACCURACY,
    CANNOT_TELL,
    LATENCY,
    MET,
    MISSED,
    OPERATORS,
    REFUSED,
    SHOWN,
    SIZE,
    Comparison,
    Finding,
)
from edgenet.report.formatting import MISSING, NBSP, counted, megabytes, milliseconds, number, percent

TITLES = ("file", "what", "was", "is", "worse by", "sure between", "at most", "answer")
VERDICTS = {MET: "fine", MISSED: "worse", CANNOT_TELL: "cannot tell", REFUSED: "not comparable", SHOWN: ""}
_MARKS = {MISSED: "worse", CANNOT_TELL: "not shown to be as good", REFUSED: "not comparable"}
_REFUSED = {
    "no-labels": "no picture has a label in one of the runs: accuracy is not known",
    "other-labels": "the same pictures have other labels in the two runs: evaluate both with the same labels",
    "not-evaluated": "{0} was not evaluated in {1}: run it there with labelled pictures",
    "not-measured": "{0} was not measured in {1}, or on another device or runtime: give --remeasure",
    "failed": "{0} failed at {2}: {3}",
    "other-machine": "measured on two machines ({0}; {1}): give --remeasure, which times both here",
    "unknown-machine": "one of the runs does not say on which machine it was measured: give --remeasure",
    "other-clock": "the clock ran at {0} and at {1}: give --remeasure",
    "other-settings": "measured in two ways ({0}; {1}): measure both alike, or give --remeasure",
    "unsteady": "{0}: {1}; measure again, or give --remeasure",
    "few-runs": "too few runs to tell how sure the times are: give --remeasure",
    "unknown": "no size is known",
}


def name_of(f: Finding) -> str:
    """Return the file, and the device where it is not this machine."""
    return f.file + (f" on {f.device}" if f.device else "")


def row(f: Finding) -> tuple[str, ...]:
    """Return the cells of a finding, in the order of TITLES."""
    name = f"{name_of(f)} (was {f.old_file})" if f.old_file and f.old_file != f.file else name_of(f)
    answer = VERDICTS[f.verdict]
    if f.aspect == OPERATORS:
        return (name, f.aspect, MISSING, MISSING, MISSING, MISSING, MISSING, "changed")
    figures = (value(f, f.old), value(f, f.new), change(f, f.change), between(f), change(f, f.limit))
    return (name, f.aspect, *figures, answer)


def value(f: Finding, x: float | None) -> str:
    """Return what was measured, with its unit."""
    if x is None:
        return MISSING
    if f.aspect == SIZE and x < 1e6:
        return f"{x / 1e3:.1f}{NBSP}kB"
    if f.aspect == ACCURACY:
        return percent(x)
    return milliseconds(x) if f.aspect == LATENCY else megabytes(x)


def change(f: Finding, x: float | None) -> str:
    """Return how much worse something is: points of accuracy, per cent of time or size."""
    if x is None:
        return MISSING
    return f"{number(100 * x, 2)}{NBSP}points" if f.aspect == ACCURACY else f"{number(100 * x, 1)}{NBSP}%"


def between(f: Finding) -> str:
    """Return the interval of the change, without the unit."""
    if f.confidence is None or f.low is None:
        return MISSING
    digits = 2 if f.aspect == ACCURACY else 1
    high = "any" if f.high is None else number(100 * f.high, digits)
    return f"{number(100 * f.low, digits)} to {high}"


def sentence(f: Finding) -> str:
    """Return what a finding says, in one line: figures, how sure, and what to do where nobody can tell."""
    return f"{name_of(f)}: {_said(f)}"


def _said(f: Finding) -> str:
    if f.aspect == OPERATORS:
        return _operators(f)
    if f.how in _REFUSED and f.verdict in (REFUSED, MISSED, SHOWN):
        return f"{f.aspect}: " + _REFUSED[f.how].format(*f.said)
    if f.how == "same-file":
        return f"{f.aspect}: it is the same file, byte for byte"
    parts = [f"{f.aspect} {value(f, f.old)} → {value(f, f.new)}, {_worse(f)}{_sure(f)}"]
    if f.limit is not None:
        parts.append(f"at most {change(f, f.limit)} allowed")
    if f.verdict == CANNOT_TELL:
        parts.append(f"cannot tell: {_would_tell(f)}")
    return "; ".join(parts)


def _worse(f: Finding) -> str:
    x = f.change or 0.0
    if f.aspect == ACCURACY:
        return f"{number(100 * abs(x), 2)} points {'lost' if x >= 0 else 'won'}"
    better, worse = {LATENCY: ("faster", "slower"), SIZE: ("smaller", "larger")}[f.aspect]
    return f"{number(100 * abs(x), 1)}{NBSP}% {worse if x >= 0 else better}"


def _sure(f: Finding) -> str:
    if f.confidence is None:
        return ""
    what = {
        "paired": f"{counted(f.n or 0, 'picture')} that both answered: {f.lost} lost, {f.won} won",
        "intervals": f"{counted(f.n or 0, 'picture')}, which cannot be paired",
        "rounds": f"{counted(f.n or 0, 'round')} side by side",
        "two-runs": "two runs at different times",
    }[f.how]
    return f" ({number(100 * f.confidence, 1)}{NBSP}% interval {between(f)}; {what})"


def _would_tell(f: Finding) -> str:
    if f.how == "two-runs":
        return "two runs at different times cannot be told apart by so little; --remeasure times both side by side"
    noun = "picture" if f.aspect == ACCURACY else "second"
    if f.needed is None:
        return f"it lies too near to the limit for any number of {noun}s"
    if f.how == "rounds":
        return f"about {f.needed:,} seconds of each file would tell: give --time {_time(f.needed)}"
    more = f"about {max(f.needed - (f.n or 0), 1):,} more pictures would tell"
    return more + (", fewer where both files answer the same ones" if f.how == "intervals" else "")


def _time(seconds: int) -> str:
    return f"{seconds}s" if seconds <= 120 else f"{math.ceil(seconds / 60)}m"


def _operators(f: Finding) -> str:
    if f.how == "precision":
        each = [f"{counted(c.n, _kind(c.kind))} in {c.now}, before in {c.was}" for c in f.changes]
        return "operators: " + "; ".join(each)
    each = [f"{counted(c.n, _kind(c.kind))} left {c.was} for {c.now}" for c in f.changes]
    return "operators: " + "; ".join(each)


def _kind(kind: str) -> str:
    return kind or "operator"


def reason(f: Finding) -> str:
    """Return why a finding fails, in one line."""
    return f"{_MARKS.get(f.verdict, 'changed')}: {sentence(f)}"


def warnings(c: Comparison) -> tuple[str, ...]:
    """Return what fails nothing and has to be known all the same, a line each."""
    passed = [f for f in c.findings if not f.fails]
    known = [f for f in passed if f.verdict in (CANNOT_TELL, REFUSED) or f.aspect == OPERATORS or f.how == "failed"]
    alone = [f"only in {name}: {', '.join(ids)}" for name, ids in ((c.old, c.only_old), (c.new, c.only_new)) if ids]
    return (*map(sentence, known), *alone)


def headline(c: Comparison) -> str:
    """Return the outcome in a line."""
    if c.failed:
        return f"{c.new} fails against {c.old}: {counted(len(c.failed), 'reason')}"
    asked = [f for f in c.findings if f.limit is not None]
    if not asked:
        return f"{c.new} beside {c.old}; no limit was given, so nothing can fail"
    unclear = sum(f.verdict in (CANNOT_TELL, REFUSED) for f in asked)
    if unclear:
        several = f"{unclear} of {counted(len(asked), 'answer')} cannot tell"
        return f"{c.new} is not shown to be worse than {c.old}; {several}"
    return f"{c.new} is as good as {c.old}, within the limits"


def rows(findings: Sequence[Finding]) -> list[tuple[str, ...]]:
    """Return the table."""
    return [row(f) for f in findings]
