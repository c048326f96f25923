"""The child process of `apart.read_apart`: give up what a reader does not need, call one function, send what it gives.

Started as `python -I child.py`, so that nothing in the working folder, and no variable of Python's, has a say. The
request is JSON on standard input, which stays open as long as the parent lives.
"""

import importlib
import json
import os
import signal
import sys
import tempfile
import threading
from typing import Any


def main() -> None:
    """Answer one request."""
    # Native libraries print on standard output; the answer goes to a private copy of it.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    request = json.loads(sys.stdin.buffer.readline())
    sys.path[:] = request["path"]

    from edgenet.sandbox.policy import Policy, confine, die_with

    if "--parent" in sys.argv and not die_with(int(sys.argv[sys.argv.index("--parent") + 1])):
        os._exit(1)
    confine(Policy(**request["policy"]))
    # TensorFlow asks for it when it is imported; where none can be written to, Python would not answer.
    tempfile.tempdir = request["policy"]["writes_in"] or "/nowhere"
    threading.Thread(target=_end_with_parent, daemon=True).start()  # after it: what holds a thread holds its children
    for part in _answer(request["call"], request["arguments"]):
        answers.write(part)
    answers.flush()
    # Without what ends an interpreter: native threads that a file has started may never end.
    os._exit(0)


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)


def _answer(call: str, arguments: dict[str, Any]) -> list[bytes | memoryview]:
    """Return the message, in parts, with what the function gives or raises."""
    from edgenet.errors import EdgenetError, MissingDependency
    from edgenet.sandbox import wire

    name, function = call.split(":")
    work = getattr(importlib.import_module(name), function)
    try:
        return list(wire.pack({"given": work(**arguments)}))
    except MissingDependency as e:
        error: dict[str, Any] = {"missing": [e.package, e.extra], "said": str(e)}
    except EdgenetError as e:
        error = {"refused": type(e).__name__, "said": str(e)}
    except MemoryError:
        error = {"memory": True}
    except Exception as e:  # parsers of hostile bytes raise nearly anything
        error = {"failed": type(e).__name__, "said": str(e)[:2000]}
    return list(wire.pack(error))


if __name__ == "__main__":
    main()
