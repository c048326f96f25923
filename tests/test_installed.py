"""The wheel, as a user installs it: alone each command says which extra it lacks; with two INT8 needs no TensorFlow."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from edgenet.cli import main
from edgenet.images import sample
from helpers.command_line import Done
from helpers.environments import build_wheel, environment
from helpers.hand_built import some_results

pytestmark = pytest.mark.slow

# What a command says in an environment with edgenet alone: the extras of its one line; "" where it does its work.
# A file that is there is one of a network that the tests made.
ALONE = {
    "run efficientnet-lite0 --images PHOTOS --out OUT": "tflite,weights",
    "run efficientnet-lite0 --images sample --out OUT": "tflite,weights,sample",
    "run efficientnet-lite0 --images tfds:beans --out OUT": "weights,tfds",
    "run efficientnet-lite0 --format all --images PHOTOS --out OUT": "tflite,onnx,openvino,weights",
    "run FILE --images PHOTOS --out OUT": "tflite",
    "export efficientnet-lite0 --precision int8 --images PHOTOS --out OUT": "tflite,weights",
    "qat efficientnet-lite0 --images PHOTOS --out OUT": "weights,qat",
    "finetune efficientnet-lite0 --images PHOTOS --out OUT": "weights,export",
    "scale --device local --budget 30ms --out OUT": "tflite",
    "paper --out OUT --quick": "export,openvino,onnx,sample",
    "evaluate FILE --images PHOTOS": "tflite",
    "bench FILE": "tflite",
    "bench FILE --device micro": "micro",
    "bench FILE --device ethos-u:ethos-u55-128": "ethos-u",
    "inspect FILE": "tflite",
    "handoff FILE --out OUT": "tflite",
    "publish RUN --mlflow http://127.0.0.1:9": "mlflow",
    "report RUN": "",
    "compare RUN RUN": "",
    "history runs.db --add RUN": "",
    "cache": "",
    "init recipe.toml": "",
    "models": "",
    "classes cat": "",
    "devices": "",
    "doctor": "",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("alone") / "venv", wheel)


def run(program: Path, folder: Path, *args: object) -> Done:
    command = [str(program), *map(str, args)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("command", ALONE)
def test_without_its_packages_a_command_says_in_one_line_which_extra_has_them(
    command: str, alone: Path, tiny_folder: Path, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    some_results().save(tmp_path / "RUN")
    places = {"PHOTOS": tiny_folder, "FILE": tiny_files["float32"], "RUN": tmp_path / "RUN"}
    done = run(alone, tmp_path, *(places.get(word, word) for word in command.split()))
    if not ALONE[command]:
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout
        return
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    asked = re.search(r"pip install 'edgenet\[([\w,-]+)\]'", done.stderr)
    assert asked, done.stderr
    assert asked[1] == ALONE[command]
    assert "not installed" in done.stderr
    assert not (tmp_path / "OUT").exists()


def test_no_command_is_left_out() -> None:
    assert {command.split()[0] for command in ALONE} == set(main.commands)


def test_a_zoo_model_becomes_int8_and_is_measured_where_tensorflow_is_not_installed(
    wheel: Path, tmp_path: Path
) -> None:
    """docs/weights.md and the README say so."""
    edgenet = environment(tmp_path / "venv", wheel, ("weights", "tflite"))
    python = edgenet.with_name("python")
    for module in ("tensorflow", "tf_keras", "keras", "onnx"):
        assert "ModuleNotFoundError" in run(python, tmp_path, "-I", "-c", f"import {module}").stderr
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, name in enumerate(sample.names()[::4]):
        sample.crop(name).save(photos / f"{i}.jpg")
    asked = ("--images", photos, "--precision", "float32", "--precision", "int8", "--calibration-images", 10)
    done = run(edgenet, tmp_path, "run", "efficientnet-lite0", *asked, "--out", "OUT", "--json")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    sizes = {a["precision"]: a["size_bytes"] for a in results["artifacts"]}
    assert sizes["int8"] < sizes["float32"] / 3
    agreement = next(e["agreement"] for e in results["evaluations"] if "_int8" in e["artifact"])
    assert agreement > 0.7  # of 14 pictures
    assert {a["id"] for a in results["artifacts"]} == {m["artifact"] for m in results["measurements"]}
