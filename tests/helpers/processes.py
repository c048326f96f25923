"""Processes that tests start or look for: whether one runs, and waiting until something has come about."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgenet.sandbox import policy

has_nets = {"landlock", "seccomp"} <= set(policy.available())
needs_nets = pytest.mark.skipif(not has_nets, reason="needs a kernel with Landlock and seccomp")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)


def is_held(pid: int) -> bool:
    """Tell whether a process can get no more rights and has a filter of calls, where this kernel has such."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2") or not has_nets
