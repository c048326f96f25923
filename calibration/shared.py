"""One calibration for all formats: the pictures are measured once, and every quantized graph is made from that."""

import itertools
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from edgenet.calibration.dead_channels import use_dead_channels
from edgenet.calibration.equalize import equalize
from edgenet.calibration.equalize_gates import equalize_gates
from edgenet.calibration.equalize_swish import equalize_swishes, sigmoid_ranges
from edgenet.calibration.gptq import Rounding, gptq_weights
from edgenet.calibration.quantize import ACTIVATIONS, NEEDS_CALIBRATION, Weight, layer_bits, quantize, round_weights
from edgenet.calibration.ranges import Observation, choose_ranges, observe, wide_range, without_flat_tails
from edgenet.calibration.views import more_views
from edgenet.errors import InputError
from edgenet.export.graph import Graph
from edgenet.export.interface import pixel_quantization
from edgenet.export.network import Network
from edgenet.images import Pixels, normalise
from edgenet.options import Recipe
from edgenet.results import Calibration
from edgenet.targets import SAFE_BITS

GOLDEN = (5**0.5 - 1) / 2
CHANGES_GRAPH = {"equalization", "spare-channels"}  # the others change integers
EQUALIZATION_PICTURES = 48  # comparing channels takes fewer pictures than ranges do
VIEWS = 200  # pictures, and views of them, that show how far the channels around a SiLU reach
SPARE_PICTURES = 8  # to see which channels of the first layer suffer; each has thousands of positions


def spread(n: int) -> np.ndarray:
    """Return 0 to n - 1 in an order of which every prefix is spread evenly: the ranks of i times the golden section."""
    order: np.ndarray = np.argsort(np.argsort(np.arange(n) * GOLDEN % 1))
    return order


def rounding_of(recipe: Recipe, bits: int | Mapping[str, int], **how: Any) -> Rounding:
    """Return how weights of `bits` bits are rounded: with those of GPTQ's steps that are among the corrections."""
    return Rounding(
        bits,
        feedback="feedback" in recipe.corrections,
        bias_correction="bias-correction" in recipe.corrections,
        reconstruction="reconstruction" in recipe.corrections,
        **how,
    )


