"""GPTQ: round a network's weights so that the outputs of its layers change least.

The layers are rounded in the order they run, each in the network as it is quantized so far, in three steps:

    reconstruction    the weights move a little, so that they give the float network's output from the quantized
                      network's input: this makes good what the layers before did wrong
    feedback          each rounding error is made good by the weights of the same output channel that are not rounded
                      yet, according to the covariance of the layer's inputs (GPTQ, https://arxiv.org/abs/2210.17323)
    bias correction   the bias takes back what is left of the mean (https://arxiv.org/abs/1906.04721, section 4.2)

Unlabelled pictures, closed form, no random numbers: the same pictures always give the same integers.
"""

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from threadpoolctl import threadpool_limits

from edgenet.calibration.alike import mean_square, weighted_mean, weights_of
from edgenet.calibration.quantize import (
    FEW_BITS,
    UNROUNDED,
    Weight,
    adds_in_pairs,
    constant_weights,
    pair_scale,
    quantize,
    share_pairs,
    weight_scale,
)
from edgenet.calibration.streams import Streams, both
from edgenet.errors import InputError
from edgenet.export.graph import WEIGHT_AXIS, Graph, Op, Quantization
from edgenet.results import Calibration
from edgenet.targets import PAIR_LIMIT

DAMPING = 0.3  # of the mean variance, added to each input's: more than GPTQ's 0.01, since pictures are few
PULL = 30.0  # the same, for reconstruction: where the search for each layer's own begins
PULLS = (0.03, 0.3, 3.0, PULL, 300.0, 3000.0)
PULL_ROWS = 128  # output channels that the search uses, at most
SAMPLES = 8192  # positions that a layer's covariance is computed from, at least
SAMPLES_PER_INPUT = 8
GROUP_SAMPLES = 512  # the same, where a channel has inputs of its own: a depthwise kernel has 9 or 25
# (more do not change lite0's 24.6 dB or lite1's 24.0 dB by 0.1)
CLIPS = np.linspace(1, 0.4, 25)  # parts of the largest weight of a channel that few bits may reach to
PARTS = 2  # threads' shares of the covariance of half of the pictures
MOST_IMAGES = 100  # pictures that weights are corrected with
MAX_BYTES = 2**31  # for the activations that are kept at one time
WHOLE_INPUTS = 4608  # of one output: a layer with more has no covariance of all, which would take gigabytes
PART_INPUTS = 1024  # but of so many at a time; even, because inputs may share a limit in pairs


@dataclass(frozen=True)
class _Moments:
    """What a layer reads and makes, in the float network and in the quantized one.

    G groups: one of a convolution or a dense layer, one a channel of a depthwise one. R outputs a group, T taps times
    input channels a group.
    """

    mean: np.ndarray  # (G, T) of the quantized network's input
    float_mean: np.ndarray  # (G, T)
    halves: np.ndarray  # (H, G, T, T): covariance over each half of the pictures; H is 1 where there is one picture
    cross: np.ndarray  # (H, G, R, T): of the float network's output with the quantized one's input

    @functools.cached_property
    def covariance(self) -> np.ndarray:
        """(G, T, T) over all pictures."""
        return self.halves.mean(0)


@dataclass(frozen=True)
class Rounding:
    """What the weights are rounded to, and which of the three steps are taken.

    Attributes:
        bits: of the weights, 2 to 8; or by the name of the operator's output, 8 for those that it leaves out.
        precision: "int8" or "int16x8": what the activations are rounded to; "weight-only": not at all.
        exceptions: the precision of single operators, as `quantize` takes them.
        feedback: second-order; without it each weight is rounded to the nearest integer.
        bias_correction: of the mean of each output channel.
        reconstruction: move the weights towards the float output first.
        in_pairs: the weights of two inputs whose products a kernel adds in 16 bits share PAIR_LIMIT; `bits` then holds
            for the layers where it is not known which products are added first.

    Raises:
        InputError: bits out of range.
    """

    bits: int | Mapping[str, int] = 8
    precision: str = "int8"
    exceptions: Mapping[str, str] = field(default_factory=dict)
    feedback: bool = True
    bias_correction: bool = True
    reconstruction: bool = True
    in_pairs: bool = False

    def __post_init__(self) -> None:
        for b in self.bits.values() if isinstance(self.bits, Mapping) else (self.bits,):
            if not 2 <= b <= 8:
                raise InputError(f"weights can have 2 to 8 bits, not {b}")

    def bits_of(self, output: str) -> int:
        """Return the bits of the weights of the operator with this output."""
        return self.bits.get(output, 8) if isinstance(self.bits, Mapping) else self.bits


