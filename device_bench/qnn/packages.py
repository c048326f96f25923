"""Where Qualcomm's compiler, its emulator and LiteRT's compiler plugins are installed; nothing of them is imported."""

import importlib.util
import platform
import re
import sys
from importlib import metadata
from pathlib import Path

from edgenet.errors import DeviceError, MissingDependency

PACKAGE, EXTRA = "onnxruntime-qnn", "qnn"
LITERT_PACKAGE = "ai-edge-litert"
_MACHINES = ("x86_64", "amd64")


def qnn_folder() -> Path | None:
    """Return the folder of the package with Qualcomm's libraries, None where it is not installed."""
    return _folder("onnxruntime_qnn")


def litert_folder() -> Path | None:
    """Return the folder of LiteRT, None where it is not installed."""
    return _folder("ai_edge_litert")


def version(package: str) -> str | None:
    """Return the version of a package, None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def qnn_version() -> str:
    """Return the version of Qualcomm's QNN in the package, 2.50.40 say; "" where that is not known."""
    folder = qnn_folder()
    about = folder / "build_and_package_info.py" if folder else None
    found = re.search(r"qnn_version = '([\d.]+)'", about.read_text()) if about and about.is_file() else None
    return found[1] if found else ""


def check_installed(device: str) -> None:
    """Raise MissingDependency where the package is missing, DeviceError where it is not for this machine."""
    if qnn_folder() is None or version(PACKAGE) is None:
        raise MissingDependency(PACKAGE, EXTRA, f"the device {device}")
    if sys.platform != "linux" or platform.machine().lower() not in _MACHINES:
        raise DeviceError(
            f"{device} needs 64-bit Linux on x86, this is {sys.platform} on {platform.machine()}: "
            "Qualcomm's compiler and emulator are built for no other"
        )


def library_folders() -> list[Path]:
    """Return the folders with Qualcomm's libraries and those that they need, for the loader."""
    folder = qnn_folder()
    return [folder, folder.parent / f"{folder.name}.libs"] if folder else []


def _folder(module: str) -> Path | None:
    spec = importlib.util.find_spec(module)
    return Path(spec.origin).parent if spec and spec.origin else None
