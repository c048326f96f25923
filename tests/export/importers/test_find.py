"""find.py and what it reads with: what is no model is told and never run, .tflite and ONNX, and the whole way."""

import io
import json
import os
import pickle
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet.calibration import quantize
from edgenet.calibration.execute import Executor
from edgenet.errors import InputError
from edgenet.export import export_graph, find_source, metadata
from edgenet.export.graph import Graph
from edgenet.export.importers.classifier import as_classifier, rgb_input
from edgenet.export.importers.keras_file import refuse_code
from edgenet.export.importers.labels import labels_in
from edgenet.export.tflite_file import write_tflite
from edgenet.images import normalise
from edgenet.images.preprocess_option import parse_preprocess
from helpers import tiny
from helpers.graph_builder import RELU6, Builder
from helpers.torch_style import TorchStyle, mobilenet_v2

PX = 32


# ---------------------------------------------------------------------------------------------------- what is no model


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
    about = metadata.build_metadata(metadata.ClassifierMetadata(
        name="n", description="d", version="1", author="a", license="l", mean=(127.5,), std=(127.5,),
        input_name="image", output_name="probabilities", float_input=True, n_classes=tiny.CLASSES,
    ))  # fmt: skip
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


@pytest.mark.parametrize(
    ("name", "bad", "refused"),
    [("stem_w", np.nan, True), ("stem_b", -np.inf, True), ("logits_w", np.inf, True), ("mask", np.nan, True),
     ("mask", -np.inf, False)],  # what is masked by minus infinity gets no weight in a softmax
)  # fmt: skip
def test_a_network_whose_weights_are_not_finite_is_refused_and_the_tensor_named(
    name: str, bad: float, refused: bool, tmp_path: Path
) -> None:
    b = Builder(1, tiny.PX, tiny.PX, 3)
    stem = b.conv("image", "stem", np.ones((4, 3, 3, 3)), np.zeros(4), RELU6, 2)
    b.dense(b.mean(stem, "pooled"), "logits", np.ones((3, 4)), np.zeros(3))
    b.constant(np.zeros((1, 3)), name="mask")
    masked = b.op("ADD", ["logits", "mask"], (1, 3), "AddOptions", out="masked")
    graph = b.graph(b.op("SOFTMAX", [masked], (1, 3), "SoftmaxOptions", out="probabilities", beta=1.0))
    data = graph.tensors[name].data
    assert data is not None
    data = data.copy()
    data.flat[0] = bad
    graph.tensors[name] = replace(graph.tensors[name], data=data)
    path = tmp_path / "a.tflite"
    path.write_bytes(write_tflite(graph))
    source = find_source(str(path), preprocess="tf")
    if not refused:
        assert source.network().graph.ops[-1].kind == "SOFTMAX"
        return
    with pytest.raises(InputError, match=f"1 of the {data.size} numbers in its weights {name} are NaN or infinity"):
        source.network()


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
        (32, 2, 1, "takes an input of 1x2x32x32"),
        (32, 1, 1, "takes grey pictures: give mean as one number"),
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
    graph, caffe = onnx_graph(tmp_path), parse_preprocess("caffe", (PX, PX))
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


def assert_runs(model: Path, preprocess: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the whole pipeline on an own model and check what came out."""
    from edgenet.jobs import bench
    from edgenet.pipeline import Job, run

    monkeypatch.setattr(bench, "RUN_PLAN", tiny.SHORT)
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
def test_a_mobilenet_v2_of_keras_3_goes_the_whole_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None).save(tmp_path / "mobilenet_v2.keras")
    assert_runs(tmp_path / "mobilenet_v2.keras", "tf", tmp_path / "OUT", monkeypatch)


@pytest.mark.long
def test_a_resnet_50_of_tf_keras_goes_the_whole_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tf_keras

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf_keras.applications.ResNet50(weights=None).save(tmp_path / "resnet50.h5")
    assert_runs(tmp_path / "resnet50.h5", "caffe", tmp_path / "OUT", monkeypatch)


@pytest.mark.slow
def test_a_network_as_torch_exports_it_goes_the_whole_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    t, out = mobilenet_v2(px=32, width=0.25)
    assert_runs(t.save(tmp_path / "mobilenet_v2.onnx", out, 1000), "torch", tmp_path / "OUT", monkeypatch)
