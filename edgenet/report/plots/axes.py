"""What the plots share: scales with round ticks, the pieces of SVG, and a drawing for a desk beside one for a phone.

SVG is written by hand: no library, no script, colours by CSS class (templates/report.css). A page has each plot twice,
as text in a scaled SVG shrinks with it; the style sheet shows the one that fits.
"""

import html
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDE_PX, NARROW_PX = 1160, 350
_NARROW_UP_TO_PX = 500
FONT_PX = 12
CHAR_PX = 0.56 * FONT_PX  # a mean width of the system fonts; labels only need to keep apart, not to fit exactly


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


def is_decade(value: float) -> bool:
    """Whether a value is a power of ten."""
    return abs(value / 10 ** round(math.log10(value)) - 1) < 1e-9


def tick_texts(values: Sequence[float]) -> list[str]:
    """Return values of one step as texts with the digits that tell them apart."""
    step = values[1] - values[0] if len(values) > 1 else 1.0
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    return [f"{v:.{digits}f}".replace("-", "−") for v in values]


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    px: float
    text: str


@dataclass(frozen=True)
class Axis:
    """A scale from `low` at `low_px` to `high` at `high_px`, linear or logarithmic. What lies beyond is at the edge."""

    low: float
    high: float
    low_px: float
    high_px: float
    log: bool = False

    def px(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        at, low, high = (math.log(v) if self.log else v for v in (value, self.low, self.high))
        return self.low_px + (at - low) / (high - low) * (self.high_px - self.low_px)

    def ticks(self, most: int) -> list[Tick]:
        """Return round values on the axis, at most `most` + 1 of a linear one."""
        values = log_ticks(self.low, self.high) if self.log else ticks(self.low, self.high, most)
        return self.at(values, [f"{v:g}" for v in values] if self.log else tick_texts(values))

    def at(self, values: Iterable[float], texts: Iterable[str]) -> list[Tick]:
        """Return a tick for each value and its text."""
        return [Tick(self.px(v), text) for v, text in zip(values, texts, strict=True)]

    def title(self, text: str) -> str:
        return text + (", logarithmic scale" if self.log else "")


@dataclass(frozen=True)
class Frame:
    """Where a plot's axes are, in pixels from its top left corner, and how large the whole is."""

    left: float
    right: float
    top: float
    bottom: float
    height_px: int

    def rows(self, up: Iterable[Tick], gap_px: float = 8) -> str:
        """Return a line across at each tick of the axis that points up, its text on the left."""
        return "".join(
            f'<path class="grid" d="M{self.left:.0f} {t.px:.1f}H{self.right:.0f}"/>'
            + text(self.left - gap_px, t.px + 4, t.text, "tick", "end", digits=(0, 1))
            for t in up
        )

    def columns(self, across: Iterable[Tick], grid: bool = False) -> str:
        """Return the text of each tick below the axis, with a line up where the plot has a `grid`."""
        return "".join(
            (f'<path class="grid" d="M{t.px:.1f} {self.top:.0f}V{self.bottom:.0f}"/>' if grid else "")
            + text(t.px, self.bottom + 18, t.text, "tick", "middle", digits=(1, 0))
            for t in across
        )

    def titles(self, across: str, up: str = "") -> str:
        """Return the line of the axis across and what the axes are called."""
        line = f'<path class="axis" d="M{self.left:.0f} {self.bottom:.0f}H{self.right:.0f}"/>'
        above = text(0, 13, up, "axis-title") if up else ""
        return line + above + text(self.right, self.height_px - 6, across, "axis-title", "end")


def text(x: float, y: float, content: str, kind: str, anchor: str = "", digits: tuple[int, int] = (0, 0)) -> str:
    """Return escaped text of class `kind` at (x, y), written with so many `digits`; `anchor` as in SVG."""
    at = f'x="{x:.{digits[0]}f}" y="{y:.{digits[1]}f}"'
    anchored = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text class="{kind}"{anchored} {at}>{html.escape(content)}</text>'


def group(kind: str, title: str, body: str) -> str:
    """Return what belongs together, with the title that a mouse brings up."""
    return f'<g class="{kind}"><title>{html.escape(title)}</title>{body}</g>'


def line(points: Iterable[tuple[float, float]]) -> str:
    """Return a line through points in pixels."""
    return f'<path d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>'


def is_narrow(width_px: float) -> bool:
    """Whether a plot is for a phone."""
    return width_px <= _NARROW_UP_TO_PX


def svg(body: str, width_px: int, height_px: int, alt: str) -> Markup:
    """Return the body as an image that the page shows to a desk or, where it is narrow, to a phone."""
    kind = "narrow" if is_narrow(width_px) else "wide"
    return Markup(
        f'<svg class="{kind}" role="img" aria-label="{html.escape(alt)}" viewBox="0 0 {width_px} {height_px}" '
        f'width="{width_px}" height="{height_px}">{body}</svg>'
    )


def for_both(draw: Callable[[int], Markup]) -> Markup:
    """Return a plot for a desk and one for a phone; `draw` takes the width in pixels."""
    return draw(WIDE_PX) + draw(NARROW_PX)
