"""Accuracy of two runs: pictures are paired by content, and what the data cannot show is not called worse."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgenet.compare import accuracy
from edgenet.compare.nouns import CANNOT_TELL, MET, MISSED, REFUSED, SHOWN, Finding, Sure
from edgenet.evaluate import mcnemar
from edgenet.results import Evaluation, PictureAnswers
from edgenet.results.answers import pack
from edgenet.results.plain import read, write

SURE = Sure.among(1)
DIGESTS = tuple(f"{i:064x}" for i in range(2000))


def seen(right: np.ndarray, *, digests: tuple[str, ...] = (), images: str = "f", **changes: Any) -> accuracy.Seen:
    """An evaluation of labelled pictures in the order of their digests; by default all runs have the same ones."""
    n = len(right)
    answers = pack(right, ~right, np.where(right, 3, 4))
    e = Evaluation("a", images, n, n, float(right.mean()), None, None, None, "litert", answers=answers)
    return accuracy.Seen(replace(e, **changes), {images: digests} if digests else {})


def changed(lost: int, won: int, n: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Answers before and after, of which so many were lost and won."""
    old = np.arange(n) % 5 > 0
    new = old.copy()
    new[np.flatnonzero(old)[:lost]] = False
    new[np.flatnonzero(~old)[:won]] = True
    return old, new


def judged(lost: int, won: int, limit: float | None = 0.0, n: int = 2000) -> Finding:
    old, new = changed(lost, won, n)
    return accuracy.judge("a", seen(old), seen(new), limit, SURE)


def test_a_loss_that_pairs_show_is_worse_and_one_within_the_limit_is_not() -> None:
    f = judged(lost=28, won=8)
    assert (f.verdict, f.how, f.n, f.lost, f.won) == (MISSED, "paired", 2000, 28, 8)
    assert f.change == pytest.approx(0.01)
    assert f.low is not None
    assert f.low > 0
    assert judged(28, 8, limit=0.03).verdict == MET
    assert judged(28, 8, limit=None).verdict == SHOWN


def test_where_the_pictures_are_too_few_it_says_how_many_would_tell() -> None:
    f = judged(lost=6, won=2, n=300)
    assert f.verdict == CANNOT_TELL
    assert f.needed is not None
    assert 300 < f.needed < 3000
    times = f.needed // 300 + 1  # the same changes on as many pictures as it asked for
    assert judged(6 * times, 2 * times, n=300 * times).verdict == MISSED


def test_four_answers_that_were_lost_and_none_won_prove_nothing() -> None:
    # Tango's interval is above 0 there, and in one of 16 cases it is so by chance.
    assert judged(lost=4, won=0).verdict == CANNOT_TELL
    assert judged(lost=7, won=0).verdict == MISSED


def test_the_mid_p_is_half_of_the_two_sided_exact_one_less_half_of_what_was_seen() -> None:
    for lost, won in ((9, 2), (30, 10), (5, 0)):
        exact = mcnemar(won, lost) / 2
        assert 0.4 * exact < accuracy.mid_p(lost, won) < exact
    assert accuracy.mid_p(5, 5) == pytest.approx(0.5)
    assert accuracy.mid_p(100_400, 99_600) == pytest.approx(0.0368, abs=1e-4)  # of so many, by the normal distribution


def test_pictures_are_paired_by_content_where_the_runs_saw_others_too() -> None:
    old, new = changed(lost=60, won=10)
    first = seen(old[:1500], digests=DIGESTS[:1500], images="one")
    second = seen(new[500:], digests=DIGESTS[500:], images="two")
    f = accuracy.judge("a", first, second, 0.0, SURE)
    common = slice(500, 1500)
    lost = int((old[common] & ~new[common]).sum())
    assert (f.how, f.n, f.lost) == ("paired", 1000, lost)


def test_a_picture_that_is_there_twice_pairs_with_nothing() -> None:
    digests = (*DIGESTS[:9], DIGESTS[8])
    right = np.ones(10, bool)
    one, two = seen(right, digests=digests, images="one"), seen(right[:9], digests=DIGESTS[:9], images="two")
    assert accuracy.paired(one, two) == accuracy.Pairs(8, 0, 0, 8)


