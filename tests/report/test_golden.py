"""Whole pages as their readers see them, line by line: what the other tests hold as values, here as sentences."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgenet.report import write_report
from edgenet.report.overview import SECTIONS
from edgenet.results import (
    CompiledLayer,
    Confusion,
    Estimate,
    Explanation,
    Failure,
    Layer,
    LeftOperators,
    Results,
    Warning,
)
from helpers.golden import assert_golden
from helpers.hand_built import (
    NAMES,
    a_measurement,
    an_artifact,
    an_evaluation,
    changed,
    in_three_formats,
    partial_results,
    some_results,
)
from helpers.hand_built_runs import a_calibration, a_finetuning, a_refit, a_search, a_training, measured, over_time
from helpers.html_page import Page

GOLDEN = Path(__file__).with_name("golden")


def a_whole_run() -> Results:
    """Everything that a run can note, and that can go wrong."""
    finding = {"code": "few", "severity": "danger", "message": "63 different pictures", "remedy": "give more"}
    results = some_results(
        calibration=a_calibration(14),
        calibration_findings=[finding],
        search={"tflite": a_search(), "onnx": a_search(met=False)},
        images={"root": "photos", "calibration": {"n": 100, "fingerprint": "a" * 64}},
    )
    results = over_time(results, round_celsius=(48.0, 55.0), self_ratio=1.004, self_ratio_ci98=(0.991, 1.012))
    first = results.artifacts[0]
    left = (LeftOperators("FULLY_CONNECTED", 1, "works on float32"), LeftOperators("SOFTMAX", 2, "works on float32"))
    results.put(
        Estimate(first.id, "ethos-u:ethos-u55-256", "vela 5.2.0", "compiled by Vela", 64, 61, left, 7_190_859, 5e8,
                 14.38, 1_509_600, 0, 4_510_096, warnings=(Warning("left-to-cpu", "2 operators run on the CPU"),))
    )  # fmt: skip
    int8 = results.artifacts[3]
    results.put(
        Estimate(int8.id, "ethos-u:ethos-u85-256", "vela 5.2.0", "compiled by Vela", 61, 61, (), 700_000, 1e9, 0.7,
                 1_509_600, 0, 4_510_096, inference_bounds_ms=(0.6, 0.9), compiled_bytes=5_000_000)
    )  # fmt: skip
    emulated = an_evaluation(int8, 0.86, 0.01, 0.98, device="ethos-u:ethos-u85-256", emulated="tflite-micro 1")
    results.put(replace(emulated, n_images=100, outputs_compared=10**5, outputs_differing=7, agreement_here=0.99))
    results.put(Failure("bench", device="ethos-u:gone", why="unknown Ethos-U", remedy="choose another --device"))
    results.put(a_measurement(results.artifacts[3], 3.0, device="adb:PIXEL", threads=4))
    of_float32 = {"3": (20, 12), "7": (20, 18), "9": (20, 19), "11": (2, 1)}
    changed(results, "float32", "evaluations", classes=of_float32, confusions=(Confusion(3, 5, 4),))
    changed(results, "int8", "evaluations", classes={**of_float32, "3": (20, 10)}, class_flips={"3": (1, 3)},
            confusions=(Confusion(3, 5, 6), Confusion(3, 7, 1)))  # fmt: skip
    layers = tuple(Layer(f"conv{i}", "CONV_2D", "int8", "XNNPACK", 100.0 + i, 10**6 * i, 10**4) for i in range(1, 11))
    results.put(
        Explanation("efficientnet-lite0_int8", "local", "litert", 1, "int8", 9.8, 9.7, "hand", layers,
                    {"float32": 50e9, "int8": 100e9}, (1 << 10, 1 << 20), (100e9, 10e9), ("Half of it is products.",))
    )  # fmt: skip
    results.put(Failure("export", "efficientnet-lite0_int4.tflite", why="unknown operator", remedy="use int8"))
    return results


def for_chips() -> Results:
    """A run for a Snapdragon and a Rockchip, and no computer."""
    results = some_results()
    results.measurements.clear()
    id = "efficientnet-lite0_int8_io-uint8"
    how = {"io_dtype": "uint8", "format": "onnx", "made_for": ("rknn:RK3566",), "sha256": "7" * 64}
    a = an_artifact("int8", 5_316_000, id=id, path=f"{id}.onnx", **how)
    results.put(a)
    left = (LeftOperators("exSoftmax13", 1, "Softmax will fall back to CPU"),)
    layers = (
        CompiledLayer("image", "ConvRelu", "NPU", "INT8", 75_000, 640_000),
        CompiledLayer("logits", "Conv", "NPU", "INT8", 25_000, 1_283_000),
        CompiledLayer("probabilities", "exSoftmax13", "CPU", "INT8", 0, 2_000),
    )
    results.put(
        Estimate(a.id, "rknn:RK3566", "rknn-toolkit2 2.5.0", "compiled by rknn-toolkit2", 3, 2, left, 100_000,
                 artifact_sha256=a.sha256, compiled_bytes=4_970_000, layers=layers,
                 memory_bytes={"activations": 1_505_280, "weights": 4_700_000})
    )  # fmt: skip
    int8 = results.artifacts[3]
    results.put(
        Estimate(int8.id, "qnn:SM8750", "QNN 2.50.40", "compiled by QNN", 63, 63, (), artifact_sha256=int8.sha256,
                 compiled_bytes=5_600_000)
    )  # fmt: skip
    return results


def two_trained() -> Results:
    other = {"format": "onnx", "kept": "ptq", "why": "it lost", "before": measured(0.98), "after": measured(0.9)}
    note = a_training(stopped_early=True, settings={"epochs": 20})
    return some_results(training={**note, "files": [*note["files"], other]})


def finetuned() -> Results:
    return some_results(training=a_finetuning(again=a_refit()))


PAGES = {
    "run": a_whole_run,
    "three_formats": in_three_formats,
    "chips": for_chips,
    "qat": two_trained,
    "finetune": finetuned,
    "only_failures": lambda: partial_results()["only failures"],
    "no_labels": lambda: partial_results()["no labels"],
    "exported": lambda: partial_results()["exported"],
}


@pytest.mark.parametrize("name", PAGES)
def test_the_page_reads_as_the_golden_one(name: str, tmp_path: Path) -> None:
    page = Page(write_report(PAGES[name](), tmp_path, NAMES).read_text(encoding="utf-8"))
    assert_golden(page.visible, GOLDEN / f"{name}.txt")


def test_a_changed_word_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RENEW_GOLDEN", raising=False)
    shown = (GOLDEN / "run.txt").read_text(encoding="utf-8")
    with pytest.raises(AssertionError):
        assert_golden(shown.replace("Ship", "Take", 1), GOLDEN / "run.txt")


def test_no_page_prints_a_value_that_is_none() -> None:
    for path in GOLDEN.iterdir():
        assert "None" not in path.read_text(encoding="utf-8").replace("None of the", ""), path.name


def test_the_golden_pages_have_every_section() -> None:
    lines = [line for path in GOLDEN.iterdir() for line in path.read_text(encoding="utf-8").splitlines()]
    titles = {"Accuracy, latency, size", "The accuracy budget", "Training", "Every file, every number",
              "Accelerators, estimated", "Latency, run by run", "Latency over time", "Why", "Pictures that flipped",
              "Calibration", "Class by class", "What failed", "Each file on each device",
              "How the numbers were made"}  # fmt: skip
    assert titles <= set(lines)
    assert len(titles) == len(SECTIONS) - 1  # the answer's headline is its own


def test_replacing_a_measurement_changes_the_page(tmp_path: Path) -> None:
    """The golden text depends on the numbers, not on the template alone."""
    results = some_results()
    before = Page(write_report(results, tmp_path, NAMES).read_text()).visible
    results.put(replace(results.measurements[3], samples_ns=(8_000_000,) * 120))
    assert Page(write_report(results, tmp_path, NAMES).read_text()).visible != before
