"""Options through the whole command: --batch and --logits, in files, accuracy and latency; what is refused."""

from pathlib import Path

import numpy as np
import pytest

from edgenet.export.runtime import load
from edgenet.results import Results
from helpers.command_line import Edgenet


@pytest.mark.parametrize("batch", ["4", "dynamic"])
def test_a_run_with_a_batch_and_logits(edgenet: Edgenet, tiny_folder: Path, tmp_path: Path, batch: str) -> None:
    done = edgenet(
        "run", "tiny", "--precision", "float32", "--precision", "int8", "--calibration-images", 10, "--format", "onnx",
        "--format", "openvino", "--batch", batch, "--logits", "--images", tiny_folder, "--out", tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = Results.load(tmp_path)
    assert len(results.measurements) == len(results.evaluations) == 4
    for artifact in results.artifacts:
        assert artifact.inputs[0].shape[0] == (4 if batch == "4" else -1)
        assert [t.name for t in artifact.outputs] == ["probabilities", "logits"]
        predictor = load(str(tmp_path / artifact.path))
        assert sorted(predictor.output_names) == ["logits", "probabilities"]
        side = predictor.size_px[0]
        answers = predictor.predict(np.random.default_rng(0).normal(size=(6, side, side, 3)).astype(np.float32))
        np.testing.assert_allclose(answers.sum(1), 1, atol=1e-3)
    noted = [w for m in results.measurements for w in m.warnings if "takes 4 pictures at once" in w.text]
    assert len(noted) == (4 if batch == "4" else 0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--batch", "4"), "--batch is not for tflite"),
        (("--logits",), "--logits is not for tflite"),
        (("--batch", "0", "--format", "onnx"), "--batch must be at least 1 and at most 4096, was 0"),
        (("--batch", "many", "--format", "onnx"), "--batch must be a whole number, or dynamic, was 'many'"),
    ],
)
def test_what_cannot_be_is_refused(edgenet: Edgenet, tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    done = edgenet("export", "tiny", "--precision", "float32", *arguments, "--out", tmp_path / "OUT")
    assert done.returncode == 2
    assert says in done.stderr
    assert not (tmp_path / "OUT").exists()


@pytest.mark.parametrize("command", ["qat", "finetune"])
def test_training_from_the_command_line_says_what_is_wrong(edgenet: Edgenet, tmp_path: Path, command: str) -> None:
    done = edgenet(command, "efficientnet-lite0", "--images", tmp_path / "none", "--out", tmp_path / "OUT")
    assert done.returncode == 2
    assert done.stderr.startswith("edgenet: no folder ")
    assert not (tmp_path / "OUT").exists()
