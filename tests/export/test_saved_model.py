"""TensorFlow as a runtime: a SavedModel of the graph answers as the .tflite does, on one core."""

from pathlib import Path

import numpy as np
import pytest

from edgenet.device_bench.device import Request
from edgenet.device_bench.registry import open_device
from edgenet.device_bench.timing import Plan
from edgenet.device_bench.worker import Worker
from edgenet.errors import InputError
from edgenet.export import Network
from edgenet.export.saved_model import to_saved_model
from helpers import fork_server


@pytest.fixture(autouse=True)
def _forked_with_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in fork_server.WITH_TENSORFLOW.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def saved(tiny_network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return to_saved_model(tiny_network.graph, tmp_path_factory.mktemp("saved") / "tiny.savedmodel")


@pytest.mark.slow
def test_a_saved_model_answers_as_the_tflite_file(saved: Path, tiny_files: dict[str, Path]) -> None:
    x = np.random.default_rng(0).standard_normal((3, 20, 20, 3)).astype(np.float32)
    with Worker(saved, runtime="tensorflow") as tensorflow, Worker(tiny_files["float32"]) as litert:
        assert tensorflow.info.runtime == "tensorflow"
        np.testing.assert_allclose(tensorflow.predict(x), litert.predict(x), atol=1e-5)


@pytest.mark.slow
def test_tensorflow_is_timed_like_any_runtime_on_the_core_that_was_asked_for(saved: Path) -> None:
    plan = Plan(min_runs=4, min_time_s=0, rounds=2, max_rounds=2, warmup_s=0.1, self_check=False)
    with open_device("local") as device:
        found, failures = device.bench([("tiny", saved)], Request(runtime="tensorflow", cores=(0,), plan=plan))
    assert failures == []
    assert (found[0].runtime, found[0].n_runs, found[0].device_info["pinned_to"]) == ("tensorflow", 4, [0])  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_folder_that_is_no_saved_model_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.savedmodel").mkdir()
    with pytest.raises(InputError, match="tensorflow cannot load"):
        Worker(tmp_path / "x.savedmodel", runtime="tensorflow")


def test_pinning_holds_the_child_on_the_core(tiny_files: dict[str, Path]) -> None:
    import os

    with Worker(tiny_files["float32"], cores=(0,)) as worker:
        assert os.sched_getaffinity(worker.pid) == {0}
