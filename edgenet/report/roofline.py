"""The section of the page that explains why the files are as fast as they are: rooflines, and the costly operators."""

from collections.abc import Sequence
from dataclasses import dataclass

from edgenet.device_bench.roofline.explain import bound, fraction
from edgenet.report.formatting import MISSING, percent
from edgenet.report.pieces import Cell, Figure, Line, Table, table
from edgenet.report.plots.axes import for_both, is_narrow
from edgenet.report.plots.roofline import roofline
from edgenet.report.view import View
from edgenet.results import Explanation

MOST_LAYERS = 8  # in the table of one file
OPERATOR_TITLES = ("operator", "kind", "kernel", "ms", "share", "M mult-adds", "of the limit", "bound by")


@dataclass(frozen=True)
class ExplainedFile:
    """A file, the sentences that none before it says, and the operators that take longest."""

    name: str
    sentences: tuple[str, ...]
    operators: Table


@dataclass(frozen=True)
class Setting:
    """The files that one runtime ran with as many threads."""

    figure: Figure | None
    files: tuple[ExplainedFile, ...]


@dataclass(frozen=True)
class Explanations:
    """The section."""

    settings: tuple[Setting, ...]


def explanations(view: View) -> Explanations | None:
    """Why the files are as fast as they are: a roofline for each runtime, what follows, and what costs most."""
    found = view.results.explanations
    names = {a.id: a.path for a in view.results.artifacts}
    settings = []
    for runtime, threads in dict.fromkeys((e.runtime, e.threads) for e in found):
        of_setting = [e for e in found if (e.runtime, e.threads) == (runtime, threads)]
        files = tuple(
            ExplainedFile(names.get(e.artifact, e.artifact), tuple(new_sentences(found, e)), _operators(e))
            for e in of_setting
        )
        settings.append(Setting(_figure(of_setting, runtime, threads), files))
    return Explanations(tuple(settings)) if settings else None


def _figure(files: Sequence[Explanation], runtime: str, threads: int) -> Figure | None:
    if not any(x.multiply_adds for e in files for x in e.layers):
        return None
    alt = f"Roofline of {runtime}: " + "; ".join(f"{e.precision} {e.median_ms:.2f} ms" for e in files)
    colours = ", ".join(dict.fromkeys(e.precision for e in files))
    caption = (
        f"{runtime}, {threads} thread{'s' * (threads != 1)}: {colours}. A dot is an operator, its area its time; "
        "what lies on a roof is as fast as this core can. Operators without multiply-adds are not drawn."
    )
    return Figure(for_both(lambda px: roofline(files, px, 340 if is_narrow(px) else 440, alt)), caption)


def _operators(e: Explanation) -> Table:
    lines = [Line(tuple(map(Cell, row))) for row in operator_rows(e)]
    titles = [t.capitalize() if t != "ms" else t for t in OPERATOR_TITLES]
    return table(f"The {MOST_LAYERS} operators that take longest", titles, lines)


def operator_rows(e: Explanation) -> list[tuple[str, ...]]:
    """Return the operators that cost most, one row each in the columns of `OPERATOR_TITLES`, and one of all others."""
    total = sum(x.time_us for x in e.layers) or 1.0
    ordered = sorted(e.layers, key=lambda x: -x.time_us)
    out: list[tuple[str, ...]] = [
        (x.name, x.kind, x.kernel or MISSING, f"{x.time_us / 1e3:.3f}", percent(x.time_us / total),
         f"{x.multiply_adds / 1e6:,.1f}" if x.multiply_adds else MISSING, percent(fraction(x, e), 0), bound(x, e))
        for x in ordered[:MOST_LAYERS]
    ]  # fmt: skip
    if rest := ordered[MOST_LAYERS:]:
        us, adds = sum(x.time_us for x in rest), sum(x.multiply_adds for x in rest)
        others = f"{len(rest)} others"
        out.append((others, "", "", f"{us / 1e3:.3f}", percent(us / total), f"{adds / 1e6:,.1f}", "", ""))
    return out


def new_sentences(explanations: Sequence[Explanation], e: Explanation) -> list[str]:
    """Return the sentences of `e` that none before it says: those on the machine are the same for many files."""
    before = [x.sentences for x in explanations[: explanations.index(e)]]
    return [s for s in e.sentences if not any(s in said for said in before)]
