"""edgenet.images.class_names: which class a person means by a word, and when none is taken for granted."""

import csv

import pytest

from edgenet.errors import InputError
from edgenet.images import Classes, imagenet_classes
from edgenet.images.wordnet import wordnet

IMAGENET = Classes(*imagenet_classes())


def named(word: str) -> str:
    return IMAGENET.name(IMAGENET.index_of(word))


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("icebox", "refrigerator"),  # another name
        ("pig", "hog"),
        ("Washing_Machine", "washer"),
        ("polar bear", "ice bear"),
        ("Panthera leo", "lion"),
        ("fridge", "refrigerator"),  # a kind of it
        ("n03273913", "refrigerator"),  # the same by its WordNet id, as ImageNet-21k has it
        ("cell phone", "cellular telephone"),  # WordNet: cellphone
        ("golden-retriever", "golden retriever"),
        ("lions", "lion"),
        ("strawberries", "strawberry"),
        ("chiffonièr", "chiffonier"),  # accents do not matter
    ],
)
def test_an_everyday_word_stands_for_the_class_that_it_means(word: str, name: str) -> None:
    assert named(word) == name


def test_all_of_imagenets_own_names_still_mean_their_class() -> None:
    ids, names = imagenet_classes()
    once = [name for name in names if [n.lower() for n in names].count(name.lower()) == 1]
    assert [IMAGENET.index_of(name) for name in once] == [names.index(name) for name in once]
    assert [IMAGENET.index_of(id) for id in ids] == list(range(1000))


@pytest.mark.parametrize("word", ["head", "painter", "mail", "groin", "drop", "cell"])
def test_a_word_that_usually_means_something_else_is_not_taken_for_a_class(word: str) -> None:
    """WordNet has promontory for head, cougar for painter, chain mail, breakwater, cliff and cellular telephone."""
    with pytest.raises(InputError, match=f"'{word}' is no class by itself, it may mean "):
        IMAGENET.index_of(word)


@pytest.mark.parametrize("word", ["cat", "cats", "horse", "car", "furniture", "n02121620"])
def test_a_wider_word_is_refused_with_the_classes_that_it_has(word: str) -> None:
    with pytest.raises(InputError, match=f"'{word}' is wider than a class of this model, which has [a-z]"):
        IMAGENET.index_of(word)


def test_a_word_that_two_classes_share_is_refused_with_what_each_is() -> None:
    cranes = r"n02012849 \(crane, a kind of wading bird\) or n03126707 \(crane, a kind of lifting device\)"
    with pytest.raises(InputError, match=f"'crane' is the name of 2 classes: write {cranes} instead"):
        IMAGENET.index_of("crane")
    cats = r"n02127052 \(lynx, a kind of wildcat\) or n02125311 \(cougar, a kind of wildcat\)"
    with pytest.raises(InputError, match=f"'catamount' is the name of 2 classes: write {cats} instead"):
        IMAGENET.index_of("catamount")


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("refridgerator", "refrigerator"),
        ("fridg", "refrigerator"),
        ("washing mashine", "washer"),
        ("tv", "television"),
        ("labrador", "Labrador retriever"),
        ("coffee cup", "cup"),
        ("Abyssinian cat", "tabby"),
        ("tabbi", "tabby"),
    ],
)
def test_near_names_are_those_that_a_person_means(word: str, near: str) -> None:
    with pytest.raises(InputError, match=rf"'{word}' is not a class of this model \(near: (\w+, )?{near}[,)]"):
        IMAGENET.index_of(word)


@pytest.mark.parametrize("word", ["Löwe", "Katze", "бык", "猫"])
def test_a_word_that_is_not_english_is_told_that_names_are(word: str) -> None:
    with pytest.raises(InputError, match=rf"'{word}' is not a class of this model \(names are English\)"):
        IMAGENET.index_of(word)


