"""Any kind of classifier is found for what it is: by how it ends, by its input, and by the output that is asked for."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgenet.calibration.execute import Executor
from edgenet.errors import InputError
from edgenet.export import FORMATS, export_graph, find_source
from edgenet.export.importers.classifier import ending_of
from edgenet.export.importers.labels import labels_in
from edgenet.export.tflite_file import write_tflite
from edgenet.images import Preprocessing
from edgenet.jobs.evaluate_files import classes_in, describe
from edgenet.tasks import Task
from helpers import kinds
from helpers.graph_builder import Builder
from helpers.torch_style import TorchStyle

TASKS = {"softmax": "classes", "binary": "binary", "labels": "labels", "normalised": "embedding", "linear": "classes"}


@pytest.mark.parametrize("kind", TASKS)
def test_a_tflite_file_is_taken_for_what_it_is(kind: str, tmp_path: Path) -> None:
    source = find_source(str(kinds.save(tmp_path / "net.tflite", kind)), preprocess="tf")
    assert source.task == Task(TASKS[kind])
    network = source.network()
    assert network.task == source.task
    last = {"embedding": "DIV", "classes": "SOFTMAX"}.get(source.task.kind, "LOGISTIC")
    assert network.graph.ops[-1].kind == last
    assert network.weights == "net.tflite" + ", a softmax added" * (kind == "linear")


def test_the_logit_of_yes_or_no_has_to_be_called_that_and_gets_a_sigmoid(tmp_path: Path) -> None:
    path = str(kinds.save(tmp_path / "net.tflite", "logit"))
    with pytest.raises(InputError, match=r"gives 1 number a picture .* give --task binary"):
        find_source(path, preprocess="tf")
    network = find_source(path, preprocess="tf", task="binary").network()
    assert network.weights == "net.tflite, a sigmoid added"
    assert network.class_names == ("no", "yes")
    x = np.random.default_rng(0).normal(size=(1, 20, 20, 3)).astype(np.float32)
    plain = kinds.graph("logit")
    logit = Executor(plain, plain.outputs, 1)(x)[0]
    p = Executor(network.graph, network.graph.outputs, 1)(x)[0]
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-logit)), rtol=1e-4)


def test_the_normalisation_of_an_embedding_is_spelt_out_as_litert_computes_it(tmp_path: Path) -> None:
    plain = kinds.graph("normalised")
    network = find_source(str(kinds.save(tmp_path / "net.tflite", "normalised")), preprocess="tf").network()
    x = np.random.default_rng(0).normal(size=(1, 20, 20, 3)).astype(np.float32)
    want, got = (Executor(g, g.outputs, 1)(x)[0] for g in (plain, network.graph))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)
    assert np.linalg.norm(got) == pytest.approx(1, abs=1e-5)


def test_a_vector_that_is_divided_by_its_length_is_an_embedding(tmp_path: Path) -> None:
    b = Builder(1, 8, 8, 3)
    vector = b.mean("image", "vector")
    square = b.op("MUL", [vector, vector], (1, 3), "MulOptions", fusedActivationFunction=0)
    length = b.op("SQRT", [b.mean(square, "summed", axes=(1,), keep=True, kind="SUM")], (1, 1))
    last = b.op("DIV", [vector, length], (1, 3), "DivOptions", fusedActivationFunction=0)
    assert ending_of(b.graph(last)) == "normalised"
    half = b.op("DIV", [vector, b.constant([2.0])], (1, 3), "DivOptions", fusedActivationFunction=0)
    assert ending_of(b.graph(half)) == "linear"


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", ["binary", "labels", "normalised"])
def test_a_file_of_our_own_says_its_task_and_names(kind: str, format: str, tmp_path: Path) -> None:
    names = {"binary": ("cat", "dog"), "labels": ("a", "b", "c", "d"), "normalised": ()}[kind]
    given = tmp_path / "names.txt"
    given.write_text("\n".join(names))
    path = str(kinds.save(tmp_path / "net.tflite", kind))
    network = find_source(path, preprocess="tf", labels=given if names else None).network()
    made = tmp_path / export_graph(network, network.graph, tmp_path, format=format, precision="float32").path
    found = describe(made)
    assert (found.task, found.class_names) == (network.task, names)
    assert classes_in(made)[1] == names
    assert (labels_in(made) or ()) == (("dog",) if kind == "binary" else names)  # one for each number
    if format != "openvino":
        again = find_source(str(made))
        assert (again.task, again.class_names) == (network.task, names)


@pytest.mark.parametrize(("height", "width", "channels"), [(20, 20, 1), (12, 24, 3), (24, 12, 1)])
@pytest.mark.parametrize("how", ["tflite", "onnx"])
def test_grey_pictures_and_such_that_are_no_squares_are_taken(
    height: int, width: int, channels: int, how: str, tmp_path: Path
) -> None:
    path = kinds.save(tmp_path / "net.tflite", "softmax", height=height, width=width, channels=channels)
    first = find_source(str(path), preprocess="tf").network()
    assert first.preprocessing.shape == (height, width, channels)
    assert first.preprocessing.mean == (127.5,) * channels
    if how == "onnx":
        made = export_graph(first, first.graph, tmp_path, format="onnx", precision="float32")
        path = tmp_path / made.path
    network = find_source(str(path), preprocess="tf crop=0").network()
    assert network.preprocessing.shape == (height, width, channels)
    x = np.random.default_rng(0).normal(size=(1, height, width, channels)).astype(np.float32)
    want, got = (Executor(g, g.outputs, 1)(x)[0] for g in (first.graph, network.graph))
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_model_of_grey_pictures_refuses_a_preprocessing_of_colours(tmp_path: Path) -> None:
    path = str(kinds.save(tmp_path / "net.tflite", "softmax", channels=1))
    with pytest.raises(InputError, match="takes grey pictures: give mean as one number"):
        find_source(path, preprocess="torch")
    with pytest.raises(InputError, match="takes grey pictures: leave order and such presets out"):
        find_source(path, preprocess="caffe")
    colours = str(kinds.save(tmp_path / "colours.tflite", "softmax"))
    with pytest.raises(InputError, match="order=grey, but the model takes three channels"):
        find_source(colours, preprocess="tf order=grey")
    grey = find_source(path, preprocess="mean=100 std=50")
    assert grey.preprocessing == Preprocessing(20, (100,), (50,), 3, channel_order="grey")


def two_outputs(path: Path) -> Path:
    """Write an ONNX file with a softmax called `kind` and a sigmoid called `light`."""
    t = TorchStyle()
    x = t.node("Relu", [t.conv("input", 3, 8, 3, 2)])
    kind, light = t.node("Softmax", [t.head(x, 8, 5)], axis=1), t.node("Sigmoid", [t.head(x, 8, 1)])
    t.nodes += [helper.make_node("Identity", [light], ["light"])]
    model = t.model(kind)
    model.graph.output[0].name = model.graph.node[-1].output[0] = "kind"
    model.graph.output.append(helper.make_tensor_value_info("light", TensorProto.FLOAT, ["batch", 1]))
    onnx.save(model, str(path))
    return path


def test_of_several_outputs_of_an_onnx_file_one_is_chosen_by_name(tmp_path: Path) -> None:
    path = str(two_outputs(tmp_path / "net.onnx"))
    with pytest.raises(InputError, match=r"has 2 outputs \(kind, light\); .* choose it, --output NAME"):
        find_source(path, preprocess="torch")
    with pytest.raises(InputError, match=r"none called 'lamp': give --output one of these"):
        find_source(path, preprocess="torch", output="lamp")
    kind, light = (find_source(path, preprocess="torch", output=name) for name in ("kind", "light"))
    assert (kind.task.kind, len(kind.class_names)) == ("classes", 5)
    assert (light.task.kind, light.class_names) == ("binary", ("no", "yes"))
    assert [op.kind for op in light.network().graph.ops].count("SOFTMAX") == 0


def test_of_several_outputs_of_a_tflite_file_one_is_chosen_by_name(tmp_path: Path) -> None:
    graph = kinds.graph("softmax")
    path = tmp_path / "net.tflite"
    path.write_bytes(write_tflite(graph.with_outputs([*graph.outputs, "pooled"]), signature=None))
    with pytest.raises(InputError, match="has 2 outputs"):
        find_source(str(path), preprocess="tf")
    assert find_source(str(path), preprocess="tf", output="pooled").task.kind == "embedding"
    assert find_source(str(path), preprocess="tf", output=graph.outputs[0]).task.kind == "classes"


def test_options_of_model_files_are_refused_for_the_zoo(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--task is for a model file"):
        find_source("efficientnet-lite0", task="labels")
    with pytest.raises(InputError, match="--output is for a model file"):
        find_source("efficientnet-lite0", output="x")
    names = tmp_path / "names.txt"
    names.write_text("a\nb")
    with pytest.raises(InputError, match=r"--labels names classes, and .* gives an embedding"):
        find_source(str(kinds.save(tmp_path / "net.tflite", "normalised")), preprocess="tf", labels=names)
