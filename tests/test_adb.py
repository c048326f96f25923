"""adb.py: the real adb client and server against adb_device.Phone, with what goes wrong with phones.

The server is this module's own, on a port and with keys of its own; a user's is never touched.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import adb_device
import numpy as np
import pytest
from adb_device import Phone

from edgenet.device_bench import adb, adb_link, adb_timing
from edgenet.device_bench.adb_link import Listed, parse_devices, run_adb
from edgenet.device_bench.benchmark_binary import ENV
from edgenet.device_bench.device import Request
from edgenet.device_bench.timing import Plan
from edgenet.device_bench.worker import Worker
from edgenet.errors import DeviceError, InputError, MissingDependency
from edgenet.results import Failure, Measurement, Results, sha256_of

pytestmark = pytest.mark.skipif(shutil.which("adb") is None, reason="needs adb: apt-get install adb")

QUICK = Request(plan=Plan(min_runs=6, min_time_s=0.01, rounds=2, max_rounds=2, warmup_s=0.1))
Connect = Callable[..., Phone]


def answers(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An adb server of this module's own."""
    home = tmp_path_factory.mktemp("home")
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        # The last: look for no emulators, which are somebody else's.
        for name, value in (("ANDROID_ADB_SERVER_PORT", port), ("HOME", home), ("TMPDIR", home)):
            patch.setenv(name, str(value))
        patch.setenv("ADB_LOCAL_TRANSPORT_MAX_PORT", "5554")
        patch.delenv("ANDROID_SERIAL", raising=False)
        patch.delenv("ADB_SERVER_SOCKET", raising=False)
        # In the foreground, and ended by the kernel with this process, however that ends.
        process = subprocess.Popen(
            ["adb", "nodaemon", "server"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL),  # PR_SET_PDEATHSIG
        )
        try:
            deadline = time.monotonic() + 30
            while not answers(port):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield
        finally:
            process.kill()
            process.wait()


