"""A network small enough for every test, its photographs, and the command line with it in the place of a zoo model.

The network has the operators of EfficientNet-Lite (convolutions with ReLU6, depthwise, add, mean, dense, softmax),
tells five colours apart, and is built by hand, so that TensorFlow need not be loaded. As a program this module is
`edgenet` with the model `tiny`; TINY_KILL says where it is to kill itself, as a power cut would; TINY_ROOM how many
bytes a file may have: beyond them the kernel refuses a write, as when the disk is full.
"""

import functools
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgenet.device_bench import Plan, rounds, timing
from edgenet.export.graph import Activation, Graph
from edgenet.export.importers.find import find_source
from edgenet.export.network import Network, Source, classes_of
from edgenet.images import Preprocessing, normalise

if __name__ == "__main__":  # as a program it has the folder of the helpers on its path, and not the tests'
    sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.graph_builder import NONE, RELU6, Builder

PX, CLASSES = 20, 5
COLOURS = ((200, 60, 60), (60, 190, 60), (60, 60, 200), (200, 200, 70), (120, 120, 120))  # of class 0 to 4
PREPROCESSING = Preprocessing(PX, (127.0,) * 3, (128.0,) * 3)
SHORT = Plan(min_runs=10, min_time_s=0, rounds=2, max_rounds=2, max_time_s=5.0, warmup_s=0.005)  # of timing


def graph(seed: int = 0, classes: int = CLASSES) -> Graph:
    """Return the float network: (1, 20, 20, 3) -> (1, classes) probabilities."""
    rng = np.random.default_rng(seed)
    b = Builder(1, PX, PX, 3)

    def conv(x: str, name: str, kernel: int, filters: int, stride: int = 1, activation: Activation = RELU6) -> str:
        inputs = b.tensors[x].shape[3]
        w = rng.normal(0, (2 / (kernel * kernel * inputs)) ** 0.5, (filters, kernel, kernel, inputs))
        return b.conv(x, name, w, rng.normal(0.1, 0.1, filters), activation, stride)

    stem = conv("image", "stem", 3, 16, stride=2)
    expanded = conv(stem, "expand", 1, 48)
    b.depthwise(expanded, "depthwise", rng.normal(0.1, 0.3, (1, 3, 3, 48)), rng.normal(0.1, 0.1, 48), RELU6)
    middle = conv("depthwise", "project", 1, 16, activation=NONE)
    head = conv(b.add(middle, stem, "added"), "head", 1, 96)
    b.dense(b.mean(head, "pooled"), "logits", rng.normal(0, 0.2, (classes, 96)), np.zeros(classes))
    return b.graph(b.op("SOFTMAX", ["logits"], (1, classes), "SoftmaxOptions", out="probabilities", beta=1.0))


def trained() -> Graph:
    """Return the network with its last layer fitted to the colours, by least squares: it is right nearly always."""
    g, (weights, biases) = graph(), _fitted()
    g.tensors["logits_w"] = replace(g.tensors["logits_w"], data=weights.copy())
    g.tensors["logits_b"] = replace(g.tensors["logits_b"], data=biases.copy())
    return g


@functools.cache
def _fitted() -> tuple[np.ndarray, np.ndarray]:
    """Return the last layer's weights, (classes, 96), and biases, (classes,). Read only."""
    from edgenet.calibration.execute import Executor

    rng = np.random.default_rng(1)
    g = graph()
    run = Executor(g, ["pooled"], 1)
    labels = np.arange(200) % CLASSES
    features = [run(normalise(picture(label, rng, PX)[None], PREPROCESSING))[0][0] for label in labels]
    x = np.c_[np.array(features), np.ones(len(labels))]
    y = 8.0 * np.eye(CLASSES)[labels] - 4
    fitted = np.linalg.solve(x.T @ x + 1e-2 * np.eye(x.shape[1]), x.T @ y).astype(np.float32)  # (97, classes)
    return np.ascontiguousarray(fitted[:-1].T), fitted[-1]


def source(model: str = "tiny", weights: Path | None = None, random_weights: bool = False, **options: Any) -> Source:
    """What find_source returns for the model `tiny`; any other name goes to the real one."""
    if model != "tiny":
        return find_source(model, weights, random_weights, **options)
    ids, names = classes_of(CLASSES)
    return Source("tiny", PREPROCESSING, ids, names, "least squares", "0" * 64, trained)


def network() -> Network:
    return source().network()


def picture(label: int, rng: np.random.Generator, px: int = 48) -> np.ndarray:
    """Return (px, px, 3) uint8: blotches of the class's colour."""
    coarse = rng.normal(0, 18, (6, 6, 3)) + np.array(COLOURS[label])
    blotches = np.asarray(Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8)).resize((px, px)), np.float64)
    return np.clip(blotches + rng.normal(0, 6, (px, px, 3)), 0, 255).astype(np.uint8)


def make_folder(root: Path, per_class: int = 8, labels: Sequence[int] = range(CLASSES)) -> Path:
    """Write photographs into class folders that are called as the classes are."""
    rng = np.random.default_rng(2)
    for label in labels:
        folder = root / f"class_{label}"
        folder.mkdir(parents=True)
        for i in range(per_class):
            Image.fromarray(picture(label, rng)).save(folder / f"{i}.jpg", quality=92)
    return root


def _install_kill(where: str) -> None:
    """TINY_KILL is "before N" or "after N", the N-th file put in its place, or "stage NAME", a stage that begins."""
    from edgenet import pipeline

    when, _, what = where.partition(" ")
    if when == "stage":
        stage = {"bench": "bench_devices", "emulate": "emulate_devices"}.get(what, f"_{what}")
        assert hasattr(pipeline, stage)
        setattr(pipeline, stage, lambda *args, **options: _die())
        return
    replace, count = os.replace, 0

    def counting(a: str, b: str) -> None:
        nonlocal count
        count += 1
        if (when, str(count)) == ("before", what):
            _die()
        replace(a, b)
        if (when, str(count)) == ("after", what):
            _die()

    os.replace = counting  # type: ignore[assignment]


def shorten_timing(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Time files in a moment, where a test is not about latencies: that takes most of a run's CPU time else.

    A turn begins with one untimed run and not with 0.1 s of them, and a file keeps its process from turn to turn.
    """
    from edgenet.compare import remeasure
    from edgenet.jobs import accuracy_budget

    put(remeasure, "_ROUNDS_A_MINUTE", SHORT.max_rounds)
    put(timing, "_LEAD_NS", 1)
    put(timing, "_FRESH_LEAD_NS", 1)
    put(rounds, "_CHEAP_START_S", 0.0)
    put(accuracy_budget, "STEP_PLAN", replace(SHORT, self_check=False))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    from edgenet import cli, pipeline
    from edgenet.jobs import bench, qat

    pipeline.find_source = qat.find_source = source  # type: ignore[assignment]
    bench.RUN_PLAN = bench.BENCH_PLAN = SHORT
    shorten_timing()
    if where := os.environ.get("TINY_KILL"):
        _install_kill(where)
    if room_bytes := os.environ.get("TINY_ROOM"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(room_bytes),) * 2)
    sys.argv[0] = "edgenet"
    cli.main()


if __name__ == "__main__":
    main()
