"""The search for an int8 file within a budget."""

import json
from pathlib import Path

import numpy as np
import pytest

from edgenet import device_bench
from edgenet.calibration import Recipe, SharedCalibration, quantize
from edgenet.calibration.execute import Executor
from edgenet.calibration.sensitivity import layers, sensitivity
from edgenet.errors import InputError
from edgenet.export import Network
from edgenet.images import load_pixels
from edgenet.jobs.accuracy_budget import Budget, _almost_all, _counts, search
from edgenet.jobs.file_factory import FileFactory, Interface
from edgenet.results import Evaluation, ImageSet
from edgenet.targets import target
from helpers import tiny
from helpers.command_line import Edgenet

Images = tuple[ImageSet, ImageSet]


@pytest.fixture(autouse=True)
def _short_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.shorten_timing(monkeypatch.setattr)


def evaluation(**measured: float | None) -> Evaluation:
    figures = {"top1": 0.8, "top1_ci95": None, "top5": None, "top5_ci95": None, **measured}
    return Evaluation("a", "", 10, 10, runtime="litert", **figures)  # type: ignore[arg-type]


@pytest.fixture
def _no_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """For searches that are not about what a step takes; test_a_run_... time every step."""
    monkeypatch.setattr(device_bench, "bench", lambda *args: ([], []))


def factory(images: Images, name: str = "generic") -> FileFactory:
    return FileFactory(tiny.source(), images[0], target(name), Recipe(), Interface())


def test_a_budget_in_points_is_of_top_1_and_of_agreement_where_nothing_is_labelled() -> None:
    budget = Budget(max_drop_points=0.5)
    assert budget.met_by(evaluation(top1_drop=0.005, agreement=0.9))
    assert not budget.met_by(evaluation(top1_drop=0.0051, agreement=1.0))
    assert budget.met_by(evaluation(agreement=0.995))
    assert not budget.met_by(evaluation(agreement=0.99))


def test_a_budget_in_decibels_is_of_the_logits() -> None:
    assert Budget(min_sqnr_db=20).met_by(evaluation(sqnr_db=20.0))
    assert not Budget(min_sqnr_db=20).met_by(evaluation(sqnr_db=19.9))
    assert not Budget(min_sqnr_db=20).met_by(evaluation(sqnr_db=None))


