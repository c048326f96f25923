"""`edgenet scale --device micro`: the largest network of a family whose INT8 file fits a microcontroller's memories.

Compound scaling with bytes in the place of multiply-adds: phi makes a network wider and deeper, which takes flash, and
a tilt of its resolution takes RAM. Both are measured: the file's size, and the arena that tflite-micro needs for it.
"""

import dataclasses
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgenet.errors import DeviceError, GateFailed, InputError
from edgenet.export import export_graph
from edgenet.export.graph import fingerprint
from edgenet.export.network import Network, canonical_names, classes_of
from edgenet.files import atomic_write, parse_bytes, sha256_of
from edgenet.images import Preprocessing
from edgenet.jobs.output_folder import machine_context, results_in
from edgenet.models.graph_drawing import Blueprint
from edgenet.models.scaling import EFFICIENTNET, Family, Scale, compound, family, scaled_px
from edgenet.models.zoo import LITE_MEAN, LITE_STD
from edgenet.options import Progress, ScaleJob
from edgenet.results import Artifact, Estimate, Results
from edgenet.results.records import ScaledNetwork, ScaleRecord

MICRO = "micro"
FAMILY = "mobilenet-v1"  # it has the fewest weights beside its blocks: 1,000 classes fit into a megabyte
LEAST_BYTES, MOST_BYTES = 1000, 1 << 30  # of a memory; the most is what the emulator's arena may have
MOST_CLASSES = 100_000
_PHIS = np.arange(-12, 4.01, 0.25)  # to 16 times the multiply-adds of the baseline
_TILTS = np.geomspace(0.5, 2, 9)  # factors on the resolution alone
_TILT_PRICE = 0.5  # how many more multiply-adds a network off the compound scale has to have
_MOST_NETWORKS = 12
_ARENA_PER_NUMBER, _FLASH_PER_WEIGHT = 1.3, 1.15  # bytes; the first guess, until a network is measured

Measure = Callable[[Blueprint], tuple[int, int]]  # (arena, flash) in bytes


@dataclass(frozen=True)
class Room:
    """The memories of a microcontroller; None where one was not given, and does not limit."""

    arena_bytes: int | None
    flash_bytes: int | None

    def filled(self, arena_bytes: float, flash_bytes: float) -> float:
        """Return how full the fuller one is; above 1 it does not fit."""
        pairs = ((arena_bytes, self.arena_bytes), (flash_bytes, self.flash_bytes))
        return max(used / there for used, there in pairs if there is not None)


@dataclass(frozen=True)
class _Candidate:
    network: ScaledNetwork
    widest: int
    scale: Scale

    @property
    def worth(self) -> float:
        """What the largest is chosen by: multiply-adds, fewer the farther it is off the compound scale."""
        return self.network.multiply_adds * math.exp(-_TILT_PRICE * abs(math.log(self.network.tilt)))


def check(job: ScaleJob) -> None:
    """Raise InputError for an argument that makes no sense on a microcontroller."""
    if job.budget is not None:
        raise InputError(f"--device {MICRO} has no time: give --arena 512KB, --flash 1MB or both, and no --budget")
    if job.arena is None and job.flash is None:
        raise InputError(f"--device {MICRO} needs a budget of memory: give --arena 512KB, --flash 1MB or both")
    if not 2 <= job.classes <= MOST_CLASSES:
        raise InputError(f"--classes must be from 2 to {MOST_CLASSES:,}, was {job.classes}")
    if job.threads != 1:
        raise InputError(f"--threads is not for --device {MICRO}, which has one")
    _room(job)
    family(job.family or FAMILY)


def _room(job: ScaleJob) -> Room:
    asked = (("--arena", job.arena), ("--flash", job.flash))
    return Room(*(None if text is None else parse_bytes(name, text, LEAST_BYTES, MOST_BYTES) for name, text in asked))


