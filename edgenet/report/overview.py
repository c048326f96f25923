"""Results -> OUT/report.html: one file that opens with the answer, and needs neither a network nor a script.

Each section is a function View -> HTML, "" where it has nothing to say; `SECTIONS` is the page from top to bottom.
Every text that comes from a file, a folder or a device passes through `escape`.
"""

import base64
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path, PurePath
from typing import Any

from edgenet.device_bench.steadiness import curve, throttling
from edgenet.report import files as file_tables
from edgenet.report import training
from edgenet.report.formatting import MISSING, counted, failed, megabytes, milliseconds, percent, points
from edgenet.report.html import View, escape, figure, folded, heading, listed, section, tile
from edgenet.report.plots import bars, scatter
from edgenet.report.quantization import calibration, search
from edgenet.report.recommendation import (
    SHOWN_REASONS,
    Row,
    accuracy_sentence,
    by_format,
    latency_sentence,
    main_condition,
    plural_points,
    recommend,
    rows,
    size_sentence,
)
from edgenet.report.roofline import explanations
from edgenet.results import RESULTS_FILE, Flip, Measurement, Results, atomic_write

REPORT_FILE = "report.html"
_MOST_PICTURES = 24
_WIDE_PX, _NARROW_PX = 1160, 350


def write_report(results: Results, out: Path, class_names: Sequence[str] = ()) -> Path:
    """Write OUT/report.html whole or not at all and return its path. Partial results give a page of what there is.

    Args:
        results: what results.json holds.
        out: the folder of results.json.
        class_names: the name of each class index; without, the pictures show "class 17".

    Raises:
        InputError: the disk is full or the place cannot be written to.
    """
    page = render(View(results, by_format(rows(results)), recommend(results), class_names))
    path = out / REPORT_FILE
    with atomic_write(path) as tmp:
        # A file name that is not valid UTF-8 arrives with surrogates, which no encoder takes.
        tmp.write_text(page, encoding="utf-8", errors="replace")
    return path


def render(view: View) -> str:
    """Return the page."""
    css = resources.files("edgenet.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    body = "\n".join(text for draw in SECTIONS if (text := draw(view)))
    title = escape(training.headline(view) or view.answer.headline)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        # The browser itself enforces what the module promises: nothing is loaded, nothing is run.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; img-src data:\">\n"
        f"<title>{title} · edgenet</title>\n<style>\n{css}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        "</body>\n</html>\n"
    )


def answer(view: View) -> str:
    """The headline, three figures, why this file and why not each other."""
    a, chosen, base = view.answer, view.chosen, view.baseline
    loud = "".join(f"<p>{escape(n.text)}</p>" for n in a.notes if n.loud)
    loud = f'<div class="alert" role="note">{loud}</div>' if loud else ""
    quiet = listed([n.text for n in a.notes if not n.loud], "notes")
    if view.results.failures:
        n = len(view.results.failures)
        quiet += f'<p class="failed-link"><a href="#failures">{counted(n, "step")} failed</a></p>'
    head = heading(view, training.headline(view) or a.headline) + loud
    if trained := training.opening(view):
        return head + trained + quiet
    if chosen is None:
        return head + listed(a.why, "why") + _why_not(view) + quiet
    tiles = _size_tile(chosen, base) + _accuracy_tile(view, chosen, base) + _latency_tile(chosen, base)
    why = f'<p class="verdict">{escape(a.why[0])}</p>'
    return f'{head}{why}<div class="tiles">{tiles}</div>{_why_not(view)}{quiet}'


