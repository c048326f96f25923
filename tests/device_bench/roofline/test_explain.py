"""`bench --explain`: operators against a roofline, in numbers worked out by hand, and measured for real."""

import dataclasses
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgenet.calibration import quantize
from edgenet.device_bench import Comparison, Request
from edgenet.device_bench.roofline import limits, operator_times
from edgenet.device_bench.roofline.explain import (
    bound,
    compute_us,
    copy_rate,
    explained,
    fraction,
    memory_us,
    shares,
    work,
)
from edgenet.errors import DeviceError, InputError
from edgenet.export import Network, export_graph
from edgenet.export.inspect import multiply_adds
from edgenet.jobs import explain
from edgenet.report.plots.roofline import roofline
from edgenet.report.roofline import OPERATOR_TITLES, operator_rows
from edgenet.results import Calibration, Explanation, Failure, Layer, Results
from helpers import tiny
from helpers.command_line import Edgenet

GIGA = 10**9


def layer(kind: str = "CONV_2D", us: float = 100.0, adds: int = 0, moved: int = 0, **other: str) -> Layer:
    names = {"name": kind.lower(), "arithmetic": "int8", "kernel": "XNNPACK"} | other
    return Layer(kind=kind, time_us=us, multiply_adds=adds, moved_bytes=moved, **names)


def profile(*layers: Layer, precision: str = "int8", median_ms: float = 10.0) -> Explanation:
    """A core that does 100 G multiply-adds/s in int8 and 50 in float32; copies: 100 GB/s in a cache, 10 in memory."""
    return Explanation(
        f"m_{precision}", "local", "litert", 1, precision, median_ms, 9.0, "hand", layers,
        {"float32": 50e9, "int8": 100e9}, (1 << 10, 1 << 20), (100e9, 10e9),
    )  # fmt: skip


def test_an_operator_at_the_pace_of_the_matrix_product_is_bound_by_compute() -> None:
    x = layer(adds=10_000_000, moved=1 << 10)  # 100 us at 100 G/s
    e = profile(x)
    assert compute_us(x, e) == pytest.approx(100)
    assert fraction(x, e) == pytest.approx(1)
    assert bound(x, e) == "compute"
    # The same products of floats take twice as long here: 200 us are asked for.
    assert compute_us(replace(x, arithmetic="float32"), e) == pytest.approx(200)


def test_an_operator_at_the_pace_of_a_copy_is_bound_by_memory() -> None:
    x = layer("ADD", us=120, moved=1 << 20)  # 104.9 us at 10 GB/s
    e = profile(x)
    assert memory_us(x, e) == pytest.approx((1 << 20) / 10e9 * 1e6)
    assert bound(x, e) == "memory"


def test_an_operator_far_from_both_limits_is_bound_by_overhead() -> None:
    x = layer("DEPTHWISE_CONV_2D", us=100, adds=1_000_000, moved=1 << 17)
    e = profile(x)
    assert fraction(x, e) < 0.3
    assert bound(x, e) == "overhead"
    assert bound(layer("RESHAPE", us=0.0), e) == "overhead"  # shorter than the clock tells


def test_a_copy_between_two_measured_sizes_is_between_their_rates_and_beyond_them_is_theirs() -> None:
    e = profile()
    assert copy_rate(1 << 15, e) == pytest.approx(55e9)  # half way by the logarithm
    assert copy_rate(1, e) == 100e9
    assert copy_rate(1 << 30, e) == 10e9


def test_shares_are_by_time_and_come_to_one() -> None:
    e = profile(layer(us=100, adds=10_000_000), layer("ADD", us=300, moved=3 << 20), layer("SOFTMAX", us=100))
    assert shares(e) == pytest.approx({"compute": 0.2, "memory": 0.6, "overhead": 0.2})
    assert set(shares(profile()).values()) == {0.0}


def test_the_same_work_has_one_name_in_all_runtimes() -> None:
    assert {work(k) for k in ("CONV_2D", "Convolution", "QLinearConv", "FusedConv")} == {"convolutions"}
    depthwise = ("DEPTHWISE_CONV_2D", "GroupConvolution", "QLinearConv (depthwise)")
    assert {work(k) for k in depthwise} == {"depthwise convolutions"}
    assert {work(k) for k in ("FULLY_CONNECTED", "FullyConnected", "QGemm", "MatMul")} == {"dense layers"}
    assert {work(k) for k in ("QUANTIZE", "DequantizeLinear", "Reorder")} == {"conversions"}


