"""Which file is for which device, for the top of the page, and the section below: a row a file, a column a device.

What was measured, what a compiler estimates and what an emulator answers is said in each cell.
"""

from dataclasses import dataclass

from edgenet.report.devices.choice import Known, Pick, known_of, picks
from edgenet.report.formatting import MISSING, counted, interval, megabytes, milliseconds, percent
from edgenet.report.pieces import Cell, Chip, Line, Table, table
from edgenet.report.rows import Row
from edgenet.report.view import View
from edgenet.results import Estimate, Evaluation
from edgenet.targets import not_for


@dataclass(frozen=True)
class Choice:
    """A device, the file for it, "" where there is none, and why."""

    device: str
    name: str
    why: str


def choices(view: View) -> tuple[Choice, ...]:
    """The file for each device; nothing where one computer is all there is, which the headline is about."""
    return tuple(Choice(p.device, p.name, " ".join(p.why)) for p in picks(view.results, view.answer, view.rows))


def devices(view: View) -> Table | None:
    """A row a file, a column a device."""
    best = {p.device: p for p in picks(view.results, view.answer, view.rows)}
    columns = [d for d in best if any(_is_known(view, r, d) for r in view.rows)]
    if not columns:
        return None
    lines = [Line((_file(view, r), *(_cell(view, r, d, best[d]) for d in columns))) for r in view.rows]
    return table("In brackets 95 % intervals", ("File", *columns), lines)


def _is_known(view: View, r: Row, device: str) -> bool:
    return known_of(view.results, r.artifact, device) != Known()


def _file(view: View, r: Row) -> Cell:
    a = r.artifact
    return Cell(r.name, f"{a.precision} · {a.io_dtype} in and out · {megabytes(a.size_bytes)}")


def _cell(view: View, r: Row, device: str, pick: Pick) -> Cell:
    a, known = r.artifact, known_of(view.results, r.artifact, device)
    ship = Chip("ship", "good") if pick.artifact == a.id else None
    if m := known.measured:
        here = (_agreement(r.evaluation),) if r.evaluation and r.evaluation.agreement is not None else ()
        return Cell(milliseconds(m.median_ms), f"measured, {counted(m.threads, 'thread')}", ship, more=here)
    if known.estimated:
        return _on_chip(known.estimated, known.emulated, ship)
    if any(f.artifact == a.id and f.device == device for f in view.results.failures):
        return Cell(MISSING, chip=Chip("failed", "bad"))
    why = not_for(device, a.format, a.precision)
    return Cell(MISSING, f"not for it: {why}" if why else "not tried")


def _on_chip(e: Estimate, emulated: Evaluation | None, ship: Chip | None) -> Cell:
    said = []
    if emulated and emulated.agreement is not None:
        said.append(_agreement(emulated))
    if e.inference_ms is not None:
        said.append(f"{milliseconds(e.inference_ms)} estimated")
        if e.inference_bounds_ms:
            said.append(f"{' to '.join(map(milliseconds, e.inference_bounds_ms))}")
    sizes = ((e.compiled_bytes, "compiled"), (e.sram_bytes, "of RAM"))
    said += [f"{megabytes(b)} {what}" for b, what in sizes if b]
    return Cell(f"{e.n_accelerated} of {e.n_operators}", "operators", ship, more=tuple(said))


def _agreement(e: Evaluation) -> str:
    how = ", emulated" if e.emulated else ""
    ci = f" ({interval(e.agreement_ci95)})" if e.agreement_ci95 else ""
    of = "as here" if e.reference == e.artifact else "as float32"
    return f"{percent(e.agreement)}{ci} {of}{how}"
