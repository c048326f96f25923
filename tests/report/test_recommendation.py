"""The recommendation, the speed-up and the terminal summary: they say what the results say."""

import dataclasses
import io
import re
from typing import Any

import pytest

from edgenet.report import formatting
from edgenet.report.notes import latency_note
from edgenet.report.recommendation import recommend
from edgenet.report.rows import rows, speedup
from edgenet.report.summary import summary_lines, summary_renderable
from edgenet.results import Failure, Results, Warning
from helpers.hand_built import (
    FILES,
    a_measurement,
    an_artifact,
    changed,
    in_three_formats,
    partial_results,
    some_results,
    unlabelled,
)
from helpers.hand_built_runs import a_finetuning, a_refit, a_training

NBSP = formatting.NBSP

# --- the recommendation ---------------------------------------------------------------------------------------------


def test_the_fastest_file_within_the_limit_is_recommended() -> None:
    answer = recommend(some_results())
    assert answer.artifact == "efficientnet-lite0_int8"
    assert answer.headline == "Ship efficientnet-lite0_int8.tflite"
    assert answer.why[0] == "It is the fastest of the 4 files that lose at most 1 point."


def test_a_faster_file_that_loses_too_much_is_not_recommended() -> None:
    results = changed(some_results(), "int8", "evaluations", top1=0.82, top1_drop=0.054, top1_drop_ci95=(0.03, 0.08))
    answer = recommend(results)
    assert answer.headline == "Ship efficientnet-lite0_float16.tflite"
    reason = dict(answer.why_not)["efficientnet-lite0_int8.tflite"].replace(NBSP, " ")
    assert reason == (
        "It is 1.34× as fast as float32, but loses 5.4 points of top-1 (95 % interval 3.0 to 8.0); "
        "the limit is 1 point."
    )


def test_the_limit_is_an_argument_and_includes_its_end() -> None:
    results = changed(some_results(), "int8", "evaluations", top1_drop=0.02)
    assert recommend(results).artifact == "efficientnet-lite0_float16"
    assert recommend(results, max_drop=0.02).artifact == "efficientnet-lite0_int8"


def test_of_files_that_cannot_be_told_apart_the_smallest_is_recommended() -> None:
    results = some_results()
    float16 = next(m for m in results.measurements if m.artifact.endswith("float16"))
    int8 = next(m for m in results.measurements if m.artifact.endswith("int8"))
    changed(results, "float16", "measurements", samples_ns=tuple(int(ns * 0.985) for ns in int8.samples_ns))
    assert float16.median_ms != int8.median_ms
    answer = recommend(results)
    assert answer.artifact == "efficientnet-lite0_int8"
    assert "efficientnet-lite0_float16.tflite cannot be told from it in speed" in answer.why[0]
    assert "cannot be told" in dict(answer.why_not)["efficientnet-lite0_float16.tflite"]


def test_without_labels_agreement_decides_and_the_page_says_so() -> None:
    answer = recommend(unlabelled(some_results()))
    assert answer.artifact == "efficientnet-lite0_int8"
    assert any(n.loud and "accuracy was not" in n.text for n in answer.notes)
    assert "disagrees with float32 on 13.8" in dict(answer.why_not)["efficientnet-lite0_dynamic.tflite"]


def test_a_file_with_a_failure_is_not_recommended() -> None:
    results = some_results()
    results.put(
        Failure("bench", "efficientnet-lite0_int8.tflite", "local", why="the process died", remedy="one thread")
    )
    answer = recommend(results)
    assert answer.artifact == "efficientnet-lite0_float16"
    assert dict(answer.why_not)["efficientnet-lite0_int8.tflite"] == "It failed at bench: the process died."


def test_a_failure_of_int8_is_no_failure_of_a_file_whose_name_begins_alike() -> None:
    results = some_results()
    results.put(an_artifact("int8_qat", 5_300_000))
    results.put(Failure("bench", "efficientnet-lite0_int8_qat.tflite", why="the process died"))
    assert recommend(results).artifact == "efficientnet-lite0_int8"


