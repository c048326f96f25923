"""What a calibration costs: processor time and peak memory, for a CI runner of 7 GB and a laptop of 16.

    .venv/bin/python benchmarks/calibration_cost.py [--networks b0-flowers,lite0] [--precision int8]
        [--calibration-images 100] [--shared ../shared]

NETWORKS of benchmarks/networks.py, or names of the zoo, which get random weights and pictures of ImageNet (their memory
tells something, their time little: a network that nobody trained has other channels). Each is calibrated and quantized
in a process of its own, pictures already in memory. CPU seconds are those of all threads, as the kernel counts them,
so that a busy machine changes them less than the clock; the peak is that of the process's resident memory.

The last column is a hash of all integers, scales and zero points, and of the operators: of two versions of edgenet, or
two machines, the same hash means the same files.

Bar: 2 GiB for each network.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
from networks import N_CALIBRATION, NETWORKS, Row, pictures_of
from rich.console import Console
from rich.table import Table

from edgenet.calibration import NEEDS_CALIBRATION, SharedCalibration
from edgenet.export import find_source
from edgenet.export.graph import Graph
from edgenet.images import load_pixels

BAR_MB = 2048


def fingerprint(graph: Graph) -> str:
    """Return a hash of everything that a writer translates: constants, quantization, operators."""
    h = hashlib.sha256(repr(graph.ops).encode())
    for name in sorted(graph.tensors):
        t = graph.tensors[name]
        h.update(f"{name} {t.dtype} {t.shape}".encode())
        if t.data is not None:
            h.update(np.ascontiguousarray(t.data).tobytes())
        if t.quantization is not None:
            h.update(t.quantization.scale.tobytes() + t.quantization.zero_point.tobytes())
    return h.hexdigest()


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(name: str, precision: str, n: int, shared: Path) -> dict[str, object]:
    """Calibrate in this process; return what it cost."""
    row = NETWORKS.get(name, Row(name, None, "imagenet-mini", None, hard=False))
    path = shared / row.model
    source = find_source(
        str(path) if path.is_file() else row.model, preprocess=row.preprocess, random_weights=name not in NETWORKS
    )
    images, _ = pictures_of(row, shared, source, 1, n)
    pixels = load_pixels(images, source.preprocessing)
    network = source.network()
    before, start = resident_mb(), sum(os.times()[:2])
    graph = SharedCalibration(network, pixels, images.fingerprint).quantized(precision)
    return {
        "px": pixels.shape[1],
        "pictures": len(pixels),
        "cpu_s": sum(os.times()[:2]) - start,
        "before_mb": before,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "hash": fingerprint(graph)[:16],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default="b0-flowers,lite0")
    parser.add_argument("--precision", default="int8", choices=NEEDS_CALIBRATION)
    parser.add_argument("--calibration-images", type=int, default=N_CALIBRATION)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--here", metavar="NETWORK", help="measure in this process, and print it as JSON")
    args = parser.parse_args()
    if args.here:
        print(json.dumps(measure(args.here, args.precision, args.calibration_images, args.shared)))
        return 0
    table = Table("network", "px", "pictures", "CPU, s", "before, MB", "peak, MB", "hash of the integers")
    peaks = []
    for name in args.networks.split(","):
        options = ["--precision", args.precision, "--shared", str(args.shared)]
        options += ["--calibration-images", str(args.calibration_images)]
        command = [sys.executable, __file__, "--here", name, *options]
        m = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        peaks.append(m["peak_mb"])
        numbers = [f"{m[key]:.0f}" for key in ("px", "pictures", "cpu_s", "before_mb", "peak_mb")]
        table.add_row(name, *numbers, m["hash"])
    Console(width=120).print(table)
    print(f"calibration_cost: {max(peaks):.0f} MB at most")
    return 0 if max(peaks) <= BAR_MB else 1


if __name__ == "__main__":
    sys.exit(main())
