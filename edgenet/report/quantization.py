"""The sections of the page that show how quantized files came about: the calibration, and the search for a budget.

Both draw from the records of a run's context (records.py); what was not noted is not drawn.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgenet.export.other_precisions import WHY
from edgenet.report import budget_text
from edgenet.report.formatting import FORMAT_NAMES, counted, decibels, number, percent
from edgenet.report.pieces import Cell, Chip, Figure, Line, Table, table
from edgenet.report.plots import bars as bar_plots
from edgenet.report.plots.axes import for_both
from edgenet.report.view import View
from edgenet.results import OtherPrecision
from edgenet.results.records import (
    CANNOT_TELL,
    FAILED,
    MET,
    MISSED,
    CalibratedTensor,
    Finding,
    SearchRecord,
    SearchStep,
    verdict_of,
)

_SHOWN_HISTOGRAMS = 12
_SHOWN_LAYERS = 12
_CHIPS = {"danger": "bad", "warning": "warn"}
_VERDICT_CHIPS = {MET: "good", CANNOT_TELL: "warn", MISSED: "bad", FAILED: "bad"}

_IN_WORDS = {"weight-only": "int8 weights with float32 activations"}


@dataclass(frozen=True)
class ShownFinding:
    """What is wrong with the pictures, and what to do, as sentences."""

    chip: Chip
    message: str
    remedy: str


@dataclass(frozen=True)
class Histogram:
    """What was seen of an activation, and the range that was chosen."""

    name: str
    kind: str  # the operator that makes it
    drawing: Markup
    range: str
    numbers: str


@dataclass(frozen=True)
class CalibrationSection:
    """The section on the calibration; without ranges it has findings only."""

    lead: str
    findings: tuple[ShownFinding, ...]
    shown: tuple[Histogram, ...] = ()
    folded: tuple[Histogram, ...] = ()
    caption: str = ""
    others: Table | None = None  # what is not integer in the integer files


@dataclass(frozen=True)
class Mixed:
    """The operators that were kept in one other precision than int8."""

    operators: str
    precision: str
    names: str


@dataclass(frozen=True)
class ShownSearch:
    """How a budget was met in one format, or not."""

    title: str
    outcome: Chip
    sentence: str
    steps: Table | None
    note: str  # on the table's limits
    mixture: tuple[Mixed, ...]
    repeat: str  # the options that ask for the mixture
    sensitivity: Figure | None


@dataclass(frozen=True)
class SearchSection:
    """The section on the search for a budget."""

    all_met: bool
    searches: tuple[ShownSearch, ...]


def calibration(view: View) -> CalibrationSection | None:
    """What is wrong with the pictures, the activations' histograms with the range that was chosen for each, and which
    operators of the integer files compute in something else.
    """
    findings = tuple(_finding(f) for f in view.results.context.calibration_findings)
    others = _others(view)
    c = view.results.context.calibration
    used = {r.artifact.calibration for r in view.rows}
    if c is None or not c.tensors or c.fingerprint not in used:
        lead = "What a look at the pictures told, before they were used." if findings else ""
        return CalibrationSection(lead, findings, others=others) if findings or others else None
    tensors = sorted(c.tensors, key=_interest)
    shown, rest = tensors[:_SHOWN_HISTOGRAMS], tensors[_SHOWN_HISTOGRAMS:]
    lead = (
        f"The ranges of {counted(len(tensors), 'activation')}, measured once on {counted(c.n_images, 'picture')} and "
        f"used by every integer file. Method: {c.method}; corrections: {', '.join(c.corrections) or 'none'}."
    )
    cut = any(_cut(t) > 0 for t in tensors)
    what = "the ranges that cut off most come first" if cut else "no range cuts anything off; the widest come first"
    caption = (
        f"What the activations of the pictures were, in 64 bins, heights by logarithm; {what}. Tinted is the range "
        "that the 256 levels of int8 are laid over; what lies outside, in red, is clipped to its end."
    )
    return CalibrationSection(
        lead, findings, tuple(map(_histogram, shown)), tuple(map(_histogram, rest)), caption, others
    )


def _others(view: View) -> Table | None:
    """Return which operators of the integer files are not integer, why, and what they cost; like files share rows."""
    files: dict[tuple[tuple[Cell, ...], ...], list[str]] = {}
    timed = any(e.artifact == r.artifact.id for r in view.rows for e in view.results.explanations)
    for r in view.rows:
        rows = tuple(_other(view, r.artifact.id, o, timed) for o in r.artifact.other_precisions)
        if rows:
            files.setdefault(rows, []).append(r.name)
    if not files:
        return None
    titles = ("Operators", "Compute in", "Multiply-adds", *["Time"] * timed, "Why")
    groups = {", ".join(names): [Line(row) for row in rows] for rows, names in files.items()}
    which = next(iter(groups)) if len(groups) == 1 else "the integer files"
    return Table(f"What is not integer in {which}", titles, groups)


def _other(view: View, artifact: str, o: OtherPrecision, timed: bool) -> tuple[Cell, ...]:
    what = f"{len(o.operators)} {o.kind}" if len(o.operators) > 1 else o.kind
    names = o.operators[0] if len(o.operators) == 1 else f"{o.operators[0]} to {o.operators[-1]}"
    time = Cell(percent(_time_share(view, artifact, o)))
    why = f"{WHY[o.why][:1].upper()}{WHY[o.why][1:]}" if o.why in WHY else o.why
    share = Cell(percent(o.multiply_adds_share))
    return Cell(what, names), Cell(o.precision), share, *[time] * timed, Cell(why)


def _time_share(view: View, artifact: str, o: OtherPrecision) -> float | None:
    """Return the part of a file's time that these operators take, None where it was not measured one by one."""
    for e in view.results.explanations:
        found = [x.time_us for x in e.layers if x.name in o.operators]
        whole = sum(x.time_us for x in e.layers)
        if e.artifact == artifact and len(found) == len(o.operators) and whole:
            return sum(found) / whole
    return None


