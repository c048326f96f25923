"""The comparison as a page, as Markdown and as CSV: the same figures, each marked measured, computed or quoted.

The page is one self-contained file in the style of report.html: no network, no script.
"""

import csv
import io
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

from edgenet.models.zoo import MODELS
from edgenet.paper.networks import NAMES, published_name
from edgenet.paper.plan import LADDER, file_id, paper_of
from edgenet.paper.published import table as published
from edgenet.paper.tables import RUNTIME_NAMES, Cell, Speedup, Table, devices, measurement, published_speedup, speedups
from edgenet.paper.tables import tables as tables_of
from edgenet.report import files
from edgenet.report.formatting import times
from edgenet.report.html import escape, figure, listed, section
from edgenet.report.plots import scatter
from edgenet.report.plots.bars import Bar, bars
from edgenet.results import RESULTS_FILE, Results, atomic_write

PAGE_FILE, MARKDOWN_FILE, CSV_FILE = "paper.html", "paper.md", "paper.csv"
_WIDE_PX, _NARROW_PX = 1160, 350
_RANDOM = (
    "Latencies are of networks with random weights, unless a table says otherwise: time does not depend on what was "
    "learned, as long as activations are neither zeros nor denormals; batch norm has the statistics of photographs, "
    "and what is timed computes a photograph."
)
_KINDS = (
    "Measured: timed, or scored on pictures, in this run. Computed: counted from the layers, or estimated by a "
    "compiler. Quoted: as it was published."
)


def write_pages(results: Results, out: Path) -> list[Path]:
    """Write OUT/paper.html, paper.md and paper.csv, each whole or not at all, and return their paths.

    Raises:
        InputError: the results are not of `edgenet paper`; the disk is full or the place cannot be written to.
    """
    found = tables_of(results)
    written = []
    for name, render in ((PAGE_FILE, page), (MARKDOWN_FILE, markdown), (CSV_FILE, comma_separated)):
        text = render(results, found)
        with atomic_write(out / name) as tmp:
            tmp.write_text(text, encoding="utf-8", errors="replace")
        written.append(out / name)
    return written


def headline(results: Results) -> str:
    """Return the answer in a sentence: each pair's speed-up, from the least to the most of the runtimes."""
    parts = []
    for network in dict.fromkeys(s.network for s in speedups(results)):
        found = sorted((s for s in speedups(results) if s.network == network), key=lambda s: s.ratio)
        least, most = found[0], found[-1]
        many = len(found) > 1
        parts.append(
            f"{published_name(network)} is {f'{times(least.ratio)} to ' * many}{times(most.ratio)} as fast as "
            f"{published_name(least.rival)} in {f'{len(found)} runtimes' if many else RUNTIME_NAMES[least.runtime]} "
            f"(the paper: {published_speedup(network):g}×)"
        )
    return "; ".join(parts) if parts else "EfficientNet's comparison, on this machine"


def doubt(results: Results) -> str:
    """Return in a sentence how many measurements are not to be trusted, "" where all are."""
    # A network of seconds cannot settle in any sensible warm-up; where that matters there is noise or a drift as well.
    said = [[w for w in m.cautions if w.code != "not-settled"] for m in results.measurements]
    doubtful = [warnings for warnings in said if warnings]
    if not doubtful:
        return ""
    first = doubtful[0][0].text
    return (
        f"{len(doubtful)} of {len(results.measurements)} measurements have a warning ({first}, ...): "
        "measure again on a quiet machine, with another --out, before you rely on them."
    )


# ----------------------------------------------------------------------------------------------------------------- HTML


def page(results: Results, found: Sequence[Table]) -> str:
    """Return the page."""
    css = resources.files("edgenet.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    body = _head(results) + _speedup_section(results)
    for t in found:
        body += _section(t, _FIGURES[t.id](results) if t.id in _FIGURES else "")
    title = escape(headline(results))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; img-src data:\">\n"
        f"<title>{title} · edgenet</title>\n<style>\n{css}</style>\n</head>\n<body>\n"
        f'<main class="paper">\n{body}\n{_provenance(results)}</main>\n</body>\n</html>\n'
    )


