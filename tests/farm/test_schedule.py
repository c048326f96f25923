"""schedule.py: every block is answered once and in order, whatever workers do."""

import random
from collections.abc import Sequence
from typing import Any

import pytest

from edgenet.farm import schedule
from edgenet.farm.answers import WorkersLost
from edgenet.farm.schedule import Event, in_order


class ScriptedCrew:
    """Workers that come, answer in any order and die, by a seed; one that is `deaf` takes blocks and says nothing."""

    def __init__(self, seed: int, n: int = 3, deaths: int = 0, deaf: Sequence[str] = (), poison: int = -1) -> None:
        self.random, self.n, self.deaths, self.deaf, self.poison = random.Random(seed), n, deaths, deaf, poison
        self.alive: set[str] = set()
        self.n_started, self.now = 0, 0.0
        self.has: list[tuple[str, int, Any]] = []
        self.given: list[int] = []
        self.dropped: list[str] = []
        self.news: list[Event] = []

    def clock(self) -> float:
        return self.now

    def call(self) -> None:
        while len(self.alive) < self.n:
            worker = f"w{self.n_started}"
            self.n_started += 1
            self.alive.add(worker)
            self.news.append(Event(worker))

    def give(self, worker: str, ticket: int, block: Any) -> None:
        self.given.append(ticket)
        self.has.append((worker, ticket, block))

    def wait(self, timeout_s: float) -> Sequence[Event]:
        self.now += timeout_s
        events, self.news = self.news, []
        if events:
            return events
        able = [h for h in self.has if h[0] not in self.deaf]
        if not able:
            return []
        worker, ticket, block = self.random.choice(able)
        if ticket == self.poison or (self.deaths and self.random.random() < 0.3):
            self.deaths -= 1
            self._end(worker)
            return [Event(worker, lost=f"{worker} was killed")]
        self.has.remove((worker, ticket, block))
        return [Event(worker, ticket, block * 10)]

    def drop(self, worker: str) -> None:
        self.dropped.append(worker)
        self._end(worker)

    def _end(self, worker: str) -> None:
        self.alive.discard(worker)
        self.has = [h for h in self.has if h[0] != worker]


@pytest.mark.parametrize("seed", range(20))
def test_answers_come_once_and_in_order_whoever_dies(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "MAX_TRIES", 100)
    crew = ScriptedCrew(seed, n=1 + seed % 4, deaths=6)
    assert list(in_order(40, lambda i: i, crew, crew.clock)) == [10 * i for i in range(40)]
    assert len(crew.given) > 40, "what the dead had was given to others"


def test_nothing_is_given_out_twice_while_nobody_dies() -> None:
    crew = ScriptedCrew(1)
    assert len(list(in_order(40, lambda i: i, crew, crew.clock))) == 40
    assert sorted(crew.given) == list(range(40))


def test_an_answer_of_a_worker_that_counted_as_lost_does_not_count() -> None:
    crew = ScriptedCrew(0, n=1)
    crew.news = [Event("ghost", 0, "wrong")]
    assert list(in_order(3, lambda i: i, crew, crew.clock)) == [0, 10, 20]


def test_a_block_that_kills_whoever_has_it_ends_the_work_after_three_tries() -> None:
    crew = ScriptedCrew(3, poison=5)
    with pytest.raises(WorkersLost, match=r"block 6 of 40 was lost 3 times, last of all so: w\d+ was killed"):
        list(in_order(40, lambda i: i, crew, crew.clock))
    assert crew.given.count(5) == 3


def test_a_worker_that_says_nothing_is_ended_and_its_blocks_go_to_others() -> None:
    crew = ScriptedCrew(0, n=2, deaf=["w0"])
    assert list(in_order(10, lambda i: i, crew, crew.clock)) == [10 * i for i in range(10)]
    assert crew.dropped == ["w0"]


def test_without_a_worker_for_minutes_it_is_given_up() -> None:
    crew = ScriptedCrew(0, n=0)
    with pytest.raises(WorkersLost, match="for 300 s no worker was ready"):
        list(in_order(1, lambda i: i, crew, crew.clock))


def test_no_worker_has_more_than_two_blocks_and_they_are_spread() -> None:
    crew = ScriptedCrew(0, n=3)
    answers = in_order(100, lambda i: i, crew, crew.clock)
    next(answers)
    had = [sum(worker == w for worker, *_ in crew.has) for w in sorted(crew.alive)]
    assert max(had) <= 2
    assert min(had) >= 1


def test_no_blocks_are_no_work() -> None:
    assert list(in_order(0, lambda i: i, ScriptedCrew(0, n=0))) == []
