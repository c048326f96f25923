"""Keep the rounds of real runs for planted_comparisons.py: `python tests/helpers/record_rounds.py OUT... > FILE`.

tests/compare/data/rounds.json is what it printed of five runs of `edgenet run` of EfficientNet-Lite0 on two cores of a
virtual machine, hours apart. Times are whole microseconds.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgenet.results import Results

BUSY = ("busy", "stolen", "loaded")  # codes of warnings that two runs are not compared with


def rows(folder: Path, run: str) -> Iterator[dict[str, Any]]:
    """Yield what was timed on this machine, a file each."""
    results = Results.load(folder)
    for m in results.measurements:
        if m.device == "local":
            about = m.device_info
            yield {
                "run": run,
                "at": results.context.created,
                "file": m.artifact,
                "sha256": m.artifact_sha256,
                "cpu_model": about.get("cpu_model"),
                "load": (about.get("load_average") or [None])[0],
                "others_cores": about.get("other_processes_cores"),
                "codes": [w.code for w in m.warnings if w.code in BUSY],
                "runtime": m.runtime,
                "samples_us": [round(ns / 1000) for ns in m.samples_ns],
                "rounds": list(m.rounds),
            }


def main() -> None:
    found = [row for i, folder in enumerate(sys.argv[1:], 1) for row in rows(Path(folder), f"r{i}")]
    print("[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in found) + "\n]")


if __name__ == "__main__":
    main()
