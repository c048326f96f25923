"""The figures for github-action-benchmark and for DVC: what they are, and that their readers take them."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from edgenet.publish.benchmark_json import benchmark_json
from edgenet.publish.dvc import dvc_metrics
from edgenet.publish.job import publish
from edgenet.publish.options import PublishJob
from edgenet.results import Estimate
from helpers.hand_built import some_results, unlabelled
from helpers.past_runs import written

DVC = os.environ.get("EDGENET_DVC") or shutil.which("dvc")


def extracted(text: str) -> list[dict]:
    """Return what github-action-benchmark takes from a file of customSmallerIsBetter, as its README describes it.

    A list of objects; name and unit are texts, value is a number; range and extra are texts where they are given. Its
    reader of ranges takes a number after "±", and takes nothing from any other text.
    """
    entries = json.loads(text)
    assert isinstance(entries, list)
    assert entries, "no benchmark result was found"
    for e in entries:
        assert set(e) <= {"name", "unit", "value", "range", "extra"}
        assert all(isinstance(e[k], str) and e[k] for k in ("name", "unit"))
        assert type(e["value"]) in (int, float)
        assert all(isinstance(e[k], str) for k in ("range", "extra") if k in e)
        assert "range" not in e or float(re.fullmatch(r"(?:\+-|±)\s*(\d.*)", e["range"])[1]) >= 0
    return entries


def by_name(run) -> dict[str, dict]:
    entries = extracted(json.dumps(benchmark_json(run)))
    assert len({e["name"] for e in entries}) == len(entries)
    return {e["name"]: e for e in entries}


def test_each_figure_is_an_entry_with_its_unit_and_smaller_is_better() -> None:
    found = by_name(some_results())
    assert len(found) == 3 * 5
    size = found["efficientnet-lite0_int8 size"]
    assert (size["value"], size["unit"]) == (5_316_608, "bytes")
    wrong = found["efficientnet-lite0_int8 wrong answers"]
    assert (wrong["value"], wrong["unit"]) == (pytest.approx(13.0), "%")
    assert wrong["range"] == "± 2.9"
    assert wrong["extra"].splitlines()[:2] == ["500 labelled pictures", "95 % interval 10.2 to 16 %"]
    latency = found["efficientnet-lite0_int8 latency (2 threads)"]
    assert (latency["value"], latency["unit"]) == (pytest.approx(9.8, rel=0.02), "ms")
    assert "build-7" in latency["extra"]


def test_an_estimate_is_called_one_and_devices_have_names_of_their_own() -> None:
    run = some_results()
    id = run.artifacts[3].id
    run.put(Estimate(id, "ethos-u:ethos-u55-256", "vela 5.2.0", "", 1, 1, inference_ms=14.38))
    run.put(replace(run.measurements[3], device="adb:PIXEL", threads=4))
    found = by_name(run)
    assert found[f"{id} estimated latency on ethos-u:ethos-u55-256"]["value"] == 14.38
    assert f"{id} latency on adb:PIXEL (4 threads)" in found


def test_two_figures_of_one_name_are_told_apart() -> None:
    run = some_results()
    run.put(replace(run.measurements[0], runtime="onnxruntime"))
    assert "efficientnet-lite0_float32 latency (2 threads) (2)" in by_name(run)


def test_without_labels_there_is_no_share_of_wrong_answers() -> None:
    assert not [name for name in by_name(unlabelled(some_results())) if "wrong" in name]


def test_names_and_units_stay_the_same_from_run_to_run_so_that_a_chart_goes_on() -> None:
    first, second = some_results(), some_results(created="2026-11-25T05:02:11+00:00")
    second.measurements = [replace(m, samples_ns=tuple(2 * ns for ns in m.samples_ns)) for m in second.measurements]
    names = [{(e["name"], e["unit"]) for e in benchmark_json(run)} for run in (first, second)]
    assert names[0] == names[1]


# ----------------------------------------------------------------------------------------------------------------- DVC


def test_metrics_are_nested_numbers_with_their_intervals() -> None:
    found = dvc_metrics(some_results())
    assert list(found) == [a.id for a in some_results().artifacts]
    int8 = found["efficientnet-lite0_int8"]
    assert int8["size_bytes"] == 5_316_608
    assert int8["top1_low"] < int8["top1"] < int8["top1_high"]
    assert int8["latency_ms_low"] < int8["latency_ms"] < int8["latency_ms_high"]
    assert all(type(x) in (int, float) for metrics in found.values() for x in metrics.values())


def test_another_device_has_a_metric_of_its_own() -> None:
    run = some_results()
    run.put(replace(run.measurements[3], device="adb:PIXEL"))
    run.put(replace(run.measurements[3], device="adb:PIXEL", threads=1))
    assert {"latency_ms", "latency_ms adb:PIXEL", "latency_ms adb:PIXEL 2"} <= {*dvc_metrics(run)[run.artifacts[3].id]}


@pytest.mark.skipif(
    DVC is None, reason="needs python -m venv D && D/bin/pip install dvc==3.67.1, EDGENET_DVC=D/bin/dvc"
)
@pytest.mark.slow
def test_dvc_shows_the_metrics(tmp_path: Path) -> None:
    run = some_results()
    out = written(tmp_path / "out", run)
    publish(out, PublishJob(dvc=tmp_path / "metrics.json"))
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"DVC_NO_ANALYTICS": "1", "HOME": str(tmp_path)}

    def dvc(*args: str) -> str:
        done = subprocess.run([str(DVC), *args], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    dvc("init", "--no-scm", "-q")
    shown = json.loads(dvc("metrics", "show", "--json", "metrics.json"))
    assert shown[""]["data"]["metrics.json"]["data"] == dvc_metrics(run)
    table = dvc("metrics", "show", "--md", "metrics.json")
    assert "efficientnet-lite0_int8.top1" in table
