"""What this machine is and how busy: plain values from /proc and /sys, None where the system does not tell."""

import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgenet.device_bench.describe import ISA, as_int, load_average, memory_bytes, read, runtimes
from edgenet.results import Warning

_PROC, _SYS_CPU = Path("/proc"), Path("/sys/devices/system/cpu")
_THERMAL, _HWMON = Path("/sys/class/thermal"), Path("/sys/class/hwmon")
_SOC, _DEVICE_TREE = Path("/sys/devices/soc0"), Path("/proc/device-tree")
# How the sensors of processors are called: x86, Raspberry Pi and other boards, Android.
_CPU_SENSORS = ("x86_pkg", "coretemp", "k10temp", "zenpower", "cpu", "soc", "tsens")
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD of include/linux/sched.h, in the flags of proc(5)
_HOT_C = 80.0  # boards throttle from here on
_OTHERS_AT_WORK = 0.10  # cores that other processes may use before it is worth a warning


def local_info() -> dict[str, Any]:
    """Return what this machine is and how busy: plain values, None where the system does not tell."""
    return {
        "cpu_model": cpu_model(),
        "soc": _soc(),
        "isa": _isa(),
        "cores": _cores(),
        "cores_total": os.cpu_count(),
        "max_khz": as_int(read(_SYS_CPU / "cpu0/cpufreq/cpuinfo_max_freq")),
        "memory_bytes": memory_bytes(),
        "virtual": "hypervisor" in _cpu_flags(),
        "os": f"{platform.system()} {platform.release()}",
        "os_name": _os_name(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        **state(),
    }


def state() -> dict[str, Any]:
    """Return what may change while it is measured, recorded before and after."""
    return {
        "governor": read(_SYS_CPU / "cpu0/cpufreq/scaling_governor"),
        "mhz": _mhz(),
        "temperature_c": temperature_c(),
        "load_average": load_average(),
        "runtimes": runtimes(),
    }


def pulse() -> dict[str, Any]:
    """Return the clock and the temperature now; cheap enough to be read before every turn."""
    return {"mhz": _mhz(), "temperature_c": temperature_c()}


def temperature_c() -> float | None:
    """Return the temperature of the hottest sensor that is a processor's, in degrees Celsius."""
    zones = [(read(z / "type") or "", as_int(read(z / "temp"))) for z in sorted(_THERMAL.glob("thermal_zone*"))]
    for chip in sorted(_HWMON.glob("hwmon*")):
        name = read(chip / "name") or ""
        zones += [(name, as_int(read(t))) for t in sorted(chip.glob("temp*_input"))]
    found = [m / 1000 for name, m in zones if m and any(word in name.lower() for word in _CPU_SENSORS)]
    return round(max(found), 1) if found else None


def machine_warnings(info: Mapping[str, Any], threads: int, pinned_to: Sequence[int] = ()) -> list[Warning]:
    """Return what speaks against a measurement on a machine that is described so."""
    found = []
    cores = len(pinned_to) or info["cores"]
    if threads > cores:
        text = f"{threads} threads on {cores} core{'s' * (cores != 1)}: they wait for each other"
        found.append(Warning("too-many-threads", text, threads))
    others, steal = info["other_processes_cores"], info["stolen_cores"]
    if others is not None and others > _OTHERS_AT_WORK:
        found.append(Warning("busy", f"other programs used {others:.2f} cores while it was measured", others))
    if steal is not None and steal > _OTHERS_AT_WORK / 2:
        found.append(Warning("stolen", f"the hypervisor took away {steal:.2f} cores while it was measured", steal))
    load = info["load_average"][0] if info["load_average"] else 0.0
    if others is None and load > 0.5 * info["cores"]:
        found.append(Warning("loaded", f"the load average was {load:.1f} at the start", load))
    if info["governor"] in ("powersave", "ondemand", "conservative"):
        text = f"the CPU governor is {info['governor']}: the clock may change; `performance` keeps it"
        found.append(Warning("governor", text))
    after = info.get("after") or {}
    changed = [k for k in ("governor", "runtimes") if k in after and after[k] != info.get(k)]
    if changed:
        found.append(Warning("changed", f"{' and '.join(changed)} changed while it was measured: measure again"))
    clocks = [m for m in (info.get("mhz"), after.get("mhz")) if m]
    if len(clocks) == 2 and clocks[1] < 0.9 * clocks[0]:
        text = f"the clock fell from {clocks[0]:.0f} to {clocks[1]:.0f} MHz while it was measured"
        found.append(Warning("clock-fell", text, clocks[1]))
    hottest = max(
        (t for t in (info.get("temperature_c"), after.get("temperature_c"), info.get("temperature_c_after")) if t),
        default=0.0,
    )
    if hottest >= _HOT_C:
        text = f"the CPU was at {hottest:.0f} °C: it may have slowed down; let it cool, or cool it"
        found.append(Warning("hot", text, hottest))
    throttled = (info.get("throttled") or 0) | (info.get("throttled_after") or 0)
    if throttled & 1:
        text = "the board reported under-voltage: it slows down then; use a stronger power supply"
        found.append(Warning("under-voltage", text))
    if throttled & 0b1110:
        found.append(Warning("throttled", "the board reported a capped or throttled clock while it was measured"))
    return found


class Busy:
    """How much of the machine's CPU time went to others than us since it was made.

    Args:
        pids: returns those of our children that run now.
    """

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids
        self._stat, self._ours, self._clock = _stat_jiffies(), _own_and_children(pids()), time.monotonic()
        self._each = _jiffies_of_all()

    def since(self) -> tuple[float | None, float | None]:
        """Return (cores used by other processes, cores that the hypervisor stole); None where nothing tells."""
        stat, seconds = _stat_jiffies(), max(time.monotonic() - self._clock, 1e-3)
        if stat is None or self._stat is None:
            return None, None
        jiffies = os.sysconf("SC_CLK_TCK") * seconds
        others = stat[0] - self._stat[0] - (_own_and_children(self._pids()) - self._ours)
        return round(max(others, 0) / jiffies, 3), round((stat[1] - self._stat[1]) / jiffies, 3)

    def busiest(self, most: int = 3) -> list[str]:
        """Return the names of the other processes that used most time and run still, the busiest first."""
        ours = {os.getpid(), *self._pids()}
        used = {pid: (n - self._each.get(pid, ("", 0))[1], name) for pid, (name, n) in _jiffies_of_all().items()}
        found = sorted(((n, name) for pid, (n, name) in used.items() if pid not in ours and n > 0), reverse=True)
        return list(dict.fromkeys(name for _, name in found))[:most]


def _jiffies_of_all() -> dict[int, tuple[str, int]]:
    """Return pid -> (name, jiffies used) of all programs that can be seen; threads of the kernel nobody can close."""
    found = {}
    for path in _PROC.glob("[0-9]*/stat"):
        text = read(path)
        if text and ")" in text:
            name, fields = text[text.index("(") + 1 : text.rindex(")")], text.rpartition(")")[2].split()
            if not int(fields[6]) & _KERNEL_THREAD:
                found[int(path.parent.name)] = (name, sum(int(v) for v in fields[11:13]))
    return found


def _own_and_children(pids: Iterable[int]) -> int:
    """Return the jiffies that this process and its children `pids` have used, those that ended too."""
    total = 0
    for pid in [os.getpid(), *pids]:
        stat = read(_PROC / str(pid) / "stat")
        if stat:
            fields = [int(v) for v in stat.rpartition(")")[2].split()[11:15]]  # utime stime cutime cstime: proc(5)
            total += sum(fields if pid == os.getpid() else fields[:2])  # an ended child's time has moved to ours
    return total


def _stat_jiffies() -> tuple[int, int] | None:
    """Return (busy, stolen) jiffies of all cores since boot."""
    line = (read(_PROC / "stat") or "").partition("\n")[0].split()
    if len(line) < 9 or line[0] != "cpu":
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(v) for v in line[1:9])
    return user + nice + system + irq + softirq, steal


