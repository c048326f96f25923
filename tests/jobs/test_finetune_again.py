"""`finetune` learns once more in the end, what was chosen, from all pictures: those that were held back too."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet.calibration.training import activations, again, head, lesson, stages, transfer
from edgenet.errors import InputError
from edgenet.export import find_source
from edgenet.images import open_images
from edgenet.images.roles import recognised
from edgenet.jobs import finetune as finetune_job
from edgenet.jobs.finetune import finetune
from edgenet.options import FinetuneJob
from edgenet.results import Results
from edgenet.results.training import TrainingRecord
from helpers import tiny
from helpers.trainings import needs_training, network_file, small_job

FILE = "mine-finetuned.tflite"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """120 photographs: 24 measure, 14 are held back, 82 train."""
    return tiny.make_folder(tmp_path / "photos", 24)


@pytest.fixture
def each_stage_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny network knows the colours: nothing is left for a stage to learn."""
    monkeypatch.setattr(stages, "gain", lambda *_: stages.Gain(0.1, 0.0))


def asked(tmp_path: Path, photos: Path, out: str, layers: str = "top", **changes: Any) -> FinetuneJob:
    return small_job(
        str(network_file(tmp_path)), tmp_path / out, photos, preprocess="mean=127 std=128", layers=layers, **changes
    )


def told_of(results: Results) -> TrainingRecord:
    told = results.context.training
    assert told is not None
    return told


def stop_at(beginning: str) -> Any:
    def stop(line: str) -> None:
        if line.startswith(beginning):
            raise KeyboardInterrupt

    return stop


def test_the_file_and_the_results_say_that_the_held_back_pictures_taught(tmp_path: Path, photos: Path) -> None:
    job = asked(tmp_path, photos, "OUT", "head")
    results = finetune(job)
    told, used = told_of(results), results.context.images
    assert (told.pictures.train, told.pictures.held_back, told.pictures.evaluation) == (82, 14, 24)
    assert told.again is not None
    assert (told.again.pictures, told.again.epochs, told.again.kept) == (96, 0, True)
    assert told.settings["refit"] is True
    assert used is not None
    assert used.taught is not None
    assert used.chose is not None
    assert (used.taught.n, used.chose.n) == (96, 14)
    assert set(used.chose.sha256) < set(used.taught.sha256)
    history = find_source(str(job.out / FILE)).pictures
    assert history.taught is not None
    assert (history.taught.n, history.chose) == (96, None)  # who chose and taught counts once
    seen = recognised(open_images(str(photos), (), tuple(f"class_{i}" for i in range(5))), [history.taught])
    assert seen.sum() == 96

    plain = finetune(replace(job, out=tmp_path / "plain", refit=False))
    assert told_of(plain).again is None
    history = find_source(str(tmp_path / "plain" / FILE)).pictures
    assert history.taught is not None
    assert history.chose is not None
    assert (history.taught.n, history.chose.n) == (82, 14)


