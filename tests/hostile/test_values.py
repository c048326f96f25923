"""Every number and text of an option or a recipe that makes no sense is refused by its name, before any work."""

import dataclasses
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from edgenet.errors import InputError
from edgenet.images import Preprocessing
from edgenet.option_fields import option_fields
from edgenet.options import BenchJob, FinetuneJob, Job, PaperJob, QatJob, ScaleJob

JOBS = (Job, QatJob, FinetuneJob, ScaleJob, PaperJob, BenchJob)


@pytest.mark.parametrize("job", JOBS, ids=lambda j: j.__name__)
def test_every_number_of_a_command_has_a_range(job: type) -> None:
    numbers = {int, float}
    without = [f.name for f in option_fields(job) if numbers & {f.type, *get_args(f.type)} and f.option.within is None]
    assert without == []


NUMBERS = ("0", "-1", "nan", "inf", "-inf", "1e400", "99999999999999999999", "9" * 5000, "", "x", "²", "0x10", "1 2")
RUN, TRAIN = ("run", "tiny", "--images", "p"), ("qat", "tiny", "--images", "p")
#          option                command    values of NUMBERS that are none, and others
OPTIONS = (
    ("--threads", RUN, ("1.5", "1025")),
    ("--calibration-images", RUN, ("1.5", "1000001")),
    ("--limit", RUN, ("1",)),
    ("--batch", RUN, ("4097", "dynamic4", "٣")),
    ("--max-accuracy-drop", RUN, ("-0.1", "101")),
    ("--min-sqnr", RUN, ("-0.1", "1001")),
    ("--epochs", TRAIN, ("1.5",)),
    ("--learning-rate", TRAIN, ("101",)),
    ("--warmup", TRAIN, ("1",)),
    ("--ema", TRAIN, ("1",)),
    ("--patience", TRAIN, ()),
    ("--seed", TRAIN, ("2147483648",)),
    ("--temperature", TRAIN, ("1001",)),
    ("--labels-weight", TRAIN, ("1.1",)),
    ("--weight-bits", TRAIN, ("3", "9")),
    ("--train-images", TRAIN, ()),
    ("--resolution", ("finetune", "efficientnet-lite0", "--images", "p"), ("31", "1025")),
    ("--first-layer-rate", ("finetune", "efficientnet-lite0", "--images", "p"), ("1.1",)),
    ("--threads", ("scale", "--device", "local", "--budget", "3ms"), ()),
    ("--budget", ("scale", "--device", "local"), ("30", "-3ms", "nanms", "0ms", "1h", "9" * 400 + "s", "61s", "٣ms")),
)
IS_FINE = {("--max-accuracy-drop", "0"), ("--min-sqnr", "0"), ("--warmup", "0"), ("--ema", "0"), ("--seed", "0"),
           ("--labels-weight", "0")}  # fmt: skip
CASES = [
    (option, command, value)
    for option, command, more in OPTIONS
    for value in (*NUMBERS, *more)
    if (option, value) not in IS_FINE
]


@pytest.mark.parametrize(("option", "command", "value"), CASES, ids=lambda v: str(v)[:16])
def test_a_number_out_of_its_range_is_refused_by_its_name(
    option: str, command: tuple[str, ...], value: str, refused: Any
) -> None:
    assert option in refused(*command, "--out", "OUT", f"{option}={value}")


@pytest.mark.parametrize(
    "value", ["10", "0s", "0.5s", "25h", "-1s", "nan", "inf s", "1e3s", "9" * 400 + "h", "", "1m1", "١s"]
)
def test_a_duration_without_a_unit_or_out_of_a_day_is_refused(value: str, refused: Any) -> None:
    assert "--sustained" in refused("bench", "x.tflite", f"--sustained={value}")


@pytest.mark.parametrize("value", ["", ",", "-1", "1.5", "²", "9" * 5000, "1," * 2000, "1;2", "0x1"])
def test_cores_that_are_no_numbers_are_refused(value: str, refused: Any) -> None:
    assert "--cores" in refused("bench", "x.tflite", f"--cores={value}")


@pytest.mark.parametrize(
    "text",
    ["mean=nan std=1", "mean=0 std=0", "mean=0 std=-1", "mean=0 std=1e-300", "mean=1e300 std=1", "mean=inf std=1",
     "torch crop=-1", "torch crop=1e9", "torch crop=99999999", "torch size=0", "torch size=-5", "torch size=100000000",
     "torch size=1x1x1", "torch size=" + "9" * 5000, "tf" * 5000, "mean=" + "1," * 5000 + " std=1",
     "=", "mean=", "\x1b[31m"],
    ids=lambda t: t[:20],
)  # fmt: skip
def test_a_preprocessing_that_cannot_be_is_refused(text: str) -> None:
    from edgenet.images.preprocess_option import parse_preprocess

    with pytest.raises(InputError):
        parse_preprocess(text, None)


