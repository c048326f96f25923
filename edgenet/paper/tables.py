"""The paper's tables with what was measured beside what was printed; every cell says which of the two it is.

A table is plain values; page.py makes HTML, Markdown and CSV of it.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from edgenet.device_bench.comparison import Comparison, compare
from edgenet.device_bench.timing import median_interval_by_round
from edgenet.errors import InputError
from edgenet.paper import networks, published
from edgenet.paper.cells import COMPUTED, MEASURED, QUOTED, Cell, Table, counted, quoted, top1
from edgenet.paper.networks import published_name, scaled_key
from edgenet.paper.plan import LADDER, PAIRS, RUNTIMES, TABLE4, file_id, paper_of
from edgenet.paper.scaled_tables import scaled_rows
from edgenet.paper.transfer import not_transferred, table5, transferred
from edgenet.report.formatting import MISSING, failed, number, times
from edgenet.results import Estimate, Measurement, Results

RUNTIME_NAMES = {"tensorflow": "TensorFlow", "litert": "TFLite", "openvino": "OpenVINO", "onnxruntime": "onnxruntime"}
NOT_BUILT = "quoted only: not built here"


@dataclass(frozen=True)
class Speedup:
    """How many times faster an EfficientNet is than its rival, in one runtime: the ratio of medians, 98 % interval."""

    rival: str
    network: str
    runtime: str
    rival_measurement: Measurement
    network_measurement: Measurement
    comparison: Comparison

    @property
    def ratio(self) -> float:
        return self.comparison.ratio

    @property
    def interval(self) -> tuple[float, float]:
        return self.comparison.low, self.comparison.high


def tables(results: Results) -> list[Table]:
    """Return the tables that the run was asked for, and what could not be reproduced last.

    Raises:
        InputError: the results are not of `edgenet paper`.
    """
    drawn = {"4": table4, "2": table2, "3": table3, "7": table7, "lite": lite, "ladder": ladder, "5": table5}
    asked = paper_of(results).tables
    found = [draw(results) for name, draw in drawn.items() if name in asked]
    if "5" in asked:
        found.insert(-1, transferred(results))  # before what is quoted
    return [t for t in [*found, not_reproduced(results)] if t.rows]


def table4(results: Results) -> Table:
    """Table 4: latency of both networks of each pair, by runtime, and the speed-up."""
    columns = ("Network and runtime", "Mean of 20 runs", "Median", "Runs", "Faster than its rival", "In the paper")
    printed = {str(row["model"]): row for row in published.table("4")}
    measured = {(s.network, s.runtime): s for s in speedups(results)}
    rows = []
    for pair in PAIRS:
        for name in pair:
            paper = printed[published_name(name)]
            seconds, faster = paper["latency_seconds"], paper["speedup"]
            note = "" if faster is None else f"{faster:g}× faster than {paper['compared_with']}"
            quoted = Cell(f"{float(str(seconds)) * 1e3:,.0f} ms", QUOTED, float(str(seconds)) * 1e3, note)
            for runtime in RUNTIMES:
                s = measured.get((name, runtime))
                speed = _speedup_cell(s) if s else Cell(MISSING)
                found = pinned(results, name, runtime)
                cells = _latency_cells(found) if found else (_why(results, name, runtime), Cell(MISSING), Cell(MISSING))
                label = Cell(published_name(name), note=RUNTIME_NAMES[runtime])
                rows.append((label, *cells, speed, quoted if runtime == "tensorflow" else Cell(MISSING)))
    return Table("table4", "Table 4: latency on one core", _TABLE4_LEAD, columns, tuple(rows), _table4_notes(results))


_TABLE4_LEAD = (
    "Batch 1, one thread on one core, float32, random weights with the statistics of photographs: latency does not "
    "depend on what a network has learned. The mean of 20 runs is the paper's measure; the median with its 95 % "
    "interval is ours; the speed-up is the ratio of medians round by round, with its 98 % interval."
)


def _table4_notes(results: Results) -> tuple[str, ...]:
    notes = ["The paper measured in TensorFlow on one core of a Xeon E5-2690; its seconds are not this machine's."]
    for s in speedups(results):
        published = published_speedup(s.network)
        if s.ratio < published:
            notes.append(
                f"{published_name(s.network)} in {RUNTIME_NAMES[s.runtime]}: {times(s.ratio)}, less than the paper's "
                f"{published:g}×. A ratio depends on how well a runtime computes depthwise against dense convolutions: "
                f"{_throughput_sentence(results, s)}"
            )
    return tuple(notes)


def _throughput_sentence(results: Results, s: Speedup) -> str:
    known, parts = paper_of(results).counts, []
    for name, m in ((s.rival, s.rival_measurement), (s.network, s.network_measurement)):
        if name in known:
            rate = known[name].multiply_adds / m.median_ms / 1e6
            parts.append(f"{number(rate, 1)} billion multiply-adds a second on {published_name(name)}")
    return "here it does " + " and ".join(parts) + "." if parts else ""


def published_speedup(network: str) -> float:
    """Return how many times faster the paper found an EfficientNet than its rival."""
    row = next(r for r in published.table("4") if r["model"] == published_name(network))
    return float(str(row["speedup"]))


def speedups(results: Results) -> list[Speedup]:
    """Return the speed-up of each pair in each runtime in which both were measured in the same rounds."""
    found = []
    for rival, network in PAIRS:
        for runtime in RUNTIMES:
            a, b = pinned(results, rival, runtime), pinned(results, network, runtime)
            if a is None or b is None:
                continue
            try:
                c = compare(a, b)
            except InputError:
                continue
            found.append(Speedup(rival, network, runtime, a, b, c))
    return found


def pinned(results: Results, name: str, runtime: str) -> Measurement | None:
    """Return the measurement of a network's float32 file on one core of this machine."""
    id = file_id(name, RUNTIMES[runtime], "float32", TABLE4)
    return measurement(results, id, "local", 1, runtime)


