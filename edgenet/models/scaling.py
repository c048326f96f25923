"""Compound scaling: one number, phi, to the width, depth and resolution of a network.

Tan and Le, https://arxiv.org/abs/1905.11946, section 3.3: depth = alpha^phi, width = beta^phi, resolution = gamma^phi
with alpha * beta^2 * gamma^2 ~ 2, so that multiply-adds grow by about 2^phi. Pure functions; nothing is measured here.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgenet.errors import InputError
from edgenet.models.graph_drawing import Blueprint
from edgenet.models.resnet_mobilenet import efficientnet, mobilenet_v1, mobilenet_v2, resnet
from edgenet.models.zoo import MODELS

_PX_STEP = 8  # a multiple of 32 would be kindest to the strides, and too coarse
_MIN_PX = 32


@dataclass(frozen=True)
class Coefficients:
    """How much of each dimension a unit of phi takes. Each is at least 1."""

    alpha: float  # depth
    beta: float  # width
    gamma: float  # resolution

    def __post_init__(self) -> None:
        if not all(v >= 1 for v in (self.alpha, self.beta, self.gamma)):
            raise InputError(f"alpha {self.alpha}, beta {self.beta}, gamma {self.gamma}: each must be at least 1")

    @property
    def growth(self) -> float:
        """How many times the multiply-adds grow with a unit of phi, before rounding."""
        return self.alpha * self.beta**2 * self.gamma**2


EFFICIENTNET = Coefficients(1.2, 1.1, 1.15)  # the result of the authors' grid search for B0


@dataclass(frozen=True)
class Scale:
    """Factors on the baseline's filters, repeats and input side."""

    width: float = 1.0
    depth: float = 1.0
    resolution: float = 1.0


def compound(phi: float, coefficients: Coefficients = EFFICIENTNET) -> Scale:
    """Return the factors for `phi`; 0 gives the baseline, below 0 something smaller."""
    c = coefficients
    return Scale(width=c.beta**phi, depth=c.alpha**phi, resolution=c.gamma**phi)


def scaled_px(resolution_px: int, factor: float) -> int:
    """Return the side as the nearest multiple of 8 px, 32 at least."""
    return max(_MIN_PX, round(resolution_px * factor / _PX_STEP) * _PX_STEP)


@dataclass(frozen=True)
class Family:
    """A baseline that is scaled. `draw` takes (name, width, depth, resolution_px, classes)."""

    name: str
    resolution_px: int
    draw: Callable[[str, float, float, int, int], Blueprint]

    def scaled(self, scale: Scale, name: str = "", classes: int = 1000) -> Blueprint:
        """Draw the network; `parameters` and `multiply_adds` are the blueprint's."""
        px = scaled_px(self.resolution_px, scale.resolution)
        return self.draw(name or self.name, scale.width, scale.depth, px, classes)


def _efficientnet(baseline: str) -> Callable[[str, float, float, int, int], Blueprint]:
    def draw(name: str, width: float, depth: float, px: int, classes: int) -> Blueprint:
        row = MODELS[baseline]
        row = dataclasses.replace(row, name=name, width=width, depth=depth, resolution_px=px, classes=classes)
        return efficientnet(row)

    return draw


FAMILIES: dict[str, Family] = {f.name: f for f in (
    Family("efficientnet-lite", 224, _efficientnet("efficientnet-lite0")),
    Family("efficientnet", 224, _efficientnet("efficientnet-b0")),
    Family("mobilenet-v1", 224, lambda name, width, depth, px, n: mobilenet_v1(width, depth, px, name, n)),
    Family("mobilenet-v2", 224, lambda name, width, depth, px, n: mobilenet_v2(width, depth, px, name, n)),
    Family("resnet-50", 224, lambda name, width, depth, px, n: resnet(50, width, depth, px, name=name, classes=n)),
)}  # fmt: skip


def family(name: str) -> Family:
    """Return the family called `name`. Raises InputError."""
    if name not in FAMILIES:
        raise InputError(f"unknown family '{name}' (valid: {', '.join(FAMILIES)})")
    return FAMILIES[name]


@dataclass(frozen=True)
class Candidate:
    """One point of the grid, at phi = 1. `cost` is what it costs in multiples of the baseline."""

    coefficients: Coefficients
    cost: float


def grid(step: float = 0.05, tolerance: float = 0.1) -> list[Coefficients]:
    """Return all coefficients on a grid from 1 to 2 with alpha * beta^2 * gamma^2 within `tolerance` of 2."""
    if not 0 < step <= 1:
        raise InputError(f"the step of the grid must be above 0 and at most 1, was {step}")
    values = [round(1 + i * step, 6) for i in range(int(1 / step + 1e-9) + 1)]
    points = (Coefficients(*point) for point in itertools.product(values, repeat=3))
    return [c for c in points if abs(c.growth - 2) <= tolerance]


def grid_search(
    of: Family,
    points: Sequence[Coefficients] | None = None,
    *,
    cost: Callable[[Blueprint], float] = lambda net: net.multiply_adds,
) -> list[Candidate]:
    """Return step 1's candidates with what each costs at phi = 1, those nearest to twice the baseline first.

    The constraint alpha * beta^2 * gamma^2 ~ 2 speaks of a network without rounding; here the network is drawn and
    costed: repeats are rounded up, so that alpha just above 1 costs much more. Which candidate is most accurate only
    training tells: train the first few for as long as can be afforded.

    Args:
        points: the grid; `grid()` by default.
        cost: multiply-adds, or what a device takes: a function that exports and measures the network.
    """
    base = cost(of.scaled(Scale()))
    found = [Candidate(c, cost(of.scaled(compound(1, c))) / base) for c in (grid() if points is None else points)]
    return sorted(found, key=lambda c: abs(c.cost - 2))
