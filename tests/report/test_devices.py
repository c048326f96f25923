"""report/devices: which file is for which device, why, and the table of files and devices."""

from dataclasses import replace
from typing import Any

import pytest

from edgenet.report.devices import picks, ranked_on
from edgenet.report.devices.choice import Pick, emulated_sentence
from edgenet.report.devices.section import choices, devices
from edgenet.report.files import estimates, files
from edgenet.report.formatting import NBSP
from edgenet.report.overview import answer, render, view_of
from edgenet.report.summary import summary_lines, summary_table
from edgenet.results import Artifact, CompiledLayer, Estimate, Failure, LeftOperators, Results
from helpers.hand_built import a_measurement, an_artifact, an_evaluation, some_results

PHONE, MICRO = "qnn:SM8750", "micro"


def twin(name: str = "efficientnet-lite0_int8_io-uint8", **changes: Any) -> Artifact:
    given = {"id": name, "path": f"{name}.tflite", "io_dtype": "uint8", "made_for": (PHONE,), "sha256": "7" * 64}
    return an_artifact("int8", 5_316_000, **{**given, **changes})


def estimated(a: Artifact, device: str = PHONE, taken: int = 63, **changes: Any) -> Estimate:
    left = (LeftOperators("SOFTMAX", 63 - taken, "float32"),) if taken < 63 else ()
    return Estimate(
        a.id, device, "compiler 1", "compiled", 63, taken, left, artifact_sha256=a.sha256,
        **{"compiled_bytes": 5_600_000, **changes},
    )  # fmt: skip


def emulated(a: Artifact, agreement: float, device: str = PHONE, **changes: Any):
    e = an_evaluation(a, 0.86, 0.01, agreement, device=device, emulated="emulator 1", n_images=100, **changes)
    return replace(e, outputs_compared=10**5, outputs_differing=7, agreement_here=0.99, agreement_here_ci95=(0.95, 1.0))


def on_a_chip(**changes: Any) -> tuple[Results, Artifact]:
    """The results of a run with a Snapdragon, and the file that it asked for."""
    results, a = some_results(), twin()
    int8 = next(x for x in results.artifacts if x.precision == "int8")
    for item in (a, an_evaluation(a, 0.87, 0.004, 0.984), a_measurement(a, 9.0), estimated(int8, taken=60)):
        results.put(item)
    results.put(estimated(a, **changes))
    return results, a


def pick(results: Results, device: str) -> Pick:
    view = view_of(results)
    return next(p for p in picks(results, view.answer, view.rows) if p.device == device)


def text(p: Pick) -> str:
    return " ".join(p.why).replace(NBSP, " ")


# which file


def test_a_chip_gets_the_file_that_it_takes_whole_and_the_computer_its_own() -> None:
    results, a = on_a_chip()
    results.put(emulated(a, 0.98))
    p = pick(results, PHONE)
    assert (p.artifact, p.name) == (a.id, a.path)
    assert text(p) == (
        "All 63 operators run on it. Same answer as float32 on 98.0 % of 100 pictures (95 % interval 96.6 to 98.9), "
        "and as the same file on this machine on 99.0 %: emulated by emulator 1. No time: nothing estimates one, "
        "and nothing was measured. 5.6 MB compiled."
    )
    here = pick(results, "local")
    assert here.artifact == "efficientnet-lite0_int8" == view_of(results).answer.artifact
    assert "measured there" in text(here)


def test_what_a_chip_asked_for_is_not_among_the_files_for_computers() -> None:
    results, a = on_a_chip()
    answer = view_of(results).answer
    assert a.path not in [name for name, _ in answer.why_not]
    assert answer.headline == "Ship efficientnet-lite0_int8.tflite"  # though the other one is faster and smaller


