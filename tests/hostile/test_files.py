"""Hostile files as pictures, labels, class maps, results and locks: one line, status 2, nothing changed."""

import json
import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgenet import cli, pipeline
from edgenet.errors import InputError
from edgenet.jobs.output_folder import exclusive
from edgenet.results import Results
from helpers import tiny

EXPORT = ("export", "tiny", "--precision", "float32", "--images", "photos", "--out", "OUT")


@pytest.fixture
def photos(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the labelled pictures: class_0/0.jpg and so on."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "photos"))


@pytest.fixture
def flat(tiny_folder: Path, tmp_path: Path) -> Path:
    """Ten of the pictures in a folder, for a labels.csv beside them."""
    (tmp_path / "photos").mkdir()
    for i, picture in enumerate(sorted(tiny_folder.glob("*/*.jpg"))[:10]):
        shutil.copy(picture, tmp_path / "photos" / f"{i}.jpg")
    return tmp_path / "photos"


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def terminal(path: Path) -> None:
    path.symlink_to("/dev/tty")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def gone(path: Path) -> None:
    path.symlink_to("nowhere")


def hole(path: Path) -> None:
    with open(path, "wb") as f:
        f.truncate(1 << 42)


SPECIAL = (fifo, device, terminal, loop, hole)
Maker = Callable[[Path], None]

# ------------------------------------------------------------------------------------------------------------- pictures


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(*c) for c in chunks) + chunk(b"IEND", b"")


PICTURES = {
    "empty": b"",
    "one byte": b"\xff",
    "a JPEG's beginning": b"\xff\xd8\xff\xe0" + bytes(20),
    "a JPEG without pixels": b"\xff\xd8\xff\xd9",
    "text": b"hello " * 100,
    "zeros": bytes(10_000),
    "a PNG of 0 x 0": png(0, 0),
    "a PNG of 2 billion pixels a side": png(2**31 - 1, 2**31 - 1),
    "a bomb": png(20_000, 20_000, (b"IDAT", zlib.compress(bytes(1_000_000)))),
    "a PNG with a damaged stream": png(50, 50, (b"IDAT", b"\x78\x9c\xff\xff")),
    "a PNG with 10 MB of text": png(50, 50, (b"zTXt", b"k\0\0" + zlib.compress(bytes(10_000_000)))),
    "a GIF of 65535 x 65535": b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(10),
    "a TIFF that points at itself": b"II*\0\x08\0\0\0\x01\0\0\x01\x03\0\x01\0\0\0\x01\0\0\0\x08\0\0\0",
    "a BMP with a negative size": b"BM" + bytes(12) + struct.pack("<IiiHH", 40, -5, -2147483648, 1, 24) + bytes(24),
    "a WEBP's beginning": b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\xff",
    "a PPM of 10^9 pixels": b"P6 99999 99999 255\n" + bytes(10),
    "a PPM with a long number": b"P6 " + b"9" * 5000 + b" 1 255\n",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "an HEIC": b"\0\0\0\x18ftypheic" + bytes(100),
    "a zip": b"PK\x03\x04" + bytes(100),
    "a page": b"<html><script>alert(1)</script></html>",
}


@pytest.mark.parametrize("data", PICTURES.values(), ids=PICTURES)
def test_pictures_that_are_none_are_named(data: bytes, photos: Path, tiny_files: Any, refused: Any) -> None:
    for picture in photos.glob("*/[0-3].jpg"):
        picture.write_bytes(data)
    line = refused("evaluate", tiny_files["float32"], "--images", "photos")
    assert "images cannot be read, at most 1 % may be left out" in line
    assert ".jpg (" in line


@pytest.mark.parametrize("make", [*SPECIAL, gone])
def test_pictures_that_are_no_files_are_named(make: Maker, photos: Path, refused: Any) -> None:
    for picture in photos.glob("class_1/*.jpg"):
        picture.unlink()
        make(picture)
    assert "images cannot be read" in refused(*EXPORT)


@pytest.mark.parametrize(
    "name", ["\x1b]0;gotcha\x07.jpg", "\u202egpj.exe.jpg", "a\nb.jpg", os.fsdecode(b"\xff\xfe.jpg"), "<b>.jpg"]
)
def test_names_of_pictures_do_nothing_to_a_terminal(name: str, photos: Path, refused: Any) -> None:
    for i in range(5):
        (photos / f"class_{i}" / name).write_bytes(b"no picture")
    assert "images cannot be read" in refused(*EXPORT)


@pytest.mark.parametrize(
    "name", ["\x1b[2J", "a\nb", os.fsdecode(b"\xff\xfe"), "x" * 255, "9" * 250, "²", "-1", "1e3", "class_9", "' or 1"]
)
def test_a_class_folder_that_is_no_class_is_refused(name: str, photos: Path, refused: Any) -> None:
    (photos / "class_0").rename(photos / name)
    assert "class" in refused(*EXPORT)


