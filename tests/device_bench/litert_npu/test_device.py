"""litert-npu: other vendors' NPUs, as far as "this is missing, get it there" goes, and the same way as Qualcomm's."""

import shutil
from pathlib import Path

import pytest

from edgenet.device_bench.device import Compiler, Request
from edgenet.device_bench.litert_npu.device import LiteRtNpu, find, open_device
from edgenet.device_bench.litert_npu.plugin import refusals
from edgenet.device_bench.litert_npu.vendors import VENDORS, find_sdk, find_vendor
from edgenet.device_bench.qnn.packages import litert_folder
from edgenet.errors import InputError, MissingDependency


@pytest.fixture
def sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for MediaTek's SDK: it has a file of the right name, which is no library."""
    folder = tmp_path / "neuropilot" / "host" / "lib"
    folder.mkdir(parents=True)
    (folder / "libneuron_adapter.so").write_bytes(b"no library")
    monkeypatch.setenv("EDGENET_MEDIATEK_SDK", str(tmp_path / "neuropilot"))
    return folder


@pytest.mark.parametrize("name", VENDORS)
def test_without_the_sdk_it_is_said_what_is_missing_where_to_get_it_and_where_to_put_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor = VENDORS[name]
    monkeypatch.delenv(vendor.env, raising=False)
    with pytest.raises(MissingDependency) as raised:
        open_device(f"{name}:{vendor.chips[0]}")
    for said in (vendor.sdk, vendor.source, vendor.env):
        assert said in str(raised.value)
    assert find() == []


def test_the_sdk_is_found_in_the_folder_that_is_named(sdk: Path) -> None:
    assert find_sdk(VENDORS["mediatek"]) == sdk
    (found,) = find()
    assert found["id"] == "litert-npu:mediatek:MT6853"
    with open_device("mediatek:mt6991") as device:
        assert isinstance(device, Compiler)
        assert (device.id, device.soc) == ("litert-npu:mediatek:mt6991", "MT6991")
        with pytest.raises(InputError, match="no emulator of this NPU"):
            device.predict(Path("a.tflite"), None)  # type: ignore[arg-type]


def test_a_folder_without_the_library_that_the_plugin_loads_is_refused(tmp_path: Path) -> None:
    vendor = VENDORS["google"]
    with pytest.raises(InputError, match=r"where no liblitert_plugin_compiler.so is"):
        find_sdk(vendor, {vendor.env: str(tmp_path)})
    with pytest.raises(InputError, match="which is no folder"):
        find_sdk(vendor, {vendor.env: str(tmp_path / "gone")})


def test_an_unknown_vendor_or_chip_lists_the_valid_ones() -> None:
    with pytest.raises(InputError, match=r"no vendor 'apple' of NPUs \(valid: mediatek, google, samsung, intel\)"):
        find_vendor("apple:A17")
    with pytest.raises(InputError, match="Qualcomm's are qnn:SOC"):
        find_vendor("qualcomm:SM8750")
    with pytest.raises(InputError, match=r"no chip 'G2' of google \(valid: Tensor_G3, .*Tensor_G6\)"):
        find_vendor("google:G2")


@pytest.mark.parametrize("vendor", VENDORS.values(), ids=lambda v: v.name)
def test_the_plugin_of_each_vendor_is_in_the_installed_litert(vendor: object) -> None:
    litert = litert_folder()
    assert litert is not None
    assert list((litert / "vendors" / vendor.folder / "compiler").glob("libLiteRtCompilerPlugin_*.so"))  # type: ignore[attr-defined]


def test_the_real_plugin_without_a_real_sdk_is_a_failure_that_says_what_it_could_not_load(
    sdk: Path, tiny_files: dict[str, Path]
) -> None:
    with open_device("mediatek:MT6991") as device:
        estimates, (failure,) = device.bench([("a", tiny_files["int8"])], Request())
    assert estimates == []
    assert failure.device == "litert-npu:mediatek:MT6991"
    assert failure.why.startswith("LiteRT's plugin for MediaTek ")
    assert "NeuronAdapter" in failure.why
    assert failure.remedy


def test_what_a_vendors_compiler_makes_is_read_as_qualcomms_is(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    """A compiler that takes nothing writes the file as it was: every operator stays, with no reason given."""
    program = tmp_path / "tools" / "apply_plugin_main"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        'for a in "$@"; do case "$a" in --o=*) OUT="${a#--o=}";; --model=*) IN="${a#--model=}";; esac; done\n'
        f'{shutil.which("cat")} "$IN" >"$OUT"\n'
    )
    program.chmod(0o755)
    device = LiteRtNpu("mediatek:MT6991", VENDORS["mediatek"], "MT6991", tmp_path, tmp_path)
    (e,), failures = device.bench([("a", tiny_files["int8"])], Request())
    assert failures == []
    assert (e.n_accelerated, e.inference_ms) == (0, None)
    assert {o.why for o in e.left} == {"LiteRT's plugin for MediaTek gives no reason"}
    assert [w.code for w in e.warnings] == ["nothing-accelerated"]


@pytest.mark.parametrize("log", ["", "nonsense", "LiteRT Op #3 'Conv2d' (code=3) is not supported in X\n", "\x00\xff"])
def test_refusals_of_garbage_are_none(log: str) -> None:
    assert refusals(log) == {}
