"""Phones for tests of device_bench/adb: the real client and server, with adb_device.Phone connected, timing files.

The server is a test module's own, on a port and with keys of its own; a user's is never touched. A module imports the
fixtures `as` themselves, which tells ruff that pytest uses them.
"""

import contextlib
import ctypes
import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgenet.device_bench.adb import device as adb
from edgenet.device_bench.adb.benchmark_binary import ENV
from edgenet.device_bench.adb.link import run_adb
from edgenet.device_bench.device import Request
from edgenet.device_bench.timing import Plan
from edgenet.errors import DeviceError
from edgenet.results import Failure, Measurement
from helpers import adb_device
from helpers.adb_device import Phone

needs_adb = pytest.mark.skipif(shutil.which("adb") is None, reason="needs adb: apt-get install adb")

QUICK = Request(plan=Plan(min_runs=6, min_time_s=0.01, rounds=2, max_rounds=2, warmup_s=0.1))
Connect = Callable[..., Phone]


def answers(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An adb server of this module's own."""
    home = tmp_path_factory.mktemp("home")
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        # The last: look for no emulators, which are somebody else's.
        for name, value in (("ANDROID_ADB_SERVER_PORT", port), ("HOME", home), ("TMPDIR", home)):
            patch.setenv(name, str(value))
        patch.setenv("ADB_LOCAL_TRANSPORT_MAX_PORT", "5554")
        patch.delenv("ANDROID_SERIAL", raising=False)
        patch.delenv("ADB_SERVER_SOCKET", raising=False)
        # In the foreground, and ended by the kernel with this process, however that ends.
        process = subprocess.Popen(
            ["adb", "nodaemon", "server"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL),  # PR_SET_PDEATHSIG
        )
        try:
            deadline = time.monotonic() + 30
            while not answers(port):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield
        finally:
            process.kill()
            process.wait()


@pytest.fixture(autouse=True)
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A benchmark_model for 64-bit Arm, named by the environment."""
    path = tmp_path / "benchmark model's"
    path.write_bytes(adb_device.elf("arm64-v8a"))
    monkeypatch.setenv(ENV, str(path))
    monkeypatch.delenv(adb.ENV_RUNNER, raising=False)
    return path


@pytest.fixture
def connect(server: None, tmp_path: Path) -> Iterator[Connect]:
    """Make a phone and connect adb to it: that of `server`, never a user's."""
    made: list[Phone] = []

    def make(**options: Any) -> Phone:
        phone = Phone(tmp_path / f"phone{len(made)}", **options)
        made.append(phone)
        reply = run_adb("connect", phone.address)
        assert reply.out.startswith("connected" if phone.authorized else "failed to authenticate"), reply
        return phone

    yield make
    for phone in made:
        phone.unplug()
        with contextlib.suppress(DeviceError):
            run_adb("disconnect", phone.address)


def bench(
    phone: Phone | str, files: dict[str, Path], request: Request = QUICK, **options: Any
) -> tuple[list[Measurement], list[Failure]]:
    with adb.open_device(phone if isinstance(phone, str) else phone.address) as device:
        return device.bench(list(files.items()), request, **options)


def calls(phone: Phone) -> list[dict[str, Any]]:
    path = phone.root / "calls.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def only(failures: list[Failure], id: str = "a") -> Failure:
    """The one failure, which is a line without a traceback and says what to do."""
    (failure,) = failures
    assert (failure.stage, failure.artifact) == ("bench", id)
    assert failure.remedy
    for text in (failure.why, failure.remedy):
        assert "\n" not in text
        assert "Traceback" not in text
    return failure
