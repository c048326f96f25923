"""The work of `edgenet compare`: two runs are opened, their files paired, each pair judged."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from edgenet.compare import accuracy, latency, structure
from edgenet.compare.junit import junit
from edgenet.compare.markdown import markdown
from edgenet.compare.nouns import (
    ACCURACY,
    CANNOT_TELL,
    LATENCY,
    MISSED,
    OPERATORS,
    REFUSED,
    SHOWN,
    Comparison,
    Finding,
    Limits,
    Sure,
)
from edgenet.compare.options import CompareJob, fraction_of
from edgenet.compare.pairs import Pair, Run, match, open_run
from edgenet.compare.remeasure import remeasured
from edgenet.errors import InputError
from edgenet.files import atomic_write
from edgenet.options import Progress
from edgenet.results import Evaluation, Measurement


def compare_runs(old: Path, new: Path, job: CompareJob, progress: Progress) -> Comparison:
    """Return all that two runs say of each other.

    Raises:
        InputError: one is no run, or the two cannot be compared.
    """
    return compare_opened(open_run(old), open_run(new), job, progress)


def compare_opened(first: Run, second: Run, job: CompareJob, progress: Progress = lambda *_: None) -> Comparison:
    """Return all that two runs, which somebody else opened, say of each other. Raises InputError."""
    pairs, only_old, only_new = match(first, second, job.files)
    limits = limits_of(job)
    findings = [
        *_accuracies(first, second, pairs, limits),
        *(
            remeasured(first, second, pairs, limits, job.devices, job.time_s, progress)
            if job.remeasure
            else _latencies(first, second, pairs, limits)
        ),
        *_structures(first, second, pairs, limits),
        *_lost(second, only_old, limits),
    ]
    order = {id: i for i, id in enumerate(second.files)}
    findings.sort(key=lambda f: order.get(f.file, len(order)))  # stable: a file's own stay in the order above
    judged = tuple(replace(f, fails=fails(f, limits)) for f in findings)
    return Comparison(first.name, second.name, judged, limits, only_old, only_new)


def limits_of(job: CompareJob) -> Limits:
    """Return the limits as fractions of 1."""
    drop = None if job.max_accuracy_drop is None else job.max_accuracy_drop / 100
    slowdown = None if job.max_slowdown is None else fraction_of("--max-slowdown", job.max_slowdown)
    growth = None if job.max_growth is None else fraction_of("--max-growth", job.max_growth)
    return Limits(drop, slowdown, growth, job.strict)


def fails(f: Finding, limits: Limits) -> bool:
    """Whether a finding is a reason for exit status 1.

    What is shown to be worse than its limit is one. With `strict` so is what cannot be shown to be within it, and an
    operator that left an accelerator, whose time nobody knows until it is measured.
    """
    if f.verdict == MISSED:
        return True
    if not limits.strict:
        return False
    if f.aspect == OPERATORS:
        return f.how == "accelerator"
    return f.verdict in (CANNOT_TELL, REFUSED) and f.limit is not None


def _accuracies(old: Run, new: Run, pairs: tuple[Pair, ...], limits: Limits) -> Iterator[Finding]:
    found: list[tuple[Pair, Evaluation, Evaluation]] = []
    for pair in pairs:
        before = [e for e in old.results.evaluations if e.artifact == pair.old]
        after = {(e.device, e.runtime): e for e in new.results.evaluations if e.artifact == pair.new}
        both = [(pair, e, after[e.device, e.runtime]) for e in before if (e.device, e.runtime) in after]
        found += both
        if not both and (before or after or limits.max_drop is not None):
            lacking = new if before else old
            yield _not_there(pair, lacking, ACCURACY, "not-evaluated", limits.max_drop, is_new=lacking is new)
    sure = Sure.among(sum(a.artifact_sha256 != b.artifact_sha256 or not a.artifact_sha256 for _, a, b in found))
    for pair, a, b in found:
        seen = [accuracy.Seen(e, _pictures(run)) for e, run in ((a, old), (b, new))]
        f = accuracy.judge(pair.new, seen[0], seen[1], limits.max_drop, sure)
        yield replace(f, device="" if b.device == "local" else b.device, runtime=b.runtime)


def _pictures(run: Run) -> dict[str, tuple[str, ...]]:
    """Return the sha256 of the pictures that measured, by the fingerprint of their set."""
    images = run.results.context.images
    used = images.evaluation if images is not None else None
    return {used.fingerprint: used.sha256} if used is not None else {}


def _latencies(old: Run, new: Run, pairs: tuple[Pair, ...], limits: Limits) -> Iterator[Finding]:
    found: list[tuple[Pair, Measurement, Measurement]] = []
    for pair in pairs:
        before = [m for m in old.results.measurements if m.artifact == pair.old]
        after = [m for m in new.results.measurements if m.artifact == pair.new]
        both = [(pair, a, b) for a in before for b in after if (a.device, a.runtime) == (b.device, b.runtime)]
        found += both
        if not both and (before or after or limits.max_slowdown is not None):
            lacking = new if before else old
            yield _not_there(pair, lacking, LATENCY, "not-measured", limits.max_slowdown, is_new=lacking is new)
    sure = Sure.among(sum(a.artifact_sha256 != b.artifact_sha256 or not a.artifact_sha256 for _, a, b in found))
    hosts = [run.results.context.host for run in (old, new)]
    for pair, a, b in found:
        timed = [latency.Timed(m, host) for m, host in zip((a, b), hosts, strict=True)]
        f = latency.two_runs(pair.new, timed[0], timed[1], limits.max_slowdown, sure)
        yield replace(f, device="" if b.device == "local" else b.device)


def _not_there(pair: Pair, run: Run, aspect: str, how: str, limit: float | None, *, is_new: bool) -> Finding:
    """Return that one side was not evaluated or measured; where the new file failed, that is worse for sure."""
    id = pair.new if is_new else pair.old
    stage = {"not-evaluated": "evaluate", "not-measured": "bench"}[how]
    failure = next((f for f in run.results.failures if f.artifact == id and f.stage == stage), None)
    if failure is None:
        return Finding(pair.new, aspect, REFUSED, how, old_file=pair.old, limit=limit, said=(id, run.name))
    verdict = REFUSED if not is_new else SHOWN if limit is None else MISSED
    said = (id, run.name, failure.stage, failure.why)
    return Finding(pair.new, aspect, verdict, "failed", old_file=pair.old, limit=limit, said=said)


def _structures(old: Run, new: Run, pairs: tuple[Pair, ...], limits: Limits) -> Iterator[Finding]:
    for pair in pairs:
        a, b = old.artifact(pair.old), new.artifact(pair.new)
        found: list[Finding | None] = []
        if a is not None and b is not None:
            found += [structure.size(a, b, limits.max_growth), structure.precisions(a, b)]
        found += [
            structure.accelerated(pair.new, x, y)
            for x in old.results.estimates
            for y in new.results.estimates
            if (x.artifact, y.artifact) == (pair.old, pair.new) and x.device == y.device
        ]
        found += [
            structure.delegated(pair.new, x, y)
            for x in old.results.measurements
            for y in new.results.measurements
            if (x.artifact, y.artifact) == (pair.old, pair.new) and (x.device, x.runtime) == (y.device, y.runtime)
        ]
        yield from (f for f in found if f is not None)


def _lost(new: Run, only_old: tuple[str, ...], limits: Limits) -> Iterator[Finding]:
    """Return the files of OLD that NEW failed to make."""
    asked = (limits.max_drop, limits.max_slowdown, limits.max_growth) != (None, None, None)
    for id in only_old:
        failure = next((f for f in new.results.failures if f.artifact == id), None)
        if failure is not None:
            said = (id, new.name, failure.stage, failure.why)
            yield Finding(id, ACCURACY, MISSED if asked else SHOWN, "failed", old_file=id, said=said)


def check_files(job: CompareJob) -> None:
    """Raise InputError where a file that the findings go to is a folder."""
    for path in (job.junit, job.markdown):
        if path is not None and path.is_dir():
            raise InputError(f"{path} is a folder: give the name of a file")


def write_files(found: Comparison, job: CompareJob) -> None:
    """Write the findings as JUnit XML and as Markdown, where the job names files for them."""
    for path, make in ((job.junit, junit), (job.markdown, markdown)):
        if path is not None:
            with atomic_write(path) as part:
                part.write_text(make(found), encoding="utf-8")
