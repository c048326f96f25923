"""Gives blocks of work out to workers, again where a worker is lost, and hands on what comes back in order, each once.

Nothing here knows what a block is or how a worker is reached: that is a Crew. So nothing depends on the order in which
workers come, answer and die.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from edgenet.farm.answers import WorkersLost

MAX_TRIES = 3  # that a block is given out
AHEAD = 2  # blocks that a worker has at a time: the next one travels while it computes
WAIT_S = 2.0  # between looks at who has come
NOBODY_S = 300.0  # without any worker that is ready, after which it is given up
BLOCK_S = 1800.0  # that a worker may take for what it has, before it counts as lost


@dataclass(frozen=True)
class Event:
    """Something that a worker reports: it is ready (`ticket` None), an answer, or that it is `lost`, and why."""

    worker: str
    ticket: int | None = None
    answer: Any = None
    lost: str = ""


class Crew(Protocol):
    """Workers that can be given blocks. All that comes of it, a loss as well, is an Event of `wait`."""

    def call(self) -> None:
        """Start what workers can be started; returns at once."""

    def give(self, worker: str, ticket: int, block: Any) -> None:
        """Send a block to a worker that is ready."""

    def wait(self, timeout_s: float) -> Sequence[Event]:
        """Return what happened, as soon as something did; nothing after `timeout_s`."""

    def drop(self, worker: str) -> None:
        """End a worker that does not answer; there is no event of it any more."""


@dataclass
class _Hand:
    """A worker that is ready: the blocks that it has, each since when."""

    blocks: dict[int, float] = field(default_factory=dict)


def in_order(
    n_blocks: int,
    block: Callable[[int], Any],
    crew: Crew,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Any]:
    """Yield the answers to blocks 0 to n_blocks - 1 in that order, each exactly once.

    Args:
        block: makes a block, when it is given out.
        crew: who answers. A worker that is lost loses its blocks, which go to others, MAX_TRIES times in all.

    Raises:
        WorkersLost: one was given out that often in vain, or for NOBODY_S no worker was ready.
    """
    hands: dict[str, _Hand] = {}
    waiting = deque(range(n_blocks))
    tries = dict.fromkeys(range(n_blocks), 0)
    answers: dict[int, Any] = {}  # that came before their turn
    last_lost, next_one, manned = "", 0, clock()

    def lose(worker: str, why: str) -> None:
        nonlocal last_lost
        last_lost = why
        for index in sorted(hands.pop(worker, _Hand()).blocks, reverse=True):
            if tries[index] >= MAX_TRIES:
                raise WorkersLost(f"block {index + 1} of {n_blocks} was lost {MAX_TRIES} times, last of all so: {why}")
            waiting.appendleft(index)

    while next_one < n_blocks:
        crew.call()
        _give(hands, waiting, tries, block, crew, clock)
        for event in crew.wait(WAIT_S):
            if event.lost:
                lose(event.worker, event.lost)
            elif event.ticket is None:
                hands.setdefault(event.worker, _Hand())
            elif event.worker in hands and hands[event.worker].blocks.pop(event.ticket, None) is not None:
                answers.setdefault(event.ticket, event.answer)
        now = clock()
        for worker in [w for w, hand in hands.items() if hand.blocks and now - min(hand.blocks.values()) > BLOCK_S]:
            crew.drop(worker)
            lose(worker, f"{worker} did not answer in {BLOCK_S:g} s")
        if hands:
            manned = now
        elif now - manned > NOBODY_S:
            why = f"; the last one was lost so: {last_lost}" if last_lost else ""
            raise WorkersLost(f"for {NOBODY_S:g} s no worker was ready{why}")
        while next_one in answers:
            yield answers.pop(next_one)
            next_one += 1


def _give(
    hands: dict[str, _Hand],
    waiting: deque[int],
    tries: dict[int, int],
    block: Callable[[int], Any],
    crew: Crew,
    clock: Callable[[], float],
) -> None:
    """Give blocks out, first to those that have least."""
    for depth in range(1, AHEAD + 1):
        for worker, hand in hands.items():
            if waiting and len(hand.blocks) < depth:
                index = waiting.popleft()
                tries[index] += 1
                crew.give(worker, index, block(index))
                hand.blocks[index] = clock()
