"""device_bench/registry.py: how a device is written, which are there, and what is said of one that is not."""

import pytest

from edgenet.cli_output import print_devices
from edgenet.device_bench import list_devices, open_device, registry
from edgenet.device_bench.registry import KINDS, Kind
from edgenet.errors import DeviceError, InputError


def test_this_machine_is_a_device_with_its_runtimes():
    (local,) = (d for d in list_devices() if d["kind"] == "local")
    assert local["id"] == "local"
    assert local["name"]
    assert set(local["runtimes"]) == {"litert", "onnxruntime", "openvino"}
    with open_device("local") as device:
        assert (device.id, device.kind) == ("local", "local")
        assert device.info()["cores"] >= 1


def test_what_openvino_finds_beside_the_cpu_is_said(monkeypatch, capsys):
    (local,) = (d for d in list_devices() if d["kind"] == "local")
    assert "cpu" in local["openvino"]
    monkeypatch.setattr("edgenet.device_bench.local._openvino_devices", lambda: ["cpu", "gpu", "npu"])
    print_devices(list_devices())
    assert "(--delegate gpu or npu)" in " ".join(capsys.readouterr().out.split())


def test_a_kind_whose_module_is_not_there_is_neither_listed_nor_opened(monkeypatch):
    monkeypatch.setitem(KINDS, "abacus", Kind("edgenet.device_bench.abacus", "BEADS"))
    monkeypatch.setattr("edgenet.device_bench.local._openvino_devices", lambda: ["cpu"])  # it would start a process
    assert "abacus:BEADS" not in registry.forms()
    with pytest.raises(InputError, match="unknown device 'abacus:7' \\(valid: local"):
        open_device("abacus:7")
    assert all(d["kind"] != "abacus" for d in list_devices())


@pytest.mark.parametrize(
    ("id", "said"),
    [
        ("", "unknown device ''"),
        ("adbb:1", "unknown device 'adbb:1' \\(valid: local"),
        ("phone", "lacks its SERIAL: write phone:SERIAL"),
        ("phone:", "lacks its SERIAL"),
        ("local:0", "takes no address: write local"),
        ("local:", "takes no address"),
    ],
)
def test_a_device_that_is_written_wrongly_is_refused_with_the_valid_forms(id, said, monkeypatch):
    monkeypatch.setitem(KINDS, "phone", Kind("edgenet.device_bench.local", "SERIAL"))
    with pytest.raises(InputError, match=said):
        registry.parse(id)


def test_what_follows_the_first_colon_is_the_address(monkeypatch):
    monkeypatch.setitem(KINDS, "phone", Kind("edgenet.device_bench.local", "SERIAL"))
    assert registry.parse("phone:192.168.1.2:5555") == ("phone", "192.168.1.2:5555")
    assert registry.parse("local") == ("local", "")


def test_a_kind_that_cannot_be_asked_is_listed_with_the_reason(monkeypatch):
    def fail():
        raise DeviceError("adb does not answer: start it")

    monkeypatch.setattr("edgenet.device_bench.local.find", fail)
    found = next(d for d in list_devices() if d["kind"] == "local")
    assert found["problem"] == "adb does not answer: start it"
    assert found["runtimes"] == {}
