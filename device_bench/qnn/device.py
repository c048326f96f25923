"""Qualcomm's Hexagon, `qnn:SOC`: what Qualcomm's compilers make of a file for a Snapdragon, and what the NPU answers.

Nothing runs on a phone. A .tflite is compiled by LiteRT's plugin, an .onnx by onnxruntime-qnn, both with Qualcomm's
QNN and both to what a phone loads. `bench` gives an `Estimate`: which operators the NPU takes, the size, and a time
where QNN estimates one for the chip. `predict` runs what was compiled in QNN's emulator of the NPU: the very bytes, in
the integers of the chip. The emulator's own time means nothing and is never shown.
"""

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.device_bench.device import Compiled, Progress, Request, check_only_compiles, estimate_each
from edgenet.device_bench.litert_npu.dispatched import DISPATCH, read_dispatched
from edgenet.device_bench.qnn import packages
from edgenet.device_bench.qnn.built import Built
from edgenet.device_bench.qnn.chip import FIRST_HTP, Chip, chips, find_chip
from edgenet.device_bench.qnn.emulator import Emulator
from edgenet.device_bench.qnn.onnx_compiler import compile_onnx
from edgenet.device_bench.qnn.tflite_compiler import as_onnx, compile_tflite
from edgenet.errors import DeviceError, EdgenetError, InputError, MissingDependency
from edgenet.export.inspect import inspect
from edgenet.export.inspect.inspection import Inspection
from edgenet.files import atomic_write, sha256_of
from edgenet.results import Estimate, Failure, Warning

KIND = "qnn"
TIMEOUT_S = 600.0
SUFFIXES = (".tflite", ".onnx")
_REMEDIES = {
    InputError: "give an int8 file, as `edgenet export --target hexagon --precision int8 --io uint8` writes it",
    DeviceError: "run `edgenet inspect` on the file; another version of onnxruntime-qnn may take it",
    MissingDependency: "install it and run again",
}


def find() -> list[dict[str, Any]]:
    """Return the devices of this kind: one, where Qualcomm's compiler is installed."""
    try:
        packages.check_installed(f"{KIND}:SOC")
    except EdgenetError:
        return []
    n = sum(chip.hexagon >= FIRST_HTP for chip in chips().values())
    name = f"compiles, and emulates the NPU; SOC is one of {n} Snapdragons (docs/accelerators.md)"
    version = packages.version(packages.PACKAGE)
    return [{"id": f"{KIND}:SM8750", "kind": KIND, "name": name, "runtimes": {packages.PACKAGE: version}}]


def open_device(address: str) -> "Hexagon":
    """Return the device for a chip: SM8750, QCS6490, "Galaxy S25".

    Raises:
        InputError: there is no such chip, or it has no NPU that QNN compiles for.
        MissingDependency: onnxruntime-qnn is not installed.
        DeviceError: it is not for this machine.
    """
    chip = find_chip(address)
    packages.check_installed(f"{KIND}:{address}")
    return Hexagon(address, chip)