def measurement(
    results: Results, id: str, device: str, threads: int | None = None, runtime: str | None = None
) -> Measurement | None:
    """Return what was measured of a file, None where nothing was."""
    for m in results.measurements:
        same = m.artifact == id and m.device == device
        if same and threads in (None, m.threads) and runtime in (None, m.runtime) and m.samples_ns:
            return m
    return None


def _latency_cells(m: Measurement) -> tuple[Cell, Cell, Cell]:
    mean = statistics.fmean(m.samples_ns) / 1e6
    return Cell(_ms(mean), MEASURED, mean), _median_cell(m), Cell(str(m.n_runs), MEASURED, m.n_runs)


def _median_cell(m: Measurement | None) -> Cell:
    if m is None:
        return Cell(MISSING)
    low, high = (v / 1e6 for v in median_interval_by_round(m.samples_ns, m.rounds))
    return Cell(_ms(m.median_ms), MEASURED, m.median_ms, f"{_ms(low)} to {_ms(high)}")


def _speedup_cell(s: Speedup) -> Cell:
    low, high = s.interval
    note = f"{times(low)} to {times(high)}" if math.isfinite(high) else "too few rounds for an interval"
    return Cell(times(s.ratio), MEASURED, s.ratio, note)


def _ms(ms: float) -> str:
    return f"{number(ms, 0 if ms >= 99.95 else 1 if ms >= 9.995 else 2)} ms"


def _why(results: Results, name: str, runtime: str) -> Cell:
    id = file_id(name, RUNTIMES[runtime], "float32", TABLE4)
    for f in results.failures:
        if f.artifact == id and f.runtime in ("", runtime):
            return Cell("does not fit" if f.stage == "fit" else "failed", note=f.why)
    return Cell("not measured")


_COUNTED_ABOVE = (
    "EfficientNet-B4 and B5: count 5 and 4 % more multiply-adds than the paper prints. Other counters find what this "
    "one does, and the parameters agree to the printed digit, so the authors counted otherwise; how is not known."
)


