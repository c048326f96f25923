"""Hand a .tflite classifier over to who writes a microcontroller's firmware: C++ for tflite-micro that proves itself.

    DIR/README.md  labels.txt  handoff.json
    DIR/model_data.h  model_data.cc      the model as an array
    DIR/model_settings.h  main.cc        arena, sizes, operators; a program that runs the golden pictures
    DIR/golden_data.h  golden_data.cc    photographs as the model takes them, and tflite-micro's scores for them

All that is written is read from the model file and measured in tflite-micro; the same file gives the same bytes.
`verify` reads the arrays back and runs them again.
"""

import re
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from edgenet import templating
from edgenet.device_bench import open_device
from edgenet.device_bench.device import Request
from edgenet.device_bench.micro import device as tflite_micro
from edgenet.device_bench.micro.interpreter import NAME
from edgenet.door import read_text
from edgenet.errors import DeviceError, EdgenetError, InputError
from edgenet.export.inspect.tflite import operator_outputs
from edgenet.files import sha256_of
from edgenet.handoff.deployed import Deployed, read_deployed
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
from edgenet.results import Estimate, Evaluation

DEVICE = "micro"
N_CASES = 3  # each takes as much flash as a picture
FLOAT_TOLERANCE = 1e-5  # of scores in float: another library's exp differs in the last bits
_FILES = Path(__file__).with_name("files")
_TYPES = {"int8": "std::int8_t", "uint8": "std::uint8_t", "float32": "float"}
# MicroMutableOpResolver spells an operator as its words: CONV_2D is AddConv2D. These it spells otherwise.
_SPELT = {"PADV2": "PadV2", "CUMSUM": "CumSum", "BATCH_MATMUL": "BatchMatMul",
          "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM"}  # fmt: skip
_SOURCE_BYTES = 1 << 30  # a model of 100 MB is five times as large as numbers of C
_A_LINE = 12


@dataclass(frozen=True)
class Firmware:
    """What the files in files/micro_* are filled with."""

    name: str
    operators: tuple[str, ...]  # as the resolver spells them
    arena_bytes: int
    memory: tuple[tuple[str, int], ...]
    emulator: str
    model_bytes: int
    height_px: int
    width_px: int
    channels: int
    order: str
    pixel: str
    preparation: str
    input_type: str
    n_outputs: int
    output_type: str
    output_scale: str
    output_zero_point: int
    scores: str
    tolerance: str
    exactness: str
    n_cases: int
    known: tuple[str, ...]


def hand_over(path: Path, out: Path) -> Deployed:
    """Write the hand-over of a .tflite classifier for a microcontroller to the folder `out`, whole or not at all.

    Raises:
        InputError: the file cannot be handed over, does not run in tflite-micro, or `out` holds something else.
        MissingDependency: tflite-micro, the sample photographs or LiteRT are not installed.
        DeviceError: tflite-micro crashed.
    """
    tflite_micro.require(f"a hand-over for {DEVICE}")
    model = read_deployed(path)
    check_replaceable(out)
    estimate = _runs(path)
    pixels, _, _ = golden_pictures(model)
    inputs = model.input_of(pixels[:N_CASES])
    outputs = _answers(path, model, inputs)
    view = _firmware(model, estimate, Known.beside(model).evaluations)
    with replaced_folder(out) as folder:
        for name in ("settings.h", "main.cc", "README.md"):
            place = {"settings.h": "model_settings.h"}.get(name, name)
            (folder / place).write_text(templating.text(f"micro_{name}", view, _FILES), encoding="utf-8")
        if model.labels:
            (folder / "labels.txt").write_text("\n".join(model.labels) + "\n", encoding="utf-8")
        _write_model(folder, path.read_bytes())
        _write_golden(folder, inputs, outputs)
        manifest = {
            MARK: LAYOUT,
            "device": DEVICE,
            "edgenet_version": metadata.version("edgenet"),
            "emulator": view.emulator,
            "model": {
                "name": model.name,
                "file": "model_data.cc",
                "sha256": model.sha256,
                "precision": model.precision,
                "preprocessing": model.preprocessing.to_json(),
                "arena_bytes": view.arena_bytes,
                "operators": list(view.operators),
            },
            "files": {p.name: sha256_of(p) for p in sorted(folder.iterdir())},
        }
        write_json(folder / MANIFEST, manifest)
    return model


