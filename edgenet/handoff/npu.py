"""A hand-over's compiled files for the NPUs of Snapdragons, with what their emulator answers to the golden photographs.

    DIR/src/main/assets/npu.json            Build.SOC_MODEL -> the compiled file for it
    DIR/src/main/assets/npu/                the compiled files
    DIR/src/main/kotlin/NpuClassifier.kt    runs the one for this phone; the CPU's file where there is none
    DIR/src/androidTest/                    NpuGoldenTest.kt, and what the emulator answered

The answers are those of Qualcomm's emulator of the NPU for the very bytes that are handed over, not those of a phone.
"""

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.device_bench import open_device
from edgenet.device_bench.device import Compiler
from edgenet.device_bench.registry import parse
from edgenet.door import MODEL_BYTES, read_bytes
from edgenet.errors import EdgenetError, InputError, MissingDependency
from edgenet.files import sha256_of
from edgenet.handoff.deployed import TOLERANCE, Deployed

KIND = "qnn"
FOLDER, PICKS = "npu", "npu.json"  # among the assets
_INTEGERS = ("uint8", "int8")


@dataclass(frozen=True)
class NpuFile:
    """A compiled file of a hand-over. `scores` are files beside the golden ones, in the order of its cases."""

    soc: str
    file: str  # among the assets
    sha256: str
    tool: str
    operators: str
    emulator: str
    tolerance: float
    scores: tuple[str, ...]


def check(model: Deployed, devices: Sequence[str]) -> None:
    """Raise InputError where the devices are none that a file is compiled for, or the file is none for them."""
    for device in devices:
        if parse(device)[0] != KIND:
            raise InputError(f"{device} is no Snapdragon, and an Android module is for those: give --device {KIND}:SOC")
    kinds = [t.dtype for t in (model.input, model.output) if t.dtype not in _INTEGERS]
    if devices and kinds:
        raise InputError(
            f"{model.path} has {kinds[0]} input or output, which leaves operators to the CPU: export it with --io uint8"
        )


def write_npu(
    model: Deployed, devices: Sequence[str], pixels: np.ndarray, assets: Path, golden: Path
) -> tuple[NpuFile, ...]:
    """Compile the file for each chip and write what belongs to it into `assets` and `golden`, which are there.

    Raises:
        InputError: there is no such chip, or not all of the network runs on its NPU.
        MissingDependency: the compiler is not installed.
        DeviceError: the compiler or the emulator failed.
    """
    found: dict[str, NpuFile] = {}
    (assets / FOLDER).mkdir()
    for name in dict.fromkeys(devices):
        with open_device(name) as device:
            info = device.info()
            soc = str(info["soc"])
            if soc in found:
                continue
            assert isinstance(device, Compiler)
            scores = device.predict(model.path, model.input_of(pixels))
            compiled = device.compile(model.path, assets / FOLDER)
        if not np.isfinite(scores).all():
            raise InputError(f"{name} answers with numbers that are none: the file cannot be handed over for it")
        file = compiled.files[0]
        (golden / soc).mkdir()
        names = tuple(f"{soc}/{i}_scores.bin" for i in range(len(scores)))
        for i, row in zip(names, scores, strict=True):
            (golden / i).write_bytes(row.astype("<f4").tobytes())
        found[soc] = NpuFile(
            soc, f"{FOLDER}/{file.name}", sha256_of(file), compiled.tool,
            f"{compiled.n_accelerated} of {compiled.n_operators}", str(info["emulator"]), TOLERANCE["integer"], names,
        )  # fmt: skip
    picks = {name: f.file for f in found.values() for name in _models(f.soc)}
    (assets / PICKS).write_text(json.dumps(picks, indent=1) + "\n", encoding="utf-8")
    return tuple(found.values())


def _models(soc: str) -> list[str]:
    """Return what Build.SOC_MODEL may say on phones with a chip: its name, and the model numbers of its variants."""
    from edgenet.device_bench.qnn.chip import sold_as

    variants = (name for name, chip in sold_as().items() if chip == soc)
    return [soc, *(name for name in variants if re.fullmatch(r"[A-Z]{2,4}\d+\w*", name))]


def as_json(files: Sequence[NpuFile]) -> list[dict[str, Any]]:
    """Return what golden.json says of the compiled files."""
    return [asdict(f) for f in files]


def emulated(compiled: Path, soc: str, inputs: np.ndarray) -> np.ndarray:
    """Return (N, classes) float32, what the emulator answers for a compiled file as it is, byte for byte.

    Raises:
        InputError: the file is damaged, or there is no such chip.
        MissingDependency: the emulator is not installed.
        DeviceError: the emulator failed.
    """
    from edgenet.device_bench.litert_npu.dispatched import read_dispatched
    from edgenet.device_bench.qnn import packages
    from edgenet.device_bench.qnn.chip import find_chip
    from edgenet.device_bench.qnn.emulator import Emulator
    from edgenet.device_bench.qnn.tflite_compiler import as_onnx

    packages.check_installed(f"{KIND}:{soc}")
    parts = read_dispatched(read_bytes(compiled, MODEL_BYTES))
    if len(parts) != 1:
        raise InputError(
            f"{compiled.name} has {len(parts)} parts for the NPU, and one was handed over: hand over again"
        )
    with tempfile.TemporaryDirectory(prefix="edgenet-npu-") as folder:
        part = Path(folder) / "part.onnx"
        as_onnx(parts[0], part)
        with Emulator(part, find_chip(soc)) as emulator:
            return emulator.predict(inputs)


def not_installed(soc: str) -> str:
    """Return why an emulator cannot run here, "" where it can."""
    from edgenet.device_bench.qnn import packages

    try:
        packages.check_installed(f"{KIND}:{soc}")
    except MissingDependency as e:
        return str(e)
    except EdgenetError as e:
        return f"the emulator does not run on this machine ({e})"
    return ""
