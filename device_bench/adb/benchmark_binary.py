"""Which `benchmark_model` fits a phone: by its ELF header, before anything is pushed."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgenet.errors import DeviceError, InputError

ENV = "EDGENET_BENCHMARK_MODEL"
CACHE = Path("~/.cache/edgenet/benchmark_model")  # official downloads, each with NAME.sha256 beside it
# ABI: (ELF class, ELF machine), System V ABI's numbers.
ABIS = {"arm64-v8a": (64, 183), "armeabi-v7a": (32, 40), "x86_64": (64, 62)}


@dataclass(frozen=True)
class Binary:
    """A benchmark_model for one ABI."""

    path: Path
    abi: str
    sha256: str


def abi_of(path: Path) -> str:
    """Return the ABI that a program is for, from its ELF header.

    Raises:
        InputError: it cannot be read, is no ELF program, or is for a processor that Android phones have not.
    """
    try:
        with open(path, "rb") as f:
            head = f.read(20)
    except OSError as e:
        raise InputError(f"cannot read {path}: {e.strerror}; {ENV} is the path of a benchmark_model") from None
    if len(head) < 20 or head[:4] != b"\x7fELF" or head[4] not in (1, 2) or head[5] not in (1, 2):
        raise InputError(f"{path} is no program for Android (no ELF header): download benchmark_model again")
    found = (32 * head[4], int.from_bytes(head[18:20], "little" if head[5] == 1 else "big"))
    for abi, what in ABIS.items():
        if found == what:
            return abi
    bits, machine = found
    raise InputError(f"{path} is a {bits}-bit program for ELF machine {machine} (valid: {', '.join(ABIS)})")


def find_binary(phone_abis: Sequence[str], environ: Mapping[str, str] = os.environ) -> Binary:
    """Return the benchmark_model for a phone, in the phone's order of preference.

    $EDGENET_BENCHMARK_MODEL is a path, or several with a colon between, each a program or a folder of programs. Without
    it, what was downloaded to ~/.cache/edgenet/benchmark_model is taken, if its sha256 is that of NAME.sha256.

    Raises:
        InputError: there is none, or its sha256 is not the recorded one.
        DeviceError: there are some, but none that this phone runs.
    """
    given = environ.get(ENV, "")
    if given:
        found = {abi_of(p): p for p in reversed(_programs(Path(part).expanduser() for part in given.split(os.pathsep)))}
        where = given
    else:
        found = {abi_of(p): p for p in _programs([CACHE.expanduser()], need=False)}
        where = str(CACHE)
    if not found:
        raise InputError(
            f"no benchmark_model: download Google's for {phone_abis[0] if phone_abis else 'the phone'} "
            f"(docs/devices.md says from where) and set {ENV} to its path"
        )
    for abi in phone_abis:
        if abi in found:
            path = found[abi]
            digest = _sha256(path)
            if not given:
                _check_recorded(path, digest)
            return Binary(path, abi, digest)
    raise DeviceError(
        f"the phone runs {', '.join(phone_abis) or 'an unknown ABI'} and {where} is for {', '.join(found)}: "
        f"set {ENV} to a benchmark_model for {phone_abis[0] if phone_abis else 'it'}"
    )


def _programs(paths: Iterable[Path], need: bool = True) -> list[Path]:
    """Return the files that are named, and those in the folders that are named and begin like programs."""
    out = []
    for path in paths:
        if path.is_dir():
            out += [p for p in sorted(path.iterdir()) if p.is_file() and _is_elf(p)]
        elif path.exists() or need:
            out.append(path)
    return out


def _is_elf(path: Path) -> bool:
    try:
        with open(path, "rb") as f:
            return f.read(4) == b"\x7fELF"
    except OSError:
        return False


def _check_recorded(path: Path, digest: str) -> None:
    record = path.with_name(path.name + ".sha256")
    try:
        recorded = record.read_text(errors="replace").split()[:1]
    except OSError:
        recorded = []
    if recorded != [digest]:
        says = f"{record.name} says {recorded[0][:12]}" if recorded else f"no {record.name} says what it should be"
        raise InputError(
            f"{path} has the sha256 {digest[:12]}... and {says}: download it again, or set {ENV} to a file you trust"
        )


def _sha256(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
