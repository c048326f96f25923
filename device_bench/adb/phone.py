"""What an Android phone says of itself: its parts, and the state that decides how fast it is just now.

Each answer is a section of one shell script, so that a phone is asked in one go. What a phone does not tell is None.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from edgenet.device_bench.describe import ISA
from edgenet.results import Warning

_MARK = "edgenet-section:"
_WHOLE = re.compile("[0-9]{1,15}")
_PER_CORE = 'for f in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/{}; do echo "$f $(cat "$f")"; done'

ABOUT = {
    "model": "getprop ro.product.model",
    "maker": "getprop ro.product.manufacturer",
    "android": "getprop ro.build.version.release",
    "sdk": "getprop ro.build.version.sdk",
    "build": "getprop ro.build.fingerprint",
    "abis": "getprop ro.product.cpu.abilist",
    "abi": "getprop ro.product.cpu.abi",
    "soc": "getprop ro.soc.model",
    "board": "getprop ro.board.platform",
    "kernel": "uname -r",
    "meminfo": "cat /proc/meminfo",
    "cpuinfo": "cat /proc/cpuinfo",
    "online": "cat /sys/devices/system/cpu/online",
    "max_khz": _PER_CORE.format("cpuinfo_max_freq"),
    "governor": _PER_CORE.format("scaling_governor"),
    "taskset": "command -v taskset",
}
STATE = {
    "battery": "dumpsys battery",
    "thermal": "dumpsys thermalservice",
    "zones": 'for z in /sys/class/thermal/thermal_zone*; do echo "$(cat "$z/type") $(cat "$z/temp")"; done',
    "cap_khz": _PER_CORE.format("scaling_max_freq"),
    "clock_khz": _PER_CORE.format("scaling_cur_freq"),
    "load": "cat /proc/loadavg",
    "saver": "settings get global low_power",
}
THERMAL_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")  # Android's PowerManager
_HOT_BATTERY_C, _LOW_BATTERY = 40.0, 20


def script(sections: Mapping[str, str]) -> str:
    """Return the shell script that prints each section under its name."""
    return "\n".join(f"echo; echo {_MARK}{name}; {{ {command}; }} 2>/dev/null" for name, command in sections.items())


def split(text: str) -> dict[str, str]:
    """Return what each section printed."""
    parts = text.split(_MARK)[1:]
    return {name.strip(): body.strip() for name, _, body in (part.partition("\n") for part in parts)}


def about(said: Mapping[str, str]) -> dict[str, Any]:
    """Return what the phone is, from the sections of ABOUT."""
    max_khz = _khz(said.get("max_khz", ""))
    governors = _per_core(said.get("governor", ""))
    memory = re.search(r"MemTotal:\s+(\d{1,15}) kB", said.get("meminfo", ""))
    abis = (said.get("abis") or said.get("abi") or "").split(",")
    cores = _range(said.get("online", "")) or sorted(map(int, max_khz))
    return {
        "name": " ".join(v for v in (said.get("maker"), said.get("model")) if v) or None,
        "soc": said.get("soc") or said.get("board") or None,
        "cpu_model": said.get("soc") or said.get("board") or None,
        "abis": [a for a in abis if a],
        "isa": _isa(said.get("cpuinfo", "")),
        "cores": len(cores) or None,
        "cores_online": cores,
        "max_khz_by_core": max_khz,
        "max_khz": max(max_khz.values(), default=None),
        "governor": ", ".join(sorted(set(governors.values()))) or None,
        "memory_bytes": int(memory[1]) * 1024 if memory else None,
        "os": f"Android {said['android']}" if said.get("android") else None,
        "sdk": int(said["sdk"]) if _WHOLE.fullmatch(said.get("sdk", "")) else None,
        "build": said.get("build") or None,
        "kernel": said.get("kernel") or None,
        "can_pin": bool(said.get("taskset")),
    }


def state(said: Mapping[str, str]) -> dict[str, Any]:
    """Return how the phone is, from the sections of STATE."""
    battery = dict(re.findall(r"^\s*([\w ]+): (\S+)\s*$", said.get("battery", ""), re.MULTILINE))
    level, tenths = battery.get("level", ""), battery.get("temperature", "")
    powered = [key.removesuffix(" powered") for key, v in battery.items() if key.endswith("powered") and v == "true"]
    status = re.search(r"Thermal Status: (\d{1,9})\b", said.get("thermal", ""))
    load = re.findall(r"\b\d{1,6}\.\d{1,6}\b", said.get("load", ""))[:3]
    return {
        "battery_percent": int(level) if _WHOLE.fullmatch(level) else None,
        "battery_c": int(tenths) / 10 if re.fullmatch("-?[0-9]{1,15}", tenths) else None,
        "powered_by": powered if battery else None,
        "battery_saver": {"0": False, "1": True}.get(said.get("saver", "")),
        "thermal_status": int(status[1]) if status else None,
        "temperatures_c": {**_zones(said.get("zones", "")), **_sensors(said.get("thermal", ""))},
        "cap_khz": _khz(said.get("cap_khz", "")),
        "clock_khz": _khz(said.get("clock_khz", "")),
        "load_average": [float(v) for v in load] or None,
    }


def big_cores(max_khz: Mapping[int, int], threads: int) -> tuple[int, ...]:
    """Return the fastest cores, whole clusters of one clock at a time, until there are `threads`; none if not known."""
    chosen: list[int] = []
    for khz in sorted(set(max_khz.values()), reverse=True):
        if len(chosen) >= threads:
            break
        chosen += [core for core, k in max_khz.items() if k == khz]
    return tuple(sorted(chosen))


def mask(cores: Sequence[int]) -> str:
    """Return the hexadecimal mask that taskset takes."""
    return f"{sum(1 << core for core in cores):x}"


def warnings(info: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Warning]:
    """Return what speaks against times that were measured between the two states."""
    found = []
    status = max((s["thermal_status"] or 0 for s in (before, after)), default=0)
    if status:
        name = THERMAL_STATUS[min(status, len(THERMAL_STATUS) - 1)]
        text = f"the phone was throttling (thermal status {status}, {name}): let it cool and measure again"
        found.append(Warning("throttled", text, status))
    hot = max((s["battery_c"] for s in (before, after) if s["battery_c"] is not None), default=0.0)
    if hot >= _HOT_BATTERY_C:
        found.append(Warning("hot-battery", f"the battery was at {hot:.1f} °C: let the phone cool", hot))
    level = after["battery_percent"]
    if level is not None and level < _LOW_BATTERY:
        found.append(Warning("low-battery", f"the battery is at {level} %: phones slow down when it is low", level))
    if before["battery_saver"] or after["battery_saver"]:
        found.append(Warning("battery-saver", "the battery saver is on, which slows the phone down"))
    most: Mapping[str, int] = info["max_khz_by_core"]
    for s, when in ((before, "before"), (after, "after")):
        capped = [c for c, khz in s["cap_khz"].items() if khz < most.get(c, 0)]
        if capped:
            c = max(capped, key=lambda core: most[core])
            ghz = s["cap_khz"][c] / 1e6
            text = f"{when} it was measured, the clock of core {c} was capped at {ghz:.2f} of {most[c] / 1e6:.2f} GHz"
            found.append(Warning("capped-clock", text, ghz))
    return found


def _per_core(text: str) -> dict[str, str]:
    return dict(re.findall(r"/cpu([0-9]{1,4})/cpufreq/\S+ (\S+)", text))


def _khz(text: str) -> dict[str, int]:
    return {core: int(v) for core, v in _per_core(text).items() if _WHOLE.fullmatch(v)}


def _range(text: str) -> list[int]:
    """Parse "0-3,6" as Linux writes lists of cores."""
    out: list[int] = []
    for low, _, high in re.findall(r"\b([0-9]{1,4})(-([0-9]{1,4}))?\b", text):
        out += range(int(low), int(high or low) + 1)
    return out


def _isa(cpuinfo: str) -> list[str]:
    flags = {f for line in re.findall(r"^(?:Features|flags)\s*:(.*)$", cpuinfo, re.MULTILINE) for f in line.split()}
    return list(dict.fromkeys(ours for linux, ours in ISA.items() if linux in flags))


def _zones(text: str) -> dict[str, float]:
    """Parse "TYPE VALUE" lines; a value of 200 to 999 could be of either unit, and is left out."""
    out = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name and re.fullmatch("-?[0-9]{1,15}", value):
            n = int(value)
            if abs(n) >= 1000 or abs(n) < 200:
                out[name.strip()] = round(n / 1000 if abs(n) >= 1000 else float(n), 1)
    return out


def _sensors(text: str) -> dict[str, float]:
    """Parse what thermalservice reads from the hardware now, not what it remembers; -99.9 is a sensor that is off."""
    _, _, now = text.partition("Current temperatures from HAL:")
    now = now.partition("cooling devices")[0]
    pairs = re.findall(r"mValue=(-?\d{1,9}(?:\.\d{1,9})?),[^}]*?mName=([^,}]+)", now)
    return {name: round(float(value), 1) for value, name in pairs if float(value) > -40}
