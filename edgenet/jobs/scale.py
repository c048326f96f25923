"""`edgenet scale`: search for the network of a family that fills a latency budget on a device, measuring there.

Compound scaling (scaling.py) with latency in the place of multiply-adds, which the EfficientNet paper did not do:
phi grows until the device takes as long as allowed. Repeats are rounded up and filters to multiples of 8, so latency
over phi is a staircase; a step too high for the budget is bridged by making the network a little wider or narrower.
"""

import dataclasses
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.errors import DeviceError, GateFailed, InputError
from edgenet.files import atomic_write
from edgenet.jobs import scale_memory
from edgenet.jobs.output_folder import machine_context, results_in
from edgenet.models.graph_drawing import Blueprint
from edgenet.models.scaling import EFFICIENTNET, Family, Scale, compound, family, scaled_px
from edgenet.options import Progress, ScaleJob
from edgenet.preflight import check_scale
from edgenet.report.formatting import failed
from edgenet.results import Artifact, Failure, Measurement, Results
from edgenet.results.records import Context, ScaledNetwork, ScaleRecord

TOLERANCE = 0.05  # of the budget: the promise
_AIM = 0.02  # the search goes on until the network is as near as this
_MOST_NETWORKS = 12
_PHIS = np.arange(-12, 8.01, 0.1)  # a 4,000th of the baseline's multiply-adds to 256 times as many
_PHI_END = 0.25  # networks so near to an end of phi are the smallest or the largest
_TILTS = np.linspace(0.8, 1.25, 16)  # factors on the width alone
_TILT_REACH = 1.7  # a tilt makes a network at most so many times as fast or as slow
_PHIS_TILTED = 6  # those nearest to the budget
_LONGEST_MS = 60_000.0
_ATTEMPTS = 3  # at a network that is still within the budget when it is timed again
_ENOUGH = 4  # networks, after which a search that promises nothing better ends
_TILT_PRICE = 0.2  # how much nearer a network off the compound scale has to be
MICRO = scale_memory.MICRO
_UNITS_MS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}


Timer = Callable[[str, Path], Measurement]  # (id, file)


def parse_budget_ms(text: str) -> float:
    """Return "30ms", "0.5 s" or "900us" in milliseconds.

    Raises:
        InputError: it is not a time, or not above 0.
    """
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-zµ]+)\s*", text)
    if found is None or found[2] not in _UNITS_MS:
        raise InputError(f"--budget '{text}' is not a time: give a number and ms, s or us, e.g. --budget 30ms")
    budget_ms = float(found[1]) * _UNITS_MS[found[2]]
    if not 0 < budget_ms <= _LONGEST_MS:
        raise InputError(f"--budget '{text[:40]}' is not above 0 and at most 60 s: give e.g. --budget 30ms")
    return budget_ms


def check(job: ScaleJob) -> None:
    """Raise InputError for an argument that makes no sense."""
    from edgenet.device_bench.registry import parse

    parse(job.device)
    if job.device == MICRO:
        scale_memory.check(job)
        return
    if job.arena or job.flash:
        raise InputError(f"--arena and --flash are a microcontroller's: give --device {MICRO}")
    if job.classes != ScaleJob.classes:
        raise InputError(f"--classes is for --device {MICRO}: a time hardly depends on it")
    if job.budget is None:
        raise InputError("--budget is missing: give --budget 30ms, say")
    parse_budget_ms(job.budget)
    family(_family(job))


