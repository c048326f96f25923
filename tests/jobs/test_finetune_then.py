"""`finetune --then`: INT8 in the same command, each step measured on the same pictures, and a run that goes on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgenet.calibration.training import transfer
from edgenet.errors import InputError
from edgenet.export.inspect import inspect
from edgenet.jobs.finetune import finetune
from edgenet.jobs.finetune_then import changed_confusions
from edgenet.options import FinetuneJob
from edgenet.results import Evaluation, ImageSet, Results
from edgenet.results.answers import pack
from edgenet.results.training import ThenRecord
from helpers import tiny
from helpers.trainings import needs_training, network_file, small_job


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return tiny.make_folder(tmp_path / "photos", 36)


def asked(tmp_path: Path, photos: Path, then: str, out: str = "OUT") -> FinetuneJob:
    return small_job(str(network_file(tmp_path)), tmp_path / out, photos, preprocess="mean=127 std=128", then=then)


def then_of(results: Results) -> ThenRecord:
    training = results.context.training
    assert training is not None
    assert training.then is not None
    return training.then


def test_an_int8_file_is_made_in_the_same_command_and_each_step_is_on_the_page(tmp_path: Path, photos: Path) -> None:
    job = asked(tmp_path, photos, "int8")
    finetune(job)
    results = Results.load(job.out)
    then = then_of(results)
    assert [s.name for s in then.steps] == ["float before", "float after", "INT8"]
    assert len({e.images for e in results.evaluations}) == 1
    assert {s.artifact: s.top1 for s in then.steps} == {e.artifact: e.top1 for e in results.evaluations}
    assert {s.artifact: s.size_bytes for s in then.steps} == {a.id: a.size_bytes for a in results.artifacts}
    assert inspect(job.out / "mine-finetuned_int8.tflite").precision == "int8"
    page = (job.out / "report.html").read_text(encoding="utf-8")
    assert "The finetuned int8 file is right on" in page
    assert all(name in page for name in ("Float, the new head alone", "Float, after learning", "INT8, post-training"))


@needs_training
def test_the_same_seed_gives_the_same_files_and_the_better_int8_file_is_returned(tmp_path: Path, photos: Path) -> None:
    made = []
    for out in ("a", "b"):
        job = asked(tmp_path, photos, "qat", out)
        results = finetune(job)
        made.append((job.out / "mine-finetuned_int8.tflite").read_bytes())
    assert made[0] == made[1]
    then = then_of(results)
    assert then.kept in ("ptq", "qat")
    assert [s.name for s in then.steps][:3] == ["float before", "float after", "INT8"]
    assert len(then.curve) == 2
    kept = "trained INT8" if then.kept == "qat" else "INT8"
    assert next(s.artifact for s in then.steps if s.name == kept) == "mine-finetuned_int8.tflite"
    worst = min(s.top1 or 0.0 for s in then.steps if s.name == "INT8")
    assert next(s.top1 for s in then.steps if s.name == kept) >= worst  # type: ignore[operator]


@needs_training
def test_a_run_that_was_killed_after_learning_goes_on_and_ends_as_one_that_was_not(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = asked(tmp_path, photos, "qat", "whole"), asked(tmp_path, photos, "qat", "cut")
    finetune(whole)

    def stop(line: str) -> None:
        if line.startswith("epoch 1/"):  # of the training in int8: the stages' lines begin with their names
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(cut, note=stop)
    assert not (cut.out / "mine-finetuned_int8.tflite").exists()
    with monkeypatch.context() as m:
        m.setattr(transfer, "transfer", lambda *_: pytest.fail("it learned again"))
        finetune(cut)
    name = "mine-finetuned_int8.tflite"
    assert (cut.out / name).read_bytes() == (whole.out / name).read_bytes()
    steps = [[(s.name, s.top1) for s in then_of(Results.load(job.out)).steps] for job in (whole, cut)]
    assert steps[0] == steps[1]


def test_a_finished_run_may_be_asked_for_its_int8_file_later(tmp_path: Path, photos: Path) -> None:
    job = asked(tmp_path, photos, "int8")
    finetune(replace(job, then=None))
    before = (job.out / "mine-finetuned.tflite").read_bytes()
    results = finetune(job)
    assert (job.out / "mine-finetuned.tflite").read_bytes() == before
    assert [s.name for s in then_of(results).steps] == ["float before", "float after", "INT8"]


def test_what_may_follow_is_named_where_it_is_something_else(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown --then 'int3' \(valid: int8, qat\)"):
        FinetuneJob("efficientnet-lite0", tmp_path, "photos", then="int3")


def test_confusions_are_counted_step_by_step_and_those_that_did_not_change_are_left_out() -> None:
    labels = (0, 0, 1, 1, 2)
    # The order of the content is the other way round.
    images = ImageSet("photos", tuple("abcde"), labels, tuple("43210"), "f" * 64)

    def answered(name: str, *top1: int) -> Evaluation:
        given, known = np.array(top1[::-1]), np.array(labels[::-1])
        answers = pack(given == known, given != known, given)
        return Evaluation(name, "f" * 64, 5, 5, None, None, None, None, "litert", answers=answers)

    steps = {
        "float before": answered("before", 1, 1, 1, 0, 2),
        "float after": answered("after", 0, 1, 1, 0, 2),
        "INT8": answered("int8", 0, 0, 2, 0, 2),
    }
    found = changed_confusions(steps, images)
    assert [(c.label, c.answer, c.n) for c in found] == [(0, 1, (2, 1, 0)), (1, 2, (0, 0, 1))]
    with pytest.raises(InputError, match="was not measured on photos"):
        changed_confusions({"x": replace(steps["INT8"], answers=None)}, images)
