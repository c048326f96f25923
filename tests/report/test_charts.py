"""The plots of the page: which files are drawn, and what the caption says of them."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from edgenet.report.charts import latency, over_time, tradeoff
from edgenet.report.formatting import NBSP, milliseconds
from edgenet.report.overview import view_of
from edgenet.report.pieces import Figure
from edgenet.results import Results
from helpers import hand_built_runs
from helpers.hand_built import changed, in_three_formats, partial_results, some_results


def drawn(figure: Figure | None) -> Figure:
    """The figure with plain spaces."""
    assert figure is not None
    return Figure(figure.drawing.replace(NBSP, " "), figure.caption.replace(NBSP, " "))


def test_every_file_with_numbers_is_a_mark_and_the_others_are_named() -> None:
    results = some_results()
    figure = drawn(tradeoff(view_of(results)))
    assert figure.drawing.count('class="mark chosen"') == 2  # for a desk and for a phone
    assert figure.drawing.count("<circle") == 2 * len(results.artifacts)
    assert "limit: 1 point below float32" in figure.drawing
    assert "Not drawn" not in figure.caption
    results.measurements = results.measurements[1:]
    figure = drawn(tradeoff(view_of(results)))
    assert figure.drawing.count("<circle") == 2 * (len(results.artifacts) - 1)
    assert "Not drawn, for want of numbers: efficientnet-lite0_float32.tflite." in figure.caption


def test_without_labels_agreement_is_drawn() -> None:
    figure = drawn(tradeoff(view_of(partial_results()["no labels"])))
    assert "Agreement with float32, %" in figure.drawing
    assert "limit: 97" in figure.drawing


def test_with_random_weights_no_limit_is_drawn() -> None:
    results = changed(some_results(), "int8", "artifacts", weights="random")
    assert "limit" not in drawn(tradeoff(view_of(results))).drawing


def test_without_measurements_nothing_is_drawn() -> None:
    view = view_of(partial_results()["exported"])
    assert (tradeoff(view), latency(view), over_time(view)) == (None, None, None)


def test_on_a_phone_many_files_are_numbered_and_named_in_a_key() -> None:
    figure = drawn(tradeoff(view_of(in_three_formats())))
    wide, narrow = (re.search(rf'<svg class="{kind}".*?</svg>', figure.drawing) for kind in ("wide", "narrow"))
    assert wide is not None
    assert narrow is not None
    labels = re.findall(r'class="label \w+"[^>]*>([^<]*)<', narrow[0])
    assert sorted(labels[:12], key=int) == [str(i) for i in range(1, 13)]
    assert labels[12] == "1  int8 openvino"
    assert "int8 onnx" in wide[0]


def test_the_pace_over_time_is_drawn_with_clock_temperature_and_the_noise_floor() -> None:
    results = hand_built_runs.over_time(
        some_results(), round_celsius=(48.0, 55.0), round_mhz=(1800.0, 2400.0), self_ratio=1.004,
        self_ratio_ci98=(0.991, 1.012),
    )  # fmt: skip
    figure = drawn(over_time(view_of(results)))
    assert "Clock 1800 to 2400 MHz. Temperature 48 to 55 °C." in figure.caption
    assert "took 1.004 times its own time (98 % interval 0.991 to 1.012)" in figure.caption
    assert figure.drawing.count('<g class="pace ') == 2 * len(results.measurements)  # for a desk and for a phone
    assert over_time(view_of(some_results())) is None  # results of an earlier version


def test_a_file_that_slows_down_without_a_pause_is_named_below_its_curve() -> None:
    results = hand_built_runs.over_time(some_results(), sustained_s=60.0)
    hot, *rest = results.measurements
    n = len(hot.samples_ns)
    samples = tuple(10_000_000 if i < n // 2 else 14_000_000 for i in range(n))
    figure = drawn(over_time(view_of(replace(results, measurements=[replace(hot, samples_ns=samples), *rest]))))
    assert re.search(r"Without a pause, slower in the end: \S+ by 40 % after \d+ s", figure.caption)


def test_runs_that_were_set_aside_are_kept_left_out_of_the_dots_and_drawn_over_time(tmp_path: Path) -> None:
    results = hand_built_runs.over_time(some_results())
    shared, *rest = results.measurements
    late = max(shared.rounds) + 1
    shared = replace(shared, pace_ns=(20_000,) * shared.n_runs, round_s=(*shared.round_s, 99.0),
                     disturbed_ns=(50_000_000,) * 9, disturbed_rounds=(late,) * 9,
                     disturbed_pace_ns=(31_000,) * 9)  # fmt: skip
    results = replace(results, measurements=[shared, *rest])
    results.save(tmp_path)
    back = Results.load(tmp_path).measurements[0]
    assert back == shared
    assert back.every_run_median_ms > back.median_ms
    view = view_of(results)
    dots, paces = drawn(latency(view)), drawn(over_time(view))
    assert "Runs beside which the core was shared are left out." in dots.caption
    assert f"{shared.n_runs} runs a file" in dots.caption
    slowest = milliseconds(max(shared.samples_ns) / 1e6).replace(NBSP, " ")
    assert f"{shared.n_runs} runs, slowest {slowest}" in dots.drawing, "the disturbed ones took 50 ms"
    assert "Every run is in it, those that were set aside too." in paces.caption
    assert "are left out" not in drawn(latency(view_of(hand_built_runs.over_time(some_results())))).caption


@pytest.mark.parametrize(("runs", "caption"), [((120, 120), "120 runs a file"), ((60, 120), "60 to 120 runs a file")])
def test_how_many_runs_a_file_got_stands_below_the_dots(runs: tuple[int, int], caption: str) -> None:
    results = some_results()
    results.measurements = [
        replace(m, samples_ns=m.samples_ns[:n], rounds=m.rounds[:n])
        for m, n in zip(results.measurements, runs, strict=False)
    ]
    assert caption in drawn(latency(view_of(results))).caption
