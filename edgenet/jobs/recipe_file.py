"""A recipe: a TOML file with the arguments of `edgenet run` or `edgenet export`. Its keys are the fields of Job.

`write_recipe` makes one with every key, from the same fields that the command line is made of.
"""

import difflib
import json
import os
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args, get_origin

from edgenet.door import read_toml
from edgenet.errors import InputError
from edgenet.files import atomic_write
from edgenet.option_fields import OptionField, option_fields
from edgenet.options import Job

_WIDTH = 118  # of a comment
# What a new recipe says where an argument has no default: as it is written, it runs.
_FIRST = {"images": "sample", "out": "OUT"}
_MODEL = ("efficientnet-lite0", "What is exported: a name that `edgenet models` lists, or a file of your own.")
_HEAD = (
    "A recipe for `edgenet run` and `edgenet export`, written by `edgenet init`. Every key that there is stands here. "
    "What is not commented out has its default, but for the first three. The command line has the last word: an option "
    "that is given there takes the place of its key here. Paths are relative to the folder in which edgenet is run."
)


def read_recipe(path: Path) -> dict[str, Any]:
    """Return the values of a recipe by the name of the field.

    Raises:
        InputError: not TOML, an unknown key, or a value of the wrong type.
    """
    if not path.exists():
        raise InputError(f"no recipe {path}: give a zoo model's name or the path of a .toml file")
    data = read_toml(path, "TOML", "docs/commands.md shows a recipe")
    kinds = {f.name: f.type for f in fields(Job) if f.name != "command"}
    for key, value in data.items():
        if key not in kinds:
            raise InputError(
                f"{path}: unknown key '{key[:60]}'{_nearest(key, list(kinds))} (valid: {', '.join(kinds)})"
            )
        what, fits = _expected(kinds[key], value)
        if not fits:
            raise InputError(f"{path}: {key} must be {what}, was {value!r:.60}")
    if "model" not in data:
        raise InputError(f"{path}: the key 'model' is missing; it names what to export")
    return data


def _nearest(key: str, valid: list[str]) -> str:
    """Return ", did you mean X?" where a key is near to one; options are called with "-", and some in the singular."""
    plain = key.lower().replace("-", "_").strip("_")
    options = {(f.option.name or f.name).replace("-", "_"): f.name for f in option_fields(Job)}
    near = difflib.get_close_matches(plain, [*valid, *options], n=1)
    return f", did you mean '{options.get(near[0], near[0])}'?" if near else ""


# ---------------------------------------------------------------------------------------------------------- a new one


def write_recipe(path: Path) -> None:
    """Write a recipe with every key, which `edgenet run` takes as it is.

    Raises:
        InputError: there is something of that name, it does not end in .toml, or it cannot be written.
    """
    if path.suffix != ".toml":
        raise InputError(f"{path} does not end in .toml, by which `edgenet run` knows a recipe: give a name that does")
    if os.path.lexists(path):
        raise InputError(f"{path} is there already: give another name, or remove it")
    with atomic_write(path, "name") as part:
        part.write_text(template(), encoding="utf-8")


def keys() -> tuple[str, ...]:
    """Return the keys of a recipe, those without a default first."""
    return ("model", *(f.name for f in _ordered()))


def template() -> str:
    """Return the text of a new recipe."""
    parts = [_comment(_HEAD), f"{_comment(_MODEL[1])}\nmodel = {json.dumps(_MODEL[0])}"]
    return "\n\n".join([*parts, *map(_entry, _ordered())]) + "\n"


def _ordered() -> Iterator[OptionField]:
    found = option_fields(Job)
    yield from sorted(found, key=lambda f: f.name not in _FIRST)  # stable: the others as the command line has them


def _entry(f: OptionField) -> str:
    """Return a key with its comment; commented out where it has no default, with what it takes in its place."""
    said = [f.option.help, *([f"A number, {f.option.within}."] if f.option.within else [])]
    if others := [w for w in f.option.choices if w not in f.option.help]:
        said.append(
            f"One of {', '.join(f.option.choices)}." if f.option.name != "device" else f"Or {', '.join(others)}."
        )
    if f.option.word:
        said.append(f'Or "{f.option.word}".')
    value = _FIRST.get(f.name, f.default)
    if value is None or value == () or value is MISSING:
        if f.option.default_text:
            said.append(f"By default: {f.option.default_text}.")
        return f"{_comment(' '.join(said))}\n# {f.name} = {_placeholder(f)}"
    if f.name not in _FIRST:
        said.append(f"By default: {_toml(f.default)}.")
    return f"{_comment(' '.join(said))}\n{f.name} = {_toml(value)}"


def _placeholder(f: OptionField) -> str:
    takes = f.option.metavar or "PATH"
    if get_origin(f.type) is tuple:
        return f"[{json.dumps(takes)}]"
    return takes if {int, float} & {f.type, *get_args(f.type)} else json.dumps(takes)


def _toml(value: Any) -> str:
    """Return a value as TOML, whose texts are JSON's as long as they are ASCII."""
    return f"[{', '.join(map(_toml, value))}]" if isinstance(value, tuple) else json.dumps(value)


def _comment(text: str) -> str:
    return "\n".join(f"# {line}" for line in textwrap.wrap(text, _WIDTH, break_on_hyphens=False))


# ----------------------------------------------------------------------------------------------------------- one read


def _expected(kind: Any, value: Any) -> tuple[str, bool]:
    """Return what a field of this type takes, in words, and whether `value` is that."""
    if kind == tuple[str, ...]:
        of_texts = isinstance(value, list) and all(isinstance(item, str) and item for item in value)
        return "a list of texts, at least one", of_texts and bool(value)
    if kind is bool:
        return "true or false", isinstance(value, bool)
    if kind == int | str:
        return "a whole number or 'dynamic'", type(value) is int or value == "dynamic"
    if kind in (int, int | None):
        return "a whole number", type(value) is int
    if kind in (float, float | None):
        return "a number", type(value) in (int, float)
    return "a text that is not empty", isinstance(value, str) and bool(value)
