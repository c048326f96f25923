"""The command line: parse, call, print. The only place that prints or exits.

Exit status: 0 done; 1 a gate or budget failed; 2 the input or the arguments are wrong; 3 a device or runtime failed.
"""

import dataclasses
import errno
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgenet import __version__
from edgenet.errors import EdgenetError, GateFailed, InputError
from edgenet.options import (
    PATH,
    device_option,
    images_option,
    job_of,
    json_option,
    limit_option,
    out_option,
    threads_option,
    what_options,
)
from edgenet.training_options import finetune_options, qat_options

if TYPE_CHECKING:
    from edgenet.results import Results


class _Group(click.Group):
    """Turns the library's errors into one line and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EdgenetError as e:
            _fail(str(e), e.exit_status)
        except OSError as e:  # a disk that is full, a folder that may not be read
            if e.errno == errno.EPIPE:
                raise  # `edgenet models | head -1` has what it wants; click ends quietly
            _fail(f"{e.filename or 'the system'}: {e.strerror or e}", 2)
        except KeyboardInterrupt:
            _fail("interrupted; the same command goes on where it was", 130)


def _fail(message: str, status: int) -> None:
    click.echo(f"edgenet: {' '.join(message.split())}", err=True)
    sys.exit(status)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
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


@main.command()
@click.argument("model", metavar="MODEL|RECIPE.toml")
@what_options
@device_option
@threads_option
@json_option
def run(model: str, as_json: bool, **asked: Any) -> None:
    """Export, evaluate and time MODEL in every format and precision, and write the report.

    Killed at any moment, the same command goes on and redoes only what was cut.

    \b
    edgenet run efficientnet-lite0 --images photos/ --out OUT
    """
    from edgenet.pipeline import run as run_job

    job = job_of(model, asked)
    with _progress() as progress:
        results = run_job(job, progress)
    _print_run(results, job.out, as_json)


@main.command()
@click.argument("model")
@what_options
@json_option
def export(model: str, as_json: bool, **asked: Any) -> None:
    """Write MODEL as files, nothing more.

    \b
    edgenet export efficientnet-lite0 --precision int8 --images photos/ --out OUT
    """
    from edgenet.pipeline import run as run_job

    job = job_of(model, asked)
    with _progress() as progress:
        results = run_job(job, progress, only_export=True)
    if as_json:
        _print_json(results.to_json())
    else:
        _print_table(
            ("file", "size", "input", "output"),
            [
                (str(job.out / a.path), _megabytes(a.size_bytes), _io(a.inputs[0]), _io(a.outputs[0]))
                for a in results.artifacts
                if a.precision in job.precisions
            ],
        )
        for finding in results.context.get("calibration_findings", []):
            if finding["severity"] != "info":
                click.echo(f"Warning: {finding['message']}; {finding['remedy']}")
    _hold_to_budget(results)
    _print_failures(results)


@main.command()
@click.argument("artifacts", nargs=-1, required=True, type=PATH)
@images_option
@click.option("--reference", type=PATH, help="The file to compare with; the float32 one by default.")
@limit_option
@json_option
def evaluate(
    artifacts: tuple[Path, ...], images: str | None, reference: Path | None, limit: int | None, as_json: bool
) -> None:
    """Measure accuracy of files on the same pictures.

    \b
    edgenet evaluate OUT/*.tflite --images photos/
    """
    from edgenet.pipeline import evaluate_files

    if images is None:
        raise InputError("evaluating needs images: give --images DIR (a folder of photographs) or --images sample")
    with _progress() as progress:
        results = evaluate_files(artifacts, images, reference, limit, progress)
    if as_json:
        _print_json(results.to_json())
    elif results.evaluations:
        _print_evaluations(results)
    _print_failures(results)


@main.command()
@click.argument("artifacts", nargs=-1, required=True, type=PATH)
@device_option
@threads_option
@json_option
def bench(artifacts: tuple[Path, ...], devices: tuple[str, ...], threads: int | None, as_json: bool) -> None:
    """Time files against each other, in interleaved rounds.

    \b
    edgenet bench OUT/*.tflite --threads 2
    """
    from edgenet.cautions import latency_note
    from edgenet.device_bench import bench as bench_files
    from edgenet.device_bench.devices import parse
    from edgenet.results import Results

    for device in devices:
        parse(device)
    for path in artifacts:
        if not path.exists():
            raise InputError(f"no file {path}: give model files, .tflite, .onnx or .xml")
        if path.suffix not in (".tflite", ".onnx", ".xml"):
            raise InputError(f"{path} is not a model file by its name: give model files, .tflite, .onnx or .xml")
    if threads is not None and threads < 1:
        raise InputError(f"--threads must be at least 1, was {threads}")
    with _progress() as progress:
        measurements, failures = bench_files(
            [(str(p), p) for p in artifacts],
            threads=threads or 1,
            progress=lambda done, total, _: progress("bench", done, total),
        )
    results = Results(measurements=measurements, failures=failures)
    if as_json:
        _print_json(results.to_json())
    elif measurements:
        _print_table(
            ("file", "runtime", "threads", "median ms", "p90", "p95", "runs", "load ms", "peak MB"),
            [
                (m.artifact, m.runtime, str(m.threads), f"{m.median_ms:.2f}", f"{m.p90_ms:.2f}", f"{m.p95_ms:.2f}",
                 str(m.n_runs), f"{m.load_ms:.0f}", f"{m.peak_rss_bytes / 1e6:.0f}")
                for m in measurements
            ],
        )  # fmt: skip
        if note := latency_note([(m.artifact, m) for m in measurements]):
            click.echo(f"Note: {note}")
        for warning in dict.fromkeys(w for m in measurements for w in m.warnings if w.startswith("cannot tell")):
            click.echo(f"Note: {warning}")
    _print_failures(results)


@main.command()
@click.argument("model")
@images_option
@out_option
@qat_options
@json_option
def qat(model: str, as_json: bool, **asked: Any) -> None:
    """Train MODEL's int8 form to answer as the float network does; the better of before and after is returned.

    \b
    edgenet qat efficientnet-lite0 --images photos/ --out OUT
    """
    from edgenet.qat_job import qat as run_job
    from edgenet.training_options import qat_job

    _train(run_job, qat_job(model, asked), as_json)


@main.command()
@click.argument("model")
@images_option
@out_option
@finetune_options
@json_option
def finetune(model: str, as_json: bool, **asked: Any) -> None:
    """Train a model of the zoo for the classes of a folder: a new head, then all layers.

    \b
    edgenet finetune efficientnet-lite0 --images flowers/ --out OUT
    """
    from edgenet.finetune_job import finetune as run_job
    from edgenet.training_options import finetune_job

    _train(run_job, finetune_job(model, asked), as_json)


@main.command("scale")
@click.option("--device", metavar="D", help="Where to measure: local, adb:SERIAL, ...")
@click.option("--budget", metavar="TIME", help="What one picture may take: 30ms.")
@out_option
@click.option("--family", metavar="F", help="What is scaled.  [default: efficientnet-lite]")
@threads_option
@json_option
def scale_(as_json: bool, **asked: Any) -> None:
    """Find the width, depth and resolution that fill a latency budget on a device, and export the network.

    \b
    edgenet scale --device local --budget 30ms --out OUT
    """
    from edgenet.scale_job import ScaleJob, lines, scale

    given = {k: v for k, v in asked.items() if v is not None}
    for name, example in (("device", "local"), ("budget", "30ms"), ("out", "OUT")):
        if name not in given:
            raise InputError(f"--{name} is missing: give --{name} {example}, say")
    job = ScaleJob(**given, command=shlex.join(["edgenet", *sys.argv[1:]]))
    with _progress() as progress:
        results = scale(job, progress)
    if as_json:
        _print_json(results.to_json())
    else:
        _print_facts(lines(results))


@main.command()
@click.argument("artifact", type=PATH)
@json_option
def inspect(artifact: Path, as_json: bool) -> None:
    """Say what a model file really is, read from the file itself."""
    from edgenet.export.inspect import inspect as inspect_file
    from edgenet.export.inspect import lines

    found = inspect_file(artifact)
    if as_json:
        _print_json(dataclasses.asdict(found))
        return
    _print_facts(lines(found))


@main.command()
@click.argument("artifact", type=PATH, required=False)
@click.option("--out", type=PATH, metavar="DIR", help="Folder for the hand-over; an earlier one is replaced.")
@click.option("--verify", type=PATH, metavar="DIR", help="Replay the golden test of an earlier hand-over here.")
@json_option
def handoff(artifact: Path | None, out: Path | None, verify: Path | None, as_json: bool) -> None:
    """Write what an Android team needs to ship a .tflite file and to prove that it still answers as here.

    \b
    edgenet handoff OUT/efficientnet-lite0_int8.tflite --out HANDOVER
    edgenet handoff --verify HANDOVER
    """
    if verify is not None:
        if artifact is not None or out is not None:
            raise InputError("--verify DIR stands alone: leave out the file and --out")
        _verify_handoff(verify, as_json)
        return
    if artifact is None or out is None:
        raise InputError("give a .tflite file and --out DIR, or --verify DIR")
    from edgenet.handoff import MANIFEST, hand_over

    hand_over(artifact, out)
    if as_json:
        click.echo((out / MANIFEST).read_text(encoding="utf-8"), nl=False)
    else:
        click.echo(f"{out / 'README.md'} says what is there; `edgenet handoff --verify {out}` checks it")


def _verify_handoff(folder: Path, as_json: bool) -> None:
    from edgenet.handoff_verify import verify

    checks = verify(folder)
    if as_json:
        _print_json([dataclasses.asdict(c) for c in checks])
    else:
        for c in checks:
            mark = "-" if c.ok is None else "ok" if c.ok else "FAILED"
            click.echo(f"{mark:6} {c.what}: {c.said}")
    failed = [c.what for c in checks if c.ok is False]
    if failed:
        raise GateFailed(f"the hand-over {folder} does not hold: {', '.join(failed)} failed")


@main.command()
@click.argument("folder", metavar="DIR", type=PATH)
@json_option
def report(folder: Path, as_json: bool) -> None:
    """Write DIR/report.html anew from DIR/results.json."""
    from edgenet.export.labels import class_labels, labels_in
    from edgenet.report import write_report
    from edgenet.results import Results

    results = Results.load(folder)
    first = results.artifacts[0] if results.artifacts else None
    names = class_labels(first.outputs[0].shape[-1], None, labels_in(folder / first.path))[1] if first else ()
    write_report(results, folder, names)
    _print_run(results, folder, as_json)


@main.command()
@out_option
@click.option("--table", "tables", multiple=True, metavar="T", help="2, 3, 4, 5, 7, lite or ladder; all by default.")
@click.option("--quick", is_flag=True, help="Table 4 without GPipe's network, in minutes.")
@images_option
@device_option
@json_option
def paper(out: Path | None, quick: bool, images: str | None, as_json: bool, **lists: tuple[str, ...]) -> None:
    """Measure the EfficientNet paper's comparison again, beside what it printed.

    Killed at any moment, the same command goes on and redoes only what was cut.

    \b
    edgenet paper --out OUT --quick
    """
    from edgenet.options import paper_job
    from edgenet.paper import run as run_job
    from edgenet.paper_page import PAGE_FILE, headline

    job = paper_job(out, quick, images, lists["tables"], lists["devices"])
    with _progress() as progress:
        results = run_job(job, progress, lambda line: click.echo(line, err=True))
    if as_json:
        _print_json(results.to_json())
    else:
        click.echo(f"{headline(results)}\n\nThe page: {job.out / PAGE_FILE}")
        for f in results.failures:
            if f.stage == "fit":  # known before anything ran, and a row of the page
                click.echo(f"Note: {f.what} was not measured: {f.why}")
    results.failures = [f for f in results.failures if f.stage != "fit"]
    _print_failures(results)


@main.command()
@json_option
def models(as_json: bool) -> None:
    """List the model zoo, with published figures."""
    from edgenet.weights import PACKAGES
    from edgenet.zoo import MODELS, multiply_adds, parameters

    if as_json:
        counted = {m.name: {"params": parameters(m), "madds": multiply_adds(m)} for m in MODELS.values()}
        packages = {name: package for name, (package, _) in PACKAGES.items()}
        _print_json(
            [{**dataclasses.asdict(m), **counted[m.name], "weights": packages.get(m.name)} for m in MODELS.values()]
        )
        return
    _print_table(
        ("model", "input px", "parameters", "published", "mult-adds", "published", "top-1", "INT8 top-1", "weights"),
        [
            (m.name, str(m.resolution_px), f"{parameters(m) / 1e6:.2f} M", f"{m.params_millions:.1f} M",
             f"{multiply_adds(m) / 1e6:,.0f} M", f"{m.madds_millions:,.0f} M", f"{m.top1_percent} %",
             f"{m.int8_top1_percent} %" if m.int8_top1_percent else "—", PACKAGES.get(m.name, ("--weights FILE",))[0])
            for m in MODELS.values()
        ],
    )  # fmt: skip
    click.echo("Parameters and multiply-adds are counted from the layers, beside the authors' figures; accuracies")
    click.echo("are theirs, on ImageNet's validation set. Where multiply-adds differ, the authors counted otherwise.")


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
        _print_json(found)
    else:
        runtimes = [", ".join(f"{k} {v}" for k, v in d["runtimes"].items()) for d in found]
        _print_table(
            ("device", "runtimes", "what"), [(d["id"], r, d["name"]) for d, r in zip(found, runtimes, strict=True)]
        )


@devices.command()
@click.argument("device", metavar="ssh:[USER@]HOST[:PORT]")
@click.option(
    "--wheels", type=PATH, metavar="DIR", help="Install from these wheels, not from the board's package index."
)
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
    """Set up a board once: an environment of its own there, with NumPy and a runtime.

    \b
    edgenet devices prepare ssh:pi@192.168.1.20
    """
    from edgenet.device_bench.connection import parse
    from edgenet.device_bench.prepare import prepare as prepare_board

    kind, _, address = device.partition(":")
    if kind != "ssh":
        raise InputError(f"'{device}' needs no preparing, or is no device (valid: ssh:[USER@]HOST[:PORT])")
    prepared = prepare_board(parse(address), runtimes, wheels, lambda text: click.echo(f"{text} ...", err=True))
    if as_json:
        _print_json(dataclasses.asdict(prepared))
        return
    packages = ", ".join(f"{name} {version}" for name, version in prepared.packages.items())
    what = "is ready" if prepared.done else "was ready, nothing was changed"
    click.echo(f"{prepared.device} {what}: {prepared.python}, {packages}")


@main.command()
@json_option
def doctor(as_json: bool) -> None:
    """Say what this machine is, what is installed, and what is wrong, each with its remedy."""
    from edgenet.doctor import examine
    from edgenet.doctor import lines as lines_of

    found = examine()
    if as_json:
        _print_json(dataclasses.asdict(found))
        return
    _print_facts(lines_of(found))
    click.echo()
    for problem in found.problems:
        click.echo(f"Problem: {problem.what}\n  Remedy: {problem.remedy}")
    if not found.problems:
        click.echo("No problems found.")


# ------------------------------------------------------------------------------------------------------------ printing


def _print_run(results: "Results", out: Path, as_json: bool) -> None:
    if as_json:
        _print_json(results.to_json())
    else:
        from edgenet.summary import summary_renderable

        _console().print(summary_renderable(results))
        click.echo(f"\nThe report: {out / 'report.html'}")
    _hold_to_budget(results)
    if results.failures:
        sys.exit(3)


def _train(run_job: Callable[..., "Results"], job: Any, as_json: bool) -> None:
    from edgenet.training_options import training_line

    with _progress() as progress:
        results = run_job(job, progress, lambda line: click.echo(line, err=True))
    if as_json:
        _print_json(results.to_json())
    else:
        _print_evaluations(results)
        click.echo(training_line(results.context["training"]))
    _print_failures(results)


def _print_evaluations(results: "Results") -> None:
    from edgenet.text import interval, number, percent, points

    rows = []
    for e in results.evaluations:
        compared = e.agreement is not None
        rows.append(
            (e.artifact, str(e.n_images), percent(e.top1), interval(e.top1_ci95) if e.top1_ci95 else "—",
             percent(e.top5), percent(e.agreement) if compared else "—", points(e.top1_drop),
             f"{e.flips_fixed} / {e.flips_broken}" if e.flips_fixed is not None else "—",
             number(e.mcnemar_p, 2), number(e.sqnr_db, 1))
        )  # fmt: skip
    _print_table(
        ("file", "pictures", "top-1", "95 %", "top-5", "agreement", "lost", "fixed / broken", "McNemar p", "SQNR dB"),
        rows,
    )
    for warning in dict.fromkeys(w for e in results.evaluations for w in e.warnings):
        click.echo(f"Note: {warning}")


def _print_failures(results: "Results") -> None:
    for f in results.failures:
        click.echo(f"edgenet: {f.stage} {f.what} failed: {f.why}; {f.remedy}", err=True)
    if results.failures:
        sys.exit(3)


def _hold_to_budget(results: "Results") -> None:
    missed = [(format, s) for format, s in results.context.get("search", {}).items() if not s["met"]]
    if missed:
        format, s = missed[0]
        raise GateFailed(f"no int8 file in {format} has {s['budget']}; {len(s['steps'])} were tried, the best was kept")


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=1, default=str))


def _print_facts(rows: list[tuple[str, str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(Text(label), Text(value))
    _console().print(table)


def _print_table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for i, title in enumerate(titles):
        number = i > 0 and all(row[i][:1].isdigit() or row[i][:1] in "—-+−" for row in rows)
        table.add_column(title, justify="right" if number else "left", no_wrap=i > 0, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    _console().print(table)


def _console() -> Any:
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)


class _progress:
    """A progress bar on stderr while it is a terminal; called with (what, done, total)."""

    def __enter__(self) -> Callable[[str, int, int], None]:
        self.bar: Any = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self.bar = Progress(
                TextColumn("{task.description:>10}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self.bar.start()
            self.tasks: dict[str, Any] = {}
        return self.show

    def show(self, what: str, done: int, total: int) -> None:
        if self.bar is not None:
            if what not in self.tasks:
                self.tasks[what] = self.bar.add_task(what, total=total)
            self.bar.update(self.tasks[what], completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.2f} MB"


def _io(t: Any) -> str:
    return f"{t.name} {'x'.join(map(str, t.shape))} {t.dtype}"
