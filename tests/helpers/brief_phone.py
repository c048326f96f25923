"""An adb with one phone, adb:HERE, that answers so many times and is then unplugged."""

import os
from pathlib import Path

import pytest

_ADB = """#!/bin/sh
[ "$2" = HERE ] || {{ echo "error: device '$2' not found" >&2; exit 1; }}
echo x >> {calls}
[ $(wc -l < {calls}) -le {answers} ] || {{ echo "error: device '$2' not found" >&2; exit 1; }}
shift 3
exec sh -c "$1"
"""


def install(folder: Path, answers: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put it on PATH; return the file that gets a line for each call."""
    adb, calls = folder / "bin" / "adb", folder / "calls"
    adb.parent.mkdir()
    adb.write_text(_ADB.format(calls=calls, answers=answers))
    adb.chmod(0o755)
    monkeypatch.setenv("PATH", f"{adb.parent}{os.pathsep}{os.environ['PATH']}")
    return calls
