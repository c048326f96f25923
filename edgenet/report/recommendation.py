"""Results -> which file to ship and why: the same facts for the terminal and for the page.

Everything here is a pure function of a `Results`.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from edgenet.device_bench.comparison import compare
from edgenet.errors import InputError
from edgenet.report.formatting import (
    MISSING,
    NBSP,
    counted,
    failed,
    interval,
    megabytes,
    milliseconds,
    number,
    percent,
    points,
    times,
)
from edgenet.report.latency_notes import latency_note, who
from edgenet.results import Artifact, Evaluation, Failure, Measurement, Results

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

SHOWN_REASONS = 5  # why not so many other files; the rest is folded, or left to the page
FEW_LABELLED = 200  # below this a 95 % interval of top-1 is wider than some 10 points, and a warning is due


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one file is as another; no interval where there were too few rounds to tell."""

    value: float
    ci98: tuple[float, float] | None
    told_apart: bool


def speedup(slow: Measurement, fast: Measurement, same_within: float = 0.03) -> Ratio | None:
    """Return how many times as fast `fast` is as `slow`; above 1 where it is faster. None without samples.

    The value is the ratio of the medians, interval and verdict are those of `comparison.compare`, round by round.
    Differences up to `same_within` are not told apart however many samples there are: each file runs in a process of
    its own, and where its memory lands alone moves it by that much.
    """
    if not slow.samples_ns or not fast.samples_ns or min(*slow.samples_ns, *fast.samples_ns) <= 0:
        return None
    value = slow.median_ms / fast.median_ms
    try:
        c = compare(slow, fast)
    except (InputError, ValueError):  # no round in common, or samples without rounds
        return Ratio(value, None, False)
    if not math.isfinite(c.high):
        return Ratio(value, None, False)
    apart = c.verdict != "cannot tell" and abs(math.log(value)) > math.log1p(same_within)
    return Ratio(value, (min(c.low, value), max(c.high, value)), apart)


@dataclass(frozen=True)
class Row:
    """One file with all that is known of it. `speedup` is against the baseline, the float32 file."""

    artifact: Artifact
    evaluation: Evaluation | None
    measurement: Measurement | None
    speedup: Ratio | None
    is_baseline: bool
    failures: tuple[Failure, ...]

    @property
    def name(self) -> str:
        return PurePosixPath(self.artifact.path).name or self.artifact.id

    @property
    def drop(self) -> float | None:
        """Top-1 lost against the baseline, a fraction; 0 for the baseline, None where it is not known."""
        if self.is_baseline:
            return 0.0
        return self.evaluation.top1_drop if self.evaluation else None

    @property
    def disagreement(self) -> float | None:
        """Fraction of the pictures whose top-1 is not the baseline's."""
        if self.is_baseline:
            return 0.0
        e = self.evaluation
        return None if e is None or e.agreement is None else 1 - e.agreement


def main_condition(results: Results) -> tuple[str, int] | None:
    """Return the (device, threads) that most files were measured on, the first of equals; None without measurements."""
    counts = Counter((m.device, m.threads) for m in results.measurements if m.samples_ns)
    return counts.most_common(1)[0][0] if counts else None


def baseline_of(results: Results, model: str) -> Artifact | None:
    """Return the float32 file that the rest of `model` is compared with: the evaluations' reference, or the first."""
    of_model = [a for a in results.artifacts if a.model == model]
    references = {e.reference for e in results.evaluations}
    floats = [a for a in of_model if a.precision == "float32"]
    return next((a for a in of_model if a.id in references), floats[0] if floats else None)


def rows(results: Results) -> list[Row]:
    """Return one row per file, in the order of the results.

    An evaluation or measurement of another content than the file's (by sha256) is left out: it is of an earlier file.
    """
    condition = main_condition(results)

    def of(a: Artifact | None) -> tuple[Evaluation | None, Measurement | None]:
        if a is None:
            return None, None
        fits = [m for m in results.measurements if _is_of(m, a) and m.samples_ns and (m.device, m.threads) == condition]
        m = fits[0] if fits else None
        evaluations = [e for e in results.evaluations if _is_of(e, a) and e.device == "local"]
        same_runtime = [e for e in evaluations if m and e.runtime == m.runtime]
        return next(iter(same_runtime or evaluations), None), m

    out = []
    for a in results.artifacts:
        baseline = baseline_of(results, a.model)
        (e, m), base_m = of(a), of(baseline)[1]
        is_baseline = baseline is not None and a.id == baseline.id
        ratio = speedup(base_m, m) if m and base_m and not is_baseline else None
        out.append(Row(a, e, m, ratio, is_baseline, tuple(f for f in results.failures if _concerns(f, a))))
    return out