def gptq_weights(
    graph: Graph,
    inputs: Iterable[np.ndarray],
    calibration: Calibration,
    rounding: Rounding = Rounding(),
    *,
    images: int = MOST_IMAGES,
    max_bytes: int = MAX_BYTES,
    threads: int | None = None,
) -> dict[str, Weight]:
    """Return the weights of every operator that rounds some, by the name of its output, for `quantize(weights=...)`.

    Args:
        graph: float operators.
        inputs: what the graph takes, one picture each: (1, H, W, 3) float32, normalised. The first `images` are used,
            or fewer where the activations would need more than `max_bytes`.
        calibration: ranges of every activation.

    Raises:
        InputError: no picture.
    """
    grid = _grid(graph, calibration, rounding)
    pictures = [x for x, _ in zip(inputs, range(pictures_that_fit(graph, images, max_bytes)), strict=False)]
    if not pictures:
        raise InputError("no picture to calibrate with: give a folder of photographs with --images")
    run = Streams(graph, grid, pictures, threads or os.cpu_count() or 1)
    weights = {}
    # A factorization in several threads adds in another order, so that the integers would depend on the machine's
    # cores; and the threads wait for each other, busily: three times the processor time.
    with threadpool_limits(1, "blas"):
        for op in graph.ops:
            w = constant_weights(graph, op)
            if w is not None and rounding.exceptions.get(op.outputs[0]) not in UNROUNDED:
                weights[op.outputs[0]] = _layer(graph, op, w, functools.partial(_moments, run, op, w), rounding)
            run.advance(op, weights.get(op.outputs[0]))
    return weights


