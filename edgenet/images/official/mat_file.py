"""MATLAB's .mat files (version 5), which some data sets keep their labels in: read by SciPy in a child process."""

import functools
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgenet.door import read_bytes, reading
from edgenet.errors import InputError, MissingDependency
from edgenet.sandbox.apart import Effort, read_apart

LARGEST_BYTES = 1 << 24  # the largest of a known data set has 0.4 MB
_READING = Effort(cpu_s=15, cpu_s_per_mib=5, mib=1024, mib_per_mib=64)
_MOST = 10_000_000  # numbers or texts of a list


def whole_numbers(path: Path, names: Sequence[str]) -> dict[str, list[int]]:
    """Return lists of whole numbers by name.

    Raises:
        InputError: no such file, it cannot be read, or a name is missing or no list of whole numbers.
        MissingDependency: SciPy is not installed.
    """
    return {name: _all(values, int, path, name) for name, values in _read(path, names).items()}


def texts(path: Path, name: str) -> list[str]:
    """Return a cell array of texts. Raises as `whole_numbers`."""
    return _all(_read(path, [name])[name], str, path, name)


def columns(path: Path, name: str, fields: Sequence[str]) -> dict[str, list[Any]]:
    """Return the columns of an array of structs, each a list of texts or whole numbers. Raises as `whole_numbers`."""
    found = _read(path, [name], fields)[name]
    if not isinstance(found, dict):
        raise InputError(f"{path}: {name} is no table with {', '.join(fields)}: get the file again")
    kinds = {f: str if found[f] and isinstance(found[f][0], str) else int for f in fields}
    return {f: _all(found[f], kinds[f], path, f"{name}.{f}") for f in fields}


def _read(path: Path, names: Sequence[str], fields: Sequence[str] = ()) -> dict[str, Any]:
    with reading(path, "a MATLAB 5 file", "get it again"):
        about = os.stat(path)
    return _read_once(path, tuple(names), tuple(fields), about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=16)  # each split of a data set asks for the same files, and a child costs seconds
def _read_once(path: Path, names: tuple[str, ...], fields: tuple[str, ...], *_: int) -> dict[str, Any]:
    """Return what the child reads in the file that has this size and time."""
    given = read_apart(
        "edgenet.images.official.mat_file:values_here",
        path,
        {"path": str(path), "names": list(names), "fields": list(fields)},
        _READING,
    )
    if not isinstance(given, dict) or set(given) != set(names):
        raise InputError(f"{path} cannot be read: get the file again")
    return given


def _all(values: Any, kind: type, path: Path, name: str) -> list[Any]:
    """Return the list as it is, where all of it is of a kind: a child that a file has taken over may give anything."""
    if not isinstance(values, list) or not values or not all(type(v) is kind for v in values):
        raise InputError(f"{path}: {name} is no list of {'texts' if kind is str else 'whole numbers'}: get it again")
    return values


# ------------------------------------------------------------------------------------------------------- in the child


def values_here(path: str, names: list[str], fields: list[str]) -> dict[str, Any]:
    """Return plain values of a .mat file; read in this process.

    Args:
        fields: of an array of structs; without, a value is an array of numbers or of texts.
    """
    data = read_bytes(path, LARGEST_BYTES)
    if not data.startswith(b"MATLAB 5.0") or data[126:128] not in (b"IM", b"MI"):  # SciPy would guess an older version
        raise InputError(f"{path} is not a MATLAB 5 file: get it again")
    try:
        from scipy.io import loadmat
    except ImportError:
        raise MissingDependency("scipy", "mat", f"reading {path}") from None
    try:
        found = loadmat(io.BytesIO(data), variable_names=names)
    except MemoryError:
        raise
    except Exception:  # it raises what it likes of a damaged file, and says nothing that helps a user
        raise InputError(f"{path} is not a MATLAB 5 file: get it again") from None
    for name in names:
        if name not in found:
            there = ", ".join(n for n in found if not n.startswith("__"))[:200]
            raise InputError(f"{path} has no '{name}' (it has {there or 'nothing'}): get it again")
    return {name: _plain(found[name], fields, path, name) for name in names}


def _plain(array: Any, fields: list[str], path: str, name: str) -> Any:
    flat = array.ravel()
    if len(flat) > _MOST:
        raise InputError(f"{path}: {name} has {len(flat):,} values: get it again")
    if not fields:
        return [_value(v) for v in flat]
    if array.dtype.names is None or not set(fields) <= set(array.dtype.names):
        raise InputError(f"{path}: {name} is no table with {', '.join(fields)}: get it again")
    return {f: [_value(v) for v in flat[f]] for f in fields}


def _value(v: Any) -> Any:
    """Return a number as an int where it is whole, a text as a str, what is none of both as None."""
    import numpy as np

    while isinstance(v, np.ndarray):  # a cell holds an array of one value
        if v.size != 1:
            return None
        v = v.ravel()[0]
    if isinstance(v, str):
        return str(v)
    return int(v) if isinstance(v, np.integer | np.floating) and float(v).is_integer() else None