def test_words_are_looked_up_with_the_likeliest_class_first() -> None:
    found = IMAGENET.matches("cat")
    names = [IMAGENET.name(m.index) for m in found]
    assert names[:5] == ["tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"]
    assert {m.why for m in found[:7]} == {"wider"}
    assert tuple(m.index for m in found if m.why == "wider") == IMAGENET.all_of("cat")  # what `cat = cat` takes in
    assert {m.why for m in found if IMAGENET.name(m.index) in ("lion", "tiger")} == {"rare"}  # "big cat, cat"
    assert [(IMAGENET.name(m.index), m.why) for m in IMAGENET.matches("fridge")] == [("refrigerator", "narrower")]
    assert [(IMAGENET.name(m.index), m.why) for m in IMAGENET.matches("icebox")] == [("refrigerator", "synonym")]
    assert IMAGENET.matches("Löwe") == []


def test_a_word_of_a_class_map_takes_in_every_kind() -> None:
    assert len(IMAGENET.all_of("dog")) == 118  # breeds
    assert [IMAGENET.name(i) for i in IMAGENET.all_of("shoe")] == ["Loafer", "running shoe", "sandal"]
    assert IMAGENET.all_of("n02121620") == IMAGENET.all_of("cat")
    assert [IMAGENET.name(i) for i in IMAGENET.all_of("fridge")] == ["refrigerator"]
    with pytest.raises(InputError, match="'head' is no class by itself"):
        IMAGENET.all_of("head")


def test_a_model_without_wordnet_ids_has_its_own_names_only() -> None:
    own = Classes((), ("Persian cat", "hog", "side-table"))
    assert own.index_of("persian-cat") == 0
    assert own.index_of("Side Tables") == 2
    with pytest.raises(InputError, match=r"'pig' is not a class of this model; valid is a class name"):
        own.index_of("pig")
    with pytest.raises(InputError, match=r"near: Persian cat"):
        own.index_of("cat")


def test_the_table_has_every_class_of_imagenet_with_what_stands_above_it() -> None:
    table = wordnet()
    for id in imagenet_classes()[0]:
        assert table.meanings[id].words
        assert "n00001740" in table.above(id)  # entity
    parents = {p for m in table.meanings.values() for p in m.parents}
    assert parents <= set(table.meanings)


def test_the_licence_of_wordnet_ships_with_its_words() -> None:
    from importlib import resources

    text = resources.files("edgenet.images").joinpath("wordnet.txt").read_text()
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in text
    assert "Permission to use, copy, modify and distribute" in " ".join(text.split())


def test_the_table_is_what_wordnets_files_give(tmp_path, capsys) -> None:
    """Four nouns as data.noun and index.noun have them: a class, its parent, its kind, and Stephen Crane."""
    from helpers import wordnet_table

    crane = "03126707 06 n 01 crane 0 002 @ 03665366 n 0000 ~ 03125870 n 0000 | lifts and moves heavy objects\n"
    lines = [
        "  1 This software and database is being provided to you, the LICENSEE\n",
        crane,
        "03665366 06 n 01 lifting_device 0 000 | a device for lifting\n",
        "03125870 06 n 02 crane_truck 0 crane 1 001 @ 03126707 n 0000 | a truck with a crane\n",
        "10924227 18 n 02 Crane 0 Stephen_Crane 0 001 @i 10794014 n 0000 | United States writer\n",
    ]
    (tmp_path / "data.noun").write_text("".join(lines))
    (tmp_path / "index.noun").write_text(
        "crane n 3 2 @ ~ 3 1 10924227 03126707 03125870  \nlifting_device n 1 1 @ 1 0 03665366  \n"
        "crane_truck n 1 1 @ 1 0 03125870  \nstephen_crane n 1 1 @ 1 0 10924227  \n"
    )
    wordnet_table.main(tmp_path, ["n03126707"])
    assert list(csv.reader(capsys.readouterr().out.splitlines())) == [
        ["wnid", "parents", "words"],
        ["n03125870", "n03126707", "crane truck|~crane"],
        ["n03126707", "n03665366", "crane"],
        ["n03665366", "", "lifting device"],
    ]