def _why_not(view: View) -> str:
    if not view.answer.why_not:
        return ""
    title = "Why not the others" if view.chosen else "File by file"
    items = [f"<dt>{escape(name)}</dt><dd>{escape(why)}</dd>" for name, why in view.answer.why_not]
    # One more line is shorter than a fold.
    shown = len(items) if len(items) <= SHOWN_REASONS + 1 else SHOWN_REASONS
    body = f"<dl>{''.join(items[:shown])}</dl>"
    if items[shown:]:
        body += folded(f"{len(items) - shown} more files", f"<dl>{''.join(items[shown:])}</dl>")
    rule = f'<p class="rule">{escape(view.answer.rule)}</p>'
    return f'<section class="why-not"><h2>{title}</h2>{body}{rule}</section>'


def _size_tile(r: Row, base: Row | None) -> str:
    size, whole = r.artifact.size_bytes, base.artifact.size_bytes if base else 0
    if r.is_baseline or not whole:
        return tile("Size", megabytes(size), "", None, size_sentence(r, base))
    less = f"{megabytes(whole - size)} less to ship." if size < whole else f"{megabytes(size - whole)} more."
    share = f"{percent(size / whole, 0)} of float32's size, {less}"
    return tile("Size", megabytes(size), f"of {megabytes(whole)}", size / whole, share)


def _accuracy_tile(view: View, r: Row, base: Row | None) -> str:
    by_labels, e = view.answer.by_labels, r.evaluation
    if any(x.artifact.weights == "random" for x in view.rows):
        return tile("Accuracy", MISSING, "", None, "Random weights: accuracy means nothing.")
    sentence = accuracy_sentence(r, base, by_labels)
    if e is None or r.is_baseline:
        return tile("Top-1", percent(e.top1 if e else None), "", None, sentence)
    if not by_labels:
        return tile("Agreement with float32", percent(e.agreement), "same top-1", e.agreement, sentence)
    drop = r.drop or 0.0
    word = "gained" if points(drop).startswith("−") else "lost"
    unit = "point" if points(abs(drop)) == "1.0" else "points"
    whole = base.evaluation.top1 if base and base.evaluation else None
    share = e.top1 / whole if e.top1 is not None and whole else None
    return tile("Top-1 accuracy", f"{points(abs(drop))} {unit}", word, share, sentence)


def _latency_tile(r: Row, base: Row | None) -> str:
    m, base_m = r.measurement, base.measurement if base else None
    of = f"of {milliseconds(base_m.median_ms)}" if base_m and not r.is_baseline else ""
    share = m.median_ms / base_m.median_ms if m and base_m and base_m.median_ms else None
    return tile("Latency", milliseconds(m.median_ms if m else None), of, share, latency_sentence(r, base))


def tradeoff(view: View) -> str:
    """Latency across, accuracy up, size as area."""
    by_labels, base = view.answer.by_labels, view.baseline
    drawn = [p for r in view.rows if (p := _point(view, r, by_labels))]
    if not drawn:
        return ""
    what = "Top-1 accuracy" if by_labels else "Agreement with float32"
    limit, limit_label = None, ""
    random = any(r.artifact.weights == "random" for r in view.rows)
    if not random and by_labels and base and base.evaluation and base.evaluation.top1 is not None:
        limit, limit_label = (
            (base.evaluation.top1 - view.answer.limit) * 100,
            f"limit: {plural_points(view.answer.limit)} below float32",
        )
    elif not random and not by_labels:
        limit, limit_label = (1 - view.answer.limit) * 100, f"limit: {percent(1 - view.answer.limit, 0)}"
    alt = f"{what} against latency: " + "; ".join(p.title for p in drawn)
    wide, narrow = (
        scatter.scatter(drawn, width, height, f"{what}, %", limit, limit_label, alt)
        for width, height in ((_WIDE_PX, 440), (_NARROW_PX, 340))
    )
    left_out = [r.name for r in view.rows if view.label(r) not in {p.label for p in drawn}]
    caption = "Up and left is better; area is file size."
    if by_labels and any(p.y_low is not None for p in drawn):
        caption += " A bar is the 95 % interval of the difference from float32 on the same pictures."
    elif any(p.y_low is not None for p in drawn):
        caption += " A bar is the 95 % interval."
    if left_out:
        caption += f" Not drawn, for want of numbers: {', '.join(left_out)}."
    return section("tradeoff", "Accuracy, latency, size", figure(wide + narrow, caption))