@pytest.mark.parametrize(
    ("drop", "sqnr", "says"), [(-1.0, None, "0 to 100"), (101.0, None, "0 to 100"), (1.0, 20.0, "give one")]
)
def test_a_budget_that_makes_no_sense_is_refused(drop: float, sqnr: float | None, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Budget(drop, sqnr)


def test_the_number_of_layers_doubles_and_ends_with_all() -> None:
    assert list(_counts(10)) == [1, 2, 4, 8, 10]
    assert list(_counts(8)) == [1, 2, 4, 8]
    assert list(_counts(1)) == [1]


def test_float16_comes_to_all_layers_but_one() -> None:
    assert list(_almost_all(82)) == [1, 2, 4, 8, 16, 32, 57, 69, 75, 78, 80, 81]
    assert list(_almost_all(2)) == [1]
    assert list(_almost_all(1)) == []


def test_the_first_file_within_the_budget_ends_the_search(tiny_images: Images) -> None:
    found = search(factory(tiny_images), "tflite", tiny_images[1], Budget(max_drop_points=50))
    assert found.record.met
    assert len(found.record.steps) == 1
    assert found.variant.recipe.corrections == ()
    assert found.record.sensitivity == ()


def test_a_budget_that_nothing_meets_tries_every_step_and_keeps_the_best(tiny_images: Images) -> None:
    found = search(factory(tiny_images), "tflite", tiny_images[1], Budget(min_sqnr_db=500))
    n_layers = len(layers(factory(tiny_images).network.graph))
    assert not found.record.met
    n = len(found.record.sensitivity)
    assert len(found.record.steps) == 2 + len(list(_counts(n))) + len(list(_almost_all(n)))
    assert found.record.steps[-1].what.startswith("int8 weights and float32 activations with the")
    assert found.record.steps[-1].what.endswith("in float16 weights")
    assert len(found.record.sensitivity) <= n_layers
    best = max(found.record.steps, key=lambda s: s.sqnr_db or 0)
    assert dict(found.variant.exceptions) == best.exceptions
    assert all(step.why.endswith("dB is short of 500") for step in found.record.steps[1:])


@pytest.mark.usefixtures("_no_timing")
def test_another_format_with_the_same_integers_begins_where_the_search_ended(tiny_images: Images) -> None:
    made = factory(tiny_images, "x86-avx2")  # both have 7 bits there, which every x86 adds alike
    plain = search(made, "onnx", tiny_images[1], Budget(max_drop_points=100)).record.steps[0].sqnr_db or 0
    first = search(made, "onnx", tiny_images[1], Budget(min_sqnr_db=plain + 8))
    second = search(made, "openvino", tiny_images[1], Budget(min_sqnr_db=plain + 8), earlier=first)
    assert second.record.met
    assert len(first.record.steps) > len(second.record.steps) == 1
    assert second.variant == first.variant
    assert second.record.steps[0].why == "the search for onnx ended with it"


@pytest.mark.usefixtures("_no_timing")
@pytest.mark.parametrize("format", ["tflite", "onnx", "openvino"])
def test_keeping_layers_better_is_a_mixture_that_every_format_holds(
    format: str, tiny_images: Images, tmp_path: Path
) -> None:
    made = factory(tiny_images)
    plain = search(made, format, tiny_images[1], Budget(max_drop_points=100)).record.steps[0].sqnr_db or 0
    wanted = Budget(min_sqnr_db=plain + 8)
    found = search(made, format, tiny_images[1], wanted)
    assert found.record.met
    assert found.record.steps[-1].sqnr_db is not None
    assert found.record.steps[-1].sqnr_db >= plain + 8
    artifact = made.export(tmp_path, format, "int8", found.variant, wanted.text)
    assert artifact.mixture == dict(found.variant.exceptions)
    assert artifact.options["budget"] == wanted.text


def test_a_layer_in_weight_only_keeps_its_integers_and_computes_in_float(
    tiny_network: Network, tiny_images: Images
) -> None:
    pixels = load_pixels(tiny_images[0], tiny_network.preprocessing)
    shared = SharedCalibration(tiny_network, pixels)
    every = {n: "weight-only" for layer in layers(shared.graph) for n in layer}
    mixed = shared.quantized("int8", exceptions=every)
    read = [mixed.tensors[n] for op in mixed.ops for n in op.inputs if n is not None]
    assert {t.dtype for t in read if t.data is not None and t.data.ndim == 4} == {"int8"}
    x = next(shared.inputs())
    whole = quantize(shared.graph, "weight-only", weights=shared.weights("int8", 8, every))
    (a,), (b,) = (Executor(g, g.outputs, 1)(x) for g in (mixed, whole))
    assert np.abs(a - b).max() <= 1e-6


def test_sensitivity_of_layers_is_worst_first_and_names_only_what_is_quantized(
    tiny_network: Network, tiny_images: Images
) -> None:
    shared = SharedCalibration(tiny_network, load_pixels(tiny_images[0], tiny_network.preprocessing))
    found = sensitivity(shared.graph, list(shared.inputs()), shared.calibration, groups=layers(shared.graph))
    assert [db for _, db in found] == sorted(db for _, db in found)
    assert all("probabilities" not in layer for layer, _ in found)


def test_a_run_that_misses_its_budget_is_status_1_and_has_all_its_files(
    edgenet: Edgenet, tiny_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "OUT"
    run = ["run", "tiny", "--images", tiny_folder, "--calibration-images", 10, "--precision", "float32"]
    done = edgenet(*run, "--precision", "int8", "--min-sqnr", 500, "--out", out)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("edgenet: no int8 file in tflite has logits of at least 500 dB")
    results = json.loads((out / "results.json").read_text())
    assert results["context"]["search"]["tflite"]["met"] is False
    assert {a["id"] for a in results["artifacts"]} == {"tiny_float32.tflite", "tiny_int8.tflite"}
    assert (out / "report.html").exists()


def test_a_run_within_its_budget_names_the_step_and_a_second_run_keeps_it(
    edgenet: Edgenet, tiny_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "OUT"
    run = ["run", "tiny", "--images", tiny_folder, "--calibration-images", 10, "--precision", "float32"]
    run += ["--precision", "int8", "--max-accuracy-drop", 20, "--out", out]
    assert edgenet(*run).returncode == 0
    before = json.loads((out / "results.json").read_text())
    assert before["context"]["search"]["tflite"]["steps"][-1]["met"] is True
    assert edgenet(*run).returncode == 0
    after = json.loads((out / "results.json").read_text())
    assert after["context"]["search"] == before["context"]["search"]
    assert after["artifacts"] == before["artifacts"]


def test_a_budget_of_accuracy_with_random_weights_is_refused(
    tmp_path: Path, edgenet: Edgenet, tiny_folder: Path
) -> None:
    done = edgenet(
        "run", "tiny", "--images", tiny_folder, "--random-weights", "--max-accuracy-drop", 1, "--out", tmp_path / "OUT"
    )
    assert done.returncode == 2
    assert "--min-sqnr 20" in done.stderr
    assert not (tmp_path / "OUT").exists()


def test_a_target_whose_dense_layers_have_one_scale_gets_one(tiny_images: Images) -> None:
    for name, n_scales in (("coral", 1), ("pixel-8", tiny.CLASSES)):
        made = factory(tiny_images, name)
        shared = made.shared(made.recipe)
        graph = shared.quantized("int8", dense_per_channel=made.target.dense_per_channel)
        dense = next(op for op in graph.ops if op.kind == "FULLY_CONNECTED")
        quantization = graph.tensors[str(dense.inputs[1])].quantization
        assert quantization is not None
        assert len(quantization.scale) == n_scales
