"""openvino.py: every operator computes what TFLite does, in integers where the plugin can, and an IR is two files."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import operators
import pytest
import tiny

from edgenet import export
from edgenet.calibration import measure_ranges, quantize
from edgenet.calibration.execute import Executor
from edgenet.errors import InputError
from edgenet.export import FORMATS, IO_DTYPES, Network, export_graph, runtime
from edgenet.export.graph import Graph
from edgenet.export.inspect import inspect
from edgenet.export.openvino import PRECISIONS, to_openvino
from edgenet.images import load_pixels, normalise
from edgenet.results import Artifact, Calibration, ImageSet, sha256_of

ov = pytest.importorskip("openvino")

ABOUT = {"edgenet_version": "0"}
# Largest difference of a probability from the TFLite file's of the same graph: OpenVINO rescales in float32 before it
# rounds, so that numbers near the border between two steps go to the other one.
TOLERANCE = {"float32": 1e-5, "float16": 1e-5, "weight-only": 1e-5, "int8": 0.05, "int16x8": 2e-3}


def compiled(path: Path) -> Any:
    return ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def run(path: Path, x: np.ndarray) -> np.ndarray:
    """Return the first output of a file for NHWC pictures, one at a time, in TFLite's layout."""
    model = compiled(path)
    y = np.concatenate([model(a[None].transpose(0, 3, 1, 2))[0].copy() for a in x])
    return y.transpose(0, 2, 3, 1) if y.ndim == 4 else y


def layers(path: Path) -> list[tuple[str, str]]:
    """Return (kind, precision) of what the CPU plugin made of a file."""
    model = compiled(path).get_runtime_model()
    info = [node.get_rt_info() for node in model.get_ops()]
    return [(i["layerType"].astype(str), i["runtimePrecision"].astype(str)) for i in info]


def written(
    network: Network, calibration: Calibration, out: Path, precision: str, format: str = "openvino", io: str = "float32"
) -> Artifact:
    graph = quantize(network.graph, precision, calibration)
    return export_graph(network, graph, out, format=format, precision=precision, io=io, calibration=calibration)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(4, *operators.SHAPE[1:])).astype(np.float32)


@pytest.fixture(scope="module")
def pixels(tiny_images: tuple[ImageSet, ImageSet]) -> np.ndarray:
    return load_pixels(tiny_images[1], tiny.PREPROCESSING)


def tflite_result(graph: Graph, x: np.ndarray) -> np.ndarray:
    execute = Executor(graph, graph.outputs, 1)
    return np.concatenate([execute(a[None])[0] for a in x])


@pytest.mark.parametrize("case", operators.CASES)
def test_an_operator_computes_what_tflite_does(
    case: str, tiny_network: Network, pictures: np.ndarray, tmp_path: Path
) -> None:
    graph = operators.CASES[case]
    expected = tflite_result(graph, pictures)
    y = run(to_openvino(tiny_network, graph, tmp_path / "one.xml", ABOUT), pictures)
    assert y.shape == expected.shape
    assert np.abs(y - expected).max() <= 2e-5 * max(1, np.abs(expected).max())


# A quantized PADV2 demands a constant of the picture's own scale; TFLite does not run what has another.
@pytest.mark.parametrize("case", [c for c in operators.CASES if c != "a picture padded with a number"])
def test_a_quantized_operator_is_as_near_to_float_as_tflites(
    case: str, tiny_network: Network, pictures: np.ndarray, tmp_path: Path
) -> None:
    graph = operators.CASES[case]
    ranges = measure_ranges(graph, (a[None] for a in pictures))
    quantized = quantize(graph, "int8", Calibration(ranges, "min-max", "", len(pictures), ""))
    expected = tflite_result(graph, pictures)
    z = tflite_result(quantized, pictures)
    y = run(to_openvino(tiny_network, quantized, tmp_path / "one.xml", ABOUT), pictures)

    def error(x: np.ndarray) -> float:
        return float(np.sqrt(np.mean((x - expected) ** 2)))

    assert error(y) <= 1.1 * error(z) + 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_computes_what_the_tflite_file_of_the_same_graph_does(
    precision: str, tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path, pixels: np.ndarray
) -> None:
    x = normalise(pixels, tiny.PREPROCESSING)
    a = written(tiny_network, tiny_calibration, tmp_path, precision)
    b = written(tiny_network, tiny_calibration, tmp_path, precision, "tflite")
    y, z = (runtime.load(tmp_path / f.path).predict(x) for f in (a, b))
    assert y.shape == (30, tiny.CLASSES)
    assert np.abs(y - z).max() <= TOLERANCE[precision]


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("io", IO_DTYPES)
def test_a_file_takes_and_gives_what_it_says(
    io: str, precision: str, tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path, pixels: np.ndarray
) -> None:
    a = written(tiny_network, tiny_calibration, tmp_path, precision, io=io)
    b = written(tiny_network, tiny_calibration, tmp_path / "float", precision)
    assert [(t.name, t.dtype, t.shape) for t in a.inputs] == [("image", io, (1, 3, tiny.PX, tiny.PX))]
    found = inspect(tmp_path / a.path)
    assert [(t.name, t.dtype, t.shape) for t in found.inputs] == [("image", io, (1, 3, tiny.PX, tiny.PX))]
    assert [(t.name, t.dtype, t.shape) for t in found.outputs] == [("probabilities", io, (1, tiny.CLASSES))]
    model = runtime.load(tmp_path / a.path)
    assert (model.io_dtype, model.output.dtype, model.output.name) == (io, io, "probabilities")
    y = model.predict(normalise(pixels, tiny.PREPROCESSING) if io == "float32" else pixels)
    z = runtime.load(tmp_path / "float" / b.path).predict(normalise(pixels, tiny.PREPROCESSING))
    assert np.abs(y - z).max() <= (1e-6 if io == "float32" else 1 / 256 + 0.01)


