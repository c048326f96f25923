"""The tables of the page: one row per file, with every number that is known of it.

A cell is a function Row -> HTML; `COLUMNS` is the table from left to right, after the file. On a phone the rows become
cards.
"""

import html
from collections.abc import Callable, Mapping, Sequence

from edgenet.report.formatting import (
    MISSING,
    counted,
    decibels,
    interval,
    megabytes,
    milliseconds,
    number,
    p_value,
    percent,
    points,
)
from edgenet.report.recommendation import Row, main_condition, speedup_text
from edgenet.results import Results

Cell = Callable[[Row], str]
Line = tuple[bool, Sequence[str]]  # whether it stands out, and its cells as HTML

FORMAT_NAMES = {"tflite": "TFLite", "onnx": "ONNX", "openvino": "OpenVINO"}


def every_file(rows: Sequence[Row], chosen: Row | None, ship: bool, caption: str) -> str:
    """Return the table of all files, by format; the row of `chosen` stands out, marked where it may `ship`."""
    groups: dict[str, list[Line]] = {}
    for r in rows:
        cells = [_file_cell(r, ship and r is chosen), *(cell(r) for _, cell in COLUMNS)]
        groups.setdefault(FORMAT_NAMES.get(r.artifact.format, r.artifact.format), []).append((r is chosen, cells))
    return grouped_table(caption, ["File", *(title for title, _ in COLUMNS)], groups)


def other_measurements(results: Results) -> str:
    """Return what was measured on other devices or with other thread counts than the main table's; "" without."""
    condition = main_condition(results)
    others = [m for m in results.measurements if m.samples_ns and (m.device, m.threads) != condition]
    names = {a.id: a.path for a in results.artifacts}
    titles = ("File", "Device", "Threads", "Median", "p90", "p95", "Load", "Memory", "Runtime")
    lines = []
    for m in others:
        ms = [milliseconds(v) for v in (m.median_ms, m.p90_ms, m.p95_ms, m.load_ms or None)]
        name, runtime = names.get(m.artifact, m.artifact), f"{m.runtime} {m.runtime_version}"
        texts = [name, m.device, str(m.threads), *ms, megabytes(m.peak_rss_bytes or None), runtime]
        lines.append((False, [html.escape(t) for t in texts]))
    return table("Other devices and thread counts", titles, lines) if lines else ""


def estimates(results: Results) -> str:
    """Return what accelerators that are not here would make of the files, and what they leave and why; "" without."""
    if not results.estimates:
        return ""
    names = {a.id: a.path for a in results.artifacts}
    titles = ("File", "Device", "On the accelerator", "SRAM", "DRAM", "Flash", "Cycles", "Estimated time", "By")
    lines, facts = [], ""
    for e in results.estimates:
        file, device = html.escape(names.get(e.artifact, e.artifact)), html.escape(e.device)
        memory = [MISSING if b is None else megabytes(b) for b in (e.sram_bytes, e.dram_bytes, e.flash_bytes)]
        cycles = MISSING if e.cycles is None else f"{e.cycles:,}"
        time = MISSING if e.inference_ms is None else two_lines(milliseconds(e.inference_ms), "an estimate")
        taken = two_lines(f"{e.n_accelerated} of {e.n_operators}", "operators")
        lines.append((False, [file, device, taken, *memory, cycles, time, html.escape(e.tool)]))
        by_reason: dict[str, list[str]] = {}
        for o in e.left:
            by_reason.setdefault(o.why, []).append(f"{o.n} {o.kind}")
        said = [f"{', '.join(kinds)}: {why}" for why, kinds in by_reason.items()] + [w.text for w in e.warnings]
        if said:
            facts += f"<dt>{file}, {device}</dt><dd>{'<br>'.join(map(html.escape, said))}</dd>"
    for tool, basis in dict.fromkeys((e.tool, e.basis) for e in results.estimates):
        facts += f"<dt>{html.escape(tool)}</dt><dd>{html.escape(basis)}</dd>"
    caption = "Estimates: computed by a compiler or from a list, measured by nobody"
    return table(caption, titles, lines) + f'<h3>Left to the CPU, and why</h3><dl class="facts">{facts}</dl>'


def two_lines(first: str, second: str) -> str:
    """Return two lines in one cell; `first` and `second` are escaped already."""
    return first + (f"<small>{second}</small>" if second and second != MISSING else "")


def _file_cell(r: Row, ship: bool) -> str:
    marks = '<em class="chip good">ship</em>' if ship else '<em class="chip">reference</em>' * r.is_baseline
    if r.failures:
        marks += '<em class="chip bad">failed</em>'
    a = r.artifact
    mixed = f", {counted(len(a.mixture), 'operator')} kept better" if a.mixture else ""
    what = f"{html.escape(a.format)} · {html.escape(a.precision)}{mixed} · {html.escape(a.io_dtype)} in and out"
    return f"{html.escape(r.name)}<small>{what}{' ' if marks else ''}{marks}</small>"


