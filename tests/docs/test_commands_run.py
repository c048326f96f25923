"""What the README and docs/ tell a reader to type works: each `edgenet` line is run here, or by a test that is named.

A line is taken as it stands; only its model becomes the tiny network, its folder of photographs tiny ones, and minutes
become a second. Each runs in a folder that has what the page has made up to there.
"""

import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgenet.results import Results
from helpers import tiny
from helpers.command_line import Edgenet
from helpers.places import ROOT, TESTS

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

# What is run by another test, with its own photographs, phones, boards, chips, servers or trainings.
ELSEWHERE = {
    r"\b(qat|finetune) ": "jobs/test_training_commands.py",
    r"-finetuned|OUT8": "jobs/test_finetune.py",
    r"^paper ": "jobs/test_paper.py",
    r"^scale --device micro": "jobs/test_scale_memory.py",
    r"^scale ": "jobs/test_scale.py",
    r"adb:SERIAL": "device_bench/adb/test_device.py",
    r"ssh:pi@": "device_bench/ssh/test_device.py",
    r"prepare rknn": "device_bench/rknn/test_environment.py",
    r"rknn:": "device_bench/rknn/test_device.py",
    r"^handoff .*(qnn|litert-npu):": "handoff/test_npu.py",
    r"(qnn|litert-npu):": "device_bench/qnn/test_device.py",
    r"FIRMWARE": "handoff/test_micro.py",
    r"device edgetpu": "device_bench/edgetpu/test_device.py",
    r"device ethos-u": "device_bench/test_ethos_u.py",
    r"--device micro": "device_bench/micro/test_device.py",
    r"^publish .*mlflow": "publish/test_mlflow.py",
    r"^publish ": "publish/test_publish.py",
    r"tags\.onnx": "test_every_kind.py",
    r"--keep ": "jobs/test_keep.py",
    r"efficientnet-b0": "models/test_ports.py",  # with real weights
    r"(my_model|cats_dogs|backbone|two_heads)\.keras": "export/importers/test_kinds.py",
    r"--publish": "device_bench/test_steadiness.py",
    r"recipe\.toml": "jobs/test_recipe_file.py",
    r"--cluster": "farm/test_cluster.py",
    r"--dry-run": "dry_run/test_dry_run.py",
    r"^init ": "jobs/test_recipe_file.py",
}
FILES = {"FILE": "OUT/tiny_int8.tflite", "FILE.tflite": "OUT/tiny_int8.tflite", "OLD": "shipped", "NEW": "OUT"}
PHOTOS = {"DIR", "photos/", "photos", "imagenet-mini", "sample"}


@dataclass(frozen=True)
class Line:
    """A command of a page. `words` are what a shell would make of it."""

    page: str
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)[1:]

    @property
    def elsewhere(self) -> str:
        said = self.text.removeprefix("edgenet ")
        return next((test for pattern, test in ELSEWHERE.items() if re.search(pattern, said)), "")


def lines() -> Iterator[Line]:
    for path in PAGES:
        text = re.sub(r" *\\\n +", " ", path.read_text(encoding="utf-8"))
        for line in re.findall(r"^(?:    )?(?:\.venv/bin/)?(edgenet [a-z]+\b.*)$", text, re.MULTILINE):
            command = re.split(r"\s{3,}(?!#)", line)[0]  # what stands behind it is for the reader
            if re.match(r"edgenet (\w+ \| )+", command):
                yield from (Line(path.name, f"edgenet {word}") for word in command.split()[1:] if word != "|")
            elif not re.match(r"edgenet (is|takes|turns|finetune` |wrote)\b", command):  # a sentence
                yield Line(path.name, command)


LINES = list({line.text: line for line in lines()}.values())


