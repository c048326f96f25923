"""device_bench/pace.py: which runs count, by itself and in the schedule of timing.py."""

import math
import statistics

import numpy as np
import pytest

from edgenet.device_bench import timing
from edgenet.device_bench.comparison import compare
from edgenet.device_bench.pace import is_rarely_calm, pace_limit_ns
from edgenet.device_bench.timing import Plan, Trace, measure
from helpers.fake_time import MS, FakeClock, FakeSubject, steady


def test_no_pace_is_no_limit():
    assert pace_limit_ns([]) == 0
    assert not is_rarely_calm([], 50)


def test_the_limit_is_a_tenth_above_the_full_pace_whatever_the_share_of_disturbed_runs():
    rng = np.random.default_rng(0)
    full = 20_000 * rng.normal(1, 0.01, 100)
    for shared in (0, 100, 10_000):
        paces = np.r_[full, 20_000 * rng.uniform(1.2, 2.5, shared)].astype(int).tolist()
        limit = pace_limit_ns(paces)
        assert 21_000 < limit < 22_500
        assert not is_rarely_calm(paces, 50)


def test_two_freaks_do_not_move_the_limit():
    assert pace_limit_ns([2_000, 5_000] + [20_000] * 100) == 22_000


def test_so_many_count_in_any_case():
    paces = [20_000] * 5 + list(range(30_000, 40_000, 100))
    assert sum(p <= pace_limit_ns(paces, 50) for p in paces) == 50
    assert sum(p <= pace_limit_ns(paces, 500) for p in paces) == len(paces)
    assert is_rarely_calm(paces, 50)
    assert not is_rarely_calm(paces, 5)


# a core that is shared with somebody


class SharedCore:
    """Another guest comes and goes, some runs long: runs and pace are up to twice as slow then, each in its way."""

    def __init__(self, seed, away=0.97):
        self.rng, self.clock, self.away, self.slow = np.random.default_rng(seed), FakeClock(), away, 1.0

    def subject(self, name, ms):
        def pace(i):
            if self.rng.random() > self.away:
                self.slow = 1.0 if self.slow > 1 else self.rng.uniform(1.3, 2)
            return 20_000 * self.slow * math.exp(self.rng.normal(0, 0.01))

        def latency(i):
            return ms * MS * (1 + 0.7 * (self.slow - 1)) * math.exp(self.rng.normal(0, 0.01))

        return FakeSubject(self.clock, latency, name=name, pace_ns=pace)


def test_the_median_of_a_shared_core_is_that_of_the_core_to_oneself():
    medians, of_all, n_disturbed = [], [], 0
    for seed in range(20):
        m = SharedCore(seed)
        trace = measure({"file": m.subject("file", 10)}, Plan(seed=seed), m.clock)["file"]
        medians.append(statistics.median(trace.samples_ns) / 10 / MS)
        of_all.append(statistics.median(trace.samples_ns + trace.disturbed_ns) / 10 / MS)
        assert len(trace.samples_ns) >= 50
        assert sum(trace.samples_ns) >= 1e9
        assert len(trace.samples_ns) == len(trace.rounds) == len(trace.pace_ns)
        assert len(trace.disturbed_ns) == len(trace.disturbed_rounds) == len(trace.disturbed_pace_ns)
        n_disturbed += len(trace.disturbed_ns)
    assert n_disturbed > 1000
    assert max(medians) / min(medians) < 1.015
    assert statistics.median(medians) == pytest.approx(1, abs=0.005)
    assert max(of_all) / min(of_all) > 1.2


def test_a_turn_goes_on_for_undisturbed_runs_until_its_patience_ends():
    clock = FakeClock()
    # The other guest comes in the third round, for good.
    subject = FakeSubject(clock, steady(4), pace_ns=lambda i: 20_000 if i < 100 else 40_000)
    trace = measure({"file": subject}, Plan(max_rounds=10), clock)["file"]
    assert len(trace.samples_ns) == 25 + 25 + 15  # of the third round, after 20 runs of warm-up and 5 of lead a turn
    late = [r for r in trace.disturbed_rounds if r == 9]
    assert 4 * len(late) == pytest.approx(
        100 + 500, abs=8
    )  # milliseconds: the turn, and five times as much in patience


