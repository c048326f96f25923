"""Why a file may not be shipped: programs go by a refusal's code, readers by its sentence."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgenet.errors import InputError
from edgenet.files import WEIGHTS_BESIDE, sha256_of, size_of
from edgenet.report.formatting import NBSP, counted, decibels, interval, percent, points, times
from edgenet.report.rows import Row
from edgenet.results import Artifact, Results
from edgenet.results.records import MISSED, Finding, SearchRecord, verdict_of
from edgenet.tasks.words import WORDS, Words

NO_OWN_PICTURES = "no-own-pictures"  # the code of the finding, too
FLOATS = ("float32", "float16")  # what a budget is not for


@dataclass(frozen=True)
class Refusal:
    """Why one file may not be shipped.

    `code` is one of gone, altered, failed, no-own-pictures, missing (not evaluated or not measured), not-finite,
    not-comparable, over-budget, not-searched, over-limit.
    """

    code: str
    why: str


@dataclass(frozen=True)
class Terms:
    """What a file has to keep to be shipped.

    `limit` is the largest drop of top-1, or of agreement where nothing is labelled, a fraction; None where accuracy
    does not count. `search` has the searches for a budget, by format; `taught` says that no picture was left to
    measure on; `timed` is False where only chips were asked for, on which nothing is measured.
    """

    base: Row | None
    limit: float | None
    by_labels: bool
    search: Mapping[str, SearchRecord] = field(default_factory=dict)
    taught: Finding | None = None
    timed: bool = True

    @property
    def words(self) -> Words:
        """What the figures of the task are called."""
        return self.base.words if self.base else WORDS["classes"]

    @property
    def missed(self) -> tuple[str, ...]:
        """The formats in which no int8 file meets the budget."""
        return tuple(format for format, s in self.search.items() if verdict_of(s) == MISSED)

    @property
    def budget(self) -> str:
        """The budget in words, "" where none was given."""
        return next((s.budget for s in self.search.values()), "")


def lost_files(results: Results, out: Path) -> dict[str, Refusal]:
    """Return those files of results.json, by id, that OUT no longer holds as they were measured. Reads each once."""
    return {a.id: why for a in results.artifacts if (why := _lost(a, out))}


def _lost(a: Artifact, out: Path) -> Refusal | None:
    path = out / a.path
    again = "the same command makes it again"
    if not path.is_file() and not path.is_dir():
        return Refusal("gone", f"It is gone from {out}: {again}.")
    beside = path.with_suffix(WEIGHTS_BESIDE.get(path.suffix.lower(), path.suffix))
    if path.suffix.lower() == ".xml" and not beside.is_file():
        return Refusal("gone", f"{beside.name}, which holds its weights, is gone from {out}: {again}.")
    try:
        if not a.sha256 or sha256_of(path) == a.sha256:
            return None
        lacks = beside != path and not beside.is_file() and size_of(path) < a.size_bytes
    except OSError as e:
        return Refusal("gone", f"It cannot be read ({e.strerror}): {again}.")
    except InputError as e:
        return Refusal("altered", f"{e}: {again}.")
    or_lacks = f", or {beside.name} beside it is gone" if lacks else ""
    return Refusal("altered", f"It was altered since it was measured{or_lacks}: {again}.")


def refusal(r: Row, terms: Terms) -> Refusal | None:
    """Return why a file cannot be chosen, None where it can."""
    e, base = r.evaluation, terms.base
    if r.failures:
        f = r.failures[0]
        return Refusal("failed", f"It failed at {f.stage}: {f.why.rstrip('.')}.")
    if terms.taught:
        return Refusal(NO_OWN_PICTURES, "Its accuracy is not known: no picture was left to measure it on.")
    if e and e.nonfinite_images:
        return Refusal("not-finite", f"It answers NaN or infinity on {_of(e.nonfinite_images, e.n_images)}.")
    missing = [word for word, there in (("evaluated", e), ("measured", r.measurement or not terms.timed)) if not there]
    if e is None or missing:
        return Refusal("missing", f"It was not {' or '.join(missing)} yet.")
    of_base = base.evaluation if base else None
    if of_base and of_base.nonfinite_images:
        where = _of(of_base.nonfinite_images, of_base.n_images)
        return Refusal(
            "not-finite", f"The float32 file, which it is compared with, answers NaN or infinity on {where}."
        )
    if of_base and e.images != of_base.images:
        why = "It was evaluated on other pictures than the float32 file; the two cannot be compared."
        return Refusal("not-comparable", why)
    if terms.search and r.artifact.precision not in FLOATS:
        return _out_of_budget(r, terms)
    return _over_limit(r, terms)


def _of(some: int, n: int) -> str:
    return f"{some} of {counted(n, 'picture')}"


def _out_of_budget(r: Row, terms: Terms) -> Refusal | None:
    """A search's file is held to its budget; other precisions than int8 were not searched for."""
    search = terms.search.get(r.artifact.format) if r.artifact.precision == "int8" else None
    if search is None:
        why = f"It was not held to the budget ({terms.budget}): the search is for int8 files."
        return _over_limit(r, terms) or Refusal("not-searched", why)
    if verdict_of(search) != MISSED:
        return None
    return Refusal("over-budget", f"It misses the budget ({search.budget}): {what_it_lost(r, terms.by_labels)}.")


