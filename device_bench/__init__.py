"""Where a model runs and how long it takes there."""

from edgenet.device_bench.devices import bench, example_picture, list_devices, local_info
from edgenet.device_bench.timing import Comparison, Plan, compare, median_interval, median_interval_by_round
from edgenet.device_bench.worker import Worker, WorkerInfo

__all__ = [
    "Comparison",
    "Plan",
    "Worker",
    "WorkerInfo",
    "bench",
    "compare",
    "example_picture",
    "list_devices",
    "local_info",
    "median_interval",
    "median_interval_by_round",
]
