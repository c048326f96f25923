"""How many pictures a second a second worker of a Ray cluster adds.

    .venv/bin/python benchmarks/cluster.py [--files build/evaluate/*_int8.tflite] [--images ../shared/imagenet-mini]

Starts a head with one core on this machine, evaluates on it, starts a second worker with one core, and evaluates on
both. The rate is that between the first block and the last, without the start of Ray and the loading of files. That the
numbers are those of this machine is asserted. The cluster has a token of its own, and is stopped in the end.

Bar: two workers answer at least 1.6 times as many pictures a second as one.
"""

import argparse
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from edgenet.evaluate import Candidate, evaluate
from edgenet.farm.job import farm
from edgenet.images import imagenet_classes, open_images
from edgenet.jobs.evaluate_files import describe
from edgenet.results import Evaluation, ImageSet

BAR = 1.6
_START_S = 300


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def start(folder: Path, port: int, number: int) -> "subprocess.Popen[bytes]":
    """Start the head, number 0, or a worker, and wait until it runs."""
    head = ["--head", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false"]
    head += [f"--ray-client-server-port={free_port()}", "--min-worker-port=0", "--max-worker-port=0"]
    place = head if number == 0 else [f"--address=127.0.0.1:{port}"]
    command = [sys.executable, "-P", "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", *place]
    command += ["--object-store-memory=100000000"]
    log = folder / f"{number}.log"
    env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    with log.open("wb") as f:
        process = subprocess.Popen(command, env=env, stdout=f, stderr=subprocess.STDOUT, start_new_session=True)
    end = time.monotonic() + _START_S
    while b"Ray runtime started" not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"Ray does not start: {log.read_text(errors='replace')[-1000:]}")
        time.sleep(0.5)
    return process


def rate(files: Sequence[Path], images: ImageSet, cluster: str | None) -> tuple[float, list[Evaluation]]:
    """Return pictures a second between the first block and the last, and what came out."""
    seen: list[tuple[float, int]] = []
    candidates = [Candidate(f.name, f) for f in files]
    how: dict[str, Any] = {"progress": lambda done, total: seen.append((time.perf_counter(), done))}
    with farm(cluster) as who:
        found, failures = evaluate(candidates, images, describe(files[0]).preprocessing, answering=who.answering, **how)
    assert not failures, failures
    (first_s, first), (last_s, last) = seen[0], seen[-1]
    return (last - first) / (last_s - first_s), found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=Path, nargs="+")
    parser.add_argument("--images", type=Path, default=Path("../shared/imagenet-mini"))
    args = parser.parse_args()
    files = args.files or sorted(Path("build/evaluate").glob("*_int8.tflite"))
    if not files:
        raise SystemExit("no files: run benchmarks/evaluate.py, which makes some, or name them with --files")
    images = open_images(args.images, *imagenet_classes())
    port = free_port()
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    nodes: list[subprocess.Popen[bytes]] = []
    table = Table("where", "pictures/s")
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as name:
        try:
            rates = []
            for workers in (1, 2):
                nodes.append(start(Path(name), port, workers - 1))
                os.environ["RAY_ADDRESS"] = f"127.0.0.1:{port}"
                found_rate, found = rate(files, images, "auto")
                rates.append(found_rate)
                table.add_row(f"{workers} worker" + "s" * (workers > 1), f"{found_rate:.1f}")
        finally:
            for node in reversed(nodes):
                node.send_signal(signal.SIGTERM)
                node.wait(60)
    here_rate, here = rate(files, images, None)
    assert here == found, "the numbers are those of this machine"
    table.add_row(f"this machine, {os.cpu_count()} cores, without Ray", f"{here_rate:.1f}")
    table.title = f"{len(files)} files, {len(images)} pictures; load {os.getloadavg()[0]:.1f}"
    Console(width=100).print(table)
    print(f"cluster: {rates[1] / rates[0]:.2f} x")
    return 0 if rates[1] / rates[0] >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
