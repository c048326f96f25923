"""What may not be shipped is refused by name, and never stands below a headline that says "Ship"."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet.export import export_graph
from edgenet.export.tflite_file import write_tflite
from edgenet.files import sha256_of, size_of
from edgenet.images import open_images
from edgenet.images.roles import history_of
from edgenet.report import lost_files, write_report
from edgenet.report.formatting import NBSP
from edgenet.report.recommendation import Recommendation, recommend
from edgenet.report.refusals import Refusal
from edgenet.report.summary import summary_lines
from edgenet.results import NO_ANSWER, Artifact, Flip, Results
from helpers import tiny
from helpers.command_line import Edgenet
from helpers.graph_builder import Builder
from helpers.hand_built import FILES, NAMES, an_artifact, changed, in_three_formats, partial_results, some_results
from helpers.hand_built_runs import a_search, a_step, a_training
from helpers.html_page import Page

INT8 = "efficientnet-lite0_int8"
TAUGHT = {"code": "no-own-pictures", "severity": "danger", "message": "all 40 pictures of the folder taught this "
          "network", "remedy": "give --images-test DIR with others"}  # fmt: skip


def plain(text: str) -> str:
    return text.replace(NBSP, " ")


def reasons(answer: Recommendation) -> dict[str, str]:
    return {name: plain(why) for name, why in answer.why_not}


def assert_ships_nothing(answer: Recommendation, results: Results, tmp_path: Path, **options: Any) -> None:
    """Neither page nor terminal says that something is to be shipped."""
    assert (answer.artifact, answer.leader) == (None, None)
    page = Page(write_report(results, tmp_path, NAMES, **options).read_text(encoding="utf-8"))
    said = summary_lines(results, answer)
    assert page.visible.startswith(answer.headline)
    assert said[0] == answer.headline
    assert not [
        line for line in (*page.visible.splitlines(), *said) if line.startswith("Ship") or line.strip() == "ship"
    ]
    assert "ship" not in [text.strip() for text in page.texts], "no file has the chip"


# ---------------------------------------------------------------------------------------------------------- the budget


def with_search(**met: bool) -> Results:
    return some_results(search={format: a_search(was_met) for format, was_met in met.items()})


def test_a_budget_that_every_format_misses_is_the_headline_with_the_nearest_file_and_what_it_lacks(
    tmp_path: Path,
) -> None:
    results = with_search(tflite=False)
    answer = recommend(results)
    assert (answer.code, answer.headline) == ("budget-missed", "No file meets the budget")
    assert [plain(s) for s in answer.why[:3]] == [
        "The budget for int8 files: at most 0.5 points of top-1 lost.",
        f"The nearest is {INT8}.tflite: 0.4 points of top-1 lost (95 % interval −0.5 to 1.3), SQNR 20.4 dB.",
        "Of the float files the rule would choose efficientnet-lite0_float16.tflite.",
    ]
    assert reasons(answer)[f"{INT8}.tflite"].startswith(
        "It misses the budget (at most 0.5 points of top-1 lost): 0.4 p"
    )
    assert_ships_nothing(answer, results, tmp_path)


def test_of_two_formats_the_one_that_meets_the_budget_is_shipped_and_the_other_refused() -> None:
    results = in_three_formats()
    results.artifacts = [a for a in results.artifacts if a.format != "openvino"]
    search = some_results(search={"tflite": a_search(), "onnx": a_search(met=False)}).context.search
    results.context = dataclasses.replace(results.context, search=search)
    answer = recommend(results)
    assert answer.headline == f"Ship {INT8}.tflite"
    why_not = reasons(answer)
    assert why_not[f"{INT8}.onnx"].startswith("It misses the budget (at most 0.5 points of top-1 lost): 0.0 points")
    assert why_not["efficientnet-lite0_weight-only.tflite"].startswith("It was not held to the budget")
    assert "points of top-1 lost" in answer.rule
    assert any(n.loud and n.text.startswith("The budget is missed in ONNX") for n in answer.notes)


def test_an_int8_file_within_a_wide_budget_is_not_held_to_the_usual_limit() -> None:
    results = changed(with_search(tflite=True), "int8", "evaluations", top1_drop=0.021, top1_drop_ci95=(0.01, 0.03))
    assert recommend(results).headline == f"Ship {INT8}.tflite"
    without = changed(some_results(), "int8", "evaluations", top1_drop=0.021, top1_drop_ci95=(0.01, 0.03))
    assert recommend(without).headline == "Ship efficientnet-lite0_float16.tflite"


def test_a_budget_that_the_pictures_cannot_decide_is_a_loud_note_and_not_the_headline() -> None:
    step = a_step(1, False, {}, artifact=INT8, verdict="cannot tell", limits=[-0.0937, 0.0332], n_images=86,
                  pictures_needed=1468)  # fmt: skip
    search = {"budget": "at most 0.5 points lost", "met": False, "verdict": "cannot tell", "max_drop": 0.005}
    answer = recommend(some_results(search={"tflite": {**search, "steps": [step]}}))
    assert (answer.code, answer.headline) == ("ship", f"Ship {INT8}.tflite")
    assert [plain(n.text) for n in answer.notes if n.loud] == [
        f"Whether {INT8}.tflite keeps the budget (at most 0.5 points lost) cannot be told from 86 pictures: the loss "
        "may be −9.4 to 3.3 points; about 1,500 would tell."
    ]


def a_missed_search(**budget: float) -> dict[str, Any]:
    return {"budget": "the budget", "met": False, "verdict": "missed", "steps": [], **budget}


def test_what_the_nearest_file_lacks_is_a_number_in_the_unit_of_the_budget() -> None:
    def nearest(**budget: float) -> str:
        results = in_three_formats()
        search = some_results(search={"tflite": a_missed_search(**budget), "onnx": a_missed_search(**budget)})
        results.context = dataclasses.replace(results.context, search=search.context.search)
        for i, e in enumerate(results.evaluations):
            if e.artifact == f"{INT8}.tflite":
                results.evaluations[i] = dataclasses.replace(e, top1_drop=0.012, sqnr_db=22.0)
            if e.artifact == f"{INT8}.onnx":
                results.evaluations[i] = dataclasses.replace(e, top1_drop=0.017, sqnr_db=24.5)
        return plain(recommend(results).why[1])

    assert nearest(max_drop=0.005).startswith(f"The nearest is {INT8}.tflite: 1.2 points of top-1 lost")
    assert nearest(max_drop=0.005).endswith("SQNR 22.0 dB; 0.7 points too many.")
    assert nearest(min_sqnr_db=30.0).startswith(f"The nearest is {INT8}.onnx: 1.7 points of top-1 lost")
    assert nearest(min_sqnr_db=30.0).endswith("SQNR 24.5 dB; 5.5 dB too few.")


def test_float_files_are_held_to_a_budget_in_points() -> None:
    search = {"tflite": {**a_missed_search(max_drop=0.02), "verdict": "met", "met": True}}
    results = changed(some_results(search=search), "float16", "evaluations", top1_drop=0.015)
    assert "efficientnet-lite0_float16.tflite" in reasons(recommend(results))
    assert "limit" not in reasons(recommend(results))["efficientnet-lite0_float16.tflite"]
    strict = {"tflite": {**search["tflite"], "max_drop": 0.0}}
    results = changed(some_results(search=strict), "float16", "evaluations", top1_drop=0.002)
    assert reasons(recommend(results))["efficientnet-lite0_float16.tflite"].endswith("the limit is 0 points.")


def test_with_random_weights_a_missed_budget_is_the_headline_too(tmp_path: Path) -> None:
    results = with_search(tflite=False)
    for precision, *_ in FILES:
        changed(results, precision, "artifacts", weights="random")
    assert recommend(results).headline == "No file meets the budget"
    assert_ships_nothing(recommend(results), results, tmp_path)


# --------------------------------------------------------------------------------------------------- no own pictures


@pytest.mark.parametrize("evaluated", [False, True])
def test_a_network_that_learned_from_every_picture_has_no_accuracy(evaluated: bool, tmp_path: Path) -> None:
    results = some_results(calibration_findings=[TAUGHT])
    if not evaluated:
        results.evaluations.clear()
    answer = recommend(results)
    assert (answer.code, answer.headline) == ("no-own-pictures", "No accuracy: no picture was left to measure on")
    assert answer.why == ("All 40 pictures of the folder taught this network.", "Give --images-test DIR with others.")
    assert not [n for n in answer.notes if "taught" in n.text], "it is said once"
    assert_ships_nothing(answer, results, tmp_path)


@pytest.mark.parametrize("kind", ["qat", "finetune"])
def test_the_page_of_a_training_has_no_accuracy_either(kind: str, tmp_path: Path) -> None:
    results = some_results(calibration_findings=[TAUGHT], training=a_training(kind=kind, after={"top1": 1.0}))
    page = Page(write_report(results, tmp_path, NAMES).read_text(encoding="utf-8"))
    assert page.visible.startswith("No accuracy: no picture was left to measure on")


@pytest.mark.parametrize("state", list(partial_results()))
def test_a_file_without_an_evaluation_is_never_shipped(state: str) -> None:
    results = partial_results()[state]
    answer = recommend(results)
    evaluated = {e.artifact for e in results.evaluations}
    assert answer.artifact is None or answer.artifact in evaluated


# --------------------------------------------------------------------------------------------------- NaN and infinity


def test_a_file_that_answers_nan_is_refused_and_another_shipped() -> None:
    answer = recommend(changed(some_results(), "int8", "evaluations", nonfinite_outputs=3000, nonfinite_images=3))
    assert answer.headline == "Ship efficientnet-lite0_float16.tflite"
    assert reasons(answer)[f"{INT8}.tflite"] == "It answers NaN or infinity on 3 of 500 pictures."


@pytest.mark.parametrize("precisions", [["float32"], [p for p, *_ in FILES]])
def test_where_the_float_file_answers_nan_nothing_can_be_compared_with_it(
    precisions: list[str], tmp_path: Path
) -> None:
    results = some_results()
    for precision in precisions:
        changed(results, precision, "evaluations", nonfinite_outputs=1, nonfinite_images=1)
    answer = recommend(results)
    assert (answer.code, answer.headline) == ("not-finite", "Nothing to ship: answers of NaN or infinity")
    assert reasons(answer)["efficientnet-lite0_float32.tflite"] == "It answers NaN or infinity on 1 of 500 pictures."
    said = "It" if len(precisions) > 1 else "The float32 file, which it is compared with,"
    assert reasons(answer)[f"{INT8}.tflite"] == f"{said} answers NaN or infinity on 1 of 500 pictures."
    assert_ships_nothing(answer, results, tmp_path)


def test_a_picture_without_an_answer_is_shown_as_one(tmp_path: Path) -> None:
    flips = (Flip("/p/a.jpg", 1, 1, NO_ANSWER, 0.6, 0.0),)
    results = changed(some_results(), "int8", "evaluations", flips=flips)
    assert "no answer" in Page(write_report(results, tmp_path, NAMES).read_text(encoding="utf-8")).text


def test_where_every_file_loses_too_much_the_headline_says_so_and_not_that_something_is_missing() -> None:
    results = some_results()
    results.artifacts = results.artifacts[1:]
    for precision, *_ in FILES:
        changed(results, precision, "evaluations", top1_drop=0.2, top1_drop_ci95=(0.1, 0.3))
    answer = recommend(results)
    assert (answer.code, answer.headline) == ("over-limit", "No file is within the limit")


def test_without_a_float32_file_it_is_said_what_is_missing() -> None:
    results = some_results()
    results.artifacts = results.artifacts[1:]
    for precision, *_ in FILES:
        changed(results, precision, "evaluations", top1_drop=None, agreement=None, reference=None)
    answer = recommend(results)
    assert (answer.code, answer.headline) == ("not-comparable", "No file can be recommended yet")
    assert "there is no float32 file to compare with" in answer.why[0]


# ------------------------------------------------------------------------------------------------------ gone, altered


@pytest.mark.parametrize(("code", "says"), [("gone", "is gone"), ("altered", "was altered")])
def test_a_winner_that_is_lost_is_the_headline_and_the_next_one_is_named(code: str, says: str, tmp_path: Path) -> None:
    results, lost = some_results(), {INT8: Refusal(code, f"It {says}.")}
    answer = recommend(results, lost=lost)
    assert (answer.code, answer.headline) == (code, f"The file to ship {says}: {INT8}.tflite")
    assert answer.why[1] == "Of the files that are left, the rule would choose efficientnet-lite0_float16.tflite."
    assert_ships_nothing(answer, results, tmp_path, lost=lost)


def test_the_table_marks_a_file_that_is_lost_or_answers_nan(tmp_path: Path) -> None:
    results = changed(some_results(), "dynamic", "evaluations", nonfinite_outputs=1, nonfinite_images=1)
    page = Page(write_report(results, tmp_path, NAMES, {INT8: Refusal("altered", "x")}).read_text(encoding="utf-8"))
    names = {line[0].split()[0]: line[0] for line in page.tables[0][1:]}
    assert "altered" in names[f"{INT8}.tflite"]
    assert "NaN or infinity" in names["efficientnet-lite0_dynamic.tflite"]
    assert "altered" not in names["efficientnet-lite0_float16.tflite"]


def test_a_lost_file_that_would_not_have_won_is_refused_and_no_more() -> None:
    answer = recommend(some_results(), lost={"efficientnet-lite0_float16": Refusal("gone", "It is gone.")})
    assert answer.headline == f"Ship {INT8}.tflite"
    assert reasons(answer)["efficientnet-lite0_float16.tflite"] == "It is gone."


def on_disk(folder: Path, name: str, **beside: bytes) -> Artifact:
    """Return the artifact of a file in `folder`, with others beside it."""
    path = folder / name
    path.write_bytes(b"model")
    for suffix, data in beside.items():
        (folder / suffix.replace("__", ".")).write_bytes(data)
    return an_artifact("int8", size_of(path), path=name, sha256=sha256_of(path))


def test_files_are_compared_with_what_was_recorded(tmp_path: Path) -> None:
    whole, gone, altered = (on_disk(tmp_path, f"{n}.tflite") for n in ("whole", "gone", "altered"))
    files = [dataclasses.replace(a, id=a.path) for a in (whole, gone, altered)]
    (tmp_path / "gone.tflite").unlink()
    (tmp_path / "altered.tflite").write_bytes(b"MODEL")
    lost = lost_files(Results(artifacts=files), tmp_path)
    assert {id: why.code for id, why in lost.items()} == {"gone.tflite": "gone", "altered.tflite": "altered"}
    assert lost["gone.tflite"].why == f"It is gone from {tmp_path}: the same command makes it again."
    assert lost["altered.tflite"].why.startswith("It was altered since it was measured:")


@pytest.mark.parametrize(
    ("name", "beside", "code", "says"),
    [
        ("m.xml", "m.bin", "gone", "m.bin, which holds its weights, is gone from"),
        ("m.onnx", "m.onnx.data", "altered", "or m.onnx.data beside it is gone"),
    ],
)
def test_the_weights_beside_a_file_belong_to_it(name: str, beside: str, code: str, says: str, tmp_path: Path) -> None:
    a = on_disk(tmp_path, name, **{beside.replace(".", "__"): b"weights"})
    results = Results(artifacts=[a])
    assert lost_files(results, tmp_path) == {}
    (tmp_path / beside).write_bytes(b"Weights")
    assert lost_files(results, tmp_path)[a.id].code == "altered"
    (tmp_path / beside).unlink()
    (found,) = lost_files(results, tmp_path).values()
    assert found.code == code
    assert says in found.why


def test_a_hash_that_was_not_recorded_is_not_missed(tmp_path: Path) -> None:
    a = dataclasses.replace(on_disk(tmp_path, "m.tflite"), sha256="")
    assert lost_files(Results(artifacts=[a]), tmp_path) == {}


# ------------------------------------------------------------------------------------------------- the command itself


@pytest.fixture(scope="module")
def ran(edgenet: Edgenet, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one file, so that it is the one to ship whatever its times are."""
    out = tmp_path_factory.mktemp("ran") / "OUT"
    precisions = ("--precision", "float32", "--format", "openvino")
    done = edgenet("run", "tiny", "--images", tiny_folder, "--out", out, "--calibration-images", 10, *precisions)
    assert done.returncode == 0, done.stderr
    assert "Ship tiny_float32.xml" in done.stdout
    return out


