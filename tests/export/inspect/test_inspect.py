"""inspect: the truth about files whose precision is known because this test made them."""

import dataclasses
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgenet.errors import InputError
from edgenet.export.inspect import inspect, lines, looks_like, multiply_adds
from edgenet.export.inspect.facts import Operator, bits_of, verdict
from edgenet.export.metadata import ClassifierMetadata, append_files, build_metadata
from helpers.damage import refusals, with_metadata

# The tiny network: 16 px, a 3x3 convolution of stride 2 (16), a depthwise 3x3, a pointwise (80) and a dense (16).
MULTIPLY_ADDS = 8 * 8 * 16 * 27 + 8 * 8 * 16 * 9 + 8 * 8 * 80 * 16 + 80 * 16
PARAMETERS = 27 * 16 + 9 * 16 + 16 * 80 + 80 * 16 + 16 + 80
PRECISIONS = ("float32", "float16", "dynamic", "int8", "int16x8")


def _weights():
    rng = np.random.default_rng(0)
    shapes = {"conv": (3, 3, 3, 16), "depthwise": (3, 3, 16, 1), "pointwise": (1, 1, 16, 80), "dense": (80, 16)}
    values = {k: rng.normal(0, 0.2, s).astype(np.float32) for k, s in shapes.items()}
    return values | {k: rng.normal(0, 0.2, n).astype(np.float32) for k, n in (("bias", 16), ("bias2", 80))}


@pytest.fixture(scope="module")
def tflite(tmp_path_factory) -> dict[str, Path]:
    """The tiny network by TensorFlow's converter: precision -> file."""
    tf = pytest.importorskip("tensorflow")
    w = _weights()

    class Net(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, 16, 16, 3), tf.float32, name="image")])
        def __call__(self, x):
            x = tf.nn.relu6(tf.nn.bias_add(tf.nn.conv2d(x, w["conv"], 2, "SAME"), w["bias"]))
            x = tf.nn.relu6(tf.nn.depthwise_conv2d(x, w["depthwise"], (1, 1, 1, 1), "SAME"))
            x = tf.nn.relu6(tf.nn.bias_add(tf.nn.conv2d(x, w["pointwise"], 1, "SAME"), w["bias2"]))
            x = tf.matmul(tf.reduce_mean(x, [1, 2]), w["dense"])
            return {"score": tf.nn.softmax(x)}

    def pictures():
        rng = np.random.default_rng(1)
        for _ in range(4):
            yield [rng.normal(0, 1, (1, 16, 16, 3)).astype(np.float32)]

    net, folder = Net(), tmp_path_factory.mktemp("tflite")
    ops = tf.lite.OpsSet
    wide = ops.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    out = {}
    for precision in (*PRECISIONS, "uint8-io"):
        c = tf.lite.TFLiteConverter.from_concrete_functions([net.__call__.get_concrete_function()], net)
        if precision != "float32":
            c.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            c.target_spec.supported_types = [tf.float16]
        if precision in ("int8", "int16x8", "uint8-io"):
            c.representative_dataset = pictures
            c.target_spec.supported_ops = [wide if precision == "int16x8" else ops.TFLITE_BUILTINS_INT8]
        if precision == "uint8-io":
            c.inference_input_type = c.inference_output_type = tf.uint8
        out[precision] = folder / f"tiny_{precision}.tflite"
        out[precision].write_bytes(c.convert())
    return out


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_converters_precision_is_found_in_the_file(tflite, precision):
    i = inspect(tflite[precision])
    assert (i.format, i.precision) == ("tflite", precision)
    assert not any("calls itself" in w for w in i.warnings)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_multiply_adds_and_parameters_are_the_same_in_every_precision(tflite, precision):
    i = inspect(tflite[precision])
    assert multiply_adds(tflite[precision]) == i.multiply_adds == MULTIPLY_ADDS
    # A converter that folds or adds biases changes the count by those: a bias for each of two layers without one.
    assert i.parameters - PARAMETERS in (0, 16, 32)
    assert i.multiply_adds_by_kind["DEPTHWISE_CONV_2D"] == 8 * 8 * 16 * 9