@pytest.mark.parametrize(
    "changes",
    [{"resolution_px": 0}, {"resolution_px": -1}, {"resolution_px": 10**9}, {"width_px": 10**9}, {"width_px": 0.5},
     {"crop_padding_px": 10**9}, {"crop_padding_px": -1}, {"mean": (float("nan"),) * 3}, {"std": (float("nan"),) * 3},
     {"std": (0.0,) * 3}, {"std": (float("inf"),) * 3}, {"mean": ()}, {"mean": "abc"}, {"mean": None},
     {"interpolation": []}, {"interpolation": {}}, {"channel_order": []}, {"channel_order": 5},
     {"resolution_px": "224"},
     {"resolution_px": True}, {"resolution_px": None}],
    ids=str,
)  # fmt: skip
def test_a_preprocessing_in_a_model_file_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    good = Preprocessing(224, (0.0,) * 3, (1.0,) * 3).to_json()
    with pytest.raises(InputError):
        Preprocessing.from_json({**good, **changes})


RECIPES = {
    "no model": 'out = "OUT"',
    "an empty model": 'model = ""\nout = "OUT"',
    "a model that is a number": 'model = 5\nout = "OUT"',
    "NUL in the model": 'model = "ti\\u0000ny"\nout = "OUT"',
    "an empty out": 'model = "tiny"\nout = ""',
    "NUL in out": 'model = "tiny"\nout = "O\\u0000T"',
    "an out that is a list": 'model = "tiny"\nout = ["OUT"]',
    "no formats": 'model = "tiny"\nout = "OUT"\nformats = []',
    "no precisions": 'model = "tiny"\nout = "OUT"\nprecisions = []',
    "no devices": 'model = "tiny"\nout = "OUT"\ndevices = []',
    "an empty format": 'model = "tiny"\nout = "OUT"\nformats = [""]',
    "NUL in a precision": 'model = "tiny"\nout = "OUT"\nprecisions = ["int8\\u0000"]',
    "NUL in images": 'model = "tiny"\nout = "OUT"\nimages = "p\\u0000"',
    "NUL in labels": 'model = "tiny"\nout = "OUT"\nlabels = "p\\u0000"',
    "empty images": 'model = "tiny"\nout = "OUT"\nimages = ""',
    "NaN": 'model = "tiny"\nout = "OUT"\nmin_sqnr = nan',
    "infinity": 'model = "tiny"\nout = "OUT"\nmax_accuracy_drop = inf',
    "a negative number": 'model = "tiny"\nout = "OUT"\nthreads = -1',
    "a number of 30 digits": f'model = "tiny"\nout = "OUT"\nlimit = {"9" * 30}',
    "a number of 5,000 digits": f'model = "tiny"\nout = "OUT"\nlimit = {"9" * 5000}',
    "true for a number": 'model = "tiny"\nout = "OUT"\nthreads = true',
    "a date for a number": 'model = "tiny"\nout = "OUT"\nthreads = 2020-01-01',
    "a batch of 0": 'model = "tiny"\nout = "OUT"\nbatch = 0',
    "a batch of words": 'model = "tiny"\nout = "OUT"\nbatch = "many"',
    "an unknown key": 'model = "tiny"\nout = "OUT"\nfoo = 1',
    "a key with an escape sequence": 'model = "tiny"\n"\\u001b[31m" = 1',
    "a table": "[model]\na = 1",
    "nested tables": "[a" + ".b" * 3000 + "]\nx = 1",
    "brackets": "model = " + "[" * 100_000,
    "no TOML": "model: tiny",
    "twice": 'model = "tiny"\nmodel = "tiny"',
    "no UTF-8": b"model = '\xff'",
    "nothing": "",
    "NUL": b"model = 'a'\0",
    "a long text": f'model = "tiny"\nout = "{"x" * 10_000}"',
    "a name that no file has": f'model = "{"x" * 300}.onnx"\nout = "OUT"',
    "a recipe in a recipe": 'model = "r.toml"\nout = "OUT"',
}


@pytest.mark.parametrize("text", RECIPES.values(), ids=RECIPES)
def test_a_recipe_that_makes_no_sense_is_refused(text: str | bytes, refused: Any) -> None:
    Path("r.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    said = refused("run", "r.toml")
    assert re.search(r"^edgenet: r\.toml|^edgenet: --[a-z-]+ (is|must)|unknown model|File name too long", said), said


@pytest.mark.parametrize("job", [Job, QatJob, FinetuneJob, PaperJob], ids=lambda j: j.__name__)
@pytest.mark.parametrize("value", ["", "a\0b", "x" * 5000], ids=["empty", "NUL", "long"])
def test_a_text_that_is_none_is_refused_wherever_a_job_is_made(job: type, value: str) -> None:
    needed = {"model": "m", "out": Path("o"), "images": "p"}
    given = {f.name: needed[f.name] for f in dataclasses.fields(job) if f.name in needed}  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--images"):
        job(**{**given, "images": value})


@pytest.mark.parametrize("n", [-1, 1_000_001, 10**12, 2**63])
def test_more_classes_than_any_classifier_has_are_refused_before_a_name_is_made_for_each(n: int) -> None:
    from edgenet.export.network import classes_of

    with pytest.raises(InputError, match="classes are declared"):
        classes_of(n)


def test_pictures_that_do_not_fit_into_memory_are_refused_before_they_are_decoded() -> None:
    from edgenet.images import load_pixels
    from edgenet.results import ImageSet

    n = 1_000_000
    many = ImageSet("x", ("/x/0.jpg",) * n, (None,) * n, ("0" * 64,) * n, "")
    with pytest.raises(InputError, match=r"pictures of 8192 x 8192 px take .* GB are free"):
        load_pixels(many, Preprocessing(8192, (0.0,) * 3, (1.0,) * 3))
