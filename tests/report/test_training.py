"""The page of a training: the curve, before and after, the ablation, which file is returned and why."""

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgenet.records import TrainingRecord
from edgenet.report import write_report
from edgenet.report.plots import curves
from edgenet.report.training import verdict
from edgenet.results import Results
from edgenet.results_json import read
from helpers.browser import layout, needs_chromium
from helpers.hand_built import some_results
from helpers.hand_built_runs import a_training, measured


def page_of(told: dict[str, Any], folder: Path, results: Results | None = None) -> str:
    results = results or some_results()
    results.context = replace(results.context, training=read(TrainingRecord, json.loads(json.dumps(told))))
    write_report(results, folder)
    return (folder / "report.html").read_text(encoding="utf-8")


def section_of(page: str) -> str:
    found = re.search(r'<section id="training".*?</section>', page, re.DOTALL)
    assert found
    return found[0]


def test_the_page_opens_with_what_training_brought(tmp_path: Path) -> None:
    page = page_of(a_training(), tmp_path)
    heading = re.search(r"<h1>(.*?)</h1>", page)
    assert heading
    assert heading[1].replace("\u00a0", " ") == (
        "Training brought the int8 file from 98.0 % to 99.0 % agreement with float"
    )
    assert "Returned is the trained file, as after epoch 4 of 5: it was nearer." in page


def test_the_section_says_time_speed_and_who_learned_decided_and_measured(tmp_path: Path) -> None:
    text = section_of(page_of(a_training(), tmp_path)).replace("\u00a0", " ")
    assert "from 355 pictures in 5 epochs: 6 min 12 s at 14.2 pictures a second" in text
    assert "45 other pictures decided which epoch was the best; 100 others measured." in text


def test_the_ablation_has_both_files_their_difference_and_marks_the_one_returned(tmp_path: Path) -> None:
    text = section_of(page_of(a_training("ptq", 0.975), tmp_path)).replace("\u00a0", " ")
    rows = re.findall(r'<tr role="row"( class=chosen)?>(.*?)</tr>', text, re.DOTALL)
    chosen = [bool(mark) for mark, cells in rows if "Post-training INT8" in cells or "After training" in cells]
    assert chosen == [True, False]
    assert "−0.5" in text
    assert text.count(">returned<") == 1


def test_where_no_epoch_was_better_the_page_says_that_training_brought_nothing(tmp_path: Path) -> None:
    told = a_training("ptq", best_epoch=0)
    told["files"][0]["after"] = None
    page = page_of(told, tmp_path)
    assert "<h1>Training brought nothing more: the post-training int8 file is returned</h1>" in page
    assert "After training" not in section_of(page)


def test_files_that_were_chosen_apart_are_named_apart() -> None:
    other = {"format": "onnx", "kept": "ptq", "why": "it lost", "before": measured(0.98), "after": measured(0.9)}
    told = a_training()
    assert verdict(read(TrainingRecord, {**told, "files": [*told["files"], other]})) == (
        "Returned is for TFLite the trained file (it was nearer); for ONNX the post-training file (it lost)."
    )


def test_a_finetuning_shows_head_and_all_layers(tmp_path: Path) -> None:
    told = a_training(
        kind="finetune",
        before={"held_back_accuracy_of_the_new_head": 0.91},
        after={"top1": 0.992},
        curve=[{"epoch": e, "held_back_loss": 1 / (e + 1), "held_back_accuracy": 0.9 + e / 50} for e in range(4)],
        best_epoch=3,
    )
    page = page_of(told, tmp_path).replace("\u00a0", " ")
    assert "The finetuned network is right on 99.2 % of the pictures" in page
    text = section_of(page)
    assert "91.0 %" in text
    assert "96.0 %" in text
    assert "ablation" not in text


@pytest.mark.parametrize(
    "told", [{}, {"curve": []}, {"curve": [{}]}, {"curve": [{"epoch": 0}, {"held_back_loss": None}]}]
)
def test_a_context_with_holes_still_gives_a_page(told: dict[str, Any], tmp_path: Path) -> None:
    page = page_of({"kind": "qat", **told}, tmp_path)
    assert "</html>" in page
    assert "nan" not in section_of(page) if told.get("curve") else 'id="training"' not in page


def test_a_loss_that_was_no_number_is_left_out_of_the_curve(tmp_path: Path) -> None:
    told = a_training()
    told["curve"][2]["held_back_loss"] = 3.4e38
    svg = re.findall(r"<svg.*?</svg>", section_of(page_of(told, tmp_path)), re.DOTALL)[0]
    held_back = re.search(r'<g class="curve chosen"><title>held back</title><path d="(.*?)"', svg)
    assert held_back
    assert len(held_back[1].split("L")) == 5
    assert "e+" not in svg


@pytest.mark.parametrize("width_px", [1160, 350])
def test_names_at_the_right_end_of_curves_that_meet_stand_apart(width_px: int) -> None:
    meeting = tuple(curves.Curve(f"curve {i}", ((0, 1.0), (5, 0.5 + i / 1000)), "other") for i in range(3))
    svg = curves.curves([curves.Panel("loss", meeting)], 3, 5, width_px, "alt")
    heights = sorted(float(y) for y in re.findall(r'class="label other" x="[\d.]+" y="([\d.]+)"', svg))
    assert len(heights) == 3
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 12


def test_a_loss_that_falls_far_gets_a_logarithmic_scale_and_it_is_said() -> None:
    def svg(last: float) -> str:
        curve = curves.Curve("a", ((0, 1.0), (1, last)), "other")
        return curves.curves([curves.Panel("loss", (curve,))], 1, 1, 1160, "alt")

    assert "logarithmic" in svg(0.01)
    assert "logarithmic" not in svg(0.5)


def test_a_percentage_has_no_tick_above_a_hundred() -> None:
    curve = curves.Curve("a", ((0, 100.0), (1, 100.0)), "other")
    svg = curves.curves([curves.Panel("agreement", (curve,), most=100)], 0, 1, 350, "alt")
    assert max(float(t) for t in re.findall(r'text-anchor="end"[^>]*>([\d.]+)<', svg)) == 100


@needs_chromium
@pytest.mark.parametrize(("width_px", "plots_shown"), [(390, (0, 3)), (1280, (3, 0))])
def test_the_page_does_not_scroll_sideways_and_shows_the_curve_of_its_width(
    width_px: int, plots_shown: tuple[int, int], tmp_path: Path
) -> None:
    page_of(a_training(why="w" * 200), tmp_path)
    found = layout(tmp_path / "report.html", width_px)
    assert found.scroll_width_px <= found.width_px == width_px
    assert (found.wide_plots, found.narrow_plots) == plots_shown
    assert found.sticking_out == 0
    assert found.answer_on_top
