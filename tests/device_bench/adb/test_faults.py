"""device_bench/adb: what goes wrong with a phone, its tool or a file is a failure, and the others go on."""

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet.device_bench.adb import bench as adb_bench
from edgenet.device_bench.adb.link import run_adb
from edgenet.device_bench.device import Request
from edgenet.device_bench.timing import Plan
from edgenet.files import sha256_of
from helpers import adb_device
from helpers.adb_device import Phone
from helpers.phones import Connect, bench, needs_adb, only
from helpers.phones import connect as connect
from helpers.phones import server as server
from helpers.phones import tool as tool

pytestmark = needs_adb


def test_an_unauthorized_phone_is_a_failure_for_each_file(connect: Connect, tiny_files: dict[str, Path]) -> None:
    phone = connect(authorized=False)
    ms, failures = bench(phone, {"a": tiny_files["float32"], "b": tiny_files["int8"]})
    assert ms == []
    assert [f.artifact for f in failures] == ["a", "b"]
    assert "device unauthorized" in failures[0].why
    assert "allow USB debugging" in failures[0].remedy


def test_an_offline_phone_is_a_failure(tmp_path: Path, tiny_files: dict[str, Path]) -> None:
    phone = Phone(tmp_path / "phone", silent=True)
    waiting = subprocess.Popen(["adb", "connect", phone.address], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while phone.address not in run_adb("devices").out:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        _, failures = bench(phone, {"a": tiny_files["float32"]})
    finally:
        waiting.kill()  # only the client: it would wait for ten seconds
        waiting.wait()
        phone.unplug()
        run_adb("disconnect", phone.address)
    assert "device offline" in only(failures).why
    assert "plug the phone in again" in failures[0].remedy


def test_a_phone_that_is_not_there_is_a_failure(tiny_files: dict[str, Path]) -> None:
    _, failures = bench("no-such-phone", {"a": tiny_files["float32"]})
    assert only(failures).why == "device 'no-such-phone' not found"
    assert "`edgenet devices` lists" in failures[0].remedy


def test_two_phones_of_one_serial_are_a_failure(connect: Connect, tiny_files: dict[str, Path]) -> None:
    connect(), connect()
    _, failures = bench("127.0.0.1", {"a": tiny_files["float32"]})  # the name of both: adb looks at the host alone
    assert "more than one device" in only(failures).why
    assert "unplug all but one" in failures[0].remedy


def test_a_phone_that_is_unplugged_in_a_push_fails_and_the_other_phone_goes_on(
    connect: Connect, tiny_files: dict[str, Path]
) -> None:
    broken, whole = connect(), connect()
    broken.unplug_after_bytes = 2000
    _, failures = bench(broken, {"a": tiny_files["float32"], "b": tiny_files["int8"]})
    assert [f.artifact for f in failures] == ["a", "b"]
    assert all("\n" not in f.why for f in failures)
    ms, failures = bench(whole, {"a": tiny_files["float32"]})
    assert (len(ms), failures) == (1, [])


def test_a_phone_that_is_unplugged_in_a_run_fails_and_what_was_whole_is_not_lost_elsewhere(
    connect: Connect, tiny_files: dict[str, Path]
) -> None:
    phone = connect()
    phone.unplug_at_run = 4  # two first calls, then the rounds
    ms, failures = bench(phone, {"a": tiny_files["float32"], "b": tiny_files["int8"]})
    assert ms == []
    assert {f.artifact for f in failures} == {"a", "b"}
    assert any("lost before the command ended" in f.why or "not found" in f.why or "offline" in f.why for f in failures)


def test_a_full_disk_is_a_failure_and_the_folder_is_removed(connect: Connect, tiny_files: dict[str, Path]) -> None:
    phone = connect()
    tool_bytes = len(adb_device.elf("arm64-v8a"))
    small, large = tiny_files["int8"], tiny_files["float32"]
    phone.disk_bytes = tool_bytes + small.stat().st_size
    ms, failures = bench(phone, {"a": large, "b": small})
    assert ms == []  # what is full stays full for the second file
    assert [f.artifact for f in failures] == ["a", "b"]
    assert "No space left on device" in failures[0].why
    assert "free space" in failures[0].remedy
    assert phone.folders == []


def test_a_tool_for_another_processor_is_refused_before_anything_is_pushed(
    connect: Connect, tool: Path, tiny_files: dict[str, Path]
) -> None:
    tool.write_bytes(adb_device.elf("x86_64"))
    phone = connect()
    _, failures = bench(phone, {"a": tiny_files["float32"]})
    assert "the phone runs arm64-v8a, armeabi-v7a, armeabi and" in only(failures).why
    assert "is for x86_64" in failures[0].why
    assert phone.pushes == []


def test_a_32_bit_tool_on_a_64_bit_phone_runs_and_is_said(
    connect: Connect, tool: Path, tiny_files: dict[str, Path]
) -> None:
    tool.write_bytes(adb_device.elf("armeabi-v7a"))
    (m,), failures = bench(connect(), {"a": tiny_files["float32"]})
    assert failures == []
    assert "a benchmark_model for armeabi-v7a ran on a phone whose first ABI is arm64-v8a" in [
        w.text for w in m.warnings
    ]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"cut": "INFO: Inference timings"}, "no summary at its end"),
        ({"cut": "count="}, "ends before the timed runs do"),
        ({"crash": "SIGSEGV"}, "was killed by SIGSEGV"),
        ({"crash": "SIGKILL"}, "(out of memory?)"),
    ],
)
def test_a_log_cut_short_or_a_crash_is_a_failure_and_the_other_file_goes_on(
    fault: dict[str, Any], says: str, connect: Connect, tiny_files: dict[str, Path]
) -> None:
    phone = connect()
    phone.tool |= {**fault, "only": sha256_of(tiny_files["float32"])[:8], "from_call": 2}
    phone.save()
    ms, failures = bench(phone, {"a": tiny_files["float32"], "b": tiny_files["int8"]})
    assert [m.artifact for m in ms] == ["b"]
    assert ms[0].n_runs == 2
    assert says in only(failures).why
    assert phone.folders == []


