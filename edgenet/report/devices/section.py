"""The section of the page that says which file is for which device: a row a file, a column a device.

What was measured, what a compiler estimates and what an emulator answers is said in each cell.
"""

from dataclasses import dataclass

from edgenet.report.devices.choice import Known, Pick, devices_of, known_of, picks
from edgenet.report.formatting import MISSING, counted, interval, megabytes, milliseconds, percent
from edgenet.report.pieces import Cell, Chip, Fact, Line, Table, table
from edgenet.report.rows import Row
from edgenet.report.view import View
from edgenet.results import Estimate, Evaluation
from edgenet.targets import not_for


@dataclass(frozen=True)
class Devices:
    """The section: which file for each device, and everything that is known of each file on each."""

    picks: tuple[Fact, ...]
    table: Table | None


def devices(view: View) -> Devices | None:
    """Which file for which device; nothing where one computer is all there is, which the top of the page is about."""
    found = picks(view.results, view.answer, view.rows)
    if not found:
        return None
    shown = tuple(Fact(p.device, (p.name, " ".join(p.why))) for p in found)
    columns = [d for d in devices_of(view.results) if any(_is_known(view, r, d) for r in view.rows)]
    if not columns:
        return Devices(shown, None)
    best = {p.device: p for p in found}
    lines = [
        Line((_file(view, r), *(_cell(view, r, d, best[d]) for d in columns)))
        for r in view.rows
    ]  # fmt: skip
    caption = (
        "Each file on each device: what was measured there, what its compiler estimates, what its emulator answers"
    )
    return Devices(shown, table(caption, ("File", *columns), lines))


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
