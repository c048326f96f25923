"""Arm's Ethos-U microNPUs, `ethos-u:CONFIG`: what Arm's compiler Vela makes of a file, and what it would cost.

Nothing runs: Vela computes cycles from a model of the NPU and of the memories around it, so the result is an
`Estimate`, never a `Measurement`. What Vela leaves goes to the Cortex-M beside the NPU, whose time is not counted.
Answers are computed by tflite-micro's reference kernels in the NPU's place; no NPU was at hand to compare with.
https://gitlab.arm.com/artificial-intelligence/ethos-u/ethos-u-vela
"""

import csv
import importlib.util
import math
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.device_bench.device import Progress, Request, check_only_compiles, estimate_each
from edgenet.device_bench.micro import device as tflite_micro
from edgenet.device_bench.micro.interpreter import NAME
from edgenet.device_bench.tool import confined_module, run_tool
from edgenet.errors import DeviceError, InputError, MissingDependency
from edgenet.export.inspect.tflite import operator_outputs
from edgenet.files import sha256_of
from edgenet.results import Estimate, Failure, LeftOperators, Warning

# Vela's --accelerator-config: the family, and multiply-adds a cycle.
CONFIGS = (
    "ethos-u55-32", "ethos-u55-64", "ethos-u55-128", "ethos-u55-256", "ethos-u65-256", "ethos-u65-512",
    "ethos-u85-128", "ethos-u85-256", "ethos-u85-512", "ethos-u85-1024", "ethos-u85-2048",
)  # fmt: skip
TIMEOUT_S = 600.0
BASIS = "compiled by Vela; cycles and time are its estimate, not measured"
_PACKAGE = "ethos-u-vela"
_SETTINGS = {  # Vela's columns -> ours; its "GB/s" is 2^30 bytes
    "system_config": "system_config",
    "memory_mode": "memory_mode",
    "sram_bandwidth": "sram_gib_per_s",
    "dram_bandwidth": "dram_gib_per_s",
    "off_chip_flash_bandwidth": "flash_gib_per_s",
}
_UNEXPLAINED = "Vela gives no reason"
_REMEDIES = {
    InputError: "give an int8 .tflite, as `edgenet export --precision int8 --io int8` writes it",
    DeviceError: "run `edgenet inspect` on the file; a newer Vela may take it",
    MissingDependency: "install it and run again",
}


def find() -> list[dict[str, Any]]:
    """Return the devices of this kind that can be estimated: one, where Vela is installed."""
    if (version := _vela_version()) is None:
        return []
    name = f"estimates only; CONFIG is one of {', '.join(CONFIGS)}"
    return [{"id": "ethos-u:ethos-u55-256", "kind": "ethos-u", "name": name, "runtimes": {"vela": version}}]


def open_device(address: str) -> "EthosU":
    """Return the estimator for an accelerator configuration, `ethos-u55-256` say.

    Raises:
        InputError: Vela knows no such configuration.
        MissingDependency: Vela is not installed.
    """
    if address not in CONFIGS:
        raise InputError(f"unknown Ethos-U configuration '{address}' (valid: {', '.join(CONFIGS)})")
    if _vela_version() is None:
        raise MissingDependency(_PACKAGE, "ethos-u", f"the device ethos-u:{address}")
    return EthosU(address)


class EthosU:
    """Vela for one accelerator configuration, and tflite-micro for the answers."""

    kind = "ethos-u"

    def __init__(self, config: str, timeout_s: float = TIMEOUT_S) -> None:
        self.id, self.config, self._timeout_s = f"{self.kind}:{config}", config, timeout_s
        self._answers = tflite_micro.Answers(timeout_s)

    def info(self) -> dict[str, Any]:
        """Return what is estimated, and by what."""
        found = {"accelerator": self.config, "tool": f"vela {_vela_version()}", "measures": False}
        if tflite_micro.version() is None:
            return found
        return {**found, "emulator": f"{tflite_micro.emulator()}, not the NPU", "machine": NAME}

    def bench(
        self, artifacts: Sequence[tuple[str, Path]], request: Request, progress: Progress | None = None
    ) -> tuple[list[Estimate], list[Failure]]:
        """Estimate each file. `request.threads` and `request.plan` mean nothing to an NPU that is not there.

        Raises:
            InputError: a runtime, a delegate other than the NPU, or cores are asked for.
        """
        check_only_compiles(self.id, request)
        return estimate_each(self.id, artifacts, self._estimate, _REMEDIES, progress)

    def predict(self, path: Path, batch: np.ndarray) -> np.ndarray:
        """Return (N, classes) float32 for (N, H, W, 3) of what the file takes, as `micro` answers.

        Raises:
            InputError: the batch does not fit the file.
            MissingDependency: tflite-micro is not installed.
            DeviceError: tflite-micro does not run the file, crashed or hung.
        """
        tflite_micro.require(f"answers of {self.id}")
        return self._answers.predict(path, batch)

    def __enter__(self) -> "EthosU":
        return self

    def __exit__(self, *error: object) -> None:
        self._answers.close()

    def _estimate(self, id: str, path: Path) -> Estimate:
        if path.suffix.lower() != ".tflite":
            raise InputError(f"{path} is no .tflite file, and Vela compiles only those")
        if not path.is_file():
            raise InputError(f"no file {path}: give model files")
        operators = operator_outputs(path)  # refuses a damaged file, on which Vela itself would crash
        with tempfile.TemporaryDirectory(prefix="edgenet-vela-") as folder:
            out = Path(folder)
            model = out / "model.tflite"  # a name that is no option and fits into a table, whatever the file is called
            model.symlink_to(path.resolve())
            arguments = [str(model), "--accelerator-config", self.config, "--output-dir", str(out)]
            arguments += ["--show-cpu-operations", "--verbose-performance"]
            log = run_tool("Vela", confined_module("ethosu.vela", arguments, out), self._timeout_s)
            layers, summary = _table(out, "*_per-layer.csv"), _table(out, "*_summary_*.csv")
        if not summary:
            raise DeviceError("Vela wrote no summary")
        return make_estimate(
            id, self.id, f"vela {_vela_version()}", operators, layers, summary[-1], log, sha256_of(path)
        )


