"""What this machine is and how busy: plain values from /proc and /sys, None where the system does not tell."""

import os
import platform
import time
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

_PROC, _SYS_CPU = Path("/proc"), Path("/sys/devices/system/cpu")
# Instruction sets that decide how fast, or how exactly, INT8 and float kernels run: as Linux names them -> as we do.
_ISA = {
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
_RUNTIME_PACKAGES = {
    "litert": ("ai-edge-litert", "tflite-runtime"),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
}
_OTHERS_AT_WORK = 0.10  # cores that other processes may use before it is worth a warning


def runtimes() -> dict[str, str]:
    """Return the installed runtimes, name -> version."""
    found = {}
    for name, packages in _RUNTIME_PACKAGES.items():
        for package in packages:
            try:
                found[name] = metadata.version(package)
                break
            except metadata.PackageNotFoundError:
                continue
    return found


def local_info() -> dict[str, Any]:
    """Return what this machine is and how busy: plain values, None where the system does not tell."""
    return {
        "cpu_model": cpu_model(),
        "isa": _isa(),
        "cores": _cores(),
        "cores_total": os.cpu_count(),
        "governor": _read(_SYS_CPU / "cpu0/cpufreq/scaling_governor"),
        "max_khz": _as_int(_read(_SYS_CPU / "cpu0/cpufreq/cpuinfo_max_freq")),
        "memory_bytes": _memory_bytes(),
        "virtual": "hypervisor" in _cpu_flags(),
        "os": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "load_average": load_average(),
        "python": platform.python_version(),
    }


def machine_warnings(info: Mapping[str, Any], threads: int) -> list[str]:
    found = []
    if threads > info["cores"]:
        found.append(f"{threads} threads on {info['cores']} cores: they wait for each other")
    others, steal = info["other_processes_cores"], info["stolen_cores"]
    if others is not None and others > _OTHERS_AT_WORK:
        found.append(f"other processes used {others:.2f} cores while it was measured")
    if steal is not None and steal > _OTHERS_AT_WORK / 2:
        found.append(f"the hypervisor took away {steal:.2f} cores while it was measured")
    if others is None and info["load_average"] and info["load_average"][0] > 0.5 * info["cores"]:
        found.append(f"the load average was {info['load_average'][0]:.1f} at the start")
    if info["governor"] in ("powersave", "ondemand", "conservative"):
        found.append(f"the CPU governor is {info['governor']}: the clock may change; `performance` keeps it")
    return found


class Busy:
    """How much of the machine's CPU time went to others than us and `pids` since it was made."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = list(pids)
        self._stat, self._ours, self._clock = _stat_jiffies(), _own_and_children(self._pids), time.monotonic()

    def since(self) -> tuple[float | None, float | None]:
        """Return (cores used by other processes, cores that the hypervisor stole); None where nothing tells."""
        stat, seconds = _stat_jiffies(), max(time.monotonic() - self._clock, 1e-3)
        if stat is None or self._stat is None:
            return None, None
        jiffies = os.sysconf("SC_CLK_TCK") * seconds
        others = stat[0] - self._stat[0] - (_own_and_children(self._pids) - self._ours)
        return round(max(others, 0) / jiffies, 3), round((stat[1] - self._stat[1]) / jiffies, 3)


def _own_and_children(pids: Iterable[int]) -> int:
    """Return the jiffies that this process and its children `pids` have used, those that ended too."""
    total = 0
    for pid in [os.getpid(), *pids]:
        stat = _read(_PROC / str(pid) / "stat")
        if stat:
            fields = [int(v) for v in stat.rpartition(")")[2].split()[11:15]]  # utime stime cutime cstime: proc(5)
            total += sum(fields if pid == os.getpid() else fields[:2])  # an ended child's time has moved to ours
    return total


def _stat_jiffies() -> tuple[int, int] | None:
    """Return (busy, stolen) jiffies of all cores since boot."""
    line = (_read(_PROC / "stat") or "").partition("\n")[0].split()
    if len(line) < 9 or line[0] != "cpu":
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(v) for v in line[1:9])
    return user + nice + system + irq + softirq, steal


def cpu_model() -> str:
    for line in (_read(_PROC / "cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Hardware") and value.strip():
            return value.strip()
    board = _read(Path("/proc/device-tree/model"))
    return (board or "").strip("\0 \n") or platform.processor() or platform.machine()


def _cpu_flags() -> set[str]:
    for line in (_read(_PROC / "cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return set(value.split())
    return set()


def _isa() -> list[str]:
    flags = _cpu_flags()
    return list(dict.fromkeys(ours for linux, ours in _ISA.items() if linux in flags))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def load_average() -> list[float] | None:
    try:
        return [round(v, 2) for v in os.getloadavg()]
    except OSError:
        return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _as_int(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
