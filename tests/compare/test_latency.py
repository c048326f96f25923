"""Latency of two runs: compared where they are alike, refused with the reason where they are not."""

from dataclasses import replace
from typing import Any

import pytest

from edgenet.compare import latency
from edgenet.compare.nouns import CANNOT_TELL, MET, MISSED, REFUSED, SHOWN, Finding, Sure
from edgenet.results import Measurement, Warning
from helpers import planted_comparisons as planted
from helpers.hand_built import a_measurement, an_artifact

SURE = Sure.among(1)
MACHINE = {"cpu_model": "Intel Xeon", "cores": 2, "isa": ["avx2"], "governor": "performance"}
FILE = an_artifact("int8", 5_000_000)


def timed(ms: float = 10.0, host: str = "here", **changes: Any) -> latency.Timed:
    m = replace(a_measurement(FILE, ms), device_info=MACHINE, artifact_sha256=f"{ms}")
    return latency.Timed(replace(m, **changes), host)


def judged(old: latency.Timed, new: latency.Timed, limit: float | None = 0.03) -> Finding:
    return latency.two_runs("a", old, new, limit, SURE)


def test_two_runs_show_a_large_change_and_never_a_small_one() -> None:
    assert judged(timed(10.0), timed(14.0)).verdict == MISSED
    assert judged(timed(10.0), timed(10.3)).verdict == CANNOT_TELL
    assert judged(timed(10.0), timed(8.0)).verdict == MET
    assert judged(timed(10.0), timed(8.0), None).verdict == SHOWN


def test_the_interval_of_two_runs_holds_what_runs_differ_by_however_steady_each_is() -> None:
    rounds = tuple(i // 6 for i in range(60))
    steady = {"samples_ns": (10_000_000,) * 60, "rounds": rounds}
    slower = {"samples_ns": (10_200_000,) * 60, "rounds": rounds}
    f = judged(timed(1.0, **steady), timed(2.0, **slower), 0.0)
    assert f.verdict == CANNOT_TELL
    assert f.low is not None
    assert f.high is not None
    assert (f.high - f.low) / 2 == pytest.approx(1.96 * 2**0.5 * latency.RUN_TO_RUN, rel=0.05)


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("other-machine", {"host": "there"}),
        ("other-machine", {"device_info": {**MACHINE, "cpu_model": "AMD EPYC"}}),
        ("unknown-machine", {"device_info": {}}),
        ("other-settings", {"device_info": {**MACHINE, "governor": "powersave"}}),
        ("other-settings", {"device_info": {**MACHINE, "pinned_to": [1]}}),
        ("other-settings", {"threads": 4}),
        ("other-clock", {"round_mhz": (1500.0,) * 10}),
        ("unsteady", {"warnings": (Warning("throttled", "the board reported a capped clock"),)}),
        ("unsteady", {"warnings": (Warning("busy", "other programs used 1.5 cores", 1.5),)}),
        ("few-runs", {"samples_ns": (10_000_000, 10_000_001), "rounds": (0, 0)}),
    ],
)
def test_runs_that_are_not_alike_are_refused_with_the_reason(code: str, change: dict[str, Any]) -> None:
    old = timed(10.0, round_mhz=(2500.0,) * 10)
    f = judged(old, timed(11.0, **change))
    assert (f.verdict, f.how) == (REFUSED, code)


def test_the_same_file_in_the_same_runtime_is_as_fast_wherever_it_ran() -> None:
    f = judged(timed(artifact_sha256="1"), timed(12.0, "there", artifact_sha256="1"))
    assert (f.verdict, f.how) == (MET, "same-file")
    other = timed(12.0, "there", artifact_sha256="1", runtime_version="9")
    assert judged(timed(artifact_sha256="1"), other).how == "other-machine"


def test_disturbed_runs_count_on_both_sides_or_on_none() -> None:
    aside = {"disturbed_ns": (20_000_000,) * 150, "disturbed_rounds": tuple(i // 15 for i in range(150))}
    paces = {"pace_ns": (4600,) * 120, "disturbed_pace_ns": (9000,) * 150}
    assert judged(timed(10.0, **aside, **paces), timed(10.1)).old == pytest.approx(20.0)


def test_files_side_by_side_are_told_by_rounds_and_it_says_how_long_would_tell() -> None:
    f = planted.planted_latency(seed=1, slower=0.10, n_rounds=150)
    assert (f.verdict, f.how, f.n) == (MISSED, "rounds", 150)
    few = planted.planted_latency(seed=0, slower=0.03, n_rounds=20)
    assert few.verdict == CANNOT_TELL
    assert few.needed is not None
    assert 3 < few.needed < 3600
    none = planted.planted_latency(seed=0, slower=0.03, n_rounds=5)  # too few for an interval
    assert (none.verdict, none.high) == (CANNOT_TELL, None)
    assert none.needed is not None


def test_measurements_without_a_common_round_tell_nothing() -> None:
    a, b = timed().measurement, timed(20.0).measurement
    later = replace(b, rounds=tuple(r + 100 for r in b.rounds))
    assert latency.side_by_side("a", a, later, 0.0, SURE).verdict == CANNOT_TELL


def test_no_pair_of_recorded_runs_of_one_file_is_called_slower() -> None:
    for all_quiet in (False, True):
        found = [f for _, f in planted.two_runs(all_quiet=all_quiet)]
        assert len(found) == 42
        assert [f for f in found if f.verdict == MISSED] == []
    assert not [f for f in found if f.verdict == REFUSED]


def test_of_planted_losses_and_of_none_the_gate_is_wrong_in_less_than_5_of_100() -> None:
    none = [planted.planted_accuracy(seed, 0) for seed in range(planted.CASES)]
    lost = [planted.planted_accuracy(seed, planted.PLANTED) for seed in range(planted.CASES)]
    assert sum(f.verdict == MISSED for f in none) < 5
    assert sum(f.verdict != MISSED for f in lost) < 5


@pytest.mark.slow
@pytest.mark.parametrize(("slower", "is_wrong"), [(0.0, {MISSED}), (planted.SLOWER, {MET, CANNOT_TELL})])
def test_of_files_3_percent_slower_and_of_equal_ones_the_gate_is_wrong_in_less_than_5_of_100(
    slower: float, is_wrong: set[str]
) -> None:
    found = [planted.planted_latency(seed, slower).verdict for seed in range(planted.CASES)]
    assert sum(verdict in is_wrong for verdict in found) < 5


def test_a_measurement_of_nothing_is_refused() -> None:
    nothing = Measurement("a", "local", "litert", 1, (0, 0, 0), (0, 1, 2), device_info=MACHINE)
    assert judged(timed(), latency.Timed(nothing, "here")).verdict == REFUSED
