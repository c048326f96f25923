"""Weights of 4 bits: what is written is half as large, answers as the exact integers do, and says so of itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgenet.calibration import SharedCalibration
from edgenet.calibration.integer_reference import integer_logits
from edgenet.calibration.quantize import FEW_BITS, constant_weights, layer_bits
from edgenet.export import FORMATS, Network, export_graph, runtime
from edgenet.export.graph import Graph, Tensor, packed, unpacked
from edgenet.export.inspect import inspect
from edgenet.export.tflite import stored_bits, weight_bits, with_dense_kernels
from edgenet.export.tflite_file import read_tflite, write_tflite
from edgenet.images import load_pixels, normalise
from edgenet.results import ImageSet
from helpers import tiny
from helpers.graph_builder import Builder


@pytest.fixture(scope="module")
def shared(tiny_network: Network, tiny_images: tuple[ImageSet, ImageSet]) -> SharedCalibration:
    pixels = load_pixels(tiny_images[0], tiny_network.preprocessing)
    return SharedCalibration(tiny_network, pixels, tiny_images[0].fingerprint)


@pytest.fixture(scope="module")
def int4(shared: SharedCalibration) -> Graph:
    return shared.quantized("int4")


def _in_8(t: Tensor) -> Tensor:
    return replace(t, bits=None)


def _in_4(t: Tensor) -> Tensor:
    return replace(t, dtype="int8", data=np.ones(t.shape, np.int8), bits=4)


def _answers(path: Path, pixels: np.ndarray) -> np.ndarray:
    """Return the probabilities, (N, classes), that a file gives."""
    model = runtime.load(path)
    try:
        return np.asarray(model.predict(normalise(pixels, tiny.PREPROCESSING)))
    finally:
        model.close()


@pytest.mark.parametrize("n", [1, 2, 7, 16])
def test_packed_integers_come_back(n: int) -> None:
    values = np.random.default_rng(n).integers(-8, 8, (n, 3)).astype(np.int8)
    assert packed(values).nbytes == (values.size + 1) // 2
    assert np.array_equal(unpacked(packed(values), values.shape), values)


def test_pointwise_and_dense_layers_have_4_bits_and_the_others_8(shared: SharedCalibration, int4: Graph) -> None:
    graph, bits = shared.graph, layer_bits(shared.graph)
    weighted = [op for op in graph.ops if constant_weights(graph, op) is not None]
    pointwise = [
        op.outputs[0]
        for op in weighted[1:]
        if op.kind == "FULLY_CONNECTED"
        or (op.kind == "CONV_2D" and graph.tensors[str(op.inputs[1])].shape[1:3] == (1, 1))
    ]
    assert {n for n, b in bits.items() if b == FEW_BITS} == set(pointwise)
    stored = {op.outputs[0]: int4.tensors[str(op.inputs[1])] for op in int4.ops if op.outputs[0] in bits}
    assert {n: t.bits for n, t in stored.items()} == {n: 4 if b == 4 else None for n, b in bits.items()}
    largest = {n: int(np.abs(t.data.astype(int)).max()) for n, t in stored.items() if t.data is not None}
    assert all(largest[n] <= 7 for n in pointwise)
    assert max(largest[n] for n in bits if n not in pointwise) > 7


@pytest.mark.parametrize("format", FORMATS)
def test_a_4_bit_file_is_smaller_knows_itself_and_answers_as_the_8_bit_integers_do(
    format: str, shared: SharedCalibration, int4: Graph, tiny_images: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    network = shared.network
    few = export_graph(network, int4, tmp_path, format=format, precision="int4", calibration=shared.calibration)
    plain = {n: t if t.bits is None else _in_8(t) for n, t in int4.tensors.items()}
    same = Graph(int4.name, plain, int4.ops, int4.inputs, int4.outputs)
    whole = export_graph(network, same, tmp_path, format=format, precision="int8", calibration=shared.calibration)
    assert (few.weight_bits, few.stored_bits, whole.weight_bits) == (4, 4, None)
    weights = sum(t.data.size for t in int4.tensors.values() if t.bits is not None and t.data is not None)
    assert inspect(tmp_path / whole.path).weights_bytes - inspect(tmp_path / few.path).weights_bytes >= 0.49 * weights
    found = inspect(tmp_path / few.path)
    assert found.precision == "int4"
    assert "4-bit weights and 8-bit activations" in found.why
    assert not any("calls itself" in w for w in found.warnings)
    pixels = load_pixels(tiny_images[1], network.preprocessing)
    one, other = (_answers(tmp_path / a.path, pixels) for a in (few, whole))
    assert np.array_equal(one, other)


def test_a_4_bit_file_answers_as_the_exact_reference_does(
    shared: SharedCalibration, int4: Graph, tiny_images: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    pixels = load_pixels(tiny_images[1], shared.network.preprocessing)
    exact = integer_logits(int4, normalise(pixels, shared.network.preprocessing))
    p = np.exp(exact - exact.max(-1, keepdims=True))
    for format in FORMATS:
        a = export_graph(shared.network, int4, tmp_path, format=format, precision="int4")
        assert np.abs(_answers(tmp_path / a.path, pixels) - p / p.sum(-1, keepdims=True)).max() < 0.02


def test_pointwise_convolutions_become_the_dense_layers_that_xnnpack_has_kernels_for(int4: Graph) -> None:
    written = read_tflite(write_tflite(with_dense_kernels(int4), few_bits=True))
    few = [op for op in written.ops if len(op.inputs) > 1 and op.inputs[1] and written.tensors[op.inputs[1]].bits == 4]
    assert few
    assert {(op.kind, op.version) for op in few} == {("FULLY_CONNECTED", 10)}
    back = {t.name: t.data for t in written.tensors.values() if t.bits == 4}
    for op in with_dense_kernels(int4).ops:
        t = with_dense_kernels(int4).tensors[str(op.inputs[1])] if len(op.inputs) > 1 else None
        if t is not None and t.bits == 4:
            assert np.array_equal(back[t.name], t.data)


def test_a_pointwise_convolution_with_a_stride_is_stored_in_8_bits_by_tflite_and_says_so() -> None:
    b = Builder(1, 8, 8, 4)
    strided = b.conv("image", "shrunk", b.normal(6, 1, 1, 4), np.zeros(6), stride=2)
    graph = b.graph(strided)
    tensors = dict(graph.tensors)
    tensors["shrunk_w"] = _in_4(tensors["shrunk_w"])
    graph = Graph(graph.name, tensors, graph.ops, graph.inputs, graph.outputs)
    assert (weight_bits(graph), stored_bits(graph, "tflite"), stored_bits(graph, "onnx")) == (4, 8, 4)
    assert [op.kind for op in with_dense_kernels(graph).ops] == ["CONV_2D"]
    assert with_dense_kernels(graph).tensors["shrunk_w"].bits is None