def by_format(table: Sequence[Row]) -> list[Row]:
    """Return the rows with those of one format together, formats and files in the order that they came in."""
    order = list(dict.fromkeys(r.artifact.format for r in table))
    return sorted(table, key=lambda r: order.index(r.artifact.format))


def _is_of(item: Evaluation | Measurement, a: Artifact) -> bool:
    return item.artifact == a.id and (not item.artifact_sha256 or not a.sha256 or item.artifact_sha256 == a.sha256)


def _concerns(f: Failure, a: Artifact) -> bool:
    return f.artifact in (a.id, a.path, PurePosixPath(a.path).name)


@dataclass(frozen=True)
class Note:
    """Something that the reader has to know; `loud` where the numbers must not be used without it."""

    text: str
    loud: bool = False


@dataclass(frozen=True)
class Recommendation:
    """Which file to ship, and one sentence for each reason.

    `artifact` is None where nothing may be shipped; `leader` is the file that the rule would choose by size and latency
    alone where the weights are random, else the same as `artifact`. Both are ids.
    """

    artifact: str | None
    leader: str | None
    headline: str
    why: tuple[str, ...]
    why_not: tuple[tuple[str, str], ...]  # (file name, sentence)
    notes: tuple[Note, ...]
    rule: str  # the rule that chose, in one sentence
    limit: float  # largest drop of top-1, or disagreement, that was let through; a fraction
    by_labels: bool  # whether the limit is on top-1 (else on agreement)


def recommend(results: Results, max_drop: float = 0.01, max_disagreement: float = 0.03) -> Recommendation:
    """Return which file to ship, and why.

    Of the files that were evaluated and measured and have no failure, those stay that lose at most `max_drop` of top-1
    against the float32 file or, where no picture has a label, disagree with it on at most `max_disagreement` of the
    pictures as far as these can tell: the 95 % interval reaches that low (an INT8 file that loses 0.3 points flips some
    2 %, most of them from one wrong class to another). Of these the fastest by median wins; of those that cannot be
    told from it, the smallest.
    """
    table = rows(results)
    by_labels = any(r.evaluation and r.evaluation.n_labelled for r in table)
    limit = max_drop if by_labels else max_disagreement
    random = any(r.artifact.weights == "random" for r in table)
    kind = f"lose at most {plural_points(limit)} of top-1 against float32" if by_labels else _disagreeing(limit)
    among = "Of all files" if random else f"Of the files that {kind}"
    rule = f"{among}, the fastest by median latency; of those that cannot be told from the fastest, the smallest."
    # One rule for one model: another model's float32 file is no yardstick for this one's.
    table = [r for r in table if r.artifact.model == table[0].artifact.model]
    base = next((r for r in table if r.is_baseline), None)
    refused = {r.artifact.id: _refusal(r, base, None if random else limit, by_labels) for r in table}
    fit = [r for r in table if not refused[r.artifact.id]]
    notes = _notes(results, table, base, by_labels, random)
    if not fit:
        headline, why = _nothing(results, table)
        against = tuple((r.name, refused[r.artifact.id]) for r in table)
        return Recommendation(None, None, headline, why, against, notes, rule, limit, by_labels)
    fastest = min(fit, key=_median)
    tied = [r for r in fit if r is fastest or not _told_apart(r, fastest)]
    best = min(tied, key=lambda r: (r.artifact.size_bytes, _median(r)))
    why = _why(best, base, fit, tied, limit, by_labels, random)
    # By latency: whoever sees a faster file than the one to ship asks for the reason first.
    others = sorted((r for r in table if r is not best), key=_median)
    why_not = tuple((r.name, _why_not(r, best, refused[r.artifact.id])) for r in others)
    headline = "Nothing to ship: the weights are random" if random else f"Ship {best.name}"
    id = best.artifact.id
    return Recommendation(None if random else id, id, headline, why, why_not, notes, rule, limit, by_labels)


def _median(r: Row) -> float:
    return r.measurement.median_ms if r.measurement else math.inf


def _told_apart(a: Row, b: Row) -> bool:
    ratio = speedup(a.measurement, b.measurement) if a.measurement and b.measurement else None
    return ratio is not None and ratio.told_apart


