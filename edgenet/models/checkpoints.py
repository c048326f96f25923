"""Read the arrays of a weights file, under the names that the file gives them. No file that is read can run code.

`read_checkpoint` has a child process do it, which can do no harm; `read_here` is what runs there.

Formats: PyTorch (zip, and the older plain pickle) without PyTorch; .npz; safetensors,
https://github.com/huggingface/safetensors#format; HDF5 of Keras 2 and 3; TensorFlow checkpoints, also as .tar.gz.
What the names mean is for weights.py to say.
"""

import io
import json
import math
import os
import pickle
import pickletools
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.errors import EdgenetError, InputError, MissingDependency
from edgenet.sandbox.apart import BUILDING, PARSING, UNPACKING, printable, read_apart

Arrays = dict[str, np.ndarray]

MAX_BYTES = (
    4 << 30
)  # B7 with an optimiser's two slots is 0.8 GB; what unpacks to more than this is not a network of ours
_DAMAGED = "is damaged or cut short, or is not what its name says"
_PART = r"\.(index|data-\d{5}-of-\d{5})"  # of a TensorFlow checkpoint, behind its prefix
_TENSORS_ONLY = "save only the tensors, torch.save(model.state_dict(), FILE), or give a .safetensors file"


@dataclass(frozen=True)
class Checkpoint:
    """The arrays of a file by the file's own names. `notes`: what was chosen where the file holds several sets."""

    arrays: Arrays
    files: tuple[Path, ...]  # what was read, for a hash
    notes: tuple[str, ...] = ()


def read_checkpoint(path: Path) -> Checkpoint:
    """Return what `path` holds: a file with a suffix of `READERS`, or a TensorFlow checkpoint's prefix, part or folder.

    Raises:
        InputError: there is no such file, no reader for it, it is damaged, or it asks for code to be run; or the child
            process that reads it did not end well.
        MissingDependency: h5py or tensorflow is needed and not installed.
    """
    reader = _reader(path)
    effort = UNPACKING if reader is read_tar else BUILDING if reader is read_tensorflow else PARSING
    answer = read_apart("edgenet.models.checkpoints:as_plain", path, {"path": str(path)}, effort)
    try:
        arrays, files, notes = (answer[k] for k in ("arrays", "files", "notes"))
        whole = all(isinstance(a, np.ndarray) for a in arrays.values())
        read = tuple(map(Path, files))
    except (TypeError, KeyError, AttributeError):
        whole = False
    # The child names what it read; only what the user named may be looked at for it.
    folder = path if path.is_dir() else path.parent
    if not whole or not read or not all(p.is_file() and p.is_relative_to(folder) for p in read):
        raise InputError(f"{path} {_DAMAGED}: fetch it again, or give another --weights FILE")
    return Checkpoint(arrays, read, tuple(printable(str(n)) for n in notes))


def as_plain(path: str) -> dict[str, Any]:
    """Return the Checkpoint of a file as plain values."""
    found = read_here(Path(path))
    # What is no number is no weight: its kind is enough to say so.
    arrays = {n: np.asarray(a) for n, a in found.arrays.items()}
    arrays = {n: a if a.dtype.kind in "biufc" else np.zeros(0, "S1") for n, a in arrays.items()}
    return {"arrays": arrays, "files": [str(p) for p in found.files], "notes": list(found.notes)}


def read_here(path: Path) -> Checkpoint:
    """Return what `path` holds, read in this process. Raises as `read_checkpoint`."""
    reader = _reader(path)
    try:
        return reader(path)
    except InputError as e:
        if path.name in str(e):
            raise
        raise InputError(f"{path}: {e}") from e
    except EdgenetError:
        raise
    except (
        Exception
    ) as e:  # parsers of hostile bytes raise nearly anything: struct, zlib, Unicode, Recursion, Memory...
        reason = (str(e).strip().splitlines() or ["no reason told"])[0][:160]
        raise InputError(f"{path} {_DAMAGED} ({reason}): fetch it again, or give another --weights FILE") from e


def _reader(path: Path) -> Callable[[Path], Checkpoint]:
    if path.is_dir() or Path(f"{path}.index").is_file():
        return read_tensorflow
    if not path.is_file():
        raise InputError(f"no weights file {path}: valid are {SUPPORTED}")
    for suffix, reader in READERS.items():
        if path.name.endswith(suffix):
            return reader
    if re.search(_PART + "$", path.name):
        return read_tensorflow
    raise InputError(f"cannot tell the format of {path.name} by its name: valid are {SUPPORTED}")


