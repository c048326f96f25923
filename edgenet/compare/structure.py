"""What else became of a file: its size, operators that compute in another precision, operators that left a chip."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from edgenet.compare.nouns import OPERATORS, REFUSED, SHOWN, SIZE, Finding, OperatorChange, verdict_of
from edgenet.results import Artifact, Estimate, Measurement

NPU, CPU = "the accelerator", "the CPU"


def size(old: Artifact, new: Artifact, limit: float | None) -> Finding:
    """Return by how much a file grew."""
    a, b = old.size_bytes, new.size_bytes
    if a <= 0 or b <= 0:
        return Finding(new.id, SIZE, REFUSED, "unknown", old_file=old.id, limit=limit)
    growth = b / a - 1
    verdict = verdict_of(growth, growth, limit)
    return Finding(
        new.id, SIZE, verdict, "bytes", old_file=old.id, old=a, new=b, change=growth, low=growth, high=growth,
        limit=limit,
    )  # fmt: skip


def precisions(old: Artifact, new: Artifact) -> Finding | None:
    """Return which operators compute in another precision than before; None where none does.

    Where a run lists no operator at all, it may be that none has another precision than its file, or that the run is
    of an edgenet that did not note them: both are said.
    """
    was, now = _by_operator(old), _by_operator(new)
    of_old, of_new = (a.precision if found else f"{a.precision}, or not noted" for a, found in ((old, was), (new, now)))
    counts: Counter[tuple[str, str, str]] = Counter()
    for operator in {*was, *now}:
        kind, before = was.get(operator, ("", of_old))
        kind_now, after = now.get(operator, ("", of_new))
        if before != after:
            counts[kind or kind_now, before, after] += 1
    return _finding(old.id, new.id, "precision", counts)


def accelerated(file: str, old: Estimate, new: Estimate) -> Finding | None:
    """Return which operators a chip's compiler leaves to the CPU now and did not before; None where none."""
    left = [Counter[str](), Counter[str]()]
    for counter, estimate in zip(left, (old, new), strict=True):
        for o in estimate.left:
            counter[o.kind] += o.n
    more = left[1] - left[0]
    return _finding(old.artifact, file, "accelerator", Counter({(k, NPU, CPU): n for k, n in more.items()}), new.device)


def delegated(file: str, old: Measurement, new: Measurement) -> Finding | None:
    """Return how many more operators a delegate left to the CPU while it was timed; None where none."""
    was, now = (_left(m.device_info.get("delegation")) for m in (old, new))
    if was is None or now is None or now <= was:
        return None
    counts = Counter({("", new.delegate or NPU, CPU): now - was})
    return _finding(old.artifact, file, "accelerator", counts, new.device)


def _left(said: Any) -> int | None:
    if not isinstance(said, dict):
        return None
    total, taken = said.get("total"), said.get("nodes")
    return total - taken if isinstance(total, int) and isinstance(taken, int) else None


def _by_operator(a: Artifact) -> dict[str, tuple[str, str]]:
    """Return the kind and the precision of each operator that has another one than its file."""
    found = {name: ("", precision) for name, precision in a.mixture.items()}
    found |= {name: (o.kind, o.precision) for o in a.other_precisions for name in o.operators}
    return found


def _finding(old: str, new: str, how: str, counts: Counter[tuple[str, str, str]], device: str = "") -> Finding | None:
    if not counts:
        return None
    changes: Sequence[OperatorChange] = [OperatorChange(k, n, was, now) for (k, was, now), n in sorted(counts.items())]
    return Finding(new, OPERATORS, SHOWN, how, old_file=old, device=device, changes=tuple(changes))
