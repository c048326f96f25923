"""Run another program with a deadline and with bounded output: a board, a phone or a compiler may print without an end.

`subprocess.run` keeps all that is printed, and after its deadline waits for whoever else holds the pipes.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

OUTPUT_BYTES = 1 << 26  # the most that is kept of a stream; what is printed beyond it is read and forgotten
_CHUNK_BYTES = 1 << 16
_LOOK_S = 0.2
_PIPES_TIMEOUT_S = 2.0  # for what is left in the pipes when the program has ended; a daemon of its may hold them


@dataclass(frozen=True)
class Ended:
    """How a program ended, and what it printed: its beginning, up to the limit."""

    status: int  # as `Popen.wait` gives it
    out: bytes
    err: bytes


def run(
    command: Sequence[str],
    timeout_s: float,
    *,
    stdin: bytes | IO[bytes] = b"",
    merged: bool = False,
    own_session: bool = False,
    limit_bytes: int = OUTPUT_BYTES,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run a program to its end; it is ended after `timeout_s`.

    Args:
        stdin: what it reads.
        merged: standard error goes where the output does.
        own_session: it may be a shell script around the real program: its children are ended with it.
        environment: variables that it gets beside those of this process.

    Raises:
        OSError: it cannot be started.
        subprocess.TimeoutExpired: it took too long.
    """
    deadline = time.monotonic() + timeout_s
    process = subprocess.Popen(
        list(command),
        stdin=(subprocess.PIPE if stdin else subprocess.DEVNULL) if isinstance(stdin, bytes) else stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merged else subprocess.PIPE,
        start_new_session=own_session,
        bufsize=0,
        env={**os.environ, **environment} if environment else None,
    )
    out, err = bytearray(), bytearray()
    streams = ((process.stdout, out), (process.stderr, err))
    threads = [_thread(_drain, stream, into, limit_bytes) for stream, into in streams if stream is not None]
    if isinstance(stdin, bytes) and process.stdin is not None:
        threads.append(_thread(_feed, process.stdin, stdin))
    try:
        # Its output ends with it, at once; where a daemon of its holds the pipes, a look now and then tells.
        while any(t.is_alive() for t in threads) and process.poll() is None and time.monotonic() < deadline:
            threads[0].join(_LOOK_S)
        status = process.wait(max(0.0, deadline - time.monotonic()))
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL) if own_session else process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PIPES_TIMEOUT_S)
        raise
    finally:
        for thread in threads:
            thread.join(_PIPES_TIMEOUT_S)
    return Ended(status, bytes(out), bytes(err))


def _thread(work: object, *args: object) -> threading.Thread:
    thread = threading.Thread(target=work, args=args, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def _drain(stream: IO[bytes], into: bytearray, limit_bytes: int) -> None:
    with stream, suppress(OSError, ValueError):
        while chunk := stream.read(_CHUNK_BYTES):
            into += chunk[: max(0, limit_bytes - len(into))]


def _feed(stream: IO[bytes], data: bytes) -> None:
    with suppress(OSError), stream:  # it need not read what it was given
        view = memoryview(data)
        while view:
            view = view[stream.write(view) or 0 :]
