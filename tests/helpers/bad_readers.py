"""Readers that do what a hostile file might make a reader do. They run in the child of `read_apart`."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.errors import MissingDependency


def echo(value: Any) -> Any:
    return value


def array(n: int) -> dict[str, Any]:
    return {"numbers": np.arange(n, dtype=np.float32), "pair": (1, None), "text": b"\x00\xff", "odd": float("inf")}


def lack(path: str) -> None:
    raise MissingDependency("h5py", "export", "reading a Keras file")


def abort(path: str) -> None:
    os.abort()


def leave(path: str) -> None:
    sys.stderr.write("Traceback\nthe last \x1b[31mwords\x1b[0m of a reader\n")
    sys.stderr.flush()
    os._exit(3)


def compute_for_ever(path: str) -> None:
    while True:
        pass


def sleep_for_ever(path: str) -> None:
    time.sleep(10_000)


def take_memory(path: str) -> int:
    return len([np.ones(1 << 27) for _ in range(64)])


def shout(path: str) -> None:
    raise ValueError("\x1b[2J\x1b]0;title\x07" + "long " * 1000 + "\n\nlines")


def recurse(path: str) -> None:
    recurse(path)


def leave_plain_python(path: str) -> Any:
    return {"given": object()}


def answer_garbage(path: str) -> None:
    for fd in range(3, 20):  # one of them is the copy of standard output that answers go to
        try:
            os.write(fd, b"garbage that is no message at all, and goes on for a while")
        except OSError:
            continue
    os._exit(0)


def promise_too_much(path: str) -> None:
    from edgenet.sandbox import wire

    for fd in range(3, 20):
        try:
            os.write(fd, wire.HEAD.pack(wire.MAGIC, 1 << 31, 1 << 62))
        except OSError:
            continue
    os._exit(0)


def harm(path: str) -> list[str]:
    """Try to do harm in and around the folder of `path`; return what was not refused."""
    folder, done = Path(path).parent, []
    for name, deed in deeds(folder).items():
        try:
            if deed() is not False:
                done.append(name)
        except OSError:
            continue
    return done


def deeds(folder: Path) -> dict[str, Any]:
    """Harmful things by name. Each raises OSError, or returns False, where it is refused."""
    mine = folder / "mine.txt"

    def spawn() -> Any:
        pid = os.posix_spawn("/bin/sh", ["sh", "-c", f"echo x > '{folder}/spawned'"], {})
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    return {
        "write": lambda: (folder / "new.txt").write_text("x"),
        "write elsewhere": lambda: Path(f"/tmp/edgenet-harm-{os.getpid()}").write_text("x"),
        "overwrite": lambda: mine.write_text("x"),
        "append": lambda: os.close(os.open(mine, os.O_WRONLY | os.O_APPEND)),
        "truncate": lambda: os.truncate(mine, 0),
        "make a folder": lambda: (folder / "made").mkdir(),
        "remove": lambda: mine.unlink(),
        "rename": lambda: mine.rename(folder / "yours.txt"),
        "link": lambda: os.link(mine, folder / "linked"),
        "symbolic link": lambda: (folder / "pointer").symlink_to(mine),
        "pipe": lambda: os.mkfifo(folder / "fifo"),
        "shell": lambda: os.system(f"touch '{folder}/by_shell' 2>/dev/null") == 0,
        "program": lambda: subprocess.run(["/bin/sh", "-c", f"echo x > '{folder}/by_program'"], check=False),
        "spawn": spawn,
        "network": lambda: socket.create_connection(("127.0.0.1", int((folder / "port").read_text())), 2).close(),
        "kill": lambda: os.kill(int((folder / "pid").read_text()), 9),
        "memory of another": lambda: os.close(os.open(f"/proc/{(folder / 'pid').read_text()}/mem", os.O_RDWR)),
    }
