"""What a compiler made of a model file for a Hexagon, whichever compiler it was."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgenet.results import LeftOperators

# Why bytes go between the NPU and DRAM: the first two are all of them, the others what did not fit on the NPU.
READ, WRITTEN = "read from DRAM", "written to DRAM"
FILLED, SPILLED = "filled back from DRAM", "spilled to DRAM"


@dataclass(frozen=True)
class Built:
    """Compiled files and what the compiler said.

    Attributes:
        files: the one to load first.
        n_operators: of the file that was compiled.
        left: those that the NPU does not run.
        is_whole: the network is one part on the NPU, and nothing else.
        moved_bytes: between the NPU and DRAM in one inference, by why.
        unpriced: operators for which the compiler has no costs; its estimate leaves them out.
    """

    files: tuple[Path, ...]
    n_operators: int
    left: tuple[LeftOperators, ...]
    is_whole: bool
    cycles: int | None = None
    inference_ms: float | None = None
    inference_bounds_ms: tuple[float, float] | None = None
    moved_bytes: Mapping[str, int] = field(default_factory=dict)
    unpriced: int = 0

    @property
    def n_accelerated(self) -> int:
        return self.n_operators - sum(o.n for o in self.left)

    @property
    def size_bytes(self) -> int:
        return sum(p.stat().st_size for p in self.files)
