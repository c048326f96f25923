"""bench on this computer: files in rounds, each measured by processes of its own, and what goes wrong there."""

import dataclasses
import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest

from edgenet.device_bench import Plan, Request, Worker, bench, comparison, local, machine, rounds
from edgenet.errors import InputError
from edgenet.files import sha256_of

QUICK = Request(plan=Plan(min_runs=14, min_time_s=0.02, rounds=7, max_rounds=7))
ONCE = replace(QUICK, plan=replace(QUICK.plan, self_check=False))


def machine_that_is(virtual):
    return lambda: {**machine.local_info(), "virtual": virtual}


@pytest.mark.usefixtures("forked")
def test_bench_times_all_three_formats_and_a_broken_one_is_a_failure(tflite, onnx_file, ir, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "local_info", machine_that_is(virtual=False))
    monkeypatch.setattr(rounds, "_CHEAP_START_S", 60.0)  # a busy machine starts slowly
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"no model")
    steps = []
    artifacts = [("t", tflite), ("broken", broken), ("o", onnx_file), ("v", ir), ("none", tmp_path / "none.onnx")]
    measurements, failures = bench(artifacts, QUICK, progress=lambda *step: steps.append(step))
    assert [m.artifact for m in measurements] == ["t", "o", "v"]
    assert [m.runtime for m in measurements] == ["litert", "onnxruntime", "openvino"]
    for m in measurements:
        assert m.device == "local"
        assert m.threads == 1
        assert m.n_runs >= 14
        assert sorted(set(m.rounds)) == list(range(7))
        assert len(m.rounds) == m.n_runs
        assert m.warmup_runs >= 10 + 7
        assert m.processes == 8  # one to warm up, one a round
        assert len(m.round_s) == len(m.round_mhz) == len(m.round_celsius) == 7
        assert sorted(m.round_s) == list(m.round_s)
        assert 1 <= m.effective_runs <= m.n_runs
        assert 0.5 < m.self_ratio < 2
        assert m.self_ratio_ci98[0] <= m.self_ratio <= m.self_ratio_ci98[1]
        assert 0 < m.median_ms <= m.p90_ms <= m.p95_ms
        assert m.load_ns > 0
        assert m.peak_rss_bytes > m.baseline_rss_bytes > 0
        assert m.runtime_version[0].isdigit()
        assert m.artifact_sha256 == sha256_of(dict(artifacts)[m.artifact])
        assert m.device_info["cores"] >= 1
    assert [(f.stage, f.artifact, f.device) for f in failures] == [
        ("bench", "broken", "local"),
        ("bench", "none", "local"),
    ]
    assert "broken.tflite" in failures[0].why
    assert "no such file" in failures[1].why
    assert all(f.remedy for f in failures)
    assert steps[-1][:2] == (6 * 9, 6 * 9)  # the first file is measured twice
    assert [s[0] for s in steps] == sorted(s[0] for s in steps)


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("virtual", [False, True])
def test_runs_are_set_aside_on_a_virtual_machine_only(tflite, monkeypatch, virtual):
    monkeypatch.setattr(local, "local_info", machine_that_is(virtual))
    run, turns = Worker.run, []

    def run_beside_a_guest(self, *args, **kwargs):
        burst = run(self, *args, **kwargs)
        turns.append(kwargs.get("pace_limit_ns"))
        pace_ns = tuple(20_000 if i < len(burst.samples_ns) // 2 else 30_000 for i in range(len(burst.samples_ns)))
        return dataclasses.replace(burst, pace_ns=pace_ns)

    monkeypatch.setattr(Worker, "run", run_beside_a_guest)
    (m,), _ = bench([("a", tflite)], ONCE)
    assert m.device_info["virtual"] is virtual
    assert m.n_runs >= 14
    if virtual:
        assert set(m.pace_ns) == {20_000}
        assert set(m.disturbed_pace_ns) == {30_000}
        assert len(m.disturbed_ns) == len(m.disturbed_rounds) == len(m.disturbed_pace_ns)
        assert turns[-1] == 22_000
        assert any(w.code == "disturbed" and w.text.startswith("disturbed: ") for w in m.warnings)
    else:
        assert m.disturbed_ns == ()
        assert turns[-1] is None


@pytest.mark.usefixtures("forked")
def test_a_crash_while_timing_is_a_failure_and_the_others_are_measured(tflite, monkeypatch):
    run, killed = Worker.run, []

    def run_and_kill(self, *args, **kwargs):
        if "victim" in str(self.path) and kwargs.get("lead_ns"):
            os.kill(self.pid, signal.SIGSEGV)
            killed.append(self.pid)
        return run(self, *args, **kwargs)

    victim = tflite.with_name("victim.tflite")
    shutil.copy(tflite, victim)
    monkeypatch.setattr(Worker, "run", run_and_kill)
    measurements, failures = bench([("victim", victim), ("other", tflite)], ONCE)
    assert [m.artifact for m in measurements] == ["other"]
    assert measurements[0].n_runs >= 14
    assert [(f.stage, f.artifact, f.device) for f in failures] == [("bench", "victim", "local")]
    assert "SIGSEGV" in failures[0].why
    assert len(killed) == 1


@pytest.mark.usefixtures("forked")
def test_the_same_file_twice_cannot_be_told_apart(tflite, monkeypatch):
    equal = comparison.Comparison(1.0, 0.9, 1.1, "cannot tell", 7)
    monkeypatch.setattr(comparison, "compare", lambda *args: equal)
    measurements, _ = bench([("a", tflite), ("b", tflite)], ONCE)
    for m, other in zip(measurements, "ba", strict=True):
        assert [
            w for w in m.warnings if w.text.startswith(f"cannot tell it from {other} (ratio 1.000, 0.900 to 1.100)")
        ]
        assert "cannot-tell" in [w.code for w in m.warnings]


def test_bench_refuses_arguments_that_make_no_sense(tflite):
    with pytest.raises(InputError, match="id 'a'"):
        bench([("a", tflite), ("a", tflite)])
    with pytest.raises(InputError, match="min_runs"):
        bench([("a", tflite)], Request(plan=Plan(min_runs=0)))
    with pytest.raises(InputError, match="pixels"):
        bench([("a", tflite)], Request(pixels=np.zeros((8, 8, 3), np.float32)))
    assert bench([]) == ([], [])
