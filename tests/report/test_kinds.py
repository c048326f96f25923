"""The page of each kind of classifier calls its figures what they are, and has the measures of its task."""

from dataclasses import replace

import pytest

from edgenet.cli_output import print_evaluations
from edgenet.report.classes import classes
from edgenet.report.files import files
from edgenet.report.formatting import NBSP
from edgenet.report.overview import view_of
from edgenet.report.recommendation import recommend
from edgenet.report.summary import summary_lines, summary_table
from edgenet.results import Results
from edgenet.results.records import Figure, LabelMeasure, Measures
from helpers.hand_built import some_results

FIGURE = Figure(0.9, (0.85, 0.94), 0.01, (-0.01, 0.03))
LABELS = (LabelMeasure(0, 40, 0.95, 0.8, 2), LabelMeasure(2, 12, 0.55, 0.5, 5))
MEASURES = {
    "binary": Measures(100, 0.5, auc=FIGURE, average_precision=FIGURE, f1=FIGURE),
    "labels": Measures(100, 0.5, average_precision=FIGURE, f1=FIGURE, decisions=FIGURE, labels=LABELS),
    "embedding": Measures(100, cosine=FIGURE, cosine_least=0.4, recall_at_1=FIGURE),
}


def of(task: str) -> Results:
    results = some_results()
    results.evaluations = [replace(e, task=task, top5=None, measures=MEASURES[task]) for e in results.evaluations]
    return results


@pytest.mark.parametrize(
    ("task", "titles"),
    [
        ("binary", ["Accuracy", "ROC AUC", "Average precision", "F1"]),
        ("labels", ["Exact match", "Mean average precision", "Mean F1", "Labels right one by one"]),
        ("embedding", ["Recall@1", "Cosine with float32", "Nearest to its own float32 embedding"]),
    ],
)
def test_the_table_has_the_columns_of_the_task(task: str, titles: list[str]) -> None:
    found = files(view_of(of(task)))
    assert found is not None
    assert found.files.titles[2 : 2 + len(titles)] == tuple(titles)
    assert not {"Top-1", "Top-5"} & set(found.files.titles)
    (row, *_) = (line for lines in found.files.groups.values() for line in lines)
    assert (row.cells[3].text, row.cells[3].small) == ("0.9000", "0.8500 to 0.9400")


@pytest.mark.parametrize(
    ("task", "word", "sentence"),
    [("binary", "accuracy", "Accuracy is"), ("labels", "exact match", "Exact match is"),
     ("embedding", "recall@1", "Recall@1 is")],
)  # fmt: skip
def test_the_answer_speaks_of_what_was_measured(
    task: str, word: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    results = of(task)
    said = " ".join(summary_lines(results)).replace(NBSP, " ")
    assert sentence in said
    assert "top-1" not in said.lower()
    assert [c.header for c in summary_table(results, recommend(results)).columns][2] == word
    print_evaluations(results)
    assert word in capsys.readouterr().out


def test_the_labels_that_are_found_worst_stand_first() -> None:
    section = classes(view_of(of("labels"), ("cat", "dog", "fox")))
    assert section is not None
    assert section.table is not None
    (lines,) = section.table.groups.values()
    assert [line.cells[0].text for line in lines] == ["fox", "cat"]
    assert [c.text for c in lines[0].cells[1:]] == ["12", "0.550", "0.500", "5"]
    assert section.confusions is None