def test_random_weights_ship_nothing_but_the_leader_is_named() -> None:
    results = some_results()
    for precision, *_ in FILES:
        changed(results, precision, "artifacts", weights="random")
    answer = recommend(results)
    assert answer.artifact is None
    assert answer.leader == "efficientnet-lite0_int8"
    assert answer.headline == "Nothing to ship: the weights are random"
    assert any(n.loud and "mean nothing" in n.text for n in answer.notes)
    assert not any("Top-1" in s for s in answer.why)


def test_an_evaluation_of_other_pictures_than_the_references_is_not_compared() -> None:
    answer = recommend(changed(some_results(), "int8", "evaluations", images="0" * 64))
    assert answer.artifact == "efficientnet-lite0_float16"
    assert "other pictures" in dict(answer.why_not)["efficientnet-lite0_int8.tflite"]


def test_a_measurement_of_an_earlier_file_does_not_count() -> None:
    results = changed(some_results(), "int8", "measurements", artifact_sha256="0" * 64)
    assert dict(recommend(results).why_not)["efficientnet-lite0_int8.tflite"] == "It was not measured yet."


SEEN = {"code": "seen-before", "severity": "info", "message": "40 of 140 taught it", "remedy": "the others measure"}


def test_what_is_wrong_with_pictures_is_said_of_those_that_it_concerns() -> None:
    findings = [{**SEEN, "severity": "warning"}, {**SEEN, "code": "few", "severity": "danger", "message": "few"}]
    notes = [n for n in recommend(some_results(calibration_findings=findings)).notes if "the others" in n.text]
    assert [(n.text, n.loud) for n in notes] == [
        ("40 of 140 taught it; the others measure.", False),
        ("Calibration pictures: few; the others measure.", True),
    ]


def test_few_labelled_pictures_are_pointed_out() -> None:
    results = some_results()
    results.evaluations = [dataclasses.replace(e, n_labelled=40, n_images=40) for e in results.evaluations]
    (few,) = [n.text for n in recommend(results).notes if n.loud]
    assert few == "40 labelled pictures are too few to see a loss of a point or two: read the intervals."
    assert not any(n.loud for n in recommend(some_results()).notes)


@pytest.mark.parametrize(
    ("context", "says"),
    [
        (
            {"images": {"root": "p", "evaluation": {"n": 86}, "calibration": {"n": 86}}},
            "86 of your 172 pictures measure, 86 calibrate. A picture that calibrates does not measure: int8 files are "
            "fitted to it.",
        ),
        (
            {"training": a_training()},
            "100 of your 500 pictures measure, 355 learn, 100 of them calibrate, 45 decide which epoch is kept. A "
            "picture that taught does not measure: the file knows it.",
        ),
        (
            {"training": a_finetuning(again=a_refit(), pictures={"train": 355, "held_back": 45, "evaluation": 100})},
            "100 of your 500 pictures measure, 400 learn, 45 of them decide which epoch is kept. A picture that taught "
            "does not measure: the file knows it.",
        ),
        (
            {
                "images": {"root": "p", "evaluation": {"n": 60}, "calibration": {"n": 40}},
                "calibration_findings": [SEEN],
            },
            "60 of the 100 pictures that were used measure, 40 calibrate. A picture that calibrates does not measure: "
            "int8 files are fitted to it.",
        ),
        ({}, ""),
    ],
)
def test_it_is_said_how_many_of_the_pictures_measure_and_what_the_others_do(context: dict[str, Any], says: str) -> None:
    results = some_results(**context)
    assert [n.text for n in recommend(results).notes if "pictures" in n.text] == ([says] if says else [])
    results.evaluations = [dataclasses.replace(e, n_labelled=86, n_images=86) for e in results.evaluations]
    (loud,) = [n.text for n in recommend(results).notes if n.loud]
    few = "86 labelled pictures are too few to see a loss of a point or two: read the intervals."
    assert loud == f"{says} {few}".strip()


def test_a_loss_is_told_from_zero_only_where_its_interval_leaves_zero_out() -> None:
    said = [s for s in recommend(some_results()).why if s.startswith("Top-1")]
    assert "which 500 pictures cannot tell from zero" in said[0]
    results = changed(some_results(), "int8", "evaluations", top1_drop=0.008, top1_drop_ci95=(0.002, 0.014))
    (sentence,) = [s for s in recommend(results).why if s.startswith("Top-1")]
    assert "cannot tell" not in sentence
    assert "0.8 points lost" in sentence


