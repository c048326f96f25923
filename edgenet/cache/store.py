"""A folder of steps, each in one file that is named after everything that decides what is in it.

    1024 bytes "edgenet step 1\\n", a line of JSON (kind, what, key, created, sha256, size_bytes, about), spaces
    the rest   what was computed

A file appears whole, by a rename, and is never changed: two runs may read, write and remove in one folder at a time.
What is read is checked by its hash. A cache that cannot be read or written is none: the step is computed.
"""

import hashlib
import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import IO, Any

from edgenet import __version__
from edgenet.door import open_regular
from edgenet.errors import InputError

VARIABLE, OFF = "EDGENET_CACHE", "off"
FOLDER = "steps"
MAX_BYTES = 5_000_000_000  # of all steps, beyond which those go that were not used for longest
_MAGIC = b"edgenet step 1\n"
_HEAD_BYTES = 1024
_NAME = re.compile(r"[a-z]+-[0-9a-f]{40}\.step")
_PART = re.compile(r"[a-z0-9_]{8}\.part")
_STALE_S = 86400.0  # a part that nobody wrote to for so long is of a run that was killed


@dataclass(frozen=True)
class Step:
    """A step that is kept: what it is, in words, when it was made, and when it was used last (seconds since 1970)."""

    path: Path
    kind: str
    what: str
    size_bytes: int
    created_s: float
    used_s: float
    sha256: str
    about: Mapping[str, Any]


def root() -> Path:
    """Return the folder of what is kept for later: EDGENET_CACHE, or edgenet in XDG_CACHE_HOME or ~/.cache."""
    given, shared = os.environ.get(VARIABLE), os.environ.get("XDG_CACHE_HOME", "")
    if given and given != OFF:
        return Path(given)
    if not os.path.isabs(shared):  # which the standard has ignored
        shared = os.path.join(os.path.expanduser("~"), ".cache")
    return Path(shared) / "edgenet"


def is_on() -> bool:
    """Whether steps are kept: EDGENET_CACHE=off keeps none, and who has no home has no place for them."""
    return os.environ.get(VARIABLE) != OFF and root().is_absolute()


def folder() -> Path:
    """Return the folder of the steps; it need not be there."""
    return root() / FOLDER


def path_of(kind: str, key: Mapping[str, Any]) -> Path:
    """Return where a step is kept that is decided by `key`, of plain values, and this version of edgenet."""
    text = json.dumps({"kind": kind, "edgenet": __version__, **key}, sort_keys=True)
    return folder() / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:40]}.step"


@contextmanager
def reading(path: Path) -> Iterator[tuple[Step, IO[bytes]] | None]:
    """Yield a step and its file, at the first byte of what was computed; None where it is not there or damaged."""
    with ExitStack() as stack:
        found = None
        with suppress(OSError, InputError):
            f = stack.enter_context(open_regular(path, MAX_BYTES))
            step = _read_head(path, f)
            if step is not None and _sha256(f) == step.sha256:
                f.seek(_HEAD_BYTES)
                found = step, f
        if found is not None:
            with suppress(OSError):
                os.utime(path)
        yield found


class Writing:
    """A step that is being computed: `file` takes it; `commit` keeps it; what is not committed goes with `close`."""

    def __init__(self, path: Path, file: BufferedRandom, part: Path) -> None:
        self.path, self.file, self._part = path, file, part

    def commit(self, kind: str, what: str, about: Mapping[str, Any]) -> None:
        """Put the step into its place, unless that cannot be. It is closed then."""
        try:
            self.file.flush()
            self.file.seek(_HEAD_BYTES)
            head = {
                "kind": kind,
                "what": what,
                "created": round(time.time()),
                "sha256": _sha256(self.file),
                "size_bytes": os.fstat(self.file.fileno()).st_size,
                "about": dict(about),
            }
            text = _MAGIC + json.dumps(head).encode()
            if len(text) < _HEAD_BYTES:
                self.file.seek(0)
                self.file.write(text.ljust(_HEAD_BYTES))
                self.file.flush()
                os.fsync(self.file.fileno())
                os.replace(self._part, self.path)
                make_room()
        except OSError:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Give up what is not committed. May be called twice."""
        with suppress(OSError):
            self.file.close()
        with suppress(OSError):
            self._part.unlink(missing_ok=True)


def writing(path: Path) -> Writing | None:
    """Return a step to be computed, None where the folder cannot be written to."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix="", suffix=".part", dir=path.parent)
        file = os.fdopen(handle, "w+b")
        file.seek(_HEAD_BYTES)
    except OSError:
        return None
    return Writing(path, file, Path(name))


def steps() -> list[Step]:
    """Return the steps that are kept, the one used last first. What edgenet did not make is not among them."""
    found = []
    with suppress(OSError):
        for entry in os.scandir(folder()):
            if not _NAME.fullmatch(entry.name) or not entry.is_file(follow_symlinks=False):
                continue
            with suppress(OSError), open(entry.path, "rb") as f:
                if (step := _read_head(Path(entry.path), f)) is not None:
                    found.append(step)
    return sorted(found, key=lambda s: -s.used_s)


def remove(step: Step) -> bool:
    """Remove a step, and say whether it is gone."""
    with suppress(OSError):
        step.path.unlink()
        return True
    return False


def make_room(max_bytes: int = MAX_BYTES) -> list[Step]:
    """Remove steps, those used longest ago first, until all take at most so many bytes; return them. Parts of runs that
    were killed go as well."""
    removed, total = [], 0
    for step in steps():
        total += step.size_bytes
        if total > max_bytes and remove(step):
            removed.append(step)
    with suppress(OSError):
        for entry in os.scandir(folder()):
            is_part = _PART.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
            if is_part and time.time() - entry.stat(follow_symlinks=False).st_mtime > _STALE_S:
                with suppress(OSError):
                    os.unlink(entry.path)
    return removed


def _read_head(path: Path, f: IO[bytes]) -> Step | None:
    """Return what the head of an open file says; None where it is not one of edgenet's, whole."""
    about = os.fstat(f.fileno())
    head = f.read(_HEAD_BYTES)
    if not stat.S_ISREG(about.st_mode) or not head.startswith(_MAGIC):
        return None
    try:
        said = json.loads(head[len(_MAGIC) :])
        step = Step(
            path, str(said["kind"]), str(said["what"]), int(said["size_bytes"]), float(said["created"]),
            about.st_mtime, str(said["sha256"]), dict(said["about"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return step if step.size_bytes == about.st_size else None


def _sha256(f: Any) -> str:
    digest = hashlib.sha256()
    while block := f.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
