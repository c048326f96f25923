"""`--remeasure`: the old and the new file of each pair are timed side by side, now."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from edgenet.compare import latency
from edgenet.compare.nouns import LATENCY, MET, REFUSED, SHOWN, Finding, Limits, Sure
from edgenet.compare.pairs import Pair, Run
from edgenet.device_bench import Request
from edgenet.device_bench.registry import parse
from edgenet.errors import InputError
from edgenet.export.runtime import READS
from edgenet.jobs import bench
from edgenet.options import MAX_THREADS, Progress
from edgenet.report.refusals import lost_files
from edgenet.results import Artifact, Measurement

_OLD, _NEW = "the old file", "the new file"  # ids while they are timed
_ROUNDS_A_MINUTE = 400  # at most, of a file's own time
_DELEGATES = ("gpu", "npu", "nnapi")


def remeasured(
    old: Run,
    new: Run,
    pairs: tuple[Pair, ...],
    limits: Limits,
    devices: Sequence[str],
    time_s: float,
    progress: Progress,
) -> Iterator[Finding]:
    """Return how fast the files of each pair are against each other, on each device.

    Raises:
        InputError: a file is gone, or was altered since it was measured; a device is written wrongly.
    """
    for device in devices:
        parse(device)
    limit = limits.max_slowdown
    wanted: list[tuple[Pair, Artifact, Artifact, tuple[str, Request]]] = []
    for pair in pairs:
        a, b = _file(old, pair.old), _file(new, pair.new)
        if a.sha256 == b.sha256:
            verdict = SHOWN if limit is None else MET
            yield Finding(pair.new, LATENCY, verdict, "same-file", old_file=pair.old, change=0.0, limit=limit)
            continue
        wanted += [(pair, a, b, place) for place in _places(new, pair.new, devices, time_s)]
    sure = Sure.among(len(wanted))
    for i, (pair, a, b, (device, request)) in enumerate(wanted):

        def step(done: int, total: int, i: int = i) -> None:
            progress("bench", i * total + done, len(wanted) * total)

        files = [(_OLD, old.folder / a.path), (_NEW, new.folder / b.path)]
        measured, failures = bench.bench_on((device,), files, request, step)
        by_id = {m.artifact: m for m in measured if isinstance(m, Measurement)}
        named = "" if device == "local" else device
        if _OLD in by_id and _NEW in by_id:
            timed = [replace(by_id[k], artifact=id) for k, id in ((_OLD, pair.old), (_NEW, pair.new))]
            found = latency.side_by_side(pair.new, timed[0], timed[1], limit, sure)
            yield replace(found, device=named)
            continue
        why = next((f"{f.artifact} {f.why}".strip() for f in failures), f"{device} only estimates")
        said = (pair.new, device, "bench", why)
        yield Finding(pair.new, LATENCY, REFUSED, "failed", old_file=pair.old, device=named, limit=limit, said=said)


def _file(run: Run, id: str) -> Artifact:
    """Return the artifact, which is there as it was measured."""
    artifact = run.artifact(id)
    if artifact is None:
        raise InputError(f"--remeasure needs the file {id}, and {run.name} has only its figures: give a --out folder")
    lost = lost_files(replace(run.results, artifacts=[artifact]), run.folder)
    if id in lost:
        raise InputError(f"--remeasure needs the file {id} of {run.name}: {lost[id].why}")
    return artifact


def _places(run: Run, id: str, devices: Sequence[str], time_s: float) -> list[tuple[str, Request]]:
    """Return how a file is to be timed on each device: as it was measured there, else on one thread.

    Where to is the user's to say, never a results file's: it may be anybody's.
    """
    plan = bench.BENCH_PLAN
    # More time is more rounds. On a quiet machine few are enough, and timing ends as soon as they are.
    rounds = plan.max_rounds if time_s < plan.max_time_s else round(_ROUNDS_A_MINUTE * time_s / 60)
    plan = replace(plan, self_check=False, max_time_s=time_s, max_rounds=max(rounds, plan.max_rounds))
    found = []
    for device in devices:
        m = next((m for m in run.results.measurements if (m.artifact, m.device) == (id, device)), None)
        threads = 1 if m is None else max(1, min(m.threads, MAX_THREADS))
        runtime = m.runtime if m is not None and device == "local" and m.runtime in READS else None
        delegate = m.delegate if m is not None and m.delegate in _DELEGATES else None
        found.append((device, Request(threads, runtime, delegate, plan=plan)))
    return found
