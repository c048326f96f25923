"""handoff/devices.py: which hand-over is for which device."""

from pathlib import Path

import pytest

from edgenet.errors import InputError
from edgenet.handoff import devices
from edgenet.handoff.devices import hand_over_for


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (
            ("adb:X",),
            r"no hand-over for 'adb:X' \(valid: micro, rknn:CHIP, qnn:SOC; Android",
        ),
        (("micro", "qnn:SM8750"), "a hand-over for micro stands alone"),
        (("qnn:SM8750", "rknn:RK3588"), "a hand-over for rknn:RK3588 stands alone"),
        (("toaster",), "no hand-over for 'toaster'"),
        (("qnn",), "device 'qnn' lacks its SOC"),
    ],
)
def test_a_device_without_a_hand_over_of_its_own_is_refused(asked: tuple[str, ...], says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        hand_over_for(asked, tmp_path / "m.tflite", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_each_device_has_its_own_hand_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    called: list[tuple[str, object]] = []
    monkeypatch.setitem(devices.ALONE, "micro", lambda path, out, device: called.append(("micro", device)))
    monkeypatch.setitem(devices.ALONE, "rknn", lambda path, out, device: called.append(("rknn", device)))
    monkeypatch.setattr(devices, "hand_over", lambda path, out, asked: called.append(("android", asked)))
    for asked in ((), ("qnn:SM8750", "qnn:SM8650"), ("micro",), ("rknn:RK3588",)):
        hand_over_for(asked, tmp_path, tmp_path)
    assert called == [
        ("android", ()), ("android", ("qnn:SM8750", "qnn:SM8650")), ("micro", "micro"), ("rknn", "rknn:RK3588"),
    ]  # fmt: skip
