"""device_bench/adb: what is measured and computed on a phone, by the real client and server on adb_device.Phone."""

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from edgenet.device_bench.adb import device as adb
from edgenet.device_bench.device import Request
from edgenet.device_bench.timing import Plan
from edgenet.device_bench.worker import Worker
from edgenet.errors import DeviceError, InputError
from edgenet.files import sha256_of
from edgenet.results import Failure, Measurement, Results
from helpers.adb_device import Phone
from helpers.phones import QUICK, Connect, bench, calls, needs_adb, only
from helpers.phones import connect as connect
from helpers.phones import server as server
from helpers.phones import tool as tool

pytestmark = needs_adb

# --------------------------------------------------------------------------------------------------------------- timing


def test_a_measurement_says_what_was_run_where_and_how(
    connect: Connect, tiny_files: dict[str, Path], tool: Path
) -> None:
    phone = connect()
    seen: list[tuple[int, int, str]] = []
    ms, failures = bench(phone, {"a": tiny_files["float32"]}, progress=lambda *step: seen.append(step))
    assert failures == []
    (m,) = ms
    assert (m.artifact, m.device, m.runtime, m.threads) == ("a", f"adb:{phone.address}", "litert", 1)
    assert m.rounds == (0, 1)
    assert all(9.9e6 < s < 10.1e6 for s in m.samples_ns)
    assert (m.delegate, m.load_ms) == ("XNNPACK", 3.337)
    assert (m.peak_rss_bytes, m.baseline_rss_bytes) == (round(19.75 * 2**20), round(8.5 * 2**20))
    assert m.artifact_sha256 == sha256_of(tiny_files["float32"])
    info = m.device_info
    assert (info["name"], info["soc"], info["os"], info["cores"]) == ("Edgenet Test Phone", "SM-TEST", "Android 14", 8)
    assert info["isa"] == ["neon", "fp16", "dotprod"]
    assert info["before"]["battery_c"] == info["after"]["battery_c"] == 28.3
    assert info["before"]["temperatures_c"] == {"cpu-0-0": 41.2, "battery": 28.3, "SKIN": 31.5}
    assert info["before"]["thermal_status"] == 0
    assert info["benchmark_model"]["sha256"] == sha256_of(tool)
    assert info["delegation"]["nodes"] == info["delegation"]["total"] == 9
    assert [(o["kind"], o["inside"]) for o in info["profile"]] == [
        ("TfLiteXNNPackDelegate", False),
        ("Convolution (NHWC, F32) IGEMM", True),
    ]
    assert [c["median_us"] * 1000 for c in info["calls"]] == list(m.samples_ns)
    assert "each of the 2 samples is the median of about 3 runs" in m.warnings[0].text
    assert len(m.warnings) == 1
    assert seen[-1] == (3, 3, "")
    assert [s[2] for s in seen[:-1]] == ["a"] * 3


