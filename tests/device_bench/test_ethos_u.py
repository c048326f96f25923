"""ethos_u.py: what Vela makes of a file, read from what it prints and writes; nothing is called a measurement."""

import dataclasses
import importlib.util
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from edgenet.calibration import Recipe, SharedCalibration, quantize
from edgenet.device_bench import ethos_u
from edgenet.device_bench.device import Request
from edgenet.device_bench.ethos_u import CONFIGS, EthosU, make_estimate, open_device, reasons
from edgenet.device_bench.micro import device as tflite_micro
from edgenet.errors import DeviceError, InputError, MissingDependency
from edgenet.export import Network, export_graph, find_source
from edgenet.export.inspect.tflite import operator_outputs
from edgenet.images import limit, load_pixels, open_images
from edgenet.models.zoo import MODELS
from edgenet.results import Calibration, Estimate, Failure, LeftOperators, Results
from helpers.reference_kernels import by_reference_kernels, taken

needs_micro = pytest.mark.skipif(importlib.util.find_spec("tflite_micro") is None, reason="needs edgenet[micro]")
needs_vela = pytest.mark.skipif(importlib.util.find_spec("ethosu") is None, reason="needs edgenet[ethos-u]")
LOG = """\
Warning: No system configuration specified. Using a default of Ethos_U55_High_End_Embedded. Compilation may be invalid.

Warning (supported operators) operator: SOFTMAX, ofm: 'probabilities'
Reason: Operation has tensor with unsupported DataType Float32 (logits_float32)
Feature-map dataTypes must be one of {"INT16", "INT32", "INT64", "INT8", "UINT8"}

Warning (supported operators) operator: DEQUANTIZE, ofm: 'logits_float32'
Reason: Unsupported opType

Network summary for efficientnet-lite0_int8
CPU operators = 2 (1.6%)
"""
OPERATORS = [("CONV_2D", "stem"), ("DEQUANTIZE", "logits_float32"), ("SOFTMAX", "probabilities")]
LAYERS = [
    {"Target": "NPU", "Name": "stem"}, {"Target": "NPU", "Name": "stem"},  # Vela takes an operator apart
    {"Target": "CPU", "Name": "logits_float32"}, {"Target": "CPU", "Name": "probabilities"},
]  # fmt: skip
SUMMARY = {
    "system_config": "Ethos_U55_High_End_Embedded", "memory_mode": "Shared_Sram", "core_clock": "500000000.0",
    "sram_bandwidth": "3.725", "inference_time": "0.014381718", "cycles_total": "7190859",
    "sram_memory_used": "1474.21875", "dram_memory_used": "0.0", "on_chip_flash_memory_used": "0.0",
    "off_chip_flash_memory_used": "4404.390625",
}  # fmt: skip


def bench(device: EthosU, *paths: Path) -> tuple[list[Estimate], list[Failure]]:
    return device.bench([(p.name, p) for p in paths], Request())


