"""The confusion matrix: each row adds up to its class, float32 stands beside, and a keyboard or a phone can read it."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet.evaluate import MAX_CONFUSIONS, _confusions
from edgenet.report import write_report
from edgenet.report.overview import view_of
from edgenet.report.plots.confusion import MOST_CLASSES, Count, Matrix, matrix
from edgenet.results import NO_ANSWER, Confusion, Evaluation, Results
from helpers.browser import needs_chromium
from helpers.chromium import opened
from helpers.hand_built import NAMES, changed, some_results
from helpers.html_page import Page

Pairs = dict[tuple[int, int], int]  # (label, answer) -> pictures


def evaluations(n: dict[int, int], int8: Pairs, float32: Pairs | None = None) -> tuple[Results, list[Evaluation]]:
    """Results whose two files confuse what is said; n: pictures of each class."""
    results, found = some_results(), []
    for precision, pairs in (("int8", int8), ("float32", {} if float32 is None else float32)):
        wrong = {k: sum(m for (label, _), m in pairs.items() if label == k) for k in n}
        changed(
            results, precision, "evaluations",
            classes={str(k): (total, total - wrong[k]) for k, total in n.items()},
            confusions=tuple(Confusion(k, a, m) for (k, a), m in sorted(pairs.items(), key=lambda p: -p[1])),
        )  # fmt: skip
        found.append(next(e for e in results.evaluations if e.artifact.endswith(precision)))
    return results, found


def shown(n: dict[int, int], int8: Pairs, float32: Pairs | None = None, names: list[str] = NAMES) -> Matrix:
    results, (ours, theirs) = evaluations(n, int8, float32)
    found = matrix(view_of(results, names), ours, None if float32 is None else theirs)
    assert found is not None
    return found


def counts(m: Matrix) -> dict[str, list[str]]:
    return {name: [c.text + (f" ({c.change})" if c.change else "") for c in cells] for name, cells in m.rows}


def test_a_row_has_the_pictures_of_a_class_and_what_float32_has_differently_in_small_print() -> None:
    m = shown({0: 20, 1: 10, 2: 5}, {(0, 1): 4, (1, 2): 1}, {(0, 1): 6, (2, 0): 1}, ["ant", "bee", "cat"])
    assert m.titles == ("ant", "bee", "cat")
    assert counts(m) == {
        "ant": ["16 (+2)", "4 (−2)", ""],
        "bee": ["", "9 (−1)", "1 (+1)"],
        "cat": ["0 (−1)", "", "5 (+1)"],
    }
    assert m.rows[0][1][1] == Count("4", "−2", "4 of 20 pictures of ant taken for bee; float32: 6", "h4")
    assert m.rows[0][1][0].said == "16 of 20 pictures of ant right; float32: 14"
    assert any("than in float32" in note for note in m.notes)


def test_answers_outside_of_the_classes_with_pictures_have_a_column_and_no_answer_another() -> None:
    m = shown({3: 9, 7: 9}, {(3, 500): 2, (3, 501): 1, (7, NO_ANSWER): 3})
    assert m.titles == ("name of 3", "name of 7", "another class", "no answer")
    assert counts(m) == {"name of 3": ["6", "", "3", ""], "name of 7": ["", "6", "", "3"]}
    assert not any("float32" in note for note in m.notes)


@pytest.mark.parametrize("seed", range(5))
def test_each_row_adds_up_to_the_pictures_of_its_class(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 60, 2000)
    answers = np.where(rng.random(2000) < 0.5, labels, rng.integers(-1, 90, 2000))
    n = {int(k): int((labels == k).sum()) for k in np.unique(labels)}
    wrong = labels != answers
    pairs = {(c.label, c.answer): c.n for c in _confusions(labels[wrong], answers[wrong])}
    m = shown(n, pairs)
    assert [sum(int(c.text or 0) for c in cells) for _, cells in m.rows] == list(n.values())


def test_of_a_thousand_classes_those_that_are_confused_most_are_shown() -> None:
    pairs = {(10 * i, 10 * i + 1): 30 - i for i in range(29)} | {(999, 998): 1}
    m = shown(dict.fromkeys(range(1000), 50), pairs)
    assert m.summary == "Confusion matrix of the 20 classes that are confused most"
    assert m.titles == tuple(NAMES[10 * i + j] for i in range(10) for j in range(2))
    assert counts(m)["name of 0"][:2] == ["20", "30"]


def test_rare_answers_that_the_results_do_not_keep_are_counted_as_another_class_and_the_page_says_so() -> None:
    results, (ours, _) = evaluations({0: 20, 1: 20}, {(0, 1): 4})
    ours = dataclasses.replace(ours, classes={"0": (20, 13), "1": (20, 20)})
    m = matrix(view_of(results, NAMES), ours, None)
    assert m is not None
    assert counts(m)["name of 0"] == ["13", "4", "3"]
    assert any("rarest" in note for note in m.notes)


@pytest.mark.parametrize(
    ("n", "pairs"),
    [
        ({0: 5, 1: 5}, {}),
        ({0: 5}, {(0, 1): 2}),
        (dict.fromkeys(range(MOST_CLASSES + 1), 1), {(0, 1): 1, (1, 2): 1}),
    ],
    ids=["nothing is confused", "one class", "a picture a class"],
)
def test_where_a_matrix_tells_nothing_there_is_none(n: dict[int, int], pairs: Pairs) -> None:
    results, (ours, theirs) = evaluations(n, pairs, {})
    assert matrix(view_of(results, NAMES), ours, theirs) is None


def test_the_results_keep_every_confusion_of_a_good_network_and_the_most_frequent_of_a_bad_one() -> None:
    labels = np.repeat(np.arange(120), 119)
    answers = np.concatenate([np.delete(np.arange(120), k) for k in range(120)])
    once = _confusions(labels, answers)
    assert (len(once), {c.n for c in once}) == (MAX_CONFUSIONS, {1})
    often = _confusions(np.r_[labels, [5, 5]], np.r_[answers, [7, 7]])
    assert often[0] == Confusion(5, 7, 3)


def flowers(n: int) -> tuple[dict[int, int], Pairs, Pairs]:
    """Twenty pictures of each class, of which some are taken for four others."""
    rng = np.random.default_rng(0)

    def some() -> Pairs:
        others = [(k, int((k + 1 + j) % n)) for k in range(n) for j in rng.permutation(n - 1)[:4]]
        return {pair: int(m) for pair, m in zip(others, rng.integers(1, 5, len(others)), strict=True)}

    return dict.fromkeys(range(n), 20), some(), some()


def page(tmp_path: Path, n: int, **say: Any) -> Path:
    results, _ = evaluations(*flowers(n))
    return write_report(results, tmp_path, [f"flower of a long name {i}" for i in range(n)], **say)


def test_it_opens_by_the_keyboard_and_every_cell_has_a_row_and_a_column_to_be_read_out(tmp_path: Path) -> None:
    source = page(tmp_path, 30).read_text(encoding="utf-8")
    assert "<details><summary>Confusion matrix of all 30 classes</summary>" in source
    parsed = Page(source)
    table = next(t for t in parsed.tables if t[0][0] == "Pictures of" and "Taken for" not in t[0])
    assert (len(table), {len(row) for row in table}) == (31, {31})
    heads = [a for tag, a in parsed.tags if tag == "th" and a.get("title", "").startswith("flower of")]
    assert [a["scope"] for a in heads].count("col") == [a["scope"] for a in heads].count("row") == 30
    regions = [a for tag, a in parsed.tags if tag == "div" and "heat" in (a.get("class") or "")]
    assert [(a["tabindex"], a["role"]) for a in regions] == [("0", "region")]
    assert parsed.text.index("Confusion matrix") < parsed.text.index("The redder a cell")


def test_a_hundred_and_twenty_classes_stay_a_small_page(tmp_path: Path) -> None:
    small, large = page(tmp_path / "a", 5), page(tmp_path / "b", MOST_CLASSES)
    assert large.stat().st_size - small.stat().st_size < 600_000


_OPEN = """(() => {
  const heat = document.querySelector(".heat");
  heat.closest("details").open = true;
  const table = heat.querySelector("table"), cell = table.rows[1].cells[1].getBoundingClientRect();
  const name = table.rows[1].cells[0];
  heat.scrollLeft = 400;
  const wide = table.scrollWidth > heat.clientWidth;
  return getComputedStyle(table).display === "table" && cell.width >= 28 && cell.height >= 28
    && document.documentElement.scrollWidth <= innerWidth && wide
    && name.getBoundingClientRect().left >= heat.getBoundingClientRect().left - 1;
})()"""


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("width_px", [390, 1280])
def test_open_it_scrolls_in_its_own_window_with_the_names_in_sight(width_px: int, tmp_path: Path) -> None:
    found = opened(page(tmp_path, 60), width_px, tmp_path / "profile", evaluate=_OPEN)
    assert (found.complaints, found.outside) == ((), ())