def _head(results: Results) -> str:
    c = results.context
    where = f"{c.cpu_model}, {c.created[:10]}"
    source = (
        'Tan and Le, <a href="https://arxiv.org/abs/1905.11946">EfficientNet: Rethinking Model Scaling for '
        f"Convolutional Neural Networks</a>, measured again. {escape(_RANDOM)}"
    )
    notes = [_KINDS]
    if paper_of(results).quick:
        notes.append("A quick run: GPipe's network and the large variants were left out.")
    alert = f'<div class="alert" role="note"><p>{escape(said)}</p></div>' if (said := doubt(results)) else ""
    return (
        f'<header><p class="eyebrow">edgenet paper · {escape(where)}</p><h1>{escape(headline(results))}</h1></header>'
        f'{alert}<p class="verdict">{source}</p>{listed(notes, "notes")}'
    )


def _section(t: Table, drawing: str) -> str:
    lines = [(False, [_html_cell(c) for c in row]) for row in t.rows]
    body = drawing + files.table(t.title, [escape(c) for c in t.columns], lines) + listed(t.notes, "notes")
    return section(t.id, escape(t.title), body, escape(t.lead))


def _html_cell(c: Cell) -> str:
    small = " · ".join(s for s in (c.kind, c.note) if s)
    text = f'<b class="{c.kind}">{escape(c.text)}</b>' if c.kind else escape(c.text)
    return files.two_lines(text, escape(small))


def _speedup_section(results: Results) -> str:
    found = speedups(results)
    if not found:
        return ""
    body = ""
    for network in dict.fromkeys(s.network for s in found):
        drawn = [_bar(s) for s in found if s.network == network]
        paper = published_speedup(network)
        drawn.append(Bar("the paper, TensorFlow", paper, f"{paper:g}×", "quoted"))
        rival = next(s.rival for s in found if s.network == network)
        title = f"{published_name(network)} against {published_name(rival)}"
        svg = bars(drawn, _WIDE_PX, title) + bars(drawn, _NARROW_PX, title)
        body += figure(svg, f"{title}: how many times faster, with the 98 % interval of the ratio.")
    return section("speedups", "Faster at the same accuracy", body)


def _bar(s: Speedup) -> Bar:
    low, high = s.interval
    told = low > 0
    note = f"{times(low)} to {times(high)}" if told else ""
    interval = (low, high) if told else None
    return Bar(RUNTIME_NAMES[s.runtime], s.ratio, times(s.ratio), note, "chosen", interval)


def _scatter(points: Sequence[scatter.Point], x_label: str, caption: str) -> str:
    if len(points) < 2:
        return ""
    alt = "; ".join(p.title for p in points)
    wide, narrow = (
        scatter.scatter(points, w, h, "top-1 on ImageNet, %, quoted", None, "", alt, x_label)
        for w, h in ((_WIDE_PX, 440), (_NARROW_PX, 380))
    )
    return figure(wide + narrow, caption)


def _against_counts(what: str, unit: float, quoted: str, x_label: str, caption: str) -> Callable[[Results], str]:
    """Return what draws published accuracy against a count, computed where the network is built, quoted elsewhere."""
    names = {published_name(n): n for n in (*LADDER, *NAMES)}

    def draw(results: Results) -> str:
        points = []
        for row in published("2"):
            paper_name = str(row["model"])
            count = paper_of(results).counts.get(names.get(paper_name, ""))
            x = getattr(count, what) / unit if count else row[quoted]
            if isinstance(x, float) and isinstance(row["top1_percent"], float):
                ours = paper_name.startswith("EfficientNet")
                title = f"{paper_name}: {x:.3g}, {row['top1_percent']} %"
                label = paper_name.replace("EfficientNet-", "") if ours else paper_name
                kind = "chosen" if ours else "other"
                points.append(scatter.Point(label, title, x, row["top1_percent"], None, None, 0, kind))
        return _scatter(points, x_label, caption)

    return draw