@pytest.mark.parametrize("precision", PRECISIONS)
def test_sizes_add_up_and_an_inspection_is_json(tflite, precision):
    i = inspect(tflite[precision])
    assert i.weights_bytes + i.graph_bytes + i.files_bytes == i.size_bytes == tflite[precision].stat().st_size
    assert i.weights_bytes > PARAMETERS
    assert json.loads(json.dumps(dataclasses.asdict(i)))["precision"] == precision
    assert sum(n for c in i.operators.values() for n in c.values()) == i.n_operators


def test_full_integer_names_its_operators_scales_and_channels(tflite):
    i = inspect(tflite["int8"])
    assert i.operators["CONV_2D"] == {"int8": 2}
    assert i.operators["QUANTIZE"] == {"convert": 1}
    assert "full integer" in i.why
    assert "float32 input and output" in i.why
    q = i.weight_quantization
    assert q.per_channel >= 3
    assert (q.symmetric, q.bits, q.depthwise_bits, q.activations_symmetric) == (True, 8, 8, False)


def test_input_and_output_carry_name_shape_type_and_scale(tflite):
    i = inspect(tflite["uint8-io"])
    image = i.inputs[0]
    assert (image.shape, image.dtype, i.batch) == ((1, 16, 16, 3), "uint8", 1)
    assert image.scale is not None
    assert i.outputs[0].scale == pytest.approx(1 / 256)
    assert i.outputs[0].zero_point == 0
    assert i.signatures == ("serving_default",)


def test_the_interpreter_agrees_on_scales(tflite):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    detail = litert.Interpreter(str(tflite["uint8-io"])).get_input_details()[0]
    image = inspect(tflite["uint8-io"]).inputs[0]
    assert (image.scale, image.zero_point) == (pytest.approx(detail["quantization"][0]), detail["quantization"][1])


def test_dynamic_range_is_told_from_full_integer_and_its_float_layers_are_named(tflite):
    i = inspect(tflite["dynamic"])
    assert i.operators["CONV_2D"] == {"float32": 1, "dynamic": 1}  # the stem has too few weights for the converter
    assert "CONV_2D" in i.why
    assert "in float32" in i.why


def test_float16_weights_are_expanded_before_use(tflite):
    i = inspect(tflite["float16"])
    assert i.operators["CONV_2D"] == {"float16 weights": 2}
    assert set(i.operators["DEQUANTIZE"]) == {"convert"}
    assert set(i.weight_quantization.dtypes) == {"float16"}


def test_a_name_that_promises_int8_is_contradicted(tflite, tmp_path):
    liar = tmp_path / "net_int8.tflite"
    liar.write_bytes(tflite["dynamic"].read_bytes())
    assert "calls itself int8 in its name, but is dynamic" in inspect(liar).warnings
    (tmp_path / "net_fp16.tflite").write_bytes(tflite["float32"].read_bytes())
    assert "calls itself float16 in its name, but is float32" in inspect(tmp_path / "net_fp16.tflite").warnings


