"""Timing and evaluating on devices: what `run`, `bench` and `evaluate --device` ask of them.

Devices run one after another, because each measurement wants this machine for itself; only phones, which do the work
alone, run at the same time. A device that fails is a Failure, and the others go on.
"""

import platform
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from edgenet import options
from edgenet.device_bench import Device, Plan, Request, open_device
from edgenet.device_bench.registry import parse
from edgenet.device_bench.steadiness import seconds_of
from edgenet.device_bench.timing import PUBLISHED
from edgenet.door import open_regular
from edgenet.errors import EdgenetError, InputError
from edgenet.evaluate import Candidate, evaluate
from edgenet.export.runtime import READS
from edgenet.farm.job import HERE, Farm, farm
from edgenet.files import files_of, sha256_of
from edgenet.images import Preprocessing
from edgenet.results import Estimate, Evaluation, Failure, ImageSet, Measurement, Results
from edgenet.tasks import CLASSES, Task

# A run compares a dozen files, so that a per cent decides nothing; `bench` is for those who want to know.
# Every run counts here. In so short a time one file may have the core to itself and the next one not; setting runs
# aside would make the next one look slower, while a disturbance within a round hits all files alike.
RUN_PLAN = Plan(target_ci=0.01, max_rounds=20, every_run=True)
BENCH_PLAN = Plan()
SUFFIXES = (".tflite", ".onnx", ".xml")
_AT_ONCE = ("adb",)
_ROUNDING = 4e-6  # float32 probabilities that differ by so much differ by the order of additions
REMEDY = "`edgenet devices` lists those that are there; the same command goes on with what is missing"

Progress = Callable[[int, int], None]  # (done, in all)
Measured = Measurement | Estimate  # an accelerator that is not here is estimated; that is never called a measurement


def request_of(job: options.BenchJob) -> Request:
    """Return what `edgenet bench` asks of each device.

    Raises:
        InputError: an option makes no sense, or two exclude each other.
    """
    if job.runtime is not None and job.runtime not in READS:
        raise InputError(f"unknown runtime '{job.runtime}' (valid: {', '.join(READS)})")
    if job.sustained and job.publish:
        raise InputError("--publish and --sustained exclude each other: published rules time rounds, not one long run")
    plan = PUBLISHED if job.publish else BENCH_PLAN
    if job.sustained:
        plan = replace(plan, sustained_s=seconds_of(job.sustained), self_check=False)
    return Request(job.threads, job.runtime, job.delegate, _cores(job.cores), plan)


