"""Files that run code when somebody loads them: refused by name; with all names allowed, harmless."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edgenet.device_bench.worker import Worker
from edgenet.errors import DeviceError, InputError
from edgenet.export import find_source
from edgenet.sandbox import policy
from helpers import hostile
from helpers.fork_server import WITH_TENSORFLOW
from helpers.places import ROOT

NETS = [("landlock",), ("seccomp",), policy.NETS]
UNSAFE = """
import pickle, sys
sys.path.append(sys.argv[1])
if sys.argv[3] != "none":
    from edgenet.sandbox.policy import Policy, confine
    nets = tuple(sys.argv[3].split(","))
    assert set(confine(Policy(file_bytes=None), nets)) == set(nets)
try:
    pickle.loads(open(sys.argv[2], "rb").read())
except OSError:
    pass
"""


def missing(nets: tuple[str, ...]) -> set[str]:
    return set(nets) - set(policy.available())


# ------------------------------------------------------------------------------------------------------------- pickles


@pytest.mark.parametrize("nets", [("none",), *NETS])
def test_a_pickle_that_an_unsafe_reader_runs_does_no_harm_in_any_net_alone(
    nets: tuple[str, ...], tmp_path: Path
) -> None:
    if nets != ("none",) and missing(nets):
        pytest.skip(f"this kernel has no {missing(nets)}")
    with socket.create_server(("127.0.0.1", 0)) as port:
        port.setblocking(False)
        harmed = set()
        for name, data in hostile.pickles(tmp_path, port.getsockname()[1]).items():
            path = tmp_path / "weights.pth"
            path.write_bytes(data)
            command = [sys.executable, "-I", "-c", UNSAFE, str(ROOT / "tests"), str(path), ",".join(nets)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
            assert "assert" not in done.stderr
            try:
                port.accept()[0].close()
                harmed.add(name)
            except BlockingIOError:
                pass
            harm = tmp_path / "harm"
            if harm.exists():
                harmed.add(name)
                harm.rmdir() if harm.is_dir() else harm.unlink()
    assert harmed == (set(hostile.pickles(tmp_path, 1)) if nets == ("none",) else set())


# ------------------------------------------------------------------------------------------- Keras files, SavedModels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    subprocess.run([sys.executable, hostile.__file__, str(folder)], check=True, capture_output=True, timeout=600)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("nets", [("none",), *NETS])
def test_a_model_that_tensorflow_runs_does_no_harm_in_any_net_alone(nets: tuple[str, ...], folder: Path) -> None:
    if nets != ("none",) and missing(nets):
        pytest.skip(f"this kernel has no {missing(nets)}")
    command = [sys.executable, hostile.__file__, str(folder), ",".join(nets)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [name for name, _, _ in rows] == list(hostile.FORMS)
    assert {name for name, harmed, _ in rows if harmed} == (set(hostile.CODE) if nets == ("none",) else set())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lambda.keras", "the layer Lambda .*Python code in a file"),
        ("lambda.h5", "the layer Lambda .*Python code in a file"),
        ("function.keras", "class or function io.write_file"),
        ("function.h5", "class or function io.write_file"),
        ("folder.h5", "class or function io.gfile.makedirs"),
        ("runs_saved", "the operator WriteFile, which is none that only computes"),
        ("starts_saved", "holds a table or another resource"),
        ("old_saved", "the operator WriteFile, which is none that only computes"),
        ("table_saved", "holds a table or another resource"),
    ],
)
def test_a_model_that_runs_code_is_refused_by_name(name: str, says: str, folder: Path) -> None:
    with pytest.raises(InputError, match=says):
        find_source(str(folder / name), preprocess="tf")
    assert not (folder / "harm").exists()


@pytest.mark.slow
def test_a_harmless_model_of_tensorflow_1_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, *next(iter(WITH_TENSORFLOW.items())))
    assert find_source(str(folder / "old_good_saved"), preprocess="tf").network().graph.ops[-1].kind == "SOFTMAX"


@pytest.mark.slow
def test_a_model_that_is_run_to_be_measured_does_no_harm(folder: Path, tmp_path: Path) -> None:
    import numpy as np

    path = tmp_path / "runs.savedmodel"
    path.symlink_to(folder / "runs_saved")
    with pytest.raises((InputError, DeviceError)), Worker(path, runtime="tensorflow") as worker:
        worker.predict(np.zeros((1, hostile.PX, hostile.PX, 3), np.float32))
    assert not (folder / "harm").exists()