class SharedCalibration:
    """Observes a network on calibration pictures, and quantizes it for any format; each number is computed once.

    Args:
        pixels: (N, H, W, 3) uint8, cropped to the network's input; None where there are none, which leaves float
            precisions, and weights that are rounded to the nearest.
        images: fingerprint of the pictures.
    """

    def __init__(self, network: Network, pixels: Pixels | None, images: str = "", recipe: Recipe = Recipe()) -> None:
        self.network, self.pixels, self.images, self.recipe = network, pixels, images, recipe
        self._weights: dict[tuple[str, str, str, bool], dict[str, Weight]] = {}

    def inputs(self) -> Iterator[np.ndarray]:
        """Yield what the graph takes, one picture at a time: (1, H, W, 3) float32, normalised.

        The pictures of a folder are sorted by class, and some steps need only a few. So they come in steps of the
        golden section: wherever a step stops, its pictures are spread evenly over the folder.
        """
        if self.pixels is None:
            raise InputError("int8 needs images to calibrate with: give --images DIR (or sample)")
        for i in spread(len(self.pixels)):
            yield normalise(self.pixels[i][None], self.network.preprocessing)

    def views(self) -> Iterator[np.ndarray]:
        """Yield `inputs`, and then views of the same pictures until there are VIEWS: how far activations may reach."""
        yield from self.inputs()
        assert self.pixels is not None
        if len(self.pixels) < VIEWS:
            order = spread(len(self.pixels))
            for picture in more_views([self.pixels[i] for i in order], VIEWS - len(order)):
                yield normalise(picture[None], self.network.preprocessing)

    @cached_property
    def graph(self) -> Graph:
        """The float graph whose activations are quantized: the network's, of the same function, as the recipe says."""
        return self._swishes[0]

    @cached_property
    def _swishes(self) -> tuple[Graph, dict[str, tuple[float, float]]]:
        """The graph with the channels of its SiLUs alike, and the ranges that go with them."""
        if self.pixels is None or "equalization" not in self.recipe.corrections:
            return self.plain_graph, {}
        graph, ranges = equalize_swishes(self.plain_graph, self.views())
        return (equalize_gates(graph, self.views()) if ranges else graph), ranges

    @cached_property
    def plain_graph(self) -> Graph:
        """The float graph of which only weights are quantized: it has no operator more than the network."""
        graph = self.network.graph
        if self.pixels is None:
            return graph
        if "equalization" in self.recipe.corrections:
            graph = equalize(graph, itertools.islice(self.inputs(), EQUALIZATION_PICTURES))
        if "spare-channels" in self.recipe.corrections:
            shown = itertools.islice(self.inputs(), SPARE_PICTURES)
            darkest, brightest = (
                normalise(np.full((1, 1, 1, 3), value, np.uint8), self.network.preprocessing).ravel()
                for value in (0, 255)
            )
            graph = use_dead_channels(graph, darkest, brightest, shown)
        return graph

    @cached_property
    def observations(self) -> dict[str, Observation]:
        """The observed values of every activation of `graph`."""
        return observe(self.graph, self.views() if self._swishes[1] else self.inputs())

    @cached_property
    def calibration(self) -> Calibration:
        """The range of every activation of `graph`."""
        exact = pixel_quantization(self.network.preprocessing, "int8")
        return Calibration(
            ranges=self._ranges(),
            method="+".join((self.recipe.method, *self.recipe.corrections)),
            images=self.images,
            n_images=0 if self.pixels is None else len(self.pixels),
            network=self.network.fingerprint,
            wide={name: wide_range(o) for name, o in self.observations.items()},
            fixed={self.graph.inputs[0]: (float(exact.scale[0]), int(exact.zero_point[0]))} if exact else {},
        )

    def _ranges(self) -> dict[str, tuple[float, float]]:
        ranges = choose_ranges(self.observations, self.recipe.method)
        if self.recipe.method != "auto":
            return ranges
        ranges = {**ranges, **self._swishes[1]}
        return {**ranges, **sigmoid_ranges(self.graph, ranges), **without_flat_tails(self.graph, ranges)}

    def graph_for(self, precision: str) -> Graph:
        """Return the float graph that is quantized to this precision."""
        return self.graph if precision in NEEDS_CALIBRATION else self.plain_graph

    def weights(
        self, precision: str, bits: int | Mapping[str, int] = 8, exceptions: Mapping[str, str] | None = None
    ) -> dict[str, Weight]:
        """Return the integers of every layer's weights for this precision, corrected as the recipe says.

        bits: of all weights, or by the name of the operator's output.
        """
        graph = self.graph_for(precision)
        if self.pixels is None or not set(self.recipe.corrections) - CHANGES_GRAPH:
            return round_weights(graph, bits)
        # What is made good depends on how activations are rounded. To 16 bits, or as they come, they hardly are: what
        # int8 activations do wrong, to the means above all, must not be made good there.
        rounded = "int8" if ACTIVATIONS.get(precision) == "int8" else "weight-only"
        key = (rounded, repr(bits), repr(exceptions or {}), graph is self.plain_graph)
        if key not in self._weights:
            # Where sums saturate at 8 bits, two weights that are added first share what 7 bits would give each of them.
            rounding = rounding_of(
                self.recipe, bits, precision=rounded, exceptions=exceptions or {}, in_pairs=bits == SAFE_BITS
            )
            self._weights[key] = gptq_weights(graph, self.inputs(), self.calibration, rounding)
        return self._weights[key]

    def quantized(
        self,
        precision: str,
        bits: int = 8,
        exceptions: Mapping[str, str] | None = None,
        dense_per_channel: bool = True,
    ) -> Graph:
        """Return the network in `precision`, with weights of `bits` bits; of int4, those that keep more than 4.

        Args:
            dense_per_channel: False gives the weights of a dense layer one scale, for runtimes that know no more.
            exceptions: the precision of single operators, as `quantize` takes it.

        Raises:
            InputError: unknown precision, or one that needs pictures came without.
        """
        if precision in ("float32", "float16"):
            return quantize(self.network.graph, precision)
        calibration = self.calibration if precision in NEEDS_CALIBRATION else None
        graph = self.graph_for(precision)
        own = layer_bits(graph, bits) if precision == "int4" else bits
        weights = self.weights(precision, own, exceptions)
        if not dense_per_channel:
            dense = {op.outputs[0] for op in graph.ops if op.kind == "FULLY_CONNECTED"}
            others = [name for name in weights if name not in dense]
            weights = {**weights, **round_weights(graph, own, per_channel=False, skip=others)}
        return quantize(graph, precision, calibration, weights=weights, exceptions=exceptions)
