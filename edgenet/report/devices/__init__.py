"""Which file for which device, where several of them were asked for."""

from edgenet.report.devices.choice import Pick, headline, picks, ranked_on

__all__ = ["Pick", "headline", "picks", "ranked_on"]
