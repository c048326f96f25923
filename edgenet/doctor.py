"""`edgenet doctor`: this machine's INT8 arithmetic, what is installed, and what is wrong, with a remedy for each.

Nothing is imported or run to find out: packages are read from their metadata, tools are looked for on the path.
"""

import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from edgenet.errors import InputError
from edgenet.sandbox.policy import NETS, available
from edgenet.targets import DOT_PRODUCT, EXACT, I8MM, SAFE_BITS, Target, target, weight_bits

LITTLE_DISK_BYTES = 2_000_000_000  # TensorFlow alone takes as much when it is installed
LITTLE_MEMORY_BYTES = 2_000_000_000  # converting the largest networks takes this
CHANGING_GOVERNORS = ("powersave", "ondemand", "conservative")
BUSY = 0.5  # of the cores, by load average
# A requirement of an extra, itself not one of edgenet's: name, versions, extra.
_OF_AN_EXTRA = re.compile(r"(?!edgenet\b)([\w.-]+)(?:\[\w+\])?\s*([^;\[]*?)\s*;\s*extra\s*==\s*['\"]([\w-]+)['\"]")
_INTERNAL_EXTRAS = ("all", "dev")  # made of other extras, or for those who change edgenet

# What an extra is for, where it is missing.
EXTRAS = {
    "tflite": "reading, writing and running .tflite files",
    "onnx": "writing and running .onnx files",
    "openvino": "writing and running OpenVINO files",
    "export": "building and converting networks",
    "qat": "quantization-aware training",
    "weights": "pretrained weights of EfficientNet-Lite0, 1 and 2",
    "sample": "the sample photographs (--images sample)",
    "mat": "reading data sets whose lists are .mat files (--images flowers102:DIR)",
    "ray": "the machines of a Ray cluster (--cluster)",
    "mlflow": "logging runs to an MLflow server (publish)",
    "tfds": "reading TensorFlow Datasets (--images tfds:NAME)",
    "ethos-u": "estimates for Ethos-U (ethos-u:CONFIG)",
    "micro": "microcontrollers: memory and answers in tflite-micro (micro)",
    "qnn": "compiling for and emulating Snapdragons (qnn:SOC)",
    "android": "replaying a hand-over through MediaPipe (handoff --verify)",
}
#  tool               other names                                  what for                                remedy
_TOOLS = (
    ("adb", (), "Android phones as devices", "apt install adb, or Android's platform-tools"),
    ("ssh", (), "boards as devices", "apt install openssh-client"),
    ("vela", (), "compiling for Ethos-U", "pip install 'edgenet[ethos-u]'"),
    ("edgetpu_compiler", (), "compiling for the Coral Edge TPU", "see https://coral.ai/docs/edgetpu/compiler"),
    ("chromium", ("chromium-browser", "google-chrome"), "printing the report to PDF", "apt install chromium"),
)
_ARITHMETIC = {
    EXACT: "sums are exact in every runtime",
    DOT_PRODUCT: "one instruction adds four products in 32 bits, fast and exact in every runtime",
    I8MM: "one instruction multiplies matrices and adds in 32 bits, fast and exact in every runtime",
}


@dataclass(frozen=True)
class Problem:
    """Something that will stand in the way, and what to do about it."""

    what: str
    remedy: str


@dataclass(frozen=True)
class Package:
    """A package that an extra of edgenet installs. `version` is None where it is missing."""

    name: str
    extra: str
    tested: str  # what the extra asks for, e.g. "==2.3.0"
    version: str | None

    @property
    def is_tested(self) -> bool:
        return not self.tested.startswith("==") or self.version == self.tested[2:]


@dataclass(frozen=True)
class Tool:
    """A program that edgenet can use. `path` is None where it is not found."""

    name: str
    path: str | None
    purpose: str
    remedy: str


@dataclass(frozen=True)
class Diagnosis:
    """The result of `examine`. `weight_bits` is by format; `machine` is from `device_bench.local_info`."""

    target: str
    what: str
    arithmetic: str
    why: str
    weight_bits: Mapping[str, int]
    machine: Mapping[str, Any]
    packages: tuple[Package, ...]
    weights: tuple[str, ...]  # models of the zoo whose pretrained weights are installed
    tools: tuple[Tool, ...]
    folder: str
    disk_free_bytes: int
    sandbox: tuple[str, ...]  # what holds the child that reads strangers' files: landlock, seccomp, limits
    problems: tuple[Problem, ...]


def examine(folder: Path | None = None) -> Diagnosis:
    """Return what this machine is and what is wrong. `folder` is where files will be written; here by default."""
    from edgenet.device_bench import local_info
    from edgenet.models.weights import PACKAGES

    folder = folder or Path.cwd()
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: give one that exists")
    t, machine, found = target("auto"), local_info(), packages()
    installed = {p.name for p in found if p.version}
    tools = tuple(Tool(name, _which(name, *others), what, how) for name, others, what, how in _TOOLS)
    free = shutil.disk_usage(folder).free
    return Diagnosis(
        target=t.name,
        what=t.what,
        arithmetic=t.arithmetic,
        why=reason(t),
        weight_bits={f: weight_bits(t, f) for f in t.formats},
        machine=machine,
        packages=found,
        weights=tuple(model for model, row in PACKAGES.items() if row[0] in installed),
        tools=tools,
        folder=str(folder),
        disk_free_bytes=free,
        sandbox=available(),
        problems=tuple(problems(machine, found, free, os.access(folder, os.W_OK), available())),
    )


