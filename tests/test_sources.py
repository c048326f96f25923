"""sources.py and what it reads with: own models come out as the float graph that Keras itself computes, and what is
wrong with a file is said before TensorFlow is loaded.
"""

import io
import json
import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from torch_style import TorchStyle, mobilenet_v2

from edgenet.calibration import quantize
from edgenet.calibration.execute import Executor
from edgenet.errors import InputError
from edgenet.export import export_graph, find_source, metadata
from edgenet.export.classifier import as_classifier, rgb_input
from edgenet.export.from_keras_file import refuse_code
from edgenet.export.graph import Graph, write_tflite
from edgenet.export.labels import labels_in, read_labels
from edgenet.images import Preprocessing, normalise
from edgenet.preprocess import PRESETS, parse_preprocess

PX, CLASSES = 32, 5


# -------------------------------------------------------------------------------------------------------- preprocessing


def test_settings_say_what_becomes_of_a_pixel() -> None:
    text = "mean=123.675,116.28,103.53 std=58.395,57.12,57.375 crop=16 order=bgr size=224 interpolation=nearest"
    want = Preprocessing(224, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), 16, "nearest", "bgr")
    assert parse_preprocess(text, 224) == parse_preprocess(text, None) == want


def test_one_number_stands_for_three_channels() -> None:
    assert parse_preprocess("mean=127.5 std=127.5", 96) == Preprocessing(96, (127.5,) * 3, (127.5,) * 3)


@pytest.mark.parametrize(
    ("preset", "of_0_and_255"),
    [
        ("tf", ([-1, -1, -1], [1, 1, 1])),
        ("torch", ([-2.1179, -2.0357, -1.8044], [2.2489, 2.4286, 2.64])),
        ("caffe", ([-103.939, -116.779, -123.68], [151.061, 138.221, 131.32])),
        ("raw", ([0, 0, 0], [255, 255, 255])),
        ("unit", ([0, 0, 0], [1, 1, 1])),
        ("efficientnet", ([-2.1179, -2.0357, -1.8044], [2.2489, 2.4286, 2.64])),
        ("lite", ([-0.9922] * 3, [1.0] * 3)),
    ],
)
def test_a_preset_gives_the_published_range(preset: str, of_0_and_255: tuple[list[float], list[float]]) -> None:
    preprocessing = parse_preprocess(preset, 2)
    for pixel, want in zip((0, 255), of_0_and_255, strict=True):
        got = normalise(np.full((1, 2, 2, 3), pixel, np.uint8), preprocessing)[0, 0, 0]
        np.testing.assert_allclose(got, want, atol=1e-3)


def test_settings_change_a_preset() -> None:
    assert parse_preprocess("torch crop=0 size=256", None).crop_padding_px == 0
    assert parse_preprocess("torch crop=0 size=256", None).mean == PRESETS["torch"]["mean"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: give a preset"),
        ("imagenet", "preset 'imagenet' is not known .valid: tf, torch"),
        ("crop=0 torch", "preset 'torch' comes first"),
        ("mean=127", "std is missing"),
        ("mean=1,2 std=1", "mean must be one number or three"),
        ("mean=nan std=1", "mean must be one number or three"),
        ("mean=0 std=0", "std > 0"),
        ("tf scale=2", "unknown setting 'scale' .valid: mean, std, crop"),
        ("tf crop=a", "crop must be a whole number"),
        ("tf size=224 size=1", "'size' is given twice"),
        ("tf size=224", "size=224, but the model takes 32 px"),
        ("tf order=grb", "unknown channel order 'grb' .valid: rgb, bgr"),
        ("tf interpolation=cubic", "unknown interpolation 'cubic'"),
    ],
)
def test_a_wrong_preprocessing_is_told_by_its_word(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as e:
        parse_preprocess(text, 32)
    assert "\n" not in str(e.value)


def test_an_open_size_has_to_be_said() -> None:
    with pytest.raises(InputError, match="leaves the size of its input open: say it"):
        parse_preprocess("torch", None)


# --------------------------------------------------------------------------------------------------------------- labels


def test_labels_come_one_a_line_or_as_csv_or_with_wordnet_ids(tmp_path: Path) -> None:
    file = tmp_path / "labels"
    file.write_text("cat\nhot dog\n")
    assert read_labels(file, 2) == (("cat", "hot dog"), ("cat", "hot dog"))
    file.write_text('index,wnid,name\n0,n01440764,tench\n1,n01443537,"goldfish, small"\n')
    assert read_labels(file, 2) == (("n01440764", "n01443537"), ("tench", "goldfish, small"))
    file.write_text("n01440764 tench\nn01443537 goldfish\n")
    assert read_labels(file, 2) == (("n01440764", "n01443537"), ("tench", "goldfish"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\n", "has 1 names, the model 2 classes"),
        (b"a\n\n", "has 1 names"),
        (b"a\n\nb\n", "has 3 names"),
        (b"\n\xff\xfe", "is no text file"),
        (b"index,wnid,name\n1,a,b\n0,c,d\n", "rows out of order"),
        (b"index,wnid,name\n0,a\n1,b\n", "the row '0,a'"),
        (b" \nb", "the name of class 0 is empty"),
    ],
)
def test_labels_that_do_not_fit_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path / "labels.txt", 2)