@pytest.mark.parametrize("kind", ["evaluations", "measurements"])
def test_without_evaluations_or_measurements_nothing_is_recommended_and_the_state_is_said(kind: str) -> None:
    results = some_results()
    getattr(results, kind).clear()
    answer = recommend(results)
    assert answer.artifact is None
    assert answer.headline == "No file can be recommended yet"
    counts = (0, 5) if kind == "evaluations" else (5, 0)
    assert answer.why[0] == f"5 files written, {counts[0]} evaluated, {counts[1]} measured."


def test_the_float32_file_is_recommended_where_every_other_loses_too_much() -> None:
    results = some_results()
    for precision in ("float16", "int8", "int16x8"):
        changed(results, precision, "evaluations", top1_drop=0.05)
    answer = recommend(results)
    assert answer.headline == "Ship efficientnet-lite0_float32.tflite"
    assert "Top-1 is 87.4" in " ".join(answer.why)


# --- speed ----------------------------------------------------------------------------------------------------------


def test_drift_that_hits_both_files_alike_cancels() -> None:
    a = an_artifact("float32", 1)
    rounds = tuple(r for r in range(8) for _ in range(5))
    drift = [1.0, 1.3, 1.1, 1.6, 1.2, 1.4, 1.5, 1.7]
    slow, fast = (
        a_measurement(a, 1, samples_ns=tuple(int(ms * 1e6 * drift[r]) for r in rounds), rounds=rounds)
        for ms in (12, 10)
    )
    ratio = speedup(slow, fast)
    assert ratio is not None
    assert ratio.value == pytest.approx(1.2)
    assert ratio.ci98 == pytest.approx((1.2, 1.2), rel=1e-3)
    assert ratio.told_apart


def test_noise_larger_than_the_difference_is_not_told_apart() -> None:
    a = an_artifact("float32", 1)
    slow, fast = (
        a_measurement(a, 1, samples_ns=tuple(int(ms * 1e6) for ms in samples), rounds=tuple(range(8)))
        for samples in ((11, 9, 14, 8, 13, 10, 12, 9.5), (9, 13, 8, 11, 10, 9.5, 9, 12.5))
    )
    ratio = speedup(slow, fast)
    assert ratio is not None
    assert ratio.ci98 is not None
    assert ratio.ci98[0] < 1 < ratio.value < ratio.ci98[1]
    assert not ratio.told_apart


def test_a_steady_difference_of_two_percent_is_not_told_apart_and_five_percent_is() -> None:
    a = an_artifact("float32", 1)
    base = a_measurement(a, 10.0)
    two, five = speedup(a_measurement(a, 10.2), base), speedup(a_measurement(a, 10.5), base)
    assert two is not None
    assert five is not None
    assert (two.told_apart, five.told_apart) == (False, True)


def test_samples_without_rounds_are_not_told_apart() -> None:
    a = an_artifact("float32", 1)
    ratio = speedup(a_measurement(a, 20, rounds=()), a_measurement(a, 10, rounds=()))
    assert ratio is not None
    assert ratio.value == pytest.approx(2)
    assert (ratio.ci98, ratio.told_apart) == (None, False)


def test_a_warning_names_its_files_unless_it_is_of_all() -> None:
    results = changed(
        some_results(), "int8", "evaluations", warnings=(Warning("8-bit-output", "the output has 8 bits"),)
    )
    for precision, *_ in FILES:
        changed(
            results, precision, "measurements", warnings=(Warning("busy", "other processes used 0.31 cores", 0.31),)
        )
    notes = [n.text for n in recommend(results).notes]
    assert "efficientnet-lite0_int8.tflite: the output has 8 bits." in notes
    assert "Read the latencies with care: other processes used 0.31 cores." in notes