def verify(folder: Path, manifest: dict[str, Any]) -> list[Check]:
    """Return whether the arrays are those that were written, and the golden pictures get the golden scores here.

    Raises:
        MissingDependency: tflite-micro is not installed.
    """
    tflite_micro.require(f"replaying a hand-over for {DEVICE}")
    model = _read_array(folder / "model_data.cc", "kModel")
    with tempfile.TemporaryDirectory(prefix="edgenet-handoff-") as place:
        path = Path(place) / "model.tflite"
        path.write_bytes(model.astype(np.uint8).tobytes())
        if sha256_of(path) != manifest["model"]["sha256"]:
            return [Check("model", False, "the array in model_data.cc is not the model that was handed over")]
        checks = [Check("model", True, f"the array in model_data.cc is the model, {len(model):,} bytes")]
        try:
            deployed = read_deployed(path)
            shape = (-1, *deployed.input.shape[1:])
            inputs = _read_array(folder / "golden_data.cc", "kGoldenInputs").reshape(shape)
            golden = _read_array(folder / "golden_data.cc", "kGoldenOutputs").reshape(-1, deployed.n_outputs)
            there = _answers(path, deployed, inputs.astype(deployed.input.dtype))
        except (EdgenetError, ValueError) as e:
            return [*checks, Check("golden", False, f"the golden pictures cannot be replayed: {e}")]
    apart = float(np.abs(there.astype(np.float64) - golden).max())
    ok = len(there) == len(golden) and apart <= _tolerance(deployed)
    said = f"{len(there)} pictures in {tflite_micro.emulator()}: scores differ by at most {apart:g}"
    return [*checks, Check(NAME, ok, said)]


def _runs(path: Path) -> Estimate:
    """Return what tflite-micro needs for the file. Raises InputError where an operator is missing; DeviceError."""
    with open_device(DEVICE) as device:
        found, failures = device.bench([(str(path), path)], Request())
    if failures:
        raise DeviceError(f"{failures[0].why}; {failures[0].remedy}")
    (estimate,) = found
    assert isinstance(estimate, Estimate)
    if estimate.left:
        first = estimate.left[0]
        raise InputError(
            f"{path} does not run on a microcontroller: {first.n} {first.kind}, {first.why}; "
            f"`edgenet bench {path} --device {DEVICE}` lists all"
        )
    return estimate


def _answers(path: Path, model: Deployed, inputs: np.ndarray) -> np.ndarray:
    """Return (N, classes) as the file gives them, integers or float32, for (N, H, W, C) as it takes them."""
    raw = (inputs.view(np.uint8) ^ np.uint8(128)) if model.input.dtype == "int8" else inputs
    with open_device(DEVICE) as device:
        scores = device.predict(path, raw)
    y = model.output
    if y.scale is None or y.dtype == "float32":
        return scores
    return (np.rint(scores / np.float32(y.scale)) + (y.zero_point or 0)).astype(y.dtype)


def spelt(kind: str) -> str:
    """Return an operator, CONV_2D say, as MicroMutableOpResolver's methods spell it behind Add."""
    return _SPELT.get(kind) or "".join(word if word[0].isdigit() else word.capitalize() for word in kind.split("_"))


def _tolerance(model: Deployed) -> float:
    return FLOAT_TOLERANCE if model.output.dtype == "float32" else 0.0


