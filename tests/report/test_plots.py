"""The plots: nothing overlaps, nothing is left out silently."""

import re

import pytest

from edgenet.report.plots import scatter


def test_labels_of_points_that_lie_close_do_not_overlap() -> None:
    points = [
        scatter.Point(f"precision-{i}", "", 10 + 0.1 * i, 87 + 0.05 * i, None, None, 5_000_000 + i, "other")
        for i in range(6)
    ]
    svg = scatter.scatter(points, 1160, 440, "Top-1, %", 86.0, "limit", "alt")
    found = re.findall(r'<text class="label other" x="([\d.-]+)" y="([\d.-]+)">precision', svg)
    at = [(float(x), float(y)) for x, y in found]
    assert len(at) == 6
    width = len("precision-0") * scatter.CHAR_PX
    for i, (x, y) in enumerate(at):
        for u, v in at[:i]:
            assert abs(x - u) >= width or abs(y - v) >= 12, (at[i], (u, v))


def test_a_single_point_and_equal_points_are_drawn() -> None:
    p = scatter.Point("a", "", 10.0, 100.0, None, None, 0, "chosen")
    for points in ([p], [p, p]):
        svg = scatter.scatter(points, 350, 340, "Agreement, %", None, "", "alt")
        assert svg.count("<circle") == len(points)
        assert "nan" not in svg


def test_files_far_apart_in_latency_get_a_logarithmic_scale_and_it_is_said() -> None:
    near = scatter.Strip("a", (9.0, 10.0, 11.0), 10.0, 10.9, "chosen")
    far = scatter.Strip("b", (90.0, 100.0, 110.0), 100.0, 109.0, "other")
    assert "logarithmic" in scatter.strips([near, far], 1160, "alt")
    assert "logarithmic" not in scatter.strips([near, near], 1160, "alt")


def test_runs_beyond_the_scale_are_counted() -> None:
    svg = scatter.strips([scatter.Strip("a", (*[10.0] * 40, 50.0), 10.0, 10.0, "chosen")], 1160, "alt")
    assert "(+1)" in svg
    assert "slowest 50.0" in svg


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [(0, 10, 5, [0, 2, 4, 6, 8, 10]), (86.3, 87.4, 6, [86.4, 86.6, 86.8, 87.0, 87.2, 87.4]), (5, 5, 4, [5])],
)
def test_ticks_are_round_numbers(low: float, high: float, most: int, expected: list[float]) -> None:
    assert scatter.ticks(low, high, most) == pytest.approx(expected)


def test_a_stall_does_not_squeeze_the_curves_and_the_chosen_file_lies_on_top():
    from edgenet.report.plots.bars import Pace, paces

    steady = tuple((float(t), 1.0) for t in range(200))
    stalled = tuple((float(t), 9.0 if t == 50 else 1.02) for t in range(200))
    svg = paces([Pace("fast <a>", stalled, "chosen"), Pace("other", steady)], 1160, "pace")
    assert svg.index('class="pace other"') < svg.index('class="pace chosen"')
    assert "fast &lt;a&gt;" in svg
    assert "+5 %" in svg
    assert "+800" not in svg
    ys = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", svg.split('class="pace chosen"')[1])]
    assert min(ys) == 26  # the stall is drawn at the edge
    assert "narrow" in paces([Pace("a", steady)], 350, "pace")
