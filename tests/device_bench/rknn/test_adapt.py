"""adapt.py: the file that rknn-toolkit2 reads has the integers, the scales and the answers of edgenet's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet.calibration import quantize
from edgenet.device_bench.rknn.adapt import OPSET, adapt
from edgenet.errors import InputError
from edgenet.export import Network, export_graph
from edgenet.results import Calibration

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def written(network: Network, calibration: Calibration, out: Path, io: str, precision: str = "int8") -> Path:
    g = quantize(network.graph, precision, calibration)
    return out / export_graph(network, g, out, format="onnx", precision=precision, io=io).path


def answers(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {session.get_inputs()[0].name: one[None]})[0] for one in x])


@pytest.mark.parametrize("io", ["uint8", "int8", "float32"])
@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_onnxruntime_answers_the_same_bits(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path, io: str, precision: str
) -> None:
    path = written(tiny_network, tiny_calibration, tmp_path, io, precision)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 3, 20, 20), np.uint8)
    x = {"uint8": pixels, "int8": (pixels ^ 128).view(np.int8), "float32": (pixels.astype(np.float32) - 127) / 128}[io]
    adapted = adapt(path, tmp_path / "adapted.onnx")
    np.testing.assert_array_equal(answers(adapted, x), answers(path, x))
    assert len(np.unique(answers(path, x), axis=0)) > 10


def test_every_constant_is_kept_and_a_bias_gets_the_zero_point_zero(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    path = written(tiny_network, tiny_calibration, tmp_path, "uint8")
    before, after = onnx.load(path), onnx.load(adapt(path, tmp_path / "adapted.onnx"))
    assert before.opset_import[0].version > OPSET == after.opset_import[0].version
    old, new = ({i.name: i for i in m.graph.initializer} for m in (before, after))
    assert {name: new[name] for name in old} == old
    added = [onnx.numpy_helper.to_array(new[name]) for name in new if name not in old]
    assert added
    assert all(a.dtype == np.int32 and not a.any() for a in added)
    dequantized = [n for n in after.graph.node if n.op_type == "DequantizeLinear"]
    assert all(len(n.input) == 3 for n in dequantized if n.input[0] in new)


def changed(path: Path, change: Any) -> Path:
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    return path


def test_an_open_batch_becomes_one_and_another_open_dimension_is_refused(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    path = written(tiny_network, tiny_calibration, tmp_path, "uint8")

    def leave_open(axis: int) -> Any:
        return lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[axis], "dim_param", "n")

    adapted = onnx.load(adapt(changed(path, leave_open(0)), tmp_path / "adapted.onnx"))
    assert [d.dim_value for d in adapted.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 20, 20]
    with pytest.raises(InputError, match="leaves a dimension of its input open"):
        adapt(changed(path, leave_open(2)), tmp_path / "adapted.onnx")


def test_what_operator_set_19_lacks_is_refused_and_not_replaced(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    sixteen = written(tiny_network, tiny_calibration, tmp_path, "float32", "int16x8")
    with pytest.raises(InputError, match="cannot be written in ONNX's operator set 19"):
        adapt(sixteen, tmp_path / "adapted.onnx")

    def add_gelu(model: Any) -> None:
        model.graph.node.append(onnx.helper.make_node("Gelu", [model.graph.output[0].name], ["more"]))

    path = changed(written(tiny_network, tiny_calibration, tmp_path, "float32"), add_gelu)
    with pytest.raises(InputError, match="Gelu"):
        adapt(path, tmp_path / "adapted.onnx")


def test_what_is_no_onnx_file_is_refused_with_what_to_give(tmp_path: Path, tiny_files: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"give the \.onnx, as `edgenet export --format onnx --precision int8`"):
        adapt(tiny_files["int8"], tmp_path / "adapted.onnx")
    with pytest.raises(InputError, match="no file"):
        adapt(tmp_path / "none.onnx", tmp_path / "adapted.onnx")
    (tmp_path / "damaged.onnx").write_bytes(b"\x08\xff nothing")
    with pytest.raises(InputError, match="not a whole ONNX file"):
        adapt(tmp_path / "damaged.onnx", tmp_path / "adapted.onnx")
