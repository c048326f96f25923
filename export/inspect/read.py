"""What a model file really is, read from the file itself.

    inspection = inspect("efficientnet-lite0_int8.tflite")
    inspection.precision, inspection.why      # 'int8', 'full integer; all 66 operators in int8'

A file's name and its documentation may promise anything; operators, tensor types and zero points do not. Reads .tflite,
.onnx and OpenVINO's .xml with its .bin, into one and the same `Inspection`.
"""

from pathlib import Path
from typing import Any

from edgenet.errors import InputError
from edgenet.export.inspect.inspection import Inspection, WeightQuantization
from edgenet.export.other_precisions import OTHERS, WHY
from edgenet.files import size_of
from edgenet.results import plain
from edgenet.results.tensor_info import TensorInfo
from edgenet.sandbox.apart import read_apart

__all__ = ["Inspection", "inspect", "lines", "looks_like", "multiply_adds"]

_NAMES = {".tflite": "a .tflite model", ".onnx": "an ONNX model", ".xml": "an OpenVINO model"}

# First bytes of what people hand over by mistake.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"GIF8", "a GIF image"),
    (b"RIFF", "a WebP image or another RIFF file"),
    (b"PK\x03\x04", "a zip archive (a .keras model, a PyTorch .pt or a MediaPipe .task is one)"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x89HDF", "an HDF5 file (Keras .h5)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"%PDF", "a PDF"),
    (b"\x7fELF", "a program or a library"),
    (b"GGUF", "a GGUF language model"),
    (b"M001", "bare TFLite metadata"),
    (b"\x80\x02", "a pickle (PyTorch .pth)"),
    (b"\x80\x03", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"<!DOCTYPE", "a web page"),
    (b"<html", "a web page"),
    (b"version https://git-lfs", "a Git LFS pointer: the model itself was not downloaded"),
)


def inspect(path: str | Path) -> Inspection:
    """Read a model file, in a child process that can do no harm, and say what it is.

    Args:
        path: a .tflite, .onnx or OpenVINO .xml file (its .bin beside it).

    Raises:
        InputError: there is no such file, or it is not a model; the message says what it looks like.
        MissingDependency: the library that reads this format is not installed.
    """
    path = Path(path)
    _check(path)
    answer = read_apart("edgenet.export.inspect.read:inspected", path, {"path": str(path)})
    try:
        return plain.read(Inspection, answer)
    except ValueError as e:
        raise InputError(f"{path} holds what no model does ({e}): convert or copy it again") from None


def inspected(path: str) -> Any:
    """Return the Inspection of a file as plain values. It runs in the child, which alone loads the readers."""
    from edgenet.export.inspect.facts import conclude
    from edgenet.export.inspect.onnx import onnx_facts
    from edgenet.export.inspect.openvino import openvino_facts
    from edgenet.export.inspect.tflite import tflite_facts

    file = Path(path)
    read = {".tflite": tflite_facts, ".onnx": onnx_facts, ".xml": openvino_facts}[file.suffix.lower()]
    try:
        facts = read(file)
    except OSError as e:
        raise InputError(f"cannot read {path}: {e.strerror or e}") from None
    return plain.write(conclude(path, size_of(file), facts))


def multiply_adds(path: str | Path) -> int:
    """Return the multiply-adds of one inference: of convolutions, dense layers and matrix products, from their shapes.

    The EfficientNet paper calls this number FLOPS. A dynamic dimension counts as 1. Raises as `inspect` does.
    """
    return inspect(path).multiply_adds


def first_bytes(path: Path, advice: str) -> bytes:
    """Return the beginning of a file, which tells what it is; `advice` ends the message where there is no such file.

    Raises:
        InputError: it does not exist, is not a regular file, or cannot be read.
    """
    if not path.exists():
        raise InputError(f"there is no file {path}: {advice}")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file: {advice}")
    try:
        with open(path, "rb") as f:
            return f.read(4096)
    except OSError as e:
        raise InputError(f"cannot read {path}: {e.strerror}") from None


def _check(path: Path) -> None:
    """Raise InputError where a file is no model by its first bytes, or another than its name says."""
    reads = f"edgenet inspects {', '.join(_NAMES)} files"
    if path.is_dir():
        saved = " with a TensorFlow SavedModel" if (path / "saved_model.pb").exists() else ""
        raise InputError(f"{path} is a folder{saved}: {reads}")
    head = first_bytes(path, reads)
    suffix = path.suffix.lower()
    found = _model_suffix(head)
    if suffix == ".bin" and path.with_suffix(".xml").exists():
        raise InputError(f"{path} holds the weights of an OpenVINO model: give {path.with_suffix('.xml').name}")
    if suffix not in _NAMES or (found or suffix) != suffix:
        what = looks_like(head)
        advice = f"rename it to {path.with_suffix(found).name}" if found else reads
        raise InputError(f"{path} is {what} by its content, whatever its name says: {advice}")
    if found is None and (suffix != ".onnx" or looks_like(head) != _UNKNOWN):
        raise InputError(f"{path} is not {_NAMES[suffix]}: it looks like {looks_like(head)}")


_UNKNOWN = "a binary file of an unknown kind"


def _model_suffix(head: bytes) -> str | None:
    """Return the suffix of the model format that starts with `head`, None where it is none for certain."""
    if head[4:8] == b"TFL3":
        return ".tflite"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<") and b"<net" in head:
        return ".xml"
    # ModelProto: field 1 is ir_version (a small varint), followed by another known field.
    starts = len(head) > 2 and head[0] == 0x08 and 0 < head[1] < 0x40
    return ".onnx" if starts and head[2] in (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42) else None


