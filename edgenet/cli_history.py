"""`edgenet history` and `edgenet publish`: parse, add, read or send, print."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from edgenet.cli_errors import echo
from edgenet.cli_options import PATH, job_of, json_option, options_of
from edgenet.cli_output import Progress, print_json, print_table
from edgenet.errors import InputError
from edgenet.history.options import HistoryJob, PublishJob


@click.command()
@click.argument("database", metavar="DB", type=PATH)
@click.argument("more", metavar="[OUT...]", nargs=-1, type=PATH)
@options_of(HistoryJob)
@json_option
def history(database: Path, more: tuple[Path, ...], as_json: bool, **asked: Any) -> None:
    """Keep runs in a database; list them, and write a page that shows how each file did from run to run.

    \b
    edgenet history runs.db --add OUT
    edgenet history runs.db --file '*_int8.tflite' --since 2026-11-01
    edgenet history runs.db --page trends/
    """
    from edgenet.history import text
    from edgenet.history.job import history as run_job

    job = job_of(HistoryJob, asked)
    if more and not job.add:
        raise InputError(f"what is {more[0]}? Give `edgenet history {database} --add {more[0]}` to add a run")
    job = dataclasses.replace(job, add=(*job.add, *map(str, more)))
    with Progress() as progress:
        done = run_job(database, job, progress)
    if as_json:
        print_json(text.plain(done))
        return
    for line in text.added(done):
        echo(line)
    if not job.add or job.page is None:
        print_table(text.TITLES, text.rows(done.runs))
    for note in text.notes(done):
        echo(f"Note: {note}")
    echo(text.headline(done))
    if done.page is not None:
        echo(f"\nThe page: {done.page}")


@click.command()
@click.argument("out", type=PATH)
@options_of(PublishJob)
@json_option
def publish(out: Path, as_json: bool, **asked: Any) -> None:
    """Log a run to an MLflow server: parameters, metrics and files.

    \b
    edgenet publish OUT --mlflow http://127.0.0.1:5000
    """
    from edgenet.history.mlflow import publish as run_job

    job = job_of(PublishJob, asked)
    with Progress() as progress:
        done = run_job(out, job, progress)
    if as_json:
        print_json(dataclasses.asdict(done))
        return
    for text in done.left:
        echo(f"Note: {text}: it was left out")
    if done.is_new:
        echo(f"{out} is run {done.run_id} of {done.experiment}: {done.n_metrics} metrics, {len(done.files)} files")
    else:
        echo(f"{out} was there already, as run {done.run_id} of {done.experiment}")