def test_a_time_of_a_compiler_is_said_to_be_one_with_its_bounds() -> None:
    results, a = on_a_chip(inference_ms=0.255, inference_bounds_ms=(0.221, 0.295))
    said = text(pick(results, PHONE))
    assert "0.26 ms (0.22 ms to 0.29 ms) a picture by the compiler's estimate, not measured." in said
    assert "Its answers there were not emulated." in said
    other = twin(f"{a.id}_x", format="onnx", path="x.onnx")
    results.estimates[-1] = replace(results.estimates[-1], inference_ms=None, inference_bounds_ms=None)
    results.put(other)
    results.put(estimated(other, inference_ms=0.255, inference_bounds_ms=(0.221, 0.295)))
    assert "Of x.onnx, the same integers, 0.26 ms (0.22 ms to 0.29 ms) a picture" in text(pick(results, PHONE))


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"taken": 63}, {"taken": 62}),
        ({"inference_ms": 1.0}, {"inference_ms": 2.0}),
        ({"inference_ms": 2.0}, {}),
        ({"sram_bytes": 10}, {"sram_bytes": 20}),
        ({"compiled_bytes": 10}, {"compiled_bytes": 20}),
    ],
)
def test_the_better_file_for_a_chip_comes_first(better: dict[str, Any], worse: dict[str, Any]) -> None:
    results = Results()
    for name, how in (("a", worse), ("b", better)):
        a = twin(name)
        results.put(a)
        results.put(estimated(a, **how))
    assert [a.id for a in ranked_on(results, PHONE)] == ["b", "a"]


def test_a_file_that_is_not_for_the_chip_or_of_which_nothing_runs_there_is_never_chosen() -> None:
    results, a = on_a_chip()
    floating = results.artifacts[0]
    results.put(estimated(floating))
    results.put(replace(estimated(a), n_accelerated=0, left=(LeftOperators("CONV_2D", 63, "the NPU has none"),)))
    assert [x.id for x in ranked_on(results, PHONE)] == ["efficientnet-lite0_int8"]
    results.estimates = [e for e in results.estimates if e.artifact == a.id]
    p = pick(results, PHONE)
    assert (p.artifact, text(p)) == (None, f"No operator of {a.path} runs on it: the NPU has none.")


def test_an_estimate_of_other_bytes_is_not_of_this_file() -> None:
    results, a = on_a_chip()
    results.put(replace(estimated(a), artifact_sha256="0" * 64))
    assert a.id not in [x.id for x in ranked_on(results, PHONE)]


def test_a_file_whose_emulated_answers_are_wrong_is_not_shipped_to_the_chip() -> None:
    results, a = on_a_chip()
    results.estimates = [e for e in results.estimates if e.artifact == a.id]
    results.put(emulated(a, 0.5, nonfinite_images=0))
    assert "answers otherwise than float32 there on 49.1 % of the pictures at least" in text(pick(results, PHONE))
    results.put(emulated(a, 0.98, nonfinite_images=3))
    assert text(pick(results, PHONE)) == f"No file: {a.path} answers NaN or infinity there on 3 pictures."


def test_what_this_computers_kernels_do_to_a_file_does_not_keep_it_from_its_chip() -> None:
    """x86 without VNNI saturates where the chip is exact."""
    results, a = on_a_chip()
    results.put(an_evaluation(a, 0.5, 0.374, 0.55))
    assert pick(results, PHONE).artifact != a.id  # nothing else is known of it
    results.put(emulated(a, 0.98))
    assert pick(results, PHONE).artifact == a.id


def test_that_this_computer_saturates_is_noted_for_the_files_that_it_hits() -> None:
    results, _ = on_a_chip()
    onnx = twin("made", format="onnx", path="made.onnx", options={"weight_bits": 8})
    results.put(onnx)
    said = [n.text for n in view_of(results).answer.notes]
    assert any(t.startswith("made.onnx: made for a chip that multiplies exactly.") for t in said)
    results.context = replace(results.context, isa=("avx2", "avx_vnni"))
    assert not any("multiplies exactly" in n.text for n in view_of(results).answer.notes)


def test_a_device_that_failed_has_a_line_and_no_file() -> None:
    results, _ = on_a_chip()
    results.put(Failure("bench", device="qnn:SM1", why="unknown Snapdragon", remedy="write another"))
    p = pick(results, "qnn:SM1")
    assert (p.artifact, text(p)) == (None, "No file: it failed at bench, see below.")


def test_a_failure_on_a_chip_keeps_no_file_from_this_computer() -> None:
    results, _ = on_a_chip()
    results.put(Failure("evaluate", "efficientnet-lite0_int8", PHONE, why="the emulator crashed"))
    assert view_of(results).answer.artifact == "efficientnet-lite0_int8"


