"""A Keras model object in the place of a model's name: it is saved, read like any file, and left as it was."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgenet
from edgenet.export import runtime
from edgenet.images import Preprocessing, normalise
from helpers import tiny

pytestmark = pytest.mark.slow
PX = 20


def network(keras: Any) -> Any:
    """A network that scales its own pixels, so that nothing has to be said of its input."""
    inputs = keras.Input((PX, PX, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(tiny.CLASSES, activation="softmax")(x)
    return keras.Model(inputs, outputs, name="My-net.v2")


@pytest.mark.parametrize("package", ["keras", "tf_keras"])
def test_a_keras_model_becomes_files_that_answer_as_it_does(package: str, tiny_folder: Path, tmp_path: Path) -> None:
    keras = pytest.importorskip(package)
    keras.utils.set_random_seed(3)
    model = network(keras)
    before = [w.copy() for w in model.get_weights()]
    (made,) = edgenet.export(model, out=tmp_path / "out", precisions="float32").artifacts
    assert made.path == "my_net_v2_float32.tflite"
    rng = np.random.default_rng(0)
    pixels = np.stack([tiny.picture(label, rng, PX) for label in range(tiny.CLASSES)])  # (5, 20, 20, 3) uint8
    inputs = normalise(pixels, Preprocessing.from_json(made.preprocessing))
    expected = model.predict(pixels.astype(np.float32), verbose=0)
    assert np.abs(runtime.load(tmp_path / "out" / made.path).predict(inputs) - expected).max() < 1e-5

    quantized = edgenet.quantize(model, images=tiny_folder, calibration_images=5)
    assert {t.dtype for t in quantized.graph.tensors.values()} >= {"int8", "int32"}
    # The temporary file of the model is gone by now.
    (int8,) = edgenet.export(quantized, out=tmp_path / "int8").artifacts
    answers = runtime.load(tmp_path / "int8" / int8.path).predict(inputs)
    assert np.abs(answers - expected).max() < 0.1  # a few steps of 8 bits
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_a_model_that_cannot_be_read_is_a_line_with_its_name(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    inputs = keras.Input((PX, PX, 3))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x[:, 0, 0, :])(inputs), name="coded")
    with pytest.raises(edgenet.InputError, match="coded") as e:
        edgenet.export(model, out=tmp_path / "out", precisions="float32")
    assert "edgenet-" not in str(e.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(edgenet.InputError, match=r"example_input is for a torch\.nn\.Module"):
        edgenet.export(model, out=tmp_path / "out", example_input=[0])
