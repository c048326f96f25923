"""A file is one thing: what is a zip archive and HDF5 at once, or goes on after its end, is refused.

Two libraries that open such a file may each see another network: one is checked, the other loaded.
"""

import re
import zipfile
from pathlib import Path
from typing import Any

from edgenet.errors import InputError

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP_END, _ZIP_END_BYTES = b"PK\x05\x06", 22
_HELD = re.compile(r"config\.json|metadata\.json|model\.weights\.(h5|json)|model_\d+\.weights\.h5|assets/")
_ADVICE = "a file that is two things, or has something after its end, may be made to deceive: save the model again"


def check_outside(path: Path) -> None:
    """Raise InputError where a file is HDF5 and a zip archive at once, or more than the one of them that it is."""
    size = path.stat().st_size
    with open(path, "rb") as f:
        head = f.read(64)
        if head.startswith(_HDF5):
            end = _hdf5_end(head)
            if zipfile.is_zipfile(path):
                raise InputError(f"{path} is HDF5 and a zip archive at once: {_ADVICE}")
            if end is not None and end < size:
                raise InputError(f"{path} goes on for {size - end} bytes after the end of the HDF5 file: {_ADVICE}")
            return
        at = 512
        while at < size:  # where the HDF5 library looks for its mark
            f.seek(at)
            if f.read(len(_HDF5)) == _HDF5:
                raise InputError(f"{path} is a zip archive and HDF5 at once: {_ADVICE}")
            at *= 2
        f.seek(max(0, size - _ZIP_END_BYTES))
        if zipfile.is_zipfile(path) and not f.read().startswith(_ZIP_END):
            raise InputError(f"{path} has something after the end of the zip archive: {_ADVICE}")


def check_keras_zip(path: Path, archive: zipfile.ZipFile) -> None:
    """Raise InputError where an archive holds a name twice, or what no .keras file does."""
    names = archive.namelist()
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise InputError(f"{path} holds {twice} twice: {_ADVICE}")
    first = min((i.header_offset for i in archive.infolist()), default=0)
    if first != 0:
        raise InputError(f"{path} has something before the zip archive: {_ADVICE}")
    odd = next((n for n in names if not _HELD.fullmatch(n)), None)
    if odd is not None:
        raise InputError(
            f"{path} holds {odd}, which no network of pictures needs: save it again, without vocabularies and the like"
        )


def check_hdf5(path: Path, file: Any) -> None:
    """Raise InputError where numbers of an open HDF5 file lie in another file of this machine."""
    import h5py

    def look(group: Any) -> None:
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise InputError(f"{path} takes {name} from another file, {link.filename}: save the whole model again")
            if isinstance(link, h5py.SoftLink):
                raise InputError(f"{path} holds the link {name}, which Keras does not write: save the model again")
            item = group[name]
            if isinstance(item, h5py.Group):
                look(item)
            elif isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
                raise InputError(f"{path} takes {name} from another file: save the whole model again")

    look(file)


def _hdf5_end(head: bytes) -> int | None:
    """Return where the superblock says that the file ends, None where it is of another size of addresses.

    https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html, level 0A.
    """
    version = head[8]
    if version in (0, 1) and head[13] == 8:
        base = 24 + 4 * version
        return int.from_bytes(head[base : base + 8], "little") + int.from_bytes(head[base + 16 : base + 24], "little")
    if version in (2, 3) and head[9] == 8:
        return int.from_bytes(head[12:20], "little") + int.from_bytes(head[28:36], "little")
    return None
