"""When a latency can be trusted: warm-up, interleaved rounds, intervals and what speaks against them.

Pure functions over raw nanosecond samples; the clock and the things to run are passed in. Nothing here assumes a
distribution: latencies have one long tail and, on a machine that does other work, several humps.

- The interval of one median resamples whole rounds (cluster bootstrap), because runs within a round are alike.
- On a virtual machine, runs while another guest had a share of the core are set aside (pace.py tells how).
- Where a process's memory lands moves its speed by some per cent for as long as it lives, so a round starts it anew
  where that is cheap: then it is noise, which rounds average out, and not a bias (Kalibera and Jones 2013,
  https://doi.org/10.1145/2464157.2464160).
"""

import itertools
import math
import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from edgenet.device_bench import pace
from edgenet.errors import EdgenetError, InputError
from edgenet.results import Warning

# An untimed lead-in starts each turn: the artifact before it has left its own weights in the caches.
_LEAD_NS = 20_000_000
_FRESH_LEAD_NS = 100_000_000  # a new process also has pages to touch and branches to learn
_SUSTAINED_TURNS = 30  # points of a throttling curve where the machine's state is read
_SETTLE_WINDOW, _SETTLE_TOLERANCE = 10, 0.02
_MIN_WARMUP_RUNS = 3
_WIDE_SPREAD, _LARGE_DRIFT, _MANY_DISTURBED = 0.10, 0.05, 0.10


class BurstLike(Protocol):
    @property
    def samples_ns(self) -> Sequence[int]: ...
    @property
    def lead_runs(self) -> int: ...
    @property
    def pace_ns(self) -> Sequence[int]: ...


