"""The operators of a file that cost most, and what follows from them: for the terminal and for the page."""

from collections.abc import Sequence

from edgenet.device_bench.roofline.explain import bound, fraction
from edgenet.report.formatting import MISSING, percent
from edgenet.results import Explanation

MOST_LAYERS = 8  # in the table of one file
TITLES = ("operator", "kind", "kernel", "ms", "share", "M mult-adds", "of the limit", "bound by")


def rows(e: Explanation) -> list[tuple[str, ...]]:
    """Return the operators that cost most, one row each in the columns of `TITLES`, and one of all others."""
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
