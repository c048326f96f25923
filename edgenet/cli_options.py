"""What most commands can be told, and the job that comes of it. Defaults stand in the job."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgenet.errors import InputError

if TYPE_CHECKING:
    from edgenet.paper.plan import PaperJob
    from edgenet.pipeline import Job

Command = Callable[..., Any]


class NamedPath(click.Path):
    """A path; an empty one, as an unset shell variable leaves it, would silently be the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            name = f"--{param.name}" if isinstance(param, click.Option) else "the path"
            raise InputError(f"{name} is empty: give a path, '.' for the current folder")
        return super().convert(value, param, ctx)


PATH = NamedPath(path_type=Path)


def together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return one decorator that adds all `options`, in their order in the help text."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


images_option = click.option(
    "--images", type=NamedPath(), metavar="DIR|sample|tfds:NAME", help="Photographs: a folder, the sample, a data set."
)
out_option = click.option("--out", type=PATH, help="Folder for what is made; a later run goes on with it.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, and nothing else.")
limit_option = click.option("--limit", type=int, metavar="N", help="Use only N pictures.")
threads_option = click.option("--threads", type=int, metavar="N", help="Threads of one inference.  [default: 1]")
device_option = click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="D",
    help="Where: local, adb:SERIAL, ssh:USER@HOST, ...; may be repeated.  [default: local]",
)
bench_options = together(
    device_option,
    threads_option,
    click.option("--runtime", metavar="R", help="litert, onnxruntime or openvino; a format's own by default."),
    click.option("--delegate", metavar="D", help="What runs the network there: cpu, gpu, nnapi, npu."),
    click.option("--cores", metavar="LIST", help="Run on these cores only, such as 2,3."),
    click.option("--sustained", metavar="TIME", help="Run each file without a pause for so long, such as 10m."),
    click.option("--publish", is_flag=True, help="By MLPerf's single-stream rules: 1,024 queries and 60 s at least."),
)
what_options = together(
    click.option("--format", "formats", multiple=True, metavar="F", help="A format, or all.  [default: tflite]"),
    click.option(
        "--precision",
        "precisions",
        multiple=True,
        metavar="P",
        help="float32, float16, weight-only, dynamic, int8 or int16x8; may be repeated.",
    ),
    images_option,
    out_option,
    click.option("--calibration-images", type=int, metavar="N", help="Pictures to calibrate with.  [default: 100]"),
    limit_option,
    click.option("--io", metavar="TYPE", help="float32 (normalised), uint8 or int8 (raw pixels).  [default: float32]"),
    click.option("--batch", metavar="N|dynamic", help="Pictures an ONNX or OpenVINO file takes at once.  [default: 1]"),
    click.option("--logits", is_flag=True, default=None, help="Logits as a second output of ONNX and OpenVINO files."),
    click.option("--weights", type=PATH, help="Pretrained weights; the zoo's own by default."),
    click.option(
        "--preprocess", metavar="TEXT", help="How an own model's input is made: a preset (torch, tf, ...) or settings."
    ),
    click.option("--labels", type=PATH, help="Names of an own model's classes, one a line."),
    click.option("--target", metavar="NAME", help="What runs the files: auto, pixel-8, coral, ...  [default: auto]"),
    click.option(
        "--calibration-method", metavar="M", help="How ranges are chosen: auto, min-max, mse, ...  [default: auto]"
    ),
    click.option(
        "--corrections", metavar="LIST", help="What makes up for rounding: all, none, or some by name.  [default: all]"
    ),
    click.option(
        "--max-accuracy-drop", type=float, metavar="POINTS", help="Search for an int8 file that loses no more."
    ),
    click.option(
        "--min-sqnr", type=float, metavar="DB", help="Search for an int8 file whose logits are as clean as this."
    ),
    click.option("--allow", multiple=True, metavar="CODE", help="Calibrate with pictures that are bad in this way."),
    click.option(
        "--random-weights", is_flag=True, default=None, help="Build without trained weights, for latency only."
    ),
)


def job_of(model: str, asked: dict[str, Any]) -> "Job":
    """Put together what the recipe and the command line ask for; the command line has the last word."""
    from edgenet.calibration import CORRECTIONS
    from edgenet.export import FORMATS
    from edgenet.pipeline import Job, recipe

    given: dict[str, Any] = recipe(Path(model)) if model.endswith(".toml") else {"model": model}
    given |= {k: v for k, v in asked.items() if v not in (None, ())}
    if "out" not in given:
        raise InputError("--out is missing: give a folder for what is made, e.g. --out OUT")
    for name in ("out", "weights", "labels"):
        if given.get(name):
            given[name] = Path(given[name])
    for name in ("formats", "precisions", "devices", "allow"):
        if name in given:
            given[name] = tuple(dict.fromkeys(given[name]))
    if "all" in given.get("formats", ()):
        given["formats"] = tuple(FORMATS)
    if isinstance(given.get("corrections"), str):
        names = {"all": CORRECTIONS, "none": ()}
        given["corrections"] = names.get(given["corrections"], tuple(given["corrections"].split(",")))
    return Job(**given, command=shlex.join(["edgenet", *sys.argv[1:]]))


def paper_job(
    out: Path | None, quick: bool, images: str | None, tables: tuple[str, ...], devices: tuple[str, ...]
) -> "PaperJob":
    """Put together what `edgenet paper` was asked for. Raises InputError."""
    from edgenet.paper.plan import PaperJob

    if out is None:
        raise InputError("--out is missing: give a folder for what is measured, e.g. --out OUT")
    given: dict[str, Any] = {"images": images, "devices": devices, "tables": tables}
    given = {name: value for name, value in given.items() if value not in (None, ())}
    return PaperJob(out, quick=quick, **given, command=shlex.join(["edgenet", *sys.argv[1:]]))
