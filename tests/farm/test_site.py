"""site.py: a worker answers what this machine does, to the bit, and takes no file that is not what it was sent as."""

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from edgenet.cli import main
from edgenet.errors import InputError
from edgenet.evaluate import evaluate
from edgenet.farm import cluster as ray_cluster
from edgenet.farm import job
from edgenet.farm.answers import BlockAnswers, Candidate, FileAnswers, Work, WorkersLost, answer_here
from edgenet.farm.cluster import differences
from edgenet.farm.probe import versions_of
from edgenet.farm.schedule import Event
from edgenet.farm.site import Refused, SentFile, Site
from edgenet.images import open_images, stream
from edgenet.results import ImageSet
from edgenet.tasks import CLASSES
from helpers import tiny


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    site = Site(threads=1)
    yield site
    site.close()
    assert list(tmp_path.glob("edgenet-farm-*")) == [], "nothing is left behind"


class SitesHere:
    """The crew of a cluster, in this process: the last worker answers first, and the first one dies once."""

    def __init__(self, cluster: object, prepare: tuple, method: str, packages: object) -> None:
        self.prepare, self.method = prepare, method
        self.sites: dict[str, Site] = {}
        self.todo: list[tuple[str, int, object]] = []
        self.news: list[Event] = []
        self.n, self.died = 0, False

    def call(self) -> None:
        while len(self.sites) < 2:
            worker = f"worker {self.n}"
            self.n += 1
            self.sites[worker] = Site(threads=1)
            refused = getattr(self.sites[worker], self.prepare[0])(*self.prepare[1])
            assert refused is None, refused
            self.news.append(Event(worker))

    def give(self, worker: str, ticket: int, block: object) -> None:
        self.todo.append((worker, ticket, block))

    def wait(self, timeout_s: float) -> list[Event]:
        if self.news:
            events, self.news = self.news, []
            return events
        worker, ticket, block = self.todo.pop()
        if not self.died and ticket > 0:
            self.died = True
            self.drop(worker)
            return [Event(worker, lost="killed")]
        answer = getattr(self.sites[worker], self.method)(block)
        if isinstance(answer, Refused):
            raise InputError(answer.why)
        return [Event(worker, ticket, answer)]

    def drop(self, worker: str) -> None:
        self.sites.pop(worker).close()
        self.todo = [t for t in self.todo if t[0] != worker]

    def close(self) -> None:
        for worker in list(self.sites):
            self.drop(worker)


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch):
    """The answering of a cluster, whose workers are in this process."""
    monkeypatch.setattr(ray_cluster, "Sites", SitesHere)
    return lambda work, images: job._answer_on(SimpleNamespace(), work, images)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """200 photographs of five classes, two of which are cut off: four blocks."""
    root = tiny.make_folder(tmp_path_factory.mktemp("many") / "photos", per_class=40)
    for name in ("class_1/7.jpg", "class_3/11.jpg"):
        (root / name).write_bytes((root / name).read_bytes()[:300])
    ids = tuple(f"class {i}" for i in range(5))
    return open_images(root, ids, ids)


def candidates(files: dict[str, Path]) -> list[Candidate]:
    return [Candidate(id, path, "0" * 64) for id, path in files.items()]


def test_workers_that_die_and_answer_out_of_order_give_the_results_of_one_machine(
    tiny_files: dict[str, Path], pictures: ImageSet, far
) -> None:
    how = {"reference": "float32", "threads": 1}
    here = evaluate(candidates(tiny_files), pictures, tiny.PREPROCESSING, **how)
    there = evaluate(candidates(tiny_files), pictures, tiny.PREPROCESSING, answering=far, **how)
    assert here == there
    assert [e.n_images for e in here[0]] == [198] * 3
    assert [e.n_skipped for e in here[0]] == [2] * 3
    assert here[0][2].sqnr_db is not None


def test_every_block_is_that_of_one_machine_to_the_bit(tiny_files: dict[str, Path], pictures: ImageSet, far) -> None:
    work = Work(tuple(candidates(tiny_files)), tiny.PREPROCESSING, CLASSES, "float32", 1)
    here, there = list(answer_here(work, pictures)), list(far(work, pictures))
    assert [s for b in here for s in b.skipped] == [s for b in there for s in b.skipped]
    here = [b for b in here if len(b.indices)]
    assert [b.indices.tolist() for b in here] == [b.indices.tolist() for b in there]
    assert [len(b.indices) for b in here] == [64, 62, 64, 8], "a block stands for 64 places, and lacks those skipped"
    for a, b in zip(here, there, strict=True):
        for id in tiny_files:
            for f in fields(FileAnswers):
                x, y = getattr(a.files[id], f.name), getattr(b.files[id], f.name)
                assert x == y if not isinstance(x, np.ndarray) else (x.dtype, x.tobytes()) == (y.dtype, y.tobytes())


def test_too_many_pictures_that_cannot_be_read_are_the_same_error(
    tiny_files: dict[str, Path], pictures: ImageSet, far, tmp_path: Path
) -> None:
    few = replace(pictures, files=pictures.files[:100], labels=pictures.labels[:100], digests=pictures.digests[:100])
    said = []
    for who in (answer_here, far):
        with pytest.raises(InputError, match="cannot be read, at most 1 % may be left out") as e:
            evaluate(
                candidates(tiny_files),
                replace(few, files=(*few.files[:99], str(tmp_path / "gone.jpg"))),
                tiny.PREPROCESSING,
                threads=1,
                answering=who,
            )
        said.append(str(e.value))
    assert said[0] == said[1]
    assert "gone.jpg (No such file or directory)" in said[0]


