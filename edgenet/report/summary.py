"""The answer for the terminal: the files as a table, and the same sentences as the page has."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgenet.errors import printable
from edgenet.report.devices import headline, picks
from edgenet.report.formatting import MISSING, failed, megabytes, milliseconds, percent, points
from edgenet.report.recommendation import SHOWN_REASONS, Recommendation, recommend
from edgenet.report.refusals import Refusal
from edgenet.report.rows import Row, by_format, only_chips, rows, speedup_text
from edgenet.results import Results
from edgenet.results.records import Figure
from edgenet.tasks.words import figures_of

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table


def summary_lines(results: Results, recommendation: Recommendation | None = None) -> list[str]:
    """Return the answer as plain text: headline, why, which file for which device, why not others, notes, failures."""
    r = recommendation or recommend(results)
    found = picks(results, r, rows(results))
    lines = [headline(r, found), *(f"  {s}" for s in r.why)]
    if found:
        lines.append("Which file for which device")
        lines += [f"  {p.device}: {' '.join(filter(None, (p.name, *p.why)))}" for p in found]
    if r.why_not:
        shown = len(r.why_not) if len(r.why_not) <= SHOWN_REASONS + 1 else SHOWN_REASONS
        lines.append("Why not the others" if r.leader else "File by file")
        lines += [f"  {name}: {s}" for name, s in r.why_not[:shown]]
        if r.why_not[shown:]:
            lines.append(f"  and {len(r.why_not) - shown} more files, in the report")
    lines += [f"{'Warning' if n.loud else 'Note'}: {n.text}" for n in r.notes]
    lines += [f"Failed: {f.stage} {failed(f)}: {f.why.rstrip('.')}. {f.remedy}".rstrip() for f in results.failures]
    return lines


def summary_table(results: Results, answer: Recommendation) -> "Table":
    """Return the files as a rich table, the recommended one marked with an arrow."""
    from rich.table import Table
    from rich.text import Text

    table = by_format(rows(results))
    out = Table(box=None, padding=(0, 1), pad_edge=False)
    out.add_column("file", overflow="fold")
    accuracy = (table[0].words.right, "pts lost") if answer.by_labels and table else ("agreement",)
    measure = next((name for r in table for name in _figures(r)), "")
    times = () if only_chips(results) else ("median", "speed-up")
    for title in ("size", *accuracy, *[measure] * bool(measure), *times):
        out.add_column(title, justify="right", no_wrap=True)
    for r in table:
        chosen, e, m = r.artifact.id == answer.leader, r.evaluation, r.measurement
        if answer.by_labels:
            figures = [percent(e.top1 if e else None), MISSING if r.is_baseline else points(r.drop)]
        else:
            figures = [percent(1.0 if r.is_baseline and e else e.agreement if e else None)]
        if measure:
            value = _figures(r).get(measure)
            figures.append(f"{value.value:.4f}" if value else MISSING)
        cells = [
            ("→ " if chosen else "  ") + r.name,
            megabytes(r.artifact.size_bytes),
            *figures,
        ]
        if times:
            cells += [
                milliseconds(m.median_ms if m else None),
                "1×" if r.is_baseline and m else speedup_text(r.speedup),
            ]
        out.add_row(*(Text(printable(cell)) for cell in cells), style="bold" if chosen else None)
    return out


def _figures(r: Row) -> dict[str, Figure]:
    return dict(figures_of(r.evaluation.measures)) if r.evaluation else {}


def summary_renderable(results: Results, lost: Mapping[str, Refusal] | None = None) -> "Group":
    """Return table and answer for a rich console; file names are never read as markup.

    Args:
        lost: files, by id, that are no longer as they were measured.
    """
    from rich.console import Group
    from rich.text import Text

    answer = recommend(results, lost=lost)
    first, *rest = summary_lines(results, answer)
    text = (Text(printable(first), style="bold"), *(Text(printable(line)) for line in rest))
    return Group(summary_table(results, answer), Text(""), *text) if results.artifacts else Group(*text)
