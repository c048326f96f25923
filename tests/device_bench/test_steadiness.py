"""device_bench/steadiness.py: processes with a known autocorrelation, machines that throttle when they are told to."""

import numpy as np
import pytest

from edgenet.device_bench import steadiness
from edgenet.device_bench.steadiness import cool_down, curve, effective_runs, seconds_of, throttling
from edgenet.errors import InputError

MS = 1_000_000


def autoregressive(rho, n, seed):
    rng = np.random.default_rng(seed)
    x = [0.0]
    for e in rng.normal(0, 1, n - 1):
        x.append(rho * x[-1] + e * (1 - rho * rho) ** 0.5)
    return np.array(x)


# autocorrelation


def test_the_autocorrelation_of_a_known_process_is_its_own():
    found = steadiness.autocorrelation(autoregressive(0.8, 20_000, 0), 3)
    np.testing.assert_allclose(found, [0.8, 0.64, 0.512], atol=0.04)  # of ranks: a little less
    assert steadiness.autocorrelation([5, 5, 5, 5], 2) == [0, 0]
    assert steadiness.autocorrelation([1, -1] * 50, 1)[0] < -0.9


def test_a_single_stall_does_not_hide_the_autocorrelation():
    x = autoregressive(0.8, 2000, 1)
    x[1000] += 1e6
    assert steadiness.autocorrelation(x, 1)[0] > 0.7


@pytest.mark.parametrize(("rho", "worth"), [(0.0, 1.0), (0.5, 1 / 3), (0.9, 1 / 19)])
def test_correlated_runs_are_worth_as_few_as_theory_says(rho, worth):
    n = 4000
    found = [effective_runs(autoregressive(rho, n, seed), [0] * n) / n for seed in range(10)]
    assert np.median(found) == pytest.approx(worth, rel=0.25)


def test_runs_that_alternate_or_are_few_are_never_worth_more_than_they_are():
    assert effective_runs([1.0, -1.0] * 50, [0] * 100) == 100
    assert effective_runs([3.0], [0]) == 1
    assert effective_runs([7.0] * 40, [0] * 40) == 40


def test_many_runs_that_are_worth_few_are_told():
    slow_wave = np.sin(np.linspace(0, 4, 200)) + autoregressive(0.0, 200, 1) * 0.01
    assert steadiness.dependence(slow_wave, [0] * 200)[0].text.startswith("runs resemble each other: 200 are worth ")
    assert steadiness.dependence(autoregressive(0.0, 200, 1), [0] * 200) == []
    assert steadiness.dependence([1.0, 2.0], [0, 1]) == []


# the curve


def test_a_curve_with_many_rounds_has_a_point_a_round():
    samples = [10 * MS, 12 * MS, 11 * MS] * 60
    found = curve(samples, [i // 3 for i in range(180)], [float(i) for i in range(60)])
    assert found == [(float(i), 11.0) for i in range(60)]


def test_a_long_round_is_cut_into_parts_that_follow_each_other():
    samples = [10 * MS] * 100 + [20 * MS] * 100
    found = curve(samples, [0] * 200, [5.0], points=4)
    assert found == [(5.0, 10.0), (5.5, 10.0), (6.0, 20.0), (7.0, 20.0)]


def test_times_that_do_not_fit_the_rounds_are_refused():
    with pytest.raises(InputError, match="1 times for 2 rounds"):
        curve([1, 2], [0, 1], [0.0])


def test_a_machine_that_throttles_is_told_with_when_and_by_how_much():
    rng = np.random.default_rng(3)
    ms = np.where(np.arange(60) < 24, 10.0, 14.0) * rng.normal(1, 0.01, 60)
    found = throttling([(10.0 * i, float(m)) for i, m in enumerate(ms)])
    assert found.change == pytest.approx(0.4, abs=0.02)
    assert found.from_s == 240
    assert found.slowest_ms == pytest.approx(14, rel=0.02)


def test_a_steady_machine_with_a_stall_does_not_throttle():
    ms = [10.0] * 60
    ms[3] = 30.0
    found = throttling([(float(i), m) for i, m in enumerate(ms)])
    assert found.from_s is None
    assert found.change == 0
    with pytest.raises(InputError, match="nothing was measured"):
        throttling([])


# cooling


class Room:
    """A machine that cools by a degree a second; its clock is moved by sleeping."""

    def __init__(self, celsius):
        self.now, self.celsius = 0.0, celsius

    def clock(self):
        return self.now

    def sleep(self, s):
        self.now += s
        self.celsius -= s


def test_it_waits_until_it_is_cool_and_no_longer():
    room = Room(58.0)
    assert cool_down(lambda: room.celsius, 50, 30, room.clock, room.sleep) == 8
    assert room.celsius == 50


def test_it_does_not_wait_for_ever_nor_where_nothing_tells_the_temperature():
    room = Room(100.0)
    assert cool_down(lambda: room.celsius, 50, 30, room.clock, room.sleep) == 30
    assert cool_down(lambda: None, 50, 30, room.clock, room.sleep) == 0


# durations


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("24h", 86_400), ("10m", 600), ("1.5h", 5400), ("1h30m", 5400), ("2m5s", 125)]
)
def test_durations_are_read(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0s",
        "90",
        "0.5s",
        "25h",
        "٩٠s",
        "9" * 400 + "s",
        "0m",
        "ten minutes",
        "10 m",
        "-5s",
        "5m10m",
        "m",
        "1e3",
    ],
)
def test_what_is_no_duration_is_refused_with_an_example(text):
    with pytest.raises(InputError, match="write 90s, 10m or 1h30m"):
        seconds_of(text)
