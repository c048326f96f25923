"""Observe every activation on the calibration pictures, and choose the range that it is quantized with.

This takes one pass and keeps a histogram and a few numbers for each tensor. A histogram's bins are a power of two wide
and meet at zero; when a larger value comes, neighbours are merged, which loses nothing.
"""

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from edgenet.calibration.alike import Pictures, best_range, histogram
from edgenet.calibration.execute import activations
from edgenet.errors import InputError
from edgenet.export.graph import Graph

BINS = 4096  # half of them below zero
SAMPLES = 16384  # numbers of a tensor that one picture puts into its histogram; extremes are always exact
WIDE, BLOCK = 2048, 2**16  # numbers that are compared, and looked at, at one time
LEVELS = 255  # steps of an int8 activation
PERCENTILE = 99.99
MOMENTUM = 0.9  # of the moving average, as tf.quantization's observers have it for short calibrations
WORTH = 0.9  # "auto" cuts a range only where this part of the error, or less, is left
# Below this the operator gives zero: exactly, or (GELU) nearer than half a step of any output that reaches 2.
FLAT_BELOW = {"HARD_SWISH": -3.0, "GELU": -3.0}
HEADROOM = 1.1  # and leaves so much more, since pictures that were not seen go further than those that were
# Most of 16 bits' 65,536 levels are for values that go beyond what was seen: to cut one off costs a picture all that it
# has (of 400 flowers two had values of four times the calibration's). The median picture is the measure, since in some
# networks one picture in a hundred reaches a hundred times as far as the others: eight times that would be coarse.
WIDE_OF_ALL, WIDE_OF_MEDIAN = 2.0, 12.0