def test_equally_slow_files_on_a_shared_core_are_not_told_apart_and_a_slower_one_is():
    verdicts = {1.0: [], 1.03: []}
    for ratio, found in verdicts.items():
        for seed in range(60):
            m = SharedCore(seed, away=0.9)
            subjects = {"other": m.subject("other", 10 * ratio), "first": m.subject("first", 10)}
            t = measure(subjects, Plan(rounds=20, max_rounds=20, seed=seed), m.clock)
            a, b = t["other"], t["first"]
            found.append(compare(a, b).verdict)
    assert verdicts[1.0].count("cannot tell") >= 58
    assert verdicts[1.03].count("slower") >= 57


@pytest.mark.parametrize("plan", [Plan(every_run=True), Plan(sustained_s=3.0), timing.PUBLISHED])
def test_every_run_counts_where_the_plan_says_so(plan):
    m = SharedCore(1)
    trace = measure({"file": m.subject("file", 100)}, plan, m.clock)["file"]
    assert trace.samples_ns
    assert trace.pace_ns == trace.disturbed_ns == []  # no pace is taken that nobody needs


def test_where_the_core_is_never_calm_the_least_disturbed_runs_count_and_it_is_said():
    paces = [20_000] * 10 + [40_000 + 100 * i for i in range(190)]
    trace = Trace([10 * MS + p for p in paces], [i // 20 for i in range(200)], pace_ns=paces, settled=True)
    counted = timing.set_aside(trace, Plan())
    assert counted.samples_ns == trace.samples_ns[:50]
    assert counted.disturbed_ns == trace.samples_ns[50:]
    warned = {w.code: w.value for w in timing.warnings_of(counted, Plan())}
    assert warned["disturbed"] == 0.75
    assert "rarely-undisturbed" in warned


def test_rounds_in_which_one_file_has_no_calm_run_are_joined_with_those_after_them():
    a = Trace([10 * MS] * 10, [2 * r for r in range(10)])
    b = Trace([20 * MS] * 7, [0, 2, 7, 9, 11, 13, 15])  # beside 0, 2, 4 to 6, 8, 10, 12 and 14
    c = compare(a, b)
    assert (c.verdict, c.n_rounds) == ("faster", 7)
    assert c.ratio == pytest.approx(0.5)


def test_where_calm_runs_are_too_few_to_tell_files_apart_all_runs_tell():
    def shared(ms, calm_rounds):
        """Ten rounds of ten runs; in the first of them one is calm, all others take half as long again."""
        calm = [i % 10 == 0 and i < 10 * calm_rounds for i in range(100)]
        samples = [ms * MS if c else ms * MS * 3 // 2 for c in calm]
        paces = [5_000 if c else 8_000 + i for i, c in enumerate(calm)]
        return timing.set_aside(Trace(samples, [i // 10 for i in range(100)], pace_ns=paces), Plan())

    a, b = shared(10, 10), shared(20, 6)
    assert len(a.samples_ns) == len(b.samples_ns) == 50  # many of them disturbed, the least of all
    c = compare(a, b)
    assert (c.verdict, c.n_rounds) == ("faster", 10)
    assert c.ratio == pytest.approx(0.5)
    c = compare(shared(10, 10), shared(20, 7))
    assert (c.verdict, c.n_rounds) == ("faster", 7)
    assert c.ratio == pytest.approx(0.5)


def test_a_calm_core_keeps_its_runs_and_a_trace_without_paces_all():
    rng = np.random.default_rng(0)
    paces = (20_000 * rng.normal(1, 0.01, 500)).astype(int).tolist()
    trace = Trace([10 * MS] * 500, [0] * 500, pace_ns=paces, settled=True)
    assert len(timing.set_aside(trace, Plan()).samples_ns) > 490
    assert timing.warnings_of(timing.set_aside(trace, Plan()), Plan()) == []
    without = Trace([10 * MS] * 500, [0] * 500)
    assert timing.set_aside(without, Plan()) is without


def test_throttling_is_drift_though_its_runs_are_set_aside():
    rounds = [r for r in range(10) for _ in range(20)]
    slow = [1 + 0.03 * r for r in rounds]
    trace = Trace([int(10 * MS * s) for s in slow], rounds, pace_ns=[int(20_000 * s) for s in slow], settled=True)
    warned = {w.code for w in timing.warnings_of(timing.set_aside(trace, Plan()), Plan())}
    assert {"drift", "disturbed"} <= warned
