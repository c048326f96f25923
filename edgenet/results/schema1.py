"""results.json of schema 1, in which warnings and what failed were sentences, as plain values of schema 2.

This is the one place that reads sentences, of files that no version writes any more.
"""

import re
from typing import Any

# How a warning began, or what it held -> its code.
_OPENINGS = {
    "no labels": "no-labels",
    "the output has 8 bits": "8-bit-output",
    "not settled": "not-settled",
    "only": "few-runs",
    "noisy": "noisy",
    "disturbed": "disturbed",
    "hardly ever undisturbed": "rarely-undisturbed",
    "drift": "drift",
    "runs resemble each other": "dependent-runs",
    "cannot tell": "cannot-tell",
    "it takes": "batch",
    "each of the": "samples-are-calls",
    "the first file differs from itself": "noise-floor",
    "other processes used": "busy",
    "the hypervisor took away": "stolen",
    "the load average": "loaded",
    "the CPU governor": "governor",
    "the clock fell": "clock-fell",
    "the CPU was at": "hot",
    "the board reported under-voltage": "under-voltage",
    "the board reported a capped": "throttled",
    "the phone was throttling": "throttled",
    "the battery was at": "hot-battery",
    "the battery is at": "low-battery",
    "the battery saver": "battery-saver",
    "the phone was lost": "device-lost",
    "not pinned": "not-pinned",
    "a benchmark_model for": "other-abi",
    "no operator runs on": "nothing-accelerated",
}
# Code -> where its number stands in the sentence; of those that a page merges over files.
_VALUES = {
    "noisy": r"over (\d+)%",
    "disturbed": r"(\d+)% of the runs",
    "drift": r"(\d+)% (?:slower|faster)",
    "not-settled": r"after ([\d.]+) s",
    "few-runs": r"only (\d+) of",
}
_FRACTIONS = ("noisy", "disturbed", "drift")  # per cent in the sentence, a fraction as a value
_DEVICE = re.compile(r"local|edgetpu|micro|(adb|ssh|qemu|ethos-u|qnn|rknn):.+")


def upgraded(data: dict[str, Any]) -> dict[str, Any]:
    """Return schema 1's plain values as those of schema 2. What has a wrong type stays, for the reader to refuse."""
    out = dict(data)
    for kind in ("evaluations", "measurements", "estimates"):
        if isinstance(data.get(kind), list):
            out[kind] = [_with_warnings(row) for row in data[kind]]
    if isinstance(data.get("failures"), list):
        out["failures"] = [_failure(row) for row in data["failures"]]
    return out


def _with_warnings(row: Any) -> Any:
    if not isinstance(row, dict) or not isinstance(row.get("warnings"), list):
        return row
    return {**row, "warnings": [_warning(w) if isinstance(w, str) else w for w in row["warnings"]]}


def _warning(text: str) -> dict[str, Any]:
    code = next((code for opening, code in _OPENINGS.items() if text.startswith(opening)), "note")
    found = re.search(_VALUES[code], text) if code in _VALUES else None
    value = float(found[1]) / (100 if code in _FRACTIONS else 1) if found else None
    return {"code": code, "text": text, "value": -value if value and "faster" in text else value}


def _failure(row: Any) -> Any:
    if not isinstance(row, dict) or not isinstance(row.get("what"), str):
        return row
    what = row["what"]
    if _DEVICE.fullmatch(what):
        return {**row, "device": what}
    artifact, on, device = what.rpartition(" on ")
    if on and _DEVICE.fullmatch(device):
        return {**row, "artifact": artifact, "device": device}
    artifact, within, runtime = what.rpartition(" in ")
    if within and re.fullmatch(r"\w+", runtime):
        return {**row, "artifact": artifact, "runtime": runtime}
    return {**row, "artifact": what}
