"""The page of a training: the curve, before and after, the ablation, which file is returned and why."""

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgenet.cli_output import print_trained
from edgenet.files import sha256_of
from edgenet.report import lost_files, overview, training, write_report
from edgenet.report.formatting import MISSING, NBSP
from edgenet.report.overview import render, view_of
from edgenet.report.pieces import Chip, Line
from edgenet.report.plots import curves
from edgenet.report.training import TrainingSection, verdict
from edgenet.report.view import View
from edgenet.results.plain import read
from edgenet.results.training import TrainingRecord
from helpers.browser import layout, needs_chromium
from helpers.hand_built import changed, some_results
from helpers.hand_built_runs import a_finetuning, a_refit, a_training, measured
from helpers.html_page import Page


def view(told: dict[str, Any]) -> View:
    return view_of(some_results(training=json.loads(json.dumps(told))))


def shown(told: dict[str, Any]) -> TrainingSection:
    section = training.training(view(told))
    assert section is not None
    return section


def lines(told: dict[str, Any]) -> list[Line]:
    """The lines of the table of scores, of every format."""
    scores = shown(told).scores
    assert scores is not None
    return [line for group in scores.groups.values() for line in group]


def test_the_page_opens_with_what_training_brought() -> None:
    v = view(a_training())
    assert training.headline(v).replace(NBSP, " ") == (
        "Training brought the int8 file from 98.0 % to 99.0 % agreement with float"
    )
    opening = training.opening(v)
    assert opening is not None
    assert opening.verdict == "Returned is the trained file, as after epoch 4 of 5: it was nearer."
    assert overview.answer(v).headline == training.headline(v)
    assert overview.answer(v).tiles == opening.tiles
    assert overview.answer(v).why_not is None
    tiles = [(x.title, x.value.replace(NBSP, " "), x.of, x.sentence.replace(NBSP, " ")) for x in opening.tiles]
    assert tiles == [
        ("Agreement with float32", "98.4 %", "of 500 pictures", "Post-training int8 had 98.0 %."),
        ("Size", "5.3 MB", f"of 18.6{NBSP}MB", "8-bit weights."),
        ("Training", "6 min 12 s", "", "5 epochs, 14.2 pictures a second."),
    ]


def test_the_section_says_time_speed_and_who_learned_decided_and_measured() -> None:
    lead = shown(a_training()).lead.replace(NBSP, " ")
    assert "from 355 pictures in 5 epochs: 6 min 12 s at 14.2 pictures a second" in lead
    assert "45 other pictures decided which epoch was the best; 100 others measured." in lead


def test_the_ablation_has_both_files_their_difference_and_marks_the_one_returned() -> None:
    before, after = lines(a_training("ptq", 0.975))
    assert [x.cells[0].text for x in (before, after)] == ["Post-training INT8", "After training"]
    assert (before.chosen, after.chosen) == (True, False)
    assert before.cells[0].chip == Chip("returned", "good")
    assert after.cells[0].chip is None
    assert [c.text.replace(NBSP, " ") for c in after.cells[1:]] == ["97.5 %", "−0.5", "87.0 %", "25.0 dB", "100"]
    assert after.cells[1].small == "96.5 to 98.0"
    assert before.cells[2].text == MISSING


def test_the_page_says_how_like_the_file_the_trained_simulation_is() -> None:
    assert "on 100.0 % of the held-back pictures before training, on 99.6 % after" in (
        shown(a_training()).note.replace(NBSP, " ")
    )
    assert shown(a_training(simulated_like_file=None)).note == ""


def test_where_no_epoch_was_better_the_page_says_that_training_brought_nothing() -> None:
    told = a_training("ptq", best_epoch=0)
    told["files"][0]["after"] = None
    assert training.headline(view(told)) == ("Training brought nothing more: the post-training int8 file is returned")
    assert [x.cells[0].text for x in lines(told)] == ["Post-training INT8"]


def test_files_that_were_chosen_apart_are_named_apart() -> None:
    other = {"format": "onnx", "kept": "ptq", "why": "it lost", "before": measured(0.98), "after": measured(0.9)}
    told = a_training()
    assert verdict(read(TrainingRecord, {**told, "files": [*told["files"], other]})) == (
        "Returned is for TFLite the trained file (it was nearer); for ONNX the post-training file (it lost)."
    )


def test_a_finetuning_shows_head_and_all_layers() -> None:
    told = a_training(
        kind="finetune",
        before={"held_back_accuracy_of_the_new_head": 0.91},
        after={"top1": 0.992},
        curve=[{"epoch": e, "held_back_loss": 1 / (e + 1), "held_back_accuracy": 0.9 + e / 50} for e in range(4)],
        best_epoch=3,
    )
    assert training.headline(view(told)).replace(NBSP, " ") == (
        "The finetuned network is right on 99.2 % of the pictures"
    )
    head, layers = lines(told)
    assert [c.text.replace(NBSP, " ") for c in head.cells] == ["New head, all else as it was", "91.0 %"]
    assert [c.text.replace(NBSP, " ") for c in layers.cells] == ["All layers", "96.0 %"]
    assert (head.chosen, layers.chosen) == (False, True)
    scores = shown(told).scores
    assert scores is not None
    assert "ablation" not in scores.caption


