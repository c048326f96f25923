"""keras_file.py: every layer that a classifier can hold, of Keras 2 and 3, gives Keras's numbers or is refused by name.

Each layer stands in a small network of its own, saved as .keras and read as a user's file. The list of layers is
Keras's own: one that is in no table here fails a test.
"""

import inspect
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet.calibration.execute import Executor
from edgenet.errors import InputError
from edgenet.export import find_source
from edgenet.frameworks import tensorflow
from helpers.places import ROOT

pytestmark = pytest.mark.usefixtures("forks_with_tensorflow")
PX, CLASSES = 8, 5
Build = Callable[[Any, Any], Any]  # (keras.layers, a picture of (8, 8, 3)) -> what the layer makes of it


def of(name: str, *args: Any, **options: Any) -> Build:
    """A layer that takes the picture."""
    return lambda layers, x: getattr(layers, name)(*args, **options)(x)


def row(name: str, *args: Any, **options: Any) -> Build:
    """A layer that takes a list of vectors."""
    return lambda layers, x: getattr(layers, name)(*args, **options)(layers.Reshape((PX * PX // 4, 12))(x))


def film(name: str, *args: Any, **options: Any) -> Build:
    """A layer that takes a list of pictures."""
    return lambda layers, x: getattr(layers, name)(*args, **options)(layers.Reshape((4, 4, 4, 3))(x))


def merge(name: str, **options: Any) -> Build:
    """A layer that takes two."""
    return lambda layers, x: getattr(layers, name)(**options)([x, layers.Conv2D(3, 3, padding="same")(x)])


def attention(name: str, **options: Any) -> Build:
    def build(layers: Any, x: Any) -> Any:
        x = layers.Reshape((16, 12))(x)
        return getattr(layers, name)(**options)([x, layers.Dense(12)(x)])

    return build


def heads(name: str, **options: Any) -> Build:
    def build(layers: Any, x: Any) -> Any:
        x = layers.Reshape((16, 12))(x)
        return getattr(layers, name)(**options)(x, x)

    return build


def around(name: str, inner: Callable[[Any], Any], films: bool = False) -> Build:
    """A layer that holds another one."""

    def build(layers: Any, x: Any) -> Any:
        x = layers.Reshape((4, 4, 4, 3) if films else (16, 12))(x)
        return getattr(layers, name)(inner(layers))(x)

    return build


def cell(name: str) -> Build:
    return lambda layers, x: layers.RNN(getattr(layers, name)(4))(layers.Reshape((16, 12))(x))


def normalization(layers: Any, x: Any) -> Any:
    return layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 0.5])(x)


def embedding(layers: Any, x: Any) -> Any:
    return layers.Embedding(12, 4)(layers.Reshape((PX * PX * 3,))(layers.ReLU(9.0)(x)))


CASES: dict[str, Build] = {
    "Activation": of("Activation", "swish"), "ActivityRegularization": of("ActivityRegularization", 0.1),
    "AdaptiveAveragePooling1D": row("AdaptiveAveragePooling1D", 5),
    "AdaptiveAveragePooling2D": of("AdaptiveAveragePooling2D", 3),
    "AdaptiveAveragePooling3D": film("AdaptiveAveragePooling3D", 3),
    "AdaptiveMaxPooling1D": row("AdaptiveMaxPooling1D", 5), "AdaptiveMaxPooling2D": of("AdaptiveMaxPooling2D", 3),
    "AdaptiveMaxPooling3D": film("AdaptiveMaxPooling3D", 3),
    "Add": merge("Add"), "AdditiveAttention": attention("AdditiveAttention"), "AlphaDropout": of("AlphaDropout", 0.3),
    "Attention": attention("Attention"), "Average": merge("Average"),
    "AveragePooling1D": row("AveragePooling1D", 3, 2, "same"), "AveragePooling2D": of("AveragePooling2D", 3, 2, "same"),
    "AveragePooling3D": film("AveragePooling3D", 2), "BatchNormalization": of("BatchNormalization"),
    "Bidirectional": around("Bidirectional", lambda k: k.LSTM(4)), "CenterCrop": of("CenterCrop", 5, 4),
    "Concatenate": merge("Concatenate"), "Conv1D": row("Conv1D", 4, 3, padding="same", dilation_rate=2),
    "Conv1DTranspose": row("Conv1DTranspose", 4, 3, strides=2), "Conv2D": of("Conv2D", 6, 3, groups=3, strides=2),
    "Conv2DTranspose": of("Conv2DTranspose", 4, 3, strides=2, padding="same"),
    "Conv3D": film("Conv3D", 4, 3), "Conv3DTranspose": film("Conv3DTranspose", 4, 3),
    "ConvLSTM2D": film("ConvLSTM2D", 2, 3), "Cropping1D": row("Cropping1D", (2, 1)),
    "Cropping2D": of("Cropping2D", ((1, 2), (0, 1))), "Cropping3D": film("Cropping3D", 1), "Dense": of("Dense", 7),
    "DepthwiseConv1D": row("DepthwiseConv1D", 3), "DepthwiseConv2D": of("DepthwiseConv2D", 3, depth_multiplier=2),
    "Dot": merge("Dot", axes=3), "Dropout": of("Dropout", 0.3), "ELU": of("ELU", 0.7),
    "EinsumDense": row("EinsumDense", "abc,cd->abd", output_shape=(16, 5), bias_axes="d"), "Embedding": embedding,
    "Flatten": of("Flatten"), "GRU": row("GRU", 4), "GRUCell": cell("GRUCell"),
    "GaussianDropout": of("GaussianDropout", 0.3), "GaussianNoise": of("GaussianNoise", 0.3),
    "GlobalAveragePooling1D": row("GlobalAveragePooling1D"), "GlobalAveragePooling2D": of("GlobalAveragePooling2D"),
    "GlobalAveragePooling3D": film("GlobalAveragePooling3D"), "GlobalMaxPooling1D": row("GlobalMaxPooling1D"),
    "GlobalMaxPooling2D": of("GlobalMaxPooling2D"), "GlobalMaxPooling3D": film("GlobalMaxPooling3D"),
    "GroupNormalization": of("GroupNormalization", 3),
    "GroupQueryAttention": heads("GroupQueryAttention", head_dim=4, num_query_heads=4, num_key_value_heads=2),
    "Identity": of("Identity"), "LSTM": row("LSTM", 4), "LSTMCell": cell("LSTMCell"),
    "LayerNormalization": of("LayerNormalization"), "LeakyReLU": of("LeakyReLU", 0.2),
    "LocallyConnected1D": row("LocallyConnected1D", 4, 3), "LocallyConnected2D": of("LocallyConnected2D", 4, 3),
    "Masking": row("Masking"), "MaxPooling1D": row("MaxPooling1D", 3, 2, "same"),
    "MaxPooling2D": of("MaxPooling2D", 3, 2, "same"), "MaxPooling3D": film("MaxPooling3D", 2),
    "Maximum": merge("Maximum"), "Minimum": merge("Minimum"),
    "MultiHeadAttention": heads("MultiHeadAttention", num_heads=3, key_dim=4),
    "Multiply": merge("Multiply"), "Normalization": normalization, "PReLU": of("PReLU", shared_axes=[1, 2]),
    "Permute": of("Permute", (3, 1, 2)), "RMSNormalization": of("RMSNormalization"), "RNN": cell("SimpleRNNCell"),
    "ReLU": of("ReLU", 6.0, 0.1, 0.2), "RepeatVector": lambda k, x: k.RepeatVector(3)(k.Flatten()(x)),
    "Rescaling": of("Rescaling", 1 / 127.5, -1.0), "Reshape": of("Reshape", (4, 16, 3)),
    "Resizing": of("Resizing", 11, 5), "SeparableConv1D": row("SeparableConv1D", 4, 3),
    "SeparableConv2D": of("SeparableConv2D", 4, 3, strides=2, padding="same"), "SimpleRNN": row("SimpleRNN", 4),
    "SimpleRNNCell": cell("SimpleRNNCell"), "Softmax": of("Softmax"), "SpatialDropout1D": row("SpatialDropout1D", 0.3),
    "SpatialDropout2D": of("SpatialDropout2D", 0.3), "SpatialDropout3D": film("SpatialDropout3D", 0.3),
    "SpectralNormalization": around("SpectralNormalization", lambda k: k.Dense(4)),
    "StackedRNNCells": lambda k, x: k.RNN(k.StackedRNNCells([k.LSTMCell(3), k.GRUCell(4)]))(k.Reshape((16, 12))(x)),
    "Subtract": merge("Subtract"), "ThresholdedReLU": of("ThresholdedReLU", 0.3),
    "TimeDistributed": around("TimeDistributed", lambda k: k.Conv2D(2, 3), films=True),
    "UnitNormalization": of("UnitNormalization"), "UpSampling1D": row("UpSampling1D", 2),
    "UpSampling2D": of("UpSampling2D", 2, interpolation="bilinear"), "UpSampling3D": film("UpSampling3D", 2),
    "ZeroPadding1D": row("ZeroPadding1D", 2), "ZeroPadding2D": of("ZeroPadding2D", ((1, 2), (0, 1))),
    "ZeroPadding3D": film("ZeroPadding3D", 1), "RandomFlip": of("RandomFlip"),
    "RandomRotation": of("RandomRotation", 0.1), "RandomZoom": of("RandomZoom", 0.1),
    "RandomContrast": of("RandomContrast", 0.1),
    "RandomTranslation": of("RandomTranslation", 0.1, 0.1), "RandomBrightness": of("RandomBrightness", 0.1),
    "LSTM, unrolled": row("LSTM", 4, unroll=True), "GRU, unrolled": row("GRU", 4, unroll=True),
    "Bidirectional, unrolled": around("Bidirectional", lambda k: k.SimpleRNN(4, unroll=True)),
    "ConvLSTM1D": lambda k, x: k.ConvLSTM1D(2, 3)(k.Reshape((4, 16, 3))(x)),
}  # fmt: skip
# What has no place in a classifier of pictures, or is no layer to use.
NOT_HELD = {
    # of text, categories, sound
    "CategoryEncoding", "Discretization", "HashedCrossing", "Hashing", "IntegerLookup", "StringLookup",
    "TextVectorization", "DenseFeatures", "MelSpectrogram", "STFTSpectrogram", "ReversibleEmbedding",
    # bases, and what holds code or other frameworks
    "AbstractRNNCell", "FlaxLayer", "InputLayer", "JaxLayer", "Lambda", "Layer", "Pipeline", "TFSMLayer",
    "TorchModuleWrapper", "Wrapper", "MaxNumBoundingBoxes",
    # of training alone, or of five axes and more
    "AugMix", "AutoContrast", "ContrastLimitedAdaptiveHistogramEqualization", "CutMix", "Equalization", "MixUp",
    "RandAugment", "RandomColorDegeneration", "RandomColorJitter", "RandomElasticTransform", "RandomErasing",
    "RandomGaussianBlur", "RandomGrayscale", "RandomHeight", "RandomHue", "RandomInvert", "RandomPerspective",
    "RandomPosterization", "RandomSaturation", "RandomSharpness", "RandomShear", "RandomWidth", "Solarization",
    "ConvLSTM3D", "RandomCrop",
}  # fmt: skip


@cache
def version(name: str) -> Any:
    tensorflow()  # which tells Keras 2 that it is meant
    import keras
    import tf_keras

    return {"Keras 3": keras, "Keras 2": tf_keras}[name]


def public_layers(k: Any) -> dict[str, type]:
    """Return Keras's layers by name, each under one name: Conv2D and not Convolution2D."""
    found: dict[type, str] = {}
    for name, item in sorted(vars(k.layers).items()):
        if inspect.isclass(item) and issubclass(item, k.layers.Layer):
            found[item] = name if name == item.__name__ else found.get(item, name)
    return {name: item for item, name in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Keras 2", "Keras 3"])
def test_no_layer_of_keras_is_forgotten(name: str) -> None:
    assert set(public_layers(version(name))) - set(CASES) == set(public_layers(version(name))) & NOT_HELD
    assert not {case.split(",")[0] for case in CASES} & NOT_HELD


def judged(keras_name: str, case: str, folder: Path) -> str:
    """Return "passed", or the error of one line; fail where the numbers are other than Keras's."""
    k = version(keras_name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        k.utils.set_random_seed(4)
        image = k.layers.Input((PX, PX, 3))
        out = CASES[case](k.layers, image)
        model = k.Model(image, k.layers.Dense(CLASSES)(k.layers.Flatten()(out)))
        path = folder / "network.keras"  # whose name does not say what is in it
        model.save(path)
        x = np.random.default_rng(1).normal(size=(1, PX, PX, 3)).astype(np.float32)
        want = np.asarray(model(x, training=False))
    try:
        graph = find_source(str(path), preprocess="raw").build()
    except InputError as e:
        return str(e)
    got = Executor(graph, graph.outputs, 1)(x)[0]
    np.testing.assert_allclose(got, want, atol=1e-4 * max(1.0, float(np.abs(want).max())))
    assert float(np.ptp(want)) > 1e-4  # the comparison means something
    return "passed"


@pytest.mark.slow
@pytest.mark.parametrize("keras_name", ["Keras 2", "Keras 3"])
def test_every_layer_gives_keras_s_numbers_or_is_refused_by_name(keras_name: str, tmp_path: Path) -> None:
    here = set(public_layers(version(keras_name)))
    found = {case: judged(keras_name, case, tmp_path) for case in CASES if case.split(",")[0] in here}
    assert {case: text for case, text in found.items() if "," in case and text != "passed"} == {}
    found = {case: text for case, text in found.items() if "," not in case}
    refused = {case: text for case, text in found.items() if text != "passed"}
    for case, text in refused.items():
        assert "\n" not in text
        if (keras_name, case) == ("Keras 2", "SpectralNormalization"):  # which Keras 2 writes and cannot read
            assert "cannot be loaded" in text
            continue
        assert case in text or "operators that TFLite does not have" in text, (case, text)
    page = " ".join((ROOT / "docs" / "own-models.md").read_text().split())
    listed = ", ".join(sorted(refused)) or "none"
    line = f"{keras_name}: {len(found) - len(refused)} of {len(found)} layers; refused: {listed}."
    assert line in page, line
