"""Node data: what it holds, and the real Model Explorer, which finds every operator and shows the figures."""

import importlib.util
import json
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from edgenet.publish.job import publish
from edgenet.publish.node_data import missing, node_data
from edgenet.publish.options import PublishJob
from edgenet.results import Explanation, Layer, OtherPrecision, Results
from helpers.browser import needs_chromium
from helpers.chromium import shown_text
from helpers.hand_built import changed, in_three_formats, some_results
from helpers.hand_built_runs import a_calibration, a_search

needs_explorer = pytest.mark.skipif(
    importlib.util.find_spec("model_explorer") is None, reason="needs pip install ai-edge-model-explorer==0.1.34"
)
INT8 = "efficientnet-lite0_int8.tflite"


def explained(run: Results, threads: int = 1) -> Results:
    int8 = next(a for a in run.artifacts if a.precision == "int8" and a.format == "tflite")
    layers = [Layer("layer0", "CONV_2D", "int8", "XNNPACK", 12.5, 10**6, 10**4),
              Layer("added", "ADD", "int8", "XNNPACK", 2.5, 0, 10**4),
              Layer("image_int8", "QUANTIZE", "float32", "XNNPACK", 1.0, 0, 10**4)]  # fmt: skip
    run.put(Explanation(int8.id, "local", "litert", threads, "int8", 9.8, 9.7, "", tuple(layers), {}, (), ()))
    return run


def test_times_are_of_the_operators_that_were_timed() -> None:
    found = node_data(explained(some_results()))[f"{INT8}.time.json"]
    assert found["name"] == "time (µs)"
    assert found["results"] == {"layer0": {"value": 12.5}, "added": {"value": 2.5}, "image_int8": {"value": 1.0}}
    assert [g["stop"] for g in found["gradient"]] == [0, 1]


def test_two_measurements_of_one_file_are_two_files() -> None:
    found = node_data(explained(explained(some_results()), threads=2))
    assert [n for n in found if ".time" in n] == [f"{INT8}.time-1.json", f"{INT8}.time-2.json"]
    assert found[f"{INT8}.time-2.json"]["name"] == "time (µs), local, litert, threads: 2"


def test_precisions_are_of_integer_files_and_name_what_is_not_integer() -> None:
    run = explained(some_results(calibration=a_calibration(2)))
    other = OtherPrecision("CONV_2D", "int16", "kept", ("layer1",), 0.1)
    run = changed(run, "int8", "artifacts", other_precisions=(other,))
    found = node_data(run)
    assert {n for n in found if n.endswith("precision.json")} == {
        f"{INT8}.precision.json", "efficientnet-lite0_int16x8.tflite.precision.json",
    }  # fmt: skip
    values = {name: r["value"] for name, r in found[f"{INT8}.precision.json"]["results"].items()}
    assert values == {"layer0": "int8", "layer1": "int16", "added": "int8"}  # and no QUANTIZE
    assert all(r["bgColor"].startswith("#") for r in found[f"{INT8}.precision.json"]["results"].values())


def test_sqnr_is_what_the_search_for_a_budget_found() -> None:
    run = some_results(search={"tflite": a_search()})
    found = node_data(run)[f"{INT8}.sqnr.json"]
    assert found["results"]["block3"] == {"value": 18.0}
    assert len(found["results"]) == 20


def test_other_formats_have_none_as_model_explorer_does_not_read_them() -> None:
    run = in_three_formats()
    run.artifacts = [a for a in run.artifacts if a.format != "tflite"]
    assert node_data(run) == {}
    assert missing(run) == (
        "Model Explorer reads .tflite, and the run has no such file: run it again with --format tflite",
    )


def test_what_is_not_recorded_is_named_with_the_command_that_records_it() -> None:
    times, sqnr = missing(some_results())
    assert times.startswith("no times of operators for efficientnet-lite0_float32.tflite and 4 more: `edgenet bench")
    assert "--max-accuracy-drop" in sqnr
    assert len(missing(explained(some_results(search={"tflite": a_search()})))) == 1  # the other files' times


def test_figures_of_a_file_that_was_made_again_since_are_left_out() -> None:
    run = explained(some_results())
    run.explanations = [e.__class__(**{**e.__dict__, "artifact_sha256": "9" * 64}) for e in run.explanations]
    assert f"{INT8}.time.json" not in node_data(run)


# --------------------------------------------------------------------------------------------------- Model Explorer