@pytest.mark.parametrize(
    ("kept", "tried", "says"),
    [
        (
            "top",
            3,
            "The network with its top layers trained is returned, as after epoch 2 of 3: the loss of the held-back "
            "pictures fell from 1.000 to 0.333. To train all layers too lowered it by no more than noise (0.333 to "
            "0.250).",
        ),
        (
            "all",
            3,
            "The network with all layers trained is returned, as after epoch 3 of 3: the loss of the held-back "
            "pictures fell from 0.333 to 0.250.",
        ),
        (
            "head",
            2,
            "The new head alone is returned. To train the top layers too lowered the loss of the held-back pictures "
            "by no more than noise (1.000 to 0.333).",
        ),
        ("head", 1, "The new head alone is returned: nothing else was to learn."),
    ],
)
def test_a_finetuning_says_in_a_sentence_or_two_which_stage_is_returned_and_why(
    kept: str, tried: int, says: str
) -> None:
    assert verdict(read(TrainingRecord, a_finetuning(kept, tried))) == says


def test_the_page_of_a_head_alone_draws_no_curve_and_counts_no_epochs() -> None:
    told = a_finetuning("head", 1)
    section = shown(told)
    assert section.curve is None
    assert section.lead.replace(NBSP, " ") == (
        "A new head learned the classes of the folder from 355 pictures; 100 others measured."
    )
    assert "The new head alone is returned" in Page(render(view(told))).text


def test_a_stage_that_lowered_no_loss_is_told() -> None:
    told = a_finetuning("head", 2)
    told["stages"][1] |= {"gain": -0.1, "held_back_loss": 1.1}
    assert verdict(read(TrainingRecord, told)) == (
        "The new head alone is returned. To train the top layers too did not lower the loss of the held-back pictures."
    )


def test_the_stages_of_a_finetuning_are_a_table_with_the_returned_one_marked() -> None:
    found = [[c.text.replace(NBSP, " ") for c in line.cells] for line in lines(a_finetuning())]
    assert found == [
        ["New head, all else as it was", "90.0 %", "1.000", MISSING, MISSING, "0", MISSING],
        ["Top layers too", "94.0 %", "0.333", "0.667 ± 0.250", "3 / 1", "2", "30 s"],
        ["All layers", "96.0 %", "0.250", "0.083 ± 0.200", "1 / 0", "1", "70 s"],
    ]
    assert [line.chosen for line in lines(a_finetuning())] == [False, True, False]
    assert "A new head, then the top layers, then all layers learned the classes" in shown(a_finetuning()).lead


def test_the_curve_of_a_finetuning_has_the_interval_of_its_accuracy_and_the_pictures_learned_and_forgotten() -> None:
    section = shown(a_finetuning())
    assert section.curve is not None
    assert "learned from 0 to 1" in section.curve.drawing
    assert "forgotten from 0 to 0" in section.curve.drawing
    svg = re.findall(r"<svg.*?</svg>", section.curve.drawing, re.DOTALL)[0]
    bands = re.findall(r'<g class="band"><path d="M(.*?)"/></g>', svg)
    assert len(bands) == 1
    assert len(bands[0].split("L")) == 2 * 4  # up one way and back the other
    assert "95 % interval of 45 held-back pictures" in section.curve.caption.replace(NBSP, " ")
    plain = shown(a_training()).curve
    assert plain is not None
    assert 'class="band"' not in plain.drawing
    assert "interval" not in plain.caption


def test_a_finetuning_says_what_was_computed_once() -> None:
    assert shown(a_finetuning()).note.replace(NBSP, " ") == (
        "Computed once and read from disk: 6 views of 355 pictures at block7_project_add, 66.8 MB, so that 40.8 % of "
        "the network was not computed again while the top layers learned."
    )
    assert shown(a_finetuning("head", 1)).note.replace(NBSP, " ").endswith("66.8 MB.")
    assert shown(a_finetuning(activations=None)).note == ""


