"""Replay the golden test of a hand-over on this machine, as its instrumented test does on a phone."""

import importlib.util
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.device_bench.tool import run_tool
from edgenet.device_bench.worker import Worker
from edgenet.door import PICTURE_BYTES, read_bytes, read_json, reading
from edgenet.errors import EdgenetError, InputError, MissingDependency
from edgenet.files import sha256_of
from edgenet.handoff import Deployed, mediapipe_replay, npu, read_deployed
from edgenet.handoff.deployed import TOLERANCE
from edgenet.handoff.npu import NpuFile
from edgenet.handoff.write import ASSETS, GOLDEN, GOLDEN_FILE, MANIFEST, is_within, read_manifest
from edgenet.images import decode
from edgenet.results.plain import read

_MEDIAPIPE_TIMEOUT_S = 600.0
_LABELS = "labels.txt"


@dataclass(frozen=True)
class Check:
    """One line of a verification. `ok` is None where there was nothing to check."""

    what: str
    ok: bool | None
    said: str


@dataclass(frozen=True)
class Golden:
    """The golden files, read. `inputs` (N, H, W, 3) in the file's type, `scores` (N, classes) float32."""

    inputs: np.ndarray
    scores: np.ndarray
    photographs: tuple[Path, ...]
    top1: tuple[int, ...]
    margins: tuple[float, ...]
    tolerance: float
    npu: tuple[NpuFile, ...] = ()


def verify(folder: Path) -> list[Check]:
    """Return what the golden test finds: the files, the inputs, LiteRT's scores, MediaPipe's, the emulated NPUs'.

    The files that are held against their hashes are the model, the labels and the golden ones; code is the team's.

    Raises:
        InputError: the folder is no hand-over.
        MissingDependency: MediaPipe or LiteRT is not installed.
    """
    manifest = read_manifest(folder)
    if not _has_mediapipe():
        raise MissingDependency("mediapipe", "android", "replaying the golden test")
    checks = [_check("files", lambda: _files(folder, manifest))]
    try:
        model = read_deployed(folder / str(manifest["model"]["file"]))
    except MissingDependency:
        raise
    except (EdgenetError, OSError) as e:
        return [*checks, Check("model", False, str(e))]
    try:
        golden = read_golden(folder, model)
    except InputError as e:
        return [*checks, Check("golden", False, str(e))]
    return [
        *checks,
        _check("inputs", lambda: _inputs(model, golden)),
        _check("LiteRT", lambda: compare(_litert(model, golden), golden)),
        Check("MediaPipe", None, f"not checked: {model.not_for_mediapipe}")
        if model.not_for_mediapipe
        else _check("MediaPipe", lambda: compare(_mediapipe(model, golden), golden)),
        *_npu(folder, golden),
    ]


def _npu(folder: Path, golden: Golden) -> list[Check]:
    """Replay what was compiled for each chip in the emulator, byte for byte as it was handed over."""
    checks = []
    for f in golden.npu:
        what = f"NPU of {f.soc}"
        if why := npu.not_installed(f.soc):
            checks.append(Check(what, None, f"not checked: {why}"))
            continue

        def replay(f: NpuFile = f) -> str:
            scores = npu.emulated(folder / ASSETS / f.file, f.soc, golden.inputs)
            files = [folder / GOLDEN / name for name in f.scores]
            with reading(folder / GOLDEN, "what was handed over, the golden files are damaged", "hand over again"):
                expected = np.stack([np.frombuffer(read_bytes(path, PICTURE_BYTES), "<f4") for path in files])
            # Another top-1 than the CPU's is none of the emulator's faults: its own answers are the yardstick.
            own = replace(golden, scores=expected, tolerance=f.tolerance, margins=(0.0,) * len(expected))
            return f"{compare(scores, own)}, emulated"

        checks.append(_check(what, replay))
    return checks


def read_golden(folder: Path, model: Deployed) -> Golden:
    """Read the golden files. Raises InputError where they are not what was written."""
    with reading(folder / GOLDEN, "what was handed over, the golden files are damaged", "hand over again"):
        return _read_golden(folder / GOLDEN, model)


