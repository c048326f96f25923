"""Which file for which device, where several of them were asked for."""

from edgenet.report.devices.choice import estimate_of, ranked_on

__all__ = ["estimate_of", "ranked_on"]
