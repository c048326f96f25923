"""The trace: when rounds and runs stand in it, and speedscope, which reads it as Chrome's format."""

import base64
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edgenet.publish.trace import trace
from edgenet.results import Explanation, Layer, Results
from helpers.browser import needs_chromium
from helpers.chromium import shown_text
from helpers.hand_built import some_results
from helpers.hand_built_runs import over_time

SPEEDSCOPE = shutil.which("speedscope")
PHASES = {"M": {"name", "pid", "tid", "args"}, "X": {"name", "cat", "ts", "dur", "pid", "tid", "args"},
          "C": {"name", "ts", "pid", "tid", "args"}}  # fmt: skip


def slices(found: dict, category: str, **of: object) -> list[dict]:
    return [e for e in found["traceEvents"] if e.get("cat") == category and all(e[k] == v for k, v in of.items())]


def test_every_run_is_a_slice_as_long_as_it_took() -> None:
    run = over_time(some_results())
    found = trace(run)
    for i, m in enumerate(run.measurements, 1):
        runs = slices(found, "run", tid=i)
        assert [e["dur"] for e in runs] == pytest.approx([ns / 1e3 for ns in m.samples_ns])
        assert len(slices(found, "round", tid=i)) == len(set(m.rounds))


def test_a_round_begins_when_it_did_and_holds_its_runs() -> None:
    run = over_time(some_results())
    m = run.measurements[0]
    assert len(m.round_s) == 10
    found = trace(run)
    rounds = slices(found, "round", tid=1)
    assert [e["ts"] for e in rounds] == pytest.approx([s * 1e6 for s in m.round_s])
    for e in rounds:
        inside = [r for r in slices(found, "run", tid=1) if e["ts"] <= r["ts"] < e["ts"] + e["dur"]]
        assert len(inside) == e["args"]["runs"] == 12
        assert inside[-1]["ts"] + inside[-1]["dur"] <= e["ts"] + e["dur"] + 0.01


def test_slices_of_one_thread_never_overlap_whatever_was_recorded() -> None:
    run = some_results()
    run.measurements = [replace(m, round_s=(0.5, 0.2, 0.0), disturbed_ns=(9_000_000,), disturbed_rounds=(3,))
                        for m in run.measurements]  # fmt: skip
    found = trace(run)
    for category in ("round", "run"):
        for thread in range(1, 6):
            ends = 0.0
            for e in slices(found, category, tid=thread):
                assert e["ts"] >= ends - 0.01
                ends = e["ts"] + e["dur"]
    assert len([e for e in slices(found, "run") if "not counted" in e["name"]]) == 5


def test_devices_are_processes_and_files_threads_with_their_names() -> None:
    run = some_results()
    run.put(replace(run.measurements[0], device="adb:PIXEL"))
    named = [e for e in trace(run)["traceEvents"] if e["ph"] == "M"]
    processes = {e["pid"]: e["args"]["name"] for e in named if e["name"] == "process_name"}
    assert set(processes.values()) == {"adb:PIXEL, litert, 2 threads", "local, litert, 2 threads"}
    threads = [e["args"]["name"] for e in named if e["name"] == "thread_name"]
    assert sorted(threads) == sorted([a.id for a in run.artifacts] + [run.artifacts[0].id])


def test_operators_follow_each_other_with_what_is_known_of_them() -> None:
    run = explained()
    ops = slices(trace(run), "CONV_2D") + slices(trace(run), "ADD")
    assert [(e["ts"], e["dur"]) for e in ops] == [(0.0, 12.5), (12.5, 2.5)]
    assert ops[0]["args"] == {"arithmetic": "int8", "kernel": "XNNPACK", "multiply_adds": 10**6, "moved_bytes": 10**4}


def test_clock_and_temperature_are_counters() -> None:
    run = over_time(some_results(), round_celsius=(48.0, 55.0), round_mhz=(2300.0, 2400.0))
    counters = [e for e in trace(run)["traceEvents"] if e["ph"] == "C"]
    assert {next(iter(e["args"])) for e in counters} == {"MHz", "°C"}
    assert {e["args"]["°C"] for e in counters if "°C" in e["args"]} >= {48.0}


def test_each_event_has_the_fields_of_its_phase() -> None:
    for e in trace(explained())["traceEvents"]:
        assert {*e} - {"ph"} == PHASES[e["ph"]]
        assert all(isinstance(e[k], int | float) and e[k] >= 0 for k in ("ts", "dur") if k in e)


def explained() -> Results:
    run = over_time(some_results())
    layers = (Layer("layer0", "CONV_2D", "int8", "XNNPACK", 12.5, 10**6, 10**4),
              Layer("added", "ADD", "int8", "XNNPACK", 2.5, 0, 10**4))  # fmt: skip
    run.put(Explanation(run.artifacts[3].id, "local", "litert", 1, "int8", 9.8, 9.7, "by hand", layers, {}, (), ()))
    return run


@needs_chromium
@pytest.mark.skipif(SPEEDSCOPE is None, reason="needs npm install -g speedscope@1.25.0")
@pytest.mark.slow
def test_speedscope_reads_a_thread_a_file(tmp_path) -> None:
    """As its command does: the page is told of a script that hands it the file."""
    page = Path(str(SPEEDSCOPE)).resolve().parent.parent / "dist/release/index.html"
    content = base64.b64encode(json.dumps(trace(explained())).encode()).decode()
    script = tmp_path / "profile.js"
    script.write_text(f'speedscope.loadFileFromBase64("trace.json", "{content}")')
    url = f"{page.as_uri()}#localProfilePath={script}"
    text = shown_text(url, tmp_path / "profile", until="(1/6)")  # five files and the operators of one
    assert "efficientnet-lite0_float32 (tid 1) (1/6)" in text
    assert "local, litert, 2 threads (pid 1)" in text
