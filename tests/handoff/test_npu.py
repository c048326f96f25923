"""handoff/npu.py: the files that are compiled for a Snapdragon's NPU, what its emulator answers, and the Kotlin."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgenet.calibration import quantize
from edgenet.errors import InputError
from edgenet.export import Network, export_graph
from edgenet.files import sha256_of
from edgenet.handoff import MANIFEST, hand_over, npu, read_deployed, write
from edgenet.handoff import verify as verify_module
from edgenet.handoff.verify import verify
from edgenet.handoff.write import ASSETS, GOLDEN
from edgenet.results import Calibration
from helpers import kotlin
from helpers.command_line import Edgenet

needs_qnn = pytest.mark.skipif(importlib.util.find_spec("onnxruntime_qnn") is None, reason="needs onnxruntime-qnn")
N = 2  # photographs, which take a second each in the emulator of a real network


@pytest.fixture(scope="module")
def uint8_file(tiny_network: Network, tiny_calibration: Calibration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    graph = quantize(tiny_network.graph, "int8", tiny_calibration)
    out = tmp_path_factory.mktemp("uint8")
    return out / export_graph(tiny_network, graph, out, format="tflite", precision="int8", io="uint8").path


@pytest.fixture(scope="module")
def handed(uint8_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hand-over for two chips, one of them named as it is sold. Copy it before changing it."""
    with pytest.MonkeyPatch.context() as m:
        m.setattr(write, "N_CASES", N)
        out = tmp_path_factory.mktemp("handed") / "over"
        hand_over(uint8_file, out, ("qnn:SM8750", "qnn:Snapdragon 8 Elite", "qnn:QCS6490"))
    return out


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteRT stands in for MediaPipe, which takes seconds to import."""
    monkeypatch.setattr(verify_module, "_mediapipe", verify_module._litert)
    monkeypatch.setattr(verify_module, "_has_mediapipe", lambda: True)


@needs_qnn
def test_each_chip_has_its_compiled_file_and_the_answers_of_its_emulator(handed: Path, uint8_file: Path) -> None:
    picks = json.loads((handed / ASSETS / npu.PICKS).read_text())
    assert list(picks) == ["SM8750", "QCM6490", "QCS6490"]  # a phone may say either of the last two
    assert picks["QCM6490"] == picks["QCS6490"]
    golden = json.loads((handed / GOLDEN / "golden.json").read_text())
    assert [f["soc"] for f in golden["npu"]] == ["SM8750", "QCM6490"]
    for f in golden["npu"]:
        compiled = handed / ASSETS / f["file"]
        assert picks[f["soc"]] == f["file"]
        assert sha256_of(compiled) == f["sha256"]
        taken, _, n = f["operators"].partition(" of ")
        assert taken == n
        scores = np.stack([np.fromfile(handed / GOLDEN / name, "<f4") for name in f["scores"]])
        assert scores.shape == (N, read_deployed(uint8_file).n_outputs)
        assert np.abs(scores.sum(axis=1) - 1).max() < 0.1
    manifest = json.loads((handed / MANIFEST).read_text())
    assert manifest["npu"] == {f["soc"]: f"{ASSETS.as_posix()}/{f['file']}" for f in golden["npu"]}
    assert set(manifest["npu"].values()) <= set(manifest["files"])
    assert sha256_of(handed / ASSETS / uint8_file.name) == sha256_of(uint8_file)  # the CPU's file is there as well


@needs_qnn
def test_the_readme_and_gradle_say_what_the_npu_needs(handed: Path) -> None:
    text = (handed / "README.md").read_text()
    for said in ("Build.SOC_MODEL", "libLiteRtDispatch_Qualcomm.so", "| SM8750 |", "QNN's emulator", "NpuClassifier("):
        assert said in text
    assert "useLegacyPackaging = true" in (handed / "build.gradle.kts").read_text()


@needs_qnn
def test_verify_replays_the_compiled_files_in_the_emulator(handed: Path, quick: None, tmp_path: Path) -> None:
    checks = {c.what: c for c in verify(handed)}
    assert all(c.ok for c in checks.values()), checks
    assert "emulated" in checks["NPU of SM8750"].said
    copy = Path(shutil.copytree(handed, tmp_path / "copy"))
    scores = copy / GOLDEN / "SM8750/0_scores.bin"
    scores.write_bytes((np.fromfile(scores, "<f4") + np.float32(0.2)).tobytes())
    file = copy / ASSETS / json.loads((copy / ASSETS / npu.PICKS).read_text())["QCS6490"]
    file.write_bytes(file.read_bytes()[:-500])
    outcome = {c.what: c.ok for c in verify(copy)}
    assert (outcome["NPU of SM8750"], outcome["NPU of QCM6490"], outcome["files"]) == (False, False, False)
    assert outcome["LiteRT"] is True


@needs_qnn
def test_without_the_emulator_verify_says_that_the_npu_was_not_checked(
    handed: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npu, "not_installed", lambda soc: "install it")
    (check,) = (c for c in verify(handed) if c.what == "NPU of SM8750")
    assert (check.ok, check.said) == (None, "not checked: install it")


@needs_qnn
def test_the_same_file_gives_the_same_compiled_bytes(
    handed: Path, uint8_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "N_CASES", N)
    hand_over(uint8_file, tmp_path / "again", ("qnn:SM8750", "qnn:QCS6490"))
    (compiled,) = (tmp_path / "again" / ASSETS / npu.FOLDER).glob("*SM8750*")
    assert compiled.read_bytes() == (handed / ASSETS / npu.FOLDER / compiled.name).read_bytes()


def test_what_is_no_snapdragon_or_has_float_input_is_refused(
    tiny_files: dict[str, Path], uint8_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="float32 input or output, which leaves operators to the CPU"):
        hand_over(tiny_files["int8"], tmp_path / "out", ("qnn:SM8750",))
    with pytest.raises(InputError, match=r"local is no Snapdragon.*--device qnn:SOC"):
        hand_over(uint8_file, tmp_path / "out", ("local",))
    assert not (tmp_path / "out").exists()


@needs_qnn
def test_an_unknown_chip_leaves_no_half_hand_over(edgenet: Edgenet, uint8_file: Path, tmp_path: Path) -> None:
    done = edgenet("handoff", uint8_file, "--device", "qnn:SM87500", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "SM8750" in done.stderr
    assert list(tmp_path.iterdir()) == []


@needs_qnn
@pytest.mark.slow
@pytest.mark.skipif(not kotlin.KOTLINC, reason="needs kotlinc: apt-get install kotlin")
def test_the_kotlin_for_the_npu_compiles(handed: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "Wrong.kt"  # shows that the stubs let nothing pass that is not there
    wrong.write_text("fun wrong(c: edgenet.classifier.NpuClassifier) = c.onGpu")
    sources = [*kotlin.write_stubs(tmp_path / "stubs"), *handed.rglob("*.kt"), wrong]
    (error,) = kotlin.compile_kotlin(sources, tmp_path / "classes").splitlines()
    assert "unresolved reference: onGpu" in error
