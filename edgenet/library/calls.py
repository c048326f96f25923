"""The commands as functions: typed records come back, and errors of edgenet.errors are raised. Nothing is printed.

Options have the names and the defaults of the commands' (docs/commands.md), as Python writes them. What takes long is
imported when it is called.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenet.compare.nouns import Comparison
from edgenet.compare.options import CompareJob
from edgenet.errors import GateFailed, InputError
from edgenet.export.inspect.inspection import Inspection
from edgenet.library.asked import command_text, job_from, path_of, paths_of, with_options
from edgenet.options import BenchJob, Job, Progress
from edgenet.results import Results

if TYPE_CHECKING:
    from edgenet.library.quantized import Quantized

File = str | PathLike[str]
_ONLY_RUN = ("devices", "threads", "emulated_images", "max_arena", "history")
_QUANTIZES = ("images", "images_test", "formats", "calibration_images", "limit", "weights", "random_weights",
              "preprocess", "labels", "task", "output", "target", "calibration_method", "corrections", "keep",
              "allow")  # fmt: skip


def silent(*_: object) -> None:
    """Show no progress."""


@with_options(Job)
def run(model: Any, *, example_input: Any = None, progress: Progress | None = None, **options: Any) -> Results:
    """Take a classifier to measured files and a page, as `edgenet run` does; return what OUT/results.json holds.

    Args:
        model: a name of the zoo; a path of a model file, a SavedModel folder or a recipe (.toml); a torch.nn.Module
            that gives (1, classes) scores; or a Keras model. Objects are left as they were.
        example_input: of a torch.nn.Module, (1, 3, H, W) float32 tensor of the size that the files will take.
        progress: called with (what is being done, done, in all).

    A file or a device that fails is one of `results.failures`; the others go on.

    Raises:
        InputError: an argument, a picture folder or the model is wrong. Nothing was written then.
        MissingDependency: a package that is needed is not installed.
        DeviceError: a device is not there.
        GateFailed: max_accuracy_drop, min_sqnr or max_arena was missed; `results` of the error has what was measured.
    """
    from edgenet.jobs import accuracy_budget, arena_budget

    job, results = _run("run", model, example_input, progress, options)
    with _carrying(results):
        accuracy_budget.hold(results)
        arena_budget.hold(results, job.max_arena, every=False)
    return results


@with_options(Job, without=_ONLY_RUN)
def export(model: Any, *, example_input: Any = None, progress: Progress | None = None, **options: Any) -> Results:
    """Write a model as files and nothing else; return what they are, in `results.artifacts`.

    Args:
        model: as for `run`, or what `quantize` returned: then only formats, io, batch, logits and out are options,
            because the rest is decided.
        example_input: of a torch.nn.Module, see `run`.
        progress: called with (what is being done, done, in all).

    A file that cannot be written is one of `results.failures`.

    Raises:
        InputError, MissingDependency, GateFailed: as `run`.
    """
    from edgenet.jobs import accuracy_budget
    from edgenet.library.quantized import Quantized, write

    if isinstance(model, Quantized):
        if example_input is not None:
            raise InputError("example_input is for a torch.nn.Module: leave it out")
        return write(model, options, progress or silent)
    _, results = _run("export", model, example_input, progress, options)
    with _carrying(results):
        accuracy_budget.hold(results)
    return results


@with_options(Job, only=_QUANTIZES)
def quantize(
    model: Any,
    *,
    precision: str = "int8",
    example_input: Any = None,
    progress: Progress | None = None,
    **options: Any,
) -> Quantized:
    """Choose the integers of a model from calibration pictures, in memory; nothing is written.

    What comes back has the graph that each format is written from, for you to look into (docs/library.md); `export`
    writes it, to the same bytes as `export(model, precisions=precision, ...)` would.

    Args:
        model: as for `run`.
        precision: float32, float16, weight-only, dynamic, int8 or int16x8. The first four need no pictures.
        example_input: of a torch.nn.Module, see `run`.
        progress: called with (what is being done, done, in all).

    Raises:
        InputError, MissingDependency: as `run`.
    """
    from edgenet.library.in_memory import as_path
    from edgenet.library.quantized import quantized

    with as_path(model, example_input, "quantize") as path:
        job = job_from(Job, options, model=path, out=Path(), precisions=(precision,))
        return quantized(job, precision, progress or silent)


@with_options(Job, only=("images", "limit", "devices", "cluster"), others={"devices": ()})
def evaluate(
    artifacts: File | Sequence[File],
    *,
    reference: File | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Results:
    """Measure the accuracy of files that edgenet wrote, on the same pictures; it is in `results.evaluations`.

    Args:
        artifacts: one file or several, of one model.
        reference: the file to compare with; the float32 one among them by default.
        devices: where to run them; each is compared with what the same file answers here. Here, where it is empty.
        progress: called with (what is being done, done, in all).

    A file that fails is one of `results.failures`.

    Raises:
        InputError: a file is no model of edgenet's, they do not take the same pixels, or there are no pictures.
        MissingDependency: the runtime of a format is not installed.
        DeviceError: a device is not there.
    """
    from edgenet.device_bench.registry import parse
    from edgenet.door import open_regular
    from edgenet.jobs.bench import models_among
    from edgenet.jobs.evaluate_files import evaluate_files
    from edgenet.preflight import check_evaluate

    where = options.pop("devices", None) or None
    limit = options.pop("limit", None)  # one picture is enough here, of a run it is not
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
        raise InputError(f"--limit must be a whole number, was {limit!r:.40}")
    asked = job_from(Job, {**options, "devices": where}, model="", out=Path())
    files = models_among(paths_of("artifacts", artifacts))
    base = None if reference is None else path_of("reference", reference)
    for path in (*files, *([base] if base else [])):
        if path.exists() and not path.is_dir():
            open_regular(path).close()
    devices = asked.devices if where else ()
    for device in devices:
        parse(device)
    if asked.images is None:
        raise InputError("evaluating needs images: give --images DIR (a folder of photographs) or --images sample")
    check_evaluate(files, asked.images, devices, asked.cluster)
    return evaluate_files(files, asked.images, base, limit, progress or silent, devices, asked.cluster)


@with_options(BenchJob)
def bench(
    artifacts: File | Sequence[File],
    *,
    explain: bool = False,
    out: File | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Results:
    """Time files against each other in interleaved rounds; it is in `results.measurements`, and chips' `estimates`.

    Args:
        artifacts: one file or several: .tflite, .onnx or .xml.
        explain: profile each operator against what this machine can do, in `results.explanations`.
        out: with `explain`, draw it in the report of this run.
        progress: called with (what is being done, done, in all).

    A file or a device that fails is one of `results.failures`.

    Raises:
        InputError: a file is no model, or options exclude each other.
        MissingDependency, DeviceError: as `run`.
        GateFailed: max_arena was missed; `results` of the error has what was measured.
    """
    from edgenet.jobs import arena_budget
    from edgenet.library.bench_job import bench_job

    job = job_from(BenchJob, options)
    folder = None if out is None else path_of("out", out)
    results = bench_job(paths_of("artifacts", artifacts), job, progress or silent, explain=explain, out=folder)
    with _carrying(results):
        arena_budget.hold(results, job.max_arena, every=True)
    return results


@with_options(CompareJob, without=("github",))
def compare(old: File, new: File, *, progress: Progress | None = None, **options: Any) -> Comparison:
    """Say whether the run `new` is worse than `old`, as far as the data can tell: `comparison.failed` has the reasons.

    Args:
        old, new: folders of runs, or their results.json. A limit that is missed raises nothing.
        progress: called with (what is being done, done, in all).

    Raises:
        InputError: one is no run, or the two cannot be compared.
    """
    from edgenet.compare.job import check_files, compare_runs, write_files

    job = job_from(CompareJob, options)
    check_files(job)
    found = compare_runs(path_of("old", old), path_of("new", new), job, progress or silent)
    write_files(found, job)
    return found


def inspect(artifact: File) -> Inspection:
    """Return what a model file is, read from the file itself: .tflite, .onnx or .xml, whoever wrote it.

    Raises:
        InputError: it is no model file, or damaged.
    """
    from edgenet.export.inspect import inspect as inspect_file

    return inspect_file(path_of("artifact", artifact))


def _run(
    name: str, model: Any, example_input: Any, progress: Progress | None, options: dict[str, Any]
) -> tuple[Job, Results]:
    """Do what `run` and `export` share."""
    from edgenet import pipeline
    from edgenet.jobs import arena_budget
    from edgenet.library.in_memory import as_path

    command = command_text(name, model, **options)
    if isinstance(model, str | PathLike) and str(model).endswith(".toml"):
        from edgenet.jobs.recipe_file import read_recipe

        options = {**read_recipe(Path(model)), **{k: v for k, v in options.items() if v is not None}}
        model = options.pop("model")
    with as_path(model, example_input, name) as path:
        job = job_from(Job, options, model=path, command=command)
        arena_budget.check(job.max_arena, job.devices)
        return job, pipeline.run(job, progress or silent, only_export=name == "export")


@contextmanager
def _carrying(results: Results) -> Iterator[None]:
    """Let the error of a budget that was missed carry what was made and measured."""
    try:
        yield
    except GateFailed as e:
        e.results = results
        raise