def test_the_measurement_goes_into_results_and_back(
    connect: Connect, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    ms, _ = bench(connect(), {"a": tiny_files["float32"]})
    Results(measurements=ms).save(tmp_path)
    (back,) = Results.load(tmp_path).measurements
    assert back.samples_ns == ms[0].samples_ns
    assert back.device_info == ms[0].device_info


def test_files_take_turns_in_shuffled_rounds_on_the_fast_cores(connect: Connect, tiny_files: dict[str, Path]) -> None:
    phone = connect()
    phone.tool["latency_us"] = {sha256_of(tiny_files["int8"])[:8]: 5000.0}
    phone.save()
    plan = Plan(min_runs=7, min_time_s=0, rounds=7, max_rounds=7, warmup_s=0.1, seed=3)
    ms, failures = bench(phone, {"a": tiny_files["float32"], "b": tiny_files["int8"]}, Request(threads=4, plan=plan))
    assert failures == []
    assert 4.9 < ms[1].median_ms < 5.1 < 9.9 < ms[0].median_ms < 10.2
    made = calls(phone)
    assert {c["mask"] for c in made} == {"f0"}
    assert ms[0].device_info["pinned_cores"] == [4, 5, 6, 7]
    timed = [c["flags"] for c in made if "enable_op_profiling" not in c["flags"]]
    assert {f["num_threads"] for f in timed} == {"4"}
    assert {f["num_runs"] for f in timed} == {"1"}
    assert len(made) - len(timed) == 2
    rounds = [tuple(f["graph"] for f in timed[i : i + 2]) for i in range(0, 14, 2)]
    assert all(len(set(r)) == 2 for r in rounds)
    assert len(set(rounds)) == 2  # both orders
    assert ms[0].rounds == ms[1].rounds == tuple(range(7))
    assert not [w for m in ms for w in m.warnings if w.code == "cannot-tell"]


def test_equal_files_cannot_be_told_apart(connect: Connect, tiny_files: dict[str, Path]) -> None:
    ms, _ = bench(connect(), {"a": tiny_files["float32"], "b": tiny_files["float16"]})
    assert [w for w in ms[0].warnings if w.code == "cannot-tell" and w.text.startswith("cannot tell it from b")]


@pytest.mark.parametrize(("style", "what"), [("2019", "mean"), ("2021", "mean"), ("litert", "median")])
def test_every_version_of_the_tool_is_understood(
    style: str, what: str, connect: Connect, tiny_files: dict[str, Path]
) -> None:
    phone = connect()
    phone.tool["style"] = style
    phone.save()
    (m,), failures = bench(phone, {"a": tiny_files["float32"]})
    assert failures == []
    assert 9.9 < m.median_ms < 10.2
    assert m.device_info["samples"] == f"{what} of one call of benchmark_model each"
    assert (m.device_info["delegation"]["nodes"], m.delegate) == ((0, "") if style == "2019" else (9, "XNNPACK"))
    assert any("TFLite's own kernels were timed" in w.text for w in m.warnings) == (style == "2019")


def test_a_phone_with_the_old_shell_protocol_and_few_tools_works(connect: Connect, tiny_files: dict[str, Path]) -> None:
    phone = connect(shell_v2=False, missing=("sha256sum", "taskset", "dumpsys", "settings"), clusters=())
    ms, failures = bench(phone, {"a": tiny_files["float32"]})
    assert failures == []
    (m,) = ms
    assert (m.device_info["before"]["battery_percent"], m.device_info["pinned_cores"]) == (None, [])
    assert any("not pinned to the fast cores (it has no taskset)" in w.text for w in m.warnings)
    assert calls(phone)[0]["mask"] is None


def test_two_phones_are_timed_at_once(connect: Connect, tiny_files: dict[str, Path]) -> None:
    phones = [connect(model="One"), connect(model="Two", abis="arm64-v8a")]
    for phone, us in zip(phones, (8000.0, 3000.0), strict=True):
        phone.tool["latency_us"] = {"": us}
        phone.save()
    got: dict[str, tuple[list[Measurement], list[Failure]]] = {}

    def work(phone: Phone) -> None:
        got[phone.model] = bench(phone, {"a": tiny_files["float32"]})

    threads = [threading.Thread(target=work, args=(p,)) for p in phones]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [got[name][1] for name in ("One", "Two")] == [[], []]
    assert [round(got[name][0][0].median_ms) for name in ("One", "Two")] == [8, 3]
    assert got["Two"][0][0].device_info["name"] == "Edgenet Two"


def test_named_cores_are_pinned_to(connect: Connect, tiny_files: dict[str, Path]) -> None:
    phone = connect()
    bench(phone, {"a": tiny_files["float32"]}, Request(cores=(0, 2), plan=QUICK.plan))
    assert {c["mask"] for c in calls(phone)} == {"5"}
    with pytest.raises(InputError, match=r"no core 8 \(valid: 0, 1, 2, 3, 4, 5, 6, 7\)"):
        bench(phone, {"a": tiny_files["float32"]}, Request(cores=(8,), plan=QUICK.plan))
    with pytest.raises(InputError, match="no taskset"):
        bench(connect(missing=("taskset",)), {"a": tiny_files["float32"]}, Request(cores=(1,), plan=QUICK.plan))


def test_a_hot_phone_is_said_to_be_one(connect: Connect, tiny_files: dict[str, Path]) -> None:
    phone = connect()
    phone.file("dumpsys/thermalservice", "Thermal Status: 3\n")
    phone.file("sys/devices/system/cpu/cpu7/cpufreq/scaling_max_freq", "1400000\n")
    (m,), _ = bench(phone, {"a": tiny_files["float32"]})
    assert any("throttling (thermal status 3, severe)" in w.text for w in m.warnings)
    assert any("core 7 was capped at 1.40 of 2.80 GHz" in w.text for w in m.warnings)


# ------------------------------------------------------------------------------------------------------------ delegates


def test_what_a_delegate_left_to_the_cpu_is_said(connect: Connect, tiny_files: dict[str, Path]) -> None:
    phone = connect()
    phone.tool["delegates"] = {"gpu": [7, 9]}
    phone.save()
    (m,), failures = bench(phone, {"a": tiny_files["float32"]}, Request(delegate="gpu", plan=QUICK.plan))
    assert failures == []
    assert m.delegate == "GPU"
    assert "GPU took 7 of 9 nodes; it left CONV_2D 2" in [w.text for w in m.warnings]
    assert m.device_info["delegation"]["left"] == {"CONV_2D": 2}
    assert {c["flags"]["use_gpu"] for c in calls(phone)} == {"true"}
    assert "use_xnnpack" not in calls(phone)[0]["flags"]


@pytest.mark.parametrize(("delegate", "from_call"), [("gpu", 1), ("nnapi", 1), ("gpu", 3)])
def test_a_delegate_that_falls_back_silently_is_a_failure_and_the_other_file_goes_on(
    delegate: str, from_call: int, connect: Connect, tiny_files: dict[str, Path]
) -> None:
    phone = connect()
    only_one = sha256_of(tiny_files["int8"])[:8]
    phone.tool |= {"delegates": {delegate: [0, 9]}, "only": only_one, "from_call": from_call}
    phone.save()
    request = Request(delegate=delegate, plan=QUICK.plan)
    ms, failures = bench(phone, {"a": tiny_files["int8"], "b": tiny_files["float32"]}, request)
    assert [m.artifact for m in ms] == ["b"]
    why = only(failures).why
    assert f"the {delegate.upper()} delegate took no node of this file" in why
    assert ("it refused CONV_2D: Operation is not supported." in why) == (delegate == "gpu")


def test_a_tool_without_the_delegate_is_a_failure(connect: Connect, tiny_files: dict[str, Path]) -> None:
    phone = connect()
    phone.tool |= {"unknown_flags": ["use_gpu"]}
    phone.save()
    ms, failures = bench(phone, {"a": tiny_files["float32"]}, Request(delegate="gpu", plan=QUICK.plan))
    assert ms == []
    assert "this benchmark_model has no --use_gpu" in only(failures).why


# -------------------------------------------------------------------------------------------------------------- outputs


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_phone_computes_what_this_machine_does(
    precision: str, connect: Connect, tiny_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adb, "_PICTURES_A_CALL", 1)
    x = np.random.default_rng(5).normal(size=(2, 20, 20, 3)).astype(np.float32)
    phone = connect()
    with adb.open_device(phone.address) as device, Worker(tiny_files[precision]) as worker:
        got, expected = device.predict(tiny_files[precision], x), worker.predict(x)
        assert device.predict(tiny_files[precision], x[:0]).shape == (0, 5)
        with pytest.raises(InputError, match="takes images of 20 x 20 x 3"):
            device.predict(tiny_files[precision], x[:, :10])
        assert len(os.listdir(phone.root / "data/local/tmp" / phone.folders[0])) == 2  # the tool and the model
    assert got.dtype == np.float32
    assert np.array_equal(got, expected)
    assert phone.folders == []


def test_a_tool_that_cannot_write_outputs_is_said_to_be_too_old(connect: Connect, tiny_files: dict[str, Path]) -> None:
    phone = connect()
    phone.tool["style"] = "2021"
    phone.save()
    x = np.zeros((1, 20, 20, 3), np.float32)
    with adb.open_device(phone.address) as device, pytest.raises(DeviceError, match="too old to write outputs"):
        device.predict(tiny_files["float32"], x)
    assert phone.folders == []


def test_a_users_runner_computes_the_outputs(
    connect: Connect, tiny_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = connect()
    runner = phone.root / "data/local/tmp/my runner"
    # Gives back the first five numbers of the picture, and looks at the model.
    runner.write_text('#!/bin/sh\n[ "$1" = --fast ] || exit 9\n[ -s "$4" ] && exec head -c 20 "$2" > "$3"\n')
    runner.chmod(0o755)
    (phone.root / "bin/head").symlink_to(str(shutil.which("head")))
    monkeypatch.setenv(adb.ENV_RUNNER, "'/data/local/tmp/my runner' --fast")
    x = np.random.default_rng(5).normal(size=(3, 20, 20, 3)).astype(np.float32)
    with adb.open_device(phone.address) as device:
        assert np.array_equal(device.predict(tiny_files["float32"], x), x.reshape(3, -1)[:, :5])
        monkeypatch.setenv(adb.ENV_RUNNER, "true")
        (phone.root / "bin/true").symlink_to(str(shutil.which("true")))
        with pytest.raises(DeviceError, match=r"wrote no .*: it is called as IN OUT MODEL"):
            device.predict(tiny_files["float32"], x)
        monkeypatch.setenv(adb.ENV_RUNNER, "no-such-command")
        with pytest.raises(DeviceError, match=r"EDGENET_ADB_RUNNER ended with exit status 127 .* not found"):
            device.predict(tiny_files["float32"], x)
