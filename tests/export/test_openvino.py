"""openvino.py: the plugin computes in integers where it can, and an IR is two files."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet.calibration import measure_ranges, quantize
from edgenet.errors import InputError
from edgenet.export import FORMATS, Network, formats
from edgenet.export.graph import Graph
from edgenet.export.inspect import inspect
from edgenet.export.openvino import PRECISIONS, to_openvino
from edgenet.files import sha256_of
from edgenet.images import normalise
from edgenet.results import Calibration
from helpers import operators, tiny
from helpers.nchw_files import ABOUT, compiled, quantized, run, tflite_result, written
from helpers.nchw_files import pictures as pictures
from helpers.nchw_files import pixels as pixels

ov = pytest.importorskip("openvino")


def layers(path: Path) -> list[tuple[str, str]]:
    """Return (kind, precision) of what the CPU plugin made of a file."""
    model = compiled(path).get_runtime_model()
    info = [node.get_rt_info() for node in model.get_ops()]
    return [(i["layerType"].astype(str), i["runtimePrecision"].astype(str)) for i in info]


# A quantized PADV2 demands a constant of the picture's own scale; TFLite does not run what has another.
@pytest.mark.parametrize("case", [c for c in operators.CASES if c != "a picture padded with a number"])
def test_a_quantized_operator_is_as_near_to_float_as_tflites(
    case: str, tiny_network: Network, pictures: np.ndarray, tmp_path: Path
) -> None:
    graph = operators.CASES[case]
    ranges = measure_ranges(graph, (a[None] for a in pictures))
    expected = tflite_result(graph, pictures)
    graph = quantized(graph, "int8", Calibration(ranges, "min-max", "", len(pictures), ""))
    z = tflite_result(graph, pictures)
    y = run(to_openvino(tiny_network, graph, tmp_path / "one.xml", ABOUT), pictures)

    def error(x: np.ndarray) -> float:
        return float(np.sqrt(np.mean((x - expected) ** 2)))

    assert error(y) <= 1.1 * error(z) + 1e-5 * np.abs(expected).max()


def test_scales_zero_points_and_weights_are_the_graphs(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    graph = quantize(tiny_network.graph, "int8", tiny_calibration)
    a = written(tiny_network, tiny_calibration, tmp_path, "int8", "openvino")
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
    found = layers(tmp_path / written(tiny_network, tiny_calibration, tmp_path, "int8", "openvino").path)
    heavy = [precision for kind, precision in found if kind in ("Convolution", "FullyConnected")]
    assert len(heavy) == 6
    assert set(heavy) <= {"u8", "i8"}


@pytest.mark.parametrize("precision", ["float16", "weight-only"])
def test_the_cpu_plugin_unpacks_smaller_weights_once_when_it_loads(
    precision: str, tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    """And does not quantize a dense layer's activations, as it does by itself when the layer's weights are integers."""
    found = layers(tmp_path / written(tiny_network, tiny_calibration, tmp_path, precision, "openvino").path)
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
    a = written(tiny_network, tiny_calibration, tmp_path, precision, "openvino")
    kinds = [n.get_type_name() for n in ov.Core().read_model(tmp_path / a.path).get_ops()]
    assert "Transpose" not in kinds
    assert kinds.count("Reshape") == 1  # (1, 32, 1, 1) to (1, 32)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_file_says_what_it_is(
    precision: str, tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    a = written(tiny_network, tiny_calibration, tmp_path, precision, "openvino")
    assert (a.id, a.path) == (f"tiny_{precision}.xml",) * 2
    model = ov.Core().read_model(tmp_path / a.path)
    assert json.loads(model.get_rt_info("labels").astype(str)) == list(tiny_network.class_names)
    about = json.loads(model.get_rt_info("edgenet").astype(str))
    assert (about["precision"], about["preprocessing"]) == (precision, tiny.PREPROCESSING.to_json())
    found = inspect(tmp_path / a.path)
    assert (found.precision, found.edgenet) == (precision, about)


def test_size_and_hash_are_of_both_files(tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path) -> None:
    a = written(tiny_network, tiny_calibration, tmp_path, "int8", "openvino")
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
        written(tiny_network, tiny_calibration, tmp_path, "int8", "openvino")
    assert list(tmp_path.iterdir()) == []


def test_an_end_between_the_two_renames_leaves_no_model_with_another_ones_weights(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tiny_network, tiny_calibration, tmp_path, "int8", "openvino")
    rename = os.replace

    def dies(a: Any, b: Any) -> None:
        if str(b).endswith(".xml"):
            raise KeyboardInterrupt
        rename(a, b)

    monkeypatch.setattr(formats.os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        written(tiny_network, tiny_calibration, tmp_path, "int8", "openvino")
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
        written(tiny_network, tiny_calibration, tmp_path, "dynamic", "openvino")
    assert list(tmp_path.iterdir()) == []