def test_a_network_that_learned_once_more_is_no_longer_measured_by_the_held_back_pictures() -> None:
    told = a_finetuning(again=a_refit())
    assert verdict(read(TrainingRecord, told)).replace(NBSP, " ") == (
        "The network with its top layers trained was chosen, as after epoch 2 of 3: the loss of the held-back pictures "
        "fell from 1.000 to 0.333. To train all layers too lowered it by no more than noise (0.333 to 0.250). What is "
        "returned learned once more from all 400 pictures for 2 epochs, with what the held-back ones had chosen: the "
        "held-back figures are those of the network before, and no measure of it."
    )
    section = shown(told)
    assert "45 other pictures decided which epoch was the best, and taught in the end; 100 others measured." in (
        section.lead.replace(NBSP, " ")
    )
    assert section.curve is not None
    assert "Held-back pictures are not trained on in these epochs" in section.curve.caption
    assert [line.cells[0].chip for line in lines(told)] == [None, Chip("chosen", "good"), None]
    tile = next(t for t in training.opening(view(told)).tiles if t.title == "Training")  # type: ignore[union-attr]
    assert tile.value.replace(NBSP, " ") == "7 min 23 s"
    assert tile.sentence.replace(NBSP, " ") == "3 epochs and 2 once more, 14.2 pictures a second."


def test_a_head_that_was_fitted_once_more_counts_no_epochs() -> None:
    said = verdict(read(TrainingRecord, a_finetuning("head", 1, again=a_refit(epochs=0)))).replace(NBSP, " ")
    assert said.startswith("The new head alone was chosen: nothing else was to learn. What is returned ")
    assert "learned once more from all 400 pictures, with what" in said


@pytest.mark.parametrize(
    ("why", "says"),
    [
        ("time", "No time was left to learn once more from all 400 pictures."),
        ("loss", "and that is not returned: the loss of the held-back ones, which it had learned, was no lower"),
        ("diverged", "and that is not returned: the loss was no number."),
    ],
)
def test_where_what_learned_once_more_is_not_returned_the_page_says_why(why: str, says: str) -> None:
    told = a_finetuning(again=a_refit(kept=False, why=why))
    said = verdict(read(TrainingRecord, told)).replace(NBSP, " ")
    assert "trained is returned, as after epoch 2 of 3" in said
    assert says in said
    assert lines(told)[1].cells[0].chip == Chip("returned", "good")


@pytest.mark.parametrize(
    "told", [{}, {"curve": []}, {"curve": [{}]}, {"curve": [{"epoch": 0}, {"held_back_loss": None}]}]
)
def test_a_context_with_holes_still_gives_a_page(told: dict[str, Any]) -> None:
    v = view({"kind": "qat", **told})
    page = render(v)
    assert "</html>" in page
    assert ('id="training"' in page) == bool(told.get("curve"))
    assert not re.search(r"\b([nN]a[nN]|inf)\b", Page(page).text)


def test_a_loss_that_was_no_number_is_left_out_of_the_curve() -> None:
    told = a_training()
    told["curve"][2]["held_back_loss"] = 3.4e38
    curve = shown(told).curve
    assert curve is not None
    svg = re.findall(r"<svg.*?</svg>", curve.drawing, re.DOTALL)[0]
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
    write_report(some_results(training=a_training(why="w" * 200)), tmp_path)
    found = layout(tmp_path / "report.html", width_px)
    assert found.scroll_width_px <= found.width_px == width_px
    assert (found.wide_plots, found.narrow_plots) == plots_shown
    assert found.sticking_out == 0
    assert found.answer_on_top


def test_the_terminal_says_what_training_brought_and_which_pictures_measured(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    results = some_results(training=a_training())
    for a in results.artifacts:
        (tmp_path / a.path).write_bytes(b"model")
    results.artifacts = [replace(a, sha256=sha256_of(tmp_path / a.path)) for a in results.artifacts]
    print_trained(results, tmp_path, as_json=False)
    said = capsys.readouterr().out.replace(NBSP, " ").splitlines()
    assert "Training brought the int8 file from 98.0 % to 99.0 % agreement with float" in said
    assert any(line.startswith("100 of your 500 pictures measure, 355 learn") for line in said)
    assert "Returned is the trained file, as after epoch 4 of 5: it was nearer." in said


@pytest.mark.parametrize("kind", ["qat", "finetune"])
def test_a_trained_file_that_is_gone_since_is_the_headline_of_page_and_terminal(
    kind: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    results = some_results(training=a_training(kind=kind, after={"top1": 0.9}))
    file = f"efficientnet-lite0_{'int8' if kind == 'qat' else 'float32'}.tflite"
    print_trained(results, tmp_path, as_json=False)
    assert f"The file that was returned is gone: {file}" in capsys.readouterr().out.splitlines()
    page = Page(write_report(results, tmp_path, (), lost_files(results, tmp_path)).read_text(encoding="utf-8"))
    assert page.visible.startswith(f"The file that was returned is gone: {file}")


def test_a_trained_file_that_answers_nan_is_the_headline() -> None:
    results = changed(some_results(training=a_training()), "int8", "evaluations", nonfinite_outputs=9,
                      nonfinite_images=1)  # fmt: skip
    headline = training.headline(view_of(results))
    assert headline == "The file that was returned answers NaN or infinity: efficientnet-lite0_int8.tflite"
