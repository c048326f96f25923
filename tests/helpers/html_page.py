"""A page as its reader gets it: parsed, and refused where a tag stays open."""

import html.parser
from collections.abc import Sequence

from edgenet.report.formatting import NBSP


class Page(html.parser.HTMLParser):
    """What a reader of the page gets: its texts, its tags with attributes, its tables cell by cell."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.tables: list[list[list[str]]] = []
        self._open: list[str] = []
        self.feed(source)
        assert self._open == [], "every tag that opens is closed"

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
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

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.texts.append(data)
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += (" " if self._open[-1] in ("small", "em") else "") + data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).replace(NBSP, " ").split())

    def cell(self, row: str, column: str) -> str:
        head, *body = self.tables[0]
        (found,) = [r for r in body if r[0].startswith(row)]
        return " ".join(found[head.index(column)].replace(NBSP, " ").split())
