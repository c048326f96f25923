"""jobs/bench.py and report/bench_text.py: several devices, some of which fail, and answers compared bit by bit."""

import json
import platform
import threading
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from edgenet.device_bench import Plan, Request, Worker
from edgenet.device_bench.local import Local
from edgenet.device_bench.registry import KINDS, Kind
from edgenet.errors import DeviceError, InputError
from edgenet.jobs import bench
from edgenet.jobs.bench import (
    bench_on,
    check_files,
    difference,
    evaluate_on,
    models_among,
    request_of,
    require_full_delegation,
)
from edgenet.options import BenchJob
from edgenet.report.bench_text import notes, rows, titles
from edgenet.results import Estimate, Evaluation, Failure, LeftOperators, Measurement, Results, Warning
from helpers import brief_phone

QUICK = Plan(min_runs=8, min_time_s=0, rounds=2, max_rounds=2, self_check=False)
MS = 1_000_000


class FakeDevice:
    """Answers as a worker here does, but for what a test makes of it."""

    kind = "phone"
    fail: ClassVar[dict[str, Exception]] = {}
    meet: threading.Barrier | None = None
    shift = 0.0

    def __init__(self, address):
        self.id = f"phone:{address}"
        if self.id in self.fail:
            raise self.fail[self.id]

    def info(self):
        return {"machine": "armv7", "runtimes": {"litert": "0.0"}}

    def bench(self, artifacts, request, progress=None):
        if self.meet is not None:
            self.meet.wait(timeout=10)
        if progress is not None:
            progress(1, 2, "")
        found = [Measurement(id, self.id, "litert", request.threads, (5 * MS,) * 10) for id, _ in artifacts[:1]]
        return found, [Failure("bench", id, self.id, why="no room", remedy="free some") for id, _ in artifacts[1:]]

    def predict(self, path, batch):
        with Worker(path) as w:
            out = w.predict(batch)
        out[0, 0] += np.float32(self.shift)
        return out

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


@pytest.fixture
def phones(monkeypatch):
    import sys
    import types

    module = types.ModuleType("edgenet.device_bench.phone_for_tests")
    module.open_device, module.find, module.__spec__ = FakeDevice, list, types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(KINDS, "phone", Kind(module.__name__, "SERIAL"))
    monkeypatch.setattr(FakeDevice, "fail", {})
    return FakeDevice


# several devices


def test_a_device_that_fails_is_a_failure_and_the_others_go_on(phones, tiny_files, monkeypatch):
    monkeypatch.setattr(phones, "fail", {"phone:gone": DeviceError("it was unplugged")})
    files = [("float", tiny_files["float32"]), ("int8", tiny_files["int8"])]
    steps = []
    devices = ["phone:gone", "local", "phone:1"]
    measurements, failures = bench_on(devices, files, Request(plan=QUICK), lambda *s: steps.append(s))
    assert [(m.artifact, m.device) for m in measurements] == [
        ("float", "local"),
        ("int8", "local"),
        ("float", "phone:1"),
    ]
    assert [(f.stage, f.artifact, f.device, f.why) for f in failures] == [
        ("bench", "", "phone:gone", "it was unplugged"),
        ("bench", "int8", "phone:1", "no room"),
    ]
    assert all(0 < done <= total for done, total in steps)


def test_phones_are_measured_at_the_same_time_and_others_one_by_one(phones, tiny_files, monkeypatch):
    monkeypatch.setattr(phones, "meet", threading.Barrier(3))  # each waits for the other two
    monkeypatch.setattr(bench, "_AT_ONCE", ("phone",))
    measurements, failures = bench_on(["phone:a", "phone:b", "phone:c"], [("f", tiny_files["int8"])], Request())
    assert [m.device for m in measurements] == ["phone:a", "phone:b", "phone:c"]
    assert failures == []


def test_what_the_only_device_cannot_do_is_wrong_input_and_of_several_a_failure(tiny_files, phones):
    nnapi = Request(delegate="nnapi", plan=QUICK)
    with pytest.raises(InputError, match="local has no delegate 'nnapi'"):
        bench_on(["local"], [("f", tiny_files["int8"])], nnapi)
    measurements, failures = bench_on(["local", "phone:1"], [("f", tiny_files["int8"])], nnapi)
    assert [m.device for m in measurements] == ["phone:1"]
    assert [(f.artifact, f.device) for f in failures] == [("", "local")]


def test_a_run_whose_device_goes_keeps_its_files_and_ends_with_status_3(edgenet, tiny_folder, tmp_path, monkeypatch):
    brief_phone.install(tmp_path, 1, monkeypatch)  # there when it is asked before the work, and then no more
    done = edgenet("run", "tiny", "--images", tiny_folder, "--out", tmp_path / "out", "--precision", "float32",
                   "--device", "local", "--device", "adb:HERE")  # fmt: skip
    assert done.returncode == 3
    results = Results.load(tmp_path / "out")
    assert [m.device for m in results.measurements] == ["local"]
    assert (results.failures[0].artifact, results.failures[0].device) == ("tiny_float32.tflite", "adb:HERE")
    assert (tmp_path / "out/report.html").exists()


