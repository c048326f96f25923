"""targets.py: the facts of each target, which one a machine is, and what follows for the weights."""

import platform

import pytest

from edgenet import targets
from edgenet.errors import InputError
from edgenet.export import IO_DTYPES
from edgenet.targets import SATURATING, TARGETS, detect, off_accelerator, target, weight_bits

X86 = ["sse4_2", "fma", "avx2"]


def test_every_target_of_the_command_line_has_a_row() -> None:
    assert set(TARGETS) == {
        "pixel-4", "pixel-8", "raspberry-pi-4", "raspberry-pi-5", "coral", "ethos-u55", "x86-avx2", "x86-vnni",
        "generic", "microcontroller", "hexagon", "phone-npu", "rockchip",
    }  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_a_row_is_whole(name: str) -> None:
    t = target(name)
    assert t.name == name
    assert t.arithmetic in (targets.EXACT, targets.SATURATING, targets.DOT_PRODUCT, targets.I8MM)
    assert t.formats
    assert set(t.formats) <= set(targets.FORMATS)
    assert t.io_dtype in IO_DTYPES
    assert "int8" in t.activation_types
    assert t.accelerator == (t.operators is not None)


@pytest.mark.parametrize(
    ("name", "format", "bits"),
    [
        ("x86-avx2", "onnx", 7), ("x86-avx2", "openvino", 7), ("x86-avx2", "tflite", 8),
        ("x86-vnni", "onnx", 8), ("x86-vnni", "openvino", 8), ("x86-vnni", "tflite", 8),
        ("generic", "onnx", 7), ("generic", "openvino", 7), ("generic", "tflite", 8),
        ("raspberry-pi-4", "onnx", 8), ("raspberry-pi-5", "openvino", 8), ("pixel-8", "onnx", 8),
        ("coral", "tflite", 8),
    ],
)  # fmt: skip
def test_weights_have_seven_bits_only_where_products_saturate(name: str, format: str, bits: int) -> None:
    assert weight_bits(target(name), format) == bits
    assert (format in target(name).saturating_formats) == (bits == 7)


def test_seven_bit_weights_stay_below_the_limit_and_eight_bit_ones_do_not() -> None:
    assert 255 * 2 ** (targets.SAFE_BITS - 1) * 2 <= 32767 < 255 * (2 ** (targets.FULL_BITS - 1) - 1) * 2


def test_a_format_that_the_target_does_not_run_is_refused() -> None:
    with pytest.raises(InputError, match=r"coral does not run onnx \(valid: tflite\)"):
        weight_bits(target("coral"), "onnx")


def test_an_unknown_target_lists_the_valid_ones() -> None:
    with pytest.raises(InputError, match=r"unknown target 'pixel-3' \(valid: auto, pixel-4, .*generic\)"):
        target("pixel-3")


@pytest.mark.parametrize(
    ("isa", "machine", "model", "name"),
    [
        (X86, "x86_64", "", "x86-avx2"),
        ([*X86, "avx512f"], "x86_64", "", "x86-avx2"),
        ([*X86, "avx_vnni"], "x86_64", "", "x86-vnni"),
        ([*X86, "avx512f", "avx512_vnni"], "AMD64", "", "x86-vnni"),
        (["sse4_2"], "x86_64", "", "generic"),
        (["neon"], "aarch64", "Raspberry Pi 4 Model B Rev 1.4", "raspberry-pi-4"),
        (["neon", "fp16", "dotprod"], "aarch64", "Raspberry Pi 5 Model B", "raspberry-pi-5"),
        (["neon"], "aarch64", "", "raspberry-pi-4"),
        (["neon", "dotprod"], "aarch64", "Neoverse-N1", "raspberry-pi-5"),
        (["neon", "dotprod", "i8mm"], "aarch64", "", "pixel-8"),
        ([], "riscv64", "", "generic"),
    ],
)
def test_a_machine_is_told_by_its_instruction_sets(isa: list[str], machine: str, model: str, name: str) -> None:
    assert detect(isa, machine, model) == name


def test_auto_is_a_target_of_this_kind_of_machine() -> None:
    found = target("auto")
    assert found.name in TARGETS
    assert found.name.startswith("x86") or found.name == "generic" or platform.machine() not in ("x86_64", "AMD64")


def test_operators_that_an_accelerator_does_not_run_are_named_once() -> None:
    kinds = ["CONV_2D", "HARD_SWISH", "ADD", "HARD_SWISH", "GELU"]
    assert off_accelerator(target("coral"), kinds) == ("HARD_SWISH", "GELU")
    assert off_accelerator(target("ethos-u55"), kinds) == ("GELU",)
    assert off_accelerator(target("x86-vnni"), kinds) == ()


def test_efficientnet_lite_runs_on_both_accelerators_as_a_whole() -> None:
    lite = ["QUANTIZE", "CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED", "SOFTMAX"]
    assert all(off_accelerator(t, lite) == () for t in TARGETS.values())


def test_targets_that_saturate_recommend_a_format() -> None:
    assert [t.name for t in TARGETS.values() if t.arithmetic == SATURATING] == ["x86-avx2", "generic"]
