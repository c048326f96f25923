"""Hand an int8 .onnx over for a Rockchip board: the compiled file, samples that run it, and a test that proves it.

    DIR/README.md  labels.txt  handoff.json
    DIR/NAME_chip.rknn  NAME.onnx
    DIR/classify.py  classify.cc  CMakeLists.txt
    DIR/golden/                          photographs, the pixels of each, and the simulator's scores

The integers in and out are the pixel's and the network's own: every chip takes them, and nothing has to be quantized on
the board.
"""

import shutil
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from edgenet import templating
from edgenet.device_bench import open_device
from edgenet.device_bench.device import Compiler
from edgenet.door import PICTURE_BYTES, TEXT_BYTES, read_bytes, read_json
from edgenet.errors import EdgenetError, InputError
from edgenet.export.importers.labels import labels_in
from edgenet.export.inspect import inspect
from edgenet.files import sha256_of, size_of
from edgenet.handoff.deployed import Deployed
from edgenet.handoff.templates import accuracy_sentence
from edgenet.handoff.verify import Check
from edgenet.handoff.write import (
    LAYOUT,
    MANIFEST,
    MARK,
    Known,
    check_replaceable,
    golden_pictures,
    replaced_folder,
    write_json,
)
from edgenet.images import Preprocessing, sample
from edgenet.tasks import CLASSES, Task

KIND = "rknn"
_FILES = Path(__file__).with_name("files")
_MINI = ("RV1103", "RV1103B", "RV1106", "RV1106B")  # chips with the small runtime, which Python has none of
_LEAST_TOLERANCE = 0.06  # what integer kernels of two makers are apart, as for .tflite (deployed.TOLERANCE)
_TEXTS = {"README.md": "rknn_README.md", "classify.py": "rknn_classify.py.txt", "classify.cc": "rknn_classify.cc",
          "CMakeLists.txt": "rknn_CMakeLists.txt"}  # fmt: skip
_GOLDEN, _GOLDEN_FILE = "golden", "golden.json"


@dataclass(frozen=True)
class Case:
    """A golden picture; `name` is that of its files in golden/, without their endings."""

    name: str
    top1: int


@dataclass(frozen=True)
class Board:
    """What the files in files/rknn_* are filled with."""

    name: str
    chip: str
    precision: str
    rknn: str
    onnx: str
    tool: str
    size: str
    n_operators: int
    n_accelerated: int
    mini: bool
    library: str
    rows: int
    columns: int
    channels: int
    classes: int
    order: str
    crop_padding: int
    interpolation: str
    resampling: str
    input_scale: str
    input_zero_point: int
    tolerance: str
    apart: str
    n_cases: int
    cases: tuple[Case, ...]
    accuracy: str
    weights: str


def read_model(path: Path) -> Deployed:
    """Read what an .onnx classifier is.

    Raises:
        InputError: it is none that edgenet wrote in int8 with integer input and output, or no classifier of classes.
    """
    if path.suffix.lower() != ".onnx":
        raise InputError(f"{path} cannot be handed over for Rockchip: its compiler takes edgenet's .onnx")
    found = inspect(path)
    own = found.edgenet or {}
    if "preprocessing" not in own:
        raise InputError(f"{path} does not say how its input is made: export it with edgenet")
    if (Task.from_json(own.get("task")) or CLASSES).kind != "classes":
        raise InputError(f"{path} gives no classes: a hand-over for Rockchip is one of a classifier")
    ends = {t.dtype for t in (*found.inputs, *found.outputs)}
    if found.precision != "int8" or not ends <= {"uint8", "int8"}:
        raise InputError(
            f"{path} is {found.precision} with {' and '.join(sorted(ends))}: every Rockchip chip takes int8 with "
            "integer input and output, as `edgenet export --format onnx --precision int8 --io uint8` writes it"
        )
    labels = labels_in(path) or ()
    n = found.outputs[0].shape[-1]
    if len(labels) != n:
        raise InputError(f"{path} carries {len(labels)} labels for {n} classes: export it with edgenet")
    x, y, p = found.inputs[0], found.outputs[0], Preprocessing.from_json(own["preprocessing"])
    return Deployed(
        path, found.name or path.stem, found.precision, sha256_of(path), path.stat().st_size,
        replace(x, shape=(1, *p.shape)), y, p, False, labels, str(own.get("weights", "not known")),
    )  # fmt: skip