def test_a_run_with_a_device_that_cannot_be_ends_before_it_writes(edgenet, tiny_folder, tmp_path):
    done = edgenet("run", "tiny", "--images", tiny_folder, "--out", tmp_path / "out", "--device", "ethos-u:gone")
    assert done.returncode == 2
    assert "unknown Ethos-U configuration 'gone'" in done.stderr
    assert not (tmp_path / "out").exists()


# what may be asked


def test_the_options_become_a_request():
    r = request_of(BenchJob(threads=2, runtime="openvino", delegate="gpu", cores="1,0"))
    assert (r.threads, r.runtime, r.delegate, r.cores) == (2, "openvino", "gpu", (1, 0))
    assert r.plan.min_runs >= 50
    assert r.plan.min_time_s >= 1
    assert request_of(BenchJob(sustained="10m")).plan.sustained_s == 600
    published = request_of(BenchJob(publish=True)).plan
    assert (published.min_runs, published.min_time_s) == (1024, 60)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"threads": 0}, "--threads must be at least 1"),
        ({"runtime": "torch"}, "unknown runtime 'torch' \\(valid: litert"),
        ({"cores": "big"}, "--cores takes core numbers"),
        ({"cores": "1,,2"}, "--cores takes core numbers"),
        ({"sustained": "ever"}, "not a duration"),
        ({"sustained": "1m", "publish": True}, "exclude each other"),
    ],
)
def test_options_that_make_no_sense_are_refused(asked, said):
    with pytest.raises(InputError, match=said):
        request_of(BenchJob(**asked))


def test_a_file_is_pinned_to_the_cores_that_were_named(tiny_files):
    import os

    core = max(os.sched_getaffinity(0))
    with Worker(tiny_files["int8"], cores=(core,)) as w:
        assert os.sched_getaffinity(w.pid) == {core}
    assert core in os.sched_getaffinity(0)
    measurements, _ = bench_on(["local"], [("f", tiny_files["int8"])], Request(cores=(core,), plan=QUICK))
    assert measurements[0].device_info["pinned_to"] == [core]
    with pytest.raises(InputError, match="no core 4096"):
        bench_on(["local"], [("f", tiny_files["int8"])], Request(cores=(4096,), plan=QUICK))


def test_a_processor_that_is_not_there_is_a_failure_that_says_which_are(tiny_files):
    request = Request(runtime="openvino", delegate="npu", plan=QUICK)
    measurements, failures = bench_on(["local"], [("f", tiny_files["float32"])], request)
    assert measurements == []
    assert "OpenVINO finds no NPU here (valid: cpu" in failures[0].why
    _, failures = bench_on(["local"], [("f", tiny_files["float32"])], Request(delegate="gpu", plan=QUICK))
    assert "add --runtime openvino" in failures[0].why


def test_a_sustained_measurement_has_thirty_points_and_no_pause(tiny_files):
    plan = replace(QUICK, sustained_s=1.5)
    (m,), failures = bench_on(["local"], [("f", tiny_files["int8"])], Request(plan=plan))
    assert failures == []
    assert len(m.round_s) == 30
    assert sum(m.samples_ns) >= 1.4e9
    assert m.processes == 1
    assert m.sustained_s == 1.5
    assert "first" in titles([m], Request(plan=plan))
    assert len(rows([m], Request(plan=plan))[0]) == len(titles([m], Request(plan=plan)))


# answers there and here


def test_this_machine_answers_as_itself_bit_for_bit(tiny_files, tiny_images, tiny_network):
    (e,), failures = evaluate_on(["local"], [tiny_files["int8"]], tiny_images[1], tiny_network.preprocessing)
    assert failures == []
    assert e.outputs_compared == 30 * 5
    assert e.outputs_differing == 0
    assert e.largest_difference == 0
    assert e.agreement == 1
    assert e.artifact == str(tiny_files["int8"])
    assert "bit for bit the same" in e.difference


@pytest.mark.parametrize(
    ("shift", "precision", "reason"),
    [
        (1e-7, "float32", "another order"),
        (1e-3, "int8", "integer kernels may round"),
        (1e-3, "float32", "more than rounding"),
    ],
)
def test_a_device_that_answers_otherwise_is_told_with_how_much_and_why(
    shift, precision, reason, phones, tiny_files, tiny_images, tiny_network, monkeypatch
):
    monkeypatch.setattr(phones, "shift", shift)
    (e,), _ = evaluate_on(["phone:1"], [tiny_files[precision]], tiny_images[1], tiny_network.preprocessing)
    assert 0 < e.outputs_differing <= 5  # one number of each chunk
    assert e.largest_difference == pytest.approx(shift, rel=0.2)
    assert e.device == "phone:1"
    assert reason in e.difference
    assert "the kernels for armv7 are other ones" in e.difference
    assert "litert is 0.0 there" in e.difference


