"""What rknn-toolkit2's compiler prints: where each layer runs, its cycles and bytes, and the memory of the whole."""

import re
from dataclasses import dataclass

from edgenet.errors import DeviceError

UNEXPLAINED = "the compiler gives no reason"
_STAMP = r"^[DIWE] RKNN: \[[\d:.]+\]\s*"
_TITLE = re.compile(_STAMP + r"Network Layer Information Table\s*$", re.MULTILINE)
_ANY_TITLE = re.compile(_STAMP + r"\S.* Information Table\s*$|^.*<<<<<<<< end: ", re.MULTILINE)
# ID, type, data type, target, input's and output's shapes, cycles (DDR/NPU/total), of some chips and layers the share
# of zero weights, KB read and written, full name
_ROW = re.compile(
    _STAMP + r"\d+\s+(?P<kind>\S+)\s+(?P<dtype>\S+)\s+(?P<target>[A-Z]+)\s+\S+\s+\S+\s+"
    r"(?P<ddr>\d{1,15})/(?P<npu>\d{1,15})/(?P<total>\d{1,15})\s+(?:[\d.]+%\s+)?(?P<kb>\d{1,12}(?:\.\d{1,9})?)\s+(?P<name>\S.*?)\s*$",
    re.MULTILINE,
)
_ANY_ROW = re.compile(_STAMP + r"\d+\s+\S+\s", re.MULTILINE)
_MEMORY = re.compile(r"Total (Internal|Weight) Memory Size:\s*(\d{1,12}(?:\.\d{1,9})?)\s*KB")
_REASON = re.compile(_STAMP + r"(.*(?:fall ?back|turn to Target:\s*CPU).*)$", re.MULTILINE | re.IGNORECASE)
_ENDS = ("InputOperator", "OutputOperator")  # the file's input and output, which compute nothing


@dataclass(frozen=True)
class LayerRow:
    """A layer of the compiled network. The compiler tells cycles for convolutions; those of other layers are 0."""

    name: str
    kind: str  # as the compiler calls it
    dtype: str  # INT8 | FLOAT16 | ...
    target: str  # NPU | CPU
    ddr_cycles: int  # for what it moves
    npu_cycles: int  # for what it computes
    cycles: int  # of the whole, the larger of the two
    moved_bytes: int
    why: str = ""  # why it is not on the NPU


@dataclass(frozen=True)
class CompilerLog:
    """What the log says. `internal_bytes` are the activations', `weight_bytes` the weights' memory."""

    layers: tuple[LayerRow, ...]
    internal_bytes: int
    weight_bytes: int


def parse_log(text: str) -> CompilerLog:
    """Return what the compiler printed at the end of a verbose build.

    Raises:
        DeviceError: there is no table of layers, or no memory.
    """
    titles = list(_TITLE.finditer(text))
    memory = dict(_MEMORY.findall(text))
    if not titles or set(memory) != {"Internal", "Weight"}:
        raise DeviceError("rknn-toolkit2 prints no table of layers: it is of a version that edgenet does not know")
    start = titles[-1].end()
    found = _ANY_TITLE.search(text, start)
    end = found.start() if found else len(text)
    reasons = [m[1].strip() for m in _REASON.finditer(text)]
    rows, read = [], list(_ROW.finditer(text, start, end))
    if len(read) != len(_ANY_ROW.findall(text, start, end)):  # a row that is passed over would be a layer that is lost
        raise DeviceError("rknn-toolkit2's table of layers is of a version that edgenet does not know")
    for m in read:
        if m["kind"] in _ENDS:
            continue
        why = "" if m["target"] == "NPU" else _reason(m["kind"], m["name"], reasons)
        kind, _, name = m["name"].partition(":")
        rows.append(
            LayerRow(
                name or kind, m["kind"], m["dtype"], m["target"], int(m["ddr"]), int(m["npu"]), int(m["total"]),
                round(float(m["kb"]) * 1024), why,
            )
        )  # fmt: skip
    if not rows:
        raise DeviceError("rknn-toolkit2's table of layers has no rows: it is of a version that edgenet does not know")
    return CompilerLog(tuple(rows), _bytes(memory["Internal"]), _bytes(memory["Weight"]))


def _reason(kind: str, name: str, reasons: list[str]) -> str:
    """Return the line of the log that names this layer, or else its kind: exSoftmax13 is called Softmax there."""
    plain = re.sub(r"^ex|\d+$", "", kind).lower()
    tensor = name.partition(":")[2]
    for wanted in (tensor.lower(), plain):
        for reason in reasons:
            if wanted and wanted in reason.lower():
                return reason
    return UNEXPLAINED


def _bytes(kib: str) -> int:
    return round(float(kib) * 1024)