def _against_latency(results: Results) -> str:
    """Published accuracy against measured latency, a plot for each device."""
    drawn = ""
    for device in devices(results):
        points = []
        for name in LADDER:
            for precision in ("float32", "int8"):
                m = measurement(results, file_id(name, "tflite", precision), device, 1)
                top1 = MODELS[name].top1_percent if precision == "float32" else MODELS[name].int8_top1_percent
                if m is not None and top1 is not None:
                    short = name.removeprefix("efficientnet-") + ("" if precision == "float32" else " int8")
                    title = f"{name} {precision}: {m.median_ms:.3g} ms, {top1} %"
                    kind = "chosen" if precision == "int8" else "other"
                    points.append(scatter.Point(short, title, m.median_ms, top1, None, None, 0, kind))
        drawn += _scatter(
            points, "median latency, ms", f"Published accuracy against latency measured on {device}; INT8 stands out."
        )
    return drawn


_FIGURE_1 = _against_counts(
    "parameters", 1e6, "params_millions", "parameters, millions", "Figure 1 of the paper: accuracy against parameters."
)
_FIGURE_5 = _against_counts(
    "multiply_adds", 1e9, "flops_billions", "multiply-adds, billions", "Figure 5 of the paper: accuracy against FLOPS."
)
_FIGURES: dict[str, Callable[[Results], str]] = {
    "table2": lambda results: _FIGURE_1(results) + _FIGURE_5(results),
    "ladder": _against_latency,
}


def _provenance(results: Results) -> str:
    c = results.context
    versions = ", ".join(f"{k} {v}" for k, v in c.versions.items())
    facts = [
        ("Command", c.command), ("Created", c.created), ("Host", c.host),
        ("CPU", f"{c.cpu_model}, {c.cores} cores"), ("Instruction sets", " ".join(c.isa)),
        ("Versions", f"edgenet {c.edgenet_version}, {versions}"), ("Pictures", paper_of(results).images),
    ]  # fmt: skip
    warnings = dict.fromkeys(w.text for m in results.measurements for w in m.cautions)
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts if v)
    items += "".join(f"<dt>Warning</dt><dd>{escape(w)}</dd>" for w in warnings)
    lead = (
        f'Every sample is in <a href="{RESULTS_FILE}">{RESULTS_FILE}</a>; these tables are also in '
        f'<a href="{MARKDOWN_FILE}">{MARKDOWN_FILE}</a> and <a href="{CSV_FILE}">{CSV_FILE}</a>.'
    )
    return section("provenance", "How the numbers were made", f'<dl class="facts">{items}</dl>', lead)


# ------------------------------------------------------------------------------------------------------------ as text


def markdown(results: Results, found: Sequence[Table]) -> str:
    """Return the tables as Markdown."""
    out = [f"# {headline(results)}", "", f"{_RANDOM} {_KINDS}"]
    out += ["", f"**{said}**"] if (said := doubt(results)) else []
    for t in found:
        out += ["", f"## {t.title}", "", t.lead, ""]
        out.append("| " + " | ".join(map(_bars_escaped, t.columns)) + " |")
        out.append("|" + "---|" * len(t.columns))
        out += ["| " + " | ".join(_bars_escaped(_text_cell(c)) for c in row) + " |" for row in t.rows]
        out += ["", *(f"- {note}" for note in t.notes)] if t.notes else []
    return "\n".join(out) + "\n"


def _text_cell(c: Cell) -> str:
    small = "; ".join(s for s in (c.kind, c.note) if s)
    return f"{c.text} ({small})" if small else c.text


def _bars_escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|")


def comma_separated(results: Results, found: Sequence[Table]) -> str:
    """Return every figure of the tables as a line: table, row, column, kind, value (unrounded), text, note."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("table", "row", "column", "kind", "value", "text", "note"))
    for t in found:
        for row in t.rows:
            name = " · ".join(s for s in (row[0].text, row[0].note) if s)
            for column, c in zip(t.columns[1:], row[1:], strict=True):
                value = "" if c.value is None else repr(c.value)
                writer.writerow((t.id, name, column, c.kind, value, c.text, c.note))
    return out.getvalue()