def test_integer_weights_behind_a_dequantize_are_weight_only(tflite, tmp_path):
    """Made from the dynamic-range file: its int8 constants get a DEQUANTIZE between them and their operator."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    tree = schema.ModelT.InitFromPackedBuf(tflite["dynamic"].read_bytes(), 0)
    graph, code = tree.subgraphs[0], schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 2
    tree.operatorCodes.append(code)
    before = []
    for op in graph.operators:
        op.inputs = list(op.inputs)
        for place, t in enumerate(op.inputs):
            if t >= 0 and graph.tensors[t].type == schema.TensorType.INT8:
                expanded, dequantize = schema.TensorT(), schema.OperatorT()
                expanded.shape, expanded.name = graph.tensors[t].shape, graph.tensors[t].name + b"_float"
                expanded.type, expanded.buffer = schema.TensorType.FLOAT32, 0
                graph.tensors.append(expanded)
                dequantize.opcodeIndex = len(tree.operatorCodes) - 1
                dequantize.inputs, dequantize.outputs = [t], [len(graph.tensors) - 1]
                before.append(dequantize)
                op.inputs[place] = len(graph.tensors) - 1
    graph.operators = before + graph.operators
    b = flatbuffers.Builder(1024)
    b.Finish(tree.Pack(b), b"TFL3")
    path = tmp_path / "weight-only.tflite"
    path.write_bytes(bytes(b.Output()))
    i = inspect(path)
    assert i.precision == "weight-only"
    assert i.operators["DEQUANTIZE"] == {"convert": len(before)}
    assert i.multiply_adds == MULTIPLY_ADDS
    assert i.parameters == inspect(tflite["dynamic"]).parameters


def test_seven_bit_weights_are_seen(tflite, tmp_path):
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    tree = schema.ModelT.InitFromPackedBuf(tflite["int8"].read_bytes(), 0)
    for t in tree.subgraphs[0].tensors:
        data = tree.buffers[t.buffer].data
        if t.type == schema.TensorType.INT8 and data is not None:
            tree.buffers[t.buffer].data = (np.asarray(data, np.uint8).view(np.int8) // 2).view(np.uint8)
    b = flatbuffers.Builder(1024)
    b.Finish(tree.Pack(b), b"TFL3")
    path = tmp_path / "seven.tflite"
    path.write_bytes(bytes(b.Output()))
    assert inspect(path).weight_quantization.bits == 7


def test_metadata_labels_normalization_and_provenance_are_shown(tflite, tmp_path):
    says = ClassifierMetadata("Tiny", "d", "3", "Ada", "Apache-2.0", mean=[127.0] * 3, std=[128.0] * 3)
    meta = build_metadata(says)
    about = {"model": "tiny", "precision": "float32", "preprocessing": {"resolution_px": 16}}
    path = tmp_path / "tiny.tflite"
    model = with_metadata(
        tflite["float32"].read_bytes(), {"TFLITE_METADATA": meta, "edgenet": json.dumps(about).encode()}
    )
    path.write_bytes(append_files(model, {"labels.txt": "\n".join(f"class {i}" for i in range(16)).encode()}))
    i = inspect(path)
    assert (i.name, i.metadata["author"], i.metadata["version"], i.metadata["labels"]) == ("Tiny", "Ada", "3", 16)
    assert i.metadata["mean"] == [127.0] * 3
    assert i.edgenet == about
    assert i.files == {"labels.txt": 133}
    assert i.files_bytes > 133
    assert not i.warnings
    shown = dict(lines(i))
    assert shown["metadata, author"] == "Ada"
    assert shown["batch"] == "static, 1"


def test_labels_that_do_not_fit_the_output_or_are_not_there_are_warned_of(tflite, tmp_path):
    meta = build_metadata(ClassifierMetadata("n", "d", "1", "a", "l", mean=[0.0], std=[1.0]))
    model = with_metadata(tflite["float32"].read_bytes(), {"TFLITE_METADATA": meta})
    path = tmp_path / "a.tflite"
    path.write_bytes(append_files(model, {"labels.txt": b"cat\ndog\n"}))
    assert "2 labels for 16 outputs" in inspect(path).warnings
    path.write_bytes(model)
    assert any("labels.txt, which the file does not carry" in w for w in inspect(path).warnings)


def test_no_metadata_is_warned_of(tflite):
    assert any("no TFLite metadata" in w for w in inspect(tflite["float32"]).warnings)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.tflite", b"", "an empty file"),
        ("a.tflite", b"hello, world\n" * 9, "a text file"),
        ("a.tflite", b"\xff\xd8\xff\xe0" + bytes(64), "a JPEG image"),
        ("a.tflite", b"PK\x03\x04" + bytes(64), "a zip archive"),
        ("a.tflite", b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file"),
        ("a.tflite", bytes(64), "a file of zeros"),
        ("a.tflite", b"\x80\x02\x8a\nl\xfc\x9cF", "a pickle"),
        ("a.tflite", b"\x08\x09\x12\x07pytorch" + bytes(64), "an ONNX model"),
        ("a.onnx", b"\x1c\0\0\0TFL3" + bytes(64), "a .tflite model"),
        ("a.onnx", b"not a model", "a text file"),
        ("a.onnx", b"<html><body>404</body></html>", "a web page"),
        ("a.onnx", b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        ("a.onnx", bytes(range(128, 256)), "not an ONNX model"),
        ("a.xml", b"<?xml version='1.0'?><other/>", "XML, but no OpenVINO model"),
        ("a.xml", b"<?xml version='1.0'?><net name='x'>", "damaged or cut short"),
        ("a.xml", b"<net name='x'></net>", "not an OpenVINO model"),
        ("a.keras", b"PK\x03\x04" + bytes(64), "a zip archive"),
        ("a.tflite", b"\x1c\0\0\0TFL3", "damaged or cut short"),
        ("a.tflite", b"\x1c\0\0\0TFL3" + bytes(range(256)), "damaged or cut short"),
    ],
)
def test_what_is_no_model_gets_one_line_that_says_what_it_is(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as e:
        inspect(path)
    assert says in str(e.value)
    assert name in str(e.value)
    assert "\n" not in str(e.value)


def test_no_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        inspect(tmp_path / "gone.tflite")
    with pytest.raises(InputError, match="is a folder"):
        inspect(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"x")
    with pytest.raises(InputError, match="SavedModel"):
        inspect(tmp_path)


def test_a_real_zip_and_a_safetensors_file_are_recognised(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as z:
        z.writestr("config.json", "{}")
    assert "zip archive" in looks_like((tmp_path / "m.keras").read_bytes())
    assert looks_like((2).to_bytes(8, "little") + b"{}") == "a safetensors file"


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_damaged_tflite_file_is_an_input_error_or_a_valid_answer(tflite, tmp_path, precision):
    meta = build_metadata(ClassifierMetadata("n", "d", "1", "a", "l", mean=[0.0], std=[1.0]))
    whole = append_files(
        with_metadata(tflite[precision].read_bytes(), {"TFLITE_METADATA": meta}), {"labels.txt": b"a\nb\n"}
    )
    refused = refusals(whole, tmp_path / "a.tflite", n=300)
    assert refused > 50


def test_a_flatbuffer_with_huge_lists_is_refused_at_once(tflite, tmp_path):
    data = bytearray(tflite["float32"].read_bytes())
    for i in range(0, len(data) - 4, 4):  # whatever could be a length becomes 100 million
        if 0 < int.from_bytes(data[i : i + 4], "little") < 64 and i > 64:
            data[i : i + 4] = (100_000_000).to_bytes(4, "little")
    path = tmp_path / "a.tflite"
    path.write_bytes(bytes(data))
    with pytest.raises(InputError):
        inspect(path)


def test_the_verdict_follows_convolutions_and_names_the_rest():
    conv, soft = Operator("CONV_2D", "int8", 100), Operator("SOFTMAX", "float32")
    precision, why = verdict([conv] * 65 + [soft])
    assert precision == "int8"
    assert why == "full integer; 65 of 66 operators in int8; SOFTMAX in float32"
    precision, why = verdict([conv, conv, Operator("CONV_2D", "float32", 300)])
    assert precision == "mixed"
    assert "2 in int8, 1 in float32" in why
    assert "int8 does 40 % of the multiply-adds" in why
    assert verdict([])[0] == "float32"
    assert verdict([Operator("CONV_2D", "dynamic", 1), Operator("CONV_2D", "float32", 1)])[0] == "dynamic"
    assert verdict([Operator("CONV_2D", "dynamic", 1), Operator("CONV_2D", "int8", 1)])[0] == "mixed"


def test_bits_are_the_smallest_that_hold_the_values():
    assert [bits_of(q) for q in (128, 127, 65, 64, 63, 8, 7, 1)] == [8, 8, 8, 7, 7, 4, 4, 1]


def test_importing_inspect_loads_no_framework():
    code = (
        "import sys, edgenet.export.inspect; "
        "print([m for m in ('tensorflow', 'onnx', 'openvino', 'ai_edge_litert', 'flatbuffers') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
