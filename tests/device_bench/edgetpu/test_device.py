"""device_bench/edgetpu: the compiler's log, the check without a compiler, and what is said where there is no stick."""

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet.calibration import quantize
from edgenet.device_bench.device import Request
from edgenet.device_bench.edgetpu import device as edgetpu
from edgenet.device_bench.edgetpu import operator_check
from edgenet.device_bench.edgetpu.compiler_log import parse_log
from edgenet.device_bench.edgetpu.device import EdgeTpu, find_stick, open_device
from edgenet.device_bench.edgetpu.operator_check import check, reason
from edgenet.errors import DeviceError, InputError
from edgenet.export import Network
from edgenet.export.graph import Graph, Op, Quantization, Tensor
from edgenet.export.interface import with_io
from edgenet.export.runtime import LoadError, load
from edgenet.export.tflite_file import read_tflite, write_tflite
from edgenet.results import Calibration, Estimate
from edgenet.targets import EDGE_TPU_OPERATORS

ALL_MAPPED = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 1354 ms.

Input model: model.tflite
Input size: 5.24MiB
Output model: model_edgetpu.tflite
Output size: 6.01MiB
On-chip memory used for caching model parameters: 5.61MiB
On-chip memory remaining for caching model parameters: 2.00MiB
Off-chip memory used for streaming uncached model parameters: 41.75KiB
Number of Edge TPU subgraphs: 1
Total number of operations: 63
Operation log: model_edgetpu.log

Operator                       Count      Status

CONV_2D                        33         Mapped to Edge TPU
DEPTHWISE_CONV_2D              16         Mapped to Edge TPU
ADD                            9          Mapped to Edge TPU
MEAN                           1          Mapped to Edge TPU
FULLY_CONNECTED                1          Mapped to Edge TPU
SOFTMAX                        1          Mapped to Edge TPU
QUANTIZE                       2          Mapped to Edge TPU
"""
UNSPECIFIED = "Operation is otherwise supported, but not mapped due to some unspecified limitation"
SOME_MAPPED = f"""\
Edge TPU Compiler version 14.1.317412892

Model compiled successfully in 422 ms.

Input model: detector.tflite
Input size: 8.11MiB
Output model: detector_edgetpu.tflite
Output size: 9.47MiB
On-chip memory used for caching model parameters: 6.86MiB
On-chip memory remaining for caching model parameters: 7.75KiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 15
Operation log: detector_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU.
Number of operations that will run on Edge TPU: 11
Number of operations that will run on CPU: 4

Operator                       Count      Status

DEQUANTIZE                     2          Operation is working on an unsupported data type
LOGISTIC                       1          {UNSPECIFIED}
CONCATENATION                  1          Mapped to Edge TPU
CONCATENATION                  1          More than one subgraph is not supported
DEPTHWISE_CONV_2D              10         Mapped to Edge TPU
See the operation log file for individual operation details.
"""
NOT_QUANTIZED = "Edge TPU Compiler version 15.0.340273435\nInvalid model: net.tflite\nModel not quantized\n"
TOO_NEW = """\
Edge TPU Compiler version 16.0.384591198
ERROR: Didn't find op for builtin opcode 'QUANTIZE' version '3'.

ERROR: Registration failed.

