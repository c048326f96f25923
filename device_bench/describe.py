"""What a computer is and how busy: one function, and a script that prints its answer as one line of JSON.

As a script it is fed to a board's Python on standard input, so it needs the standard library alone and keeps to
Python 3.9. Linux tells most; what a system does not tell is None.
"""

from __future__ import annotations

import json
import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

# Instruction sets that decide how fast, or how exactly, INT8 and float kernels run: as Linux names them -> as we do.
ISA = {
    "sse4_2": "sse4_2",
    "fma": "fma",
    "avx2": "avx2",
    "avx512f": "avx512f",
    "avx_vnni": "avx_vnni",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
    "asimd": "neon",
    "neon": "neon",
    "asimdhp": "fp16",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
}
# Arm's cores by the part number in /proc/cpuinfo, which names none (the list: Linux, arch/arm64/include/asm/cputype.h).
_ARM_PARTS = {
    0xC07: "Cortex-A7", 0xC09: "Cortex-A9", 0xC0F: "Cortex-A15", 0xD03: "Cortex-A53", 0xD04: "Cortex-A35",
    0xD05: "Cortex-A55", 0xD07: "Cortex-A57", 0xD08: "Cortex-A72", 0xD09: "Cortex-A73", 0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76", 0xD0C: "Neoverse-N1", 0xD0D: "Cortex-A77", 0xD40: "Neoverse-V1", 0xD41: "Cortex-A78",
    0xD44: "Cortex-X1", 0xD46: "Cortex-A510", 0xD47: "Cortex-A710", 0xD48: "Cortex-X2", 0xD49: "Neoverse-N2",
    0xD4D: "Cortex-A715", 0xD4E: "Cortex-X3", 0xD4F: "Neoverse-V2", 0xD80: "Cortex-A520", 0xD81: "Cortex-A720",
}  # fmt: skip
# The runtimes and the packages that hold them, the preferred one first.
RUNTIME_PACKAGES = {
    "litert": ("ai-edge-litert", "tflite-runtime"),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
}
_CPU_ZONES = ("cpu", "soc", "x86_pkg", "package", "k10temp")  # thermal zones of the CPU have one of these in their type


def describe(root: Path = Path("/")) -> dict[str, Any]:
    """Return what this computer is: plain values that JSON takes.

    `clock_khz` is that of the fastest core now; `temperature_c` the CPU's; `throttled` a Raspberry Pi's own bits
    (1 under-voltage, 2 clock capped, 4 throttled, 8 hot; the same shifted by 16: since it was started); `busy_s` and
    `stolen_s` the CPU seconds of all cores since then, at `uptime_s`.

    Args:
        root: where /proc, /sys and /etc are.
    """
    proc, cpus = root / "proc", root / "sys/devices/system/cpu"
    flags = _cpu_flags(proc)
    busy, stolen = _cpu_seconds(proc)
    clocks = [as_int(read(f)) for f in cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    return {
        "cpu_model": _cpu_model(root),
        "isa": list(dict.fromkeys(ours for linux, ours in ISA.items() if linux in flags)),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "cores_total": os.cpu_count(),
        "governor": read(cpus / "cpu0/cpufreq/scaling_governor"),
        "max_khz": as_int(read(cpus / "cpu0/cpufreq/cpuinfo_max_freq")),
        "clock_khz": max((k for k in clocks if k), default=None),
        "temperature_c": _temperature_c(root / "sys/class/thermal"),
        "throttled": _as_hex(read(root / "sys/devices/platform/soc/soc:firmware/get_throttled")),
        "memory_bytes": memory_bytes(),
        "virtual": "hypervisor" in flags,
        "os": _os_name(root),
        "kernel": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "load_average": load_average(),
        "python": platform.python_version(),
        "runtimes": runtimes(),
        "busy_s": busy,
        "stolen_s": stolen,
        "uptime_s": time.monotonic(),
    }


def runtimes() -> dict[str, str]:
    """Return the runtimes that this Python can import, by name, with their versions."""
    found = {}
    for name, packages in RUNTIME_PACKAGES.items():
        for package in packages:
            try:
                found[name] = metadata.version(package)
                break
            except metadata.PackageNotFoundError:
                continue
    return found


def _cpu_model(root: Path) -> str:
    cores, chip = [], ""
    for line in (read(root / "proc/cpuinfo") or "").splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "model name" and value and not value.startswith("ARMv"):
            return value
        if key == "Hardware":
            chip = value
        if key == "CPU part":
            core = _ARM_PARTS.get(int(value, 16) if value.startswith("0x") else 0)
            if core and core not in cores:
                cores.append(core)
    board = (read(root / "proc/device-tree/model") or "").strip("\0 \n") or chip
    names = " + ".join(cores)
    return f"{board} ({names})" if board and names else board or names or platform.processor() or platform.machine()


def _cpu_flags(proc: Path) -> set[str]:
    for line in (read(proc / "cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return set(value.split())
    return set()


def _cpu_seconds(proc: Path) -> tuple[float | None, float | None]:
    line = (read(proc / "stat") or "").partition("\n")[0].split()
    if len(line) < 9 or line[0] != "cpu":
        return None, None
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(v) for v in line[1:9])
    hz = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / hz, steal / hz


def _temperature_c(thermal: Path) -> float | None:
    zones = []
    for zone in sorted(thermal.glob("thermal_zone*")):
        millidegrees = as_int(read(zone / "temp"))
        if millidegrees is not None:
            kind = (read(zone / "type") or "").lower()
            zones.append((any(word in kind for word in _CPU_ZONES), millidegrees / 1000))
    return max(zones)[1] if zones else None  # of the CPU's zones, or else of all, the hottest


def _os_name(root: Path) -> str:
    for line in (read(root / "etc/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip("\"'")
    return f"{platform.system()} {platform.release()}"


def memory_bytes() -> int | None:
    """Return how much memory there is, None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def load_average() -> list[float] | None:
    """Return the load of the last 1, 5 and 15 minutes, None where the system does not tell."""
    try:
        return [round(v, 2) for v in os.getloadavg()]
    except OSError:
        return None


def read(path: Path) -> str | None:
    """Return what a small file of the system says, None where it is not there."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def as_int(text: str | None) -> int | None:
    """Return the whole number that a text is, None where it is none."""
    return int(text) if text and text.lstrip("-").isdigit() else None


def _as_hex(text: str | None) -> int | None:
    try:
        return int(text, 16) if text else None
    except ValueError:
        return None


if __name__ == "__main__":
    print(json.dumps(describe()))
