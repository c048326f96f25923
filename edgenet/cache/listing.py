"""`edgenet cache`: what is kept, and removing what edgenet can prove to have made."""

import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgenet.cache import store
from edgenet.cache.store import Step
from edgenet.errors import InputError
from edgenet.files import parse_bytes
from edgenet.options import CacheJob

_UNITS_S = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
TITLES = ("what", "size", "made", "used")


@dataclass(frozen=True)
class Other:
    """Something else in the folder, that edgenet may have put there and that is not removed: pictures of data sets."""

    path: Path
    size_bytes: int


@dataclass(frozen=True)
class Listing:
    """What is kept in `folder`, what else is there, and what was removed."""

    folder: Path
    steps: tuple[Step, ...]
    others: tuple[Other, ...]
    removed: tuple[Step, ...] = ()


def run(job: CacheJob, now_s: float | None = None) -> Listing:
    """List what is kept and, where that is asked for, remove some of it first.

    Raises:
        InputError: an option makes no sense.
    """
    now_s = time.time() if now_s is None else now_s
    if not job.prune and (job.older_than or job.max):
        raise InputError("--older-than and --max say what --prune removes: add --prune")
    removed: list[Step] = []
    if job.prune:
        older_s = seconds_of(job.older_than) if job.older_than else None
        max_bytes = parse_bytes("--max", job.max, least=0) if job.max else None
        if older_s is not None:
            removed += [s for s in store.steps() if now_s - s.used_s > older_s and store.remove(s)]
        if max_bytes is not None or older_s is None:
            removed += store.make_room(max_bytes or 0)
    return Listing(store.root(), tuple(store.steps()), tuple(_others()), tuple(removed))


def seconds_of(text: str) -> float:
    """Return "30d", "12h", "90m" or "2w" in seconds. Raises InputError."""
    found = re.fullmatch(r"([0-9]{1,6})([mhdw])", text.strip())
    if found is None:
        raise InputError(f"--older-than '{text}' is no age: give a number and m, h, d or w, e.g. --older-than 30d")
    return float(int(found[1]) * _UNITS_S[found[2]])


def _others() -> list[Other]:
    known = {s.path for s in store.steps()}
    found = []
    with suppress(OSError):
        for entry in sorted(os.scandir(store.root()), key=lambda e: e.name):
            inside = [Path(entry.path)] if entry.name != store.FOLDER else sorted(Path(entry.path).iterdir())
            found += [Other(p, _size(p)) for p in inside if p not in known]
    return found


def _size(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(p.lstat().st_size for p in path.rglob("*") if p.is_file() and not p.is_symlink())


def rows(listing: Listing, now_s: float | None = None) -> Sequence[tuple[str, ...]]:
    """Return a row of TITLES for each thing."""
    now_s = time.time() if now_s is None else now_s
    found = [(s.what, size_text(s.size_bytes), age(now_s - s.created_s), age(now_s - s.used_s)) for s in listing.steps]
    return [*found, *((f"{o.path.name} (not a step: --prune leaves it)", size_text(o.size_bytes), "", "")
                      for o in listing.others)]  # fmt: skip


def plain(listing: Listing) -> dict[str, Any]:
    """Return the listing as plain values."""

    def of(s: Step) -> dict[str, Any]:
        return {"path": str(s.path), "kind": s.kind, "what": s.what, "size_bytes": s.size_bytes, "created": s.created_s,
                "used": s.used_s}  # fmt: skip

    return {
        "folder": str(listing.folder),
        "steps": [of(s) for s in listing.steps],
        "others": [{"path": str(o.path), "size_bytes": o.size_bytes} for o in listing.others],
        "removed": [of(s) for s in listing.removed],
    }


def headline(listing: Listing) -> str:
    """Return what is kept and what was removed, in a line."""
    total = size_text(sum(s.size_bytes for s in listing.steps))
    n = len(listing.steps)
    said = f"{n} step{'s' * (n != 1)}, {total}, in {listing.folder}"
    if listing.removed:
        said += f"; removed: {len(listing.removed)}, {size_text(sum(s.size_bytes for s in listing.removed))}"
    return said


def size_text(n_bytes: float) -> str:
    """Return a size in the unit that fits."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes:.0f} B"


def age(seconds: float) -> str:
    """Return how long ago something was."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return "now"