def plural_points(limit: float) -> str:
    """Return a fraction as "1 point", "2.5 points"."""
    n = f"{limit * 100:g}"
    return f"{n} point" + ("" if n == "1" else "s")


def _refusal(r: Row, base: Row | None, limit: float | None, by_labels: bool) -> str:
    """Return why a file cannot be chosen, or "" where it can. `limit` None: accuracy does not count."""
    e = r.evaluation
    if r.failures:
        f = r.failures[0]
        return f"It failed at {f.stage}: {f.why.rstrip('.')}."
    missing = [word for word, there in (("evaluated", e), ("measured", r.measurement)) if not there]
    if missing:
        return f"It was not {' or '.join(missing)} yet."
    if base and base.evaluation and e and e.images != base.evaluation.images:
        return "It was evaluated on other pictures than the float32 file; the two cannot be compared."
    if limit is None:
        return ""
    loss = r.drop if by_labels else r.disagreement
    if loss is None:
        return "What it loses against float32 is not known."
    # Without labels there are few pictures as a rule: a file is refused when they show that it is above the limit.
    least = _flip(e.agreement_ci95)[0] if not by_labels and e and e.agreement_ci95 else loss
    if min(least, loss) <= limit + 1e-9:
        return ""
    faster = ""
    if r.speedup and r.speedup.told_apart and r.speedup.value > 1:
        faster = f"It is {times(r.speedup.value)} as fast as float32, but "
    if by_labels:
        ci = f" (95{NBSP}% interval {interval(e.top1_drop_ci95)})" if e and e.top1_drop_ci95 else ""
        return f"{faster or 'It '}loses {points(loss)} points of top-1{ci}; the limit is {plural_points(limit)}."
    ci = f" (95{NBSP}% interval {interval(_flip(e.agreement_ci95))})" if e and e.agreement_ci95 else ""
    most = percent(limit, 0)
    return f"{faster or 'It '}disagrees with float32 on {percent(loss)} of the pictures{ci}; the limit is {most}."


def _flip(ci95: tuple[float, float]) -> tuple[float, float]:
    return 1 - ci95[1], 1 - ci95[0]


def _nothing(results: Results, table: list[Row]) -> tuple[str, tuple[str, ...]]:
    n = len(table)
    if not n:
        failed = len(results.failures)
        text = f"{counted(failed, 'step')} failed; see below." if failed else "The run has not written a file yet."
        return "No file to ship yet", (text,)
    evaluated, measured = sum(r.evaluation is not None for r in table), sum(r.measurement is not None for r in table)
    state = f"{counted(n, 'file')} written, {evaluated} evaluated, {measured} measured."
    return "No file can be recommended yet", (
        state,
        "A file needs both, without a failure. The same command goes on where it stopped.",
    )


def accuracy_sentence(r: Row, base: Row | None, by_labels: bool) -> str:
    """Return in one sentence what a file lost, with its interval, and whether it can be told from zero."""
    e = r.evaluation
    if e is None:
        return "Accuracy was not evaluated."
    if not by_labels:
        if r.is_baseline:
            return f"It is the reference; {_no_label(e.n_images)}, so accuracy was not measured."
        ci = f" (95{NBSP}% interval {interval(e.agreement_ci95)})" if e.agreement_ci95 else ""
        return (
            f"Same answer as float32 on {percent(e.agreement)} of {counted(e.n_images, 'picture')}{ci}; "
            f"{_no_label(e.n_images)}, so accuracy was not measured."
        )
    if r.is_baseline or e.top1_drop is None:
        ci = f" (95{NBSP}% interval {interval(e.top1_ci95)})" if e.top1_ci95 else ""
        return f"Top-1 is {percent(e.top1)} on {counted(e.n_labelled, 'labelled picture')}{ci}."
    against = f" against {percent(base.evaluation.top1)}" if base and base.evaluation else ""
    word, size = ("gained", -e.top1_drop) if e.top1_drop < 0 else ("lost", e.top1_drop)
    text = f"Top-1 is {percent(e.top1)}{against}: {points(size)} points {word}"
    if e.top1_drop_ci95:
        low, high = e.top1_drop_ci95
        text += f" (95{NBSP}% interval of the loss {interval(e.top1_drop_ci95)})"
        if low <= 0 <= high:
            text += f", which {counted(e.n_labelled, 'picture')} cannot tell from zero"
    return text + "."