def test_pictures_whose_label_changed_are_refused() -> None:
    old, new = changed(lost=5, won=5)
    relabelled = seen(old, digests=DIGESTS, images="two")
    assert accuracy.judge("a", seen(old, digests=DIGESTS, images="one"), relabelled, 0.0, SURE).how == "other-labels"
    # One and the same answer is right in one run and wrong in the other.
    same = pack(new, ~new, np.where(old, 3, 4))
    f = accuracy.judge("a", seen(old), seen(new, answers=same), 0.0, SURE)
    assert (f.verdict, f.how) == (REFUSED, "other-labels")


def test_without_pairs_the_interval_is_that_of_independent_samples() -> None:
    old, new = changed(lost=200, won=0)
    f = accuracy.judge("a", seen(old, answers=None), seen(new, answers=None, images="others"), 0.0, SURE)
    assert (f.verdict, f.how) == (MISSED, "intervals")
    # Newcombe's own example (1998, table II, method 10): 56 of 70 less 48 of 80 is 0.0524 to 0.3339.
    low, high = accuracy.independent_difference(56 / 70, 70, 48 / 80, 80, 1.959964)
    assert (low, high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))
    few = accuracy.judge("a", seen(old[:100], answers=None), seen(new[1000:1100], answers=None), 0.0, SURE)
    assert few.verdict == CANNOT_TELL


def test_the_same_file_lost_nothing_however_few_the_pictures() -> None:
    right = np.ones(3, bool)
    f = accuracy.judge("a", seen(right, artifact_sha256="1"), seen(right, artifact_sha256="1"), 0.0, SURE)
    assert (f.verdict, f.how, f.change) == (MET, "same-file", 0.0)


def test_without_labels_accuracy_is_refused() -> None:
    none = seen(np.ones(9, bool), n_labelled=0, top1=None)
    assert accuracy.judge("a", none, none, 0.0, SURE).how == "no-labels"


def test_many_files_are_judged_more_strictly_each() -> None:
    assert Sure.among(12).z > Sure.among(1).z == pytest.approx(1.959964)
    old, new = changed(lost=17, won=5)
    assert accuracy.judge("a", seen(old), seen(new), 0.0, Sure.among(1)).verdict == MISSED
    assert accuracy.judge("a", seen(old), seen(new), 0.0, Sure.among(12)).verdict == CANNOT_TELL


# --- the answers in results.json -------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [5, 40_000])
def test_answers_come_back_as_they_were_packed(classes: int) -> None:
    rng = np.random.default_rng(0)
    right = rng.random(1001) < 0.7
    wrong = ~right & (rng.random(1001) < 0.9)
    top1 = rng.integers(-1, classes, 1001)
    back = read(PictureAnswers, json.loads(json.dumps(write(pack(right, wrong, top1)))))
    assert (back.right_each == right).all()
    assert (back.wrong_each == wrong).all()
    assert back.top1_each is not None
    assert (back.top1_each == top1).all()
    assert pack(right, wrong, None).top1_each is None


def test_answers_to_fifty_thousand_pictures_take_150_kilobytes() -> None:
    right = np.ones(50_000, bool)
    assert len(json.dumps(write(pack(right, ~right, np.full(50_000, 999))))) < 151_000


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n": 9}, "right must hold a bit"),
        ({"n": -1}, "n must be from 0"),
        ({"n": 10**12}, "n must be from 0"),
        ({"right": "?"}, "must be base64"),
        ({"right": "é" * 4}, "must be base64"),
        ({"top1": "AAAA"}, "top1 must hold 2 or 4 bytes"),
        ({"wrong": "/w=="}, "exclude each other"),
    ],
)
def test_answers_that_cannot_be_are_refused(change: dict[str, Any], said: str) -> None:
    right = np.ones(8, bool)
    good = write(pack(right, ~right, np.arange(8)))
    with pytest.raises(ValueError, match=said):
        read(PictureAnswers, {**good, **change})
