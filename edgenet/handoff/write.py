"""Hand a .tflite classifier over to an Android team: an Android library module with a test that proves itself.

    DIR/README.md  build.gradle.kts  handoff.json
    DIR/src/main/assets/            the model as it is, labels.txt
    DIR/src/main/kotlin/            Preprocessing.kt with this file's constants; classifiers by LiteRT and by MediaPipe
    DIR/src/androidTest/            GoldenTest.kt; ten photographs, and for each the model's input and scores
    and what npu.py adds for the NPU of a Snapdragon

All that is written is read from the model file, and from results.json beside it where there is one. The same file gives
the same bytes. `verify.py` replays the golden test on this machine.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from edgenet.door import read_json
from edgenet.errors import InputError
from edgenet.files import sha256_of
from edgenet.handoff import npu
from edgenet.handoff.deployed import Deployed, read_deployed
from edgenet.handoff.templates import accuracy_sentence, code, latency_sentence, readme
from edgenet.images import decode, sample
from edgenet.results import RESULTS_FILE, Evaluation, Results
from edgenet.tasks import Task

MANIFEST = "handoff.json"
MARK = "edgenet_handoff"  # the manifest's key that says what the folder is; its value is the version of the layout
LAYOUT = 1
ASSETS = Path("src/main/assets")
GOLDEN = Path("src/androidTest/assets/golden")
GOLDEN_FILE = "golden.json"
N_CASES = 10
_CANDIDATES = 4  # every fourth sample crop: three windows of each photograph
_MOST_OF_ONE = 2
_AGAIN = "hand the model over again"


def hand_over(path: Path, out: Path, devices: Sequence[str] = ()) -> Deployed:
    """Write the hand-over of a .tflite classifier to the folder `out`, whole or not at all.

    Args:
        devices: Snapdragons, qnn:SOC each, for whose NPU the file is compiled too.

    Raises:
        InputError: the file is not one that can be handed over, or `out` holds something else than a hand-over.
        MissingDependency: the sample photographs, LiteRT or the compiler are not installed.
        DeviceError: the file crashes when it is run; the compiler or the emulator failed.
    """
    model = read_deployed(path)
    npu.check(model, devices)
    out = Path(os.path.realpath(out))
    check_replaceable(out)
    pixels, scores, files = golden_pictures(model)
    with replaced_folder(out) as folder:
        known = Known.beside(model)
        (folder / ASSETS).mkdir(parents=True)
        (folder / GOLDEN).mkdir(parents=True)
        compiled = npu.write_npu(model, devices, pixels, folder / ASSETS, folder / GOLDEN) if devices else ()
        _write_module(model, folder, known, compiled)
        _write_golden(model, folder / GOLDEN, pixels, scores, files, compiled)
        listed = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        manifest = {
            MARK: LAYOUT,
            "edgenet_version": metadata.version("edgenet"),
            "model": {
                "name": model.name,
                "file": (ASSETS / model.asset).as_posix(),
                "sha256": model.sha256,
                "precision": model.precision,
                "preprocessing": model.preprocessing.to_json(),
                "task": model.task.to_json((model.negative,)),
            },
            **({"npu": {f.soc: f"{ASSETS.as_posix()}/{f.file}" for f in compiled}} if compiled else {}),
            "measured_on": sorted({e.images for e in known.evaluations}),  # fingerprints, as in results.json
            "files": {name: sha256_of(folder / name) for name in listed},
        }
        write_json(folder / MANIFEST, manifest)
    return model


@dataclass(frozen=True)
class Known:
    """What results.json beside the file knows of it; `latency` in sentences."""

    evaluations: tuple[Evaluation, ...] = ()
    latency: tuple[str, ...] = ()

    @classmethod
    def beside(cls, model: Deployed) -> "Known":
        if not (model.path.parent / RESULTS_FILE).is_file():
            return cls()
        try:
            results = Results.load(model.path.parent)
        except InputError:
            return cls()
        ids = {a.id for a in results.artifacts if a.sha256 == model.sha256}
        return cls(
            tuple(e for e in results.evaluations if e.artifact in ids),
            tuple(latency_sentence(m, results.context) for m in results.measurements if m.artifact in ids),
        )


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what handoff.json says.

    Raises:
        InputError: the folder is no hand-over.
    """
    if not os.path.lexists(folder / MANIFEST):
        raise InputError(f"{folder} is no hand-over, {MANIFEST} is missing: give the --out of `edgenet handoff`")
    manifest = read_json(folder / MANIFEST, what="the list of a hand-over, it is damaged", remedy=_AGAIN)
    if not isinstance(manifest, dict) or manifest.get(MARK) != LAYOUT or not isinstance(manifest.get("files"), dict):
        raise InputError(f"{folder / MANIFEST} is not one that this version of edgenet wrote: {_AGAIN}")
    files, model = manifest["files"], manifest.get("model")
    if not all(isinstance(sha256, str) and is_within(name) for name, sha256 in files.items()):
        raise InputError(f"{folder / MANIFEST} lists what is no file of the hand-over: {_AGAIN}")
    if not isinstance(model, dict) or not isinstance(model.get("file"), str) or model["file"] not in files:
        raise InputError(f"{folder / MANIFEST} does not list the file of the model: {_AGAIN}")
    return manifest


