"""Rockchip's NPUs, `rknn:CHIP`: what rknn-toolkit2 compiles of an .onnx file, and what its simulator answers.

Nothing runs on a chip: layers, cycles and memory are the compiler's, so the result is an `Estimate`. The simulator
computes in the integers of the file, and the same for every chip: it shows what quantization costs on Rockchip's NPUs,
not how one chip differs from another. The toolkit lives in an environment of its own (environment.py).
https://github.com/airockchip/rknn-toolkit2
"""

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.device_bench import runner
from edgenet.device_bench.device import Compiled, Progress, Request, check_only_compiles, estimate_each
from edgenet.device_bench.rknn import environment
from edgenet.device_bench.rknn.adapt import adapt
from edgenet.device_bench.rknn.compiler_log import CompilerLog, parse_log
from edgenet.device_bench.tool import confined, run_tool
from edgenet.device_bench.worker import CONFINED, Launch, Worker
from edgenet.errors import DeviceError, InputError, MissingDependency
from edgenet.files import atomic_write, sha256_of
from edgenet.results import CompiledLayer, Estimate, Failure, LeftOperators, Warning

CHIPS = (
    "RK3588", "RK3576", "RK3568", "RK3566", "RK3562", "RV1126B", "RV1106", "RV1106B", "RV1103", "RV1103B",
)  # fmt: skip
# Chips that the toolkit names, and that edgenet refuses, each with the reason.
_REFUSED = {"RK2118": "rknn-toolkit2 2.5.0 aborts when it compiles an int8 image network for it"}
TIMEOUT_S = 1800.0
BASIS = (
    "compiled by rknn-toolkit2; layers, cycles and memory are those of its compiler, not measured, and it gives cycles "
    "for convolutions only and no time"
)
_MAGIC = b"RKNN"
_REMEDIES = {
    InputError: "give an int8 .onnx, as `edgenet export --format onnx --precision int8 --io uint8` writes it",
    MissingDependency: f"run `{environment.COMMAND}` once",
    DeviceError: f"run it again; if it fails again, `{environment.COMMAND}` mends the environment",
}


def find() -> list[dict[str, Any]]:
    """Return the devices of this kind that can be compiled for: one, where the environment is."""
    if (found := environment.find()) is None:
        return []
    name = f"compiles and simulates; CHIP is one of {', '.join(CHIPS)}"
    return [{"id": f"rknn:{CHIPS[0]}", "kind": "rknn", "name": name, "runtimes": {environment.PACKAGE: found.version}}]


def open_device(address: str) -> "Rknn":
    """Return the compiler and simulator for a chip, `RK3588` say.

    Raises:
        InputError: no such chip.
        MissingDependency: the environment is not there; the message has the command that makes it.
    """
    chip = address.upper()
    if chip in _REFUSED:
        raise InputError(f"rknn:{address} is not to be had: {_REFUSED[chip]} (valid: {', '.join(CHIPS)})")
    if chip not in CHIPS:
        raise InputError(f"unknown Rockchip chip '{address}' (valid: {', '.join(CHIPS)})")
    return Rknn(chip, environment.require(f"the device rknn:{chip}"))


