"""benchmark_binary.py: which benchmark_model is taken for a phone, and which is refused."""

import struct
from pathlib import Path

import pytest

from edgenet.device_bench.adb.benchmark_binary import ABIS, CACHE, ENV, abi_of, find_binary
from edgenet.errors import DeviceError, InputError
from helpers.adb_device import elf


@pytest.mark.parametrize("abi", ABIS)
def test_the_abi_is_read_from_the_elf_header(abi: str, tmp_path: Path) -> None:
    (tmp_path / "tool").write_bytes(elf(abi))
    assert abi_of(tmp_path / "tool") == abi


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no ELF header"),
        (b"#!/bin/sh\necho", "no ELF header"),
        (b"\x7fELF\x07" + bytes(30), "no ELF header"),
        (b"\x7fELF\x01\x01" + bytes(12) + struct.pack("<H", 3), "32-bit program for ELF machine 3 "),
        (b"\x7fELF\x02\x02" + bytes(12) + struct.pack(">H", 22), "64-bit program for ELF machine 22 "),
    ],
)
def test_what_is_no_program_for_a_phone_is_refused(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "tool").write_bytes(content)
    with pytest.raises(InputError, match=says):
        abi_of(tmp_path / "tool")


def test_the_binary_that_the_phone_prefers_is_taken_from_several(tmp_path: Path) -> None:
    folder = tmp_path / "tools"
    folder.mkdir()
    for abi in ABIS:
        (folder / abi).write_bytes(elf(abi))
    (folder / "README").write_text("not a program")
    for given in (str(folder), f"{folder / 'x86_64'}:{folder / 'armeabi-v7a'}:{folder / 'arm64-v8a'}"):
        assert find_binary(["arm64-v8a", "armeabi-v7a"], {ENV: given}).abi == "arm64-v8a"
        assert find_binary(["armeabi-v7a"], {ENV: given}).path == folder / "armeabi-v7a"
    with pytest.raises(DeviceError, match=r"the phone runs riscv64 and .* is for"):
        find_binary(["riscv64"], {ENV: str(folder)})
    with pytest.raises(InputError, match="cannot read"):
        find_binary(["arm64-v8a"], {ENV: str(tmp_path / "missing")})


def test_a_download_is_taken_only_if_its_sha256_is_the_recorded_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InputError, match=f"no benchmark_model: .* set {ENV}"):
        find_binary(["arm64-v8a"], {})
    tool = CACHE.expanduser() / "android_aarch64_benchmark_model"
    tool.parent.mkdir(parents=True)
    tool.write_bytes(elf("arm64-v8a"))
    with pytest.raises(InputError, match=r"no android_aarch64_benchmark_model.sha256 says"):
        find_binary(["arm64-v8a"], {})
    record = tool.with_name(tool.name + ".sha256")
    record.write_text("0" * 64 + "  android_aarch64_benchmark_model\n")
    with pytest.raises(InputError, match=r"sha256 says 000000000000"):
        find_binary(["arm64-v8a"], {})
    digest = find_binary(["arm64-v8a"], {ENV: str(tool)}).sha256  # a file that the user names needs no record
    record.write_text(f"{digest}  {tool.name}\n")
    assert find_binary(["arm64-v8a"], {}) == find_binary(["arm64-v8a"], {ENV: str(tool)})
