"""The command line: parse (cli_options.py), call, print (cli_output.py), and end (cli_errors.py).

Nothing else exits or prints.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import click

from edgenet import __version__
from edgenet.cli_errors import OneLineErrors, echo
from edgenet.cli_options import (
    PATH,
    complete_model,
    job_of,
    job_or_recipe,
    json_option,
    options_of,
)
from edgenet.cli_output import (
    Progress,
    io_text,
    megabytes,
    print_classes,
    print_device_evaluations,
    print_devices,
    print_evaluations,
    print_facts,
    print_failures,
    print_findings,
    print_json,
    print_kept,
    print_measurements,
    print_models,
    print_run,
    print_searches,
    print_table,
    print_trained,
    train_and_print,
    verify_handoff,
)
from edgenet.cli_runs import cache, compare, history, init, publish, show_plan
from edgenet.errors import InputError
from edgenet.options import BenchJob, FinetuneJob, Job, PaperJob, QatJob, ScaleJob


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="edgenet")
def main() -> None:
    """Take a trained image classifier to a phone, a board or an edge accelerator, and prove what it cost.

    \b
    Start here:
      edgenet run efficientnet-lite0 --images sample --out OUT
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a stream that cannot show a dash or a foreign file name shows "?"
            stream.reconfigure(errors="replace")


main.add_command(cache)
main.add_command(compare)
main.add_command(history)
main.add_command(publish)
main.add_command(init)


@main.command()
@click.argument("model", metavar="MODEL|RECIPE.toml", shell_complete=complete_model)
@options_of(Job)
@click.option("--dry-run", is_flag=True, help="Say what would be made, and about how long it takes; write nothing.")
@json_option
def run(dry_run: bool, as_json: bool, **asked: Any) -> None:
    """Export, evaluate and time MODEL in every format and precision, and write the report.

    Killed at any moment, the same command goes on and redoes only what was cut.

    \b
    edgenet run efficientnet-lite0 --images photos/ --out OUT
    """
    from edgenet.jobs import arena_budget
    from edgenet.pipeline import run as run_job

    job = job_or_recipe(asked)
    arena_budget.check(job.max_arena, job.devices)
    if dry_run:
        show_plan(job, as_json)
        return
    with Progress(job.out) as progress:
        results = run_job(job, progress)
    print_run(results, job.out, as_json, job.max_arena)


@main.command()
@click.argument("model", shell_complete=complete_model)
@options_of(Job, without=("devices", "threads", "emulated_images", "max_arena", "history"))
@json_option
def export(as_json: bool, **asked: Any) -> None:
    """Write MODEL as files, and nothing else.

    \b
    edgenet export efficientnet-lite0 --precision int8 --images photos/ --out OUT
    """
    from edgenet.jobs import accuracy_budget
    from edgenet.pipeline import run as run_job

    job = job_or_recipe(asked)
    with Progress(job.out) as progress:
        results = run_job(job, progress, only_export=True)
    if as_json:
        print_json(results.to_json())
    else:
        print_table(
            ("file", "size", "input", "output"),
            [
                (str(job.out / a.path), megabytes(a.size_bytes), io_text(a.inputs[0]), io_text(a.outputs[0]))
                for a in results.artifacts
                if a.precision in job.precisions
            ],
        )
        print_findings(results)
        print_searches(results)
        print_kept(results)
    accuracy_budget.hold(results)
    print_failures(results)


@main.command()
@click.argument("artifacts", nargs=-1, required=True, type=PATH)
@click.option("--reference", type=PATH, help="The file to compare with; the float32 one by default.")
@options_of(Job, only=("images", "devices", "limit", "cluster"))
@json_option
def evaluate(
    artifacts: tuple[Path, ...],
    images: str | None,
    reference: Path | None,
    limit: int | None,
    devices: tuple[str, ...],
    cluster: str | None,
    as_json: bool,
) -> None:
    """Measure accuracy of files on the same pictures; with --device, run them there and compare with this machine.

    \b
    edgenet evaluate OUT/*.tflite --images photos/
    """
    from edgenet.library import evaluate as evaluate_files

    with Progress() as progress:
        results = evaluate_files(
            artifacts,
            images=images,
            reference=reference,
            limit=limit,
            devices=devices,
            cluster=cluster,
            progress=progress,
        )
    if as_json:
        print_json(results.to_json())
    elif results.evaluations:
        (print_device_evaluations if devices else print_evaluations)(results)
        print_findings(results)
    print_failures(results)


