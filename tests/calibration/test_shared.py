"""shared.py: which weights and ranges each precision gets from the one calibration."""

from dataclasses import replace

import numpy as np
import pytest

from edgenet.calibration import Recipe, SharedCalibration, quantize
from edgenet.calibration.views import VIEWS
from edgenet.export import Network
from edgenet.export.interface import pixel_quantization
from edgenet.images import load_pixels
from edgenet.results import ImageSet
from helpers.layers import gated


@pytest.fixture(scope="module")
def shared(tiny_network: Network, tiny_images: tuple[ImageSet, ImageSet]) -> SharedCalibration:
    return SharedCalibration(tiny_network, load_pixels(tiny_images[0], tiny_network.preprocessing))


@pytest.fixture(scope="module")
def with_silu(tiny_network: Network) -> SharedCalibration:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), np.uint8)
    preprocessing = replace(tiny_network.preprocessing, resolution_px=16)
    return SharedCalibration(replace(tiny_network, graph=gated(), preprocessing=preprocessing), pixels)


def test_what_int8_activations_do_wrong_is_made_good_in_int8_files_alone(shared: SharedCalibration) -> None:
    eight, sixteen = shared.weights("int8"), shared.weights("int16x8")
    assert any(not np.array_equal(eight[n].bias, sixteen[n].bias) for n in eight if eight[n].bias is not None)
    assert shared.weights("dynamic") is shared.weights("weight-only") is sixteen  # one rounding, as none has int8 ones


def test_16_bits_cover_twice_what_was_seen_and_twelve_times_the_median_picture(shared: SharedCalibration) -> None:
    graph = shared.quantized("int16x8")
    checked = 0
    for name, o in shared.observations.items():
        t = graph.tensors.get(name)
        if t is not None and t.dtype == "int16" and t.quantization is not None:
            reach = float(t.quantization.scale[0]) * 32767
            peaks = np.maximum(-np.array(o.picture_low), np.array(o.picture_high))
            assert reach >= 0.99 * max(2 * peaks.max(), 12 * np.median(peaks))
            checked += 1
    assert checked > 3


def test_a_calibration_without_ranges_for_16_bits_still_gives_16_bits(shared: SharedCalibration) -> None:
    older = replace(shared.calibration, wide={})
    graph = quantize(shared.graph, "int16x8", older)
    name = next(n for n, t in graph.tensors.items() if t.dtype == "int16" and n in older.ranges)
    q = graph.tensors[name].quantization
    assert q is not None
    assert float(q.scale[0]) * 32767 == pytest.approx(max(map(abs, older.ranges[name])), rel=1e-4)


def test_the_ranges_of_16_bits_do_not_change_the_fingerprint(shared: SharedCalibration) -> None:
    assert replace(shared.calibration, wide={}).fingerprint == shared.calibration.fingerprint


def test_a_network_without_silu_has_one_graph_for_all(shared: SharedCalibration) -> None:
    assert shared.graph is shared.plain_graph


def test_only_files_with_integer_activations_have_the_multiplication_of_a_scaled_silu(
    with_silu: SharedCalibration,
) -> None:
    for precision in ("int8", "int16x8"):
        assert any(n.endswith("_unscaled") for n in with_silu.quantized(precision).tensors)
    for precision in ("float32", "float16", "weight-only", "dynamic"):
        assert not any(n.endswith("_unscaled") for n in with_silu.quantized(precision).tensors)


@pytest.mark.parametrize("corrections", [(), ("bias-correction",)])
def test_a_silu_stays_where_equalization_is_switched_off(
    with_silu: SharedCalibration, corrections: tuple[str, ...]
) -> None:
    plain = SharedCalibration(with_silu.network, with_silu.pixels, "", Recipe(corrections=corrections))
    assert plain.graph is with_silu.network.graph


def test_a_method_that_was_asked_for_decides_all_ranges(with_silu: SharedCalibration) -> None:
    asked = SharedCalibration(with_silu.network, with_silu.pixels, "", Recipe("min-max"))
    assert asked.calibration.ranges == {n: o.range for n, o in asked.observations.items()}


def test_the_pixels_are_what_the_integers_of_the_input_are(shared: SharedCalibration) -> None:
    exact = pixel_quantization(shared.network.preprocessing, "int8")
    assert exact is not None
    assert set(shared.calibration.fixed) == {shared.graph.inputs[0]}


def test_few_pictures_of_a_network_with_silu_are_seen_mirrored_and_closer_too(with_silu: SharedCalibration) -> None:
    assert len(list(with_silu.inputs())) == 12
    assert len(list(with_silu.views())) == 12 * (1 + len(VIEWS))
    few, some = (SharedCalibration(with_silu.network, with_silu.pixels[:n]) for n in (2, 12))
    seen = few.observations["expand_unscaled"]
    assert len(seen.picture_low) == 2 * (1 + len(VIEWS))
    assert some.calibration.n_images == 12


def test_a_network_without_silu_is_seen_on_the_pictures_as_they_are(shared: SharedCalibration) -> None:
    assert shared.pixels is not None
    assert {len(o.picture_low) for o in shared.observations.values()} == {len(shared.pixels)}
