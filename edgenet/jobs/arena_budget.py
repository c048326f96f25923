"""`--max-arena`: a budget of memory on a microcontroller for the files of `edgenet run` and `edgenet bench`."""

import math
from collections.abc import Sequence

from edgenet.errors import GateFailed, InputError
from edgenet.files import parse_bytes
from edgenet.jobs.scale_memory import LEAST_BYTES, MICRO, MOST_BYTES
from edgenet.results import Estimate, Results


def check(max_arena: str | None, devices: Sequence[str]) -> None:
    """Raise InputError where a budget is no size, or nothing would measure it."""
    if max_arena is not None:
        _limit(max_arena)
        if MICRO not in devices:
            raise InputError(f"--max-arena is measured on a microcontroller: add --device {MICRO}")


def hold(results: Results, max_arena: str | None, every: bool) -> None:
    """Raise GateFailed where files take a larger arena than the budget.

    Args:
        every: every file has to fit; else one is enough, because a run makes files that are for other devices too.
    """
    if max_arena is None:
        return
    found = [e for e in results.estimates if e.device == MICRO]
    over = [e for e in found if not _fits(e, _limit(max_arena))]
    if not found:
        raise GateFailed(f"no file ran in tflite-micro, so that none is within --max-arena {max_arena}")
    if over and every:
        worst = max(over, key=_arena)
        raise GateFailed(f"{len(over)} of {len(found)} files miss --max-arena {max_arena}: {_takes(worst)}")
    if len(over) == len(found):
        raise GateFailed(f"no file is within --max-arena {max_arena}: {_takes(min(over, key=_arena))}")


def _arena(e: Estimate) -> float:
    return math.inf if e.left or e.sram_bytes is None else e.sram_bytes


def _limit(max_arena: str) -> int:
    return parse_bytes("--max-arena", max_arena, LEAST_BYTES, MOST_BYTES)


def _fits(e: Estimate, limit: int) -> bool:
    return _arena(e) <= limit


def _takes(e: Estimate) -> str:
    if e.left or e.sram_bytes is None:
        return f"{e.artifact} does not run there, for lack of {e.left[0].kind}"
    return f"{e.artifact} takes {e.sram_bytes:,} bytes"
