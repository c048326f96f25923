"""export/tflite_file.py: a .tflite becomes a Graph and a Graph a .tflite, without loss, always with the same bytes."""

from dataclasses import replace

import numpy as np
import pytest

from edgenet.calibration import quantize
from edgenet.errors import InputError
from edgenet.export import Network
from edgenet.export.graph import Graph, Op, Tensor
from edgenet.export.network import canonical_names
from edgenet.export.tflite_file import _unique_names, read_tflite, schema, write_tflite
from edgenet.results import Calibration
from helpers import tiny


def interpreter(model: bytes):
    from ai_edge_litert.interpreter import Interpreter

    loaded = Interpreter(model_content=model, num_threads=1)
    loaded.allocate_tensors()
    return loaded


def run(model: bytes, x: np.ndarray) -> np.ndarray:
    loaded = interpreter(model)
    loaded.set_tensor(loaded.get_input_details()[0]["index"], x)
    loaded.invoke()
    return loaded.get_tensor(loaded.get_output_details()[0]["index"])


def assert_same(a: Graph, b: Graph) -> None:
    assert (a.name, a.inputs, a.outputs) == (b.name, b.inputs, b.outputs)
    assert list(a.tensors) == list(b.tensors)
    for name, t in a.tensors.items():
        u = b.tensors[name]
        assert (t.shape, t.dtype) == (u.shape, u.dtype), name
        assert (t.data is None) == (u.data is None), name
        assert t.data is None or np.array_equal(t.data, u.data), name
        assert (t.quantization is None) == (u.quantization is None), name
        if t.quantization is not None and u.quantization is not None:
            np.testing.assert_array_equal(t.quantization.scale, u.quantization.scale)
            np.testing.assert_array_equal(t.quantization.zero_point, u.quantization.zero_point)
            assert t.quantization.axis == u.quantization.axis
    for op, other in zip(a.ops, b.ops, strict=True):
        assert (op.kind, op.inputs, op.outputs, op.options_type) == (
            other.kind, other.inputs, other.outputs, other.options_type,
        )  # fmt: skip
        assert {k: v for k, v in other.options.items() if k in op.options} == dict(op.options)


PRECISIONS = ("float32", "float16", "weight-only", "dynamic", "int8", "int16x8")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_graph_that_was_written_is_read_back_as_it_was(
    precision: str, tiny_network: Network, tiny_calibration: Calibration
) -> None:
    graph = quantize(tiny_network.graph, precision, tiny_calibration)
    once = read_tflite(write_tflite(graph))
    assert_same(once, read_tflite(write_tflite(once)))
    used = {n for op in graph.ops for n in (*op.inputs, *op.outputs) if n}
    assert_same(replace(graph, tensors={n: t for n, t in graph.tensors.items() if n in used}), once)


def test_the_same_graph_gives_the_same_bytes(tiny_network: Network) -> None:
    assert write_tflite(tiny_network.graph) == write_tflite(tiny.trained())


def test_a_written_file_computes_what_numpy_does() -> None:
    rng = np.random.default_rng(0)
    w, b = rng.normal(size=(4, 6)).astype(np.float32), rng.normal(size=4).astype(np.float32)
    tensors = {t.name: t for t in (
        Tensor("x", (1, 6), "float32"), Tensor("w", w.shape, "float32", w), Tensor("b", b.shape, "float32", b),
        Tensor("y", (1, 4), "float32"),
    )}  # fmt: skip
    options = {"fusedActivationFunction": 0, "weightsFormat": 0, "keepNumDims": False}
    dense = Op("FULLY_CONNECTED", ("x", "w", "b"), ("y",), options, "FullyConnectedOptions")
    x = rng.normal(size=(1, 6)).astype(np.float32)
    y = run(write_tflite(Graph("main", tensors, (dense,), ("x",), ("y",))), x)
    np.testing.assert_allclose(y, x @ w.T + b, rtol=1e-5, atol=1e-5)


def test_the_signature_names_input_and_output(tiny_network: Network) -> None:
    loaded = interpreter(write_tflite(tiny_network.graph))
    assert loaded.get_signature_list() == {
        "serving_default": {"inputs": ["image"], "outputs": ["probabilities"]},
    }
    x = np.zeros((1, tiny.PX, tiny.PX, 3), np.float32)
    y = loaded.get_signature_runner("serving_default")(image=x)["probabilities"]
    np.testing.assert_array_equal(y, run(write_tflite(tiny_network.graph), x))


def test_a_file_can_be_written_without_a_signature(tiny_network: Network) -> None:
    assert interpreter(write_tflite(tiny_network.graph, signature=None)).get_signature_list() == {}


def test_metadata_comes_back_by_name(tiny_network: Network) -> None:
    from edgenet.export.metadata import read_buffers

    written = {"edgenet": b'{"a": 1}', "empty": b"x"}
    assert read_buffers(write_tflite(tiny_network.graph, metadata=written)) == written


