"""The errors that edgenet raises.

    EdgenetError
    ├── InputError          the arguments or the input files are wrong          exit status 2
    ├── MissingDependency   a library or a program is not installed             exit status 2
    ├── GateFailed          a budget or a comparison failed                     exit status 1
    └── DeviceError         a device or a runtime failed                        exit status 3

Each message is one line that says what is wrong, what is valid and what to do. Only `cli.py` turns an error into a
message and an exit status.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

_EXCEPTION = re.compile(r"\[?\b(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception)\b\]?(?:\s*:\s*)?")
_LINE_BREAKS = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")


def printable(text: str) -> str:
    """Return a text that a terminal only shows: control characters, and what is no character, as Python writes them.

    File names, and names in files, may hold any: escape sequences, marks that turn the direction of writing.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if _shows(c) else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


def without_exceptions(text: str, name: str = "") -> str:
    """Return what a library said, without the names of exceptions, which mean nothing to a user.

    Args:
        name: of a file, which stays as it is.
    """
    parts = text.split(name) if name else [text]
    return name.join(_EXCEPTION.sub("", part) for part in parts)


def _shows(c: str) -> bool:
    return c.isprintable() or c == "\n" or unicodedata.category(c) == "Zs"


class EdgenetError(Exception):
    """Base of all errors that edgenet raises on purpose.

    The message is one line whatever it quotes: a name of a file, and a cell of a table, may hold line breaks.
    """

    exit_status = 2

    def __init__(self, message: str = "") -> None:
        super().__init__(_LINE_BREAKS.sub(" ", message))


class InputError(EdgenetError):
    """The arguments or the input files are wrong."""


class MissingDependency(EdgenetError):
    """A library or a program that this work needs is not installed.

    Args:
        package: the name on PyPI, or of the program.
        extra: the extra of edgenet that installs it.
        purpose: what it is needed for, as a noun phrase.
        install: how a program is installed, which no extra does.
    """

    def __init__(self, package: str, extra: str, purpose: str, *, install: str = "") -> None:
        how = install or f"pip install 'edgenet[{extra}]'"
        super().__init__(f"{purpose} needs {package}, which is not installed: {how}")
        self.package, self.extra = package, extra

    @classmethod
    def of_several(cls, needs: Sequence[tuple[str, str]], extras: str) -> "MissingDependency":
        """Return the error for several packages.

        Args:
            needs: (packages, what they are needed for), both in words.
            extras: of edgenet, with commas, that install all of them.
        """
        error = cls(needs[0][0], extras, needs[0][1])
        missing = ", ".join(f"{packages} (for {purpose})" for packages, purpose in needs)
        error.args = (f"not installed: {missing}; pip install 'edgenet[{extras}]' installs all of it",)
        return error


class GateFailed(EdgenetError):
    """A budget or a comparison failed. `results`: what was made and measured all the same, where there is anything."""

    exit_status = 1
    results: Any = None


class DeviceError(EdgenetError):
    """A device or a runtime failed."""

    exit_status = 3
