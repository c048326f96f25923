"""A clock that only the tests move, and something to time that takes as long by it as it is told to."""

import math

import numpy as np

from edgenet.device_bench.worker import Burst
from edgenet.errors import DeviceError

MS = 1_000_000


class FakeClock:
    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now


class FakeSubject:
    """Takes `latency_ns(i)` for its i-th run, beside which the pace is `pace_ns(i)`; fails on run `fails_at`."""

    def __init__(self, clock, latency_ns, fails_at=math.inf, log=None, name="", pace_ns=None):
        self.clock, self.latency_ns, self.fails_at, self.log, self.name = clock, latency_ns, fails_at, log, name
        self.pace_ns = pace_ns
        self.n = 0

    def _once(self):
        if self.n >= self.fails_at:
            raise DeviceError("its process was killed by SIGSEGV")
        ns = int(self.latency_ns(self.n))
        self.n += 1
        self.clock.now += ns
        return ns

    def run(self, runs, time_ns=0, *, lead_ns=0, limit_ns=None, pace_limit_ns=None, patience_ns=0):
        if self.log is not None:
            self.log.append(self.name)
        lead, start, samples, paces = 0, self.clock(), [], []
        while lead_ns and (lead == 0 or self.clock() - start < lead_ns):
            self._once()
            lead += 1
        start = self.clock()
        while True:
            paces += [int(self.pace_ns(self.n))] if self.pace_ns and pace_limit_ns is not None else []
            samples.append(self._once())
            passed = self.clock() - start
            enough = len(samples) >= runs and passed >= time_ns
            counted = sum(p <= pace_limit_ns for p in paces) if pace_limit_ns else runs
            calm = counted >= runs or passed >= time_ns + patience_ns
            if (limit_ns is not None and passed >= limit_ns) or (enough and calm):
                return Burst(tuple(samples), lead, tuple(paces))


def steady(ms):
    return lambda i: ms * MS


def noisy(ms, seed, sigma=0.05):
    factors = np.exp(np.random.default_rng(seed).normal(0, sigma, 4096))
    return lambda i: ms * MS * factors[i % 4096]
