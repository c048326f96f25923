"""qnn/onnx_compiler.py: what is read from onnxruntime-qnn's trace and from its profile of a compilation."""

from types import SimpleNamespace

import pytest

from edgenet.device_bench.qnn.onnx_compiler import estimate, operators
from edgenet.device_bench.qnn.tflite_compiler import moved_bytes
from edgenet.errors import DeviceError
from edgenet.results import LeftOperators


def part(us: float, **other: float) -> dict[str, float]:
    """What the profile says of one part of a network on a chip for which QNN estimates a time."""
    times = {"": us, " (lower estimate)": us * 0.8, " (upper estimate)": us * 1.2}
    said = {f"Simulated (Accelerator exec time us{which})": value for which, value in times.items()}
    return {"Simulated (Accelerator exec cycles)": us * 1500, "Input Fill": 1000, "Output Spill": 100, **said, **other}


def test_an_estimate_has_bounds_and_what_is_moved() -> None:
    found = estimate([part(255, **{"Intermediate Fill": 10, "Intermediate Spill": 20})], 1)
    assert (found["inference_ms"], found["cycles"], found["unpriced"]) == (0.255, 382_500, 0)
    assert found["inference_bounds_ms"] == pytest.approx((0.204, 0.306))
    assert found["moved_bytes"] == {
        "read from DRAM": 1010, "written to DRAM": 120, "filled back from DRAM": 10, "spilled to DRAM": 20,
    }  # fmt: skip


def test_parts_that_are_reported_again_with_each_later_one_count_once() -> None:
    assert estimate([part(240), part(240), part(5)], 2)["inference_ms"] == pytest.approx(0.245)


@pytest.mark.parametrize("profile", [[], [{"QNN (finalize) time": 1.0}], [part(240), part(5), part(3), part(2)]])
def test_a_chip_for_which_qnn_estimates_nothing_has_no_time(profile: list[dict[str, float]]) -> None:
    assert estimate(profile, 2 if len(profile) == 4 else 1) == {}


@pytest.mark.parametrize("us", [float("nan"), float("inf"), 0.0, -3.0])
def test_an_estimate_that_is_no_number_is_an_error(us: float) -> None:
    with pytest.raises(DeviceError, match="numbers that are none"):
        estimate([part(us)], 1)


def node(kind: str, inputs: str, output: str, name: str = "") -> SimpleNamespace:
    return SimpleNamespace(op_type=kind, input=inputs.split(), output=[output], name=name)


def model(*nodes: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(graph=SimpleNamespace(node=nodes, output=[SimpleNamespace(name=nodes[-1].output[0])]))


def test_scales_are_no_operators_and_what_converts_is_one() -> None:
    before = model(
        node("QuantizeLinear", "image s", "q"), node("DequantizeLinear", "q s", "d"), node("Conv", "d w", "c"),
        node("QuantizeLinear", "c s", "cq"), node("DequantizeLinear", "cq s", "cd"), node("Gemm", "cd w", "y", "dense"),
    )  # fmt: skip
    whole = model(node("EPContext", "image", "y"))
    assert operators(before, whole, {}) == (3, ())
    trace = {"unsupported_nodes": [{"node_name": "dense", "reason": "Failed to add node."}]}
    after = model(node("EPContext", "q", "cq"), node("DequantizeLinear", "cq s", "cd"), before.graph.node[-1])
    assert operators(before, after, trace) == (3, (LeftOperators("Gemm", 1, "Failed to add node"),))


def test_what_onnxruntime_adds_and_leaves_to_the_cpu_counts() -> None:
    before = model(node("Conv", "image w", "y"))
    after = model(node("Transpose", "image", "t"), node("EPContext", "t", "y"))
    said = (LeftOperators("Transpose", 1, "onnxruntime-qnn gives no reason"),)
    assert operators(before, after, {}) == (2, said)


def test_the_traffic_of_all_parts_is_read_from_what_qnn_prints() -> None:
    log = "x spill_bytes=1\n fill_bytes=2\nwrite_total_bytes=30\nread_total_bytes=40\n" * 2
    assert moved_bytes(log) == {
        "read from DRAM": 80, "written to DRAM": 60, "filled back from DRAM": 4, "spilled to DRAM": 2,
    }  # fmt: skip
    assert moved_bytes("") == {}
