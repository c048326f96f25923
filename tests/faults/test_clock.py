"""Clocks that jump: nothing that is measured or decided depends on the time of day, or on when a file was changed."""

import itertools
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgenet import cli, pipeline
from edgenet.device_bench import child
from edgenet.files import sha256_of
from edgenet.jobs import bench
from edgenet.results import Results
from helpers import tiny

RUN = ("run", "tiny", "--precision", "int8", "--calibration-images", "5")
YEAR_S = 365 * 86_400.0


def stepping(*steps_s: float) -> Callable[[], float]:
    """Return a clock of the day that jumps at each look, by these steps in turn."""
    now, steps = time.time(), itertools.cycle(steps_s)

    def look() -> float:
        nonlocal now
        now += next(steps)
        return now

    return look


JUMPS = {"a year ahead": (YEAR_S,), "back to 1970": (-1e9, 0.0), "to and fro": (3600.0, -7200.0, 1e-3), "none": (0.0,)}


@pytest.mark.parametrize("jumps", JUMPS.values(), ids=JUMPS)
def test_a_run_whose_clock_jumps_measures_and_decides_the_same(
    jumps: tuple[float, ...], tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "find_source", tiny.source)
    monkeypatch.setattr(bench, "RUN_PLAN", tiny.SHORT)
    tiny.shorten_timing(monkeypatch.setattr)
    monkeypatch.setattr(time, "time", stepping(*jumps))
    monkeypatch.setattr(time, "time_ns", lambda: int(time.time() * 1e9))
    done = CliRunner().invoke(cli.main, [*RUN, "--images", str(tiny_folder), "--out", str(tmp_path / "OUT")])
    assert done.exit_code == 0, done.output
    results = Results.load(tmp_path / "OUT")
    assert results.failures == []
    (m,) = [m for m in results.measurements if m.artifact == "tiny_int8.tflite"]
    assert 0 < m.median_ms < 1000
    assert [e.top1 for e in results.evaluations if e.artifact == "tiny_int8.tflite"] == [1.0]


@pytest.mark.parametrize("when_s", [-1e9, 0.0, 4e9, 1e11], ids=["1938", "1970", "2096", "5138"])
def test_pictures_of_any_date_are_read(
    when_s: float, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "find_source", tiny.source)
    photos = Path(shutil.copytree(tiny_folder, tmp_path / "photos"))
    for path in photos.rglob("*"):
        os.utime(path, (when_s, when_s))
    made = []
    for images in (photos, tiny_folder):
        out = tmp_path / f"OUT{len(made)}"
        args = ("export", "tiny", "--precision", "int8", "--calibration-images", "5", "--images", images, "--out", out)
        done = CliRunner().invoke(cli.main, [str(a) for a in args])
        assert done.exit_code == 0, done.output
        made.append(sha256_of(out / "tiny_int8.tflite"))
    assert made[0] == made[1]


@pytest.mark.parametrize("when_s", [0.0, 4e9], ids=["1970", "2096"])
def test_a_finished_run_of_any_date_is_not_done_again(
    when_s: float, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "find_source", tiny.source)
    out = tmp_path / "OUT"
    args = ["export", "tiny", "--precision", "float32", "--images", str(tiny_folder), "--out", str(out)]
    assert CliRunner().invoke(cli.main, args).exit_code == 0
    for path in (out, *out.rglob("*")):
        os.utime(path, (when_s, when_s))
    assert CliRunner().invoke(cli.main, args).exit_code == 0
    assert (out / "tiny_float32.tflite").stat().st_mtime == when_s


def test_a_deadline_is_kept_by_a_clock_that_nobody_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", stepping(-3600.0))
    began = time.monotonic()
    with pytest.raises(child.subprocess.TimeoutExpired):
        child.run(["sleep", "1000"], 0.5)
    assert time.monotonic() - began < 20
