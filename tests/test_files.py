"""files.py: what edgenet writes is whole or not there, and what it deletes is its own."""

import os
from pathlib import Path

import pytest

from edgenet.errors import InputError
from edgenet.files import PARTS, atomic_folder, atomic_write, delete_parts
from edgenet.jobs.output_folder import exclusive


def test_a_file_appears_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.bin"
    with atomic_write(path) as tmp:
        assert (tmp.suffix, tmp.parent.name) == (".bin", PARTS)
        tmp.write_bytes(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]


def test_what_goes_wrong_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def write() -> None:
        with atomic_write(path) as tmp:
            tmp.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_two_files_may_be_on_their_way_at_once(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a") as a, atomic_write(tmp_path / "b") as b:
        a.write_bytes(b"a")
        b.write_bytes(b"b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_folder_takes_the_place_of_an_older_one_whole(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "old").touch()
    with atomic_folder(tmp_path / "m") as tmp:
        (tmp / "new").touch()
    assert [p.name for p in (tmp_path / "m").iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(InputError, match=r"cannot write .*choose another --out"), atomic_write(tmp_path / "a" / "b"):
        pass


USERS = ("holiday.part1.rar", ".holiday.part1.rar", "sub/.holiday.part1.rar", ".a.part", "sub/deep/.b.part.tflite")


def test_only_half_files_of_edgenet_are_deleted_whatever_else_looks_like_one(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "photo.jpg").write_bytes(b"mine")
    out = tmp_path / "OUT"
    for name in (
        *USERS,
        f"{PARTS}/x.tflite.abcd_123.tflite",
        f"qat/{PARTS}/y.onnx.abcd_123.onnx",
        f"files/t4/{PARTS}/z.abcd_123/saved.pb",
    ):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(b"data")
    (out / "qat" / PARTS / "link.abcd_123").symlink_to(outside)  # a link within: the link goes, what it names stays
    (out / "ptq").mkdir()
    (out / "ptq" / PARTS).symlink_to(outside)  # a link of that name is nobody's half files
    with exclusive(out):
        pass
    assert {name for name in USERS if (out / name).read_bytes() == b"data"} == set(USERS)
    assert (outside / "photo.jpg").read_bytes() == b"mine"
    assert not any((out / folder / PARTS).exists() for folder in ("", "qat", "files/t4"))
    assert (out / "ptq" / PARTS).is_symlink()


def test_a_folder_without_half_files_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    before = os.stat(tmp_path).st_mtime_ns
    delete_parts(tmp_path)
    assert os.stat(tmp_path).st_mtime_ns == before