def table2(results: Results) -> Table:
    """Table 2: accuracy as published, parameters and FLOPS counted here beside the published ones."""
    columns = ("Network", "Top-1", "Parameters", "Parameters, paper", "Multiply-adds", "FLOPS, paper", "Difference")
    names = {published_name(n): n for n in (*LADDER, *networks.NAMES)}
    known, rows = paper_of(results).counts, []
    for row, text in zip(published.table("2"), published.printed("2"), strict=True):
        paper_name = str(row["model"])
        name = names.get(paper_name)
        count = known.get(name or "")
        flops = row["flops_billions"]
        madds = count.multiply_adds / 1e9 if count else None
        difference = Cell(MISSING)
        if madds is not None and isinstance(flops, float):
            share = (madds / flops - 1) * 100
            difference = Cell(f"{'+' if share > 0 else ''}{number(share, 1)} %", COMPUTED, share)
        label = Cell(paper_name, note=NOT_BUILT if paper_name in networks.QUOTED else "")
        rows.append(
            (label, quoted(text["top1_percent"], "%"), counted(count, "parameters", 1e6, "M"),
             quoted(text["params_millions"], "M"), counted(count, "multiply_adds", 1e9, "B"),
             quoted(text["flops_billions"], "B"), difference)
        )  # fmt: skip
    lead = (
        "Parameters and multiply-adds (the paper's FLOPS) are counted from the layers of the networks built here. "
        "Accuracies are quoted: weights trained on ImageNet by the authors are not at hand."
    )
    notes = tuple(
        f"{networks.spec(n).paper_name or n}: {networks.spec(n).note}." for n in networks.NAMES if networks.spec(n).note
    )
    return Table("table2", "Table 2: parameters and FLOPS", lead, columns, tuple(rows), (_COUNTED_ABOVE, *notes))


def table3(results: Results) -> Table:
    """Table 3: scaling other networks, accuracy as published, FLOPS counted."""
    lead = "Compound scaling of MobileNet and ResNet. Accuracies are quoted: each is a training on ImageNet."
    return _scaled(results, "3", "Table 3: scaling other networks", lead)


def table7(results: Results) -> Table:
    """Table 7: EfficientNet-B0 scaled in one way or in all, FLOPS counted."""
    lead = "EfficientNet-B0 scaled by depth, width or resolution alone, or by all three. Accuracies are quoted."
    return _scaled(results, "7", "Table 7: one dimension or three", lead)


def _scaled(results: Results, number_: str, title: str, lead: str) -> Table:
    known, rows = paper_of(results).counts, []
    notes: dict[str, list[str]] = {}
    for r in scaled_rows(number_):
        count = known.get(scaled_key(number_, r))
        label = Cell(r.scaling if number_ == "7" else r.baseline, note="" if number_ == "7" else r.scaling)
        madds, params = counted(count, "multiply_adds", 1e9, "B"), counted(count, "parameters", 1e6, "M")
        rows.append((label, params, madds, quoted(r.flops_billions, "B"), quoted(f"{r.top1_percent:.1f}", "%")))
        if r.note:
            notes.setdefault(r.note, []).append(" ".join(s for s in (label.text, label.note) if s))
    columns = ("Network", "Parameters", "Multiply-adds", "FLOPS, paper", "Top-1")
    said = tuple(f"{'; '.join(names)}: {note}." for note, names in notes.items())
    return Table(f"table{number_}", title, lead, columns, tuple(rows), said)


def lite(results: Results) -> Table:
    """The lite table: each file's accuracy, size and latency here beside what was published of a Pixel 4."""
    threads = max((m.threads for m in results.measurements if m.device == "local"), default=1)
    columns = (
        "File", "Top-1", "Top-1, published", "Size", "One core", f"{threads} threads", "Pixel 4 CPU", "Pixel 4 GPU",
        "Edge TPU",
    )  # fmt: skip
    rows = []
    for r in published.printed("lite"):
        for precision, prefix in (("float32", "fp32"), ("int8", "int8")):
            id = file_id(r["model"], "tflite", precision)
            a = next((a for a in results.artifacts if a.id == id), None)
            size = Cell(f"{a.size_bytes / 1e6:.1f} MB", MEASURED, a.size_bytes / 1e6) if a else Cell(MISSING)
            gpu = quoted(r["fp32_gpu_ms"], "ms") if precision == "float32" else Cell(MISSING)
            if precision == "float32":
                gpu = Cell(gpu.text, gpu.kind, gpu.value, f"{r['fp16_gpu_ms']} ms in float16")
            rows.append(
                (Cell(r["model"], note=f"{precision}{', random weights' if a and a.weights == 'random' else ''}"),
                 top1(results, id), quoted(r[f"{prefix}_top1_percent"], "%"), size,
                 _median_cell(measurement(results, id, "local", 1)),
                 _median_cell(measurement(results, id, "local", threads)) if threads > 1 else Cell(MISSING),
                 quoted(r[f"{prefix}_cpu_ms"], "ms"), gpu,
                 quoted(r["int8_edgetpu_ms"], "ms") if precision == "int8" else Cell(MISSING))
            )  # fmt: skip
    lead = (
        "TFLite files. The published latencies are a Pixel 4's, with 4 threads on its CPU; accuracy published is on "
        "ImageNet's validation set, and measured is on the labelled pictures of this run, so compare drops, not levels."
    )
    return Table("lite", "EfficientNet-Lite", lead, columns, tuple(rows))