# ---------------------------------------------------------------------------------------------------------- PyTorch

_STORAGES = {
    "Float": "<f4", "Double": "<f8", "Half": "<f2", "BFloat16": "<u2", "Long": "<i8", "Int": "<i4", "Short": "<i2",
    "Char": "i1", "Byte": "u1", "Bool": "?",
}  # fmt: skip
# Where a training script keeps the network's tensors, averaged ones first.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")


@dataclass(frozen=True)
class _Storage:
    kind: str
    key: str
    numel: int


@dataclass(frozen=True)
class _Tensor:
    """A tensor as the pickle describes it; its numbers come after or beside the pickle."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def array(self, flat: np.ndarray) -> np.ndarray:
        if not isinstance(self.storage, _Storage) or len(self.size) != len(self.stride):
            raise ValueError("a tensor without a storage")
        if min((self.offset, *self.size, *self.stride)) < 0 or math.prod(self.size) > flat.size:
            raise ValueError(f"a tensor of {self.size} in {flat.size} numbers")
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if math.prod(self.size) and last >= flat.size:
            raise ValueError("a tensor that ends outside of its storage")
        strides = [step * flat.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.size, strides, writeable=False)


def read_torch(path: Path) -> Checkpoint:
    """Return the tensors of a .pth file, either of torch.save's formats. The pickle may name tensors, nothing else."""
    data = path.read_bytes()
    root, flat_of = (_torch_zip if data[:2] == b"PK" else _torch_legacy)(data)
    tensors, wrapper = _state_dict(root)
    flat: dict[_Storage, np.ndarray] = {}
    arrays = {}
    for name, t in tensors.items():
        if t.storage not in flat:
            numbers = flat_of(t.storage)
            flat[t.storage] = _float32_of_bfloat16(numbers) if t.storage.kind == "BFloat16" else numbers
        arrays[name] = t.array(flat[t.storage])
    return Checkpoint(arrays, (path,), ("moving averages",) if wrapper and wrapper.endswith("ema") else ())


def _torch_zip(data: bytes) -> tuple[Any, Callable[[_Storage], np.ndarray]]:
    archive = zipfile.ZipFile(io.BytesIO(data))
    _check_unpacked_size(archive)
    folder = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
        raise ValueError("big-endian numbers")

    def flat_of(s: _Storage) -> np.ndarray:
        return np.frombuffer(archive.read(f"{folder}data/{s.key}"), _STORAGES[s.kind], count=s.numel)

    return _unpickle(io.BytesIO(archive.read(f"{folder}data.pkl"))), flat_of


def _torch_legacy(data: bytes) -> tuple[Any, Callable[[_Storage], np.ndarray]]:
    """Read magic number, version, system, content and keys, each a pickle; then (count, numbers) for each key."""
    stream = io.BytesIO(data)
    if _unpickle(stream) != 0x1950A86A20F9469CFC6C:
        raise ValueError("no file of torch.save")
    _unpickle(stream)
    if not _unpickle(stream).get("little_endian", True):
        raise ValueError("big-endian numbers")
    storages: dict[str, _Storage] = {}
    root = _unpickle(stream, storages)
    raw = {}
    position = 0
    for key in _unpickle(stream):
        position = position or stream.tell()
        storage = storages[key]
        dtype = np.dtype(_STORAGES[storage.kind])
        count = int.from_bytes(data[position : position + 8], "little")
        if count != storage.numel:
            raise ValueError(f"storage {key} holds {count} numbers instead of {storage.numel}")
        raw[key] = np.frombuffer(data, dtype, count, position + 8)
        position += 8 + count * dtype.itemsize
    return root, lambda s: raw[s.key]