def reason(t: Target) -> str:
    """Return why the target matters, in a sentence."""
    if not t.saturating_formats:
        return _ARITHMETIC[t.arithmetic]
    formats = " and ".join({"onnx": "onnxruntime", "openvino": "OpenVINO"}[f] for f in sorted(t.saturating_formats))
    return (
        f"there is no VNNI, or it is not known: {formats} may add pairs of INT8 products in 16 bits, which saturate, "
        f"and lose accuracy silently with 8-bit weights; their files get {SAFE_BITS}-bit weights. TFLite is exact"
    )


def packages() -> tuple[Package, ...]:
    """Return every package that an extra of the installed edgenet asks for, with the version that is installed."""
    found: dict[str, Package] = {}
    try:
        required = metadata.requires("edgenet") or []
    except metadata.PackageNotFoundError:  # run from a folder, not installed: the tested versions are not known
        required = []
    for line in required:
        match = _OF_AN_EXTRA.fullmatch(line)
        if match is None or match[3] in _INTERNAL_EXTRAS:
            continue  # a dependency of edgenet itself, or an extra made of others
        name, tested, extra = match.groups()
        found.setdefault(name, Package(name, extra, tested, _version(name)))
    return tuple(found.values())


def problems(
    machine: Mapping[str, Any],
    found: tuple[Package, ...],
    free: int,
    writable: bool = True,
    sandbox: tuple[str, ...] = NETS,
) -> list[Problem]:
    """Return what will stand in the way on a machine, the gravest first."""
    out = []
    if not writable:
        out.append(Problem("this folder cannot be written to", "give --out a folder elsewhere"))
    if free < LITTLE_DISK_BYTES:
        out.append(Problem(f"only {free / 1e9:.1f} GB of disk are free", "make room, or give --out another disk"))
    if not {"landlock", "seccomp"} & set(sandbox):
        out.append(Problem(
            "this kernel has neither Landlock nor seccomp: a process that reads a model file could write and connect",
            "give it files of people whom you trust, or use Linux 5.13 or newer",
        ))  # fmt: skip
    memory = machine.get("memory_bytes")
    if memory is not None and memory < LITTLE_MEMORY_BYTES:
        out.append(Problem(
            f"only {memory / 1e9:.1f} GB of memory: converting large networks may fail",
            "convert on a larger machine; measuring here works",
        ))  # fmt: skip
    for extra in dict.fromkeys(p.extra for p in found):
        missing = [p.name for p in found if p.extra == extra and p.version is None]
        if missing:
            purpose = EXTRAS.get(extra, extra)
            out.append(Problem(
                f"{', '.join(missing)} not installed, needed for {purpose}", f"pip install 'edgenet[{extra}]'"
            ))  # fmt: skip
    for p in found:
        if p.version is not None and not p.is_tested:
            out.append(Problem(
                f"{p.name} {p.version} is installed, tested is {p.tested[2:]}", f"pip install '{p.name}{p.tested}'"
            ))  # fmt: skip
    if machine.get("governor") in CHANGING_GOVERNORS:
        out.append(Problem(
            f"the CPU governor is {machine['governor']}: the clock changes while latency is measured",
            "sudo cpupower frequency-set -g performance",
        ))  # fmt: skip
    load = machine.get("load_average")
    if load and load[0] > BUSY * machine["cores"]:
        out.append(Problem(
            f"the machine is busy (load average {load[0]:.1f} on {machine['cores']} cores): latencies will be unstable",
            "stop other programs before measuring",
        ))  # fmt: skip
    return out


def lines(d: Diagnosis) -> list[tuple[str, str]]:
    """Return the diagnosis as (label, text) rows for people."""
    m = d.machine
    bits = ", ".join(f"{f} {b} bits" for f, b in d.weight_bits.items())
    memory = f", {m['memory_bytes'] / 1e9:.1f} GB of memory" if m["memory_bytes"] else ""
    cores = f"{m['cores']} core{'s' if m['cores'] != 1 else ''}"
    rows = [
        ("target", f"{d.target}: {d.what}"),
        ("INT8", f"{d.arithmetic}: {d.why}"),
        ("INT8 weights", bits),
        ("CPU", f"{m['cpu_model']}{', in a virtual machine' if m['virtual'] else ''}"),
        ("instructions", ", ".join(m["isa"]) or "none that matter"),
        ("machine", f"{cores}{memory}, governor {m['governor'] or 'not known'}"),
        ("system", f"{m['os']}, {m['machine']}, Python {m['python']}"),
        ("sandbox", f"{', '.join(d.sandbox) or 'none'}, around the process that reads a model file"),
        ("disk", f"{d.disk_free_bytes / 1e9:.1f} GB free in {d.folder}"),
    ]
    for extra in dict.fromkeys(p.extra for p in d.packages):
        of_extra = [p for p in d.packages if p.extra == extra]
        rows.append((f"[{extra}]", ", ".join(f"{p.name} {p.version or '—'}" for p in of_extra)))
    rows.append(("weights", ", ".join(d.weights) or "none installed"))
    for t in d.tools:
        rows.append((t.name, t.path or f"not found; for {t.purpose}: {t.remedy}"))
    return rows


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _which(*names: str) -> str | None:
    # Also finds the programs of a virtual environment that is not activated.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    return next((found for name in names if (found := shutil.which(name, path=path))), None)
