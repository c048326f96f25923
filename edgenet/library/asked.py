"""The options of a function, from the dataclass that the command's options are from: names, types and defaults.

They stand there once. The signature that `help` and editors show is made of them, and so is the job.
"""

import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any, TypeVar

from edgenet.errors import InputError
from edgenet.option_fields import OptionField, build, kind_of, option_fields, value_of

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])
_NAMES = {"Path": "str | Path", "tuple[str, ...]": "str | Sequence[str]"}


def with_options(
    job: type, *, without: Sequence[str] = (), only: Sequence[str] = (), others: Mapping[str, Any] | None = None
) -> Callable[[Function], Function]:
    """Return a decorator that gives a function, in the place of its **options, those of a job's dataclass.

    Args:
        without: fields that the function does not take.
        only: the fields that it takes; all by default.
        others: defaults that are other ones for this function.

    Whoever calls it with an option that there is not, or without one that has to be given, gets an InputError.
    """
    taken = [f for f in option_fields(job) if f.name not in without and (not only or f.name in only)]
    taken = [f._replace(default=(others or {}).get(f.name, f.default)) for f in taken]

    def decorate(function: Function) -> Function:
        own = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
        names = {p.name for p in own}
        options = [f for f in taken if f.name not in names]
        signature = _signature(function, own, options)

        @functools.wraps(function)
        def call(*args: Any, **given: Any) -> Any:
            unknown = [name for name in given if name not in signature.parameters]
            if unknown:
                valid = ", ".join(signature.parameters)
                raise InputError(f"edgenet.{function.__name__} has no option {unknown[0]} (valid: {valid})")
            for f in options:
                if f.default is MISSING and given.get(f.name) is None:
                    raise InputError(f"edgenet.{function.__name__} needs {f.name}: give {_example(f)}")
            return function(*args, **given)

        call.__signature__ = signature  # type: ignore[attr-defined]
        return call  # type: ignore[return-value]

    return decorate


def job_from(job: type[T], options: Mapping[str, Any], **fixed: Any) -> T:
    """Return the job that was asked for. An option that is None has its default.

    Args:
        options: by the names of the fields; a list or a text may stand for a tuple, a text for a path.
        fixed: fields that the function sets.

    Raises:
        InputError: a value is of the wrong type, or makes no sense.
    """
    fields = {f.name: f for f in option_fields(job)}
    values = {name: _value(fields[name], value) for name, value in options.items() if value is not None}
    made: T = build(job, {**values, **fixed})
    return made


def command_text(name: str, *args: Any, **options: Any) -> str:
    """Return the call as Python writes it, for the results: who reads them can repeat it."""
    shown = [_shown(a) for a in args] + [f"{k}={_shown(v)}" for k, v in options.items() if v is not None]
    return f"edgenet.{name}({', '.join(shown)})"


def path_of(name: str, value: Any) -> Path:
    """Return an argument that is a path. Raises InputError where it is none."""
    if not isinstance(value, str | os.PathLike) or not os.fspath(value) or "\0" in os.fsdecode(value):
        raise InputError(f"{name} is {value!r:.60}, which is no path: give a text or a pathlib.Path")
    return Path(value)


def paths_of(name: str, value: Any) -> tuple[Path, ...]:
    """Return an argument that is one path or several. Raises InputError where it is none."""
    one = isinstance(value, str | os.PathLike) or not hasattr(value, "__iter__")
    found = tuple(path_of(name, v) for v in ([value] if one else value))
    if not found:
        raise InputError(f"{name} is empty: give a model file at least")
    return found


def annotation_of(f: OptionField) -> str:
    """Return the type of an option as a caller may give it."""
    name = f.type if isinstance(f.type, str) else f.type.__name__ if isinstance(f.type, type) else str(f.type)
    if f.option.path:
        name = name.replace("str", "str | Path")
    parts = [_NAMES.get(part.strip(), part.strip()) for part in name.replace("pathlib.Path", "Path").split(" | ")]
    return " | ".join(dict.fromkeys(p for part in parts for p in part.split(" | ")))


def _signature(
    function: Callable[..., Any], own: Sequence[inspect.Parameter], options: Sequence[OptionField]
) -> inspect.Signature:
    """Return what stands by position, what has to be given, the function's own keywords, the options, `progress`."""
    by_position = [p for p in own if p.kind is not p.KEYWORD_ONLY]
    keywords = [*(p for p in own if p not in by_position), *map(_parameter, options)]
    keywords.sort(key=lambda p: (p.default is not p.empty) + (p.name == "progress"))
    returned = inspect.signature(function).return_annotation
    return inspect.Signature([*by_position, *keywords], return_annotation=returned)


def _parameter(f: OptionField) -> inspect.Parameter:
    default = inspect.Parameter.empty if f.default is MISSING else f.default
    return inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation_of(f))


def _value(f: OptionField, value: Any) -> Any:
    kind = kind_of(f.type)
    if kind is bool and not isinstance(value, bool):
        raise InputError(f"{f.name} is True or False, was {value!r:.60}")
    if kind is Path or (f.option.path and isinstance(value, os.PathLike)):
        path = path_of(f.name, value)
        return path if kind is Path else str(path)
    if kind is tuple:
        several = [value] if isinstance(value, str) else value
        if not isinstance(several, list | tuple | set | frozenset) or not all(isinstance(v, str) for v in several):
            raise InputError(f"{f.name} is a text or a list of texts, was {value!r:.60}")
        value = value if isinstance(value, str) else tuple(several)
    elif kind is str and f.option.within is None and not isinstance(value, str):
        raise InputError(f"{f.name} is a text, was {value!r:.60}")
    number_as_text = f.option.within is not None and isinstance(value, str)  # the command line has all as texts
    return value if number_as_text else value_of(f, value)


def _example(f: OptionField) -> str:
    return f.option.missing.partition(", e.g.")[0] or f.option.help


def _shown(value: Any) -> str:
    if isinstance(value, str | int | float | bool | tuple | list):
        return repr(value)
    return repr(os.fspath(value)) if isinstance(value, os.PathLike) else type(value).__name__
