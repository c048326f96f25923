"""The work of `edgenet bench`: checks, interleaved rounds, and why the files are as fast as they are."""

from collections.abc import Sequence
from pathlib import Path

from edgenet.errors import InputError
from edgenet.jobs import arena_budget
from edgenet.jobs import explain as explain_job
from edgenet.jobs.bench import bench_files, check_files, models_among, request_of, require_full_delegation
from edgenet.library.page import rewrite_report
from edgenet.options import BenchJob, Progress
from edgenet.preflight import check_bench
from edgenet.results import Results


def bench_job(
    artifacts: Sequence[Path], job: BenchJob, progress: Progress, *, explain: bool = False, out: Path | None = None
) -> Results:
    """Time files on each device. The budget of the job is checked, not held.

    Args:
        explain: profile them as well.
        out: with `explain`, the folder of the run that made the files, whose results and page get what was found.

    Raises:
        InputError: a file is no model, or options exclude each other.
    """
    request, files = request_of(job), models_among(artifacts)
    arena_budget.check(job.max_arena, job.devices)
    check_files(files)
    if explain:
        explain_job.check(job.devices, request)
        if out is not None:
            explain_job.check_run(out, files)
    elif out is not None:
        raise InputError("bench --out goes with --explain: it draws the explanation in the report of a run")
    check_bench(files, job.devices, job.runtime, job.cluster)
    results = bench_files(files, job.devices, request, progress, job.cluster)
    if job.require_full_delegation:
        require_full_delegation(results)
    if explain:
        explain_job.add_explanations(results, request, progress)
    if out is not None and results.explanations:
        rewrite_report(explain_job.keep(results.explanations, out), out)
    return results
