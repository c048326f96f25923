"""Runs in SQLite: one row a run, which holds the part of results.json that is kept, compressed.

A database is somebody else's file too. Its header is read before SQLite opens it, so that the database of another
application, or of a newer edgenet, is not touched. Its schema has to be ours to the letter: no trigger and no view
runs. Whatever a row holds comes in as a results.json does.

Writers take their turns: each locks the database for one short transaction and waits for the others. No
write-ahead log, which network drives lack and which leaves files beside the database.
"""

import datetime
import json
import os
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenet.door import RESULTS_BYTES, open_regular, parse_json, reading
from edgenet.errors import InputError
from edgenet.history.kept import content_of, kept
from edgenet.results import RESULTS_FILE, Results

if TYPE_CHECKING:
    import sqlite3

SCHEMA = 1
APPLICATION = 0x45444754  # "EDGT", in the header of every file of ours
_MAGIC, _HEADER_BYTES = b"SQLite format 3\0", 100
_DATABASE_BYTES = 1 << 36
_WAIT_S = 60.0  # for other writers
_TABLE = (
    "CREATE TABLE runs (id INTEGER PRIMARY KEY, content TEXT NOT NULL UNIQUE, created TEXT NOT NULL, "
    "added TEXT NOT NULL, place BLOB NOT NULL, results BLOB NOT NULL)"
)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")


@dataclass(frozen=True)
class Row:
    """A run as the database lists it.

    Attributes:
        created: when it was made, or where it does not say so, added: ISO 8601, UTC, to the second.
        place: its folder, or the results file where that has another name; absolute.
        is_latest: no later row has the same place: what lies there now is this run.
    """

    id: int
    created: str
    place: Path
    is_latest: bool


@dataclass(frozen=True)
class Added:
    """A run that was given to the database; `is_new`: it was not there yet."""

    out: Path
    is_new: bool


class History:
    """An open database."""

    def __init__(self, path: Path, connection: "sqlite3.Connection") -> None:
        self._path, self._connection = path, connection

    def rows(self) -> list[Row]:
        """Return all runs, the oldest first."""
        found = self._connection.execute("SELECT id, created, place FROM runs ORDER BY created, id").fetchall()
        last: dict[bytes, int] = {}
        for id, created, place in found:
            if not (isinstance(id, int) and isinstance(created, str) and isinstance(place, bytes) and place):
                raise ValueError("a row is not as edgenet writes it")
            if not _TIME.fullmatch(created) or b"\0" in place:
                raise ValueError("a row is not as edgenet writes it")
            last[place] = id
        return [Row(id, created, self._absolute(place), last[place] == id) for id, created, place in found]

    def results(self, id: int) -> Results:
        """Return what is kept of a run."""
        found = self._connection.execute("SELECT results FROM runs WHERE id = ?", (id,)).fetchone()
        if found is None or not isinstance(found[0], bytes):
            raise ValueError(f"run {id} is not as edgenet writes it")
        unpack = zlib.decompressobj()
        text = unpack.decompress(found[0], RESULTS_BYTES)
        if unpack.unconsumed_tail or not unpack.eof:
            raise ValueError(f"run {id} is cut or too large")
        data = parse_json(text)
        if not isinstance(data, dict):
            raise ValueError(f"run {id} is not as edgenet writes it")
        return Results.from_json(data)

    def add(self, row: dict[str, Any]) -> bool:
        """Insert a run, or note where it is now; return whether it is new."""
        before = self._connection.total_changes
        self._connection.execute(
            "INSERT INTO runs (content, created, added, place, results) VALUES (:content, :created, :added, :place, "
            ":results) ON CONFLICT (content) DO NOTHING",
            row,
        )
        if self._connection.total_changes > before:
            return True
        self._connection.execute("UPDATE runs SET place = :place WHERE content = :content", row)
        return False

    def _absolute(self, place: bytes) -> Path:
        return Path(os.path.normpath(os.path.join(os.path.abspath(self._path.parent), os.fsdecode(place))))


def add(path: Path, outs: Sequence[Path]) -> list[Added]:
    """Add runs to the database, all or none; a database that is not there is made.

    Args:
        outs: folders of runs, or results files.

    Raises:
        InputError: one is no run, or the database cannot be written.
    """
    rows = [_row(path, out, Results.load(out)) for out in outs]
    with _connected(path, "rwc") as connection:
        connection.execute("BEGIN IMMEDIATE")  # waits here, not in the middle
        try:
            _check_or_make(connection)
            history = History(path, connection)
            added = [Added(out, history.add(row)) for out, row in zip(outs, rows, strict=True)]
            connection.execute("COMMIT")
        except BaseException:
            connection.rollback()
            raise
    return added


