"""Real shells, asked what they complete: bash and zsh at a terminal with the tab key, fish by its `complete -C`."""

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

SHELLS = ("bash", "zsh", "fish")
_READY = "ready>"
_LIMIT_S = 240.0  # of a busy machine; at rest it is a second
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[=>]|\([A-Z])|[\x07\r]")
# How each takes the completion, as docs/commands.md has it; bash and zsh begin without a user's own settings.
_SETTINGS = {
    "bash": "bind 'set bell-style none'; bind 'set completion-query-items 0'; bind 'set page-completions off'; "
            "bind 'set show-all-if-ambiguous on'; bind 'set enable-bracketed-paste off'; "
            'eval "$(_EDGENET_COMPLETE=bash_source edgenet)"',
    "zsh": 'setopt no_beep; LISTMAX=1000; autoload -Uz compinit; compinit -u -D; '
           'eval "$(_EDGENET_COMPLETE=zsh_source edgenet)"',
    "fish": "_EDGENET_COMPLETE=fish_source edgenet | source",
}  # fmt: skip
_COMMANDS = {"bash": ("bash", "--norc", "--noprofile", "-i"), "zsh": ("zsh", "-f", "-i", "-o", "no_prompt_sp")}


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"needs apt-get install {shell}")


def completed(shell: str, line: str, expected: Sequence[str], home: Path) -> str:
    """Return what a shell shows after `line` and the tab key, as soon as all that is expected is there."""
    env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(home), "TERM": "xterm",
           "LC_ALL": "C.UTF-8", "COLUMNS": "160"}  # fmt: skip
    if shell == "fish":
        script = f"{_SETTINGS[shell]}\ncomplete -C '{line}'"
        done = subprocess.run(["fish", "--no-config", "-c", script], env=env, cwd=home, capture_output=True, text=True,
                              timeout=_LIMIT_S)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout
    return _at_a_terminal(_COMMANDS[shell], _SETTINGS[shell], line, expected, env, home)


def _at_a_terminal(
    command: Sequence[str], settings: str, line: str, expected: Sequence[str], env: dict[str, str], home: Path
) -> str:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (200, 160))
    child = subprocess.Popen(command, env={**env, "PS1": "first>"}, cwd=home, stdin=theirs, stdout=theirs,
                             stderr=theirs, start_new_session=True)  # fmt: skip
    os.close(theirs)
    try:
        os.write(ours, f"{settings}; PS1='{_READY}'\n".encode())
        _read(ours, [f"\n{_READY}"])
        os.write(ours, f"{line}\t".encode())
        return _read(ours, expected)
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait(30)
        os.close(ours)


def _read(terminal: int, until: Sequence[str]) -> str:
    """Return what the shell wrote, without escapes, once all of `until` is in it; after a minute what there is."""
    text, begun = "", time.monotonic()
    while time.monotonic() < begun + _LIMIT_S:
        if select.select([terminal], [], [], 1.0)[0]:
            text += os.read(terminal, 1 << 16).decode(errors="replace")
        if all(word in _ESCAPES.sub("", text) for word in until):
            break
    return _ESCAPES.sub("", text)