def propose(
    of: Family,
    budget_ms: float,
    measure: Callable[[Blueprint], float],
    most: int = _MOST_NETWORKS,
    start: ScaledNetwork | None = None,
) -> tuple[ScaledNetwork, list[ScaledNetwork]]:
    """Return the network nearest to the budget, and all that were measured in the order they were.

    Each time the network whose predicted latency is nearest to the budget is measured. The prediction is its
    multiply-adds times the time that one took in the measured networks next to it.

    Args:
        measure: draws, exports and times a network; milliseconds.
        most: how many networks may be measured.
        start: where to begin; the baseline by default.

    Raises:
        InputError: even the smallest network takes longer than the budget, or the largest less.
    """
    on_scale = _distinct(_point(of, float(phi), 1.0) for phi in _PHIS)
    measured: list[ScaledNetwork] = []

    def predicted_ms(p: ScaledNetwork) -> float:
        by_size = sorted(measured, key=lambda m: m.multiply_adds)
        sizes = [math.log(m.multiply_adds) for m in by_size]
        rates = [math.log((m.latency_ms or 0) / m.multiply_adds) for m in by_size]
        return p.multiply_adds * math.exp(np.interp(math.log(p.multiply_adds), sizes, rates))

    def off(p: ScaledNetwork) -> float:
        return abs(math.log(predicted_ms(p) / budget_ms))

    def distance(p: ScaledNetwork) -> float:
        return abs(math.log((p.latency_ms or 0) / budget_ms))

    chosen = start or _point(of, 0.0, 1.0)
    while len(measured) < most:
        latency_ms = measure(of.scaled(Scale(chosen.width, chosen.depth, chosen.resolution_px / of.resolution_px)))
        measured.append(dataclasses.replace(chosen, latency_ms=latency_ms))
        best = min(measured, key=distance)
        if distance(best) <= _AIM:
            return best, measured
        _check_possible(of, measured[-1], budget_ms, _TILT_REACH)
        near = sorted(on_scale, key=off)[:_PHIS_TILTED]
        tilted = [_point(of, p.phi, float(tilt)) for p in near for tilt in _TILTS]
        tried = {m.multiply_adds for m in measured}
        new = [p for p in _distinct([*near, *tilted]) if p.multiply_adds not in tried]
        chosen = min(new, key=lambda p: off(p) + _TILT_PRICE * abs(math.log(p.tilt)))
        if len(measured) >= _ENOUGH and off(chosen) >= distance(best):
            break
    best = min(measured, key=distance)
    _check_possible(of, best, budget_ms, 1 + TOLERANCE)
    return best, measured


def _check_possible(of: Family, p: ScaledNetwork, budget_ms: float, reach: float) -> None:
    """Raise InputError where `p`, at an end of phi, is off by more than a factor of `reach`, and the end is why."""
    ratio = (p.latency_ms or 0) / budget_ms
    if p.phi <= _PHIS[0] + _PHI_END and ratio > reach:
        words = ("fast", "smallest", "larger")
    elif p.phi >= _PHIS[-1] - _PHI_END and ratio < 1 / reach:
        words = ("slow", "largest", "smaller")
    else:
        return
    raise InputError(
        f"no {of.name} is as {words[0]} as {budget_ms:g} ms: the {words[1]}, at {p.resolution_px} px, takes "
        f"{p.latency_ms:.3g} ms; give a {words[2]} --budget or another --family"
    )


def _point(of: Family, phi: float, tilt: float) -> ScaledNetwork:
    scale = compound(phi, EFFICIENTNET)
    width = scale.width * tilt
    net = of.scaled(Scale(width, scale.depth, scale.resolution))
    px = scaled_px(of.resolution_px, scale.resolution)
    return ScaledNetwork(phi, tilt, width, scale.depth, px, net.multiply_adds, net.parameters)


def _distinct(points: Any) -> list[ScaledNetwork]:
    """Return one of each network: rounding makes many factors the same."""
    return list({(p.multiply_adds, p.parameters): p for p in reversed(list(points))}.values())


def scale(job: ScaleJob, progress: Progress = lambda *_: None) -> Results:
    """Find the network, export it to OUT, measure the file that was written, and write OUT/results.json.

    The file's weights are random: it proves the latency; its accuracy comes with training. context.scale holds
    the proposal and what was measured on the way.

    Raises:
        InputError: no network of the family meets the budget, the device only estimates, or OUT is another command's.
        DeviceError: the device failed.
        GateFailed: no network was within 5 % of the budget; the nearest is exported all the same.
    """
    check(job)
    check_scale(job)
    if job.device == MICRO:
        return scale_memory.scale(job, progress)
    with results_in(job.out, command="scale", resume=False) as results, _timer(job) as timed:
        best, measured, artifact, final = _fill_budget(job, timed, progress)
        met = _is_within(final, job)
        results.context = _context(job, best, measured, final, met)
        results.put(artifact)
        results.put(final)
    if not met:
        raise GateFailed(
            f"no {_family(job)} within 5 % of {_budget_ms(job):g} ms on {job.device}: the nearest of "
            f"{len(measured)}, {artifact.model}, takes {final.median_ms:.2f} ms and was exported; a quieter machine or "
            "a longer --budget may help"
        )
    return results


