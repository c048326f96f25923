"""Any model to the one float graph: names of the zoo, Keras files, SavedModels, ONNX and float .tflite files."""

from edgenet.export.importers.find import find_source

__all__ = ["find_source"]