def _point(view: View, r: Row, by_labels: bool) -> scatter.Point | None:
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
    bounds = [None if v is None else v * 100 for v in (low, high)]
    return scatter.Point(
        view.label(r), title, m.median_ms, y * 100, bounds[0], bounds[1], r.artifact.size_bytes, view.kind(r)
    )


def latency(view: View) -> str:
    """Every run of every file, so that noise can be seen."""
    measured = [(r, m) for r in view.rows if (m := r.measurement)]
    if not measured:
        return ""
    files = [
        scatter.Strip(view.label(r), tuple(ns / 1e6 for ns in m.samples_ns), m.median_ms, m.p95_ms, view.kind(r))
        for r, m in measured
    ]
    alt = "Latency of every run: " + "; ".join(f"{s.label} median {milliseconds(s.median_ms)}" for s in files)
    first = measured[0][1]
    where = _device(view, first.device, first.threads)
    runs = sorted({m.n_runs for _, m in measured})
    n = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    caption = f"A dot is one run, the tick the median. {n} runs a file on {where}, after warm-up."
    if any(m.disturbed_ns for _, m in measured):
        caption += " Runs beside which the core was shared are left out."
    if any(len(set(m.rounds)) > 1 for _, m in measured):
        caption += " The files took turns, so that drift hits all alike."
    if any(ms > max(s.p95_ms for s in files) * 1.25 for s in files for ms in s.samples_ms):
        caption += " (+n) counts slower runs beyond the right edge."
    svg = scatter.strips(files, _WIDE_PX, alt) + scatter.strips(files, _NARROW_PX, alt)
    return section("latency", "Latency, run by run", figure(svg, caption))


def over_time(view: View) -> str:
    """How the pace held: drift and throttling, which a median hides."""
    measured = [(r, m) for r in view.rows if (m := r.measurement) and len(m.round_s) > 3]
    if not measured:
        return ""
    drawn, slowed = [], []
    for r, m in measured:
        points = curve(m.every_run_ns, m.every_round, m.round_s, points=60 if m.sustained_s else 1)
        relative = tuple((t, ms / m.median_ms) for t, ms in points)
        drawn.append(bars.Pace(view.label(r), relative, view.kind(r)))
        held = throttling(points)
        if m.sustained_s and held.from_s is not None:
            slowed.append(f"{view.label(r)} by {percent(held.change, 0)} after {held.from_s - m.round_s[0]:.0f} s")
    alt = "Latency over time, relative to each file's median: " + ", ".join(p.label for p in drawn)
    svg = bars.paces(drawn, _WIDE_PX, alt) + bars.paces(drawn, _NARROW_PX, alt)
    said = _steadiness(measured[0][1], slowed)
    if any(m.disturbed_ns for _, m in measured):
        said.insert(1, "Every run is in it, those that were set aside too.")
    caption = " ".join(said)
    return section("over-time", "Latency over time", figure(svg, caption))


def _steadiness(m: Measurement, slowed: Sequence[str]) -> list[str]:
    """What is said of the machine's steadiness below the curve; `m` is of any file of the run."""
    said = ["A line is a file, a point the median of a round: where all rise together, the machine slowed down."]
    if slowed:
        said.append(f"Without a pause, slower in the end: {', '.join(slowed)}.")
    for name, values, unit in (("Clock", m.round_mhz, "MHz"), ("Temperature", m.round_celsius, "°C")):
        known = [v for v in values if v is not None]
        if known:
            low, high = f"{min(known):.0f}", f"{max(known):.0f}"
            said.append(f"{name} {low if low == high else f'{low} to {high}'} {unit}.")
    if m.self_ratio is not None:
        ci = m.self_ratio_ci98
        around = f" (98 % interval {ci[0]:.3f} to {ci[1]:.3f})" if ci else ""
        said.append(
            f"The first file, measured twice as if it were two, took {m.self_ratio:.3f} times its own time{around}."
        )
    return said


