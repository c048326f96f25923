"""The pictures that flipped: the worst come first, and none shows where it lies."""

from pathlib import Path

import pytest

from edgenet.report.overview import view_of
from edgenet.report.pictures import Answer, Picture, Pictures, pictures
from edgenet.report.pieces import Chip
from edgenet.results import Flip, Results
from helpers.hand_built import FILES, NAMES, changed, some_flips, some_results

pytestmark = pytest.mark.usefixtures("thumbnails")


def of(results: Results, names: list[str] = NAMES) -> Pictures:
    found = pictures(view_of(results, names))
    assert found is not None
    return found


def only(flip: Flip) -> Results:
    results = some_results()
    for precision, *_ in FILES:
        changed(results, precision, "evaluations", flips=(flip,) if precision == "int8" else ())
    return results


def test_the_worst_pictures_come_first_and_no_more_than_24(thumbnails: list[str]) -> None:
    found = of(some_results())
    assert [(f.name, f.count) for f in found.files] == [
        ("efficientnet-lite0_int8.tflite", "8 changed"),
        ("efficientnet-lite0_float16.tflite", "1 changed"),
        ("efficientnet-lite0_dynamic.tflite", "the worst 15 of 60"),
    ]
    changes = [p.change.text for f in found.files for p in f.pictures]
    assert changes[:8] == ["broken"] * 2 + ["changed"] * 2 + ["both wrong"] * 2 + ["fixed"] * 2
    assert len(changes) == 24
    assert len(thumbnails) == len(set(thumbnails)), "a picture that flips in two files is decoded once"


def test_a_picture_has_both_answers_and_marks_the_right_one() -> None:
    ((picture,),) = (f.pictures for f in of(only(Flip("/p/q/photo.jpg", 1, 1, 2, 0.5, 0.25))).files)
    assert picture == Picture(
        thumbnail="data:image/jpeg;base64,anBlZyBvZiAvcC9xL3Bob3RvLmpwZw==",
        alt="name of 1",
        change=Chip("broken", "bad"),
        label="name of 1",
        answers=(Answer("float32", "name of 1", "50\u00a0%", True), Answer("int8", "name of 2", "25\u00a0%", False)),
        path="q/photo.jpg",
    )


def test_a_class_without_a_name_is_shown_by_its_number() -> None:
    ((picture,),) = (f.pictures for f in of(only(Flip("/p/x.jpg", 5, 5, 2, 0.5, 0.5)), []).files)
    assert picture.label == picture.answers[0].what == "class 5"


def test_a_picture_that_is_gone_has_no_thumbnail() -> None:
    ((picture,),) = (f.pictures for f in of(only(Flip("/p/gone.jpg", 1, 1, 2, 0.6, 0.5))).files)
    assert picture.thumbnail == ""


def test_the_folder_of_a_picture_is_shown_but_not_the_whole_path(tmp_path: Path) -> None:
    results = changed(some_results(), "int8", "evaluations", flips=some_flips(1, "/srv/somebody/private"))
    found = of(results)
    assert found.files[0].pictures[0].path == "n00000000/photo_0.jpg"
    assert "somebody" not in str(found)


def test_without_flips_there_is_no_section() -> None:
    results = some_results()
    for precision, *_ in FILES:
        changed(results, precision, "evaluations", flips=())
    assert pictures(view_of(results)) is None