@pytest.fixture(scope="session")
def tiny_npu(tiny_network: Network, tiny_calibration: Calibration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network in int8 with int8 input and output."""
    out = tmp_path_factory.mktemp("npu")
    int8 = quantize(tiny_network.graph, "int8", tiny_calibration)
    return out / export_graph(tiny_network, int8, out, format="tflite", precision="int8", io="int8").path


def test_vela_tells_why_an_operator_stays() -> None:
    assert reasons(LOG) == {
        "probabilities": "Operation has tensor with unsupported DataType Float32; "
        'Feature-map dataTypes must be one of {"INT16", "INT32", "INT64", "INT8", "UINT8"}',
        "logits_float32": "Unsupported opType",
    }


@pytest.mark.parametrize(
    "log", ["", "nonsense", "Warning (supported operators) operator: X, ofm: 'y'\n", "\x00\n\n\xff"]
)
def test_reasons_of_garbage_are_none_or_unexplained(log: str) -> None:
    assert set(reasons(log).values()) <= {"Vela gives no reason"}


def test_an_estimate_counts_the_operators_of_the_file_not_those_of_vela() -> None:
    e = make_estimate("a", "ethos-u:x", "vela 5", OPERATORS, LAYERS, SUMMARY, LOG)
    assert (e.n_operators, e.n_accelerated) == (3, 1)
    assert [(o.kind, o.n) for o in e.left] == [("DEQUANTIZE", 1), ("SOFTMAX", 1)]
    assert e.inference_ms == pytest.approx(14.381718)
    assert e.cycles == 7190859
    assert e.cycles / e.clock_hz * 1e3 == pytest.approx(e.inference_ms)
    assert (e.sram_bytes, e.dram_bytes, e.flash_bytes) == (1509600, 0, 4510096)
    assert e.settings["sram_gib_per_s"] == 3.725
    assert "not measured" in e.basis
    assert [(w.code, w.value) for w in e.warnings] == [("left-to-cpu", 2)]
    assert "2 operators run on the CPU" in e.warnings[0].text


def test_a_reason_that_vela_does_not_give_is_not_made_up() -> None:
    e = make_estimate("a", "ethos-u:x", "vela 5", OPERATORS, LAYERS, SUMMARY, "")
    assert {o.why for o in e.left} == {"Vela gives no reason"}


def test_nothing_is_estimated_where_nothing_runs_on_the_npu() -> None:
    layers = [{**row, "Target": "CPU"} for row in LAYERS]
    e = make_estimate("a", "ethos-u:x", "vela 5", OPERATORS, layers, SUMMARY, LOG)
    assert (e.n_accelerated, e.cycles, e.inference_ms, e.sram_bytes) == (0, None, None, None)
    assert [w.code for w in e.warnings] == ["nothing-accelerated"]
    assert "nothing to estimate" in e.warnings[0].text


@pytest.mark.parametrize(
    "broken",
    [{"cycles_total": "many"}, {"inference_time": "nan"}, {"core_clock": "inf"}, {"sram_memory_used": None}],
)
def test_tables_of_another_vela_are_an_error(broken: dict[str, str | None]) -> None:
    summary = {k: v for k, v in {**SUMMARY, **broken}.items() if v is not None}
    with pytest.raises(DeviceError, match="Vela"):
        make_estimate("a", "ethos-u:x", "vela 5", OPERATORS, LAYERS, summary, LOG)
    with pytest.raises(DeviceError, match="Target"):
        make_estimate("a", "ethos-u:x", "vela 5", OPERATORS, [{"Name": "stem"}], SUMMARY, LOG)


def test_operators_that_do_not_add_up_are_no_estimate() -> None:
    with pytest.raises(ValueError, match="are not all operators"):
        Estimate("a", "d", "t", "b", 3, 1, (LeftOperators("ADD", 1, "why"),))


def test_an_unknown_configuration_lists_the_valid_ones() -> None:
    with pytest.raises(InputError, match=r"'ethos-u99' \(valid: ethos-u55-32, .*ethos-u85-2048\)"):
        open_device("ethos-u99")


def test_without_vela_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ethos_u, "_vela_version", lambda: None)
    assert ethos_u.find() == []
    with pytest.raises(MissingDependency, match=r"edgenet\[ethos-u\]"):
        open_device("ethos-u55-256")


@needs_vela
def test_the_configurations_are_those_of_vela() -> None:
    from ethosu.vela.architecture_features import Accelerator

    assert set(CONFIGS) == set(Accelerator.member_list())
    assert ethos_u.find()[0]["id"].removeprefix("ethos-u:") in CONFIGS


@needs_vela
def test_an_int8_file_is_whole_on_the_npu_and_a_float_file_is_not_at_all(
    tiny_npu: Path, tiny_files: dict[str, Path]
) -> None:
    with open_device("ethos-u55-128") as device:
        (whole, part, none), failures = bench(device, tiny_npu, tiny_files["int8"], tiny_files["float32"])
        assert device.info()["measures"] is False
    assert failures == []
    n = len(operator_outputs(tiny_npu))
    assert (whole.n_operators, whole.n_accelerated, whole.left, whole.warnings) == (n, n, (), ())
    assert whole.inference_ms > 0
    assert whole.sram_bytes > 20 * 20 * 3
    assert whole.flash_bytes > 0
    assert whole.device == "ethos-u:ethos-u55-128"
    # With float input and output the ends stay on the CPU: the QUANTIZE in front, DEQUANTIZE and SOFTMAX behind.
    assert [o.kind for o in part.left] == ["DEQUANTIZE", "QUANTIZE", "SOFTMAX"]
    assert part.n_accelerated > 0
    assert none.n_accelerated == 0
    assert all("Float32" in o.why for o in none.left)


@needs_vela
def test_a_larger_npu_is_estimated_faster(tiny_npu: Path) -> None:
    times = []
    for config in ("ethos-u55-32", "ethos-u55-256"):
        with open_device(config) as device:
            (e,), _ = bench(device, tiny_npu)
            times.append(e.cycles)
    assert times[0] > times[1]


@needs_vela
def test_what_is_no_model_fails_and_the_others_go_on(tiny_npu: Path, tmp_path: Path) -> None:
    garbage, cut, onnx, gone = (tmp_path / n for n in ("garbage.tflite", "cut.tflite", "model.onnx", "gone.tflite"))
    garbage.write_bytes(b"garbage\n" * 100)
    cut.write_bytes(tiny_npu.read_bytes()[:5000])
    onnx.write_bytes(b"\x08\x07\x12\x00")
    seen: list[tuple[int, int, str]] = []
    with open_device("ethos-u55-256") as device:
        files = [(p.name, p) for p in (garbage, cut, onnx, gone, tiny_npu)]
        estimates, failures = device.bench(files, Request(), lambda *step: seen.append(step))
    assert [e.artifact for e in estimates] == [tiny_npu.name]
    why = {f.artifact: f.why for f in failures}
    assert "TFL3" in why["garbage.tflite"]
    assert "damaged" in why["cut.tflite"]
    assert "no .tflite" in why["model.onnx"]
    assert "no file" in why["gone.tflite"]
    assert all(f.remedy and f.stage == "bench" for f in failures)
    assert seen[-1] == (5, 5, tiny_npu.name)


@needs_vela
def test_a_crash_of_vela_is_a_failure(tiny_npu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(b"garbage\n" * 100)
    monkeypatch.setattr(ethos_u, "operator_outputs", lambda path: [])  # what would have refused it
    _, (failure,) = bench(EthosU("ethos-u55-256"), bad)
    assert failure.why.startswith("Vela ")
    assert "Traceback" not in failure.why


@needs_vela
def test_a_vela_that_does_not_end_is_ended(tiny_npu: Path) -> None:
    _, (failure,) = bench(EthosU("ethos-u55-256", timeout_s=0.02), tiny_npu)
    assert "ended after 0.02 s" in failure.why


def test_what_only_a_machine_can_do_is_refused() -> None:
    device = EthosU("ethos-u55-256")
    for request in (Request(runtime="litert"), Request(delegate="gpu"), Request(cores=(0,))):
        with pytest.raises(InputError, match="only compiles"):
            device.bench([], request)


@needs_vela
@needs_micro
def test_answers_are_those_of_the_reference_kernels_and_say_what_computed_them(tiny_npu: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (4, 20, 20, 3), np.uint8)
    with open_device("ethos-u55-128") as device:
        answers = device.predict(tiny_npu, pixels)
        assert device.info()["emulator"] == f"tflite-micro {metadata.version('tflite-micro')}, not the NPU"
    assert np.array_equal(answers, by_reference_kernels(tiny_npu, taken(pixels, "int8")))


def test_without_tflite_micro_there_are_estimates_and_for_answers_the_extra_is_named(
    tiny_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tflite_micro, "version", lambda: None)
    with EthosU("ethos-u55-256") as device:
        assert "emulator" not in device.info()
        with pytest.raises(MissingDependency, match=r"answers of ethos-u:ethos-u55-256 needs .*edgenet\[micro\]"):
            device.predict(tiny_files["int8"], np.zeros((1, 20, 20, 3), np.float32))


def test_estimates_come_back_from_disk_and_replace_each_other(tmp_path: Path) -> None:
    e = make_estimate("a", "ethos-u:x", "vela 5", OPERATORS, LAYERS, SUMMARY, LOG)
    results = Results()
    results.put(dataclasses.replace(e, cycles=1))
    results.put(e)
    results.put(dataclasses.replace(e, device="ethos-u:y"))
    results.save(tmp_path)
    assert Results.load(tmp_path).estimates == [e, dataclasses.replace(e, device="ethos-u:y")]


def test_results_of_before_estimates_still_load(tmp_path: Path) -> None:
    path = Results().save(tmp_path)
    path.write_text(path.read_text().replace(' "estimates": [],\n', ""))
    assert "estimates" not in path.read_text()
    assert Results.load(tmp_path).estimates == []


@pytest.mark.slow
@needs_vela
@pytest.mark.parametrize("name", [n for n in MODELS if "lite" in n])
def test_all_operators_of_int8_efficientnet_lite_run_on_the_npu(name: str, tmp_path: Path) -> None:
    try:
        source = find_source(name, random_weights=name.endswith(("lite3", "lite4")))
    except MissingDependency as e:
        pytest.skip(str(e))
    network = source.network()
    images = limit(open_images("sample", (), ()), 1)
    shared = SharedCalibration(network, load_pixels(images, network.preprocessing), "", Recipe(corrections=()))
    a = export_graph(network, shared.quantized("int8"), tmp_path, format="tflite", precision="int8", io="int8")
    with open_device("ethos-u55-256") as device:
        (e,), failures = bench(device, tmp_path / a.path)
    assert failures == []
    assert e.left == ()
    assert e.n_accelerated == e.n_operators == len(operator_outputs(tmp_path / a.path)) > 60
    assert 5 < e.inference_ms < 1000
