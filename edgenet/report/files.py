"""The tables of the page: one row per file, with every number that is known of it.

`_columns` has the table from left to right, after the file: a title, and a function Row -> Cell.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from edgenet.report.devices.layers import Layers, layers
from edgenet.report.formatting import (
    FORMAT_NAMES,
    MISSING,
    counted,
    decibels,
    interval,
    megabytes,
    milliseconds,
    number,
    p_value,
    percent,
    points,
)
from edgenet.report.pieces import Cell, Chip, Fact, Line, Table, table, two_lines
from edgenet.report.rows import Row, main_condition, only_chips, speedup_text
from edgenet.report.view import View
from edgenet.results import RESULTS_FILE, Estimate, Results
from edgenet.tasks.words import WORDS, figures_of

_NOTHING = Cell(MISSING)


@dataclass(frozen=True)
class Files:
    """The section on the files. `others` is what was measured beside the main setting."""

    files: Table
    others: Table | None
    results_file: str = RESULTS_FILE


@dataclass(frozen=True)
class Estimates:
    """The section on accelerators that are not here."""

    table: Table
    facts: tuple[Fact, ...]
    layers: tuple[Layers, ...]  # a table each, where the compiler lists them


def files(view: View) -> Files | None:
    """Every file with every number, and what was measured beside the main setting."""
    if not view.rows:
        return None
    groups: dict[str, list[Line]] = {}
    timed = not only_chips(view.results)
    columns = _columns(view.rows, timed)
    for r in view.rows:
        chosen = r is view.chosen
        lost = view.lost.get(r.artifact.id)
        ship = chosen and view.answer.artifact is not None
        cells = (_file(r, ship, lost.code if lost else ""), *(cell(r) for _, cell in columns))
        groups.setdefault(FORMAT_NAMES.get(r.artifact.format, r.artifact.format), []).append(Line(cells, chosen))
    titles = ("File", *(title for title, _ in columns))
    return Files(Table(_caption(view, timed), titles, groups), _other_measurements(view.results))


def _caption(view: View, timed: bool) -> str:
    evaluations = [r.evaluation for r in view.rows if r.evaluation]
    parts = []
    if evaluations:
        n, labelled = max((e.n_images, e.n_labelled) for e in evaluations)
        some = f"Accuracy on {counted(labelled, 'labelled picture')}, agreement on {n}"
        whole = f"{'Accuracy' if labelled else 'Agreement'} on {counted(n, 'picture')}"
        parts.append(some if 0 < labelled < n else whole)
    if condition := main_condition(view.results):
        parts.append(f"latency on {view.device(*condition)}")
    text = f"{'; '.join(parts)}. " if parts else ""
    of_times = (" (98 % of the speed-up)", ", p95, peak memory") if timed else ("", "")
    small = f"In small print: 95 % intervals{of_times[0]}, McNemar's p{of_times[1]}."
    return text[:1].upper() + text[1:] + small


def _other_measurements(results: Results) -> Table | None:
    """Return what was measured on other devices or with other thread counts than the main table's."""
    condition = main_condition(results)
    others = [m for m in results.measurements if m.samples_ns and (m.device, m.threads) != condition]
    names = {a.id: a.path for a in results.artifacts}
    titles = ("File", "Device", "Threads", "Median", "p90", "p95", "Load", "Memory", "Runtime")
    lines = []
    for m in others:
        ms = [milliseconds(v) for v in (m.median_ms, m.p90_ms, m.p95_ms, m.load_ms or None)]
        name, runtime = names.get(m.artifact, m.artifact), f"{m.runtime} {m.runtime_version}"
        texts = (name, m.device, str(m.threads), *ms, megabytes(m.peak_rss_bytes or None), runtime)
        lines.append(Line(tuple(map(Cell, texts))))
    return table("Other devices and thread counts", titles, lines) if lines else None


def estimates(view: View) -> Estimates | None:
    """What accelerators that are not here would make of the files, and what they leave to the CPU and why."""
    found = view.results.estimates
    if not found:
        return None
    names = {a.id: a.path for a in view.results.artifacts}
    lines, facts = [], []
    for e in found:
        file = names.get(e.artifact, e.artifact)
        lines.append(_estimate(file, e))
        by_reason: dict[str, list[str]] = {}
        for o in e.left:
            by_reason.setdefault(o.why, []).append(f"{o.n} {o.kind}")
        left = (*(f"{', '.join(kinds)}: {why}" for why, kinds in by_reason.items()), *(w.text for w in e.warnings))
        if left:
            facts.append(Fact(f"{file}, {e.device}", left))
    facts += [Fact(tool, (basis,)) for tool, basis in dict.fromkeys((e.tool, e.basis) for e in found)]
    titles = (
        "File", "Device", "On the accelerator", "Compiled", "SRAM", "DRAM", "Flash", "Cycles", "Estimated time", "By",
    )  # fmt: skip
    caption = "Estimates: computed by a compiler or from a list, measured by nobody"
    return Estimates(table(caption, titles, lines), tuple(facts), layers(found, names))


