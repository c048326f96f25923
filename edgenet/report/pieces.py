"""What pages are made of: frozen records that the macros of templates/pieces.html turn into HTML.

Texts are plain: the template escapes them. Only drawings are HTML already.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from edgenet.report.formatting import MISSING

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Chip:
    """A word in a coloured box; `kind` one of good, bad, warn, "" for grey."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, a second line in small print, and chips after either; `more` are lines below."""

    text: str
    small: str = ""
    chip: Chip | None = None
    small_chips: tuple[Chip, ...] = ()
    more: tuple[str, ...] = ()
    kind: str = ""  # where a figure of the paper's page comes from: measured | computed | quoted


@dataclass(frozen=True)
class Line:
    """A row of a table; the first cell names it."""

    cells: tuple[Cell, ...]
    chosen: bool = False  # it stands out


@dataclass(frozen=True)
class Table:
    """A table that becomes cards on a phone; its rows stand in groups, each under its name where there are several."""

    caption: str
    titles: tuple[str, ...]
    groups: Mapping[str, Sequence[Line]]


@dataclass(frozen=True)
class Tile:
    """A figure in large print, with a bar where it is a share of something, and a sentence about it."""

    title: str
    value: str
    sentence: str
    of: str = ""
    share: float | None = None

    @property
    def share_percent(self) -> float | None:
        """The length of the bar, None where there is none."""
        return None if self.share is None or not math.isfinite(self.share) else min(max(self.share, 0.0), 1.0) * 100


@dataclass(frozen=True)
class Opening:
    """What stands below the headline: a sentence, and the figures that count."""

    verdict: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Figure:
    """A drawing with its caption below."""

    drawing: Markup
    caption: str


@dataclass(frozen=True)
class Fact:
    """A name, and what is known under it, line by line."""

    name: str
    lines: tuple[str, ...]


def table(caption: str, titles: Sequence[str], lines: Sequence[Line]) -> Table:
    """Return a table without groups."""
    return Table(caption, tuple(titles), {"": lines})


def two_lines(first: str, second: str) -> Cell:
    """Return two lines in one cell, one where the second is missing."""
    return Cell(first, "" if second == MISSING else second)


def facts(*pairs: tuple[str, str]) -> tuple[Fact, ...]:
    """Return what is known of (name, text) pairs."""
    return tuple(Fact(name, (text,)) for name, text in pairs if text)
