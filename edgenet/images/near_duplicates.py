"""Find copies of a picture by a fingerprint of its look, which is far cheaper than decoding it at full size.

The fingerprint is the picture as 16 x 16 gray numbers with the mean taken out and length 1: the product of two is their
correlation. Copies that were scaled or saved again stay over 0.985 (at two thirds of the size and JPEG quality 60 the
least of 60 had 0.989); different photographs of ImageNet reach 0.87, overlapping crops of one photograph 0.98.
"""

import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from edgenet.door import PICTURE_BYTES, open_regular
from edgenet.images import sample
from edgenet.images.decode import _prepare_pil, cores

SIDE_PX = 16
COPY_CORRELATION = 0.985
_LEAST_SPREAD = 1.5  # gray levels: below it a picture is blank, and its look is noise


@dataclass(frozen=True)
class Glance:
    """Size as stored, and the fingerprint, (256,) float32: zeros where the picture is blank."""

    width_px: int
    height_px: int
    look: NDArray[np.float32]

    @property
    def short_px(self) -> int:
        return min(self.width_px, self.height_px)

    @property
    def aspect(self) -> float:
        return max(self.width_px, self.height_px) / max(self.short_px, 1)


def glances(files: Sequence[str], workers: int | None = None) -> list[Glance | None]:
    """Return the fingerprints of files, computed on all cores; None for a file that cannot be read."""
    _prepare_pil()
    with ThreadPoolExecutor(workers or cores()) as pool:
        return list(pool.map(_glance, files))


def looks_alike(a: Sequence[Glance | None], b: Sequence[Glance | None]) -> NDArray[np.bool_]:
    """Return which pictures of `a` and `b` are the same but for scaling and compression: (len(a), len(b))."""
    return _looks(a) @ _looks(b).T >= COPY_CORRELATION


def _looks(pictures: Sequence[Glance | None]) -> NDArray[np.float32]:
    nothing = np.zeros(SIDE_PX * SIDE_PX, np.float32)
    return np.stack([nothing, *(nothing if g is None else g.look for g in pictures)])[1:]


def _glance(file: str) -> Glance | None:
    """Return the fingerprint of a file as it is now. Several checks of one command ask for the same pictures."""
    try:
        about = os.stat(file)
    except OSError:  # a sample photograph has a name and no file of its own
        return _looked_at(file, 0, 0)
    return _looked_at(file, about.st_mtime_ns, about.st_size)


@functools.lru_cache(maxsize=1 << 15)  # 1.2 KB each
def _looked_at(file: str, _mtime_ns: int, _size: int) -> Glance | None:
    try:
        if sample.is_sample(file):
            picture = sample.crop(file)
            return Glance(*picture.size, _look(picture))
        with open_regular(file, PICTURE_BYTES) as f, Image.open(f, formats=_prepare_pil()) as opened:
            size = opened.size
            opened.draft("L", (4 * SIDE_PX, 4 * SIDE_PX))  # JPEG only: decoded at an eighth where it is large
            return Glance(*size, _look(ImageOps.exif_transpose(opened)))
    except Exception:  # whatever a broken file provokes in PIL's parsers
        return None


def _look(picture: Image.Image) -> NDArray[np.float32]:
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    small = picture.convert("L").resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX)
    values = np.asarray(small, np.float32).ravel()
    values = values - values.mean()
    length = float(np.linalg.norm(values))
    return np.zeros_like(values) if length < _LEAST_SPREAD * SIDE_PX else values / np.float32(length)
