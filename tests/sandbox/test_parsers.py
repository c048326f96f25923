"""Who parses a stranger's file: readers that run in a child, and nobody else."""

import ast

from test_architecture import MODULES, tree

PARSERS = {
    "onnx.load", "onnx.load_model", "onnx.load_model_from_string", "onnx.load_from_string", "h5py.File", "load_model",
    "saved_model.load", "load_checkpoint", "read_tflite", "load_onnx", "ElementTree.parse", "ElementTree.fromstring",
    "tflite_facts", "onnx_facts", "openvino_facts", "loadmat",
}  # fmt: skip
IN_A_CHILD = {
    "edgenet.export.foreign.readers", "edgenet.export.importers.keras_file", "edgenet.export.importers.saved_model",
    "edgenet.export.importers.onnx_importer", "edgenet.export.importers.labels", "edgenet.export.inspect.onnx",
    "edgenet.export.inspect.openvino", "edgenet.export.inspect.tflite", "edgenet.export.inspect.read",
    "edgenet.models.checkpoints", "edgenet.device_bench.roofline.operator_times", "edgenet.export.tensorflow_runtime",
    "edgenet.images.official.mat_file",
}  # fmt: skip
# These read what edgenet has just made itself.
OWN = {
    "edgenet.export.network": "what TensorFlow's converter gave, in the child",
    "edgenet.device_bench.micro.interpreter": "a child: the model, which operators.py has checked",
    "edgenet.device_bench.rknn.toolkit": "a child of another interpreter: the file that adapt.py wrote",
    "edgenet.library.pytorch": "what torch.onnx.export wrote of a module of this process",
}


def test_no_parser_is_called_outside_of_a_child() -> None:
    found: dict[str, set[str]] = {}
    for name in MODULES:
        for node in ast.walk(tree(name)):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if any(called == p or called.endswith(f".{p}") for p in PARSERS):
                found.setdefault(name, set()).add(called)
    strangers = {name: calls for name, calls in found.items() if name not in IN_A_CHILD and name not in OWN}
    assert strangers == {}
    assert set(OWN) <= set(found)
