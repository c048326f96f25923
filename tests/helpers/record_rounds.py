"""Record rounds of real files for the gate's error rates: `python tests/helpers/record_rounds.py FILE... --out JSON`.

Each session times one file as if it were two, in interleaved rounds as `edgenet compare --remeasure` does; sessions
follow one another with a pause, so that two of them differ as two runs do. The file is kept after every session, and
one that is there goes on. Times are whole microseconds.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from edgenet.device_bench import Plan, Request, local
from edgenet.results import Measurement

PLAN = Plan(rounds=10, max_rounds=20, max_time_s=20.0, self_check=False)


def session(path: Path, seed: int, plan: Plan = PLAN) -> dict[str, Any]:
    """Time a file twice in the same rounds; return what was taken as plain values."""
    request = Request(plan=Plan(**{**vars(plan), "seed": seed}))
    measured, failures = local.bench([("a", path), ("b", path)], request)
    if failures:
        raise SystemExit(f"{path} failed: {failures[0].why}")
    first = measured[0].device_info
    about = {"cpu_model": first["cpu_model"], "load": first["load_average"], "at": round(time.time())}
    return {"file": path.name, **about, "runs": [_plain(m) for m in measured]}


def _plain(m: Measurement) -> dict[str, Any]:
    return {
        "samples_us": [round(ns / 1e3) for ns in m.samples_ns],
        "rounds": list(m.rounds),
        "pace_us": [round(ns / 1e3, 1) for ns in m.pace_ns],
        "disturbed_us": [round(ns / 1e3) for ns in m.disturbed_ns],
        "disturbed_rounds": list(m.disturbed_rounds),
        "disturbed_pace_us": [round(ns / 1e3, 1) for ns in m.disturbed_pace_ns],
        "round_s": list(m.round_s),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sessions", type=int, default=12, help="of each file")
    parser.add_argument("--pause", type=float, default=30.0, help="seconds between two sessions")
    args = parser.parse_args()
    kept = json.loads(args.out.read_text()) if args.out.exists() else []
    for i in range(args.sessions):
        for path in args.files:
            kept.append(session(path, len(kept)))
            args.out.write_text("[\n" + ",\n".join(json.dumps(s, separators=(",", ":")) for s in kept) + "\n]\n")
            print(f"session {i + 1} of {path.name}", flush=True)
            time.sleep(args.pause)


if __name__ == "__main__":
    main()
