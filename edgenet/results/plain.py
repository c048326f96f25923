"""Frozen records to plain JSON values and back, by the types of their fields.

Reading trusts nothing: a value of another type, a number that is none, a field that is missing is a ValueError that
says where it stands. Fields that a record does not know are passed over.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")
_Reader = Callable[[Any], Any]
_NAMES: dict[type, str] = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
# Fields by their names: those that are between 0 and 1, and those that are not below 0, as counts, sizes and times are.
FRACTIONS = {"top1", "top5", "agreement", "agreement_here", "mcnemar_p", "held_back_agreement", "held_back_accuracy"}
_COUNTS = ("_bytes", "_ns", "_ms", "_us", "_s", "_px", "_hz", "threads", "epochs", "cores", "cycles", "multiply_adds")
_MOST = 2.0**63  # of a whole number, and of a time in nanoseconds


def absent(default: Any) -> Any:
    """Return a dataclass field with this default that is left out of the JSON while it has it."""
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, metadata={"absent": True})
    return dataclasses.field(default=default, metadata={"absent": True})


def write(value: Any) -> Any:
    """Return `value` as plain values: records as dicts, tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        values = [(f, getattr(value, f.name)) for f in dataclasses.fields(value)]
        return {f.name: write(v) for f, v in values if not (f.metadata.get("absent") and v == _default(f))}
    if isinstance(value, Mapping):
        return {k: write(v) for k, v in value.items()}
    return [write(v) for v in value] if isinstance(value, list | tuple) else value


def _default(f: dataclasses.Field[Any]) -> Any:
    return f.default if f.default_factory is dataclasses.MISSING else f.default_factory()


def read(kind: type[T], value: Any) -> T:
    """Return the record of type `kind` that `value` holds.

    Raises:
        ValueError: it does not; the message is ".path.to[3].field must be a number, was 'x'".
    """
    return _reader(kind)(value)  # type: ignore[arg-type]  # a class is hashable


@cache
def _reader(kind: Any) -> _Reader:
    """What reads a value of type `kind`."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _record_reader(kind)
    if origin in (types.UnionType, typing.Union):
        (some,) = (a for a in args if a is not types.NoneType)
        inner = _reader(some)
        return lambda value: None if value is None else inner(value)
    if origin is tuple:
        each = [_reader(a) for a in args if a is not ...]
        return _list_reader(each[0]) if args[-1] is ... else _row_reader(each)
    if origin in (dict, Mapping):
        return _mapping_reader(_reader(args[1]))
    if kind is Any:
        return _finite
    return lambda value: _plain(kind, value)


def _record_reader(kind: Any) -> _Reader:
    hints = typing.get_type_hints(kind)
    readers = {f.name: _within(f.name, _reader(hints[f.name])) for f in dataclasses.fields(kind)}

    def record(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _wrong("an object", value)
        found = {name: at(f".{name}", each, value[name]) for name, each in readers.items() if name in value}
        try:
            return kind(**found)
        except TypeError:
            lacking = next(f.name for f in dataclasses.fields(kind) if f.name not in value and _is_required(f))
            raise ValueError(f".{lacking} is missing") from None

    return record


def _within(name: str, each: _Reader) -> _Reader:
    """Return a reader that holds the number, or the numbers of a list, to the range that the field's name has."""
    if name in FRACTIONS:
        low, high, wanted = 0.0, 1.0, "a fraction of 1"
    elif name.startswith("n_") or name.endswith(_COUNTS):
        low, high, wanted = 0.0, _MOST, "0 or more"
    else:
        return each

    def limited(value: Any) -> Any:
        found = each(value)
        for number in found if isinstance(found, tuple) else (found,):
            if isinstance(number, int | float) and not low <= number <= high:
                raise _wrong(wanted, number)
        return found

    return limited


def _is_required(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def read_list(each: Callable[[Any], T], value: Any) -> list[T]:
    """Return what `each` reads of every item of a list. Raises ValueError."""
    return [at(f"[{i}]", each, v) for i, v in enumerate(_list(value))]


def _list_reader(each: _Reader) -> _Reader:
    return lambda value: tuple(read_list(each, value))


def _row_reader(each: list[_Reader]) -> _Reader:
    def row(value: Any) -> tuple[Any, ...]:
        if len(_list(value)) != len(each):
            raise _wrong(f"{len(each)} values", value)
        return tuple(at(f"[{i}]", one, v) for i, (one, v) in enumerate(zip(each, value, strict=True)))

    return row


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong("a list", value)
    return value


def _mapping_reader(each: _Reader) -> _Reader:
    def mapping(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _wrong("an object", value)
        return {k: at(f".{k}", each, v) for k, v in value.items()}

    return mapping


def at(place: str, each: Callable[[Any], Any], value: Any) -> Any:
    """Return what `each` reads of `value`; the ValueError that it raises begins with `place`."""
    try:
        return each(value)
    except ValueError as e:
        raise ValueError(f"{place}{e}") from None


def _plain(kind: type, value: Any) -> Any:
    fits = isinstance(value, int | float if kind is float else kind) and (kind is bool or not isinstance(value, bool))
    if not fits or (kind is float and not _is_finite(value)) or (kind is int and not -_MOST <= value < _MOST):
        raise _wrong(_NAMES[kind], value)
    return value


def _is_finite(value: int | float) -> bool:
    """Whether a number is one as float64 too; JSON has whole ones of any length."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _finite(value: Any) -> Any:
    """Any JSON value; NaN and infinity are none."""
    if isinstance(value, int | float) and not _is_finite(value):
        raise _wrong("a number", value)
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _finite(inner)
    return value


def _wrong(wanted: str, value: Any) -> ValueError:
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**40 else "a number of more than 40 digits"
    return ValueError(f" must be {wanted}, was {text if len(text) <= 40 else text[:37] + '...'}")