@dataclass
class Observation:
    """The values of one activation over the calibration pictures."""

    low: np.ndarray  # (C,) of each channel
    high: np.ndarray  # (C,)
    picture_low: list[float] = field(default_factory=list)  # one a picture, in order
    picture_high: list[float] = field(default_factory=list)
    pictures: list[tuple[np.ndarray, float, int]] = field(default_factory=list)  # a histogram of each: alike.histogram
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    zeros: int = 0  # how many of the counted numbers are exactly zero
    width: float = 0.0  # of a bin; bin i begins at (i - BINS / 2) * width

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest value seen."""
        return float(self.low.min()), float(self.high.max())

    @property
    def centres(self) -> np.ndarray:
        """The middle of each bin, (BINS,), held within what was seen."""
        return np.clip((np.arange(BINS) - BINS / 2 + 0.5) * self.width, *self.range)

    def histogram(self, bins: int = 64) -> tuple[np.ndarray, np.ndarray]:
        """Return counts (bins,) and edges (bins + 1,) over the range that was seen, for a figure."""
        low, high = self.range
        counts, edges = np.histogram(self.centres, bins, (low, high if high > low else low + 1), weights=self.counts)
        return counts.astype(np.int64), edges

    def see(self, x: np.ndarray) -> None:
        """Take in one picture's activation, (1, ..., C) float32."""
        rows = x.reshape(-1, x.shape[-1])
        low, high = channel_ends(rows)
        every = max(1, rows.size // SAMPLES)
        some = rows[len(self.picture_low) % every :: every] if every < len(rows) else rows
        some = np.ascontiguousarray(some).ravel()
        np.minimum(self.low, low, out=self.low)
        np.maximum(self.high, high, out=self.high)
        self.picture_low.append(float(low.min()))
        self.picture_high.append(float(high.max()))
        if np.isfinite(self.picture_low[-1] + self.picture_high[-1]):  # if not, the caller names the tensor
            self.pictures.append(histogram(some))
            self.zeros += self.pictures[-1][2]
            self._count(some, max(-self.picture_low[-1], self.picture_high[-1]))

    def _count(self, x: np.ndarray, peak: float) -> None:
        needed = 2.0 ** np.ceil(np.log2(max(peak, 1e-30) * (1 + 1e-6) / (BINS / 2)))
        if self.width == 0:
            self.width = float(needed)
        while self.width < needed:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(pairs, BINS // 4)
            self.width *= 2
        place = x * np.float32(1 / self.width)
        index = np.floor(place, out=place).astype(np.intp)
        index += BINS // 2
        self.counts += np.bincount(np.clip(index, 0, BINS - 1, out=index), minlength=BINS)


def observe(
    graph: Graph, inputs: Iterable[np.ndarray], threads: int | None = None, names: Collection[str] | None = None
) -> dict[str, Observation]:
    """Return the observed values of the float activations, by tensor name.

    Args:
        inputs: what the graph takes, one picture each: (1, H, W, 3) float32, normalised. Read once, not kept.
        names: of the activations, beside the inputs; all by default.

    Raises:
        InputError: an activation is not a finite number, or there was no picture.
    """
    fed = [n for n in graph.inputs if graph.tensors[n].dtype == "float32"]
    computed = [n for n in graph.activations() if n not in graph.inputs and graph.tensors[n].dtype == "float32"]
    names = computed if names is None else [n for n in computed if n in names]
    channels = {n: (graph.tensors[n].shape or (1,))[-1] for n in (*fed, *names)}
    seen = {
        n: Observation(np.full(c, np.inf, np.float32), np.full(c, -np.inf, np.float32)) for n, c in channels.items()
    }
    n = 0
    for i, made in activations(graph, (*fed, *names), inputs, threads or os.cpu_count() or 1):
        n = i + 1
        for name, activation in made.items():
            seen[name].see(activation)
    check_finite({name: o.range for name, o in seen.items()}, n)
    return seen


def check_finite(ranges: Mapping[str, tuple[float, float]], pictures: int) -> None:
    """Raise InputError where no picture was seen, or an activation's (low, high) are not finite numbers."""
    if not pictures:
        raise InputError("no picture to calibrate with: give a folder of photographs with --images")
    bad = [name for name, ends in ranges.items() if not np.isfinite(sum(ends))]
    if bad:
        raise InputError(f"{bad[0]} is not a finite number on the calibration pictures: are the weights whole?")


def channel_ends(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the largest number of each channel of (n, C), (C,) each."""
    n, channels = rows.shape
    together = max(1, WIDE // channels)  # NumPy is slow where rows are short: so many are one row at first
    step = together * max(1, BLOCK // (together * channels))
    whole = n - n % together
    lows, highs = [], []
    for start in range(0, whole, step):  # which a processor's cache holds for both
        block = rows[start : min(start + step, whole)].reshape(-1, together * channels)
        lows.append(block.min(0))
        highs.append(block.max(0))
    low, high = (np.stack(e).reshape(-1, channels) for e in (lows, highs)) if lows else (rows[:0], rows[:0])
    rest = rows[whole:]
    return np.concatenate([low, rest]).min(0), np.concatenate([high, rest]).max(0)


def measure_ranges(
    graph: Graph, inputs: Iterable[np.ndarray], threads: int | None = None, method: str = "min-max"
) -> dict[str, tuple[float, float]]:
    """Return (low, high) of every float activation, by tensor name: `observe`, then `choose_ranges`."""
    _known(method)
    return choose_ranges(observe(graph, inputs, threads), method)


def choose_ranges(observations: Mapping[str, Observation], method: str = "min-max") -> dict[str, tuple[float, float]]:
    """Return the range (low, high) that each activation is quantized with.

    Args:
        method: one of METHODS, or "auto": the range with the least squared error of int8, and a tenth more, where
            cutting brings something; everything that was seen elsewhere.

    Raises:
        InputError: unknown method.
    """
    choose = _known(method)
    return {name: choose(o) for name, o in observations.items()}


def wide_range(o: Observation) -> tuple[float, float]:
    """Return the range that 16 bits cover: twice what was seen, and twelve times what the median picture reaches."""
    peaks = np.maximum(-np.array(o.picture_low), np.array(o.picture_high))
    most = float(peaks.max(initial=0))
    wider = max(WIDE_OF_ALL, WIDE_OF_MEDIAN * float(np.median(peaks)) / most) if most > 0 else WIDE_OF_ALL
    low, high = o.range
    return wider * low, wider * high


def without_flat_tails(graph: Graph, ranges: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Return narrower ranges of what is read only where everything below a bound becomes zero (FLAT_BELOW).

    The convolution before a hard-swish may reach -50, of which no level tells anything behind it.
    """
    consumers = graph.consumers()
    found = {}
    for name, (low, high) in ranges.items():
        readers = {graph.ops[i].kind for i in consumers.get(name, ())}
        if readers and readers <= set(FLAT_BELOW) and name not in graph.outputs:
            found[name] = max(low, min(FLAT_BELOW[kind] for kind in readers)), max(high, 0.0)
    return found


def _known(method: str) -> Callable[[Observation], tuple[float, float]]:
    methods = {**METHODS, "auto": _auto}
    if method not in methods:
        raise InputError(f"unknown calibration method '{method}' (valid: {', '.join(methods)})")
    return methods[method]


def squared_error(o: Observation, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the mean squared error of int8 with each range (low, high), (K,): step^2 / 12 within, the cut outside.

    Exact zeros cost nothing: zero is always one of the levels.
    """
    low, high = np.minimum(np.asarray(low, float), 0), np.maximum(np.asarray(high, float), 0)
    x, n = o.centres, o.counts.astype(float)
    sums = [np.concatenate([[0.0], np.cumsum(n * x**k)]) for k in range(3)]
    first, last = np.searchsorted(x, low, "left"), np.searchsorted(x, high, "right")
    below = sums[2][first] - 2 * low * sums[1][first] + low**2 * sums[0][first]
    above = [s[-1] - s[last] for s in sums]
    cut = below + above[2] - 2 * high * above[1] + high**2 * above[0]
    within = np.maximum(sums[0][last] - sums[0][first] - o.zeros, 0)
    return (((high - low) / LEVELS) ** 2 / 12 * within + cut) / max(n.sum(), 1)


def _min_max(o: Observation) -> tuple[float, float]:
    return o.range


def _moving_average(o: Observation) -> tuple[float, float]:
    low, high = o.picture_low[0], o.picture_high[0]
    for a, b in zip(o.picture_low[1:], o.picture_high[1:], strict=True):
        low, high = MOMENTUM * low + (1 - MOMENTUM) * a, MOMENTUM * high + (1 - MOMENTUM) * b
    return low, high


def _percentile(o: Observation) -> tuple[float, float]:
    """The middle 99.99 % (a tail of half of the rest on each side, none on a side where nothing but zeros lies)."""
    total = np.cumsum(o.counts) / max(o.counts.sum(), 1)
    tail = (1 - PERCENTILE / 100) / 2
    low, high = o.centres[np.searchsorted(total, tail, "right")], o.centres[np.searchsorted(total, 1 - tail, "left")]
    return float(min(low, 0.0) if o.range[0] < 0 else o.range[0]), float(
        max(high, 0.0) if o.range[1] > 0 else o.range[1]
    )


def _mse(o: Observation) -> tuple[float, float]:
    """The least squared error over 64 cuts of either side."""
    low, high = o.range
    part = np.linspace(1, 1 / 64, 64)
    lows, highs = np.meshgrid(low * part if low < 0 else np.array([low]), high * part if high > 0 else np.array([high]))
    best = int(np.argmin(squared_error(o, lows.ravel(), highs.ravel())))
    return float(lows.ravel()[best]), float(highs.ravel()[best])


def _entropy(o: Observation) -> tuple[float, float]:
    """The least Kullback-Leibler divergence of the histogram from its 8-bit self, as TensorRT's calibrator has it.

    One threshold for the magnitude cuts both ends: 8-bit inference with TensorRT, Migacz, GTC 2017.
    """
    low, high = o.range
    if not low < high:
        return low, high
    thresholds = max(-low, high) * np.linspace(1, 1 / 128, 128)
    ranges = [(max(low, -t), min(high, t)) for t in thresholds.tolist()]
    return ranges[int(np.argmin([_divergence(o, *r) for r in ranges]))]


def _divergence(o: Observation, low: float, high: float) -> float:
    x, counts = o.centres, o.counts.copy()
    counts[BINS // 2] -= o.zeros  # they are stored exactly, whatever the range; below a ReLU they would drown the rest
    inside = (x >= low) & (x <= high)
    if inside.sum() < 2:
        return np.inf
    kept = counts[inside].astype(float)
    p = kept.copy()
    p[0] += counts[x < low].sum()  # what is cut piles up at the ends of the real distribution, not of the stored one
    p[-1] += counts[x > high].sum()
    level = np.minimum(((x[inside] - low) / (high - low) * LEVELS).astype(int), LEVELS - 1)
    filled = kept > 0
    total = np.bincount(level, kept, LEVELS)
    bins = np.bincount(level, filled, LEVELS)
    q = np.where(filled, total[level] / np.maximum(bins[level], 1), 0.0)
    p, q = p / max(p.sum(), 1.0), q / max(q.sum(), 1e-300)
    at = p > 0
    return float(np.sum(p[at] * np.log(p[at] / np.maximum(q[at], 1e-12))))


METHODS: dict[str, Callable[[Observation], tuple[float, float]]] = {
    "min-max": _min_max,
    "moving-average": _moving_average,
    "percentile": _percentile,
    "mse": _mse,
    "entropy": _entropy,
}


def _auto(o: Observation) -> tuple[float, float]:
    low, high = o.range
    *cut, saved = best_range(Pictures.joined(o.pictures), low, high)
    if saved < -np.log(WORTH):
        return low, high
    return max(low, HEADROOM * cut[0]), min(high, HEADROOM * cut[1])
