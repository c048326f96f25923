"""class-map.txt: folders that stand for several classes, and what is refused."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgenet.errors import InputError
from edgenet.evaluate import as_labels
from edgenet.export.network import classes_of
from edgenet.images import Classes, imagenet_classes, limit, open_images, split
from edgenet.images.folders import class_groups, list_folder
from helpers.places import ROOT

IDS, NAMES = imagenet_classes()
IMAGENET = Classes(IDS, NAMES)
CATS = (281, 282, 283, 284, 285, 286, 287)


def put(root: Path, map: str, *names: str) -> Path:
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (i, 0, 0)).save(root / name, "PNG")
    (root / "class-map.txt").write_text(map, encoding="utf-8")
    return root


def test_a_folder_stands_for_the_classes_of_its_line(tmp_path: Path) -> None:
    put(tmp_path, "# pets\ncat = tabby, Persian cat  # no tigers\n\nLöwe = lion\n",
        "cat/a.png", "Löwe/b.png", "fridge/c.png")  # fmt: skip
    assert list_folder(tmp_path, IMAGENET) == [("Löwe/b.png", 291), ("cat/a.png", 281), ("fridge/c.png", 760)]
    assert class_groups(tmp_path, IMAGENET) == {"cat": (281, 283)}


def test_the_map_in_the_documentation_is_one(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "images.md").read_text(encoding="utf-8")
    lines = re.search(r"\n((?:    .*\n)*    # folder = class.*\n(?:    .*\n)*)", page)
    assert lines
    put(tmp_path, lines[1], "cat/a.png", "small pet/b.png", "Löwe/c.png")
    assert list_folder(tmp_path, IMAGENET) == [("Löwe/c.png", 291), ("cat/a.png", 281), ("small pet/b.png", 151)]


def test_a_wider_word_in_a_line_takes_in_every_kind(tmp_path: Path) -> None:
    put(tmp_path, "cat = cat\n", "cat/a.png")
    assert class_groups(tmp_path, IMAGENET) == {"cat": CATS}


def test_a_map_is_for_the_labels_of_a_table_too(tmp_path: Path) -> None:
    put(tmp_path, "cat = cat\n", "a.png", "b.png")
    (tmp_path / "labels.csv").write_text("file,label\na.png,cat\nb.png,lion\n")
    assert list_folder(tmp_path, IMAGENET) == [("a.png", 281), ("b.png", 291)]


def test_the_groups_stay_with_every_part_of_a_set_and_are_in_its_fingerprint(tmp_path: Path) -> None:
    put(tmp_path, "cat = cat\n", *(f"cat/{i}.png" for i in range(6)))
    images = open_images(tmp_path, IDS, NAMES)
    for part in (images, limit(images, 3), *split(images, 2)):
        assert part.groups == {"cat": CATS}
    (tmp_path / "class-map.txt").write_text("cat = tabby, tiger cat\n")
    other = open_images(tmp_path, IDS, NAMES)
    assert (other.labels, other.digests) == (images.labels, images.digests)
    assert other.fingerprint != images.fingerprint


def test_an_answer_is_right_if_it_is_one_of_the_classes(tmp_path: Path) -> None:
    put(tmp_path, "cat = cat\n", "cat/a.png", "lion/b.png")
    images = open_images(tmp_path, IDS, NAMES)
    answers = np.array([[281, 285, 291], [287, 0, 288]])
    assert as_labels(answers, images).tolist() == [[281, 281, 291], [281, 0, 288]]
    assert answers.tolist() == [[281, 285, 291], [287, 0, 288]]


def test_the_folders_own_classes_need_no_map(tmp_path: Path) -> None:
    """`finetune` learns the folders as they are, and its file is measured on them."""
    put(tmp_path, "cat = cat\n", "cat/a.png", "kitchen/b.png")
    for ids in ((), ("cat", "kitchen"), ("0", "1")):
        own = Classes(ids, ("cat", "kitchen"))
        assert list_folder(tmp_path, own) == [("cat/a.png", 0), ("kitchen/b.png", 1)]
        assert class_groups(tmp_path, own) == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cat: tabby", r"line 1: 'cat: tabby' is no line of a class map: write folder = class, class, \.\.\."),
        ("cat =", "line 1: 'cat =' is no line"),
        ("dog = dog", r"line 1: there is no class folder or label 'dog' \(there is cat, lion\)"),
        ("cat = tabbi", r"line 1: 'tabbi' is not a class of this model \(near: tabby"),
        ("cat = crane", "line 1: 'crane' is the name of 2 classes"),
        ("cat = tabby\nCat = tiger cat", "line 2: 'Cat' stands there twice"),
        ("cat = tabby, lion", "lion would be right for both cat and lion: list the classes of one of them"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(line: str, message: str, tmp_path: Path) -> None:
    put(tmp_path, line + "\n", "cat/a.png", "lion/b.png")
    with pytest.raises(InputError, match=message) as e:
        list_folder(tmp_path, IMAGENET)
    assert "\n" not in str(e.value)


def test_two_folders_may_share_a_class_only_if_they_mean_the_same(tmp_path: Path) -> None:
    put(tmp_path, "cat = cat\nKatze = cat\n", "cat/a.png", "Katze/b.png")
    assert list_folder(tmp_path, IMAGENET) == [("Katze/b.png", 281), ("cat/a.png", 281)]
    put(tmp_path, "cat = cat\nKatze = tabby, tiger cat\n")
    with pytest.raises(InputError, match="tabby would be right for both cat and Katze"):
        list_folder(tmp_path, IMAGENET)


def test_where_a_model_does_not_name_its_classes_the_option_that_does_is_told(tmp_path: Path) -> None:
    put(tmp_path, "", "daisy/a.png", "rose/b.png")
    (tmp_path / "class-map.txt").unlink()
    with pytest.raises(InputError) as e:
        list_folder(tmp_path, Classes(*classes_of(5)))
    assert "does not name its 5 classes: --labels FILE of `edgenet run` does, one name a line" in str(e.value)
    assert "finetune" not in str(e.value)


def test_unknown_folders_are_told_what_to_do_about_each(tmp_path: Path) -> None:
    put(tmp_path, "", "fridge/a.png", "Löwe/b.png", "cat/c.png", "washing machine/d.png")
    (tmp_path / "class-map.txt").unlink()
    with pytest.raises(InputError) as e:
        list_folder(tmp_path, IMAGENET)
    said = str(e.value)
    assert said.startswith(f"2 class folders of {tmp_path}: 'Löwe' is not a class of this model (names are English), ")
    assert "'cat' is wider than a class of this model, which has tabby, tiger cat, " in said
    assert "`edgenet classes WORD` finds names" in said
    assert f"{tmp_path / 'class-map.txt'}, e.g. `cat = cat` for all kinds of it, or" in said
    assert "own classes? `edgenet finetune` learns them" in said
    assert "fridge" not in said.split("; ", 1)[0]


def test_the_line_that_an_error_proposes_is_one_that_works(tmp_path: Path) -> None:
    put(tmp_path, "cat = cat\n", "fridge/a.png", "cat/c.png")
    assert list_folder(tmp_path, IMAGENET) == [("cat/c.png", 281), ("fridge/a.png", 760)]
