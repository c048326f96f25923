"""The hand-over: what an Android team gets is the file's own, whole, the same each time, and proves itself."""

import importlib.util
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet.calibration import Recipe, SharedCalibration, quantize
from edgenet.errors import DeviceError, InputError, MissingDependency
from edgenet.export import Network, export_graph, find_source
from edgenet.files import sha256_of
from edgenet.handoff import MANIFEST, deployed, hand_over, read_deployed, templates, write
from edgenet.handoff.deployed import TOLERANCE
from edgenet.handoff.templates import VERSIONS
from edgenet.handoff.verify import compare, read_golden, verify
from edgenet.handoff.write import ASSETS, GOLDEN, N_CASES, Known
from edgenet.images import limit, load_pixels, open_images
from edgenet.results import Artifact, Calibration, Evaluation, Measurement, Results, TensorInfo, Warning
from helpers.command_line import Edgenet
from helpers.hand_overs import KOTLIN, golden_scores, outcome, read

needs_mediapipe = pytest.mark.skipif(importlib.util.find_spec("mediapipe") is None, reason="needs mediapipe")


@pytest.fixture
def one_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hand-over has one photograph instead of ten, which take longer to compress than all else takes."""
    monkeypatch.setattr(write, "N_CASES", 1)


def exported(network: Network, calibration: Calibration, io: str, out: Path) -> Path:
    graph = quantize(network.graph, "int8", calibration)
    return out / export_graph(network, graph, out, format="tflite", precision="int8", io=io).path


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# -------------------------------------------------------------------------------------------------------- what is there


def test_everything_that_was_promised_is_there(handed: Path, tiny_files: dict[str, Path]) -> None:
    model = tiny_files["int8"]
    assert (handed / ASSETS / model.name).read_bytes() == model.read_bytes()
    assert read(handed, f"{ASSETS}/labels.txt").splitlines() == list(read_deployed(model).labels)
    for name in ("Preprocessing.kt", "Bitmaps.kt", "LiteRtClassifier.kt", "MediaPipeClassifier.kt"):
        assert (handed / KOTLIN / name).is_file()
    assert (handed / "src/androidTest/kotlin/edgenet/classifier/GoldenTest.kt").is_file()
    files = set(tree(handed)) - {MANIFEST}
    assert json.loads(read(handed, MANIFEST))["files"] == {n: sha256_of(handed / n) for n in files}
    assert not [
        n
        for n, content in tree(handed).items()
        if (b"{{" in content or b"{%" in content) and not n.endswith((".bin", ".png"))
    ]


def test_ten_golden_cases_hold_what_the_file_got_and_gave(handed: Path, tiny_files: dict[str, Path]) -> None:
    golden = json.loads(read(handed, f"{GOLDEN}/golden.json"))
    assert len(golden["cases"]) == N_CASES
    assert golden["tolerance"] == TOLERANCE["integer"]
    assert golden["sha256"] == sha256_of(tiny_files["int8"])
    photographs = [c["source"].partition("#")[0] for c in golden["cases"]]
    assert max(map(photographs.count, photographs)) <= 2
    model = read_deployed(tiny_files["int8"])
    for c in golden["cases"]:
        x = np.fromfile(handed / GOLDEN / c["input"], "<f4")
        scores = np.fromfile(handed / GOLDEN / c["output"], "<f4")
        assert x.size == 20 * 20 * 3
        assert -127 / 128 <= x.min() < x.max() <= 1
        assert scores.argmax() == c["top1"]
        assert c["label"] == model.labels[c["top1"]]
        assert c["score"] == pytest.approx(scores.max())


def test_gradle_gets_the_versions(handed: Path) -> None:
    for text in (read(handed, "build.gradle.kts"), read(handed, "README.md")):
        for package, version in VERSIONS.items():
            assert f'mplementation("{package}:{version}")' in text


def test_the_kotlin_has_the_constants_of_the_file(
    tiny_network: Network, tiny_calibration: Calibration, handed: Path, tmp_path: Path, one_case: None
) -> None:
    text = read(handed, f"{KOTLIN}/Preprocessing.kt")
    assert "const val HEIGHT_PX = 20" in text
    assert "const val WIDTH_PX = 20" in text
    assert "MEAN = floatArrayOf(127.0f, 127.0f, 127.0f)" in text
    assert "STD = floatArrayOf(128.0f, 128.0f, 128.0f)" in text
    assert "out.putFloat(" in text
    for io, put, get in (
        ("uint8", "out.put(channel(pixel, c).toByte())", "((output.get().toInt() and 0xFF) - 0) * 0.00390625f"),
        ("int8", "out.put((channel(pixel, c) - 128).toByte())", "(output.get().toInt() - -128) * 0.00390625f"),
    ):
        hand_over(exported(tiny_network, tiny_calibration, io, tmp_path / io), tmp_path / f"out_{io}")
        assert put in read(tmp_path / f"out_{io}", f"{KOTLIN}/Preprocessing.kt")
        assert "MEAN" not in read(tmp_path / f"out_{io}", f"{KOTLIN}/Preprocessing.kt")
        assert get in read(tmp_path / f"out_{io}", f"{KOTLIN}/LiteRtClassifier.kt")


def test_what_mediapipe_cannot_run_comes_without_its_code_and_says_why(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path, quick: None, one_case: None
) -> None:
    hand_over(exported(tiny_network, tiny_calibration, "int8", tmp_path), tmp_path / "out")
    assert not list((tmp_path / "out").rglob("MediaPipe*"))
    assert not [
        n for n, t in tree(tmp_path / "out").items() if n.endswith((".kt", ".kts")) and b"mediapipe" in t.lower()
    ]
    assert "MediaPipe Tasks takes float32 or uint8, this file int8" in read(tmp_path / "out", "README.md")
    assert outcome(tmp_path / "out") == {"files": True, "inputs": True, "LiteRT": True, "MediaPipe": None}


def test_a_float_in_kotlin_is_the_float32_of_the_file() -> None:
    for value in (1 / 3, 123.675, 1e-7, 128.0, 0.00390625):
        assert np.float32(templates._float(value).rstrip("f")) == np.float32(value)
        assert templates._float(value).endswith("f")


def artifact(path: Path, **changes: Any) -> Artifact:
    known = Artifact("tiny_int8", "tiny", "tflite", "int8", path.name, 1, sha256_of(path), "float32", weights="w")
    return replace(known, **changes)


def test_the_readme_says_what_results_json_beside_the_file_knows(
    tiny_files: dict[str, Path], tmp_path: Path, one_case: None
) -> None:
    path = Path(shutil.copy(tiny_files["int8"], tmp_path))
    assert Known.beside(read_deployed(path)) == Known()
    e = Evaluation(
        "tiny_int8", "f", 30, 30, 0.9, (0.7, 0.97), 1.0, None, "litert", reference="tiny_float32", agreement=0.8
    )
    m = Measurement(
        "tiny_int8",
        "adb:PIXEL",
        "litert",
        2,
        (2_000_000,) * 50,
        warnings=(Warning("throttled", "it throttled"), Warning("cannot-tell", "from another")),
    )
    results = Results(artifacts=[artifact(path)], evaluations=[e], measurements=[m])
    results.save(tmp_path)
    hand_over(path, tmp_path / "out")
    text = " ".join(read(tmp_path / "out", "README.md").replace("\u00a0", " ").split())
    assert "| accuracy | top-1 90.0 % (95 %: 70.0 to 97.0) on 30 labelled pictures, 80.0 % of 30 pictures" in text
    assert (
        "| latency | 2.00 ms median, 2.00 ms p90, by litert on adb:PIXEL, 2 threads (with care: it throttled) |" in text
    )
    # Another file of the same name is not what was measured.
    results.artifacts = [artifact(path, sha256="0" * 64)]
    results.save(tmp_path)
    hand_over(path, tmp_path / "out")
    text = read(tmp_path / "out", "README.md")
    assert "| accuracy | not measured |" in text
    assert "| latency | not measured |" in text


# ---------------------------------------------------------------------------------------------------- how it is written


def test_the_same_file_gives_the_same_bytes_and_replaces_an_earlier_hand_over(
    handed: Path, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()  # an empty folder is as good as none
    for _ in range(2):
        hand_over(tiny_files["int8"], tmp_path / "out")
        assert tree(tmp_path / "out") == tree(handed)
    hand_over(tiny_files["float32"], tmp_path / "out")
    assert not (tmp_path / "out" / ASSETS / tiny_files["int8"].name).exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_hand_over_whose_code_was_edited_is_not_replaced(copy: Path, tiny_files: dict[str, Path]) -> None:
    kotlin = next(copy.rglob("Preprocessing.kt"))
    kotlin.write_text(kotlin.read_text() + "// ours\n")
    before = tree(copy)
    with pytest.raises(InputError, match=r"Preprocessing\.kt, which was edited since edgenet wrote it"):
        hand_over(tiny_files["int8"], copy)
    assert tree(copy) == before


def test_code_that_is_edited_while_a_second_hand_over_is_made_is_kept(
    copy: Path, tiny_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    edited = copy / KOTLIN / "Preprocessing.kt"
    pictures = write.golden_pictures

    def edit(*args: Any) -> Any:
        edited.write_text("// mine")
        return pictures(*args)

    monkeypatch.setattr(write, "golden_pictures", edit)
    with pytest.raises(InputError, match=r"Preprocessing\.kt, which was edited"):
        hand_over(tiny_files["int8"], copy)
    assert edited.read_text() == "// mine"
    assert [p.name for p in copy.parent.iterdir()] == [copy.name]


@pytest.mark.parametrize("name", ["notes.txt", "src/main/assets/other.tflite"])
def test_a_folder_with_something_else_in_it_is_refused(
    copy: Path, tiny_files: dict[str, Path], tmp_path: Path, name: str
) -> None:
    other = tmp_path / "other" / name
    for path in (copy / name, other):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    with pytest.raises(InputError, match=f"holds {name}, which edgenet did not write"):
        hand_over(tiny_files["int8"], copy)
    with pytest.raises(InputError, match="not empty and no earlier hand-over"):
        hand_over(tiny_files["int8"], tmp_path / "other")
    with pytest.raises(InputError, match="is a file"):
        hand_over(tiny_files["int8"], other)
    assert other.read_text() == (copy / name).read_text() == "mine"


def test_what_fails_on_the_way_leaves_the_earlier_hand_over(
    copy: Path, tiny_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    before = tree(copy)
    monkeypatch.setattr(write, "_write_golden", full)
    with pytest.raises(InputError, match="No space left on device"):
        hand_over(tiny_files["float32"], copy)
    assert tree(copy) == before
    assert [p.name for p in copy.parent.iterdir()] == ["copy"]


def test_a_file_that_crashes_is_an_error_and_nothing_is_written(
    tiny_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*args: object, **options: object) -> None:
        raise DeviceError("its process was killed by SIGSEGV")

    monkeypatch.setattr("edgenet.device_bench.worker.Worker", crash)
    with pytest.raises(DeviceError, match="SIGSEGV"):
        hand_over(tiny_files["int8"], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_tflite_classifier_is_refused_with_a_reason(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    cases = {"net.onnx": b"\x08\x07", "net.xml": b"<net/>", "net.tflite": b"garbage" * 9}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    for name, says in (
        ("net.onnx", "--format tflite"),
        ("net.xml", "--format tflite"),
        ("net.tflite", "not a .tflite"),
    ):
        with pytest.raises(InputError, match=says):
            hand_over(tmp_path / name, tmp_path / "out")
    with pytest.raises(InputError, match="no file"):
        hand_over(tmp_path / "gone.tflite", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"inputs": (TensorInfo("x", (4, 20, 20, 3), "float32"),)}, "one picture of a fixed size, RGB or grey"),
        ({"inputs": (TensorInfo("x", (1, 20, 30, 2), "float32"),)}, "one picture of a fixed size, RGB or grey"),
        ({"inputs": (TensorInfo("x", (1, -1, -1, 3), "float32"),)}, "one picture of a fixed size, RGB or grey"),
        ({"inputs": (TensorInfo("x", (1, 20, 20, 3), "int16"),)}, "x is int16"),
        ({"inputs": ()}, "0 inputs"),
        ({"outputs": (TensorInfo("y", (1, 7, 7, 5), "float32"),)}, "one score for each class"),
        ({"outputs": (TensorInfo("y", (1, 6), "float32"),)}, "5 labels for 6 classes"),
        ({"edgenet": None, "metadata": {}}, "does not say how its input is normalised"),
        (
            {"edgenet": None, "inputs": (TensorInfo("x", (1, 20, 20, 3), "uint8", 0.1, 0),)},
            "not the pixel itself",
        ),
    ],
)
def test_a_file_that_does_not_say_enough_is_refused(
    tiny_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], says: str
) -> None:
    real = deployed.inspect(tiny_files["int8"])
    monkeypatch.setattr(deployed, "inspect", lambda path: replace(real, **change))
    with pytest.raises(InputError, match=says):
        read_deployed(tiny_files["int8"])


def test_a_file_of_another_tool_goes_by_its_metadata(
    tiny_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = deployed.inspect(tiny_files["float32"])
    monkeypatch.setattr(deployed, "inspect", lambda path: replace(real, edgenet=None))
    model = read_deployed(tiny_files["float32"])
    assert model.assumed
    assert (model.preprocessing.mean, model.preprocessing.crop_padding_px) == ((127.0,) * 3, 0)
    text = templates.readme(model, N_CASES, (), ())
    assert "bilinear are assumed" in " ".join(text.split())


# ----------------------------------------------------------------------------------------------------- the command line


@pytest.mark.slow
@needs_mediapipe
def test_the_command_line_writes_replays_and_fails_by_its_exit_status(
    edgenet: Edgenet, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "over"
    done = edgenet("handoff", tiny_files["float32"], "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert "README.md" in done.stdout
    done = edgenet("handoff", "--verify", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["ok", "files:"], ["ok", "inputs:"], ["ok", "LiteRT:"], ["ok", "MediaPipe:"],
    ]  # fmt: skip
    golden_scores(out, {})
    done = edgenet("handoff", "--verify", out, "--json")
    assert done.returncode == 1
    assert {c["what"]: c["ok"] for c in json.loads(done.stdout)} == {
        "files": False, "inputs": True, "LiteRT": False, "MediaPipe": False,
    }  # fmt: skip
    assert done.stderr.startswith("edgenet: the hand-over")


@pytest.mark.parametrize(
    "args", [(), ("x.tflite",), ("--out", "d"), ("x.tflite", "--verify", "d"), ("--verify", "nowhere")]
)
def test_wrong_arguments_end_with_status_2_and_one_line(
    edgenet: Edgenet, args: tuple[str, ...], tmp_path: Path
) -> None:
    done = edgenet("handoff", *args, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1


# --------------------------------------------------------------------------------------------------------- real weights


@pytest.fixture(scope="session")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Lite0 with its weights: float32, int8 and int8 with uint8 input and output."""
    try:
        network = find_source("efficientnet-lite0").network()
    except MissingDependency as e:
        pytest.skip(str(e))
    images = limit(open_images("sample", network.class_ids, network.class_names), 20)
    shared = SharedCalibration(network, load_pixels(images, network.preprocessing), "", Recipe(corrections=()))
    files = {}
    for name, precision, io in (
        ("float32", "float32", "float32"),
        ("int8", "int8", "float32"),
        ("uint8", "int8", "uint8"),
    ):
        out = tmp_path_factory.mktemp(name)
        a = export_graph(network, shared.quantized(precision), out, format="tflite", precision=precision, io=io)
        files[name] = out / a.path
    return files