def said(e: Explanation, *others: Explanation, isa: tuple[str, ...] = ("avx2",), verdict: str = "faster") -> str:
    answer = Comparison(0.8, 0.79, 0.81, verdict, 10)
    return " ".join(explained([e, *others], isa, "x86_64", "", lambda a, b: answer)[0].sentences)


def test_the_words_say_what_the_instruction_set_gives() -> None:
    e = profile(layer(adds=10_000_000))
    assert "has no instruction for INT8 dot products" in said(e)
    assert "This CPU (avx512_vnni) adds four INT8 products in one step" in said(e, isa=("avx2", "avx512_vnni"))
    assert "100 G multiply-adds/s in int8 and 50 G in float32, so INT8 can be 2.0 times as fast" in said(e)


def test_the_words_say_where_int8_wins_and_where_it_does_not() -> None:
    e = profile(layer(us=1000), layer("DEPTHWISE_CONV_2D", us=2000), median_ms=8.0)
    base = profile(layer(us=5000), layer("DEPTHWISE_CONV_2D", us=2100), precision="float32")
    text = said(e, base)
    assert "int8 is faster than float32 here, 0.80 times its time (8.00 and 10.00 ms)" in text
    assert "most is won in convolutions (5.00 to 1.00 ms)" in text
    assert "least in depthwise convolutions (2.10 to 2.00 ms)" in text
    assert "cannot be told apart" in said(e, base, verdict="cannot tell")
    # A file of another runtime is nothing to compare with.
    assert "float32 here" not in said(e, replace(base, runtime="openvino"))


def test_the_words_name_operators_that_are_not_delegated_or_left_in_float_and_conversions() -> None:
    e = profile(
        layer(us=500), layer("MEAN", us=300, kernel="built-in"), layer("QUANTIZE", us=100),
        layer("FULLY_CONNECTED", us=100, adds=10, arithmetic="float32"),
    )  # fmt: skip
    text = said(e)
    assert "1 of 4 operators are not delegated to XNNPACK (MEAN) and take 30% of the time" in text
    assert "10% of the time goes into convolutions and dense layers left in float32" in text
    assert "10% goes into conversions (QUANTIZE)" in text
    assert "the operators come to 1.00 ms; the whole file takes 10.00 ms, and 9.00 in its fastest run." in text
    assert "What is missing is not in the operators" in text
    assert "What is missing" not in said(replace(e, median_ms=1.2))
    assert "The profile was disturbed" in said(replace(e, median_ms=1.2, fastest_ms=0.7))
    assert "The profile was disturbed" not in said(replace(e, median_ms=1.2, fastest_ms=0.9))
    assert "60% of the time goes into reference kernels" in said(
        profile(layer(us=60, kernel="ref_any"), layer(us=40, kernel="jit_avx2"))
    )
    assert "XNNPACK runs all 1 operators" in said(profile(layer()))


def test_the_table_has_the_costliest_operators_and_a_line_for_all_others() -> None:
    e = profile(*(layer(us=10.0 * (i + 1), adds=1_000_000, name=f"op{i}") for i in range(11)))
    found = operator_rows(e)
    assert [r[0] for r in found] == [*(f"op{i}" for i in range(10, 2, -1)), "3 others"]
    assert sum(float(r[3]) for r in found) == pytest.approx(0.66)
    assert {len(r) for r in found} == {len(OPERATOR_TITLES)}


def test_the_roofline_draws_every_operator_with_products_inside_its_frame() -> None:
    e = profile(
        layer(adds=10_000_000, moved=1 << 12), layer(us=900, adds=10_000, moved=1 << 20, name="<b>"), layer("ADD")
    )
    for width in (1160, 350):
        svg = roofline([e, replace(e, precision="float32")], width, 400, "alt")
        circles = [tuple(map(float, c)) for c in re.findall(r'cx="([\d.-]+)" cy="([\d.-]+)"', svg)]
        assert len(circles) == 4
        assert all(52 <= x <= width - 14 and 30 <= y <= 358 for x, y in circles)
        assert svg.count('class="roof"') == 4  # memory, cache, int8, float32
        assert "nan" not in svg
        assert "<b>" not in svg


