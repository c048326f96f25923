"""A recipe: a TOML file with the arguments of `edgenet run` or `edgenet export`. Its keys are the fields of Job."""

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

from edgenet.errors import InputError
from edgenet.options import Job


def read_recipe(path: Path) -> dict[str, Any]:
    """Return the values of a recipe by the name of the field.

    Raises:
        InputError: not TOML, an unknown key, or a value of the wrong type.
    """
    try:
        data = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"no recipe {path}: give a zoo model's name or the path of a .toml file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise InputError(f"{path} is not TOML ({e}): docs/commands.md shows a recipe") from None
    kinds = {f.name: f.type for f in fields(Job) if f.name != "command"}
    for key, value in data.items():
        if key not in kinds:
            raise InputError(f"{path}: unknown key '{key}' (valid: {', '.join(kinds)})")
        what, fits = _expected(kinds[key], value)
        if not fits:
            raise InputError(f"{path}: {key} must be {what}, was {value!r}")
    if "model" not in data:
        raise InputError(f"{path}: the key 'model' is missing; it names what to export")
    return data


def _expected(kind: Any, value: Any) -> tuple[str, bool]:
    """Return what a field of this type takes, in words, and whether `value` is that."""
    if kind == tuple[str, ...]:
        return "a list of texts", isinstance(value, list) and all(isinstance(item, str) for item in value)
    if kind is bool:
        return "true or false", isinstance(value, bool)
    if kind == int | str:
        return "a whole number or 'dynamic'", type(value) is int or value == "dynamic"
    if kind in (int, int | None):
        return "a whole number", type(value) is int
    if kind in (float, float | None):
        return "a number", type(value) in (int, float)
    return "a text", isinstance(value, str)
