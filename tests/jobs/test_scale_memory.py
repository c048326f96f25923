"""scale_memory.py and arena_budget.py: the largest network for a microcontroller's memories, and a budget of memory."""

import importlib.util
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgenet import cli
from edgenet.errors import GateFailed, InputError
from edgenet.export.tflite_file import read_tflite
from edgenet.files import parse_bytes, sha256_of
from edgenet.jobs import arena_budget
from edgenet.jobs.scale_memory import Room, propose
from edgenet.models.graph_drawing import Blueprint
from edgenet.models.scaling import FAMILIES
from edgenet.results import Estimate, LeftOperators, Results

needs_micro = pytest.mark.skipif(importlib.util.find_spec("tflite_micro") is None, reason="needs edgenet[micro]")


def counted(net: Blueprint) -> tuple[int, int]:
    """Return memories that a network could take: a skip connection's tensors too, and what kernels keep."""
    return int(1.2 * net.widest + net.parameters / 8 + 20_000), net.parameters + 90_000


# ----------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("text", "size"),
    [("512KB", 512_000), ("512KiB", 524_288), ("1MB", 1_000_000), ("1.5 MiB", 1_572_864), ("2mb", 2_000_000),
     ("4096B", 4096)],
)  # fmt: skip
def test_a_size_is_a_number_and_a_unit(text: str, size: int) -> None:
    assert parse_bytes("--arena", text) == size


