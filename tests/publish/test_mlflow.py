"""A run in MLflow: names and values here, and the whole way to a real MLflow server on SQLite."""

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from edgenet.errors import InputError, MissingDependency
from edgenet.files import sha256_of
from edgenet.history.figures import figures_of
from edgenet.publish.mlflow import metrics_of, parameters_of, publish
from edgenet.publish.options import PublishJob
from edgenet.results import Results
from helpers.command_line import Edgenet
from helpers.past_runs import a_run, written
from helpers.places import ROOT

SERVER = ROOT / "build" / "mlflow-venv" / "bin" / "mlflow"
CLIENT = importlib.util.find_spec("mlflow") is not None
needs_client = pytest.mark.skipif(not CLIENT, reason="needs pip install 'edgenet[mlflow]'")
needs_server = pytest.mark.skipif(
    not SERVER.is_file() or not CLIENT, reason="needs pip install 'edgenet[mlflow]', and a server: make mlflow-server"
)


def test_each_figure_is_a_metric_with_its_interval() -> None:
    found = metrics_of(figures_of(a_run(0)))
    assert len(found) == 5 * (3 + 3 + 1)
    assert found["efficientnet-lite0_int8/size_bytes"] == 5_316_608
    low, value, high = (found[f"efficientnet-lite0_int8/top1{end}"] for end in ("_low", "", "_high"))
    assert low < value < high


def test_a_name_holds_only_what_mlflow_takes_and_two_figures_never_share_one() -> None:
    from dataclasses import replace

    run = a_run(0)
    phone = [replace(run.measurements[0], device="adb:é|1", threads=n) for n in (1, 2)]
    run.measurements += phone
    found = metrics_of(figures_of(run))
    assert {"efficientnet-lite0_float32/latency_ms/adb___1", "efficientnet-lite0_float32/latency_ms/adb___1 2"} <= {
        *found
    }


def test_parameters_say_what_the_run_was_made_with() -> None:
    found = parameters_of(a_run(0))
    assert found["model"] == "efficientnet-lite0"
    assert found["host"] == "build-7"
    assert found["version_numpy"] == "2.4.6"
    assert all(found.values())


def test_a_folder_without_a_run_is_a_line(tmp_path) -> None:
    with pytest.raises(InputError, match=r"no results\.json in"):
        publish(tmp_path, PublishJob("http://127.0.0.1:1"))
    with pytest.raises(InputError, match="is no folder"):
        publish(tmp_path / "gone", PublishJob("http://127.0.0.1:1"))


def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingDependency, match=r"pip install 'edgenet\[mlflow\]'"):
        publish(written(tmp_path / "out", a_run(0)), PublishJob("http://127.0.0.1:1"))


@needs_client
@pytest.mark.slow
def test_a_server_that_is_not_there_is_a_line_without_the_password(tmp_path, edgenet: Edgenet) -> None:
    out = written(tmp_path / "out", a_run(0))
    done = edgenet("publish", out, "--mlflow", "http://me:secret@127.0.0.1:9")
    assert done.returncode == 3, done.stderr
    assert "the MLflow server http://127.0.0.1:9 failed" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


# ---------------------------------------------------------------------------------------------------------- the server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server on loopback, which ends with the tests."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    command = [str(SERVER), "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination",
               str(folder / "files"), "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]  # fmt: skip
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            for _ in range(1200):  # a busy machine takes minutes for its imports
                with contextlib.suppress(OSError), urllib.request.urlopen(f"{uri}/health", timeout=5):
                    break
                assert child.poll() is None, (folder / "log").read_text()
                time.sleep(0.5)
            yield uri
        finally:
            os.killpg(child.pid, signal.SIGTERM)  # the workers too, which this test started
            try:
                child.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def asked(server: str, path: str, **body: Any) -> Any:
    """Ask the server itself, past any client."""
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(f"{server}/api/2.0/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def runs_of(server: str, experiment: str) -> list[Any]:
    id = asked(server, f"mlflow/experiments/get-by-name?experiment_name={experiment}")["experiment"]["experiment_id"]
    return list(asked(server, "mlflow/runs/search", experiment_ids=[id]).get("runs", []))


@needs_server
@pytest.mark.slow
def test_a_run_of_the_real_command_is_read_back_from_a_real_server(
    server, tmp_path, tiny_folder, edgenet: Edgenet
) -> None:
    out = tmp_path / "out"
    made = edgenet("run", "tiny", "--images", tiny_folder, "--out", out, "--precision", "int8", "--precision",
                   "float32", "--calibration-images", 10)  # fmt: skip
    assert made.returncode == 0, made.stderr
    done = edgenet("publish", out, "--mlflow", server, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    (run,) = runs_of(server, "tiny")
    metrics = {m["key"]: m["value"] for m in run["data"]["metrics"]}
    assert metrics == pytest.approx(metrics_of(figures_of(Results.load(out))))
    assert {p["key"]: p["value"] for p in run["data"]["params"]} == parameters_of(Results.load(out))
    assert (run["info"]["status"], run["info"]["run_id"]) == ("FINISHED", said["run_id"])
    assert sorted(said["files"]) == ["models/tiny_float32.tflite", "models/tiny_int8.tflite", "report.html",
                                     "results.json"]  # fmt: skip
    where = f"{server}/get-artifact?run_uuid={said['run_id']}&path=models/tiny_int8.tflite"
    (tmp_path / "back.tflite").write_bytes(urllib.request.urlopen(where, timeout=60).read())
    assert sha256_of(tmp_path / "back.tflite") == sha256_of(out / "tiny_int8.tflite")

    again = edgenet("publish", out, "--mlflow", server)
    assert again.returncode == 0, again.stderr
    assert f"was there already, as run {said['run_id']} of tiny" in again.stdout
    assert len(runs_of(server, "tiny")) == 1


@needs_server
@pytest.mark.slow
def test_a_run_that_was_cut_on_the_way_is_gone_on_with_and_altered_files_stay_here(
    server, tmp_path, monkeypatch
) -> None:
    from mlflow import MlflowClient

    out = written(tmp_path / "out", a_run(0))
    job = PublishJob(server, experiment="cut")

    def broken(*args: object) -> None:
        raise OSError("the network went away")

    with monkeypatch.context() as m:
        m.setattr(MlflowClient, "log_artifact", broken)
        with pytest.raises(Exception, match="the network went away; the same command goes on"):
            publish(out, job)
    done = publish(out, job)
    assert done.is_new
    assert done.files == ("results.json", "report.html")
    assert len(done.left) == 5  # the model files of a run built by hand are not there
    (run,) = runs_of(server, "cut")
    assert (run["info"]["run_id"], run["info"]["status"]) == (done.run_id, "FINISHED")
