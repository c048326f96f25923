"""The edge between the library and a terminal: any error as one line and an exit status, any text as what can be shown.

Exit status: 0 done; 1 a gate or budget failed; 2 the input or the arguments are wrong; 3 a device or runtime failed;
130 interrupted.
"""

import errno
import os
import signal
import sys
import traceback
import warnings
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from edgenet.errors import EdgenetError, printable

INTERRUPTED = 130
TRACEBACK = "EDGENET_TRACEBACK"  # set, an error that nobody foresaw shows where it was
_LONGEST_WORD, _LONGEST_LINE = 400, 2500  # of a message: a value that it quotes may be any length
_PACKAGE = Path(__file__).parent.parent
_interrupts: list[int] = []


class OneLineErrors(click.Group):
    """Turns errors, the library's, click's and those that nobody foresaw, into one line and an exit status."""

    def make_context(self, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as e:
            _fail_usage(e)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort, SystemExit):
            raise
        except click.UsageError as e:
            _fail_usage(e)
        except BaseException as e:
            if isinstance(e, KeyboardInterrupt) or _interrupts:  # a library may make an error of its own of Ctrl-C
                fail("interrupted; the same command goes on where it was", INTERRUPTED)
            if isinstance(e, EdgenetError):
                fail(str(e), e.exit_status)
            if isinstance(e, OSError) and e.errno == errno.EPIPE:
                raise  # `edgenet models | head -1` has what it wants; click ends quietly
            if isinstance(e, OSError) and e.strerror:  # a disk that is full, a folder that may not be read
                fail(f"{os.fsdecode(e.filename or 'the system')}: {e.strerror}", 2)
            if isinstance(e, MemoryError):
                fail("this machine has too little memory for that: give a smaller model or fewer pictures", 3)
            if not isinstance(e, Exception) or TRACEBACK in os.environ:
                raise
            fail(_unforeseen(e), 2)


def fail(message: str, status: int) -> NoReturn:
    """Say in one line what is wrong, and exit."""
    words = (word if len(word) <= _LONGEST_WORD else f"{word[:_LONGEST_WORD]}..." for word in message.split())
    echo(f"edgenet: {' '.join(words)[:_LONGEST_LINE]}", err=True)
    sys.exit(status)


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print a text, whatever it quotes: no file's name moves a cursor. Where nobody reads stderr, that is no error."""
    try:
        click.echo(printable(text), err=err, nl=nl)
    except OSError:
        if not err:
            raise


def _fail_usage(e: click.UsageError) -> NoReturn:
    command = e.ctx.command_path if e.ctx is not None else "edgenet"
    said = e.format_message().rstrip(".")
    fail(f"{said[:1].lower()}{said[1:]}; `{command} --help` shows what is valid", 2)


def _unforeseen(e: Exception) -> str:
    """Return where an error came from that is a fault of edgenet's, not of its reader's."""
    frames = traceback.extract_tb(e.__traceback__)
    own = [f for f in frames if Path(f.filename).is_relative_to(_PACKAGE)] or frames
    where = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "an unknown place"
    said = str(e)[:200] or "no reason told"
    return f"a fault of edgenet's, not of your input ({where}: {said}); please report it, {TRACEBACK}=1 shows more"


def prepare_process() -> None:
    """Make the streams, signals and warnings of this process those of a command; before anything heavy is imported."""
    streams = ("stdin", "stdout", "stderr")
    for number in range(len(streams)):
        try:
            os.fstat(number)
        except OSError:  # it was closed: the next file to be opened would have its number, and get what is printed
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
    for number, name in enumerate(streams):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))
    with suppress(ValueError):  # not the main thread
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _interrupt)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # what NumPy finds odd is not for a user


def _interrupt(signum: int, frame: FrameType | None) -> None:
    _interrupts.append(signum)
    if len(_interrupts) > 1:
        os._exit(INTERRUPTED)  # what was cleaning up hangs
    raise KeyboardInterrupt