def propose(
    of: Family, room: Room, measure: Measure, classes: int = 1000, most: int = _MOST_NETWORKS
) -> tuple[ScaledNetwork, list[ScaledNetwork]]:
    """Return the largest network found that fits, and all that were measured in the order they were.

    Each time the largest that is predicted to fit is measured. The prediction is from its weights and its widest
    operator, and from what the measured network next to it took for each of them.

    Raises:
        InputError: not even the smallest network of the family fits.
    """
    candidates = list(_candidates(of, classes))
    smallest = min(candidates, key=lambda c: c.network.multiply_adds)
    measured: dict[_Candidate, ScaledNetwork] = {}

    def fill(network: ScaledNetwork) -> float:
        return room.filled(network.arena_bytes or 0, network.flash_bytes or 0)

    def predicted(c: _Candidate) -> float:
        if not measured:
            return room.filled(c.widest * _ARENA_PER_NUMBER, c.network.parameters * _FLASH_PER_WEIGHT)
        near = min(measured, key=lambda m: _distance(c.network, m.network))
        took = measured[near]
        return room.filled(
            (took.arena_bytes or 0) * c.widest / near.widest,
            (took.flash_bytes or 0) * c.network.parameters / near.network.parameters,
        )

    while len(measured) < most:
        best = max((c for c, m in measured.items() if fill(m) <= 1), key=lambda c: c.worth, default=None)
        left = [c for c in candidates if c not in measured and (best is None or c.worth > best.worth)]
        left = [c for c in left if predicted(c) <= 1]
        if not left and (best is not None or smallest in measured):
            break
        chosen = max(left, key=lambda c: c.worth, default=smallest)
        arena, flash = measure(of.scaled(chosen.scale, _name(of, chosen.network), classes))
        measured[chosen] = dataclasses.replace(chosen.network, arena_bytes=arena, flash_bytes=flash)
    fitting = [c for c, m in measured.items() if fill(m) <= 1]
    if not fitting:
        m = measured.get(smallest) or min(measured.values(), key=lambda m: m.multiply_adds)
        raise InputError(
            f"no {of.name} fits: the smallest tried, at {m.resolution_px} px for {classes:,} classes, takes an arena "
            f"of {m.arena_bytes:,} bytes and {m.flash_bytes:,} of flash; give more, fewer --classes or another --family"
        )
    return measured[max(fitting, key=lambda c: c.worth)], list(measured.values())


def _name(of: Family, network: ScaledNetwork) -> str:
    return f"{of.name}-w{network.width:.2f}-d{network.depth:.2f}-{network.resolution_px}px"


def _distance(a: ScaledNetwork, b: ScaledNetwork) -> float:
    return abs(math.log(a.parameters / b.parameters)) + abs(math.log(a.resolution_px / b.resolution_px))


def _candidates(of: Family, classes: int) -> Iterator[_Candidate]:
    """Yield one of each network: rounding makes many factors the same."""
    seen = set()
    for phi in _PHIS:
        for tilt in sorted(_TILTS, key=lambda t: abs(math.log(t))):  # the nearest to the scale of those that are alike
            on_scale = compound(float(phi), EFFICIENTNET)
            px = scaled_px(of.resolution_px, on_scale.resolution * tilt)
            scale = Scale(on_scale.width, on_scale.depth, px / of.resolution_px)
            net = of.scaled(scale, classes=classes)
            if (net.multiply_adds, net.parameters) not in seen:
                seen.add((net.multiply_adds, net.parameters))
                found = ScaledNetwork(
                    float(phi), float(tilt), scale.width, scale.depth, px, net.multiply_adds, net.parameters
                )
                yield _Candidate(found, net.widest, scale)


