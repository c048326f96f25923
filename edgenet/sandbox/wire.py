"""What a child sends back: plain values as JSON and the bytes of arrays, never a pickle. Reading trusts nothing.

A message is 8 bytes "edgeread", 4 bytes length of the header, 8 bytes length of all arrays (big endian), header,
arrays. JSON has no tuples, bytes, arrays and numbers that are not finite: these are objects of one field, which tells
the kind.
"""

import base64
import json
import math
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np  # loaded where an array is: an answer without one needs no NumPy

MAGIC = b"edgeread"
HEAD = struct.Struct(">8sIQ")
MAX_HEADER_BYTES = 1 << 27
_DTYPES = frozenset(
    ["|b1", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8", "<c8", "<c16", "|S1"]
)  # as NumPy writes types
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_MAX_DEPTH = 40


def pack(value: Any) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a message that holds `value`. Raises TypeError for one that is not plain."""
    import numpy as np

    arrays: list[np.ndarray] = []
    tree = _plain(value, arrays)
    about = [[a.dtype.str, list(a.shape)] for a in arrays]
    header = json.dumps({"value": tree, "arrays": about}, allow_nan=False).encode()
    yield HEAD.pack(MAGIC, len(header), sum(a.nbytes for a in arrays))
    yield header
    for a in arrays:
        yield a.reshape(-1).view(np.uint8).data


def unpack(read: Callable[[int], bytearray], max_bytes: int) -> Any:
    """Return the value of a message.

    Args:
        read: gives exactly so many bytes.
        max_bytes: of all arrays.

    Raises:
        ValueError: it is no such message, is larger, or its arrays do not fit what is said of them.
    """
    magic, header_bytes, array_bytes = HEAD.unpack(read(HEAD.size))
    if magic != MAGIC or header_bytes > MAX_HEADER_BYTES or array_bytes > max_bytes:
        raise ValueError("not a message, or too large a one")
    try:
        header = json.loads(read(header_bytes))
        arrays = _arrays(read, header["arrays"], array_bytes)
        return _value(header["value"], arrays, _MAX_DEPTH)
    except (RecursionError, KeyError, TypeError, IndexError, AttributeError) as e:
        raise ValueError(f"not a message ({type(e).__name__})") from None


def _arrays(read: Callable[[int], bytearray], told: list[Any], all_bytes: int) -> "list[np.ndarray]":
    """Return the arrays of a message by what its header tells of each: a type and a shape."""
    if not told and not all_bytes:
        return []
    import numpy as np

    about = [(np.dtype(_known(dtype)), _shape(shape)) for dtype, shape in told]
    sizes = [dtype.itemsize * math.prod(shape) for dtype, shape in about]
    if sum(sizes) != all_bytes:
        raise ValueError("arrays of another size")
    return [np.frombuffer(read(n), dtype).reshape(shape) for n, (dtype, shape) in zip(sizes, about, strict=True)]


def _plain(value: Any, arrays: "list[np.ndarray]") -> Any:
    import numpy as np

    if value is None or isinstance(value, bool | int | str):
        return int(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(value, np.generic):
        arrays.append(_little(np.asarray(value)))
        return {"scalar": len(arrays) - 1}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, np.ndarray):
        arrays.append(_little(value))
        return {"array": len(arrays) - 1}
    if isinstance(value, list):
        return [_plain(v, arrays) for v in value]
    if isinstance(value, tuple):
        return {"tuple": [_plain(v, arrays) for v in value]}
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return {"dict": {k: _plain(v, arrays) for k, v in value.items()}}
    raise TypeError(f"{type(value).__name__} is not plain")


def _little(a: "np.ndarray") -> "np.ndarray":
    import numpy as np

    little = np.asarray(a, a.dtype.newbyteorder("<"), order="C")
    _known(little.dtype.str)
    return little


def _known(dtype: str) -> str:
    if dtype not in _DTYPES:
        raise TypeError(f"an array of {dtype}")
    return dtype


def _shape(shape: list[int]) -> tuple[int, ...]:
    if len(shape) > 32 or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("a shape that is none")
    return tuple(shape)


def _value(tree: Any, arrays: "list[np.ndarray]", depth: int) -> Any:
    if depth == 0:
        raise ValueError("too deep")
    if isinstance(tree, list):
        return [_value(v, arrays, depth - 1) for v in tree]
    if not isinstance(tree, dict):
        if isinstance(tree, float) and not math.isfinite(tree):
            raise ValueError("a number that is none")
        return tree
    ((kind, inner),) = tree.items()
    if kind == "tuple":
        return tuple(_value(v, arrays, depth - 1) for v in inner)
    if kind == "dict":
        return {k: _value(v, arrays, depth - 1) for k, v in inner.items()}
    if kind == "array" and type(inner) is int and inner >= 0:
        return arrays[inner]
    if kind == "scalar" and type(inner) is int and inner >= 0 and arrays[inner].shape == ():
        return arrays[inner][()]
    if kind == "bytes":
        return base64.b64decode(inner, validate=True)
    if kind == "float":
        return _NOT_FINITE[inner]
    raise ValueError("of no kind")
