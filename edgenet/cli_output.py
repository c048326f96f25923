"""What the commands print: tables, facts, JSON and progress. With cli.py the only place that prints or exits."""

import dataclasses
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenet.cli_errors import echo
from edgenet.errors import GateFailed, InputError, printable

if TYPE_CHECKING:
    from edgenet.device_bench import Request
    from edgenet.images import Classes
    from edgenet.results import Results

LINES = "EDGENET_PROGRESS"  # 0: a log gets no lines of progress
LINES_APART_S, SILENT_S = 15, 60


def print_run(results: "Results", out: Path, as_json: bool, max_arena: str | None = None) -> None:
    """Print the summary of a run and where its report is; exit with 1 for a missed budget, 3 for a failure."""
    from edgenet.jobs import accuracy_budget, arena_budget

    if as_json:
        print_json(results.to_json())
    else:
        from edgenet.report import lost_files
        from edgenet.report.summary import summary_renderable

        console().print(summary_renderable(results, lost_files(results, out)))
        print_searches(results)
        print_kept(results)
        echo(f"\nThe report: {out / 'report.html'}")
    accuracy_budget.hold(results)
    arena_budget.hold(results, max_arena, every=False)
    if results.failures:
        sys.exit(3)


def train_and_print(run_job: Callable[..., "Results"], job: Any, as_json: bool) -> None:
    """Run a training job under a progress bar and print its result."""
    with Progress(job.out) as progress:
        results = run_job(job, progress, lambda line: echo(line, err=True))
    print_trained(results, job.out, as_json)


def print_trained(results: "Results", out: Path, as_json: bool) -> None:
    """Print the result of a training and where its report is."""
    from edgenet.report import lost_files
    from edgenet.report.notes import picture_counts
    from edgenet.report.overview import view_of
    from edgenet.report.training import headline, verdict

    if as_json:
        print_json(results.to_json())
    else:
        print_evaluations(results)
        if training := results.context.training:
            said = (headline(view_of(results, lost=lost_files(results, out))), picture_counts(results))
            for line in filter(None, (*said, verdict(training))):
                echo(line)
        echo(f"\nThe report: {out / 'report.html'}")
    print_failures(results)


def print_evaluations(results: "Results") -> None:
    """Print accuracy and agreement, a file a row."""
    from edgenet.report.formatting import interval, number, percent, points
    from edgenet.tasks.words import WORDS, figures_of

    right = WORDS[results.evaluations[0].task].right
    rows, measures = [], [dict(figures_of(e.measures)) for e in results.evaluations]
    named = list(dict.fromkeys(name for found in measures for name in found))
    for e, found in zip(results.evaluations, measures, strict=True):
        compared = e.agreement is not None
        own = [number(found[n].value, 4) if n in found else "—" for n in named]
        rows.append(
            (e.artifact, str(e.n_images), percent(e.top1), interval(e.top1_ci95) if e.top1_ci95 else "—",
             percent(e.top5), *own, percent(e.agreement) if compared else "—", points(e.top1_drop),
             f"{e.flips_fixed} / {e.flips_broken}" if e.flips_fixed is not None else "—",
             number(e.mcnemar_p, 2), number(e.sqnr_db, 1))
        )  # fmt: skip
    print_table(
        (
            "file",
            "pictures",
            right,
            "95 %",
            "top-5",
            *named,
            "agreement",
            "lost",
            "fixed / broken",
            "McNemar p",
            "SQNR dB",
        ),
        rows,
    )
    for warning in dict.fromkeys(w.text for e in results.evaluations for w in e.warnings):
        echo(f"Note: {warning}")


def print_measurements(results: "Results", request: "Request") -> None:
    """Print what was timed, estimated and explained."""
    from edgenet.report import bench_text, roofline

    if measurements := results.measurements:
        print_table(bench_text.titles(measurements, request), bench_text.rows(measurements, request))
        for note in bench_text.notes(measurements, request):
            echo(f"Note: {note}")
    if results.estimates:
        print_table(bench_text.ESTIMATE_TITLES, bench_text.estimate_rows(results.estimates))
        for note in bench_text.estimate_notes(results.estimates):
            echo(f"Note: {note}")
    for e in results.explanations:
        echo(f"\n{e.artifact}")
        print_table(roofline.OPERATOR_TITLES, roofline.operator_rows(e))
        for sentence in roofline.new_sentences(results.explanations, e):
            echo(f"- {sentence}")