def _drop_cell(r: Row) -> str:
    if r.is_baseline:
        return MISSING
    return two_lines(points(r.drop), interval(r.evaluation.top1_drop_ci95)) if r.evaluation else MISSING


def _flips_cell(r: Row) -> str:
    e = r.evaluation
    if r.is_baseline or e is None or e.flips_fixed is None or e.flips_broken is None:
        return MISSING
    return two_lines(f"{e.flips_fixed} / {e.flips_broken}", html.escape(p_value(e.mcnemar_p)))


def _speed_cell(r: Row) -> str:
    if r.is_baseline or r.speedup is None:
        return MISSING
    ci = r.speedup.ci98
    return two_lines(speedup_text(r.speedup), f"{number(ci[0], 2)} to {number(ci[1], 2)}" if ci else "")


def _of_evaluation(name: str, ci: str = "") -> Cell:
    def cell(r: Row) -> str:
        e = r.evaluation
        return two_lines(percent(getattr(e, name)), interval(getattr(e, ci)) if ci else "") if e else MISSING

    return cell


def _agreement_cell(r: Row) -> str:
    return MISSING if r.is_baseline else _of_evaluation("agreement", "agreement_ci95")(r)


def _of_measurement(name: str) -> Cell:
    return lambda r: milliseconds(getattr(r.measurement, name)) if r.measurement else MISSING


def _tail_cell(r: Row) -> str:
    m = r.measurement
    return two_lines(milliseconds(m.p90_ms), milliseconds(m.p95_ms)) if m else MISSING


def _load_cell(r: Row) -> str:
    m = r.measurement
    return two_lines(milliseconds(m.load_ms or None), megabytes(m.peak_rss_bytes or None)) if m else MISSING


def _runtime_cell(r: Row) -> str:
    if m := r.measurement:
        release = m.runtime_version.partition("-")[0]  # OpenVINO adds its build and branch: results.json has all
        return two_lines(html.escape(m.runtime), html.escape(release))
    return html.escape(r.evaluation.runtime) if r.evaluation else MISSING


COLUMNS: list[tuple[str, Cell]] = [
    ("Size", lambda r: megabytes(r.artifact.size_bytes)),
    ("Top-1", _of_evaluation("top1", "top1_ci95")),
    ("Top-5", _of_evaluation("top5", "top5_ci95")),
    ("Agreement", _agreement_cell),
    ("Points lost", _drop_cell),
    ("Fixed / broken", _flips_cell),
    ("SQNR", lambda r: decibels(r.evaluation.sqnr_db if r.evaluation else None)),
    ("Median", _of_measurement("median_ms")),
    ("p90, p95", _tail_cell),
    ("Speed-up", _speed_cell),
    ("Load, memory", _load_cell),
    ("Runtime", _runtime_cell),
]


def table(caption: str, titles: Sequence[str], lines: Sequence[Line]) -> str:
    """Return a table that becomes cards on a phone; the roles survive the change of `display`. Cells are HTML."""
    return grouped_table(caption, titles, {"": lines})


def grouped_table(caption: str, titles: Sequence[str], groups: Mapping[str, Sequence[Line]]) -> str:
    """Return a table whose rows stand in groups, each under its name where there are several."""
    head = "".join(f'<th scope="col" role="columnheader">{title}</th>' for title in titles)
    body = ""
    for name, lines in groups.items():
        body += '<tbody role="rowgroup">'
        if len(groups) > 1:
            body += (
                f'<tr role="row" class="group"><th scope="rowgroup" role="rowheader" colspan="{len(titles)}">'
                f"{html.escape(name)}</th></tr>"
            )
        body += "".join(_row(titles, chosen, cells) for chosen, cells in lines) + "</tbody>"
    return (
        f'<div class="scroll" role="region" aria-label="{html.escape(caption)}" tabindex="0"><table role="table">'
        f'<caption>{html.escape(caption)}</caption><thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        f"{body}</table></div>"
    )


def _row(titles: Sequence[str], chosen: bool, cells: Sequence[str]) -> str:
    first = f'<th scope="row" role="rowheader">{cells[0]}</th>'
    rest = "".join(
        f'<td role="cell" data-label="{title}"><span>{cell}</span></td>'
        for title, cell in zip(titles[1:], cells[1:], strict=True)
    )
    return f'<tr role="row"{" class=chosen" * chosen}>{first}{rest}</tr>'
