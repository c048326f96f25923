"""The sections of the page that say how quantized files came about: the calibration, and the search for a budget.

Both draw from the records of a run's context (records.py); what was not noted is not drawn.
"""

import math
from collections.abc import Mapping, Sequence

from edgenet.records import CalibratedTensor, Finding, SearchRecord, SearchStep
from edgenet.report.files import FORMAT_NAMES, table
from edgenet.report.formatting import counted, decibels, megabytes, milliseconds, number, percent, points
from edgenet.report.html import View, escape, figure, folded, section
from edgenet.report.plots import bars as bar_plots

_SHOWN_HISTOGRAMS = 12
_SHOWN_LAYERS = 12
_CHIPS = {"danger": "bad", "warning": "warn", "info": ""}

_IN_WORDS = {"weight-only": "int8 weights with float32 activations"}


def calibration(view: View) -> str:
    """What is wrong with the pictures, and the activations' histograms with the range that was chosen for each."""
    findings = _findings(view.results.context.calibration_findings)
    c = view.results.context.calibration
    used = {r.artifact.calibration for r in view.rows}
    if c is None or not c.tensors or c.fingerprint not in used:
        lead = "What a look at the pictures told, before they were used."
        return section("calibration", "Calibration", findings, lead) if findings else ""
    tensors = sorted(c.tensors, key=_interest)
    shown, rest = tensors[:_SHOWN_HISTOGRAMS], tensors[_SHOWN_HISTOGRAMS:]
    n_cut = sum(_cut(t) > 0 for t in tensors)
    corrections = ", ".join(c.corrections) or "none"
    lead = (
        f"The ranges of {counted(len(tensors), 'activation')}, measured once on "
        f"{counted(c.n_images, 'picture')} and used by every integer file. "
        f"Method: {escape(c.method)}; corrections: {escape(corrections)}."
    )
    what = "the ranges that cut off most come first" if n_cut else "no range cuts anything off; the widest come first"
    caption = (
        f"What the activations of the pictures were, in 64 bins, heights by logarithm; {what}. Tinted is the range "
        "that the 256 levels of int8 are laid over; what lies outside, in red, is clipped to its end."
    )
    body = (
        findings + f'<figure class="histograms">{_histograms(shown)}<figcaption>{escape(caption)}</figcaption></figure>'
    )
    if rest:
        body += folded(f"{len(rest)} more activations", f'<div class="histograms">{_histograms(rest)}</div>')
    return section("calibration", "Calibration", body, lead)


def _findings(findings: Sequence[Finding]) -> str:
    items = "".join(
        f'<li><em class="chip {_CHIPS.get(f.severity, "")}">{escape(f.code)}</em>'
        f"<p>{escape(_sentence(f.message))} <span>{escape(_sentence(f.remedy))}</span></p></li>"
        for f in findings
    )
    return f'<ul class="findings">{items}</ul>' if items else ""


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


def _histograms(tensors: Sequence[CalibratedTensor]) -> str:
    return "<ul>" + "".join(_histogram(t) for t in tensors) + "</ul>"


def _histogram(t: CalibratedTensor) -> str:
    chosen = f"{_short(t.low)} to {_short(t.high)}"
    seen = f"{_short(t.seen_low)} to {_short(t.seen_high)}"
    counts = t.counts
    alt = f"{t.name}: {chosen} of {seen}"
    svg = bar_plots.histogram(counts, (t.seen_low, t.seen_high), (t.low, t.high), alt)
    width = f"{chosen}, of {seen} seen" if _cut(t) else chosen
    numbers = f"step {t.scale:.3g}, zero point {number(t.zero_point, 0)}"
    if _cut(t) and (share := _outside(t)) is not None:
        numbers += f", {share} cut"
    return (
        f'<li><p class="name" title="{escape(t.name)}"><bdi><b>{escape(t.name)}</b></bdi></p>'
        f"{svg}<p>{escape(t.kind)} · {escape(width)}<br>{escape(numbers)}</p></li>"
    )


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


