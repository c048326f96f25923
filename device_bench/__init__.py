"""Where a model runs and how long it takes there."""

from edgenet.device_bench.comparison import Comparison, compare
from edgenet.device_bench.device import Device, Request
from edgenet.device_bench.local import bench
from edgenet.device_bench.machine import local_info
from edgenet.device_bench.registry import list_devices, open_device
from edgenet.device_bench.rounds import example_picture
from edgenet.device_bench.timing import Plan, median_interval, median_interval_by_round
from edgenet.device_bench.worker import Worker, WorkerInfo

__all__ = [
    "Comparison",
    "Device",
    "Plan",
    "Request",
    "Worker",
    "WorkerInfo",
    "bench",
    "compare",
    "example_picture",
    "list_devices",
    "local_info",
    "median_interval",
    "median_interval_by_round",
    "open_device",
]
