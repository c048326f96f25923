"""The comparison as a page, as Markdown and as CSV: the same figures, each marked measured, computed or quoted.

The page is one self-contained file in the style of report.html: no network, no script.
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgenet import templating
from edgenet.files import atomic_write
from edgenet.models.zoo import MODELS
from edgenet.paper.cells import Cell, Table
from edgenet.paper.networks import NAMES, published_name
from edgenet.paper.plan import LADDER, file_id, paper_of
from edgenet.paper.published import table as published
from edgenet.paper.tables import RUNTIME_NAMES, Speedup, devices, measurement, published_speedup, speedups
from edgenet.paper.tables import tables as tables_of
from edgenet.paper.transfer import best_transferred
from edgenet.report import pieces
from edgenet.report.formatting import times
from edgenet.report.pieces import Fact, Figure
from edgenet.report.plots.axes import for_both, is_narrow
from edgenet.report.plots.bars import Bar, bars
from edgenet.report.plots.scatter import Point, scatter
from edgenet.report.view import made_with
from edgenet.results import RESULTS_FILE, Results

_TEMPLATES = Path(__file__).with_name("templates")
PAGE_FILE, MARKDOWN_FILE, CSV_FILE = "paper.html", "paper.md", "paper.csv"
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
    """Return the answer in a sentence: each pair's speed-up over the runtimes, the best of table 5's accuracies."""
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
    parts += best_transferred(results)
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


@dataclass(frozen=True)
class TableSection:
    """A table of the page, with what is drawn above it and noted below."""

    id: str
    lead: str
    figures: tuple[Figure, ...]
    table: pieces.Table
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Page:
    """What paper.html shows, from top to bottom."""

    title: str
    where: str
    doubt: str
    random: str
    notes: tuple[str, ...]
    speedups: tuple[Figure, ...]
    tables: tuple[TableSection, ...]
    facts: tuple[Fact, ...]
    results_file: str = RESULTS_FILE
    markdown_file: str = MARKDOWN_FILE
    csv_file: str = CSV_FILE


def page(results: Results, found: Sequence[Table]) -> str:
    """Return the page."""
    c = results.context
    quick = "A quick run: GPipe's network and the large variants were left out."
    view = Page(
        title=headline(results),
        where=f"{c.cpu_model}, {c.created[:10]}",
        doubt=doubt(results),
        random=_random(results),
        notes=(_KINDS, quick) if paper_of(results).quick else (_KINDS,),
        speedups=tuple(_speedup_figures(results)),
        tables=tuple(_section(t, results) for t in found),
        facts=_provenance(results),
    )
    return templating.page("paper.html", view, _TEMPLATES, pieces.TEMPLATES)


def _random(results: Results) -> str:
    """Return what is to be said of random weights, "" where nothing was timed."""
    return _RANDOM if results.measurements or results.estimates else ""


def _section(t: Table, results: Results) -> TableSection:
    figures = tuple(_FIGURES[t.id](results)) if t.id in _FIGURES else ()
    lines = [pieces.Line(tuple(map(_cell, row))) for row in t.rows]
    return TableSection(t.id, t.lead, figures, pieces.table(t.title, t.columns, lines), t.notes)


def _cell(c: Cell) -> pieces.Cell:
    return pieces.Cell(c.text, " · ".join(s for s in (c.kind, c.note) if s), kind=c.kind)


def _speedup_figures(results: Results) -> list[Figure]:
    found, figures = speedups(results), []
    for network in dict.fromkeys(s.network for s in found):
        of_pair = [s for s in found if s.network == network]
        paper = published_speedup(network)
        drawn = [*map(_bar, of_pair), Bar("the paper, TensorFlow", paper, f"{paper:g}×", "quoted")]
        title = f"{published_name(network)} against {published_name(of_pair[0].rival)}"
        figures.append(_bars(drawn, title))
    return figures


def _bars(drawn: Sequence[Bar], title: str) -> Figure:
    caption = f"{title}: how many times faster, with the 98 % interval of the ratio."
    return Figure(for_both(lambda px: bars(drawn, px, title)), caption)


def _bar(s: Speedup) -> Bar:
    low, high = s.interval
    known = low > 0  # not where there were too few rounds
    note = f"{times(low)} to {times(high)}" if known else ""
    return Bar(RUNTIME_NAMES[s.runtime], s.ratio, times(s.ratio), note, "chosen", (low, high) if known else None)


def _scatter(points: Sequence[Point], x_label: str, caption: str) -> list[Figure]:
    if len(points) < 2:
        return []
    alt, y_label = "; ".join(p.title for p in points), "top-1 on ImageNet, %, quoted"
    drawing = for_both(lambda px: scatter(points, px, 380 if is_narrow(px) else 440, y_label, alt, x_label=x_label))
    return [Figure(drawing, caption)]


_Draw = Callable[[Results], list[Figure]]


def _against_counts(what: str, unit: float, quoted: str, x_label: str, caption: str) -> _Draw:
    """Return what draws published accuracy against a count, computed where the network is built, quoted elsewhere."""
    names = {published_name(n): n for n in (*LADDER, *NAMES)}

    def draw(results: Results) -> list[Figure]:
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
                points.append(Point(label, title, x, row["top1_percent"], None, None, 0, kind))
        return _scatter(points, x_label, caption)

    return draw


def _against_latency(results: Results) -> list[Figure]:
    """Published accuracy against measured latency, a plot for each device."""
    figures: list[Figure] = []
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
                    points.append(Point(short, title, m.median_ms, top1, None, None, 0, kind))
        figures += _scatter(
            points, "median latency, ms", f"Published accuracy against latency measured on {device}; INT8 stands out."
        )
    return figures


_FIGURE_1 = _against_counts(
    "parameters", 1e6, "params_millions", "parameters, millions", "Figure 1 of the paper: accuracy against parameters."
)
_FIGURE_5 = _against_counts(
    "multiply_adds", 1e9, "flops_billions", "multiply-adds, billions", "Figure 5 of the paper: accuracy against FLOPS."
)
_FIGURES: dict[str, _Draw] = {
    "table2": lambda results: [*_FIGURE_1(results), *_FIGURE_5(results)],
    "ladder": _against_latency,
}


def _provenance(results: Results) -> tuple[Fact, ...]:
    warnings = dict.fromkeys(w.text for m in results.measurements for w in m.cautions)
    return (
        *made_with(results.context),
        *pieces.facts(
            ("Pictures", paper_of(results).images),
            *(("Warning", w) for w in warnings),
        ),
    )


# ------------------------------------------------------------------------------------------------------------ as text


@dataclass(frozen=True)
class TextTable:
    """A table whose cells are Markdown."""

    title: str
    lead: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class TextPage:
    """What paper.md shows."""

    headline: str
    about: str
    doubt: str
    tables: tuple[TextTable, ...]


def markdown(results: Results, found: Sequence[Table]) -> str:
    """Return the tables as Markdown."""
    tables = tuple(
        TextTable(
            t.title,
            t.lead,
            tuple(map(_bars_escaped, t.columns)),
            tuple(tuple(_bars_escaped(_text_cell(c)) for c in row) for row in t.rows),
            t.notes,
        )
        for t in found
    )
    view = TextPage(headline(results), f"{_random(results)} {_KINDS}".strip(), doubt(results), tables)
    return templating.text("paper.md", view, _TEMPLATES)


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
