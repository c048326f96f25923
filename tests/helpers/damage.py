"""Changed copies of a file, damaged or with metadata, for tests of what reads it."""

import random
from pathlib import Path

import numpy as np
import pytest

from edgenet.errors import InputError
from edgenet.export.inspect import inspect


def refusals(whole: bytes, path: Path, n: int, model: Path | None = None) -> int:
    """Inspect `whole` cut at `n` places, and `n` copies of it with bytes overwritten, as `path`.

    Each time the answer must be a valid one or an InputError of one line; any other exception passes through.

    Args:
        model: the file to inspect, where it is not `path` itself but a part of it.

    Returns:
        how many were refused.
    """
    rng, refused = random.Random(0), 0
    for k in range(2 * n):
        data = bytearray(whole[: len(whole) * k // n] if k < n else whole)
        if k >= n:
            for _ in range(rng.choice((1, 3, 20))):
                data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        path.write_bytes(data)
        message = ""
        try:
            assert inspect(model or path).size_bytes >= len(data)
        except InputError as e:
            message = str(e)
        refused += bool(message)
        assert "\n" not in message
    return refused


def with_metadata(model: bytes, entries: dict[str, bytes]) -> bytes:
    """Return a .tflite `model` with metadata buffers more, by name."""
    flatbuffers = pytest.importorskip("flatbuffers")
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    tree = schema.ModelT.InitFromPackedBuf(model, 0)
    for name, content in entries.items():
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = np.frombuffer(content, np.uint8)
        entry.name, entry.buffer = name, len(tree.buffers)
        tree.buffers.append(buffer)
        tree.metadata = [*(tree.metadata or []), entry]
    b = flatbuffers.Builder(len(model))
    b.Finish(tree.Pack(b), b"TFL3")
    return bytes(b.Output())