def _unpickle(stream: io.BytesIO, storages: dict[str, _Storage] | None = None) -> Any:
    """Unpickle one object; put the storages that it names into `storages`.

    Everything that the pickle can reach is made here for this one call, so that it leaves no trace in the process.
    """
    start = stream.tell()
    for opcode, arg, position in pickletools.genops(stream):  # reads, and builds nothing
        # The memo is an array: one entry at 2**32 would take 64 GB. An honest index is not above the bytes before it.
        if "PUT" in opcode.name and int(arg or 0) > (position or 0):
            raise ValueError("a memo index that no pickler writes")
    stream.seek(start)

    class State(dict):  # type: ignore[type-arg]
        def __setstate__(self, _: Any) -> None:
            """Drop the attributes that PyTorch hangs on a state dict."""

    def tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Tensor:
        return _Tensor(storage, int(offset), tuple(map(int, size)), tuple(map(int, stride)))

    def parameter(data: Any, *_: Any) -> Any:
        return data

    allowed: dict[str, Any] = {
        "collections.OrderedDict": State,
        "torch._utils._rebuild_tensor": tensor,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_parameter": parameter,
        **{f"torch.{kind}Storage": kind for kind in _STORAGES},
    }

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            full = f"{module}.{name}"
            if full not in allowed:
                shown = full[:100] if full.isprintable() else ascii(full)[:100]
                raise InputError(
                    f"refused: the pickle names {shown}, and more than tensors can run code: {_TENSORS_ONLY}"
                )
            return allowed[full]

        def persistent_load(self, pid: Any) -> _Storage:
            tag, kind, key, _location, numel = pid[:5]
            if tag != "storage" or kind not in _STORAGES or not isinstance(key, str):
                raise ValueError(f"an unknown reference {str(pid)[:60]}")
            storage = _Storage(kind, key, int(numel))
            if storages is not None and storages.setdefault(key, storage) != storage:
                raise ValueError(f"two storages called {key}")
            return storage

    return Unpickler(stream).load()


def _state_dict(root: Any) -> tuple[dict[str, _Tensor], str | None]:
    wrapper = next((w for w in _WRAPPERS if isinstance(root, dict) and isinstance(root.get(w), dict)), None)
    content = root[wrapper] if wrapper else root
    tensors = {k: v for k, v in content.items() if isinstance(v, _Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        valid = f"valid: name -> tensor, alone or under {', '.join(_WRAPPERS)}"
        raise InputError(f"the file holds no state dict of tensors ({valid}): {_TENSORS_ONLY}")
    return tensors, wrapper


def _float32_of_bfloat16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


# ------------------------------------------------------------------------------------------------ npz and safetensors


def read_npz(path: Path) -> Checkpoint:
    """Return the arrays of a file of numpy.savez; arrays of Python objects, which are pickles, are refused."""
    with zipfile.ZipFile(path) as archive:
        _check_unpacked_size(archive)
    with np.load(path, allow_pickle=False) as archive:
        return Checkpoint({name: archive[name] for name in archive.files}, (path,))


_SAFETENSORS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U8": "u1", "BOOL": "?",
}  # fmt: skip


def read_safetensors(path: Path) -> Checkpoint:
    """Return the tensors of a .safetensors file: 8 bytes of header length, a JSON header, the numbers."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or start > len(data):
        raise ValueError("a header that ends outside of the file")
    arrays = {}
    for name, entry in json.loads(data[8:start]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        shape, dtype = tuple(entry["shape"]), np.dtype(_SAFETENSORS[entry["dtype"]])
        count = math.prod(shape)
        if not 0 <= begin <= end <= len(data) - start or end - begin != count * dtype.itemsize:
            raise ValueError(f"{name} lies outside of the file")
        flat = np.frombuffer(data, dtype, count, start + begin) if count else np.zeros(0, dtype)
        arrays[name] = (_float32_of_bfloat16(flat) if entry["dtype"] == "BF16" else flat).reshape(shape)
    return Checkpoint(arrays, (path,))


# -------------------------------------------------------------------------------------------------------------- Keras


def read_keras(path: Path) -> Checkpoint:
    """Return the variables of a .h5, .weights.h5 or .keras file as "layer/variable"; optimizers are left out.

    Keras 3's layout calls layers by class and order (conv2d_3) and variables by order; where the file also gives the
    layer's name, that is used.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            _check_unpacked_size(archive)
            return Checkpoint(_read_hdf5(io.BytesIO(archive.read("model.weights.h5"))), (path,))
    return Checkpoint(_read_hdf5(path), (path,))


def _read_hdf5(source: Path | io.BytesIO) -> Arrays:
    try:
        import h5py
    except ImportError:
        raise MissingDependency("h5py", "export", "reading a Keras file") from None
    arrays: Arrays = {}
    total = 0

    def visit(path: str, item: Any) -> None:
        nonlocal total
        if not isinstance(item, h5py.Dataset) or path.startswith(("optimizer", "_optimizer")):
            return
        if item.external or item.is_virtual:  # numbers that lie in another file of this machine
            raise ValueError(f"{path} points to another file")
        total += math.prod(item.shape) * item.dtype.itemsize
        if total > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES >> 30} GB of numbers")
        parts = path.split("/")
        if "vars" in parts:
            layer = item.parent.attrs.get("name", parts[-3] if len(parts) > 2 else "")
            name = f"{layer.decode() if isinstance(layer, bytes) else layer}/{parts[-1]}"
        else:
            name = "/".join(parts[-2:]).removesuffix(":0")
        if name in arrays:
            raise InputError(f"the Keras file holds two layers called {name.split('/')[0]}: save one network alone")
        arrays[name] = item[()]

    with h5py.File(source, "r") as file:
        file.visititems(visit)  # follows no external link
    return arrays


