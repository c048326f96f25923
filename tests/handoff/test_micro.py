"""The hand-over for a microcontroller: arrays that are the model's bytes, C++ that compiles, scores that come again."""

import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgenet.calibration import quantize
from edgenet.errors import InputError, MissingDependency
from edgenet.export import Network, export_graph
from edgenet.export.inspect.tflite import operator_outputs
from edgenet.files import sha256_of
from edgenet.handoff import MANIFEST, micro
from edgenet.handoff.devices import hand_over_for, verify_folder
from edgenet.results import Calibration
from helpers import firmware
from helpers.command_line import Edgenet

pytestmark = pytest.mark.skipif(importlib.util.find_spec("tflite_micro") is None, reason="needs edgenet[micro]")
needs_compiler = pytest.mark.skipif(firmware.COMPILER is None, reason="needs g++")


@pytest.fixture(scope="session")
def handed(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, Path]]:
    """io -> the tiny int8 file with that input and output, and its hand-over. Copy it before changing it."""
    made: dict[str, tuple[Path, Path]] = {}

    def hand(io: str) -> tuple[Path, Path]:
        if io not in made:
            out = tmp_path_factory.mktemp("micro")
            int8 = quantize(tiny_network.graph, "int8", tiny_calibration)
            a = export_graph(tiny_network, int8, out, format="tflite", precision="int8", io=io)
            hand_over_for(("micro",), out / a.path, out / "over")
            made[io] = out / a.path, out / "over"
        return made[io]

    return hand


def said_by(folder: Path) -> list[tuple[str, bool | None]]:
    return [(c.what, c.ok) for c in verify_folder(folder)]


def test_the_array_is_the_model_and_the_manifest_names_every_file(handed: Callable[[str], tuple[Path, Path]]) -> None:
    path, over = handed("int8")
    numbers = re.search(r"\{\n([\d,\s]+)\}", (over / "model_data.cc").read_text())
    assert numbers is not None
    assert bytes(map(int, numbers[1].split(","))) == path.read_bytes()
    manifest = json.loads((over / MANIFEST).read_text())
    assert manifest["device"] == "micro"
    assert manifest["model"]["sha256"] == sha256_of(path)
    assert manifest["files"] == {p.name: sha256_of(p) for p in over.iterdir() if p.name != MANIFEST}


def test_each_kind_of_operator_is_registered_once(handed: Callable[[str], tuple[Path, Path]]) -> None:
    path, over = handed("float32")
    kinds = list(dict.fromkeys(kind for kind, _ in operator_outputs(path)))
    added = re.findall(r"resolver\.Add(\w+)\(\)", (over / "main.cc").read_text())
    assert added == [micro.spelt(kind) for kind in kinds]
    assert {"Quantize", "Conv2D", "DepthwiseConv2D", "Dequantize", "Softmax"} <= set(added)
    assert f"MicroMutableOpResolver<{len(kinds)}>" in (over / "main.cc").read_text()


@pytest.mark.parametrize(
    ("kind", "spelt"),
    [("CONV_2D", "Conv2D"), ("MAX_POOL_2D", "MaxPool2D"), ("L2_POOL_2D", "L2Pool2D"), ("RELU6", "Relu6"),
     ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighbor"), ("SPACE_TO_BATCH_ND", "SpaceToBatchNd"),
     ("SPLIT_V", "SplitV"), ("PADV2", "PadV2"), ("CUMSUM", "CumSum"), ("BATCH_MATMUL", "BatchMatMul")],
)  # fmt: skip
def test_operators_are_spelt_as_the_resolver_spells_them(kind: str, spelt: str) -> None:
    assert micro.spelt(kind) == spelt


@needs_compiler
@pytest.mark.parametrize("io", ["int8", "float32"])
def test_the_code_compiles_and_one_score_that_differs_fails(
    handed: Callable[[str], tuple[Path, Path]], io: str, tmp_path: Path
) -> None:
    _, over = handed(io)
    operators = json.loads((over / MANIFEST).read_text())["model"]["operators"]
    done = firmware.run(firmware.built(over, operators, tmp_path / "good"))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "PASS"), done.stdout
    assert done.stdout.count("0 of 5 scores differ") == micro.N_CASES
    done = firmware.run(firmware.built(over, operators, tmp_path / "bad", "-DSPOILT"))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "FAIL")


@pytest.mark.parametrize("io", ["int8", "float32"])
def test_a_hand_over_verifies_itself(handed: Callable[[str], tuple[Path, Path]], io: str) -> None:
    _, over = handed(io)
    assert said_by(over) == [("model", True), ("tflite-micro", True)]


@pytest.mark.parametrize(
    ("name", "damage", "found"),
    [
        ("model_data.cc", lambda t: t.replace("28, ", "29, ", 1), [("model", False)]),
        ("golden_data.cc", lambda t: re.sub(r"(kGoldenOutputs.*\n\{\n)-?\d+", r"\g<1>7", t), [("tflite-micro", False)]),
        ("golden_data.cc", lambda t: t[: len(t) // 2], [("golden", False)]),
    ],
)
def test_an_array_that_was_changed_fails_the_test(
    handed: Callable[[str], tuple[Path, Path]],
    name: str,
    damage: Callable[[str], str],
    found: list[tuple[str, bool]],
    tmp_path: Path,
) -> None:
    copy = Path(shutil.copytree(handed("int8")[1], tmp_path / "copy"))
    text = (copy / name).read_text()
    assert damage(text) != text
    (copy / name).write_text(damage(text))
    assert [c for c in said_by(copy) if not c[1]] == found


def test_a_file_that_does_not_run_there_is_refused_with_the_reason(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not run on a microcontroller: \d+ DEQUANTIZE"):
        hand_over_for(("micro",), tiny_files["float16"], tmp_path / "over")
    assert not (tmp_path / "over").exists()


def test_a_device_without_a_hand_over_lists_the_valid_ones(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no hand-over for 'abacus' \(valid: micro"):
        hand_over_for(("abacus",), tiny_files["int8"], tmp_path / "over")


def test_without_tflite_micro_the_extra_is_named(
    tiny_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(micro.tflite_micro, "version", lambda: None)
    with pytest.raises(MissingDependency, match=r"edgenet\[micro\]"):
        hand_over_for(("micro",), tiny_files["int8"], tmp_path / "over")


@pytest.mark.parametrize("value", [0.1, 1e-8, 3.0, -2.5, 1 / 3, 1e20, 0.0])
def test_a_literal_reads_as_the_same_float(value: float) -> None:
    text = micro._literal(value)
    assert text.endswith("f")
    assert set(".e") & set(text)
    assert np.float32(text[:-1]) == np.float32(value)


def test_the_command_line_writes_the_same_bytes_for_the_same_file_and_verifies_them(
    edgenet: Edgenet, handed: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    path, over = handed("int8")
    done = edgenet("handoff", path, "--device", "micro", "--out", tmp_path / "over")
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / "over" / p.name).read_bytes() == p.read_bytes() for p in over.iterdir())
    done = edgenet("handoff", "--verify", tmp_path / "over")
    assert done.returncode == 0, done.stderr
    assert "scores differ by at most 0" in done.stdout