def scale(job: ScaleJob, progress: Progress = lambda *_: None) -> Results:
    """Find the network, write its INT8 file to OUT, and OUT/results.json with what the file takes in tflite-micro.

    The file's weights are random: it proves the memory; its accuracy comes with training.

    Raises:
        InputError: no network of the family fits, or OUT is another command's.
        DeviceError: tflite-micro failed.
        GateFailed: the file that was written takes more than the networks did on the way.
    """
    from edgenet.device_bench.micro.device import memory_of

    of, room = family(job.family or FAMILY), _room(job)
    with results_in(job.out, command="scale", resume=False) as results:
        done = 0

        def measure(net: Blueprint) -> tuple[int, int]:
            nonlocal done
            progress("scale", done, _MOST_NETWORKS)
            done += 1
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / _export(net, Path(folder), job.classes).path
                return sum(memory_of(path).values()), path.stat().st_size

        best, measured = propose(of, room, measure, job.classes)
        factors = Scale(best.width, best.depth, best.resolution_px / of.resolution_px)
        with tempfile.TemporaryDirectory() as folder:
            artifact = _export(of.scaled(factors, _name(of, best), job.classes), Path(folder), job.classes)
            with atomic_write(job.out / artifact.path) as tmp:
                shutil.copyfile(Path(folder) / artifact.path, tmp)
        final = _measured(artifact, job.out / artifact.path)
        record = ScaleRecord(
            **{**vars(best), "arena_bytes": final.sram_bytes, "flash_bytes": final.flash_bytes},
            family=of.name,
            device=job.device,
            met=room.filled(final.sram_bytes or 0, final.flash_bytes or 0) <= 1,
            measured=tuple(measured),
            budget_arena_bytes=room.arena_bytes,
            budget_flash_bytes=room.flash_bytes,
            classes=job.classes,
        )
        results.context = dataclasses.replace(machine_context(job.command), scale=record)
        results.put(artifact)
        results.put(final)
        progress("scale", _MOST_NETWORKS, _MOST_NETWORKS)
    if not record.met:
        raise GateFailed(f"{artifact.path} was exported and takes more than --arena and --flash allow: run it again")
    return results


def _measured(artifact: Artifact, path: Path) -> Estimate:
    """Return what the file that was written takes."""
    from edgenet.device_bench import Request, open_device

    with open_device(MICRO) as device:
        found, failures = device.bench([(artifact.id, path)], Request())
    if failures:
        raise DeviceError(f"{artifact.id} could not be measured: {failures[0].why}; {failures[0].remedy}")
    (estimate,) = found
    assert isinstance(estimate, Estimate)
    assert estimate.artifact_sha256 == sha256_of(path)
    return estimate


def network_of(net: Blueprint, classes: int = 1000) -> Network:
    """Return a drawn network with random weights."""
    graph = canonical_names(net.graph())
    ids, names = classes_of(classes)
    preprocessing = Preprocessing(net.resolution_px, LITE_MEAN, LITE_STD)
    return Network(net.name, graph, preprocessing, ids, names, "random", fingerprint(graph))


def _export(net: Blueprint, folder: Path, classes: int) -> Artifact:
    """Write a network with random weights as an INT8 file that takes and gives integers, as microcontrollers do."""
    from edgenet.calibration import Recipe, SharedCalibration

    network = network_of(net, classes)
    px = net.resolution_px
    pixels = np.random.default_rng(0).integers(
        0, 256, (2, px, px, 3), np.uint8
    )  # ranges of random weights mean nothing
    int8 = SharedCalibration(network, pixels, "", Recipe(corrections=())).quantized("int8")
    return export_graph(network, int8, folder, format="tflite", precision="int8", io="int8")


def lines(results: Results) -> list[tuple[str, str]]:
    """Return the proposal as (label, text) rows."""
    found, (e,) = results.context.scale, results.estimates
    assert found is not None  # `scale` noted it

    def of(size: int | None, room: int | None) -> str:
        return f"{size:,} bytes" + (f" of {room:,}" if room is not None else "")

    return [
        ("network", f"{found.family}, width {found.width:.2f}, depth {found.depth:.2f}, "
                    f"{found.resolution_px} px, {found.classes:,} classes"),
        ("size", f"{found.parameters / 1e6:.2f} M parameters, {found.multiply_adds / 1e6:,.1f} M multiply-adds"),
        ("arena", f"{of(found.arena_bytes, found.budget_arena_bytes)}, by {e.tool}"),
        ("flash", f"{of(found.flash_bytes, found.budget_flash_bytes)}, the file; the program comes on top"),
        ("measured", f"{len(found.measured)} networks on the way"),
        ("file", f"{results.artifacts[0].path}; its weights are random: train it before it is used"),
    ]  # fmt: skip
