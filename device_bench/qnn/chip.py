"""The Snapdragons that Qualcomm's compiler knows, and what people call them.

chips.csv has LiteRT's name of each chip, the number that QNN has for it, and what QNN itself says of its NPU when it
compiles for it (2.50.40): the Hexagon version, 0 where it knows none, and the memory on the NPU (VTCM). names.csv has
the names under which chips are sold, and phones that have the same chip wherever they are sold.
"""

import csv
import difflib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgenet.errors import InputError

FIRST_HTP = 68  # the first Hexagon with a matrix unit (HTP): what QNN compiles INT8 networks for
_NEAREST = 6


@dataclass(frozen=True)
class Chip:
    """One chip. `hexagon` is the version of its NPU, 68 say for v68, 0 where QNN knows none."""

    soc: str  # LiteRT's name, SM8750
    qnn_id: int  # onnxruntime's `soc_model`
    hexagon: int
    vtcm_bytes: int


@cache
def chips() -> dict[str, Chip]:
    """Return the chips by their names."""
    rows = _rows("chips.csv")
    return {r["soc"]: Chip(r["soc"], int(r["qnn_id"]), int(r["hexagon"]), int(r["vtcm_bytes"])) for r in rows}


@cache
def sold_as() -> dict[str, str]:
    """Return name of a phone, a board or a chip on the market -> name of the chip."""
    return {r["name"]: r["soc"] for r in _rows("names.csv")}


def find_chip(name: str) -> Chip:
    """Return the chip called `name`: SM8750, "Galaxy S25", snapdragon-8-elite, or what a phone says, SM8750-AB.

    Raises:
        InputError: nobody is called that, or the chip has no NPU that QNN compiles for.
    """
    known = {_plain(soc): soc for soc in chips()} | {_plain(n): soc for n, soc in sold_as().items()}
    soc = known.get(_plain(name)) or known.get(_plain(re.sub(r"-[A-Za-z0-9]{1,3}$", "", name)))
    if soc is None:
        near = difflib.get_close_matches(_plain(name), known, _NEAREST, cutoff=0.3)
        names = {_plain(n): n for n in (*chips(), *sold_as())}
        raise InputError(
            f"unknown Snapdragon '{name}' (nearest: {', '.join(names[n] for n in near) or 'SM8750, SM8650, SM8550'}): "
            "give the name of the chip, as `getprop ro.soc.model` on the phone says it (docs/accelerators.md has all)"
        )
    chip = chips()[soc]
    if chip.hexagon < FIRST_HTP:
        has = f"Hexagon v{chip.hexagon}" if chip.hexagon else "no Hexagon that QNN knows"
        raise InputError(
            f"{soc} has {has}, and INT8 networks are compiled for v{FIRST_HTP} and later: run the .tflite on its CPU"
        )
    return chip


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", name.casefold())


def _rows(name: str) -> list[dict[str, str]]:
    with open(Path(__file__).parent / name, newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))
