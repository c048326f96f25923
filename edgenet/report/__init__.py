"""results.json as one page, OUT/report.html, and which file it says to ship."""

from edgenet.report.overview import write_report
from edgenet.report.recommendation import recommend
from edgenet.report.refusals import lost_files

__all__ = ["lost_files", "recommend", "write_report"]
