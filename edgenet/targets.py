"""The targets: what a chip and its runtimes do with INT8 arithmetic, one row of facts each.

A file's integers do not fix its accuracy: x86 without VNNI multiplies u8 by s8 with `pmaddubsw`, which adds two
products in 16 bits and saturates, so that OpenVINO and onnxruntime silently cut large sums of full-range weights. 7-bit
weights never reach the limit, 255 * 64 * 2 = 32640 <= 32767, nor do two that come to 128 together, 100 and 28 say.
XNNPACK, which runs .tflite, is exact everywhere.

Sources:
    https://oneapi-src.github.io/oneDNN/dev_guide_int8_computations.html (OpenVINO's kernels)
    https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html ("When and why ... U8U8?")
    https://github.com/google/XNNPACK, src/qs8-gemm (products widened to 32 bits; weights never are -128)
    https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec
    https://coral.ai/docs/edgetpu/models-intro/#supported-operations
    onnxruntime-qnn 2.6.0 with ai-edge-litert 2.3.0 (the operators that its plugin takes in INT8 for SM8750)
    Vela 5.2, ethosu/vela/tflite_supported_operators.py (`vela --supported-ops-report` writes it as a table)
"""

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from edgenet.errors import InputError

# INT8 arithmetic: how the products of a dot product are added up.
EXACT = "exact 32-bit"
SATURATING = "saturating 16-bit u8*s8"
DOT_PRODUCT = "dot product"  # four products into 32 bits, exact: VNNI's vpdpbusd, Arm's sdot
I8MM = "i8mm"  # 2x8 by 8x2 matrices into 32 bits, exact: Arm's smmla

FORMATS = ("tflite", "onnx", "openvino")
# The formats whose runtime uses the u8*s8 instruction where there is no exact one.
SATURATING_FORMATS = ("onnx", "openvino")
FULL_BITS, SAFE_BITS = 8, 7
# The largest sum of two weights whose products are added in 16 bits: 255 * 128 = 32640 <= 32767.
PAIR_LIMIT = 128
AUTO = "auto"

# What the Edge TPU compiler maps to the chip, in TFLite's names, with what it demands beyond int8.
EDGE_TPU_OPERATORS = {
    "ADD": "", "SUB": "", "MUL": "", "MAXIMUM": "", "MINIMUM": "", "SQUARED_DIFFERENCE": "", "RSQRT": "",
    "RELU": "", "RELU6": "", "RELU_N1_TO_1": "", "LOGISTIC": "", "TANH": "", "L2_NORMALIZATION": "",
    "PRELU": "alpha has one dimension", "QUANTIZE": "", "RESHAPE": "not all reshapes of large tensors", "SQUEEZE": "",
    "EXPAND_DIMS": "", "SLICE": "", "SPLIT": "no split of the batch", "SPACE_TO_DEPTH": "", "TRANSPOSE": "",
    "CONV_2D": "the same dilation in x and y", "DEPTHWISE_CONV_2D": "no dilation", "TRANSPOSE_CONV": "",
    "FULLY_CONNECTED": "default weight format, one scale for all weights; the output has one dimension but the batch",
    "AVERAGE_POOL_2D": "no fused activation", "MAX_POOL_2D": "no fused activation",
    "MEAN": "over x and y, never over the batch", "SUM": "", "REDUCE_MAX": "never over the batch",
    "REDUCE_MIN": "never over the batch", "CONCATENATION": "no fused activation", "PACK": "not along the batch",
    "PAD": "not of the batch", "RESIZE_BILINEAR": "not all sizes, to keep precision", "RESIZE_NEAREST_NEIGHBOR": "",
    "SOFTMAX": "one dimension, at most 16,000 numbers", "STRIDED_SLICE": "strides of 1, no ellipsis, no new axis",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "",
}  # fmt: skip
# What Vela puts on the NPU; what it does not stays on the Cortex-M.
ETHOS_U_OPERATORS = {
    "ADD": "", "SUB": "", "MUL": "", "MAXIMUM": "inputs and output share scale and zero point",
    "MINIMUM": "inputs and output share scale and zero point", "SQUARED_DIFFERENCE": "", "ABS": "", "RSQRT": "",
    "EXP": "", "CONV_2D": "constant weights; dilated kernel height at most 64", "TRANSPOSE_CONV": "strides of 1 or 2",
    "DEPTHWISE_CONV_2D": "strides of 1 to 3; a depth multiplier only on one channel",
    "FULLY_CONNECTED": "constant weights", "AVERAGE_POOL_2D": "with padding at most 8x8",
    "MAX_POOL_2D": "at most 256x256",
    "MEAN": "at most 4096 in a reduced axis", "SUM": "", "ARG_MAX": "over channels",
    "RESIZE_BILINEAR": "powers of two", "RESIZE_NEAREST_NEIGHBOR": "powers of two",
    "PAD": "", "MIRROR_PAD": "", "RELU": "", "RELU6": "", "RELU_N1_TO_1": "", "RELU_0_TO_1": "", "TANH": "",
    "LOGISTIC": "", "SOFTMAX": "", "HARD_SWISH": "", "LEAKY_RELU": "", "PRELU": "", "QUANTIZE": "", "RESHAPE": "",
    "SQUEEZE": "",
    "EXPAND_DIMS": "", "TRANSPOSE": "", "CONCATENATION": "", "PACK": "", "SPLIT": "", "SPLIT_V": "",
    "STRIDED_SLICE": "strides of 1", "SLICE": "", "UNPACK": "", "SHAPE": "", "UNIDIRECTIONAL_SEQUENCE_LSTM": "",
}  # fmt: skip