@needs_training
@pytest.mark.usefixtures("each_stage_is_kept")
def test_head_top_and_all_layers_learn_from_all_pictures_and_no_view_is_computed_twice(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[int] = []
    fit, view, batches = head.fit_head, activations.view, transfer.batches
    seen: list[tuple[int, int]] = []
    of_epochs: list[int] = []
    read: list[int] = []
    of_kept = activations.Activations.batches

    def fit_noted(x: np.ndarray, *rest: Any) -> Any:
        fitted.append(len(x))
        return fit(x, *rest)

    def view_noted(pictures: Any, seed: int, number: int, *rest: Any) -> Any:
        seen.append((len(pictures), number))
        return view(pictures, seed, number, *rest)

    def batches_noted(pictures: Any, *rest: Any, **more: Any) -> Any:
        of_epochs.append(len(pictures))
        return batches(pictures, *rest, **more)

    def kept_noted(self: activations.Activations, *rest: Any) -> Any:
        read.append(len(self))
        return of_kept(self, *rest)

    monkeypatch.setattr(transfer, "fit_head", fit_noted)
    monkeypatch.setattr(activations, "view", view_noted)
    monkeypatch.setattr(transfer, "batches", batches_noted)
    monkeypatch.setattr(activations.Activations, "batches", kept_noted)
    told = told_of(finetune(asked(tmp_path, photos, "OUT", "all")))
    assert fitted == [2 * 82, 2 * 96]
    assert seen == [(82, 0), (82, 1), (14, 0), (14, 1)]
    assert read == [82, 96]  # an epoch of the top layers, then one from all
    assert of_epochs == [82, 96]
    assert told.again is not None
    assert (told.again.pictures, told.again.epochs) == (96, 2)
    assert told.activations is not None
    assert told.activations.pictures == 96
    assert not list((tmp_path / "OUT").rglob("*.npy"))  # what was kept for both passes goes with them


@needs_training
@pytest.mark.usefixtures("each_stage_is_kept")
def test_a_run_killed_while_it_learns_once_more_ends_with_the_bytes_of_one_that_was_not(
    tmp_path: Path, photos: Path
) -> None:
    whole, cut = (asked(tmp_path, photos, out, "all") for out in ("whole", "cut"))
    finetune(whole)
    with pytest.raises(KeyboardInterrupt):
        finetune(cut, note=stop_at("again: all: epoch 0/"))
    assert not (cut.out / FILE).exists()
    said: list[str] = []
    finetune(cut, note=said.append)
    told = [line.partition("  ")[0] for line in said if ": epoch" in line]
    assert told == ["again: all: epoch 0/1", "again: all: epoch 1/1"]  # what was done already is not done anew
    assert (cut.out / FILE).read_bytes() == (whole.out / FILE).read_bytes()


@pytest.mark.parametrize(("loss", "why"), [(9.0, "loss"), (np.nan, "diverged")])
def test_what_is_broken_by_learning_once_more_leaves_the_bytes_of_no_refit(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, loss: float, why: str
) -> None:
    job, without, said = asked(tmp_path, photos, "a", "head"), asked(tmp_path, photos, "b", "head"), list[str]()
    finetune(replace(without, refit=False))
    with monkeypatch.context() as m:
        m.setattr(transfer._Run, "worth", lambda *_: stages.Measured(np.full(14, loss), np.zeros(14, bool)))
        told = told_of(finetune(job, note=said.append)).again
    assert told is not None
    assert (told.kept, told.why) == (False, why)
    assert any(line.startswith("again: not kept") for line in said)
    assert (job.out / FILE).read_bytes() == (without.out / FILE).read_bytes()
    json.loads((job.out / "results.json").read_text(), parse_constant=pytest.fail)  # no NaN
    whole = asked(tmp_path, photos, "c", "head")
    finetune(whole)
    assert (whole.out / FILE).read_bytes() != (without.out / FILE).read_bytes()


@needs_training
@pytest.mark.usefixtures("each_stage_is_kept")
def test_where_the_second_pass_diverges_the_network_of_the_first_is_returned(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind = transfer._Run.train_blind

    def no_number(*asked: Any) -> Any:
        monkeypatch.setattr(transfer, "smoothed_cross_entropy", lambda _: lambda z, *_: np.nan * z[:, 0])
        return blind(*asked)

    monkeypatch.setattr(transfer._Run, "train_blind", no_number)
    job, said = asked(tmp_path, photos, "OUT"), list[str]()
    results = finetune(job, note=said.append)
    told = told_of(results).again
    assert told is not None
    assert (told.kept, told.why, told.held_back_loss) == (False, "diverged", None)
    assert any(line.startswith("again: not kept") for line in said)
    assert results.evaluations[0].top1 is not None
    assert results.evaluations[0].top1 >= 0.8


@needs_training
@pytest.mark.usefixtures("each_stage_is_kept")
def test_where_no_time_is_left_nothing_learns_once_more_and_it_is_told(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(finetune_job, "seconds_of", lambda *_: 0.001)  # no machine is so fast
    results = finetune(asked(tmp_path, photos, "OUT", time="1s"), note=said.append)
    told = told_of(results).again
    assert told is not None
    assert (told.kept, told.why, told.epochs) == (False, "time", 0)
    assert "again: no time is left to learn once more from all 96 pictures" in said
    assert results.context.images is not None
    assert results.context.images.taught is not None
    assert results.context.images.taught.n == 82
    assert "No time was left to learn once more" in (tmp_path / "OUT" / "report.html").read_text(encoding="utf-8")


@needs_training
@pytest.mark.usefixtures("each_stage_is_kept")
def test_a_run_that_goes_on_does_as_much_again_as_fitted_into_the_time_at_first(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = asked(tmp_path, photos, "OUT", time="1h")
    monkeypatch.setattr(again, "part_that_fits", lambda *_: 0.0)
    with pytest.raises(KeyboardInterrupt):
        finetune(job, note=stop_at("again: no time is left"))
    assert json.loads((job.out / "training" / lesson.PLAN).read_text())["again"] == 0
    monkeypatch.setattr(again, "part_that_fits", lambda *_: 1.0)
    told = told_of(finetune(job)).again
    assert told is not None
    assert told.why == "time"


@needs_training
def test_a_plan_leaves_the_time_to_learn_once_more(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer._Run, "_epoch_seconds", lambda *_: 300.0)
    epochs = {}
    for refit in (True, False):
        job, said = asked(tmp_path, photos, str(refit), "all", time="1h", refit=refit), list[str]()
        job = replace(job, settings=replace(job.settings, epochs=9))

        def stop(line: str, said: list[str] = said) -> None:
            said.append(line)
            if line.startswith("top: epoch 0"):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            finetune(job, note=stop)
        epochs[refit] = json.loads((job.out / "training" / lesson.PLAN).read_text())["epochs"]
        planned = next(line for line in said if line.startswith("into 60 min fit"))
        assert planned.endswith(", and as many once more from all pictures") is refit
    # An hour has 12 epochs of five minutes, less what went by before. With 96 / 82 as many again it has 5.
    assert epochs == {True: {"top": 1, "all": 4}, False: {"top": 4, "all": 7}}


def test_pictures_keep_their_roles_where_one_of_them_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tiny.make_folder(tmp_path / "photos", 30)  # one of 150: 1 % may be left out
    found: list[lesson.Lesson] = []

    def caught(learned: lesson.Lesson, *_: Any) -> None:
        found.append(learned)
        raise KeyboardInterrupt

    monkeypatch.setattr(transfer, "transfer", caught)
    skipped = set()
    for number in range(3):  # whether it trains or is held back is its content's
        file = sorted((photos / "class_1").iterdir())[number]
        whole = file.read_bytes()
        file.write_bytes(whole[: 300 + number])  # its header is whole
        job = asked(tmp_path, photos, f"OUT{number}", "head")
        with pytest.raises(KeyboardInterrupt):
            finetune(job)
        task, learned = finetune_job._prepare(job), found.pop()
        file.write_bytes(whole)
        parts = ((task.train, learned.train), (task.held_back, learned.held_back))
        for of, pictures in parts:
            kept = [label for f, label in zip(of.files, of.labels, strict=True) if f != str(file)]
            assert list(pictures.labels) == kept
            skipped |= {len(of) - len(kept)}
        assert learned.both is not None
        assert list(learned.both.labels) == [label for _, p in parts for label in p.labels]
    assert skipped == {0, 1}


def test_another_answer_to_refit_is_another_run(tmp_path: Path, photos: Path) -> None:
    job = asked(tmp_path, photos, "OUT", "head")
    finetune(job)
    with pytest.raises(InputError, match="refit was True, is False"):
        finetune(replace(job, refit=False))
