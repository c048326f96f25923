"""What `edgenet` offers to Python, as two texts: tests/public_names.txt, and edgenet/__init__.pyi for type checkers.

As a program it writes both: python tests/helpers/public_names.py. tests/library/test_public_names.py compares them.
"""

import dataclasses
import inspect
import re
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # as a program it has the folder of the helpers on its path, and not the tests'
    sys.path.insert(0, str(Path(__file__).parents[1]))

import edgenet
from helpers.places import ROOT

MANIFEST, STUB = ROOT / "tests" / "public_names.txt", ROOT / "edgenet" / "__init__.pyi"
RENEW = "python tests/helpers/public_names.py"
WIDTH = 120
_HEAD = f"""\
# The public names of edgenet, with their signatures and fields: {RENEW} writes it anew.
# A line that goes or changes breaks somebody's program, so CHANGELOG.md has to say it.
"""
_STUB_HEAD = f'''\
"""What `import edgenet` offers, for type checkers and editors. {RENEW} writes it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

'''


def manifest() -> str:
    """Return a line a name: functions with parameters and defaults, records with fields and types, errors."""
    lines = [_HEAD]
    for name in edgenet.__all__:
        found = getattr(edgenet, name)
        if inspect.isfunction(found):
            lines += [f"{name}(", *(f"    {p}" for p in _parameters(found)), f") -> {_returned(found)}"]
        elif dataclasses.is_dataclass(found):
            fields = [f"    {f.name}: {_type(f.type)}" for f in dataclasses.fields(found) if f.name[0] != "_"]
            lines += [f"record {name}:", *fields, *(f"    {n} (derived)" for n in _derived(found))]
        else:
            lines.append(f"error {name}({', '.join(c.__name__ for c in found.__mro__[1:2])})")
    return "\n".join(lines) + "\n"


def stub() -> str:
    """Return the stub of the package: the records from where they are, each function with all its options."""
    functions = [name for name in edgenet.__all__ if inspect.isfunction(getattr(edgenet, name))]
    imports: dict[str, list[str]] = {"edgenet.library.calls": ["File"], "edgenet.options": ["Progress"]}
    for name in edgenet.__all__:
        if name not in functions:
            module = getattr(edgenet, name).__module__
            # Where the package offers the name, so that a reader finds the documented place.
            place = "edgenet.results" if module.startswith("edgenet.results.") else module
            imports.setdefault(place, []).append(f"{name} as {name}")
    text = _STUB_HEAD
    text += "".join(f"from {module} import {name}\n" for module in sorted(imports) for name in sorted(imports[module]))
    text += "\n__version__: str\n__all__: list[str]\n\n"
    for name in functions:
        found = getattr(edgenet, name)
        text += f"def {name}(\n{''.join(map(_wrapped, _parameters(found)))}) -> {_returned(found)}: ...\n"
    return text


def _parameters(function: Any) -> list[str]:
    """Return the parameters of a function, with a star before the first that has to be named."""
    found = list(inspect.signature(function).parameters.values())
    shown = [_parameter(p) for p in found]
    named = [i for i, p in enumerate(found) if p.kind is p.KEYWORD_ONLY]
    return [*shown[: named[0]], "*", *shown[named[0] :]] if named else shown


def _parameter(p: inspect.Parameter) -> str:
    default = "" if p.default is p.empty else f" = {_shown(p.default)}"
    return f"{p.name}: {_type(p.annotation)}{default}"


def _wrapped(parameter: str) -> str:
    """Return a parameter as a line of the stub, or as several, as ruff formats them."""
    line = f"    {parameter},\n"
    if len(line) <= WIDTH + 1:
        return line
    start, _, values = parameter.partition("(")
    return f"    {start}(\n" + "".join(f"        {v},\n" for v in values.rstrip("),").split(", ")) + "    ),\n"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))}{',' if len(value) == 1 else ''})"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _returned(function: Any) -> str:
    return _type(inspect.signature(function).return_annotation)


def _type(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        return annotation.__name__
    return re.sub(r"\b(?:edgenet|collections|pathlib|typing)(?:\.\w+)*\.(\w+)", r"\1", str(annotation))


def _derived(record: type) -> list[str]:
    """Return the public properties and methods of a record."""
    return sorted(name for name in vars(record) if not name.startswith("_") and _is_member(vars(record)[name]))


def _is_member(value: object) -> bool:
    return isinstance(value, property | classmethod) or inspect.isfunction(value)


if __name__ == "__main__":
    MANIFEST.write_text(manifest(), encoding="utf-8")
    STUB.write_text(stub(), encoding="utf-8")
