"""How the pace of each file held: time across, latency up, relative to the file's own median."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgenet.report.plots import axes
from edgenet.report.plots.axes import Axis, Frame, ticks


@dataclass(frozen=True)
class Pace:
    """A file's latency over time: (seconds, latency relative to the file's own median) pairs, in order of time."""

    label: str
    points: tuple[tuple[float, float], ...]
    kind: str = "other"


def paces(files: Sequence[Pace], width_px: int, alt: str, height_px: int = 220) -> Markup:
    """Return one line per file, time across, relative latency up; 1 is the file's own median. The chosen one on top."""
    frame = Frame(52.0, width_px - 14.0, 26.0, height_px - 42.0, height_px)
    xs = [t for f in files for t, _ in f.points]
    ys = sorted(y for f in files for _, y in f.points)
    across = Axis(min(xs), max(max(xs), min(xs) + 1e-3), frame.left, frame.right)
    # The two ends that one stall would stretch are cut to what 98 % of the points need, but 5 % always shows as little.
    up = Axis(min(ys[len(ys) // 100], 0.95), max(ys[-1 - len(ys) // 100], 1.05), frame.bottom, frame.top)
    y_ticks = ticks(up.low, up.high, 4)
    x_ticks = ticks(across.low, across.high, 4 if axes.is_narrow(width_px) else 8)
    out = [
        frame.rows(up.at(y_ticks, map(_relative, y_ticks)), gap_px=6),
        frame.columns(across.at(x_ticks, [f"{t:g}" for t in x_ticks])),
        frame.titles("seconds"),
    ]
    for f in sorted(files, key=lambda f: f.kind == "chosen"):
        out.append(axes.group(f"pace {f.kind}", f.label, axes.line((across.px(t), up.px(y)) for t, y in f.points)))
    return axes.svg("".join(out), width_px, height_px, alt)


def _relative(y: float) -> str:
    return f"{(y - 1) * 100:+.3g} %".replace("-", "−") if abs(y - 1) > 1e-9 else "median"
