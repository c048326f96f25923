"""The networks that the EfficientNet paper compares with, one row each: counted, and built with random weights.

Tan and Le, https://arxiv.org/abs/1905.11946, table 2. What tf_keras.applications has is taken from there; ResNet and
MobileNetV1 and V2, which are scaled too, are drawn by models/resnet_mobilenet.py, AmoebaNet by models/amoebanet.py.
Weights are random: what is measured of these networks is latency, never accuracy.
"""

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from edgenet.errors import InputError
from edgenet.export.graph import Graph, fingerprint
from edgenet.export.network import Network, canonical_names, classes_of
from edgenet.images import Preprocessing
from edgenet.models import zoo
from edgenet.models.amoebanet import amoebanet
from edgenet.models.graph_drawing import Blueprint
from edgenet.models.resnet_mobilenet import mobilenet_v1, mobilenet_v2, resnet
from edgenet.paper import published
from edgenet.paper.keras_applications import KerasNetwork
from edgenet.paper.scaled_tables import ScaledRow, scaled_rows
from edgenet.results.records import Counts


class Drawn(Protocol):
    """A network without weights: a Blueprint, or a model of Keras."""

    @property
    def parameters(self) -> int: ...
    @property
    def multiply_adds(self) -> int: ...
    def graph(self, seed: int = 0) -> Graph: ...


@dataclass(frozen=True)
class Rival:
    """A network: what it is called in table 2 of the paper, its input, and how it is built.

    `draw` takes (name, resolution_px). `paper_name` None: the network is not in table 2. `note` says what a reader of
    its figures has to know. The published figures are those of table 2, None where it prints none.
    """

    name: str
    paper_name: str | None
    resolution_px: int
    draw: Callable[[str, int], Drawn]
    note: str = ""

    @property
    def params_millions(self) -> float | None:
        return self._published("params_millions")

    @property
    def flops_billions(self) -> float | None:
        """Multiply-adds, which the paper calls FLOPS."""
        return self._published("flops_billions")

    @property
    def top1_percent(self) -> float | None:
        return self._published("top1_percent")

    def _published(self, column: str) -> float | None:
        rows = [row for row in published.table("2") if row["model"] == self.paper_name]
        value = rows[0][column] if rows else None
        return value if isinstance(value, float) else None


def _keras(function: Callable[..., Any]) -> Callable[[str, int], Drawn]:
    return lambda name, px: KerasNetwork(name, px, function)


def _densenet(*blocks: int) -> Callable[[str, int], Drawn]:
    def build(_: Any, **options: Any) -> Any:
        # The function that makes a DenseNet of any blocks is not among what Keras names as public.
        return importlib.import_module("tf_keras.src.applications.densenet").DenseNet(list(blocks), **options)

    return _keras(build)


def _resnet(layers: int, late_stride: bool) -> Callable[[str, int], Drawn]:
    return lambda name, px: resnet(layers, resolution_px=px, late_stride=late_stride, name=name)


def _mobilenet(function: Callable[..., Blueprint]) -> Callable[[str, int], Drawn]:
    return lambda name, px: function(resolution_px=px, name=name)


def _amoebanet(cells: str, normal_cells: int, filters: int) -> Callable[[str, int], Drawn]:
    return lambda name, px: amoebanet(cells, normal_cells, filters, px, name)


_DENSENET_FLOPS = "counts 4 % fewer multiply-adds than the paper prints; the reason is not known"

