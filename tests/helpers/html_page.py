"""A page as its reader gets it: parsed, and refused where a tag stays open."""

import html.parser
from collections.abc import Sequence

from edgenet.report.formatting import NBSP

_IN_A_LINE = {"a", "b", "bdi", "em", "i", "small", "span"}
_BESIDE = {"td", "dd"}  # what names them


class Page(html.parser.HTMLParser):
    """What a reader of the page gets: its texts, its tags with attributes, its tables cell by cell."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.lines: list[str] = [""]
        self._open: list[str] = []
        self.feed(source)
        assert self._open == [], "every tag that opens is closed"

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._break(tag)
        if tag == "svg" and dict(attrs).get("class") != "narrow":  # the same, for a phone
            self.lines[-1] = f"[{dict(attrs).get('aria-label')}]"
        if tag not in ("meta", "img", "br", "link"):
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        self._break(tag, ends=True)

    def _break(self, tag: str, ends: bool = False) -> None:
        if tag in _BESIDE:
            self.lines[-1] += "" if ends else " | "
        elif tag == "th":
            self.lines[-1] += "" if ends or not self.lines[-1] else " | "
        elif tag in _IN_A_LINE or (tag == "dt" and ends):
            self.lines[-1] += " " if tag == "small" else ""
        elif self.lines[-1].strip():
            self.lines.append("")

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.texts.append(data)
        if "svg" not in self._open:
            self.lines[-1] += data
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += (" " if self._open[-1] in ("small", "em") else "") + data

    @property
    def visible(self) -> str:
        """What a reader sees: a line for each block or row, spaces made one, a drawing by its alternative text."""
        lines = (" ".join(line.replace(NBSP, " ").split()) for line in self.lines)
        return "".join(f"{line}\n" for line in lines if line)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).replace(NBSP, " ").split())

    def cell(self, row: str, column: str) -> str:
        head, *body = self.tables[0]
        (found,) = [r for r in body if r[0].startswith(row)]
        return " ".join(found[head.index(column)].replace(NBSP, " ").split())