Invalid model: net.tflite
Model could not be parsed
"""
INTERNAL = "Edge TPU Compiler version 14.1.317412892\n\nInternal compiler error. Aborting! \n"
CRASHED = """\
Edge TPU Compiler version 16.0.384591198
/usr/bin/edgetpu_compiler: line 3:  1531 Segmentation fault      (core dumped) edgetpu_compiler "$@"
"""


def edited(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text


def test_a_log_with_all_operators_mapped() -> None:
    m = parse_log(ALL_MAPPED)
    assert (m.version, m.n_operators, m.left, m.n_subgraphs) == ("16.0.384591198", 63, (), 1)
    assert m.on_chip_bytes == round(5.61 * 2**20)
    assert m.streamed_bytes == round(41.75 * 2**10)


def test_a_log_with_some_left_says_how_many_and_why() -> None:
    m = parse_log(SOME_MAPPED)
    assert m.n_operators == 15
    assert m.left == (
        ("DEQUANTIZE", 2, "Operation is working on an unsupported data type"),
        ("LOGISTIC", 1, UNSPECIFIED),
        ("CONCATENATION", 1, "More than one subgraph is not supported"),
    )
    assert m.streamed_bytes == 0


@pytest.mark.parametrize(
    ("log", "error", "says"),
    [
        (NOT_QUANTIZED, InputError, "15.0.340273435 refuses the file: Model not quantized"),
        (TOO_NEW, InputError, "builtin opcode 'QUANTIZE' version '3'.; Model could not be parsed"),
        (INTERNAL, DeviceError, "failed: Internal compiler error. Aborting!"),
        (CRASHED, DeviceError, "Segmentation fault"),
        ("", DeviceError, "not what edgetpu_compiler prints"),
        ("bash: edgetpu_compiler: not found\n\x00", DeviceError, "not what edgetpu_compiler prints"),
        (ALL_MAPPED[:700], DeviceError, "cut short: 49 operators in its table, 63 in its summary"),
        (ALL_MAPPED[:300], DeviceError, "cut short: 0 operators in its table, no number in its summary"),
        (edited(ALL_MAPPED, ("operations: 63", "operations: 64")), DeviceError, "cut short"),
    ],
)
def test_a_log_of_failure_or_garbage_is_an_error(log: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error) as caught:
        parse_log(log)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------- the check without one


@pytest.fixture(scope="session")
def coral(tiny_network: Network, tiny_calibration: Calibration) -> Graph:
    """The tiny network as `--target coral --io uint8` has it: one scale for the dense layer's weights."""
    g = with_io(quantize(tiny_network.graph, "int8", tiny_calibration), "uint8", tiny_network.preprocessing)
    (dense,) = [op for op in g.ops if op.kind == "FULLY_CONNECTED"]
    tensors = dict(g.tensors)
    for name in dense.inputs[1:]:
        t = tensors[str(name)]
        tensors[str(name)] = replace(t, quantization=Quantization.per_tensor(float(t.quantization.scale[0])))
    return replace(g, tensors=tensors)


def left(graph: Graph) -> list[tuple[str, str]]:
    return [(c.kind, c.why) for c in check(graph) if c.why]


def changed(graph: Graph, kind: str, change: Callable[[Op], Op]) -> Graph:
    ops = list(graph.ops)
    at = next(i for i, op in enumerate(ops) if op.kind == kind)
    ops[at] = change(ops[at])
    return replace(graph, ops=tuple(ops))


def test_an_int8_network_is_mapped_whole(coral: Graph) -> None:
    assert left(coral) == []


def test_a_float_network_is_left_whole_and_says_why(tiny_network: Network) -> None:
    found = left(tiny_network.graph)
    assert len(found) == len(tiny_network.graph.ops)
    assert {why for _, why in found} == {"works on float32, the Edge TPU on 8-bit integers"}


def test_a_dense_layer_with_a_scale_per_channel_and_all_after_it_are_left(
    tiny_network: Network, tiny_calibration: Calibration
) -> None:
    g = with_io(quantize(tiny_network.graph, "int8", tiny_calibration), "uint8", tiny_network.preprocessing)
    (first, why), *after = left(g)
    assert first == "FULLY_CONNECTED"
    assert EDGE_TPU_OPERATORS["FULLY_CONNECTED"] in why
    assert [kind for kind, _ in after] == ["SOFTMAX", "QUANTIZE"]
    assert all("follows an operator" in why for _, why in after)


def test_what_is_left_in_front_does_not_stop_the_rest(tiny_network: Network, tiny_calibration: Calibration) -> None:
    g = quantize(tiny_network.graph, "int8", tiny_calibration)  # float in: QUANTIZE is first
    found = left(g)
    assert found[0] == ("QUANTIZE", "works on float32, the Edge TPU on 8-bit integers")
    assert "CONV_2D" not in [kind for kind, _ in found]