# fmt: off
RIVALS: dict[str, Rival] = {r.name: r for r in (
    #      name                  in table 2              px  built by
    Rival("resnet-50",           "ResNet-50",           224, _resnet(50, late_stride=True),
          "strides in the 3x3, as the authors' own code does; in the 1x1, as the ResNet paper does, it is 3.9 billion"),
    Rival("resnet-152",          "ResNet-152",          224, _resnet(152, late_stride=False),
          "strides in the 1x1, as in the ResNet paper, whose count of 11.3 billion is printed; in the 3x3 it is 11.5"),
    Rival("densenet-169",        "DenseNet-169",        224, _densenet(6, 12, 32, 32), _DENSENET_FLOPS),
    Rival("densenet-264",        "DenseNet-264",        224, _densenet(6, 12, 64, 48),
          f"{_DENSENET_FLOPS}; its 34 M parameters are 33.3 trained ones and batch norm's moving statistics"),
    Rival("inception-v3",        "Inception-v3",        299, _keras(lambda a, **o: a.InceptionV3(**o))),
    Rival("inception-resnet-v2", "Inception-resnet-v2", 299, _keras(lambda a, **o: a.InceptionResNetV2(**o))),
    Rival("xception",            "Xception",            299, _keras(lambda a, **o: a.Xception(**o))),
    Rival("nasnet-a-large",      "NASNet-A",            331, _keras(lambda a, **o: a.NASNetLarge(**o))),
    Rival("amoebanet-a",         "AmoebaNet-A",         331, _amoebanet("AmoebaNet-A", 18, 190)),
    Rival("amoebanet-b",         "GPipe",               480, _amoebanet("AmoebaNet-B", 18, 512),
          "GPipe's: 18 normal cells, 512 filters; its 2.2 GB of weights exceed a .tflite file"),
    Rival("amoebanet-c",         "AmoebaNet-C",         331, _amoebanet("AmoebaNet-C", 18, 228)),
    Rival("mobilenet-v1",        None,                  224, _mobilenet(mobilenet_v1)),
    Rival("mobilenet-v2",        None,                  224, _mobilenet(mobilenet_v2)),
    Rival("mobilenet-v3-large",  None,                  224, _keras(lambda a, **o: a.MobileNetV3Large(**o))),
    Rival("mobilenet-v3-small",  None,                  224, _keras(lambda a, **o: a.MobileNetV3Small(**o))),
)}
# fmt: on
NAMES = tuple(RIVALS)
QUOTED = ("Inception-v4", "ResNeXt-101", "PolyNet", "SENet", "PNASNet")  # of table 2: not built, only quoted


def spec(name: str) -> Rival:
    """Return the row called `name`.

    Raises:
        InputError: no such network; the message names the nearest and lists the valid ones.
    """
    if name in RIVALS:
        return RIVALS[name]
    near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InputError(f"unknown network '{name}'{hint} (valid: {', '.join(NAMES)})")


@cache
def _drawn(name: str) -> Drawn:
    row = spec(name)
    return row.draw(row.name, row.resolution_px)


def parameters(name: str) -> int:
    """Return the numbers that are trained, batch norm's scale and shift among them; no weight is made.

    Raises:
        InputError: no such network.
        MissingDependency: tf-keras, which some networks come from, is not installed.
    """
    return _drawn(name).parameters


def multiply_adds(name: str) -> int:
    """Return the multiply-adds of one picture: convolutions and the last layer. Raises as `parameters`."""
    return _drawn(name).multiply_adds


def graph(name: str, seed: int = 0) -> Graph:
    """Return the float graph with random weights, (1, H, W, 3) normalised to (1, 1000) probabilities.

    It is as large as its weights: 2.2 GB for amoebanet-b.

    Raises:
        InputError, MissingDependency: as `parameters`.
    """
    return canonical_names(_drawn(name).graph(seed))


def network_of(name: str, seed: int = 0) -> Network:
    """Return the network as `export_graph` takes it. Raises as `graph`."""
    row = spec(name)
    built = graph(name, seed)
    ids, names = classes_of(built.tensors[built.outputs[0]].shape[-1])
    preprocessing = Preprocessing(row.resolution_px, zoo.LITE_MEAN, zoo.LITE_STD)
    return Network(name, built, preprocessing, ids, names, "random", fingerprint(built))


def counts(name: str) -> Counts:
    """Count a network. Raises InputError, MissingDependency."""
    if name in zoo.MODELS:
        return Counts(zoo.parameters(zoo.MODELS[name]), zoo.multiply_adds(zoo.MODELS[name]))
    return Counts(parameters(name), multiply_adds(name))


def scaled_key(table: str, row: ScaledRow) -> str:
    """Return what results.json calls a network of table 3 or 7."""
    return f"table {table}: {row.baseline}, {row.scaling}"


def scaled_counts(table: str) -> dict[str, Counts]:
    """Return the counts of the networks of table 3 or 7 by `scaled_key`."""
    return {scaled_key(table, r): Counts(r.parameters, r.multiply_adds) for r in scaled_rows(table)}


def published_name(name: str) -> str:
    """Return what a network is called in the paper's tables: EfficientNet-B0 for efficientnet-b0."""
    if name in zoo.MODELS:
        return name.replace("efficientnet-b", "EfficientNet-B")
    return spec(name).paper_name or name
