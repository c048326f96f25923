"""Results -> which file is for which device: of chips that are not here, what their compilers and emulators say."""

import math

from edgenet.results import Artifact, Estimate, Results
from edgenet.targets import target_of


def estimate_of(results: Results, a: Artifact, device: str) -> Estimate | None:
    """Return what is estimated of a file on a device; None where that is of other bytes, or nothing was."""
    found = (e for e in results.estimates if (e.artifact, e.device) == (a.id, device))
    return next((e for e in found if not e.artifact_sha256 or e.artifact_sha256 == a.sha256), None)


def ranked_on(results: Results, device: str) -> list[Artifact]:
    """Return the files that a chip's compiler took, the one to ship first.

    The more operators the accelerator takes the better; of equals the faster by the estimate, then the one that needs
    less memory. A file of which nothing is accelerated is for the CPU beside the accelerator, and left out.
    """
    t = target_of(device)
    found = [(a, e) for a in results.artifacts if (e := estimate_of(results, a, device)) and e.n_accelerated]
    found = [(a, e) for a, e in found if t is None or a.precision in (t.precisions or (a.precision,))]

    def key(pair: tuple[Artifact, Estimate]) -> tuple[float, ...]:
        a, e = pair
        memory = sum(b or 0 for b in (e.sram_bytes, e.dram_bytes, e.flash_bytes))
        ms = math.inf if e.inference_ms is None else e.inference_ms
        return -e.n_accelerated / max(e.n_operators, 1), ms, memory, e.compiled_bytes or 0, a.size_bytes

    return [a for a, _ in sorted(found, key=key)]
