"""The words of the page: each is explained once, where it first stands, in a text that can be seen on a phone."""

import re
from pathlib import Path

import pytest

from edgenet.report import write_report
from edgenet.report.glossary import WORDS, new_words
from helpers.hand_built import NAMES, in_three_formats, partial_results, some_results, unlabelled
from helpers.hand_built_runs import a_calibration, a_search, a_training
from helpers.html_page import Page

RUNS = {
    "run": lambda: some_results(calibration=a_calibration(3), search={"tflite": a_search()}),
    "three formats": in_three_formats,
    "no labels": lambda: unlabelled(some_results()),
    "qat": lambda: some_results(training=a_training()),
    **{name: lambda name=name: partial_results()[name] for name in partial_results()},
}


@pytest.mark.parametrize("run", RUNS)
def test_a_word_is_explained_once_and_right_below_the_section_where_it_first_stands(run: str, tmp_path: Path) -> None:
    source = write_report(RUNS[run](), tmp_path, NAMES).read_text(encoding="utf-8")
    body = source[source.index("<body>") :]
    blocks = re.split(r'<details class="words">(.*?)</details>', body, flags=re.DOTALL)
    sections, folds = blocks[::2], blocks[1::2]
    explained = [re.findall(r"<dfn>(.*?)</dfn>", fold) for fold in folds]
    names = [w.replace("&#39;", "'") for fold in explained for w in fold]
    assert len(names) == len(set(names)), "once"
    known: set[str] = set()
    for text, fold in zip(sections, [*folds, ""], strict=True):
        for word in new_words(text, known):
            assert f"<dfn>{word.name}</dfn>" in fold.replace("&#39;", "'"), f"{word.name} stands there first"


def test_what_the_page_cannot_do_without_is_explained() -> None:
    asked = {"Top-1", "Agreement", "Points", "95 % interval", "SQNR", "McNemar's p", "Fixed / broken", "int8",
             "Dynamic", "Weight-only", "int16x8"}  # fmt: skip
    assert asked <= {w.name for w in WORDS}


@pytest.mark.parametrize(
    ("html", "found"),
    [
        ("<td>20.4&nbsp;dB SQNR</td>", ["SQNR"]),
        ("<h1>Ship x_int8.tflite</h1>", ["int8"]),
        ("<p>int80 disappoints</p>", []),
        ("<p>1 point</p>", ["Points"]),
        ("<p>95\u00a0% interval</p>", ["95 % interval"]),
        ('<svg aria-label="Top-1 accuracy against latency"></svg>', ["Top-1"]),
        ('<a class="agreement">x</a>', []),
    ],
)
def test_words_are_found_in_what_a_reader_sees(html: str, found: list[str]) -> None:
    assert [w.name for w in new_words(html, set())] == found


def test_an_explanation_is_seen_without_hovering(tmp_path: Path) -> None:
    page = Page(write_report(some_results(), tmp_path, NAMES).read_text(encoding="utf-8"))
    assert "At 20 dB the error is a tenth of them" in page.text
    assert not [a for tag, a in page.tags if tag in ("dfn", "abbr") and "title" in a]
