"""edgenet.folders: the kinds of folder, labels, and what is said of a folder that is none of them."""

import os
from pathlib import Path

import pytest
from PIL import Image

from edgenet.errors import InputError
from edgenet.images import imagenet_classes
from edgenet.images.folders import Classes, list_folder

IDS = ("n01", "n02", "n03", "n04", "n02085620")
NAMES = ("tench", "crane", "great white shark", "Crane", "Chihuahua")
CLASSES = Classes(IDS, NAMES)
NO_LABELS = Classes((), ())


def put(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(root / name, "JPEG")
    return root


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("n03", 2),
        ("N03", 2),
        ("2", 2),
        ("002", 2),
        ("great white shark", 2),
        ("Great_White_Shark", 2),
        (" GREAT  white shark ", 2),
        ("n02085620-Chihuahua", 4),
    ],
)
def test_a_class_is_found_by_wordnet_id_index_or_name(text, index):
    assert CLASSES.index_of(text) == index


def test_a_name_that_two_classes_share_asks_for_the_wordnet_id():
    with pytest.raises(InputError, match="'crane' is the name of 2 classes: write n02 or n04 instead"):
        CLASSES.index_of("crane")
    with pytest.raises(InputError, match="'crane' is the name of 2 classes: write 1 or 3 instead"):
        Classes((), NAMES).index_of("crane")


def test_all_of_imagenets_ids_and_all_but_three_names_find_their_class():
    ids, names = imagenet_classes()
    classes = Classes(ids, names)
    assert [classes.index_of(i) for i in ids] == list(range(1000))
    ambiguous = [name for name in names if not classes.knows(name)]
    assert {name.lower() for name in ambiguous} == {"cardigan", "crane", "maillot"}


def test_a_class_named_by_a_number_is_that_class_and_not_that_index():
    digits = Classes((), ("one", "0", "1"))
    assert [digits.index_of(t) for t in ("0", "1", "2")] == [1, 2, 2]


@pytest.mark.parametrize("text", ["5", "-1", "1.0", "²", "", "dog"])
def test_what_is_no_class_lists_what_is_valid(text):
    with pytest.raises(InputError, match="a WordNet id, a class name or an index 0 to 4"):
        CLASSES.index_of(text)


def test_a_misspelt_class_names_the_near_ones():
    with pytest.raises(InputError, match=r"'grate white shark' is not a class .*\(near: great white shark\)"):
        CLASSES.index_of("grate white shark")
    with pytest.raises(InputError, match=r"'shark' is not a class .*\(near: great white shark\)"):
        CLASSES.index_of("shark")


def test_class_folders_give_labels_in_the_order_of_names(tmp_path):
    put(tmp_path, "great_white_shark/b.jpg", "great_white_shark/a.JPEG", "0/deep/down/c.png", "n04/d.webp")
    put(tmp_path, ".hidden/x.jpg", "__MACOSX/n01/x.jpg", "n04/._d.jpg")
    (tmp_path / "n04" / "notes.txt").write_text("no photograph")
    (tmp_path / "README.md").write_text("no photograph")
    (tmp_path / "unknown but empty").mkdir()
    assert list_folder(tmp_path, CLASSES) == [
        ("0/deep/down/c.png", 0),
        ("great_white_shark/a.JPEG", 2),
        ("great_white_shark/b.jpg", 2),
        ("n04/d.webp", 3),
    ]


def test_a_class_folder_that_the_labels_do_not_know_is_named_with_near_matches(tmp_path):
    put(tmp_path, "n01/a.jpg", "tensch/a.jpg", "zebra/b.jpg")
    with pytest.raises(InputError, match=r"'tensch' is not .*near: tench.*'zebra' is not .*rename them") as e:
        list_folder(tmp_path, CLASSES)
    assert "\n" not in str(e.value)
    assert e.value.exit_status == 2


def test_a_data_set_with_train_and_val_folders_is_told_to_name_one(tmp_path):
    put(tmp_path, "train/n01/a.jpg", "val/n01/b.jpg")
    with pytest.raises(InputError, match=rf"one level down: give {tmp_path / 'train'}"):
        list_folder(tmp_path, CLASSES)


def test_without_a_label_list_a_class_is_an_index(tmp_path):
    put(tmp_path, "0/a.jpg", "1700/b.jpg")
    assert [label for _, label in list_folder(tmp_path, NO_LABELS)] == [0, 1700]
    put(tmp_path, "tench/b.jpg")
    with pytest.raises(InputError, match="no label list, so a class is written as its index"):
        list_folder(tmp_path, NO_LABELS)


def test_a_flat_folder_has_no_labels(tmp_path):
    put(tmp_path, "b.JPG", "a.jpeg", ".hidden.jpg")
    assert list_folder(tmp_path, CLASSES) == [("a.jpeg", None), ("b.JPG", None)]