def _finding(f: Finding) -> ShownFinding:
    return ShownFinding(Chip(f.code, _CHIPS.get(f.severity, "")), _sentence(f.message), _sentence(f.remedy))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""


def _cut(t: CalibratedTensor) -> float:
    """The part of what was seen that the chosen range leaves out, of its width."""
    seen = t.seen_high - t.seen_low
    kept = min(t.high, t.seen_high) - max(t.low, t.seen_low)
    cut = 1 - kept / seen if seen > 0 else 0.0
    return cut if cut > 1e-3 else 0.0  # below that it is the histogram's own rounding


def _interest(t: CalibratedTensor) -> tuple[float, float]:
    return -_cut(t), t.low - t.high


def _histogram(t: CalibratedTensor) -> Histogram:
    chosen = f"{_short(t.low)} to {_short(t.high)}"
    seen = f"{_short(t.seen_low)} to {_short(t.seen_high)}"
    alt = f"{t.name}: {chosen} of {seen}"
    drawing = bar_plots.histogram(t.counts, (t.seen_low, t.seen_high), (t.low, t.high), alt)
    numbers = f"step {t.scale:.3g}, zero point {number(t.zero_point, 0)}"
    if _cut(t) and (share := _outside(t)) is not None:
        numbers += f", {share} cut"
    return Histogram(t.name, t.kind, drawing, f"{chosen}, of {seen} seen" if _cut(t) else chosen, numbers)


def _outside(t: CalibratedTensor) -> str | None:
    counts, n = t.counts, sum(t.counts)
    if not n:
        return None
    width = (t.seen_high - t.seen_low) / len(counts)
    centres = [t.seen_low + (i + 0.5) * width for i in range(len(counts))]
    share = sum(c for c, x in zip(counts, centres, strict=True) if not t.low <= x <= t.high) / n
    return percent(share) if share >= 0.0005 else f"less than {percent(0.001)}"


def _short(x: float) -> str:
    """A number with three digits, as an axis has it."""
    text = f"{x:.3g}" if abs(x) < 1000 else f"{x:.0f}"
    return "0" if float(text) == 0 else text.replace("-", "−")