def files(view: View) -> str:
    """Every file with every number, and what was measured beside the main setting."""
    if not view.rows:
        return ""
    body = file_tables.every_file(
        view.rows, view.chosen, view.answer.artifact is not None, _files_caption(view)
    ) + file_tables.other_measurements(view.results)
    lead = f'Raw samples and everything else: <a href="{RESULTS_FILE}">{RESULTS_FILE}</a>, next to this page.'
    return section("files", "Every file, every number", body, lead)


def estimates(view: View) -> str:
    """What accelerators would make of the files, where no accelerator was at hand."""
    lead = "Nothing here was run: these are what compilers for accelerators say, without the time of what the CPU does."
    body = file_tables.estimates(view.results)
    return section("estimates", "Accelerators, estimated", body, lead) if body else ""


def _device(view: View, device: str, threads: int) -> str:
    cpu = view.results.context.cpu_model
    name = f"this computer ({cpu})" if device == "local" and cpu else device
    return f"{name}, {threads} thread{'s' * (threads != 1)}"


def _files_caption(view: View) -> str:
    evaluations = [r.evaluation for r in view.rows if r.evaluation]
    parts = []
    if evaluations:
        n, labelled = max((e.n_images, e.n_labelled) for e in evaluations)
        some = f"Accuracy on {counted(labelled, 'labelled picture')}, agreement on {n}"
        whole = f"{'Accuracy' if labelled else 'Agreement'} on {counted(n, 'picture')}"
        parts.append(some if 0 < labelled < n else whole)
    if condition := main_condition(view.results):
        parts.append(f"latency on {_device(view, *condition)}")
    text = f"{'; '.join(parts)}. " if parts else ""
    small = "In small print: 95 % intervals (98 % of the speed-up), McNemar's p, p95, peak memory."
    return text[:1].upper() + text[1:] + small


def pictures(view: View) -> str:
    """The pictures whose top-1 changed, the recommended file's first, broken ones before the rest."""
    left, body = _MOST_PICTURES, ""
    order = sorted((r for r in view.rows if r.evaluation and r.evaluation.flips), key=lambda r: r is not view.chosen)
    for r in order:
        flips = sorted(r.evaluation.flips if r.evaluation else (), key=_badness)
        shown = flips[:left]
        if not shown:
            break
        left -= len(shown)
        count = f"{len(flips)} changed" if len(shown) == len(flips) else f"the worst {len(shown)} of {len(flips)}"
        cards = "".join(_picture(view, r, f) for f in shown)
        body += f'<h3>{escape(r.name)} <small>{count}</small></h3><ul class="pictures">{cards}</ul>'
    lead = "Where the first answer is not float32's. Broken ones first, then by how sure both were."
    return section("pictures", "Pictures that flipped", body, lead) if body else ""


def _change(f: Flip) -> str:
    if f.label is None:
        return "changed"
    return "broken" if f.label == f.reference_class else "fixed" if f.label == f.artifact_class else "both wrong"


def _badness(f: Flip) -> tuple[int, float]:
    order = ("broken", "changed", "both wrong", "fixed")
    return order.index(_change(f)), -f.reference_confidence * f.artifact_confidence


