"""results.json: what it says is in its schema, older ones are read, damaged ones are refused in a line."""

import ast
import dataclasses
import json
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edgenet.errors import InputError
from edgenet.report import write_report
from edgenet.report.formatting import failed
from edgenet.results import Failure, Measurement, Results, Warning
from edgenet.results.plain import read, write
from edgenet.results.records import Context
from edgenet.results.schema1 import upgraded
from edgenet.results.training import Epoch, TrainingRecord
from edgenet.results.warning_codes import WARNINGS
from helpers import brief_phone, results_schema
from helpers.command_line import Edgenet
from helpers.hand_built import some_results
from helpers.places import ROOT

SCHEMA_1 = Path(__file__).parent / "data" / "results_schema1.json"  # by the last version that wrote it, shortened
SCHEMA = json.loads(resources.files("edgenet").joinpath("results.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def faults(data: Any) -> list[str]:
    return [f"{e.json_path}: {e.message[:200]}" for e in VALIDATOR.iter_errors(data)]


# --- the schema that ships ------------------------------------------------------------------------------------------


def test_the_schema_that_ships_is_that_of_the_nouns() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert results_schema.schema() == SCHEMA, "run tests/helpers/results_schema.py"


def test_what_a_run_writes_and_what_commands_print_fits_the_schema(
    edgenet: Edgenet, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "OUT"
    brief_phone.install(tmp_path, 1, monkeypatch)
    run = edgenet("run", "tiny", "--images", tiny_folder, "--calibration-images", 10, "--precision", "float32",
                  "--precision", "int8", "--device", "local", "--device", "adb:HERE", "--min-sqnr", 5,
                  "--out", out)  # fmt: skip
    assert run.returncode == 3, run.stderr  # the phone is unplugged before it is measured on
    written = json.loads((out / "results.json").read_text())
    assert faults(written) == []
    assert {(f["stage"], f["artifact"], f["device"], f["runtime"]) for f in written["failures"]} == {
        ("bench", "tiny_float32.tflite", "adb:HERE", ""),
        ("bench", "tiny_int8.tflite", "adb:HERE", ""),
    }
    assert written["context"]["search"]["tflite"]["met"] is True
    files = [out / "tiny_float32.tflite", out / "tiny_int8.tflite"]
    for command in (("bench", files[1]), ("evaluate", *files, "--images", tiny_folder)):
        done = edgenet(*command, "--json")
        assert done.returncode == 0, done.stderr
        assert faults(json.loads(done.stdout)) == []
    assert references(done.stdout) == {"tiny_float32.tflite": None, "tiny_int8.tflite": str(files[0])}
    # The reference is the file that is float32, whatever the files are called.
    misnamed = [tmp_path / "float32.tflite", tmp_path / "x.tflite"]
    for file, name in zip(reversed(files), misnamed, strict=True):
        shutil.copy(file, name)
    done = edgenet("evaluate", *misnamed, "--images", tiny_folder, "--json")
    assert references(done.stdout) == {"float32.tflite": str(misnamed[1]), "x.tflite": None}


def references(printed: str) -> dict[str, str | None]:
    return {Path(e["artifact"]).name: e["reference"] for e in json.loads(printed)["evaluations"]}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("schema",), 1),
        (("measurements", 0, "warnings"), ["noisy"]),
        (("measurements", 0, "samples_ms"), None),
        (("evaluations", 0, "top1"), 87.4),
        (("artifacts", 0, "sha256"), 5),
        (("context", "calibration_findings"), {}),
    ],
)
def test_the_schema_refuses_what_is_none(place: tuple[Any, ...], value: Any) -> None:
    data = some_results().to_json()
    assert faults(data) == []
    inner = data
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    assert len(faults(data)) == 1


# --- schema 1 -------------------------------------------------------------------------------------------------------


