"""What is said of a model file, whatever its format: the nouns alone, which need no NumPy."""

from dataclasses import dataclass
from typing import Any

from edgenet.results.tensor_info import TensorInfo


@dataclass(frozen=True)
class WeightQuantization:
    """How the weights of convolutions and dense layers are quantized.

    Attributes:
        dtypes: how many tensors are stored in which type, quantized or not.
        per_channel, per_tensor: how many tensors have a scale for each channel, or one.
        symmetric: whether every zero point is 0.
        bits: the bits that the values really use: the smallest b with all |q| <= 2^(b-1). An int8 file whose weights
            stay within 64 has 7-bit weights. Depthwise weights are left out, see the next.
        depthwise_bits: the same of depthwise convolutions, which 7-bit schemes leave at 8: their few products of one
            channel do not overflow.
        saturates: whether some pair of neighbours is so large that its products with uint8 may not fit into 16 bits, in
            which x86 without VNNI adds them; None where that could not be told.
        activations_symmetric: whether every activation's zero point is 0, None where activations are not quantized.
    """

    dtypes: dict[str, int]
    per_channel: int
    per_tensor: int
    symmetric: bool | None
    bits: int | None
    depthwise_bits: int | None
    activations_symmetric: bool | None
    saturates: bool | None = None


@dataclass(frozen=True)
class Inspection:
    """What a model file is, by its own content. `dataclasses.asdict` of it is JSON-able."""

    path: str
    format: str  # tflite | onnx | openvino
    name: str
    precision: str  # float32 | float16 | dynamic | weight-only | int8 | int16x8 | int4 | mixed
    why: str
    operators: dict[str, dict[str, int]]  # kind -> precision -> how many
    n_operators: int
    weight_quantization: WeightQuantization
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    batch: int | None  # None where it is dynamic
    parameters: int
    multiply_adds: int  # of one inference: what the EfficientNet paper calls FLOPS
    multiply_adds_by_kind: dict[str, int]
    size_bytes: int
    weights_bytes: int
    graph_bytes: int
    files_bytes: int
    files: dict[str, int]
    metadata: dict[str, Any]
    edgenet: dict[str, Any] | None
    signatures: tuple[str, ...]
    versions: dict[str, str]
    warnings: tuple[str, ...]