def search(view: View) -> str:
    """The steps that were taken to keep the budget, why, and what each cost; the layers that cost most."""
    formats = view.results.context.search
    if not formats:
        return ""
    body = "".join(_search(view, name, s, len(formats) > 1) for name, s in formats.items())
    lead = "Step by step, each with its reason; the first file within the budget ends the search."
    return section(
        "search", "How the accuracy budget was met" if _all_met(formats) else "The accuracy budget", body, lead
    )


def _all_met(formats: Mapping[str, SearchRecord]) -> bool:
    return all(s.met for s in formats.values())


def _search(view: View, format: str, s: SearchRecord, named: bool) -> str:
    steps = s.steps
    kept = [*(step for step in steps if step.artifact), *(step for step in steps if step.met)]
    last = next(iter((*kept, *steps[-1:])), None)
    chip = '<em class="chip good">met</em>' if s.met else '<em class="chip bad">not met</em>'
    title = f"{FORMAT_NAMES.get(format, format)}: {s.budget}" if named else _sentence(s.budget)
    body = f"<h3>{escape(title)} {chip}</h3>"
    if steps:
        titles = ("Step", "Points lost", "Agreement", "SQNR", "Median", "Size")
        lines = [(step is last and s.met, _step(view, step)) for step in steps]
        body += table(f"The search for {FORMAT_NAMES.get(format, format)}", titles, lines)
    exceptions = last.exceptions if last else {}
    if steps:
        body += f'<p class="mixture">{_mixture(exceptions)}</p>'
    costs = [(x.name, x.sqnr_db) for x in s.sensitivity if x.sqnr_db is not None and math.isfinite(x.sqnr_db)]
    layers = sorted(costs, key=lambda cost: cost[1])[:_SHOWN_LAYERS]
    if layers:
        body += _sensitivity(layers, exceptions)
    return f'<div class="search">{body}</div>'


def _step(view: View, step: SearchStep) -> list[str]:
    names = {r.artifact.id: r.name for r in view.rows}
    made = names.get(step.artifact or "", "")
    chip = '<em class="chip good">within</em>' if step.met else '<em class="chip">over</em>'
    first = f"{step.n}. {escape(_sentence(step.what))} {chip}"
    why = escape(_sentence(step.why))
    first += f"<small>{why}{' ' if why and made else ''}{escape(made)}</small>"
    return [
        first,
        points(step.drop),
        percent(step.agreement),
        decibels(step.sqnr_db),
        milliseconds(step.median_ms),
        megabytes(step.size_bytes),
    ]


def _mixture(exceptions: Mapping[str, str]) -> str:
    if not exceptions:
        return "One precision throughout: no operator is kept in another."
    parts = []
    for precision in dict.fromkeys(exceptions.values()):
        names = [escape(name) for name, p in exceptions.items() if p == precision]
        listed = ", ".join(names[:_SHOWN_LAYERS])
        more = f" and {len(names) - _SHOWN_LAYERS} more" if len(names) > _SHOWN_LAYERS else ""
        what = escape(_IN_WORDS.get(precision, precision))
        parts.append(f"<b>{counted(len(names), 'operator')} in {what}</b>: {listed}{more}")
    return f"The mixture: {'; '.join(parts)}. Everything else is int8."


def _sensitivity(layers: Sequence[tuple[str, float]], exceptions: Mapping[str, str]) -> str:
    bars = [
        bar_plots.Bar(
            label=name,
            length=10 ** (-sqnr_db / 20),
            value=decibels(sqnr_db),
            note=exceptions.get(name, ""),
            kind="chosen" if name in exceptions else "other",
        )
        for name, sqnr_db in layers
    ]
    alt = "Most sensitive layers: " + "; ".join(f"{b.label} {b.value}" for b in bars)
    caption = "The layers that cost most when each alone is quantized: the error of the logits, and its SQNR."
    if exceptions:
        caption += " Coloured ones were given back a higher precision."
    return figure(bar_plots.bars(bars, 1160, alt) + bar_plots.bars(bars, 350, alt), caption)
