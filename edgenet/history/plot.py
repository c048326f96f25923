"""A trend as a small drawing: a dot a run with its interval, and what is worse than the run before it marked.

One size fits a desk and a phone. Runs stand evenly, the oldest on the left, at the same place in all drawings of a
model.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgenet.report.plots import axes
from edgenet.report.plots.axes import Axis, Frame

WIDTH_PX, HEIGHT_PX = 350, 188
_LEFT_PX, _RIGHT_PX, _TOP_PX, _BELOW_PX = 48.0, 10.0, 10.0, 24.0
_MARK_PX = 5.0
_TOUCHED = (
    40  # the newest values that answer to a mouse, beside those that are marked: each costs time to open the page
)


@dataclass(frozen=True)
class Dot:
    """A value at the place `at` of its run, in the units of the axis; `title` is what a mouse brings up."""

    at: int
    value: float
    low: float | None
    high: float | None
    title: str
    is_worse: bool = False


def trend(dots: Sequence[Dot], days: Sequence[str], most: float, alt: str) -> Markup:
    """Return the drawing.

    Args:
        days: of all runs of the model, by their place.
        most: what no value can exceed; infinity where there is no such.
    """
    frame = Frame(_LEFT_PX, WIDTH_PX - _RIGHT_PX, _TOP_PX, HEIGHT_PX - _BELOW_PX, HEIGHT_PX)
    up = _up(dots, frame, most)
    inset = min(10.0, (frame.right - frame.left) / 4)
    across = Axis(0, max(len(days) - 1, 1), frame.left + inset, frame.right - inset)
    if len(days) == 1:
        across = Axis(0, 1, (frame.left + frame.right) / 2, frame.right)
    points = [(across.px(d.at), up.px(d.value)) for d in dots]
    whiskers = "".join(
        f"M{x:.1f} {up.px(d.low):.1f}V{up.px(d.high):.1f}"
        for d, (x, _) in zip(dots, points, strict=True)
        if d.low is not None and d.high is not None
    )
    out = [
        frame.rows(up.ticks(4)),
        f'<path class="axis" d="M{frame.left:.0f} {frame.bottom:.0f}H{frame.right:.0f}"/>',
        _days(days, across, frame),
        f'<path class="reach" d="{whiskers}"/>' if whiskers else "",
        axes.line(points).replace("<path", '<path class="run-to-run"', 1) if len(points) > 1 else "",
        f'<path class="values" d="{"".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)}"/>',
        *(_mark(x, y) for d, (x, y) in zip(dots, points, strict=True) if d.is_worse),
        *(_touched(dots[i], *points[i]) for i in range(len(dots)) if dots[i].is_worse or i >= len(dots) - _TOUCHED),
    ]
    return Markup(axes.svg("".join(out), WIDTH_PX, HEIGHT_PX, alt).replace('class="narrow"', 'class="small"', 1))


def _up(dots: Sequence[Dot], frame: Frame, most: float) -> Axis:
    ends = [x for d in dots for x in (d.value, d.low, d.high) if x is not None and math.isfinite(x)]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    pad = max((high - low) * 0.08, abs(high) * 0.01, 1e-9)
    return Axis(max(low - pad, min(0.0, low)), max(min(high + pad, most), high), frame.bottom, frame.top)


def _days(days: Sequence[str], across: Axis, frame: Frame) -> str:
    """Return the days of the first and the last run, and of the one in the middle where there is room."""
    places = dict.fromkeys([0, (len(days) - 1) // 2, len(days) - 1] if len(days) > 4 else [0, len(days) - 1])
    anchors = {0: "start", len(days) - 1: "end"} if len(places) > 1 else {}
    return "".join(
        axes.text(
            {"start": frame.left, "end": frame.right}.get(anchors.get(at, ""), across.px(at)),
            frame.bottom + 18,
            days[at],
            "tick",
            anchors.get(at, "middle"),
            digits=(1, 0),
        )
        for at in places
    )


def _mark(x: float, y: float) -> str:
    m = _MARK_PX
    return f'<path class="worse" d="M{x - m:.1f} {y - m - 4:.1f}h{2 * m:.0f}l{-m:.0f} {m + 3:.0f}z"/>'


def _touched(dot: Dot, x: float, y: float) -> str:
    """Return what a mouse touches around a value."""
    return axes.group("touch", dot.title, f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6"/>')