# ------------------------------------------------------------------------------------------------------- TensorFlow


def read_tensorflow(path: Path) -> Checkpoint:
    """Return the variables of a TensorFlow checkpoint: its prefix, one of its files, or a folder that holds one."""
    prefix = _only_checkpoint(path) if path.is_dir() else Path(re.sub(_PART + "$", "", str(path)))
    part = re.compile(re.escape(prefix.name) + _PART)
    files = tuple(sorted(p for p in prefix.parent.iterdir() if part.fullmatch(p.name)))
    if len(files) < 2:
        raise InputError(f"{prefix} is not a whole TensorFlow checkpoint: valid is a .index file with its .data files")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow as tf
    except ImportError:
        raise MissingDependency("tensorflow", "export", "reading a TensorFlow checkpoint") from None
    reader = tf.train.load_checkpoint(str(prefix))
    types = reader.get_variable_to_dtype_map()
    return Checkpoint({n: reader.get_tensor(n) for n, t in types.items() if t.is_floating or t.is_integer}, files)


def _only_checkpoint(folder: Path) -> Path:
    """Return the prefix of the folder's checkpoint: the one that its `checkpoint` file names, or the only one."""
    found = sorted(p.with_suffix("") for p in folder.rglob("*.index"))
    for state in folder.rglob("checkpoint"):
        if match := re.search(r'^model_checkpoint_path: "(?:[^"]*/)?([^"/]+)"', state.read_text(), re.MULTILINE):
            found = [p for p in found if p.name == match[1]] or found
    if len(found) != 1:
        names = ", ".join(p.name for p in found[:4]) or "none"
        raise InputError(
            f"{folder} must hold one TensorFlow checkpoint, found {names}: give the path of its .index file"
        )
    return found[0]


def read_tar(path: Path) -> Checkpoint:
    """Return the variables of the TensorFlow checkpoint in a .tar.gz, as the authors of EfficientNet publish them."""
    with tempfile.TemporaryDirectory(prefix="edgenet-") as tmp, tarfile.open(path) as archive:
        total = 0
        for member in archive:
            name = Path(member.name)
            total += member.size
            if name.is_absolute() or ".." in name.parts:
                raise InputError(
                    f"refused: {path.name} holds {member.name}, which would leave the folder it is unpacked to"
                )
            if total > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES >> 30} GB")
            wanted = member.isfile() and re.search(rf"(^checkpoint|{_PART})$", name.name)
            if wanted and (content := archive.extractfile(member)):
                target = Path(tmp) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with content, open(target, "xb") as out:
                    shutil.copyfileobj(content, out)
        return Checkpoint(read_tensorflow(Path(tmp)).arrays, (path,))


def _check_unpacked_size(archive: zipfile.ZipFile) -> None:
    if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
        raise ValueError(f"unpacks to more than {MAX_BYTES >> 30} GB")


READERS: dict[str, Callable[[Path], Checkpoint]] = {
    ".pth": read_torch,
    ".pt": read_torch,
    ".bin": read_torch,
    ".npz": read_npz,
    ".safetensors": read_safetensors,
    ".h5": read_keras,
    ".hdf5": read_keras,
    ".keras": read_keras,
    ".index": read_tensorflow,
    ".tar.gz": read_tar,
    ".tgz": read_tar,
}
SUPPORTED = f"{', '.join(READERS)}, or a TensorFlow checkpoint's prefix or folder"
