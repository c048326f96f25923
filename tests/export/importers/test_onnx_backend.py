"""onnx_importer.py against ONNX's own backend tests: what is imported gives ONNX's numbers, the rest is refused.

docs/own-models.md publishes the counts, which have to be those of this run.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgenet.errors import InputError
from edgenet.export.importers.onnx_importer import from_onnx, prepared
from helpers.onnx_backend import SUITES, Case, outcome, outcomes, table_row
from helpers.places import ROOT
from helpers.torch_style import TorchStyle

LONG = ("single operators (`node`)", "whole networks (`light`)")


@pytest.mark.parametrize("suite", [pytest.param(s, marks=[pytest.mark.slow] if s in LONG else []) for s in SUITES])
def test_no_case_is_wrong_or_crashes_and_the_page_has_the_counts(suite: str) -> None:
    found = outcomes(suite)
    assert {name: o.text for name, o in found.items() if o.kind not in ("passed", "refused")} == {}
    assert table_row(suite, found.values()) in (ROOT / "docs" / "own-models.md").read_text()


def relu(x: np.ndarray, want: np.ndarray) -> Case:
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, x.shape) for n in ("x", "y")]
    model = helper.make_model(
        helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", info[:1], info[1:]),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    return Case("relu", model, {"x": x}, (want,))


def test_the_harness_sees_a_wrong_number_a_wrong_shape_and_a_right_one() -> None:
    x = np.array([[-1.0, 2.0]], np.float32)
    assert outcome(relu(x, np.array([[0.0, 2.0]]))).kind == "passed"
    assert outcome(relu(x, np.array([[0.0, 2.1]]))).kind == "wrong"
    assert outcome(relu(x, np.array([0.0, 2.0]))).kind == "wrong"


def test_an_operator_that_stands_for_others_is_refused_by_its_name_and_the_inner_one() -> None:
    t = TorchStyle(opset=23)
    out = t.node("Attention", ["input", "input", "input"], qk_matmul_output_mode=0, softmax_precision=1)
    with pytest.raises(InputError, match=r"shape|classifier"):
        from_onnx(prepared(t.model(out), "net.onnx"), (1, 3, 8, 8))
    t = TorchStyle(opset=22)
    with pytest.raises(InputError, match=r"RandomUniformLike \(node .*, a part of Bernoulli\)"):
        prepared(t.model(t.node("Bernoulli", ["input"])), "net.onnx")


def constant_of(shape: list[int]) -> Callable[[TorchStyle], str]:
    return lambda t: t.node("Add", ["input", t.node("ConstantOfShape", [t.weight(np.array(shape))])])


def expanded(t: TorchStyle) -> str:
    return t.node("Add", ["input", t.node("Expand", [t.weight(np.float32(1)), t.weight(np.array([1 << 40]))])])


def tiled(t: TorchStyle) -> str:
    return t.node("Tile", ["input", t.weight(np.array([1, 1, 1 << 20, 1 << 20]))])


def counted(t: TorchStyle) -> str:
    limits = [t.weight(np.int64(n)) for n in (0, 1 << 40, 1)]
    return t.node("Add", ["input", t.node("Cast", [t.node("Range", limits)], to=TensorProto.FLOAT)])


HOSTILE: dict[str, Callable[[TorchStyle], str]] = {
    "a constant of a tebibyte": constant_of([1 << 20, 1 << 20]),
    "a constant of a negative size": constant_of([-5]),
    "a constant blown up": expanded,
    "a picture repeated without end": tiled,
    "a list without end": counted,
    "a side of a million pixels": lambda t: t.node(
        "Resize", ["input", "", t.weight(np.array([1, 1, 1e6, 1e6], np.float32))], mode="nearest"
    ),
    "a border of a gibibyte": lambda t: t.node("Pad", ["input", t.weight(np.array([0, 0, 1 << 30, 0, 0, 0, 0, 0]))]),
    "a kernel larger than the picture": lambda t: t.conv("input", 3, 4, 99, padding=0),
    "a stride of zero": lambda t: t.conv("input", 3, 4, 3, 0),
    "an axis that there is not": lambda t: t.node("Concat", ["input", "input"], axis=9),
    "an attribute left out": lambda t: t.node("Concat", ["input", "input"]),
    "an attribute of another type": lambda t: t.node("Flatten", ["input"], axis="first"),
    "no operands": lambda t: t.node("Add", []),
    "an index beyond the axis": lambda t: t.node("Gather", ["input", t.weight(np.array([77]))], axis=1),
    "a permutation that is none": lambda t: t.node("Transpose", ["input"], perm=[0, 0, 0, 0]),
    "sizes that do not add up": lambda t: t.node("Split", ["input", t.weight(np.array([1, 9]))], 2, axis=1)[0],
    "a division of groups that leaves a rest": lambda t: t.conv("input", 3, 4, 3, groups=2),
    "weights of rank one": lambda t: t.node("Conv", ["input", t.weight(np.ones(3, np.float32))]),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line_and_at_once(case: str) -> None:
    t = TorchStyle(opset=18)
    model = t.model(HOSTILE[case](t))
    with pytest.raises(InputError) as e:
        from_onnx(prepared(model, "net.onnx"), (1, 3, 32, 32))
    assert "\n" not in str(e.value)
    assert "/" in str(e.value)  # the node, called as torch does


def test_nodes_in_a_circle_are_refused() -> None:
    t = TorchStyle()
    t.nodes.append(helper.make_node("Relu", ["b"], ["a"], name="/first"))
    t.nodes.append(helper.make_node("Relu", ["a"], ["b"], name="/second"))
    with pytest.raises(InputError, match=r"Relu \(node /first\) reads b, which nothing makes"):
        from_onnx(prepared(t.model("b"), "net.onnx"), (1, 3, 8, 8))


def function_calling(name: str) -> onnx.FunctionProto:
    return helper.make_function(
        "mine", "Again", ["x"], ["y"], [helper.make_node(name, ["x"], ["y"], domain="mine")],
        [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)],
    )  # fmt: skip


def test_a_function_that_calls_itself_is_refused() -> None:
    t = TorchStyle()
    model = t.model(t.node("Again", ["input"], domain="mine"))
    model.functions.append(function_calling("Again"))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    with pytest.raises(InputError, match=r"net\.onnx") as e:
        prepared(model, "net.onnx")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("data", [b"", b"1234"])
def test_a_constant_with_too_few_bytes_is_refused_by_its_name(data: bytes) -> None:
    t = TorchStyle()
    model = t.model(t.node("Add", ["input", t.weight(np.ones((3, 8, 8), np.float32))]))
    model.graph.initializer[0].raw_data = data
    with pytest.raises(InputError, match=r"the constant w0 cannot be read .*the file is damaged"):
        from_onnx(model, (1, 3, 8, 8))


def stored_elsewhere(location: str, kind: int) -> Any:
    t = TorchStyle()
    model = t.model(t.head(t.conv("input", 3, 8), 8, 5))
    w = model.graph.initializer[0]
    w.ClearField("raw_data")
    w.data_location = kind
    w.external_data.add(key="location", value=location)
    assert numpy_helper is not None
    return model


@pytest.mark.parametrize("kind", [TensorProto.EXTERNAL, TensorProto.DEFAULT])
@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "inside/../../secret", "link"])
def test_weights_outside_of_the_models_folder_are_never_read(location: str, kind: int, tmp_path: Any) -> None:
    from edgenet.export import find_source

    (tmp_path / "secret").write_bytes(b"x" * 4096)
    folder = tmp_path / "models"
    (folder / "inside").mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path / "secret")
    onnx.save(stored_elsewhere(location, kind), str(folder / "net.onnx"))
    with pytest.raises(InputError, match=r"outside of its folder|which is not beside it|cannot be read") as e:
        find_source(str(folder / "net.onnx"), preprocess="torch")
    assert "\n" not in str(e.value)