def _read_golden(place: Path, model: Deployed) -> Golden:
    said = read_json(place / GOLDEN_FILE, what="a golden test", remedy="hand over again")
    cases = said["cases"]
    if not cases:
        raise ValueError("there are no cases")
    shape, classes = model.input.shape[1:], model.n_outputs
    dtype = np.dtype(model.input.dtype).newbyteorder("<")

    def stacked(key: str, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
        return np.stack(
            [np.frombuffer(read_bytes(place / Path(c[key]).name, PICTURE_BYTES), dtype).reshape(shape) for c in cases]
        )

    golden = Golden(
        inputs=stacked("input", dtype, shape).astype(model.input.dtype),
        scores=stacked("output", "<f4", (classes,)).astype(np.float32),
        photographs=tuple(place / Path(c["photograph"]).name for c in cases),
        top1=tuple(int(c["top1"]) for c in cases),
        margins=tuple(float(c["margin"]) for c in cases),
        tolerance=float(said["tolerance"]),
        npu=tuple(read(NpuFile, f) for f in said.get("npu", ())),
    )
    if any(not is_within(n) for f in golden.npu for n in (f.file, *f.scores)):
        raise ValueError("a file for the NPU is no file of the hand-over")
    if any(not 0 <= f.tolerance <= TOLERANCE["integer"] or len(f.scores) != len(cases) for f in golden.npu):
        raise ValueError("what is said of the NPU's files is not what was written")
    spread = float(golden.scores.max() - golden.scores.min())
    if not 0 <= golden.tolerance <= model.tolerance * max(1.0, spread) * (1 + 1e-6):
        raise ValueError(f"a tolerance of {golden.tolerance:g} lets anything pass")
    if not np.isfinite(golden.scores).all():
        raise ValueError("there are scores that are no numbers")
    return golden


def compare(scores: np.ndarray, golden: Golden) -> str:
    """Return how near (N, classes) scores are to the golden ones.

    Raises:
        InputError: one is further off than the tolerance, or a top-1 that cannot flip within it has flipped.
    """
    if scores.shape != golden.scores.shape:
        raise InputError(f"it gives scores {scores.shape}, the golden ones are {golden.scores.shape}")
    far = np.nan_to_num(np.abs(scores - golden.scores), nan=np.inf).max(axis=1)  # (N,)
    sure = np.array(golden.margins) > 2 * golden.tolerance
    flipped = sure & (scores.argmax(axis=1) != np.array(golden.top1))
    bad = (far > golden.tolerance) | flipped
    facts = f"largest difference of a score {far.max():.2g}, allowed {golden.tolerance:g}"
    if bad.any():
        first = int(bad.argmax())
        why = "another top-1" if flipped[first] else "scores too far off"
        name = golden.photographs[first].name
        raise InputError(f"{bad.sum()} of {len(bad)} photographs differ, the first is {name} ({why}); {facts}")
    return f"{len(bad)} of {len(bad)} photographs; {facts}"


def _has_mediapipe() -> bool:
    return importlib.util.find_spec("mediapipe") is not None


def _check(what: str, run: Callable[[], str]) -> Check:
    try:
        return Check(what, True, run())
    except MissingDependency:
        raise
    except (EdgenetError, OSError) as e:
        return Check(what, False, str(e))


def _files(folder: Path, manifest: dict[str, Any]) -> str:
    kept = [n for n in manifest["files"] if Path(n).is_relative_to(ASSETS) or Path(n).is_relative_to(GOLDEN)]
    there = {p.relative_to(folder).as_posix() for place in (ASSETS, GOLDEN) for p in (folder / place).rglob("*")}
    folders = {parent.as_posix() for name in kept for parent in Path(name).parents}
    if unknown := sorted(there - set(kept) - folders):
        raise InputError(f"{unknown[0]} was not handed over, {MANIFEST} does not list it: hand the model over again")
    for name in kept:
        path = folder / name
        if not path.is_file():
            raise InputError(f"{name} is missing: hand the model over again")
        if sha256_of(path) != manifest["files"][name]:
            raise InputError(
                f"{name} is not the file that was handed over, its sha256 differs: hand the model over again"
            )
    return f"{len(kept)} files as they were handed over"


def _inputs(model: Deployed, golden: Golden) -> str:
    pixels = np.stack([decode(str(path), model.preprocessing) for path in golden.photographs])
    differ = (model.input_of(pixels) != golden.inputs).reshape(len(pixels), -1).any(axis=1)
    if differ.any():
        names = ", ".join(p.name for p, d in zip(golden.photographs, differ, strict=True) if d)
        raise InputError(f"{names}: the preprocessing of this edgenet gives other inputs than the golden ones")
    return f"{len(pixels)} of {len(pixels)} photographs become the golden inputs, bit for bit"


def _litert(model: Deployed, golden: Golden) -> np.ndarray:
    with Worker(model.path) as worker:
        return worker.predict(golden.inputs)


def _mediapipe(model: Deployed, golden: Golden) -> np.ndarray:
    rgb = replace(model.preprocessing, channel_order="rgb")
    pixels = np.stack([decode(str(path), rgb) for path in golden.photographs])
    with tempfile.TemporaryDirectory(prefix="edgenet-mediapipe-") as temporary:
        given, scores = Path(temporary) / "pixels.npy", Path(temporary) / "scores.npy"
        np.save(given, pixels)
        command = [sys.executable, "-P", mediapipe_replay.__file__, str(model.path.resolve()), str(given), str(scores)]
        command += ["embedding"] * (model.task.kind == "embedding")
        run_tool("MediaPipe", command, _MEDIAPIPE_TIMEOUT_S)
        return np.load(scores)