# What LiteRT's plugin for Qualcomm puts on a Hexagon NPU; what it does not stays on the phone's CPU.
HEXAGON_OPERATORS = dict.fromkeys((
    "ABS", "ADD", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CAST", "CEIL", "CONCATENATION", "CONV_2D", "COS",
    "DEPTHWISE_CONV_2D", "DEQUANTIZE", "DIV", "EQUAL", "EXP", "FULLY_CONNECTED", "GATHER", "GELU", "GREATER",
    "GREATER_EQUAL", "HARD_SWISH", "LEAKY_RELU", "LESS", "LESS_EQUAL", "LOGISTIC", "LOG_SOFTMAX", "MAXIMUM",
    "MAX_POOL_2D", "MEAN", "MINIMUM", "MIRROR_PAD", "MUL", "NOT_EQUAL", "PACK", "PAD", "PADV2", "PRELU", "QUANTIZE",
    "REDUCE_MAX", "RELU", "RELU6", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "RSQRT", "SELECT_V2",
    "SIGN", "SIN", "SLICE", "SOFTMAX", "SPLIT", "SQRT", "SQUARED_DIFFERENCE", "SQUEEZE", "STRIDED_SLICE", "SUB", "SUM",
    "TANH", "TRANSPOSE", "TRANSPOSE_CONV",
), "")  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A chip with its runtimes: the facts that decide how a network is quantized for it.

    `formats` are those that run there, the recommended one first. `activation_types` are the types in which a .tflite's
    activations are computed as integers (int16 with 8-bit weights on a CPU works, by kernels without SIMD). `operators`
    maps what the accelerator runs to what it demands; None where a CPU runs everything.
    """

    name: str
    what: str
    arithmetic: str  # EXACT, SATURATING, DOT_PRODUCT or I8MM
    formats: tuple[str, ...] = FORMATS
    activation_types: tuple[str, ...] = ("int8", "int16")
    per_channel: bool = True  # weights of convolutions
    dense_per_channel: bool = True  # weights of dense layers: kernels older than LiteRT 1.0 take one scale
    io_dtype: str = "float32"
    accelerator: bool = False
    operators: Mapping[str, str] | None = field(default=None, repr=False)
    precisions: tuple[str, ...] = ()  # of the files that are for it; all where it is empty
    note: str = ""

    @property
    def saturating_formats(self) -> tuple[str, ...]:
        """The formats whose INT8 sums can saturate here."""
        return tuple(f for f in self.formats if f in SATURATING_FORMATS and self.arithmetic == SATURATING)


def _table(*rows: Target) -> dict[str, Target]:
    return {row.name: row for row in rows}


_PHONE = ("tflite", "onnx")
TARGETS = _table(
    Target("pixel-4", "Snapdragon 855: Cortex-A76 and A55, Armv8.2", DOT_PRODUCT, _PHONE, io_dtype="uint8"),
    Target("pixel-8", "Tensor G3: Cortex-X3, A715 and A510, Armv9", I8MM, _PHONE, io_dtype="uint8"),
    Target(
        "raspberry-pi-4", "BCM2711: Cortex-A72, Armv8.0, no dot product", EXACT, dense_per_channel=False,
        io_dtype="uint8", note="boards with tflite-runtime 2.14 take dense weights with one scale only",
    ),
    Target("raspberry-pi-5", "BCM2712: Cortex-A76, Armv8.2", DOT_PRODUCT, io_dtype="uint8"),
    Target(
        "coral", "Edge TPU", EXACT, ("tflite",), ("int8",), dense_per_channel=False, io_dtype="uint8", accelerator=True,
        operators=EDGE_TPU_OPERATORS, precisions=("int8",),
        note="edgetpu_compiler has to compile the file; what it does not map runs on the CPU",
    ),
    Target(
        "ethos-u55", "Arm microNPU beside a Cortex-M", EXACT, ("tflite",), io_dtype="int8", accelerator=True,
        operators=ETHOS_U_OPERATORS, precisions=("int8", "int16x8"),
        note="vela has to compile the file; what it does not map runs on the Cortex-M",
    ),
    Target(
        "phone-npu", "NPUs of MediaTek, Google, Samsung and Intel, by LiteRT's plugins", EXACT, ("tflite",), ("int8",),
        io_dtype="uint8", precisions=("int8",), note="the vendor's SDK has to compile the file",
    ),
    Target(
        "rockchip", "Rockchip's NPU: RK3588, RK3576, RK3566, RV1103, ...", EXACT, ("onnx",), ("int8",),
        io_dtype="uint8", precisions=("int8",),
    ),
    Target(
        "microcontroller", "Cortex-M, RISC-V, Xtensa: TensorFlow Lite for Microcontrollers", EXACT, ("tflite",),
        io_dtype="int8", precisions=("float32", "weight-only", "int8", "int16x8"),
        note="memory decides: the arena in RAM, the file in flash",
    ),
    Target(
        "hexagon", "NPU of Snapdragons: Hexagon v68 and later", EXACT, _PHONE, ("int8",), io_dtype="uint8",
        accelerator=True, operators=HEXAGON_OPERATORS, precisions=("int8",),
        note="Qualcomm's compiler has to compile the file; what it does not map runs on the phone's CPU",
    ),
    Target(
        "x86-avx2", "x86-64 with AVX2 or AVX-512, without VNNI", SATURATING, ("openvino", "tflite", "onnx"),
        note="OpenVINO and onnxruntime add u8*s8 products in saturating 16 bits: 8-bit weights lose accuracy silently",
    ),
    Target("x86-vnni", "x86-64 with AVX-VNNI or AVX-512 VNNI", DOT_PRODUCT, ("openvino", "tflite", "onnx")),
    # A file that may run anywhere runs on x86 without VNNI too.
    Target("generic", "any CPU", SATURATING, note="not known to be exact, so treated as x86 without VNNI"),
)  # fmt: skip


# The target of a device that is a chip and not a computer, by its kind: the part of its name before the colon.
OF_KIND = {
    "ethos-u": "ethos-u55", "edgetpu": "coral", "qnn": "hexagon", "litert-npu": "phone-npu", "rknn": "rockchip",
    "micro": "microcontroller",
}  # fmt: skip


def target_of(device: str) -> Target | None:
    """Return the target of a device that is one chip, ethos-u:CONFIG say; None of computers and phones."""
    name = OF_KIND.get(device.partition(":")[0])
    return TARGETS[name] if name else None


def not_for(device: str, format: str, precision: str) -> str:
    """Return why a file is not for a device, as its target's facts have it; "" where it is."""
    t = target_of(device)
    if t is None:
        return ""
    if format not in t.formats:
        return f"it takes {_listed(t.formats)} files"
    return f"it takes {_listed(t.precisions)} files" if t.precisions and precision not in t.precisions else ""


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def target(name: str) -> Target:
    """Return the target called `name`; "auto" is this machine's.

    Raises:
        InputError: no target has that name.
    """
    if name == AUTO:
        name = detect()
    if name not in TARGETS:
        raise InputError(f"unknown target '{name}' (valid: {', '.join((AUTO, *TARGETS))})")
    return TARGETS[name]