def latency_sentence(r: Row, base: Row | None) -> str:
    """Return in one sentence how fast a file is, and whether it can be told from the baseline."""
    m = r.measurement
    if m is None:
        return "Latency was not measured."
    where = f"median, {counted(m.threads, 'thread')}" + f", {m.device}" * (m.device != "local")
    if r.is_baseline or r.speedup is None or base is None or base.measurement is None:
        return f"{milliseconds(m.median_ms)} a picture ({where})."
    text = f"{milliseconds(m.median_ms)} a picture against {milliseconds(base.measurement.median_ms)} ({where}): "
    if not r.speedup.told_apart:
        return text + "the two cannot be told apart."
    ci = r.speedup.ci98
    around = f" (98{NBSP}% interval {number(ci[0], 2)} to {number(ci[1], 2)})" if ci else ""
    return text + f"{times(r.speedup.value)} as fast{around}."


def _no_label(n_images: int) -> str:
    return "the picture has no label" if n_images == 1 else f"none of the {n_images} pictures has a label"


def size_sentence(r: Row, base: Row | None) -> str:
    """Return in one sentence how large a file is, against the baseline."""
    size = megabytes(r.artifact.size_bytes)
    # Whoever ships the .xml alone ships no weights.
    parts = " in two files, the .xml and the .bin beside it" if r.artifact.format == "openvino" else ""
    if base is None or r.is_baseline or not r.artifact.size_bytes:
        return f"{size} on disk{parts}."
    whole = base.artifact.size_bytes
    share = percent(r.artifact.size_bytes / whole if whole else None, 0)
    return f"{size}{parts}, {share} of float32's {megabytes(whole)}."


def _why(best: Row, base: Row | None, fit: list[Row], tied: list[Row], limit: float, by_labels: bool,
         random: bool) -> tuple[str, ...]:  # fmt: skip
    lose = f"lose at most {plural_points(limit)}" if by_labels else _disagreeing(limit)
    among = f"{len(fit)} files" + ("" if random else f" that {lose}")
    it = best.name if random else "It"  # the headline names the file, unless the weights are random
    if len(fit) == 1:
        within = "" if random else " and is within the limit"
        choice = f"{it} is the only file that was evaluated and measured{within}."
    elif len(tied) == 1:
        choice = f"{it} is the fastest of the {among}."
    else:
        others = [r.name for r in tied if r is not best]
        named = _listed(others) if len(others) <= 3 else f"{len(others)} others"
        choice = f"{it} is the smallest of the fastest: of the {among}, {named} cannot be told from it in speed."
    accuracy = "" if random else accuracy_sentence(best, base, by_labels)
    return tuple(s for s in (choice, size_sentence(best, base), accuracy, latency_sentence(best, base)) if s)


def _disagreeing(limit: float) -> str:
    return f"disagree with float32 on at most {percent(limit, 0)}, as far as the pictures can tell"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _why_not(r: Row, best: Row, refusal: str) -> str:
    if refusal or not r.measurement or not best.measurement:
        return refusal
    size = r.artifact.size_bytes / max(best.artifact.size_bytes, 1)
    ratio = speedup(r.measurement, best.measurement)
    bigger = f"{number(size, 1)}× the size ({megabytes(r.artifact.size_bytes)})"
    if ratio is None or not ratio.told_apart:
        than = bigger if size > 1.05 else f"no smaller ({megabytes(r.artifact.size_bytes)})"
        return f"Its speed cannot be told from {best.name}'s ({milliseconds(_median(r))}), and it is {than}."
    slower = f"takes {times(ratio.value)} as long ({milliseconds(_median(r))})"
    if size < 0.995:
        return f"It is smaller ({megabytes(r.artifact.size_bytes)}), but {slower}."
    return f"It {slower}" + (f" and is {bigger}." if size > 1.05 else ".")