@pytest.mark.parametrize("text", ["512", "big", "", "-1MB", "1 XB", "1e3KB", "nanMB", "infMB", "1MB 2MB"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match=r"^--arena '.*' is no size: .* e\.g\. --arena 512KB$"):
        parse_bytes("--arena", text)


@pytest.mark.parametrize("text", ["0KB", "0.5KB", "2GiB", "99999999999999GB"])
def test_a_size_out_of_range_is_refused_with_the_range(text: str) -> None:
    with pytest.raises(InputError, match=r"out of range \(valid: 1,000 to 1,073,741,824 bytes\)"):
        parse_bytes("--flash", text, 1000, 1 << 30)


# ---------------------------------------------------------------------------------------------------------- search


@pytest.mark.parametrize("name", ["efficientnet-lite", "mobilenet-v1", "resnet-50"])
def test_what_is_proposed_fits_both_memories_and_fills_one_of_them(name: str) -> None:
    room = Room(600_000, 2_000_000)
    best, measured = propose(FAMILIES[name], room, counted, classes=10)
    assert best.arena_bytes is not None
    assert best.flash_bytes is not None
    assert 0.85 < room.filled(best.arena_bytes, best.flash_bytes) <= 1
    assert best in measured
    assert len(measured) <= 12
    fitting = [m for m in measured if room.filled(m.arena_bytes or 0, m.flash_bytes or 0) <= 1]
    assert best.multiply_adds >= 0.5 * max(m.multiply_adds for m in fitting)


def test_more_memory_gives_a_larger_network() -> None:
    of = FAMILIES["mobilenet-v1"]
    sizes = [propose(of, Room(n, 2 * n), counted)[0].multiply_adds for n in (400_000, 1_600_000)]
    assert sizes == sorted(set(sizes))


def test_one_memory_alone_limits_where_only_that_is_given() -> None:
    of = FAMILIES["mobilenet-v1"]
    best, _ = propose(of, Room(None, 1_000_000), counted)
    assert best.flash_bytes is not None
    assert 0.85e6 < best.flash_bytes <= 1e6
    best, _ = propose(of, Room(300_000, None), counted)
    assert best.arena_bytes is not None
    assert 255_000 < best.arena_bytes <= 300_000


def test_memories_that_no_network_of_the_family_fits_are_refused_with_what_the_smallest_takes() -> None:
    with pytest.raises(InputError, match=r"no efficientnet-lite fits: .* 1,000 classes, takes .* fewer --classes"):
        propose(FAMILIES["efficientnet-lite"], Room(512_000, 1_000_000), counted)
    propose(FAMILIES["efficientnet-lite"], Room(512_000, 1_000_000), counted, classes=10)


# ------------------------------------------------------------------------------------------------------------- job


@needs_micro
def test_scale_exports_a_file_that_fits_by_tflite_micro(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(
        cli.main, ["scale", "--device", "micro", "--arena", "64KB", "--flash", "256KB", "--classes", "10",
                   "--out", str(out)]
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    results = Results.load(out)
    found, (a,), (e,) = results.context.scale, results.artifacts, results.estimates
    assert found is not None
    assert found.met
    assert (found.budget_arena_bytes, found.budget_flash_bytes, found.classes) == (64_000, 256_000, 10)
    assert (e.device, e.left, e.artifact_sha256) == ("micro", (), sha256_of(out / a.path))
    assert e.sram_bytes == found.arena_bytes
    assert e.flash_bytes == found.flash_bytes == (out / a.path).stat().st_size
    assert found.arena_bytes is not None
    assert found.flash_bytes is not None
    assert found.arena_bytes <= 64_000
    assert found.flash_bytes <= 256_000
    assert max(found.arena_bytes / 64_000, found.flash_bytes / 256_000) > 0.8
    graph = read_tflite((out / a.path).read_bytes())
    assert graph.tensors[graph.inputs[0]].shape == (1, found.resolution_px, found.resolution_px, 3)
    assert {graph.tensors[graph.inputs[0]].dtype, graph.tensors[graph.outputs[0]].dtype} == {"int8"}
    assert (a.weights, a.io_dtype) == ("random", "int8")
    assert "of 64,000, by tflite-micro" in done.output


@needs_micro
@pytest.mark.slow
def test_half_a_megabyte_of_ram_and_one_of_flash_are_filled_by_a_network_of_1000_classes(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        cli.main, ["scale", "--device", "micro", "--arena", "512KB", "--flash", "1MB", "--out", str(tmp_path), "--json"]
    )
    assert done.exit_code == 0, done.output
    results = json.loads(done.output)
    found, (e,) = results["context"]["scale"], results["estimates"]
    assert e["left"] == []
    assert found["arena_bytes"] <= 512_000
    assert 900_000 < found["flash_bytes"] <= 1_000_000


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--device", "micro", "--budget", "30ms"], "has no time"),
        (["--device", "micro"], "needs a budget of memory"),
        (["--device", "micro", "--arena", "lots"], "is no size"),
        (["--device", "micro", "--arena", "2GB"], "out of range"),
        (["--device", "micro", "--arena", "1MB", "--classes", "1"], "--classes must be at least 2"),
        (["--device", "micro", "--arena", "1MB", "--threads", "2"], "--threads"),
        (["--device", "micro", "--arena", "1MB", "--family", "vgg"], "unknown family"),
        (["--device", "local", "--arena", "1MB", "--budget", "3ms"], "give --device micro"),
        (["--device", "local", "--classes", "5", "--budget", "3ms"], "--classes is for --device micro"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line_and_nothing_is_written(
    tmp_path: Path, options: list[str], said: str
) -> None:
    done = CliRunner().invoke(cli.main, ["scale", *options, "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert said in done.output
    assert done.output.count("\n") == 1
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------------- --max-arena


def estimates(*arenas: int | None) -> Results:
    results = Results()
    for i, n in enumerate(arenas):
        left = () if n is not None else (LeftOperators("GELU", 1, "why"),)
        results.put(Estimate(f"f{i}", "micro", "tool", "basis", 1, 1 - len(left), left, sram_bytes=n))
    results.put(Estimate("npu", "ethos-u:x", "tool", "basis", 1, 1, sram_bytes=10**9))
    return results


def test_every_file_of_a_bench_has_to_be_within_the_budget() -> None:
    arena_budget.hold(estimates(10_000, 20_000), "20KB", every=True)
    with pytest.raises(GateFailed, match=r"^1 of 2 files miss --max-arena 20KB: f1 takes 20,001 bytes$"):
        arena_budget.hold(estimates(10_000, 20_001), "20KB", every=True)
    with pytest.raises(GateFailed, match="f1 does not run there, for lack of GELU"):
        arena_budget.hold(estimates(10_000, None), "20KB", every=True)


def test_one_file_of_a_run_has_to_be_within_the_budget() -> None:
    arena_budget.hold(estimates(90_000, 20_000, None), "20KB", every=False)
    with pytest.raises(GateFailed, match=r"^no file is within --max-arena 19KB: f1 takes 20,000 bytes$"):
        arena_budget.hold(estimates(90_000, 20_000, None), "19KB", every=False)


def test_a_budget_that_nothing_was_measured_against_is_missed() -> None:
    arena_budget.hold(estimates(), None, every=True)
    with pytest.raises(GateFailed, match="no file ran in tflite-micro"):
        arena_budget.hold(estimates(), "1MB", every=False)


def test_a_budget_without_the_device_is_refused() -> None:
    arena_budget.check("1MB", ["local", "micro"])
    with pytest.raises(InputError, match="add --device micro"):
        arena_budget.check("1MB", ["local"])
    with pytest.raises(InputError, match="is no size"):
        arena_budget.check("1", ["micro"])


@needs_micro
def test_bench_exits_with_1_for_a_file_that_takes_too_much(tiny_files: dict[str, Path]) -> None:
    files = [str(tiny_files["int8"]), "--device", "micro", "--max-arena"]
    done = CliRunner().invoke(cli.main, ["bench", *files, "1MB"])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(cli.main, ["bench", *files, "2KB"])
    assert done.exit_code == 1
    assert "edgenet: 1 of 1 files miss --max-arena 2KB" in done.output
