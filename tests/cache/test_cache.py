"""edgenet/cache: steps appear whole, are checked when they are read, and only they are ever removed."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgenet.cache import listing, store
from edgenet.cache.answers import Keeping, Kept, Shape
from edgenet.errors import InputError
from edgenet.evaluate import Candidate, evaluate
from edgenet.farm import answers as program
from edgenet.files import sha256_of
from edgenet.options import CacheJob
from edgenet.results import ImageSet
from edgenet.tasks import CLASSES
from helpers import tiny

SHAPE = Shape("litert", "float32", False)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGENET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def keep(name: str, size: int = 1000, used_s: float | None = None) -> Path:
    path = store.path_of("answers", {"name": name})
    writing = store.writing(path)
    assert writing is not None
    writing.file.write(b"x" * size)
    writing.commit("answers", f"answers of {name}", {})
    if used_s is not None:
        os.utime(path, (used_s, used_s))
    return path


def test_a_step_is_read_as_it_was_written_and_only_by_its_key(cache: Path) -> None:
    path = keep("a")
    assert path.parent == cache / "steps"
    with store.reading(path) as found:
        assert found is not None
        assert (found[0].what, found[1].read()) == ("answers of a", b"x" * 1000)
    with store.reading(store.path_of("answers", {"name": "b"})) as found:
        assert found is None


def test_another_version_of_edgenet_has_steps_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    before = store.path_of("answers", {"name": "a"})
    monkeypatch.setattr(store, "__version__", "9.9")
    assert store.path_of("answers", {"name": "a"}) != before


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-1], lambda d: d + b"x", lambda d: d[:-5] + b"y" + d[-4:], lambda d: b""]
)
def test_a_damaged_step_is_none(damage) -> None:
    path = keep("a")
    path.write_bytes(damage(path.read_bytes()))
    with store.reading(path) as found:
        assert found is None


def test_a_step_that_is_not_committed_leaves_nothing(cache: Path) -> None:
    writing = store.writing(store.path_of("answers", {}))
    assert writing is not None
    writing.file.write(b"half")
    writing.close()
    assert list((cache / "steps").iterdir()) == []


def test_a_folder_that_cannot_be_written_to_keeps_nothing_and_fails_nothing(
    cache: Path, tiny_files: dict[str, Path], tiny_images: tuple[ImageSet, ImageSet]
) -> None:
    cache.write_text("a file stands here")
    assert store.writing(store.path_of("answers", {})) is None
    assert store.steps() == []
    evaluations, failures = both(tiny_files, tiny_images[1])
    assert [e.artifact for e in evaluations] == ["float32", "int8"]
    assert failures == []


def both(files: dict[str, Path], images: ImageSet, keep: bool = True):
    candidates = [Candidate(p, files[p], sha256_of(files[p])) for p in ("float32", "int8")]
    return evaluate(candidates, images, tiny.PREPROCESSING, reference="float32", keep=keep)


class Counting:
    """The workers that were started, by the names of their files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import edgenet.device_bench

        self.started: list[str] = []
        real = edgenet.device_bench.Worker

        def worker(path: Path, **options: object):
            self.started.append(path.name)
            return real(path, **options)

        monkeypatch.setattr(edgenet.device_bench, "Worker", worker)


