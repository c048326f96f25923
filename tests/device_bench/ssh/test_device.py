"""ssh/device.py and connection.py against a real sshd on loopback: the work of a prepared board, and what breaks it."""

import contextlib
import http.server
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgenet.cli import main
from edgenet.device_bench import Plan, Worker, describe
from edgenet.device_bench.device import Request
from edgenet.device_bench.registry import check_present
from edgenet.device_bench.ssh.connection import CONFIG_VARIABLE, bundle, parse
from edgenet.device_bench.ssh.device import Board, code_bundle, model_bundle, open_device
from edgenet.device_bench.ssh.prepare import prepare
from edgenet.errors import DeviceError, InputError
from helpers import boards
from helpers.boards import BATCH, FakeBoard, Keys, connection
from helpers.boards import keys as keys

pytestmark = boards.needs_sshd

QUICK = Request(plan=Plan(min_runs=10, min_time_s=0.05, rounds=3, max_rounds=3, max_time_s=10, warmup_s=0.2))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return boards.make_wheels(tmp_path_factory.mktemp("wheels"), "ai-edge-litert", "numpy")


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory, keys: Keys, wheels: Path) -> Iterator[FakeBoard]:
    """A board that was prepared from wheels by the command line's function."""
    with boards.board(tmp_path_factory.mktemp("board"), keys) as b, pytest.MonkeyPatch.context() as m:
        m.setenv(CONFIG_VARIABLE, str(b.config))
        steps: list[str] = []
        done = prepare(parse(b.id.removeprefix("ssh:")), wheels=wheels, say=steps.append)
        assert done.packages.keys() == {"numpy", "ai-edge-litert"}
        assert [s.split()[0] for s in steps] == ["looking", "making", "carrying", "installing"]
        assert list(done.done) == steps[1:]
        yield b


