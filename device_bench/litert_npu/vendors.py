"""The vendors whose NPUs LiteRT compiles for, beside Qualcomm, whose compiler is on PyPI (`qnn:SOC`).

The plugins are in ai-edge-litert; what they call is the vendor's and has to be fetched from there. A variable names the
folder that it was unpacked to. Chips and names are those of ai-edge-litert 2.3.0.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgenet.errors import InputError, MissingDependency


@dataclass(frozen=True)
class Vendor:
    """A vendor. `library` is what its plugin loads by name, "" where that is not known."""

    name: str
    manufacturer: str  # as LiteRT spells it
    folder: str  # of the plugin in ai-edge-litert
    chips: tuple[str, ...]
    library: str
    sdk: str
    source: str

    @property
    def env(self) -> str:
        return f"EDGENET_{self.name.upper()}_SDK"


_MEDIATEK = (
    "MT6853", "MT6877", "MT6878", "MT6879", "MT6886", "MT6893", "MT6895", "MT6897", "MT6983", "MT6985", "MT6989",
    "MT6991", "MT6993", "MT8171", "MT8188", "MT8189",
)  # fmt: skip
_GOOGLE = ("Tensor_G3", "Tensor_G4", "Tensor_G5", "Tensor_G6")
VENDORS = {
    v.name: v
    for v in (
        Vendor(
            "mediatek", "MediaTek", "mediatek", _MEDIATEK, "libneuron_adapter.so", "MediaTek's NeuroPilot SDK",
            "https://neuropilot.mediatek.com",
        ),
        Vendor(
            "google", "Google", "google_tensor", _GOOGLE, "liblitert_plugin_compiler.so", "Google's Tensor SDK",
            "https://ai.google.dev/edge/litert/next/npu",
        ),
        Vendor(
            "samsung", "Samsung", "samsung", ("E9965",), "", "Samsung's Exynos AI LiteCore SDK",
            "https://soc-developer.semiconductor.samsung.com",
        ),
        Vendor(
            "intel", "IntelOpenVINO", "intel_openvino", ("LNL", "PTL"), "libopenvino.so.2631",
            "OpenVINO 2026.3.1 with its NPU compiler", "https://docs.openvino.ai",
        ),
    )
}  # fmt: skip


def find_vendor(address: str) -> tuple[Vendor, str]:
    """Return the vendor and the chip of VENDOR:SOC. Raises InputError for what is neither."""
    name, _, soc = address.partition(":")
    vendor = VENDORS.get(name.casefold())
    if vendor is None:
        more = "; Qualcomm's are qnn:SOC" if name.casefold() == "qualcomm" else ""
        raise InputError(f"no vendor '{name}' of NPUs (valid: {', '.join(VENDORS)}){more}")
    chip = next((c for c in vendor.chips if c.casefold() == soc.casefold()), None)
    if chip is None:
        raise InputError(f"LiteRT compiles for no chip '{soc}' of {vendor.name} (valid: {', '.join(vendor.chips)})")
    return vendor, chip


def find_sdk(vendor: Vendor, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder with the vendor's libraries.

    Raises:
        MissingDependency: no folder is named.
        InputError: it is none, or lacks the library that the plugin loads.
    """
    named = environ.get(vendor.env, "")
    if not named:
        how = f"get it from {vendor.source}, unpack it, and set {vendor.env} to its folder"
        raise MissingDependency(vendor.sdk, "", f"compiling for {vendor.manufacturer}'s NPUs", install=how)
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise InputError(f"{vendor.env} is {named}, which is no folder: set it to where {vendor.sdk} is")
    if not vendor.library:
        return folder
    found = sorted(folder.rglob(vendor.library))
    if not found:
        raise InputError(f"{vendor.env} is {named}, where no {vendor.library} is: set it to where {vendor.sdk} is")
    return found[0].parent
