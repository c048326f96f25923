"""The sections on the calibration and on the search for a budget: what they draw, and that neither needs the other."""

import copy
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from edgenet.calibration import Recipe, SharedCalibration, gptq, summary
from edgenet.calibration.quantize import affine
from edgenet.calibration.summary import calibration_record
from edgenet.export.network import Network
from edgenet.images import load_pixels
from edgenet.report.formatting import NBSP
from edgenet.report.overview import render, view_of
from edgenet.report.pieces import Chip, Table, table
from edgenet.report.plots import bars
from edgenet.report.quantization import CalibrationSection, Mixed, SearchSection, ShownFinding, calibration, search
from edgenet.results import Explanation, ImageSet, Layer, OtherPrecision, Results
from edgenet.results.plain import write
from helpers.command_line import Edgenet
from helpers.hand_built import NAMES, some_results
from helpers.hand_built_runs import a_calibration, a_search, a_search_of_few_pictures, a_step, a_tensor
from helpers.html_page import Page


def calibration_of(**context: Any) -> CalibrationSection | None:
    return calibration(view_of(some_results(**context)))


def search_of(**searches: Any) -> SearchSection:
    found = search(view_of(some_results(search=searches)))
    assert found is not None
    return found


def cells(table: Table | None) -> list[list[str]]:
    """The texts of a table, line by line."""
    assert table is not None
    (lines,) = table.groups.values()
    return [[c.text.replace(NBSP, " ") for c in line.cells] for line in lines]


# --- the calibration ------------------------------------------------------------------------------------------------


def test_the_twelve_ranges_that_cut_most_are_shown_and_the_rest_is_folded() -> None:
    found = calibration_of(calibration=a_calibration())
    assert found is not None
    assert [h.name for h in found.shown] == [f"layer{i}" for i in range(29, 17, -1)]
    assert len(found.folded) == 18
    assert "30 activations" in found.lead
    assert "Method: mse; corrections: feedback, bias-correction." in found.lead
    assert found.shown[0].range == "−2.55 to 2.55, of −4 to 4 seen"
    assert "the ranges that cut off most come first" in found.caption


def with_others(*formats: str, timed: bool = False) -> Results:
    """Results whose int8 files keep a dense layer and the softmax in float."""
    found = some_results()
    others = (
        OtherPrecision("FULLY_CONNECTED", "float32", "kept", ("dense", "classifier"), 0.033),
        OtherPrecision("SOFTMAX", "float32", "output", ("probabilities",), 0.0),
    )
    int8 = next(a for a in found.artifacts if a.precision == "int8")
    files = [a for a in found.artifacts if a is not int8]
    layers = tuple(
        Layer(name, "", "float32", "", us, 0, 0)
        for name, us in (("stem", 60.0), ("dense", 20.0), ("classifier", 10.0), ("probabilities", 10.0))
    )
    times = Explanation(int8.id, "local", "litert", 1, "int8", 0.1, 0.1, "", layers, {}, (), ())
    return dataclasses.replace(
        found,
        artifacts=[*files, dataclasses.replace(int8, other_precisions=others)],
        explanations=[times] if timed else [],
    )


def others_of(results: Results) -> Table:
    found = calibration(view_of(results))
    assert found is not None
    assert found.others is not None
    return found.others


def test_what_is_not_integer_stands_in_a_table_with_its_reason_and_its_work() -> None:
    table = others_of(with_others())
    assert table.titles == ("Operators", "Compute in", "Multiply-adds", "Why")
    assert cells(table) == [
        ["2 FULLY_CONNECTED", "float32", "3.3 %", "--keep or the search for a budget asked for it"],
        ["SOFTMAX", "float32", "0.0 %", "The answer itself, which would have ties in 8 bits"],
    ]


def test_where_operators_were_timed_one_by_one_the_table_has_their_time() -> None:
    table = others_of(with_others(timed=True))
    assert table.titles[3] == "Time"
    assert [row[3] for row in cells(table)] == ["30.0 %", "10.0 %"]


def test_no_table_where_every_operator_is_integer() -> None:
    found = calibration_of(calibration=a_calibration())
    assert found is not None
    assert found.others is None


def test_where_nothing_is_cut_the_widest_come_first_and_it_is_said() -> None:
    tensors = [a_tensor(f"layer{i}", -float(i), float(i), (-float(i), float(i))) for i in (1, 9, 3)]
    found = calibration_of(calibration={**a_calibration(), "tensors": tensors})
    assert found is not None
    assert "no range cuts anything off; the widest come first" in found.caption
    assert [h.name for h in found.shown] == ["layer9", "layer3", "layer1"]
    assert not any("seen" in h.range for h in found.shown)
    assert found.folded == ()


