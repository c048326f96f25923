"""One small network as a file of each format."""

import numpy as np
import pytest

from edgenet.device_bench import timing
from helpers.small_nets import DENSE, KERNEL, PX


@pytest.fixture
def forked(monkeypatch):
    """For what `bench` makes of many workers, one a round: they are forked, and led in by one run and not for 0.1 s."""
    monkeypatch.setattr(timing, "_LEAD_NS", 1)
    monkeypatch.setattr(timing, "_FRESH_LEAD_NS", 1)


@pytest.fixture(scope="session")
def tflite(tmp_path_factory):
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((1, PX, PX, 3), tf.float32)])
    def net(x):
        y = tf.nn.relu(tf.nn.conv2d(x, KERNEL, 1, "SAME"))
        return tf.nn.softmax(tf.matmul(tf.reduce_mean(y, (1, 2)), DENSE))

    path = tmp_path_factory.mktemp("models") / "net.tflite"
    converter = tf.lite.TFLiteConverter.from_concrete_functions([net.get_concrete_function()])
    path.write_bytes(converter.convert())
    return path


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", "dense"], ["l"]),
        helper.make_node("Softmax", ["l"], ["probabilities"]),
    ]
    constants = [
        numpy_helper.from_array(np.ascontiguousarray(KERNEL.transpose(3, 2, 0, 1)), "kernel"),
        numpy_helper.from_array(DENSE, "dense"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, PX, PX])
    out = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, 7])
    graph = helper.make_graph(nodes, "net", [image], [out], constants)
    path = tmp_path_factory.mktemp("models") / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture(scope="session")
def ir(onnx_file):
    import openvino as ov

    path = onnx_file.with_suffix(".xml")
    ov.save_model(ov.convert_model(onnx_file), str(path), compress_to_fp16=False)
    return path