def what_it_lacks(r: Row, terms: Terms) -> tuple[float, str]:
    """Return how far a file is from its budget, to set files side by side, and the same in words, "" where it is not.

    The distance is in decibels of SQNR or in fractions of 1, as the budget is; without an evaluation it is infinite.
    """
    e, search = r.evaluation, terms.search.get(r.artifact.format)
    if e is None or search is None:
        return math.inf, ""
    if search.min_sqnr_db is not None:
        lacks_db = math.inf if e.sqnr_db is None else search.min_sqnr_db - e.sqnr_db
        return lacks_db, f"{decibels(lacks_db)} too few" if 0 < lacks_db < math.inf else ""
    loss = r.drop if terms.by_labels else r.disagreement
    if loss is None:
        return math.inf, ""
    lacks = loss - (search.max_drop or 0.0)
    return lacks, f"{points(lacks)} points too many" if lacks > 0 and search.max_drop is not None else ""


def what_it_lost(r: Row, by_labels: bool) -> str:
    """Return what a file lost against float32, with the interval, and how far its logits moved."""
    e = r.evaluation
    if e is None:
        return "what it lost is not known"
    parts = []
    if by_labels and e.top1_drop is not None:
        parts.append(f"{points(e.top1_drop)} points of {r.words.right} lost" + _ci95(e.top1_drop_ci95))
    elif e.agreement is not None:
        parts.append(f"{percent(1 - e.agreement)} of the answers differ" + _ci95(flipped(e.agreement_ci95)))
    if e.sqnr_db is not None:
        parts.append(f"SQNR {decibels(e.sqnr_db)}")
    return ", ".join(parts) or "what it lost is not known"


def _ci95(ci95: tuple[float, float] | None) -> str:
    return f" (95{NBSP}% interval {interval(ci95)})" if ci95 else ""


def _over_limit(r: Row, terms: Terms) -> Refusal | None:
    e, limit = r.evaluation, terms.limit
    if limit is None:
        return None
    loss = r.drop if terms.by_labels else r.disagreement
    if loss is None:
        return Refusal("not-comparable", "What it loses against float32 is not known.")
    # Without labels there are few pictures as a rule: a file is refused when they show that it is above the limit.
    differ = flipped(e.agreement_ci95) if e and not terms.by_labels else None
    if min(differ[0] if differ else loss, loss) <= limit + 1e-9:
        return None
    faster = ""
    if r.speedup and r.speedup.told_apart and r.speedup.value > 1:
        faster = f"It is {times(r.speedup.value)} as fast as float32, but "
    if terms.by_labels:
        ci = _ci95(e.top1_drop_ci95 if e else None)
        lost = f"{faster or 'It '}loses {points(loss)} points of {terms.words.right}{ci}"
        why = f"{lost}; the limit is {plural_points(limit)}."
    else:
        why = (
            f"{faster or 'It '}disagrees with float32 on {percent(loss)} of the pictures{_ci95(differ)}; "
            f"the limit is {percent(limit, 0)}."
        )
    return Refusal("over-limit", why)


def flipped(ci95: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return the interval of what is left of 1."""
    return ci95 and (1 - ci95[1], 1 - ci95[0])


def plural_points(limit: float) -> str:
    """Return a fraction as "1 point", "2.5 points"."""
    n = f"{limit * 100:g}"
    return f"{n} point" + ("" if n == "1" else "s")
