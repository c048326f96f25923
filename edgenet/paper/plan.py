"""The plan of the EfficientNet paper's comparison: which networks, timed how, in which order, for how long.

Tan and Le, https://arxiv.org/abs/1905.11946. Table 4 is timed as the paper did it (batch 1, one core, the mean of 20
runs) and by our own rules (interleaved rounds, the median with an interval); then all variants in float32 and INT8.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgenet.device_bench.timing import Plan
from edgenet.errors import InputError
from edgenet.export import FORMATS
from edgenet.export.graph import LARGEST_BYTES
from edgenet.export.saved_model import SUFFIX
from edgenet.models import zoo
from edgenet.options import PaperJob
from edgenet.paper.networks import counts
from edgenet.results import Results
from edgenet.results.records import PaperRecord

SAVED_MODEL = "savedmodel"
# The pairs that the paper timed: the rival, and the EfficientNet that is as accurate.
PAIRS = (("resnet-152", "efficientnet-b1"), ("amoebanet-b", "efficientnet-b7"))
# Which file each runtime reads; TensorFlow is the paper's.
RUNTIMES = {"tensorflow": SAVED_MODEL, "litert": "tflite", "openvino": "openvino", "onnxruntime": "onnx"}
LADDER = tuple(name for name in zoo.MODELS if name.startswith("efficientnet-"))
PAPER_RUNS = 20
TABLE4 = "table4"
# Ten rounds of two runs are the paper's 20 and, taken in turns, what our interval needs.
PAPER_PLAN = Plan(
    min_runs=PAPER_RUNS, min_time_s=0, rounds=10, max_rounds=10, max_time_s=900, warmup_s=15, every_run=True
)
LADDER_PLAN = Plan(rounds=10, max_rounds=10, max_time_s=60)
PHONE_THREADS = 4  # of the published Pixel 4 figures
_QUICK_MADDS = 1e9  # the largest network that --quick times
_LARGEST_BYTES = {"tflite": LARGEST_BYTES}  # ONNX and OpenVINO keep constants in a file beside the model
_COPIES = 3  # of the weights in memory while a file is written: the graph's, the writer's, the file's
_EFFICIENCY = 0.4  # of what a core multiplies at best, that depthwise convolutions leave; for the time plan only
_BUILD_S, _BUILD_S_PER_MILLION = 25.0, 0.8  # to write all files of a network; for the time plan only


@dataclass(frozen=True)
class Bench:
    """One way to time files: `runtime` None is the device's own; `pinned` keeps it on one core."""

    device: str
    runtime: str | None
    threads: int
    pinned: bool

    @property
    def format(self) -> str:
        return RUNTIMES[self.runtime] if self.runtime else "tflite"


@dataclass(frozen=True)
class Step:
    """Networks that are written once and timed against each other in every way of `benches`."""

    networks: tuple[str, ...]
    precisions: tuple[str, ...]
    benches: tuple[Bench, ...]
    plan: Plan
    group: str = ""  # of the files' ids: what is timed against a rival is not what the ladder timed

    @property
    def title(self) -> str:
        return " against ".join(self.networks)

    def id(self, name: str, format: str, precision: str) -> str:
        return file_id(name, format, precision, self.group)


def steps(job: PaperJob) -> list[Step]:
    """Return the steps in order: first the paper's own measurements, then the networks, the cheapest first."""
    found = []
    if "4" in job.wanted:
        pinned = tuple(Bench("local", runtime, 1, True) for runtime in RUNTIMES)
        pairs = PAIRS[:1] if job.quick else PAIRS
        found += [Step(pair, ("float32",), pinned, PAPER_PLAN, TABLE4) for pair in pairs]
    for name in sorted(LADDER, key=lambda n: counts(n).multiply_adds):
        lite = zoo.MODELS[name].lite
        if job.quick and counts(name).multiply_adds > _QUICK_MADDS:
            continue
        benches = []
        if "ladder" in job.wanted or (lite and "lite" in job.wanted):
            benches += [Bench(d, "litert" if d == "local" else None, 1, d == "local") for d in job.devices]
        if lite and "lite" in job.wanted:
            benches += [Bench("local", "litert", min(PHONE_THREADS, os.cpu_count() or 1), False)]
        if benches:
            unique = tuple({(b.device, b.runtime, b.threads): b for b in benches}.values())
            found.append(Step((name,), ("float32", "int8"), unique, LADDER_PLAN))
    return found


def time_plan(planned: Sequence[Step]) -> list[str]:
    """Return what is left to do and about how long it takes, a line each, the sum last."""
    if not planned:
        return ["Everything is measured; only the pages are written anew."]
    rate = _multiply_adds_a_second()
    seconds = [_seconds(step, rate) for step in planned]
    lines = [f"{about(s):>12}  {step.title}" for s, step in zip(seconds, planned, strict=True)]
    return ["Time plan:", *lines, f"{about(sum(seconds)):>12}  in all; what is measured is kept if it is interrupted"]


def about(seconds: float) -> str:
    """Return a duration as text, in the unit that fits."""
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )


def _seconds(step: Step, rate: float) -> float:
    spent = 0.0
    for name in step.networks:
        size = counts(name)
        one = size.multiply_adds / (rate * _EFFICIENCY)
        timed = max(step.plan.min_runs * one, step.plan.min_time_s)
        a_file = min(timed, step.plan.max_time_s) + step.plan.rounds * max(one, 0.02) + step.plan.warmup_s
        spent += len(step.benches) * len(step.precisions) * a_file
        spent += _BUILD_S + _BUILD_S_PER_MILLION * size.parameters / 1e6
    return spent


def _multiply_adds_a_second(side: int = 768) -> float:
    """Return what one core multiplies at best, measured: the product of two matrices."""
    a = np.random.default_rng(0).standard_normal((side, side), np.float32)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return side**3 / best / (os.cpu_count() or 1)


def file_id(name: str, format: str, precision: str, group: str = "") -> str:
    """Return the id of the artifact that `write` makes; `group` tells files apart that are timed against others."""
    suffix = SUFFIX if format == SAVED_MODEL else FORMATS[format].suffix
    return f"{group}/{name}_{precision}{suffix}" if group else f"{name}_{precision}{suffix}"


def too_large(name: str, format: str, available_bytes: int | None) -> str:
    """Return why a network cannot be a file of this format on this machine, "" where it can."""
    needed = counts(name).parameters * 4
    largest = _LARGEST_BYTES.get(format)
    if largest is not None and needed > largest:
        return f"its weights are {needed / 1e9:.1f} GB in float32, and a {format} file holds {largest / 1e9:.1f}"
    if available_bytes is not None and needed * _COPIES > available_bytes:
        return (
            f"writing and running it takes about {needed * _COPIES / 1e9:.1f} GB of memory, and "
            f"{available_bytes / 1e9:.1f} are free"
        )
    return ""


def paper_of(results: Results) -> PaperRecord:
    """Return what a run of `edgenet paper` noted. Raises InputError where it was another command's."""
    paper = results.context.paper
    if paper is None:
        raise InputError("these results are not of `edgenet paper`: give the --out folder of such a run")
    return paper