@pytest.mark.parametrize(
    ("kind", "options", "ok"),
    [
        ("CONV_2D", {"dilationWFactor": 2, "dilationHFactor": 2}, True),
        ("CONV_2D", {"dilationWFactor": 2, "dilationHFactor": 1}, False),
        ("DEPTHWISE_CONV_2D", {"dilationWFactor": 2, "dilationHFactor": 2}, False),
        ("FULLY_CONNECTED", {"weightsFormat": 1}, False),
    ],
)
def test_options_are_held_against_what_coral_demands(
    coral: Graph, kind: str, options: dict[str, Any], ok: bool
) -> None:
    g = changed(coral, kind, lambda op: replace(op, options={**op.options, **options}))
    op = next(op for op in g.ops if op.kind == kind)
    assert reason(g, op) == ("" if ok else f"does not meet what Coral demands: {EDGE_TPU_OPERATORS[kind]}")


def small(kind: str, shapes: list[Any], out: tuple[int, ...], options: dict[str, Any] | None = None) -> str:
    """Return the reason for one operator; a shape is an activation, an array is a constant."""
    q = Quantization.per_tensor(0.1)
    tensors, names = {}, []
    for i, s in enumerate(shapes):
        constant = isinstance(s, np.ndarray)
        dtype = str(s.dtype) if constant else "int8"
        tensors[f"t{i}"] = Tensor(f"t{i}", s.shape if constant else s, dtype, s if constant else None, q)
        names.append(f"t{i}")
    tensors["out"] = Tensor("out", out, "int8", None, q)
    op = Op(kind, tuple(names), ("out",), options or {})
    return reason(Graph("g", tensors, (op,), ("t0",), ("out",)), op)


I32 = np.int32


@pytest.mark.parametrize(
    ("kind", "shapes", "out", "options", "ok"),
    [
        ("MEAN", [(1, 7, 7, 9), np.array([1, 2], I32)], (1, 9), None, True),
        ("MEAN", [(1, 7, 7, 9), np.array([0, 1], I32)], (7, 9), None, False),
        ("MEAN", [(1, 7, 7, 9), np.array([-4], I32)], (7, 7, 9), None, False),
        ("PAD", [(1, 7, 7, 9), np.array([[0, 0], [1, 1], [1, 1], [0, 0]], I32)], (1, 9, 9, 9), None, True),
        ("PAD", [(1, 7, 7, 9), np.array([[1, 0], [0, 0], [0, 0], [0, 0]], I32)], (2, 7, 7, 9), None, False),
        ("SOFTMAX", [(1, 1000)], (1, 1000), None, True),
        ("SOFTMAX", [(1, 16001)], (1, 16001), None, False),
        ("SOFTMAX", [(1, 4, 10)], (1, 4, 10), None, False),
        ("MAX_POOL_2D", [(1, 8, 8, 3)], (1, 4, 4, 3), {"fusedActivationFunction": 0}, True),
        ("MAX_POOL_2D", [(1, 8, 8, 3)], (1, 4, 4, 3), {"fusedActivationFunction": 1}, False),
        ("CONCATENATION", [(1, 4, 4, 3), (1, 4, 4, 3)], (1, 4, 4, 6), {"fusedActivationFunction": 1}, False),
        ("PACK", [(4, 3), (4, 3)], (2, 4, 3), {"axis": 0}, False),
        ("PACK", [(4, 3), (4, 3)], (4, 2, 3), {"axis": 1}, True),
        ("SPLIT", [np.array(0, I32), (2, 4, 3)], (1, 4, 3), None, False),
        ("SPLIT", [np.array(2, I32), (1, 4, 4)], (1, 4, 2), None, True),
        ("STRIDED_SLICE", [(1, 8), *[np.array([1, 1], I32)] * 3], (1, 4), None, True),
        ("STRIDED_SLICE", [(1, 8), *[np.array([1, 2], I32)] * 3], (1, 4), None, False),
        ("STRIDED_SLICE", [(1, 8), *[np.array([1, 1], I32)] * 3], (1, 4), {"newAxisMask": 1}, False),
        ("PRELU", [(1, 4, 4, 3), np.zeros((1, 1, 3), np.int8)], (1, 4, 4, 3), None, True),
        ("PRELU", [(1, 4, 4, 3), np.zeros((4, 4, 3), np.int8)], (1, 4, 4, 3), None, False),
        ("CONV_2D", [(1, 4, 4, 3), (8, 1, 1, 3)], (1, 4, 4, 8), None, False),  # weights that are computed
        ("ADD", [(2, 4, 4, 3), (2, 4, 4, 3)], (2, 4, 4, 3), None, False),  # a batch
        ("ADD", [(1, 4, 4, 3), np.zeros(3, np.float32)], (1, 4, 4, 3), None, False),
        ("ADD", [(1, 4, 4, 3), (1, 4, 4, 3)], (1, 4, 4, 3), None, True),
        ("HARD_SWISH", [(1, 4, 4, 3)], (1, 4, 4, 3), None, False),
    ],
)  # fmt: skip
def test_each_demand(kind: str, shapes: list[Any], out: tuple[int, ...], options: Any, ok: bool) -> None:
    assert (small(kind, shapes, out, options) == "") == ok


