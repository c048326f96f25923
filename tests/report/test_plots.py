"""The plots: nothing overlaps, nothing is left out silently."""

import re

import pytest

from edgenet.report.plots import axes, curves, paces, scatter, strips


def test_labels_of_points_that_lie_close_do_not_overlap() -> None:
    points = [
        scatter.Point(f"precision-{i}", "", 10 + 0.1 * i, 87 + 0.05 * i, None, None, 5_000_000 + i, "other")
        for i in range(6)
    ]
    svg = scatter.scatter(points, 1160, 440, "Top-1, %", "alt", scatter.Limit(86.0, "limit"))
    found = re.findall(r'<text class="label other" x="([\d.-]+)" y="([\d.-]+)">precision', svg)
    at = [(float(x), float(y)) for x, y in found]
    assert len(at) == 6
    width = len("precision-0") * axes.CHAR_PX
    for i, (x, y) in enumerate(at):
        for u, v in at[:i]:
            assert abs(x - u) >= width or abs(y - v) >= 12, (at[i], (u, v))


def test_a_single_point_and_equal_points_are_drawn() -> None:
    p = scatter.Point("a", "", 10.0, 100.0, None, None, 0, "chosen")
    for points in ([p], [p, p]):
        svg = scatter.scatter(points, 350, 340, "Agreement, %", "alt")
        assert svg.count("<circle") == len(points)
        assert "nan" not in svg


def test_files_far_apart_in_latency_get_a_logarithmic_scale_and_it_is_said() -> None:
    near = strips.Strip("a", (9.0, 10.0, 11.0), 10.0, 10.9, "chosen")
    far = strips.Strip("b", (90.0, 100.0, 110.0), 100.0, 109.0, "other")
    assert "logarithmic" in strips.strips([near, far], 1160, "alt")
    assert "logarithmic" not in strips.strips([near, near], 1160, "alt")


def test_runs_beyond_the_scale_are_counted() -> None:
    svg = strips.strips([strips.Strip("a", (*[10.0] * 40, 50.0), 10.0, 10.0, "chosen")], 1160, "alt")
    assert "(+1)" in svg
    assert "slowest 50.0" in svg


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [(0, 10, 5, [0, 2, 4, 6, 8, 10]), (86.3, 87.4, 6, [86.4, 86.6, 86.8, 87.0, 87.2, 87.4]), (5, 5, 4, [5])],
)
def test_ticks_are_round_numbers(low: float, high: float, most: int, expected: list[float]) -> None:
    assert axes.ticks(low, high, most) == pytest.approx(expected)


def test_a_stall_does_not_squeeze_the_curves_and_the_chosen_file_lies_on_top() -> None:
    steady = tuple((float(t), 1.0) for t in range(200))
    stalled = tuple((float(t), 9.0 if t == 50 else 1.02) for t in range(200))
    svg = paces.paces([paces.Pace("fast <a>", stalled, "chosen"), paces.Pace("other", steady)], 1160, "pace")
    assert svg.index('class="pace other"') < svg.index('class="pace chosen"')
    assert "fast &lt;a&gt;" in svg
    assert "+5 %" in svg
    assert "+800" not in svg
    ys = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", svg.split('class="pace chosen"')[1])]
    assert min(ys) == 26  # the stall is drawn at the edge
    assert "narrow" in paces.paces([paces.Pace("a", steady)], 350, "pace")


@pytest.mark.parametrize(
    ("axis", "value", "px"),
    [
        (axes.Axis(0, 10, 100, 200), 5, 150),
        (axes.Axis(0, 10, 200, 100), 2.5, 175),  # up: the low end is further down
        (axes.Axis(1, 100, 0, 300, log=True), 10, 150),
        (axes.Axis(0, 10, 100, 200), 99, 200),  # what lies beyond is at the edge
    ],
)
def test_an_axis_puts_values_where_its_scale_has_them(axis: axes.Axis, value: float, px: float) -> None:
    assert axis.px(value) == pytest.approx(px)


def test_a_long_logarithmic_axis_is_marked_at_powers_of_ten_alone() -> None:
    assert [v for v in axes.log_ticks(0.002, 60) if axes.is_decade(v)] == pytest.approx([0.01, 0.1, 1, 10])
    up = axes.Axis(1e-4, 1.0, 200, 0, log=True)
    assert [t.text for t in curves._ticks(up)] == ["0.0001", "0.001", "0.01", "0.1", "1"]


def test_names_in_a_drawing_are_escaped() -> None:
    drawn = "".join((axes.text(1, 2, "<b>&", "label"), axes.group("mark", "<i>", ""), axes.svg("", 350, 9, "<u>")))
    assert not {"<b>", "<i>", "<u>"} & set(re.findall("<.>", drawn))
    assert "&lt;b&gt;&amp;" in drawn
