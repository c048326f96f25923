"""Where it trains: what is not there is named, two devices and two processes end where one device ends."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgenet.calibration.training.strategy import check_strategy, open_strategy
from edgenet.errors import InputError
from helpers.places import TESTS
from helpers.trainings import needs_training

pytestmark = needs_training


@pytest.mark.parametrize(("name", "says"), [("gpu", "valid: auto, cpu"), ("multiworker", "needs TF_CONFIG")])
def test_a_strategy_that_is_not_there_is_named(name: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(InputError, match=says):
        check_strategy(name)


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        '{"cluster": {}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"index": 1}}',
        '{"cluster": 3, "task": 4}',
    ],
)
def test_a_cluster_that_is_none_is_told(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(InputError, match="TF_CONFIG"):
        check_strategy("multiworker")


@pytest.mark.parametrize(
    ("name", "tpu", "says"),
    [
        ("tpu", None, "Please provide a TPU Name to connect to"),
        ("tpu", "local", "TPUs not found in the cluster"),
        ("auto", "local", "TPUs not found in the cluster"),  # a TPU that is named and not there is no silent CPU
    ],
)
def test_a_tpu_that_is_not_there_is_told(
    name: str, tpu: str | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tpu is None:
        monkeypatch.delenv("TPU_NAME", raising=False)
    else:
        monkeypatch.setenv("TPU_NAME", tpu)
    with pytest.raises(InputError, match=rf"no TPU was found \({says}.*\): set TPU_NAME"):
        open_strategy(name)


def test_auto_is_the_cpu_where_there_is_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TPU_NAME", raising=False)
    assert open_strategy("auto").num_replicas_in_sync == 1


_LATE = """
import tensorflow as tf
from edgenet.calibration.training.strategy import open_strategy
tf.Variable(1.0)
open_strategy("multiworker")
"""


@pytest.mark.long
def test_workers_after_other_work_of_tensorflow_are_told_what_to_do() -> None:
    config = json.dumps({"cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}, "task": {"type": "worker", "index": 0}})
    done = subprocess.run(
        [sys.executable, "-c", _LATE], env={**os.environ, "TF_CONFIG": config}, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert "InputError: --strategy multiworker starts before anything else of TensorFlow" in done.stderr


def test_mirrored_without_a_gpu_is_refused() -> None:
    with pytest.raises(InputError, match="sees none: use --strategy cpu"):
        open_strategy("mirrored")


_REPLICAS = """
import dataclasses, sys; sys.path.insert(0, {tests!r})
import numpy as np, tensorflow as tf
from helpers import tiny, trainings
from pathlib import Path
from edgenet.calibration import Recipe, SharedCalibration
from edgenet.calibration.training.augment import load_pictures
from edgenet.calibration.training.strategy import open_strategy
from edgenet.images import load_pixels, open_images, split
if {devices}:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * {devices})
network = tiny.network()
a, b = split(open_images({photos!r}, network.class_ids, network.class_names), 10)
out = Path({out!r})
shared = SharedCalibration(network, load_pixels(a, network.preprocessing), "", Recipe(corrections=()))
pictures = load_pictures((b,), tiny.PREPROCESSING, out)
saved, place = {{}}, open_strategy({strategy!r})  # one a process: two would share TensorFlow's collective keys
for name, made in (
    ("quantized", trainings.training(shared, pictures, out / "quantized", place, epochs=2)[1]),
    ("float", trainings.labelled_training(network, pictures, out / "float", None, place)),
):
    if name == "quantized":  # broken, so that there is something to learn; not by much, lest all levels be clipped
        kernel = next(v for v in made.trained if v.shape == (1, 1, 16, 96))
        kernel.assign_add(np.random.default_rng(0).normal(0, 12, kernel.shape).astype(np.float32))
        for average, v in zip(made.average, made.trained):
            average.assign(v)
    else:  # as finetune has it, where layers learn at rates of their own
        factors = tuple(0.5 if i % 2 else 1.0 for i in range(len(made.trained)))
        made.task = dataclasses.replace(made.task, factors=factors)
    saved[f"{{name}}_before"] = np.concatenate([v.numpy().ravel() for v in made.average])
    outcome = made.run()
    saved[f"{{name}}_after"] = np.concatenate([v.numpy().ravel() for v in made.average])
    saved[f"{{name}}_loss"] = [row["loss"] for row in outcome.curve[1:]]
np.savez(out / "trained.npz", replicas=made.place.strategy.num_replicas_in_sync, **saved)
"""


class Replica:
    """A training in a process of its own."""

    def __init__(self, folder: Path, photos: Path, strategy: str, devices: int = 0, **env: str) -> None:
        folder.mkdir()
        self.folder, self.said = folder, open(folder / "said", "w+")  # noqa: SIM115
        program = _REPLICAS.format(
            tests=str(TESTS), devices=devices, photos=str(photos), out=str(folder), strategy=strategy
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], env={**os.environ, **env}, stdout=self.said, stderr=subprocess.STDOUT
        )

    def result(self) -> dict[str, np.ndarray]:
        """Return what it saved. A pipe would block a process that says much while another one is waited for."""
        try:
            status = self.process.wait(timeout=300)
        finally:
            self.process.kill()
            self.said.seek(0)
            said = self.said.read()
            self.said.close()
        assert status == 0, said[-3000:]
        with np.load(self.folder / "trained.npz") as stored:
            return dict(stored)


@pytest.fixture(scope="module")
def of_one(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What a single device trains."""
    return Replica(tmp_path_factory.mktemp("one") / "one", tiny_folder, "cpu").result()


def _equal_to_rounding(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    """Sums in another order turn a last bit, and in the quantized network a level, here and there."""
    for kind, least in (("quantized", 1.0), ("float", 0.1)):
        moved = np.linalg.norm(one[f"{kind}_after"] - one[f"{kind}_before"])
        apart = np.linalg.norm(one[f"{kind}_after"] - other[f"{kind}_after"])
        assert moved > least
        assert apart < 1e-3 * moved
        np.testing.assert_allclose(other[f"{kind}_loss"], one[f"{kind}_loss"], rtol=1e-2)


@pytest.mark.long
def test_two_devices_give_the_weights_of_one_to_rounding(
    of_one: dict[str, np.ndarray], tiny_folder: Path, tmp_path: Path
) -> None:
    two = Replica(tmp_path / "two", tiny_folder, "mirrored", 2).result()
    assert (int(of_one["replicas"]), int(two["replicas"])) == (1, 2)
    _equal_to_rounding(of_one, two)


@pytest.mark.long
def test_two_worker_processes_give_the_weights_of_one_to_rounding(
    of_one: dict[str, np.ndarray], tiny_folder: Path, tmp_path: Path
) -> None:
    with socket.socket() as a, socket.socket() as b:  # both open at once, so that they differ
        a.bind(("127.0.0.1", 0))
        b.bind(("127.0.0.1", 0))
        free = [f"127.0.0.1:{s.getsockname()[1]}" for s in (a, b)]
    workers = []
    for i in range(2):
        config = json.dumps({"cluster": {"worker": free}, "task": {"type": "worker", "index": i}})
        workers.append(Replica(tmp_path / f"w{i}", tiny_folder, "multiworker", TF_CONFIG=config))
    results = [worker.result() for worker in workers]
    for result in results:
        assert (int(of_one["replicas"]), int(result["replicas"])) == (1, 2)
        _equal_to_rounding(of_one, result)
    for name in results[0]:  # the workers themselves are in step, to the last bit
        np.testing.assert_array_equal(results[0][name], results[1][name])
