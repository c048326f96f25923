"""A field of a dataclass as an option of a command: its help, default and range, how one is built and checked.

options.py has the jobs that are made of these; cli_options.py makes click's options of them.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

from edgenet.errors import InputError

MAX_TEXT = 4096  # characters of an option's value; a path of Linux has no more


@dataclass(frozen=True)
class Range:
    """The numbers that an option takes: from `least` to `most`, without `above` and `below` themselves."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a number is within; NaN, infinity and whole numbers that are no float never are."""
        try:
            finite = math.isfinite(value)
        except OverflowError:
            return False
        return (
            finite
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        words = {"at least": self.least, "above": self.above, "and at most": self.most, "and below": self.below}
        return " ".join(f"{word} {limit:.12g}" for word, limit in words.items() if limit is not None)


@dataclass(frozen=True)
class Option:
    """What the command line shows of a field, beside its type and its default.

    `within` is the range of a number: each has one, so that no value reaches the work that it was not made for.
    """

    help: str
    metavar: str = ""
    name: str = ""  # without "--", where it is not the field's
    off: str = ""  # the name of the option that switches a flag off
    path: bool = False  # a text that may be a path, so that it must not be empty
    with_commas: bool = False  # several values stand in one text; else the option is repeated
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # each stands for these values
    default_text: str = ""  # the default in words, where the field's is None
    missing: str = ""  # what to give, where the field has no default
    within: Range | None = None
    word: str = ""  # that may stand in the place of the number
    choices: tuple[str, ...] = ()  # words that a shell completes; one that ends in ":" or "," goes on


class OptionField(NamedTuple):
    """A field that is an option: `default` is MISSING where it has to be given."""

    name: str
    type: Any
    option: Option
    default: Any


_SAME = object()


def option(help: str, default: Any = MISSING, **more: Any) -> Any:
    """Return a dataclass field that is an option; `more` is for `Option`."""
    return field(default=default, metadata={"option": Option(help, **more)})


def same_as(job: type, name: str, default: Any = _SAME) -> Any:
    """Return a field with the option and, where `default` is not given, the default of another job's field."""
    of = job.__dataclass_fields__[name]  # type: ignore[attr-defined]
    return field(default=of.default if default is _SAME else default, metadata=of.metadata)


def option_fields(job: type, defaults: Any = None) -> list[OptionField]:
    """Return the options of a job's dataclass and of the dataclasses inside it, in order."""
    found = []
    for f in fields(job):
        default = _default(f) if defaults is None else getattr(defaults, f.name)
        if "option" in f.metadata:
            found.append(OptionField(f.name, f.type, f.metadata["option"], default))
        elif dataclasses.is_dataclass(f.type):
            found += option_fields(f.type, default)  # type: ignore[arg-type]
    return found


def build(job: type, values: Mapping[str, Any]) -> Any:
    """Return a job with these values of its fields and of the dataclasses inside it. Raises InputError from checks."""
    own = {}
    for f in fields(job):
        if f.name in values:
            own[f.name] = values[f.name]
        elif dataclasses.is_dataclass(f.type):
            names = {inner.name for inner in fields(f.type)} & set(values)
            own[f.name] = dataclasses.replace(_default(f), **{name: values[name] for name in names})
    return job(**own)


def kind_of(annotation: Any) -> Any:
    """Return int for `int | None`, tuple for `tuple[str, ...]`, str where a number or a word may be given."""
    if get_origin(annotation) is tuple:
        return tuple
    kinds = [a for a in get_args(annotation) if a is not type(None)] or [annotation]
    return kinds[0] if len(kinds) == 1 else str


def value_of(f: OptionField, value: Any) -> Any:
    """Return what the field holds: the values that a word stands for, each once; a path where it takes one."""
    kind, words = kind_of(f.type), f.option.words
    if kind is Path and value:
        return Path(value)
    if kind is not tuple:
        digits = f.option.within is not None and isinstance(value, str) and value.isascii() and value.isdecimal()
        return int(value) if digits and len(value) < 10 else value
    if isinstance(value, str):
        return words.get(value, tuple(dict.fromkeys(value.split(",") if f.option.with_commas else [value])))
    if not f.option.with_commas:
        value = next((words[v] for v in value if v in words), value)
    return tuple(dict.fromkeys(value))


def check_values(job: Any) -> None:
    """Check the values of a job's own options; every job does it when it is made.

    Raises:
        InputError: a number is of the wrong kind or out of its range, a text is empty or holds NUL, a list is none.
    """
    for f in fields(job):
        if "option" not in f.metadata:
            continue
        of: Option = f.metadata["option"]
        name, value = f"--{of.name or f.name.replace('_', '-')}", getattr(job, f.name)
        if of.within is not None and value is not None and value != of.word:
            whole = float not in (f.type, *get_args(f.type))
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                what = ("a whole number" if whole else "a number") + f", or {of.word}" * bool(of.word)
                raise InputError(f"{name} must be {what}, was {value!r:.40}")
            if not of.within.holds(value):
                raise InputError(f"{name} must be {of.within}, was {value!r:.40}")
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str | Path) and (not str(text) or "\0" in str(text) or len(str(text)) > MAX_TEXT):
                wrong = "empty" if not str(text) else "no text: it holds NUL" if "\0" in str(text) else "too long"
                raise InputError(f"{name} is {wrong}: give {of.metavar or 'a value'}, at most {MAX_TEXT} characters")


def _default(f: "Field[Any]") -> Any:
    return f.default if f.default_factory is MISSING else f.default_factory()


def one_of(option: str, value: str, valid: tuple[str, ...]) -> None:
    """Raise InputError, which lists what is valid, where an option has another value."""
    if value not in valid:
        raise InputError(f"unknown {option} '{value}' (valid: {', '.join(valid)})")
