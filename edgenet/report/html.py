"""What the sections of the page draw from, and the pieces that they are made of.

Every text that comes from a file, a folder or a device passes through `escape`.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgenet.report.formatting import MISSING
from edgenet.report.recommendation import Recommendation, Row
from edgenet.results import Results


@dataclass(frozen=True)
class View:
    """What the sections draw from."""

    results: Results
    rows: list[Row]
    answer: Recommendation
    class_names: Sequence[str]
    thumbnails: dict[str, str] = field(default_factory=dict)  # file -> data URI, filled as pictures are drawn

    @property
    def chosen(self) -> Row | None:
        """The file that the page is about: the one to ship or, with random weights, the one that leads."""
        return next((r for r in self.rows if r.artifact.id == self.answer.leader), None)

    @property
    def baseline(self) -> Row | None:
        model = (self.chosen or self.rows[0]).artifact.model if self.rows else None
        return next((r for r in self.rows if r.is_baseline and r.artifact.model == model), None)

    def kind(self, r: Row) -> str:
        return "chosen" if r is self.chosen else "baseline" if r.is_baseline else "other"

    def label(self, r: Row) -> str:
        """Return the shortest name that tells `r` from the other rows."""
        for parts in (("precision",), ("precision", "format")):
            names = [" ".join(getattr(x.artifact, p) for p in parts) for x in self.rows]
            name = " ".join(getattr(r.artifact, p) for p in parts)
            if names.count(name) == 1:
                return name
        return r.name

    def class_name(self, index: int | None) -> str:
        if index is None:
            return MISSING
        return self.class_names[index] if 0 <= index < len(self.class_names) else f"class {index}"


def escape(text: object) -> str:
    """Return text that HTML shows as it is."""
    return html.escape(str(text))


def heading(view: View, headline: str) -> str:
    """Return the top of the page."""
    models = " · ".join(escape(m) for m in dict.fromkeys(r.artifact.model for r in view.rows))
    made = escape(view.results.context.created[:10])
    eyebrow = " · ".join(s for s in ("edgenet report", models, made) if s)
    return f'<header><p class="eyebrow">{eyebrow}</p><h1>{escape(headline)}</h1></header>'


def tile(title: str, value: str, of: str, share: float | None, sentence: str) -> str:
    """Return a figure in large print, with a bar where it is a `share` of something, and a sentence about it."""
    bar, percentage = "", min(max(share or 0.0, 0.0), 1.0) * 100
    if share is not None and math.isfinite(share):
        bar = f'<div class="share" aria-hidden="true"><i style="width:{percentage:.1f}%"></i></div>'
    numbers = f'<p class="figure"><b>{escape(value)}</b> <span>{escape(of)}</span></p>'
    return f'<div class="tile"><h3>{escape(title)}</h3>{numbers}{bar}<p>{escape(sentence)}</p></div>'


def section(id: str, title: str, body: str, lead: str = "") -> str:
    """Return a part of the page with a heading; `lead` and `body` are HTML."""
    lead = f'<p class="lead">{lead}</p>' if lead else ""
    return f'<section id="{id}" aria-labelledby="{id}-title"><h2 id="{id}-title">{title}</h2>{lead}{body}</section>'


def listed(items: Sequence[str], kind: str) -> str:
    """Return texts as a list of class `kind`, "" where there are none."""
    return f'<ul class="{kind}">' + "".join(f"<li>{escape(s)}</li>" for s in items) + "</ul>" if items else ""


def figure(svg: str, caption: str) -> str:
    """Return an SVG with its caption below."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def folded(summary: str, body: str) -> str:
    """Return HTML that opens on a click; on paper it is open."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"