def _estimate(file: str, e: Estimate) -> Line:
    sizes = (e.compiled_bytes, e.sram_bytes, e.dram_bytes, e.flash_bytes)
    memory = (_NOTHING if b is None else Cell(megabytes(b)) for b in sizes)
    cycles = MISSING if e.cycles is None else f"{e.cycles:,}"
    between = e.inference_bounds_ms and " to ".join(map(milliseconds, e.inference_bounds_ms))
    about = f"an estimate, {between}" if between else "an estimate"
    time = _NOTHING if e.inference_ms is None else Cell(milliseconds(e.inference_ms), about)
    taken = Cell(f"{e.n_accelerated} of {e.n_operators}", "operators")
    return Line((Cell(file), Cell(e.device), taken, *memory, Cell(cycles), time, Cell(e.tool)))


def _file(r: Row, ship: bool, lost: str) -> Cell:
    chips = [Chip("ship", "good")] if ship else [Chip("reference")] * r.is_baseline
    no_answers = "NaN or infinity" if r.evaluation and r.evaluation.nonfinite_images else ""
    wrong = ("failed" if r.failures else "", lost, no_answers)
    chips += [Chip(word, "bad") for word in wrong if word]
    a = r.artifact
    counts = Counter(a.mixture.values())
    mixed = "".join(f", {counted(n, 'operator')} in {precision}" for precision, n in counts.items())
    bits = "" if a.weight_bits is None else f" · {a.weight_bits}-bit weights"
    if a.stored_bits not in (None, a.weight_bits):
        bits += f" stored in {a.stored_bits}"
    about = f"{a.format} · {a.precision}{mixed}{bits} · {a.io_dtype} in and out"
    return Cell(r.name, about, small_chips=tuple(chips))


def _drop(r: Row) -> Cell:
    if r.is_baseline or r.evaluation is None:
        return _NOTHING
    return two_lines(points(r.drop), interval(r.evaluation.top1_drop_ci95))


def _flips(r: Row) -> Cell:
    e = r.evaluation
    if r.is_baseline or e is None or e.flips_fixed is None or e.flips_broken is None:
        return _NOTHING
    return two_lines(f"{e.flips_fixed} / {e.flips_broken}", p_value(e.mcnemar_p))


def _speed(r: Row) -> Cell:
    if r.is_baseline or r.speedup is None:
        return _NOTHING
    ci = r.speedup.ci98
    return two_lines(speedup_text(r.speedup), f"{number(ci[0], 2)} to {number(ci[1], 2)}" if ci else "")


def _top1(r: Row) -> Cell:
    e = r.evaluation
    return two_lines(percent(e.top1), interval(e.top1_ci95)) if e else _NOTHING


def _top5(r: Row) -> Cell:
    e = r.evaluation
    return two_lines(percent(e.top5), interval(e.top5_ci95)) if e else _NOTHING


def _agreement(r: Row) -> Cell:
    e = r.evaluation
    return _NOTHING if r.is_baseline or e is None else two_lines(percent(e.agreement), interval(e.agreement_ci95))


def _median(r: Row) -> Cell:
    return Cell(milliseconds(r.measurement.median_ms)) if r.measurement else _NOTHING


def _tail(r: Row) -> Cell:
    m = r.measurement
    return two_lines(milliseconds(m.p90_ms), milliseconds(m.p95_ms)) if m else _NOTHING


def _load(r: Row) -> Cell:
    m = r.measurement
    return two_lines(milliseconds(m.load_ms or None), megabytes(m.peak_rss_bytes or None)) if m else _NOTHING


def _runtime(r: Row) -> Cell:
    if m := r.measurement:
        release = m.runtime_version.partition("-")[0]  # OpenVINO adds its build and branch: results.json has all
        return two_lines(m.runtime, release)
    return Cell(r.evaluation.runtime) if r.evaluation else _NOTHING


Column = tuple[str, Callable[[Row], Cell]]
_SIZE: Column = ("Size", lambda r: Cell(megabytes(r.artifact.size_bytes)))
_TOP5: Column = ("Top-5", _top5)
_OTHERS: tuple[Column, ...] = (
    ("Agreement", _agreement),
    ("Points lost", _drop),
    ("Fixed / broken", _flips),
    ("SQNR", lambda r: Cell(decibels(r.evaluation.sqnr_db if r.evaluation else None))),
)
_TIMES: tuple[Column, ...] = (
    ("Median", _median),
    ("p90, p95", _tail),
    ("Speed-up", _speed),
    ("Load, memory", _load),
)


def _columns(rows: Sequence[Row], timed: bool) -> tuple[Column, ...]:
    """Return the columns that the task of the files has; those of times only where something is timed."""
    tasks = {r.evaluation.task for r in rows if r.evaluation} or {"classes"}
    names = dict.fromkeys(name for r in rows if r.evaluation for name, _ in figures_of(r.evaluation.measures))
    own = [(name[:1].upper() + name[1:], partial(_measure, name)) for name in names]
    right = next((r.words.title for r in rows if r.evaluation), WORDS["classes"].title)
    times = _TIMES if timed else ()
    return (_SIZE, (right, _top1), *[_TOP5] * ("classes" in tasks), *own, *_OTHERS, *times, ("Runtime", _runtime))


def _measure(name: str, r: Row) -> Cell:
    found = dict(figures_of(r.evaluation.measures)).get(name) if r.evaluation else None
    return two_lines(number(found.value, 4), "{:.4f} to {:.4f}".format(*found.ci95)) if found else _NOTHING