@pytest.fixture
def device(board: FakeBoard, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    monkeypatch.setenv(CONFIG_VARIABLE, str(board.config))
    with open_device(board.id.removeprefix("ssh:")) as d:
        yield d


# --- the work


def test_a_board_is_asked_whether_it_is_there_and_prepared(
    board: FakeBoard, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, str(board.config))
    check_present(board.id)
    with boards.board(tmp_path, keys) as other:
        monkeypatch.setenv(CONFIG_VARIABLE, str(other.config))
        with pytest.raises(DeviceError, match=f"is not set up .*: run `edgenet devices prepare {other.id}` once"):
            check_present(other.id)


def test_preparing_again_changes_nothing_and_says_so(
    board: FakeBoard, wheels: Path, edgenet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, str(board.config))
    made = (board.cache / "venv/pyvenv.cfg").stat().st_mtime_ns
    done = edgenet("devices", "prepare", board.id, "--wheels", wheels)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
    assert "was ready, nothing was changed" in done.stdout
    assert "ai-edge-litert" in done.stdout
    assert (board.cache / "venv/pyvenv.cfg").stat().st_mtime_ns == made
    assert not (board.cache / "wheels").exists()
    said = CliRunner().invoke(main, ["devices", "prepare", board.id, "--json"])
    assert json.loads(said.stdout)["done"] == []


def test_what_is_no_board_needs_no_preparing() -> None:
    done = CliRunner().invoke(main, ["devices", "prepare", "adb:123"])
    assert done.exit_code == 2
    assert "'adb:123' needs no preparing" in done.output
    assert "local" in CliRunner().invoke(main, ["devices"]).output


def test_a_board_tells_what_it_is(device: Board) -> None:
    info, here = device.info(), describe.describe()
    for same in ("cpu_model", "isa", "cores", "machine", "os", "memory_bytes"):
        assert info[same] == here[same]  # it is this machine after all
    assert info["load_average"] is not None
    assert info["runtimes"].keys() == {"litert"}


def test_files_are_timed_there_against_each_other(device: Board, tiny_files: dict[str, Path]) -> None:
    artifacts = [(p, tiny_files[p]) for p in ("float32", "int8")]
    turns: list[tuple[int, int]] = []
    request = Request(threads=1, cores=(0,), plan=QUICK.plan)
    measurements, failures = device.bench(artifacts, request, lambda done, total, _: turns.append((done, total)))
    assert failures == []
    assert [m.artifact for m in measurements] == ["float32", "int8"]
    for m in measurements:
        assert (m.device, m.runtime, m.threads) == (device.id, "litert", 1)
        assert m.n_runs >= 10
        assert {*m.rounds, *m.disturbed_rounds} == {0, 1, 2}
        assert m.peak_rss_bytes > 1e6
        assert {"temperature_c_after", "load_average_after", "clock_khz_after"} <= m.device_info.keys()
        assert m.device_info["other_processes_cores"] >= 0
        assert "busy_s" not in m.device_info
        # Timed in the runner: a turn through ssh takes longer than a run of this network by far.
        assert m.median_ms < 2
    assert turns[-1][0] == turns[-1][1]


def test_answers_there_are_those_of_this_machine(device: Board, tiny_files: dict[str, Path]) -> None:
    for precision in ("float32", "int8"):
        with Worker(tiny_files[precision]) as here:
            there = [device.predict(tiny_files[precision], BATCH[i : i + 3]) for i in (0, 3)]
            assert np.array_equal(np.concatenate(there), here.predict(BATCH))
    with pytest.raises(InputError, match="takes images of 20 x 20 x 3"):
        device.predict(tiny_files["int8"], BATCH[:, :9])


def test_content_that_is_there_is_not_sent_again_and_damage_is_mended(
    board: FakeBoard, device: Board, tmp_path: Path
) -> None:
    path = tmp_path / "some.tflite"
    path.write_bytes(b"x" * 1000)
    first = bundle("models", [("model.tflite", path)])
    there = board.cache / first.folder / "model.tflite"
    device.connection.carry([first, code_bundle()])
    assert there.read_bytes() == path.read_bytes()
    inode = there.stat().st_ino
    device.connection.carry([first])
    assert there.stat().st_ino == inode
    path.write_bytes(b"y" * 1000)  # the same size: only a hash tells
    second = bundle("models", [("model.tflite", path)])
    device.connection.carry([second])
    assert (board.cache / second.folder / "model.tflite").read_bytes() == path.read_bytes()
    (board.cache / second.folder / "model.tflite").write_bytes(b"y" * 999)  # a card that forgets
    device.connection.carry([second])
    assert (board.cache / second.folder / "model.tflite").read_bytes() == path.read_bytes()
    assert not list(board.cache.glob("incoming.*"))


def test_models_that_nobody_used_for_weeks_are_removed(board: FakeBoard, device: Board, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    old, used = bundle("models", [("model.tflite", tmp_path / "a")]), bundle("models", [("model.onnx", tmp_path / "a")])
    device.connection.carry([old, used])
    for b in (old, used):
        os.utime(board.cache / b.folder, (time.time() - 30 * 86400,) * 2)
    device.connection.carry([used])
    assert not (board.cache / old.folder).exists()
    assert (board.cache / used.folder / "model.onnx").exists()


def test_an_onnx_file_whose_weights_stand_beside_it_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    for name in ("net.onnx", "net.onnx.data"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=r"has its weights in net\.onnx\.data"):
        model_bundle(tmp_path / "net.onnx", None)


def test_a_hostile_file_name_is_only_a_name(
    board: FakeBoard, device: Board, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / '$(touch pwned) \'; touch pwned; "`touch pwned`" \n -rf *.tflite'
    shutil.copy(tiny_files["int8"], path)
    with Worker(tiny_files["int8"]) as here:
        assert np.array_equal(device.predict(path, BATCH), here.predict(BATCH))
    measurements, failures = device.bench([("hostile", path)], QUICK)
    assert (len(measurements), failures) == (1, [])
    assert not list(board.home.rglob("pwned"))
    assert not list(Path.cwd().glob("pwned"))
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / "$(touch pwned).whl").touch()
    with pytest.raises(InputError, match="is not the name of a wheel"):
        prepare(device.connection, wheels=odd)


def test_a_broken_file_fails_by_its_own_name_and_the_others_go_on(
    device: Board, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"not a model")
    asked = [("broken", broken), ("gone", tmp_path / "gone.tflite"), ("onnx", tmp_path / "a.onnx"),
             ("good", tiny_files["int8"])]  # fmt: skip
    (tmp_path / "a.onnx").write_bytes(b"x")
    measurements, failures = device.bench(asked, QUICK)
    assert [m.artifact for m in measurements] == ["good"]
    why = {f.artifact: f.why for f in failures}
    assert str(broken) in why["broken"]
    assert ".cache" not in why["broken"]
    assert "no such file" in why["gone"]
    assert f"edgenet devices prepare {device.id} --runtime onnxruntime" in why["onnx"]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(delegate="gpu"), "runs on the CPU only"),
        (Request(cores=(4096,)), "has no core 4096"),
    ],
)
def test_what_a_board_cannot_do_is_refused(
    device: Board, tiny_files: dict[str, Path], request_: Request, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        device.bench([("int8", tiny_files["int8"])], request_)


# --- what goes wrong on the way


def test_a_connection_lost_in_the_middle_fails_that_file_and_the_other_goes_on(
    board: FakeBoard, device: Board, tiny_files: dict[str, Path]
) -> None:
    runners: list[int] = []
    board.wait_until_idle()

    def cut(done: int, total: int, id: str) -> None:
        if done == 5:  # both are loaded and warmed up
            victim = next(
                s for s in board.sessions() if any("runner.py" in boards.command_of(d) for d in boards.descendants(s))
            )
            runners.extend(d for d in boards.descendants(victim) if "runner.py" in boards.command_of(d))
            for pid in boards.descendants(victim):
                if boards.command_of(pid).startswith("sshd"):
                    boards.kill(pid)
            boards.kill(victim)

    artifacts = [(p, tiny_files[p]) for p in ("float32", "int8")]
    measurements, failures = device.bench(artifacts, QUICK, cut)
    assert len(measurements) == len(failures) == 1
    assert "the connection was lost" in failures[0].why
    assert failures[0].why.startswith(device.id)
    assert "reachable" in failures[0].remedy
    assert runners
    deadline = time.monotonic() + 5
    while any("runner.py" in boards.command_of(pid) for pid in runners):
        assert time.monotonic() < deadline, "the runner outlived its connection"
        time.sleep(0.05)


def test_a_board_that_goes_away_altogether_is_a_failure_of_each_file(
    board: FakeBoard, keys: Keys, tiny_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with boards.board(tmp_path / "again", keys, home=board.home) as b:
        monkeypatch.setenv(CONFIG_VARIABLE, str(b.config))

        def pull_the_plug(done: int, total: int, id: str) -> None:
            if done == 5:
                for pid in (b.pid, *boards.descendants(b.pid)):
                    boards.kill(pid)

        measurements, failures = Board(connection(b)).bench(list(tiny_files.items()), QUICK, pull_the_plug)
        assert measurements == []
        assert [f.artifact for f in failures] == list(tiny_files)
        assert all("connection was lost" in f.why for f in failures)
        with pytest.raises(DeviceError, match="no ssh server listens"):
            Board(connection(b)).info()


def test_a_prediction_goes_on_after_a_lost_connection(
    board: FakeBoard, device: Board, tiny_files: dict[str, Path]
) -> None:
    expected = device.predict(tiny_files["int8"], BATCH)
    for pid in [p for s in board.sessions() for p in (s, *boards.descendants(s))]:
        boards.kill(pid)
    with pytest.raises(DeviceError, match="connection was lost"):
        device.predict(tiny_files["int8"], BATCH)
    assert np.array_equal(device.predict(tiny_files["int8"], BATCH), expected)


def test_a_user_who_shares_connections_is_served_by_the_shared_one(
    board: FakeBoard, tiny_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(prefix="mux") as folder:  # a socket's path must be short
        config = board.write_config("shared", "client", board.keys.public("host"))
        with config.open("a") as f:
            f.write(f"  ControlMaster auto\n  ControlPath {folder}/s\n  ControlPersist 30\n")
        monkeypatch.setenv(CONFIG_VARIABLE, str(config))
        board.wait_until_idle()
        with Board(connection(board)) as device:
            device.predict(tiny_files["int8"], BATCH)
            assert len(board.sessions()) == 1
            for pid in [p for s in board.sessions() for p in (s, *boards.descendants(s))]:
                boards.kill(pid)
            with pytest.raises(DeviceError, match="a shared connection ended"):
                device.predict(tiny_files["int8"], BATCH)


def test_a_process_killed_for_memory_is_told_from_a_lost_connection(
    board: FakeBoard, device: Board, tiny_files: dict[str, Path]
) -> None:
    device.predict(tiny_files["int8"], BATCH)
    for pid in boards.descendants(board.pid):
        if "runner.py" in boards.command_of(pid):
            boards.kill(pid)
    with pytest.raises(DeviceError, match="the process there was killed, out of memory perhaps"):
        device.predict(tiny_files["int8"], BATCH)


def test_another_host_key_is_refused_and_so_is_an_unknown_one(
    board: FakeBoard, tiny_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Board(connection(board))
    monkeypatch.setenv(CONFIG_VARIABLE, str(board.write_config("wrong", "client", board.keys.public("stranger"))))
    with pytest.raises(DeviceError, match="another machine answers in its place") as raised:
        device.info()
    assert f"ssh-keygen -R '[127.0.0.1]:{board.port}'" in str(raised.value)
    measurements, failures = device.bench([("int8", tiny_files["int8"])], QUICK)
    assert measurements == []
    assert (failures[0].device, "host key" in failures[0].why) == (device.id, True)
    with pytest.raises(DeviceError, match="host key"):
        prepare(device.connection)
    monkeypatch.setenv(CONFIG_VARIABLE, str(board.write_config("unknown", "client", None)))
    with pytest.raises(DeviceError, match=rf"is not known here: run `ssh -p {board.port} 127.0.0.1` once"):
        device.info()


def test_a_key_that_the_board_does_not_know_is_refused(board: FakeBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    config = board.write_config("stranger", "stranger", board.keys.public("host"))
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    with pytest.raises(DeviceError, match="ssh-copy-id"):
        Board(connection(board)).info()


def test_a_name_that_nobody_knows_and_a_closed_port_are_told(board: FakeBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, str(board.config))
    with pytest.raises(DeviceError, match="no machine of that name is known"):
        open_device("pi@edgenet-test.invalid").info()
    with pytest.raises(DeviceError, match="no ssh server listens there"):
        open_device("127.0.0.1:1").info()


# --- what else can be installed on it


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a package index: a folder a project, whose listing by http.server is what pip reads."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_wheels_for_another_processor_do_not_fit_and_are_named(device: Board, tmp_path: Path) -> None:
    wheel = boards.make_wheel(tmp_path / "other", "openvino", "2026.4.1", {"openvino/__init__.py": ""})
    wheel.rename(wheel.with_name("openvino-2026.4.1-cp311-cp311-manylinux_2_34_riscv64.whl"))
    with pytest.raises(DeviceError, match=r"no openvino for Python .*riscv64\.whl in the folder does not fit"):
        prepare(device.connection, ["openvino"], tmp_path / "other")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="no wheels"):
        prepare(device.connection, wheels=empty)
    with pytest.raises(InputError, match="unknown runtime 'tensorrt'"):
        prepare(device.connection, ["tensorrt"])


def test_a_board_without_network_is_told_how_to_carry_wheels_over(
    board: FakeBoard, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with boards.board(tmp_path / "b", keys, home=board.home, PIP_INDEX_URL="http://127.0.0.1:1/") as b:
        monkeypatch.setenv(CONFIG_VARIABLE, str(b.config))
        with pytest.raises(DeviceError, match="reaches no package index") as raised:
            prepare(connection(b), ["openvino"])
    assert "pip download -d DIR --only-binary=:all: --python-version 3." in str(raised.value)
    assert f"edgenet devices prepare {b.id} --runtime openvino --wheels DIR" in str(raised.value)


@pytest.mark.slow
def test_a_runtime_is_added_from_the_boards_own_index_and_runs(
    board: FakeBoard, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_network
) -> None:
    from edgenet.calibration import quantize
    from edgenet.export import export_graph

    flat = boards.make_wheels(tmp_path / "flat", "onnxruntime")
    for wheel in list(flat.iterdir()):
        project = tmp_path / "index" / wheel.name.split("-")[0].replace("_", "-").lower()
        project.mkdir(parents=True, exist_ok=True)
        wheel.rename(project / wheel.name)
    with (
        serving(tmp_path / "index") as url,
        boards.board(tmp_path / "b", keys, home=board.home, PIP_INDEX_URL=url, PIP_NO_CACHE_DIR="1") as b,
    ):
        monkeypatch.setenv(CONFIG_VARIABLE, str(b.config))
        done = prepare(connection(b), ["litert", "onnxruntime"])
        assert done.done == ("installing onnxruntime",)
        assert {"ai-edge-litert", "onnxruntime"} <= done.packages.keys()
        g = quantize(tiny_network.graph, "float32", None)
        path = tmp_path / export_graph(tiny_network, g, tmp_path, format="onnx", precision="float32").path
        with Board(connection(b)) as device, Worker(path) as here:
            assert np.array_equal(device.predict(path, BATCH), here.predict(BATCH))