def print_models(as_json: bool) -> None:
    """Print the model zoo: what is counted from the layers beside what was published."""
    from edgenet.models.weights import PACKAGES
    from edgenet.models.zoo import MODELS, multiply_adds, parameters

    packages = {name: package for name, (package, _) in PACKAGES.items()}
    if as_json:
        counted = {m.name: {"params": parameters(m), "madds": multiply_adds(m)} for m in MODELS.values()}
        print_json(
            [{**dataclasses.asdict(m), **counted[m.name], "weights": packages.get(m.name)} for m in MODELS.values()]
        )
        return
    print_table(
        ("model", "input px", "parameters", "published", "mult-adds", "published", "top-1", "INT8 top-1", "weights"),
        [
            (m.name, str(m.resolution_px), f"{parameters(m) / 1e6:.2f} M", f"{m.params_millions:.1f} M",
             f"{multiply_adds(m) / 1e6:,.0f} M", f"{m.madds_millions:,.0f} M", f"{m.top1_percent} %",
             f"{m.int8_top1_percent} %" if m.int8_top1_percent else "—", packages.get(m.name, "--weights FILE"))
            for m in MODELS.values()
        ],
    )  # fmt: skip
    echo("Parameters and multiply-adds are counted from the layers, beside the authors' figures; accuracies")
    echo("are theirs, on ImageNet's validation set. Where multiply-adds differ, the authors counted otherwise.")


_WHY_A_CLASS = {
    "name": "its name",
    "synonym": "another name of it",
    "narrower": "'{word}' is a kind of it",
    "wider": "it is a kind of '{word}'",
    "rare": "another meaning of '{word}'",
    "similar": "similar",
}


def print_classes(classes: "Classes", word: str, as_json: bool) -> None:
    """Print the classes that a word may mean, the likeliest first; all of them where there is no word."""
    from edgenet.images import Match

    found = classes.matches(word) if word.strip() else [Match(i, "") for i in range(classes.count)]
    if not found:
        raise InputError(
            f"no class is called '{word}' or anything like it: names are English, a wider word finds more (cat, dog, "
            "vehicle); own classes? `edgenet finetune` learns them"
        )
    ids = [next((id for id in classes.ids[m.index : m.index + 1] if id != classes.name(m.index)), None) for m in found]
    if as_json:
        print_json(
            [
                {"index": m.index, "id": id, "name": classes.name(m.index), "synonyms": list(classes.synonyms(m.index)),
                 "kind_of": classes.kind_of(m.index) or None, "match": m.why or None}
                for m, id in zip(found, ids, strict=True)
            ]
        )  # fmt: skip
        return
    print_table(
        ("index", "id", "name", "a kind of", "why", "other names"),
        [
            (str(m.index), id or "", classes.name(m.index), classes.kind_of(m.index),
             _WHY_A_CLASS.get(m.why, "").format(word=word), ", ".join(classes.synonyms(m.index)))
            for m, id in zip(found, ids, strict=True)
        ],
    )  # fmt: skip


def print_devices(found: Sequence[Mapping[str, Any]]) -> None:
    """Print what `list_devices` returns; where OpenVINO has more than a CPU, also the names that `--delegate` takes."""

    def runtime(device: Mapping[str, Any], name: str, version: str) -> str:
        more = [d for d in device.get("openvino", ()) if d != "cpu"] if name == "openvino" else []
        return f"{name} {version}" + (f" (--delegate {' or '.join(more)})" if more else "")

    rows = [(d["id"], ", ".join(runtime(d, *r) for r in d["runtimes"].items()), d["name"]) for d in found]
    print_table(("device", "runtimes", "what"), rows)
    from edgenet.device_bench.registry import KINDS

    there = {d["kind"] for d in found if not d.get("problem")}
    others = [kind.form(name) for name, kind in KINDS.items() if name not in there]
    if others:
        echo(f"\nNone found of {', '.join(others)}: docs/devices.md and docs/accelerators.md say what each needs.")


