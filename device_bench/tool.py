"""Run somebody else's program, a compiler say: whatever it does, crash or hang, is an error here and not the end.

A program that reads a file of somebody else's is held by edgenet/sandbox: see `confined`.
"""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgenet.device_bench import child
from edgenet.device_bench.worker import describe_exit
from edgenet.errors import DeviceError
from edgenet.sandbox import confined as confined_program


def run_tool(
    name: str,
    command: Sequence[str],
    timeout_s: float,
    may_fail: bool = False,
    environment: Mapping[str, str] | None = None,
    stdout: Path | None = None,
    telling: str | None = None,
) -> str:
    """Return what the program printed, standard error included; with `may_fail` also where it ended with an error.

    Args:
        environment: variables that it gets beside those of this process.
        stdout: the file that its standard output goes to; only standard error is returned then.
        telling: a pattern whose first group says why it failed, where it is found; else its last line does.

    Raises:
        DeviceError: it cannot be started, took too long (it and its children are ended), crashed or failed.
    """
    try:
        ended = child.run(command, timeout_s, merged=stdout is None, own_session=True, environment=environment)
    except OSError as e:
        raise DeviceError(f"cannot start {command[0]}: {e.strerror}; give the path of a program that runs") from e
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{name} was ended after {timeout_s:g} s: it hangs on this file") from None
    if stdout is not None:
        stdout.write_bytes(ended.out)
    text = (ended.out if stdout is None else ended.err).decode(errors="replace")
    if ended.status and not (may_fail and ended.status > 0 and text.strip()):
        said = [line.strip() for line in text.splitlines() if line.strip()]
        last = f"; it said last: {said[-1][:200]}" if said else ""
        if telling is not None and (found := re.search(telling, text, re.MULTILINE)):
            last = f"; it said: {found[1].strip()[:200]}"
        raise DeviceError(f"{name} {describe_exit(ended.status)}{last}")
    return text


def confined(command: Sequence[str], writes_in: Path, python: Path | str = sys.executable) -> list[str]:
    """Return the command that runs `command` where it may write in one folder alone and has no network.

    Args:
        command: a program's absolute path and its arguments. What it starts is held as it is.
        writes_in: the folder; temporary files of the program's are made there too.
        python: an interpreter to start with; it needs nothing but the standard library.
    """
    return [str(python), "-I", *_holder(writes_in), "--", *command]


def confined_module(module: str, arguments: Sequence[str], writes_in: Path) -> list[str]:
    """Return the command that runs a module of Python so; it may start no program either."""
    return [sys.executable, "-P", *_holder(writes_in), "-m", module, *arguments]


def _holder(writes_in: Path) -> list[str]:
    parent = ["--parent", str(os.getpid())]
    main = threading.current_thread() is threading.main_thread()  # the kernel watches the thread, not the process
    return [confined_program.__file__, *(parent if main else ()), str(writes_in)]
