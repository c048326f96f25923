"""Write PyTorch's files of weights, of both formats, without PyTorch."""

import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np

from helpers.distinct_weights import Arrays


def bit(value: object) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def tensor_pickle(arrays: Arrays, wrapper: str | None = None) -> bytes:
    """Pickle a state dict as torch.save does: protocol 2, the numbers as persistent ids, a `_metadata` attribute."""
    ordered = b"ccollections\nOrderedDict\n)R"
    out = ordered
    for i, (name, a) in enumerate(arrays.items()):
        strides = tuple(s // a.itemsize for s in np.ascontiguousarray(a).strides) if a.ndim else ()
        kind = {"f4": b"Float", "i8": b"Long", "f2": b"Half"}[a.dtype.str[1:]]
        storage = b"(" + bit("storage") + b"ctorch\n" + kind + b"Storage\n" + bit(str(i)) + bit("cpu") + bit(a.size)
        out += bit(name) + b"ctorch._utils\n_rebuild_tensor_v2\n((" + storage[1:] + b"tQ"
        out += bit(0) + bit(a.shape) + bit(strides) + b"\x89" + ordered + b"tRs"
    out += b"}" + bit("_metadata") + ordered + b"sb"
    return b"\x80\x02" + (b"}" + bit(wrapper) + out + b"s" if wrapper else out) + b"."


def save_legacy(path: Path, arrays: Arrays, wrapper: str | None = None) -> None:
    head = [
        pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})
    ]
    keys = pickle.dumps([str(i) for i in range(len(arrays))], 2)
    data = b"".join(struct.pack("<q", a.size) + np.ascontiguousarray(a).tobytes() for a in arrays.values())
    path.write_bytes(b"".join(head) + tensor_pickle(arrays, wrapper) + keys + data)


def save_zip(path: Path, arrays: Arrays, wrapper: str | None = None) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", tensor_pickle(arrays, wrapper))
        archive.writestr("archive/byteorder", "little")
        for i, a in enumerate(arrays.values()):
            archive.writestr(f"archive/data/{i}", np.ascontiguousarray(a).tobytes())
        archive.writestr("archive/version", "3\n")