def test_with_one_computer_the_page_has_no_word_of_devices() -> None:
    view = view_of(some_results())
    assert choices(view) == ()
    assert devices(view) is None
    assert "Which file for which device" not in summary_lines(some_results())


def test_another_phone_gets_the_file_that_is_fastest_there() -> None:
    results = some_results()
    for a, ms in zip(results.artifacts, (5.0, 2.0, 1.0, 3.0, 9.0), strict=True):
        results.put(a_measurement(a, ms, device="adb:X"))
    p = pick(results, "adb:X")
    assert p.artifact == "efficientnet-lite0_float16"  # dynamic is faster, and loses too much
    assert text(p).startswith("2.00 ms a picture, measured there")


# a run for chips alone


def for_chips(**changes: Any) -> tuple[Results, Artifact]:
    """As `on_a_chip`, and nothing was timed: no computer was asked for."""
    results, a = on_a_chip(**changes)
    results.measurements.clear()
    return results, a


def test_a_run_for_one_chip_alone_opens_with_the_file_for_it() -> None:
    results, a = for_chips()
    results.put(emulated(a, 0.98))
    view = view_of(results)
    assert answer(view).headline == f"Ship {a.path} to {PHONE}" == summary_lines(results)[0]
    assert view.answer.code == "chips-only"
    assert "--device local times the files here" in view.answer.why[0]
    assert (answer(view).tiles, view.chosen) == ((), None)


def test_a_run_for_chips_alone_says_how_many_files_are_for_how_many_of_them() -> None:
    results, a = for_chips()
    results.put(estimated(a, "qnn:QCS9100"))
    assert summary_lines(results)[0] == f"Ship {a.path} to the 2 chips"
    other = twin("efficientnet-lite0_int8_io-int8", made_for=(MICRO,), sha256="8" * 64)
    results.put(other)
    results.put(estimated(other, MICRO))
    assert summary_lines(results)[0] == "Ship 2 files to the 3 chips"
    results.put(Failure("bench", device="qnn:SM1", why="unknown Snapdragon", remedy="write another"))
    assert summary_lines(results)[0] == "Ship 2 files to 3 of 4 chips"


def test_where_no_chip_takes_a_file_the_headline_says_so() -> None:
    results, _ = for_chips()
    results.estimates.clear()
    results.put(Failure("bench", device="qnn:SM1", why="unknown Snapdragon", remedy="write another"))
    assert summary_lines(results)[0] == "No file for qnn:SM1"


def test_a_run_for_chips_alone_has_no_word_and_no_column_of_times() -> None:
    results, _ = for_chips()
    view = view_of(results)
    assert [name for name, _ in view.answer.why_not] == ["efficientnet-lite0_dynamic.tflite"]  # it loses too much
    said = "\n".join(summary_lines(results))
    assert "not measured yet" not in said
    assert "latency" not in view.answer.rule
    titles = [str(c.header) for c in summary_table(results, view.answer).columns]
    assert titles[-1] == "pts lost"
    section = files(view)
    assert section is not None
    assert not {"Median", "p90, p95", "Speed-up", "Load, memory"} & set(section.files.titles)
    assert "p95" not in section.files.caption
    timed = files(view_of(on_a_chip()[0]))
    assert timed is not None
    assert {"Median", "p90, p95", "Speed-up", "Load, memory"} < set(timed.files.titles)
    assert "p95, peak memory" in timed.files.caption


def test_with_random_weights_nothing_is_shipped_to_a_chip_either() -> None:
    results, _ = for_chips()
    results.artifacts = [replace(a, weights="random") for a in results.artifacts]
    assert summary_lines(results)[0] == "Nothing to ship: the weights are random"


def test_files_that_this_computer_could_not_time_are_not_for_chips_alone() -> None:
    results, _ = for_chips()
    results.put(Failure("bench", results.artifacts[0].id, "local", why="its process was killed"))
    assert summary_lines(results)[0] == "No file can be recommended yet"


# the layers