def test_scales_zero_points_and_weights_are_the_graphs(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    graph = quantize(tiny_network.graph, "int8", tiny_calibration)
    a = written(tiny_network, tiny_calibration, tmp_path, "int8")
    model = ov.Core().read_model(tmp_path / a.path)
    nodes = {n.friendly_name: n for n in model.get_ops()}
    assert "logits/fq" not in nodes  # not rounded: the kernel gives float32
    quantized = [t for t in graph.tensors.values() if t.dtype == "int8" and t.data is None and t.name != "logits"]
    assert len(quantized) == 8
    for t in quantized:
        fake = nodes[f"{t.name}_kept/fq" if t.name == "pooled" else f"{t.name}/fq"]  # rounded before axes are dropped
        assert (fake.get_type_name(), fake.get_attributes()["levels"]) == ("FakeQuantize", 256)
        low, high = (float(fake.input_value(i).get_node().data.ravel()[0]) for i in (1, 2))
        assert t.quantization is not None
        scale, zero = float(t.quantization.scale[0]), int(t.quantization.zero_point[0])
        assert (high - low) / 255 == pytest.approx(scale, rel=1e-6)
        assert -128 - low / scale == pytest.approx(zero, abs=1e-4)
    stored = {
        n.data.tobytes(): n
        for n in nodes.values()
        if n.get_type_name() == "Constant" and n.get_element_type() == ov.Type.i8
    }
    weights = [
        t for t in graph.tensors.values() if t.dtype == "int8" and t.data is not None and t.name.endswith("_weights")
    ]
    assert len(weights) == len(stored) == 6
    for t in weights:
        assert t.data is not None
        perm = (3, 0, 1, 2) if t.name.startswith("depthwise") else (0, 3, 1, 2)
        node = stored[np.ascontiguousarray(t.data.transpose(perm) if t.data.ndim == 4 else t.data).tobytes()]
        multiply = next(
            iter(next(iter(node.output(0).get_target_inputs())).get_node().output(0).get_target_inputs())
        ).get_node()
        assert t.quantization is not None
        assert np.array_equal(multiply.input_value(1).get_node().data.ravel(), t.quantization.scale)


def test_the_cpu_plugin_computes_an_int8_file_in_integers(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    found = layers(tmp_path / written(tiny_network, tiny_calibration, tmp_path, "int8").path)
    heavy = [precision for kind, precision in found if kind in ("Convolution", "FullyConnected")]
    assert len(heavy) == 6
    assert set(heavy) <= {"u8", "i8"}


@pytest.mark.parametrize("precision", ["float16", "weight-only"])
def test_the_cpu_plugin_unpacks_smaller_weights_once_when_it_loads(
    precision: str, tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    """And does not quantize a dense layer's activations, as it does by itself when the layer's weights are integers."""
    found = layers(tmp_path / written(tiny_network, tiny_calibration, tmp_path, precision).path)
    assert {precision for kind, precision in found if kind != "Const"} == {"f32"}


def test_a_swish_is_fused_and_not_rounded_between(tiny_network: Network, pictures: np.ndarray, tmp_path: Path) -> None:
    graph = operators.CASES["squeeze and excite"]
    ranges = measure_ranges(graph, (a[None] for a in pictures))
    quantized = quantize(graph, "int8", Calibration(ranges, "min-max", "", len(pictures), ""))
    path = to_openvino(tiny_network, quantized, tmp_path / "one.xml", ABOUT)
    model = ov.Core().read_model(path)
    sigmoids = [n for n in model.get_ops() if n.get_type_name() == "Sigmoid"]
    assert len(sigmoids) == 2
    for node in sigmoids:
        assert node.input_value(0).get_node().get_type_name() == "Add"  # the bias
        assert {i.get_node().get_type_name() for i in node.output(0).get_target_inputs()} == {"Multiply"}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_file_has_a_transpose(
    precision: str, tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    a = written(tiny_network, tiny_calibration, tmp_path, precision)
    kinds = [n.get_type_name() for n in ov.Core().read_model(tmp_path / a.path).get_ops()]
    assert "Transpose" not in kinds
    assert kinds.count("Reshape") == 1  # (1, 32, 1, 1) to (1, 32)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_file_says_what_it_is(
    precision: str, tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    a = written(tiny_network, tiny_calibration, tmp_path, precision)
    assert (a.id, a.path) == (f"tiny_{precision}.xml",) * 2
    model = ov.Core().read_model(tmp_path / a.path)
    assert json.loads(model.get_rt_info("labels").astype(str)) == list(tiny_network.class_names)
    about = json.loads(model.get_rt_info("edgenet").astype(str))
    assert (about["precision"], about["preprocessing"]) == (precision, tiny.PREPROCESSING.to_json())
    found = inspect(tmp_path / a.path)
    assert (found.precision, found.edgenet) == (precision, about)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_same_graph_gives_the_same_bytes(
    precision: str, tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    a = written(tiny_network, tiny_calibration, tmp_path / "a", precision)
    b = written(tiny_network, tiny_calibration, tmp_path / "b", precision)
    for suffix in (".xml", ".bin"):
        name = Path(a.path).with_suffix(suffix).name
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert a.sha256 == b.sha256


def test_size_and_hash_are_of_both_files(tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path) -> None:
    a = written(tiny_network, tiny_calibration, tmp_path, "int8")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny_int8.bin", "tiny_int8.xml"]
    assert a.size_bytes == sum(p.stat().st_size for p in tmp_path.iterdir())
    assert sha256_of(tmp_path / a.path) == a.sha256
    weights = tmp_path / "tiny_int8.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x55")
    assert sha256_of(tmp_path / a.path) != a.sha256


def test_a_write_that_fails_leaves_neither_file_behind(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(network: Network, graph: Graph, path: Path, about: dict[str, Any], batch: int | None) -> Path:
        to_openvino(network, graph, path, about, batch)
        assert path.with_suffix(".bin").is_file()
        raise InputError("the disk is full")

    monkeypatch.setitem(FORMATS, "openvino", FORMATS["openvino"]._replace(write=breaks))
    with pytest.raises(InputError, match="disk is full"):
        written(tiny_network, tiny_calibration, tmp_path, "int8")
    assert list(tmp_path.iterdir()) == []


def test_an_end_between_the_two_renames_leaves_no_model_with_another_ones_weights(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tiny_network, tiny_calibration, tmp_path, "int8")
    rename = os.replace

    def dies(a: Any, b: Any) -> None:
        if str(b).endswith(".xml"):
            raise KeyboardInterrupt
        rename(a, b)

    monkeypatch.setattr(export.os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        written(tiny_network, tiny_calibration, tmp_path, "int8")
    assert [p.name for p in tmp_path.iterdir()] == ["tiny_int8.bin"]


def test_the_batch_may_be_another_or_open(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path, pixels: np.ndarray
) -> None:
    x = normalise(pixels, tiny.PREPROCESSING).transpose(0, 3, 1, 2)
    one, four, any_ = (
        compiled(to_openvino(tiny_network, tiny_network.graph, tmp_path / f"{n}.xml", ABOUT, batch=n))
        for n in (1, 4, None)
    )
    expected = np.concatenate([one(a[None])[0].copy() for a in x[:12]])
    assert any_.inputs[0].get_partial_shape()[0].is_dynamic
    assert np.abs(any_(x[:12])[0] - expected).max() < 1e-6
    assert np.abs(four(x[:4])[0] - expected[:4]).max() < 1e-6


def test_a_precision_that_openvino_has_not_is_refused_with_those_it_has(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"no precision dynamic \(valid: .*weight-only.*\); tflite, onnx has"):
        written(tiny_network, tiny_calibration, tmp_path, "dynamic")
    assert list(tmp_path.iterdir()) == []


def test_an_operator_without_a_form_is_named_with_what_holds_it(tiny_network: Network, tmp_path: Path) -> None:
    graph = operators.CASES["a sigmoid"]
    odd = replace(graph, ops=(*graph.ops[:-1], replace(graph.ops[-1], kind="REVERSE_V2")))
    with pytest.raises(InputError, match=r"REVERSE_V2 .*use the format tflite"):
        to_openvino(tiny_network, odd, tmp_path / "x.xml", ABOUT)
    assert list(tmp_path.iterdir()) == []
