"""What the tests of Snapdragons share."""

import importlib.util
from pathlib import Path

import pytest

from edgenet.device_bench.device import Request
from edgenet.device_bench.qnn.device import Hexagon
from edgenet.results import Estimate, Failure

needs_qnn = pytest.mark.skipif(importlib.util.find_spec("onnxruntime_qnn") is None, reason="needs edgenet[qnn]")


def bench(device: Hexagon, *paths: Path) -> tuple[list[Estimate], list[Failure]]:
    """Compile files that are called by their names."""
    return device.bench([(p.name, p) for p in paths], Request())
