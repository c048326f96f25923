"""LiteRT's compiler for NPUs: it hands a .tflite to a vendor's plugin, and writes one in which the NPU's parts are
one operator each, DISPATCH_OP, with what the vendor's compiler made of them behind the model.

https://ai.google.dev/edge/litert/next/npu
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgenet.device_bench.litert_npu.dispatched import DISPATCH, Dispatched, read_dispatched
from edgenet.device_bench.tool import confined, run_tool
from edgenet.errors import DeviceError, EdgenetError
from edgenet.export.inspect.tflite import operator_outputs
from edgenet.results import LeftOperators

NAME = "LiteRT's plugin for {}"
_ERROR = r"^ERROR: (?:\[[^\]]*\] ?)?(?!ERROR)(\S.+)$"  # of many lines the first one names the cause
NO_REASON = "{} gives no reason"
_SELECTED = re.compile(r"selected (\d+) ops, from a total of (\d+) ops")
# A block that says why one operator is refused, and the line that names it, with its inputs and outputs after it.
_REFUSED = re.compile(r"^LiteRT Op #\d+ '.*?' \(code=-?\d+\) is not supported in", re.MULTILINE)
_VALIDATION = re.compile(r"^\S+ op validation failed: '.*?' \(type=(\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Applied:
    """What a plugin made of a file. `dispatched` are the parts that run on the NPU, in the file's order."""

    n_operators: int
    left: tuple[LeftOperators, ...]
    dispatched: tuple[Dispatched, ...]
    log: str  # LiteRT's own words
    vendor_log: str  # what the vendor's compiler printed

    @property
    def n_accelerated(self) -> int:
        return self.n_operators - sum(o.n for o in self.left)

    @property
    def is_whole(self) -> bool:
        """Whether the compiled file is one part on the NPU and nothing else."""
        return not self.left and len(self.dispatched) == 1


def apply(
    litert: Path,
    model: Path,
    out: Path,
    *,
    manufacturer: str,
    soc: str,
    plugin: Path,
    libraries: Sequence[Path],
    flags: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    timeout_s: float,
) -> Applied:
    """Compile `model` for a chip into `out`, both called as the user does not see them.

    Args:
        litert: the folder of the package ai-edge-litert.
        plugin: the folder with the vendor's plugin.
        libraries: folders with the vendor's compiler and what it needs.
        flags: what else the program is told.

    Raises:
        InputError: the file is damaged.
        DeviceError: the compiler failed, was killed, or wrote half a file.
    """
    name = NAME.format(manufacturer)
    program = litert / "tools" / "apply_plugin_main"
    if not program.is_file():
        raise DeviceError(
            f"LiteRT's compiler {program.name} is not in this ai-edge-litert: install edgenet[tflite] again"
        )
    operators = operator_outputs(model)  # refuses a damaged file, on which the compiler itself would crash
    command = [str(program), "--cmd=apply", f"--model={model}", f"--o={out}", f"--soc_manufacturer={manufacturer}"]
    command += [f"--soc_model={soc}", "--err=--", f"--libs={plugin}", *flags]
    said = out.with_name(f"{out.name}.log")
    folders = ":".join(map(str, (*libraries, litert)))
    environment = {"LD_LIBRARY_PATH": folders, **(environment or {})}
    log = run_tool(name, confined(command, out.parent), timeout_s, environment=environment, stdout=said, telling=_ERROR)
    vendor_log = said.read_text(errors="replace")
    if not out.is_file():
        raise DeviceError(f"{name} says that it compiled the file and wrote none")
    try:
        dispatched, after = read_dispatched(out.read_bytes()), operator_outputs(out)
    except EdgenetError as e:
        raise DeviceError(f"{name} wrote half a file: {e}".replace(str(out), "it")) from None
    there = {output for kind, output in after if kind != DISPATCH}
    reasons, unknown = refusals(log), NO_REASON.format(name)
    left = Counter((kind, reasons.get(output, unknown)) for kind, output in operators if output in there)
    selected = _SELECTED.search(log)
    if selected and int(selected[1]) != len(operators) - left.total():
        raise DeviceError(
            f"{name} says that it takes {selected[1]} of {selected[2]} operators, and its file has "
            f"{len(operators) - left.total()} of {len(operators)} on the NPU: edgenet does not know this version"
        )
    rows = sorted(left.items(), key=lambda row: (-row[1], row[0]))
    rest = tuple(LeftOperators(kind, n, why) for (kind, why), n in rows)
    return Applied(len(operators), rest, dispatched, log, vendor_log)


def refusals(log: str) -> dict[str, str]:
    """Return output's name -> why its operator stays on the CPU, from what LiteRT and the plugin said."""
    found: dict[str, str] = {}
    start = 0
    for m in _REFUSED.finditer(log):
        before, after = log[start : m.start()], log[m.end() :]
        output = re.search(r"^  Outputs:\n    \[0\] name=\"(.*?)\"", after, re.MULTILINE)
        failed = list(_VALIDATION.finditer(before))
        why = "the plugin has no such operator"
        if failed:
            text = before[failed[-1].end() :]
            inputs, _, outputs = text.partition("  Outputs:")
            why = f"{failed[-1][1]} does not take {_types(inputs)} to {_types(outputs)}"
        if output:
            found.setdefault(output[1], why)
        start = m.end()
    return found


def _types(text: str) -> str:
    """Return the types of tensors in words: "FLOAT_32 [1,112,112,16], SFIXED_POINT_8 [...]" without the shapes."""
    names = re.findall(r"dtype=\w*?DATATYPE_(\w+)", text)
    return ", ".join(names) or "these types"
