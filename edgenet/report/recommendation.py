"""Results -> which file to ship and why: the same facts for the terminal and for the page.

Everything here is a pure function of a `Results`, and of which of its files are lost since.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgenet.report.formatting import NBSP, counted, interval, megabytes, milliseconds, number, percent, points, times
from edgenet.report.notes import Note, no_label, notes
from edgenet.report.refusals import NO_OWN_PICTURES, Refusal, Terms, plural_points, refusal, what_it_lacks, what_it_lost
from edgenet.report.rows import Row, median_ms, only_chips, rows, speedup, told_apart
from edgenet.results import Results
from edgenet.results.records import Finding

CHIPS_ONLY = "chips-only"
_RANDOM = "Nothing to ship: the weights are random"
SHOWN_REASONS = 5  # why not so many other files; the rest is folded, or left to the page


@dataclass(frozen=True)
class Recommendation:
    """Which file to ship, and one sentence for each reason.

    `code` says how it came out: ship, random-weights, budget-missed, no-own-pictures, gone, altered (the file to ship
    was), not-finite, over-limit, not-comparable (all files are refused for it), chips-only (no computer or phone was
    asked for: each chip has its file, report/devices), not-yet.

    `artifact` is None where nothing may be shipped; `leader` is the file that the rule would choose by size and latency
    alone where the weights are random, else the same as `artifact`. Both are ids.
    """

    code: str
    artifact: str | None
    leader: str | None
    headline: str
    why: tuple[str, ...]
    why_not: tuple[tuple[str, str], ...]  # (file name, sentence)
    notes: tuple[Note, ...]
    rule: str  # the rule that chose, in one sentence
    limit: float  # largest drop of top-1, or disagreement, that was let through; a fraction
    by_labels: bool  # whether the limit is on top-1 (else on agreement)
    refused: Mapping[str, Refusal] = field(default_factory=dict)  # id -> why it may not be shipped


def recommend(
    results: Results,
    max_drop: float = 0.01,
    max_disagreement: float = 0.03,
    lost: Mapping[str, Refusal] | None = None,
) -> Recommendation:
    """Return which file to ship, and why.

    Of the files that were evaluated and measured and have no failure, those stay that lose at most `max_drop` of top-1
    against the float32 file or, where no picture has a label, disagree with it on at most `max_disagreement` of the
    pictures as far as these can tell: the 95 % interval reaches that low (an INT8 file that loses 0.3 points flips some
    2 %, most of them from one wrong class to another). Where a budget was searched for, int8 files are held to it
    instead. Of these the fastest by median wins; of those that cannot be told from it, the smallest.

    Nothing is recommended where the budget is missed in every format, where no picture was left to measure on, and
    where the file that wins is lost.

    Args:
        lost: files, by id, that are no longer as they were measured.
    """
    table = rows(results)
    by_labels = any(r.evaluation and r.evaluation.n_labelled for r in table)
    limit = max_drop if by_labels else max_disagreement
    random = any(r.artifact.weights == "random" for r in table)
    # One rule for one model: another model's float32 file is no yardstick for this one's.
    table = [r for r in table if r.artifact.model == table[0].artifact.model]
    base = next((r for r in table if r.is_baseline), None)
    taught = next((f for f in results.context.calibration_findings if f.code == NO_OWN_PICTURES), None)
    search = results.context.search
    # A budget in points takes the place of the usual limit for files that no search is for, too.
    limit = next((s.max_drop for s in search.values() if s.max_drop is not None), limit)
    timed = not only_chips(results)
    terms = Terms(base, None if random else limit, by_labels, search, taught, timed)
    against_all = {r.artifact.id: no for r in table if (no := refusal(r, terms))} | dict(lost or {})
    # What a chip asked for is chosen for that chip (report/devices), and not among the files for computers.
    table = [r for r in table if not r.artifact.made_for] or table
    refused = {r.artifact.id: no for r in table if (no := refusal(r, terms))}
    winner = best_of([r for r in table if r.artifact.id not in refused])
    refused |= {r.artifact.id: lost[r.artifact.id] for r in table if lost and r.artifact.id in lost}
    fit = [r for r in table if r.artifact.id not in refused]
    best = best_of(fit)
    said = notes(results, table, terms)
    about = (_rule(terms), limit, by_labels, against_all)
    stop = _stop(table, refused, terms, winner if timed else None) or (None if timed else _chips_only(random))
    if stop or best is None:
        code, headline, why = stop or _not_yet(results, table)
        against = tuple((r.name, refused[r.artifact.id].why) for r in table if r.artifact.id in refused)
        return Recommendation(code, None, None, headline, why, against, said, *about)
    why = _why(best, base, fit, terms)
    # By latency: whoever sees a faster file than the one to ship asks for the reason first.
    others = sorted((r for r in table if r is not best), key=median_ms)
    why_not = tuple((r.name, _why_not(r, best, refused.get(r.artifact.id))) for r in others)
    id = best.artifact.id
    if random:
        return Recommendation("random-weights", None, id, _RANDOM, why, why_not, said, *about)
    return Recommendation("ship", id, id, f"Ship {best.name}", why, why_not, said, *about)


def best_of(fit: Sequence[Row]) -> Row | None:
    """Return the smallest of the files that cannot be told from the fastest."""
    return min(_tied(fit), key=lambda r: (r.artifact.size_bytes, median_ms(r)), default=None)


def _tied(fit: Sequence[Row]) -> list[Row]:
    fastest = min(fit, key=median_ms, default=None)
    return [r for r in fit if fastest and (r is fastest or not told_apart(r, fastest))]


def _rule(terms: Terms) -> str:
    among = "Of all files" if terms.limit is None else f"Of the files that {_keeping(terms, terms.limit)}"
    if terms.search:
        among = f"Of the int8 files within the budget ({terms.budget})"
        if terms.limit is not None:
            among += f" and the float files that {_keeping(terms, terms.limit)}"
    if not terms.timed:
        return f"{among}, for each chip the one of which it runs the most operators, and of equals the cheapest for it."
    return f"{among}, the fastest by median latency; of those that cannot be told from the fastest, the smallest."


def _keeping(terms: Terms, limit: float) -> str:
    if terms.by_labels:
        return f"lose at most {plural_points(limit)} of {terms.words.right} against float32"
    return f"disagree with float32 on at most {percent(limit, 0)}, as far as the pictures can tell"


Stop = tuple[str, str, tuple[str, ...]]  # code, headline, why


def _stop(table: Sequence[Row], refused: Mapping[str, Refusal], terms: Terms, winner: Row | None) -> Stop | None:
    """Return why nothing is recommended, whatever else is known; None where the rule decides."""
    if terms.taught:
        return _no_own_pictures(terms.taught)
    if terms.search and len(terms.missed) == len(terms.search):
        return _budget_missed(table, refused, terms)
    if winner and (against := refused.get(winner.artifact.id)):
        headline = f"The file to ship {'is gone' if against.code == 'gone' else 'was altered'}: {winner.name}"
        left = best_of([r for r in table if r.artifact.id not in refused])
        rest = f"Of the files that are left, the rule would choose {left.name}." if left else "No other file may ship."
        return against.code, headline, (against.why, rest)
    codes = {why.code for why in refused.values()}
    if len(refused) < len(table):
        return None
    if "not-finite" in codes:
        reasons = tuple(dict.fromkeys(why.why for why in refused.values() if why.code == "not-finite"))
        first = reasons[0] if len(reasons) == 1 else "Files answer NaN or infinity, each on the pictures said below."
        do = "Look for an overflow or a division by zero in the network, or leave the precision out that has it."
        return "not-finite", "Nothing to ship: answers of NaN or infinity", (first, do)
    if codes == {"not-comparable"} and terms.base is None:
        why = (
            "What the files lose is not known: there is no float32 file to compare with.",
            "Add --precision float32.",
        )
        return "not-comparable", "No file can be recommended yet", why
    if "over-limit" in codes and not codes & {"missing", "failed"}:
        keeping = _keeping(terms, terms.limit or 0.0)
        return "over-limit", "No file is within the limit", (f"There is none of those that {keeping}.",)
    return None


def _chips_only(random: bool) -> Stop:
    why = ("Only chips were asked for, and nothing can be timed on those: --device local times the files here.",)
    if random:
        return "random-weights", _RANDOM, why
    return CHIPS_ONLY, "Which file for which chip", why


def _no_own_pictures(taught: Finding) -> Stop:
    why = tuple(_sentence(text) for text in (taught.message, taught.remedy) if text)
    return NO_OWN_PICTURES, "No accuracy: no picture was left to measure on", why


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _budget_missed(table: Sequence[Row], refused: Mapping[str, Refusal], terms: Terms) -> Stop:
    why = [f"The budget for int8 files: {terms.budget}."]
    nearest = _nearest(table, terms)
    if nearest:
        lacks = what_it_lacks(nearest, terms)[1]
        lost = what_it_lost(nearest, terms.by_labels)
        why.append(f"The nearest is {nearest.name}: {lost}{f'; {lacks}' if lacks else ''}.")
    if left := best_of([r for r in table if r.artifact.id not in refused]):
        why.append(f"Of the float files the rule would choose {left.name}.")
    why.append("What can help: more calibration pictures, training (edgenet qat), or a wider budget.")
    return "budget-missed", "No file meets the budget", tuple(why)


def _nearest(table: Sequence[Row], terms: Terms) -> Row | None:
    """Return the int8 file that lacks least of its budget; of equals that with the least noise."""
    missed = (r for r in table if r.artifact.precision == "int8" and r.artifact.format in terms.missed)

    def lacks(r: Row) -> tuple[float, float]:
        db = r.evaluation.sqnr_db if r.evaluation else None
        return what_it_lacks(r, terms)[0], -(db or 0.0)

    return min((r for r in missed if r.evaluation), key=lacks, default=None)


def _not_yet(results: Results, table: Sequence[Row]) -> Stop:
    n = len(table)
    if not n:
        failed = len(results.failures)
        text = f"{counted(failed, 'step')} failed; see below." if failed else "The run has not written a file yet."
        return "not-yet", "No file to ship yet", (text,)
    evaluated, measured = sum(r.evaluation is not None for r in table), sum(r.measurement is not None for r in table)
    state = f"{counted(n, 'file')} written, {evaluated} evaluated, {measured} measured."
    more = "A file needs both, without a failure. The same command goes on where it stopped."
    return "not-yet", "No file can be recommended yet", (state, more)


def accuracy_sentence(r: Row, base: Row | None, by_labels: bool) -> str:
    """Return in one sentence what a file lost, with its interval, and whether it can be told from zero."""
    e = r.evaluation
    if e is None:
        return "Accuracy was not evaluated."
    if not by_labels:
        if r.is_baseline:
            return f"It is the reference; {no_label(e.n_images)}, so accuracy was not measured."
        ci = f" (95{NBSP}% interval {interval(e.agreement_ci95)})" if e.agreement_ci95 else ""
        same = "answer" if e.task == "classes" else r.words.answer
        return (
            f"Same {same} as float32 on {percent(e.agreement)} of {counted(e.n_images, 'picture')}{ci}; "
            f"{no_label(e.n_images)}, so accuracy was not measured."
        )
    if r.is_baseline or e.top1_drop is None:
        ci = f" (95{NBSP}% interval {interval(e.top1_ci95)})" if e.top1_ci95 else ""
        return f"{r.words.title} is {percent(e.top1)} on {counted(e.n_labelled, 'labelled picture')}{ci}."
    against = f" against {percent(base.evaluation.top1)}" if base and base.evaluation else ""
    word, size = ("gained", -e.top1_drop) if e.top1_drop < 0 else ("lost", e.top1_drop)
    text = f"{r.words.title} is {percent(e.top1)}{against}: {points(size)} points {word}"
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


def _why(best: Row, base: Row | None, fit: Sequence[Row], terms: Terms) -> tuple[str, ...]:
    random = terms.limit is None
    among = f"{len(fit)} files"
    if terms.search:
        among += " within the budget or in float"
    elif terms.limit is not None:
        keeping = _keeping(terms, terms.limit)
        among += f" that {keeping.removesuffix(f' of {terms.words.right} against float32')}"
    it = best.name if random else "It"  # the headline names the file, unless the weights are random
    tied = _tied(fit)
    if len(fit) == 1:
        within = "" if random else f" and is within the {'budget' if terms.search else 'limit'}"
        choice = f"{it} is the only file that was evaluated and measured{within}."
    elif len(tied) == 1:
        choice = f"{it} is the fastest of the {among}."
    else:
        others = [r.name for r in tied if r is not best]
        named = _listed(others) if len(others) <= 3 else f"{len(others)} others"
        choice = f"{it} is the smallest of the fastest: of the {among}, {named} cannot be told from it in speed."
    accuracy = "" if random else accuracy_sentence(best, base, terms.by_labels)
    return tuple(s for s in (choice, size_sentence(best, base), accuracy, latency_sentence(best, base)) if s)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _why_not(r: Row, best: Row, refusal: Refusal | None) -> str:
    if refusal:
        return refusal.why
    if not r.measurement or not best.measurement:
        return ""
    size = r.artifact.size_bytes / max(best.artifact.size_bytes, 1)
    ratio = speedup(r.measurement, best.measurement)
    bigger = f"{number(size, 1)}× the size ({megabytes(r.artifact.size_bytes)})"
    if ratio is None or not ratio.told_apart:
        than = bigger if size > 1.05 else f"no smaller ({megabytes(r.artifact.size_bytes)})"
        return f"Its speed cannot be told from {best.name}'s ({milliseconds(median_ms(r))}), and it is {than}."
    slower = f"takes {times(ratio.value)} as long ({milliseconds(median_ms(r))})"
    if size < 0.995:
        return f"It is smaller ({megabytes(r.artifact.size_bytes)}), but {slower}."
    return f"It {slower}" + (f" and is {bigger}." if size > 1.05 else ".")
