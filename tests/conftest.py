"""Fixtures: a tiny network that needs no TensorFlow, its photographs, and a tiny row of the zoo that does."""

import os

# Threads that wait for work by spinning took more of the two cores than the work. Before NumPy is imported:
os.environ |= dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1"
)  # fmt: skip
os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
# As edgenet.frameworks has it: some tests import TensorFlow before edgenet does, and tf.keras would be Keras 3.
os.environ["TF_USE_LEGACY_KERAS"] = "1"

# What a command says in a log is its result, a note or an error; tests/test_progress.py asks for the progress, too.
os.environ["EDGENET_PROGRESS"] = "0"

import atexit
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgenet.calibration import Recipe, SharedCalibration, quantize
from edgenet.export import Network, export_graph
from edgenet.images import load_pixels, open_images, split
from edgenet.models import zoo
from edgenet.results import Calibration, ImageSet
from helpers import fork_server, tiny
from helpers.command_line import Done, Edgenet

# Where the tests run in the background, nohup or a shell has these ignored, and every child would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
# What runs keep for later is kept in a folder of the tests' own.
if "EDGENET_CACHE" not in os.environ:
    os.environ["EDGENET_CACHE"] = tempfile.mkdtemp(prefix="edgenet-tests-cache-")
    atexit.register(shutil.rmtree, os.environ["EDGENET_CACHE"], ignore_errors=True)
STRICT = {"PYTHONWARNINGS": "error::ResourceWarning"}


@pytest.fixture(scope="session", autouse=True)
def _fork_server() -> Iterator[None]:
    """Start the command line and the runners of models by a fork; see helpers/fork_server.py."""
    with fork_server.running({**os.environ, **STRICT}):
        yield


@pytest.fixture(scope="session")
def tiny_network() -> Network:
    """20 px in, five classes out: it tells colours apart."""
    return tiny.network()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty labelled JPEGs in class folders. Copy it before changing it."""
    return tiny.make_folder(tmp_path_factory.mktemp("pictures") / "photos")


@pytest.fixture(scope="session")
def tiny_images(tiny_folder: Path, tiny_network: Network) -> tuple[ImageSet, ImageSet]:
    """The folder split into calibration and evaluation, 10 and 30 pictures."""
    return split(open_images(tiny_folder, tiny_network.class_ids, tiny_network.class_names), 10)


@pytest.fixture(scope="session")
def tiny_calibration(tiny_network: Network, tiny_images: tuple[ImageSet, ImageSet]) -> Calibration:
    """Ranges of `tiny_network.graph` itself: nothing is equalised or corrected."""
    pixels = load_pixels(tiny_images[0], tiny_network.preprocessing)
    return SharedCalibration(tiny_network, pixels, tiny_images[0].fingerprint, Recipe(corrections=())).calibration


@pytest.fixture(scope="session")
def tiny_files(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """precision -> a .tflite of the tiny network. Read only."""
    out, files = tmp_path_factory.mktemp("files"), {}
    for precision in ("float32", "float16", "int8"):
        g = quantize(tiny_network.graph, precision, tiny_calibration)
        a = export_graph(tiny_network, g, out, format="tflite", precision=precision, calibration=tiny_calibration)
        files[precision] = out / a.path
    return files


@pytest.fixture
def tiny_zoo(monkeypatch: pytest.MonkeyPatch) -> zoo.ModelSpec:
    """A row of the zoo, `efficientnet-tiny`: Lite0 at a tenth of the width and 32 px. Building it loads TensorFlow."""
    row = replace(zoo.spec("efficientnet-lite0"), name="efficientnet-tiny", width=0.1, resolution_px=32)
    monkeypatch.setitem(zoo.MODELS, row.name, row)
    return row


@pytest.fixture(scope="session")
def edgenet() -> Edgenet:
    """Run the command line as a user does, in a process of its own, with the model `tiny`; nothing is a terminal."""

    def run(*args: object, kill: str = "", room_bytes: int | str = "", timeout_s: float = 120, **options: Any) -> Done:
        env = {**os.environ, "TINY_KILL": kill, "TINY_ROOM": str(room_bytes), **STRICT}
        command = [sys.executable, tiny.__file__, *map(str, args)]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout_s, **options)

    return run
