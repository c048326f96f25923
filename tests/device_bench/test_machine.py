"""machine.py and rounds.py: what is said of the machine and of who else works on it, and the picture that is timed."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import edgenet.device_bench as device_bench
from edgenet.device_bench import example_picture, local_info, machine, rounds
from edgenet.errors import InputError
from edgenet.results import Warning
from helpers.processes import wait_for


def info_of(io_dtype, input_shape, layout, size_px):
    return device_bench.WorkerInfo(
        runtime="litert", version="1", delegate="", io_dtype=io_dtype, input_shape=input_shape, layout=layout,
        size_px=size_px, output_names=(), output_shape=(), output_dtype="float32", load_ns=0, baseline_rss_bytes=0,
        python="", numpy="",
    )  # fmt: skip


def test_the_example_picture_is_smooth_and_not_flat_and_the_same_each_time():
    picture = example_picture()
    assert picture.shape == (320, 320, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, example_picture())
    assert 30 < picture.std() < 70
    step = np.abs(np.diff(picture.astype(int), axis=1)).mean()
    shuffled = np.random.default_rng(0).permutation(picture.reshape(-1))
    assert step < 0.5 * np.abs(np.diff(shuffled.astype(int))).mean()


@pytest.mark.parametrize(
    ("shape", "layout", "dtype", "expected"),
    [
        ((1, 20, 30, 3), "NHWC", "float32", (1, 20, 30, 3)),
        ((4, 3, 20, 30), "NCHW", "float32", (4, 20, 30, 3)),
        ((-1, 20, 30, 1), "NHWC", "uint8", (1, 20, 30, 1)),
        ((1, 20, 30, 3), "NHWC", "int8", (1, 20, 30, 3)),
    ],
)
def test_the_input_for_timing_has_the_size_and_type_that_the_file_takes(shape, layout, dtype, expected):
    size = (shape[1], shape[2]) if layout == "NHWC" else (shape[2], shape[3])
    info = info_of(dtype, shape, layout, size)
    x = rounds.network_input(example_picture(50), info)
    assert x.shape == expected
    assert x.dtype == (np.float32 if dtype == "float32" else np.uint8)
    assert x.std() > 0.2
    if dtype == "float32":
        assert np.abs(x).max() <= 1


def test_a_file_of_open_size_cannot_be_timed():
    info = info_of("float32", (1, -1, -1, 3), "NHWC", (-1, -1))
    with pytest.raises(InputError, match="no fixed size"):
        rounds.network_input(example_picture(50), info)


def test_the_machine_is_described_in_plain_values():
    import json

    info = local_info()
    assert json.loads(json.dumps(info)) == info
    assert info["cpu_model"]
    assert info["cores"] >= 1
    assert info["memory_bytes"] > 1e8
    assert info["os_name"]
    assert set(info["runtimes"]) == {"litert", "onnxruntime", "openvino"}
    assert set(machine.state()) <= set(info)
    assert set(info["isa"]) <= set(machine.ISA.values())


def test_arm_and_x86_features_are_read_from_cpuinfo(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_PROC", tmp_path)
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nFeatures\t: fp asimd evtstrm asimdhp asimddp i8mm\n\nHardware\t: BCM2712\n")
    assert machine._isa() == ["neon", "fp16", "dotprod", "i8mm"]
    assert machine.cpu_model() == "BCM2712"
    cpuinfo.write_text("model name\t: Some CPU\nflags\t\t: fpu sse4_2 avx2 avx512_vnni amx_int8\n")
    assert machine._isa() == ["sse4_2", "avx2", "avx512_vnni", "amx_int8"]
    assert machine.cpu_model() == "Some CPU"
    (tmp_path / "stat").write_text("cpu  100 10 50 1000 5 3 2 7 0 0\ncpu0 ...\n")
    assert machine._stat_jiffies() == (165, 7)


def test_the_hottest_sensor_of_a_processor_is_read_and_a_batterys_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_THERMAL", tmp_path / "thermal")
    monkeypatch.setattr(machine, "_HWMON", tmp_path / "hwmon")
    assert machine.temperature_c() is None
    for name, kind, temp in (("0", "battery", "99000"), ("1", "cpu-thermal", "61234"), ("2", "soc_max", "55000")):
        zone = tmp_path / "thermal" / f"thermal_zone{name}"
        zone.mkdir(parents=True)
        (zone / "type").write_text(kind + "\n")
        (zone / "temp").write_text(temp + "\n")
    assert machine.temperature_c() == 61.2
    chip = tmp_path / "hwmon" / "hwmon0"
    chip.mkdir(parents=True)
    (chip / "name").write_text("k10temp\n")
    (chip / "temp1_input").write_text("70500\n")
    assert machine.temperature_c() == 70.5


def test_the_clock_is_the_fastest_cores_from_cpufreq_or_cpuinfo(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_PROC", tmp_path)
    monkeypatch.setattr(machine, "_SYS_CPU", tmp_path / "cpu")
    assert machine.pulse()["mhz"] is None
    (tmp_path / "cpuinfo").write_text("cpu MHz\t\t: 2595.1\ncpu MHz\t\t: 2600.4\n")
    assert machine.pulse()["mhz"] == 2600.4
    for core, khz in (("cpu0", "1800000"), ("cpu7", "2840000")):
        (tmp_path / "cpu" / core / "cpufreq").mkdir(parents=True)
        (tmp_path / "cpu" / core / "cpufreq" / "scaling_cur_freq").write_text(khz)
    assert machine.pulse()["mhz"] == 2840


def test_a_board_tells_its_chip(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_SOC", tmp_path / "soc0")
    monkeypatch.setattr(machine, "_DEVICE_TREE", tmp_path)
    assert machine._soc() is None
    (tmp_path / "compatible").write_text("raspberrypi,5-model-b\0brcm,bcm2712\0")
    assert machine._soc() == "brcm,bcm2712"
    (tmp_path / "soc0").mkdir()
    (tmp_path / "soc0" / "machine").write_text("SM8550\n")
    assert machine._soc() == "SM8550"


def test_a_machine_at_work_is_told_in_the_warnings():
    info = {
        "cores": 2,
        "other_processes_cores": 1.2,
        "stolen_cores": 0.3,
        "governor": "powersave",
        "load_average": [3.0, 1.0, 1.0],
    }
    warned = machine.machine_warnings(info, threads=4)
    assert [(w.code, w.value) for w in warned] == [
        ("too-many-threads", 4),
        ("busy", 1.2),
        ("stolen", 0.3),
        ("governor", None),
    ]
    said = [w.text for w in warned]
    assert [w for w in said if "1.20 cores" in w]
    assert [w for w in said if "hypervisor" in w]
    assert [w for w in said if "powersave" in w]
    assert [w for w in said if "4 threads on 2 cores" in w]
    unknown = {**info, "other_processes_cores": None, "stolen_cores": None, "governor": None}
    assert machine.machine_warnings(unknown, threads=1) == [
        Warning("loaded", "the load average was 3.0 at the start", 3.0)
    ]
    quiet = {**info, "other_processes_cores": 0.01, "stolen_cores": 0.0, "governor": "performance"}
    assert machine.machine_warnings(quiet, threads=2) == []


def test_what_changed_while_it_was_measured_is_told():
    before = {"cores": 2, "other_processes_cores": 0.5, "stolen_cores": 0.0, "busiest": ["chromium", "gcc"]}
    before |= {"governor": "performance", "load_average": None, "mhz": 3000.0, "runtimes": {"litert": "1"}}
    after = {"governor": "powersave", "mhz": 2000.0, "runtimes": {"litert": "1"}}
    said = [w.text for w in machine.machine_warnings({**before, "after": after}, threads=1)]
    assert "other programs used 0.50 cores while it was measured" in said
    assert "governor changed while it was measured: measure again" in said
    assert "the clock fell from 3000 to 2000 MHz while it was measured" in said
    assert machine.machine_warnings({**before, "other_processes_cores": 0}, 2, pinned_to=[1])[0].text.startswith(
        "2 threads"
    )


def _write_proc(folder, busy, processes):
    """Write the files of /proc that `machine.Busy` reads: jiffies of all cores, and (name, jiffies) by pid."""
    (folder / "stat").write_text(f"cpu  {busy} 0 0 9999 0 0 0 0 0 0\n")
    for pid, (name, jiffies) in processes.items():
        (folder / str(pid)).mkdir(exist_ok=True)
        (folder / str(pid) / "stat").write_text(f"{pid} ({name}) R 1 1 1 0 -1 0 0 0 0 0 {jiffies} 0 0 0 20 0\n")


def test_what_others_used_is_what_all_used_less_ours(tmp_path, monkeypatch):
    clock = iter([100.0, 102.0])
    monkeypatch.setattr(machine, "_PROC", tmp_path)
    monkeypatch.setattr(machine, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    me, tick = os.getpid(), os.sysconf("SC_CLK_TCK")
    _write_proc(tmp_path, 1000, {me: ("pytest", 10), 7: ("child", 0), 8: ("idle", 5), 9: ("my (gcc)", 50)})
    busy = machine.Busy(lambda: [7])
    used = {me: ("pytest", 10 + tick), 7: ("child", tick), 8: ("idle", 5), 9: ("my (gcc)", 50 + tick // 2)}
    _write_proc(tmp_path, 1000 + 2 * tick + tick // 2, used)
    assert busy.busiest() == ["my (gcc)"]
    assert busy.since() == (0.25, 0.0)  # half a second of two


def test_a_process_at_work_is_found_by_its_name():
    busy = machine.Busy(lambda: [])
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        wait_for(lambda: any("python" in name for name in busy.busiest()))
        assert len(busy.busiest(most=1)) == 1
    finally:
        child.kill()
        child.wait()


def test_the_package_names_all_that_it_exports():
    assert sorted(device_bench.__all__) == device_bench.__all__
    assert all(hasattr(device_bench, name) for name in device_bench.__all__)
    assert all(getattr(device_bench, name).__doc__ for name in device_bench.__all__)


def test_a_thread_of_the_kernel_is_no_program_to_close(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_PROC", tmp_path)
    for pid, name, flags in ((5, "kworker/0:1", 0x04208060), (6, "gcc", 0x00400000)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} ({name}) R 1 1 1 0 -1 {flags} 0 0 0 0 7 0 0 0 20 0\n")
    assert machine._jiffies_of_all() == {6: ("gcc", 7)}