def test_the_product_computes_the_same_in_float_and_in_int8() -> None:
    from ai_edge_litert.interpreter import Interpreter

    made = {}
    for name in ("float32", "int8"):
        model, x = limits.product_tflite(name)
        run = Interpreter(model_content=model)
        run.allocate_tensors()
        run.set_tensor(run.get_input_details()[0]["index"], x)
        run.invoke()
        made[name] = run.get_tensor(run.get_output_details()[0]["index"]).astype(np.float64)
    assert made["float32"].shape == (1, limits.SIDE_PX, limits.SIDE_PX, limits.FILTERS)
    reachable = np.abs(made["float32"]) < 12.7
    assert np.abs(made["int8"] * 0.1 - made["float32"])[reachable].max() <= 0.0501  # half a step of the output


def test_operators_run_alone_compute_what_the_network_does(tiny_network: Network) -> None:
    from edgenet.calibration.execute import Executor

    graph = tiny_network.graph
    x = np.random.default_rng(0).uniform(-1, 1, (1, tiny.PX, tiny.PX, 3)).astype(np.float32)
    values = {graph.inputs[0]: x}
    for op, before in operator_times.alone(graph):
        assert not before
        fed = tuple(n for n in op.inputs if n and graph.constant(n) is None)
        one = replace(graph, ops=(op,), inputs=fed, outputs=op.outputs)
        values[op.outputs[0]] = Executor(one, op.outputs, 1)(*(values[n] for n in fed))[0]
    whole = Executor(graph, graph.outputs, 1)(x)[0]
    assert np.abs(values[graph.outputs[0]] - whole).max() < 1e-6


def test_what_only_unpacks_constants_is_part_of_the_operator_that_uses_it(tiny_files: dict[str, Path]) -> None:
    from edgenet.export.tflite_file import read_tflite

    graph = read_tflite(tiny_files["float16"].read_bytes())  # its weights pass a DEQUANTIZE each
    kinds = [op.kind for op in graph.ops]
    found = operator_times.alone(graph)
    assert "DEQUANTIZE" in kinds
    assert "DEQUANTIZE" not in [op.kind for op, _ in found]
    assert sum(len(before) for _, before in found) == kinds.count("DEQUANTIZE")


