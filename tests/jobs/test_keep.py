"""`--keep`: operators are named, nonsense is told before the work, and what a search found can be said again."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from edgenet.calibration import Recipe
from edgenet.calibration.execute import Executor
from edgenet.cli_options import job_or_recipe
from edgenet.errors import InputError
from edgenet.export.graph import Graph
from edgenet.export.inspect import inspect
from edgenet.export.runtime import load
from edgenet.jobs.file_factory import FileFactory, Interface, Variant
from edgenet.jobs.keep import as_options, kept_precisions, parse, resolve
from edgenet.options import KEPT_PRECISIONS
from edgenet.results import ImageSet
from edgenet.targets import TARGETS, target
from helpers import tiny
from helpers.command_line import Edgenet
from helpers.graph_builder import Builder

CPU = target("generic")
Images = tuple[ImageSet, ImageSet]


def kept(*options: str, graph: Graph | None = None, on: str = "generic") -> dict[str, str]:
    return resolve(parse(options, target(on)), graph or tiny.graph(), target(on))


def factory(images: Images, *options: str, on: str = "generic") -> FileFactory:
    keep = parse(options, target(on))
    return FileFactory(tiny.source(), images[0], target(on), Recipe(), Interface(), keep=keep)


# ---------------------------------------------------------------------------------------------------------- the names


def test_an_operator_is_named_by_its_output_its_weights_or_its_kind() -> None:
    assert kept("^head$=float32") == {"head": "float32"}
    assert kept("expand_w=float16") == {"expand": "float16"}
    assert kept("ADD=int16") == {"added": "int16"}
    assert kept("CONV_2D=int16").keys() == {"stem", "expand", "project", "head"}, "a kind is named as a whole"


def test_the_last_option_that_names_an_operator_counts() -> None:
    assert kept("ad=int16", "head=float32") == {"added": "int16", "head": "float32"}
    assert kept("head=float32", "ad=int16") == {"added": "int16", "head": "int16"}


def test_an_expression_may_hold_the_equals_sign() -> None:
    graph = tiny.graph().renamed({"head": "a=b"})
    assert kept("a=b=float32", graph=graph) == {"a=b": "float32"}


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("head", r"'head' is not REGEX=PRECISION"),
        ("=float32", r"is not REGEX=PRECISION"),
        ("head=int4", r"unknown precision 'int4' \(valid: float32, float16, int16, weight-only\)"),
        ("(head=int16", r"'\(head' is no regular expression \(missing \)"),
        ("hade=float32", r"names no operator of the network: near are head"),
        ("xyz=float32", r"names no operator of the network: its 9 operators are called stem, expand, "),
    ],
)
def test_what_makes_no_sense_is_told_in_one_line(option: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as e:
        kept(option)
    assert "\n" not in str(e.value)


def hard_swish() -> Graph:
    b = Builder(1, 4, 4, 3)
    x = b.conv("image", "stem", np.ones((2, 1, 1, 3)), np.zeros(2))
    return b.graph(b.op("HARD_SWISH", [x], (1, 4, 4, 2), out="swish"))


def test_a_type_that_no_operator_named_has_is_refused() -> None:
    with pytest.raises(InputError, match="HARD_SWISH has no int16 form"):
        kept("swish=int16", graph=hard_swish())
    assert kept(".*=int16", graph=hard_swish()).keys() == {"stem", "swish"}
    with pytest.raises(InputError, match="HARD_SWISH has no int16 form"):  # which would leave the chip
        kept(".*=int16", graph=hard_swish(), on="ethos-u55")


@pytest.mark.parametrize("name", TARGETS)
def test_an_accelerator_keeps_what_it_runs_and_a_cpu_everything(name: str) -> None:
    floats = tuple(p for p in KEPT_PRECISIONS if p != "int16")
    chips = {"coral": (), "hexagon": (), "ethos-u55": ("int16",), "phone-npu": floats, "rockchip": floats}
    able = chips.get(name, KEPT_PRECISIONS)
    assert kept_precisions(target(name)) == able
    for precision in set(KEPT_PRECISIONS) - set(able):
        with pytest.raises(InputError, match=f"{name} runs no (float|int16) operators"):
            kept(f"head={precision}", on=name)


# --------------------------------------------------------------------------------------------------------- the files


@pytest.mark.parametrize("format", ["tflite", "onnx", "openvino"])
@pytest.mark.parametrize("precision", KEPT_PRECISIONS)
def test_every_format_computes_the_mixture_that_was_asked_for(
    format: str, precision: str, tiny_images: Images, tmp_path: Path
) -> None:
    made = factory(tiny_images, f"^(expand|depthwise)={precision}", on="x86-vnni")
    artifact = made.export(tmp_path, format, "int8")
    assert artifact.mixture == {"expand": precision, "depthwise": precision}
    assert artifact.options["keep"] == [f"^(expand|depthwise)={precision}"]
    graph = made.shared(made.recipe).quantized("int8", 8, made.kept)
    assert graph.tensors["expand"].dtype == ("int16" if precision == "int16" else "float32")
    assert graph.tensors["head"].dtype == "int8"
    x = next(made.shared(made.recipe).inputs())
    expected = Executor(graph, graph.outputs, 1)(x)[0]
    found = load(tmp_path / artifact.path).predict(x)
    np.testing.assert_allclose(np.ravel(found), np.ravel(expected), atol=0.02)
    assert "int8" in inspect(tmp_path / artifact.path).why


def test_an_operator_without_a_kernel_for_int16_stands_in_the_mixture_as_what_it_is(tiny_images: Images) -> None:
    from edgenet.jobs.file_factory import _mixture

    made = factory(tiny_images)
    graph = made.shared(made.recipe).quantized("int8", 8, {"head": "int16", "probabilities": "int16"})
    found = _mixture(graph, {"head": "int16", "probabilities": "int16"}, "int8")
    assert found == {"head": "int16", "probabilities": "float32"}


def test_int16_is_no_exception_in_a_file_of_int16(tiny_images: Images, tmp_path: Path) -> None:
    artifact = factory(tiny_images, "head=int16", "added=float32").export(tmp_path, "tflite", "int16x8")
    assert artifact.mixture == {"added": "float32"}


def test_a_file_that_keeps_nothing_has_the_bytes_that_it_always_had(tiny_images: Images, tmp_path: Path) -> None:
    plain = factory(tiny_images).export(tmp_path, "tflite", "float32")
    named = factory(tiny_images, "head=float32").export(tmp_path, "tflite", "float32")
    assert (plain.sha256, plain.options) == (named.sha256, named.options)
    assert not named.mixture
    assert not named.keep


# ----------------------------------------------------------------------------------------------------- saying it again


@pytest.mark.parametrize("seed", range(20))
def test_a_mixture_said_again_names_its_operators_and_no_others(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = ["block1_a", "block1_b", "block10_a", "block10_a_x", "x/y.z", "x/y", "a+b", "c", "cc"][:9]
    graph = tiny.graph().renamed(dict(zip([op.outputs[0] for op in tiny.graph().ops], names, strict=True)))
    chosen = rng.choice(["", *KEPT_PRECISIONS], len(names))
    mixture = {n: str(p) for n, p in zip(names, chosen, strict=True) if p}
    options = as_options(mixture, graph, CPU)
    assert resolve(parse(options, CPU), graph, CPU) == mixture
    assert len(options) == len(set(mixture.values())), "one option a precision"


def test_what_begins_alike_is_said_once() -> None:
    names = ["b0_conv", "b0_mul", "b1_conv", "b1_mul", "b2_conv", "b2_mul", "head", "mean", "softmax"]
    graph = tiny.graph().renamed(dict(zip([op.outputs[0] for op in tiny.graph().ops], names, strict=True)))
    mixture = dict.fromkeys(["b0_conv", "b0_mul", "b2_conv", "b2_mul"], "float32")
    assert as_options(mixture, graph, CPU) == ("^(b0_|b2_)=float32",)
    assert as_options({"head": "int16", "mean": "int16"}, graph, CPU) == ("^(head|mean)$=int16",)
    assert as_options({"head": "int16"}, graph, CPU) == ("^head$=int16",), "another layer has a head_w"


def test_a_word_or_a_kind_that_all_have_is_enough() -> None:
    names = ["b0_se_a", "b0_x", "b0_se_b", "b1_se_a", "sea", "se", "head_se", "mean", "softmax"]
    graph = tiny.graph().renamed(dict(zip([op.outputs[0] for op in tiny.graph().ops], names, strict=True)))
    assert as_options(dict.fromkeys([n for n in names if "_se_" in n], "int16"), graph, CPU) == ("se_=int16",)
    convolutions = {op.outputs[0]: "float32" for op in graph.ops if op.kind in ("CONV_2D", "ADD")}
    assert as_options(convolutions, graph, CPU) == ("CONV_2D|ADD=float32",)


def test_a_tensor_that_is_called_as_a_kind_is_not_said_wrongly() -> None:
    graph = tiny.graph().renamed({"head": "ADD"})
    assert as_options({"ADD": "float32"}, graph, CPU) == (), "ADD names the addition as well"


def test_a_mixture_that_the_target_does_not_take_is_not_said() -> None:
    assert as_options({"head": "float32"}, tiny.graph(), target("coral")) == ()


def test_what_a_budget_ends_with_stays_as_it_is_where_it_is_kept_by_hand(tiny_images: Images, tmp_path: Path) -> None:
    made = factory(tiny_images, "head=float32")
    artifact = made.export(tmp_path, "tflite", "int8", Variant(Recipe(), {"head": "weight-only", "stem": "float16"}))
    assert artifact.mixture == {"head": "float32", "stem": "float16"}


# ----------------------------------------------------------------------------------------------------- the command line


def test_a_recipe_keeps_operators_too_and_the_command_line_has_the_last_word(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'model = "tiny"\nout = "{tmp_path}"\nkeep = ["head=float32", "stem=int16"]')
    assert job_or_recipe({"model": str(recipe), "keep": ()}).keep == ("head=float32", "stem=int16")
    assert job_or_recipe({"model": str(recipe), "keep": ("added=int16",)}).keep == ("added=int16",)


def _artifacts(out: Path) -> dict[str, dict]:
    return {a["id"]: a for a in json.loads((out / "results.json").read_text())["artifacts"]}


def test_the_options_that_a_search_prints_give_the_same_files(
    edgenet: Edgenet, tiny_folder: Path, tmp_path: Path
) -> None:
    export = ["export", "tiny", "--images", tiny_folder, "--calibration-images", 10, "--precision", "int8"]
    export += ["--format", "all"]
    searched = edgenet(*export, "--min-sqnr", 40, "--out", tmp_path / "searched")
    assert searched.returncode == 0, searched.stderr
    (line,) = re.findall(r"^tiny_int8\.tflite, .*the same again by (.*)$", searched.stdout, re.MULTILINE)
    repeated = edgenet(*export, *shlex.split(line), "--out", tmp_path / "repeated")
    assert repeated.returncode == 0, repeated.stderr
    a, b = _artifacts(tmp_path / "searched"), _artifacts(tmp_path / "repeated")
    assert a.keys() == b.keys()
    assert len(a) == 3
    for id in a:
        assert a[id]["sha256"] == b[id]["sha256"]
        assert a[id]["mixture"] == b[id]["mixture"]
        assert a[id]["mixture"]
    assert line in repeated.stdout


def test_a_later_run_with_other_operators_makes_the_file_anew_and_with_the_same_ones_does_not(
    edgenet: Edgenet, tiny_folder: Path, tmp_path: Path
) -> None:
    export = ["export", "tiny", "--images", tiny_folder, "--calibration-images", 10, "--precision", "int8"]
    export += ["--out", tmp_path / "OUT"]
    hashes, times = [], []
    for options in ([], ["--keep", "head=float32"], ["--keep", "head=float32"], ["--keep", "stem=float32"]):
        assert edgenet(*export, *options).returncode == 0
        (artifact,) = _artifacts(tmp_path / "OUT").values()
        hashes.append(artifact["sha256"])
        times.append((tmp_path / "OUT" / "tiny_int8.tflite").stat().st_mtime_ns)
    assert len(set(hashes)) == 3
    assert times[1] == times[2]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--keep", "hade=float32"], "near are head"),
        (["--keep", "head=float32", "--target", "coral"], "coral runs no float operators"),
        (["--keep", "head=float32", "--precision", "float32"], "--keep is for int8, int16x8 and int4 files"),
    ],
)
def test_a_wrong_option_is_status_2_and_nothing_is_written(
    edgenet: Edgenet, tiny_folder: Path, tmp_path: Path, options: list[str], says: str
) -> None:
    precision = [] if "--precision" in options else ["--precision", "int8"]
    done = edgenet("export", "tiny", "--images", tiny_folder, *precision, *options, "--out", tmp_path / "OUT")
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "OUT").exists()


def test_the_report_gives_the_options_of_a_search(edgenet: Edgenet, tiny_folder: Path, tmp_path: Path) -> None:
    run = ["run", "tiny", "--images", tiny_folder, "--calibration-images", 10, "--precision", "float32"]
    done = edgenet(*run, "--precision", "int8", "--min-sqnr", 40, "--out", tmp_path / "OUT")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "OUT" / "report.html").read_text()
    assert re.search(r"The same without a search: <code>--keep ", page)
    assert re.search(r"int8, \d operators in weight-only", page)