def test_the_reference_is_run_once_and_what_is_compared_with_it_is_the_same(
    tiny_files: dict[str, Path], tiny_images: tuple[ImageSet, ImageSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = Counting(monkeypatch)
    never = both(tiny_files, tiny_images[1], keep=False)
    first = both(tiny_files, tiny_images[1])
    assert count.started == ["tiny_float32.tflite", "tiny_int8.tflite"] * 2
    count.started.clear()
    assert both(tiny_files, tiny_images[1]) == first == never
    assert count.started == ["tiny_int8.tflite"]
    assert first[0][1].sqnr_db is not None


def test_other_pictures_or_another_file_are_another_step(
    tiny_files: dict[str, Path], tiny_images: tuple[ImageSet, ImageSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    both(tiny_files, tiny_images[1])
    count = Counting(monkeypatch)
    both(tiny_files, tiny_images[0])
    both({**tiny_files, "float32": tiny_files["float16"]}, tiny_images[1])
    assert count.started == ["tiny_float32.tflite", "tiny_int8.tflite", "tiny_float16.tflite", "tiny_int8.tflite"]
    assert len(store.steps()) == 3


def test_where_a_picture_can_be_read_no_more_the_file_itself_answers(
    tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    from edgenet.images import open_images

    root = tiny.make_folder(tmp_path / "photos", per_class=30)
    ids = tuple(f"class {i}" for i in range(5))
    bad = (root / "class_1/3.jpg").read_bytes()[:300]
    (root / "class_1/3.jpg").write_bytes(bad)
    images = open_images(root, ids, ids)
    first = both(tiny_files, images)
    assert first[0][0].n_images == 149
    (step,) = store.steps()
    whole = Keeping(step.path)  # as if all had been readable then
    whole.add(np.arange(10), np.zeros((10, 5), np.float32))
    whole.commit("answers of tiny_float32.tflite", SHAPE)
    assert both(tiny_files, images) == first


def test_kept_answers_come_back_by_their_pictures() -> None:
    path = store.path_of("answers", {})
    keeping = Keeping(path)
    y = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    keeping.add(np.array([0, 1, 3]), y[:3])
    keeping.add(np.array([5, 6, 7]), y[3:])
    keeping.commit("answers", SHAPE)
    kept = Kept(path)
    assert kept.shape == SHAPE
    for indices, rows in (([0, 1, 3], y[:3]), ([5, 6, 7], y[3:]), ([3, 5], y[2:4])):
        found = kept.outputs(np.array(indices))
        assert found is not None
        np.testing.assert_array_equal(found, rows)
    for missing in ([0, 1, 2], [1, 2], [8], [7, 8]):
        assert kept.outputs(np.array(missing)) is None
    kept.close()


def test_switched_off_nothing_is_kept(
    tiny_files: dict[str, Path], tiny_images: tuple[ImageSet, ImageSet], monkeypatch, cache: Path
) -> None:
    monkeypatch.setenv("EDGENET_CACHE", "off")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    both(tiny_files, tiny_images[1])
    assert not cache.exists()


# ------------------------------------------------------------------------------------------------- listing and pruning


def test_prune_removes_by_age_and_by_size_those_used_longest_ago_first() -> None:
    now = time.time()
    paths = [keep(f"f{days}", used_s=now - days * 86400) for days in (1, 10, 40)]
    size = paths[0].stat().st_size
    found = listing.run(CacheJob(prune=True, older_than="30d"), now)
    assert [s.what for s in found.removed] == ["answers of f40"]
    assert [s.what for s in found.steps] == ["answers of f1", "answers of f10"]
    found = listing.run(CacheJob(prune=True, max=f"{size}B"), now)
    assert [s.what for s in found.removed] == ["answers of f10"]
    assert paths[0].exists()
    assert listing.run(CacheJob(prune=True)).steps == ()


def test_what_edgenet_did_not_make_is_never_removed(cache: Path, tmp_path: Path) -> None:
    keep("a")
    steps = cache / "steps"
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    name = "answers-" + "0" * 40 + ".step"
    (steps / name).write_text("called like a step, and none")
    (steps / ("answers-" + "1" * 40 + ".step")).symlink_to(precious)
    (steps / ("answers-" + "2" * 40 + ".step")).mkdir()
    (steps / "notes.txt").write_text("mine")
    (cache / "tfds").mkdir()
    (cache / "tfds" / "a.jpg").write_bytes(b"x" * 10)
    found = listing.run(CacheJob(prune=True))
    assert len(found.removed) == 1
    assert sorted(p.name for p in steps.iterdir()) == sorted(
        [name, "answers-" + "1" * 40 + ".step", "answers-" + "2" * 40 + ".step", "notes.txt"]
    )
    assert precious.read_text() == "mine"
    assert ("tfds (not a step: --prune leaves it)", "10 B", "", "") in listing.rows(found)


def test_parts_of_a_killed_run_go_when_they_are_old(cache: Path) -> None:
    keep("a")
    for name, age_s in (("abcdefgh.part", 2 * 86400), ("ijklmnop.part", 60)):
        (cache / "steps" / name).write_bytes(b"half")
        os.utime(cache / "steps" / name, (time.time() - age_s,) * 2)
    store.make_room()
    assert {p.name for p in (cache / "steps").glob("*.part")} == {"ijklmnop.part"}


@pytest.mark.parametrize("age", ["30", "d", "1y", "-1d", "1.5d", ""])
def test_an_age_that_is_none_is_refused(age: str) -> None:
    with pytest.raises(InputError, match="--older-than"):
        listing.run(CacheJob(prune=True, older_than=age))


def test_what_is_to_be_pruned_without_prune_is_refused() -> None:
    with pytest.raises(InputError, match="add --prune"):
        listing.run(CacheJob(max="5GB"))


def test_the_command_lists_and_prunes(edgenet) -> None:
    keep("a")
    said = edgenet("cache")
    assert said.returncode == 0
    assert "answers of a" in said.stdout
    assert "1 step, 2.0 KB" in said.stdout
    found = json.loads(edgenet("cache", "--prune", "--json").stdout)
    assert [s["what"] for s in found["removed"]] == ["answers of a"]
    assert found["steps"] == []


# Writes, reads and prunes one step again and again beside others that do.
HAMMER = """
import sys, time
from edgenet.cache import store
path, byte, end = store.path_of("answers", {}), sys.argv[1].encode(), time.monotonic() + 3
whole = missing = 0
while time.monotonic() < end:
    writing = store.writing(path)
    writing.file.write(byte * 200_000)
    writing.commit("answers", byte.decode(), {})
    with store.reading(path) as found:
        if found is None:
            missing += 1
        else:
            data = found[1].read()
            assert len(data) == 200_000 and set(data) <= set(b"ab") and len(set(data)) == 1, "half of one"
            whole += 1
    if (whole + missing) % 7 == 0:
        store.make_room(0)
assert whole, missing
"""


def test_two_processes_in_one_cache_never_see_half_a_step(cache: Path) -> None:
    running = [subprocess.Popen([sys.executable, "-P", "-c", HAMMER, b], stderr=subprocess.PIPE) for b in "ab"]
    for process in running:
        assert process.wait(60) == 0, process.stderr.read() if process.stderr else ""
        assert process.stderr is not None
        process.stderr.close()
    store.make_room(0)
    assert list((cache / "steps").iterdir()) == []


def test_only_what_is_compared_with_is_kept(
    tiny_files: dict[str, Path], tiny_images: tuple[ImageSet, ImageSet]
) -> None:
    work = program.Work((Candidate("a", tiny_files["int8"], "0" * 64),), tiny.PREPROCESSING, CLASSES, "a", keep=True)
    assert program._kept_at(work, tiny_images[1]) is None, "one file alone is compared with nothing"
    two = replace(work, candidates=(*work.candidates, Candidate("b", tiny_files["int8"])))
    assert program._kept_at(two, tiny_images[1]) is not None
    assert program._kept_at(replace(two, keep=False), tiny_images[1]) is None


def test_a_pipe_or_a_folder_in_the_place_of_a_step_is_none_and_nothing_waits_for_it(cache: Path) -> None:
    for make in (os.mkfifo, os.mkdir):
        path = store.path_of("answers", {"made by": make.__name__})
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)
        with store.reading(path) as found:
            assert found is None
    assert store.steps() == []


def test_an_error_while_a_step_is_read_is_the_readers_own() -> None:
    def fail() -> None:
        with store.reading(keep("a")) as found:
            assert found is not None
            raise OSError("not the cache's")

    with pytest.raises(OSError, match="not the cache's"):
        fail()