def test_results_of_schema_1_are_read_and_saved_as_schema_2(tmp_path: Path) -> None:
    shutil.copy(SCHEMA_1, tmp_path / "results.json")
    results = Results.load(tmp_path)
    assert [[w.code for w in m.warnings] for m in results.measurements] == [["disturbed", "cannot-tell", "busy"]] * 2
    assert results.measurements[0].warnings[0].text.startswith("disturbed: 78% of the runs")
    assert [[w.code for w in e.warnings] for e in results.evaluations] == [["no-labels"]] * 2
    assert [(f.stage, f.artifact, f.device) for f in results.failures] == [
        ("bench", "tiny_float32.tflite", "adb:NONE"),
        ("bench", "tiny_int8.tflite", "adb:NONE"),
    ]
    context = results.context
    assert context.calibration is not None
    assert context.calibration.n_images == 5
    assert context.search["tflite"].steps[0].n == 1
    assert [f.code for f in context.calibration_findings] == [
        f["code"] for f in json.loads(SCHEMA_1.read_text())["context"]["calibration_findings"]
    ]
    results.save(tmp_path)
    saved = json.loads((tmp_path / "results.json").read_text())
    assert faults(saved) == []
    assert Results.load(tmp_path) == results
    assert "</html>" in write_report(results, tmp_path, []).read_text(encoding="utf-8")


def test_no_number_of_schema_1_is_lost(tmp_path: Path) -> None:
    shutil.copy(SCHEMA_1, tmp_path / "results.json")
    old, new = json.loads(SCHEMA_1.read_text()), Results.load(tmp_path).to_json()
    for kind in ("artifacts", "evaluations", "measurements"):
        for before, after in zip(old[kind], new[kind], strict=True):
            same = {k: v for k, v in before.items() if k not in ("warnings", "effective_runs")}
            derived = {"median_ms", "every_run_median_ms", "p90_ms", "p95_ms", "n_runs"}  # of fewer samples here
            assert {k: after[k] for k in same if k not in derived} == {
                k: v for k, v in same.items() if k not in derived
            }
    assert new["context"] == old["context"]


@pytest.mark.parametrize(
    ("what", "artifact", "device", "runtime"),
    [
        ("local", "", "local", ""),
        ("adb:R5CT", "", "adb:R5CT", ""),
        ("tiny_int8.tflite", "tiny_int8.tflite", "", ""),
        ("a file on two.tflite on ssh:pi@board:22", "a file on two.tflite", "ssh:pi@board:22", ""),
        ("holiday on ice.tflite", "holiday on ice.tflite", "", ""),
        ("table4/resnet-152_float32.onnx in onnxruntime", "table4/resnet-152_float32.onnx", "", "onnxruntime"),
    ],
)
def test_what_failed_in_schema_1_becomes_fields(what: str, artifact: str, device: str, runtime: str) -> None:
    row = {"stage": "bench", "what": what, "why": "w", "remedy": "r"}
    found = read(Failure, upgraded({"failures": [row]})["failures"][0])
    assert found == Failure("bench", artifact, device, runtime, "w", "r")
    assert failed(found) == what


# --- damaged files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"x"',
        "[" * 100_000,
        '{"schema": 3}',
        '{"schema": [1]}',
        '{"schema": true}',
        '{"schema": 2}',
        '{"schema": 2, "context": []}',
        '{"schema": 1, "context": {}, "failures": 5}',
        '{"schema": 2, "x": ' + "9" * 5000 + "}",
        "\ufeff{}",
    ],
)
def test_a_file_that_is_no_results_file_is_refused_in_a_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(text)
    assert "\n" not in refusal(tmp_path)


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("evaluations", 1, "top1"), "high", ".evaluations[1].top1 must be a number, was 'high'"),
        (("evaluations", 1, "top1"), True, ".evaluations[1].top1 must be a number, was True"),
        (("evaluations", 1, "top1_ci95"), [1.0], ".top1_ci95 must be 2 values"),
        (
            ("evaluations", 1, "classes"),
            {"cat": [1, 1]},
            ".evaluations[1] of efficientnet-lite0_float16: a class is",
        ),
        (("evaluations", 1, "classes"), {"9" * 5000: [1, 1]}, "a class is an index"),
        (("evaluations", 1, "class_flips"), {"3": [-1, 0]}, "a class is an index, and its counts are 0 or more"),
        (("evaluations", 1, "classes"), {"3": [0, 0]}, "no more can be right than there are"),
        (("evaluations", 1, "classes"), {"3": [2, 3]}, "no more can be right than there are"),
        (("evaluations", 1, "classes"), {"3": [2]}, ".classes.3 must be 2 values"),
        (("evaluations", 1, "confusions"), [{"label": 3, "answer": 4, "n": 2}], "is one of the classes"),
        (("measurements", 0, "samples_ms", 3), None, ".measurements[0].samples_ms[3] must be a number"),
        (("measurements", 0, "samples_ms", 3), float("nan"), ".samples_ms[3] must be a number, was nan"),
        (("measurements", 0), 5, ".measurements[0] must be an object, was 5"),
        (("measurements", 0, "device_info"), {"a": [float("inf")]}, ".device_info"),
        (("measurements",), {}, ".measurements must be a list"),
        (("artifacts", 0, "id"), None, ".artifacts[0].id must be a text, was None"),
        (("context", "cores"), 2.5, ".context.cores must be a whole number, was 2.5"),
        (("context", "training"), {"curve": [{"loss": "<b>\n"}]}, ".context.training.curve[0].loss must be"),
        (("failures",), [{}], ".failures[0].stage is missing"),
    ],
)
def test_a_damaged_field_is_named_in_a_line(place: tuple[Any, ...], value: Any, says: str, tmp_path: Path) -> None:
    data = inner = some_results().to_json()
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    (tmp_path / "results.json").write_text(json.dumps(data))
    said = refusal(tmp_path)
    assert says in said
    assert "\n" not in said


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").mkdir()
    assert "results.json is a folder, not a file" in refusal(tmp_path)


