"""Which numbers a network is quantized with, and from which images."""

from edgenet.calibration.quantize import NEEDS_CALIBRATION, quantize
from edgenet.calibration.ranges import measure_ranges
from edgenet.calibration.shared import SharedCalibration
from edgenet.options import CORRECTIONS, PRECISIONS, RANGE_METHODS, Recipe

__all__ = [
    "CORRECTIONS",
    "NEEDS_CALIBRATION",
    "PRECISIONS",
    "RANGE_METHODS",
    "Recipe",
    "SharedCalibration",
    "measure_ranges",
    "quantize",
]
