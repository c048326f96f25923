"""`edgenet paper` with the tiny network in the place of every other, and short rounds: whole runs in seconds.

PAPER_KILL=N has the program kill itself before it times files for the N-th time, as a power cut would.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a program, it stands among helpers of its own

from edgenet import cli
from edgenet.calibration import Recipe
from edgenet.device_bench.timing import Plan
from edgenet.images import limit
from edgenet.jobs import paper, paper_files
from edgenet.jobs.file_factory import FileFactory, Interface
from edgenet.paper import plan
from edgenet.results import Artifact, ImageSet
from edgenet.targets import target
from helpers import tiny

SHORT = Plan(min_runs=20, min_time_s=0, rounds=10, max_rounds=10, max_time_s=60, warmup_s=0.005)


def maker(name: str, out: Path, calibration: ImageSet | None = None) -> Callable[[str, str], Artifact]:
    # Weights that mean something where the paper's lite table asks for accuracy.
    weights = "least squares" if name == "efficientnet-lite0" else "random"
    source = replace(tiny.source(), name=name, weights=weights)
    pictures = None if calibration is None else limit(calibration, 4)
    factory = FileFactory(source, pictures, target("auto"), Recipe(corrections=()), Interface())
    return lambda format, precision: factory.export(out, format, precision)


def main() -> None:
    paper_files._zoo_maker = maker  # type: ignore[assignment]
    paper_files._rival_maker = maker  # type: ignore[assignment]
    plan.PAPER_PLAN = plan.LADDER_PLAN = SHORT  # type: ignore[misc]
    tiny.shorten_timing()
    paper.imagenet_classes = lambda: (tiny.network().class_ids, tiny.network().class_names)  # type: ignore[assignment]
    del plan.RUNTIMES["tensorflow"]  # a process of ten seconds; test_saved_model.py has it
    if n := int(os.environ.get("PAPER_KILL", 0)):
        timed, left = paper._time, n

        def counting(*args: Any) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                tiny._die()
            timed(*args)

        paper._time = counting
    sys.argv[0] = "edgenet"
    cli.main()


if __name__ == "__main__":
    main()