def devices(results: Results) -> list[str]:
    """Return the devices that files of the ladder were measured on, this machine first."""
    ids = {file_id(n, "tflite", p) for n in LADDER for p in ("float32", "int8")}
    return sorted({x.device for x in _timed(results) if x.artifact in ids}, key=lambda d: (d != "local", d))


def _timed(results: Results) -> Sequence[Measurement | Estimate]:
    return [*results.measurements, *results.estimates]


def ladder(results: Results) -> Table:
    """All variants in float32 and INT8, on each device."""
    places = devices(results)
    columns = ("Network", "Top-1", "Multiply-adds", *(f"{p} on {d}" for d in places for p in ("float32", "INT8")),
               *(f"INT8 faster on {d}" for d in places))  # fmt: skip
    known, rows = paper_of(results).counts, []
    for name in LADDER:
        ids = {p: file_id(name, "tflite", p) for p in ("float32", "int8")}
        found = {(d, p): measurement(results, ids[p], d, 1) for d in places for p in ids}
        if not any(found.values()) and not any(e.artifact in ids.values() for e in results.estimates):
            continue
        gains = []
        for d in places:
            a, b = found[d, "float32"], found[d, "int8"]
            gains.append(_gain(a, b) if a and b else Cell(MISSING))
        timed = [_median_cell(m) if m else _estimate(results, ids[p], d) for (d, p), m in found.items()]
        rows.append(
            (Cell(published_name(name)), _published_top1(name),
             counted(known.get(name), "multiply_adds", 1e9, "B"), *timed, *gains)
        )  # fmt: skip
    lead = "TFLite files, batch 1, one thread: the median with its 95 % interval, and float32 over INT8 round by round."
    return Table("ladder", "All variants in float32 and INT8", lead, columns, tuple(rows))


def _gain(a: Measurement, b: Measurement) -> Cell:
    try:
        c = compare(a, b)
    except InputError:
        return Cell(MISSING)
    note = f"{times(c.low)} to {times(c.high)}" if math.isfinite(c.high) else ""
    return Cell(times(c.ratio), MEASURED, c.ratio, note)


def _estimate(results: Results, id: str, device: str) -> Cell:
    for e in results.estimates:
        if (e.artifact, e.device) == (id, device) and e.inference_ms is not None:
            return Cell(_ms(e.inference_ms), COMPUTED, e.inference_ms, "an estimate")
    return Cell(MISSING)


def _published_top1(name: str) -> Cell:
    from edgenet.models.zoo import MODELS

    top1 = MODELS[name].top1_percent
    return Cell(MISSING) if top1 is None else quoted(f"{top1:g}", "%")


def not_reproduced(results: Results) -> Table:
    """What of the paper was not measured, and why."""
    said = [*_NOT_REPRODUCED[:1], not_transferred(results), *_NOT_REPRODUCED[1:]]
    rows = [(Cell(what), Cell(why)) for what, why in said]
    rows += [(Cell(failed(f)), Cell(f.why)) for f in results.failures]
    lead = "Nothing of this stands as measured anywhere on this page."
    return Table("not-reproduced", "What was not reproduced, and why", lead, ("What", "Why"), tuple(rows))


_NOT_REPRODUCED = (
    ("Accuracies on ImageNet", "quoted: the validation set and the authors' weights are not part of this package"),
    (", ".join(networks.QUOTED), "quoted: not built here, so neither counted nor timed"),
    ("Absolute latencies of table 4", "another processor and another TensorFlow: only the ratios compare"),
)