def test_warnings_that_differ_in_their_number_only_become_one_sentence() -> None:
    results = changed(some_results(), "int8", "measurements", warnings=(noisy(0.12),))
    drift = Warning("drift", "drift: 8% slower from the first round to the last", 0.08)
    changed(results, "float16", "measurements", warnings=(noisy(0.31), drift))
    changed(results, "dynamic", "measurements", warnings=(noisy(0.13),))
    notes = [n.text for n in recommend(results).notes if "care" in n.text]
    assert notes == [
        "Read the latencies with care: 3 of 5 files are noisy (the middle half of the runs spreads over up to 31% of "
        "the median); efficientnet-lite0_float16.tflite drifted (8% slower from the first round to the last)."
    ]


@pytest.mark.parametrize(
    ("warnings", "said"),
    [
        ([Warning("few-runs", "", 12)], "a got too few runs (12 were made)"),
        (
            [Warning("few-runs", "", 12), Warning("few-runs", "", 7)],
            "all files got too few runs (as few as 7 were made)",
        ),
        (
            [Warning("drift", "", -0.2), Warning("drift", "", 0.1)],
            "all files drifted (up to 20% faster from the first round to the last)",
        ),
        ([Warning("not-settled", "", 15.0)], "a had not settled (after 15 s of warm-up)"),
        ([Warning("noisy", "")], "a is noisy"),  # of an older file, without the number
        ([Warning("busy", "used 0.2", 0.2), Warning("busy", "used 0.4", 0.4)], "used 0.4, at worst"),
        ([Warning("note", "it rained"), Warning("note", "it snowed")], "a: it rained; b: it snowed"),
        ([Warning("cannot-tell", "cannot tell it from b", 1.0)], ""),
    ],
)  # fmt: skip
def test_warnings_are_merged_by_their_code_and_the_worst_value_is_said(warnings: list[Warning], said: str) -> None:
    measured = [
        (name, dataclasses.replace(a_measurement(an_artifact("int8", 1), 1.0), warnings=(w,)))
        for name, w in zip("ab", warnings, strict=False)
    ]
    alone = [*measured, ("c", a_measurement(an_artifact("int8", 1), 1.0))] if len(measured) == 1 else measured
    assert latency_note(alone) == (f"Read the latencies with care: {said}." if said else "")


def noisy(spread: float) -> Warning:
    return Warning("noisy", f"noisy: the middle half of the runs spreads over {spread:.0%} of the median", spread)


def test_a_single_picture_is_written_in_the_singular() -> None:
    results = some_results()
    for precision, *_ in FILES:
        changed(results, precision, "evaluations", n_images=1, n_labelled=1)
    answer = recommend(results)
    said = " ".join([*answer.why, *(n.text for n in answer.notes)])
    assert "1 labelled picture is too few" in said
    assert "1 picture cannot tell" in said
    without = recommend(unlabelled(results))
    said += " ".join([*without.why, *(n.text for n in without.notes)])
    assert "The picture has no label: agreement" in said
    assert "1 pictures" not in said


def test_the_sentence_about_an_openvino_file_names_its_second_file() -> None:
    results = changed(some_results(), "int8", "artifacts", format="openvino", path="efficientnet-lite0_int8.xml")
    answer = recommend(results)
    assert answer.headline == "Ship efficientnet-lite0_int8.xml"
    assert "in two files, the .xml and the .bin beside it, 29" in answer.why[1]


def test_of_three_formats_the_fastest_within_the_limit_is_recommended() -> None:
    answer = recommend(in_three_formats())
    assert answer.headline == "Ship efficientnet-lite0_int8.onnx"
    assert answer.why[0] == "It is the fastest of the 11 files that lose at most 1 point."
    assert answer.why_not[0][0] == "efficientnet-lite0_int8.xml", "why not the fastest is the first question"
    assert "loses 3.0 points" in answer.why_not[0][1]


def test_many_files_that_cannot_be_told_apart_are_counted_and_equal_sizes_are_no_multiple() -> None:
    results = in_three_formats()
    same = results.measurements[0].samples_ns
    results.measurements = [dataclasses.replace(m, samples_ns=same) for m in results.measurements]
    answer = recommend(results)
    assert answer.headline == "Ship efficientnet-lite0_weight-only.tflite"
    assert "10 others cannot be told from it in speed" in answer.why[0]
    assert "no smaller (5.0 MB)" in dict(answer.why_not)["efficientnet-lite0_weight-only.onnx"].replace(NBSP, " ")