def hand_over(path: Path, out: Path, device: str) -> Deployed:
    """Write the hand-over of an .onnx classifier for `device`, rknn:CHIP, to the folder `out`, whole or not at all.

    Raises:
        InputError: the file cannot be handed over or compiled, or `out` holds something else than a hand-over.
        MissingDependency: rknn-toolkit2, the sample photographs or onnxruntime are not installed.
        DeviceError: the compiler or the simulator failed.
    """
    model = read_model(path)
    check_replaceable(out)
    with open_device(device) as chip, replaced_folder(out) as folder:
        pixels, here, names = golden_pictures(model)
        scores = chip.predict(path, pixels)
        apart = float(np.abs(scores - here).max())
        tolerance = round(max(_LEAST_TOLERANCE, 2 * apart), 3)
        assert isinstance(chip, Compiler)
        compiled = chip.compile(path, folder)
        shutil.copyfile(path, folder / model.asset)
        (folder / "labels.txt").write_text("\n".join(model.labels) + "\n", encoding="utf-8")
        cases = _write_golden(folder / _GOLDEN, pixels, scores, names, tolerance)
        scale, zero_point = input_of_chip(model)
        p = model.preprocessing
        view = Board(
            name=model.name,
            chip=device.partition(":")[2].upper(),
            precision=model.precision,
            rknn=compiled.files[0].name,
            onnx=model.asset,
            tool=compiled.tool,
            size=f"{size_of(compiled.files[0]) / 1e6:.2f} MB",
            n_operators=compiled.n_operators,
            n_accelerated=compiled.n_accelerated,
            mini=device.partition(":")[2].upper() in _MINI,
            library="librknnmrt.so" if device.partition(":")[2].upper() in _MINI else "librknnrt.so",
            rows=p.size_px[0],
            columns=p.size_px[1],
            channels=p.channels,
            classes=scores.shape[1],
            order=p.channel_order,
            crop_padding=p.crop_padding_px,
            interpolation=p.interpolation,
            resampling=p.interpolation.upper(),
            input_scale=f"{scale:.9g}f",
            input_zero_point=zero_point,
            tolerance=f"{tolerance:g}",
            apart=f"{apart:.3g}",
            n_cases=len(cases),
            cases=tuple(cases),
            accuracy="; ".join(accuracy_sentence(e) for e in Known.beside(model).evaluations),
            weights=model.weights,
        )
        for name, template in _TEXTS.items():
            (folder / name).write_text(templating.text(template, view, _FILES), encoding="utf-8")
        listed = sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())
        write_json(
            folder / MANIFEST,
            {
                MARK: LAYOUT,
                "device": device,
                "edgenet_version": metadata.version("edgenet"),
                "compiler": compiled.tool,
                "model": {
                    "name": model.name,
                    "file": view.onnx,
                    "sha256": sha256_of(path),
                    "precision": model.precision,
                    "preprocessing": model.preprocessing.to_json(),
                },
                "files": {name: sha256_of(folder / name) for name in listed},
            },
        )
    return model


def verify(folder: Path, manifest: dict[str, Any]) -> list[Check]:
    """Return whether the files are those that were written, and the simulator still gives the golden scores.

    A .rknn runs on its chip only: what is simulated here is the .onnx that it was compiled from.

    Raises:
        MissingDependency: rknn-toolkit2 is not installed.
    """
    changed = [
        n for n, said in manifest["files"].items() if not (folder / n).is_file() or sha256_of(folder / n) != said
    ]
    if changed:
        return [Check("files", False, f"{changed[0]} is missing or is not the file that was handed over")]
    checks = [Check("files", True, f"{len(manifest['files'])} files as they were handed over")]
    try:
        golden = read_json(folder / _GOLDEN / _GOLDEN_FILE, TEXT_BYTES)
        path = folder / str(manifest["model"]["file"])
        p = Preprocessing.from_json(manifest["model"]["preprocessing"])
        read = [read_bytes(folder / _GOLDEN / str(c["pixels"]), PICTURE_BYTES) for c in golden["cases"]]
        pixels = np.stack([np.frombuffer(b, np.uint8).reshape(p.shape) for b in read])
        scores = [read_bytes(folder / _GOLDEN / str(c["scores"]), TEXT_BYTES) for c in golden["cases"]]
        before = np.stack([np.frombuffer(b, "<f4") for b in scores])
        with open_device(str(manifest["device"])) as chip:
            apart = float(np.abs(chip.predict(path, pixels) - before).max())
    except (EdgenetError, KeyError, TypeError, ValueError) as e:
        return [*checks, Check("simulator", False, f"the golden pictures cannot be replayed: {e}")]
    said = f"{len(pixels)} pictures: scores differ by at most {apart:g}, allowed {golden['tolerance']:g}"
    return [*checks, Check("simulator", apart <= golden["tolerance"], said)]


def input_of_chip(model: Deployed) -> tuple[float, int]:
    """Return scale and zero point of the input as the chip has it, int8."""
    x = model.input
    if x.scale is None or x.zero_point is None:
        raise InputError(f"{model.path} does not say the scale of its input: export it with edgenet")
    return x.scale, x.zero_point - (128 if x.dtype == "uint8" else 0)


def _write_golden(
    place: Path, pixels: np.ndarray, scores: np.ndarray, names: list[str], tolerance: float
) -> list[Case]:
    place.mkdir()
    cases = [Case(str(i), int(s.argmax())) for i, s in enumerate(scores)]
    for case, x, y, name in zip(cases, pixels, scores, names, strict=True):
        sample.crop(name).save(place / f"{case.name}.png")
        (place / f"{case.name}_pixels.bin").write_bytes(np.ascontiguousarray(x).tobytes())
        (place / f"{case.name}_scores.bin").write_bytes(y.astype("<f4").tobytes())
    listed = [
        {"photograph": f"{c.name}.png", "pixels": f"{c.name}_pixels.bin", "scores": f"{c.name}_scores.bin",
         "top1": c.top1}
        for c in cases
    ]  # fmt: skip
    write_json(place / _GOLDEN_FILE, {"tolerance": tolerance, "cases": listed})
    return cases
