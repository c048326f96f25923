"""The registry of devices: the part of a device's name before the colon picks the module that it runs on."""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgenet.device_bench.device import Device
from edgenet.errors import EdgenetError, InputError


@dataclass(frozen=True)
class Kind:
    """A kind of device: the module that knows it, and what a user writes after the colon, "" for nothing."""

    module: str
    address: str = ""

    @property
    def is_there(self) -> bool:
        try:
            return importlib.util.find_spec(self.module) is not None
        except ModuleNotFoundError:  # nor is the package that it stands in
            return False

    def form(self, name: str) -> str:
        """Return how a device of this kind, called `name`, is written."""
        return f"{name}:{self.address}" if self.address else name

    @property
    def open_device(self) -> Callable[[str], Device]:
        """Take the address and return the device. Raises InputError, DeviceError."""
        found: Callable[[str], Device] = importlib.import_module(self.module).open_device
        return found

    @property
    def check_present(self) -> Callable[[str], object]:
        """Take the address and ask the device, in seconds, whether it is there. Raises InputError, DeviceError.

        Where the module has no such question, opening the device tells.
        """
        module = importlib.import_module(self.module)
        found: Callable[[str], object] = getattr(module, "check_present", module.open_device)
        return found

    @property
    def find(self) -> Callable[[], list[dict[str, Any]]]:
        """Return those devices that are there, each as {"id", "kind", "name", "runtimes": {name: version}}."""
        found: Callable[[], list[dict[str, Any]]] = importlib.import_module(self.module).find
        return found


# A module is imported when one of its devices is asked for: adb must not slow down `local`.
KINDS = {
    "local": Kind("edgenet.device_bench.local"),
    "adb": Kind("edgenet.device_bench.adb.device", "SERIAL"),
    "ssh": Kind("edgenet.device_bench.ssh.device", "USER@HOST[:PORT]"),
    "qemu": Kind("edgenet.device_bench.qemu", "ROOTFS"),
    "ethos-u": Kind("edgenet.device_bench.ethos_u", "CONFIG"),
    "edgetpu": Kind("edgenet.device_bench.edgetpu.device"),
    "qnn": Kind("edgenet.device_bench.qnn.device", "SOC"),
    "litert-npu": Kind("edgenet.device_bench.litert_npu.device", "VENDOR:SOC"),
    "rknn": Kind("edgenet.device_bench.rknn.device", "CHIP"),
    "micro": Kind("edgenet.device_bench.micro.device"),
}


def forms() -> list[str]:
    """Return how a device may be written: local, adb:SERIAL, ..."""
    return [kind.form(name) for name, kind in KINDS.items() if kind.is_there]


def parse(id: str) -> tuple[str, str]:
    """Return (kind, address) of a device's name, without touching the device.

    Raises:
        InputError: it is not one of `forms`.
    """
    name, colon, address = id.partition(":")
    kind = KINDS.get(name)
    if kind is None or not kind.is_there:
        raise InputError(f"unknown device '{id}' (valid: {', '.join(forms())})")
    if kind.address and not address:
        raise InputError(f"device '{id}' lacks its {kind.address}: write {name}:{kind.address}")
    if colon and not kind.address:
        raise InputError(f"device '{id}' takes no address: write {name}")
    return name, address


def open_device(id: str) -> Device:
    """Return the device called `id`, to be used in a `with` block.

    Raises:
        InputError: there is no such kind of device, or its address makes no sense.
        DeviceError: it cannot be reached.
    """
    name, address = parse(id)
    return KINDS[name].open_device(address)


def check_present(id: str) -> None:
    """Ask the device called `id` whether it is there, and do nothing more on it.

    Raises:
        InputError: there is no such kind of device, or its address makes no sense.
        MissingDependency: the program that talks to it is not installed.
        DeviceError: it is not there.
    """
    name, address = parse(id)
    KINDS[name].check_present(address)


def list_devices() -> list[dict[str, Any]]:
    """Return the devices that are there, each as {"id", "kind", "name", "runtimes": {name: version}, ...}.

    Where a kind cannot be asked it is listed by its form, with a "problem" that says why.
    """
    found: list[dict[str, Any]] = []
    for name, kind in KINDS.items():
        if kind.is_there:
            try:
                found += kind.find()
            except EdgenetError as e:
                said = f"cannot be listed: {e}"
                found.append({"id": kind.form(name), "kind": name, "name": said, "runtimes": {}, "problem": str(e)})
    return found
