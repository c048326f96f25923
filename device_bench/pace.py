"""Which runs had the core to themselves, told by a fixed piece of work beside each: never by a run's own time.

A virtual core slows down for milliseconds or minutes, by a half and more, when another guest computes on the same
physical one, and no counter says so: the CPU time is spent, none is stolen. So runner.py takes a checksum of 16 KiB,
some 5 microseconds, between runs; three times, as the first finds the caches as inference left them. On a virtual
machine a run counts if the fastest was about as fast as it gets on both sides of the run; the others are set aside, and
kept. What sorts runs is not what is measured: a median of those that count is
that of a core to oneself, not that of the lucky ones. On a machine of one's own every run counts, as its clock and its
load can be read.
"""

from collections.abc import Sequence

import numpy as np

_TOLERANCE = 0.10  # the clock alone moves the pace by some per cent; another guest does by 20 % and more
_FREAKS = 2  # paces that may be faster than the full one


def pace_limit_ns(pace_ns: Sequence[int], least: int = 1) -> int:
    """Return the slowest pace with which a run counts; 0, which counts all, where no pace is known.

    Args:
        pace_ns: the slower pace on either side of each run, nanoseconds.
        least: so many runs count in any case, those least disturbed.
    """
    if not len(pace_ns):
        return 0
    paces = np.sort(np.asarray(pace_ns, float))
    last = len(paces) - 1
    return int(max(paces[min(_FREAKS, last)] * (1 + _TOLERANCE), paces[min(least - 1, last)]))


def is_rarely_calm(pace_ns: Sequence[int], least: int) -> bool:
    """Tell whether fewer than `least` runs, of more, had the core to themselves."""
    limit_ns = pace_limit_ns(pace_ns)
    return sum(p <= limit_ns for p in pace_ns) < min(least, len(pace_ns))
