"""The layers of a file as an accelerator's compiler made them: where each runs, and what it costs by the compiler."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgenet.report.formatting import MISSING, counted, megabytes, number
from edgenet.report.pieces import Cell, Chip, Line, Table, table
from edgenet.results import CompiledLayer, Estimate

NPU = "NPU"
_TITLES = ("Layer", "Kind", "On", "Arithmetic", "Cycles", "Share of the cycles", "Moved")


@dataclass(frozen=True)
class Layers:
    """The layers of one file on one device. `summary` stands where the table is folded."""

    summary: str
    table: Table


def layers(estimates: Sequence[Estimate], names: Mapping[str, str]) -> tuple[Layers, ...]:
    """Return a table for each estimate whose compiler lists layers.

    Args:
        names: of the files, by id.
    """
    return tuple(_of(names.get(e.artifact, e.artifact), e) for e in estimates if e.layers)


def _of(file: str, e: Estimate) -> Layers:
    places = Counter(x.on for x in e.layers)
    where = ", ".join(f"{n} on the {on}" for on, n in sorted(places.items(), key=lambda x: x[0] != NPU))
    cycles = sum(x.cycles for x in e.layers)
    without = sum(not x.cycles for x in e.layers)
    caption = f"In the order in which they run, by {e.tool}."
    if 0 < without < len(e.layers):
        caption += f" It gives no cycles for {without} of them."
    memory = "; ".join(f"{megabytes(b)} of {what}" for what, b in e.memory_bytes.items() if b)
    caption += f" Memory of the whole: {memory}." if memory else ""
    lines = [_line(x, cycles) for x in e.layers]
    summary = f"{file} on {e.device}, layer by layer: {counted(len(e.layers), 'layer')}, {where}"
    return Layers(summary, table(caption, _TITLES, lines))


def _line(x: CompiledLayer, cycles: int) -> Line:
    on = Cell(x.on) if x.on == NPU else Cell("", chip=Chip(x.on, "warn"))
    share = number(100 * x.cycles / cycles, 1) + " %" if x.cycles else MISSING
    count = f"{x.cycles:,}" if x.cycles else MISSING
    moved = f"{number(x.moved_bytes / 1e3, 1)} KB"
    return Line((Cell(x.name), Cell(x.kind), on, Cell(x.arithmetic), Cell(count), Cell(share), Cell(moved)))
