"""What edgetpu_compiler prints, versions 2 to 16: which operators it maps to the Edge TPU, and why not the others."""

import re
from dataclasses import dataclass

from edgenet.errors import DeviceError, InputError

MAPPED = "Mapped to Edge TPU"
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_NOT_COMPILED = re.compile(
    r"^(Invalid model: .*|Internal compiler error.*|Compilation failed.*|ERROR: .*|.*Compilation child process .*)$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Mapping:
    """What the compiler did with one file. `left` are (kind, how many, why) of the operators that stay on the CPU."""

    version: str
    n_operators: int
    left: tuple[tuple[str, int, str], ...]
    n_subgraphs: int | None = None
    on_chip_bytes: int | None = None  # weights that stay in the chip's memory
    streamed_bytes: int | None = None  # weights that come over USB or PCIe in every inference


def parse_log(text: str) -> Mapping:
    """Return what the output of `edgetpu_compiler -s` on one file says.

    Raises:
        InputError: the compiler refused the file.
        DeviceError: it failed, or this is not its output, or the output is cut short.
    """
    version = re.search(r"Edge TPU Compiler version (\S+)", text)
    compiled = re.search(r"^Model compiled successfully", text, re.MULTILINE)
    if version is None:
        raise DeviceError(f"this is not what edgetpu_compiler prints: {' '.join(text.split())[:80]!r}")
    if compiled is None:
        said = [" ".join(m[1].split()) for m in _NOT_COMPILED.finditer(text)]
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if any(s.startswith("Invalid model") for s in said):
            errors = [s.removeprefix("ERROR: ") for s in said if s.startswith("ERROR: ")]
            raise InputError(f"edgetpu_compiler {version[1]} refuses the file: {'; '.join([*errors[:1], lines[-1]])}")
        raise DeviceError(f"edgetpu_compiler {version[1]} failed: {said[0] if said else lines[-1]}")
    rows = _rows(text)
    total = re.search(r"^Total number of operations: (\d{1,9})\b", text, re.MULTILINE)
    counted = sum(n for _, n, _ in rows)
    if total is None or counted != int(total[1]):
        raise DeviceError(
            f"the output of edgetpu_compiler is cut short: {counted} operators in its table, "
            f"{total[1] if total else 'no number'} in its summary"
        )
    subgraphs = re.search(r"^Number of Edge TPU subgraphs: (\d{1,9})\b", text, re.MULTILINE)
    return Mapping(
        version=version[1],
        n_operators=counted,
        left=tuple(row for row in rows if row[2] != MAPPED),
        n_subgraphs=int(subgraphs[1]) if subgraphs else None,
        on_chip_bytes=_bytes(text, "On-chip memory used for caching model parameters"),
        streamed_bytes=_bytes(text, "Off-chip memory used for streaming uncached model parameters"),
    )


def _rows(text: str) -> list[tuple[str, int, str]]:
    """Return (kind, how many, status) of each row below the title "Operator Count Status"."""
    table = re.split(r"^Operator\s+Count\s+Status\s*$", text, maxsplit=1, flags=re.MULTILINE)
    if len(table) < 2:
        return []
    found = re.findall(r"^([A-Za-z][\w-]*)[ \t]+(\d{1,9})[ \t]+(\S.*?)\s*$", table[1], re.MULTILINE)
    return [(kind, int(n), status) for kind, n, status in found]


def _bytes(text: str, label: str) -> int | None:
    m = re.search(rf"^{label}: (\d{{1,12}}(?:\.\d{{1,9}})?)(\w+)\s*$", text, re.MULTILINE)
    return round(float(m[1]) * _UNITS[m[2]]) if m and m[2] in _UNITS else None