def names_in_graph(file: Path) -> dict[str, str]:
    """Return what Model Explorer's own adapter makes of a file: name of an output tensor -> label of its node."""
    code = (
        "import json, sys; from model_explorer import builtin_tflite_flatbuffer_adapter as adapter\n"
        "made = adapter.BuiltinTfliteFlatbufferAdapter().convert(sys.argv[1], {})['graphCollections']\n"
        "print(json.dumps([g for c in made for g in c.graphs]))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code, str(file)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (graph,) = json.loads(done.stdout.splitlines()[-1])
    return {
        attr["value"]: node["label"]
        for node in graph["nodes"]
        for output in node.get("outputsMetadata", [])
        for attr in output["attrs"]
        if attr["key"] == "tensor_name"
    }


@pytest.fixture(scope="module")
def nodes(published_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("nodes")
    publish(published_run, PublishJob(node_data=place))
    return place


@needs_explorer
@pytest.mark.slow
def test_every_key_is_a_tensor_of_model_explorers_graph(published_run, nodes) -> None:
    files = sorted(nodes.glob("*.json"))
    assert {f.name for f in files} == {
        "tiny_float32.tflite.time.json", "tiny_int8.tflite.time.json", "tiny_int8.tflite.precision.json",
        "tiny_int8.tflite.sqnr.json",
    }  # fmt: skip
    graphs = {name: names_in_graph(published_run / name) for name in ("tiny_float32.tflite", "tiny_int8.tflite")}
    for file in files:
        graph = graphs[file.name.rpartition(".tflite")[0] + ".tflite"]
        assert set(json.loads(file.read_text())["results"]) <= set(graph), file.name
    times = json.loads((nodes / "tiny_int8.tflite.time.json").read_text())["results"]
    constants = ("GraphInputs", "GraphOutputs", "pseudo_const")
    computed = {name for name, label in graphs["tiny_int8.tflite"].items() if label not in constants}
    assert set(times) == {name for name in computed if not name.endswith("_real")}  # weights that are only unpacked
    precisions = {
        r["value"] for r in json.loads((nodes / "tiny_int8.tflite.precision.json").read_text())["results"].values()
    }
    assert {"int8", "float32"} < precisions  # and those that the search kept better


@needs_explorer
@pytest.mark.slow
def test_the_builder_of_model_explorer_takes_the_content(nodes) -> None:
    from model_explorer.node_data_builder import GraphNodeData, NodeDataResult

    content = json.loads((nodes / "tiny_int8.tflite.time.json").read_text())
    del content["made_by"]
    results = {name: NodeDataResult(**value) for name, value in content.pop("results").items()}
    built = GraphNodeData(results=results, **content)
    assert json.loads(built.to_json_string())["results"] == {n: {"value": r.value} for n, r in results.items()}


@contextmanager
def serving(model: Path, files: list[Path], log: Path) -> Iterator[str]:
    """The address of a real Model Explorer on loopback, which was given a model and node data by their paths."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    code = (
        "import sys, model_explorer\nconfig = model_explorer.config().add_model_from_path(sys.argv[2])\n"
        "for path in sys.argv[3:]: config.add_node_data_from_path(path)\n"
        "model_explorer.visualize_from_config(config, host='127.0.0.1', port=int(sys.argv[1]), no_open_in_browser=True)"
    )
    command = [sys.executable, "-P", "-c", code, str(port), str(model), *map(str, files)]
    with log.open("wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            for _ in range(360):
                with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/check_health", timeout=5) as a:
                    assert a.read() == b"model_explorer_ok"
                    break
                assert child.poll() is None, log.read_text()
                time.sleep(0.5)
            sources = {"models": [{"url": str(model)}], "nodeData": [str(f) for f in files],
                       "nodeDataTargets": [""] * len(files)}  # fmt: skip
            yield f"http://127.0.0.1:{port}/?data={urllib.parse.quote(json.dumps(sources))}"
        finally:
            child.terminate()
            child.wait(60)


@needs_explorer
@needs_chromium
@pytest.mark.slow
def test_model_explorer_shows_the_figures_beside_the_graph(published_run, nodes, tmp_path) -> None:
    model = published_run / "tiny_int8.tflite"
    files = [nodes / f"tiny_int8.tflite.{figure}.json" for figure in ("time", "precision", "sqnr")]
    with serving(model, files, tmp_path / "log") as url:
        text = shown_text(url, tmp_path / "profile", until="GraphOutputs")
    rows = [line.split("\t") for line in text.splitlines() if line.count("\t") >= 4]
    shown = [r for r in rows if r[1] == "depthwise_conv_2d"][-1]
    time_us = json.loads(files[0].read_text())["results"]["depthwise"]["value"]
    assert float(shown[2]) == pytest.approx(time_us)
    assert json.loads(files[1].read_text())["results"]["depthwise"]["value"] in shown
    assert {"time (µs)", "precision", "SQNR of this layer alone in int8 (dB)"} <= {*text.splitlines()}
