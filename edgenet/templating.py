"""A template and a view -> a page or a text: Jinja2 is set up here and nowhere else.

A view is a frozen record of plain values and of numbers that are written out already; the template decides on markup.
A name that a template uses and its view lacks is an error, never an empty string.
"""

import dataclasses
import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

# What no reader sees, or what turns the direction of what follows, in a name say. Scripts that join letters by U+200C
# and U+200D, and joined emoji, keep them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])"
)


def page(name: str, view: Any, *folders: Path) -> str:
    """Return HTML. Every value is escaped but `markupsafe.Markup`, which drawings are; what nobody sees is written out.

    Args:
        name: the template's file name; the first of `folders` that has it gives it.
        view: a dataclass; the template knows its fields by their names.
        folders: where the template is, and what it extends, imports and includes.
    """
    html = _environment(True, folders).get_template(name).render(_fields(view))
    return _UNSEEN.sub(lambda m: m[0].encode("unicode_escape", "surrogatepass").decode("ascii"), html)


def text(name: str, view: Any, *folders: Path) -> str:
    """Return a text that is no HTML (Kotlin, Gradle, Markdown): every value stands in it as it is. Else like `page`."""
    return _environment(False, folders).get_template(name).render(_fields(view))


def _fields(view: Any) -> dict[str, Any]:
    return {f.name: getattr(view, f.name) for f in dataclasses.fields(view)}


@functools.cache
def _environment(html: bool, folders: tuple[Path, ...]) -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