def test_a_tool_that_hangs_is_ended_on_the_phone_too(
    connect: Connect, tiny_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adb_bench, "_LOAD_S", -7.0)  # with ten seconds for the runs
    phone = connect()
    phone.tool["sleep_s"] = 60
    phone.save()
    start = time.monotonic()
    _, failures = bench(phone, {"a": tiny_files["float32"]})
    assert time.monotonic() - start < 40
    assert "no answer from adb in" in only(failures).why
    pid = int((phone.root / "killed").read_text())
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[1]
    assert phone.folders == []


def test_a_file_that_arrives_damaged_is_a_failure_though_its_size_is_right(
    connect: Connect, tiny_files: dict[str, Path]
) -> None:
    for missing in ((), ("sha256sum",)):  # by the phone's sha256sum, or by pulling it back
        phone = connect(missing=missing)
        phone.damage = True
        _, failures = bench(phone, {"a": tiny_files["float32"]})
        assert "arrived damaged on the phone (sha256 " in only(failures).why


def test_files_are_pushed_by_content_not_by_name_or_size(
    connect: Connect, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    one, two, three = (tmp_path / folder / "model.tflite" for folder in "abc")
    content = bytearray(tiny_files["float32"].read_bytes())
    for path in (one, two, three):
        path.parent.mkdir()
    one.write_bytes(content)
    three.write_bytes(content)
    at = content.index(np.float32(tiny_weight(tiny_files["float32"])).tobytes())
    content[at] ^= 1  # the last bit of one weight
    two.write_bytes(content)
    assert one.stat().st_size == two.stat().st_size
    phone = connect()
    ms, failures = bench(phone, {"a": one, "b": two, "c": three})
    assert failures == []
    pushed = [path.rsplit("/", 1)[1] for path, _ in phone.pushes]
    assert pushed[1:] == [sha256_of(one), sha256_of(two)]  # after the tool; the third is the first
    assert ms[0].artifact_sha256 == ms[2].artifact_sha256 != ms[1].artifact_sha256


def tiny_weight(path: Path) -> float:
    from helpers import tiny

    assert path.exists()
    return float(tiny.network().graph.tensors["stem_w"].data.ravel()[0])


HOSTILE = [
    "with space.tflite", "quote's \"double\".tflite", "$(touch pwned)`touch pwned`.tflite", "line\nbreak.tflite",
    "-rf.tflite", "; rm -rf *.tflite", "ümläut 模型.tflite", "--graph=x.tflite",
]  # fmt: skip


def test_hostile_file_names_never_reach_a_shell(
    connect: Connect, tiny_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models $(touch pwned) 'x'"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in HOSTILE:
        shutil.copyfile(tiny_files["float32"], folder / name)
    phone = connect()
    once = Request(plan=Plan(min_runs=1, min_time_s=0, rounds=1, max_rounds=1, warmup_s=0.1))
    ms, failures = bench(phone, {name: Path(name) for name in HOSTILE}, once)
    assert failures == []
    assert [m.artifact for m in ms] == HOSTILE
    said = "\n".join(phone.commands)
    assert not [word for word in ("pwned", "space", "rf.tflite", "ümläut") if word in said]
    assert not list(tmp_path.rglob("pwned"))
    (folder / "bad\nname.tflite").write_bytes(b"nothing")
    _, failures = bench(phone, {"x": Path("bad\nname.tflite")})
    assert only(failures, "x").remedy.startswith("give a .tflite file")


def test_a_file_that_is_no_model_or_not_there_is_a_failure_and_the_other_goes_on(
    connect: Connect, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "text.tflite").write_text("no model")
    (tmp_path / "model.onnx").write_bytes(b"")
    files = {
        "text": tmp_path / "text.tflite",
        "onnx": tmp_path / "model.onnx",
        "missing": tmp_path / "missing.tflite",
        "good": tiny_files["float32"],
    }
    ms, failures = bench(connect(), files)
    assert [m.artifact for m in ms] == ["good"]
    assert [f.artifact for f in failures] == ["text", "onnx", "missing"]
    assert "is not a .tflite file, which is what phones run" in failures[1].why


def test_the_folder_is_removed_after_an_error_and_after_ctrl_c(connect: Connect, tiny_files: dict[str, Path]) -> None:
    phone = connect()

    def stop(*_: object) -> None:
        assert phone.folders
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench(phone, {"a": tiny_files["float32"]}, progress=stop)
    assert phone.folders == []