def test_a_device_that_stops_answering_is_a_failure_and_the_next_file_is_tried(
    phones, tiny_files, tiny_images, tiny_network, monkeypatch
):
    predict = phones.predict

    def unplugged(self, path, batch):
        if "float32" in path.name:
            raise DeviceError("the connection was lost")
        return predict(self, path, batch)

    monkeypatch.setattr(phones, "predict", unplugged)
    files = [tiny_files["float32"], tiny_files["int8"]]
    found, failures = evaluate_on(["phone:1"], files, tiny_images[1], tiny_network.preprocessing)
    assert [e.artifact for e in found] == [str(tiny_files["int8"])]
    assert [f.why for f in failures] == ["the connection was lost"]
    assert [(f.artifact, f.device) for f in failures] == [(str(files[0]), "phone:1")]


def test_answers_that_are_not_finite_are_told_and_are_json():
    e = Evaluation("f.tflite", "", 1, 0, None, None, None, None, "litert", outputs_compared=5, outputs_differing=1)
    assert "not finite" in difference(e, None, {})
    Results(evaluations=[e]).to_json()


def test_another_delegate_is_the_first_reason(tiny_files):
    e = Evaluation("f", "", 1, 0, None, None, None, None, "litert", outputs_compared=5, outputs_differing=1,
                   largest_difference=0.01)  # fmt: skip
    said = difference(e, tiny_files["float32"], {"delegate": "GPU", "machine": platform.machine()})
    assert said.startswith("it runs through the delegate GPU there")


def test_evaluate_on_this_machine_from_the_command_line(edgenet, tiny_files, tiny_folder):
    done = edgenet("evaluate", tiny_files["int8"], "--device", "local", "--images", tiny_folder, "--json")
    assert done.returncode == 0
    (e,) = json.loads(done.stdout)["evaluations"]
    assert (e["device"], e["outputs_differing"], e["runtime"]) == ("local", 0, "litert")
    table = edgenet("evaluate", tiny_files["int8"], "--device", "local", "--images", tiny_folder)
    assert "0 of 200" in table.stdout
    assert "bit for bit the same" in table.stdout


def test_a_device_is_compared_with_another_file_too(edgenet, tiny_files, tiny_folder):
    asked = ("evaluate", tiny_files["int8"], "--device", "local", "--images", tiny_folder,
             "--reference", tiny_files["float32"])  # fmt: skip
    (e,) = json.loads(edgenet(*asked, "--json").stdout)["evaluations"]
    assert (e["artifact"], e["reference"]) == (str(tiny_files["int8"]), str(tiny_files["float32"]))
    assert (e["agreement_here"], e["outputs_differing"], e["outputs_compared"]) == (1.0, 0, 200)
    assert e["sqnr_db"] is not None  # against float32: an int8 file is not noiseless
    assert 0.9 < e["agreement"] <= 1
    table = edgenet(*asked)
    assert "as the reference" in table.stdout


# what is printed