def test_a_calibration_that_no_file_was_made_with_is_not_shown() -> None:
    assert calibration_of(calibration={**a_calibration(), "fingerprint": "d" * 64}) is None


def test_findings_are_shown_with_what_to_do_also_without_ranges() -> None:
    finding = {"code": "few", "severity": "info", "message": "63 different pictures", "remedy": "give more <b>"}
    found = calibration_of(calibration_findings=[finding])
    assert found is not None
    assert found.findings == (ShownFinding(Chip("few"), "63 different pictures.", "Give more <b>."),)
    assert found.shown == ()


def test_a_finding_is_coloured_by_how_bad_it_is() -> None:
    findings = [{"code": "a", "severity": s, "message": "m", "remedy": "r"} for s in ("danger", "warning", "info")]
    found = calibration_of(calibration_findings=findings)
    assert found is not None
    assert [f.chip.kind for f in found.findings] == ["bad", "warn", ""]


def test_bins_outside_of_the_chosen_range_are_drawn_apart() -> None:
    svg = bars.histogram([5, 5, 5, 5], (0.0, 4.0), (0.0, 2.0), "alt")
    inside, cut = (re.search(f'class="{kind}" d="([^"]*)"', svg) for kind in ("bins", "bins cut"))
    assert inside is not None
    assert cut is not None
    assert (inside[1].count("M"), cut[1].count("M")) == (2, 2)
    assert 'width="120.0"' in svg, "the field covers half of 240"
    assert "bins cut" not in bars.histogram([5, 5], (0.0, 4.0), (0.0, 4.0), "alt")


@pytest.mark.parametrize("counts", [[0] * 64, [7, *[0] * 63]])
def test_an_activation_that_is_constant_is_drawn(counts: list[int]) -> None:
    tensor = {**a_tensor("flat", 0.0, 0.0, (0.0, 0.0)), "counts": counts}
    found = calibration_of(calibration={**a_calibration(), "tensors": [tensor]})
    assert found is not None
    assert [h.name for h in found.shown] == ["flat"]
    assert not re.search(r"\b([nN]a[nN]|inf)\b", str(found))


