"""A Ray cluster as a user starts one, on this machine: `ray start --head`, and workers as processes of their own.

Nobody else can join it: it has a token. What the test began is stopped by its process ids, and by nothing else.
"""

import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from helpers.processes import is_running, wait_for

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray: pip install 'edgenet[ray]'")
_START_S = 240


class RayCluster:
    """A head and workers, each with one core, and `env` to reach them with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.client_port = _free_port(), _free_port()
        self.env = {
            **os.environ,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_ADDRESS": f"127.0.0.1:{self.port}",
        }
        self.nodes: list[subprocess.Popen[bytes]] = []

    def start(self, *more: str, resources: dict[str, float] | None = None) -> None:
        """Start the head first, then a worker with each call."""
        command = [sys.executable, "-P", "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1",
                   "--node-ip-address=127.0.0.1", "--object-store-memory=100000000",
                   f"--resources={json.dumps(resources or {})}", *more]  # fmt: skip
        if not self.nodes:
            command += ["--head", f"--port={self.port}", "--include-dashboard=false", f"--temp-dir={self.folder}"]
            command += [f"--ray-client-server-port={self.client_port}", "--min-worker-port=0", "--max-worker-port=0"]
        else:
            command += [f"--address=127.0.0.1:{self.port}"]
        env = {k: v for k, v in self.env.items() if k != "RAY_ADDRESS"}
        with (self.folder / f"node{len(self.nodes)}.log").open("wb") as log:
            self.nodes.append(
                subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
            )
        log_of = self.folder / f"node{len(self.nodes) - 1}.log"
        wait_for(lambda: b"Ray runtime started" in log_of.read_bytes() or self.nodes[-1].poll() is not None, _START_S)
        assert self.nodes[-1].poll() is None, log_of.read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        """End all that was started, the head last, and wait for it."""
        groups = [_group(p.pid) for p in reversed(self.nodes)]
        for process in reversed(self.nodes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process, group in zip(reversed(self.nodes), groups, strict=True):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(20)
            for pid in group:
                if is_running(pid):
                    os.kill(pid, signal.SIGKILL)


def kill(which: list[dict[str, Any]]) -> list[int]:
    """Kill processes by the session that a test began and how their titles begin; return their ids."""
    killed = []
    for each in which:
        for pid in _group(each["session"]):
            title = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            if title.startswith(each["title"]):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
    return killed


def _group(leader: int) -> list[int]:
    """Return the processes of a session that the test began."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader:  # its session
            found.append(int(stat.parent.name))
    return found


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def running(workers: int = 2, resources: dict[str, float] | None = None) -> Iterator[RayCluster]:
    """Start a head and so many workers, the last of which has these resources, and stop them."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # a socket's path must be short
    cluster = RayCluster(folder)
    try:
        for i in range(1 + workers):
            cluster.start(resources=resources if i == workers else None)
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
