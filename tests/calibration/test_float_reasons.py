"""Every operator of an integer file that is not integer has its reason, in the graph and in the file."""

from pathlib import Path

import numpy as np
import pytest

from edgenet.calibration import Recipe, quantize
from edgenet.calibration.float_reasons import float_reasons
from edgenet.export.graph import Graph, multiply_adds
from edgenet.export.inspect import inspect, lines
from edgenet.export.other_precisions import COMPUTED_WEIGHTS, KEPT, NO_KERNEL, NORMALISES, OUTPUT, unlike
from edgenet.jobs.file_factory import FileFactory, Interface
from edgenet.jobs.keep import parse
from edgenet.results import Artifact, Calibration, ImageSet
from edgenet.targets import target
from helpers import tiny
from helpers.graph_builder import Builder

Images = tuple[ImageSet, ImageSet]


def layer_norm_and_more() -> Graph:
    """A convolution, a normalisation, an absolute value, a dense layer whose weights are computed, and a softmax."""
    b = Builder(1, 2, 2, 3)
    x = b.conv("image", "stem", b.normal(4, 1, 1, 3), np.zeros(4))
    squared = b.op("MUL", [x, x], (1, 2, 2, 4), out="squared")
    axes = b.constant([3], "int32")
    variance = b.op("MEAN", [squared, axes], (1, 2, 2, 1), "ReducerOptions", out="variance", keepDims=True)
    root = b.op("RSQRT", [variance], (1, 2, 2, 1), out="root")
    x = b.op("MUL", [x, root], (1, 2, 2, 4), out="normalised")
    x = b.op("ABS", [x], (1, 2, 2, 4), out="absolute")
    x = b.op("RESHAPE", [x], (4, 4), out="rows")
    x = b.op("FULLY_CONNECTED", [x, x], (4, 4), out="product")
    return b.graph(b.op("SOFTMAX", [x], (4, 4), "SoftmaxOptions", out="probabilities", beta=1.0))


def calibration(graph: Graph) -> Calibration:
    return Calibration(dict.fromkeys(graph.tensors, (-1.0, 1.0)), "min-max", "", 1, "")


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
def test_each_operator_that_stays_in_float_has_its_reason(precision: str) -> None:
    graph = layer_norm_and_more()
    quantized = quantize(graph, precision, calibration(graph))
    assert float_reasons(quantized, precision) == {
        "squared": ("float32", NORMALISES),
        "variance": ("float32", NORMALISES),
        "root": ("float32", NO_KERNEL),
        "normalised": ("float32", NORMALISES),
        "absolute": ("float32", NO_KERNEL),
        "product": ("float32", COMPUTED_WEIGHTS),
        "probabilities": ("float32", OUTPUT),
    }


@pytest.mark.parametrize("kept", ["float32", "float16", "weight-only", "int16"])
def test_what_was_asked_for_is_the_reason_where_it_was_done(kept: str) -> None:
    graph = layer_norm_and_more()
    asked = {"stem": kept, "absolute": "int16"}
    found = float_reasons(quantize(graph, "int8", calibration(graph), exceptions=asked), "int8", asked)
    assert found["stem"] == (kept, KEPT)
    assert found["absolute"] == ("float32", NO_KERNEL), "int16 was asked for, and there is no such kernel"


def test_no_other_precision_has_reasons() -> None:
    assert float_reasons(layer_norm_and_more(), "float32") == {}


# ----------------------------------------------------------------------------------------------------- in the files


def exported(images: Images, out: Path, format: str, *keep: str, io: str = "float32") -> Artifact:
    on = target("x86-vnni")
    made = FileFactory(tiny.source(), images[0], on, Recipe(), Interface(io), keep=parse(keep, on))
    return made.export(out, format, "int8")


def summary(a: Artifact) -> list[tuple[str, str, str, tuple[str, ...]]]:
    return [(o.kind, o.precision, o.why, o.operators) for o in a.other_precisions]


@pytest.mark.parametrize("format", ["tflite", "onnx", "openvino"])
def test_a_file_says_what_is_not_integer_why_and_how_much_of_the_work_it_is(
    format: str, tiny_images: Images, tmp_path: Path
) -> None:
    a = exported(tiny_images, tmp_path, format, "^expand=float32")
    assert summary(a) == [
        ("CONV_2D", "float32", KEPT, ("expand",)),
        ("SOFTMAX", "float32", OUTPUT, (a.outputs[0].name,)),
    ]
    graph = tiny.graph()
    adds = {op.outputs[0]: multiply_adds(graph, op) for op in graph.ops}
    assert a.other_precisions[0].multiply_adds_share == pytest.approx(adds["expand"] / sum(adds.values()))
    said = [text for label, text in lines(inspect(tmp_path / a.path)) if label == "edgenet, not integer"]
    assert said == [
        f"1 CONV_2D in float32, {100 * a.other_precisions[0].multiply_adds_share:.1f} % of the multiply-adds: "
        "--keep or the search for a budget asked for it",
        "1 SOFTMAX in float32: the answer itself, which would have ties in 8 bits",
    ]


def test_a_file_that_is_integer_throughout_says_nothing(tiny_images: Images, tmp_path: Path) -> None:
    a = exported(tiny_images, tmp_path, "tflite", io="int8")
    assert a.other_precisions == ()
    assert not [label for label, _ in lines(inspect(tmp_path / a.path)) if label == "edgenet, not integer"]


def test_the_graph_has_no_other_operators_in_float(tiny_images: Images, tmp_path: Path) -> None:
    on = target("x86-vnni")
    made = FileFactory(tiny.source(), tiny_images[0], on, Recipe(), Interface(), keep=parse(["ADD=int16"], on))
    graph = made.shared(made.recipe).quantized("int8", 8, made.kept)
    a = made.export(tmp_path, "tflite", "int8")
    assert sum(len(o.operators) for o in a.other_precisions) == len(unlike(graph, "int8")) == 2
    assert {o.precision for o in a.other_precisions} == {"int16", "float32"}