def test_a_demand_is_of_an_operator_in_the_table_and_has_words() -> None:
    assert all(EDGE_TPU_OPERATORS[kind] for kind in operator_check._DEMANDS)


# ------------------------------------------------------------------------------------------------------- the device


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No compiler and no stick; return an empty folder that is first in PATH."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}/bin")
    monkeypatch.setattr(edgetpu, "find_stick", lambda: None)
    return programs


@pytest.fixture
def coral_file(coral: Graph, tmp_path: Path) -> Path:
    path = tmp_path / "-o net 'coral'.tflite"  # what would be an option, if it were given as it is
    path.write_bytes(write_tflite(coral))
    return path


def compiler(folder: Path, script: str) -> None:
    """Put a program in the place of edgetpu_compiler. It gets -s -o OUT FILE."""
    path = folder / "edgetpu_compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def bench(*paths: Path, timeout_s: float = 30) -> tuple[list[Any], list[Any]]:
    with EdgeTpu(timeout_s) as device:
        return device.bench([(p.name, p) for p in paths], Request())


def test_without_a_compiler_it_is_only_a_check_and_says_so(bare: Path, coral_file: Path) -> None:
    (e,), failures = bench(coral_file)
    assert failures == []
    assert isinstance(e, Estimate)
    assert e.n_accelerated == e.n_operators == len(read_tflite(coral_file.read_bytes()).ops)
    assert e.basis.startswith("only a static check")
    assert (e.inference_ms, e.cycles) == (None, None)
    assert edgetpu.find() == []


def test_the_compiler_has_the_word_where_it_is_installed(bare: Path, coral_file: Path) -> None:
    compiler(bare, f'cat <<\'X\'\n{SOME_MAPPED}X\ncp "$4" "$3/model_edgetpu.tflite"')
    (e,), failures = bench(coral_file)
    assert failures == []
    assert (e.n_operators, e.n_accelerated, e.tool) == (15, 11, "edgetpu_compiler 14.1.317412892")
    assert [o.n for o in e.left] == [2, 1, 1]
    assert e.sram_bytes == round(6.86 * 2**20)
    assert "gives no time" in e.basis
    assert edgetpu.find()[0]["id"] == "edgetpu"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (f"cat <<'X'\n{NOT_QUANTIZED}X\nexit 1", "Model not quantized"),
        (f"cat <<'X'\n{CRASHED}X\nexit 139", "Segmentation fault"),
        ("exit 3", "ended with exit status 3"),
        ("echo hello", "not what edgetpu_compiler prints"),
        (f"cat <<'X'\n{ALL_MAPPED}X", "wrote no file"),
        ("sleep 60 & sleep 60", "was ended after 0.5 s"),
    ],
)
def test_a_compiler_that_fails_is_a_failure(bare: Path, coral_file: Path, script: str, says: str) -> None:
    compiler(bare, script)
    found, (failure,) = bench(coral_file, timeout_s=0.5 if "sleep" in script else 30)
    assert found == []
    assert says in failure.why
    assert failure.remedy