def add_finished(path: Path, out: Path) -> None:
    """Add a run that has just ended. Raises InputError, which says that the run itself is whole."""
    try:
        add(path, [out])
    except InputError as e:
        raise InputError(f"{out} is finished, but {e}; then give `edgenet history {path} --add {out}`") from None


@contextmanager
def reading_history(path: Path) -> Iterator[History]:
    """Open a database that is only read.

    Raises:
        InputError: there is none, it is not edgenet's, or it is damaged, at once or later in the block.
    """
    if not _is_there(path):
        raise InputError(f"no file {path}: `edgenet history {path} --add OUT` makes it")
    if not _check_header(path):
        raise InputError(f"{path} is empty: `edgenet history {path} --add OUT` adds a run")
    with _connected(path, "ro") as connection:
        _check_schema(connection)
        yield History(path, connection)


def check(path: Path) -> None:
    """Look whether runs can be added to a database, without making or changing it. Raises InputError."""
    _check_header(path)
    if not os.access(path if _is_there(path) else path.absolute().parent, os.W_OK):
        raise InputError(f"{path} cannot be written: give --history the name of a file in a folder of yours")


@contextmanager
def _connected(path: Path, mode: str) -> Iterator["sqlite3.Connection"]:
    """Open a database whose header is ours. Whatever SQLite or a row says in the block is an InputError."""
    import sqlite3

    _check_header(path)
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=_WAIT_S,
                                     isolation_level=None)  # fmt: skip
    except sqlite3.Error as e:
        raise InputError(f"cannot open {path}: {e}; give a file in a folder of yours") from None
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, RESULTS_BYTES)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        yield connection
    except sqlite3.OperationalError as e:  # locked, read-only, a full disk
        remedy = "another process writes to it, try again" if "locked" in str(e) else "look at the disk and its rights"
        raise InputError(f"cannot use {path}: {e}; {remedy}") from None
    except (sqlite3.Error, zlib.error, ValueError, RecursionError) as e:
        said = " ".join(str(e).split())[:200]
        raise InputError(f"{path} is damaged ({said}): add the runs to a new database") from None
    finally:
        connection.close()


def _check_header(path: Path) -> bool:
    """Return whether there is a file that holds something. Raises InputError where that is no database of ours."""
    if not _is_there(path):
        return False
    with reading(path, "a database"), open_regular(path, _DATABASE_BYTES) as f:
        header = f.read(_HEADER_BYTES)
    if not header:
        return False
    other = "it stays as it is; give another name"
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        raise InputError(f"{path} is no database of edgenet's: {other}")
    (version,), (application,) = struct.unpack(">i", header[60:64]), struct.unpack(">i", header[68:72])
    if application != APPLICATION:
        raise InputError(f"{path} is the database of another application: {other}")
    if version != SCHEMA:
        raise InputError(f"{path} has schema {version}, this edgenet knows {SCHEMA}: update edgenet; {other}")
    return True


def _is_there(path: Path) -> bool:
    try:
        os.stat(path)
        return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as e:
        raise InputError(f"cannot open {path}: {getattr(e, 'strerror', None) or 'it is no name of a file'}") from None


def _check_or_make(connection: "sqlite3.Connection") -> None:
    """Make the table in a new file; in another, see that all is whole before anything is added."""
    if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        connection.execute(_TABLE)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
        return
    _check_schema(connection)
    (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if said != "ok":
        raise ValueError(str(said))


def _check_schema(connection: "sqlite3.Connection") -> None:
    found = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
    if found != [("table", "runs", _TABLE), ("index", "sqlite_autoindex_runs_1", None)]:
        raise ValueError("its tables are not those that edgenet makes")


def _row(path: Path, out: Path, results: Results) -> dict[str, Any]:
    """Return the values of a run, by column."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    try:
        content = content_of(results)
    except InputError as e:
        raise InputError(f"{out}: {e}") from None
    return {
        "content": content,
        "created": _utc(results.context.created) or now,
        "added": now,
        "place": _place(path, out),
        "results": zlib.compress(json.dumps(kept(results).to_json(), allow_nan=False).encode()),
    }


def _place(path: Path, out: Path) -> bytes:
    """Return where a run is: below the database's folder in relation to it, so that both can move together."""
    is_own = out.name == RESULTS_FILE and not out.is_dir()
    place, home = (os.path.abspath(p) for p in (out.parent if is_own else out, path.parent))
    below = os.path.relpath(place, home)
    return os.fsencode(place if below.split(os.sep)[0] == os.pardir else below)


def _utc(text: str) -> str:
    """Return a time of ISO 8601 in UTC to the second, "" where it is none."""
    try:
        time = datetime.datetime.fromisoformat(text)
        aware = time if time.tzinfo else time.replace(tzinfo=datetime.UTC)
        return aware.astimezone(datetime.UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        return ""
