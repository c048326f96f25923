"""How training went, epoch by epoch: lines in panels, SVG by hand as in plots.py."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgenet.report.plots.scatter import CHAR_PX, log_ticks, svg, tick_text, ticks

_PANEL_PX, _GAP_PX = 260, 56
_LOG_FROM = 30.0  # a loss that falls further is flat on a linear scale
_LINE_PX = 15  # apart, so that two names at the right end do not touch


@dataclass(frozen=True)
class Curve:
    """Values by epoch; `kind` one of chosen, other."""

    label: str
    values: tuple[tuple[float, float], ...]
    kind: str


@dataclass(frozen=True)
class Panel:
    """One plot: its title, its curves, and a level to compare with. Drawn are the curves that have a value."""

    title: str
    curves: tuple[Curve, ...]
    level: float | None = None
    level_label: str = ""
    most: float = math.inf  # what no value can exceed


def curves(panels: Sequence[Panel], best_epoch: int, epochs: int, width_px: int, alt: str) -> str:
    """Return the panels side by side or, on a phone, one below another, with the best epoch marked in each."""
    narrow = width_px <= 500
    n = len(panels)
    each = width_px if narrow or n == 1 else (width_px - _GAP_PX * (n - 1)) // n
    out = []
    for i, panel in enumerate(panels):
        x, y = (0, i * (_PANEL_PX + 24)) if narrow else (i * (each + _GAP_PX), 0)
        body = _panel(panel, best_epoch, max(epochs, 1), each)
        out.append(f'<g transform="translate({x} {y})">{body}</g>')
    height = n * (_PANEL_PX + 24) - 24 if narrow else _PANEL_PX
    return svg("".join(out), width_px, height, alt)


def _panel(panel: Panel, best_epoch: int, epochs: int, width_px: int) -> str:
    drawn = [c for c in panel.curves if c.values]
    names = max((len(c.label) for c in drawn), default=0)
    left, right, top, bottom = 46.0, width_px - names * CHAR_PX * 1.1 - 12, 32.0, _PANEL_PX - 42.0
    ys = [y for c in drawn for _, y in c.values] + ([] if panel.level is None else [panel.level])
    low, high = (min(ys), max(ys)) if ys else (0.0, 1.0)
    log = low > 0 and high / low > _LOG_FROM
    if not log:
        pad = max((high - low) * 0.1, abs(high) * 0.005, 1e-9)
        low, high = low - pad, min(high + pad, panel.most)

    def px(epoch: float) -> float:
        return left + epoch / epochs * (right - left)

    def py(y: float) -> float:
        at, a, b = (math.log(v) if log else v for v in (y, low, high))
        return bottom - (at - a) / (b - a) * (bottom - top)

    values = log_ticks(low, high) if log else ticks(low, high, 5)
    if len(values) > 7:
        values = [v for v in values if f"{v:e}".startswith("1.0")]  # decades alone
    texts = [f"{v:g}" for v in values] if log else tick_text(values)
    out = []
    for v, text in zip(values, texts, strict=True):
        out.append(f'<path class="grid" d="M{left:.0f} {py(v):.1f}H{right:.0f}"/>')
        out.append(f'<text class="tick" text-anchor="end" x="{left - 8:.0f}" y="{py(v) + 4:.1f}">{text}</text>')
    for v in ticks(0, epochs, 6 if width_px > 500 else 4):
        if v == int(v):
            out.append(f'<text class="tick" text-anchor="middle" x="{px(v):.1f}" y="{bottom + 18:.0f}">{int(v)}</text>')
    title = panel.title + (", logarithmic scale" if log else "")
    out.append(f'<path class="axis" d="M{left:.0f} {bottom:.0f}H{right:.0f}"/>')
    out.append(f'<text class="axis-title" x="0" y="13">{html.escape(title)}</text>')
    out.append(f'<text class="axis-title" text-anchor="end" x="{right:.0f}" y="{_PANEL_PX - 6}">epoch</text>')
    out.append(f'<path class="best" d="M{px(best_epoch):.1f} {top:.0f}V{bottom:.0f}"/>')
    if panel.level is not None:
        y = py(panel.level)
        above = y - 5 if y > (top + bottom) / 2 else y + 14
        out.append(f'<path class="limit" d="M{left:.0f} {y:.1f}H{right:.0f}"/>')
        label = f'<text class="limit-label" text-anchor="end" x="{right:.0f}" y="{above:.1f}">'
        out.append(f"{label}{html.escape(panel.level_label)}</text>")
    places = _apart([py(c.values[-1][1]) for c in drawn], top, bottom)
    for c, at in zip(drawn, places, strict=True):
        line = "L".join(f"{px(x):.1f} {py(y):.1f}" for x, y in c.values)
        dots = "".join(f'<circle cx="{px(x):.1f}" cy="{py(y):.1f}" r="2.6"/>' for x, y in c.values if x == best_epoch)
        single = f'<circle cx="{px(c.values[0][0]):.1f}" cy="{py(c.values[0][1]):.1f}" r="2.6"/>'
        mark = single if len(c.values) == 1 else dots
        out.append(f'<g class="curve {c.kind}"><title>{html.escape(c.label)}</title><path d="M{line}"/>{mark}</g>')
        text = html.escape(c.label)
        out.append(f'<text class="label {c.kind}" x="{right + 8:.0f}" y="{at + 4:.1f}">{text}</text>')
    return "".join(out)


def _apart(ys: Sequence[float], top: float, bottom: float) -> list[float]:
    """Return the heights of names that were to stand at `ys`, in the same order from top to bottom, none touching."""
    placed, last = [0.0] * len(ys), top - _LINE_PX
    for i in sorted(range(len(ys)), key=lambda i: ys[i]):
        last = placed[i] = max(ys[i], last + _LINE_PX)
    over = max(0.0, max(placed, default=0.0) - bottom)
    return [y - over for y in placed]
