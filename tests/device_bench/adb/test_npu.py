"""device_bench/adb/npu.py: files compiled for the phone's chip, timed on its NPU, with proof of what runs there."""

from pathlib import Path

import pytest

from edgenet.calibration import quantize
from edgenet.device_bench.adb.npu import ENV, find_runtime, libraries
from edgenet.device_bench.device import Request
from edgenet.device_bench.qnn.chip import find_chip
from edgenet.errors import InputError
from edgenet.export import Network, export_graph
from edgenet.files import sha256_of
from edgenet.results import Calibration
from helpers.adb_device import Phone
from helpers.hexagon import needs_qnn
from helpers.phones import QUICK, Connect, bench, calls, needs_adb, only
from helpers.phones import connect as connect
from helpers.phones import server as server
from helpers.phones import tool as tool

pytestmark = needs_adb
NPU = Request(delegate="npu", plan=QUICK.plan)


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files that are called as Qualcomm's libraries are."""
    folder = tmp_path / "qnn"
    folder.mkdir()
    for name in libraries(find_chip("SM8750")):
        (folder / name).write_bytes(name.encode())
    monkeypatch.setenv(ENV, str(folder))
    return folder


@pytest.fixture
def galaxy(connect: Connect) -> Phone:
    """A phone with a Snapdragon, and LiteRT's benchmark_model for it."""
    phone = connect()
    props = (phone.root / "props").read_text().replace("ro.soc.model=SM-TEST", "ro.soc.model=SM8750")
    phone.file("props", props)
    phone.tool |= {"style": "litert", "delegates": {"npu": [1, 1]}}
    phone.save()
    return phone


@pytest.fixture(scope="module")
def int8(tiny_network: Network, tiny_calibration: Calibration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network in int8 with uint8 input and output."""
    out = tmp_path_factory.mktemp("npu")
    graph = quantize(tiny_network.graph, "int8", tiny_calibration)
    return out / export_graph(tiny_network, graph, out, format="tflite", precision="int8", io="uint8").path


@needs_qnn
def test_the_file_compiled_for_the_phones_chip_is_timed_on_its_npu(galaxy: Phone, int8: Path, runtime: Path) -> None:
    (m,), failures = bench(galaxy, {"a": int8}, NPU)
    assert failures == []
    assert (m.artifact, m.delegate, m.artifact_sha256) == ("a", "NPU", sha256_of(int8))
    assert (m.device_info["delegation"]["nodes"], m.device_info["delegation"]["total"]) == (1, 1)
    flags = [c["flags"] for c in calls(galaxy)]
    assert {f["use_npu"] for f in flags} == {"true"}
    assert all(f["dispatch_library_path"].endswith("/npu") for f in flags)
    assert all(sha256_of(int8) not in f["graph"] for f in flags)  # what is compiled, not what was given
    run = next(c for c in galaxy.commands if "--num_runs" in c)
    assert "LD_LIBRARY_PATH=" in run.split("taskset")[0]
    assert "ADSP_LIBRARY_PATH=" in run.split("taskset")[0]
    assert galaxy.folders == []


@needs_qnn
@pytest.mark.parametrize(
    "fault", [{"no_runtime": True}, {"delegates": {"npu": [0, 1]}}, {"unknown_flags": ["use_npu"]}]
)
def test_a_file_that_would_run_on_the_cpu_is_a_failure(
    fault: dict[str, object], galaxy: Phone, int8: Path, runtime: Path
) -> None:
    galaxy.tool |= fault
    galaxy.save()
    ms, failures = bench(galaxy, {"a": int8}, NPU)
    assert ms == []
    why = only(failures).why
    assert "the NPU delegate took no node of this file" in why
    assert ("LiteRT says: No runtime" in why) == ("no_runtime" in fault)


def test_a_phone_with_another_chip_is_refused(connect: Connect, int8: Path, runtime: Path) -> None:
    with pytest.raises(InputError, match="unknown Snapdragon 'SM-TEST'"):
        bench(connect(), {"a": int8}, NPU)


def test_without_the_runtime_it_is_said_what_is_needed_and_where_to_put_it(monkeypatch: pytest.MonkeyPatch) -> None:
    chip = find_chip("SM8750")
    with pytest.raises(InputError, match=rf"libQnnHtpV79Skel.so for arm64 into one folder and set {ENV}"):
        find_runtime(chip, {})


def test_a_runtime_for_another_chip_is_refused_with_what_it_lacks(runtime: Path) -> None:
    chip = find_chip("SM8650")
    with pytest.raises(InputError, match=r"which lacks libQnnHtpV75Stub.so, libQnnHtpV75Skel.so: the NPU of SM8650"):
        find_runtime(chip)