def is_within(name: str) -> bool:
    """Whether a name is that of a file within a folder."""
    place = PurePath(name)
    return bool(name) and "\0" not in name and not place.is_absolute() and ".." not in place.parts


def check_replaceable(out: Path) -> None:
    """Raise InputError where `out` holds anything but an earlier hand-over that nobody has edited."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"--out {out} is a file: give a folder")
    there = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_symlink() or not p.is_dir()}
    if not there:
        return
    if MANIFEST not in there:
        raise InputError(f"--out {out} is not empty and no earlier hand-over: give another folder")
    written = read_manifest(out)["files"]
    others = sorted(there - set(written) - {MANIFEST})
    if others:
        raise InputError(
            f"--out {out} holds {others[0]}, which edgenet did not write: move it away, or give another folder"
        )
    edited = sorted(name for name in there - {MANIFEST} if sha256_of(out / name) != written[name])
    if edited:
        raise InputError(
            f"--out {out} holds {edited[0]}, which was edited since edgenet wrote it: give another folder, then merge "
            "the two"
        )


@contextmanager
def replaced_folder(out: Path) -> Iterator[Path]:
    """Yield a new folder beside `out`, which takes its place when the block ends well."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    except OSError as e:
        raise InputError(f"cannot write {out}: {e.strerror}; choose another --out folder") from None
    old = new.with_suffix(".old")
    try:
        new.chmod(0o755)
        yield new
        check_replaceable(out)  # again: somebody may have edited it since
        if out.exists():
            os.rename(out, old)
        os.rename(new, out)
    except OSError as e:
        if old.exists() and not out.exists():
            os.rename(old, out)
        raise InputError(f"cannot write {out}: {e.strerror}; free some space or choose another --out") from e
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def golden_pictures(model: Deployed) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return pixels (10, H, W, 3), scores (10, classes) and names of the sample crops that the model is surest of.

    A sure answer does not flip by what kernels differ in. At most two crops are of one photograph.
    """
    from edgenet.device_bench.worker import Worker

    names = sample.names()[::_CANDIDATES]
    pixels = np.stack([decode(name, model.preprocessing) for name in names])
    with Worker(model.path) as worker:
        scores = worker.predict(model.input_of(pixels))
    if not np.isfinite(scores).all():
        raise InputError(f"{model.path} gives scores that are no numbers: it cannot be handed over")
    margins = [_sureness(model.task, s) for s in scores]
    chosen: list[int] = []
    for i in sorted(range(len(names)), key=lambda i: (-margins[i], names[i])):
        photograph = sample.photograph_of(names[i])[0]
        if sum(sample.photograph_of(names[j])[0] == photograph for j in chosen) < _MOST_OF_ONE:
            chosen.append(i)
    chosen = sorted(chosen[:N_CASES])
    return pixels[chosen], scores[chosen], [names[i] for i in chosen]


def _sureness(task: Task, scores: np.ndarray) -> float:
    """Return how far an answer is from another one; an embedding is no answer."""
    if task.kind in ("binary", "labels"):
        return float(np.abs(scores - task.threshold).min())
    return _margin(scores) if task.kind == "classes" else 0.0


def _margin(scores: np.ndarray) -> float:
    best, second = np.sort(scores)[::-1][:2]
    return float(best - second)


def _answer(model: Deployed, scores: np.ndarray) -> str:
    """Return the answer in words: a class, yes or no, labels with | between them; "" of an embedding."""
    if model.task.kind == "classes":
        return model.labels[int(scores.argmax())]
    there = [name for name, s in zip(model.labels, scores, strict=False) if s > model.task.threshold]
    return "|".join(there) or model.negative


def _write_module(model: Deployed, folder: Path, known: Known, compiled: Sequence[npu.NpuFile]) -> None:
    assets, kotlin = folder / ASSETS, folder / "src/main/kotlin/edgenet/classifier"
    tests = folder / "src/androidTest/kotlin/edgenet/classifier"
    for place in (kotlin, tests):
        place.mkdir(parents=True)
    shutil.copyfile(model.path, assets / model.asset)
    if model.labels:
        (assets / "labels.txt").write_text("\n".join(model.labels) + "\n", encoding="utf-8")
    for name, text in code(model, N_CASES, bool(compiled)).items():
        place = folder if name.endswith(".kts") else tests if name.endswith("GoldenTest.kt") else kotlin
        (place / name).write_text(text, encoding="utf-8")
    text = readme(model, N_CASES, [accuracy_sentence(e) for e in known.evaluations], known.latency, compiled)
    (folder / "README.md").write_text(text, encoding="utf-8")


def _write_golden(
    model: Deployed,
    folder: Path,
    pixels: np.ndarray,
    scores: np.ndarray,
    names: list[str],
    compiled: Sequence[npu.NpuFile],
) -> None:
    cases = []
    inputs = model.input_of(pixels)
    for i, name in enumerate(names):
        sample.crop(name).save(folder / f"{i}.png")
        (folder / f"{i}_input.bin").write_bytes(
            np.ascontiguousarray(inputs[i], inputs.dtype.newbyteorder("<")).tobytes()
        )
        (folder / f"{i}_scores.bin").write_bytes(scores[i].astype("<f4").tobytes())
        top1 = int(scores[i].argmax())
        cases.append(
            {
                "photograph": f"{i}.png",
                "source": name,
                "input": f"{i}_input.bin",
                "output": f"{i}_scores.bin",
                "top1": top1,
                "label": _answer(model, scores[i]),
                "score": float(scores[i][top1]),
                # Yes and no are told apart by the scores themselves: who is as near as the tolerance decides alike.
                "margin": _margin(scores[i]) if model.task.kind == "classes" else 0.0,
            }
        )
    spread = float(scores.max() - scores.min())  # at most 1 for probabilities; a file may end in logits
    golden = {
        "model": model.asset,
        "sha256": model.sha256,
        "input": {"shape": [1, *pixels.shape[1:]], "dtype": model.input.dtype},
        "output": {"shape": [1, scores.shape[1]], "dtype": "float32"},
        "tolerance": model.tolerance * (spread if model.task.kind == "embedding" else max(1.0, spread)),
        "cases": cases,
        **({"npu": npu.as_json(compiled)} if compiled else {}),
    }
    write_json(folder / GOLDEN_FILE, golden)


def write_json(path: Path, value: Any) -> None:
    """Write plain values as JSON, one a line."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
