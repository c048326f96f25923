"""The sections on the calibration and on the search for a budget: what they draw, and that neither needs the other."""

import copy
import json
import re
from pathlib import Path

import pytest

from edgenet.calibration import Recipe, SharedCalibration
from edgenet.calibration.quantize import affine
from edgenet.calibration.summary import calibration_record
from edgenet.export.network import Network
from edgenet.images import load_pixels
from edgenet.report import write_report
from edgenet.report.plots import bars
from edgenet.results import ImageSet, Results
from edgenet.results_json import write
from helpers.command_line import Edgenet
from helpers.hand_built import NAMES, in_three_formats, some_results
from helpers.hand_built_runs import a_calibration, a_search, a_step, a_tensor
from helpers.html_page import Page


def page_of(results: Results, tmp_path: Path) -> Page:
    return Page(write_report(results, tmp_path, NAMES).read_text(encoding="utf-8"))


def part(page: Page, title: str) -> str:
    """The text from a heading on."""
    assert title in page.texts, f"no section {title}"
    return page.text.split(title, 1)[1]


# --- the calibration ------------------------------------------------------------------------------------------------


def test_the_twelve_ranges_that_cut_most_are_shown_and_the_rest_is_folded(tmp_path: Path) -> None:
    page = page_of(some_results(calibration=a_calibration()), tmp_path)
    names = re.findall(r"layer\d+", part(page, "Calibration").split("18 more activations")[0])
    assert list(dict.fromkeys(names)) == [f"layer{i}" for i in range(29, 17, -1)]
    assert "18 more activations" in page.texts
    assert sum("histogram" in (a.get("class") or "") and tag == "svg" for tag, a in page.tags) == 30
    text = part(page, "Calibration")
    assert "30 activations" in text
    assert "Method: mse; corrections: feedback, bias-correction." in text
    assert "−2.55 to 2.55, of −4 to 4 seen" in text


def test_where_nothing_is_cut_the_widest_come_first_and_it_is_said(tmp_path: Path) -> None:
    tensors = [a_tensor(f"layer{i}", -float(i), float(i), (-float(i), float(i))) for i in (1, 9, 3)]
    page = page_of(some_results(calibration={**a_calibration(), "tensors": tensors}), tmp_path)
    text = part(page, "Calibration")
    assert "no range cuts anything off; the widest come first" in text
    assert list(dict.fromkeys(re.findall(r"layer\d", text))) == ["layer9", "layer3", "layer1"]
    assert "seen" not in text.split("How the numbers")[0].split("corrections")[1].split("What the")[0]


def test_a_calibration_that_no_file_was_made_with_is_not_shown(tmp_path: Path) -> None:
    page = page_of(some_results(calibration={**a_calibration(), "fingerprint": "d" * 64}), tmp_path)
    assert "calibration" not in {a.get("id") for _, a in page.tags}
    assert "layer0" not in page.text


def test_findings_are_shown_with_what_to_do_also_without_ranges(tmp_path: Path) -> None:
    finding = {"code": "few", "severity": "info", "message": "63 different pictures", "remedy": "give more <b>"}
    page = page_of(some_results(calibration_findings=[finding]), tmp_path)
    text = part(page, "Calibration")
    assert "few 63 different pictures. Give more <b>." in text
    assert "b" not in {tag for tag, a in page.tags if a.get("class") == "findings"}


def test_bins_outside_of_the_chosen_range_are_drawn_apart() -> None:
    svg = bars.histogram([5, 5, 5, 5], (0.0, 4.0), (0.0, 2.0), "alt")
    inside, cut = (re.search(f'class="{kind}" d="([^"]*)"', svg) for kind in ("bins", "bins cut"))
    assert inside is not None
    assert cut is not None
    assert (inside[1].count("M"), cut[1].count("M")) == (2, 2)
    assert 'width="120.0"' in svg, "the field covers half of 240"
    assert "bins cut" not in bars.histogram([5, 5], (0.0, 4.0), (0.0, 4.0), "alt")


@pytest.mark.parametrize("counts", [[0] * 64, [7, *[0] * 63]])
def test_an_activation_that_is_constant_is_drawn(counts: list[int], tmp_path: Path) -> None:
    tensor = {**a_tensor("flat", 0.0, 0.0, (0.0, 0.0)), "counts": counts}
    page = page_of(some_results(calibration={**a_calibration(), "tensors": [tensor]}), tmp_path)
    assert "flat" in page.text
    assert not re.search(r"\b([nN]a[nN]|inf)\b", page.text)


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


def test_the_steps_of_the_search_stand_in_a_table_with_reasons_and_costs(tmp_path: Path) -> None:
    page = page_of(some_results(search={"tflite": a_search()}), tmp_path)
    text = part(page, "How the accuracy budget was met")
    assert "At most 0.5 points of top-1 lost. met" in text
    (rows,) = [t for t in page.tables if t[0][0] == "Step"]
    cells = [[" ".join(c.replace("\u00a0", " ").split()) for c in row] for row in rows]
    assert cells[1] == ["1. Step 1 of the search. over Reason 1.", "1.0", "97.0 %", "16.0 dB", "—", "5.3 MB"]
    assert cells[2][0] == "2. Step 2 of the search. within Reason 2. efficientnet-lite0_int8.tflite"
    assert cells[2][4] == "9.80 ms"


