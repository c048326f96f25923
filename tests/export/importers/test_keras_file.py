"""find.py with models of Keras 2 and 3: their graph computes what Keras does, refusals come before TensorFlow."""

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet.calibration.execute import Executor
from edgenet.errors import InputError
from edgenet.export import find_source
from edgenet.images import Preprocessing

pytestmark = pytest.mark.usefixtures("forks_with_tensorflow")
PX, CLASSES = 32, 5


def small(keras: Any) -> Any:
    """A network of the usual layers with batch norm that does something."""
    layers, rng = keras.layers, np.random.default_rng(3)
    image = layers.Input((PX, PX, 3))
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(image))
    x = layers.Activation("swish")(layers.DepthwiseConv2D(3, padding="same")(layers.ReLU(6.0)(x)))
    x = layers.Dropout(0.1)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, layers.Dense(CLASSES, activation="softmax")(x))
    model.get_layer("bn").set_weights([rng.uniform(0.5, 1.5, 8) for _ in range(4)])
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """A folder of models of Keras 2 and 3 in every form, and what each Keras computes: {"k2": (pictures, outputs)}."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import tensorflow as tf
    import tf_keras

    folder = tmp_path_factory.mktemp("models")
    computed = {}
    x = np.random.default_rng(1).normal(size=(3, PX, PX, 3)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, k in (("k2", tf_keras), ("k3", keras)):
            model = small(k)
            computed[name] = (x, np.asarray(model(x, training=False)))
            model.save(folder / f"{name}.keras")
            model.save(folder / f"{name}.h5")
            model.save_weights(folder / f"{name}.weights.h5")
            (model.export if name == "k3" else model.save)(str(folder / f"{name}_saved"))
            layers = k.layers
            logits = [
                layers.Input((None, None, 3)),
                layers.Conv2D(4, 3),
                layers.GlobalAveragePooling2D(),
                layers.Dense(3),
            ]
            k.Sequential(logits).save(folder / f"{name}_open.keras")
            code = [
                layers.Input((8, 8, 3)),
                layers.Lambda(lambda v: v * 2, name="double"),
                layers.Flatten(),
                layers.Dense(3),
            ]
            k.Sequential(code).save(folder / f"{name}_lambda.keras")
            k.Sequential(code).save(folder / f"{name}_lambda.h5")
            mine = type("Mine", (layers.Layer,), {"call": lambda self, v: v * 3})
            custom = [layers.Input((8, 8, 3)), mine(name="own"), layers.Flatten(), layers.Dense(3)]
            k.Sequential(custom).save(folder / f"{name}_custom.keras")
            k.Sequential(custom).save(folder / f"{name}_custom.h5")
            a, b = layers.Input((8, 8, 3), name="a"), layers.Input((8, 8, 3), name="b")
            k.Model([a, b], layers.Dense(3)(layers.Flatten()(layers.Add()([a, b])))).save(folder / f"{name}_two.keras")
            flat = layers.Flatten()(a)
            two = [layers.Dense(3, name="kind")(flat), layers.Dense(1, activation="sigmoid", name="light")(flat)]
            k.Model(a, two).save(folder / f"{name}_two.h5")
            for kind, shape in (("gray.keras", (8, 8, 1)), ("wide.h5", (8, 6, 3)), ("depth.keras", (8, 8, 2))):
                k.Sequential([layers.Input(shape), layers.Flatten(), layers.Dense(3)]).save(folder / f"{name}_{kind}")
            half = [layers.Input((8, None, 3)), layers.GlobalAveragePooling2D(), layers.Dense(3)]
            k.Sequential(half).save(folder / f"{name}_half.h5")
            k.Sequential([layers.Input((8, 8, 3)), layers.Flatten(), layers.Dense(1)]).save(
                folder / f"{name}_one.keras"
            )
            for kind, first in FIRST_LAYERS.items():
                first_layers = [layers.Input((8, 8, 3)), *first(layers)]
                k.Sequential([*first_layers, layers.Flatten(), layers.Dense(3)]).save(folder / f"{name}_{kind}.keras")
        module = tf.Module()
        spec = tf.TensorSpec((None, 8, 8, 3), tf.float32)
        det = tf.function(lambda image: tf.linalg.det(image[..., 0])[:, None] * tf.ones((1, 4)), input_signature=[spec])
        tf.saved_model.save(
            module, str(folder / "det_saved"), signatures={"serving_default": det.get_concrete_function()}
        )
        tf.saved_model.save(module, str(folder / "bare_saved"))
    return folder, computed


@pytest.mark.parametrize("form", [".keras", ".h5", "_saved"])
@pytest.mark.parametrize("version", ["k2", "k3"])
def test_a_keras_model_computes_what_keras_computes(version: str, form: str, saved: Any) -> None:
    folder, computed = saved
    source = find_source(str(folder / f"{version}{form}"), preprocess="tf")
    assert (source.name, len(source.class_names)) == (f"{version}{form if form == '_saved' else ''}", CLASSES)
    assert source.preprocessing == Preprocessing(PX, (127.5,) * 3, (127.5,) * 3, round(PX / 7), "bilinear")
    network = source.network()
    assert [op.kind for op in network.graph.ops] == [
        "CONV_2D", "DEPTHWISE_CONV_2D", "LOGISTIC", "MUL", "MEAN", "FULLY_CONNECTED", "SOFTMAX",
    ]  # fmt: skip
    assert network.weights == f"{version}{form}"
    pictures, outputs = computed[version]
    run = Executor(network.graph, network.graph.outputs, 1)
    for x, want in zip(pictures, outputs, strict=True):
        np.testing.assert_allclose(run(x[None])[0][0], want, atol=1e-5)


@pytest.mark.parametrize("version", ["k2", "k3"])
def test_an_open_size_is_fixed_and_logits_get_a_softmax_that_is_told(version: str, saved: Any) -> None:
    path = saved[0] / f"{version}_open.keras"
    with pytest.raises(InputError, match="size of its input open"):
        find_source(str(path), preprocess="tf")
    network = find_source(str(path), preprocess="tf size=24").network()
    assert network.graph.tensors["image"].shape == (1, 24, 24, 3)
    assert network.graph.ops[-1].kind == "SOFTMAX"
    assert network.weights == f"{version}_open.keras, a softmax added"


@pytest.mark.parametrize("version", ["k2", "k3"])
@pytest.mark.parametrize(("name", "shape"), [("gray.keras", (8, 8, 1)), ("wide.h5", (8, 6, 3))])
def test_grey_pictures_and_such_that_are_no_squares_are_taken(
    name: str, shape: tuple[int, int, int], version: str, saved: Any
) -> None:
    source = find_source(str(saved[0] / f"{version}_{name}"), preprocess="tf")
    assert source.preprocessing.shape == shape
    assert source.network().graph.tensors["image"].shape == (1, *shape)


@pytest.mark.parametrize("version", ["k2", "k3"])
def test_of_several_outputs_one_is_chosen_by_name(version: str, saved: Any) -> None:
    path = str(saved[0] / f"{version}_two.h5")
    kind, light = (find_source(path, preprocess="tf", output=name) for name in ("kind", "light"))
    assert (kind.task.kind, kind.network().graph.ops[-1].kind) == ("classes", "SOFTMAX")
    assert (light.task.kind, light.class_names) == ("binary", ("no", "yes"))
    assert light.network().graph.tensors["probabilities"].shape == (1, 1)
    with pytest.raises(InputError, match=r"none called 'lamp': give --output one of these"):
        find_source(path, preprocess="tf", output="lamp")


# What a network begins with, by the name of its file.
FIRST_LAYERS: dict[str, Any] = {
    "pixels": lambda of: [of.RandomFlip(), of.Rescaling(1 / 127.5, offset=-1.0)],
    "within": lambda of: [layer_of(of, [of.RandomFlip()]), layer_of(of, [of.Rescaling(1 / 255), of.Conv2D(3, 1)])],
    "doubled": lambda of: [of.Rescaling(2.0)],
    "bare": lambda of: [of.Conv2D(3, 1)],
}


def layer_of(of: Any, inside: list[Any]) -> Any:
    """Return a network as a layer of another one, of the same Keras as `of`, its module of layers."""
    import keras
    import tf_keras

    return (keras if of is keras.layers else tf_keras).Sequential([of.Input((8, 8, 3)), *inside])


@pytest.mark.parametrize("version", ["k2", "k3"])
def test_a_network_that_begins_by_scaling_pixels_gets_them_as_they_are(version: str, saved: Any) -> None:
    for kind in ("pixels", "within"):
        found = find_source(str(saved[0] / f"{version}_{kind}.keras")).preprocessing
        assert found == Preprocessing(8, (0.0,) * 3, (1.0,) * 3, 1, "bilinear")
    for kind in ("doubled", "bare"):
        with pytest.raises(InputError, match="raw where the network itself divides by 255"):
            find_source(str(saved[0] / f"{version}_{kind}.keras"))


WRONG = {
    "k{}_lambda.keras": r"the layer Lambda 'double', Python code in a file, which edgenet never runs",
    "k{}_lambda.h5": r"the layer Lambda 'double', Python code in a file",
    "k{}_custom.keras": r"custom class or function Mine 'own'",
    "k{}_two.keras": r"has 2 inputs \(a, b\); an image classifier has one",
    "k{}_two.h5": r"has 2 outputs \(kind, light\); an image classifier has one: choose it, --output NAME",
    "k{}_depth.keras": r"takes an input of \?x8x8x2; edgenet feeds colour or grey pictures",
    "k{}_half.h5": r"takes pictures of 8 x \?: save it with a fixed size",
    "k{}_one.keras": r"gives 1 number a picture and ends in no sigmoid: .* give --task binary",
    "k{}.weights.h5": r"holds weights only, no network: save the whole model",
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("version", [2, 3])
def test_a_keras_file_that_does_not_do_is_refused_without_loading_it(
    name: str, version: int, saved: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgenet.export.importers import keras_file

    monkeypatch.setattr(keras_file, "_load", lambda *_: pytest.fail("loaded"))
    with pytest.raises(InputError, match=WRONG[name]) as e:
        find_source(str(saved[0] / name.format(version)), preprocess="tf")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("version", [2, 3])
def test_a_custom_layer_in_h5_is_named(version: int, saved: Any) -> None:
    with pytest.raises(InputError, match=r"has the custom layer Mine, which edgenet does not have"):
        find_source(str(saved[0] / f"k{version}_custom.h5"), preprocess="tf").network()


def test_an_operator_that_tflite_lacks_is_named(saved: Any) -> None:
    with pytest.raises(InputError, match=r"has operators that TFLite does not have: MatrixDeterminant"):
        find_source(str(saved[0] / "det_saved"), preprocess="tf").network()


def test_a_saved_model_without_a_signature_is_refused(saved: Any) -> None:
    with pytest.raises(InputError, match=r"has no signature serving_default \(it has none\)"):
        find_source(str(saved[0] / "bare_saved"), preprocess="tf")


def test_a_saved_model_that_is_cut_off_is_refused(saved: Any, tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes((saved[0] / "k2_saved" / "saved_model.pb").read_bytes()[:5000])
    with pytest.raises(InputError, match=r"saved_model\.pb is damaged"):
        find_source(str(tmp_path), preprocess="tf")


def test_looking_at_a_model_loads_no_framework(saved: Any) -> None:
    names = ["k2.keras", "k3.h5", "k3_saved", "k2_saved"]
    code = (
        "import sys; from edgenet.export import find_source\n"
        f"for n in {names!r}: print(len(find_source(n, preprocess='tf').class_ids))\n"
        "print([m for m in ('tensorflow', 'keras', 'tf_keras') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=saved[0], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:-1] == [str(CLASSES)] * 4 + ["[]"]


def test_a_model_goes_by_its_content_whatever_its_name_is(saved: Any, tmp_path: Path) -> None:
    (tmp_path / "My model (v2).bin").write_bytes((saved[0] / "k3.keras").read_bytes())
    source = find_source(str(tmp_path / "My model (v2).bin"), preprocess="tf")
    assert source.name == "My_model_v2"
    assert len(source.network().graph.ops) == 7
