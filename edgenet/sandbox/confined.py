"""Become another program that is held by policy.py: a compiler, say, which reads a file that somebody else made.

    python -I confined.py DIR -- PROGRAM ARGUMENT...    it may write in DIR alone, and what it starts is held as it is
    python -P confined.py DIR -m MODULE ARGUMENT...     a module of Python, which may start no other program

`--parent PID` in front of DIR ends it with that process. Stands alone with policy.py beside it: interpreters of other
environments run it too.
"""

import importlib.util
import os
import runpy
import sys
import tempfile
from typing import Any


def main() -> None:
    """Give up what is not needed, and become the program."""
    arguments = sys.argv[1:]
    policy = _policy()
    if arguments[0] == "--parent":
        if not policy.die_with(int(arguments[1])):
            os._exit(1)
        del arguments[:2]
    folder, kind, program, *rest = arguments
    held = policy.Policy(writes_in=folder, file_bytes=None, open_files=4096, programs=kind == "--")
    tempfile.tempdir = os.environ["TMPDIR"] = folder
    policy.confine(held)
    if kind == "-m":
        sys.argv = [program, *rest]
        runpy.run_module(program, run_name="__main__", alter_sys=True)
        return
    try:
        os.execv(program, [program, *rest])
    except OSError as e:
        sys.exit(f"cannot start {program}: {e.strerror}; give the path of a program that runs")


def _policy() -> Any:
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "policy.py")
    spec = importlib.util.spec_from_file_location("edgenet_policy", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