@main.command()
@click.argument("artifacts", nargs=-1, required=True, type=PATH)
@options_of(BenchJob)
@click.option("--explain", is_flag=True, help="Say why: profile each operator against what this machine can do.")
@click.option("--out", type=PATH, metavar="DIR", help="With --explain: draw it in the report of this run.")
@json_option
def bench(
    artifacts: tuple[Path, ...],
    explain: bool,
    out: Path | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Time files against each other, in interleaved rounds.

    \b
    edgenet bench OUT/*.tflite --threads 2
    edgenet bench OUT/*_int8.tflite --device local --device adb:SERIAL
    edgenet bench OUT/*_float32.tflite OUT/*_int8.tflite --explain --out OUT
    """
    from edgenet.jobs import arena_budget
    from edgenet.jobs.bench import request_of
    from edgenet.library.bench_job import bench_job

    job = job_of(BenchJob, asked)
    with Progress() as progress:
        results = bench_job(artifacts, job, progress, explain=explain, out=out)
    if as_json:
        print_json(results.to_json())
    else:
        print_measurements(results, request_of(job))
    arena_budget.hold(results, job.max_arena, every=True)
    print_failures(results)


@main.command()
@click.argument("model", shell_complete=complete_model)
@options_of(QatJob)
@json_option
def qat(as_json: bool, **asked: Any) -> None:
    """Train MODEL's int8 form to answer as the float network does, and keep the better of before and after.

    \b
    edgenet qat efficientnet-lite0 --images photos/ --out OUT
    """
    from edgenet.jobs.qat import qat as run_job

    train_and_print(run_job, job_of(QatJob, asked), as_json)


@main.command()
@click.argument("model", shell_complete=complete_model)
@options_of(FinetuneJob)
@json_option
def finetune(as_json: bool, **asked: Any) -> None:
    """Train MODEL for the classes of a folder: a new head, the top layers, then all.

    \b
    edgenet finetune efficientnet-lite0 --images flowers/ --out OUT
    edgenet finetune mine.onnx --preprocess torch --images flowers/ --time 20m --out OUT
    """
    from edgenet.jobs.finetune import finetune as run_job

    train_and_print(run_job, job_of(FinetuneJob, asked), as_json)


@main.command("scale")
@options_of(ScaleJob)
@json_option
def scale_(as_json: bool, **asked: Any) -> None:
    """Find the width, depth and resolution that fill a budget on a device, and export the network.

    \b
    edgenet scale --device local --budget 30ms --out OUT
    edgenet scale --device micro --arena 512KB --flash 1MB --out OUT
    """
    from edgenet.jobs.scale import lines, scale

    job = job_of(ScaleJob, asked)
    with Progress(job.out) as progress:
        results = scale(job, progress)
    if as_json:
        print_json(results.to_json())
    else:
        print_facts(lines(results))


@main.command()
@click.argument("artifact", type=PATH)
@json_option
def inspect(artifact: Path, as_json: bool) -> None:
    """Show what a model file holds, read from the file itself."""
    from edgenet.export.inspect import inspect as inspect_file
    from edgenet.export.inspect import lines

    found = inspect_file(artifact)
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    print_facts(lines(found))


@main.command()
@click.argument("artifact", type=PATH, required=False)
@click.option(
    "--out",
    type=PATH,
    metavar="DIR",
    help="Folder for the hand-over; an earlier one is replaced, unless it was edited.",
)
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="D",
    help="Hand over for qnn:SOC (Android with its NPU; may be repeated), micro or rknn:CHIP; for Android by default.",
)
@click.option("--verify", type=PATH, metavar="DIR", help="Replay the golden test of an earlier hand-over here.")
@json_option
def handoff(
    artifact: Path | None, out: Path | None, devices: tuple[str, ...], verify: Path | None, as_json: bool
) -> None:
    """Write what an app, a firmware or a board needs to ship a file and to prove that it still answers as here.

    \b
    edgenet handoff OUT/efficientnet-lite0_int8.tflite --out HANDOVER
    edgenet handoff OUT/efficientnet-lite0_int8.tflite --device qnn:SM8750 --out HANDOVER
    edgenet handoff OUT/efficientnet-lite0_int8.tflite --device micro --out FIRMWARE
    edgenet handoff --verify HANDOVER
    """
    if verify is not None:
        if artifact is not None or out is not None or devices:
            raise InputError("--verify DIR stands alone: leave out the file, --out and --device")
        verify_handoff(verify, as_json)
        return
    if artifact is None or out is None:
        raise InputError("give a .tflite file and --out DIR, or --verify DIR")
    from edgenet.handoff import read_manifest
    from edgenet.handoff.devices import hand_over_for

    hand_over_for(devices, artifact, out)
    if as_json:
        print_json(read_manifest(out))
    else:
        echo(f"{out / 'README.md'} says what is there; `edgenet handoff --verify {out}` checks it")


@main.command()
@click.argument("folder", metavar="DIR", type=PATH)
@json_option
def report(folder: Path, as_json: bool) -> None:
    """Write DIR/report.html again from DIR/results.json."""
    from edgenet.library.page import rewrite_report
    from edgenet.results import Results

    results = Results.load(folder)
    rewrite_report(results, folder)
    if results.context.training:
        print_trained(results, folder, as_json)
    else:
        print_run(results, folder, as_json)


@main.command()
@options_of(PaperJob)
@json_option
def paper(as_json: bool, **asked: Any) -> None:
    """Measure the EfficientNet paper's comparison again, beside what it printed.

    Killed at any moment, the same command goes on and redoes only what was cut.

    \b
    edgenet paper --out OUT --quick
    """
    from edgenet.jobs.paper import run as run_job
    from edgenet.paper.page import PAGE_FILE, headline
    from edgenet.report.formatting import failed

    job = job_of(PaperJob, asked)
    with Progress(job.out) as progress:
        results = run_job(job, progress, lambda line: echo(line, err=True))
    if as_json:
        print_json(results.to_json())
    else:
        echo(f"{headline(results)}\n\nThe page: {job.out / PAGE_FILE}")
        for f in results.failures:
            if f.stage == "fit":  # known before anything ran, and a row of the page
                echo(f"Note: {failed(f)} was not measured: {f.why}")
    results.failures = [f for f in results.failures if f.stage != "fit"]
    print_failures(results)


@main.command()
@json_option
def models(as_json: bool) -> None:
    """List the model zoo, with published figures."""
    print_models(as_json)


@main.command()
@click.argument("word", default="")
@click.option("--model", type=PATH, metavar="FILE", help="Classes of this model file; ImageNet's by default.")
@json_option
def classes(word: str, model: Path | None, as_json: bool) -> None:
    """List the classes that WORD may mean, or all: by name, by synonym, and kinds of it. Class folders are named so.

    \b
    edgenet classes fridge
    edgenet classes cat
    """
    from edgenet.images import Classes, imagenet_classes

    if model is None:
        ids, names = imagenet_classes()
    else:
        from edgenet.jobs.evaluate_files import classes_in

        ids, names = classes_in(model)
    print_classes(Classes(ids, names), word, as_json)


@main.group(invoke_without_command=True)
@json_option
@click.pass_context
def devices(context: click.Context, as_json: bool) -> None:
    """List the devices that can be measured on, or prepare one."""
    if context.invoked_subcommand is not None:
        return
    from edgenet.device_bench import list_devices

    found = list_devices()
    if as_json:
        print_json(found)
    else:
        print_devices(found)


@devices.command()
@click.argument("device", metavar="ssh:[USER@]HOST[:PORT]|rknn")
@click.option("--wheels", type=PATH, metavar="DIR", help="Install from these wheels, not from a package index.")
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    default=("litert",),
    show_default=True,
    metavar="R",
    help="litert, onnxruntime or openvino; again for more.",
)
@json_option
def prepare(device: str, wheels: Path | None, runtimes: tuple[str, ...], as_json: bool) -> None:
    """Set up a board, or Rockchip's compiler here, once: an environment of its own with what runs there.

    \b
    edgenet devices prepare ssh:pi@192.168.1.20
    edgenet devices prepare rknn
    """
    from edgenet.device_bench.prepare import prepare as prepare_device

    prepared = prepare_device(device, runtimes, wheels, lambda text: echo(f"{text} ...", err=True))
    if as_json:
        print_json(dataclasses.asdict(prepared))
        return
    packages = ", ".join(f"{name} {version}" for name, version in prepared.packages.items())
    what = "is ready" if prepared.done else "was ready, nothing was changed"
    echo(f"{prepared.device} {what}: {prepared.python}, {packages}")


@main.command()
@json_option
def doctor(as_json: bool) -> None:
    """Show what this machine is, what is installed, and what is wrong, each problem with its remedy."""
    from edgenet.doctor import examine
    from edgenet.doctor import lines as lines_of

    found = examine()
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    print_facts(lines_of(found))
    echo("")
    for problem in found.problems:
        echo(f"Problem: {problem.what}\n  Remedy: {problem.remedy}")
    if not found.problems:
        echo("No problems found.")
