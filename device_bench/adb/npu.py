"""The NPU of a phone with a Snapdragon: files compiled for its chip, and Qualcomm's runtime beside them.

The chip is what `getprop ro.soc.model` says. Each .tflite is compiled for it here (device_bench/qnn) and timed by
LiteRT's benchmark_model, which needs LiteRT's dispatch library and Qualcomm's libraries on the phone. No package index
has them: the user names a folder that does.
"""

import os
import shlex
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from edgenet.device_bench.adb.link import Link, one_line
from edgenet.device_bench.litert_npu.dispatched import DISPATCH
from edgenet.device_bench.qnn.chip import Chip, find_chip
from edgenet.device_bench.qnn.device import Hexagon
from edgenet.device_bench.qnn.device import open_device as open_hexagon
from edgenet.errors import DeviceError, InputError
from edgenet.export.inspect.tflite import operator_outputs
from edgenet.files import sha256_of

ENV = "EDGENET_QNN_RUNTIME"


class Npu:
    """What the calls on one phone's NPU have in common. Use it in a `with` block."""

    def __init__(self, link: Link, hexagon: Hexagon, folder: str) -> None:
        self._link, self._hexagon, self.folder = link, hexagon, folder
        self._stack = ExitStack()
        self._compiled = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="edgenet-npu-")))
        self._stack.enter_context(hexagon)

    @property
    def environment(self) -> tuple[str, ...]:
        """What the command begins with: where the loader of the phone and that of the NPU look for libraries."""
        return (f"LD_LIBRARY_PATH={self.folder}", f"ADSP_LIBRARY_PATH={self.folder}")

    def compiled(self, path: Path) -> Path:
        """Return the file compiled for the phone's chip; itself where it is already. Raises InputError, DeviceError."""
        if any(kind == DISPATCH for kind, _ in operator_outputs(path)):
            return path
        found = self._hexagon.compile(path, self._compiled)
        if not found.n_accelerated:
            raise DeviceError(f"no operator of {path.name} runs on the NPU of {self._hexagon.chip.soc}")
        return found.files[0]

    def __enter__(self) -> "Npu":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def libraries(chip: Chip) -> tuple[str, ...]:
    """Return the libraries that a phone with this chip needs: LiteRT's first, the last is the NPU's own program."""
    stub = f"libQnnHtpV{chip.hexagon}"
    return ("libLiteRtDispatch_Qualcomm.so", "libQnnSystem.so", "libQnnHtp.so", f"{stub}Stub.so", f"{stub}Skel.so")


def find_runtime(chip: Chip, environ: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Return the libraries for a chip, in the folder that $EDGENET_QNN_RUNTIME names.

    Raises:
        InputError: no folder is named, or it lacks some.
    """
    named = environ.get(ENV, "")
    if not named:
        raise InputError(
            f"the NPU of {chip.soc} needs LiteRT's dispatch library and Qualcomm's runtime: put "
            f"{', '.join(libraries(chip))} for arm64 into one folder and set {ENV} to it (docs/accelerators.md says "
            "from where)"
        )
    folder = Path(named).expanduser()
    missing = [name for name in libraries(chip) if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{ENV} is {named}, which lacks {', '.join(missing)}: the NPU of {chip.soc} needs them")
    return tuple(folder / name for name in libraries(chip))


def open_npu(link: Link, info: Mapping[str, Any]) -> Npu:
    """Put the libraries on the phone, each checked there, and return its NPU.

    Args:
        info: what the phone says of itself, `phone.about`.

    Raises:
        InputError: it has no chip that is compiled for, or the libraries are not there.
        MissingDependency: the compiler is not installed.
        DeviceError: the phone failed.
    """
    chip = find_chip(str(info.get("soc") or ""))
    files = find_runtime(chip)
    hexagon = open_hexagon(chip.soc)
    link.make_folder()
    folder = f"{link.folder}/npu"
    status, text = link.shell(f"mkdir -p {shlex.quote(folder)}")
    if status:
        raise DeviceError(f"cannot make {folder} on the phone: {one_line(text)}")
    link.transfer("push", *map(str, files), f"{folder}/", size_bytes=sum(p.stat().st_size for p in files))
    for path in files:
        _, text = link.shell(f"sha256sum {shlex.quote(f'{folder}/{path.name}')}", timeout_s=120)
        if text.split()[:1] != [sha256_of(path)]:
            raise DeviceError(f"{path.name} arrived damaged on the phone: plug it in again, and run the same command")
    return Npu(link, hexagon, folder)
