"""The pictures whose first answer is not float32's, each with what both files answered."""

import base64
import functools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import PurePath

from edgenet.report.formatting import percent
from edgenet.report.pieces import Chip
from edgenet.report.rows import Row
from edgenet.report.view import View
from edgenet.results import Flip

_MOST = 24
_ORDER = ("broken", "changed", "both wrong", "fixed")  # the worst first


@dataclass(frozen=True)
class Answer:
    """What a file answered, and how sure it was."""

    who: str
    what: str
    confidence: str
    right: bool


@dataclass(frozen=True)
class Picture:
    """A picture with both answers. `thumbnail` is a data URI, "" where it cannot be opened."""

    thumbnail: str
    alt: str
    change: Chip
    label: str | None
    answers: tuple[Answer, ...]
    path: str


@dataclass(frozen=True)
class Flipped:
    """The pictures that one file answers otherwise."""

    name: str
    count: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Pictures:
    """The section."""

    files: tuple[Flipped, ...]


def pictures(view: View) -> Pictures | None:
    """The pictures whose top-1 changed, the recommended file's first, broken ones before the rest."""
    left, files = _MOST, []
    images = view.results.context.images
    measured = frozenset(images.evaluation.sha256 if images and images.evaluation else ())
    thumbnail = functools.cache(lambda file: _thumbnail(file, measured))  # a picture may flip in several files
    order = sorted((r for r in view.rows if r.evaluation and r.evaluation.flips), key=lambda r: r is not view.chosen)
    for r in order:
        flips = sorted(r.evaluation.flips if r.evaluation else (), key=_badness)
        shown = flips[:left]
        if not shown:
            break
        left -= len(shown)
        count = f"{len(flips)} changed" if len(shown) == len(flips) else f"the worst {len(shown)} of {len(flips)}"
        files.append(Flipped(r.name, count, tuple(_picture(view, r, f, thumbnail) for f in shown)))
    return Pictures(tuple(files)) if files else None


def _change(f: Flip) -> str:
    if f.label is None:
        return "changed"
    return "broken" if f.label == f.reference_class else "fixed" if f.label == f.artifact_class else "both wrong"


def _badness(f: Flip) -> tuple[int, float]:
    return _ORDER.index(_change(f)), -f.reference_confidence * f.artifact_confidence


def _picture(view: View, r: Row, f: Flip, thumbnail: Callable[[str], str]) -> Picture:
    change, path = _change(f), "/".join(PurePath(f.file).parts[-2:])
    label = None if f.label is None else view.class_name(f.label)
    answers = (
        ("float32", f.reference_class, f.reference_confidence),
        (view.label(r), f.artifact_class, f.artifact_confidence),
    )
    return Picture(
        thumbnail(f.file),
        path if label is None else label,
        Chip(change, {"broken": "bad", "fixed": "good"}.get(change, "")),
        label,
        tuple(Answer(who, view.class_name(i), percent(sure, 0), f.label == i) for who, i, sure in answers),
        path,
    )


def _thumbnail(file: str, measured: Collection[str]) -> str:
    from edgenet.images import thumbnail

    try:
        jpeg: bytes = thumbnail(file, side_px=96, known=measured)
    except Exception:  # whatever a decoder dies of: a page without one picture is better than none
        return ""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