class Hexagon:
    """The compilers and the emulator for one chip. What was compiled stays until the end of the `with` block."""

    kind = KIND

    def __init__(self, address: str, chip: Chip, timeout_s: float = TIMEOUT_S, processes: int | None = None) -> None:
        self.id, self.chip, self._timeout_s, self._processes = f"{KIND}:{address}", chip, timeout_s, processes
        self._stack = ExitStack()
        self._folder: Path | None = None
        self._built: dict[tuple[str, str], Built] = {}  # by what `_key` gives
        self._emulators: dict[tuple[str, str], Emulator] = {}

    def info(self) -> dict[str, Any]:
        """Return what is compiled for, and by what."""
        npu = f"Hexagon v{self.chip.hexagon}"
        version = packages.version(packages.PACKAGE)
        return {
            "accelerator": f"{npu} of {self.chip.soc}",
            "soc": self.chip.soc,
            "hexagon": self.chip.hexagon,
            "vtcm_bytes": self.chip.vtcm_bytes,
            "machine": npu,
            "tool": f"QNN {packages.qnn_version()} in {packages.PACKAGE} {version}",
            "emulator": f"QNN's emulator {packages.qnn_version()} of {npu} ({packages.PACKAGE} {version})",
            "measures": False,
        }

    def bench(
        self, artifacts: Sequence[tuple[str, Path]], request: Request, progress: Progress | None = None
    ) -> tuple[list[Estimate], list[Failure]]:
        """Compile each file. `request.threads` and `request.plan` mean nothing to an NPU that is not there.

        Raises:
            InputError: a runtime, a delegate other than the NPU, or cores are asked for.
        """
        check_only_compiles(self.id, request)
        return estimate_each(self.id, artifacts, self._estimate, _REMEDIES, progress)

    def predict(self, path: Path, batch: np.ndarray) -> np.ndarray:
        """Return (N, classes) float32 for (N, H, W, 3) of what the file takes, as the NPU's emulator answers.

        Raises:
            InputError: the batch does not fit the file.
            DeviceError: the chip or its compiler does not take the file, or one of them failed; or a part of a .tflite
                stays on the CPU.
        """
        key = _key(path)
        if key not in self._emulators:
            try:
                built = self._build(path)
            except InputError as e:  # of this file: the others go on
                raise DeviceError(str(e)) from e
            compiled = built.files[0] if path.suffix.lower() == ".onnx" else self._part_on_npu(path, built)
            self._emulators[key] = self._stack.enter_context(Emulator(compiled, self.chip, self._processes))
        try:
            return self._emulators[key].predict(batch)
        except DeviceError:
            self._emulators.pop(key).close()
            raise

    def compile(self, path: Path, out: Path) -> Compiled:
        """Compile a model file into the folder `out`, which is there: what a phone loads. See `Compiler.compile`."""
        built = self._build(path)
        for source in reversed(built.files):  # what a file names is there before the file
            with atomic_write(out / source.name) as tmp:
                shutil.copyfile(source, tmp)
        files = tuple(out / source.name for source in built.files)
        return Compiled(self.id, files, _tool(path), built.n_operators, built.n_accelerated)

    def __enter__(self) -> "Hexagon":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        self._folder = None
        self._built.clear()
        self._emulators.clear()

    def _build(self, path: Path) -> Built:
        """Return the compiled file; a file is compiled once. Raises as `compile` does."""
        check_file(path, self.chip)
        key = _key(path)
        if key not in self._built:
            if self._folder is None:
                self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="edgenet-qnn-")))
            out = self._folder / f"{len(self._built)}"
            out.mkdir()
            compiler = compile_tflite if path.suffix.lower() == ".tflite" else compile_onnx
            try:
                self._built[key] = compiler(
                    path.resolve(), f"{path.stem}_{self.chip.soc}", self.chip, out, self._timeout_s
                )
            except BaseException:
                shutil.rmtree(out, ignore_errors=True)  # nothing half written is left for the next one
                raise
        return self._built[key]

    def _part_on_npu(self, path: Path, built: Built) -> Path:
        """Return what a compiled .tflite runs on the NPU, as the emulator takes it. Raises DeviceError."""
        if not built.is_whole:
            left = f"{sum(o.n for o in built.left)} of {built.n_operators} operators of {path} stay on the CPU"
            raise DeviceError(
                f"{left}, and the emulator runs a .tflite only where all of it is on the NPU: {_advice(path)}"
            )
        (part,) = read_dispatched(built.files[0].read_bytes())
        emulated = built.files[0].with_name(f"{built.files[0].stem}_part.onnx")
        as_onnx(part, emulated)
        return emulated

    def _estimate(self, id: str, path: Path) -> Estimate:
        built = self._build(path)
        warnings = []
        n_left = built.n_operators - built.n_accelerated
        if built.n_accelerated == 0:
            warnings.append(Warning("nothing-accelerated", f"no operator runs on the NPU: {_advice(path)}"))
        elif n_left:
            text = f"{n_left} operators run on the CPU, whose time is not in the estimate: {_advice(path)}"
            warnings.append(Warning("left-to-cpu", text, n_left))
        timed = built.inference_ms is not None and built.n_accelerated > 0
        return Estimate(
            artifact=id,
            device=self.id,
            tool=_tool(path),
            basis=_basis(path, self.chip, built),
            n_operators=built.n_operators,
            n_accelerated=built.n_accelerated,
            left=built.left,
            cycles=built.cycles if timed else None,
            inference_ms=built.inference_ms if timed else None,
            artifact_sha256=sha256_of(path),
            settings={"soc": self.chip.soc, "hexagon": self.chip.hexagon, "vtcm_bytes": self.chip.vtcm_bytes},
            warnings=tuple(warnings),
            inference_bounds_ms=built.inference_bounds_ms if timed else None,
            compiled_bytes=built.size_bytes,
            memory_bytes=built.moved_bytes,
        )


def check_file(path: Path, chip: Chip) -> Inspection:
    """Return what the file is.

    Raises:
        InputError: it is none that is compiled for a Hexagon, or would give wrong answers there.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path} is no {' or '.join(SUFFIXES)} file, and only those are compiled for a Hexagon")
    found = inspect(path)
    if {DISPATCH, "EPContext"} & set(found.operators):
        raise InputError(f"{path} is compiled already: give the file that it was compiled from")
    if any("int16x8" in kinds for kinds in found.operators.values()):
        raise InputError(
            f"{path} has 16-bit activations, and QNN {packages.qnn_version()} computes wrong answers from them on a "
            "Hexagon: export it with --precision int8"
        )
    if any(d < 1 for t in found.inputs for d in t.shape):
        raise InputError(f"{path} leaves a dimension of its input open, and {chip.soc}'s NPU takes only fixed shapes")
    return found


def _advice(path: Path) -> str:
    found = inspect(path)
    if found.precision != "int8":
        return f"its precision is {found.precision}, export it with --precision int8 --io uint8"
    if any(t.dtype == "float32" for t in (*found.inputs, *found.outputs)):
        return "export it with --io uint8, which leaves no float32 at its ends"
    return "the table has the reason for each"


def _basis(path: Path, chip: Chip, built: Built) -> str:
    if built.inference_ms is not None:
        unpriced = f"; {built.unpriced} operators have no costs in it" if built.unpriced else ""
        return f"compiled by QNN; cycles and time are its estimate for {chip.soc}, not measured{unpriced}"
    if path.suffix.lower() == ".tflite":
        return "compiled by QNN; LiteRT's plugin asks it for no time (for some chips the .onnx gets one)"
    return f"compiled by QNN, which estimates no time for {chip.soc}"


def _tool(path: Path) -> str:
    package = packages.LITERT_PACKAGE if path.suffix.lower() == ".tflite" else packages.PACKAGE
    return f"QNN {packages.qnn_version()}, {package} {packages.version(package)}"


def _key(path: Path) -> tuple[str, str]:
    return path.stem, sha256_of(path)
