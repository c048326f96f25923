"""`qemu:ROOTFS`: 64-bit Arm on this machine, by qemu-user: the numbers of Arm kernels, and times that mean nothing.

ROOTFS is a folder that device_bench/make_arm_root.sh fills: Debian's Python for arm64 with NumPy and tflite-runtime.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from edgenet.device_bench import child, runner
from edgenet.device_bench.device import Progress, Request
from edgenet.device_bench.worker import Launch, Worker
from edgenet.errors import DeviceError, InputError
from edgenet.export import runtime as runtime_module
from edgenet.results import Failure, Measurement

CPU = "cortex-a72"  # of a Raspberry Pi 4: Arm's base instruction set, which every 64-bit phone has
_QEMU = ("qemu-aarch64-static", "qemu-aarch64")  # Debian's two packages
_TIMEOUT_S = 120.0
_RECIPE = f"make one with {Path(__file__).with_name('make_arm_root.sh')} DIR"


def open_device(address: str) -> "Emulated":
    """Return the device of the folder `address`.

    Raises:
        InputError: it is not a folder with an Arm Python.
        DeviceError: qemu-user is not installed.
    """
    root = Path(address).expanduser()
    if not root.is_dir():
        raise InputError(f"qemu:{address}: no such folder (valid: qemu:ROOTFS, an arm64 root); {_RECIPE}")
    pythons = sorted(root.glob("usr/bin/python3.[0-9]*"))
    if not pythons:
        raise InputError(f"qemu:{address}: no usr/bin/python3.* in it, so it is no arm64 root for edgenet; {_RECIPE}")
    qemu = next((found for found in map(shutil.which, _QEMU) if found), None)
    if qemu is None:
        raise DeviceError(f"qemu:{address} needs qemu-user: apt install qemu-user-static")
    return Emulated(f"qemu:{address}", qemu, root.resolve(), pythons[-1].resolve())


def find() -> list[dict[str, Any]]:
    """Return none: a root can be anywhere, so it is named."""
    return []


class Emulated:
    """64-bit Arm by qemu-user. A `Device` that predicts and does not time."""

    kind = "qemu"

    def __init__(self, id: str, qemu: str, root: Path, python: Path) -> None:
        self.id, self._qemu, self._root, self._python = id, qemu, root, python
        self._predictors: dict[tuple[Path, int], Worker] = {}

    def info(self) -> dict[str, Any]:
        """Return what is emulated, and the versions of Python, NumPy and the runtime in it. Raises DeviceError."""
        code = (
            "import importlib.metadata as m,platform;have={d.metadata['Name'].replace('_','-'):d.version "
            "for d in m.distributions()};"
            "print(platform.python_version(),platform.machine(),have.get('numpy'),have.get('tflite-runtime'))"
        )
        python, machine, numpy, litert = self._run(self._command("-c", code)).split()
        release = self._root / "usr/lib/os-release"
        os_name = next(
            (
                line.partition("=")[2].strip('"')
                for line in (release.read_text(errors="replace").splitlines() if release.is_file() else [])
                if line.startswith("PRETTY_NAME=")
            ),
            None,
        )
        return {
            "cpu_model": f"{CPU}, emulated",
            "isa": ["neon"],
            "machine": machine,
            "os": os_name,
            "python": python,
            "numpy": numpy,
            "runtimes": {} if litert == "None" else {"litert": litert},
            "emulator": self._run([self._qemu, "--version"]).partition("\n")[0],
            "note": "numbers are those of Arm kernels; times under emulation mean nothing and are not measured",
        }

    def bench(
        self, artifacts: Sequence[tuple[str, Path]], request: Request, progress: Progress | None = None
    ) -> tuple[list[Measurement], list[Failure]]:
        """Refuse. Raises InputError, always."""
        raise InputError(
            f"{self.id} emulates its processor, and times under emulation mean nothing: measure on a board "
            "(ssh:USER@HOST) or a phone (adb:SERIAL), and compare answers here with `edgenet evaluate`"
        )

    def predict(self, path: Path, batch: np.ndarray) -> np.ndarray:
        """Return (N, classes) float32 for (N, H, W, 3) of what the file takes, as Arm kernels compute it.

        Raises:
            InputError: the file is not a .tflite, or the batch does not fit it.
            DeviceError: the emulator or the runtime in it failed.
        """
        if path.suffix.lower() != ".tflite":
            raise InputError(f"{self.id} runs .tflite files only, was given {path}: tflite-runtime is what it has")
        if not path.is_file():
            raise InputError(f"no such file: {path}")
        key = (path, path.stat().st_mtime_ns)
        if key not in self._predictors:
            command = self._command(runner.__file__, "--runtime", runtime_module.__file__)
            threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            launch = Launch(command, str(path))
            self._predictors[key] = Worker(path.resolve(), threads, launch=launch, timeout_s=3600.0)
        try:
            return self._predictors[key].predict(batch)
        except DeviceError:
            self._predictors.pop(key).close()
            raise

    def __enter__(self) -> "Emulated":
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        while self._predictors:
            self._predictors.popitem()[1].close()

    def _command(self, *words: str) -> list[str]:
        # -L: where the emulated process finds what it opens by an absolute path, its loader and libraries.
        return [self._qemu, "-cpu", CPU, "-L", str(self._root), str(self._python), "-I", *words]

    def _run(self, command: Sequence[str]) -> str:
        try:
            done = child.run(command, _TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise DeviceError(f"{self.id}: {command[0]} did not answer in {_TIMEOUT_S:g} s") from None
        except OSError as e:
            raise DeviceError(f"{self.id}: {command[0]} does not work: {e.strerror}") from e
        if done.status:
            err = done.err.decode(errors="replace")
            said = (err.strip().splitlines() or [f"exit status {done.status}"])[-1]
            raise DeviceError(f"{self.id}: Python in it does not start: {said[:200]}; {_RECIPE}")
        return done.out.decode(errors="replace")
