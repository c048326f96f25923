"""The search for an int8 file within a budget."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet import device_bench
from edgenet.calibration import Recipe, SharedCalibration, quantize
from edgenet.calibration.execute import Executor
from edgenet.calibration.sensitivity import layers, sensitivity
from edgenet.errors import DeviceError
from edgenet.export import Network
from edgenet.images import load_pixels
from edgenet.jobs import accuracy_budget
from edgenet.jobs.accuracy_budget import _almost_all, _counts, search
from edgenet.jobs.budget_verdict import Budget
from edgenet.jobs.file_factory import FileFactory, Interface, Variant
from edgenet.results import Artifact, Failure, ImageSet
from edgenet.targets import target
from helpers import tiny
from helpers.command_line import Edgenet

Images = tuple[ImageSet, ImageSet]


@pytest.fixture(autouse=True)
def _short_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.shorten_timing(monkeypatch.setattr)


@pytest.fixture
def _no_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """For searches that are not about what a step takes; test_a_run_... time every step."""
    monkeypatch.setattr(device_bench, "bench", lambda *args: ([], []))


def factory(images: Images, name: str = "generic") -> FileFactory:
    return FileFactory(tiny.source(), images[0], target(name), Recipe(), Interface())


def test_the_number_of_layers_doubles_and_ends_with_all() -> None:
    assert list(_counts(10)) == [1, 2, 4, 8, 10]
    assert list(_counts(8)) == [1, 2, 4, 8]
    assert list(_counts(1)) == [1]


def test_float16_comes_to_all_layers_but_one() -> None:
    assert list(_almost_all(82)) == [1, 2, 4, 8, 16, 32, 57, 69, 75, 78, 80, 81]
    assert list(_almost_all(2)) == [1]
    assert list(_almost_all(1)) == []


def test_the_search_begins_with_the_file_that_there_is_without_a_budget_and_ends_where_it_is_enough(
    tiny_images: Images, tmp_path: Path
) -> None:
    made = factory(tiny_images)
    found = search(made, "tflite", tiny_images[1], Budget(max_drop_points=50))
    assert found.record.met
    (step,) = found.record.steps
    assert (step.verdict, step.artifact, step.why) == ("met", "tiny_int8.tflite", "the file without a budget")
    assert step.what == f"int8 with {', '.join(Recipe().corrections)}"
    assert found.variant == Variant(Recipe(), {})
    assert found.record.sensitivity == ()
    without = made.export(tmp_path, "tflite", "int8").sha256
    assert made.export(tmp_path, "tflite", "int8", found.variant).sha256 == without


@pytest.mark.usefixtures("_no_timing")
def test_few_pictures_cannot_tell_and_the_file_without_a_budget_is_kept(tiny_images: Images) -> None:
    """20 pictures could not show a loss below half a point with any file: what is kept is no larger one."""
    found = search(factory(tiny_images), "tflite", tiny_images[1], Budget(max_drop_points=0.5))
    assert (found.record.met, found.record.verdict) == (False, "cannot tell")
    (step,) = found.record.steps
    assert step.limits is not None
    assert step.drop is not None
    assert step.drop <= 0.005 < step.limits[1]
    assert step.n_images == len(tiny_images[1])
    assert (step.pictures_needed or 0) > 1000
    assert found.variant == Variant(Recipe(), {})


@pytest.mark.usefixtures("_no_timing")
def test_the_first_pictures_may_refuse_a_file_but_only_all_of_them_meet_the_budget(
    tiny_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy_budget, "FIRST_PICTURES", 8)
    evaluated: list[int] = []
    real = accuracy_budget.evaluate

    def counting(candidates: Any, images: ImageSet, *args: Any, **options: Any) -> Any:
        evaluated.append(len(images))
        return real(candidates, images, *args, **options)

    monkeypatch.setattr(accuracy_budget, "evaluate", counting)
    n = len(tiny_images[1])
    met = search(factory(tiny_images), "tflite", tiny_images[1], Budget(max_drop_points=50))
    assert (evaluated, met.record.steps[0].n_images) == ([8, n], n)
    evaluated.clear()
    missed = search(factory(tiny_images), "tflite", tiny_images[1], Budget(min_sqnr_db=500))
    assert evaluated == [8] * len(missed.record.steps)
    assert {step.n_images for step in missed.record.steps} == {8}


@pytest.mark.usefixtures("_no_timing")
def test_a_file_of_the_search_that_cannot_be_written_is_passed_over_with_its_reason(
    tiny_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = factory(tiny_images)
    real, refused = made.export, list[Variant]()

    def export(out: Path, format: str, precision: str, variant: Variant | None = None) -> Artifact:
        if variant is not None and variant.exceptions and not refused:
            refused.append(variant)
            raise DeviceError("this mixture has no form in the format")
        return real(out, format, precision, variant)

    monkeypatch.setattr(made, "export", export)
    found = search(made, "tflite", tiny_images[1], Budget(min_sqnr_db=500))
    failed = [step for step in found.record.steps if step.verdict == "failed"]
    assert failed
    assert {step.failure for step in failed} == {"this mixture has no form in the format"}
    assert found.record.steps[failed[0].n].why == "the file before does not run"
    assert found.record.kept is not None
    assert found.record.kept.verdict == "missed"


def test_a_default_file_that_does_not_run_ends_the_search_of_its_format(
    tiny_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = Failure("evaluate", "tiny_int8.tflite", why="its process died", remedy="")
    monkeypatch.setattr(accuracy_budget, "evaluate", lambda *args, **options: ([], [failure]))
    with pytest.raises(DeviceError, match=r"tiny_int8\.tflite could not be measured: its process died"):
        search(factory(tiny_images), "tflite", tiny_images[1], Budget(max_drop_points=1))


def test_a_budget_that_nothing_meets_tries_every_step_and_keeps_the_best(tiny_images: Images) -> None:
    found = search(factory(tiny_images), "tflite", tiny_images[1], Budget(min_sqnr_db=500))
    n_layers = len(layers(factory(tiny_images).network.graph))
    assert not found.record.met
    n = len(found.record.sensitivity)
    assert len(found.record.steps) == 1 + len(list(_counts(n))) + len(list(_almost_all(n)))
    assert found.record.steps[-1].what.startswith("int8 weights and float32 activations with the")
    assert found.record.steps[-1].what.endswith("in float16 weights")
    assert len(found.record.sensitivity) <= n_layers
    best = max(found.record.steps, key=lambda s: s.sqnr_db or 0)
    assert found.record.kept == best
    assert dict(found.variant.exceptions) == best.exceptions
    assert all(step.why.endswith("dB is short of 500") for step in found.record.steps[1:])


@pytest.mark.usefixtures("_no_timing")
def test_another_format_with_the_same_integers_tries_next_what_the_search_ended_with(tiny_images: Images) -> None:
    made = factory(tiny_images, "x86-avx2")  # both have 7 bits there, which every x86 adds alike
    plain = search(made, "onnx", tiny_images[1], Budget(max_drop_points=100)).record.steps[0].sqnr_db or 0
    first = search(made, "onnx", tiny_images[1], Budget(min_sqnr_db=plain + 8))
    second = search(made, "openvino", tiny_images[1], Budget(min_sqnr_db=plain + 8), earlier=first)
    assert second.record.met
    assert len(first.record.steps) > len(second.record.steps) == 2
    assert second.variant == first.variant
    assert second.record.steps[0].what == first.record.steps[0].what
    assert second.record.steps[1].why == "the search for onnx ended with it"
    # Where the default file is enough there, a mixture that the other format needed is none of its business.
    third = search(made, "openvino", tiny_images[1], Budget(max_drop_points=100), earlier=first)
    assert third.variant == Variant(Recipe(), {})


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
    artifact = made.export(tmp_path, format, "int8", found.variant, found.options)
    assert artifact.mixture == dict(found.variant.exceptions)
    assert artifact.options["budget"] == wanted.text
    assert artifact.options["budget_images"] == tiny_images[1].fingerprint


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
    assert "Warning: No file meets the budget. The nearest was kept, step" in done.stdout
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


def test_a_run_that_cannot_tell_is_status_0_with_a_loud_note_and_more_pictures_search_again(
    edgenet: Edgenet, tiny_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "OUT"
    export = ["export", "tiny", "--images", tiny_folder, "--calibration-images", 10, "--precision", "int8"]
    export += ["--max-accuracy-drop", 0.5, "--out", out]
    few = edgenet(*export, "--limit", 24)
    assert few.returncode == 0, few.stderr
    assert "The budget in tflite: at most 0.5 points lost" in few.stdout
    assert re.search(r"→ 1\. int8 with .* 0\.00 .* to .*dB .*[Mk]B +cannot tell", few.stdout)
    assert re.search(r"^Warning: 14 pictures cannot tell .* About \d,\d00 would tell\.$", few.stdout, re.MULTILINE)
    first = json.loads((out / "results.json").read_text())
    assert first["context"]["search"]["tflite"]["verdict"] == "cannot tell"
    # The calibration is the same; what the search found is of other pictures all the same.
    assert edgenet(*export).returncode == 0
    second = json.loads((out / "results.json").read_text())
    (a,), (b,) = first["artifacts"], second["artifacts"]
    assert a["options"]["budget_images"] != b["options"]["budget_images"]
    assert second["context"]["search"]["tflite"]["steps"][0]["n_images"] == 30


def test_a_budget_of_logits_with_an_8_bit_output_is_refused(
    tmp_path: Path, edgenet: Edgenet, tiny_folder: Path
) -> None:
    run = ["run", "tiny", "--images", tiny_folder, "--io", "uint8", "--min-sqnr", 20, "--out", tmp_path / "OUT"]
    done = edgenet(*run)
    assert done.returncode == 2
    assert "with --io uint8 the output has 8 bits: give --max-accuracy-drop" in done.stderr
    assert not (tmp_path / "OUT").exists()


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
