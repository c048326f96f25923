"""Latency across, accuracy up, file size as area: each file a mark with its name beside it, none on another."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgenet.report.plots import axes
from edgenet.report.plots.axes import CHAR_PX, FONT_PX, Axis, Frame

_LOG_FROM = 3.0  # times apart; below, a linear scale is the plainer picture
_MOST_NAMED = 6  # files beside their marks on a phone; more get numbers

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Point:
    """A file in the scatter plot. `y`, `y_low`, `y_high` in percent, `kind` one of chosen, baseline, other."""

    label: str
    title: str
    x: float  # ms, or in the unit of the plot's `x_label`
    y: float
    y_low: float | None
    y_high: float | None
    size_bytes: int
    kind: str


@dataclass(frozen=True)
class Limit:
    """What `y` may not fall below: a dashed line."""

    y: float
    label: str


@dataclass(frozen=True)
class _Mark:
    """A point in pixels."""

    x: float
    y: float
    radius: float
    bar: tuple[float, float] | None  # bottom and top of the interval
    name: str
    point: Point

    @property
    def boxes(self) -> list[Box]:
        circle = (self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius)
        return [circle, (self.x - 2, self.bar[1], self.x + 2, self.bar[0])] if self.bar else [circle]


def scatter(
    points: Sequence[Point],
    width_px: int,
    height_px: int,
    y_label: str,
    alt: str,
    limit: Limit | None = None,
    x_label: str = "median latency, ms",
) -> Markup:
    """Return latency, or what `x_label` names, across, accuracy up, file size as area; bars are intervals.

    On a phone many files are numbered by latency, with a key below the plot, which adds to its height.
    """
    points = sorted(points, key=lambda p: p.x)
    narrow = axes.is_narrow(width_px)
    keyed = narrow and len(points) > _MOST_NAMED
    frame = Frame(44.0, width_px - 14.0, 30.0, height_px - 42.0, height_px)
    across, up = _across(points, frame), _up(points, limit, frame)
    marks = _marks(points, across, up, 13 if narrow else 17, keyed)
    y_ticks = axes.ticks(max(up.low, 0.0), min(up.high, 100.0), 6)  # the margin is beyond what a percentage can be
    out = [
        frame.rows(up.at(y_ticks, axes.tick_texts(y_ticks))),
        frame.columns(across.ticks(4 if narrow else 8), grid=True),
        frame.titles(across.title(x_label), y_label),
    ]
    taken = [box for m in marks for box in m.boxes]
    if limit is not None:
        drawn, box = _limit(limit, up.px(limit.y), frame, taken)
        out.append(drawn)
        taken += [(frame.left, up.px(limit.y) - 1, frame.right, up.px(limit.y) + 1), box]
    # The largest first, so that a small one lies on top and stays visible.
    out += [_drawn(m) for m in sorted(marks, key=lambda m: (m.point.kind == "chosen", -m.radius))]
    out += _labels(marks, taken, (frame.left, frame.top - 14, frame.right, frame.bottom))
    key, key_px = _key(points, width_px, height_px + 22) if keyed else ("", 0)
    return axes.svg("".join(out) + key, width_px, height_px + key_px, alt)


def _across(points: Sequence[Point], frame: Frame) -> Axis:
    low, high = min(p.x for p in points), max(p.x for p in points)
    if low > 0 and high / low > _LOG_FROM:
        pad = (high / low) ** 0.14
        return Axis(low / pad, high * pad, frame.left, frame.right, log=True)
    pad = max((high - low) * 0.14, high * 0.06, 1e-3)
    return Axis(max(0.0, low - pad), high + pad, frame.left, frame.right)


def _up(points: Sequence[Point], limit: Limit | None, frame: Frame) -> Axis:
    ys = [v for p in points for v in (p.y, p.y_low, p.y_high) if v is not None] + ([limit.y] if limit else [])
    pad = max((max(ys) - min(ys)) * 0.12, 0.25)
    return Axis(min(ys) - pad, max(ys) + pad, frame.bottom, frame.top)


def _marks(points: Sequence[Point], across: Axis, up: Axis, max_radius: int, keyed: bool) -> list[_Mark]:
    largest = max(p.size_bytes for p in points) or 1
    marks = []
    for i, p in enumerate(points):
        bar = None if p.y_low is None or p.y_high is None else (up.px(p.y_low), up.px(p.y_high))
        radius = max(4.0, max_radius * math.sqrt(p.size_bytes / largest))
        marks.append(_Mark(across.px(p.x), up.px(p.y), radius, bar, str(i + 1) if keyed else p.label, p))
    return marks


def _drawn(m: _Mark) -> str:
    bar = f'<path class="bar" d="M{m.x:.1f} {m.bar[0]:.1f}V{m.bar[1]:.1f}"/>' if m.bar else ""
    circle = f'<circle cx="{m.x:.1f}" cy="{m.y:.1f}" r="{m.radius:.1f}"/>'
    return axes.group(f"mark {m.point.kind}", m.point.title, bar + circle)


def _limit(limit: Limit, y: float, frame: Frame, taken: Sequence[Box]) -> tuple[str, Box]:
    """Return the dashed line with its label where that covers least, and the label's place."""
    long = len(limit.label) * CHAR_PX
    starts = [frame.right - long - 24 * k for k in range(max(int((frame.right - frame.left - long) / 24), 1))]
    places = [(x, y + 4, x + long, y + 19) for x in starts]
    box = min(places, key=lambda place: sum(_overlap(place, other) for other in taken))
    line = f'<path class="limit" d="M{frame.left:.0f} {y:.1f}H{frame.right:.0f}"/>'
    return line + axes.text(box[0], y + 15, limit.label, "limit-label", digits=(0, 1)), box


