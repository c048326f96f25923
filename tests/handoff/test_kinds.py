"""A hand-over of every kind of classifier holds, says what its numbers mean, and sees another file."""

import importlib.util
import json
from pathlib import Path

import pytest

from edgenet.calibration import Recipe, SharedCalibration
from edgenet.export import export_graph, find_source
from edgenet.handoff import hand_over, read_deployed
from edgenet.handoff import verify as verify_module
from edgenet.handoff.verify import verify
from edgenet.handoff.write import GOLDEN
from edgenet.images import load_pixels, open_images
from helpers import kinds, kotlin

needs_mediapipe = pytest.mark.skipif(importlib.util.find_spec("mediapipe") is None, reason="needs mediapipe")
KINDS = {
    "binary": ("binary", 20, 20, 3),
    "labels": ("labels", 20, 20, 3),
    "embedding": ("normalised", 20, 20, 3),
    "grey": ("softmax", 20, 20, 1),
    "wide": ("softmax", 12, 24, 3),
}


def exported(name: str, out: Path, images: Path, io: str = "float32") -> Path:
    kind, height, width, channels = KINDS[name]
    path = kinds.save(out / f"{name}.tflite", kind, height=height, width=width, channels=channels)
    source = find_source(str(path), preprocess="mean=127.5 std=127.5 crop=2")
    network = source.network()
    used = open_images(images, (), tuple(f"class {i}" for i in range(5)))
    pixels = load_pixels(used, network.preprocessing)[::5]
    shared = SharedCalibration(network, pixels, used.fingerprint, Recipe(corrections=()))
    graph = shared.quantized("int8", 8, {}, True)
    return out / export_graph(network, graph, out, format="tflite", precision="int8", io=io).path


@pytest.mark.parametrize("name", KINDS)
def test_a_hand_over_of_every_kind_holds_and_another_file_does_not(
    name: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_module, "_mediapipe", verify_module._litert)
    monkeypatch.setattr(verify_module, "_has_mediapipe", lambda: True)
    monkeypatch.setattr("edgenet.handoff.write.N_CASES", 3)
    model = hand_over(exported(name, tmp_path, tiny_folder), tmp_path / "over")
    runs_in_mediapipe = name != "grey"
    assert bool(model.not_for_mediapipe) is not runs_in_mediapipe
    assert {c.what: c.ok for c in verify(tmp_path / "over")} == {
        "files": True, "inputs": True, "LiteRT": True, "MediaPipe": True if runs_in_mediapipe else None,
    }  # fmt: skip
    golden = tmp_path / "over" / GOLDEN / "golden.json"
    text = json.loads(golden.read_text())
    scores = tmp_path / "over" / GOLDEN / text["cases"][0]["output"]
    scores.write_bytes(bytes(reversed(scores.read_bytes())))
    assert {c.what: c.ok for c in verify(tmp_path / "over")}["LiteRT"] is False


def test_the_module_says_what_the_numbers_mean(tiny_folder: Path, tmp_path: Path, one_case: None) -> None:
    def texts(name: str) -> tuple[str, str, str]:
        hand_over(exported(name, tmp_path, tiny_folder), tmp_path / f"{name}_over")
        folder = tmp_path / f"{name}_over"
        code = folder / "src/main/kotlin/edgenet/classifier"
        return tuple(
            p.read_text() for p in (folder / "README.md", code / "LiteRtClassifier.kt", code / "Preprocessing.kt")
        )

    readme, classifier, _ = texts("binary")
    assert "A score above 0.5 says yes, any other no." in readme
    assert "const val THRESHOLD = 0.5f" in classifier
    assert (tmp_path / "binary_over/src/main/assets/labels.txt").read_text() == "yes\n"
    readme, classifier, _ = texts("labels")
    assert "Each label stands for itself: a score above 0.5 says that it is there." in readme
    readme, classifier, _ = texts("embedding")
    assert "an embedding of 6 numbers" in readme
    assert "cosine between their embeddings" in readme
    assert "labels" not in classifier
    assert not (tmp_path / "embedding_over/src/main/assets/labels.txt").exists()
    readme, _, code = texts("grey")
    assert "1 x 20 x 20 x 1" in readme
    assert "private fun grey(pixel: Int)" in code
    readme, _, code = texts("wide")
    assert "the centre rectangle of 12 / 14 of what fits, scaled to 12 x 24 px" in readme
    assert "const val WIDTH_PX = 24" in code


@pytest.fixture
def one_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgenet.handoff.write.N_CASES", 1)


@needs_mediapipe
@pytest.mark.slow
@pytest.mark.parametrize("name", ["binary", "labels", "embedding", "wide"])
def test_mediapipe_answers_as_litert_does(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    io = "float32" if name == "embedding" else "uint8"
    hand_over(exported(name, tmp_path, tiny_folder, io), tmp_path / "over")
    assert all(c.ok for c in verify(tmp_path / "over"))
    assert read_deployed(tmp_path / f"{name}_int8.tflite").output.dtype == io


@pytest.mark.slow
@pytest.mark.skipif(not kotlin.KOTLINC or not kotlin.KOTLIN, reason="needs kotlinc: apt-get install kotlin")
@pytest.mark.parametrize("name", ["binary", "embedding", "grey"])
def test_the_kotlin_of_every_kind_compiles(name: str, tiny_folder: Path, tmp_path: Path, one_case: None) -> None:
    hand_over(exported(name, tmp_path, tiny_folder), tmp_path / "over")
    sources = [*kotlin.write_stubs(tmp_path / "stubs"), *(tmp_path / "over").rglob("*.kt")]
    assert kotlin.compile_kotlin(sources, tmp_path / "classes") == ""
