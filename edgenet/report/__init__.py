"""results.json as one page, OUT/report.html, and which file it says to ship."""

from edgenet.report.overview import write_report
from edgenet.report.recommendation import recommend

__all__ = ["recommend", "write_report"]
