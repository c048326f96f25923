"""From a job's dataclass (options.py) to click's options, and from what was given back to the job."""

import dataclasses
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from edgenet.errors import InputError
from edgenet.option_fields import OptionField, build, kind_of, option_fields, value_of
from edgenet.options import Job

Command = Callable[..., Any]
T = TypeVar("T")


class NamedPath(click.Path):
    """A path; an empty one, as an unset shell variable leaves it, would silently be the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            name = f"--{param.name}" if isinstance(param, click.Option) else "the path"
            raise InputError(f"{name} is empty: give a path, '.' for the current folder")
        if "\0" in str(value):
            raise InputError(f"{param.name if param else 'the path'} is no path: it holds NUL")
        return super().convert(value, param, ctx)


PATH = NamedPath(path_type=Path)


def options_of(job: type, without: Sequence[str] = (), only: Sequence[str] = ()) -> Callable[[Command], Command]:
    """Return a decorator that adds the options of a job's dataclass, in the order of its fields.

    Args:
        without: fields that the command does not offer.
        only: the fields that it offers; all by default.
    """
    wanted = [f for f in option_fields(job) if f.name not in without and (not only or f.name in only)]

    def add(command: Command) -> Command:
        for f in reversed(wanted):
            command = _click_option(f)(command)
        return command

    return add


def job_of(job: type[T], given: Mapping[str, Any]) -> T:
    """Return the job that was asked for. What was not given, None or empty, is the field's default.

    Args:
        given: by the name of the field, as click or a recipe has it.

    Raises:
        InputError: an option without a default is missing, or a value makes no sense.
    """
    values = {name: value for name, value in given.items() if value not in (None, ())}
    for f in option_fields(job):
        if f.name in values:
            values[f.name] = value_of(f, values[f.name])
        elif f.default is MISSING:
            raise InputError(f"--{_name(f)} is missing: give {f.option.missing}")
    if "command" in {f.name for f in dataclasses.fields(job)}:  # type: ignore[arg-type]
        values["command"] = shlex.join(["edgenet", *sys.argv[1:]])
    made: T = build(job, values)
    return made


def job_or_recipe(given: Mapping[str, Any]) -> Job:
    """Return the job of `edgenet run` or `export`; where a recipe is given, the command line has the last word."""
    if not given["model"].endswith(".toml"):
        return job_of(Job, given)
    from edgenet.jobs.recipe_file import read_recipe

    recipe = read_recipe(Path(given["model"]))
    return job_of(Job, {**recipe, **{k: v for k, v in given.items() if k != "model" and v not in (None, ())}})


def _click_option(f: OptionField) -> Callable[[Command], Command]:
    """Return the click option of a field. Its default is None: the field has the real one, and the help shows it."""
    option, kind = f.option, kind_of(f.type)
    about: dict[str, Any] = {"default": None, "help": _help(f)}
    name = f"--{_name(f)}"
    if kind is bool:
        name = f"{name}/--{option.off}" if option.off else name
        return click.option(name, f.name, is_flag=True, **about)
    if kind is tuple and not option.with_commas:
        about |= {"multiple": True}
    if option.metavar:
        about["metavar"] = option.metavar
    if option.choices:
        about["shell_complete"] = _completing(option.choices, option.with_commas, "dir" if option.path else "")
    types = {Path: PATH, int: int, float: float}
    return click.option(name, f.name, type=NamedPath() if option.path else types.get(kind, str), **about)


def _completing(
    choices: Sequence[str], with_commas: bool = False, otherwise: str = ""
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Return what tells a shell the words that may stand there.

    Args:
        with_commas: several may, with commas between them.
        otherwise: "file" or "dir" where the shell is to complete paths, where no word fits.
    """

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",") if with_commas else ("", "", incomplete)
        found = [CompletionItem(f"{before}{comma}{word}") for word in choices if word.startswith(last)]
        return found or ([CompletionItem(incomplete, type=otherwise)] if otherwise else [])

    return complete


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the zoo's models for a shell, and files where none fits."""
    from edgenet.models.zoo import MODELS

    return _completing(list(MODELS), otherwise="file")(ctx, param, incomplete)


def _name(f: OptionField) -> str:
    return f.option.name or f.name.replace("_", "-")


def _help(f: OptionField) -> str:
    default = f.option.default_text if f.default is None else _default_text(f)
    return f.option.help + (f"  [default: {default}]" if default else "")


def _default_text(f: OptionField) -> str:
    default = f.default
    if default is MISSING or default is None or default == ():
        return ""
    if isinstance(default, bool):
        return (_name(f) if default else f.option.off) if f.option.off else ""
    if isinstance(default, tuple):
        words = [word for word, values in f.option.words.items() if values == default]
        return words[0] if words else ("," if f.option.with_commas else ", ").join(default)
    return f"{default:g}" if isinstance(default, float) else str(default)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, and nothing else.")