def test_equal_constants_are_stored_once(tiny_network: Network) -> None:
    g = tiny_network.graph
    big = np.ones((5, 96), np.float32)
    twice = replace(g, tensors={**g.tensors, "logits_w": replace(g.tensors["logits_w"], data=big)})
    s = schema()
    before = len(s.ModelT.InitFromPackedBuf(write_tflite(twice), 0).buffers)
    same = np.full(96, 0.25, np.float32)
    tensors = {**twice.tensors, "head_b": replace(g.tensors["head_b"], data=same)}
    tensors["expand_b"] = replace(g.tensors["expand_b"], data=np.full(48, 0.25, np.float32))
    assert len(s.ModelT.InitFromPackedBuf(write_tflite(replace(twice, tensors=tensors)), 0).buffers) == before
    tensors["stem_b"] = replace(g.tensors["stem_b"], data=g.tensors["project_b"].data)
    assert len(s.ModelT.InitFromPackedBuf(write_tflite(replace(twice, tensors=tensors)), 0).buffers) == before - 1


def test_tensors_that_nothing_reads_are_left_out(tiny_network: Network) -> None:
    g = tiny_network.graph
    more = replace(g, tensors={**g.tensors, "unused": Tensor("unused", (9,), "float32", np.ones(9, np.float32))})
    assert write_tflite(more) == write_tflite(g)


def test_optional_inputs_may_be_left_out(tiny_network: Network) -> None:
    g = tiny_network.graph
    ops = tuple(replace(op, inputs=(*op.inputs[:2], None)) if op.kind == "FULLY_CONNECTED" else op for op in g.ops)
    back = read_tflite(write_tflite(replace(g, ops=ops)))
    assert next(op for op in back.ops if op.kind == "FULLY_CONNECTED").inputs[2] is None


@pytest.mark.parametrize(
    ("raw", "short"),
    [
        (["net/a/Relu6;net/a/Conv2D", "net/b", "net/c"], ["a/Relu6", "b", "c"]),
        (["a", "a", "a_1", "a"], ["a", "a_1", "a_1_1", "a_2"]),
        (["x", "y/z"], ["x", "z"]),
        ([], []),
    ],
)
def test_names_are_short_and_unique(raw: list[str], short: list[str]) -> None:
    found = _unique_names(raw)
    assert len(set(found)) == len(raw)
    assert found == short


def test_canonical_names_survive_a_graph_that_already_uses_them_elsewhere(tiny_network: Network) -> None:
    g = tiny_network.graph
    swap = {"image": "in", "probabilities": "out", "stem": "image", "head": "logits", "logits": "z"}

    def name(n):
        return swap.get(n, n)

    tensors = {name(n): replace(t, name=name(n)) for n, t in g.tensors.items()}
    ops = tuple(replace(o, inputs=tuple(map(name, o.inputs)), outputs=tuple(map(name, o.outputs))) for o in g.ops)
    named = canonical_names(replace(g, tensors=tensors, ops=ops, inputs=("in",), outputs=("out",)))
    assert (named.inputs, named.outputs, named.logits()) == (("image",), ("probabilities",), "logits")
    assert len(named.tensors) == len(g.tensors)
    assert all(n == t.name for n, t in named.tensors.items())
    x = np.random.default_rng(0).normal(size=(1, tiny.PX, tiny.PX, 3)).astype(np.float32)
    np.testing.assert_array_equal(run(write_tflite(named), x), run(write_tflite(g), x))


@pytest.mark.parametrize("bad", [b"", b"TFL3", b"\x89PNG\r\n\x1a\n" + bytes(40), b"PK\x03\x04" + bytes(40)])
def test_what_is_not_tflite_is_refused(bad: bytes) -> None:
    with pytest.raises(InputError, match="not a TFLite file"):
        read_tflite(bad)


def test_a_damaged_file_is_refused_in_one_line(tiny_network: Network) -> None:
    whole = write_tflite(tiny_network.graph)
    for cut in range(8, len(whole), 97):
        with pytest.raises(InputError) as e:
            read_tflite(whole[:cut])
        assert "\n" not in str(e.value)


def test_custom_operators_and_control_flow_are_refused(tiny_network: Network) -> None:
    import flatbuffers

    s = schema()

    def packed(m) -> bytes:
        builder = flatbuffers.Builder(0)
        builder.Finish(m.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    m = s.ModelT.InitFromPackedBuf(write_tflite(tiny_network.graph), 0)
    m.subgraphs = m.subgraphs * 2
    with pytest.raises(InputError, match="2 subgraphs"):
        read_tflite(packed(m))
    m = s.ModelT.InitFromPackedBuf(write_tflite(tiny_network.graph), 0)
    m.operatorCodes[0].builtinCode = m.operatorCodes[0].deprecatedBuiltinCode = s.BuiltinOperator.CUSTOM
    m.operatorCodes[0].customCode = "Mine"
    with pytest.raises(InputError, match="custom operator Mine"):
        read_tflite(packed(m))


def test_more_than_two_gigabytes_of_weights_are_refused_before_they_are_packed(tiny_network: Network) -> None:
    huge = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (2**29, 1), (0, 0))  # 2 GiB that take four bytes
    g = tiny_network.graph
    tensors = {**g.tensors, "logits_w": replace(g.tensors["logits_w"], data=huge)}
    with pytest.raises(InputError, match=r"2\.0 GiB.*use openvino or onnx"):
        write_tflite(replace(g, tensors=tensors))
