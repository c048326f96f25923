"""Which version of a TFLite operator a use of it needs, so that a runtime too old for it says so on loading the file.

Source: google-ai-edge/LiteRT, tflite/tools/versioning/op_version.cc. Only operators that edgenet may quantize stand
here; any other keeps the version that its converter gave it.
"""

# kind -> version by the type of its first data input (second for SPLIT): int8, int16
_QUANTIZED = {
    "ADD": (2, 3), "AVERAGE_POOL_2D": (2, 3), "CONCATENATION": (2, 3), "CONV_2D": (3, 4), "DEPTHWISE_CONV_2D": (3, 5),
    "FULLY_CONNECTED": (4, 7), "LEAKY_RELU": (1, 2), "LOGISTIC": (2, 3), "MAXIMUM": (2, 4), "MAX_POOL_2D": (2, 3),
    "MEAN": (2, 3), "MINIMUM": (2, 4), "MUL": (2, 4), "PACK": (2, 3), "PAD": (2, 3), "PADV2": (2, 3), "RELU": (2, 3),
    "RELU6": (2, 3), "SLICE": (2, 4), "SOFTMAX": (2, 3), "SPLIT": (2, 4), "STRIDED_SLICE": (2, 2), "SUB": (2, 5),
    "SUM": (2, 2), "TANH": (2, 3), "TRANSPOSE": (2, 5), "RESIZE_BILINEAR": (2, 4), "RESIZE_NEAREST_NEIGHBOR": (2, 4),
}  # fmt: skip
# Float activations with int8 weights, one scale per channel: the dynamic-range kernels.
_HYBRID = {"CONV_2D": 5, "DEPTHWISE_CONV_2D": 6, "FULLY_CONNECTED": 12}
_FEW_BITS = {"CONV_2D": 7, "FULLY_CONNECTED": 10}  # int8 activations with weights of 4 bits


def op_version(kind: str, data_dtype: str, weight_dtype: str | None, written: int = 1) -> int:
    """Return the version of operator `kind`.

    Args:
        data_dtype: NumPy name of the type of the data that it reads.
        weight_dtype: that of its second input, None where it has none; "INT4" of weights of 4 bits.
        written: the version that the float file gave it, below which the answer never falls.
    """
    if kind == "DEQUANTIZE":
        return 3 if data_dtype in ("int16", "float16") else 1
    if data_dtype == "float32" and weight_dtype == "int8":
        return max(written, _HYBRID.get(kind, 1))
    if data_dtype == "int8" and weight_dtype == "INT4":
        return max(written, _FEW_BITS[kind])
    int8, int16 = _QUANTIZED.get(kind, (1, 1))
    return max(written, {"int8": int8, "int16": int16}.get(data_dtype, 1))
