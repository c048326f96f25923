"""NPUs of MediaTek, Google, Samsung and Intel, `litert-npu:VENDOR:SOC`: what LiteRT's compiler makes of a .tflite.

It is the way of `qnn:SOC` for vendors whose compiler the user has from the vendor (vendors.py). There is no emulator of
their NPUs here, so nothing answers.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.device_bench.device import Compiled, Progress, Request, check_only_compiles, estimate_each
from edgenet.device_bench.litert_npu.plugin import Applied, apply
from edgenet.device_bench.litert_npu.vendors import VENDORS, Vendor, find_sdk, find_vendor
from edgenet.device_bench.qnn.packages import LITERT_PACKAGE, litert_folder, version
from edgenet.errors import DeviceError, EdgenetError, InputError, MissingDependency
from edgenet.files import atomic_write, sha256_of, size_of
from edgenet.results import Estimate, Failure, Warning

KIND = "litert-npu"
TIMEOUT_S = 600.0
_REMEDIES = {
    InputError: "give an int8 .tflite, as `edgenet export --precision int8 --io uint8` writes it",
    DeviceError: "run `edgenet inspect` on the file, and see that the SDK fits the installed ai-edge-litert",
    MissingDependency: "install it and run again",
}


def find() -> list[dict[str, Any]]:
    """Return the devices of this kind: one for each vendor whose compiler is there."""
    found = []
    for vendor in VENDORS.values():
        try:
            find_sdk(vendor)
        except EdgenetError:
            continue
        name = f"compiles for {vendor.manufacturer}'s NPUs; SOC is one of {', '.join(vendor.chips)}"
        runtimes = {LITERT_PACKAGE: version(LITERT_PACKAGE)}
        found.append(
            {"id": f"{KIND}:{vendor.name}:{vendor.chips[0]}", "kind": KIND, "name": name, "runtimes": runtimes}
        )
    return found


def open_device(address: str) -> "LiteRtNpu":
    """Return the compiler for VENDOR:SOC.

    Raises:
        InputError: there is no such vendor or chip, or the folder that is named lacks the SDK.
        MissingDependency: no SDK is named, or LiteRT is not installed.
    """
    vendor, soc = find_vendor(address)
    sdk, litert = find_sdk(vendor), litert_folder()
    if litert is None:
        raise MissingDependency(LITERT_PACKAGE, "tflite", f"the device {KIND}:{address}")
    return LiteRtNpu(address, vendor, soc, sdk, litert)


class LiteRtNpu:
    """LiteRT's compiler with one vendor's plugin, for one chip. It never runs a file."""

    kind = KIND

    def __init__(
        self, address: str, vendor: Vendor, soc: str, sdk: Path, litert: Path, timeout_s: float = TIMEOUT_S
    ) -> None:
        self.id, self.vendor, self.soc = f"{KIND}:{address}", vendor, soc
        self._sdk, self._litert, self._timeout_s = sdk, litert, timeout_s

    def info(self) -> dict[str, Any]:
        """Return what is compiled for, and by what."""
        return {"accelerator": f"NPU of {self.vendor.manufacturer} {self.soc}", "tool": self._tool, "measures": False}

    def bench(
        self, artifacts: Sequence[tuple[str, Path]], request: Request, progress: Progress | None = None
    ) -> tuple[list[Estimate], list[Failure]]:
        """Compile each file; no time comes with that.

        Raises:
            InputError: a runtime, a delegate other than the NPU, or cores are asked for.
        """
        check_only_compiles(self.id, request)
        return estimate_each(self.id, artifacts, self._estimate, _REMEDIES, progress)

    def predict(self, path: Path, batch: np.ndarray) -> np.ndarray:
        """Raise InputError: nothing runs here."""
        raise InputError(
            f"{self.id} only compiles, there is no emulator of this NPU: evaluate on `local` or on a phone"
        )

    def compile(self, path: Path, out: Path) -> Compiled:
        """Compile a .tflite into the folder `out`, which is there. See `Compiler.compile`."""
        target = out / f"{path.stem}_{self.soc}.tflite"
        with tempfile.TemporaryDirectory(prefix="edgenet-npu-") as folder:
            compiled = Path(folder) / "compiled.tflite"
            applied = self._apply(path, compiled)
            with atomic_write(target) as tmp:
                tmp.write_bytes(compiled.read_bytes())
        return Compiled(self.id, (target,), self._tool, applied.n_operators, applied.n_accelerated)

    def __enter__(self) -> "LiteRtNpu":
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is left anywhere: each compilation cleans up after itself."""

    @property
    def _tool(self) -> str:
        return f"LiteRT's plugin for {self.vendor.manufacturer}, {LITERT_PACKAGE} {version(LITERT_PACKAGE)}"

    def _apply(self, path: Path, compiled: Path) -> Applied:
        if path.suffix.lower() != ".tflite":
            raise InputError(f"{path} is no .tflite file, and LiteRT compiles only those")
        if not path.is_file():
            raise InputError(f"no file {path}: give model files")
        return apply(
            self._litert,
            path.resolve(),
            compiled,
            manufacturer=self.vendor.manufacturer,
            soc=self.soc,
            plugin=self._litert / "vendors" / self.vendor.folder / "compiler",
            libraries=(self._sdk,),
            timeout_s=self._timeout_s,
        )

    def _estimate(self, id: str, path: Path) -> Estimate:
        with tempfile.TemporaryDirectory(prefix="edgenet-npu-") as folder:
            compiled = Path(folder) / "compiled.tflite"
            applied, compiled_bytes = self._apply(path, compiled), size_of(compiled)
        n_left = applied.n_operators - applied.n_accelerated
        warnings = []
        if applied.n_accelerated == 0:
            warnings.append(Warning("nothing-accelerated", "no operator runs on the NPU: there is nothing to estimate"))
        elif n_left:
            text = f"{n_left} operators run on the CPU; the table has the reason for each"
            warnings.append(Warning("left-to-cpu", text, n_left))
        return Estimate(
            artifact=id,
            device=self.id,
            tool=self._tool,
            basis=f"compiled by {self.vendor.manufacturer}'s compiler, which LiteRT asks for no time",
            n_operators=applied.n_operators,
            n_accelerated=applied.n_accelerated,
            left=applied.left,
            artifact_sha256=sha256_of(path),
            settings={"soc": self.soc},
            warnings=tuple(warnings),
            compiled_bytes=compiled_bytes,
        )
