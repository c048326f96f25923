"""Good files of every format, which fuzzing starts from: the tests' tiny network and what goes with it.

As a program it writes those that need TensorFlow: `python -m fuzz.seeds FOLDER`.
"""

import ast
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fuzz.mutate import Files
from helpers.places import ROOT

TESTS = ROOT / "tests"


def constants(module: str, *names: str) -> list[str]:
    """Return texts that a module of the tests has as constants."""
    found = {}
    for node in ast.parse((TESTS / module).read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in names:
            found[node.targets[0].id] = ast.literal_eval(node.value)
    return [found[n] for n in names]


def exported(format: str, folder: Path) -> list[Files]:
    """The tiny network in float32 and in INT8, and in float16 where the format has it."""
    from edgenet.calibration import quantize
    from edgenet.calibration.shared import Recipe, SharedCalibration
    from edgenet.export import export_graph
    from helpers import tiny

    network = tiny.network()
    rng = np.random.default_rng(0)
    pixels = np.stack([tiny.picture(label % 5, rng, tiny.PX) for label in range(10)])
    calibration = SharedCalibration(network, pixels, "0" * 64, Recipe(corrections=())).calibration
    found = []
    for precision in ("float32", "int8", "float16"):
        g = quantize(network.graph, precision, calibration)
        out = folder / format / precision
        out.mkdir(parents=True)
        a = export_graph(network, g, out, format=format, precision=precision, calibration=calibration)
        names = {p.name: f"model{p.name.removeprefix(Path(a.path).stem)}" for p in out.iterdir()}
        texts = {p.name: p.read_bytes() for p in out.iterdir()}
        found.append({names[n]: data for n, data in texts.items()})
    return found


def weights(kind: str, folder: Path) -> list[Files]:
    """A few arrays in a file of weights."""
    from helpers.torch_files import save_legacy, save_zip

    rng = np.random.default_rng(0)
    arrays = {
        "stem.weight": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "stem.half": rng.normal(size=(7,)).astype(np.float16),
        "steps": np.arange(3, dtype=np.int64),
        "head.weight": rng.normal(size=(5, 4)).astype(np.float32),
    }
    path = folder / f"weights{kind}"
    if kind == ".npz":
        np.savez(path, **arrays)
        packed = folder / "packed.npz"
        np.savez_compressed(packed, **arrays)
        return [{"model.npz": path.read_bytes()}, {"model.npz": packed.read_bytes()}]
    if kind == ".safetensors":
        from safetensors.numpy import save

        return [{"model.safetensors": save(arrays)}]
    found: list[Files] = []
    for save in (save_zip, save_legacy):
        for wrapper in (None, "state_dict"):
            save(path, arrays, wrapper)
            found.append({"model.pth": path.read_bytes()})
    return found


def with_tensorflow(folder: Path) -> None:
    """Write what only TensorFlow writes: k2.keras, k3.keras, model.h5, saved/, ckpt/ and model.tar.gz."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf
    import tf_keras

    layers = tf_keras.layers
    image = layers.Input((20, 20, 3))
    x = layers.Conv2D(4, 3, strides=2, use_bias=False, name="stem")(image)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(layers.DepthwiseConv2D(3, padding="same")(x))
    model = tf_keras.Model(image, layers.Dense(5, activation="softmax")(x))
    model.save(folder / "k2.keras")
    model.save(folder / "model.h5")
    model.save_weights(folder / "only.weights.h5")
    model.save(folder / "saved", save_format="tf")
    import keras

    image = keras.layers.Input((20, 20, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, activation="relu")(image))
    keras.Model(image, keras.layers.Dense(5, activation="softmax")(x)).save(folder / "k3.keras")
    (folder / "ckpt").mkdir()
    tf.train.Checkpoint(w=tf.Variable(tf.ones((4, 5))), n=tf.Variable(3)).write(str(folder / "ckpt" / "model"))


def tensorflow_files(folder: Path) -> Path:
    """Return a folder with them, made by a process of its own."""
    made = folder / "tensorflow"
    if not made.exists():
        made.mkdir()
        done = subprocess.run(
            [sys.executable, "-m", "fuzz.seeds", str(made)], cwd=TESTS, capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
    return made


def named(*names: str, main: str) -> Callable[[Path], list[Files]]:
    """Return a maker of seeds: each is one of TensorFlow's files, called `main`."""
    return lambda folder: [{main: (tensorflow_files(folder) / n).read_bytes()} for n in names]


def tree(name: str) -> Callable[[Path], list[Files]]:
    """Return a maker of one seed: a folder of TensorFlow's."""

    def make(folder: Path) -> list[Files]:
        root = tensorflow_files(folder) / name
        return [{p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}]

    return make


def archive(folder: Path) -> list[Files]:
    """A TensorFlow checkpoint as EfficientNet's authors publish them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        tar.add(tensorflow_files(folder) / "ckpt", "ckpt")
    return [{"model.tar.gz": out.getvalue()}]


def results(folder: Path) -> list[Files]:
    """Results of runs, with labels and without, and of schema 1."""
    from helpers.hand_built import in_three_formats, some_results, unlabelled

    many = (some_results(), in_three_formats(), unlabelled(some_results()))
    texts = [json.dumps(r.to_json()).encode() for r in many]
    return [{"results.json": t} for t in (*texts, (TESTS / "data/results_schema1.json").read_bytes())]


def texts(name: str, *contents: str) -> Callable[[Path], list[Files]]:
    """Return a maker of seeds that are texts."""
    return lambda folder: [{name: text.encode()} for text in contents]


if __name__ == "__main__":
    with_tensorflow(Path(sys.argv[1]))
