"""TFLite metadata: what Android's MediaPipe Tasks needs to know about a .tflite file, written and read.

A classifier is used on Android as `ImageClassifier.createFromFile(...)`. For that the file must say how pixels become
its input (NormalizationOptions) and what its outputs are called (a label file). Both travel in the file itself:

- a second flatbuffer, root table `ModelMetadata`, in the model's buffer named `TFLITE_METADATA`;
- the label file, in a zip archive appended to the model. The archive is stored, not deflated, because readers map it
  into memory.

The schema is metadata_schema.fbs of tensorflow/tflite-support and MediaPipe (file identifier `M001`); the numbers below
are its field positions and enum values.
https://ai.google.dev/edge/litert/conversion/tensorflow/metadata
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgenet.errors import InputError
from edgenet.export.tflite_file import PARSE_ERRORS, schema

BUFFER_NAME = "TFLITE_METADATA"
IDENTIFIER = b"M001"
LABELS_FILE = "labels.txt"
# The smallest schema version that knows every field written here: none is younger than 1.0.0.
MIN_PARSER_VERSION = "1.0.0"

# Fields of the tables, in the order of the schema.
_MODEL = ("name", "description", "version", "subgraphs", "author", "license", "files", "min_parser_version")
_SUBGRAPH = ("name", "description", "inputs", "outputs", "files")
_TENSOR = ("name", "description", "dimension_names", "content", "process_units", "stats", "files")
_FILE = ("name", "description", "type", "locale")
_FEATURE, _IMAGE = 1, 2  # union ContentProperties
_NORMALIZATION = 1  # union ProcessUnitOptions
_RGB, _GREY = 1, 2  # enum ColorSpaceType
_TENSOR_AXIS_LABELS = 2  # enum AssociatedFileType
_CONTENT_NAMES = {1: "feature", 2: "image", 3: "bounding box", 4: "audio"}
_COLOR_NAMES = {0: "unknown", 1: "rgb", 2: "grayscale"}
_FILE_TYPES = ("unknown", "descriptions", "axis labels", "value labels", "score calibration", "vocabulary")


@dataclass(frozen=True)
class ClassifierMetadata:
    """What the metadata of an image classifier with one input, RGB or grey, and one output says.

    Attributes:
        mean, std: of the input, (pixel - mean) / std with pixels in 0..255; one value, or one for each channel.
        input_name, output_name: names for people; MediaPipe pairs tensors by position.
        float_input: True when the file takes normalised float32, False when it takes raw pixels as uint8 or int8. The
            normalization is written in both cases, as the schema asks ("quantized models share the same normalization
            parameters as their corresponding float models"); only the range of values differs.
        n_classes: the length of the output, mentioned in its description; 0 for an embedding, which has no labels.
        grey: whether the input has one channel.

    Raises:
        InputError: `mean` and `std` are not of equal length 1 or 3, or a `std` is not above 0.
    """

    name: str
    description: str
    version: str
    author: str
    license: str
    mean: Sequence[float]
    std: Sequence[float]
    input_name: str = "image"
    output_name: str = "score"
    float_input: bool = True
    n_classes: int | None = None
    grey: bool = False

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3) or not all(s > 0 for s in self.std):
            raise InputError(
                f"mean {tuple(self.mean)} and std {tuple(self.std)} must have 1 or 3 values each, std above 0"
            )


def build_metadata(about: ClassifierMetadata) -> bytes:
    """Return the `ModelMetadata` flatbuffer of an image classifier.

    Put it into the model as the metadata buffer `TFLITE_METADATA`, then add the label file LABELS_FILE, one label a
    line in the order of the outputs, with `append_files`.
    """
    b = _flatbuffers().Builder(1024)
    tensor_in, tensor_out = _input_tensor(b, about), _output_tensor(b, about)
    subgraph = _record(b, _SUBGRAPH, inputs=_vector(b, [tensor_in]), outputs=_vector(b, [tensor_out]))
    root = _record(
        b,
        _MODEL,
        name=b.CreateString(about.name),
        description=b.CreateString(about.description),
        version=b.CreateString(about.version),
        subgraphs=_vector(b, [subgraph]),
        author=b.CreateString(about.author),
        license=b.CreateString(about.license),
        min_parser_version=b.CreateString(MIN_PARSER_VERSION),
    )
    b.Finish(root, IDENTIFIER)
    return bytes(b.Output())


def _input_tensor(b: Any, about: ClassifierMetadata) -> int:
    scaled = list(zip(about.mean, about.std, strict=True))
    low = [(0 - m) / s for m, s in scaled] if about.float_input else [0.0]
    high = [(255 - m) / s for m, s in scaled] if about.float_input else [255.0]
    normalised = "normalised as (pixel - mean) / std"
    takes = normalised if about.float_input else "as raw 0..255 pixels; the file normalises them"
    image = _content(b, _IMAGE, _table(b, 2, scalars={0: _GREY if about.grey else _RGB}))
    normalization = _table(b, 2, {0: _floats(b, about.mean), 1: _floats(b, about.std)})
    unit = _table(b, 2, {1: normalization}, {0: _NORMALIZATION})
    stats = _table(b, 2, {0: _floats(b, high), 1: _floats(b, low)})
    return _record(
        b,
        _TENSOR,
        name=b.CreateString(about.input_name),
        description=b.CreateString(f"{'grey' if about.grey else 'RGB'} image, {takes}"),
        content=image,
        process_units=_vector(b, [unit]),
        stats=stats,
    )


def _output_tensor(b: Any, about: ClassifierMetadata) -> int:
    if about.n_classes == 0:
        said = b.CreateString("a vector that is near another where two pictures are alike")
        content = _content(b, _FEATURE, _table(b, 0))
        return _record(b, _TENSOR, name=b.CreateString(about.output_name), description=said, content=content)
    classes = "each class" if about.n_classes is None else f"each of {about.n_classes} classes"
    label_text = b.CreateString("one label a line, in the order of the outputs")
    label_slots = {0: b.CreateString(LABELS_FILE), 1: label_text}
    labels = _table(b, len(_FILE), label_slots, {2: _TENSOR_AXIS_LABELS})
    return _record(
        b,
        _TENSOR,
        name=b.CreateString(about.output_name),
        description=b.CreateString(f"score of {classes}"),
        content=_content(b, _FEATURE, _table(b, 0)),
        stats=_table(b, 2, {0: _floats(b, [1.0]), 1: _floats(b, [0.0])}),
        files=_vector(b, [labels]),
    )


def append_files(model: bytes, files: Mapping[str, bytes]) -> bytes:
    """Return `model` with `files` as an archive behind it; files that it already carries stay, unless named anew.

    The same arguments give the same bytes: names are in their given order and every time stamp is 1980-01-01.
    """
    body, merged = split_files(model)
    merged = {**merged, **files}
    if not merged:
        return body
    out = io.BytesIO()
    out.write(body)
    with zipfile.ZipFile(out, "a", zipfile.ZIP_STORED) as archive:  # offsets count from the start of the model
        for name, content in merged.items():
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # else the platform's, and the bytes would differ between them
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    return out.getvalue()


def split_files(model: bytes) -> tuple[bytes, dict[str, bytes]]:
    """Return (the model without its archive, the archive's files); `model` and {} when it carries none.

    Raises:
        InputError: the archive is damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(model)) as archive:
            infos = archive.infolist()
            if not infos:
                return model, {}
            if any(i.file_size > len(model) for i in infos):
                raise InputError("the archive of associated files is damaged: it names more bytes than the file has")
            return model[: min(i.header_offset for i in infos)], {i.filename: archive.read(i) for i in infos}
    except zipfile.BadZipFile as e:
        if "not a zip file" in str(e):
            return model, {}
        raise InputError(f"the archive of associated files is damaged ({e}): export the model again") from None
    except (*PARSE_ERRORS, NotImplementedError, RuntimeError, EOFError, zlib.error) as e:
        raise InputError(f"the archive of associated files is damaged ({e}): export the model again") from None


def read_files(model: bytes) -> dict[str, bytes]:
    """Return the associated files of a .tflite file, name -> content; {} when it carries none.

    Raises:
        InputError: the archive is damaged.
    """
    return split_files(model)[1]


def read_buffers(model: bytes) -> dict[str, bytes]:
    """Return the metadata buffers of a .tflite file, name -> content.

    Raises:
        InputError: `model` is not a .tflite file, or it is damaged.
        MissingDependency: ai-edge-litert, whose schema is used, is not installed.
    """
    if model[4:8] != b"TFL3":
        raise InputError("this is not a .tflite file: the identifier TFL3 is missing")
    s = schema()
    try:
        root = s.Model.GetRootAs(model)
        out = {}
        for i in range(_checked(root.MetadataLength(), model)):
            entry = root.Metadata(i)
            buffer = root.Buffers(entry.Buffer())
            data = buffer.DataAsNumpy()
            out[(entry.Name() or b"").decode()] = b"" if isinstance(data, int) else data.tobytes()
        return out
    except PARSE_ERRORS as e:
        raise InputError(f"the .tflite file is damaged ({e}): export it again") from None


def read_metadata(model: bytes) -> dict[str, Any]:
    """Return the TFLite metadata of a .tflite file as plain values; {} when it carries none.

    Keys: name, description, version, author, license, min_parser_version (strings, absent where not set), `inputs` and
    `outputs`: a list of {"name", "description", "content", "mean", "std", "min", "max", "files": [{"name", "type"}]}.

    Raises:
        InputError: `model` is not a .tflite file, or it or its metadata is damaged.
        MissingDependency: ai-edge-litert, whose schema is used, is not installed.
    """
    buffer = read_buffers(model).get(BUFFER_NAME)
    return {} if buffer is None else parse_metadata(buffer)


def parse_metadata(buffer: bytes) -> dict[str, Any]:
    """Return what a `ModelMetadata` flatbuffer says; see `read_metadata`.

    Raises:
        InputError: `buffer` is not one, or it is damaged.
    """
    if buffer[4:8] != IDENTIFIER:
        raise InputError(f"the TFLite metadata is damaged: its identifier is {buffer[4:8]!r}, not M001")
    table = _flatbuffers().table.Table
    try:
        root = table(buffer, struct.unpack_from("<I", buffer)[0])
        out: dict[str, Any] = {}
        for slot, key in enumerate(_MODEL):
            if key not in ("subgraphs", "files") and (text := _read_string(root, slot)) is not None:
                out[key] = text
        subgraphs = _read_vector(root, _MODEL.index("subgraphs"))
        for key in ("inputs", "outputs"):
            tensors = _read_vector(subgraphs[0], _SUBGRAPH.index(key)) if subgraphs else []
            out[key] = [_read_tensor(t) for t in tensors]
        return out
    except PARSE_ERRORS as e:
        raise InputError(f"the TFLite metadata is damaged ({e}): export the model again") from None


def _flatbuffers() -> Any:
    import flatbuffers
    import flatbuffers.table

    return flatbuffers


def _table(b: Any, n_fields: int, offsets: Mapping[int, int] = {}, scalars: Mapping[int, int] = {}) -> int:
    """Write a table; `offsets` are of things already written, `scalars` are bytes (enums and union types)."""
    b.StartObject(n_fields)
    for slot, offset in offsets.items():
        b.PrependUOffsetTRelativeSlot(slot, offset, 0)
    for slot, value in scalars.items():
        b.PrependInt8Slot(slot, value, 0)
    return int(b.EndObject())


def _record(b: Any, fields: Sequence[str], **offsets: int) -> int:
    return _table(b, len(fields), {fields.index(name): offset for name, offset in offsets.items()})


def _content(b: Any, kind: int, properties: int) -> int:
    return _table(b, 3, {1: properties}, {0: kind})  # union type, union value, range


def _vector(b: Any, offsets: Sequence[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return int(b.EndVector())


def _floats(b: Any, values: Sequence[float]) -> int:
    b.StartVector(4, len(values), 4)
    for value in reversed(values):
        b.PrependFloat32(value)
    return int(b.EndVector())


def _checked(n: int, buffer: bytes) -> int:
    """Return `n`, the length of a vector of offsets, if the buffer can hold that many."""
    if n * 4 > len(buffer):
        raise ValueError(f"a list of {n} entries in {len(buffer)} bytes")
    return n


def _field(t: Any, slot: int) -> int:
    return int(t.Offset(4 + 2 * slot))  # 0 where the field is not set


def _read_string(t: Any, slot: int) -> str | None:
    o = _field(t, slot)
    return bytes(t.String(o + t.Pos)).decode() if o else None


def _read_child(t: Any, slot: int) -> Any:
    o = _field(t, slot)
    return type(t)(t.Bytes, t.Indirect(o + t.Pos)) if o else None


def _read_byte(t: Any, slot: int) -> int:
    o = _field(t, slot)
    return int(t.Bytes[t.Pos + o]) if o else 0


def _read_vector(t: Any, slot: int) -> list[Any]:
    o = _field(t, slot)
    if not o:
        return []
    start = t.Vector(o)
    return [type(t)(t.Bytes, t.Indirect(start + 4 * i)) for i in range(_checked(t.VectorLen(o), t.Bytes))]


def _read_floats(t: Any, slot: int) -> list[float]:
    o = _field(t, slot)
    if not o:
        return []
    n = _checked(t.VectorLen(o), t.Bytes)
    return list(struct.unpack_from(f"<{n}f", t.Bytes, t.Vector(o)))


def _read_tensor(t: Any) -> dict[str, Any]:
    at: Callable[[str], int] = _TENSOR.index
    out: dict[str, Any] = {"name": _read_string(t, 0), "description": _read_string(t, 1), "content": None}
    if content := _read_child(t, at("content")):
        kind = _read_byte(content, 0)
        out["content"] = _CONTENT_NAMES.get(kind, str(kind))
        if kind == _IMAGE and (properties := _read_child(content, 1)):
            color = _read_byte(properties, 0)
            out["color_space"] = _COLOR_NAMES.get(color, str(color))
    out["mean"], out["std"] = [], []
    for unit in _read_vector(t, at("process_units")):
        if _read_byte(unit, 0) == _NORMALIZATION and (options := _read_child(unit, 1)):
            out["mean"], out["std"] = _read_floats(options, 0), _read_floats(options, 1)
    stats = _read_child(t, at("stats"))
    out["max"], out["min"] = (_read_floats(stats, 0), _read_floats(stats, 1)) if stats else ([], [])
    out["files"] = []
    for f in _read_vector(t, at("files")):
        kind = _read_byte(f, 2)
        out["files"].append({"name": _read_string(f, 0), "type": dict(enumerate(_FILE_TYPES)).get(kind, str(kind))})
    return out
