"""A plan in words: for the terminal, and as plain values for `--json`."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from edgenet.dry_run.plan import COMPILED, Plan, PlannedDevice
from edgenet.report.formatting import MISSING, counted, megabytes

_DONE = "An earlier run did all of it: only the page would be written again."
TITLES = ("file", "size", "input", "")


def rows(plan: Plan) -> list[tuple[str, ...]]:
    """Return a row a file."""
    return [
        (
            f.path.name,
            megabytes(f.size_bytes) if f.is_there else about(f.size_bytes),
            f.io,
            "is there already" if f.is_there else f"for {' and '.join(f.made_for)}" if f.made_for else "",
        )
        for f in plan.files
    ]


def about(size_bytes: int) -> str:
    """Return an estimated size; an em dash where nothing is known."""
    return f"≈ {megabytes(size_bytes)}" if size_bytes else MISSING


def lines(plan: Plan) -> Iterator[str]:
    """Yield what stands below the table of files."""
    p = plan.pictures
    yield f"Out of {plan.model}, into {plan.out}: {counted(len(plan.files), 'file')}, results.json and report.html"
    roles = [f"{p.calibrate} calibrate", f"{p.measure} measure ({p.labelled} of them labelled)"]
    yield f"Pictures of {p.root}: {', '.join([*roles, *[f'{p.emulated} on an emulator'] * bool(p.emulated)])}"
    for device in plan.devices:
        yield f"Device {device.device}: {_done_by(device)}"
    yield f"Disk: about {megabytes(plan.needed_bytes)} will be written, {plan.free_bytes / 1e9:,.1f} GB are free"
    for f in plan.findings:
        yield f"Note: {f.message}; {f.remedy}"
    yield ""
    yield "About how long it takes on this machine, as busy as it is now:" if plan.steps else _DONE
    for s in plan.steps:
        yield f"  {s.name} {s.what}: {duration(s.seconds) or s.how}{f' ({s.how})' if s.seconds else ''}"
    yield ""
    yield "Nothing was written. The same command without --dry-run does it."


def _done_by(d: PlannedDevice) -> str:
    n = counted(d.n_files, "file")
    return f"its compiler estimates {n}" if d.how == COMPILED else f"times {n}"


def duration(seconds: tuple[float, float] | None) -> str:
    """Return "20 to 45 s" or "3 to 7 minutes", rounded to what an estimate is worth."""
    if seconds is None:
        return ""
    low, high = seconds
    if high < 100:
        return f"{_rounded(low)} to {_rounded(high)} s"
    if high < 5400:
        return f"{_rounded(low / 60)} to {_rounded(high / 60)} minutes"
    return f"{_rounded(low / 3600)} to {_rounded(high / 3600)} hours"


def _rounded(x: float) -> str:
    return f"{float(f'{x:.1g}'):g}" if x < 10 else f"{round(x, -1 if x >= 100 else 0):.0f}"


def plain(plan: Plan) -> dict[str, Any]:
    """Return the plan for `--json`."""
    files = [{**dataclasses.asdict(f), "path": str(f.path)} for f in plan.files]
    return {**dataclasses.asdict(plan), "out": str(plan.out), "files": files}