def _picture(view: View, r: Row, f: Flip) -> str:
    change, name = _change(f), "/".join(PurePath(f.file).parts[-2:])
    true = view.class_name(f.label)
    answers = (
        ("float32", f.reference_class, f.reference_confidence),
        (view.label(r), f.artifact_class, f.artifact_confidence),
    )
    lines = "".join(
        f"<dt>{escape(who)}</dt><dd{' class=right' * (f.label == index)}>{escape(view.class_name(index))} "
        f"<span>{percent(confidence, 0)}</span></dd>"
        for who, index, confidence in answers
    )
    label = f"<dt>label</dt><dd>{escape(true)}</dd>" if f.label is not None else ""
    chip = {"broken": "bad", "fixed": "good"}.get(change, "")
    return (
        f'<li>{_thumbnail(view, f.file, true if f.label is not None else name)}<div><em class="chip {chip}">{change}'
        f'</em><dl>{label}{lines}</dl><p class="path" title="{escape(name)}">{escape(name)}</p></div></li>'
    )


def _thumbnail(view: View, file: str, alt: str) -> str:
    if file not in view.thumbnails:
        from edgenet.images import thumbnail

        try:
            jpeg: bytes = thumbnail(file, side_px=96)
            view.thumbnails[file] = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
        except Exception:  # whatever a decoder dies of: a page without one picture is better than none
            view.thumbnails[file] = ""
    uri = view.thumbnails[file]
    if not uri:
        return '<div class="gone" role="img" aria-label="picture not found">picture<br>not found</div>'
    return f'<img src="{uri}" width="96" height="96" alt="{escape(alt)}">'


def failures(view: View) -> str:
    """What was asked for and did not come about, each with a remedy."""
    items = "".join(
        f"<li><b>{escape(failed(f))}</b> <small>{escape(f.stage)}</small><p>{escape(f.why)}</p>"
        f"<p>{escape(f.remedy)}</p></li>"
        for f in view.results.failures
    )
    return section("failures", "What failed", f'<ul class="failures">{items}</ul>') if items else ""


def provenance(view: View) -> str:
    """How the numbers were made."""
    c = view.results.context
    facts: list[tuple[str, str]] = []
    facts += [("Command", c.command), ("Created", c.created), ("Host", c.host)]
    facts.append(("CPU", ", ".join(s for s in (c.cpu_model, f"{c.cores} cores" if c.cores else "") if s)))
    facts.append(("Instruction sets", " ".join(c.isa)))
    versions = {"edgenet": c.edgenet_version, **c.versions}
    facts.append(("Versions", ", ".join(f"{k} {v}" for k, v in versions.items() if v)))
    evaluations = [r.evaluation for r in view.rows if r.evaluation]
    for n, labelled, skipped, images in dict.fromkeys(
        (e.n_images, e.n_labelled, e.n_skipped, e.images) for e in evaluations
    ):
        bad = f", {skipped} skipped as unreadable" if skipped else ""
        facts.append(("Evaluated on", f"{counted(n, 'picture')}, {labelled} labelled{bad}; fingerprint {images}"))
    facts.append(("Weights", ", ".join(dict.fromkeys(r.artifact.weights for r in view.rows if r.artifact.weights))))
    if c.images and (used := c.images.calibration):
        facts.append(("Calibrated on", f"{counted(used.n, 'other picture')}; fingerprint {used.fingerprint}"))
    calibrations = dict.fromkeys(r.artifact.calibration for r in view.rows if r.artifact.calibration)
    facts.append(("Calibration", ", ".join(str(x) for x in calibrations)))
    pre = next((r.artifact.preprocessing for r in view.rows if r.artifact.preprocessing), {})
    facts.append(("Preprocessing", ", ".join(f"{k} {_joined(v)}" for k, v in pre.items())))
    facts += [(f"sha256 of {r.name}", r.artifact.sha256) for r in view.rows]
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts if v)
    return section("provenance", "How the numbers were made", f'<dl class="facts">{items}</dl>') if items else ""


def _joined(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


# The page from top to bottom. A new section is one function and one line here.
SECTIONS: tuple[Callable[[View], str], ...] = (
    answer,
    tradeoff,
    search,
    training.training,
    files,
    estimates,
    latency,
    over_time,
    explanations,
    pictures,
    calibration,
    failures,
    provenance,
)