@pytest.mark.parametrize(
    ("file", "data", "headline"),
    [("tiny_float32.xml", None, "The file to ship is gone"), ("tiny_float32.bin", None, "The file to ship is gone"),
     ("tiny_float32.bin", b"?", "The file to ship was altered"), ("tiny_float32.xml", b"?", "The file to ship was al")],
)  # fmt: skip
def test_report_does_not_ship_a_file_that_is_gone_or_altered(
    file: str, data: bytes | None, headline: str, ran: Path, edgenet: Edgenet, tmp_path: Path
) -> None:
    out = tmp_path / "OUT"
    shutil.copytree(ran, out)
    if data is None:
        (out / file).unlink()
    else:
        (out / file).write_bytes(data)
    done = edgenet("report", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert headline in done.stdout
    assert "Ship" not in done.stdout
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert page.visible.startswith(headline)


def test_report_goes_on_where_every_file_is_gone(ran: Path, edgenet: Edgenet, tmp_path: Path) -> None:
    shutil.copy(ran / "results.json", tmp_path)
    done = edgenet("report", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "The file to ship is gone: tiny_float32.xml" in done.stdout


def test_a_run_again_makes_the_lost_file_again_and_ships_it(
    ran: Path, edgenet: Edgenet, tiny_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "OUT"
    shutil.copytree(ran, out)
    (out / "tiny_float32.bin").write_bytes(b"?")
    command = json.loads((out / "results.json").read_text())["context"]["command"].split()
    options = command[command.index("run") + 1 :]
    options[options.index("--out") + 1] = str(out)
    done = edgenet("run", *options)
    assert done.returncode == 0, done.stderr
    assert "Ship tiny_float32.xml" in done.stdout


def test_a_network_that_answers_nan_on_some_pictures_is_run_and_not_shipped(
    edgenet: Edgenet, tiny_folder: Path, tmp_path: Path
) -> None:
    """Its weights are finite; the root of what its last layer says of dark pictures is not."""
    b = Builder(1, tiny.PX, tiny.PX, 3)
    weights = np.linspace(0.5, 1.5, 15).reshape(5, 3)
    b.dense(b.mean("image", "pooled"), "scores", weights, np.zeros(5))
    b.op("SQRT", ["scores"], (1, 5), out="logits")
    graph = b.graph(b.op("SOFTMAX", ["logits"], (1, 5), "SoftmaxOptions", out="probabilities", beta=1.0))
    (tmp_path / "roots.tflite").write_bytes(write_tflite(graph))
    out = tmp_path / "OUT"
    done = edgenet("run", tmp_path / "roots.tflite", "--preprocess", "mean=127 std=128", "--images", tiny_folder,
                   "--out", out, "--precision", "float32", "--precision", "float16")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Nothing to ship: answers of NaN or infinity" in done.stdout
    assert "Ship" not in done.stdout
    results = Results.load(out)
    for e in results.evaluations:
        assert 0 < e.nonfinite_images < e.n_images
        assert e.nonfinite_outputs == e.nonfinite_images * tiny.CLASSES, "a softmax makes them all NaN"
        assert (e.top1 or 0) <= 1 - e.nonfinite_images / e.n_images
    assert Page((out / "report.html").read_text(encoding="utf-8")).visible.startswith("Nothing to ship: answers of NaN")


def test_a_run_on_pictures_that_all_taught_the_network_says_that_there_is_no_accuracy(
    edgenet: Edgenet, tiny_folder: Path, tmp_path: Path
) -> None:
    images, network = open_images(tiny_folder, (), [f"class_{i}" for i in range(5)]), tiny.network()
    export_graph(
        network, network.graph, tmp_path, format="tflite", precision="float32", pictures=history_of(taught=images)
    )
    model, out = tmp_path / "tiny_float32.tflite", tmp_path / "OUT"
    done = edgenet("run", model, "--images", tiny_folder, "--precision", "float32", "--precision", "int8", "--out", out)
    assert done.returncode == 0, done.stderr
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    for said in (done.stdout, page.visible):
        assert "No accuracy: no picture was left to measure on" in said
        assert "Accuracy is withheld, because no picture of" in " ".join(said.split())
        assert "Ship" not in said
    assert "measure, " not in page.text, "nothing measured, so nothing is counted"
