"""The roofline of a core with operators below it.

Williams, Waterman and Patterson, https://doi.org/10.1145/1498765.1498785. Across: multiply-adds for each byte that an
operator moves at least; up: multiply-adds a second. The slanted roofs are memory and cache, by copies; the level ones
are arithmetic, by a matrix product in the same runtime.
"""

import math
from collections.abc import Sequence

from markupsafe import Markup

from edgenet.device_bench.roofline.explain import bound, fraction
from edgenet.report.formatting import percent
from edgenet.report.plots import axes
from edgenet.report.plots.axes import Axis, Frame, Tick, is_decade, log_ticks
from edgenet.results import Explanation, Layer

_KINDS = {"float32": "baseline", "int8": "chosen"}

Operator = tuple[Explanation, Layer]  # of the file that it is in


def roofline(files: Sequence[Explanation], width_px: int, height_px: int, alt: str) -> Markup:
    """Return the operators of `files`, all of one runtime, below the roofs of the first."""
    drawn = [(e, x) for e in files for x in e.layers if x.multiply_adds and x.moved_bytes and x.time_us > 0]
    frame = Frame(52.0, width_px - 14.0, 30.0, height_px - 42.0, height_px)
    limits = files[0]
    peaks, memory = limits.multiply_adds_per_s, limits.copy_bytes_per_s[-1]
    # As far as the last corner, where the highest roof turns level.
    intensities = [*(_intensity(x) for _, x in drawn), max(peaks.values()) / memory]
    paces = [_pace(x) for _, x in drawn]
    across = Axis(min(intensities[:-1]) / 1.5, max(intensities) * 1.5, frame.left, frame.right, log=True)
    lowest, highest = min(*paces, *peaks.values()), max(*paces, *peaks.values())
    up = Axis(lowest / 2, highest * 1.6, frame.bottom, frame.top, log=True)
    out = [
        frame.rows(_decades(up, 1e9)),
        frame.columns(_decades(across, 1.0)),
        frame.titles("multiply-adds a byte, logarithmic scale", "G multiply-adds a second"),
        *_roofs(limits, across, up, frame),
        *_operators(drawn, across, up),
    ]
    return axes.svg("".join(out), width_px, height_px, alt)


def _roofs(limits: Explanation, across: Axis, up: Axis, frame: Frame) -> list[str]:
    peaks, memory, cache = limits.multiply_adds_per_s, limits.copy_bytes_per_s[-1], max(limits.copy_bytes_per_s)
    highest, out = max(peaks.values()), []
    for name, rate in (("memory", memory), ("cache", cache)):
        x0, x1 = max(across.low, up.low / rate), min(across.high, highest / rate)
        if x1 > x0:
            a, b = (across.px(x0), up.px(x0 * rate)), (across.px(x1), up.px(x1 * rate))
            out.append(f'<path class="roof" d="M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}"/>')
            turn = math.degrees(math.atan2(b[1] - a[1], b[0] - a[0]))
            out.append(
                f'<text class="tick" transform="translate({a[0] + 8:.1f} {a[1] - 9:.1f}) rotate({turn:.1f})">'
                f"{name}: {rate / 1e9:.0f} GB/s</text>"
            )
    for name, peak in peaks.items():
        y, x0 = up.px(peak), across.px(peak / cache)
        out.append(f'<path class="roof" d="M{x0:.1f} {y:.1f}H{frame.right:.0f}"/>')
        out.append(axes.text(frame.right, y - 5, f"{name}: {peak / 1e9:.0f} G/s", "tick", "end", digits=(0, 1)))
    return out


def _operators(drawn: Sequence[Operator], across: Axis, up: Axis) -> list[str]:
    longest, out = max(x.time_us for _, x in drawn), []
    for e, x in sorted(drawn, key=lambda pair: -pair[1].time_us):  # small ones on top stay visible
        at = f'cx="{across.px(_intensity(x)):.1f}" cy="{up.px(_pace(x)):.1f}"'
        radius = max(2.5, 13 * math.sqrt(x.time_us / longest))
        title = (
            f"{e.precision} {x.name}, {x.kind}: {x.time_us / 1e3:.3f} ms, {percent(fraction(x, e), 0)} of the limit, "
            f"bound by {bound(x, e)}"
        )
        out.append(axes.group(f"mark {_KINDS.get(e.precision, 'other')}", title, f'<circle {at} r="{radius:.1f}"/>'))
    return out


def _intensity(x: Layer) -> float:
    return x.multiply_adds / x.moved_bytes


def _pace(x: Layer) -> float:
    return x.multiply_adds / x.time_us * 1e6


def _decades(axis: Axis, unit: float) -> list[Tick]:
    found = [v for v in log_ticks(axis.low / unit, axis.high / unit) if is_decade(v)]
    return axis.at((v * unit for v in found), [f"{v:g}" for v in found])
