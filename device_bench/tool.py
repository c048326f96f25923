"""Run somebody else's program, a compiler say: whatever it does, crash or hang, is an error here and not the end."""

import os
import signal
import subprocess
from collections.abc import Sequence

from edgenet.device_bench.worker import describe_exit
from edgenet.errors import DeviceError


def run_tool(name: str, command: Sequence[str], timeout_s: float, may_fail: bool = False) -> str:
    """Return what the program printed, standard error included; with `may_fail` also where it ended with an error.

    Raises:
        DeviceError: it cannot be started, took too long (it and its children are ended), crashed or failed.
    """
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # it may be a shell script around the real one: both have to end
        )
    except OSError as e:
        raise DeviceError(f"cannot start {command[0]}: {e.strerror}; give the path of a program that runs") from e
    with process:
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except BaseException as e:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if isinstance(e, subprocess.TimeoutExpired):
                raise DeviceError(f"{name} was ended after {timeout_s:g} s: it hangs on this file") from None
            raise
    text = output.decode(errors="replace")
    if process.returncode and not (may_fail and process.returncode > 0 and text.strip()):
        said = [line.strip() for line in text.splitlines() if line.strip()]
        last = f"; it said last: {said[-1][:200]}" if said else ""
        raise DeviceError(f"{name} {describe_exit(process.returncode)}{last}")
    return text
