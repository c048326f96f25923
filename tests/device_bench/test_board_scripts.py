"""What runs on boards, by itself: what describe.py reads from a system's files, and that Python 3.9 understands all."""

import os
from pathlib import Path

import pytest

from edgenet.device_bench import describe, runner
from edgenet.device_bench.machine import machine_warnings
from edgenet.device_bench.rounds import busy_between
from edgenet.export import runtime


def test_a_raspberry_pi_is_read_from_its_files(tmp_path: Path) -> None:
    files = {
        "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd evtstrm crc32\nCPU part\t: 0xd08\nHardware\t: BCM2835\n",
        "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
        "proc/stat": "cpu  100 0 50 1000 5 0 0 0 0 0\n",
        "etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
        "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1800000\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "600000\n",
        "sys/devices/system/cpu/cpu3/cpufreq/scaling_cur_freq": "1500000\n",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "82770\n",
        "sys/class/thermal/thermal_zone1/type": "battery\n",
        "sys/class/thermal/thermal_zone1/temp": "90000\n",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    info = describe.describe(tmp_path)
    assert info["cpu_model"] == "Raspberry Pi 4 Model B Rev 1.4 (Cortex-A72)"
    assert info["isa"] == ["neon"]
    assert (info["governor"], info["max_khz"], info["clock_khz"]) == ("ondemand", 1800000, 1500000)
    assert (info["temperature_c"], info["throttled"]) == (82.77, 0x50005)
    assert info["os"] == "Debian GNU/Linux 12 (bookworm)"
    hz = os.sysconf("SC_CLK_TCK")
    assert (info["busy_s"], info["stolen_s"]) == (150 / hz, 0)
    words = " ".join(w.text for w in machine_warnings({**info, "other_processes_cores": 0.5, "stolen_cores": 0.2}, 1))
    for word in ("83 °C", "under-voltage", "throttled clock", "0.50 cores", "hypervisor", "governor is ondemand"):
        assert word in words


def test_what_a_system_does_not_tell_is_none(tmp_path: Path) -> None:
    info = describe.describe(tmp_path)
    for key in ("governor", "clock_khz", "temperature_c", "throttled", "busy_s"):
        assert info[key] is None
    assert busy_between(info, info, 0.0) == {"other_processes_cores": None, "stolen_cores": None}


def test_what_others_used_is_what_is_left_of_the_busy_time() -> None:
    before = {"busy_s": 10.0, "stolen_s": 1.0, "uptime_s": 100.0}
    after = {"busy_s": 16.0, "stolen_s": 2.0, "uptime_s": 110.0}
    assert busy_between(before, after, 5.0) == {"other_processes_cores": 0.1, "stolen_cores": 0.1}


@pytest.mark.parametrize("script", [describe.__file__, runner.__file__, runtime.__file__], ids=lambda p: Path(p).name)
def test_what_runs_on_boards_keeps_to_python_3_9(script: str) -> None:
    import ast

    assert ast.parse(Path(script).read_text(encoding="utf-8"), feature_version=(3, 9)).body