@pytest.fixture(autouse=True)
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A benchmark_model for 64-bit Arm, named by the environment."""
    path = tmp_path / "benchmark model's"
    path.write_bytes(adb_device.elf("arm64-v8a"))
    monkeypatch.setenv(ENV, str(path))
    monkeypatch.delenv(adb.ENV_RUNNER, raising=False)
    return path


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    """Make a phone and connect adb to it."""
    made: list[Phone] = []

    def make(**options: Any) -> Phone:
        phone = Phone(tmp_path / f"phone{len(made)}", **options)
        made.append(phone)
        reply = run_adb("connect", phone.address)
        assert reply.out.startswith("connected" if phone.authorized else "failed to authenticate"), reply
        return phone

    yield make
    for phone in made:
        phone.unplug()
        with contextlib.suppress(DeviceError):
            run_adb("disconnect", phone.address)


def bench(
    phone: Phone | str, files: dict[str, Path], request: Request = QUICK, **options: Any
) -> tuple[list[Measurement], list[Failure]]:
    with adb.open_device(phone if isinstance(phone, str) else phone.address) as device:
        return device.bench(list(files.items()), request, **options)


def calls(phone: Phone) -> list[dict[str, Any]]:
    path = phone.root / "calls.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def only(failures: list[Failure], id: str = "a") -> Failure:
    """The one failure, which is a line without a traceback and says what to do."""
    (failure,) = failures
    assert (failure.stage, failure.what) == ("bench", id)
    assert failure.remedy
    for text in (failure.why, failure.remedy):
        assert "\n" not in text
        assert "Traceback" not in text
    return failure


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
    assert "each of the 2 samples is the median of about 3 runs" in m.warnings[0]
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
    assert not [w for m in ms for w in m.warnings if "cannot tell" in w]


def test_equal_files_cannot_be_told_apart(connect: Connect, tiny_files: dict[str, Path]) -> None:
    ms, _ = bench(connect(), {"a": tiny_files["float32"], "b": tiny_files["float16"]})
    assert [w for w in ms[0].warnings if w.startswith("cannot tell it from b")]


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
    assert any("TFLite's own kernels were timed" in w for w in m.warnings) == (style == "2019")


def test_a_phone_with_the_old_shell_protocol_and_few_tools_works(connect: Connect, tiny_files: dict[str, Path]) -> None:
    phone = connect(shell_v2=False, missing=("sha256sum", "taskset", "dumpsys", "settings"), clusters=())
    ms, failures = bench(phone, {"a": tiny_files["float32"]})
    assert failures == []
    (m,) = ms
    assert (m.device_info["before"]["battery_percent"], m.device_info["pinned_cores"]) == (None, [])
    assert any("not pinned to the fast cores (it has no taskset)" in w for w in m.warnings)
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
    assert any("throttling (thermal status 3, severe)" in w for w in m.warnings)
    assert any("core 7 was capped at 1.40 of 2.80 GHz" in w for w in m.warnings)


# ------------------------------------------------------------------------------------------------------------ delegates


def test_what_a_delegate_left_to_the_cpu_is_said(connect: Connect, tiny_files: dict[str, Path]) -> None:
    phone = connect()
    phone.tool["delegates"] = {"gpu": [7, 9]}
    phone.save()
    (m,), failures = bench(phone, {"a": tiny_files["float32"]}, Request(delegate="gpu", plan=QUICK.plan))
    assert failures == []
    assert m.delegate == "GPU"
    assert "GPU took 7 of 9 nodes; it left CONV_2D 2" in m.warnings
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


# --------------------------------------------------------------------------------------------------------------- faults


def test_an_unauthorized_phone_is_a_failure_for_each_file(connect: Connect, tiny_files: dict[str, Path]) -> None:
    phone = connect(authorized=False)
    ms, failures = bench(phone, {"a": tiny_files["float32"], "b": tiny_files["int8"]})
    assert ms == []
    assert [f.what for f in failures] == ["a", "b"]
    assert "device unauthorized" in failures[0].why
    assert "allow USB debugging" in failures[0].remedy


def test_an_offline_phone_is_a_failure(tmp_path: Path, tiny_files: dict[str, Path]) -> None:
    phone = Phone(tmp_path / "phone", silent=True)
    waiting = subprocess.Popen(["adb", "connect", phone.address], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while phone.address not in run_adb("devices").out:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        _, failures = bench(phone, {"a": tiny_files["float32"]})
    finally:
        waiting.kill()  # only the client: it would wait for ten seconds
        waiting.wait()
        phone.unplug()
        run_adb("disconnect", phone.address)
    assert "device offline" in only(failures).why
    assert "plug the phone in again" in failures[0].remedy


def test_a_phone_that_is_not_there_is_a_failure(tiny_files: dict[str, Path]) -> None:
    _, failures = bench("no-such-phone", {"a": tiny_files["float32"]})
    assert only(failures).why == "adb:no-such-phone: device 'no-such-phone' not found"
    assert "`edgenet devices` lists" in failures[0].remedy


def test_two_phones_of_one_serial_are_a_failure(connect: Connect, tiny_files: dict[str, Path]) -> None:
    connect(), connect()
    _, failures = bench("127.0.0.1", {"a": tiny_files["float32"]})  # the name of both: adb looks at the host alone
    assert "more than one device" in only(failures).why
    assert "unplug all but one" in failures[0].remedy


def test_a_phone_that_is_unplugged_in_a_push_fails_and_the_other_phone_goes_on(
    connect: Connect, tiny_files: dict[str, Path]
) -> None:
    broken, whole = connect(), connect()
    broken.unplug_after_bytes = 2000
    _, failures = bench(broken, {"a": tiny_files["float32"], "b": tiny_files["int8"]})
    assert [f.what for f in failures] == ["a", "b"]
    assert all("\n" not in f.why for f in failures)
    ms, failures = bench(whole, {"a": tiny_files["float32"]})
    assert (len(ms), failures) == (1, [])


def test_a_phone_that_is_unplugged_in_a_run_fails_and_what_was_whole_is_not_lost_elsewhere(
    connect: Connect, tiny_files: dict[str, Path]
) -> None:
    phone = connect()
    phone.unplug_at_run = 4  # two first calls, then the rounds
    ms, failures = bench(phone, {"a": tiny_files["float32"], "b": tiny_files["int8"]})
    assert ms == []
    assert {f.what for f in failures} == {"a", "b"}
    assert any("lost before the command ended" in f.why or "not found" in f.why or "offline" in f.why for f in failures)


def test_a_full_disk_is_a_failure_and_the_folder_is_removed(connect: Connect, tiny_files: dict[str, Path]) -> None:
    phone = connect()
    tool_bytes = len(adb_device.elf("arm64-v8a"))
    small, large = tiny_files["int8"], tiny_files["float32"]
    phone.disk_bytes = tool_bytes + small.stat().st_size
    ms, failures = bench(phone, {"a": large, "b": small})
    assert ms == []  # what is full stays full for the second file
    assert [f.what for f in failures] == ["a", "b"]
    assert "No space left on device" in failures[0].why
    assert "free space" in failures[0].remedy
    assert phone.folders == []


def test_a_tool_for_another_processor_is_refused_before_anything_is_pushed(
    connect: Connect, tool: Path, tiny_files: dict[str, Path]
) -> None:
    tool.write_bytes(adb_device.elf("x86_64"))
    phone = connect()
    _, failures = bench(phone, {"a": tiny_files["float32"]})
    assert "the phone runs arm64-v8a, armeabi-v7a, armeabi and" in only(failures).why
    assert "is for x86_64" in failures[0].why
    assert phone.pushes == []


def test_a_32_bit_tool_on_a_64_bit_phone_runs_and_is_said(
    connect: Connect, tool: Path, tiny_files: dict[str, Path]
) -> None:
    tool.write_bytes(adb_device.elf("armeabi-v7a"))
    (m,), failures = bench(connect(), {"a": tiny_files["float32"]})
    assert failures == []
    assert "a benchmark_model for armeabi-v7a ran on a phone whose first ABI is arm64-v8a" in m.warnings


def test_without_a_tool_the_request_is_refused(
    connect: Connect, tiny_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENV)
    with pytest.raises(InputError, match=f"no benchmark_model: .*set {ENV}"):
        bench(connect(), {"a": tiny_files["float32"]})


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"cut": "INFO: Inference timings"}, "no summary at its end"),
        ({"cut": "count="}, "ends before the timed runs do"),
        ({"crash": "SIGSEGV"}, "was killed by SIGSEGV"),
        ({"crash": "SIGKILL"}, "(out of memory?)"),
    ],
)
def test_a_log_cut_short_or_a_crash_is_a_failure_and_the_other_file_goes_on(
    fault: dict[str, Any], says: str, connect: Connect, tiny_files: dict[str, Path]
) -> None:
    phone = connect()
    phone.tool |= {**fault, "only": sha256_of(tiny_files["float32"])[:8], "from_call": 2}
    phone.save()
    ms, failures = bench(phone, {"a": tiny_files["float32"], "b": tiny_files["int8"]})
    assert [m.artifact for m in ms] == ["b"]
    assert ms[0].n_runs == 2
    assert says in only(failures).why
    assert phone.folders == []


def test_a_tool_that_hangs_is_ended_on_the_phone_too(
    connect: Connect, tiny_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adb_timing, "_LOAD_S", -7.0)  # with ten seconds for the runs
    phone = connect()
    phone.tool["sleep_s"] = 60
    phone.save()
    start = time.monotonic()
    _, failures = bench(phone, {"a": tiny_files["float32"]})
    assert time.monotonic() - start < 40
    assert "no answer from adb in" in only(failures).why
    pid = int((phone.root / "killed").read_text())
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[1]
    assert phone.folders == []


def test_a_file_that_arrives_damaged_is_a_failure_though_its_size_is_right(
    connect: Connect, tiny_files: dict[str, Path]
) -> None:
    for missing in ((), ("sha256sum",)):  # by the phone's sha256sum, or by pulling it back
        phone = connect(missing=missing)
        phone.damage = True
        _, failures = bench(phone, {"a": tiny_files["float32"]})
        assert "arrived damaged on the phone (sha256 " in only(failures).why


def test_files_are_pushed_by_content_not_by_name_or_size(
    connect: Connect, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    one, two, three = (tmp_path / folder / "model.tflite" for folder in "abc")
    content = bytearray(tiny_files["float32"].read_bytes())
    for path in (one, two, three):
        path.parent.mkdir()
    one.write_bytes(content)
    three.write_bytes(content)
    at = content.index(np.float32(tiny_weight(tiny_files["float32"])).tobytes())
    content[at] ^= 1  # the last bit of one weight
    two.write_bytes(content)
    assert one.stat().st_size == two.stat().st_size
    phone = connect()
    ms, failures = bench(phone, {"a": one, "b": two, "c": three})
    assert failures == []
    pushed = [path.rsplit("/", 1)[1] for path, _ in phone.pushes]
    assert pushed[1:] == [sha256_of(one), sha256_of(two)]  # after the tool; the third is the first
    assert ms[0].artifact_sha256 == ms[2].artifact_sha256 != ms[1].artifact_sha256


def tiny_weight(path: Path) -> float:
    import tiny

    assert path.exists()
    return float(tiny.network().graph.tensors["stem_w"].data.ravel()[0])


HOSTILE = [
    "with space.tflite", "quote's \"double\".tflite", "$(touch pwned)`touch pwned`.tflite", "line\nbreak.tflite",
    "-rf.tflite", "; rm -rf *.tflite", "ümläut 模型.tflite", "--graph=x.tflite",
]  # fmt: skip


def test_hostile_file_names_never_reach_a_shell(
    connect: Connect, tiny_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models $(touch pwned) 'x'"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in HOSTILE:
        shutil.copyfile(tiny_files["float32"], folder / name)
    phone = connect()
    once = Request(plan=Plan(min_runs=1, min_time_s=0, rounds=1, max_rounds=1, warmup_s=0.1))
    ms, failures = bench(phone, {name: Path(name) for name in HOSTILE}, once)
    assert failures == []
    assert [m.artifact for m in ms] == HOSTILE
    said = "\n".join(phone.commands)
    assert not [word for word in ("pwned", "space", "rf.tflite", "ümläut") if word in said]
    assert not list(tmp_path.rglob("pwned"))
    (folder / "bad\nname.tflite").write_bytes(b"nothing")
    _, failures = bench(phone, {"x": Path("bad\nname.tflite")})
    assert only(failures, "x").remedy.startswith("give a .tflite file")


def test_a_file_that_is_no_model_or_not_there_is_a_failure_and_the_other_goes_on(
    connect: Connect, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "text.tflite").write_text("no model")
    (tmp_path / "model.onnx").write_bytes(b"")
    files = {
        "text": tmp_path / "text.tflite",
        "onnx": tmp_path / "model.onnx",
        "missing": tmp_path / "missing.tflite",
        "good": tiny_files["float32"],
    }
    ms, failures = bench(connect(), files)
    assert [m.artifact for m in ms] == ["good"]
    assert [f.what for f in failures] == ["text", "onnx", "missing"]
    assert "is not a .tflite file, which is what phones run" in failures[1].why


def test_the_folder_is_removed_after_an_error_and_after_ctrl_c(connect: Connect, tiny_files: dict[str, Path]) -> None:
    phone = connect()

    def stop(*_: object) -> None:
        assert phone.folders
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench(phone, {"a": tiny_files["float32"]}, progress=stop)
    assert phone.folders == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"runtime": "openvino"}, r"not openvino \(valid: litert\)"),
        ({"delegate": "npu"}, r"no delegate 'npu' \(valid: cpu, gpu, nnapi\)"),
        ({"threads": 0}, "threads must be at least 1"),
    ],
)
def test_what_a_phone_cannot_do_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        bench("nobody", {"a": Path("a.tflite")}, Request(**change))
    with pytest.raises(InputError, match="two artifacts have the id 'a'"), adb.open_device("nobody") as device:
        device.bench([("a", Path("x")), ("a", Path("y"))], QUICK)


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


# ----------------------------------------------------------------------------------------------------- finding, opening


def test_phones_are_listed_with_what_they_are(connect: Connect) -> None:
    phone, locked = connect(), connect(authorized=False)
    found = {d["id"]: d for d in adb.find()}
    d = found[f"adb:{phone.address}"]
    assert (d["kind"], d["name"], d["state"]) == ("adb", "Edgenet Test Phone", "device")
    assert (d["abi"], d["soc"], d["os"]) == ("arm64-v8a", "SM-TEST", "Android 14")
    assert d["runtimes"]["litert"].startswith("benchmark_model ")
    assert found[f"adb:{locked.address}"]["state"] == "unauthorized"
    with adb.open_device(phone.address) as device:
        assert (device.id, device.kind, device.info()["battery_percent"]) == (f"adb:{phone.address}", "adb", 87)


def test_what_adb_lists_is_read() -> None:
    text = """* daemon not running; starting now at tcp:5037
