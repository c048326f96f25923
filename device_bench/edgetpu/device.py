"""Coral's Edge TPU, `edgetpu`: what its compiler maps, and how long the compiled file takes where there is a stick.

Three levels, and each result says which one it is:

    edgetpu_compiler and a stick    compiled, and measured on the stick
    edgetpu_compiler alone          compiled: which operators it maps, and why not the others
    neither                         a static check of the operators against the documented list, nothing more

The list of operators and what each demands stands in edgenet/targets.py.
https://coral.ai/docs/edgetpu/models-intro/ and https://coral.ai/docs/edgetpu/compiler/
"""

import ctypes.util
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.device_bench import timing
from edgenet.device_bench.device import Progress, Request
from edgenet.device_bench.edgetpu.compiler_log import Mapping, parse_log
from edgenet.device_bench.edgetpu.operator_check import check
from edgenet.device_bench.tool import confined, run_tool
from edgenet.device_bench.worker import Worker
from edgenet.errors import DeviceError, EdgenetError, InputError
from edgenet.export.foreign.ask import read_tflite_apart
from edgenet.export.inspect import inspect
from edgenet.export.runtime import EDGE_TPU_LIBRARY, EDGE_TPU_OPERATOR
from edgenet.files import sha256_of
from edgenet.results import Estimate, Failure, LeftOperators, Measurement

COMPILER = "edgetpu_compiler"
TIMEOUT_S = 600.0
_USB, _PCIE = Path("/sys/bus/usb/devices"), Path("/dev")
# Vendor and product of the USB stick: before libedgetpu has loaded its firmware, and after.
_STICKS = {("1a6e", "089a"), ("18d1", "9302")}
_COMPILED = "compiled by edgetpu_compiler; what it maps runs on the Edge TPU. It gives no time"
_CHECKED = (
    "only a static check of the operators against Coral's documented list; edgetpu_compiler decides, and may differ"
)
_REMEDIES = {
    InputError: "give an int8 .tflite, as `edgenet export --target coral --precision int8 --io uint8` writes it",
    DeviceError: "see docs/accelerators.md on edgetpu_compiler, libedgetpu and the stick",
}


def find() -> list[dict[str, Any]]:
    """Return the device, where its compiler or a stick is there."""
    compiler, stick = shutil.which(COMPILER), find_stick()
    if compiler is None and stick is None:
        return []
    name = f"Edge TPU at {stick}" if stick else "Edge TPU, compiler only: no stick is plugged in"
    return [
        {
            "id": "edgetpu",
            "kind": "edgetpu",
            "name": name,
            "runtimes": {"edgetpu_compiler": "found"} if compiler else {},
        }
    ]


def open_device(address: str = "") -> "EdgeTpu":
    """Return the device. It takes no address.

    Raises:
        InputError: one was given.
    """
    if address:
        raise InputError(f"edgetpu takes no address, was given '{address}': write --device edgetpu")
    return EdgeTpu()


def find_stick(usb: Path = _USB, pcie: Path = _PCIE) -> str | None:
    """Return where an Edge TPU is attached, None where none is."""
    for device in sorted(usb.glob("*")) if usb.is_dir() else []:
        ids = tuple(_read(device / name) for name in ("idVendor", "idProduct"))
        if ids in _STICKS:
            return f"USB {device.name}"
    return next((str(p) for p in sorted(pcie.glob("apex_*"))), None)


