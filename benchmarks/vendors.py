"""The vendors' own quantizers, each as its documentation calls it, for the benchmarks to stand beside.

    TFLiteConverter      https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/post_training_quantization
    ai-edge-quantizer    https://github.com/google-ai-edge/ai-edge-quantizer (README, static_wi8_ai8)
    onnxruntime          https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    nncf                 https://docs.openvino.ai/2026/openvino-workflow/model-optimization-guide/quantizing-models-post-training.html

Every function takes the calibration pictures as an array, (N, H, W, 3) float32, normalised, and writes one file.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


@contextmanager
def silence() -> Iterator[None]:
    """Send all that Python and native code print, and log, to nowhere while the block runs."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        sys.stdout.flush()
        sys.stderr.flush()
        for fd, copy in enumerate(saved, start=1):
            os.dup2(copy, fd)
            os.close(copy)


def keras_model(model_name: str, *, logits: bool = False) -> Any:
    """Return the training form with its pretrained weights as a tf-keras model.

    Args:
        logits: end before the softmax.
    """
    from edgenet.frameworks import keras
    from edgenet.models import weights, zoo
    from edgenet.models.efficientnet import build, set_weights

    spec = zoo.spec(model_name)
    model = build(spec)
    set_weights(model, weights.load(spec).arrays)
    return keras().Model(model.inputs, model.get_layer("classifier").output) if logits else model


def tflite_converter(model: Any, precision: str, pictures: np.ndarray, path: Path) -> Path:
    """Write a Keras model in float32, float16 or int8 (full integer, float32 input and output)."""
    from edgenet.frameworks import tensorflow

    tf = tensorflow()

    def representative_dataset() -> Iterator[list[Any]]:
        for i in range(len(pictures)):
            yield [pictures[i : i + 1]]

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        converter.representative_dataset = representative_dataset
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    path.write_bytes(converter.convert())
    return path


def ai_edge_quantizer(float_tflite: Path, pictures: np.ndarray, path: Path) -> Path:
    """Write a float .tflite with a signature in int8, by the recipe static_wi8_ai8."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    signatures = Interpreter(model_path=str(float_tflite)).get_signature_list()
    key = next(iter(signatures))
    name = signatures[key]["inputs"][0]
    q = quantizer.Quantizer(str(float_tflite), recipe.static_wi8_ai8())
    statistics = q.calibrate({key: [{name: pictures[i : i + 1]} for i in range(len(pictures))]})
    q.quantize(statistics).export_model(path, overwrite=True)
    return path


def quantize_static(float_onnx: Path, pictures: np.ndarray, path: Path, **settings: Any) -> Path:
    """Write a float .onnx in int8, pre-processed as the documentation asks; `settings` replace the defaults."""
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    first = onnxruntime.InferenceSession(str(float_onnx), providers=["CPUExecutionProvider"]).get_inputs()[0]
    nchw = first.shape[1] == 3

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = iter(pictures.transpose(0, 3, 1, 2) if nchw else pictures)

        def get_next(self) -> dict[str, np.ndarray] | None:
            row = next(self.rows, None)
            return None if row is None else {first.name: np.ascontiguousarray(row[None])}

    prepared = path.with_name(f"{path.stem}_prepared.onnx")
    quant_pre_process(str(float_onnx), str(prepared), skip_symbolic_shape=True)  # for transformers, and needs sympy
    quantize_static(str(prepared), str(path), Reader(), **settings)
    prepared.unlink()
    return path


def onnxruntime_advice(vnni: bool) -> dict[str, Any]:
    """Return what the docstring of quantize_static advises for accuracy on x86, beyond its defaults."""
    from onnxruntime.quantization import QuantType

    return {
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QInt8,
        "per_channel": True,
        "reduce_range": not vnni,
    }


def nncf_quantize(model: Any, pictures: np.ndarray, path: Path, **settings: Any) -> Path:
    """Write an OpenVINO model (NCHW or NHWC) in int8; `settings` replace the defaults of nncf.quantize."""
    import nncf
    import openvino

    nchw = model.inputs[0].get_partial_shape()[1] == 3

    def transform(row: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray((row.transpose(2, 0, 1) if nchw else row)[None])

    quantized = nncf.quantize(model, nncf.Dataset(list(pictures), transform), **settings)
    openvino.save_model(quantized, path)
    return path


def nncf_advice() -> dict[str, Any]:
    """Return nncf's settings for accuracy: the slower bias correction, weights of 7 bits everywhere."""
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    advanced = AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE)
    return {"fast_bias_correction": False, "advanced_parameters": advanced}