def _firmware(model: Deployed, estimate: Estimate, evaluations: tuple[Evaluation, ...]) -> Firmware:
    p, x, y = model.preprocessing, model.input, model.output
    height, width, channels = x.shape[1:]
    arena = -(-(estimate.sram_bytes or 0) // 16) * 16
    pixel = {
        "int8": "each number the pixel, 0 to 255, minus 128",
        "uint8": "each number the pixel, 0 to 255",
        "float32": f"each number (pixel - mean) / deviation: mean {_numbers(p.mean)}, deviation {_numbers(p.std)}",
    }
    short = p.short_px / (p.short_px + p.crop_padding_px)
    scores = f"{model.n_outputs} scores"
    if y.scale is not None:
        scores += f", each (number {-(y.zero_point or 0):+d}) x {y.scale:.9g}"
    exact = "Integer kernels give the same to the bit." if _tolerance(model) == 0 else (
        f"Scores in float may differ by {FLOAT_TOLERANCE:g}, as far as another library's exp differs."
    )  # fmt: skip
    return Firmware(
        name=model.name,
        operators=tuple(spelt(kind) for kind in dict.fromkeys(kind for kind, _ in operator_outputs(model.path))),
        arena_bytes=arena,
        memory=tuple(estimate.memory_bytes.items()),
        emulator=estimate.tool,
        model_bytes=model.size_bytes,
        height_px=height,
        width_px=width,
        channels=channels,
        order="grey" if channels == 1 else p.channel_order.upper(),
        pixel=pixel[x.dtype],
        preparation=f"cropped to the middle {short:.3g} of its short side, then resized ({p.interpolation})",
        input_type=_TYPES[x.dtype],
        n_outputs=model.n_outputs,
        output_type=_TYPES[y.dtype],
        output_scale=_literal(1.0 if y.scale is None else y.scale),
        output_zero_point=y.zero_point or 0,
        scores=scores,
        tolerance=_literal(_tolerance(model)),
        exactness=exact,
        n_cases=N_CASES,
        known=tuple(f"Measured: {accuracy_sentence(e)}" for e in evaluations),
    )


def _write_model(folder: Path, model: bytes) -> None:
    size = f"constexpr std::size_t kModelBytes = {len(model)};"
    _write_header(folder / "model_data.h", ("<cstddef>",), f"extern const unsigned char kModel[];\n{size}\n")
    data = _rows(np.frombuffer(model, np.uint8))
    body = f"alignas(16) const unsigned char kModel[] = {{\n{data}\n}};\n"
    _write_source(folder / "model_data.cc", '"model_data.h"', body)


def _write_golden(folder: Path, inputs: np.ndarray, outputs: np.ndarray) -> None:
    n = len(inputs)
    declared = (
        f"constexpr int kGoldenCases = {n};\n"
        "extern const Input kGoldenInputs[kGoldenCases][kInputs];\n"
        "extern const Output kGoldenOutputs[kGoldenCases][kOutputs];\n"
    )
    _write_header(folder / "golden_data.h", ('"model_settings.h"',), declared)
    body = "".join(
        f"const {type} {name}[kGoldenCases][{size}] = {{\n"
        + ",\n".join("{\n" + _rows(case.reshape(-1)) + "\n}" for case in cases)
        + "\n};\n"
        for type, name, size, cases in (
            ("Input", "kGoldenInputs", "kInputs", inputs),
            ("Output", "kGoldenOutputs", "kOutputs", outputs),
        )
    )
    _write_source(folder / "golden_data.cc", '"golden_data.h"', body)


def _write_header(path: Path, includes: tuple[str, ...], declared: str) -> None:
    guard = f"EDGENET_{path.stem.upper()}_H_"
    lines = "\n".join(f"#include {name}" for name in includes)
    path.write_text(
        f"#ifndef {guard}\n#define {guard}\n\n{lines}\n\nnamespace edgenet {{\n{declared}}}  // namespace edgenet\n\n"
        f"#endif  // {guard}\n",
        encoding="utf-8",
    )


def _write_source(path: Path, include: str, body: str) -> None:
    path.write_text(f"#include {include}\n\nnamespace edgenet {{\n{body}}}  // namespace edgenet\n", encoding="utf-8")


def _rows(values: np.ndarray) -> str:
    """Return numbers as literals of C++ with commas, some a line."""
    texts = [_literal(v) for v in values.tolist()] if values.dtype.kind == "f" else list(map(str, values.tolist()))
    return ",\n".join(", ".join(texts[i : i + _A_LINE]) for i in range(0, len(texts), _A_LINE))


def _literal(value: float) -> str:
    """Return a float32 as a literal of C++ that reads as the same number."""
    text = f"{np.float32(value):.9g}"
    return text + ("f" if set(text) & set(".en") else ".0f")


def _read_array(path: Path, name: str) -> np.ndarray:
    """Return the numbers of an array in a file that was written here, float64. Raises InputError."""
    text = read_text(path, _SOURCE_BYTES)
    found = re.search(rf"\b{name}\[.*?= \{{(.*?)\}};", text, re.DOTALL)
    if found is None:
        raise InputError(f"{path} has no array {name}: hand the model over again")
    numbers = re.sub(r"[{}f\s]", "", found[1])
    return np.array(numbers.split(","), np.float64)


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{v:g}" for v in values)
