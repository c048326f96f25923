"""The commands around a run: `init` and the plan before it; `compare`, `history`, `publish` and `cache` after it."""

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgenet.cli_errors import echo
from edgenet.cli_options import PATH, job_of, json_option, options_of
from edgenet.cli_output import Progress, print_json, print_table
from edgenet.compare.options import CompareJob
from edgenet.errors import GateFailed, InputError
from edgenet.history.options import HistoryJob
from edgenet.options import CacheJob
from edgenet.publish.options import PublishJob

if TYPE_CHECKING:
    from edgenet.compare.nouns import Comparison
    from edgenet.options import Job

_SUMMARY = "GITHUB_STEP_SUMMARY"  # the file that GitHub shows under a step


@click.command()
@click.argument("old", type=PATH)
@click.argument("new", type=PATH)
@options_of(CompareJob)
@json_option
def compare(old: Path, new: Path, as_json: bool, **asked: Any) -> None:
    """Say whether the run NEW is worse than OLD, as far as the data can tell; exit status 1 where it is.

    \b
    edgenet compare shipped/ OUT/ --max-accuracy-drop 0.5 --max-slowdown 3% --max-growth 1%
    edgenet compare shipped/ OUT/ --remeasure --max-slowdown 3% --strict
    """
    from edgenet.compare import text
    from edgenet.compare.job import check_files, compare_runs, write_files
    from edgenet.results.plain import write

    job = job_of(CompareJob, asked)
    check_files(job)
    with Progress() as progress:
        found = compare_runs(old, new, job, progress)
    write_files(found, job)
    if as_json:
        print_json({**write(found), "failed": [text.reason(f) for f in found.failed]})
    else:
        print_table(text.TITLES, text.rows([f for f in found.findings if f.aspect != "operators"]))
        for warning in text.warnings(found):
            echo(f"Note: {warning}")
    if job.github:
        _tell_github(found, err=as_json)
    for f in found.failed:
        echo(f"edgenet: {text.reason(f)}", err=True)
    if found.failed:
        raise GateFailed(text.headline(found))
    if not as_json:
        echo(text.headline(found))


def _tell_github(found: "Comparison", *, err: bool) -> None:
    """Print the annotations; GitHub reads both streams of a step."""
    from edgenet.compare.github import annotations
    from edgenet.compare.markdown import markdown

    for line in annotations(found):
        echo(line, err=err)
    if summary := os.environ.get(_SUMMARY):
        with Path(summary).open("a", encoding="utf-8") as f:
            f.write(markdown(found) + "\n")


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
    """Write a run in the formats that other tools read, and log it to an MLflow server.

    \b
    edgenet publish OUT --model-card OUT/README.md
    edgenet publish OUT --node-data NODES --trace trace.json
    edgenet publish OUT --benchmark-json bench.json --dvc metrics.json --attestation provenance.json
    edgenet publish OUT --mlflow http://127.0.0.1:5000
    """
    from edgenet.publish.job import publish as run_job

    job = job_of(PublishJob, asked)
    with Progress() as progress:
        done = run_job(out, job, progress)
    sent = done.mlflow
    if as_json:
        logged = dataclasses.asdict(sent) if sent else {}
        print_json({**logged, "written": [str(path) for path in done.written], "notes": list(done.notes)})
        return
    for note in (*done.notes, *(f"{text}: it was left out" for text in (sent.left if sent else ()))):
        echo(f"Note: {note}")
    for path in done.written:
        echo(f"written: {path}")
    if sent is None:
        return
    if sent.is_new:
        echo(f"{out} is run {sent.run_id} of {sent.experiment}: {sent.n_metrics} metrics, {len(sent.files)} files")
    else:
        echo(f"{out} was there already, as run {sent.run_id} of {sent.experiment}")


@click.command()
@click.argument("recipe", metavar="RECIPE.toml", type=PATH)
@json_option
def init(recipe: Path, as_json: bool) -> None:
    """Write a recipe for `edgenet run`: every key with its default, its range and what it is for.

    \b
    edgenet init recipe.toml
    edgenet run recipe.toml --dry-run
    """
    from edgenet.jobs.recipe_file import keys, write_recipe

    write_recipe(recipe)
    if as_json:
        print_json({"recipe": str(recipe), "keys": list(keys())})
    else:
        echo(f"{recipe}: change what you like, and then `edgenet run {recipe}`; --dry-run says first what that does")


def show_plan(job: "Job", as_json: bool) -> None:
    """Print what `edgenet run` would do."""
    from edgenet.dry_run import text
    from edgenet.dry_run.plan import plan

    found = plan(job)
    if as_json:
        print_json(text.plain(found))
        return
    print_table(text.TITLES, text.rows(found))
    for line in text.lines(found):
        echo(line)


@click.command()
@options_of(CacheJob)
@json_option
def cache(as_json: bool, **asked: Any) -> None:
    """List the steps that are kept so that no run computes them twice, or remove some.

    \b
    edgenet cache
    edgenet cache --prune --older-than 30d
    """
    from edgenet.cache import listing

    found = listing.run(job_of(CacheJob, asked))
    if as_json:
        print_json(listing.plain(found))
        return
    print_table(listing.TITLES, listing.rows(found))
    echo(listing.headline(found))