def detect(isa: Sequence[str] | None = None, machine: str | None = None, model: str = "") -> str:
    """Return the name of the target that fits a machine.

    Args:
        isa: instruction sets as `device_bench.local_info()` names them; None reads this machine's, with all the rest.
        machine: x86_64, aarch64, ...
        model: the CPU's or the board's name.
    """
    if isa is None:
        from edgenet.device_bench.machine import local_info

        info = local_info()
        isa, machine, model = info["isa"], info["machine"], info["cpu_model"]
    has = set(isa)
    if (machine or platform.machine()).lower() in ("x86_64", "amd64", "i686"):
        if has & {"avx512_vnni", "avx_vnni"}:
            return "x86-vnni"
        return "x86-avx2" if "avx2" in has else "generic"
    for board in ("raspberry-pi-4", "raspberry-pi-5"):
        if board.replace("-", " ") in model.lower():
            return board
    # Other Arm machines: the row with the same arithmetic.
    if "i8mm" in has:
        return "pixel-8"
    if "dotprod" in has:
        return "raspberry-pi-5"
    return "raspberry-pi-4" if "neon" in has else "generic"


def weight_bits(target: Target, format: str) -> int:
    """Return how many bits INT8 weights may have for sums to be exact: 7 where u8*s8 products saturate, else 8.

    Raises:
        InputError: the target does not run the format.
    """
    check_formats(target, (format,))
    return SAFE_BITS if format in target.saturating_formats else FULL_BITS


def check_formats(target: Target, formats: Iterable[str]) -> None:
    """Raise InputError where the target does not run one of the formats."""
    for format in formats:
        if format not in target.formats:
            raise InputError(f"{target.name} does not run {format} (valid: {', '.join(target.formats)})")


def off_accelerator(target: Target, kinds: Iterable[str]) -> tuple[str, ...]:
    """Return those operators of `kinds` (TFLite's names) that the accelerator does not run, without repetition."""
    if target.operators is None:
        return ()
    return tuple(k for k in dict.fromkeys(kinds) if k not in target.operators)