def make_estimate(
    id: str,
    device: str,
    tool: str,
    operators: Sequence[tuple[str, str]],
    layers: Sequence[Mapping[str, str]],
    summary: Mapping[str, str],
    log: str,
    sha256: str = "",
) -> Estimate:
    """Return the estimate that Vela's output amounts to.

    Args:
        operators: (kind, name of the output) of the file's own operators. Vela's count is another one, because it
            takes operators apart.
        layers: rows of the per-layer table, which say where each operator goes.
        summary: the last row of the summary table.
        log: what Vela printed, with the reasons.

    Raises:
        DeviceError: the tables lack a column or a number.
    """
    try:
        on_cpu = {row["Name"] for row in layers if row["Target"] == "CPU"}
        why = reasons(log)
        left = Counter((kind, why.get(name, _UNEXPLAINED)) for kind, name in operators if name in on_cpu)
        n_accelerated = len(operators) - left.total()
        kib = {key: float(summary[f"{key}_memory_used"]) for key in ("sram", "dram", "on_chip_flash", "off_chip_flash")}
        clock_hz, cycles = float(summary["core_clock"]), int(float(summary["cycles_total"]))
        seconds = float(summary["inference_time"])
        settings = {ours: _number(summary[key]) for key, ours in _SETTINGS.items() if key in summary}
    except (KeyError, ValueError, TypeError, OverflowError) as e:  # TypeError: a row with too few cells
        raise DeviceError(f"Vela's tables are not those of a version that edgenet knows ({e})") from None
    if not all(math.isfinite(v) for v in (*kib.values(), clock_hz, seconds)):
        raise DeviceError("Vela's summary has numbers that are none")
    if n_accelerated == 0:
        none = Warning("nothing-accelerated", "no operator runs on the NPU: there is nothing to estimate")
        return Estimate(
            id, device, tool, BASIS, len(operators), 0, _sorted(left), artifact_sha256=sha256, settings=settings,
            warnings=(none,),
        )  # fmt: skip
    text = f"{left.total()} operators run on the CPU, whose time is not in the estimate"
    on_the_cpu = Warning("left-to-cpu", text, left.total())
    return Estimate(
        artifact=id,
        device=device,
        tool=tool,
        basis=BASIS,
        n_operators=len(operators),
        n_accelerated=n_accelerated,
        left=_sorted(left),
        cycles=cycles,
        clock_hz=clock_hz,
        inference_ms=seconds * 1e3,
        sram_bytes=round(kib["sram"] * 1024),
        dram_bytes=round(kib["dram"] * 1024),
        flash_bytes=round((kib["on_chip_flash"] + kib["off_chip_flash"]) * 1024),
        artifact_sha256=sha256,
        settings=settings,
        warnings=(on_the_cpu,) if left else (),
    )


def reasons(log: str) -> dict[str, str]:
    """Return output's name -> why its operator stays on the CPU, from what Vela printed.

    A warning is three lines: the operator with its output (`ofm`), the reason, and often what would be valid.
    """
    found: dict[str, str] = {}
    for block in re.split(r"\n\s*\n", log):
        m = re.search(r"Warning \([^)]*\) operator: \S+, ofm: '(.*)'\n(.*)", block, re.DOTALL)
        if m:
            text = "; ".join(line.strip() for line in m[2].splitlines()).removeprefix("Reason:").strip()
            # The tensor's name would make every reason another one; the operator is named beside it.
            found.setdefault(m[1], re.sub(r" \((?!\d)[^()]*\)(?=;|$)", "", text) or _UNEXPLAINED)
    return found


def _sorted(left: Counter[tuple[str, str]]) -> tuple[LeftOperators, ...]:
    return tuple(LeftOperators(kind, n, why) for (kind, why), n in sorted(left.items(), key=lambda x: (-x[1], x[0])))


def _table(folder: Path, pattern: str) -> list[dict[str, str]]:
    files = list(folder.glob(pattern))
    if len(files) != 1:
        raise DeviceError(f"Vela wrote {len(files)} files {pattern}, where one was expected")
    try:
        with open(files[0], newline="", encoding="utf-8", errors="replace") as f:
            return list(csv.DictReader(f))
    except csv.Error as e:
        raise DeviceError(f"Vela wrote a table that is none, {files[0].name} ({e})") from None


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _vela_version() -> str | None:
    try:
        return metadata.version(_PACKAGE) if importlib.util.find_spec("ethosu") else None
    except metadata.PackageNotFoundError:
        return None
