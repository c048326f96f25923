"""Weights of ten classes in which no two variables are alike, and the same by the names of other projects.

A test module imports the fixtures `as` themselves, which tells ruff that pytest uses them.
"""

import numpy as np
import pytest

from edgenet.models import weights, zoo

LITE0, LITE1, B0 = (zoo.spec(f"efficientnet-{v}") for v in ("lite0", "lite1", "b0"))
CLASSES = 10
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def lite0() -> Arrays:
    """Lite0 of ten classes in which no two variables are alike, so that a swapped name shows."""
    return distinct(LITE0)


@pytest.fixture(scope="module")
def b0() -> Arrays:
    return distinct(B0)


def distinct(spec: zoo.ModelSpec) -> Arrays:
    generator = np.random.default_rng(1)
    shapes = weights.expected_shapes(spec, CLASSES)
    return {name: np.abs(generator.standard_normal(shape, np.float32)) for name, shape in shapes.items()}


def same(a: Arrays, b: Arrays) -> bool:
    return list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)


def find_style(name: str) -> weights.Style:
    return next(s for s in weights.STYLES if s.name == name)


def renamed(arrays: Arrays, style: str, spec: zoo.ModelSpec) -> Arrays:
    """Return `arrays` by the names and in the layouts of another project."""
    names: dict[str, str] = {}
    for theirs, ours in find_style(style).names(spec).items():
        names.setdefault(ours, theirs)
    return {names[ours]: _to_torch(ours, a) if find_style(style).torch else a for ours, a in arrays.items()}


def _to_torch(name: str, a: np.ndarray) -> np.ndarray:
    if a.ndim == 4:
        return np.ascontiguousarray(a.transpose((2, 3, 0, 1) if "depthwise" in name else (3, 2, 0, 1)))
    return np.ascontiguousarray(a.T)