class Rknn:
    """rknn-toolkit2 for one chip."""

    kind = "rknn"

    def __init__(self, chip: str, python: environment.Environment, timeout_s: float = TIMEOUT_S) -> None:
        self.id, self.chip, self._environment, self._timeout_s = f"{self.kind}:{chip}", chip, python, timeout_s
        self._open = ExitStack()
        self._workers: dict[str, Worker] = {}

    @property
    def tool(self) -> str:
        return f"{environment.PACKAGE} {self._environment.version}"

    def info(self) -> dict[str, Any]:
        """Return what is compiled for and by what. The simulator answers the same for every chip."""
        return {
            "accelerator": self.chip,
            "machine": "Rockchip NPUs",
            "tool": self.tool,
            "emulator": f"{self.tool} simulator, the same for every chip",
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
        """Return (N, classes) float32 for (N, H, W, 3) of what the file takes, as the simulator computes it.

        Raises:
            InputError: the toolkit does not take the file, or the batch does not fit it.
            DeviceError: the toolkit crashed or hung.
        """
        key = sha256_of(path) if path.is_file() else ""
        if key not in self._workers:
            folder = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="edgenet-rknn-")))
            model = adapt(path, folder / "model.onnx")
            command = [str(self._environment.interpreter), "-I", runner.__file__, "--runtime", str(_toolkit())]
            command += [*CONFINED, "--writes", str(folder)]
            worker = Worker(
                model, runtime="rknn", delegate=self.chip.lower(), launch=Launch(command, str(path)),
                timeout_s=self._timeout_s,
            )  # fmt: skip
            self._workers[key] = self._open.enter_context(worker)
        try:
            return self._workers[key].predict(batch)
        except DeviceError:
            self._workers.pop(key).close()
            raise

    def compile(self, path: Path, out: Path) -> Compiled:
        """Compile an .onnx file into `out`, as NAME.rknn.

        Raises:
            InputError: the toolkit does not take the file for this chip.
            DeviceError: it crashed, hung, or wrote half a file.
        """
        ready = out / f"{path.stem}_{self.chip.lower()}.rknn"
        with atomic_write(ready) as part:
            log = self._compile(path, part)
        n_left = sum(layer.target != "NPU" for layer in log.layers)
        return Compiled(self.id, (ready,), self.tool, len(log.layers), len(log.layers) - n_left)

    def __enter__(self) -> "Rknn":
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()
        self._workers.clear()

    def _estimate(self, id: str, path: Path) -> Estimate:
        with tempfile.TemporaryDirectory(prefix="edgenet-rknn-") as folder:
            ready = Path(folder) / "model.rknn"
            log = self._compile(path, ready)
            return make_estimate(id, self.id, self.tool, log, ready.stat().st_size, sha256_of(path))

    def _compile(self, path: Path, ready: Path) -> CompilerLog:
        """Write the compiled file to `ready`, which is whole then; return what the compiler printed."""
        with tempfile.TemporaryDirectory(prefix="edgenet-rknn-") as folder:
            model, made = adapt(path, Path(folder) / "model.onnx"), Path(folder) / "made.rknn"
            python = str(self._environment.interpreter)
            command = [python, "-I", str(_toolkit()), str(model), self.chip.lower(), str(made)]
            log = run_tool(environment.PACKAGE, confined(command, Path(folder)), self._timeout_s)
            try:
                said = json.loads(made.with_name(f"{made.name}.json").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                raise DeviceError(f"{environment.PACKAGE} ended without a word on {path}") from None
            if "refused" in said:
                raise InputError(f"{environment.PACKAGE} does not compile {path} for {self.chip}: {said['refused']}")
            parsed = parse_log(log)
            content = made.read_bytes() if made.is_file() else b""
            if not content.startswith(_MAGIC) or len(content) < parsed.weight_bytes // 2:
                raise DeviceError(f"{environment.PACKAGE} says that it compiled {path} and wrote no whole file")
            ready.write_bytes(content)
        return parsed


def make_estimate(id: str, device: str, tool: str, log: CompilerLog, compiled_bytes: int, sha256: str) -> Estimate:
    """Return the estimate that the compiler's log amounts to. Layers are counted as the compiler fused them."""
    left = Counter((layer.kind, layer.why) for layer in log.layers if layer.target != "NPU")
    n_left, n = left.total(), len(log.layers)
    text = f"{n_left} layers run on the CPU, whose time is not in the estimate"
    return Estimate(
        artifact=id,
        device=device,
        tool=tool,
        basis=BASIS,
        n_operators=n,
        n_accelerated=n - n_left,
        left=tuple(LeftOperators(k, c, why) for (k, why), c in sorted(left.items(), key=lambda x: (-x[1], x[0]))),
        cycles=sum(layer.cycles for layer in log.layers) or None,
        artifact_sha256=sha256,
        settings={"layers_without_cycles": sum(not layer.cycles for layer in log.layers)},
        warnings=(Warning("left-to-cpu", text, n_left),) if left else (),
        compiled_bytes=compiled_bytes,
        memory_bytes={"activations": log.internal_bytes, "weights": log.weight_bytes},
        layers=tuple(CompiledLayer(x.name, x.kind, x.target, x.dtype, x.cycles, x.moved_bytes) for x in log.layers),
    )


def _toolkit() -> Path:
    return Path(str(resources.files(__package__) / "toolkit.py"))
