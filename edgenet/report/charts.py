"""The plots of the page: accuracy against latency, every run of every file, and how the pace held."""

from collections.abc import Sequence

from edgenet.device_bench.steadiness import curve, throttling
from edgenet.report.formatting import megabytes, milliseconds, percent
from edgenet.report.pieces import Figure
from edgenet.report.plots.axes import for_both, is_narrow
from edgenet.report.plots.paces import Pace, paces
from edgenet.report.plots.scatter import Limit, Point, scatter
from edgenet.report.plots.strips import Strip, strips
from edgenet.report.refusals import plural_points
from edgenet.report.rows import Row
from edgenet.report.view import View
from edgenet.results import Measurement


def tradeoff(view: View) -> Figure | None:
    """Latency across, accuracy up, size as area."""
    by_labels = view.answer.by_labels
    drawn = [p for r in view.rows if (p := _point(view, r, by_labels))]
    if not drawn:
        return None
    title = view.rows[0].words.title
    what = ("Top-1 accuracy" if title == "Top-1" else title) if by_labels else "Agreement with float32"
    limit, alt = _limit(view), f"{what} against latency: " + "; ".join(p.title for p in drawn)
    drawing = for_both(lambda px: scatter(drawn, px, 340 if is_narrow(px) else 440, f"{what}, %", alt, limit))
    left_out = [r.name for r in view.rows if view.label(r) not in {p.label for p in drawn}]
    caption = "Up and left is better; area is file size."
    if by_labels and any(p.y_low is not None for p in drawn):
        caption += " A bar is the 95 % interval of the difference from float32 on the same pictures."
    elif any(p.y_low is not None for p in drawn):
        caption += " A bar is the 95 % interval."
    if left_out:
        caption += f" Not drawn, for want of numbers: {', '.join(left_out)}."
    return Figure(drawing, caption)


def _limit(view: View) -> Limit | None:
    lost, base = view.answer.limit, view.baseline
    if view.random_weights or any(s.min_sqnr_db is not None for s in view.results.context.search.values()):
        return None
    if not view.answer.by_labels:
        return Limit((1 - lost) * 100, f"limit: {percent(1 - lost, 0)}")
    if base and base.evaluation and base.evaluation.top1 is not None:
        return Limit((base.evaluation.top1 - lost) * 100, f"limit: {plural_points(lost)} below float32")
    return None


def _point(view: View, r: Row, by_labels: bool) -> Point | None:
    e, m = r.evaluation, r.measurement
    if e is None or m is None:
        return None
    y = e.top1 if by_labels else 1.0 if r.is_baseline else e.agreement
    if y is None:
        return None
    low, high = None, None
    if by_labels and e.top1_drop_ci95 and not r.is_baseline and r.drop is not None:
        top = y + r.drop  # the reference's top-1 on the same pictures
        low, high = top - e.top1_drop_ci95[1], top - e.top1_drop_ci95[0]
    elif not by_labels and e.agreement_ci95 and not r.is_baseline:
        low, high = e.agreement_ci95
    title = f"{r.name}: {milliseconds(m.median_ms)}, {percent(y)}, {megabytes(r.artifact.size_bytes)}"
    low, high = (None if v is None else v * 100 for v in (low, high))
    return Point(view.label(r), title, m.median_ms, y * 100, low, high, r.artifact.size_bytes, view.kind(r))


def latency(view: View) -> Figure | None:
    """Every run of every file, so that noise can be seen."""
    measured = [(r, m) for r in view.rows if (m := r.measurement)]
    if not measured:
        return None
    files = [
        Strip(view.label(r), tuple(ns / 1e6 for ns in m.samples_ns), m.median_ms, m.p95_ms, view.kind(r))
        for r, m in measured
    ]
    alt = "Latency of every run: " + "; ".join(f"{s.label} median {milliseconds(s.median_ms)}" for s in files)
    first = measured[0][1]
    runs = sorted({m.n_runs for _, m in measured})
    n = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    where = view.device(first.device, first.threads)
    caption = f"A dot is one run, the tick the median. {n} runs a file on {where}, after warm-up."
    if any(m.disturbed_ns for _, m in measured):
        caption += " Runs beside which the core was shared are left out."
    if any(len(set(m.rounds)) > 1 for _, m in measured):
        caption += " The files took turns, so that drift hits all alike."
    if any(ms > max(s.p95_ms for s in files) * 1.25 for s in files for ms in s.samples_ms):
        caption += " (+n) counts slower runs beyond the right edge."
    return Figure(for_both(lambda px: strips(files, px, alt)), caption)


def over_time(view: View) -> Figure | None:
    """How the pace held: drift and throttling, which a median hides."""
    measured = [(r, m) for r in view.rows if (m := r.measurement) and len(m.round_s) > 3]
    if not measured:
        return None
    drawn, slowed = [], []
    for r, m in measured:
        points = curve(m.every_run_ns, m.every_round, m.round_s, points=60 if m.sustained_s else 1)
        drawn.append(Pace(view.label(r), tuple((t, ms / m.median_ms) for t, ms in points), view.kind(r)))
        held = throttling(points)
        if m.sustained_s and held.from_s is not None:
            slowed.append(f"{view.label(r)} by {percent(held.change, 0)} after {held.from_s - m.round_s[0]:.0f} s")
    alt = "Latency over time, relative to each file's median: " + ", ".join(p.label for p in drawn)
    caption = " ".join(_steadiness(measured[0][1], slowed, any(m.disturbed_ns for _, m in measured)))
    return Figure(for_both(lambda px: paces(drawn, px, alt)), caption)


def _steadiness(m: Measurement, slowed: Sequence[str], disturbed: bool) -> list[str]:
    """Return sentences on how steady the machine was; `m` is of any file of the run."""
    out = ["A line is a file, a point the median of a round: where all rise together, the machine slowed down."]
    if disturbed:
        out.append("Every run is in it, those that were set aside too.")
    if slowed:
        out.append(f"Without a pause, slower in the end: {', '.join(slowed)}.")
    for name, values, unit in (("Clock", m.round_mhz, "MHz"), ("Temperature", m.round_celsius, "°C")):
        known = [v for v in values if v is not None]
        if known:
            low, high = f"{min(known):.0f}", f"{max(known):.0f}"
            out.append(f"{name} {low if low == high else f'{low} to {high}'} {unit}.")
    if m.self_ratio is not None:
        ci = m.self_ratio_ci98
        around = f" (98 % interval {ci[0]:.3f} to {ci[1]:.3f})" if ci else ""
        out.append(
            f"The first file, measured twice as if it were two, took {m.self_ratio:.3f} times its own time{around}."
        )
    return out
