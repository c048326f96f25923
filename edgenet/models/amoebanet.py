"""AmoebaNet-A, B and C, and with them GPipe's network, from one builder of cells.

Real et al., https://arxiv.org/abs/1802.01548; the cells and the construction are those of the authors' code
(tensorflow/tpu, models/official/amoeba_net), kept as data in amoebanet_cells.json. GPipe,
https://arxiv.org/abs/1811.06965, is AmoebaNet-B with 18 normal cells and 512 filters.

States 0 and 1 of a cell are the outputs of the cell before and of the one before that; each of five pairs adds two
states, after an operation on each, and is a state itself; those that the cell marks as not used are its output.
"""

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from edgenet.models.graph_drawing import RELU, Blueprint, Feature

_STEM_FILTERS = 32
_REDUCTIONS = 2  # among the normal cells; the stem has two more


@dataclass(frozen=True)
class Cell:
    """Ten operations on the states `inputs`, pair by pair; `used` has a mark a state, those without are the output."""

    operations: tuple[str, ...]
    inputs: tuple[int, ...]
    used: tuple[int, ...]


def amoebanet(cells: str, normal_cells: int, filters: int, resolution_px: int, name: str = "amoebanet") -> Blueprint:
    """Draw the network.

    Args:
        cells: AmoebaNet-A, AmoebaNet-B or AmoebaNet-C.
        normal_cells: of the whole network, in three equal parts.
        filters: of the cells in the first part; twice and four times as many in the others.
    """
    normal, reduction = (Cell(**amoebanet_cell(cells, kind)) for kind in ("normal", "reduction"))
    net = Blueprint(name, resolution_px)
    before, x = None, net.conv(net.image, _STEM_FILTERS, 3, 2)
    for part in (4, 2):
        before, x = x, _cell(net, reduction, x, before, filters // part, stride=2)
    reduced_at = [normal_cells * i // (_REDUCTIONS + 1) for i in range(1, _REDUCTIONS + 1)]
    for i in range(normal_cells):
        if i in reduced_at:
            filters *= 2
            before, x = x, _cell(net, reduction, x, before, filters, stride=2)
        before, x = x, _cell(net, normal, x, before, filters)
    net.classifier(net.relu(x))
    return net


def _cell(net: Blueprint, cell: Cell, x: Feature, before: Feature | None, filters: int, stride: int = 1) -> Feature:
    states = [net.conv(net.relu(x), filters), _fitted(net, before, x, filters)]
    for pair in range(0, len(cell.operations), 2):
        left, right = (
            _operation(net, operation, states[state], filters, stride if state < 2 else 1)
            for operation, state in zip(cell.operations[pair : pair + 2], cell.inputs[pair : pair + 2], strict=True)
        )
        states.append(net.add(left, right))
    size = states[-1].size
    unused = [s for s, used in zip(states, cell.used, strict=True) if not used]
    # A state that is not used comes out as it is: it has to be as small as the others then.
    return net.concat([s if s.shape == states[-1].shape else _reduced(net, s, filters, s.size != size) for s in unused])


def _fitted(net: Blueprint, before: Feature | None, x: Feature, filters: int) -> Feature:
    """Return the output of the cell before the last at the size of `x` and with the cell's filters."""
    if before is None:
        return x  # the first cell has only one input: both states are it, this one as it is
    if before.size != x.size:
        return _reduced(net, net.relu(before), filters, True)
    return net.conv(net.relu(before), filters) if before.channels != filters else before


def _reduced(net: Blueprint, x: Feature, filters: int, halve: bool) -> Feature:
    """Change the filters by a 1x1 convolution; to halve the size, each half of them sees every second pixel."""
    if not halve:
        return net.conv(x, filters)
    few = filters // 2
    return net.concat([net.conv(x, few, 1, 2), net.conv(net.shifted(x), filters - few, 1, 2)])


def _operation(net: Blueprint, operation: str, x: Feature, filters: int, stride: int) -> Feature:
    if operation in ("none", "1x1"):
        if operation == "none" and stride == 1 and x.channels == filters:
            return x
        return net.conv(net.relu(x), filters, 1, stride)
    if pool := re.fullmatch(r"(max|avg)_pool_(\d)x\d", operation):
        kind = {"max": "max", "avg": "average"}[pool[1]]
        y = net.pool(x, kind, int(pool[2]), stride)
        return y if x.channels == filters else net.conv(y, filters)
    if separable := re.fullmatch(r"(?:dil_(\d)_)?separable_(\d)x\d_2", operation):
        dilation, kernel = int(separable[1] or 1), int(separable[2])
        x = net.depthwise(net.relu(x), kernel, stride, norm=False, dilation=dilation)
        x = net.depthwise(net.conv(x, filters, activation=RELU), kernel, norm=False, dilation=dilation)
        return net.conv(x, filters)
    few = filters // 4
    x = net.conv(net.relu(x), few, activation=RELU)
    if operation == "3x3":
        x = net.conv(x, few, 3, stride, RELU)
    elif operation == "1x7_7x1":
        x = net.conv(net.conv(x, few, (1, 7), (1, stride), RELU), few, (7, 1), (stride, 1), RELU)
    else:
        raise ValueError(f"unknown operation {operation}")
    return net.conv(x, filters)


@cache
def _cells() -> dict[str, Any]:
    return json.loads((files("edgenet.models") / "amoebanet_cells.json").read_text(encoding="utf-8"))


def amoebanet_cell(name: str, kind: str) -> dict[str, tuple[Any, ...]]:
    """Return "operations", "inputs" and "used" of a cell, "normal" or "reduction", of AmoebaNet-A, -B or -C."""
    return {key: tuple(value) for key, value in _cells()[name][kind].items()}
