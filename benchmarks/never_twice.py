"""What one more precision costs a finished run, beside what that precision costs alone: processor time.

    .venv/bin/python benchmarks/never_twice.py [--model efficientnet-lite0] [--images ../shared/imagenet-mini]
        [--before float32,int8] [--precision dynamic] [--limit 500]

`alone` is `edgenet run` with the one precision, in a new folder. `added` is the same command with one more precision in
a folder where the run with those before is finished. Each starts with a cache of its own, which is empty at first. CPU
seconds are those of the command and of all its children, as the kernel counts them; beside them stands how long files
were timed, which takes processor time as well.

Bar: added costs at most 1.2 times as much as alone.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from edgenet.results import Results

BAR = 1.2


def run(model: str, images: Path, limit: int, precisions: list[str], out: Path, cache: Path) -> tuple[float, float]:
    """Run the command; return its CPU seconds and those by the clock."""
    command = [
        Path(sys.executable).with_name("edgenet"),
        "run",
        model,
        "--images",
        images,
        "--limit",
        limit,
        "--out",
        out,
    ]
    command += [part for p in precisions for part in ("--precision", p)]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    env = {**os.environ, "EDGENET_CACHE": str(cache)}
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, time.perf_counter() - start


def timed_s(out: Path) -> float:
    """Return for how long files were under the clock in the run that timed them last."""
    measurements = Results.load(out).measurements
    return sum(sum(m.samples_ns) + sum(m.disturbed_ns) for m in measurements) / 1e9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--images", type=Path, default=Path("../shared/imagenet-mini"))
    parser.add_argument("--before", default="float32,int8")
    parser.add_argument("--precision", default="dynamic")
    parser.add_argument("--limit", type=int, default=500)
    args = parser.parse_args()
    before = args.before.split(",")
    table = Table("run", "precisions", "CPU, s", "of that under the clock, s", "s")
    costs = {}
    with tempfile.TemporaryDirectory(prefix="edgenet-") as name:
        folder = Path(name)
        for what, precisions, out in (
            ("alone", [args.precision], folder / "alone"),
            ("before", before, folder / "both"),
            ("added", [*before, args.precision], folder / "both"),
        ):
            cache = folder / f"cache-{out.name}"
            cpu, clock = run(args.model, args.images, args.limit, precisions, out, cache)
            costs[what] = cpu
            table.add_row(what, ", ".join(precisions), f"{cpu:.1f}", f"{timed_s(out):.1f}", f"{clock:.0f}")
    Console(width=120).print(table)
    ratio = costs["added"] / costs["alone"]
    print(f"never_twice: {ratio:.2f} x")
    return 0 if ratio <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