class Subject(Protocol):
    """What `measure` times: a Worker, or something in its place."""

    def run(
        self, runs: int, time_ns: int = 0, *, lead_ns: int = 0, limit_ns: int | None = None,
        pace_limit_ns: int | None = None, patience_ns: int = 0,
    ) -> BurstLike: ...  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How long to measure.

    Each artifact gets `rounds` turns that together have at least `min_runs` runs and `min_time_s` seconds, however slow
    it is; then, up to `max_rounds`, all get more while the 95 % interval of some median is wider than `target_ci` to
    each side, but none after `max_time_s` seconds of its own. Only runs that had the core to themselves count, where a
    pace is known and `every_run` is not set; a turn goes on for them for up to `patience` times its own time.

    With `sustained_s` an artifact instead runs without a pause for so long, one artifact after the other, in turns of
    one length: what a machine does when it is not given time to cool.

    Raises:
        InputError: a number makes no sense.
    """

    min_runs: int = 50
    min_time_s: float = 1.0
    rounds: int = 10
    max_rounds: int = 100
    max_time_s: float = 60.0
    target_ci: float = 0.005
    warmup_s: float = 3.0
    seed: int = 0
    sustained_s: float = 0.0
    patience: float = 5.0
    every_run: bool = False  # count those too that something else disturbed
    self_check: bool = True  # run the first artifact twice, as if it were two: what differs then is noise

    def __post_init__(self) -> None:
        for name, least in (("min_runs", 1), ("rounds", 1), ("min_time_s", 0), ("target_ci", 0), ("warmup_s", 0),
                            ("patience", 0), ("sustained_s", 0)):  # fmt: skip
            if not getattr(self, name) >= least:
                raise InputError(f"{name} must be at least {least}, was {getattr(self, name)}")
        if self.max_rounds < self.rounds:
            raise InputError(f"max_rounds ({self.max_rounds}) must be at least rounds ({self.rounds})")
        if not self.max_time_s > 0:
            raise InputError(f"max_time_s must be more than 0, was {self.max_time_s}")

    @property
    def sets_aside(self) -> bool:
        """Whether disturbed runs are set aside: never while a machine is watched for slowing down."""
        return not (self.every_run or self.sustained_s)

    @property
    def most_turns(self) -> int:
        """Turns that an artifact gets at most."""
        return _SUSTAINED_TURNS if self.sustained_s else self.max_rounds


# MLPerf Inference's single-stream scenario: 1,024 queries and 60 s at least, one after another, and the 90th percentile
# is what counts (Reddi et al. 2020, https://arxiv.org/abs/1911.02549, section on scenarios).
PUBLISHED = Plan(min_runs=1024, min_time_s=60.0, max_time_s=600.0, every_run=True)
PUBLISHED_QUANTILE = 0.9


@dataclass
class Trace:
    """What was measured of one artifact. `error` is set where it failed; its samples up to then are kept.

    Each turn has an item in `turns` (its round), `turn_at_ns` (when it began, from the start of the measurement) and
    `states` (what the probe read just before it). `pace_ns` has one for each sample, or none where it is not known;
    `set_aside` moves the disturbed runs to `disturbed_*`.
    """

    samples_ns: list[int] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    pace_ns: list[int] = field(default_factory=list)
    disturbed_ns: list[int] = field(default_factory=list)
    disturbed_rounds: list[int] = field(default_factory=list)
    disturbed_pace_ns: list[int] = field(default_factory=list)
    warmup_runs: int = 0
    settled: bool = False
    spent_ns: int = 0
    turns: list[int] = field(default_factory=list)
    turn_at_ns: list[int] = field(default_factory=list)
    states: list[Any] = field(default_factory=list)
    error: EdgenetError | None = None

    def of_one(self, batch: int) -> "Trace":
        """Return the times of one picture, where a run computes `batch` of them."""
        samples, disturbed = ([ns // batch for ns in runs] for runs in (self.samples_ns, self.disturbed_ns))
        return replace(self, samples_ns=samples, disturbed_ns=disturbed)


@dataclass(frozen=True)
class Drift:
    """Change from the first round to the last, as a fraction of the median, and the p of as clear a trend by chance."""

    change: float
    p: float


@dataclass(frozen=True)
class Hooks:
    """What `measure` calls out for, each with the name of an artifact; all may raise an EdgenetError.

    `renew` comes before a turn of a round and may start the process anew; it tells whether it did. `probe` returns the
    state of the machine (clock, temperature), `cool` waits until it is cool enough; `step` is `measure`'s `on_step`.
    """

    renew: Callable[[str], bool] = lambda name: False
    probe: Callable[[str], Any] = lambda name: None
    cool: Callable[[str], None] = lambda name: None
    step: Callable[[str], None] = lambda name: None


def measure(
    subjects: Mapping[str, Subject],
    plan: Plan,
    clock_ns: Callable[[], int],
    on_step: Callable[[str], None] = lambda name: None,
    hooks: Hooks | None = None,
) -> dict[str, Trace]:
    """Warm up and time all subjects, in shuffled interleaved rounds, one at a time.

    A subject that raises an EdgenetError leaves the rounds; the others go on. `on_step` is called with the name after
    each warm-up and each turn.
    """
    hooks = replace(hooks or Hooks(), step=on_step)
    traces = {name: Trace() for name in subjects}
    typical: dict[str, float] = {}
    for name, subject in subjects.items():
        trace = traces[name]
        try:
            runs = warm_up(subject, clock_ns, int(plan.warmup_s * 1e9))
        except EdgenetError as e:
            trace.error = e
        else:
            trace.warmup_runs, trace.settled = len(runs), is_settled(runs)
            typical[name] = statistics.median(runs[-_SETTLE_WINDOW:])
        hooks.step(name)
    (_sustain if plan.sustained_s else _alternate)(subjects, traces, typical, plan, clock_ns, hooks)
    return {name: set_aside(trace, plan) for name, trace in traces.items()}


def set_aside(trace: Trace, plan: Plan) -> Trace:
    """Return the trace with only the runs that had the core to themselves, and the others in `disturbed_*`.

    At least `plan.min_runs` count, those least disturbed; all do where no pace is known or the plan says so.
    """
    if not plan.sets_aside or not trace.pace_ns:
        return trace
    limit_ns = pace.pace_limit_ns(trace.pace_ns, plan.min_runs)
    counts = [p <= limit_ns for p in trace.pace_ns]
    disturbed = [not c for c in counts]
    return replace(
        trace,
        samples_ns=list(itertools.compress(trace.samples_ns, counts)),
        rounds=list(itertools.compress(trace.rounds, counts)),
        pace_ns=list(itertools.compress(trace.pace_ns, counts)),
        disturbed_ns=list(itertools.compress(trace.samples_ns, disturbed)),
        disturbed_rounds=list(itertools.compress(trace.rounds, disturbed)),
        disturbed_pace_ns=list(itertools.compress(trace.pace_ns, disturbed)),
    )


def _alternate(subjects: Mapping[str, Subject], traces: dict[str, Trace], typical: Mapping[str, float], plan: Plan,
               clock_ns: Callable[[], int], hooks: Hooks) -> None:  # fmt: skip
    start, limit_ns = clock_ns(), int(plan.max_time_s * 1e9)
    turn_ns = int(plan.min_time_s * 1e9 / plan.rounds)
    for r, order in enumerate(interleave(list(subjects), plan.max_rounds, plan.seed)):
        extra = r >= plan.rounds
        alive = [n for n in order if traces[n].error is None and not (extra and traces[n].spent_ns >= limit_ns)]
        if not alive or (extra and all(_is_enough(set_aside(traces[n], plan), plan) for n in alive)):
            break
        for name in alive:
            runs = _runs_a_turn(typical[name], plan, extra)
            calm = {"patience_ns": int(plan.patience * turn_ns)} if plan.sets_aside else {}
            if calm:
                calm["pace_limit_ns"] = pace.pace_limit_ns(traces[name].pace_ns)
            turn = partial(_fresh_run, subjects[name], name, runs, turn_ns, calm, hooks)
            _take_turn(name, traces[name], r, turn, start, clock_ns, hooks)


def _fresh_run(subject: Subject, name: str, runs: int, turn_ns: int, calm: dict[str, int], hooks: Hooks) -> BurstLike:
    lead_ns = _FRESH_LEAD_NS if hooks.renew(name) else _LEAD_NS
    return subject.run(runs, turn_ns, lead_ns=lead_ns, **calm)


def _sustain(subjects: Mapping[str, Subject], traces: dict[str, Trace], typical: Mapping[str, float], plan: Plan,
             clock_ns: Callable[[], int], hooks: Hooks) -> None:  # fmt: skip
    start, turn_ns = clock_ns(), int(plan.sustained_s * 1e9 / _SUSTAINED_TURNS)
    for name, subject in subjects.items():
        for r in range(_SUSTAINED_TURNS):
            if traces[name].error is None:
                turn = partial(subject.run, 1, turn_ns)
                _take_turn(name, traces[name], r, turn, start, clock_ns, hooks, cool=r == 0)


def _take_turn(name: str, trace: Trace, r: int, run: Callable[[], BurstLike], start_ns: int,
               clock_ns: Callable[[], int], hooks: Hooks, cool: bool = True) -> None:  # fmt: skip
    try:
        if cool:
            hooks.cool(name)
        state, before = hooks.probe(name), clock_ns()
        burst = run()
    except EdgenetError as e:
        trace.error = e
    else:
        trace.samples_ns += burst.samples_ns
        trace.rounds += [r] * len(burst.samples_ns)
        trace.pace_ns += burst.pace_ns
        trace.warmup_runs += burst.lead_runs
        trace.spent_ns += clock_ns() - before
        trace.turns.append(r)
        trace.turn_at_ns.append(before - start_ns)
        trace.states.append(state)
    hooks.step(name)


def warm_up(subject: Subject, clock_ns: Callable[[], int], limit_ns: int) -> list[int]:
    """Run until the rate settles or `limit_ns` have passed (three runs at least); return the samples."""
    samples: list[int] = []
    end = clock_ns() + limit_ns
    while not is_settled(samples):
        left = end - clock_ns()
        if left <= 0 and len(samples) >= _MIN_WARMUP_RUNS:
            break
        runs = _SETTLE_WINDOW if left > 0 else _MIN_WARMUP_RUNS - len(samples)
        samples += subject.run(runs, limit_ns=max(left, 0)).samples_ns
    return samples


def is_settled(samples_ns: Sequence[int], window: int = _SETTLE_WINDOW, tolerance: float = _SETTLE_TOLERANCE) -> bool:
    """Tell whether the rate has settled: the last two windows have the same median.

    "The same" is within `tolerance`, or within what their own noise explains: twice the standard error of a difference
    of medians, 1.2533 sigma sqrt(2 / window), sigma being 1.4826 times the median absolute deviation in the windows.
    """
    if len(samples_ns) < 2 * window:
        return False
    last = np.asarray(samples_ns[-window:], float)
    before = np.asarray(samples_ns[-2 * window : -window], float)
    m, n = float(np.median(last)), float(np.median(before))
    sigma = 1.4826 * float(np.median(np.abs(np.concatenate([last - m, before - n]))))
    return abs(m - n) <= max(tolerance * n, 2 * 1.2533 * sigma * math.sqrt(2 / window))


def interleave(names: Sequence[str], rounds: int, seed: int) -> Iterator[list[str]]:
    """Yield, for each round, all `names` in an order shuffled by `seed`."""
    rng = random.Random(seed)
    for _ in range(rounds):
        order = list(names)
        rng.shuffle(order)
        yield order


def quantile(samples: Sequence[float], q: float) -> float:
    """Return the `q` quantile (0..1), linearly interpolated."""
    return float(np.quantile(np.asarray(samples, float), q))


def median_interval(samples: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval of the median between two order statistics, for independent samples of any distribution.

    The number of samples below the median is binomial (n, 1/2), so (x[k], x[n-1-k]) covers it with probability
    1 - 2 P(B <= k); the largest k that keeps `confidence` is taken. Under six samples no k does for 95 %: the range.
    """
    x = sorted(samples)
    n = len(x)
    log_pmf = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2) for i in range(n)]
    k, tail = -1, 0.0
    for i in range((n - 1) // 2 + 1):
        tail += math.exp(log_pmf[i])
        if 2 * tail > 1 - confidence:
            break
        k = i
    k = max(k, 0)
    return x[k], x[n - 1 - k]


def median_interval_by_round(
    samples: Sequence[float], rounds: Sequence[int], confidence: float = 0.95, seed: int = 0, resamples: int = 500
) -> tuple[float, float]:
    """Return the bootstrap percentile interval of the median, resampling whole rounds.

    Runs of one round resemble each other, so they are drawn together. With one round it is `median_interval`.
    """
    groups = [np.asarray(g, float) for g in by_round(samples, rounds).values()]
    if len(groups) < 2:
        return median_interval(samples, confidence)
    rng = np.random.default_rng(seed)
    # One sort of all samples; a resample is then how often each counts, and its median a cumulative sum.
    owner = np.concatenate([np.full(len(g), i) for i, g in enumerate(groups)])
    values = np.concatenate(groups)
    order = np.argsort(values, kind="stable")
    values, owner = values[order], owner[order]
    medians = np.empty(resamples)
    for b in range(resamples):
        weights = np.bincount(rng.integers(len(groups), size=len(groups)), minlength=len(groups))
        below = np.cumsum(weights[owner])
        total = int(below[-1])
        low = values[np.searchsorted(below, (total - 1) // 2, side="right")]
        high = values[np.searchsorted(below, total // 2, side="right")]
        medians[b] = (low + high) / 2
    half = (1 - confidence) / 2
    return float(np.quantile(medians, half)), float(np.quantile(medians, 1 - half))


def by_round(samples: Sequence[float], rounds: Sequence[int]) -> dict[int, list[float]]:
    """Group samples by the round that each belongs to, in order of the rounds."""
    groups: dict[int, list[float]] = {}
    for r, sample in sorted(zip(rounds, samples, strict=True), key=lambda pair: pair[0]):
        groups.setdefault(r, []).append(sample)
    return groups


def drift(samples: Sequence[float], rounds: Sequence[int]) -> Drift:
    """Return the trend of the rounds' medians: Theil and Sen's slope over all rounds, and Mann and Kendall's p.

    A change of 0 and p of 1 where there are fewer than four rounds.
    """
    groups = by_round(samples, rounds)
    m = [statistics.median(g) for g in groups.values()]
    n = len(m)
    if n < 4:
        return Drift(0.0, 1.0)
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    slope = statistics.median((m[j] - m[i]) / (j - i) for i, j in pairs)
    s = sum((m[j] > m[i]) - (m[j] < m[i]) for i, j in pairs)
    variance = n * (n - 1) * (2 * n + 5) / 18
    z = max(abs(s) - 1, 0) / math.sqrt(variance)
    return Drift(slope * (n - 1) / statistics.median(m), math.erfc(z / math.sqrt(2)))


def warnings_of(trace: Trace, plan: Plan) -> list[Warning]:
    """Return what speaks against trusting a trace."""
    found = []
    if not trace.settled:
        found.append(Warning("not-settled", f"not settled after {plan.warmup_s:g} s of warm-up", plan.warmup_s))
    n = len(trace.samples_ns)
    if n < plan.min_runs and not plan.sustained_s:
        found.append(Warning("few-runs", f"only {n} of {plan.min_runs} runs were made", n))
    median = quantile(trace.samples_ns, 0.5)
    spread = (quantile(trace.samples_ns, 0.75) - quantile(trace.samples_ns, 0.25)) / median
    if spread > _WIDE_SPREAD:
        text = f"noisy: the middle half of the runs spreads over {spread:.0%} of the median"
        found.append(Warning("noisy", text, spread))
    every, aside = trace.samples_ns + trace.disturbed_ns, len(trace.disturbed_ns)
    if aside > _MANY_DISTURBED * len(every):
        share = aside / len(every)
        text = f"disturbed: {share:.0%} of the runs are set aside: the core was shared beside them"
        found.append(Warning("disturbed", text, share))
    if aside and pace.is_rarely_calm(trace.pace_ns + trace.disturbed_pace_ns, plan.min_runs):
        found.append(Warning("rarely-undisturbed", "hardly ever undisturbed: the least disturbed runs count"))
    trend = drift(every, trace.rounds + trace.disturbed_rounds)
    if abs(trend.change) > _LARGE_DRIFT and trend.p < 0.01:
        way = "slower" if trend.change > 0 else "faster"
        text = f"drift: {abs(trend.change):.0%} {way} from the first round to the last"
        found.append(Warning("drift", text, trend.change))
    return found


def _runs_a_turn(typical_ns: float, plan: Plan, extra: bool) -> int:
    runs = math.ceil(plan.min_runs / plan.rounds)
    if not extra:
        return runs
    affordable = (plan.max_time_s * 1e9 / plan.rounds - max(_LEAD_NS, typical_ns)) / typical_ns
    return max(1, min(runs, int(affordable)))


def _is_enough(trace: Trace, plan: Plan) -> bool:
    samples = trace.samples_ns
    if len(samples) < plan.min_runs or sum(samples) < plan.min_time_s * 1e9 or len(set(trace.rounds)) < plan.rounds:
        return False
    low, high = median_interval_by_round(samples, trace.rounds)
    return (high - low) / 2 <= plan.target_ci * quantile(samples, 0.5)
