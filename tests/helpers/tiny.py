"""A network small enough for every test, its photographs, and the command line with it in the place of a zoo model.

The network has the operators of EfficientNet-Lite (convolutions with ReLU6, depthwise, add, mean, dense, softmax),
tells five colours apart, and is built by hand, so that TensorFlow need not be loaded. As a program this module is
`edgenet` with the model `tiny`; TINY_KILL says where it is to kill itself, as a power cut would.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgenet.device_bench import Plan
from edgenet.export.graph import Graph, Op, Tensor
from edgenet.export.importers.find import find_source
from edgenet.export.network import Network, Source, classes_of
from edgenet.images import Preprocessing, normalise

PX, CLASSES = 20, 5
COLOURS = ((200, 60, 60), (60, 190, 60), (60, 60, 200), (200, 200, 70), (120, 120, 120))  # of class 0 to 4
PREPROCESSING = Preprocessing(PX, (127.0,) * 3, (128.0,) * 3)
SHORT = Plan(min_runs=10, min_time_s=0.02, rounds=2, max_rounds=2, max_time_s=5.0, warmup_s=0.02)  # of timing
RELU6 = 3  # the schema's ActivationFunctionType
STRIDES = {"padding": 0, "strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}


def graph(seed: int = 0, classes: int = CLASSES) -> Graph:
    """Return the float network: (1, 20, 20, 3) -> (1, classes) probabilities."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, Tensor] = {"image": Tensor("image", (1, PX, PX, 3), "float32")}
    ops: list[Op] = []

    def constant(name: str, data: np.ndarray) -> str:
        tensors[name] = Tensor(name, data.shape, str(data.dtype), data)
        return name

    def emit(kind: str, inputs: tuple[str, ...], name: str, shape: tuple[int, ...], options: dict, type: str) -> str:
        tensors[name] = Tensor(name, shape, "float32")
        ops.append(Op(kind, inputs, (name,), options, type))
        return name

    def conv(x: str, name: str, kernel: int, filters: int, stride: int = 1, activation: int = RELU6) -> str:
        _, side, _, inputs = tensors[x].shape
        side = -(-side // stride)
        w = rng.normal(0, (2 / (kernel * kernel * inputs)) ** 0.5, (filters, kernel, kernel, inputs)).astype(np.float32)
        bias = rng.normal(0.1, 0.1, filters).astype(np.float32)
        options = {**STRIDES, "strideW": stride, "strideH": stride, "fusedActivationFunction": activation}
        inputs_ = (x, constant(f"{name}_w", w), constant(f"{name}_b", bias))
        return emit("CONV_2D", inputs_, name, (1, side, side, filters), options, "Conv2DOptions")

    def depthwise(x: str, name: str) -> str:
        shape = tensors[x].shape
        w = rng.normal(0.1, 0.3, (1, 3, 3, shape[3])).astype(np.float32)
        bias = rng.normal(0.1, 0.1, shape[3]).astype(np.float32)
        options = {**STRIDES, "depthMultiplier": 1, "fusedActivationFunction": RELU6}
        inputs = (x, constant(f"{name}_w", w), constant(f"{name}_b", bias))
        return emit("DEPTHWISE_CONV_2D", inputs, name, shape, options, "DepthwiseConv2DOptions")

    stem = conv("image", "stem", 3, 16, stride=2)
    middle = conv(depthwise(conv(stem, "expand", 1, 48), "depthwise"), "project", 1, 16, activation=0)
    added = emit("ADD", (middle, stem), "added", tensors[stem].shape, {"fusedActivationFunction": 0}, "AddOptions")
    head = conv(added, "head", 1, 96)
    axes = constant("axes", np.array([1, 2], np.int32))
    pooled = emit("MEAN", (head, axes), "pooled", (1, 96), {"keepDims": False}, "ReducerOptions")
    w = constant("classifier_w", rng.normal(0, 0.2, (classes, 96)).astype(np.float32))
    bias = constant("classifier_b", np.zeros(classes, np.float32))
    dense = {"fusedActivationFunction": 0, "weightsFormat": 0, "keepNumDims": False}
    emit("FULLY_CONNECTED", (pooled, w, bias), "logits", (1, classes), dense, "FullyConnectedOptions")
    emit("SOFTMAX", ("logits",), "probabilities", (1, classes), {"beta": 1.0}, "SoftmaxOptions")
    return Graph("main", tensors, tuple(ops), ("image",), ("probabilities",))


def trained() -> Graph:
    """Return the network with its last layer fitted to the colours, by least squares: it is right nearly always."""
    from edgenet.calibration.execute import Executor

    rng = np.random.default_rng(1)
    g = graph()
    run = Executor(g, ["pooled"], 1)
    labels = np.arange(200) % CLASSES
    features = [run(normalise(picture(label, rng, PX)[None], PREPROCESSING))[0][0] for label in labels]
    x = np.c_[np.array(features), np.ones(len(labels))]
    y = 8.0 * np.eye(CLASSES)[labels] - 4
    fitted = np.linalg.solve(x.T @ x + 1e-2 * np.eye(x.shape[1]), x.T @ y).astype(np.float32)  # (97, classes)
    g.tensors["classifier_w"] = replace(g.tensors["classifier_w"], data=np.ascontiguousarray(fitted[:-1].T))
    g.tensors["classifier_b"] = replace(g.tensors["classifier_b"], data=fitted[-1].copy())
    return g


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


def make_folder(root: Path, per_class: int = 8) -> Path:
    """Write photographs into class folders that are called as the classes are."""
    rng = np.random.default_rng(2)
    for label in range(CLASSES):
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
        assert hasattr(pipeline, f"_{what}")
        setattr(pipeline, f"_{what}", lambda *args, **options: _die())
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


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    import functools

    from edgenet import cli, device_bench, pipeline
    from edgenet.jobs import bench, qat

    pipeline.find_source = qat.find_source = source  # type: ignore[assignment]
    quick = functools.partial(device_bench.bench, min_runs=10, min_time_s=0.02, rounds=2, max_time_s=5.0)
    device_bench.bench = quick  # type: ignore[assignment]
    bench.RUN_PLAN = bench.BENCH_PLAN = SHORT
    if where := os.environ.get("TINY_KILL"):
        _install_kill(where)
    sys.argv[0] = "edgenet"
    cli.main()


if __name__ == "__main__":
    main()