def test_folders_that_link_to_each_other_end(photos: Path, refused: Any) -> None:
    shutil.rmtree(photos)
    for a, b in (("a", "b"), ("b", "a")):
        (photos / a).mkdir(parents=True, exist_ok=True)
        (photos / a / "link").symlink_to(photos / b)
    assert "no photographs" in refused(*EXPORT)


# --------------------------------------------------------------------------------------------------------------- tables

TABLES = {
    "a field of 200 kB": "0.jpg," + "x" * 200_000,
    "an index of 5,000 digits": "0.jpg," + "9" * 5000,
    "a superscript two": "0.jpg,²",
    "a digit of another script": "0.jpg,٣",
    "a negative index": "0.jpg,-1",
    "an index beyond the classes": "0.jpg,5",
    "a fraction": "0.jpg,1.5",
    "a quote that never ends": '0.jpg,"class_0\n' + "x\n" * 100,
    "one column": "0.jpg\n1.jpg",
    "a name of 5,000 characters": "x" * 5000 + ".jpg,1",
    "three columns": "0.jpg,1,2",
    "a header alone of three": "a,b,c\n0.jpg,1,2",
    "two labels": "0.jpg,1\n0.jpg,2",
    "a file that is not there": "77.jpg,1",
    "a file outside": "../../../../etc/passwd,1",
    "an absolute file that is not there": "/nowhere/0.jpg,1",
    "an escape sequence": "\x1b[31m.jpg,1",
    "no UTF-8": b"0.jpg,\xff\xfe",
    "NUL": b"0.jpg,1\0",
    "UTF-16": "0.jpg,1\n".encode("utf-16"),
    "binary": bytes(range(256)) * 10,
}