* daemon started successfully
List of devices attached
R58M123               device usb:1-4 product:beyond1 model:SM_G973F device:beyond1 transport_id:2
R58M123               device usb:1-5 product:beyond1 model:SM_G973F device:beyond1 transport_id:3
emulator-5554         offline transport_id:4
0123456789ABCDEF      no permissions (missing udev rules? is your user in the plugdev group); see [http://x] usb:1-2
192.168.1.7:5555      unauthorized transport_id:5

"""
    assert parse_devices(text) == [
        Listed("R58M123", "device", "SM G973F"),
        Listed("R58M123", "device", "SM G973F"),
        Listed("emulator-5554", "offline", ""),
        Listed("0123456789ABCDEF", "no permissions", ""),
        Listed("192.168.1.7:5555", "unauthorized", ""),
    ]
    assert parse_devices("") == parse_devices("garbage\nR58 device") == []


def test_two_phones_of_one_serial_are_listed_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = adb_link.Reply(0, "List of devices attached\nX   device model:A\nX   device model:A\n", "")
    monkeypatch.setattr(adb, "run_adb", lambda *a, **k: reply)
    assert [d["state"] for d in adb.find()] == ["several of one serial"] * 2


def test_without_adb_there_are_no_phones_and_opening_one_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert adb.find() == []
    with pytest.raises(MissingDependency, match=r"an Android phone needs adb, .*: apt-get install adb"):
        adb.open_device("X")


def test_an_adb_that_hangs_or_fails_lists_nothing_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb, "_FIND_TIMEOUT_S", 0.3)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program = tmp_path / "adb"
    for body in ("exec sleep 30", "echo 'cannot bind'; exit 1"):
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        start = time.monotonic()
        assert adb.find() == []
        assert time.monotonic() - start < 15
    program.write_text("not a program")
    with pytest.raises(DeviceError, match="cannot start"):
        run_adb("devices")


@pytest.mark.parametrize("address", ["", "a b", "a\nb", "\x1b[31m"])
def test_what_is_no_serial_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="names no phone"):
        adb.open_device(address)


def test_a_serial_that_looks_like_an_option_is_only_a_serial(tiny_files: dict[str, Path]) -> None:
    for serial in ("-s", "$(id)", "--help", ";id"):
        _, failures = bench(serial, {"a": tiny_files["float32"]})
        assert f"device '{serial}' not found" in only(failures).why
