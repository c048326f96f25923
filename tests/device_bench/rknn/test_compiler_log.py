"""compiler_log.py on what rknn-toolkit2 2.5.0 printed for INT8 EfficientNet-Lite0 with uint8 input and output."""

from pathlib import Path

import pytest

from edgenet.device_bench.rknn.compiler_log import UNEXPLAINED, parse_log
from edgenet.device_bench.rknn.device import make_estimate
from edgenet.errors import DeviceError

HERE = Path(__file__).parent
RK3588, RK3566, RK3576 = ((HERE / f"lite0_{chip}.log").read_text() for chip in ("rk3588", "rk3566", "rk3576"))


def test_a_layer_has_its_place_its_cycles_and_its_bytes() -> None:
    log = parse_log(RK3588)
    assert len(log.layers) == 62  # without the file's input and output, which the table lists too
    stem = log.layers[0]
    assert (stem.name, stem.kind, stem.dtype, stem.target) == ("stem_conv_real", "Conv", "INT8", "NPU")
    assert (stem.ddr_cycles, stem.npu_cycles, stem.cycles, stem.moved_bytes) == (23540, 112896, 112896, 151 * 1024)
    assert (log.internal_bytes, log.weight_bytes) == (1568 * 1024, round(4690.56 * 1024))


def test_what_stays_on_the_cpu_depends_on_the_chip() -> None:
    left = {
        chip: [(x.kind, x.why) for x in parse_log(text).layers if x.target == "CPU"]
        for chip, text in (("RK3588", RK3588), ("RK3566", RK3566))
    }
    assert left == {"RK3588": [("Reshape", UNEXPLAINED)], "RK3566": [("exSoftmax13", UNEXPLAINED)]}


def test_a_chip_whose_table_has_a_column_more_is_read_whole() -> None:
    """Of some chips the table has a column for the share of zero weights, which is empty in some of its rows."""
    log = parse_log(RK3576)
    assert [x.name for x in log.layers] == [x.name for x in parse_log(RK3588).layers]
    assert (log.layers[0].ddr_cycles, log.layers[0].cycles, log.layers[0].moved_bytes) == (74126, 112896, 148 * 1024)
    assert {x.kind for x in log.layers if not x.cycles} == {"Add", "GlobalAveragePool", "exSoftmax13", "Reshape"}


def test_a_row_that_is_not_understood_is_an_error_and_no_layer_less() -> None:
    strange = RK3588.replace("23540/112896/112896 ", "23540/112896        ")
    with pytest.raises(DeviceError, match="table of layers is of a version that edgenet does not know"):
        parse_log(strange)


def test_a_reason_in_the_log_is_told() -> None:
    """With one of the lines that librknnc has for it: lite0 gives none."""
    line = "W RKNN: [22:53:25.218] RKNPU Softmax axis:1 not support, fallback CPU implement\n"
    (softmax,) = (x for x in parse_log(line + RK3566).layers if x.target == "CPU")
    assert softmax.why == "RKNPU Softmax axis:1 not support, fallback CPU implement"


def test_an_estimate_has_cycles_memory_and_layers_and_no_time() -> None:
    e = make_estimate("a", "rknn:RK3588", "rknn-toolkit2 2.5.0", parse_log(RK3588), 5_380_434, "0" * 64)
    assert (e.n_operators, e.n_accelerated, [(o.kind, o.n) for o in e.left]) == (62, 61, [("Reshape", 1)])
    assert e.cycles == 1_628_125 == sum(x.cycles for x in e.layers)
    assert (e.inference_ms, e.clock_hz, e.compiled_bytes) == (None, None, 5_380_434)
    assert e.memory_bytes == {"activations": 1_605_632, "weights": 4_803_133}
    assert [w.code for w in e.warnings] == ["left-to-cpu"]
    assert e.settings == {"layers_without_cycles": sum(x.kind != "Conv" for x in e.layers)}


@pytest.mark.parametrize(
    "text", ["", "nonsense", RK3588.replace("Network Layer", "Other"), RK3588.replace("Total Weight", "Other"),
             "\n".join(line for line in RK3588.splitlines() if " Conv " not in line and "NPU" not in line
                       and " CPU " not in line)]
)  # fmt: skip
def test_a_log_of_another_kind_is_an_error_and_no_estimate(text: str) -> None:
    with pytest.raises(DeviceError, match="of a version that edgenet does not know"):
        parse_log(text)