def print_device_evaluations(results: "Results") -> None:
    """Print how a device's answers differ from this machine's, a file a row."""
    from edgenet.report.formatting import percent
    from edgenet.tasks.words import WORDS

    right, named = WORDS[results.evaluations[0].task].right, results.evaluations[0].agreement_here is not None
    rows = [
        (e.artifact, e.device, str(e.n_images), percent(e.top1), *[percent(e.agreement)] * named,
         percent(e.agreement_here if named else e.agreement), f"{e.outputs_differing} of {e.outputs_compared}",
         "—" if e.largest_difference is None else f"{e.largest_difference:.2g}")
        for e in results.evaluations
    ]  # fmt: skip
    of = ["as the reference"] * named
    print_table(("file", "device", "pictures", right, *of, "as here", "outputs that differ", "by at most"), rows)
    for e in results.evaluations:
        how = f"emulated by {e.emulated}; " if e.emulated else ""
        echo(f"Note: {e.artifact} on {e.device}: {how}{e.difference}")


def print_findings(results: "Results") -> None:
    """Print what is wrong with the pictures, a line each."""
    for finding in results.context.calibration_findings:
        if finding.severity != "info":
            echo(f"Warning: {finding.message}; {finding.remedy}")


def verify_handoff(folder: Path, as_json: bool) -> None:
    """Replay a hand-over's golden test and print what it found. Raises GateFailed where something has changed."""
    from edgenet.handoff.devices import verify_folder

    checks = verify_folder(folder)
    if as_json:
        print_json([dataclasses.asdict(c) for c in checks])
    else:
        for c in checks:
            mark = "-" if c.ok is None else "ok" if c.ok else "FAILED"
            echo(f"{mark:6} {c.what}: {c.said}")
    failed = [c.what for c in checks if c.ok is False]
    if failed:
        raise GateFailed(f"the hand-over {folder} failed its test: {', '.join(failed)}; read the lines above")


def print_failures(results: "Results") -> None:
    """Print each failure on stderr in a line; exit with 3 where there was one."""
    from edgenet.report.formatting import failed

    for f in results.failures:
        echo(f"edgenet: {f.stage} {failed(f)} failed: {f.why}; {f.remedy}", err=True)
    if results.failures:
        sys.exit(3)


def print_searches(results: "Results") -> None:
    """Print how a budget was met in each format: every step, what it cost, and which was kept."""
    from edgenet.report import budget_text
    from edgenet.results.records import MET, verdict_of

    for format, s in results.context.search.items():
        if not s.steps:
            continue
        echo(f"\nThe budget in {format}: {s.budget}")
        rows = [
            (
                f"{'→' if step.artifact else ' '} {step.n}. {step.what}",
                *budget_text.figures(s, step),
                budget_text.IN_WORDS[verdict_of(step)],
            )
            for step in s.steps
        ]
        print_table((*(title.lower() for title in budget_text.titles(s)), "budget"), rows)
        echo("Warning: " * (verdict_of(s) != MET) + budget_text.outcome(s))


def print_kept(results: "Results") -> None:
    """Print which files keep operators in another precision, and the options that ask for the same again."""
    from edgenet.report.budget_text import repeated
    from edgenet.report.formatting import counted

    ids: dict[tuple[str, ...], list[str]] = {}
    for a in results.artifacts:
        if a.keep:
            ids.setdefault(a.keep, []).append(a.id)
    for keep, files in ids.items():
        kept = list(next(a.mixture for a in results.artifacts if a.id == files[0]).values())
        what = ", ".join(f"{counted(kept.count(p), 'operator')} in {p}" for p in dict.fromkeys(kept))
        echo(f"{', '.join(files)}: {what}; the same again by {repeated(keep)}")


