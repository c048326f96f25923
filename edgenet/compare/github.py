"""Findings as GitHub's annotations: lines that its runner reads from the output of a step.

The escapes are those of its own toolkit (https://github.com/actions/toolkit, packages/core/src/command.ts): without
them a file's name could end the line and begin another command.
"""

from edgenet.compare import text
from edgenet.compare.nouns import Comparison
from edgenet.errors import printable


def annotations(c: Comparison) -> tuple[str, ...]:
    """Return a line each: ::error for what fails, ::warning for what has to be known."""
    errors = [_line("error", f"edgenet: {f.aspect} of {text.name_of(f)}", text.reason(f)) for f in c.failed]
    return (*errors, *(_line("warning", "edgenet compare", said) for said in text.warnings(c)))


def _line(kind: str, title: str, message: str) -> str:
    return f"::{kind} title={_property(title)}::{_data(message)}"


def _data(said: str) -> str:
    said = printable(said).replace("%", "%25")
    return said.replace("\r", "%0D").replace("\n", "%0A")


def _property(said: str) -> str:
    return _data(said).replace(":", "%3A").replace(",", "%2C")
