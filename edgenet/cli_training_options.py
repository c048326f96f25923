"""What `edgenet qat` and `edgenet finetune` can be told, and the jobs that come of it. Defaults stand in the jobs."""

import shlex
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgenet.cli_options import Command, together
from edgenet.errors import InputError

if TYPE_CHECKING:
    from edgenet.jobs.finetune import FinetuneJob
    from edgenet.jobs.qat import QatJob


def _number(name: str, kind: type, metavar: str, text: str) -> Callable[[Command], Command]:
    return click.option(name, type=kind, metavar=metavar, help=text)


def _common(epochs: int, rate: str) -> Callable[[Command], Command]:
    return together(
        _number("--epochs", int, "N", f"Times that each picture is seen.  [default: {epochs}]"),
        _number("--batch", int, "N", "Pictures a step, over all devices.  [default: 16]"),
        _number("--learning-rate", float, "R", f"At its peak.  [default: {rate}]"),
        _number("--warmup", float, "F", "Part of all steps until the peak.  [default: 0.1]"),
        _number("--ema", float, "F", "Of the weights' exponential average, 0 for none."),
        _number("--patience", int, "N", "Epochs without a better held-back loss before it stops."),
        _number("--seed", int, "N", "Of everything random.  [default: 0]"),
        click.option("--augment", metavar="LIST", help="flip,crop,colour,mixup or none.  [default: flip,crop,colour]"),
        click.option(
            "--strategy", metavar="S", help="auto, cpu, mirrored, tpu or multiworker (tf.distribute).  [default: auto]"
        ),
        click.option("--mixed-precision", metavar="M", help="off, auto, float16 or bfloat16.  [default: auto]"),
        click.option("--weights", type=click.Path(path_type=Path), help="Pretrained weights; the zoo's by default."),
    )


qat_options = together(
    click.option("--format", "formats", multiple=True, metavar="F", help="A format, or all.  [default: tflite]"),
    click.option("--io", metavar="TYPE", help="float32 (normalised), uint8 or int8 (raw pixels).  [default: float32]"),
    _number("--calibration-images", int, "N", "Pictures to calibrate with.  [default: 100]"),
    _number("--train-images", int, "N", "Pictures to train on.  [default: three quarters of the rest]"),
    _number("--weight-bits", int, "4|7|8", "Of the weights.  [default: 8, or 7 where the target's sums saturate]"),
    click.option("--target", metavar="NAME", help="What runs the files: auto, pixel-8, coral, ...  [default: auto]"),
    click.option("--preprocess", metavar="TEXT", help="How an own model's input is made."),
    click.option("--labels", type=click.Path(path_type=Path), help="Names of an own model's classes, one a line."),
    click.option("--allow", multiple=True, metavar="CODE", help="Calibrate with pictures that are bad in this way."),
    _number("--temperature", float, "T", "Of the distillation.  [default: 1]"),
    _number("--labels-weight", float, "W", "Of the labels beside the float network's answers, 0 to 1.  [default: 0]"),
    click.option("--learn-ranges/--fixed-ranges", default=None, help="Whether activations' ranges learn."),
    click.option("--learn-scales/--fixed-scales", default=None, help="Whether the weights' scales learn."),
    _common(20, "0.0001"),
)
finetune_options = together(
    _number("--resolution", int, "PX", "Side of the input; the model's own by default."), _common(5, "0.0005")
)


def _settle(asked: dict[str, Any]) -> dict[str, Any]:
    given = {k: v for k, v in asked.items() if v not in (None, ())}
    for name, what in (("images", "a folder of photographs"), ("out", "a folder for what is made")):
        if name not in given:
            raise InputError(f"--{name} is missing: give {what}")
    if "augment" in given:
        named = given["augment"]
        given["augment"] = () if named == "none" else tuple(dict.fromkeys(named.split(",")))
    return given


def qat_job(model: str, asked: dict[str, Any]) -> "QatJob":
    """Return the job that the options ask for. Raises InputError."""
    from edgenet.export import FORMATS
    from edgenet.jobs.qat import SETTINGS, QatJob

    given = _settle(asked)
    for name in ("formats", "allow"):
        if name in given:
            given[name] = tuple(dict.fromkeys(given[name]))
    if "all" in given.get("formats", ()):
        given["formats"] = tuple(FORMATS)
    job = QatJob(model, given.pop("out"), given.pop("images"))
    settings = _part(SETTINGS, given)
    distill = _part(job.distill, given)
    return replace(job, settings=settings, distill=distill, command=_command(), **given)


def finetune_job(model: str, asked: dict[str, Any]) -> "FinetuneJob":
    """Return the job that the options ask for. Raises InputError."""
    from edgenet.jobs.finetune import FinetuneJob

    given = _settle(asked)
    if "resolution" in given:
        given["resolution_px"] = given.pop("resolution")
    job = FinetuneJob(model, given.pop("out"), given.pop("images"))
    settings = _part(job.settings, given)
    return replace(job, settings=settings, command=_command(), **given)


def _part(whole: Any, given: dict[str, Any]) -> Any:
    """Take what belongs to `whole` out of `given`, and return `whole` with it."""
    return replace(whole, **{f.name: given.pop(f.name) for f in fields(whole) if f.name in given})


def _command() -> str:
    return shlex.join(["edgenet", *sys.argv[1:]])