def print_json(value: Any) -> None:
    """Print plain values as JSON on stdout."""
    echo(json.dumps(value, indent=1, default=str))


def print_facts(rows: list[tuple[str, str]]) -> None:
    """Print pairs of label and value."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(Text(printable(label)), Text(printable(value)))
    _print_whole(table)


def print_table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table; columns of numbers stand to the right, the first and the last column fold."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for i, title in enumerate(titles):
        number = i > 0 and all(row[i][:1].isdigit() or row[i][:1] in "—-+−" for row in rows)
        table.add_column(title, justify="right" if number else "left", no_wrap=0 < i < len(titles) - 1, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    _print_whole(table)


def _print_whole(table: Any) -> None:
    """Print a table as wide as it has to be: in a narrower terminal its lines are broken, and no column is left out."""
    shown = console()
    needed = shown.measure(table, options=shown.options.update(width=10_000))
    shown.width = max(shown.width, needed.minimum, min(needed.maximum, 60))
    shown.print(table)


def console() -> Any:
    """Return the console of stdout, 160 characters wide where it is no terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)


def foreign_in(out: Path) -> list[str]:
    """Return the names in a folder that is to be an output folder for the first time: nothing of edgenet's."""
    if not out.is_dir() or os.path.lexists(out / "results.json"):
        return []
    return sorted(p.name for p in out.iterdir() if not p.name.startswith(".edgenet"))


class Progress:
    """Progress on stderr, called with (what, done, total): a bar in a terminal, plain lines in a log.

    Args:
        out: the folder that is filled: where it holds something of the user's, it is said once that this stays.
    """

    def __init__(self, out: Path | None = None) -> None:
        self.out = out

    def __enter__(self) -> Callable[[str, int, int], None]:
        self.foreign = foreign_in(self.out) if self.out is not None else []
        self.bar: Any = None
        self.done = threading.Event()
        if not sys.stderr.isatty():
            if os.environ.get(LINES) == "0":
                return self.show
            lines = ProgressLines(lambda line: echo(line, err=True))
            threading.Thread(target=lines.watch, args=(self.done,), daemon=True).start()
            return lines
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

    def __exit__(self, kind: object, *_: object) -> None:
        self.done.set()
        if self.bar is not None:
            self.bar.stop()
        if self.foreign and kind is None:
            more = f" and {len(self.foreign) - 1} more" if len(self.foreign) > 1 else ""
            echo(f"Note: {self.out} held {self.foreign[0]}{more}, not of edgenet's making: left as it was", err=True)


class ProgressLines:
    """Progress in a log: a line as each stage begins, then at most one every 15 seconds, and one in each silent minute.

    Args:
        tell: gets each line.
        now: seconds of a clock that only rises.
    """

    def __init__(self, tell: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        self.tell, self.now, self.began = tell, now, now()
        self.stages: set[str] = set()
        self.last, self.state = self.began, ""

    def __call__(self, what: str, done: int, total: int) -> None:
        self.state = f"{what}: {done} of {total}"
        if what not in self.stages or self.now() - self.last >= LINES_APART_S:
            self.stages.add(what)
            self._tell()

    def watch(self, done: threading.Event) -> None:
        """Until the work is done: repeat a line where a step takes minutes, so that nobody takes it for dead."""
        while not done.wait(LINES_APART_S):
            self.repeat()

    def repeat(self) -> None:
        """Say where it is, if nothing was said for a minute."""
        if self.state and self.now() - self.last >= SILENT_S:
            self._tell()

    def _tell(self) -> None:
        self.last = self.now()
        minutes, seconds = divmod(int(self.last - self.began), 60)
        self.tell(f"{self.state}, after {minutes}:{seconds:02d} min")


def megabytes(size_bytes: int) -> str:
    """Return a size as text, in megabytes of 10^6 bytes."""
    return f"{size_bytes / 1e6:.2f} MB"


def io_text(t: Any) -> str:
    """Return name, shape and type of an input or output."""
    return f"{t.name} {'x'.join(map(str, t.shape))} {t.dtype}"