def search(view: View) -> SearchSection | None:
    """The steps that were taken to keep the budget, why, and what each cost; the layers that cost most."""
    formats = view.results.context.search
    if not formats:
        return None
    searches = tuple(_search(view, name, s, len(formats) > 1) for name, s in formats.items())
    return SearchSection(all(verdict_of(s) == MET for s in formats.values()), searches)


def _search(view: View, format: str, s: SearchRecord, named: bool) -> ShownSearch:
    kept = s.kept or next((step for step in s.steps if step.met), s.steps[-1] if s.steps else None)
    name = FORMAT_NAMES.get(format, format)
    steps = None
    if s.steps:
        good = verdict_of(s) != MISSED  # a file that is none to ship does not stand out
        lines = [Line(_step(view, s, step), good and step is kept) for step in s.steps]
        steps = table(f"The search for {name}", budget_text.titles(s), lines)
    exceptions = kept.exceptions if kept else {}
    verdict = verdict_of(s)
    return ShownSearch(
        title=f"{name}: {s.budget}" if named else _sentence(s.budget),
        outcome=Chip("not met" if verdict == MISSED else verdict, _VERDICT_CHIPS.get(verdict, "")),
        sentence=budget_text.outcome(s) if s.steps else "",
        steps=steps,
        note=budget_text.note(s),
        mixture=_mixture(exceptions),
        repeat=_repeat(view, kept),
        sensitivity=_sensitivity(s, exceptions),
    )


def _step(view: View, s: SearchRecord, step: SearchStep) -> tuple[Cell, ...]:
    names = {r.artifact.id: r.name for r in view.rows}
    said = (step.why, step.failure, f"kept as {names[step.artifact]}" if step.artifact in names else "")
    small = " ".join(map(_sentence, filter(None, said)))
    verdict = verdict_of(step)
    chip = Chip(budget_text.IN_WORDS[verdict], "" if verdict == MISSED else _VERDICT_CHIPS.get(verdict, ""))
    return Cell(f"{step.n}. {_sentence(step.what)}", small, chip), *map(Cell, budget_text.figures(s, step))


def _repeat(view: View, kept: SearchStep | None) -> str:
    found = [r.artifact.keep for r in view.rows if kept is not None and r.artifact.id == kept.artifact]
    return budget_text.repeated(found[0]) if found else ""


def _mixture(exceptions: Mapping[str, str]) -> tuple[Mixed, ...]:
    mixed = []
    for precision in dict.fromkeys(exceptions.values()):
        names = [name for name, p in exceptions.items() if p == precision]
        more = f" and {len(names) - _SHOWN_LAYERS} more" if len(names) > _SHOWN_LAYERS else ""
        listed = ", ".join(names[:_SHOWN_LAYERS]) + more
        mixed.append(Mixed(counted(len(names), "operator"), _IN_WORDS.get(precision, precision), listed))
    return tuple(mixed)


def _sensitivity(s: SearchRecord, exceptions: Mapping[str, str]) -> Figure | None:
    costs = [(x.name, x.sqnr_db) for x in s.sensitivity if x.sqnr_db is not None and math.isfinite(x.sqnr_db)]
    if not costs:
        return None
    bars: Sequence[bar_plots.Bar] = [
        bar_plots.Bar(
            label=name,
            length=10 ** (-sqnr_db / 20),
            value=decibels(sqnr_db),
            note=exceptions.get(name, ""),
            kind="chosen" if name in exceptions else "other",
        )
        for name, sqnr_db in sorted(costs, key=lambda cost: cost[1])[:_SHOWN_LAYERS]
    ]
    alt = "Most sensitive layers: " + "; ".join(f"{b.label} {b.value}" for b in bars)
    caption = "The layers that cost most when each alone is quantized: the error of the logits, and its SQNR."
    if exceptions:
        caption += " Coloured ones were given back a higher precision."
    return Figure(for_both(lambda px: bar_plots.bars(bars, px, alt)), caption)
