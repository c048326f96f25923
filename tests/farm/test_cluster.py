"""cluster.py with a real cluster of Ray on this machine: a head and two workers, as a user starts them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgenet.calibration import quantize
from edgenet.export import Network, export_graph
from edgenet.results import Calibration
from helpers import ray_cluster, tiny
from helpers.places import TESTS
from helpers.ray_cluster import RayCluster, needs_ray

pytestmark = [pytest.mark.slow, needs_ray]
MICRO = "micro"


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster.running(workers=2, resources={f"device:{MICRO}": 1}) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def files(tiny_network: Network, tiny_calibration: Calibration, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The tiny network in three formats, in float and int8."""
    out, made = tmp_path_factory.mktemp("files"), []
    for format in ("tflite", "onnx", "openvino"):
        for precision in ("float32", "int8"):
            g = quantize(tiny_network.graph, precision, tiny_calibration)
            calibration = tiny_calibration if precision == "int8" else None
            a = export_graph(tiny_network, g, out, format=format, precision=precision, calibration=calibration)
            made.append(out / a.path)
    return made


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 photographs, one of which is cut off: seven blocks."""
    root = tiny.make_folder(tmp_path_factory.mktemp("many") / "photos", per_class=80)
    (root / "class_2" / "9.jpg").write_bytes((root / "class_2" / "9.jpg").read_bytes()[:300])
    return root


def run(cluster: RayCluster | None, *args: object, status: int = 0) -> Any:
    """Run the command line, in the cluster's environment, and return what it prints as JSON."""
    command = [sys.executable, "-P", tiny.__file__, *map(str, args), "--json"]
    env = os.environ if cluster is None else cluster.env
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def here(files: list[Path], pictures: Path) -> Any:
    """What this machine says."""
    return run(None, "evaluate", *files, "--images", pictures)


def test_the_machines_of_a_cluster_give_the_results_of_this_one_to_the_bit(
    cluster: RayCluster, files: list[Path], pictures: Path, here: Any
) -> None:
    there = run(cluster, "evaluate", *files, "--images", pictures, "--cluster", "auto")
    assert [e["n_images"] for e in there["evaluations"]] == [399] * 6
    assert there == here


def test_by_a_name_from_outside_it_is_the_same(
    cluster: RayCluster, files: list[Path], pictures: Path, here: Any
) -> None:
    there = run(
        cluster, "evaluate", *files, "--images", pictures, "--cluster", f"ray://127.0.0.1:{cluster.client_port}"
    )
    assert there == here


# A program of its own: when the first pictures are done it kills what the test tells it to.
KILLING = """
import json, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from edgenet.evaluate import Candidate, evaluate
from edgenet.farm.job import farm
from edgenet.images import open_images
from edgenet.results.plain import write
from helpers import ray_cluster, tiny

network, (which, root, *files) = tiny.network(), sys.argv[2:]
leaders = json.loads(which)
killed = []

def kill(done, total):
    if leaders and not killed and done < total:
        killed.extend(ray_cluster.kill(leaders))

images = open_images(root, network.class_ids, network.class_names)
candidates = [Candidate(Path(f).name, Path(f)) for f in files]
how = {"reference": candidates[0].id, "progress": kill}
with farm("auto" if leaders is not None else None) as who:
    found, failures = evaluate(candidates, images, network.preprocessing, answering=who.answering, **how)
print(json.dumps({"killed": killed, "failures": write(failures + who.failures), "found": [write(e) for e in found]}))
"""


def killing(cluster: RayCluster, leaders: list[dict[str, Any]] | None, pictures: Path, files: list[Path]) -> Any:
    command = [sys.executable, "-P", "-c", KILLING, TESTS, json.dumps(leaders), pictures, *files]
    done = subprocess.run(command, env=cluster.env, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_worker_that_is_killed_in_the_middle_costs_nothing_but_time(
    cluster: RayCluster, files: list[Path], pictures: Path
) -> None:
    local = killing(cluster, None, pictures, files)
    for node in (1, 2):
        found = killing(cluster, [{"session": cluster.nodes[node].pid, "title": "ray::Site"}], pictures, files)
        assert len(found["killed"]) == 1
        assert found["failures"] == []
        assert found["found"] == local["found"], "no picture counts twice, and none is missing"


def test_a_machine_that_goes_in_the_middle_costs_nothing_but_time(
    cluster: RayCluster, files: list[Path], pictures: Path
) -> None:
    cluster.start()
    local = killing(cluster, None, pictures, files)
    found = killing(cluster, [{"session": cluster.nodes[-1].pid, "title": ""}], pictures, files)
    assert len(found["killed"]) > 3, "all processes of the machine"
    assert found["found"] == local["found"]


def test_a_device_of_the_cluster_is_measured_where_it_is(cluster: RayCluster, files: list[Path]) -> None:
    int8 = next(f for f in files if f.name.endswith("int8.tflite"))
    here = run(None, "bench", int8, "--device", MICRO)
    there = run(cluster, "bench", int8, "--device", MICRO, "--cluster", "auto")
    assert there["estimates"] == here["estimates"]
    assert [e["device"] for e in there["estimates"]] == [MICRO]


def test_a_whole_run_on_a_cluster_has_the_accuracies_of_one_on_this_machine(
    cluster: RayCluster, tiny_folder: Path, tmp_path: Path
) -> None:
    args = ("run", "tiny", "--images", tiny_folder, "--precision", "float32", "--precision", "int8",
            "--max-accuracy-drop", "50", "--device", "local", "--device", MICRO)  # fmt: skip
    here = run(None, *args, "--out", tmp_path / "here")
    there = run(cluster, *args, "--out", tmp_path / "there", "--cluster", "auto")
    assert there["evaluations"] == here["evaluations"]
    assert there["estimates"] == here["estimates"]
    assert [a["sha256"] for a in there["artifacts"]] == [a["sha256"] for a in here["artifacts"]]
    assert there["failures"] == here["failures"] == []


def test_what_layers_cost_is_the_same_on_a_cluster(cluster: RayCluster, tiny_folder: Path, tmp_path: Path) -> None:
    args = (
        "run",
        "tiny",
        "--images",
        tiny_folder,
        "--precision",
        "float32",
        "--precision",
        "int8",
        "--min-sqnr",
        "500",
    )
    here = run(None, *args, "--out", tmp_path / "here", status=1)
    there = run(cluster, *args, "--out", tmp_path / "there", "--cluster", "auto", status=1)
    costs = [r["context"]["search"]["tflite"]["sensitivity"] for r in (here, there)]
    assert costs[0] == costs[1]
    assert len(costs[0]) > 3


def test_a_cluster_that_is_not_there_is_one_sentence(files: list[Path], pictures: Path) -> None:
    for name, says in (
        ("auto", "finds no Ray cluster on this machine"),
        ("ray://127.0.0.1:9", "no Ray cluster answers"),
    ):
        command = [sys.executable, "-P", tiny.__file__, "evaluate", files[0], "--images", pictures, "--cluster", name]
        env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"RAY_TMPDIR": str(pictures)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 3
        assert says in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
