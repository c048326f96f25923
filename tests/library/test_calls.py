"""The functions of `edgenet` on a network of its own: records come back, errors are raised, nothing is printed."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import edgenet
from edgenet import pipeline
from edgenet.export.tflite_file import write_tflite
from edgenet.jobs import bench as bench_module
from helpers import tiny

INT8 = {"precisions": ("float32", "int8"), "calibration_images": 10}


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the model `tiny`, as the command line of the tests has it, and time files in a moment."""
    monkeypatch.setattr(pipeline, "find_source", tiny.source)
    monkeypatch.setattr(bench_module, "RUN_PLAN", tiny.SHORT)
    monkeypatch.setattr(bench_module, "BENCH_PLAN", tiny.SHORT)
    tiny.shorten_timing(monkeypatch.setattr)


@pytest.fixture
def silent(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Fail where anything was printed, from Python or from native code."""
    yield
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err == ""


@pytest.fixture(scope="module")
def out(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `edgenet.run` filled. Read only."""
    folder = tmp_path_factory.mktemp("run") / "out"
    with pytest.MonkeyPatch.context() as m:
        m.setattr(pipeline, "find_source", tiny.source)
        m.setattr(bench_module, "RUN_PLAN", tiny.SHORT)
        tiny.shorten_timing(m.setattr)
        edgenet.run("tiny", images=tiny_folder, out=folder, **INT8)
    return folder


def test_run_returns_what_results_json_holds(tiny_folder: Path, tmp_path: Path, silent: None) -> None:
    steps: list[tuple[str, int, int]] = []
    results = edgenet.run(
        "tiny", images=str(tiny_folder), out=str(tmp_path / "out"), progress=lambda *step: steps.append(step), **INT8
    )
    assert isinstance(results, edgenet.Results)
    assert [a.path for a in results.artifacts] == ["tiny_float32.tflite", "tiny_int8.tflite"]
    assert [type(r[0]) for r in (results.artifacts, results.evaluations, results.measurements)] == [
        edgenet.Artifact, edgenet.Evaluation, edgenet.Measurement
    ]  # fmt: skip
    assert results.to_json() == edgenet.Results.load(tmp_path / "out").to_json()
    assert (tmp_path / "out" / "report.html").is_file()
    assert results.context.command.startswith("edgenet.run('tiny', images=")
    assert {"export", "evaluate", "bench"} <= {what for what, _, _ in steps}


def test_a_recipe_is_taken_and_what_is_given_beside_it_has_the_last_word(tiny_folder: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'model = "tiny"\nimages = "{tiny_folder}"\nprecisions = ["float32"]\nio = "uint8"\n')
    (made,) = edgenet.export(recipe, out=tmp_path / "out", io="int8").artifacts
    assert (made.precision, made.io_dtype) == ("float32", "int8")


@pytest.mark.parametrize("formats", [("tflite",), ("tflite", "onnx")])
def test_what_is_quantized_is_written_to_the_same_bytes_as_export_writes(
    formats: tuple[str, ...], tiny_folder: Path, tmp_path: Path, silent: None
) -> None:
    if "onnx" in formats:
        pytest.importorskip("onnx")
    how: dict[str, Any] = {"images": tiny_folder, "calibration_images": 10, "formats": formats}
    model = edgenet.quantize("tiny", **how)
    assert model.precision == "int8"
    assert tuple(model.graphs) == formats
    assert model.calibration is not None
    assert model.calibration.n_images == 10
    dtypes = {t.dtype for t in model.graph.tensors.values()}
    assert {"int8", "int32"} <= dtypes
    assert repr(model).startswith("<Quantized tiny in int8; tflite: ")
    assert not list(tmp_path.iterdir())
    ours = edgenet.export(model, out=tmp_path / "ours")
    whole = edgenet.export("tiny", out=tmp_path / "whole", precisions="int8", **how)
    assert [a.sha256 for a in ours.artifacts] == [a.sha256 for a in whole.artifacts]
    assert [a.options for a in ours.artifacts] == [a.options for a in whole.artifacts]
    (raw,) = edgenet.export(model, out=tmp_path / "raw", formats="tflite", io="uint8").artifacts
    assert raw.io_dtype == "uint8"
    assert write_tflite(model.graph) == write_tflite(edgenet.quantize("tiny", **how).graph)


def test_what_is_decided_already_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    model = edgenet.quantize("tiny", precision="float16")
    assert model.calibration is None
    with pytest.raises(edgenet.InputError, match=r"images is decided already: give it to edgenet\.quantize"):
        edgenet.export(model, out=tmp_path / "out", images=tiny_folder)
    with pytest.raises(edgenet.InputError, match=r"not quantized for openvino \(valid: tflite\)"):
        edgenet.export(model, out=tmp_path / "out", formats=["openvino"])
    assert not (tmp_path / "out").exists()


def test_evaluate_and_bench_return_their_records(out: Path, tiny_folder: Path, silent: None) -> None:
    files = sorted(out.glob("*.tflite"))
    seen = edgenet.evaluate(files, images=tiny_folder, limit=12)
    assert [e.n_images for e in seen.evaluations] == [12, 12]
    assert seen.evaluations[1].agreement is not None
    assert edgenet.evaluate(files[0], images=tiny_folder, limit=1).evaluations[0].n_images == 1
    (there,) = edgenet.evaluate(files[1], images=tiny_folder, limit=2, devices="local").evaluations
    assert (there.device, there.outputs_differing) == ("local", 0)
    timed = edgenet.bench([str(f) for f in files])
    assert [m.artifact for m in timed.measurements] == [str(f) for f in files]
    assert all(m.median_ms > 0 for m in timed.measurements)
    (one,) = edgenet.bench(files[1], threads=2).measurements
    assert one.threads == 2


def test_compare_returns_the_reasons_and_raises_nothing(out: Path, tmp_path: Path, silent: None) -> None:
    found = edgenet.compare(out, out / "results.json", max_accuracy_drop=0.5, max_growth="1%", junit=tmp_path / "c.xml")
    assert isinstance(found, edgenet.Comparison)
    assert found.failed == ()
    assert (tmp_path / "c.xml").read_text().startswith("<?xml")


def test_inspect_returns_what_the_file_is(out: Path) -> None:
    found = edgenet.inspect(str(out / "tiny_int8.tflite"))
    assert isinstance(found, edgenet.Inspection)
    assert (found.format, found.precision) == ("tflite", "int8")


def test_a_budget_that_is_missed_is_an_error_that_carries_the_results(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = importlib.import_module("edgenet.jobs.accuracy_budget")

    def missed(results: object) -> None:
        raise edgenet.GateFailed("no int8 file in tflite has it")

    monkeypatch.setattr(hold, "hold", missed)
    with pytest.raises(edgenet.GateFailed) as e:
        edgenet.export("tiny", out=tmp_path / "out", images=tiny_folder, precisions="int8", calibration_images=10)
    assert [a.path for a in e.value.results.artifacts] == ["tiny_int8.tflite"]


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("run", {"precison": "int8", "out": "o"}, r"edgenet\.run has no option precison \(valid: model.*precisions"),
    ("run", {}, r"edgenet\.run needs out: give a folder"),
    ("run", {"out": 5}, "out is 5, which is no path"),
    ("run", {"out": ""}, "out is '', which is no path"),
    ("run", {"out": "o", "limit": "12"}, "--limit must be a whole number, was '12'"),
    ("run", {"out": "o", "threads": 2.5}, "--threads must be a whole number, was 2.5"),
    ("run", {"out": "o", "formats": 5}, "formats is a text or a list of texts, was 5"),
    ("run", {"out": "o", "formats": ["tflite", None]}, "formats is a text or a list of texts"),
    ("run", {"out": "o", "formats": "tflit"}, "unknown format 'tflit'"),
    ("run", {"out": "o", "formats": []}, "--format is an empty list"),
    ("run", {"out": "o", "io": 8}, "io is a text, was 8"),
    ("run", {"out": "o", "random_weights": "no"}, "random_weights is True or False, was 'no'"),
    ("run", {"out": "o", "images": 3}, "images is a text, was 3"),
    ("run", {"out": "o", "example_input": [0]}, "needs torch|takes a torch.nn.Module|example_input is for"),
    ("quantize", {"precision": "int5", "images": "p"}, "unknown precision 'int5'"),
    ("quantize", {"out": "o"}, r"edgenet\.quantize has no option out"),
]


@pytest.mark.parametrize(("name", "options", "says"), WRONG, ids=lambda x: str(x)[:40])
def test_what_makes_no_sense_is_a_line_before_any_work(
    name: str, options: dict[str, Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(edgenet.EdgenetError, match=says) as e:
        getattr(edgenet, name)("tiny", **options)
    assert "\n" not in str(e.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: edgenet.evaluate("gone.tflite", images="p"), "gone.tflite"),
        (lambda: edgenet.evaluate([], images="p"), "artifacts is empty"),
        (lambda: edgenet.evaluate("x.tflite", images="p", limit="2"), "--limit must be a whole number, was '2'"),
        (lambda: edgenet.evaluate("x.tflite"), "evaluating needs images"),
        (lambda: edgenet.bench("gone.tflite"), "no file gone.tflite"),
        (lambda: edgenet.bench(7), "artifacts is 7, which is no path"),
        (lambda: edgenet.bench("x.tflite", out="o"), "no file x.tflite"),
        (lambda: edgenet.compare("gone", "gone"), "gone"),
        (lambda: edgenet.compare("a", "b", strict=True), "--strict needs a limit"),
        (lambda: edgenet.inspect("gone.tflite"), "gone.tflite"),
        (lambda: edgenet.inspect(None), "artifact is None, which is no path"),
        (lambda: edgenet.run(12, out="o"), "takes a name of the zoo, a path, a torch.nn.Module .* given int"),
        (lambda: edgenet.export("", out="o"), "the model is ''"),
    ],
)
def test_a_wrong_file_or_model_is_a_line(call: Any, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(edgenet.EdgenetError, match=says):
        call()


def test_no_argument_ends_the_program_of_its_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "exit", lambda *_: pytest.fail("sys.exit was called"))
    with pytest.raises(edgenet.InputError):
        edgenet.run("no-such-model", out=tmp_path / "out", images="sample")