@pytest.mark.parametrize(
    "table",
    [
        "file,label\na.jpg,n01\nb.jpg,great white shark\n",
        "a.jpg,0\nb.jpg,2\n",
        "﻿a.jpg;tench\r\nb.jpg;Great_white_shark\r\n",
        "image\tclass\na.jpg\ttench\n\nb.jpg\t2\n",
        'id,label,file\n7,tench,a.jpg\n8,"great white shark", b.jpg\n',
        "file,label\na.jpg,tench\na.jpg,0\n./b.jpg,2\n",
    ],
)
def test_labels_csv_labels_a_flat_folder(tmp_path, table):
    put(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "labels.csv").write_text(table, encoding="utf-8")
    assert list_folder(tmp_path, CLASSES) == [("a.jpg", 0), ("b.jpg", 2)]


def test_labels_csv_may_name_files_in_folders_and_leave_some_unlabelled(tmp_path):
    put(tmp_path, "a.jpg", "b.jpg", "x/c.jpg", "x/d.jpg")
    (tmp_path / "labels.csv").write_text("b.jpg,\nx/c.jpg,1\nx\\d.jpg,2\n")
    assert list_folder(tmp_path, CLASSES) == [("a.jpg", None), ("b.jpg", None), ("x/c.jpg", 1), ("x/d.jpg", 2)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("a.jpg,0\ngone.jpg,1\nlost.jpg,1\n", r"names 2 files that are not in .*: gone\.jpg, lost\.jpg; add them"),
        ("a.jpg,0\nb.jpg,zebra\n", r"line 2: 'zebra' is not a class"),
        ("a.jpg,0\nb.jpg,crane\n", r"line 2: 'crane' is the name of 2 classes"),
        ("a.jpg,0\na.jpg,1\n", r"line 2: a\.jpg has two different labels"),
        ("a.jpg,great, white\n", r"line 1: 3 fields where 2 belong .* quote a label"),
        ("a.jpg\nb.jpg\n", r"line 1: 1 fields where 2 belong"),
        ("picture,class,score\na.jpg,0,1\n", r"columns picture, class, score: name two of them file and label"),
    ],
)
def test_a_wrong_labels_csv_is_told_what_and_where(tmp_path, table, message):
    put(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(InputError, match=message):
        list_folder(tmp_path, CLASSES)


def test_a_labels_csv_that_is_not_text_is_refused(tmp_path):
    put(tmp_path, "a.jpg")
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(InputError, match="not UTF-8"):
        list_folder(tmp_path, CLASSES)


def test_mixed_kinds_are_refused(tmp_path):
    put(tmp_path, "a.jpg", "n01/b.jpg")
    with pytest.raises(InputError, match=r"mixes photographs \(a\.jpg\) with folders of photographs \(n01\)"):
        list_folder(tmp_path, CLASSES)
    (tmp_path / "labels.csv").write_text("a.jpg,0\n")
    with pytest.raises(
        InputError, match=r"labels\.csv and folders of photographs that it does not list \(n01/b\.jpg\)"
    ):
        list_folder(tmp_path, CLASSES)


def test_what_is_no_folder_of_photographs_says_so_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="it is empty"):
        list_folder(tmp_path, CLASSES)
    with pytest.raises(InputError, match="no folder"):
        list_folder(tmp_path / "gone", CLASSES)
    for name in ("a.txt", "b.txt", "Makefile"):
        (tmp_path / name).write_text("text")
    with pytest.raises(InputError, match=r"it holds only 2 x \.txt, 1 x no extension; put \.jpg"):
        list_folder(tmp_path, CLASSES)
    with pytest.raises(InputError, match="is a file, not a folder"):
        list_folder(tmp_path / "a.txt", CLASSES)

    def denied(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(InputError, match=r"cannot read folder .*: Permission denied"):
        list_folder(tmp_path, CLASSES)


def test_links_in_a_circle_end(tmp_path):
    put(tmp_path, "n01/a.jpg")
    (tmp_path / "n01" / "up").symlink_to(tmp_path / "n01")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert list_folder(tmp_path, CLASSES) == [("n01/a.jpg", 0)]


def test_several_labels_stand_in_one_line_and_an_empty_label_says_none(tmp_path):
    put(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    (tmp_path / "labels.csv").write_text("file,label\na.jpg,Chihuahua | tench|tench\nb.jpg,2\nc.jpg,\n")
    found = dict(list_folder(tmp_path, CLASSES, several=True))
    assert found == {"a.jpg": (0, 4), "b.jpg": (2,), "c.jpg": (), "d.jpg": None}
    with pytest.raises(InputError, match=r"labels\.csv, line 2: 'Chihuahua \| tench\|tench' is not a class"):
        list_folder(tmp_path, CLASSES)


def test_in_class_folders_each_picture_has_one_of_several_labels(tmp_path):
    put(tmp_path, "tench/a.jpg", "n03/b.jpg")
    assert list_folder(tmp_path, CLASSES, several=True) == [("n03/b.jpg", (2,)), ("tench/a.jpg", (0,))]
