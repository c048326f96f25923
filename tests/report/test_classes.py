"""The section on single classes: it lists those that tell something, says what it leaves out, and counts confusions."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edgenet.evaluate import paired_difference, wilson
from edgenet.report import write_report
from edgenet.report.classes import FEWEST, Classes, classes
from edgenet.report.formatting import NBSP, interval, percent
from edgenet.report.overview import view_of
from edgenet.report.pieces import Table
from edgenet.results import NO_ANSWER, Confusion, Results
from edgenet.results.records import ImagesRecord
from helpers.browser import layout, needs_chromium
from helpers.command_line import Edgenet
from helpers.hand_built import NAMES, changed, in_three_formats, partial_results, some_results, unlabelled
from helpers.html_page import Page

Counts = dict[str, tuple[int, int]]


def counted(of_int8: Counts, of_float32: Counts, flips: Counts | None = None, **int8: Any) -> Results:
    results = changed(some_results(), "float32", "evaluations", classes=of_float32)
    return changed(results, "int8", "evaluations", classes=of_int8, class_flips=flips or {}, **int8)


def section(results: Results, names: Sequence[str] = ()) -> Classes:
    found = classes(view_of(results, names))
    assert found is not None
    return found


def shown(table: Table | None) -> dict[str, list[list[str]]]:
    """Group -> lines of cells, the small print after a bar."""
    assert table is not None
    return {
        name: [["|".join(s.replace(NBSP, " ") for s in (c.text, c.small) if s) for c in line.cells] for line in lines]
        for name, lines in table.groups.items()
    }


def ci(interval_: tuple[float, float]) -> str:
    return interval(interval_)


def test_few_classes_are_all_listed_the_least_accurate_first_beside_float32() -> None:
    results = counted(
        {"0": (20, 19), "1": (20, 12), "2": (10, 10)}, {"0": (20, 19), "1": (20, 14), "2": (10, 9)},
        {"1": (1, 3), "2": (1, 0)},
    )  # fmt: skip
    s = section(results, ["ant", "bee", "cat"])
    assert s.table is not None
    assert s.table.titles == ("Class", "Right", "Pictures", "In float32", "Points lost", "Fixed / broken")
    assert shown(s.table)[""] == [
        ["bee", f"60.0 %|{ci(wilson(12, 20))}", "12 of 20", "14 of 20", f"10.0|{ci(paired_difference(3, 1, 20))}",
         "1 / 3"],
        ["ant", f"95.0 %|{ci(wilson(19, 20))}", "19 of 20", "19 of 20", f"0.0|{ci(paired_difference(0, 0, 20))}",
         "0 / 0"],
        ["cat", f"100.0 %|{ci(wilson(10, 10))}", "10 of 10", "9 of 10", f"−10.0|{ci(paired_difference(0, 1, 10))}",
         "1 / 0"],
    ]  # fmt: skip
    assert s.lead == "efficientnet-lite0_int8.tflite, class by class, beside float32 on the same pictures."
    assert not any("Left out" in note for note in s.notes)


def test_of_many_classes_the_worst_stand_before_those_that_lost_most() -> None:
    of_float32 = {str(i): (20, 20) for i in range(100)}
    lost = {"90": (0, 2), "91": (1, 4), "92": (2, 1)}  # fixed, broken
    of_int8 = {str(i): (20, i // 2) if i < 10 else (20, 18) for i in range(100)}
    s = section(counted(of_int8, of_float32, lost))
    groups = shown(s.table)
    assert [line[0] for line in groups["Least accurate"]] == [f"class {i}" for i in range(8)]
    assert [line[0] for line in groups["Lost most against float32"]] == ["class 91", "class 90"]
    assert s.table is not None
    assert s.table.caption == "The least accurate of 100 classes"
    assert any("partly so by chance" in note for note in s.notes)


def test_with_a_picture_a_class_there_is_no_table_and_the_page_says_why() -> None:
    s = section(counted({str(i): (1, i % 2) for i in range(1000)}, {str(i): (1, 1) for i in range(1000)}))
    assert (s.table, s.confusions) == (None, None)
    assert s.notes[0].startswith("None of the 1000 classes has more than 1 picture that measures: too few to tell")
    assert "No wrong answer was given to two pictures of one class." in s.notes


def test_a_class_with_fewer_than_ten_pictures_is_counted_and_not_listed() -> None:
    s = section(counted({"0": (9, 0), "1": (10, 9), "2": (1, 0)}, {"0": (9, 9), "1": (10, 9), "2": (1, 1)}))
    assert [line[0] for line in shown(s.table)[""]] == ["class 1"]
    assert s.notes[0].startswith("Left out: 2 classes with fewer than 10 pictures")


def test_the_interval_of_ten_pictures_can_span_half_of_everything() -> None:
    widest = max(high - low for low, high in (wilson(hits, FEWEST) for hits in range(FEWEST + 1)))
    assert (FEWEST, widest) == (10, pytest.approx(0.53, abs=0.005))


def test_confusions_are_counted_with_their_interval_and_what_float32_had() -> None:
    found = (Confusion(3, 4, 5), Confusion(1, 3, 2), Confusion(2, NO_ANSWER, 2), Confusion(0, 1, 1))
    results = counted({"0": (9, 8), "1": (9, 7), "2": (9, 7), "3": (20, 15)}, {"3": (20, 16)}, confusions=found)
    changed(results, "float32", "evaluations", confusions=(Confusion(3, 4, 4),))
    s = section(results, NAMES)
    assert shown(s.confusions)[""] == [
        ["name of 3", "name of 4", "5 of 20", f"25 %|{ci(wilson(5, 20))}", "4"],
        ["name of 1", "name of 3", "2 of 9", f"22 %|{ci(wilson(2, 9))}", "0"],
        ["name of 2", "no answer", "2 of 9", f"22 %|{ci(wilson(2, 9))}", "0"],
    ]


def test_a_folder_that_stands_for_several_classes_is_called_by_its_own_name() -> None:
    results = counted({"1": (20, 15), "4": (20, 19)}, {}, confusions=(Confusion(1, 4, 5), Confusion(4, 3, 2)))
    images = ImagesRecord("photos", class_map={"cat": (1, 3)})
    results.context = dataclasses.replace(results.context, images=images)
    s = section(results, NAMES)
    assert [line[0] for line in shown(s.table)[""]] == ["cat", "name of 4"]
    assert [line[:2] for line in shown(s.confusions)[""]] == [["cat", "name of 4"], ["name of 4", "name of 3"]]


def test_what_float32_confused_is_not_known_where_its_list_was_cut() -> None:
    of_float32 = {"3": (20, 16), **{str(i): (20, 11) for i in range(10, 30)}}
    results = counted({"3": (20, 15)}, of_float32, confusions=(Confusion(3, 4, 5),))
    changed(results, "float32", "evaluations", confusions=tuple(Confusion(i, 0, 9) for i in range(10, 30)))
    assert shown(section(results).confusions)[""][0][-1] == "—"


def test_counts_of_other_pictures_are_not_set_beside() -> None:
    results = counted({"0": (20, 19)}, {"0": (20, 20)})
    changed(results, "float32", "evaluations", images="0" * 64)
    results.measurements = []  # so that none is chosen, and the page is about the int8 file
    line = shown(section(results).table)[""][0]
    assert line[3] == "—"


def test_the_float32_file_alone_has_no_columns_of_comparison() -> None:
    results = partial_results()["one file"]
    changed(results, "float32", "evaluations", classes={"0": (20, 19)})
    s = section(results)
    assert s.table is not None
    assert s.table.titles == ("Class", "Right", "Pictures")


@pytest.mark.parametrize("results", [some_results(), unlabelled(some_results()), in_three_formats(), Results()])
def test_without_counts_there_is_no_section(results: Results) -> None:
    assert classes(view_of(results)) is None


def test_where_float32_is_shipped_the_int8_file_is_shown_beside_it() -> None:
    results = counted({"0": (20, 19)}, {"0": (20, 20)})
    for precision in ("float16", "int8", "int16x8"):
        changed(results, precision, "evaluations", top1_drop=0.05)
    assert view_of(results).answer.headline == "Ship efficientnet-lite0_float32.tflite"
    assert section(results).lead.startswith("efficientnet-lite0_int8.tflite, class by class, beside float32")


def test_where_nothing_is_shipped_the_int8_file_is_shown() -> None:
    results = counted({"0": (20, 19)}, {"0": (20, 20)})
    results.measurements = []
    assert section(results).lead.startswith("efficientnet-lite0_int8.tflite")


def test_the_tiny_run_shows_its_five_classes(edgenet: Edgenet, tiny_folder: Path, tmp_path: Path) -> None:
    """What a run really counts arrives on the page."""
    args = ("--precision", "float32", "--precision", "int8", "--calibration-images", 10)
    assert edgenet("run", "tiny", "--images", tiny_folder, "--out", tmp_path, *args).returncode == 0
    results = Results.load(tmp_path)
    assert all(sum(n for n, _ in e.classes.values()) == e.n_labelled == 30 for e in results.evaluations)
    text = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    most = max(n for n, _ in results.evaluations[0].classes.values())
    assert most < 10
    assert f"None of the 5 classes has more than {most} pictures that measure" in text


@needs_chromium
@pytest.mark.parametrize("width_px", [390, 1280])
def test_long_class_names_do_not_push_the_tables_out_of_the_window(width_px: int, tmp_path: Path) -> None:
    of = {str(i): (20, 10 + i % 10) for i in range(40)}
    results = counted(of, of, {"39": (0, 5)}, confusions=(Confusion(3, 4, 5),))
    write_report(results, tmp_path, ["a_class_name_that_is_long_and_has_no_space" * 3] * 1000)
    found = layout(tmp_path / "report.html", width_px)
    assert found.scroll_width_px <= found.width_px == width_px
    assert found.sticking_out == 0


def test_the_section_is_read_as_text(tmp_path: Path) -> None:
    results = counted({"0": (20, 10)}, {"0": (20, 20)}, {"0": (0, 10)}, confusions=(Confusion(0, 1, 10),))
    page = Page(write_report(results, tmp_path, NAMES).read_text(encoding="utf-8"))
    assert re.search(r"Class by class.*name of 0.*50\.0 %.*10 of 20.*20 of 20.*50\.0.*0 / 10", page.text)
    assert f"Taken for {percent(0.5, 0)}" not in page.text
    assert dataclasses.asdict(section(results))["lead"] in page.text
