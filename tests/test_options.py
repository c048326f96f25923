"""options.py: an option is written once, and command line, recipe and library read it from there."""

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import click
import pytest

from edgenet import options
from edgenet.calibration.ranges import METHODS
from edgenet.cli import main
from edgenet.cli_options import job_of, job_or_recipe
from edgenet.errors import InputError
from edgenet.export import FORMATS
from edgenet.option_fields import option_fields
from edgenet.options import BenchJob, FinetuneJob, Job, PaperJob, QatJob, ScaleJob

JOBS = {"run": Job, "qat": QatJob, "finetune": FinetuneJob, "scale": ScaleJob, "paper": PaperJob, "bench": BenchJob}
NEEDED = {"model": "m", "out": Path("o"), "images": "photos", "device": "local", "budget": "30ms"}


@pytest.mark.parametrize("command", JOBS)
def test_every_field_is_an_option_and_the_help_shows_its_default(command: str) -> None:
    made = {p.name: p for p in main.commands[command].params if isinstance(p, click.Option)}
    for name, _, option, default in option_fields(JOBS[command]):
        assert made[name].default is None  # the job has the default, so that a recipe's value is not overwritten
        shown = (made[name].help or "").partition("[default: ")[2].rstrip("]")
        if isinstance(default, int | float | str) and not isinstance(default, bool):
            assert type(default)(shown) == default
        elif default and isinstance(default, tuple):
            assert option.words.get(shown) == default or shown.replace(", ", ",").split(",") == list(default)


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_a_job_of_nothing_but_what_it_needs_has_all_defaults(job: Any) -> None:
    needed = {f.name: NEEDED[f.name] for f in fields(job) if f.default is f.default_factory is MISSING}
    not_given = {f.name: None for f in option_fields(job)}
    made, plain = job_of(job, {**not_given, **needed}), job(**needed)
    assert {**vars(made), "command": ""} == {**vars(plain), "command": ""}


def test_what_is_inside_a_job_is_given_by_its_own_name() -> None:
    needed = {name: NEEDED[name] for name in ("model", "out", "images")}
    job = job_of(QatJob, {**needed, "epochs": 3, "temperature": 2.0, "learn_scales": True})
    assert (job.settings.epochs, job.settings.batch) == (3, QatJob("m", Path("o"), "x").settings.batch)
    assert (job.distill.temperature, job.distill.learn_scales, job.distill.learn_ranges) == (2.0, True, True)


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"formats": ("onnx", "onnx", "tflite")}, "formats", ("onnx", "tflite")),
        ({"formats": ("onnx", "all")}, "formats", tuple(FORMATS)),
        ({"corrections": "none"}, "corrections", ()),
        ({"corrections": "all"}, "corrections", options.CORRECTIONS),
        ({"corrections": "feedback,bias-correction"}, "corrections", ("feedback", "bias-correction")),
        ({"labels": "names.txt"}, "labels", Path("names.txt")),
    ],
)
def test_a_word_stands_for_its_values_and_each_value_counts_once(
    given: dict[str, Any], field: str, value: object
) -> None:
    assert getattr(job_of(Job, {"model": "m", "out": "o", **given}), field) == value


@pytest.mark.parametrize(
    ("job", "given", "missing"),
    [(Job, {}, "--out is missing: give a folder"), (QatJob, {"out": "o"}, "--images is missing: give a folder"),
     (ScaleJob, {"out": "o", "budget": "30ms"}, "--device is missing: give --device local")],
)  # fmt: skip
def test_an_option_without_a_default_is_asked_for_with_an_example(
    job: type, given: dict[str, Any], missing: str
) -> None:
    with pytest.raises(InputError, match=missing):
        job_of(job, {"model": "m", **given})


def test_the_command_line_has_the_last_word_over_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text('model = "tiny"\nout = "THERE"\nthreads = 2\nformats = ["all"]\nbatch = "dynamic"\nmin_sqnr = 20\n')
    job = job_or_recipe({"model": str(path), "threads": 4, "formats": (), "out": None})
    assert (job.model, job.out, job.threads, job.formats) == ("tiny", Path("THERE"), 4, tuple(FORMATS))
    assert (job.batch, job.min_sqnr) == ("dynamic", 20)


def test_the_names_that_are_written_here_are_those_that_are_implemented() -> None:
    assert (*METHODS, "auto") == options.RANGE_METHODS
    assert tuple(FORMATS) == options.FORMATS