def test_what_is_no_model_fails_and_the_others_go_on(bare: Path, coral_file: Path, tmp_path: Path) -> None:
    garbage, onnx = tmp_path / "garbage.tflite", tmp_path / "net.onnx"
    garbage.write_bytes(b"garbage\n" * 10)
    onnx.write_bytes(b"\x08\x07\x12\x00")
    found, failures = bench(garbage, onnx, tmp_path / "gone.tflite", coral_file)
    assert [e.artifact for e in found] == [coral_file.name]
    assert len(failures) == 3


def test_a_compiled_file_needs_a_stick(bare: Path, tmp_path: Path) -> None:
    compiled = tmp_path / "net_edgetpu.tflite"
    compiled.write_bytes(b"\x18\0\0\0TFL3....edgetpu-custom-op....")
    _, (failure,) = bench(compiled)
    assert "none is plugged in" in failure.why
    with EdgeTpu() as device, pytest.raises(DeviceError, match="no Edge TPU is plugged in"):
        device.predict(compiled, np.zeros((1, 20, 20, 3), np.uint8))


def test_a_stick_without_its_library_is_an_honest_failure(
    bare: Path, coral_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edgetpu, "find_stick", lambda: "USB 1-2")
    # The compiler's file has its operator's name in it; this one loads by that, and then wants the library.
    compiler(
        bare,
        f"cat <<'X'\n{ALL_MAPPED}X\n"
        'cp "$4" "$3/model_edgetpu.tflite"; printf edgetpu-custom-op >> "$3/model_edgetpu.tflite"',
    )
    (e,), (failure,) = bench(coral_file)
    assert isinstance(e, Estimate)
    assert "libedgetpu.so.1" in failure.why
    assert "docs/accelerators.md" in failure.remedy


def test_a_file_that_is_not_compiled_is_not_run_on_the_cpu_in_silence(coral_file: Path) -> None:
    with pytest.raises(LoadError, match="not compiled for the Edge TPU"):
        load(coral_file, runtime="edgetpu")


def test_a_stick_is_told_by_its_usb_ids_before_and_after_its_firmware_is_loaded(tmp_path: Path) -> None:
    usb, dev = tmp_path / "usb", tmp_path / "dev"
    dev.mkdir()
    assert find_stick(usb, dev) is None
    for name, vendor, product in (("1-1", "046d", "c52b"), ("1-2", "1a6e", "089a")):
        (usb / name).mkdir(parents=True)
        (usb / name / "idVendor").write_text(f"{vendor}\n")
        (usb / name / "idProduct").write_text(f"{product}\n")
    (usb / "usb1").mkdir()
    assert find_stick(usb, dev) == "USB 1-2"
    (usb / "1-2" / "idVendor").write_text("18d1\n")
    (usb / "1-2" / "idProduct").write_text("9302\n")
    assert find_stick(usb, dev) == "USB 1-2"
    (usb / "1-2" / "idProduct").write_text("4ee7\n")  # a phone of the same vendor
    assert find_stick(usb, dev) is None
    (dev / "apex_0").touch()
    assert find_stick(usb, dev) == str(dev / "apex_0")


def test_arguments_that_it_cannot_honour_are_refused() -> None:
    with pytest.raises(InputError, match="takes no address"):
        open_device("usb:0")
    for request in (Request(runtime="litert"), Request(delegate="gpu"), Request(cores=(1,))):
        with pytest.raises(InputError, match="its own runtime"):
            open_device("").bench([], request)
