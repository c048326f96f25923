"""The smaller plots of the page: histograms side by side, bars with names. SVG by hand, as in plots.py."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgenet.report.plots.scatter import ticks

_WIDTH, _HEIGHT = 240.0, 72.0  # of a histogram; it scales with its column, and holds no text
_CHAR_PX = 6.7  # a mean width at 12 px


@dataclass(frozen=True)
class Bar:
    """A named bar; `length` is in any unit, `value` what is written at its end, `kind` one of chosen, other."""

    label: str
    length: float
    value: str
    note: str = ""
    kind: str = "other"
    interval: tuple[float, float] | None = None  # (low, high) of `length`


@dataclass(frozen=True)
class Pace:
    """A file's latency over time: (seconds, latency relative to the file's own median) pairs, in order of time."""

    label: str
    points: tuple[tuple[float, float], ...]
    kind: str = "other"


def paces(files: Sequence[Pace], width_px: int, alt: str, height_px: int = 220) -> str:
    """Return one line per file, time across, relative latency up; 1 is the file's own median. The chosen one on top."""
    left, right, top, bottom = 52.0, width_px - 14.0, 26.0, height_px - 42.0
    xs = [t for f in files for t, _ in f.points]
    ys = sorted(y for f in files for _, y in f.points)
    # The two ends that one stall would stretch are cut to what 98 % of the points need, but 5 % always shows as little.
    low = min(ys[len(ys) // 100], 0.95)
    high = max(ys[-1 - len(ys) // 100], 1.05)
    x0, x1 = min(xs), max(max(xs), min(xs) + 1e-3)

    def px(t: float) -> float:
        return left + (t - x0) / (x1 - x0) * (right - left)

    def py(y: float) -> float:
        return bottom - (min(max(y, low), high) - low) / (high - low) * (bottom - top)

    out = []
    for y in ticks(low, high, 4):
        text = f"{(y - 1) * 100:+.3g} %".replace("-", "−") if abs(y - 1) > 1e-9 else "median"
        out.append(f'<path class="grid" d="M{left:.0f} {py(y):.1f}H{right:.0f}"/>')
        out.append(f'<text class="tick" text-anchor="end" x="{left - 6:.0f}" y="{py(y) + 4:.1f}">{text}</text>')
    for t in ticks(x0, x1, 8 if width_px > 500 else 4):
        out.append(f'<text class="tick" text-anchor="middle" x="{px(t):.1f}" y="{bottom + 18:.0f}">{t:g}</text>')
    out.append(f'<path class="axis" d="M{left:.0f} {bottom:.0f}H{right:.0f}"/>')
    out.append(f'<text class="axis-title" text-anchor="end" x="{right:.0f}" y="{height_px - 6}">seconds</text>')
    for f in sorted(files, key=lambda f: f.kind == "chosen"):
        line = "L".join(f"{px(t):.1f} {py(y):.1f}" for t, y in f.points)
        title = html.escape(f.label)
        out.append(f'<g class="pace {f.kind}"><title>{title}</title><path d="M{line}"/></g>')
    kind = "wide" if width_px > 500 else "narrow"
    return (
        f'<svg class="{kind}" role="img" aria-label="{html.escape(alt)}" viewBox="0 0 {width_px} {height_px}" '
        f'width="{width_px}" height="{height_px}">{"".join(out)}</svg>'
    )


def histogram(counts: Sequence[int], seen: tuple[float, float], chosen: tuple[float, float], alt: str) -> str:
    """Return counts over `seen` as bars, heights by logarithm, and the range `chosen` as a tinted field with two edges.

    Bins outside of `chosen` are drawn apart (class cut).
    """
    low, high = min(seen[0], chosen[0]), max(seen[1], chosen[1])
    span = high - low if high > low else 1.0
    bin_width = (seen[1] - seen[0]) / max(len(counts), 1)
    most = math.log1p(max(counts, default=0)) or 1.0

    def px(x: float) -> float:
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
    bars_ = f'<path class="bins" d="{inside}"/>' + (f'<path class="bins cut" d="{cut}"/>' if cut else "")
    return (
        f'<svg class="histogram" role="img" aria-label="{html.escape(alt)}" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" '
        f'preserveAspectRatio="none">{field}{bars_}{edges}</svg>'
    )


def bars(items: Sequence[Bar], width_px: int, alt: str) -> str:
    """Return one bar per item, the names on the left or, on a phone, above."""
    narrow = width_px <= 500
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
        at = (0, y - 12) if narrow else (0, y + 4)
        value = html.escape(f"{b.value} {b.note}".strip())
        out.append(
            f'<g class="hbar {b.kind}"><title>{html.escape(f"{b.label}: {b.value} {b.note}".strip())}</title>'
            f'<text class="label {b.kind}" x="{at[0]}" y="{at[1]:.1f}">{html.escape(label)}</text>'
            f'<rect x="{left:.1f}" y="{y - 5:.1f}" width="{end - left:.1f}" height="10" rx="2"/>{whisker}'
            f'<text class="value {b.kind}" x="{after + 8:.1f}" y="{y + 4:.1f}">{value}</text></g>'
        )
    kind = "narrow" if narrow else "wide"
    height = row_px * len(items) + 4
    return (
        f'<svg class="{kind}" role="img" aria-label="{html.escape(alt)}" viewBox="0 0 {width_px} {height}" '
        f'width="{width_px}" height="{height}">{"".join(out)}</svg>'
    )


def _shortened(text: str, most: int) -> str:
    """Leave out the middle, which is what names of layers share."""
    if len(text) <= most:
        return text
    half = max((most - 1) // 2, 1)
    return f"{text[: most - 1 - half]}…{text[-half:]}"
