"""`edgenet bench --explain`: profile each measured file, say why it is as fast as it is, and keep that with a run."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from edgenet.device_bench import Comparison, Request, compare, local_info
from edgenet.device_bench.roofline.explain import explained
from edgenet.device_bench.roofline.operator_times import PROFILED, measure
from edgenet.errors import EdgenetError, InputError
from edgenet.files import sha256_of
from edgenet.jobs.output_folder import results_in
from edgenet.options import Progress
from edgenet.results import Explanation, Failure, Layer, Measurement, Results

_REMEDY = f"--explain profiles image classifiers on this machine's CPU with {', '.join(PROFILED)}"


def check(devices: Sequence[str], request: Request) -> None:
    """Raise InputError where what is asked for cannot be profiled."""
    others = [d for d in devices if d != "local"]
    if others:
        raise InputError(f"--explain profiles on this machine only: leave --device {others[0]} out (valid: local)")
    if request.delegate not in (None, "cpu"):
        raise InputError(f"--explain profiles the CPU only: leave --delegate {request.delegate} out (valid: cpu)")
    if request.runtime is not None and request.runtime not in PROFILED:
        raise InputError(f"--explain cannot profile {request.runtime} (valid: {', '.join(PROFILED)})")


def check_run(out: Path, files: Sequence[Path]) -> None:
    """Raise InputError, before anything is timed, where `out` is not the folder of the run that made the files."""
    if not out.is_dir():
        raise InputError(f"no folder {out}: --out is the folder of the run that made the files")
    made = {a.sha256 for a in Results.load(out).artifacts}
    others = [f for f in files if sha256_of(f) not in made]
    if others:
        raise InputError(f"the run in {out} did not make {others[0]}: give --out the folder of its run")


def add_explanations(results: Results, request: Request, progress: Progress) -> None:
    """Explain what was measured, and put the explanations, and what failed, into the results."""
    found, failures = explain(results.measurements, request, lambda done, total: progress("explain", done, total))
    for explanation in found:
        results.put(explanation)
    for failure in failures:
        results.put(failure)


def explain(
    measured: Sequence[Measurement], request: Request, progress: Callable[[int, int], None] | None = None
) -> tuple[list[Explanation], list[Failure]]:
    """Profile the files of `measured`, whose artifacts are their paths, one after another.

    Returns:
        explanations with their sentences, and a Failure for each file that cannot be profiled.
    """
    found: list[Explanation] = []
    failures: list[Failure] = []
    for i, m in enumerate(measured):
        try:
            found.append(_profiled(m, request))
        except EdgenetError as e:
            failures.append(Failure("explain", m.artifact, m.device, why=str(e), remedy=_REMEDY))
        if progress is not None:
            progress(i + 1, len(measured))
    info = local_info()
    by_artifact = {m.artifact: m for m in measured}

    def against(e: Explanation, base: Explanation) -> Comparison | None:
        try:
            return compare(by_artifact[e.artifact], by_artifact[base.artifact])
        except InputError:  # one of them ran out of time before a common round
            return None

    return explained(found, info["isa"], info["machine"], info["cpu_model"], against), failures


def _profiled(m: Measurement, request: Request) -> Explanation:
    """Profile the operators of a measured file. Raises EdgenetError where that cannot be done."""
    from edgenet.export.inspect import inspect

    path = Path(m.artifact)
    raw = measure(path, m.threads, m.runtime, request.cores)
    return Explanation(
        artifact=m.artifact,
        device=m.device,
        runtime=m.runtime,
        threads=m.threads,
        precision=inspect(path).precision,
        median_ms=m.median_ms,
        fastest_ms=m.quantile_ms(0.0),
        how=raw["how"],
        layers=tuple(Layer(**row) for row in raw["layers"]),
        multiply_adds_per_s=raw["multiply_adds_per_s"],
        copy_bytes=tuple(raw["copy_bytes"]),
        copy_bytes_per_s=tuple(raw["copy_bytes_per_s"]),
        artifact_sha256=m.artifact_sha256 or sha256_of(path),
    )


def keep(explanations: Sequence[Explanation], out: Path) -> Results:
    """Add explanations to results.json of the run that made the files; return all results. See `check_run`."""
    with results_in(out) as results:
        ids = {a.sha256: a.id for a in results.artifacts}
        for e in explanations:
            results.put(replace(e, artifact=ids[e.artifact_sha256]))
    return results
