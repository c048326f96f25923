"""device_bench/timing.py: samples with known answers, and a clock that only the tests move."""

import itertools
import math
import statistics

import numpy as np
import pytest

from edgenet.device_bench import comparison, timing
from edgenet.device_bench.comparison import compare
from edgenet.device_bench.timing import Plan, Trace, measure
from edgenet.errors import DeviceError, InputError
from edgenet.results import Warning
from helpers.fake_time import MS, FakeClock, FakeSubject, noisy, steady

# warm-up


def test_a_falling_rate_is_not_settled_and_a_flat_one_is():
    falling = [20 * MS - i * MS // 2 for i in range(20)]
    assert not timing.is_settled(falling)
    assert timing.is_settled(falling + [10 * MS] * 20)
    assert not timing.is_settled([10 * MS] * 19)  # two windows of ten do not fit


def test_noise_without_a_trend_counts_as_settled_where_two_per_cent_would_never():
    rng = np.random.default_rng(3)
    settled = [timing.is_settled((10 * MS * rng.normal(1, 0.2, 20)).tolist()) for _ in range(200)]
    assert sum(settled) > 160  # about nine in ten; a miss costs one more window
    shifted = [
        timing.is_settled((10 * MS * np.r_[rng.normal(2, 0.05, 10), rng.normal(1, 0.05, 10)]).tolist())
        for _ in range(200)
    ]
    assert sum(shifted) == 0


def test_warm_up_goes_on_until_the_rate_settles():
    clock = FakeClock()
    subject = FakeSubject(clock, lambda i: (30 - min(i, 40) / 2) * MS)  # settles at run 40
    runs = timing.warm_up(subject, clock, 10_000 * MS)
    assert 50 <= len(runs) <= 70


def test_warm_up_of_something_slow_ends_with_the_time_but_not_before_three_runs():
    clock = FakeClock()
    assert len(timing.warm_up(FakeSubject(clock, steady(5000)), clock, 1000 * MS)) == 3
    assert len(timing.warm_up(FakeSubject(clock, lambda i: (5000 - 10 * i) * MS), clock, 30_000 * MS)) < 10


# rounds


def test_rounds_are_shuffled_complete_and_the_same_for_the_same_seed():
    names = ["a", "b", "c", "d"]
    rounds = list(timing.interleave(names, 20, seed=7))
    assert rounds == list(timing.interleave(names, 20, seed=7))
    assert rounds != list(timing.interleave(names, 20, seed=8))
    assert all(sorted(r) == names for r in rounds)
    assert len({tuple(r) for r in rounds}) > 5
    assert len({r[0] for r in rounds}) == 4


def test_every_artifact_gets_the_runs_the_time_and_the_rounds_that_were_asked_for():
    clock, log = FakeClock(), []
    subjects = {n: FakeSubject(clock, steady(ms), log=log, name=n) for n, ms in (("slow", 40), ("fast", 4))}
    traces = measure(subjects, Plan(), clock)
    assert len(traces["slow"].samples_ns) == 50  # 2 s, more than the one second that it must have
    assert len(traces["fast"].samples_ns) == 250  # one second
    for t in traces.values():
        assert t.settled
        assert t.error is None
        assert sorted(set(t.rounds)) == list(range(10))  # steady: no round beyond the ten
        assert len(t.rounds) == len(t.samples_ns)
    assert traces["slow"].warmup_runs == 20 + 10 * 1  # a lead-in of 20 ms before each turn: one run
    assert traces["fast"].warmup_runs == 20 + 10 * 5
    turns = log[-20:]
    assert all(set(turns[i : i + 2]) == {"slow", "fast"} for i in range(0, 20, 2))
    assert len({tuple(turns[i : i + 2]) for i in range(0, 20, 2)}) == 2  # both orders occur


def test_noise_buys_more_rounds_for_all():
    clock = FakeClock()
    subjects = {"steady": FakeSubject(clock, steady(10)), "noisy": FakeSubject(clock, noisy(10, 1, 0.3))}
    traces = measure(subjects, Plan(rounds=10, max_rounds=20), clock)
    assert max(traces["noisy"].rounds) > 9
    assert set(traces["steady"].rounds) == set(traces["noisy"].rounds)


def test_a_crash_ends_one_artifact_and_the_others_finish():
    clock = FakeClock()
    subjects = {
        "good": FakeSubject(clock, steady(10)),
        "bad": FakeSubject(clock, steady(10), fails_at=60),
        "dead": FakeSubject(clock, steady(10), fails_at=0),
    }
    steps = []
    traces = measure(subjects, Plan(), clock, steps.append)
    assert "SIGSEGV" in str(traces["bad"].error)
    assert traces["dead"].samples_ns == []
    assert traces["good"].error is None
    assert len(traces["good"].samples_ns) == 100
    assert steps.count("good") == 11
    assert steps.count("dead") == 1


def test_a_slow_artifact_has_its_fifty_runs_and_no_round_beyond_its_time():
    clock = FakeClock()
    plan = Plan(max_time_s=30, max_rounds=30, target_ci=0)  # nothing is ever near enough: only the time ends it
    traces = measure({"slow": FakeSubject(clock, noisy(2000, 1)), "fast": FakeSubject(clock, noisy(1, 2))}, plan, clock)
    assert len(traces["slow"].samples_ns) == 50
    assert max(traces["slow"].rounds) == 9
    assert max(traces["fast"].rounds) == plan.max_rounds - 1
    assert len(traces["fast"].samples_ns) >= 1000


def test_a_trace_that_was_cut_short_says_that_runs_are_missing():
    few = Trace([10 * MS] * 5, [0] * 5, settled=True)
    assert timing.warnings_of(few, Plan()) == [Warning("few-runs", "only 5 of 50 runs were made", 5)]


def test_a_round_starts_a_process_anew_and_leads_in_longer_then():
    clock, events = FakeClock(), []
    subjects = {n: FakeSubject(clock, steady(10), log=events, name=n) for n in "ab"}

    def renew(name):
        events.append(f"renew {name}")
        return name == "a"  # b starts too slowly

    traces = measure(subjects, Plan(), clock, hooks=timing.Hooks(renew=renew))
    assert events[4:6] in (["renew a", "a"], ["renew b", "b"])  # after two windows of warm-up each
    assert events.count("renew a") == 10
    assert traces["a"].warmup_runs == 20 + 10 * 10  # 100 ms before each turn
    assert traces["b"].warmup_runs == 20 + 10 * 2


def test_a_process_that_does_not_come_back_ends_its_artifact_only():
    clock = FakeClock()

    def renew(name):
        if name == "bad":
            raise DeviceError("cannot start")
        return True

    subjects = {n: FakeSubject(clock, steady(10)) for n in ("bad", "good")}
    traces = measure(subjects, Plan(), clock, hooks=timing.Hooks(renew=renew))
    assert str(traces["bad"].error) == "cannot start"
    assert traces["bad"].samples_ns == []
    assert traces["good"].error is None
    assert len(traces["good"].samples_ns) == 100


def test_every_turn_knows_when_it_began_and_the_state_of_the_machine():
    clock = FakeClock()
    subjects = {n: FakeSubject(clock, steady(10)) for n in "ab"}
    traces = measure(subjects, Plan(), clock, hooks=timing.Hooks(probe=lambda name: (name, clock.now)))
    for name, t in traces.items():
        assert t.turns == list(range(10))
        assert [n for n, _ in t.states] == [name] * 10
        begun = [at for _, at in t.states]
        assert t.turn_at_ns == [at - begun[0] + t.turn_at_ns[0] for at in begun]
        assert t.turn_at_ns == sorted(t.turn_at_ns)
    assert min(t.turn_at_ns[0] for t in traces.values()) == 0


def test_a_sustained_run_has_no_pause_and_comes_file_after_file():
    clock, log, cooled = FakeClock(), [], []
    subjects = {n: FakeSubject(clock, steady(10), log=log, name=n) for n in "ab"}
    traces = measure(subjects, Plan(sustained_s=60), clock, hooks=timing.Hooks(cool=cooled.append))
    turns = log[4:]
    assert turns == ["a"] * 30 + ["b"] * 30
    assert cooled == ["a", "b"]
    for t in traces.values():
        assert sum(t.samples_ns) == 60 * 1000 * MS
        assert t.warmup_runs == 20
        assert np.all(np.diff(t.turn_at_ns) == 2000 * MS)


def test_published_figures_have_mlperfs_queries_and_minute():
    clock = FakeClock()
    traces = measure({n: FakeSubject(clock, steady(ms)) for n, ms in (("a", 10), ("b", 100))}, timing.PUBLISHED, clock)
    for t in traces.values():
        assert len(t.samples_ns) >= 1024
        assert sum(t.samples_ns) >= 60 * 1000 * MS


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"min_runs": 0}, "min_runs"),
        ({"rounds": 0, "max_rounds": 0}, "rounds"),
        ({"rounds": 5, "max_rounds": 4}, "max_rounds"),
        ({"max_time_s": 0}, "max_time_s"),
        ({"patience": -1}, "patience"),
        ({"min_time_s": float("nan")}, "min_time_s"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        Plan(**arguments)


# intervals


def test_the_order_statistic_interval_is_that_of_the_tables():
    # n = 10: x(2) to x(9) covers with 97.9 %, x(3) to x(8) with 89.1 %; n = 20: x(6) to x(15) with 95.9 %.
    assert timing.median_interval(range(1, 11)) == (2, 9)
    assert timing.median_interval(range(1, 11), confidence=0.89) == (3, 8)
    assert timing.median_interval(range(1, 21)) == (6, 15)
    assert timing.median_interval([3, 1, 2]) == (1, 3)
    assert timing.median_interval([5]) == (5, 5)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("n", [8, 10, 11, 20, 21, 50, 101])
def test_the_order_statistic_interval_is_that_of_scipy(n, confidence):
    from scipy import stats

    x = np.random.default_rng(n).exponential(1, n)
    theirs = stats.quantile_test(x, p=0.5).confidence_interval(confidence)
    assert timing.median_interval(x.tolist(), confidence) == (theirs.low, theirs.high)


def test_the_order_statistic_interval_covers_the_median_of_a_skewed_distribution():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(500):
        low, high = timing.median_interval(rng.exponential(1, 50).tolist())
        hits += low <= math.log(2) <= high
    assert hits >= 0.93 * 500


def test_the_interval_by_round_is_wider_where_runs_of_a_round_are_alike():
    rng = np.random.default_rng(1)
    rounds = np.repeat(np.arange(10), 20)
    samples = 100 + rng.normal(0, 5, 10)[rounds] + rng.normal(0, 0.5, 200)
    low, high = timing.median_interval(samples.tolist())
    wide_low, wide_high = timing.median_interval_by_round(samples.tolist(), rounds.tolist())
    assert wide_high - wide_low > 1.5 * (high - low)
    assert (wide_low, wide_high) == timing.median_interval_by_round(samples.tolist(), rounds.tolist())  # seeded


def test_the_weighted_median_of_a_resample_is_the_median_of_its_samples():
    # Two rounds: a resample is {A,A}, {A,B} or {B,B} with medians 2, 2.5 and 5.
    low, high = timing.median_interval_by_round([1, 2, 3, 2, 5, 8], [0, 0, 0, 1, 1, 1])
    assert (low, high) == (2, 5)


def test_one_round_falls_back_to_order_statistics():
    assert timing.median_interval_by_round(range(1, 11), [0] * 10) == (2, 9)


# comparisons


def test_critical_values_are_those_of_wilcoxons_table():
    # Two-sided 5 %: n=6: 0, 10: 8, 20: 52; 2 %: n=7: 0, 10: 5, 20: 43 (reject for W <= value); ours is one more.
    assert [comparison.signed_rank_critical(n, 0.05) for n in (5, 6, 10, 20)] == [0, 1, 9, 53]
    assert [comparison.signed_rank_critical(n, 0.02) for n in (6, 7, 10, 20)] == [0, 1, 6, 44]


@pytest.mark.parametrize("n", [7, 10, 20])
def test_the_verdict_is_that_of_scipys_signed_rank_test(n):
    from scipy import stats

    verdicts = set()
    for seed in range(100):
        logs = np.random.default_rng(seed).normal(0.03, 0.04, n)
        c = compare(rounds_of(10_000 * np.exp(logs)), rounds_of([10_000] * n))
        told = stats.wilcoxon(logs, method="exact").pvalue <= 0.02
        assert (c.verdict != "cannot tell") == told
        verdicts.add(c.verdict)
    assert verdicts == {"slower", "cannot tell"}  # both kinds were seen


def rounds_of(medians):
    samples = [int(m * MS) for m in medians for _ in range(5)]
    return Trace(samples, [r for r in range(len(medians)) for _ in range(5)])


def test_a_faster_file_is_called_faster_and_the_ratio_is_that_of_the_medians():
    machine = [1.0, 1.3, 0.9, 1.1, 1.5, 1.0, 1.2, 0.8, 1.05, 1.4]  # drifts by half
    fast, slow = rounds_of([10 * m for m in machine]), rounds_of([10.5 * m for m in machine])
    c = compare(fast, slow)
    assert c.verdict == "faster"
    assert c.ratio == pytest.approx(10 / 10.5, rel=1e-6)
    assert c.n_rounds == 10
    back = compare(slow, fast)
    assert back.verdict == "slower"
    assert back.ratio == pytest.approx(1.05, rel=1e-6)
    assert c.low <= c.ratio <= c.high < 1


def test_files_compared_with_too_few_rounds_cannot_be_told_apart():
    c = compare(rounds_of([10] * 6), rounds_of([20] * 6))
    assert c.verdict == "cannot tell"
    assert (c.low, c.high) == (0, math.inf)
    assert compare(rounds_of([10] * 7), rounds_of([20] * 7)).verdict == "faster"


def test_only_rounds_that_both_have_are_compared():
    a, b = rounds_of([10] * 10), rounds_of([20] * 8)
    assert compare(a, b).n_rounds == 8
    with pytest.raises(InputError, match="same rounds"):
        compare(a, Trace())


def simulate(ratio, seed, rounds=10, runs=5):
    """A drifting, noisy machine: rounds differ by 5 %, runs within a round by 2 %, one in ten is half as slow again."""
    rng = np.random.default_rng(seed)
    drift = np.exp(np.cumsum(rng.normal(0, 0.05, rounds)))
    out = []
    for base in (10 * MS, 10 * MS * ratio):
        turn = drift * np.exp(rng.normal(0, 0.01, rounds))
        x = base * turn[:, None] * np.exp(rng.normal(0, 0.02, (rounds, runs)))
        x *= np.where(rng.random(x.shape) < 0.1, 1.5, 1)
        out.append(Trace(x.astype(int).ravel().tolist(), np.repeat(np.arange(rounds), runs).tolist()))
    return compare(*out)


def test_equal_files_are_told_apart_at_most_once_in_forty():
    called = sum(simulate(1.0, seed).verdict != "cannot tell" for seed in range(400))
    assert called <= 10


def test_a_file_three_per_cent_slower_is_called_in_nineteen_of_twenty():
    called = sum(simulate(1 / 1.03, seed, rounds=20).verdict == "slower" for seed in range(200))
    assert called >= 190


class Machine:
    """Noise as it was seen here: a process keeps its luck of 1.5 %, the machine drifts, one run in fifty stalls."""

    def __init__(self, seed):
        self.rng, self.clock, self.slow = np.random.default_rng(seed), FakeClock(), 1.0
        self.luck = {}

    def renew(self, name):
        self.luck[name] = math.exp(abs(self.rng.normal(0, 0.015)))  # skewed: there is a fastest way to lie in memory
        self.slow *= math.exp(self.rng.normal(0, 0.01))
        return True

    def subject(self, name, ms):
        n = 512  # more than are run; drawn at once, as a draw each takes most of the time
        noise = ms * MS * np.where(self.rng.random(n) < 0.02, 1.5, 1) * np.exp(self.rng.normal(0, 0.005, n))
        runs = noise.tolist()
        self.renew(name)
        return FakeSubject(self.clock, lambda i: runs[i] * self.luck[name] * self.slow)


def in_the_schedule(ratio, seed):
    m = Machine(seed)
    subjects = {"other": m.subject("other", 20 * ratio), "first": m.subject("first", 20)}
    plan = Plan(rounds=20, max_rounds=20, seed=seed)
    traces = measure(subjects, plan, m.clock, hooks=timing.Hooks(renew=m.renew))
    a, b = traces["other"], traces["first"]
    return compare(a, b).verdict


# warnings


def test_a_throttling_machine_is_reported_as_drift_and_a_noisy_one_is_not():
    rng = np.random.default_rng(5)
    rounds = np.repeat(np.arange(10), 10)
    throttling = (10 * MS * (1 + 0.02 * rounds) * rng.normal(1, 0.005, 100)).tolist()
    d = timing.drift(throttling, rounds.tolist())
    assert d.change == pytest.approx(0.18 / 1.09, abs=0.01)
    assert d.p < 0.001
    found = timing.warnings_of(Trace(throttling, rounds.tolist(), settled=True), Plan())
    assert [(w.code, w.value) for w in found if "slower" in w.text] == [("drift", d.change)]
    noise = (10 * MS * rng.normal(1, 0.01, 100)).tolist()
    assert timing.drift(noise, rounds.tolist()).p > 0.01
    assert timing.warnings_of(Trace(noise, rounds.tolist(), settled=True), Plan()) == []


def test_the_same_file_through_the_whole_schedule_is_told_from_itself_at_most_once_in_forty():
    called = sum(in_the_schedule(1.0, seed) != "cannot tell" for seed in range(2000))
    assert called <= 50


def test_three_per_cent_through_the_whole_schedule_are_called_in_nineteen_of_twenty():
    called = sum(in_the_schedule(1.03, seed) == "slower" for seed in range(100))
    assert called >= 95


def test_a_wide_spread_and_an_unfinished_warm_up_are_reported():
    samples = [10 * MS, 15 * MS] * 50
    found = timing.warnings_of(Trace(samples, [i // 10 for i in range(100)], settled=False), Plan())
    noisy, settled = (next(w for w in found if w.code == code) for code in ("noisy", "not-settled"))
    assert noisy.text == f"noisy: the middle half of the runs spreads over {noisy.value:.0%} of the median"
    assert settled.value == Plan().warmup_s


def test_neighbours_that_cannot_be_told_apart_name_each_other_and_the_distant_one_is_clear():
    rng = np.random.default_rng(2)
    rounds = np.repeat(np.arange(10), 5).tolist()
    traces = {
        name: Trace((ms * MS * rng.normal(1, 0.02, 50)).tolist(), rounds)
        for name, ms in (("a", 10), ("same", 10), ("far", 20))
    }
    unclear = comparison.indistinct(traces)
    assert [other for other, _ in unclear["a"]] == ["same"]
    assert [other for other, _ in unclear["same"]] == ["a"]
    assert unclear["far"] == []


def test_quantiles_interpolate_linearly():
    from scipy import stats

    assert timing.quantile([1, 2, 3, 4], 0.5) == 2.5
    assert timing.quantile([10], 0.9) == 10
    for q, n in itertools.product((0.1, 0.5, 0.95), (2, 7)):
        x = list(range(n))
        assert timing.quantile(x, q) == pytest.approx(q * (n - 1))
    x = np.random.default_rng(0).exponential(1, 37)
    assert timing.quantile(x, 0.9) == pytest.approx(stats.quantile(x, 0.9, method="linear"))
    assert statistics.median([1, 2, 3]) == timing.quantile([1, 2, 3], 0.5)