# ---------------------------------------------------------------------------------------------------- Keras, TensorFlow


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
            k.Model(a, [layers.Dense(3)(flat), layers.Dense(2)(flat)]).save(folder / f"{name}_two.h5")
            k.Sequential([layers.Input((8, 8, 1)), layers.Flatten(), layers.Dense(3)]).save(
                folder / f"{name}_gray.keras"
            )
            k.Sequential([layers.Input((8, 6, 3)), layers.Flatten(), layers.Dense(3)]).save(folder / f"{name}_wide.h5")
            k.Sequential([layers.Input((8, 8, 3)), layers.Flatten(), layers.Dense(1)]).save(
                folder / f"{name}_one.keras"
            )
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
    assert source.preprocessing == Preprocessing(PX, (127.5,) * 3, (127.5,) * 3, interpolation="bilinear")
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


WRONG = {
    "k{}_lambda.keras": r"the layer Lambda 'double', Python code in a file, which edgenet never runs",
    "k{}_lambda.h5": r"the layer Lambda 'double', Python code in a file",
    "k{}_custom.keras": r"custom class or function Mine 'own'",
    "k{}_two.keras": r"has 2 inputs \(a, b\); an image classifier has one",
    "k{}_two.h5": r"has 2 outputs \(dense.*\); an image classifier has one",
    "k{}_gray.keras": r"takes an input of \?x8x8x1; edgenet feeds colour pictures",
    "k{}_wide.h5": r"takes pictures of 8 x 6; edgenet feeds squares",
    "k{}_one.keras": r"gives 1 number a picture",
    "k{}.weights.h5": r"holds weights only, no network: save the whole model",
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("version", [2, 3])
def test_a_keras_file_that_does_not_do_is_refused_without_loading_it(
    name: str, version: int, saved: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgenet.export import from_keras_file

    monkeypatch.setattr(from_keras_file, "_load", lambda *_: pytest.fail("loaded"))
    with pytest.raises(InputError, match=WRONG[name]) as e:
        find_source(str(saved[0] / name.format(version)), preprocess="tf")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("version", [2, 3])
def test_a_custom_layer_in_h5_is_named(version: int, saved: Any) -> None:
    with pytest.raises(InputError, match=r"has the custom layer Mine, which edgenet does not have"):
        find_source(str(saved[0] / f"k{version}_custom.h5"), preprocess="tf").network()


def test_an_operator_that_tflite_lacks_is_named(saved: Any) -> None:
    source = find_source(str(saved[0] / "det_saved"), preprocess="tf")
    with pytest.raises(InputError, match=r"has operators that TFLite does not have: MatrixDeterminant"):
        source.network()


def test_a_saved_model_without_a_signature_is_refused(saved: Any) -> None:
    with pytest.raises(InputError, match=r"has no signature serving_default \(it has none\)"):
        find_source(str(saved[0] / "bare_saved"), preprocess="tf")


def test_looking_at_a_model_loads_no_framework(saved: Any) -> None:
    names = ["k2.keras", "k3.h5", "k3_saved", "k2_saved"]
    code = (
        "import sys; from edgenet.export.network import find_source\n"
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


class Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def keras_zip(config: Any, **files: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr("config.json", json.dumps(config))
        z.writestr("metadata.json", json.dumps({"keras_version": "3.0.0"}))
        for name, data in files.items():
            z.writestr(name, data)
    return out.getvalue()


def torch_zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr("archive/data.pkl", pickle.dumps(Bomb()))
    return out.getvalue()


def with_module(module: str, name: str) -> dict[str, Any]:
    layer = {"module": module, "class_name": name, "config": {"name": "x"}, "registered_name": None}
    return {"module": "keras", "class_name": "Sequential", "config": {"layers": [layer]}, "registered_name": None}


@pytest.mark.parametrize(
    ("module", "name"),
    [("tensorflow.python.ops.init_ops_v2", "Constant"), ("keras.src.applications.convnext", "LayerScale"),
     ("tf_keras.src.applications.convnext", "LayerScale"), ("tf_keras.src.layers.core.dense", "Dense")],
)  # fmt: skip
def test_what_keras_itself_writes_into_a_file_is_not_foreign(module: str, name: str) -> None:
    refuse_code(Path("a.keras"), with_module(module, name))
    with pytest.raises(InputError, match=f"custom class or function {name} 'x' of elsewhere"):
        refuse_code(Path("a.keras"), with_module(f"elsewhere.{module}", name))


POLICY = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "mixed_float16"}, "registered_name": None}
MIXED = with_module("keras.layers", "Conv2D") | {"dtype": POLICY}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.keras", torch_zip(), "a PyTorch file: export it to ONNX; edgenet never runs what is in it"),
        ("a.pt", torch_zip(), "a PyTorch file, which may carry code"),
        ("a.pkl", pickle.dumps(Bomb()), "a pickle, which edgenet never runs"),
        ("a.h5", pickle.dumps(Bomb()), "looks like a pickle"),
        ("a.keras", keras_zip(with_module("os", "system")), "custom class or function system 'x' of os"),
        (
            "a.keras",
            keras_zip(with_module("tensorflow.python.ops.io_ops", "read_file")),
            "custom class .* read_file 'x'",
        ),
        ("a.keras", keras_zip(with_module("keras.utils", "get_file")), "custom class .* get_file 'x' of keras.utils"),
        ("a.keras", keras_zip(with_module("keras.layers", "Lambda")), "the layer Lambda 'x'"),
        ("a.keras", keras_zip(with_module("keras.layers", "__lambda__")), "the layer __lambda__"),
        ("a.keras", keras_zip(MIXED), r"of mixed precision \(mixed_float16\)"),
        ("a.keras", b"PK\x03\x04 and no more", "not a whole .keras file"),
        ("a.keras", keras_zip([1]), "has no network in its configuration"),
        ("a.h5", b"\x89HDF\r\n\x1a\n and no more", "not a whole .h5 file"),
        ("a.tflite", b"\x1c\0\0\0TFL3 and no more", "not a whole .tflite file|damaged"),
        ("a.onnx", b"\x08\x07\x12\x04", "not a whole ONNX file"),
        ("a.onnx", b"", "an empty file"),
        ("a.onnx", b"\xff\xd8\xff\xe0 JFIF", "a JPEG image"),
        ("a.keras", b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        ("a.xml", b"<?xml version='1.0'?><net/>", "an OpenVINO model: give the file that it was made from"),
    ],
)
def test_what_is_no_model_is_told_and_never_run(
    name: str, content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    with pytest.raises(InputError, match=message) as e:
        find_source(name, preprocess="tf").network()
    assert "\n" not in str(e.value)
    assert os.listdir(tmp_path) == [name]


def test_paths_that_lead_nowhere_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*gone\.keras"):
        find_source(str(tmp_path / "gone.keras"))
    with pytest.raises(InputError, match=r"a folder without saved_model\.pb"):
        find_source(str(tmp_path))
    with pytest.raises(InputError, match="unknown model 'efficientnet-lite9'"):
        find_source("efficientnet-lite9")


def test_a_saved_model_that_is_cut_off_is_refused(saved: Any, tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes((saved[0] / "k2_saved" / "saved_model.pb").read_bytes()[:5000])
    with pytest.raises(InputError, match=r"saved_model\.pb is damaged"):
        find_source(str(tmp_path), preprocess="tf")


def test_options_that_do_not_belong_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="carries its weights: leave --random-weights out"):
        find_source(str(tmp_path / "x.onnx"), random_weights=True)
    with pytest.raises(InputError, match="--preprocess is for a model file"):
        find_source("efficientnet-lite0", preprocess="tf")
    with pytest.raises(InputError, match="--labels is for a model file"):
        find_source("efficientnet-lite0", labels=tmp_path)


# ------------------------------------------------------------------------------------------------------- .tflite, .onnx


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_file_of_our_own_says_all_itself(precision: str, tmp_path: Path) -> None:
    network = tiny.network()
    export_graph(network, quantize(network.graph, precision), tmp_path, format="tflite", precision=precision)
    path = tmp_path / f"tiny_{precision}.tflite"
    source = find_source(str(path))
    assert source.preprocessing == tiny.PREPROCESSING
    assert source.class_names == network.class_names == labels_in(path)
    again = source.network()
    assert [op.kind for op in again.graph.ops] == [op.kind for op in network.graph.ops]
    if precision == "float32":
        assert again.fingerprint == network.fingerprint
    assert {t.dtype for t in again.graph.tensors.values()} == {"float32", "int32"}
    assert find_source(str(path), preprocess="tf").preprocessing.mean == (127.5,) * 3  # the user has the last word


@pytest.mark.parametrize("precision", ["weight-only", "dynamic"])
def test_a_quantized_tflite_is_refused(precision: str, tmp_path: Path) -> None:
    network = tiny.network()
    export_graph(network, quantize(network.graph, precision), tmp_path, format="tflite", precision=precision)
    with pytest.raises(InputError, match=r"is quantized, .* is int8: give the float file that it was made from"):
        find_source(str(tmp_path / f"tiny_{precision}.tflite"))


def test_the_half_that_a_tflite_says_of_its_input_is_named(tmp_path: Path) -> None:
    about = metadata.build_metadata(
        name="n", description="d", version="1", author="a", license="l", mean=(127.5,), std=(127.5,),
        input_name="image", output_name="probabilities", float_input=True, n_classes=tiny.CLASSES,
    )  # fmt: skip
    path = tmp_path / "other.tflite"
    path.write_bytes(write_tflite(tiny.graph(), metadata={metadata.BUFFER_NAME: about}))
    with pytest.raises(InputError, match=r"\(its metadata says mean=127\.5.* std=127\.5.*\): give --preprocess"):
        find_source(str(path))
    assert find_source(str(path), preprocess="mean=127.5 std=127.5").network().graph.ops[-1].kind == "SOFTMAX"


def test_an_onnx_file_of_our_own_comes_back(tmp_path: Path) -> None:
    network = tiny.network()
    export_graph(network, network.graph, tmp_path, format="onnx", precision="float32")
    source = find_source(str(tmp_path / "tiny_float32.onnx"))
    assert (source.preprocessing, source.class_names) == (tiny.PREPROCESSING, network.class_names)
    x = np.random.default_rng(0).normal(size=(1, tiny.PX, tiny.PX, 3)).astype(np.float32)
    graphs = (network.graph, source.network().graph)
    want, got = (Executor(g, g.outputs, 1)(x)[0] for g in graphs)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_model_that_does_not_say_how_its_input_is_made_asks_for_it(tmp_path: Path) -> None:
    t = TorchStyle()
    path = t.save(tmp_path / "net.onnx", t.head(t.conv("input", 3, 8), 8, 5))
    with pytest.raises(InputError, match=r"does not say how its input is made .* give --preprocess, a preset \(tf,"):
        find_source(str(path))
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\nc\nd\ne\n")
    source = find_source(str(path), preprocess="torch", labels=labels)
    assert source.class_names == ("a", "b", "c", "d", "e")
    assert source.network().weights == "net.onnx, a softmax added"


@pytest.mark.parametrize(
    ("px", "channels", "batch", "message"),
    [
        (32, 1, 1, "takes an input of 1x1x32x32"),
        (32, 3, 8, "takes 8 pictures at once"),
        ("side", 3, 1, "size of its input open"),
    ],
)
def test_an_onnx_input_that_is_no_picture_is_refused(
    px: Any, channels: int, batch: int, message: str, tmp_path: Path
) -> None:
    t = TorchStyle(px, batch=batch, channels=channels)
    path = t.save(tmp_path / "net.onnx", t.head(t.conv("input", channels, 8), 8, 5))
    with pytest.raises(InputError, match=message):
        find_source(str(path), preprocess="torch")


def test_an_open_size_in_onnx_is_taken_from_the_preprocessing(tmp_path: Path) -> None:
    t = TorchStyle("side")
    path = t.save(tmp_path / "net.onnx", t.head(t.conv("input", 3, 8), 8, 5))
    network = find_source(str(path), preprocess="torch size=48").network()
    assert network.graph.tensors["image"].shape == (1, 48, 48, 3)


# --------------------------------------------------------------------------------------------------------------- graphs


def onnx_graph(path: Path, last: str = "", opset: int = 17) -> Graph:
    t = TorchStyle(opset=opset)
    out = t.head(t.node("Relu", [t.conv("input", 3, 8, 3, 2)]), 8, 5)
    return find_source(
        str(t.save(path / "net.onnx", t.node(last, [out], axis=1) if last else out)), preprocess="raw"
    ).build()


@pytest.mark.parametrize(
    ("last", "told"), [("", "a softmax added"), ("LogSoftmax", "its log-softmax made a softmax"), ("Softmax", "")]
)
def test_the_output_becomes_probabilities(last: str, told: str, tmp_path: Path) -> None:
    graph, added = as_classifier(onnx_graph(tmp_path, last))
    assert added == told
    out = Executor(graph, graph.outputs, 1)(np.random.default_rng(0).normal(size=(1, PX, PX, 3)).astype(np.float32))[0]
    assert out.shape == (1, 5)
    assert out.sum() == pytest.approx(1.0, abs=1e-5)
    assert [op.kind for op in graph.ops].count("SOFTMAX") == 1


def test_a_network_of_bgr_pictures_becomes_one_of_rgb(tmp_path: Path) -> None:
    graph, caffe = onnx_graph(tmp_path), parse_preprocess("caffe", PX)
    turned, rgb = rgb_input(graph, caffe)
    assert (rgb.channel_order, rgb.mean) == ("rgb", (123.68, 116.779, 103.939))
    pixels = np.random.default_rng(0).integers(0, 256, (1, PX, PX, 3), np.uint8)
    bgr = normalise(pixels[..., ::-1], caffe)
    want, got = (
        Executor(graph, graph.outputs, 1)(bgr)[0],
        Executor(turned, turned.outputs, 1)(normalise(pixels, rgb))[0],
    )
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)
    assert [op.kind for op in turned.ops] == [op.kind for op in graph.ops]


# -------------------------------------------------------------------------------------------------------- the whole way


def assert_runs(model: Path, preprocess: str, out: Path) -> None:
    """Run the whole pipeline on an own model and check what came out."""
    from edgenet.pipeline import Job, run

    results = run(
        Job(str(model), out, images="sample", precisions=("float32", "int8"), calibration_images=6, limit=16,
            threads=2, preprocess=preprocess)
    )  # fmt: skip
    assert results.failures == []
    assert [(a.precision, a.path) for a in results.artifacts] == [
        (p, f"{model.stem}_{p}.tflite") for p in ("float32", "int8")
    ]
    assert [e.n_images for e in results.evaluations] == [10, 10]
    assert results.evaluations[0].agreement in (None, 1.0)
    assert len(results.measurements) == 2
    assert results.artifacts[1].size_bytes < 0.35 * results.artifacts[0].size_bytes
    assert (out / "report.html").exists()


@pytest.mark.slow
def test_a_mobilenet_v2_of_keras_3_goes_the_whole_way(tmp_path: Path) -> None:
    import keras

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras.applications.MobileNetV2(weights=None).save(tmp_path / "mobilenet_v2.keras")
    assert_runs(tmp_path / "mobilenet_v2.keras", "tf", tmp_path / "OUT")


@pytest.mark.long
def test_a_resnet_50_of_tf_keras_goes_the_whole_way(tmp_path: Path) -> None:
    import tf_keras

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf_keras.applications.ResNet50(weights=None).save(tmp_path / "resnet50.h5")
    assert_runs(tmp_path / "resnet50.h5", "caffe", tmp_path / "OUT")


@pytest.mark.slow
def test_a_network_as_torch_exports_it_goes_the_whole_way(tmp_path: Path) -> None:
    t, out = mobilenet_v2()
    assert_runs(t.save(tmp_path / "mobilenet_v2.onnx", out, 1000), "torch", tmp_path / "OUT")