def test_the_layers_of_a_compiler_that_lists_them_stand_in_a_table_each() -> None:
    rows = (
        CompiledLayer("stem", "ConvRelu", "NPU", "INT8", 750, 1536),
        CompiledLayer("head", "Conv", "NPU", "INT8", 250, 512),
        CompiledLayer("probabilities", "exSoftmax13", "CPU", "FLOAT16", 0, 2048),
    )
    results, a = on_a_chip(layers=rows, memory_bytes={"activations": 1_500_000, "weights": 5_000_000})
    shown = estimates(view_of(results))
    assert shown is not None
    (one,) = shown.layers
    assert f"<summary>{one.summary}</summary>" in render(view_of(results))
    assert one.summary == f"{a.path} on {PHONE}, layer by layer: 3 layers, 2 on the NPU, 1 on the CPU"
    assert one.table.caption.replace(NBSP, " ") == (
        "In the order in which they run, by compiler 1. It gives no cycles for 1 of them. "
        "Memory of the whole: 1.5 MB of activations; 5.0 MB of weights."
    )
    texts = [tuple(c.chip.text if c.chip else c.text for c in line.cells) for line in one.table.groups[""]]
    assert texts == [
        ("stem", "ConvRelu", "NPU", "INT8", "750", "75.0 %", "1.5 KB"),
        ("head", "Conv", "NPU", "INT8", "250", "25.0 %", "0.5 KB"),
        ("probabilities", "exSoftmax13", "CPU", "FLOAT16", "—", "—", "2.0 KB"),
    ]


# the table


def cells(results: Results, name: str) -> dict[str, tuple[str, ...]]:
    table = devices(view_of(results))
    assert table is not None
    (line,) = (x for lines in table.groups.values() for x in lines if x.cells[0].text == name)
    said = [tuple(t.replace(NBSP, " ") for t in (c.text, c.small, *c.more) if t) for c in line.cells]
    chips = [(c.chip.text,) if c.chip else () for c in line.cells]
    return {t: s + chip for t, s, chip in zip(table.titles, said, chips, strict=True)}


def test_each_cell_says_what_is_measured_estimated_and_emulated() -> None:
    results, a = on_a_chip(inference_ms=0.255, inference_bounds_ms=(0.221, 0.295), sram_bytes=1_500_000)
    results.put(emulated(a, 0.98))
    row = cells(results, a.path)
    assert row["local"] == ("9.01 ms", "measured, 2 threads", "98.4 % (97.0 to 99.3) as float32")
    assert row[PHONE] == (
        "63 of 63", "operators", "98.0 % (96.6 to 98.9) as float32, emulated", "0.26 ms estimated",
        "0.22 ms to 0.29 ms", "5.6 MB compiled", "1.5 MB of RAM", "ship",
    )  # fmt: skip
    assert cells(results, "efficientnet-lite0_int8.tflite")[PHONE][:2] == ("60 of 63", "operators")


def test_a_file_that_is_not_for_a_chip_says_why_and_one_that_failed_that_it_did() -> None:
    results, a = on_a_chip()
    assert cells(results, "efficientnet-lite0_float32.tflite")[PHONE] == ("—", "not for it: it takes int8 files")
    results.estimates = [e for e in results.estimates if e.artifact != a.id]
    assert cells(results, a.path)[PHONE] == ("—", "not tried")
    results.put(Failure("bench", a.id, PHONE, why="the compiler was killed", remedy="run again"))
    assert cells(results, a.path)[PHONE] == ("—", "failed")


def test_the_terminal_says_the_same_as_the_page() -> None:
    results, a = on_a_chip()
    results.put(emulated(a, 0.98))
    results.put(estimated(a, MICRO, sram_bytes=1_700_000, compiled_bytes=None, flash_bytes=5_300_000))
    lines = summary_lines(results)
    for c in choices(view_of(results)):
        assert f"  {c.device}: {c.name} {c.why}" in lines


def test_bit_for_bit_is_said_where_it_is_so() -> None:
    e = emulated(twin(), 1.0)
    assert ", bit for bit: emulated by" in emulated_sentence(replace(e, outputs_differing=0))
    assert "bit for bit" not in emulated_sentence(e)
    alone = emulated_sentence(replace(e, agreement=None))
    assert alone == "Answers of 100 pictures emulated by emulator 1, with nothing to compare them with."