@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES)
def test_a_table_of_labels_that_is_none_is_refused(text: str | bytes, flat: Path, refused: Any) -> None:
    (flat / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert "photos" in refused(*EXPORT)


@pytest.mark.parametrize("make", [hole])
def test_a_table_of_labels_without_an_end_is_refused(make: Maker, flat: Path, refused: Any) -> None:
    make(flat / "labels.csv")
    assert "labels.csv has" in refused(*EXPORT)


def test_a_long_word_is_not_compared_with_every_other(flat: Path) -> None:
    from edgenet.images import Classes, imagenet_classes

    assert Classes(*imagenet_classes()).matches("washing machine " * 10_000) == []


MAPS = {
    "no line": "hello",
    "no class": "class_0 =",
    "no folder": "= class_0",
    "an unknown class": "class_0 = zebra",
    "an index of 5,000 digits": "class_0 = " + "9" * 5000,
    "a superscript two": "class_0 = ²",
    "an unknown folder": "zebra = class_0",
    "twice": "class_0 = class_0\nclass_0 = class_1",
    "an overlap": "class_0 = class_0, class_1\nclass_1 = class_1",
    "an escape sequence": "\x1b[31m = class_0",
    "no UTF-8": b"class_0 = \xff",
    "NUL": b"class_0 = class_0\0",
    "a long line": "class_0 = " + "x," * 100_000,
}


@pytest.mark.parametrize("text", MAPS.values(), ids=MAPS)
def test_a_class_map_that_is_none_is_refused(text: str | bytes, photos: Path, refused: Any) -> None:
    (photos / "class_4").rename(photos / "class 4")
    (photos / "class-map.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert "class-map.txt" in refused(*EXPORT)


LABELS = {
    "too few": "a\nb",
    "an empty one": "a\n\nb\nc\nd",
    "no UTF-8": b"\xff\xfe",
    "NUL": b"a\0\nb\nc\nd\ne",
    "nothing": "",
    "a table out of order": "index,wnid,name\n1,n00000001,a\n0,n00000002,b",
    "an index of 5,000 digits": "index,wnid,name\n" + "9" * 5000 + ",n,a",
    "a superscript two": "index,wnid,name\n²,n,a",
    "two columns": "index,wnid,name\n0,n",
    "a quote that never ends": 'index,wnid,name\n0,"n,a\n',
    "a field of 200 kB": "index,wnid,name\n0,n," + "x" * 200_000,
}


@pytest.mark.parametrize("text", LABELS.values(), ids=LABELS)
def test_names_of_classes_that_are_none_are_refused(text: str | bytes, tmp_path: Path) -> None:
    from edgenet.export.importers.labels import read_labels

    (tmp_path / "labels.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=r"labels\.txt") as e:
        read_labels(tmp_path / "labels.txt", 5)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("make", SPECIAL)
def test_names_of_classes_in_no_file_are_refused(make: Maker, tmp_path: Path) -> None:
    from edgenet.export.importers.labels import read_labels

    make(tmp_path / "labels.txt")
    with pytest.raises(InputError, match=r"labels\.txt"):
        read_labels(tmp_path / "labels.txt", 5)


@pytest.mark.parametrize("make", SPECIAL)
def test_a_recipe_that_is_no_file_is_refused(make: Maker, tmp_path: Path, refused: Any) -> None:
    make(tmp_path / "r.toml")
    assert "r.toml" in refused("run", "r.toml", "--out", "OUT")


@pytest.mark.parametrize("make", SPECIAL)
def test_a_model_that_is_no_file_is_refused_by_bench(make: Maker, tmp_path: Path, refused: Any) -> None:
    make(tmp_path / "m.tflite")
    assert "m.tflite" in refused("bench", "m.tflite")
    assert "m.tflite" in refused("evaluate", "m.tflite", "--images", "photos")


# -------------------------------------------------------------------------------------------------------------- results

VALUES: dict[str, Any] = {
    "null": None, "true": True, "a text": "x", "an escape": "\x1b[31m", "a list": [], "a list in a list": [[[]]],
    "an object": {}, "a large number": 10**400, "beyond 64 bits": 2**64, "below zero": -1, "a fraction": 0.5,
    "infinity": float("inf"), "NaN": float("nan"),
}  # fmt: skip
PLACES: tuple[tuple[tuple[Any, ...], tuple[str, ...]], ...] = (  # and the values that are fine there
    (("artifacts",), ("a list",)),
    (("artifacts", 0), ()),
    (("artifacts", 0, "path"), ("a text", "an escape")),
    (("artifacts", 0, "size_bytes"), ()),
    (("artifacts", 0, "preprocessing"), ("an object",)),
    (("evaluations", 1, "top1"), ("null", "a fraction")),
    (("evaluations", 1, "n_images"), ()),
    (("evaluations", 1, "flips"), ("a list",)),
    (("measurements", 0, "samples_ms"), ()),
    (("measurements", 0, "samples_ms", 0), ("a fraction",)),
    (("measurements", 0, "rounds"), ("a list",)),
    (("measurements", 0, "warnings"), ("a list",)),
    (("failures",), ("a list",)),
    (("context",), ("an object",)),
    (("context", "versions"), ("an object",)),
    (("context", "calibration_findings"), ("a list",)),
)
DAMAGES = [(place, name) for place, fine in PLACES for name in VALUES if name not in fine]


@pytest.mark.parametrize(("place", "name"), DAMAGES, ids=lambda v: ".".join(map(str, v)) if isinstance(v, tuple) else v)
def test_results_with_a_value_of_another_kind_are_refused(
    place: tuple[Any, ...], name: str, a_run: Results, tmp_path: Path, refused: Any
) -> None:
    data = inner = a_run.to_json()
    for step in place[:-1]:
        inner = inner[step]
    if name == "below zero" and place[-1] == 0 and "samples_ms" in place:
        VALUES[name] = -1.0
    inner[place[-1]] = VALUES[name]
    (tmp_path / "OUT/results.json").write_text(json.dumps(data))
    assert "results.json is" in refused("report", "OUT")


TEXTS = {
    "nothing": "", "no JSON": "x", "a list": "[]", "another schema": '{"schema": 99}', "nested": "[" * 100_000,
    "nested objects": '{"a":' * 3000, "a long number": '{"schema": ' + "9" * 5000 + "}",
    "schema 1 alone": '{"schema": 1}',
    "schema 2 alone": '{"schema": 2}', "no UTF-8": b'{"schema": "\xff"}', "NUL": b'{"schema": 2}\0',
    "cut": '{"schema": 2, "cont',
    "a schema that is a list": '{"schema": [2]}', "a large schema": '{"schema": 1e400}',
    "lone surrogates": '{"schema": "\\ud800"}',
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_what_is_no_results_file_is_refused(text: str | bytes, tmp_path: Path, refused: Any) -> None:
    (tmp_path / "OUT").mkdir()
    (tmp_path / "OUT/results.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert "results.json" in refused("report", "OUT")


@pytest.mark.parametrize("make", SPECIAL)
def test_results_that_are_no_file_are_refused(make: Maker, tmp_path: Path, refused: Any) -> None:
    (tmp_path / "OUT").mkdir()
    make(tmp_path / "OUT/results.json")
    assert "results.json" in refused("report", "OUT")


@pytest.mark.parametrize("path", ["/etc/passwd", "../x.tflite", "a/../../x", "", "a\0b"])
def test_results_name_no_file_outside_their_folder(path: str, a_run: Results, tmp_path: Path, refused: Any) -> None:
    data = a_run.to_json()
    data["artifacts"][0]["path"] = path
    (tmp_path / "OUT/results.json").write_text(json.dumps(data))
    assert "relative to the folder and within it" in refused("report", "OUT")


@pytest.mark.parametrize("make", [fifo, device, hole])
def test_a_report_of_files_that_are_none_any_more_says_so(make: Maker, a_run: Results, tmp_path: Path) -> None:
    from edgenet.report import lost_files

    a_run.save(tmp_path / "OUT")
    for a in a_run.artifacts:
        make(tmp_path / "OUT" / a.path)
    assert set(lost_files(a_run, tmp_path / "OUT")) == {a.id for a in a_run.artifacts}


# -------------------------------------------------------------------------------------------------------- output folder


@pytest.mark.parametrize("make", [fifo, device, loop, gone, lambda path: path.mkdir()])
def test_a_lock_that_is_no_file_is_refused_and_stays(make: Maker, photos: Path, tmp_path: Path, refused: Any) -> None:
    (tmp_path / "OUT").mkdir()
    make(tmp_path / "OUT/.edgenet.lock")
    assert ".edgenet.lock is no file" in refused(*EXPORT)


def test_a_link_in_the_place_of_the_lock_loses_no_file(photos: Path, tmp_path: Path, refused: Any) -> None:
    (tmp_path / "OUT").mkdir()
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "OUT/.edgenet.lock").symlink_to(tmp_path / "mine.txt")
    refused(*EXPORT)
    assert (tmp_path / "mine.txt").read_text() == "mine"


FOREIGN = ("sub/.holiday.part1.rar", ".x.part", "a/.edgenet-parts.txt", "results.json.bak", ".edgenet",
           "a/b/c/.edgenet-parts/x", "tiny_float32.tflite.part")  # fmt: skip


def test_whatever_else_is_in_the_output_folder_stays(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "find_source", tiny.source)
    out = tmp_path / "OUT"
    for name in FOREIGN:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(name)
    (out / "deep/.edgenet-parts").mkdir(parents=True)
    (out / "deep/.edgenet.lock").write_text("")  # another run fills it
    (out / "deep/.edgenet-parts/half").write_text("half")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.main, list(EXPORT))
    assert done.exit_code == 0, done.output
    assert {name: (out / name).read_text() for name in FOREIGN} == {name: name for name in FOREIGN}
    assert (out / "deep/.edgenet-parts/half").read_text() == "half"
    assert done.stderr == "Note: OUT held .x.part and 5 more, not of edgenet's making: left as it was\n"
    assert CliRunner().invoke(cli.main, list(EXPORT)).stderr == ""  # said once


@pytest.mark.parametrize("instead", ["nothing", "another folder", "a file"])
@pytest.mark.parametrize("stage", ["_export", "_evaluate", "bench_devices"])
def test_an_output_folder_that_is_removed_on_the_way_is_status_3(
    stage: str, instead: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "find_source", tiny.source)
    monkeypatch.chdir(tmp_path)
    tiny.shorten_timing(monkeypatch.setattr)
    from edgenet.jobs import bench

    monkeypatch.setattr(bench, "RUN_PLAN", tiny.SHORT)
    work = getattr(pipeline, stage)

    def removing(*args: Any) -> Any:
        shutil.rmtree("OUT")
        if instead == "another folder":
            Path("OUT").mkdir()
        elif instead == "a file":
            Path("OUT").write_text("mine")
        return work(*args)

    monkeypatch.setattr(pipeline, stage, removing)
    asked = ("run", "tiny", "--precision", "float32", "--calibration-images", "5", "--images", "photos", "--out", "OUT")
    done = CliRunner().invoke(cli.main, list(asked))
    assert done.exit_code == 3, done.output
    assert "OUT was removed or replaced while this command filled it: run it again" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("OUT/*"))


def test_a_file_that_is_removed_on_the_way_is_status_3(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "find_source", tiny.source)
    monkeypatch.chdir(tmp_path)
    export = pipeline._export

    def removing(*args: Any) -> None:
        export(*args)
        Path("OUT/tiny_float32.tflite").unlink()

    monkeypatch.setattr(pipeline, "_export", removing)
    done = CliRunner().invoke(cli.main, list(EXPORT))
    assert done.exit_code == 3, done.output
    assert "it was removed or altered while the command went on" in done.stderr


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_a_name_that_no_folder_has_is_refused(name: str, refused: Any, photos: Path) -> None:
    assert re.search("it holds NUL|File name too long", refused(*EXPORT[:-1], name))


def test_a_lock_of_another_run_stays_another_runs(tmp_path: Path) -> None:
    out = tmp_path / "OUT"
    with pytest.raises(InputError, match="in use"), exclusive(out), exclusive(out):
        pass
    assert not out.exists()