def test_the_mixture_is_named(tmp_path: Path) -> None:
    text = page_of(some_results(search={"tflite": a_search()}), tmp_path).text
    assert "2 operators in int16 : block0, block7; 1 operator in float32 : logits. Everything else is int8." in text


def test_where_the_budget_was_missed_the_mixture_is_that_of_the_step_that_was_kept(tmp_path: Path) -> None:
    steps = [
        a_step(1, False, {"a": "weight-only"}, artifact="efficientnet-lite0_int8"),
        a_step(2, False, {"b": "int16"}),
    ]
    page = page_of(some_results(search={"tflite": {**a_search(met=False), "steps": steps}}), tmp_path)
    assert "1 operator in int8 weights with float32 activations : a. Everything" in page.text


def test_the_most_sensitive_layers_are_drawn_the_worst_first_and_those_given_back_marked(tmp_path: Path) -> None:
    source = write_report(some_results(search={"tflite": a_search()}), tmp_path, NAMES).read_text(encoding="utf-8")
    wide = re.search(r'<svg class="wide"[^>]*aria-label="Most sensitive.*?</svg>', source)
    assert wide is not None
    bars = re.findall(r'class="hbar (\w+)"><title>(\w+): .*?width="([\d.]+)"', wide[0])
    assert [name for _, name, _ in bars] == [f"block{i}" for i in range(12)]
    assert [name for kind, name, _ in bars if kind == "chosen"] == ["block0", "block7"]
    widths = [float(w) for *_, w in bars]
    assert widths == sorted(widths, reverse=True)
    assert widths[10] / widths[0] == pytest.approx(0.1, rel=0.01), "20 dB are a tenth of the error"


def test_a_budget_that_was_not_met_is_not_called_met(tmp_path: Path) -> None:
    page = page_of(some_results(search={"tflite": a_search(), "onnx": a_search(met=False)}), tmp_path)
    assert "How the accuracy budget was met" not in page.texts
    text = part(page, "The accuracy budget")
    assert "TFLite: at most 0.5 points of top-1 lost met" in text
    assert "ONNX: at most 0.5 points of top-1 lost not met" in text


def test_without_calibration_and_search_the_page_has_neither_section(tmp_path: Path) -> None:
    ids = {a.get("id") for _, a in page_of(some_results(), tmp_path).tags}
    assert not ids & {"calibration", "search"}


def test_values_that_are_missing_leave_a_dash(tmp_path: Path) -> None:
    search = copy.deepcopy(a_search())
    search["steps"][0].update(drop=None, agreement=None, sqnr_db=None, size_bytes=0)
    search["sensitivity"] = [{"name": "a", "kind": "ADD", "sqnr_db": None}]
    page = page_of(some_results(search={"tflite": search}), tmp_path)
    (rows,) = [t for t in page.tables if t[0][0] == "Step"]
    assert rows[1][1:5] == ["—"] * 4
    assert not re.search(r"\b([nN]a[nN]|inf|None(?! of the))\b", page.text)


def test_hostile_layer_names_are_escaped(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>\"'"
    calibration = {**a_calibration(), "method": bad, "tensors": [{**a_tensor(bad, -1.0, 1.0), "kind": bad}]}
    search = a_search()
    search["steps"][1].update(what=bad, why=bad, exceptions={bad: bad})
    search["sensitivity"] = [{"name": bad, "kind": bad, "sqnr_db": 3.0}]
    results = some_results(calibration=calibration, search={bad: {**search, "budget": bad}})
    page = page_of(results, tmp_path)
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count("<script>") >= 6


# --- many files -----------------------------------------------------------------------------------------------------


def test_twelve_files_are_grouped_by_format(tmp_path: Path) -> None:
    page = page_of(in_three_formats(), tmp_path)
    firsts = [row[0].split()[0] for row in page.tables[0][1:]]
    groups = [i for i, name in enumerate(firsts) if name in ("TFLite", "ONNX", "OpenVINO")]
    assert groups == [0, 5, 10]
    for start, suffix in zip(groups, (".tflite", ".onnx", ".xml"), strict=True):
        assert all(name.endswith(suffix) for name in firsts[start + 1 : start + 5])
    assert not [a for tag, a in page_of(some_results(), tmp_path).tags if tag == "tr" and a.get("class") == "group"]


def test_of_eleven_reasons_five_are_open_and_the_rest_folded(tmp_path: Path) -> None:
    page = page_of(in_three_formats(), tmp_path)
    open_, folded = page.text.split("Why not the others", 1)[1].split("6 more files", 1)
    assert "efficientnet-lite0_int8.xml It is" in open_, "the fastest, which loses too much, is the first to ask about"
    assert len(re.findall(r"efficientnet-lite0_\S+ It", open_)) == 5
    assert len(re.findall(r"efficientnet-lite0_\S+ It", folded.split("Accuracy, latency")[0])) == 6


def test_on_a_phone_many_files_are_numbered_and_named_in_a_key(tmp_path: Path) -> None:
    source = write_report(in_three_formats(), tmp_path, NAMES).read_text(encoding="utf-8")
    wide, narrow = (re.search(rf'<svg class="{kind}".*?</svg>', source) for kind in ("wide", "narrow"))
    assert wide is not None
    assert narrow is not None
    labels = re.findall(r'class="label \w+"[^>]*>([^<]*)<', narrow[0])
    assert sorted(labels[:12], key=int) == [str(i) for i in range(1, 13)]
    assert labels[12] == "1  int8 openvino"
    assert "int8 onnx" in wide[0]
