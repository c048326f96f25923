"""A recipe: a TOML file with the arguments of `edgenet run` or `edgenet export`. Its keys are the fields of Job."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from edgenet.door import read_toml
from edgenet.errors import InputError
from edgenet.options import Job


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
            raise InputError(f"{path}: unknown key '{key[:60]}' (valid: {', '.join(kinds)})")
        what, fits = _expected(kinds[key], value)
        if not fits:
            raise InputError(f"{path}: {key} must be {what}, was {value!r:.60}")
    if "model" not in data:
        raise InputError(f"{path}: the key 'model' is missing; it names what to export")
    return data


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