def pictures_that_fit(graph: Graph, images: int = MOST_IMAGES, max_bytes: int = MAX_BYTES) -> int:
    """Return how many of `images` pictures the weights of `graph` are corrected with."""
    most = max(2 * 5 * int(np.prod(graph.tensors[n].shape)) for n in graph.activations())
    return max(1, min(images, max_bytes // most))


def corrected_in_parts(graph: Graph) -> tuple[str, ...]:
    """Return the layers, by their outputs, that have too many inputs to be corrected by the covariance of all."""
    found = ((op, constant_weights(graph, op)) for op in graph.ops)
    return tuple(
        op.outputs[0] for op, w in found if w is not None and len(_parts(w.size // w.shape[WEIGHT_AXIS[op.kind]])) > 1
    )


def _grid(graph: Graph, calibration: Calibration, rounding: Rounding) -> dict[str, tuple[str, Quantization]]:
    """Return integer type and scale of each activation that `quantize` stores as integers."""
    if rounding.precision == "weight-only":
        return {}
    stored = quantize(graph, rounding.precision, calibration, exceptions=rounding.exceptions).tensors
    fed = {n: stored.get(f"{n}_int8") or stored.get(f"{n}_int16") for n in graph.inputs}
    found = {n: fed.get(n) or stored[n] for n in graph.activations() if n in stored}
    return {n: (t.dtype, t.quantization) for n, t in found.items() if t.quantization is not None}


def _moments(run: Streams, op: Op, w: np.ndarray, part: slice) -> _Moments:
    """Return the moments of those inputs of each output that `part` picks."""
    run.catch_up()
    name = str(op.inputs[0])
    shape = run.graph.tensors[name].shape
    groups = shape[-1] if op.kind == "DEPTHWISE_CONV_2D" else shape[-1] // w.shape[-1]
    geometry, rows = _Geometry.of(op, w.shape, shape), _rows(op, w, groups)[:, :, part]
    wanted = GROUP_SAMPLES if groups > 1 else max(SAMPLES, SAMPLES_PER_INPUT * rows.shape[2])
    every = max(1, run.pictures * geometry.positions // wanted)
    pairs = zip(run.float[name], run.stored[name], strict=True)
    weights = weights_of(np.array([mean_square(x - run.real(name, xq)) for x, xq in pairs]))
    roots = np.sqrt(weights)
    mean, float_mean = (
        _grouped(geometry.means(x)[None], groups)[:, 0, part]
        for x in both(lambda: run.mean_real(name, weights), lambda: weighted_mean(run.float[name], weights))
    )
    zero = float(run.grid[name][1].zero_point[0]) if name in run.grid else 0.0

    def samples(picture: int) -> tuple[np.ndarray, np.ndarray]:
        """(G, n, T) of the float network and of the quantized one, less their means."""
        picked = np.arange(picture % every, geometry.positions, every)  # each picture starts elsewhere
        x = geometry.patches(run.float[name][picture], picked)
        xq = run.real(name, geometry.patches(run.stored[name][picture], picked, zero))
        x, xq = (_grouped(a, groups)[:, :, part] for a in (x, xq))
        return (x - float_mean[:, None]) * roots[picture], (xq - mean[:, None]) * roots[picture]

    def sums(pictures: np.ndarray) -> tuple[np.ndarray, ...]:
        x, xq = (np.concatenate(s, axis=1) for s in zip(*map(samples, pictures), strict=True))
        y = x @ rows.transpose(0, 2, 1)
        n = np.array(x.shape[1] * weights[pictures].mean())
        found = n, xq.transpose(0, 2, 1) @ xq, y.transpose(0, 2, 1) @ xq
        return tuple(a.astype(np.float64) for a in found)

    halves = []
    with ThreadPoolExecutor(run.threads) as pool:
        for half in np.array_split(np.arange(run.pictures), min(run.pictures, 2)):
            # Of many small matrices one picture's fit the cache, and all pictures' would not.
            parts = np.array_split(half, min(len(half), PARTS) if groups == 1 else len(half))
            halves.append(functools.reduce(_add, pool.map(sums, parts)))
    own, cross = (np.stack([s[i] / s[0] for s in halves]) for i in (1, 2))
    return _Moments(mean, float_mean, own, cross)


def _add(a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _rows(op: Op, w: np.ndarray, groups: int) -> np.ndarray:
    """Return the weights as (G, R, T)."""
    axis = WEIGHT_AXIS[op.kind]
    return np.moveaxis(w, axis, 0).reshape(groups, w.shape[axis] // groups, -1)


def _grouped(patches: np.ndarray, groups: int) -> np.ndarray:
    """(n, taps, C) -> (G, n, taps * C / G); a depthwise kernel has a group a channel."""
    n, taps, channels = patches.shape
    if groups == 1:
        return patches.reshape(1, n, -1)
    first = np.ascontiguousarray(patches.reshape(-1, channels).T)  # many small strides are slow: move one axis only
    return first.reshape(groups, channels // groups, n, taps).transpose(0, 2, 3, 1).reshape(groups, n, -1)


@dataclass(frozen=True)
class _Geometry:
    """Which inputs each output position of a convolution reads; a dense layer is one of 1 x 1 over its rows."""

    size: tuple[int, int]  # of the input
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads: tuple[tuple[int, int], tuple[int, int]]  # ((top, bottom), (left, right))
    out: tuple[int, int]

    @classmethod
    def of(cls, op: Op, weights: tuple[int, ...], shape: tuple[int, ...]) -> "_Geometry":
        if op.kind == "FULLY_CONNECTED":
            row = (1, int(np.prod(shape[:-1])))
            return cls(row, (1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), row)
        size, kernel, window = (shape[1], shape[2]), (weights[1], weights[2]), op.window
        pads, out = window.pads(size, kernel), window.output_size(size, kernel)
        return cls(size, kernel, window.strides, window.dilations, pads, out)

    @property
    def positions(self) -> int:
        return self.out[0] * self.out[1]

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1]

    def patches(self, x: np.ndarray, picked: np.ndarray, pad: float = 0) -> np.ndarray:
        """Return (n, taps, C) of one picture x: (..., C) at the picked positions, `pad` where they lie outside."""
        height, width = self.size
        x = x.reshape(height, width, -1)
        tap = np.arange(self.taps)
        rows = self._reads(0, picked // self.out[1], tap // self.kernel[1])  # (n, taps)
        columns = self._reads(1, picked % self.out[1], tap % self.kernel[1])
        found = x[rows.clip(0, height - 1), columns.clip(0, width - 1)]
        found[(rows < 0) | (rows >= height) | (columns < 0) | (columns >= width)] = pad
        return found

    def _reads(self, axis: int, position: np.ndarray, tap: np.ndarray) -> np.ndarray:
        return position[:, None] * self.stride[axis] + tap * self.dilation[axis] - self.pads[axis][0]

    def means(self, x: np.ndarray) -> np.ndarray:
        """Return (taps, C): what each tap reads of x, (..., C), in the mean over all positions."""
        padded = np.pad(x.reshape(*self.size, -1), (*self.pads, (0, 0)))
        (down, across), (height, width) = self.stride, self.out
        corners = [(i * self.dilation[0], j * self.dilation[1]) for i, j in np.ndindex(self.kernel)]
        return np.stack(
            [padded[i : i + height * down : down, j : j + width * across : across].mean((0, 1)) for i, j in corners]
        )


def _parts(inputs: int) -> list[slice]:
    """Return which inputs of an output are corrected together: all, or where they are too many some at a time."""
    if inputs <= WHOLE_INPUTS:
        return [slice(0, inputs)]
    return [slice(start, min(start + PART_INPUTS, inputs)) for start in range(0, inputs, PART_INPUTS)]


def _layer(graph: Graph, op: Op, w: np.ndarray, moments: Callable[[slice], _Moments], rounding: Rounding) -> Weight:
    bits = rounding.bits_of(op.outputs[0])
    axis, limit = WEIGHT_AXIS[op.kind], 2 ** (bits - 1) - 1
    channels = w.shape[axis]
    parts = _parts(w.size // channels)
    of = functools.lru_cache(1)(lambda part: moments(parts[part]))  # one part is computed once; of many, none is kept
    groups = len(of(0).mean)
    grouped = _rows(op, w, groups).astype(np.float64)
    target = np.zeros(grouped.shape[:2])
    for i, part in enumerate(parts):
        target += np.einsum("grt,gt->gr", grouped[:, :, part], of(i).float_mean)
        if rounding.reconstruction:
            grouped[:, :, part] = _towards_float(grouped[:, :, part], of(i))
    rows = grouped.reshape(channels, -1)
    in_pairs = rounding.in_pairs and adds_in_pairs(op.kind, w.shape) and groups == 1
    if in_pairs:
        scale, limit = pair_scale(rows), 127
    elif bits <= FEW_BITS:
        heard = np.concatenate([np.diagonal(of(i).covariance, axis1=1, axis2=2) for i in range(len(parts))], -1)
        scale = _scale_of_few(rows, np.repeat(heard, channels // groups, 0), bits)
    else:
        scale = weight_scale(rows, 0, bits)
    s = scale.astype(np.float64).reshape(grouped.shape[:2])
    q, made = np.empty_like(grouped), np.zeros_like(target)
    for i, part in enumerate(parts):
        if rounding.feedback:
            q[:, :, part] = _round_in_turn(grouped[:, :, part], s, of(i).covariance, limit, in_pairs)
        else:
            q[:, :, part] = np.clip(np.rint(grouped[:, :, part] / s[..., None]), -limit, limit)
            if in_pairs:
                q[:, :, part] = share_pairs(q[:, :, part])
        made += np.einsum("grt,gt->gr", q[:, :, part] * s[..., None], of(i).mean)
    stored = op.inputs[2] if len(op.inputs) > 2 else None
    bias = None
    if rounding.bias_correction and stored is not None:
        before = graph.constant(stored)
        assert before is not None  # its weights are constants, or it would not be rounded
        bias = (before + (target - made).reshape(-1)).astype(np.float32)
    shape = (channels, *(n for i, n in enumerate(w.shape) if i != axis))
    values = np.moveaxis(q.reshape(shape), 0, axis).astype(np.int8)
    return Weight(np.ascontiguousarray(values), scale, axis, bias, bits)


def _scale_of_few(rows: np.ndarray, variance: np.ndarray, bits: int) -> np.ndarray:
    """Return the scale of each row, (C,) float32, whose rounding errors change its output least.

    With few bits it is worth clipping the largest weights, so that the steps of all others are finer.

    rows: (C, T). variance: (C, T) of what each weight is multiplied by.
    """
    limit, peak = 2 ** (bits - 1) - 1, np.maximum(np.abs(rows).max(-1), 1e-10)
    best, least = peak / limit, np.full(len(rows), np.inf)
    for part in CLIPS:
        scale = peak * part / limit
        q = np.clip(np.rint(rows / scale[:, None]), -limit, limit) * scale[:, None]
        lost = ((rows - q) ** 2 * variance).sum(-1)
        best, least = np.where(lost < least, scale, best), np.minimum(lost, least)
    found: np.ndarray = best.astype(np.float32)
    return found


def _towards_float(w: np.ndarray, m: _Moments) -> np.ndarray:
    """Return the weights that give the float output from the quantized input, by least squares pulled towards `w`.

    w: (G, R, T). Minimises |w x - v xq|^2 + pull |v - w|^2: v = w + (cov(w x, xq) - w cov(xq)) (cov(xq) + pull)^-1.
    """
    missing = m.cross - w @ m.halves
    return w + _ridge(m.covariance, missing.mean(0), _pull(m.halves, missing))


def _ridge(covariance: np.ndarray, missing: np.ndarray, pull: float) -> np.ndarray:
    """Return missing (covariance + pull)^-1, (G, R, T); pull is in mean variances."""
    size = covariance.shape[-1]
    added = pull * np.trace(covariance, axis1=1, axis2=2) / size + 1e-12
    regular = covariance + added[:, None, None] * np.eye(size, dtype=covariance.dtype)
    return np.linalg.solve(regular, missing.transpose(0, 2, 1)).transpose(0, 2, 1)


def _pull(halves: np.ndarray, missing: np.ndarray) -> float:
    """Return the pull for all pictures, by cross-validation: fitted on one half, it helps the other half most.

    halves: (H, G, T, T). missing: (H, G, R, T). With too little pull the weights overfit the pictures. The result is
    half of the halves' best one, since all pictures are twice as many.
    """
    if len(halves) == 1:
        return PULL
    halves = halves.astype(np.float32)
    missing = missing[:, :, :: -(-missing.shape[2] // PULL_ROWS)].astype(np.float32)

    def lost_by(fit: int, held: int, pull: float) -> float:
        moved = _ridge(halves[fit], missing[fit], pull)
        return float(((moved @ halves[held] - 2 * missing[held]) * moved).sum(dtype=np.float64))

    @functools.cache
    def lost(i: int) -> float:
        return sum(both(lambda: lost_by(0, 1, PULLS[i]), lambda: lost_by(1, 0, PULLS[i])))

    best = PULLS.index(PULL)
    way = 1 if lost(best + 1) < lost(best) else -1
    while 0 <= best + way < len(PULLS) and lost(best + way) < lost(best):
        best += way
    return PULLS[best] / 2


def _round_in_turn(
    w: np.ndarray,
    scale: np.ndarray,
    covariance: np.ndarray,
    limit: int,
    in_pairs: bool = False,
    block: int = 64,
    damping: float = DAMPING,
) -> np.ndarray:
    """Return integers (G, R, T), rounded one input after another, the largest variance first.

    w: (G, R, T). scale: (G, R). covariance: (G, T, T) of the layer's inputs. in_pairs: the magnitudes of inputs 2i and
    2i + 1 share PAIR_LIMIT (for one group).
    """
    size = w.shape[2]
    variance = np.diagonal(covariance, axis1=1, axis2=2)  # (G, T)
    order = np.argsort(variance, axis=1, kind="stable")
    h = np.take_along_axis(np.take_along_axis(covariance, order[:, :, None], 1), order[:, None, :], 2)
    added = damping * variance.mean(1) + 1e-12
    # With h = f f', the error |f' (w - v)|^2 of rounded weights v is a sum of one term an input, each of which depends
    # on the inputs after it only: they are fixed from the last to the first. This is GPTQ's order and result.
    f = np.linalg.cholesky(h + added[:, None, None] * np.eye(size))
    f /= np.diagonal(f, axis1=1, axis2=2)[:, None, :].copy()
    v = np.take_along_axis(w, order[:, None, :], 2).transpose(0, 2, 1).copy()  # (G, T, R)
    q, error = np.empty_like(v), np.empty_like(v)
    partner = np.argsort(order[0])[order[0] ^ 1] if in_pairs else None
    room = np.full_like(v if in_pairs else v[:, :1], limit)
    for stop in range(size, 0, -block):
        start = max(stop - block, 0)
        made_good = f[:, stop:, start:stop].transpose(0, 2, 1) @ error[:, stop:]
        for i in range(stop - 1, start - 1, -1):
            most = room[:, i if in_pairs else 0]
            q[:, i] = np.clip(np.rint((v[:, i] + made_good[:, i - start]) / scale), -most, most)
            if partner is not None:
                room[:, partner[i]] = np.minimum(limit, PAIR_LIMIT - np.abs(q[:, i]))
            error[:, i] = v[:, i] - q[:, i] * scale
            made_good[:, : i - start] += f[:, i, start:i, None] * error[:, i, None, :]
    out = np.empty_like(w)
    np.put_along_axis(out, np.broadcast_to(order[:, None, :], w.shape), q.transpose(0, 2, 1), 2)
    return out
