"""execute.py: a network in parts gives the numbers of the whole one, and holds a few pictures at a time."""

import numpy as np
import pytest

from edgenet.calibration import execute
from edgenet.calibration.execute import Executor, activations
from edgenet.export.graph import Graph
from helpers.layers import bottleneck, gated, pictures


@pytest.mark.parametrize("graph", [bottleneck(size=16), gated()])
@pytest.mark.parametrize("max_bytes", [1, 5000, 2**26])
def test_parts_give_the_bits_of_the_whole(graph: Graph, max_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "MOST_TOGETHER", 3)
    names, xs = graph.activations(), pictures(7, size=16)
    run = Executor(graph, names[1:], 1)
    seen: dict[str, list[np.ndarray]] = {n: [] for n in names}
    for i, made in activations(graph, names, iter(xs), 1, max_bytes):
        for name, y in made.items():
            assert len(seen[name]) == i  # the pictures of each name come in order
            seen[name].append(y)
    for i, x in enumerate(xs):
        for name, y in zip(names, [x, *run(x)], strict=True):
            np.testing.assert_array_equal(seen[name][i], y)
    assert {len(ys) for ys in seen.values()} == {7}


def test_only_what_was_asked_for_is_shown_and_nothing_after_it_runs() -> None:
    graph = bottleneck()
    (part,) = execute._parts(graph, {"stem", "add1"}, 2**26)
    assert part.ops[-1].outputs == ("add1",)
    assert [list(made) for _, made in activations(graph, ("stem", "add1"), pictures(2), 1)] == [["stem", "add1"]] * 2


def test_between_parts_only_what_is_still_read_waits() -> None:
    graph = bottleneck()
    parts = execute._parts(graph, set(graph.activations()), 1)
    assert len(parts) == len(graph.ops)
    after = {p.ops[-1].outputs[0]: set(p.later) for p in parts}
    assert after["stem"] == {"stem"}
    assert after["expand1"] == {"expand1", "project0"}  # the addition reads the second
    assert after["logits"] == set()


def test_no_picture_shows_nothing() -> None:
    assert list(activations(bottleneck(), ("stem",), [], 1)) == []
