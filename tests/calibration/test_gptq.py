"""gptq.py: by hand, against brute force, and on a network of a few layers."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from edgenet.calibration import gptq, measure_ranges, quantize, streams
from edgenet.calibration.execute import Executor
from edgenet.calibration.gptq import PULL, PULLS, Rounding, _Geometry, _pull, _ridge, _round_in_turn, gptq_weights
from edgenet.calibration.integer_reference import saturated_share
from edgenet.calibration.quantize import adds_in_pairs, constant_weights, pair_scale, round_weights, weight_scale
from edgenet.calibration.sensitivity import loudest, sensitivity, sqnr_db
from edgenet.calibration.streams import Streams
from edgenet.errors import InputError
from edgenet.export.graph import Graph, Op
from edgenet.results import Calibration
from helpers.graph_builder import Builder
from helpers.layers import bottleneck, gated, outputs, pictures


def calibration(graph: Graph, xs: list[np.ndarray]) -> Calibration:
    return Calibration(measure_ranges(graph, xs, 1), "min-max", "", len(xs), "")


def round_one(w: list[float], covariance: list[list[float]]) -> list[float]:
    return _round_in_turn(np.array([[w]]), np.ones((1, 1)), np.array([covariance]), 127)[0, 0].tolist()


def test_the_error_of_one_weight_is_made_good_by_a_correlated_one() -> None:
    # The first has the larger variance and goes to 1 (0.6 -> +0.4); the second owes 0.4 and goes from 0.6 to 0.2 -> 0.
    assert round_one([0.6, 0.6], [[1.001, 1.0], [1.0, 1.0]]) == [1, 0]


def test_uncorrelated_weights_are_rounded_to_the_nearest() -> None:
    assert round_one([0.6, 0.6, -1.2], [[3.0, 0, 0], [0, 2.0, 0], [0, 0, 1.0]]) == [1, 1, -1]


def test_feedback_is_never_worse_than_nearest_and_near_the_best_of_all() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 5)) @ rng.normal(size=(5, 5))
    h = np.cov(x.T)
    w = rng.uniform(-3, 3, (20, 5))
    q = _round_in_turn(w[None], np.ones((1, 20)), h[None], 127, damping=0.01)[0]

    def cost(v: np.ndarray) -> np.ndarray:
        return np.einsum("...i,ij,...j->...", v, h, v)

    best = np.min([cost(np.floor(w) + np.array(c) - w) for c in product((0, 1), repeat=5)], axis=0)
    assert cost(q - w).sum() < 0.7 * cost(np.rint(w) - w).sum()
    assert cost(q - w).sum() < 2 * best.sum()


def test_more_inputs_than_a_block_are_rounded_as_in_one_block() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 50)) @ rng.normal(size=(50, 50))
    arguments = (rng.normal(0, 5, (1, 8, 50)), np.ones((1, 8)), np.cov(x.T)[None], 127)
    np.testing.assert_array_equal(_round_in_turn(*arguments, block=16), _round_in_turn(*arguments))


@pytest.mark.parametrize("bits", [8, 7])
def test_a_grouped_convolution_is_rounded_as_its_groups_would_be_apart(
    bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gptq, "_pull", lambda *_: PULL)  # which is found for a layer, not for a group
    monkeypatch.setattr(gptq, "weights_of", lambda wrong: np.ones(len(wrong), np.float32))  # and so are these
    rng = np.random.default_rng(0)
    w, bias, xs = (
        rng.normal(size=(6, 3, 3, 2)),
        rng.normal(size=6),
        list(rng.normal(size=(4, 1, 9, 9, 6)).astype(np.float32)),
    )
    whole = Builder(1, 9, 9, 6)
    graph = whole.graph(whole.conv("image", "y", w, bias))
    found = gptq_weights(graph, xs, calibration(graph, xs), Rounding(bits, in_pairs=bits == 7))["y"]
    ranges = dict(calibration(graph, xs).ranges)
    for g in range(3):
        part = Builder(1, 9, 9, 2)
        own = part.graph(part.conv("image", "y", w[2 * g : 2 * g + 2], bias[2 * g : 2 * g + 2]))
        apart = gptq_weights(
            own, [x[..., 2 * g : 2 * g + 2] for x in xs], Calibration(ranges, "min-max", "", 4, ""), Rounding(bits)
        )["y"]
        np.testing.assert_array_equal(found.values[2 * g : 2 * g + 2], apart.values)
        np.testing.assert_array_equal(found.scale[2 * g : 2 * g + 2], apart.scale)
        assert found.bias is not None
        assert apart.bias is not None
        np.testing.assert_allclose(found.bias[2 * g : 2 * g + 2], apart.bias, atol=1e-5)


def test_a_dense_layer_over_tokens_is_rounded_as_the_convolution_of_one_pixel_that_it_is() -> None:
    rng = np.random.default_rng(0)
    w, bias, xs = rng.normal(size=(4, 6)), rng.normal(size=4), list(rng.normal(size=(8, 1, 9, 6)).astype(np.float32))
    tokens = Builder(1, 9, 6)
    tokens.dense("image", "y", w, bias)
    tokens.tensors["y"] = replace(tokens.tensors["y"], shape=(1, 9, 4))
    tokens.ops[0].options["keepNumDims"] = True
    pixels = Builder(1, 1, 9, 6)
    pixels.conv("image", "y", w[:, None, None], bias)
    graphs = (tokens.graph("y"), xs), (pixels.graph("y"), [x[None] for x in xs])
    a, b = (gptq_weights(g, x, calibration(g, x), threads=1)["y"] for g, x in graphs)
    np.testing.assert_array_equal(a.values, b.values[:, 0, 0])
    np.testing.assert_array_equal(a.bias, b.bias)


@pytest.mark.parametrize("in_pairs", [False, True])
def test_a_layer_of_too_many_inputs_is_corrected_in_parts_and_nearly_as_well(
    in_pairs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(10, 10))  # the same ten inputs are alike, over and over
    xs = [np.concatenate([rng.normal(size=(1, 10)) @ mix for _ in range(4)], 1).astype(np.float32) for _ in range(200)]
    net = Builder(1, 40)
    graph = net.graph(net.dense("image", "y", rng.normal(size=(6, 40)), rng.normal(size=6)))
    rounding = Rounding(4, in_pairs=in_pairs)
    want = outputs(graph, xs)
    asked: list[int] = []
    moments = gptq._moments

    def counting(run: Streams, op: Op, w: np.ndarray, part: slice) -> gptq._Moments:
        asked.append(part.stop - part.start)
        return moments(run, op, w, part)

    monkeypatch.setattr(gptq, "_moments", counting)

    def db() -> float:
        weights = gptq_weights(graph, xs, calibration(graph, xs), rounding)
        return sqnr_db(want, outputs(quantize(graph, "weight-only", weights=weights), xs))

    whole = db()
    assert asked == [40]  # once
    monkeypatch.setattr(gptq, "WHOLE_INPUTS", 30)
    monkeypatch.setattr(gptq, "PART_INPUTS", 12)
    parts = db()
    assert max(asked[1:]) == 12
    nearest = sqnr_db(want, outputs(quantize(graph, "weight-only", weights=round_weights(graph, 4)), xs))
    assert parts > whole - 1 > nearest


def test_a_layer_of_65_thousand_inputs_takes_little_memory() -> None:
    assert len(gptq._parts(64_800)) == -(-64_800 // gptq.PART_INPUTS)
    assert all((p.stop - p.start) ** 2 * 8 * 4 < 2**28 for p in gptq._parts(64_800))  # covariances, with room
    assert gptq._parts(gptq.WHOLE_INPUTS) == [slice(0, gptq.WHOLE_INPUTS)]
    assert gptq.PART_INPUTS % 2 == 0  # pairs stay together


def test_integers_stay_within_the_bits() -> None:
    q = _round_in_turn(np.array([[[200.0, -300.0]]]), np.ones((1, 1)), np.eye(2)[None], 63)
    np.testing.assert_array_equal(q, [[[63, -63]]])


def test_two_weights_that_are_added_first_share_what_fits_into_16_bits() -> None:
    # 1.27 is the largest pair: 127 steps of 0.01, and one is left for both being rounded up. Each alone has 63 of 1/63.
    np.testing.assert_allclose(pair_scale(np.array([[1.0, 0.27, 0.3, -0.4], [1.0, 0.0, 0.1, 0.1]])), [0.01, 1 / 127])
    assert adds_in_pairs("CONV_2D", (8, 1, 1, 4))
    assert not adds_in_pairs("CONV_2D", (8, 3, 3, 3)), "of three inputs it is not known who is added to whom"
    assert not adds_in_pairs("DEPTHWISE_CONV_2D", (1, 3, 3, 4))


def test_the_second_of_a_pair_gets_what_the_first_left() -> None:
    # The first has the larger variance and takes 120; 128 leaves 8 of the other's 30. The third stands alone with 127.
    q = _round_in_turn(np.array([[[120.0, 30.0, 0.0, 127.0]]]), np.ones((1, 1)), np.diag([4.0, 3, 2, 1])[None],
                             127, in_pairs=True)  # fmt: skip
    np.testing.assert_array_equal(q, [[[120, 8, 0, 127]]])


def test_pairs_never_saturate() -> None:
    graph, xs = bottleneck(), pictures(12)
    weights = gptq_weights(graph, xs, calibration(graph, xs), Rounding(7, in_pairs=True))
    quantized = quantize(graph, "int8", calibration(graph, xs), weights=weights)
    assert set(saturated_share(quantized).values()) == {0.0}


def test_pairs_lose_less_than_seven_bits_each_where_large_weights_are_rare() -> None:
    rng = np.random.default_rng(0)
    w, h = rng.laplace(size=(1, 32, 200)), np.diag(np.ones(200))[None]
    errors = []
    for scale, limit, in_pairs in ((weight_scale(w[0], 0, 7), 63, False), (pair_scale(w[0]), 127, True)):
        s = scale[None].astype(float)
        q = _round_in_turn(w, s, h, limit, in_pairs)
        errors.append(float(np.square(q * s[..., None] - w).mean()))
    assert errors[1] < 0.6 * errors[0]
    assert np.abs(q).reshape(1, 32, 100, 2).sum(-1).max() <= 128


@pytest.mark.parametrize(("stride", "kernel", "size"), [(1, 3, 5), (2, 3, 6), (2, 5, 7), (2, 3, 7)])
def test_patches_are_what_the_kernel_reads(stride: int, kernel: int, size: int) -> None:
    rng = np.random.default_rng(0)
    b = Builder(1, size, size, 3)
    w = rng.normal(size=(4, kernel, kernel, 3))
    graph = b.graph(b.conv("image", "conv", w, np.zeros(4), stride=stride))
    x = rng.normal(size=(1, size, size, 3)).astype(np.float32)
    geometry = _Geometry.of(graph.ops[0], w.shape, x.shape)
    patches = geometry.patches(x, np.arange(geometry.positions))
    np.testing.assert_allclose(geometry.means(x), patches.mean(0), atol=1e-6)
    found = patches.reshape(len(patches), -1) @ w.reshape(4, -1).T
    np.testing.assert_allclose(found, outputs(graph, [x]).reshape(-1, 4), atol=1e-4)


@pytest.mark.parametrize(
    ("missing", "best"),
    [
        # One weight w of variance 1: a half of the pictures moves it by m / (1 + pull), where m is what it misses.
        ((1.0, 1.0), PULLS[0]),  # both halves want the same
        ((1.0, -1.0), PULLS[-1]),  # what one learns hurts the other
        # 1.0625 u^2 - u with u = 1 / (1 + pull): -0.142 at 0.3, -0.184 at 3, -0.031 at 30
        ((1.0, 0.25), 3.0),
    ],
)
def test_the_pull_is_what_serves_the_other_half_of_the_pictures(missing: tuple[float, float], best: float) -> None:
    assert _pull(np.ones((2, 1, 1, 1)), np.array(missing).reshape(2, 1, 1, 1)) == best / 2


def test_one_picture_has_no_other_half() -> None:
    assert _pull(np.ones((1, 1, 1, 1)), np.ones((1, 1, 1, 1))) == PULL


def test_a_ridge_regression_by_hand() -> None:
    # (2 - 0) / (1 + 1 * mean variance 2) and 3 / (3 + 2)
    moved = _ridge(np.diag([1.0, 3.0])[None], np.array([[[2.0, 3.0]]]), 1.0)
    np.testing.assert_allclose(moved, [[[2 / 3, 3 / 5]]])


def test_the_bias_takes_back_the_mean_shift() -> None:
    b = Builder(1, 2)
    graph = b.graph(b.dense("image", "logits", [[1.27, 0.0049]], [0.5]))  # 0.0049 is rounded to 0
    xs = [np.array([[0.0, 1.0]], np.float32), np.array([[1.0, 1.0]], np.float32)]
    rounding = Rounding(feedback=False, reconstruction=False, precision="weight-only")
    w = gptq_weights(graph, xs, calibration(graph, xs), rounding, threads=1)["logits"]
    np.testing.assert_array_equal(w.values, [[127, 0]])
    np.testing.assert_allclose(w.bias, [0.5049], atol=1e-6)


def test_all_switched_off_is_rounding_to_the_nearest() -> None:
    graph, xs = bottleneck(), pictures(4)
    rounding = Rounding(feedback=False, bias_correction=False, reconstruction=False)
    off = gptq_weights(graph, xs, calibration(graph, xs), rounding, threads=1)
    for name, w in round_weights(graph).items():
        np.testing.assert_array_equal(off[name].values, w.values)
        assert off[name].bias is None


@pytest.mark.parametrize("bits", [8, 7, 4])
def test_pictures_that_were_not_seen_come_out_nearer_to_float(bits: int) -> None:
    graph, xs, unseen = bottleneck(), pictures(32), pictures(32, seed=2)
    expected, nearest = outputs(graph, unseen), quantize(graph, "weight-only", weights=round_weights(graph, bits))
    rounding = Rounding(bits, precision="weight-only")
    weights = gptq_weights(graph, xs, calibration(graph, xs), rounding, threads=1)
    stored = {n: w.values for n, w in weights.items()}
    assert max(np.abs(v).max() for v in stored.values()) == 2 ** (bits - 1) - 1
    ours = outputs(_with(graph, weights), unseen)
    assert sqnr_db(expected, ours) > sqnr_db(expected, outputs(nearest, unseen)) + 3


def _with(graph: Graph, weights: dict) -> Graph:  # type: ignore[type-arg]
    from edgenet.calibration.streams import with_weight

    for op in graph.ops:
        graph = with_weight(graph, op, weights.get(op.outputs[0]))
    return graph


def test_the_same_pictures_give_the_same_integers() -> None:
    graph, xs = bottleneck(), pictures(8)
    a, b = (gptq_weights(graph, xs, calibration(graph, xs), threads=1) for _ in range(2))
    for name in a:
        np.testing.assert_array_equal(a[name].values, b[name].values)
        np.testing.assert_array_equal(a[name].bias, b[name].bias)


def test_integers_do_not_depend_on_the_threads_of_linear_algebra() -> None:
    rng = np.random.default_rng(0)
    net = Builder(1, 300)
    graph = net.graph(net.dense("image", "y", rng.normal(size=(40, 300)), rng.normal(size=40)))
    xs = [rng.normal(size=(1, 300)).astype(np.float32) for _ in range(50)]
    c = calibration(graph, xs)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, "blas"):
            found.append(gptq_weights(graph, xs, c)["y"])
    np.testing.assert_array_equal(found[0].values, found[1].values)
    np.testing.assert_array_equal(found[0].bias, found[1].bias)


def test_activations_that_wait_on_disk_give_the_same_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, xs = gated(), pictures(6, size=16)
    c = calibration(graph, xs)
    in_memory = gptq_weights(graph, xs, c, threads=1)
    monkeypatch.setattr(streams, "MEMORY", 0)
    on_disk = gptq_weights(graph, xs, c, threads=1)
    for name, w in in_memory.items():
        np.testing.assert_array_equal(on_disk[name].values, w.values)
        np.testing.assert_array_equal(on_disk[name].bias, w.bias)


def test_between_two_layers_only_what_is_read_later_is_kept() -> None:
    graph, xs = gated(), pictures(3, size=16)
    run = Streams(graph, {}, xs, 1)
    for op in graph.ops[: [op.kind for op in graph.ops].index("DEPTHWISE_CONV_2D")]:
        run.advance(op, None)
    assert set(run.float) == {"image"}
    run.catch_up()  # a convolution, a sigmoid, a product
    assert set(run.float) == set(run.stored) == {str(graph.ops[3].inputs[0])}
    product = outputs(graph.with_outputs(run.float), xs)
    np.testing.assert_array_equal(np.concatenate(list(next(iter(run.float.values())))), product)


@pytest.mark.parametrize("bits", [1, 9])
def test_a_number_of_bits_that_does_not_fit_is_refused(bits: int) -> None:
    graph, xs = bottleneck(), pictures(1)
    with pytest.raises(InputError, match=f"2 to 8 bits, not {bits}"):
        gptq_weights(graph, xs, calibration(graph, xs), Rounding(bits))


def test_the_sensitivity_of_each_layer_names_the_one_that_was_spoilt() -> None:
    graph, xs = bottleneck(), pictures(8)
    c = calibration(graph, xs)
    spoilt = {"expand2": round_weights(graph, bits=3)["expand2"]}
    found = sensitivity(graph, xs, c, spoilt, threads=1)
    assert found[0][0] == ("expand2",)
    assert found[0][1] < found[1][1] - 3
    assert {n for (n,), _ in found} == {op.outputs[0] for op in graph.ops}


def test_sqnr_is_ten_times_the_logarithm_of_the_ratio_of_powers() -> None:
    assert sqnr_db(np.array([3.0, 4.0]), np.array([3.0, 3.5])) == pytest.approx(20)
    assert sqnr_db(np.ones(2), np.ones(2)) == float("inf")


def test_the_loudest_pictures_are_those_with_the_largest_logits() -> None:
    b = Builder(1, 1, 1, 1)
    graph = b.graph(b.conv("image", "y", np.array([1.0, -1.0]).reshape(2, 1, 1, 1), [0, 0]))
    xs = [np.full((1, 1, 1, 1), v, np.float32) for v in (1, 5, 0.1, -3, 5, 2)]
    assert [float(x.item()) for x in loudest(graph, iter(xs), 3, threads=1)] == [5, 5, -3]


def test_a_layer_in_float_has_no_rounding_that_the_next_would_make_good() -> None:
    graph, xs = bottleneck(), pictures(8)
    *others, last = (op for op in graph.ops if constant_weights(graph, op) is not None)
    c, every = calibration(graph, xs), {op.outputs[0]: "float16" for op in graph.ops if op.outputs != last.outputs}
    rounding = Rounding(exceptions=every, reconstruction=False, feedback=False)
    weights = gptq_weights(graph, xs, c, rounding, threads=1)
    assert list(weights) == [*last.outputs]
    w, run = weights[last.outputs[0]], Executor(graph, last.inputs[:1], 1)
    mean = np.mean([run(x)[0] for x in xs], axis=0).ravel()  # of the float network, as nothing before rounds
    error = constant_weights(graph, last) - w.values * w.scale[:, None]
    np.testing.assert_allclose(w.bias, graph.constant(last.inputs[2]) + error @ mean, atol=1e-5)
    mixed = quantize(graph, "int8", c, weights=weights, exceptions={**every, last.outputs[0]: "weight-only"})
    assert {mixed.tensors[f"{op.outputs[0]}_weights"].dtype for op in others} == {"float16"}
    assert mixed.tensors[f"{last.outputs[0]}_weights"].dtype == "int8"
    half = quantize(graph, "int8", c, exceptions={**every, last.outputs[0]: "float16"})
    assert sqnr_db(outputs(graph, xs), outputs(half, xs)) > 55


def test_a_layer_that_is_corrected_in_parts_is_named_and_so_are_fewer_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = bottleneck()
    assert gptq.corrected_in_parts(graph) == ()
    monkeypatch.setattr(gptq, "WHOLE_INPUTS", 20)
    monkeypatch.setattr(gptq, "PART_INPUTS", 12)
    assert gptq.corrected_in_parts(graph) == ("stem",)  # 27 inputs; a depthwise channel has 9, the others at most 16
    largest = max(int(np.prod(graph.tensors[n].shape)) for n in graph.activations())
    assert gptq.pictures_that_fit(graph) == 100
    assert gptq.pictures_that_fit(graph, max_bytes=7 * 10 * largest) == 7
    assert gptq.pictures_that_fit(graph, max_bytes=1) == 1


def test_the_scale_of_4_bits_clips_large_weights_where_that_loses_less() -> None:
    rng = np.random.default_rng(0)
    rows, variance = rng.laplace(0, 1, (8, 256)), rng.uniform(0.1, 2, (8, 256))

    def lost(scale: np.ndarray) -> np.ndarray:
        q = np.clip(np.rint(rows / scale[:, None]), -7, 7) * scale[:, None]
        total: np.ndarray = ((rows - q) ** 2 * variance).sum(-1)
        return total

    widest = np.abs(rows).max(-1) / 7
    found = gptq._scale_of_few(rows, variance, 4)
    assert np.all(found < widest)
    assert np.all(lost(found) < 0.9 * lost(widest))
    even = np.tile(np.linspace(-7, 7, 15), (1, 4))  # nothing to gain: every step is met
    assert gptq._scale_of_few(even, np.ones_like(even), 4) == pytest.approx(1.0)