def test_the_context_says_where_corrections_fell_back_and_only_there(
    tiny_network: Network, tiny_images: tuple[ImageSet, ImageSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = load_pixels(tiny_images[0], tiny_network.preprocessing)
    shared = SharedCalibration(tiny_network, pixels, "", Recipe())
    assert not {"correction_images", "corrected_in_parts"} & set(write(calibration_record(shared)))
    monkeypatch.setattr(gptq, "WHOLE_INPUTS", 20)
    monkeypatch.setattr(gptq, "PART_INPUTS", 12)
    monkeypatch.setattr(summary, "pictures_that_fit", lambda graph, images: 2)
    found = write(calibration_record(shared))
    assert found["correction_images"] == 2
    assert list(found["corrected_in_parts"]) == list(gptq.corrected_in_parts(shared.graph)) != []
    plain = SharedCalibration(tiny_network, pixels, "", Recipe(corrections=()))
    assert not {"correction_images", "corrected_in_parts"} & set(write(calibration_record(plain)))


def test_the_context_says_what_the_calibration_says(
    tiny_network: Network, tiny_images: tuple[ImageSet, ImageSet]
) -> None:
    images, _ = tiny_images
    pixels = load_pixels(images, tiny_network.preprocessing)
    shared = SharedCalibration(tiny_network, pixels, images.fingerprint, Recipe("percentile"))
    c = json.loads(json.dumps(write(calibration_record(shared)), allow_nan=False))
    assert c["method"] == "percentile"
    assert c["n_images"] == len(images)
    assert c["fingerprint"] == shared.calibration.fingerprint
    assert [t["name"] for t in c["tensors"]] == list(shared.observations)
    kinds = {t["name"]: t["kind"] for t in c["tensors"]}
    assert kinds["image"] == "INPUT"
    assert set(kinds.values()) >= {"CONV_2D", "DEPTHWISE_CONV_2D", "ADD"}
    for t in c["tensors"]:
        assert (t["low"], t["high"]) == pytest.approx(shared.calibration.ranges[t["name"]])
        assert sum(t["counts"]) == shared.observations[t["name"]].counts.sum()
        assert len(t["counts"]) == 64
        if t["name"] != "image":
            assert t["scale"] == pytest.approx(float(affine(t["low"], t["high"], "int8").scale[0]))
    image = next(t for t in c["tensors"] if t["name"] == "image")
    assert (image["scale"], image["zero_point"]) == (1 / 128, -1), "a pixel is stored as it is, minus 128"


def test_a_run_that_only_goes_on_keeps_the_calibration_of_the_first(
    edgenet: Edgenet, tiny_folder: Path, tmp_path: Path
) -> None:
    command = ("run", "tiny", "--precision", "float32", "--precision", "int8", "--images", tiny_folder,
               "--calibration-images", 10, "--out", tmp_path)  # fmt: skip
    contexts = []
    for _ in range(2):
        done = edgenet(*command)
        assert done.returncode == 0, done.stderr
        contexts.append(Results.load(tmp_path))
    first, again = (r.context.calibration for r in contexts)
    assert first == again
    assert first is not None
    assert first.n_images == 10
    assert first.fingerprint == contexts[1].artifact("tiny_int8.tflite").calibration
    assert 'id="calibration"' in (tmp_path / "report.html").read_text(encoding="utf-8")


# --- the search -----------------------------------------------------------------------------------------------------


def test_the_steps_of_the_search_stand_in_a_table_with_reasons_and_costs() -> None:
    found = search_of(tflite=a_search())
    assert found.all_met
    (only,) = found.searches
    assert (only.title, only.outcome) == ("At most 0.5 points of top-1 lost.", Chip("met", "good"))
    first, second = cells(only.steps)
    assert first == ["1. Step 1 of the search.", "1.00", "97.0 %", "16.0 dB", "—", "5.3 MB"]
    assert second[0] == "2. Step 2 of the search."
    assert second[4] == "9.80 ms"
    assert only.steps is not None
    over, within = only.steps.groups[""]
    assert (over.cells[0].small, over.cells[0].chip) == ("Reason 1.", Chip("over"))
    assert (within.cells[0].small, within.cells[0].chip) == (
        "Reason 2. Kept as efficientnet-lite0_int8.tflite.",
        Chip("within", "good"),
    )
    assert (over.chosen, within.chosen) == (False, True)


def test_a_budget_that_few_pictures_cannot_decide_says_so_with_its_limits_and_how_many_would() -> None:
    found = search_of(tflite=a_search_of_few_pictures())
    assert not found.all_met
    (only,) = found.searches
    assert only.outcome == Chip("cannot tell", "warn")
    assert only.sentence == (
        "86 pictures cannot tell whether the budget is met. Step 1 of 1 was kept: the file without a budget "
        "(−2.33 points lost on 86 pictures, −9.37 to 3.32 by its limits). About 470 would tell."
    )
    assert only.steps is not None
    assert only.steps.titles[1:3] == ("Points lost", "Limits")
    assert cells(only.steps)[0][1:3] == ["−2.33", "−9.37 to 3.32"]
    (line,) = only.steps.groups[""]
    assert (line.chosen, line.cells[0].chip) == (True, Chip("cannot tell", "warn"))
    assert "upper limit" in only.note


def test_a_budget_in_agreement_says_so_and_where_the_loss_is_the_budget_no_number_of_pictures_is_named() -> None:
    note = a_search_of_few_pictures()
    note["steps"][0].update(drop=None, agreement=0.995, limits=[0.001, 0.012], pictures_needed=None, n_images=1000)
    (only,) = search_of(tflite=note).searches
    assert only.sentence == (
        "1000 pictures cannot tell whether the budget is met. Step 1 of 1 was kept: the file without a budget "
        "(0.50 points of agreement lost on 1000 pictures, 0.10 to 1.20 by its limits). The loss lies at the "
        "budget: no number of pictures would tell."
    )
    assert cells(only.steps)[0][1] == "0.50"


def test_a_budget_that_may_be_met_after_all_says_how_many_pictures_would_tell() -> None:
    step = a_step(1, False, {}, artifact="efficientnet-lite0_int8", drop=0.0116, verdict="missed",
                  limits=[-0.03, 0.063], n_images=86, pictures_needed=24_101)  # fmt: skip
    note = {**a_search_of_few_pictures(), "verdict": "missed", "steps": [a_step(1, False, {}), {**step, "n": 2}]}
    (only,) = search_of(tflite=note).searches
    assert only.outcome == Chip("not met", "bad")
    assert only.sentence == (
        "No file meets the budget. The nearest was kept, step 2 of 2: the file without a budget (1.16 points lost on "
        "86 pictures, −3.00 to 6.30 by its limits). It may be within all the same: about 25,000 pictures would tell."
    )


def test_a_file_that_was_chosen_among_several_is_measured_by_the_pictures_that_chose_it() -> None:
    (one,) = search_of(tflite=a_search_of_few_pictures()).searches
    (several,) = search_of(tflite=a_search()).searches
    assert several.sentence.startswith("The budget is met. Step 2 of 2 was kept: step 2 of the search (17.0\u00a0dB).")
    assert "chosen by the same pictures" in several.note
    assert "chosen by the same pictures" not in one.note


def test_a_step_that_failed_says_why() -> None:
    steps = [a_step(1, True, {}), a_step(2, False, {}, verdict="failed", failure="its process died", size_bytes=0)]
    (only,) = search_of(tflite={**a_search(), "steps": steps}).searches
    assert only.steps is not None
    _, failed = only.steps.groups[""]
    assert (failed.cells[0].small, failed.cells[0].chip) == ("Reason 2. Its process died.", Chip("failed", "bad"))


def test_the_mixture_is_named() -> None:
    (only,) = search_of(tflite=a_search()).searches
    assert only.mixture == (
        Mixed("2 operators", "int16", "block0, block7"),
        Mixed("1 operator", "float32", "logits"),
    )


def test_of_many_operators_the_first_twelve_are_named() -> None:
    steps = [a_step(1, True, {f"block{i}": "int16" for i in range(20)})]
    (only,) = search_of(tflite={**a_search(), "steps": steps}).searches
    (mixed,) = only.mixture
    assert mixed.operators == "20 operators"
    assert mixed.names.endswith("block11 and 8 more")


def test_where_the_budget_was_missed_the_mixture_is_that_of_the_step_that_was_kept() -> None:
    steps = [
        a_step(1, False, {"a": "weight-only"}, artifact="efficientnet-lite0_int8"),
        a_step(2, False, {"b": "int16"}),
    ]
    (only,) = search_of(tflite={**a_search(met=False), "steps": steps}).searches
    assert only.mixture == (Mixed("1 operator", "int8 weights with float32 activations", "a"),)


def test_the_most_sensitive_layers_are_drawn_the_worst_first_and_those_given_back_marked() -> None:
    (only,) = search_of(tflite=a_search()).searches
    assert only.sensitivity is not None
    wide = re.search(r'<svg class="wide"[^>]*aria-label="Most sensitive.*?</svg>', only.sensitivity.drawing)
    assert wide is not None
    drawn = re.findall(r'class="hbar (\w+)"><title>(\w+): .*?width="([\d.]+)"', wide[0])
    assert [name for _, name, _ in drawn] == [f"block{i}" for i in range(12)]
    assert [name for kind, name, _ in drawn if kind == "chosen"] == ["block0", "block7"]
    widths = [float(w) for *_, w in drawn]
    assert widths == sorted(widths, reverse=True)
    assert widths[10] / widths[0] == pytest.approx(0.1, rel=0.01), "20 dB are a tenth of the error"
    assert "Coloured ones were given back a higher precision." in only.sensitivity.caption


def test_a_budget_that_was_not_met_is_not_called_met() -> None:
    found = search_of(tflite=a_search(), onnx=a_search(met=False))
    assert not found.all_met
    assert [(s.title, s.outcome.text) for s in found.searches] == [
        ("TFLite: at most 0.5 points of top-1 lost", "met"),
        ("ONNX: at most 0.5 points of top-1 lost", "not met"),
    ]
    assert not any(line.chosen for line in (found.searches[1].steps or table("", (), ())).groups[""])


def test_without_calibration_and_search_the_page_has_neither_section() -> None:
    view = view_of(some_results())
    assert (calibration(view), search(view)) == (None, None)


def test_values_that_are_missing_leave_a_dash() -> None:
    note = copy.deepcopy(a_search())
    note["steps"][0].update(drop=None, agreement=None, sqnr_db=None, size_bytes=0)
    note["sensitivity"] = [{"name": "a", "kind": "ADD", "sqnr_db": None}]
    found = search_of(tflite=note)
    assert cells(found.searches[0].steps)[0][1:5] == ["—"] * 4
    assert found.searches[0].sensitivity is None
    assert not re.search(r"\b([nN]a[nN]|inf)\b", str(found))


def test_hostile_layer_names_are_escaped() -> None:
    bad = "<script>alert(1)</script>\"'"
    ranges = {**a_calibration(), "method": bad, "tensors": [{**a_tensor(bad, -1.0, 1.0), "kind": bad}]}
    note = a_search()
    note["steps"][1].update(what=bad, why=bad, exceptions={bad: bad})
    note["sensitivity"] = [{"name": bad, "kind": bad, "sqnr_db": 3.0}]
    results = some_results(calibration=ranges, search={bad: {**note, "budget": bad}})
    page = Page(render(view_of(results, NAMES)))
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count("<script>") >= 6
