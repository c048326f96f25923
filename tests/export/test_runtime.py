"""export/runtime.py: one small network as .tflite, .onnx and OpenVINO IR, against the same sum in NumPy."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgenet.export import runtime
from edgenet.export.runtime import LoadError, MissingRuntime

H, W, CLASSES = 12, 16, 5  # not square: a swapped axis shows
RNG = np.random.default_rng(0)
KERNEL = RNG.normal(0, 0.5, (3, 3, 3, 8)).astype(np.float32)  # HWIO
DENSE = RNG.normal(0, 0.7, (8, CLASSES)).astype(np.float32)
PIXELS = RNG.integers(0, 256, (11, H, W, 3), dtype=np.uint8)
FLOATS = ((PIXELS.astype(np.float32) - 127) / 128).astype(np.float32)


def reference(x):
    """conv 3x3 VALID, ReLU, mean, dense, softmax: (N, H, W, 3) float32 -> (N, CLASSES)."""
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (3, 3), axis=(1, 2))
    y = np.maximum(np.einsum("nhwcij,ijco->nhwo", windows, KERNEL), 0).mean((1, 2)) @ DENSE
    e = np.exp(y - y.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def tflite_file(path, batch=1, io=None, names=False):
    import tensorflow as tf

    class Net(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((batch, H, W, 3), tf.float32, name="image")])
        def __call__(self, x):
            y = tf.nn.relu(tf.nn.conv2d(x, KERNEL, 1, "VALID"))
            logits = tf.matmul(tf.reduce_mean(y, (1, 2)), DENSE)
            p = tf.nn.softmax(logits)
            return {"aaa_logits": logits, "probabilities": p} if names else p

    net = Net()
    if names:  # only from a SavedModel does the converter write a signature
        saved = path.with_suffix("")
        tf.saved_model.save(net, str(saved))
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
    else:
        converter = tf.lite.TFLiteConverter.from_concrete_functions([net.__call__.get_concrete_function()], net)
    if io is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        # The extremes are in the set, so that the scale is 1/128 and raw pixels are the integers.
        ends = [np.full((1, H, W, 3), v, np.float32) for v in (-127 / 128, 1.0)]
        converter.representative_dataset = lambda: ([x] for x in [*ends, *(f[None] for f in FLOATS)])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = getattr(tf, io)
    path.write_bytes(converter.convert())
    return path


def onnx_file(path, batch=1, uint8=False):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    constant = numpy_helper.from_array
    constants = [
        constant(np.ascontiguousarray(KERNEL.transpose(3, 2, 0, 1)), "kernel"),
        constant(DENSE, "dense"),
        constant(np.array([2, 3], np.int64), "axes"),
        constant(np.float32(127), "mean"),
        constant(np.float32(128), "std"),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["raw"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["raw", "mean"], ["shifted"]),
        helper.make_node("Div", ["shifted", "std"], ["x"]),
    ]
    nodes = (nodes if uint8 else []) + [
        helper.make_node("Conv", ["x" if uint8 else "image", "kernel"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("ReduceMean", ["r", "axes"], ["m"], keepdims=0),
        helper.make_node("MatMul", ["m", "dense"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    kind = TensorProto.UINT8 if uint8 else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", kind, [batch, 3, H, W])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, CLASSES]) for n in ("logits", "probabilities")],
        constants if uint8 else constants[:3],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def openvino_file(path, batch=1):
    import openvino as ov
    from openvino import opset13 as ops

    x = ops.parameter([batch, 3, H, W], np.float32, name="image")
    kernel = ops.constant(np.ascontiguousarray(KERNEL.transpose(3, 2, 0, 1)))
    y = ops.relu(ops.convolution(x, kernel, [1, 1], [0, 0], [0, 0], [1, 1]))
    logits = ops.matmul(ops.reduce_mean(y, ops.constant([2, 3]), False), ops.constant(DENSE), False, False)
    p = ops.softmax(logits, 1)
    x.output(0).set_names({"image"})
    logits.output(0).set_names({"logits"})
    p.output(0).set_names({"probabilities"})
    ov.save_model(ov.Model([logits, p], [x], "net"), str(path), compress_to_fp16=False)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    d = tmp_path_factory.mktemp("models")
    return {
        "tflite": tflite_file(d / "float.tflite"),
        "tflite-named": tflite_file(d / "named.tflite", names=True),
        "tflite-dynamic": tflite_file(d / "dynamic.tflite", batch=None),
        "tflite-batch4": tflite_file(d / "batch4.tflite", batch=4),
        "tflite-uint8": tflite_file(d / "uint8.tflite", io="uint8"),
        "tflite-int8": tflite_file(d / "int8.tflite", io="int8"),
        "onnx": onnx_file(d / "float.onnx"),
        "onnx-dynamic": onnx_file(d / "dynamic.onnx", batch="N"),
        "onnx-batch4": onnx_file(d / "batch4.onnx", batch=4),
        "onnx-uint8": onnx_file(d / "uint8.onnx", uint8=True),
        "openvino": openvino_file(d / "float.xml"),
        "openvino-dynamic": openvino_file(d / "dynamic.xml", batch=-1),
        "openvino-batch4": openvino_file(d / "batch4.xml", batch=4),
    }


FLOAT_FILES = [f + b for f in ("tflite", "onnx", "openvino") for b in ("", "-dynamic", "-batch4")] + ["tflite-named"]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", FLOAT_FILES)
def test_every_format_and_batch_gives_what_numpy_gives(files, name, threads):
    p = runtime.load(files[name], threads)
    for n in (11, 1, 4, 0, 11):  # up and down again: an open batch is resized
        out = p.predict(FLOATS[:n])
        assert out.shape == (n, CLASSES)
        assert out.dtype == np.float32
        np.testing.assert_allclose(out, reference(FLOATS[:n]), atol=2e-6)
    p.close()


@pytest.mark.parametrize(
    ("name", "ran_by", "layout", "shape"),
    [
        ("tflite", "litert", "NHWC", (1, H, W, 3)),
        ("tflite-dynamic", "litert", "NHWC", (-1, H, W, 3)),
        ("onnx-dynamic", "onnxruntime", "NCHW", (-1, 3, H, W)),
        ("onnx", "onnxruntime", "NCHW", (1, 3, H, W)),
        ("openvino-dynamic", "openvino", "NCHW", (-1, 3, H, W)),
    ],
)
def test_a_predictor_tells_what_the_file_takes_and_who_runs_it(files, name, ran_by, layout, shape):
    p = runtime.load(str(files[name]))
    assert (p.runtime, p.layout, p.input_shape, p.size_px) == (ran_by, layout, shape, (H, W))
    assert p.io_dtype == "float32"
    assert p.version[0].isdigit()
    assert p.delegate == ("XNNPACK" if ran_by == "litert" else "")


@pytest.mark.parametrize("name", ["tflite-named", "onnx", "openvino"])
def test_of_several_outputs_probabilities_is_the_one(files, name):
    p = runtime.load(files[name])
    assert sorted(p.output_names)[-1] == "probabilities"
    assert len(p.output_names) == 2
    assert p.output.name == "probabilities"
    np.testing.assert_allclose(p.predict(FLOATS[:2]).sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("io", ["uint8", "int8"])
def test_quantized_files_take_raw_pixels_and_give_floats(files, io):
    p = runtime.load(files[f"tflite-{io}"], threads=2)
    assert p.io_dtype == io
    assert p.input.scale == pytest.approx(1 / 128, rel=0.01)
    out = p.predict(PIXELS)
    assert out.dtype == np.float32
    # A softmax in 8 bits has steps of 1/256; three of them cover the quantized weights of so small a network.
    assert np.abs(out - reference(FLOATS)).max() < 3.5 / 256
    steps = out / p.output.scale
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)


def test_int8_and_uint8_files_agree_on_the_same_pixels_and_int8_is_the_pixel_less_128(files):
    out_uint8 = runtime.load(files["tflite-uint8"]).predict(PIXELS)
    p = runtime.load(files["tflite-int8"])
    np.testing.assert_array_equal(p.predict(PIXELS), out_uint8)
    np.testing.assert_array_equal(p.prepare(PIXELS), (PIXELS.astype(np.int16) - 128).astype(np.int8))
    np.testing.assert_array_equal(p.predict(p.prepare(PIXELS)), out_uint8)


def test_floats_for_a_quantized_input_are_rounded_to_its_scale(files):
    p = runtime.load(files["tflite-int8"])
    q = np.clip(np.rint(FLOATS / p.input.scale) + p.input.zero_point, -128, 127)
    np.testing.assert_array_equal(p.prepare(FLOATS), q.astype(np.int8))
    np.testing.assert_array_equal(p.prepare(np.full((1, H, W, 3), 99, np.float32)), 127)


def test_an_onnx_file_with_raw_input_takes_pixels_and_refuses_floats(files):
    p = runtime.load(files["onnx-uint8"])
    np.testing.assert_allclose(p.predict(PIXELS), reference(FLOATS), atol=2e-6)
    with pytest.raises(ValueError, match="takes uint8, was given float32"):
        p.predict(FLOATS)


@pytest.mark.parametrize("name", ["tflite", "onnx", "openvino"])
@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (PIXELS, "takes float32, was given uint8"),
        (FLOATS.astype(np.float64), "was given float64"),
        (FLOATS[:, :-1], "takes images of 12 x 16 x 3"),
        (FLOATS.transpose(0, 3, 1, 2), "takes images of 12 x 16 x 3"),
        (FLOATS[0], "takes images of 12 x 16 x 3"),
        (FLOATS[:0, :-1], "takes images of 12 x 16 x 3"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(files, name, batch, said):
    with pytest.raises(ValueError, match=said):
        runtime.load(files[name]).predict(batch)


@pytest.mark.parametrize("name", ["tflite", "tflite-dynamic", "onnx", "onnx-dynamic", "openvino", "openvino-dynamic"])
def test_invoke_computes_what_was_set(files, name):
    p = runtime.load(files[name])
    p.set_input(FLOATS[3:4])
    p.invoke()
    p.invoke()
    np.testing.assert_allclose(p._backend.get_output(p._output), reference(FLOATS[3:4]), atol=2e-6)


def test_the_input_is_copied_so_that_the_caller_may_reuse_the_array(files):
    p = runtime.load(files["openvino"])
    x = FLOATS[:1].copy()
    p.set_input(x)
    x[:] = 0
    p.invoke()
    np.testing.assert_allclose(p._backend.get_output(p._output), reference(FLOATS[:1]), atol=2e-6)


@pytest.mark.parametrize("name", ["tflite", "onnx"])
def test_openvino_reads_the_other_formats_when_asked(files, name):
    p = runtime.load(files[name], runtime="openvino")
    assert p.runtime == "openvino"
    np.testing.assert_allclose(p.predict(FLOATS), reference(FLOATS), atol=2e-6)


@pytest.mark.parametrize("suffix", [".tflite", ".onnx", ".xml"])
@pytest.mark.parametrize("content", [b"", b"hello", None])
def test_a_broken_file_is_one_clear_line(files, tmp_path, suffix, content):
    whole = {".tflite": "tflite", ".onnx": "onnx", ".xml": "openvino"}[suffix]
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(files[whole].read_bytes()[:400] if content is None else content)
    with pytest.raises(LoadError) as e:
        runtime.load(path)
    assert str(path) in str(e.value)
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 500


def test_an_ir_without_its_weights_is_a_load_error(files, tmp_path):
    path = tmp_path / "alone.xml"
    path.write_bytes(files["openvino"].read_bytes())
    with pytest.raises(LoadError, match=r"alone\.xml"):
        runtime.load(path)


def test_wrong_names_are_refused_with_the_valid_ones(files, tmp_path):
    with pytest.raises(LoadError, match="no such file"):
        runtime.load(tmp_path / "none.tflite")
    with pytest.raises(LoadError, match=r"valid: \.onnx, \.tflite, \.xml"):
        runtime.load(tmp_path / "model.h5")
    with pytest.raises(LoadError, match="valid: litert, onnxruntime, openvino"):
        runtime.load(files["onnx"], runtime="tensorrt")
    with pytest.raises(LoadError, match=r"onnxruntime does not read \.tflite files"):
        runtime.load(files["tflite"], runtime="onnxruntime")


def test_a_model_that_takes_no_image_is_refused(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    def save(name, shapes):
        inputs = [helper.make_tensor_value_info(f"i{k}", TensorProto.FLOAT, s) for k, s in enumerate(shapes)]
        out = helper.make_tensor_value_info("o", TensorProto.FLOAT, shapes[0])
        nodes = [helper.make_node("Sum", [i.name for i in inputs], ["o"])]
        graph = helper.make_graph(nodes, "g", inputs, [out])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    with pytest.raises(LoadError, match="no image"):
        runtime.load(save("flat.onnx", [[1, 100]]))
    with pytest.raises(LoadError, match="takes 2 inputs"):
        runtime.load(save("two.onnx", [[1, 3, 8, 8]] * 2))


@pytest.mark.parametrize(
    ("modules", "name", "said"),
    [
        (["ai_edge_litert", "tflite_runtime"], "m.tflite", r"edgenet\[tflite\]"),
        (["onnxruntime"], "m.onnx", r"edgenet\[onnx\]"),
        (["openvino"], "m.xml", r"edgenet\[openvino\]"),
    ],
)
def test_a_missing_runtime_names_what_to_install(monkeypatch, tmp_path, modules, name, said):
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.setitem(sys.modules, f"{module}.interpreter", None)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(MissingRuntime, match=said):
        runtime.load(tmp_path / name)


def test_the_module_needs_neither_edgenet_nor_a_new_python(files, tmp_path):
    source = Path(runtime.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 9))
    roots = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    runtimes = {"ai_edge_litert", "tflite_runtime", "onnxruntime", "openvino"}
    assert roots - runtimes - {"numpy", "__future__"} <= set(sys.stdlib_module_names)
    copy = tmp_path / "runtime.py"
    copy.write_text(source)
    code = (
        f"import sys, runtime; p = runtime.load({str(files['tflite'])!r}); print('edgenet' in sys.modules, p.runtime)"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "litert"]
