"""How training went, epoch by epoch: lines in panels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgenet.report.plots import axes
from edgenet.report.plots.axes import CHAR_PX, Axis, Frame, Tick, is_decade, log_ticks, ticks

_PANEL_PX, _GAP_PX = 260, 56
_LOG_FROM = 30.0  # a loss that falls further is flat on a linear scale
_LINE_PX = 15  # apart, so that two names at the right end do not touch


@dataclass(frozen=True)
class Curve:
    """Values by epoch; `kind` one of chosen, other; `band`: epoch, low and high of an interval around them."""

    label: str
    values: tuple[tuple[float, float], ...]
    kind: str
    band: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True)
class Panel:
    """One plot: its title, its curves, and a level to compare with. Drawn are the curves that have a value."""

    title: str
    curves: tuple[Curve, ...]
    level: float | None = None
    level_label: str = ""
    most: float = math.inf  # what no value can exceed


def curves(panels: Sequence[Panel], best_epoch: int, epochs: int, width_px: int, alt: str) -> Markup:
    """Return the panels side by side or, on a phone, one below another, with the best epoch marked in each."""
    narrow = axes.is_narrow(width_px)
    n = len(panels)
    each = width_px if narrow or n == 1 else (width_px - _GAP_PX * (n - 1)) // n
    out = []
    for i, panel in enumerate(panels):
        x, y = (0, i * (_PANEL_PX + 24)) if narrow else (i * (each + _GAP_PX), 0)
        body = _panel(panel, best_epoch, max(epochs, 1), each)
        out.append(f'<g transform="translate({x} {y})">{body}</g>')
    height = n * (_PANEL_PX + 24) - 24 if narrow else _PANEL_PX
    return axes.svg("".join(out), width_px, height, alt)


def _panel(panel: Panel, best_epoch: int, epochs: int, width_px: int) -> str:
    drawn = [c for c in panel.curves if c.values]
    names = max((len(c.label) for c in drawn), default=0)
    frame = Frame(46.0, width_px - names * CHAR_PX * 1.1 - 12, 32.0, _PANEL_PX - 42.0, _PANEL_PX)
    across, up = Axis(0, epochs, frame.left, frame.right), _up(panel, drawn, frame)
    whole = [v for v in ticks(0, epochs, 4 if axes.is_narrow(width_px) else 6) if v == int(v)]
    best = across.px(best_epoch)
    out = [
        frame.rows(_ticks(up)),
        frame.columns(across.at(whole, [f"{v:.0f}" for v in whole])),
        frame.titles("epoch", up.title(panel.title)),
        f'<path class="best" d="M{best:.1f} {frame.top:.0f}V{frame.bottom:.0f}"/>',
    ]
    if panel.level is not None:
        y = up.px(panel.level)
        above = y - 5 if y > (frame.top + frame.bottom) / 2 else y + 14
        out.append(f'<path class="limit" d="M{frame.left:.0f} {y:.1f}H{frame.right:.0f}"/>')
        out.append(axes.text(frame.right, above, panel.level_label, "limit-label", "end", digits=(0, 1)))
    places = _apart([up.px(c.values[-1][1]) for c in drawn], frame.top, frame.bottom)
    out += [_band(c.band, across, up) for c in drawn if len(c.band) > 1]
    for c, at in zip(drawn, places, strict=True):
        points = [(across.px(x), up.px(y)) for x, y in c.values]
        marked = [p for p, (x, _) in zip(points, c.values, strict=True) if x == best_epoch or len(points) == 1]
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in marked)
        out.append(axes.group(f"curve {c.kind}", c.label, axes.line(points) + dots))
        out.append(axes.text(frame.right + 8, at + 4, c.label, f"label {c.kind}", digits=(0, 1)))
    return "".join(out)


def _band(band: Sequence[tuple[float, float, float]], across: Axis, up: Axis) -> str:
    highs = [(across.px(x), up.px(high)) for x, _, high in band]
    lows = [(across.px(x), up.px(low)) for x, low, _ in reversed(band)]
    return f'<g class="band">{axes.line([*highs, *lows])}</g>'


def _up(panel: Panel, drawn: Sequence[Curve], frame: Frame) -> Axis:
    ys = [y for c in drawn for _, y in c.values] + [y for c in drawn for _, *ends in c.band for y in ends]
    ys += [] if panel.level is None else [panel.level]
    low, high = (min(ys), max(ys)) if ys else (0.0, 1.0)
    if low > 0 and high / low > _LOG_FROM:
        return Axis(low, high, frame.bottom, frame.top, log=True)
    pad = max((high - low) * 0.1, abs(high) * 0.005, 1e-9)
    return Axis(low - pad, min(high + pad, panel.most), frame.bottom, frame.top)


def _ticks(up: Axis) -> list[Tick]:
    found = up.ticks(5)
    if not up.log or len(found) <= 7:
        return found
    decades = [v for v in log_ticks(up.low, up.high) if is_decade(v)]
    return up.at(decades, [f"{v:g}" for v in decades])


def _apart(ys: Sequence[float], top: float, bottom: float) -> list[float]:
    """Return the heights of names that were to stand at `ys`, in the same order from top to bottom, none touching."""
    placed, last = [0.0] * len(ys), top - _LINE_PX
    for i in sorted(range(len(ys)), key=lambda i: ys[i]):
        last = placed[i] = max(ys[i], last + _LINE_PX)
    over = max(0.0, max(placed, default=0.0) - bottom)
    return [y - over for y in placed]