def cpu_model() -> str:
    """Return the name of the processor or, where it has none, of the board or the architecture."""
    for line in (read(_PROC / "cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Hardware") and value.strip():
            return value.strip()
    return (read(_DEVICE_TREE / "model") or "").strip("\0 \n") or platform.processor() or platform.machine()


def _soc() -> str | None:
    """Return the system on chip, as a phone or a board tells it: "brcm,bcm2712", "SM8550"."""
    named = [read(_SOC / name) for name in ("machine", "soc_id")]
    compatible = (read(_DEVICE_TREE / "compatible") or "").strip("\0").split("\0")[-1]
    return next((text for text in (*named, compatible) if text), None)


def _os_name() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def _mhz() -> float | None:
    """Return the fastest core's clock now."""
    khz = [as_int(read(p)) for p in _SYS_CPU.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    mhz = [k / 1000 for k in khz if k]
    if not mhz:
        lines = (line.partition(":") for line in (read(_PROC / "cpuinfo") or "").splitlines())
        mhz = [float(value) for key, _, value in lines if key.strip() == "cpu MHz"]
    return round(max(mhz), 1) if mhz else None


def _cpu_flags() -> set[str]:
    for line in (read(_PROC / "cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return set(value.split())
    return set()


def _isa() -> list[str]:
    flags = _cpu_flags()
    return list(dict.fromkeys(ours for linux, ours in ISA.items() if linux in flags))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