def test_the_terminal_gives_five_reasons_and_the_number_of_the_rest() -> None:
    lines = summary_lines(in_three_formats())
    start = lines.index("Why not the others")
    assert lines[start + 6] == "  and 6 more files, in the report"
    assert not any("more files" in line for line in summary_lines(some_results())), "four need no fold"


@pytest.mark.parametrize("width", [60, 80, 160])
def test_no_header_of_the_terminal_table_is_cut(width: int) -> None:
    head = printed(in_three_formats(), width).splitlines()[0]
    assert head.split() == ["file", "size", "top-1", "pts", "lost", "median", "speed-up"]


def test_the_terminal_table_holds_the_files_of_a_format_together() -> None:
    lines = printed(in_three_formats(), 160).splitlines()[1:13]
    suffixes = [re.search(r"\.(\w+)", line) for line in lines]
    assert [m[1] for m in suffixes if m] == ["tflite"] * 4 + ["onnx"] * 4 + ["xml"] * 4


def test_two_rounds_are_too_few_to_tell() -> None:
    a = an_artifact("float32", 1)
    m = [a_measurement(a, 1, samples_ns=(ms, ms), rounds=(0, 1)) for ms in (20_000_000, 10_000_000)]
    ratio = speedup(*m)
    assert ratio is not None
    assert (ratio.value, ratio.ci98, ratio.told_apart) == (2.0, None, False)


def test_the_main_table_compares_one_device_and_thread_count_only() -> None:
    results = some_results()
    int8 = results.artifact("efficientnet-lite0_int8")
    results.put(a_measurement(int8, 3.0, device="adb:PIXEL", threads=4))
    (row,) = [r for r in rows(results) if r.artifact is int8]
    assert row.measurement is not None
    assert (row.measurement.device, row.measurement.threads) == ("local", 2)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (formatting.megabytes(5_316_608), "5.3 MB"),
        (formatting.megabytes(310_000), "0.31 MB"),
        (formatting.milliseconds(9.8), "9.80 ms"),
        (formatting.milliseconds(13.14), "13.1 ms"),
        (formatting.milliseconds(161.7), "162 ms"),
        (formatting.milliseconds(float("nan")), "—"),
        (formatting.percent(0.8742), "87.4 %"),
        (formatting.points(-0.0004), "0.0"),
        (formatting.points(-0.0123), "−1.2"),
        (formatting.interval((-0.005, 0.013)), "−0.5 to 1.3"),
        (formatting.interval(None), "—"),
        (formatting.times(1.341), "1.34×"),
        (formatting.times(None), "—"),
        (formatting.p_value(0.0000004), "p < 0.001"),
        (formatting.p_value(1.0), "p = 1"),
        (formatting.decibels(float("inf")), "—"),
    ],
)
def test_numbers_have_units_and_sensible_digits(shown: str, expected: str) -> None:
    assert shown.replace(NBSP, " ") == expected


# --- the terminal ---------------------------------------------------------------------------------------------------


def printed(results: Results, width: int) -> str:
    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False).print(summary_renderable(results))
    return out.getvalue().replace(NBSP, " ")


def test_the_terminal_table_fits_80_columns() -> None:
    slower = a_measurement(an_artifact("int8", 1), 10.1)
    results = changed(some_results(), "int8", "measurements", samples_ns=slower.samples_ns)
    lines = printed(results, 80).splitlines()
    assert all(any(a.path in line for line in lines) for a in results.artifacts), "no file name is broken in two"
    assert max(map(len, lines)) <= 80
    (row,) = [line for line in lines if line.startswith("→")]
    assert row.split()[1] == "efficientnet-lite0_int8.tflite"
    assert "5.3 MB" in row
    assert "1.30×" in row


def test_file_names_are_not_read_as_markup() -> None:
    results = changed(some_results(), "int8", "artifacts", path="[red]x.tflite")
    assert "Ship [red]x.tflite" in printed(results, 100)


@pytest.mark.parametrize("state", list(partial_results()))
def test_partial_results_still_give_a_summary(state: str) -> None:
    results = partial_results()[state]
    out = " ".join(printed(results, 200).split())
    assert recommend(results).headline in out
    for f in results.failures:
        assert f"{f.why}. {f.remedy}" in out