@pytest.fixture(scope="module")
def all_formats(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """format -> the int8 file."""
    out, files = tmp_path_factory.mktemp("formats"), {}
    for format in ("tflite", "onnx", "openvino"):
        g = quantize(tiny_network.graph, "int8", tiny_calibration)
        a = export_graph(tiny_network, g, out, format=format, precision="int8", calibration=tiny_calibration)
        files[format] = out / a.path
    return files


@pytest.mark.parametrize("format", ["tflite", "onnx", "openvino"])
def test_every_runtime_gives_all_multiply_adds_of_the_file_with_times(
    format: str, all_formats: dict[str, Path]
) -> None:
    path = all_formats[format]
    found = operator_times.measure(path, 1, None)
    layers = [Layer(**row) for row in found["layers"]]
    assert sum(x.multiply_adds for x in layers) == multiply_adds(path)
    assert all(x.arithmetic == "int8" for x in layers if x.multiply_adds)
    assert all(x.time_us > 0 for x in layers if x.kind != "RESHAPE" and format == "tflite")
    assert len({x.name for x in layers}) == len(layers)
    assert all(x.moved_bytes > 0 for x in layers)
    assert found["multiply_adds_per_s"].keys() == {"float32", "int8"}
    assert all(1e8 < v < 1e13 for v in found["multiply_adds_per_s"].values())
    assert all(1e8 < v < 1e13 for v in found["copy_bytes_per_s"])
    assert {work(x.kind) for x in layers} >= {"convolutions", "depthwise convolutions", "dense layers"}
    if format == "openvino":
        assert any("depthwise" in x.name for x in layers)
        assert any("I8" in x.kernel.upper() for x in layers)
    if format == "tflite":
        assert {x.kernel for x in layers} == {"XNNPACK"}


def test_a_file_that_cannot_be_profiled_is_said_in_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(b"\0" * 100)
    with pytest.raises(DeviceError, match=r"bad\.tflite") as e:
        operator_times.measure(bad, 1, None)
    assert "Traceback" not in str(e.value)
    assert "\n" not in str(e.value)


def test_what_cannot_be_explained_is_refused_before_anything_is_timed() -> None:
    for devices, request, word in (
        (("adb:1",), Request(), "this machine only"),
        ((), Request(delegate="gpu"), "CPU only"),
        ((), Request(runtime="edgetpu"), "edgetpu"),
    ):
        with pytest.raises(InputError, match=word):
            explain.check(devices, request)
    explain.check(("local",), Request(delegate="cpu", runtime="openvino"))


def test_explanations_survive_results_json(tmp_path: Path) -> None:
    results = Results()
    e = replace(profile(layer(adds=1, moved=2)), sentences=("one", "two"))
    results.put(replace(e, median_ms=1.0))
    results.put(e)
    results.save(tmp_path)
    assert Results.load(tmp_path).explanations == [e]


def test_bench_explains_files_and_the_report_of_their_run_draws_it(
    edgenet: Edgenet, tiny_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = edgenet(
        "export", "tiny", "--images", tiny_folder, "--precision", "float32", "--precision", "int8", "--out", out
    )
    assert done.returncode == 0, done.stderr
    files = sorted(out.glob("*.tflite"))
    done = edgenet("bench", *files, "--explain", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "bound by" in done.stdout
    assert "- This CPU" in done.stdout
    kept = Results.load(out)
    assert {e.artifact for e in kept.explanations} == {a.id for a in kept.artifacts}
    assert len(kept.explanations) == 2
    page = (out / "report.html").read_text()
    assert 'id="explanations"' in page
    assert page.count('class="roof"') >= 8

    done = edgenet("bench", files[0], "--out", out)
    assert done.returncode == 2
    assert "--explain" in done.stderr


def test_a_folder_that_is_not_of_the_files_is_refused_before_anything_is_timed(
    edgenet: Edgenet, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no folder"):
        explain.check_run(tmp_path / "nowhere", [tiny_files["int8"]])
    Results().save(tmp_path)
    done = edgenet("bench", tiny_files["int8"], "--explain", "--out", tmp_path)
    assert done.returncode == 2
    assert "did not make" in done.stderr
    assert done.stdout == ""


def test_a_profile_that_fails_is_a_failure_and_the_others_go_on(
    tiny_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgenet.results import Measurement

    measured = [Measurement(str(tiny_files[p]), "local", "litert", 1, (1_000_000,), (0,)) for p in ("float32", "int8")]
    raw = dataclasses.asdict(profile(layer(adds=5, moved=5)))

    def measure(path: Path, *rest: object) -> dict[str, object]:
        if path == tiny_files["int8"]:
            raise DeviceError("it crashed")
        return raw

    monkeypatch.setattr(explain, "measure", measure)
    found, failures = explain.explain(measured, Request())
    assert [e.artifact for e in found] == [str(tiny_files["float32"])]
    assert [(f.stage, f.artifact, f.why) for f in failures] == [("explain", str(tiny_files["int8"]), "it crashed")]
    assert isinstance(failures[0], Failure)


@pytest.mark.slow
def test_lite0_has_its_385_million_multiply_adds_in_operators_that_are_delegated(tmp_path: Path) -> None:
    from edgenet.export import find_source
    from edgenet.export.tflite import to_tflite

    network = find_source("efficientnet-lite0").network()
    about = {"precision": "float32", "io_dtype": "float32", "edgenet_version": "0"}
    path = to_tflite(network, network.graph, tmp_path / "lite0.tflite", about)
    found = operator_times.measure(path, 1, None)
    layers = [Layer(**row) for row in found["layers"]]
    assert sum(x.multiply_adds for x in layers) == 385_187_552
    assert sum(x.kernel == "XNNPACK" for x in layers) >= len(layers) - 1
    assert sum(x.time_us for x in layers) > 0
    convolutions = [x for x in layers if x.kind == "CONV_2D"]
    assert max(x.time_us for x in convolutions) > min(x.time_us for x in convolutions)