def measured(name, ms, noise=0.01, device="local", **fields):
    rng = np.random.default_rng(len(name))
    samples = tuple((ms * MS * rng.normal(1, noise, 100)).astype(int).tolist())
    return Measurement(name, device, "litert", 1, samples, tuple(i // 10 for i in range(100)),
                       tuple(float(i) for i in range(10)), **fields)  # fmt: skip


def test_the_table_compares_with_the_first_file_of_the_device():
    found = [measured("a", 10), measured("bbbb", 20), measured("cc", 10), measured("dd", 5, device="phone:1")]
    table = rows(found, Request())
    at = titles(found, Request()).index("against the first")
    assert "device" in titles(found, Request())
    assert table[0][at] == "1"
    assert table[1][at].startswith(("2.0", "1.99"))
    assert "cannot tell" not in table[1][at]
    assert table[2][at].endswith("cannot tell")
    assert table[3][at] == "1"


def test_the_notes_tell_the_noise_floor_and_the_published_percentile():
    found = [measured("a", 10, self_ratio=1.004, self_ratio_ci98=(0.99, 1.01))]
    said = notes(found, request_of(BenchJob(publish=True)))
    assert any("90th percentile of 100 queries" in s and "10.1\u00a0ms" in s for s in said)
    assert any("first file against itself on local: 1.004 (0.990 to 1.010)" in s for s in said)


def test_the_median_of_all_runs_is_told_where_some_were_set_aside():
    shared = measured("a", 10, disturbed_ns=(20 * MS,) * 300, disturbed_rounds=(9,) * 300,
                      warnings=(Warning("disturbed", "75% of the runs are set aside", 0.75),))  # fmt: skip
    said = notes([shared, measured("b", 10)], Request())
    expected = "the median of all 400 runs of a, disturbed ones too, is 20.0\u00a0ms"
    assert [s for s in said if "disturbed ones" in s] == [expected]


def test_a_throttling_file_is_named_with_when_and_by_how_much():
    ms = [10.0] * 12 + [13.0] * 18
    samples = tuple(int(m * MS) for m in ms for _ in range(100))
    m = Measurement("hot", "local", "litert", 1, samples, tuple(i // 100 for i in range(3000)),
                    tuple(2.0 * i for i in range(30)), sustained_s=60)  # fmt: skip
    assert any(
        "hot slows down by 30\u00a0% from 24 s on" in s for s in notes([m], request_of(BenchJob(sustained="60s")))
    )


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"nodes": 9, "total": 9}, ""),
        ({"nodes": 8, "total": 9}, "1 of 9 operators run on the CPU"),
        ({"nodes": None, "total": 9}, "nothing proves that NPU runs all operators"),
        (None, "nothing proves that NPU runs all operators"),
    ],
)
def test_one_operator_on_the_cpu_is_a_failure_where_full_delegation_is_required(said, why):
    info = {} if said is None else {"delegation": said}
    m = Measurement("a", "adb:1", "litert", 1, (MS,), delegate="NPU", device_info=info)
    results = Results(measurements=[m])
    require_full_delegation(results)
    assert [(f.artifact, f.device, f.why) for f in results.failures] == (
        [("a", "adb:1", f"--require-full-delegation: {why}")] if why else []
    )
    assert results.measurements == [m]


def test_what_a_compiler_leaves_is_a_failure_where_full_delegation_is_required():
    left = (LeftOperators("SOFTMAX", 1, "no"),)
    results = Results(estimates=[Estimate("a", "d", "t", "b", 3, 2, left), Estimate("b", "d", "t", "b", 3, 3)])
    require_full_delegation(results)
    assert [(f.artifact, "1 of 3 operators run on the CPU" in f.why) for f in results.failures] == [("a", True)]


def test_the_busiest_programs_are_named_where_others_were_at_work():
    busy = Warning("busy", "other programs used 0.50 cores while it was measured", 0.5)
    about = {"busiest": ["chromium", "gcc"]}
    said = notes(
        [measured("a", 10, warnings=(busy,), device_info=about), measured("b", 10, device_info=about)], Request()
    )
    assert [s for s in said if "gcc" in s] == ["the busiest other programs were chromium, gcc"]
    assert not any("gcc" in s for s in notes([measured("a", 10, device_info=about)], Request()))


def test_local_keeps_a_file_loaded_until_it_is_closed(tiny_files, tiny_images, tiny_network):
    with Local() as device:
        x = np.zeros((2, 20, 20, 3), np.float32)
        first = device.predict(tiny_files["float32"], x)
        (worker,) = device._workers.values()
        pid = worker.pid
        np.testing.assert_array_equal(first, device.predict(tiny_files["float32"], x))
        assert next(iter(device._workers.values())).pid == pid
    assert device._workers == {}


def test_what_stands_beside_a_model_is_passed_over_and_what_stands_alone_is_refused(tmp_path):
    for name in ("a.xml", "a.bin", "b.onnx", "b.onnx.data", "c.tflite", "alone.bin"):
        (tmp_path / name).write_bytes(b"x")
    every = sorted(tmp_path.iterdir())
    assert [p.name for p in models_among(every)] == ["a.xml", "alone.bin", "b.onnx", "c.tflite"]
    with pytest.raises(InputError, match=r"alone\.bin is not a model file by its name"):
        check_files(models_among(every))


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(60), bytes(4) + b"TFL3" + bytes(60)])
def test_a_file_that_is_no_model_is_wrong_input_to_bench(content, edgenet, tmp_path):
    (tmp_path / "net.tflite").write_bytes(content)
    done = edgenet("bench", tmp_path / "net.tflite")
    assert (done.returncode, done.stdout) == (2, "")
    assert "net.tflite" in done.stderr
    assert done.stderr.count("\n") == 1


def test_files_of_which_none_is_a_model_are_wrong_input_on_a_chip_too(tmp_path, monkeypatch):
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(b"no model")
    failed = Failure("bench", str(cut), "ethos-u:ethos-u55-128", why="it is no model")
    monkeypatch.setattr(bench, "bench_on", lambda *_: ([], [failed]))
    with pytest.raises(InputError, match=r"cut\.tflite"):
        bench.bench_files([cut], ["ethos-u:ethos-u55-128"], Request(), lambda *_: None)
