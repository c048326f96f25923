"""Run somebody else's program, a compiler say: whatever it does, crash or hang, is an error here and not the end."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgenet.device_bench import child
from edgenet.device_bench.worker import describe_exit
from edgenet.errors import DeviceError


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