def _fill_budget(
    job: ScaleJob, timed: Timer, progress: Progress
) -> tuple[ScaledNetwork, list[ScaledNetwork], Artifact, Measurement]:
    """Return the network, all that were measured on the way, its file in OUT, and that file's time.

    A network that misses the budget when its file is timed is not taken: the search begins anew there.
    """
    of, budget_ms = family(_family(job)), _budget_ms(job)
    measured: list[ScaledNetwork] = []
    best = _point(of, 0.0, 1.0)

    def measure(net: Blueprint) -> float:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / _export(net, Path(folder)).path
            return timed(path.name, path).median_ms

    for attempt in range(_ATTEMPTS):
        progress("scale", attempt, _ATTEMPTS)
        best, tried = propose(of, budget_ms, measure, start=best)
        measured += tried
        factors = Scale(best.width, best.depth, best.resolution_px / of.resolution_px)
        name = f"{of.name}-w{best.width:.2f}-d{best.depth:.2f}-{best.resolution_px}px"
        with tempfile.TemporaryDirectory() as folder:
            artifact = _export(of.scaled(factors, name), Path(folder))
            final = timed(artifact.id, Path(folder) / artifact.path)
            if _is_within(final, job) or attempt == _ATTEMPTS - 1:
                with atomic_write(job.out / artifact.path) as tmp:
                    shutil.copyfile(Path(folder) / artifact.path, tmp)
                break
    progress("scale", _ATTEMPTS, _ATTEMPTS)
    return best, measured, artifact, final


def _is_within(m: Measurement, job: ScaleJob) -> bool:
    return abs(m.median_ms / _budget_ms(job) - 1) <= TOLERANCE


def _export(net: Blueprint, folder: Path) -> Artifact:
    """Write a network with random weights as a float file."""
    from edgenet.export import export_graph

    network = scale_memory.network_of(net)
    return export_graph(network, network.graph, folder, format="tflite", precision="float32")


def _family(job: ScaleJob) -> str:
    return job.family or "efficientnet-lite"


def _budget_ms(job: ScaleJob) -> float:
    return parse_budget_ms(job.budget or "")


def _context(
    job: ScaleJob, best: ScaledNetwork, measured: list[ScaledNetwork], final: Measurement, met: bool
) -> Context:
    record = ScaleRecord(
        **{**vars(best), "latency_ms": final.median_ms},
        family=_family(job),
        device=job.device,
        budget_ms=_budget_ms(job),
        met=met,
        measured=tuple(measured),
    )
    return dataclasses.replace(machine_context(job.command), scale=record)


@contextmanager
def _timer(job: ScaleJob) -> Iterator[Timer]:
    """Yield what times one file on the job's device, which stays open."""
    from edgenet.device_bench import Request, open_device

    with open_device(job.device) as device:

        def timed(id: str, path: Path) -> Measurement:
            found, failures = device.bench([(id, path)], Request(threads=job.threads))
            if failures:
                raise DeviceError(_said(failures[0]))
            if not found or not isinstance(found[0], Measurement):
                raise InputError(f"{job.device} only estimates: give a --device that measures, such as local")
            return found[0]

        yield timed


def _said(failure: Failure) -> str:
    return f"{failed(failure)} could not be timed: {failure.why}; {failure.remedy}"


def lines(results: Results) -> list[tuple[str, str]]:
    """Return the proposal as (label, text) rows."""
    from edgenet.report.formatting import counted

    found = results.context.scale
    assert found is not None  # `scale` noted it
    if found.device == MICRO:
        return scale_memory.lines(results)
    m = results.measurements[0]
    place = f"{m.device}, {counted(m.threads, 'thread')}, {m.runtime}"
    return [
        ("network", f"{found.family}, width {found.width:.2f}, depth {found.depth:.2f}, "
                    f"{found.resolution_px} px"),
        ("size", f"{found.parameters / 1e6:.2f} M parameters, {found.multiply_adds / 1e6:,.0f} M multiply-adds"),
        ("latency", f"{m.median_ms:.2f} ms of {found.budget_ms:g} on {place}"),
        ("measured", f"{len(found.measured)} networks on the way"),
        ("file", f"{results.artifacts[0].path}; its weights are random: train it before it is used"),
    ]  # fmt: skip
