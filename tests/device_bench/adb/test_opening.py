"""device_bench/adb: phones are listed and opened, and what names none or cannot be done on one is refused."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from edgenet.device_bench.adb import device as adb
from edgenet.device_bench.adb import link
from edgenet.device_bench.adb.benchmark_binary import ENV
from edgenet.device_bench.adb.link import Listed, parse_devices, run_adb
from edgenet.device_bench.device import Request
from edgenet.device_bench.registry import check_present
from edgenet.errors import DeviceError, InputError, MissingDependency
from helpers.phones import QUICK, Connect, bench, needs_adb, only
from helpers.phones import connect as connect
from helpers.phones import server as server
from helpers.phones import tool as tool

pytestmark = needs_adb


def test_phones_are_listed_with_what_they_are(connect: Connect) -> None:
    phone, locked = connect(), connect(authorized=False)
    found = {d["id"]: d for d in adb.find()}
    d = found[f"adb:{phone.address}"]
    assert (d["kind"], d["name"], d["state"]) == ("adb", "Edgenet Test Phone", "device")
    assert (d["abi"], d["soc"], d["os"]) == ("arm64-v8a", "SM-TEST", "Android 14")
    assert d["runtimes"]["litert"].startswith("benchmark_model ")
    assert found[f"adb:{locked.address}"]["state"] == "unauthorized"
    with adb.open_device(phone.address) as device:
        assert (device.id, device.kind, device.info()["battery_percent"]) == (f"adb:{phone.address}", "adb", 87)


def test_a_phone_is_asked_whether_it_is_there_and_lets_this_computer_in(connect: Connect) -> None:
    phone, locked = connect(), connect(authorized=False)
    check_present(f"adb:{phone.address}")
    with pytest.raises(DeviceError, match=rf"adb:{locked.address}: .*unauthorized.*: unlock the phone and allow USB"):
        check_present(f"adb:{locked.address}")
    with pytest.raises(DeviceError, match=r"adb:nobody: .*not found: plug the phone in"):
        check_present("adb:nobody")


def test_what_adb_lists_is_read() -> None:
    text = """* daemon not running; starting now at tcp:5037
* daemon started successfully
List of devices attached
R58M123               device usb:1-4 product:beyond1 model:SM_G973F device:beyond1 transport_id:2
R58M123               device usb:1-5 product:beyond1 model:SM_G973F device:beyond1 transport_id:3
emulator-5554         offline transport_id:4
0123456789ABCDEF      no permissions (missing udev rules? is your user in the plugdev group); see [http://x] usb:1-2
192.168.1.7:5555      unauthorized transport_id:5

"""
    assert parse_devices(text) == [
        Listed("R58M123", "device", "SM G973F"),
        Listed("R58M123", "device", "SM G973F"),
        Listed("emulator-5554", "offline", ""),
        Listed("0123456789ABCDEF", "no permissions", ""),
        Listed("192.168.1.7:5555", "unauthorized", ""),
    ]
    assert parse_devices("") == parse_devices("garbage\nR58 device") == []


def test_two_phones_of_one_serial_are_listed_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = link.Reply(0, "List of devices attached\nX   device model:A\nX   device model:A\n", "")
    monkeypatch.setattr(adb, "run_adb", lambda *a, **k: reply)
    assert [d["state"] for d in adb.find()] == ["several of one serial"] * 2


def test_without_adb_there_are_no_phones_and_opening_one_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert adb.find() == []
    with pytest.raises(MissingDependency, match=r"an Android phone needs adb, .*: apt-get install adb"):
        adb.open_device("X")


def test_an_adb_that_hangs_or_fails_lists_nothing_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb, "_FIND_TIMEOUT_S", 0.3)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program = tmp_path / "adb"
    for body in ("exec sleep 30", "echo 'cannot bind'; exit 1"):
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        start = time.monotonic()
        assert adb.find() == []
        assert time.monotonic() - start < 15
    program.write_text("not a program")
    with pytest.raises(DeviceError, match="cannot start"):
        run_adb("devices")


@pytest.mark.parametrize("address", ["", "a b", "a\nb", "\x1b[31m"])
def test_what_is_no_serial_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="names no phone"):
        adb.open_device(address)


def test_a_serial_that_looks_like_an_option_is_only_a_serial(tiny_files: dict[str, Path]) -> None:
    for serial in ("-s", "$(id)", "--help", ";id"):
        _, failures = bench(serial, {"a": tiny_files["float32"]})
        assert f"device '{serial}' not found" in only(failures).why


def test_without_a_tool_the_request_is_refused(
    connect: Connect, tiny_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENV)
    with pytest.raises(InputError, match=f"no benchmark_model: .*set {ENV}"):
        bench(connect(), {"a": tiny_files["float32"]})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"runtime": "openvino"}, r"not openvino \(valid: litert\)"),
        ({"delegate": "dsp"}, r"no delegate 'dsp' \(valid: cpu, gpu, nnapi, npu\)"),
        ({"threads": 0}, "threads must be at least 1"),
    ],
)
def test_what_a_phone_cannot_do_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        bench("nobody", {"a": Path("a.tflite")}, Request(**change))
    with pytest.raises(InputError, match="two artifacts have the id 'a'"), adb.open_device("nobody") as device:
        device.bench([("a", Path("x")), ("a", Path("y"))], QUICK)
