"""Every run of every file: a line of dots a file, so that noise can be seen."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgenet.report.formatting import milliseconds
from edgenet.report.plots import axes
from edgenet.report.plots.axes import CHAR_PX, Axis

_LOG_FROM = 3.0  # times the fastest run; below, a linear scale is the plainer picture


@dataclass(frozen=True)
class Strip:
    """The raw latency samples of one file."""

    label: str
    samples_ms: tuple[float, ...]
    median_ms: float
    p95_ms: float
    kind: str


def strips(files: Sequence[Strip], width_px: int, alt: str, most_dots: int = 240) -> Markup:
    """Return one line of dots per file: every sample (or `most_dots` of them, evenly), the median as a tick."""
    narrow = axes.is_narrow(width_px)
    label_px = 0.0 if narrow else min(200.0, max(len(s.label) for s in files) * CHAR_PX + 18)
    left, right = label_px + 6, width_px - (14.0 if narrow else 86.0)
    row_px = 50 if narrow else 38
    height = row_px * len(files) + 44
    # A few stalls must not squeeze everything else: the scale ends a quarter past the largest p95, what is beyond is
    # drawn at the edge and counted.
    slowest = max(s.p95_ms for s in files) * 1.25 or 1.0
    fastest = min(min(s.samples_ms) for s in files)
    log = fastest > 0 and max(s.median_ms for s in files) / fastest > _LOG_FROM
    axis = Axis(fastest * 0.8 if log else 0.0, slowest, left, right, log)
    out = []
    for t in axis.ticks(4 if narrow else 8):
        out.append(f'<path class="grid" d="M{t.px:.1f} 4V{height - 38}"/>')
        out.append(axes.text(t.px, height - 22, t.text, "tick", "middle", digits=(1, 0)))
    out.append(axes.text(right, height - 5, axis.title("latency, ms"), "axis-title", "end"))
    for i, s in enumerate(files):
        y = i * row_px + (36 if narrow else row_px / 2 + 4)
        beyond = sum(ms > slowest for ms in s.samples_ms)
        out.append(_strip(s, axis, y, beyond, most_dots))
        label_x, value_x, text_y = (left - 6, right, y - 16) if narrow else (0, width_px, y + 4)
        value = milliseconds(s.median_ms) + (f" (+{beyond})" if beyond else "")
        out.append(axes.text(label_x, text_y, s.label, f"label {s.kind}", digits=(0, 1)))
        out.append(axes.text(value_x, text_y, value, f"value {s.kind}", "end", digits=(0, 1)))
    return axes.svg("".join(out), width_px, height, alt)


def _strip(s: Strip, axis: Axis, y: float, beyond: int, most_dots: int) -> str:
    n, px = len(s.samples_ms), axis.px
    picked = s.samples_ms if n <= most_dots else [s.samples_ms[j * n // most_dots] for j in range(most_dots)]
    # The golden ratio spreads the dots evenly and the same way each time.
    dots = "".join(f"M{px(ms):.1f} {y + ((j * 0.618034) % 1 - 0.5) * 14:.1f}h0" for j, ms in enumerate(picked))
    title = f"{s.label}: median {milliseconds(s.median_ms)}, {n} runs, slowest {milliseconds(max(s.samples_ms))}"
    if beyond:
        title += f"; {beyond} beyond the right edge"
    median = f'<path class="median" d="M{px(s.median_ms):.1f} {y - 11:.1f}v22"/>'
    return axes.group(f"strip {s.kind}", title, f'<path class="dots" d="{dots}"/>{median}')
