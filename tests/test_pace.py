"""device_bench/pace.py: which runs count."""

import numpy as np

from edgenet.device_bench.pace import is_rarely_calm, pace_limit_ns


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
