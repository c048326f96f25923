"""notes.py: where the time of an evaluation went, where that was not inference."""

import pytest

from edgenet.report.notes import _slow_evaluation
from edgenet.results.records import EvaluationTime


def test_an_evaluation_that_waited_says_for_what() -> None:
    spent = EvaluationTime(total_s=100.0, inference_s=60.0, loading_s=4.0, pictures_s=30.0)
    assert _slow_evaluation(spent) == (
        "Of the 100 s that the evaluation took, 60 s were inference; 30 s waiting for pictures to be decoded, "
        "4 s loading files, 6 s counting and the rest."
    )


@pytest.mark.parametrize(
    "spent",
    [None, EvaluationTime(9.0, 1.0), EvaluationTime(100.0, 90.0, 5.0, 5.0)],
    ids=["not known", "short", "nearly all was inference"],
)
def test_an_evaluation_whose_time_needs_no_word_has_none(spent: EvaluationTime | None) -> None:
    assert _slow_evaluation(spent) == ""
