"""Bars with names, and histograms side by side."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgenet.report.plots import axes

_WIDTH, _HEIGHT = 240.0, 72.0  # of a histogram; it scales with its column, and holds no text
_CHAR_PX = 6.7  # of names of layers, whose digits and capitals are wider than the mean


@dataclass(frozen=True)
class Bar:
    """A named bar; `length` is in any unit, `value` what is written at its end, `kind` one of chosen, other."""

    label: str
    length: float
    value: str
    note: str = ""
    kind: str = "other"
    interval: tuple[float, float] | None = None  # (low, high) of `length`

    @property
    def text(self) -> str:
        return f"{self.value} {self.note}".strip()


def histogram(counts: Sequence[int], seen: tuple[float, float], chosen: tuple[float, float], alt: str) -> Markup:
    """Return counts over `seen` as bars, heights by logarithm, and the range `chosen` as a tinted field with two edges.

    Bins outside of `chosen` are drawn apart (class cut).
    """
    low, high = min(seen[0], chosen[0]), max(seen[1], chosen[1])
    span = high - low if high > low else 1.0
    bin_width = (seen[1] - seen[0]) / max(len(counts), 1)
    most = math.log1p(max(counts, default=0)) or 1.0

    def px(x: float) -> float:  # no Axis: a range without a width is drawn too
        return (x - low) / span * _WIDTH

    inside, cut = "", ""
    for i, n in enumerate(counts):
        if n <= 0:
            continue
        x = seen[0] + i * bin_width
        top = _HEIGHT - (_HEIGHT - 6) * math.log1p(n) / most
        bar = f"M{px(x):.1f} {_HEIGHT:.0f}V{top:.1f}H{px(x + bin_width):.1f}V{_HEIGHT:.0f}"
        if chosen[0] <= x + bin_width / 2 <= chosen[1]:
            inside += bar
        else:
            cut += bar
    left, right = px(chosen[0]), px(chosen[1])
    field = f'<rect class="range" x="{left:.1f}" y="0" width="{max(right - left, 0):.1f}" height="{_HEIGHT:.0f}"/>'
    edges = f'<path class="edge" d="M{left:.1f} 0V{_HEIGHT:.0f}M{right:.1f} 0V{_HEIGHT:.0f}"/>'
    bins = f'<path class="bins" d="{inside}"/>' + (f'<path class="bins cut" d="{cut}"/>' if cut else "")
    return Markup(
        f'<svg class="histogram" role="img" aria-label="{html.escape(alt)}" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" '
        f'preserveAspectRatio="none">{field}{bins}{edges}</svg>'
    )


def bars(items: Sequence[Bar], width_px: int, alt: str) -> Markup:
    """Return one bar per item, the names on the left or, on a phone, above."""
    narrow = axes.is_narrow(width_px)
    longest = max((len(b.label) for b in items), default=0)
    left = 0.0 if narrow else min(520.0, longest * _CHAR_PX + 16)
    right = width_px - 16.0 - max((len(f"{b.value} {b.note}") for b in items), default=0) * _CHAR_PX
    row_px = 40 if narrow else 26
    most = max((max(b.length, *(b.interval or ())) if b.interval else b.length for b in items), default=0.0) or 1.0
    out = []
    for i, b in enumerate(items):
        y = i * row_px + (row_px - 12 if narrow else row_px / 2)
        end = left + max((right - left) * b.length / most, 1.0)
        whisker, after = "", end
        if b.interval:
            low, high = (left + (right - left) * v / most for v in b.interval)
            ends = "".join(f"M{x:.1f} {y - 4:.1f}v8" for x in (low, high))
            whisker = f'<path class="whisker" d="{ends}M{low:.1f} {y:.1f}H{high:.1f}"/>'
            after = max(end, high)
        label = _shortened(b.label, int((width_px if narrow else left) / _CHAR_PX) - 1)
        rect = f'<rect x="{left:.1f}" y="{y - 5:.1f}" width="{end - left:.1f}" height="10" rx="2"/>'
        name = axes.text(0, y - 12 if narrow else y + 4, label, f"label {b.kind}", digits=(0, 1))
        value = axes.text(after + 8, y + 4, b.text, f"value {b.kind}", digits=(1, 1))
        out.append(axes.group(f"hbar {b.kind}", f"{b.label}: {b.text}", name + rect + whisker + value))
    return axes.svg("".join(out), width_px, row_px * len(items) + 4, alt)


def _shortened(text: str, most: int) -> str:
    """Leave out the middle, which is what names of layers share."""
    if len(text) <= most:
        return text
    half = max((most - 1) // 2, 1)
    return f"{text[: most - 1 - half]}…{text[-half:]}"
