"""What verify says of a hand-over: one that holds, one that was changed, and one that was made to deceive it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet.errors import InputError, MissingDependency
from edgenet.files import sha256_of
from edgenet.handoff import MANIFEST
from edgenet.handoff import verify as verify_module
from edgenet.handoff.verify import Golden, compare, verify
from edgenet.handoff.write import ASSETS, GOLDEN
from helpers.hand_overs import KOTLIN, golden_scores, outcome, read


def test_a_hand_over_holds(handed: Path, quick: None) -> None:
    assert outcome(handed) == {"files": True, "inputs": True, "LiteRT": True, "MediaPipe": True}


def test_code_that_the_team_changed_does_not_matter(copy: Path, quick: None) -> None:
    (copy / KOTLIN / "MediaPipeClassifier.kt").unlink()
    (copy / "README.md").write_text("ours")
    assert False not in outcome(copy).values()


def another_model(copy: Path, tiny_files: dict[str, Path]) -> None:
    shutil.copy(tiny_files["float32"], copy / ASSETS / tiny_files["int8"].name)


def byte_of_the_model(copy: Path, tiny_files: dict[str, Path]) -> None:
    path = copy / ASSETS / tiny_files["int8"].name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


def golden_input(copy: Path, tiny_files: dict[str, Path]) -> None:
    x = np.fromfile(copy / GOLDEN / "0_input.bin", "<f4").reshape(-1, 3)[:, ::-1]
    np.ascontiguousarray(x).tofile(copy / GOLDEN / "0_input.bin")


def golden_photograph(copy: Path, tiny_files: dict[str, Path]) -> None:
    shutil.copy(copy / GOLDEN / "1.png", copy / GOLDEN / "0.png")


def tolerance(copy: Path, tiny_files: dict[str, Path]) -> None:
    path = copy / GOLDEN / "golden.json"
    path.write_text(path.read_text().replace('"tolerance": 0.06', '"tolerance": 9'))


def labels(copy: Path, tiny_files: dict[str, Path]) -> None:
    path = copy / ASSETS / "labels.txt"
    path.write_text("\n".join(reversed(path.read_text().splitlines())))


def gone_model(copy: Path, tiny_files: dict[str, Path]) -> None:
    (copy / ASSETS / tiny_files["int8"].name).unlink()


def gone_golden(copy: Path, tiny_files: dict[str, Path]) -> None:
    shutil.rmtree(copy / GOLDEN)


def cut_golden(copy: Path, tiny_files: dict[str, Path]) -> None:
    (copy / GOLDEN / "2_input.bin").write_bytes(b"short")


@pytest.mark.parametrize(
    "damage",
    [another_model, byte_of_the_model, golden_scores, golden_input, golden_photograph, tolerance, labels, gone_model,
     gone_golden, cut_golden],
)  # fmt: skip
def test_whatever_was_changed_fails(
    copy: Path, tiny_files: dict[str, Path], quick: None, damage: Callable[[Path, dict[str, Path]], None]
) -> None:
    damage(copy, tiny_files)
    assert outcome(copy)["files"] is False


@pytest.mark.parametrize(
    ("damage", "check"), [(golden_scores, "LiteRT"), (golden_input, "inputs"), (golden_photograph, "inputs")]
)
def test_the_replay_itself_sees_a_changed_golden_file(
    copy: Path, tiny_files: dict[str, Path], quick: None, damage: Callable[[Path, dict[str, Path]], None], check: str
) -> None:
    damage(copy, tiny_files)
    manifest = json.loads(read(copy, MANIFEST))
    manifest["files"] = {n: sha256_of(copy / n) for n in manifest["files"]}
    (copy / MANIFEST).write_text(json.dumps(manifest))
    found = outcome(copy)
    assert found["files"] is True
    assert found[check] is False


def some_golden(scores: list[list[float]], margins: list[float]) -> Golden:
    s = np.array(scores, np.float32)
    paths = tuple(Path(f"{i}.png") for i in range(len(s)))
    return Golden(np.zeros((len(s), 1)), s, paths, tuple(map(int, s.argmax(axis=1))), tuple(margins), 0.05)


def test_scores_are_compared_one_by_one_and_a_sure_top_1_must_not_flip() -> None:
    golden = some_golden([[0.9, 0.1], [0.51, 0.49]], [0.8, 0.02])
    assert "2 of 2" in compare(golden.scores + 0.04, golden)
    compare(np.array([[0.9, 0.1], [0.49, 0.51]], np.float32), golden)  # a tie may turn
    for wrong in ([[0.9, 0.1], [0.51, 0.55]], [[np.nan, 0.1], [0.51, 0.49]]):
        with pytest.raises(InputError, match="1 of 2 photographs differ"):
            compare(np.array(wrong, np.float32), golden)
    with pytest.raises(InputError, match=r"\(2, 3\)"):
        compare(np.zeros((2, 3), np.float32), golden)
    sure = replace(some_golden([[0.56, 0.44]], [0.12]), tolerance=0.055)
    with pytest.raises(InputError, match="another top-1"):
        compare(np.array([[0.51, 0.489]], np.float32) * [1, 1.05], replace(sure, tolerance=0.0599))


def test_what_is_no_hand_over_is_wrong_input(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(InputError, match="is no hand-over"):
        verify(tmp_path)
    for text, says in (("{", "damaged"), ("[]", "not one that this version"), ('{"edgenet_handoff": 9}', "not one")):
        (copy / MANIFEST).write_text(text)
        with pytest.raises(InputError, match=says):
            verify(copy)


def test_without_mediapipe_the_error_names_the_extra(handed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "_has_mediapipe", lambda: False)
    with pytest.raises(MissingDependency, match=r"edgenet\[android\]"):
        verify(handed)


# --------------------------------------------------------------------------------------------------- hostile hand-overs


def no_files(manifest: dict[str, Any]) -> None:
    manifest["files"] = {}


def the_model_alone(manifest: dict[str, Any]) -> None:
    manifest["files"] = {manifest["model"]["file"]: manifest["model"]["sha256"]}


def a_file_outside(manifest: dict[str, Any]) -> None:
    manifest["files"]["../../etc/passwd"] = "0" * 64


def an_absolute_file(manifest: dict[str, Any]) -> None:
    manifest["files"]["/etc/passwd"] = "0" * 64


def a_hash_that_is_none(manifest: dict[str, Any]) -> None:
    manifest["files"][manifest["model"]["file"]] = 5


def a_model_outside(manifest: dict[str, Any]) -> None:
    manifest["model"]["file"] = "../../m.tflite"


def no_model(manifest: dict[str, Any]) -> None:
    del manifest["model"]


def a_model_that_is_a_list(manifest: dict[str, Any]) -> None:
    manifest["model"] = [1]


@pytest.mark.parametrize(
    "change",
    [
        no_files,
        a_file_outside,
        an_absolute_file,
        a_hash_that_is_none,
        a_model_outside,
        no_model,
        a_model_that_is_a_list,
    ],
)
def test_a_list_that_does_not_list_the_files_of_the_hand_over_is_refused(
    copy: Path, quick: None, change: Callable[[dict[str, Any]], None]
) -> None:
    manifest = json.loads(read(copy, MANIFEST))
    change(manifest)
    (copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="hand the model over again"):
        verify(copy)


def test_a_file_that_the_list_leaves_out_was_not_handed_over(copy: Path, quick: None) -> None:
    manifest = json.loads(read(copy, MANIFEST))
    the_model_alone(manifest)
    (copy / MANIFEST).write_text(json.dumps(manifest))
    assert outcome(copy)["files"] is False


@pytest.mark.parametrize(
    ("old", "new"),
    [('"tolerance": 0.06', '"tolerance": NaN'), ('"tolerance": 0.06', '"tolerance": 9'),
     ('"tolerance": 0.06', '"tolerance": "x"'), ('"cases": [', '"cases": [5, '), ('"cases": [', '"cases": [{}, '),
     ("{", "["), ('"margin": ', '"margin": -Infinity, "m": ')],
)  # fmt: skip
def test_a_golden_test_that_lets_anything_pass_is_none(copy: Path, quick: None, old: str, new: str) -> None:
    path = copy / GOLDEN / "golden.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    manifest = json.loads(read(copy, MANIFEST))
    manifest["files"] = {n: sha256_of(copy / n) for n in manifest["files"]}
    (copy / MANIFEST).write_text(json.dumps(manifest))
    checks = {c.what: c for c in verify(copy)}
    assert checks["golden"].ok is False
    assert "hand over again" in checks["golden"].said
    assert "Error" not in checks["golden"].said
