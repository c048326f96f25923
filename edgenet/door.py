"""The door: what somebody else may have made is opened and parsed here, and nowhere else.

Only regular files come in: a FIFO would never end, a device has effects. Nothing is read beyond a limit, and whatever a
parser makes of a damaged file is an InputError that begins with the file's name. Models and weights have a door of
their own (export/importers, models/checkpoints). tests/test_door.py finds who reads past both.
"""

import csv
import errno
import io
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from edgenet.errors import EdgenetError, InputError

TEXT_BYTES = 1 << 24  # class names, a recipe, a class map: the largest known has 2 MB
TABLE_BYTES = 1 << 28  # a labels.csv of some million lines
RESULTS_BYTES = 1 << 28
PICTURE_BYTES = 1 << 29  # the largest picture that is decoded has as many, uncompressed
MODEL_BYTES = 1 << 34
DEPTH = 64  # of lists and objects in JSON and TOML; edgenet's own have 9
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


def open_regular(path: str | Path, limit_bytes: int = MODEL_BYTES) -> IO[bytes]:
    """Return a file opened for reading; a link to one is one.

    Raises:
        InputError: it is no regular file, has more than `limit_bytes`, or its name holds NUL.
        OSError: it is not there, or may not be read.
    """
    try:
        # Without O_NONBLOCK a FIFO that nobody writes to would never open.
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        if e.errno == errno.ENXIO:  # a socket
            raise InputError(f"{path} is a socket, not a file") from None
        raise
    except ValueError:
        raise InputError(f"{path} is no name of a file: it holds NUL") from None
    try:
        about = os.fstat(number)
        if not stat.S_ISREG(about.st_mode):
            raise InputError(f"{path} is {_KINDS.get(stat.S_IFMT(about.st_mode), 'something else')}, not a file")
        if about.st_size > limit_bytes:
            raise InputError(f"{path} has {about.st_size:,} bytes, and at most {limit_bytes:,} are read of such a file")
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def read_bytes(path: str | Path, limit_bytes: int, option: str = "") -> bytes:
    """Return a file's content.

    Args:
        option: the option that names the file, for messages.

    Raises:
        InputError: as `open_regular`; or it is not there, may not be read, or grows.
    """
    name = f"{option} {path}".strip()
    with reading(name, "a file that can be read"):
        with open_regular(path, limit_bytes) as f:
            data = f.read(limit_bytes + 1)
        if len(data) > limit_bytes:
            raise InputError(f"{name} grew beyond {limit_bytes:,} bytes while it was read")
        return data


def read_text(
    path: str | Path, limit_bytes: int = TEXT_BYTES, option: str = "", remedy: str = "save it as UTF-8"
) -> str:
    """Return the text of a UTF-8 file, without its byte order mark and with every end of a line as "\\n".

    Raises:
        InputError: as `read_bytes`, or it is no text; `remedy` says what to do then.
    """
    data = read_bytes(path, limit_bytes, option)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{f'{option} {path}'.strip()} is not UTF-8 text: {remedy}") from None
    if "\0" in text:
        raise InputError(f"{f'{option} {path}'.strip()} is no text, it holds NUL: {remedy}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(
    path: str | Path, limit_bytes: int = TEXT_BYTES, what: str = "JSON", remedy: str = "", *, finite: bool = True
) -> Any:
    """Return the values of a JSON file, at most DEPTH deep.

    Args:
        finite: refuse NaN and infinity; else whoever asks does, who can say where they stand.
        what: the file is taken for, for messages: "a results file".
        remedy: what to do where it is none.
    """
    with reading(path, what, remedy):
        return parse_json(read_text(path, limit_bytes), finite=finite)


def parse_json(text: str | bytes, *, finite: bool = True) -> Any:
    """Return the values of a JSON text. Raises ValueError, RecursionError."""
    return _shallow(json.loads(text, parse_constant=_no_constant if finite else None))


def read_toml(path: str | Path, what: str, remedy: str = "") -> dict[str, Any]:
    """Return the values of a TOML file, at most DEPTH deep. Raises InputError."""
    import tomllib  # late: few commands read any, and it loads six modules

    with reading(path, what, remedy):
        found: dict[str, Any] = _shallow(tomllib.loads(read_text(path)))
        return found


def read_rows(
    path: str | Path, delimiters: str = ",", remedy: str = "save it as 'CSV UTF-8'"
) -> list[tuple[int, list[str]]]:
    """Return (line, cells without spaces around them) of a table, empty lines left out.

    Args:
        delimiters: those that are possible; the first that is in the first line counts.

    Raises:
        InputError: as `read_text`, or it is no table.
    """
    text = read_text(path, TABLE_BYTES, remedy=remedy)
    first = text.partition("\n")[0]
    delimiter = next((d for d in delimiters if d in first), delimiters[0])
    with reading(path, "a table", remedy):
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    return [(line, cells) for line, cells in rows if any(cells)]


@contextmanager
def reading(name: str | Path, what: str, remedy: str = "") -> Iterator[None]:
    """Make an InputError, which begins with the file's name, of whatever a parser raises in the block.

    Args:
        what: the file is taken for: "a results file".
        remedy: what to do where it is none.
    """
    then = f": {remedy}" if remedy else ""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"no file {name}{then}") from None
    except OSError as e:
        raise InputError(f"cannot read {name}: {e.strerror or e}{then or '; give a file that you may read'}") from None
    except EdgenetError:
        raise
    except RecursionError:
        raise InputError(f"{name} is not {what}: it is nested too deep{then}") from None
    except MemoryError:
        raise InputError(f"{name} is not {what}: it would take more memory than there is{then}") from None
    except Exception as e:
        # Parsers raise what they like; a text of theirs without spaces is a key or a name, which says nothing.
        said = " ".join(str(e).split())[:200]
        why = f" ({said})" if " " in said else ""
        raise InputError(f"{name} is not {what}{why}{then}") from None


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no number in JSON")


def _shallow(values: Any) -> Any:
    """Return the values, which are at most DEPTH deep. Raises RecursionError."""
    level = [values]
    for _ in range(DEPTH + 1):
        level = [
            inner
            for v in level
            if isinstance(v, dict | list)
            for inner in (v.values() if isinstance(v, dict) else v)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return values
    raise RecursionError
