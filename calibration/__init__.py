"""Which numbers a network is quantized with, and from which images."""

from edgenet.calibration.quantize import NEEDS_CALIBRATION, PRECISIONS, quantize
from edgenet.calibration.ranges import measure_ranges

__all__ = ["NEEDS_CALIBRATION", "PRECISIONS", "measure_ranges", "quantize"]
