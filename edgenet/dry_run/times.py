"""About how long each step of a run takes on this machine, as busy as it is now.

Nothing is looked up in a table of machines. The float network is run here a few times, some pictures are decoded, and a
process is started with each runtime: what a step takes is computed from these. What cannot be computed so is left open,
with the reason. Where an earlier run of the folder timed the same files, its medians take the place of the estimate.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from edgenet.device_bench import Plan
from edgenet.errors import EdgenetError
from edgenet.images import Chunk, limit, normalise, stream
from edgenet.jobs import bench
from edgenet.jobs.devices import present, unmeasured
from edgenet.jobs.file_factory import USES_IMAGES
from edgenet.options import Job, Recipe
from edgenet.pipeline import Prepared, files_of_job
from edgenet.preflight import RUNTIME_OF
from edgenet.report.formatting import counted
from edgenet.results import ImageSet, Results
from edgenet.targets import target_of

# Processor time of calibrating with all corrections: so many runs of the float network a calibration picture, and so
# many seconds a million weights. From 20 and 60 pictures with Lite0 and 40 with Lite1, by tests/dry_run/calibrating.py.
_RUNS_A_PICTURE, _SECONDS_A_MILLION_WEIGHTS = 22, 1.5
_AGREE_WITHIN = 2.0  # an estimate is given from its half to its double: other precisions and runtimes differ so
_RUNS, _PICTURES, _STARTS = 10, 8, 2
_START_TIMEOUT_S = 60
_MODULES = {"litert": "ai_edge_litert.interpreter", "onnxruntime": "onnxruntime", "openvino": "openvino"}
# Activations whose ranges take many more passes: B0, with 20 pictures, took 179 runs a picture.
_GATED = ("HARD_SWISH", "LOGISTIC", "GELU")


@dataclass(frozen=True)
class Step:
    """A step of a run. `seconds` is (at least, at most) about, None where it cannot be told; `how` says why, or how."""

    name: str
    what: str
    seconds: tuple[float, float] | None
    how: str


@dataclass(frozen=True)
class Measured:
    """What was measured a moment ago, in seconds.

    Attributes:
        run_s: the float network on one picture, in LiteRT with one thread.
        decode_s: reading a picture, cropped and scaled, on all cores together.
        start_s: a process with a runtime, by the runtime.
    """

    run_s: float
    decode_s: float
    start_s: dict[str, float]
    n_weights: int
    gated: bool


def steps_of(job: Job, prepared: Prepared, results: Results, there: Sequence[bool]) -> tuple[Step, ...]:
    """Return the steps of a run that are still to do.

    Args:
        results: what an earlier run left in the folder.
        there: whether each of the job's files is there already.
    """
    files = files_of_job(job)
    left = [f for f, is_there in zip(files, there, strict=True) if not is_there]
    runtimes = list(dict.fromkeys(RUNTIME_OF[format] for format, *_ in files))
    measured = measure(prepared, runtimes)
    known = {m.artifact: m.median_ms / 1e3 for m in results.measurements if m.device == "local" and m.samples_ns}
    ids = [prepared.factory.id(*f) for f in files]
    run_s = [known.get(id, measured.run_s) for id in ids]
    how = _how(measured, sum(id in known for id in ids), len(ids))
    steps = [_calibrate(job, prepared, measured, left)] if left else []
    if left:
        search = job.max_accuracy_drop is not None or job.min_sqnr is not None
        steps.append(Step("export", counted(len(left), "file"), None, _SEARCH if search else _EXPORT))
    evaluation = prepared.images.evaluation
    if evaluation and (left or not _evaluated(ids, evaluation, results)):
        steps.append(_evaluate(evaluation, run_s, measured, how))
    devices = job.devices if left else unmeasured(job, present(job, results), results)
    steps += _bench(devices, run_s, measured, how)
    return tuple(s for s in steps if s is not None)


_SEARCH = "cannot be told: how many files the search for a budget tries depends on what it finds"
_EXPORT = "cannot be told: writing a file takes about a second, and more where it is large"


def _how(measured: Measured, n_known: int, n: int) -> str:
    if n_known == n:
        return "from the medians of the run before"
    here = f"as if each file took what the float network takes in LiteRT here, {measured.run_s * 1e3:.3g} ms"
    return f"{here}, but for {n_known} with a median of the run before" if n_known else here


def _calibrate(job: Job, prepared: Prepared, m: Measured, left: Sequence[tuple[str, str, object]]) -> Step | None:
    images = prepared.images.calibration
    if images is None or not any(precision in USES_IMAGES for _, precision, _ in left):
        return None
    what = f"{len(images)} pictures"
    if m.gated:
        return Step("calibrate", what, None, "cannot be told for networks with a swish, GELU or gates")
    if (job.calibration_method, job.corrections) != (Recipe.method, Recipe.corrections):
        return Step("calibrate", what, None, "cannot be told for other corrections or methods than the default")
    busy_s = _RUNS_A_PICTURE * m.run_s * len(images) + _SECONDS_A_MILLION_WEIGHTS * m.n_weights / 1e6
    how = (f"{_RUNS_A_PICTURE} runs of the float network a picture, {m.run_s * 1e3:.3g} ms each here, and "
           f"{_SECONDS_A_MILLION_WEIGHTS} s a million weights, on one core or spread over several")  # fmt: skip
    return Step("calibrate", what, (busy_s / (os.cpu_count() or 1), busy_s * _AGREE_WITHIN), how)


def _evaluate(images: ImageSet, run_s: Sequence[float], m: Measured, how: str) -> Step:
    a_picture = m.decode_s + sum(run_s) / (os.cpu_count() or 1)
    about = len(images) * a_picture + len(run_s) * _start_of_one(m)
    what = f"{counted(len(run_s), 'file')} on {len(images)} pictures"
    said = f"{how}, on all cores; reading a picture takes {m.decode_s * 1e3:.3g} ms"
    return Step("evaluate", what, (about / _AGREE_WITHIN, about * _AGREE_WITHIN), said)


def _evaluated(ids: Sequence[str], images: ImageSet, results: Results) -> bool:
    """Whether an earlier run evaluated all files on these pictures."""
    sha256 = {a.id: a.sha256 for a in results.artifacts}
    done = {(e.artifact, e.artifact_sha256) for e in results.evaluations if e.images == images.fingerprint}
    return all((id, sha256.get(id)) in done for id in ids)


def _bench(devices: Sequence[str], run_s: Sequence[float], m: Measured, how: str) -> list[Step]:
    """Return a step a device: this machine's rounds are counted, the others' pace is not known before."""
    found = []
    p = bench.RUN_PLAN
    for device in devices:
        if target_of(device) is not None:
            found.append(Step("compile", device, None, "cannot be told: it depends on the chip's compiler"))
        elif device != "local":
            found.append(Step("bench", device, None, "cannot be told: how fast the device is, is measured there"))
        else:
            start_s = _start_of_one(m)
            least, most = (
                (len(run_s) + 1) * (p.warmup_s + start_s) * (rounds > p.rounds)
                + rounds * sum(_turns(p, run_s, f, start_s))
                for rounds, f in ((p.rounds, 1 / _AGREE_WITHIN), (p.max_rounds, _AGREE_WITHIN))
            )
            said = (f"{p.rounds} to {p.max_rounds} rounds of all files and the first once more, {start_s:.2g} s to "
                    f"start a process, {how}")  # fmt: skip
            found.append(Step("bench", f"{counted(len(run_s), 'file')} on local", (least, most), said))
    return found


def _start_of_one(m: Measured) -> float:
    return statistics.mean(m.start_s.values()) if m.start_s else 0.0


def _turns(p: Plan, run_s: Sequence[float], factor: float, start_s: float) -> Iterator[float]:
    """Yield what a turn of each file takes, and of the first once more, where all that was measured is so far off."""
    for s in (*run_s, run_s[0]):
        yield factor * start_s + _LEAD_S + max(p.min_time_s / p.rounds, p.min_runs / p.rounds * factor * s)


_LEAD_S = 0.1  # untimed, of a new process: device_bench/timing.py


# ------------------------------------------------------------------------------------------------------- measured now


def measure(prepared: Prepared, runtimes: Sequence[str]) -> Measured:
    """Run the float network, decode some pictures and start some processes: a few seconds."""
    from edgenet.calibration.execute import Executor

    images = prepared.images.evaluation or prepared.images.calibration
    assert images is not None
    chunks, decode_s = _decoded(images, prepared)
    graph = prepared.factory.network.graph
    x = normalise(chunks[0].pixels[:1], prepared.source.preprocessing)
    run = Executor(graph, [graph.logits()], 1)
    run(x)
    run_s = min(_timed(lambda: run(x)) for _ in range(_RUNS))
    n_weights = sum(t.data.size for t in graph.tensors.values() if t.data is not None)
    gated = any(op.kind in _GATED for op in graph.ops[:-1])
    return Measured(run_s, decode_s, {r: _start_s(r) for r in runtimes if r in _MODULES}, n_weights, gated)


def _decoded(images: ImageSet, prepared: Prepared) -> tuple[list[Chunk], float]:
    some = limit(images, min(_PICTURES, len(images)))
    before = time.perf_counter()
    chunks = list(islice(stream(some, prepared.source.preprocessing), _PICTURES))
    if not chunks:
        raise EdgenetError("no picture could be read")
    return chunks, (time.perf_counter() - before) / sum(len(c.pixels) for c in chunks)


def _start_s(runtime: str) -> float:
    """Return how long a process takes that only loads a runtime; 0 where it cannot."""
    command = [sys.executable, "-P", "-c", f"import numpy, {_MODULES[runtime]}"]
    took = []
    for _ in range(_STARTS):
        before = time.perf_counter()
        try:
            subprocess.run(command, capture_output=True, timeout=_START_TIMEOUT_S, check=True)
        except (OSError, subprocess.SubprocessError):
            return 0.0
        took.append(time.perf_counter() - before)
    return min(took)


def _timed(work: Callable[[], list[np.ndarray]]) -> float:
    before = time.perf_counter()
    work()
    return time.perf_counter() - before