def looks_like(head: bytes) -> str:
    """Return what a file that starts with `head` is, as a noun phrase."""
    if not head:
        return "an empty file"
    if suffix := _model_suffix(head):
        return _NAMES[suffix]
    for magic, what in _MAGIC:
        if head.startswith(magic):
            return what
    if not head.strip(b"\0"):
        return "a file of zeros"
    if head[8:9] == b"{" and head[2:8] == b"\0" * 6:
        return "a safetensors file"
    try:
        text = head.decode()
    except UnicodeDecodeError as e:
        text = head[: e.start].decode() if e.start > len(head) - 4 else ""  # a character cut at the end
    if text and all(c.isprintable() or c in "\t\r\n\f" for c in text):
        return "XML, but no OpenVINO model" if text.lstrip().startswith("<") else "a text file"
    return _UNKNOWN


def lines(inspection: Inspection) -> list[tuple[str, str]]:
    """Return what a terminal shows, as pairs of a label and a value."""
    i = inspection
    out = [("file", i.path), ("format", " ".join([i.format, *(f"{k} {v}" for k, v in i.versions.items())]))]
    if i.name:
        out.append(("model", i.name))
    out.append(("precision", f"{i.precision}: {i.why}"))
    out.append(("weights", _weights(i.weight_quantization)))
    out += [("input", _tensor(t)) for t in i.inputs] + [("output", _tensor(t)) for t in i.outputs]
    out.append(("batch", "dynamic" if i.batch is None else f"static, {i.batch}"))
    for kind, counts in i.operators.items():
        label = f"operators, {i.n_operators}" if kind == next(iter(i.operators)) else ""
        out.append((label, f"{sum(counts.values()):4d} {kind}  " + ", ".join(f"{n} {p}" for p, n in counts.items())))
    out.append(("parameters", f"{i.parameters:,}"))
    out.append(("multiply-adds", f"{i.multiply_adds:,}"))
    parts = [f"weights {_size(i.weights_bytes)}", f"graph and scales {_size(i.graph_bytes)}"]
    parts += [f"associated files {_size(i.files_bytes)}"] if i.files_bytes else []
    out.append(("size", f"{_size(i.size_bytes)} ({', '.join(parts)})"))
    out.append(("signatures", ", ".join(i.signatures) or "none"))
    out += [(f"metadata, {k}", _value(v)) for k, v in i.metadata.items()] or [("metadata", "none")]
    for k, v in (i.edgenet or {}).items():
        if k == OTHERS:
            out += [("edgenet, not integer", line) for line in _others(v)]
        else:
            out.append((f"edgenet, {k}", _pictures(v) if k == "pictures" else _value(v)))
    return out + [("warning", w) for w in i.warnings]


def _weights(q: WeightQuantization) -> str:
    stored = ", ".join(f"{n} {dtype}" for dtype, n in q.dtypes.items()) or "none"
    if not q.per_channel and not q.per_tensor:
        return f"{stored} tensors"
    scales = [f"{n} {how}" for n, how in ((q.per_channel, "per channel"), (q.per_tensor, "per tensor")) if n]
    text = f"{stored} tensors; {', '.join(scales)}; {'symmetric' if q.symmetric else 'asymmetric'}"
    if q.bits is not None:
        text += f"; values use {q.bits} bits"
        text += f", depthwise {q.depthwise_bits}" if q.depthwise_bits not in (None, q.bits) else ""
    if q.activations_symmetric is not None:
        text += f"; activations {'symmetric' if q.activations_symmetric else 'asymmetric'}"
    return text


def _tensor(t: TensorInfo) -> str:
    shape = " x ".join("?" if d < 0 else str(d) for d in t.shape) or "scalar"
    scale = "" if t.scale is None else f", scale {t.scale:.6g}, zero point {t.zero_point}"
    return f"{t.name}: {shape} {t.dtype}{scale}"


def _pictures(value: object) -> str:
    """Return which pictures the network has seen; the file holds them as long tables."""
    roles = value if isinstance(value, dict) else {}
    said = [f"{table.get('n')} {role}" for role, table in roles.items() if isinstance(table, dict)]
    return ", ".join(said + ["others before them"] * (roles.get("complete") is False)) or "none"


def _others(value: object) -> list[str]:
    """Return which operators compute in another precision than the file, and why, a line each kind and reason."""
    rows = [r for r in value if isinstance(r, dict)] if isinstance(value, list) else []
    return [_other(r) for r in rows]


def _other(row: dict[str, Any]) -> str:
    share, why = row.get("multiply_adds_share"), str(row.get("why"))
    work = f", {100 * share:.1f} % of the multiply-adds" if isinstance(share, float) and share else ""
    n, kind, precision = (_value(row.get(k)) for k in ("operators", "kind", "precision"))
    return f"{n} {kind} in {precision}{work}: {WHY.get(why, why)}"


def _value(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_value(v) for v in value)
    if isinstance(value, dict):
        return ", ".join(f"{k} {_value(v)}" for k, v in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _size(n: int) -> str:
    return f"{n / 1e6:.2f} MB" if n >= 1e5 else f"{n / 1e3:.1f} kB" if n >= 1000 else f"{n} bytes"