@pytest.mark.slow
@needs_mediapipe
@pytest.mark.parametrize("name", ["float32", "int8", "uint8"])
def test_lite0_holds_through_litert_and_mediapipe(lite0: dict[str, Path], tmp_path: Path, name: str) -> None:
    hand_over(lite0[name], tmp_path / "out")
    checks = verify(tmp_path / "out")
    assert [c.ok for c in checks] == [True] * 4, [asdict(c) for c in checks]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["float32", "int8"])
def test_the_tolerance_is_wider_than_kernels_differ_and_narrower_than_a_wrong_input(
    lite0: dict[str, Path], tmp_path: Path, name: str
) -> None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    hand_over(lite0[name], tmp_path / "out")
    golden = read_golden(tmp_path / "out", read_deployed(lite0[name]))

    def scores(inputs: np.ndarray, kernels: OpResolverType) -> np.ndarray:
        interpreter = Interpreter(str(lite0[name]), num_threads=1, experimental_op_resolver_type=kernels)
        interpreter.allocate_tensors()
        out = []
        for x in inputs:
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x[None])
            interpreter.invoke()
            out.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
        return np.stack(out)

    assert golden.tolerance == TOLERANCE["float" if name == "float32" else "integer"]
    other = scores(golden.inputs, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    assert np.abs(other - golden.scores).max() < golden.tolerance
    compare(other, golden)
    for wrong in (golden.inputs[..., ::-1], golden.inputs * 128 + 127, (golden.inputs + 1) / 2):  # BGR, 0..255, 0..1
        with pytest.raises(InputError, match="photographs differ"):
            compare(scores(np.ascontiguousarray(wrong), OpResolverType.BUILTIN), golden)
