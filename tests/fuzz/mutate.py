"""Damage a file, in the same way for the same seed: its bytes, lines or JSON, or what an archive holds."""

import gzip
import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

Files = Mapping[str, bytes]
_BYTES = (0, 1, 2, 0x0A, 0x20, 0x22, 0x2D, 0x30, 0x7F, 0x80, 0xFE, 0xFF)
_NUMBERS = (0, 1, -1, 2, 127, 128, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, -(2**63))
_WORDS = (
    "", "0", "-1", "-0", "1e999", "-1e999", "NaN", "nan", "inf", "1e-400", "0x10", "1_000", "\u00b2", "\u0663", "\x00",
    "\x1b[2J", "\u202e", "\ufeff", "\ud7ff", "../../etc/passwd", "/dev/zero", "a" * 3000, "9" * 400, "9" * 5000,
    "999999999999", "1.5", "true", "null", "None", "%s%n", "{}", "[" * 200, "'", '"', "\\", "\t", "\r", ";", ",", "=",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 1.5, -0.0, 1e308, 2**31, 2**63, 10**400, float("nan"), float("inf"), "", "a", "\x00",
    "\x1b[2J", "\u202e", "9" * 5000, "../../x", [], [[]], [None], [0] * 50, {}, {"a": {}}, {"": None},
)  # fmt: skip
_MAX_GROWTH = 1 << 20


def mutated(files: Files, others: list[Files], seed: str) -> dict[str, bytes]:
    """Return the files of one model with one of them damaged.

    Args:
        files: name -> content.
        others: files of the same kind, to take pieces from.
        seed: decides everything.
    """
    rng = random.Random(seed)
    name = rng.choice(sorted(files))
    pieces = [o[n] for o in others for n in sorted(o)]
    return {**files, name: _changed(files[name], pieces, rng)}