def _labels(marks: Sequence[_Mark], taken: Sequence[Box], frame: Box) -> list[str]:
    out, occupied = [], list(taken)
    for m in sorted(marks, key=lambda m: m.point.kind != "chosen"):
        box, far = _place(m, len(m.name) * CHAR_PX * 1.04, occupied, frame)
        occupied.append(box)
        if far:
            edge_x, edge_y = min(max(m.x, box[0]), box[2]), min(max(m.y, box[1]), box[3])
            out.append(f'<path class="leader" d="M{m.x:.1f} {m.y:.1f}L{edge_x:.1f} {edge_y:.1f}"/>')
        out.append(axes.text(box[0], box[3] - 4, m.name, f"label {m.point.kind}", digits=(1, 1)))
    return out


def _key(points: Sequence[Point], width_px: int, y: float) -> tuple[str, int]:
    """Return which number is which file, in two columns from `y` on, and how much height that adds."""
    rows = (len(points) + 1) // 2
    out = []
    for i, p in enumerate(points):
        at = f'x="{(i // rows) * width_px / 2:.0f}" y="{y + (i % rows) * 20:.0f}"'
        out.append(f'<text class="label {p.kind}" {at}>{i + 1}  {html.escape(p.label)}</text>')
    return "".join(out), 10 + rows * 20


def _place(m: _Mark, width: float, taken: Sequence[Box], frame: Box) -> tuple[Box, bool]:
    """Return where a label goes that covers least of what is taken, nearest first, and whether it needs a leader."""
    x, y, h = m.x, m.y, FONT_PX + 4
    best, best_cost, best_far = (x, y, x + width, y + h), math.inf, False
    for gap in (4, 14, 28, 44, 62):
        d = m.radius + gap
        for cx, cy in ((1, 0), (-1, 0), (0, -1), (0, 1), (0.75, -0.75), (0.75, 0.75), (-0.75, -0.75), (-0.75, 0.75)):
            x0 = x + cx * d - (width / 2 if cx == 0 else width if cx < 0 else 0)
            y0 = y + cy * d - (h / 2 if cy == 0 else h if cy < 0 else 0)
            box = (x0, y0, x0 + width, y0 + h)
            cost = sum(_overlap(box, other) for other in taken)
            cost += 10 * (width * h - _overlap(box, frame))
            if cost < best_cost - 1e-6:
                best, best_cost, best_far = box, cost, gap > 4
        if best_cost < 1e-6:
            break
    return best, best_far


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