def test_a_picture_that_was_replaced_is_refused_by_the_worker(
    tiny_files: dict[str, Path], pictures: ImageSet, far
) -> None:
    other = replace(pictures, digests=("0" * 64, *pictures.digests[1:]))
    with pytest.raises(InputError, match=r"0\.jpg was replaced while this command ran"):
        evaluate(candidates(tiny_files), other, tiny.PREPROCESSING, threads=1, answering=far)


def test_a_file_that_does_not_load_is_a_failure_by_the_name_it_has_here(
    tiny_files: dict[str, Path], pictures: ImageSet, far, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(b"\0" * 100)
    files = {**tiny_files, "bad": bad}
    here = evaluate(candidates(files), pictures, tiny.PREPROCESSING, threads=1)
    there = evaluate(candidates(files), pictures, tiny.PREPROCESSING, threads=1, answering=far)
    assert here == there
    assert [f.artifact for f in there[1]] == ["bad"]
    assert str(bad) in there[1][0].why


def test_a_file_that_arrives_with_other_bytes_is_not_run(tiny_files: dict[str, Path], site: Site) -> None:
    path = tiny_files["int8"]
    work = Work((Candidate("a", path),), tiny.PREPROCESSING, CLASSES)
    sent = SentFile((path.name,), (path.read_bytes()[:-1] + b"x",), "f" * 64)
    refused = site.prepare(work, {"a": sent})
    assert refused == Refused("tiny_int8.tflite arrived at a worker with other bytes than it was sent with", False)


@pytest.mark.parametrize("name", ["../out.tflite", "/etc/x.tflite", ".."])
def test_a_file_with_a_path_for_its_name_is_not_written(name: str, site: Site) -> None:
    work = Work((Candidate("a", Path("a.tflite")),), tiny.PREPROCESSING, CLASSES)
    refused = site.prepare(work, {"a": SentFile((name,), (b"x",), "f" * 64)})
    assert refused is not None
    assert "is not taken by a worker" in refused.why


def test_what_a_killed_worker_left_is_deleted_by_the_next_one_and_nothing_else(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mine = tmp_path / "edgenet-farm-mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("no lock: not a worker's")
    first = Site(1)
    lost = first._folder
    os.close(first._lock)  # as the kernel does when a process is killed
    held = Site(1)
    assert not lost.exists()
    another = Site(1)
    assert held._folder.exists()
    assert mine.exists()
    for s in (held, another):
        s.close()
    first._pool.shutdown()


def test_lost_workers_are_a_failure_with_a_remedy(tiny_files: dict[str, Path], pictures: ImageSet) -> None:
    def answering(work: Work, images: ImageSet) -> Iterator[BlockAnswers]:
        yield next(answer_here(work, images))
        raise WorkersLost("block 2 of 4 was lost 3 times")

    evaluations, failures = evaluate(candidates(tiny_files), pictures, tiny.PREPROCESSING, answering=answering)
    assert evaluations == [], "a part of the pictures is no result"
    assert [(f.stage, f.device, f.why) for f in failures] == [("evaluate", "cluster", "block 2 of 4 was lost 3 times")]
    assert "ray status" in failures[0].remedy


def test_versions_that_differ_are_both_named() -> None:
    here = {"edgenet": "1.0", "numpy": "2.0", "openvino": "2026.4.1"}
    assert differences(here, here | {"other": "1"}) == ""
    said = differences(here, {"edgenet": "0.9", "numpy": "2.0", "openvino": ""})
    assert said == "edgenet is 0.9 there and 1.0 here, openvino is missing there and 2026.4.1 here"


def test_the_probe_tells_what_is_installed_and_what_is_not() -> None:
    found = versions_of(("numpy", "no-such-package-at-all"))
    assert found["numpy"] == np.__version__
    assert found["no-such-package-at-all"] == ""


@pytest.mark.parametrize(
    "bad", ["", "here", "ray:/x:1", "ray://", "ray://a:0", "ray://a:99999", "ray://a b:1", "http://a:1", "ray://u@h:1"]
)
def test_a_cluster_that_is_none_by_its_name_is_refused(bad: str) -> None:
    with pytest.raises(InputError, match=r"is no cluster: give auto or ray://HOST:PORT"):
        ray_cluster._parse(bad)


def test_how_clusters_are_written() -> None:
    assert ray_cluster._parse("auto") is None
    assert ray_cluster._parse("ray://10.0.0.1:10001") == ("10.0.0.1", 10001)
    assert ray_cluster._parse("ray://head") == ("head", 10001)
    assert ray_cluster._parse("ray://[::1]:7") == ("::1", 7)


def test_without_ray_one_sentence_says_which_extra(
    tiny_files: dict[str, Path], tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "ray" else real(name, *more))
    command = ["evaluate", str(tiny_files["int8"]), "--images", str(tiny_folder), "--cluster", "auto"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert done.output == "edgenet: --cluster auto needs ray, which is not installed: pip install 'edgenet[ray]'\n"


def test_chunks_are_places_of_the_set(pictures: ImageSet) -> None:
    assert [c.indices[0] for c in stream(pictures, tiny.PREPROCESSING)] == [0, 64, 128, 192]
