"""`edgenet publish`: parse, publish, print."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from edgenet.cli_errors import echo
from edgenet.cli_options import PATH, job_of, json_option, options_of
from edgenet.cli_output import Progress, print_json
from edgenet.publish.options import PublishJob


@click.command()
@click.argument("out", type=PATH)
@options_of(PublishJob)
@json_option
def publish(out: Path, as_json: bool, **asked: Any) -> None:
    """Log a run to an MLflow server: parameters, metrics and files.

    \b
    edgenet publish OUT --mlflow http://127.0.0.1:5000
    """
    from edgenet.publish.mlflow import publish as run_job

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