def _changed(data: bytes, pieces: list[bytes], rng: random.Random) -> bytes:
    inside = next((way for fits, way in _CONTAINERS if fits(data)), None)
    if inside is not None and rng.random() < 0.6:
        try:
            return inside(data, pieces, rng)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, struct.error):
            pass  # a piece that looked like an archive
    text = _is_text(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        ways = _TEXT_WAYS if text and rng.random() < 0.7 else _BYTE_WAYS
        data = rng.choice(ways)(data, pieces, rng)
    return data


# --------------------------------------------------------------------------------------------------------------- bytes


def _span(data: bytes, rng: random.Random, most: int = 64) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    length = rng.choice((1, 2, 4, 8, rng.randint(1, most), rng.randint(1, max(1, len(data) // 2))))
    return start, min(len(data), start + length)


def _flip(data: bytes, pieces: list[bytes], rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        if out:
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _overwrite(data: bytes, pieces: list[bytes], rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 3, 20))):
        if out:
            out[rng.randrange(len(out))] = rng.choice((*_BYTES, rng.randrange(256)))
    return bytes(out)


def _number(data: bytes, pieces: list[bytes], rng: random.Random) -> bytes:
    """Write an odd number where a length, a count or an offset may stand."""
    size = rng.choice((2, 4, 8))
    if len(data) < size:
        return data
    at = rng.randrange(len(data) - size + 1)
    at -= at % size if rng.random() < 0.7 else 0
    order = "little" if rng.random() < 0.8 else "big"
    near = int.from_bytes(data[at : at + size], order) + rng.choice((-1, 1, 4, -4))
    value = rng.choice((*_NUMBERS, near, len(data), len(data) - at)) % (1 << 8 * size)
    return data[:at] + value.to_bytes(size, order) + data[at + size :]


def _cut(data: bytes, pieces: list[bytes], rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _remove(data: bytes, pieces: list[bytes], rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def _repeat(data: bytes, pieces: list[bytes], rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    times = min(rng.choice((1, 2, 10, 1000)), _MAX_GROWTH // max(1, end - start))
    return data[:end] + data[start:end] * times + data[end:]


def _splice(data: bytes, pieces: list[bytes], rng: random.Random) -> bytes:
    other = rng.choice(pieces) if pieces else data
    start, end = _span(other, rng)
    at, until = _span(data, rng)
    return data[:at] + other[start:end] + data[until if rng.random() < 0.5 else at :]


def _join(data: bytes, pieces: list[bytes], rng: random.Random) -> bytes:
    other = rng.choice(pieces) if pieces else data
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _swap(data: bytes, pieces: list[bytes], rng: random.Random) -> bytes:
    a, b = sorted((_span(data, rng), _span(data, rng)))
    if a[1] > b[0]:
        return data
    return data[: a[0]] + data[b[0] : b[1]] + data[a[1] : b[0]] + data[a[0] : a[1]] + data[b[1] :]


def _same(data: bytes, pieces: list[bytes], rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + bytes([rng.choice(_BYTES)]) * (end - start) + data[end:]


Way = Callable[[bytes, list[bytes], random.Random], bytes]
_BYTE_WAYS: tuple[Way, ...] = (
    _flip, _flip, _overwrite, _overwrite, _number, _number, _number, _cut, _remove, _repeat, _splice, _join, _swap,
    _same,
)  # fmt: skip

# ---------------------------------------------------------------------------------------------------------------- text


def _is_text(data: bytes) -> bool:
    try:
        head = data[:4096].decode("utf-8", "strict") if len(data) <= 4096 else data[:4096].decode("utf-8", "ignore")
    except UnicodeDecodeError:
        return False
    return "\0" not in head and sum(c.isprintable() or c.isspace() for c in head) >= 0.9 * len(head)


def _word(data: bytes, pieces: list[bytes], rng: random.Random) -> bytes:
    """Put an odd word in the place of a number, a name or a text."""
    found = [m.span() for m in re.finditer(rb"-?\d[\d.eE+-]*|[A-Za-z_]\w*|\"[^\"\n]*\"", data)]
    if not found:
        return data
    start, end = rng.choice(found)
    return data[:start] + rng.choice(_WORDS).encode() + data[end:]


def _lines(data: bytes, pieces: list[bytes], rng: random.Random) -> bytes:
    """Remove, repeat, swap or borrow lines."""
    lines = data.split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    how = rng.randrange(5)
    if how == 0:
        del lines[i]
    elif how == 1:
        lines[i:i] = [lines[i]] * rng.choice((1, 2, 300))
    elif how == 2:
        lines[i], lines[j] = lines[j], lines[i]
    elif how == 3 and pieces:
        lines[i:i] = rng.choice(pieces).split(b"\n")[j : j + 5]
    else:
        lines[i] = lines[i][: rng.randrange(len(lines[i]) + 1)]
    return b"\n".join(lines)


def _json_value(data: bytes, pieces: list[bytes], rng: random.Random) -> bytes:
    """Put a value of another kind in the place of any in a JSON text; remove, rename or double a field."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return _word(data, pieces, rng)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            walk(node[key])

    walk(tree)
    if not places:
        return json.dumps(rng.choice(_VALUES)).encode()
    node, key = rng.choice(places)
    how = rng.randrange(6)
    if how == 0:
        del node[key]
    elif how == 1:
        other, there = rng.choice(places)
        node[key] = json.loads(json.dumps(other[there])) if there in (other if isinstance(other, dict) else ()) else []
    elif how == 2 and isinstance(node, dict):
        node[rng.choice(_WORDS)] = node.pop(key)
    elif how == 3 and isinstance(node[key], list):
        node[key] = node[key] * rng.choice((0, 2, 50))
    else:
        alike = [v for v in _VALUES if type(v) is type(node[key])]
        node[key] = rng.choice(alike if alike and rng.random() < 0.7 else _VALUES)
    return json.dumps(tree).encode()


_TEXT_WAYS: tuple[Way, ...] = (_word, _word, _word, _lines, _lines, _json_value, _json_value, _json_value)

# ---------------------------------------------------------------------------------------------------------- containers


def _in_zip(data: bytes, pieces: list[bytes], rng: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(i, archive.read(i)) for i in archive.infolist()]
    at = rng.randrange(len(members))
    info, content = members[at]
    how = rng.randrange(8)
    if how == 0:
        del members[at]
    elif how == 1:
        info.filename = rng.choice((*_WORDS, members[0][0].filename, f"../{info.filename}"))[:1000]
    else:
        members[at] = info, _changed(content, [c for _, c in members], rng)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for i, content in members:
            archive.writestr(i.filename.partition("\0")[0] or "-", content, i.compress_type)
    return out.getvalue()


def _in_gzip(data: bytes, pieces: list[bytes], rng: random.Random) -> bytes:
    return gzip.compress(_changed(gzip.decompress(data), pieces, rng), 1, mtime=0)


_CONTAINERS: tuple[tuple[Callable[[bytes], bool], Way], ...] = (
    (lambda data: data.startswith(b"PK\x03\x04"), _in_zip),
    (lambda data: data.startswith(b"\x1f\x8b"), _in_gzip),
)