def _cores(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    parts = text.split(",")
    if len(parts) > options.MAX_THREADS or not all(re.fullmatch("[0-9]{1,5}", p.strip()) for p in parts):
        raise InputError(f"--cores takes core numbers with commas, such as 2,3; it was '{text}'")
    return tuple(dict.fromkeys(int(p) for p in parts))


def models_among(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return the model files, without those that stand beside one with its weights: OUT/* names both."""
    beside = {weights for path in paths for weights in files_of(path)[1:]}
    return tuple(path for path in paths if path not in beside)


def check_files(paths: Sequence[Path]) -> None:
    """Raise InputError for what is not there or is no model file by its name."""
    for path in paths:
        if not path.exists():
            raise InputError(f"no file {path}: give model files, .tflite, .onnx or .xml")
        if not path.is_dir():
            open_regular(path).close()  # of a FIFO the runtime would wait for ever
        if path.suffix not in SUFFIXES:
            raise InputError(f"{path} is not a model file by its name: give model files, .tflite, .onnx or .xml")


def bench_files(
    paths: Sequence[Path],
    devices: Sequence[str],
    request: Request,
    progress: options.Progress,
    cluster: str | None = None,
) -> Results:
    """Time files, each once, on each device, here or where the cluster has it; what `edgenet bench` gives.

    Raises:
        InputError: as `bench_on` does, or no device took any file, and none of them is a model.
    """
    artifacts = [(str(p), p) for p in dict.fromkeys(paths)]
    with farm(cluster) as who:
        found, failures = bench_on(devices, artifacts, request, lambda done, total: progress("bench", done, total), who)
    if not found and failures:
        _refuse_where_none_is_a_model([path for _, path in artifacts])
    results = Results()
    for item in (*found, *failures):
        results.put(item)
    return results


def _refuse_where_none_is_a_model(paths: Sequence[Path]) -> None:
    from edgenet.export.inspect import inspect

    refused = []
    for path in paths:
        try:
            inspect(path)
        except InputError as e:
            refused.append(e)
        else:
            return
    raise refused[0]


def require_full_delegation(results: Results) -> None:
    """Add a failure for each file of which an operator runs on the CPU beside an accelerator, or may do so."""
    found = [(e.artifact, e.device, _left(e.n_operators, e.n_accelerated, e.device)) for e in results.estimates]
    for m in results.measurements:
        said = m.device_info.get("delegation") or {}
        found.append(
            (m.artifact, m.device, _left(said.get("total"), said.get("nodes"), m.delegate or "the accelerator"))
        )
    for artifact, device, why in found:
        if why:
            remedy = "`edgenet inspect` lists the operators; docs/accelerators.md says what each accelerator takes"
            results.put(Failure("bench", artifact, device, why=f"--require-full-delegation: {why}", remedy=remedy))


def _left(total: int | None, taken: int | None, by: str) -> str:
    """Return what is wrong where not all operators are taken, "" where they are."""
    if total is None or taken is None:
        return f"nothing proves that {by} runs all operators"
    return f"{total - taken} of {total} operators run on the CPU" if taken < total else ""


def bench_on(
    devices: Sequence[str],
    artifacts: Sequence[tuple[str, Path]],
    request: Request,
    progress: Progress | None = None,
    who: Farm = HERE,
) -> tuple[list[Measured], list[Failure]]:
    """Time (id, path) pairs on each device: where the machine of a cluster has it there, else here.

    Returns:
        measurements, or estimates, and failures, in the order of the devices. The failure of a whole device has no
        artifact.

    Raises:
        InputError: a device is written wrongly; or there is only one, and it cannot do what is asked.
    """
    for device in devices:
        parse(device)
    lock = threading.Lock()
    steps = dict.fromkeys(devices, (0, 0))

    def one(device: str) -> tuple[list[Measured], list[Failure]]:
        def step(done: int, total: int, _: str) -> None:
            with lock:
                steps[device] = (done, total)
                if progress is not None:
                    # Those that have not begun are taken to be as long as this one.
                    progress(sum(d for d, _ in steps.values()), sum(t or total for _, t in steps.values()))

        try:
            if device in elsewhere:
                measurements, failures = who.on_device(device, artifacts, partial(_bench_one, request=request))
            else:
                measurements, failures = _bench_one(device, artifacts, request, step)
        except InputError as e:
            if len(devices) == 1:
                raise
            return [], [Failure("bench", device=device, why=str(e), remedy=REMEDY)]
        except EdgenetError as e:
            return [], [Failure("bench", device=device, why=str(e), remedy=REMEDY)]
        return list(measurements), list(failures)

    found: dict[str, tuple[list[Measured], list[Failure]]] = {}
    elsewhere = [d for d in devices if who.offers(d)]
    at_once = [d for d in devices if parse(d)[0] in _AT_ONCE or d in elsewhere]
    if len(at_once) > 1:
        with ThreadPoolExecutor(len(at_once)) as pool:
            found.update(zip(at_once, pool.map(one, at_once), strict=True))
    elif at_once:
        found[at_once[0]] = one(at_once[0])
    who.close()  # what follows is timed here
    for device in devices:
        if device not in found:
            found[device] = one(device)
    return [m for d in devices for m in found[d][0]], [f for d in devices for f in found[d][1]]


def _bench_one(
    device: str,
    artifacts: Sequence[tuple[str, Path]],
    request: Request,
    progress: Callable[[int, int, str], None] | None = None,
) -> tuple[Sequence[Measured], list[Failure]]:
    with open_device(device) as d:
        return d.bench(artifacts, request, progress)


def evaluate_on(
    devices: Sequence[str],
    files: Sequence[Path],
    images: ImageSet,
    preprocessing: Preprocessing,
    progress: Progress | None = None,
    task: Task = CLASSES,
    reference: Path | None = None,
) -> tuple[list[Evaluation], list[Failure]]:
    """Run the pictures through each file on each device, and compare with what this machine answers, bit by bit.

    Args:
        reference: the file whose answers here are the yardstick of agreement; by default the same file's.

    Returns:
        evaluations, each with `device`, `outputs_differing`, `largest_difference`, `difference` in words, and the
        agreement of top-1 with the reference and with this machine; and failures.

    Raises:
        InputError: a device is written wrongly, or too many pictures cannot be read.
    """
    for name in devices:
        parse(name)
    base = Candidate(str(reference), reference, sha256_of(reference)) if reference else None
    evaluations: list[Evaluation] = []
    failures: list[Failure] = []
    done = 0

    def step(pictures: int, in_all: int) -> None:
        if progress is not None:
            progress(done * in_all + pictures, len(devices) * len(files) * in_all)

    for name in devices:
        try:
            with open_device(name) as device:
                info = device.info()
                for path in files:
                    file = Candidate(str(path), path, sha256_of(path))
                    found, failed = answers_on(device, info, file, images, preprocessing, step, task, base)
                    evaluations += found
                    failures += failed
                    done += 1
        except InputError:
            raise
        except EdgenetError as e:
            failures.append(Failure("evaluate", device=name, why=str(e), remedy=REMEDY))
    return evaluations, failures


def answers_on(
    device: Device,
    info: dict[str, Any],
    file: Candidate,
    images: ImageSet,
    preprocessing: Preprocessing,
    progress: Progress,
    task: Task,
    reference: Candidate | None = None,
) -> tuple[list[Evaluation], list[Failure]]:
    """Run the pictures through one file on an opened device, here, and through what it is compared with.

    Args:
        info: what the device tells of itself.
        reference: the file whose answers are the yardstick, the float32 one say; the same file here where it is None.

    Raises:
        InputError: the device does not take this file, or too many pictures cannot be read.
    """
    there = f"{file.id} on {device.id}"
    base = reference or file
    candidates = [*([reference] if reference and reference != file else []), file]
    candidates.append(Candidate(there, file.path, file.sha256, device, file.id))
    found, failures = evaluate(candidates, images, preprocessing, reference=base.id, progress=progress, task=task)
    remote = [e for e in found if e.artifact == there]
    emulator = str(info.get("emulator") or "")
    said = [
        replace(e, artifact=file.id, device=device.id, difference=difference(e, file.path, info), emulated=emulator)
        for e in remote
    ]
    # What fails here too is no news of the device, unless nothing came about because of it.
    return said, [replace(f, artifact=file.id) for f in failures if f.device == device.id or not remote]


def difference(e: Evaluation, path: Path, info: dict[str, Any]) -> str:
    """Return in a sentence why a file may answer differently on a device than here.

    Args:
        e: an evaluation there, compared with here.
        info: the device's description of itself, `Device.info()`.
    """
    if not e.outputs_compared or e.outputs_differing is None:
        return ""
    machine = str(info.get("machine") or info.get("abi") or "the device")
    if e.outputs_differing == 0:
        return f"bit for bit the same: the kernels of {machine} compute what this machine's do"
    if e.largest_difference is None:
        return f"{machine} answers with numbers that are not finite: its kernels overflow, or the file is broken there"
    reasons = []
    if delegate := str(info.get("delegate") or ""):
        reasons.append(f"it runs through the delegate {delegate} there, whose kernels are other ones")
    elif machine != platform.machine():
        reasons.append(f"the kernels for {machine} are other ones than those for {platform.machine()}")
    ours, theirs = _version_here(e.runtime), (info.get("runtimes") or {}).get(e.runtime)
    if theirs and ours and theirs != ours:
        reasons.append(f"{e.runtime} is {theirs} there and {ours} here")
    if e.largest_difference <= _ROUNDING:
        reasons.append("so small a difference is float arithmetic in another order")
    elif _is_integer(path):
        reasons.append(
            "integer kernels may round a product up or down when they scale it back, and such a step grows from "
            "layer to layer"
        )
    else:
        reasons.append(
            "it is more than rounding: look for float16 arithmetic, or for a layer that is computed otherwise"
        )
    return "; ".join(reasons)


def _is_integer(path: Path) -> bool:
    from edgenet.export.inspect import inspect

    return inspect(path).precision in ("int8", "int16x8", "int4", "dynamic")


def _version_here(runtime: str) -> str | None:
    from edgenet.device_bench.describe import runtimes

    return runtimes().get(runtime)
