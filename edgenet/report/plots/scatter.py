"""Inline SVG plots for the page, written by hand: no library, no script, colours by CSS class (data/report.css).

Each plot is a function of plain values and a size in pixels. A page draws it twice, once for a desk and once for a
phone, because text in a scaled SVG shrinks with it.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgenet.report.formatting import milliseconds

_FONT_PX = 12
_LOG_FROM = 3.0  # below, a linear scale is the plainer picture
_MOST_NAMED = 6  # files beside their marks on a phone; more get numbers
CHAR_PX = 0.56 * _FONT_PX  # a mean width of the system fonts; labels only need to keep apart, not to fit exactly

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Point:
    """A file in the scatter plot. `y`, `y_low`, `y_high` in percent, `kind` one of chosen, baseline, other."""

    label: str
    title: str
    x_ms: float
    y: float
    y_low: float | None
    y_high: float | None
    size_bytes: int
    kind: str


@dataclass(frozen=True)
class Strip:
    """The raw latency samples of one file."""

    label: str
    samples_ms: tuple[float, ...]
    median_ms: float
    p95_ms: float
    kind: str


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return at most `most` + 1 round values (1, 2 or 5 times a power of ten apart) within [low, high]."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low]
    step = 10 ** math.floor(math.log10(span / most))
    step *= next(k for k in (1, 2, 5, 10, 20) if span / (step * k) <= most)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return the values 1, 2, 5 times a power of ten within [low, high]."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [k * 10.0**d for d in decades for k in (1, 2, 5) if low <= k * 10.0**d <= high]


@dataclass(frozen=True)
class Axis:
    """Latency across: linear, or by its logarithm where the files are more than `_LOG_FROM` times apart."""

    low: float
    high: float
    left_px: float
    right_px: float
    log: bool

    def px(self, ms: float) -> float:
        ms = min(max(ms, self.low), self.high)
        at, low, high = (math.log(v) if self.log else v for v in (ms, self.low, self.high))
        return self.left_px + (at - low) / (high - low) * (self.right_px - self.left_px)

    def ticks(self, most: int) -> list[tuple[float, str]]:
        values = log_ticks(self.low, self.high) if self.log else ticks(self.low, self.high, most)
        texts = [f"{v:g}" for v in values] if self.log else tick_text(values)
        return [(self.px(v), text) for v, text in zip(values, texts, strict=True)]

    def title(self, text: str) -> str:
        return text + (", logarithmic scale" if self.log else "")


def tick_text(values: Sequence[float]) -> list[str]:
    """Return values of one step as texts with the digits that tell them apart."""
    step = values[1] - values[0] if len(values) > 1 else 1.0
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    return [f"{v:.{digits}f}".replace("-", "−") for v in values]


def scatter(points: Sequence[Point], width_px: int, height_px: int, y_label: str, limit: float | None,
            limit_label: str, alt: str, x_label: str = "median latency, ms") -> str:  # fmt: skip
    """Return latency, or what `x_label` names, across, accuracy up, file size as area; bars are intervals, the dashed
    line is the limit.

    On a phone many files are numbered by latency, with a key below the plot, which adds to its height.
    """
    points = sorted(points, key=lambda p: p.x_ms)
    keyed = width_px <= 500 and len(points) > _MOST_NAMED
    names = [str(i + 1) if keyed else p.label for i, p in enumerate(points)]
    left, right, top, bottom = 44.0, width_px - 14.0, 30.0, height_px - 42.0
    ys = [v for p in points for v in (p.y, p.y_low, p.y_high) if v is not None] + ([] if limit is None else [limit])
    y0, y1 = min(ys), max(ys)
    pad = max((y1 - y0) * 0.12, 0.25)
    y0, y1 = y0 - pad, y1 + pad
    x0, x1 = min(p.x_ms for p in points), max(p.x_ms for p in points)
    if log := x0 > 0 and x1 / x0 > _LOG_FROM:
        pad = (x1 / x0) ** 0.14
        x0, x1 = x0 / pad, x1 * pad
    else:
        pad = max((x1 - x0) * 0.14, x1 * 0.06, 1e-3)
        x0, x1 = max(0.0, x0 - pad), x1 + pad
    axis = Axis(x0, x1, left, right, log)
    px = axis.px

    def py(y: float) -> float:
        return bottom - (y - y0) / (y1 - y0) * (bottom - top)

    largest = max(p.size_bytes for p in points) or 1
    max_radius = 17 if width_px > 500 else 13
    radius = [max(4.0, max_radius * math.sqrt(p.size_bytes / largest)) for p in points]
    out = []
    yt = ticks(max(y0, 0.0), min(y1, 100.0), 6)  # the margin reaches beyond what a percentage can be
    for v, text in zip(yt, tick_text(yt), strict=True):
        out.append(f'<path class="grid" d="M{left:.0f} {py(v):.1f}H{right:.0f}"/>')
        out.append(f'<text class="tick" text-anchor="end" x="{left - 8:.0f}" y="{py(v) + 4:.1f}">{text}</text>')
    for x, text in axis.ticks(8 if width_px > 500 else 4):
        out.append(f'<path class="grid" d="M{x:.1f} {top:.0f}V{bottom:.0f}"/>')
        out.append(f'<text class="tick" text-anchor="middle" x="{x:.1f}" y="{bottom + 18:.0f}">{text}</text>')
    out.append(f'<path class="axis" d="M{left:.0f} {bottom:.0f}H{right:.0f}"/>')
    out.append(f'<text class="axis-title" x="0" y="13">{html.escape(y_label)}</text>')
    x_title = axis.title(x_label)
    out.append(f'<text class="axis-title" text-anchor="end" x="{right:.0f}" y="{height_px - 6}">{x_title}</text>')
    taken: list[Box] = []
    for p, r in zip(points, radius, strict=True):
        taken.append((px(p.x_ms) - r, py(p.y) - r, px(p.x_ms) + r, py(p.y) + r))
        if p.y_low is not None and p.y_high is not None:
            taken.append((px(p.x_ms) - 2, py(p.y_high), px(p.x_ms) + 2, py(p.y_low)))
    if limit is not None:
        out.append(f'<path class="limit" d="M{left:.0f} {py(limit):.1f}H{right:.0f}"/>')
        long, y = len(limit_label) * CHAR_PX, py(limit)
        starts = [right - long - 24 * k for k in range(max(int((right - left - long) / 24), 1))]
        places = [(x, y + 4, x + long, y + 19) for x in starts]
        box = min(places, key=lambda place: sum(_overlap(place, other) for other in taken))
        out.append(f'<text class="limit-label" x="{box[0]:.0f}" y="{y + 15:.1f}">{html.escape(limit_label)}</text>')
        taken += [(left, y - 1, right, y + 1), box]
    # The largest first, so that a small one lies on top and stays visible.
    for i in sorted(range(len(points)), key=lambda i: (points[i].kind == "chosen", -radius[i])):
        p, x, y = points[i], px(points[i].x_ms), py(points[i].y)
        bar = ""
        if p.y_low is not None and p.y_high is not None:
            bar = f'<path class="bar" d="M{x:.1f} {py(p.y_low):.1f}V{py(p.y_high):.1f}"/>'
        circle = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius[i]:.1f}"/>'
        out.append(f'<g class="mark {p.kind}"><title>{html.escape(p.title)}</title>{bar}{circle}</g>')
    frame = (left, top - 14, right, bottom)
    for i in sorted(range(len(points)), key=lambda i: points[i].kind != "chosen"):
        p, x, y = points[i], px(points[i].x_ms), py(points[i].y)
        box, far = _place(x, y, radius[i], len(names[i]) * CHAR_PX * 1.04, taken, frame)
        taken.append(box)
        if far:
            edge_x, edge_y = min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3])
            out.append(f'<path class="leader" d="M{x:.1f} {y:.1f}L{edge_x:.1f} {edge_y:.1f}"/>')
        out.append(f'<text class="label {p.kind}" x="{box[0]:.1f}" y="{box[3] - 4:.1f}">{html.escape(names[i])}</text>')
    if keyed:
        key, key_px = _key(points, width_px, height_px + 22)
        return svg("".join(out) + key, width_px, height_px + 10 + key_px, alt)
    return svg("".join(out), width_px, height_px, alt)


def _key(points: Sequence[Point], width_px: int, y: float) -> tuple[str, int]:
    """Return which number is which file, in two columns from `y` on, and the height."""
    rows = (len(points) + 1) // 2
    out = []
    for i, p in enumerate(points):
        at = f'x="{(i // rows) * width_px / 2:.0f}" y="{y + (i % rows) * 20:.0f}"'
        out.append(f'<text class="label {p.kind}" {at}>{i + 1}  {html.escape(p.label)}</text>')
    return "".join(out), rows * 20


def _place(x: float, y: float, r: float, width: float, taken: Sequence[Box], frame: Box) -> tuple[Box, bool]:
    """Return where a label goes that covers least of what is taken, nearest first, and whether it needs a leader."""
    h = _FONT_PX + 4
    best, best_cost, best_far = (x, y, x + width, y + h), math.inf, False
    for gap in (4, 14, 28, 44, 62):
        d = r + gap
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


def strips(files: Sequence[Strip], width_px: int, alt: str, most_dots: int = 240) -> str:
    """Return one line of dots per file: every sample (or `most_dots` of them, evenly), the median as a tick."""
    narrow = width_px <= 500
    label_px = 0.0 if narrow else min(200.0, max(len(s.label) for s in files) * CHAR_PX + 18)
    left, right = label_px + 6, width_px - (14.0 if narrow else 86.0)
    row_px = 50 if narrow else 38
    height = row_px * len(files) + 44
    # A few stalls must not squeeze everything else: the scale ends a quarter past the largest p95, what is beyond is
    # drawn at the edge and counted.
    x1 = max(s.p95_ms for s in files) * 1.25 or 1.0
    fastest = min(min(s.samples_ms) for s in files)
    log = fastest > 0 and max(s.median_ms for s in files) / fastest > _LOG_FROM
    axis = Axis(fastest * 0.8 if log else 0.0, x1, left, right, log)
    px = axis.px
    out = []
    for x, text in axis.ticks(4 if narrow else 8):
        out.append(f'<path class="grid" d="M{x:.1f} 4V{height - 38}"/>')
        out.append(f'<text class="tick" text-anchor="middle" x="{x:.1f}" y="{height - 22}">{text}</text>')
    title = axis.title("latency, ms")
    out.append(f'<text class="axis-title" text-anchor="end" x="{right:.0f}" y="{height - 5}">{title}</text>')
    for i, s in enumerate(files):
        y = i * row_px + (36 if narrow else row_px / 2 + 4)
        n = len(s.samples_ms)
        picked = s.samples_ms if n <= most_dots else [s.samples_ms[j * n // most_dots] for j in range(most_dots)]
        # The golden ratio spreads the dots evenly and the same way each time.
        dots = "".join(f"M{px(ms):.1f} {y + ((j * 0.618034) % 1 - 0.5) * 14:.1f}h0" for j, ms in enumerate(picked))
        beyond = sum(ms > x1 for ms in s.samples_ms)
        median = milliseconds(s.median_ms)
        title = f"{s.label}: median {median}, {n} runs, slowest {milliseconds(max(s.samples_ms))}"
        if beyond:
            title += f"; {beyond} beyond the right edge"
        out.append(
            f'<g class="strip {s.kind}"><title>{html.escape(title)}</title>'
            f'<path class="dots" d="{dots}"/><path class="median" d="M{px(s.median_ms):.1f} {y - 11:.1f}v22"/></g>'
        )
        where = (left - 6, y - 16) if narrow else (0, y + 4)
        out.append(f'<text class="label {s.kind}" x="{where[0]:.0f}" y="{where[1]:.1f}">{html.escape(s.label)}</text>')
        value = median + (f" (+{beyond})" if beyond else "")
        where = (right, y - 16) if narrow else (width_px, y + 4)
        out.append(
            f'<text class="value {s.kind}" text-anchor="end" x="{where[0]:.0f}" y="{where[1]:.1f}">{value}</text>'
        )
    return svg("".join(out), width_px, height, alt)


def svg(body: str, width_px: int, height_px: int, alt: str) -> str:
    """Return the body as an image that the page shows to a desk or, up to 500 px, to a phone."""
    kind = "wide" if width_px > 500 else "narrow"
    return (
        f'<svg class="{kind}" role="img" aria-label="{html.escape(alt)}" viewBox="0 0 {width_px} {height_px}" '
        f'width="{width_px}" height="{height_px}">{body}</svg>'
    )