def refusal(out: Path) -> str:
    with pytest.raises(InputError) as caught:
        Results.load(out)
    return str(caught.value)


# --- values ---------------------------------------------------------------------------------------------------------


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    results = some_results(training=write(TrainingRecord("qat", (Epoch(0, held_back_loss=0.5),), classes=None)))
    results.put(Failure("bench", "a", "adb:1", "litert", "why", "remedy"))
    m = results.measurements[0]
    results.put(dataclasses.replace(m, warnings=(Warning("noisy", "noisy: 12 %", 0.12), Warning("hot", "hot"))))
    results.save(tmp_path)
    assert Results.load(tmp_path) == results


def test_a_field_that_a_later_version_added_is_passed_over(tmp_path: Path) -> None:
    data = some_results().to_json()
    for inner in (data, data["context"], data["artifacts"][0]):
        inner["later"] = {"x": 1}
    (tmp_path / "results.json").write_text(json.dumps(data))
    assert Results.load(tmp_path) == some_results()


def test_what_was_not_noted_is_left_out_of_the_context() -> None:
    assert write(Context()) == {"calibration_findings": []}
    assert write(Epoch(3, loss=0.5)) == {"epoch": 3, "loss": 0.5}


def test_failures_of_one_file_in_two_runtimes_and_on_two_devices_are_all_kept() -> None:
    results = Results()
    places = (("local", "litert"), ("local", "openvino"), ("adb:1", ""))
    for device, runtime in (*places, places[0]):
        results.put(Failure("bench", "a", device, runtime))
    assert [(f.device, f.runtime) for f in results.failures] == list(places)
    assert [failed(f) for f in results.failures] == ["a in litert", "a in openvino", "a on adb:1"]


def test_a_file_that_cannot_be_told_from_another_is_none_to_be_careful_with() -> None:
    noisy = Warning("noisy", "", 0.2)
    m = Measurement("a", "local", "litert", 1, (1,), warnings=(Warning("cannot-tell", "", 1.0), noisy))
    assert m.cautions == (noisy,)


def test_every_code_that_is_given_is_in_the_list_and_in_the_documentation() -> None:
    given = {
        str(node.args[0].value)
        for folder in ("edgenet", "device_bench")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Warning"
        if isinstance(node.args[0], ast.Constant)
    }
    assert given == set(WARNINGS) - {"note"}
    text = (ROOT / "docs/results.md").read_text()
    assert [code for code in WARNINGS if f"`{code}`" not in text] == []


@pytest.mark.parametrize(
    ("text", "code", "value"),
    [
        ("noisy: the middle half of the runs spreads over 40% of the median", "noisy", 0.4),
        ("disturbed: 25% of the runs are set aside: the core was shared beside them", "disturbed", 0.25),
        ("drift: 6% faster from the first round to the last", "drift", -0.06),
        ("drift: 6% slower from the first round to the last", "drift", 0.06),
        ("not settled after 2.5 s of warm-up", "not-settled", 2.5),
        ("only 12 of 50 runs were made", "few-runs", 12),
        ("hardly ever undisturbed: the least disturbed runs count", "rarely-undisturbed", None),
        ("something that no version ever wrote", "note", None),
    ],
)
def test_a_warning_of_schema_1_keeps_its_number(text: str, code: str, value: float | None) -> None:
    row = upgraded({"measurements": [{"warnings": [text]}]})["measurements"][0]["warnings"][0]
    assert row == {"code": code, "text": text, "value": pytest.approx(value)}