@pytest.fixture(scope="module")
def world(edgenet: Edgenet, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what pages refer to: photographs, a run of all formats, an older one, models and names."""
    root = tmp_path_factory.mktemp("world")
    shutil.copytree(tiny_folder, root / "photos")
    asked = ("tiny", "--images", "photos", "--calibration-images", 10, "--out", "OUT")
    for more in (("--format", "all"), ("--precision", "int8", "--io", "uint8")):
        done = edgenet("run", *asked, *more, cwd=root)
        assert done.returncode == 0, done.stderr
    shutil.copytree(root / "OUT", root / "shipped")
    shutil.copytree(root / "OUT", root / "runs" / "first")
    done = edgenet("history", "runs/history.db", "--add", "OUT", cwd=root)
    assert done.returncode == 0, done.stderr
    shutil.copy(root / "runs/history.db", root / "runs.db")
    for name in ("my", "resnet18", "model"):
        _own_onnx(root / f"{name}.onnx", root)
    _own_keras(root)
    for name in ("labels", "names"):
        (root / f"{name}.txt").write_text("".join(f"class_{i}\n" for i in range(tiny.CLASSES)))
    done = edgenet("handoff", "OUT/tiny_int8.tflite", "--out", "HANDOVER", cwd=root)
    assert done.returncode == 0, done.stderr
    return root


def _own_onnx(to: Path, root: Path) -> None:
    """Keep the tiny network as another tool would have written it: without what edgenet writes into a file."""
    import onnx

    model = onnx.load(root / "OUT" / "tiny_float32.onnx")
    del model.metadata_props[:]
    onnx.save(model, to)


def _own_keras(root: Path) -> None:
    """Write Keras networks: my.keras takes what `tf` says, flowers.keras pixels, as it begins with Rescaling."""
    import keras

    layers = [keras.layers.Conv2D(8, 3, strides=2, activation="relu"), keras.layers.GlobalAveragePooling2D(),
              keras.layers.Dense(tiny.CLASSES, activation="softmax")]  # fmt: skip
    for name, first in (("my", []), ("flowers", [keras.layers.Rescaling(1 / 255)])):
        keras.Sequential([keras.Input((tiny.PX, tiny.PX, 3)), *first, *layers]).save(root / f"{name}.keras")


def typed(line: Line, folder: Path) -> list[str]:
    """Return the words of a line for `folder`, where new things get names that are not taken yet."""
    out: list[str] = []
    for word in line.words:
        last = out[-1] if out else ""
        if last == "--out":
            word = "NEW-" + word.strip("/").replace("/", "-") if (folder / word).exists() else word
            if line.words[0] in ("bench", "explain"):  # draws into a run that is there
                word = "OUT"
        elif word in FILES:
            word = FILES[word]
        elif last == "--images" and word in PHOTOS:
            word = "photos"
        word = {"efficientnet-lite0": "tiny", "MODEL": "tiny", "10m": "1s"}.get(word, word)
        word = word.replace("efficientnet-lite0_", "tiny_").replace("OUT/model.tflite", "OUT/tiny_float32.tflite")
        word = word.replace("OUT/model_", "OUT/tiny_")
        if "*" in word and not last.startswith(("--file", "--keep")):
            there = (p for p in folder.glob(word.rstrip("/")) if p.is_dir() or not word.endswith("/"))
            found = sorted(str(p.relative_to(folder)) for p in there)
            assert found, word
            out += found
        else:
            out.append(word)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("line", [x for x in LINES if not x.elsewhere], ids=lambda x: f"{x.page}: {x.text[:90]}")
def test_what_a_page_tells_to_type_ends_well(line: Line, world: Path, edgenet: Edgenet, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    shutil.copytree(world, folder)
    command = typed(line, folder)
    done = edgenet(*command, cwd=folder)
    assert done.returncode == 0, f"edgenet {shlex.join(command)}: {done.stderr}"
    if "--out" in command and command[0] in ("run", "export"):
        assert Results.load(folder / command[command.index("--out") + 1]).artifacts


def test_a_line_that_is_not_run_here_is_run_by_the_test_that_is_named_and_no_name_is_left_over() -> None:
    named = {line.elsewhere for line in LINES if line.elsewhere}
    assert named == set(ELSEWHERE.values())
    for name in named:
        assert (TESTS / name).is_file(), name


def test_most_commands_have_a_line_that_is_run_here() -> None:
    run = {line.words[0] for line in LINES if not line.elsewhere}
    assert run >= {"run", "export", "evaluate", "bench", "compare", "history", "inspect", "handoff", "report", "models"}
    assert run >= {"classes", "devices", "doctor"}