class EdgeTpu:
    """The compiler and the stick, as far as they are there."""

    id = kind = "edgetpu"

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._compiler, self._stick = shutil.which(COMPILER), find_stick()
        self._files = ExitStack()
        self._folder: Path | None = None

    def info(self) -> dict[str, Any]:
        """Return what is there of the compiler, the library and the stick; None for what is not."""
        library = ctypes.util.find_library("edgetpu")
        return {"compiler": self._compiler, "stick": self._stick, "library": library, "measures": bool(self._stick)}

    def bench(
        self, artifacts: Sequence[tuple[str, Path]], request: Request, progress: Progress | None = None
    ) -> tuple[list[Measurement | Estimate], list[Failure]]:
        """Compile or check each file and, where there is a stick, time those that are compiled against each other.

        Raises:
            InputError: another runtime, another delegate or cores are asked for.
        """
        if request.runtime not in (None, "edgetpu") or request.delegate not in (None, "npu") or request.cores:
            raise InputError("edgetpu has its own runtime: leave out the runtime, the delegate and the cores")
        found: list[Measurement | Estimate] = []
        failures: list[Failure] = []
        compiled: dict[str, Path] = {}
        total = len(artifacts) * (3 + request.plan.max_rounds if self._stick else 1)
        done = 0

        def step(id: str) -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(min(done, total), total, id)

        for id, path in artifacts:
            try:
                estimate, ready = self._map(id, Path(path))
                if estimate is not None:
                    found.append(estimate)
                if ready is not None:
                    compiled[id] = ready
            except EdgenetError as e:
                failures.append(_failure(id, e))
            step(id)
        if self._stick and compiled:
            original = {id: Path(path) for id, path in artifacts}
            measurements, failed = self._time(compiled, original, request, step)
            found += measurements
            failures += failed
        return found, failures

    def predict(self, path: Path, batch: np.ndarray) -> np.ndarray:
        """Return (N, classes) float32 for (N, H, W, 3) of what the file takes, computed on the stick.

        Raises:
            InputError: the batch does not fit the file.
            DeviceError: there is no stick or no compiler, or one of them failed.
        """
        if not self._stick:
            raise DeviceError("no Edge TPU is plugged in: nothing runs; evaluate on `local`, or plug a stick in")
        _, ready = self._map(path.name, path)
        if ready is None:
            raise DeviceError(f"{path} is not compiled and {COMPILER} is not installed: compile it on another machine")
        with self._worker(ready) as worker:
            return worker.predict(batch)

    def __enter__(self) -> "EdgeTpu":
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()
        self._folder = None

    def _map(self, id: str, path: Path) -> tuple[Estimate | None, Path | None]:
        """Return what becomes of the file, and the compiled file where there is one."""
        if path.suffix.lower() != ".tflite":
            raise InputError(f"{path} is no .tflite file, and the Edge TPU runs only those")
        if not path.is_file():
            raise InputError(f"no file {path}: give model files")
        if EDGE_TPU_OPERATOR.encode() in path.read_bytes():
            if not self._stick:
                raise DeviceError(f"{path} is compiled for the Edge TPU already, and none is plugged in to run it")
            return None, path
        checked = check(read_tflite_apart(path))  # refuses a damaged file
        if any(d < 0 for t in inspect(path).inputs for d in t.shape):
            raise InputError(f"{path} leaves a dimension of its input open, and the Edge TPU takes only fixed shapes")
        if self._compiler is None:
            left = Counter((o.kind, o.why) for o in checked if o.why)
            return _estimate(id, "edgenet's list of operators", _CHECKED, len(checked), left, sha256_of(path)), None
        out = self._out(sha256_of(path))
        source = out / "model.tflite"  # a name that is no option, whatever the file is called
        if not source.exists():
            source.symlink_to(path.resolve())
        command = [self._compiler, "-s", "-o", str(out), str(source)]
        # Why it failed is in what it prints.
        log = run_tool(COMPILER, confined(command, out), self._timeout_s, may_fail=True)
        mapping = parse_log(log)
        ready = out / "model_edgetpu.tflite"
        if not ready.is_file():
            raise DeviceError(f"{COMPILER} says that it compiled {path} and wrote no file")
        return _of_log(id, mapping, sha256_of(path)), ready

    def _out(self, name: str) -> Path:
        if self._folder is None:
            self._folder = Path(self._files.enter_context(tempfile.TemporaryDirectory(prefix="edgenet-edgetpu-")))
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        return folder

    def _worker(self, ready: Path) -> Worker:
        try:
            return Worker(ready, 1, "edgetpu")
        except InputError as e:  # the compiler's own file: what does not load is the library's or the stick's fault
            raise DeviceError(f"{e}; {EDGE_TPU_LIBRARY} has to fit the installed LiteRT") from None

    def _time(
        self, compiled: dict[str, Path], original: dict[str, Path], request: Request, step: Any
    ) -> tuple[list[Measurement], list[Failure]]:
        failures: list[Failure] = []
        measurements: list[Measurement] = []
        with ExitStack() as stack:
            workers: dict[str, Worker] = {}
            for id, path in compiled.items():
                try:
                    worker = stack.enter_context(self._worker(path))
                    shape = tuple(max(d, 1) for d in worker.info.input_shape)
                    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
                    integer = worker.info.io_dtype in ("uint8", "int8")
                    worker.set_input(noise if integer else (noise.astype(np.float32) - 127) / 128)
                    workers[id] = worker
                except EdgenetError as e:
                    failures.append(_failure(id, e))
                step(id)
            plan = replace(request.plan, every_run=True)  # the pace beside a run is the CPU's, not the stick's
            traces = timing.measure(workers, plan, time.perf_counter_ns, step)
            for id, trace in traces.items():
                if trace.error is not None:
                    failures.append(_failure(id, trace.error))
                    continue
                memory, info = workers[id].memory(), workers[id].info
                measurements.append(
                    Measurement(
                        artifact=id,
                        device=self.id,
                        runtime=info.runtime,
                        threads=1,
                        samples_ns=tuple(trace.samples_ns),
                        rounds=tuple(trace.rounds),
                        warmup_runs=trace.warmup_runs,
                        peak_rss_bytes=memory.peak_rss_bytes,
                        baseline_rss_bytes=memory.baseline_rss_bytes,
                        artifact_sha256=sha256_of(original[id]),
                        runtime_version=info.version,
                        delegate=info.delegate,
                        device_info=self.info(),
                        warnings=tuple(timing.warnings_of(trace, request.plan)),
                    )
                )
        return measurements, failures


def _of_log(id: str, mapping: Mapping, sha256: str) -> Estimate:
    left = Counter({(kind, why): n for kind, n, why in mapping.left})
    return _estimate(
        id,
        f"edgetpu_compiler {mapping.version}",
        _COMPILED,
        mapping.n_operators,
        left,
        sha256,
        sram_bytes=mapping.on_chip_bytes,
        dram_bytes=mapping.streamed_bytes,
        settings={"subgraphs": mapping.n_subgraphs},
    )


def _estimate(
    id: str, tool: str, basis: str, n: int, left: Counter[tuple[str, str]], sha256: str, **known: Any
) -> Estimate:
    rows = sorted(left.items(), key=lambda row: (-row[1], row[0]))
    return Estimate(
        artifact=id,
        device=EdgeTpu.id,
        tool=tool,
        basis=basis,
        n_operators=n,
        n_accelerated=n - left.total(),
        left=tuple(LeftOperators(kind, count, why) for (kind, why), count in rows),
        artifact_sha256=sha256,
        **known,
    )


def _failure(id: str, e: EdgenetError) -> Failure:
    remedy = next((text for cls, text in _REMEDIES.items() if isinstance(e, cls)), "")
    return Failure("bench", id, EdgeTpu.id, why=str(e), remedy=remedy)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