def _notes(results: Results, table: list[Row], base: Row | None, by_labels: bool, random: bool) -> tuple[Note, ...]:
    notes = []
    evaluations = [r.evaluation for r in table if r.evaluation]
    if random:
        notes.append(
            Note("The weights are random: accuracy and agreement mean nothing. Size and latency are real.", loud=True)
        )
    if evaluations and not by_labels:
        n = max(e.n_images for e in evaluations)
        notes.append(Note(_capital(f"{_no_label(n)}: agreement with float32 was measured, accuracy was not."), True))
    n = max((e.n_labelled for e in evaluations), default=0)
    if 0 < n < FEW_LABELLED:
        have = "picture has" if n == 1 else "pictures have"
        few = f"Only {n} {have} a label, too few to see a loss of a point or two: read the intervals."
        notes.append(Note(few, loud=True))
    if table and base is None:
        notes.append(Note("There is no float32 file to compare with: export it too (--precision float32)."))
    measured = [r.measurement for r in table if r.measurement]
    cpu = " ".join((*results.context.isa, results.context.cpu_model)).lower()
    if any(m.device == "local" for m in measured) and any(s in cpu for s in ("x86", "avx", "sse", "intel", "amd")):
        notes.append(Note("Latency is this computer's, not a phone's. On a phone the order of the files can differ."))
    models = sorted({a.model for a in results.artifacts} - {r.artifact.model for r in table})
    if models:
        notes.append(
            Note(f"The recommendation is for {table[0].artifact.model}; the tables also hold {_listed(models)}.")
        )
    for finding in results.context.calibration_findings:
        if finding.severity != "info":
            text = f"Calibration pictures: {finding.message}; {finding.remedy}."
            notes.append(Note(text, loud=finding.severity == "danger"))
    warned: dict[str, list[str]] = {}
    for r in table:
        for warning in r.evaluation.warnings if r.evaluation else ():
            if by_labels or warning.code != "no-labels":  # said above, loudly
                warned.setdefault(warning.text, []).append(r.name)
    for text, names in warned.items():
        notes.append(Note(f"{who(names, len(table))}: {text}." if len(names) < len(table) else _capital(text)))
    if text := latency_note([(r.name, r.measurement) for r in table if r.measurement]):
        notes.append(Note(text))
    return tuple(notes)


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:].rstrip(".") + "."


def summary_lines(results: Results, recommendation: Recommendation | None = None) -> list[str]:
    """Return the answer as lines of plain text: the headline, why, why not the others, notes, failures."""
    r = recommendation or recommend(results)
    lines = [r.headline, *(f"  {s}" for s in r.why)]
    if r.why_not:
        shown = len(r.why_not) if len(r.why_not) <= SHOWN_REASONS + 1 else SHOWN_REASONS
        lines.append("Why not the others" if r.leader else "File by file")
        lines += [f"  {name}: {s}" for name, s in r.why_not[:shown]]
        if r.why_not[shown:]:
            lines.append(f"  and {len(r.why_not) - shown} more files, in the report")
    lines += [f"{'Warning' if n.loud else 'Note'}: {n.text}" for n in r.notes]
    lines += [f"Failed: {f.stage} {failed(f)}: {f.why.rstrip('.')}. {f.remedy}".rstrip() for f in results.failures]
    return lines


def summary_table(results: Results) -> "Table":
    """Return the files as a rich table, the recommended one marked with an arrow."""
    from rich.table import Table
    from rich.text import Text

    table, answer = by_format(rows(results)), recommend(results)
    out = Table(box=None, padding=(0, 1), pad_edge=False)
    out.add_column("file", overflow="fold")
    accuracy = ("top-1", "pts lost") if answer.by_labels else ("agreement",)
    for title in ("size", *accuracy, "median", "speed-up"):
        out.add_column(title, justify="right", no_wrap=True)
    for r in table:
        chosen, e, m = r.artifact.id == answer.leader, r.evaluation, r.measurement
        if answer.by_labels:
            figures = [percent(e.top1 if e else None), MISSING if r.is_baseline else points(r.drop)]
        else:
            figures = [percent(1.0 if r.is_baseline and e else e.agreement if e else None)]
        cells = [
            ("→ " if chosen else "  ") + r.name,
            megabytes(r.artifact.size_bytes),
            *figures,
            milliseconds(m.median_ms if m else None),
            "1×" if r.is_baseline and m else speedup_text(r.speedup),
        ]
        out.add_row(*map(Text, cells), style="bold" if chosen else None)
    return out


def speedup_text(ratio: Ratio | None) -> str:
    """Return a speed-up, or "≈ 1×" where it cannot be told from none."""
    return MISSING if ratio is None else times(ratio.value) if ratio.told_apart else "≈" + NBSP + "1×"


def summary_renderable(results: Results) -> "Group":
    """Return table and answer for a rich console; file names are never read as markup."""
    from rich.console import Group
    from rich.text import Text

    first, *rest = summary_lines(results)
    text = (Text(first, style="bold"), *(Text(line) for line in rest))
    return Group(summary_table(results), Text(""), *text) if results.artifacts else Group(*text)
