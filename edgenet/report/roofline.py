"""The section of the page that says why: the roofline of a core with operators below it. SVG by hand, as in plots.py.

Across: multiply-adds for each byte that an operator moves at least; up: multiply-adds a second. The slanted roofs are
memory and cache, by copies; the level ones are arithmetic, by a matrix product in the same runtime.
"""

import html
import math
from collections.abc import Sequence

from edgenet.device_bench.roofline.explain import bound, fraction
from edgenet.report.files import table
from edgenet.report.formatting import percent
from edgenet.report.html import View, escape, figure, listed, section
from edgenet.report.operator_table import MOST_LAYERS, TITLES, new_sentences, rows
from edgenet.report.plots import scatter
from edgenet.results import Explanation, Layer

_WIDE_PX, _NARROW_PX = 1160, 350
_KINDS = {"float32": "baseline", "int8": "chosen"}


def explanations(view: View) -> str:
    """Why the files are as fast as they are: a roofline for each runtime, what follows, and what costs most."""
    found = view.results.explanations
    if not found:
        return ""
    names = {a.id: a.path for a in view.results.artifacts}
    body = ""
    for runtime, threads in dict.fromkeys((e.runtime, e.threads) for e in found):
        files = [e for e in found if (e.runtime, e.threads) == (runtime, threads)]
        if any(x.multiply_adds for e in files for x in e.layers):
            alt = f"Roofline of {runtime}: " + "; ".join(f"{e.precision} {e.median_ms:.2f} ms" for e in files)
            svg = roofline(files, _WIDE_PX, 440, alt) + roofline(files, _NARROW_PX, 340, alt)
            colours = ", ".join(dict.fromkeys(e.precision for e in files))
            setting = f"{runtime}, {threads} thread{'s' * (threads != 1)}"
            caption = (
                f"{setting}: {colours}. A dot is an operator, its area its time; "
                "what lies on a roof is as fast as this core can. Operators without multiply-adds are not drawn."
            )
            body += figure(svg, caption)
        for e in files:
            lines = [(False, [html.escape(cell) for cell in row]) for row in rows(e)]
            titles = [t.capitalize() if t != "ms" else t for t in TITLES]
            caption = f"The {MOST_LAYERS} operators that take longest"
            body += f"<h3>{escape(names.get(e.artifact, e.artifact))}</h3>"
            body += listed(new_sentences(found, e), "notes") + table(caption, titles, lines)
    lead = "Each operator against what a matrix product and copies reach on the same core."
    return section("explanations", "Why", body, escape(lead))


def roofline(files: Sequence[Explanation], width_px: int, height_px: int, alt: str) -> str:
    """Return the operators of `files`, all of one runtime, below the roofs of the first."""
    limits = files[0]
    drawn = [(e, x) for e in files for x in e.layers if x.multiply_adds and x.moved_bytes and x.time_us > 0]
    left, right, top, bottom = 52.0, width_px - 14.0, 30.0, height_px - 42.0
    peaks = limits.multiply_adds_per_s
    memory, cache = limits.copy_bytes_per_s[-1], max(limits.copy_bytes_per_s)
    intensities = [x.multiply_adds / x.moved_bytes for _, x in drawn]
    paces = [_pace(x) for _, x in drawn]
    # As far as the last corner, where the highest roof turns level.
    across = scatter.Axis(
        min(intensities) / 1.5, max([*intensities, max(peaks.values()) / memory]) * 1.5, left, right, True
    )
    up = scatter.Axis(min([*paces, min(peaks.values())]) / 2, max([*paces, *peaks.values()]) * 1.6, bottom, top, True)
    out = []
    for y, text in _ticks(up, 1e9):
        out.append(f'<path class="grid" d="M{left:.0f} {y:.1f}H{right:.0f}"/>')
        out.append(f'<text class="tick" text-anchor="end" x="{left - 8:.0f}" y="{y + 4:.1f}">{text}</text>')
    for at_px, text in _ticks(across, 1.0):
        out.append(f'<text class="tick" text-anchor="middle" x="{at_px:.1f}" y="{bottom + 18:.0f}">{text}</text>')
    out.append(f'<path class="axis" d="M{left:.0f} {bottom:.0f}H{right:.0f}"/>')
    out.append('<text class="axis-title" x="0" y="13">G multiply-adds a second</text>')
    title = "multiply-adds a byte, logarithmic scale"
    out.append(f'<text class="axis-title" text-anchor="end" x="{right:.0f}" y="{height_px - 6}">{title}</text>')
    highest = max(peaks.values())
    for name, rate in (("memory", memory), ("cache", cache)):
        x0 = max(across.low, up.low / rate)
        x1 = min(across.high, highest / rate)
        if x1 > x0:
            a, b = (across.px(x0), up.px(x0 * rate)), (across.px(x1), up.px(x1 * rate))
            out.append(f'<path class="roof" d="M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}"/>')
            turn = math.degrees(math.atan2(b[1] - a[1], b[0] - a[0]))
            out.append(
                f'<text class="tick" transform="translate({a[0] + 8:.1f} {a[1] - 9:.1f}) rotate({turn:.1f})">'
                f"{name}: {rate / 1e9:.0f} GB/s</text>"
            )
    for name, peak in peaks.items():
        y, x0 = up.px(peak), across.px(min(max(peak / cache, across.low), across.high))
        out.append(f'<path class="roof" d="M{x0:.1f} {y:.1f}H{right:.0f}"/>')
        label = f"{name}: {peak / 1e9:.0f} G/s"
        out.append(f'<text class="tick" text-anchor="end" x="{right:.0f}" y="{y - 5:.1f}">{label}</text>')
    longest = max(x.time_us for _, x in drawn)
    for e, x in sorted(drawn, key=lambda pair: -pair[1].time_us):  # small ones on top stay visible
        at = f'cx="{across.px(x.multiply_adds / x.moved_bytes):.1f}" cy="{up.px(_pace(x)):.1f}"'
        radius = max(2.5, 13 * math.sqrt(x.time_us / longest))
        text = (
            f"{e.precision} {x.name}, {x.kind}: {x.time_us / 1e3:.3f} ms, {percent(fraction(x, e), 0)} of the limit, "
            f"bound by {bound(x, e)}"
        )
        out.append(
            f'<g class="mark {_KINDS.get(e.precision, "other")}"><title>{html.escape(text)}</title>'
            f'<circle {at} r="{radius:.1f}"/></g>'
        )
    return scatter.svg("".join(out), width_px, height_px, alt)


def _pace(x: Layer) -> float:
    return x.multiply_adds / x.time_us * 1e6


def _ticks(axis: scatter.Axis, unit: float) -> list[tuple[float, str]]:
    found = [v for v in scatter.log_ticks(axis.low / unit, axis.high / unit) if abs(math.log10(v) % 1) < 1e-9]
    return [(axis.px(v * unit), f"{v:g}") for v in found]
