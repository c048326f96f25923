"""File -> pixels -> network input: the only place that opens, crops, resizes or normalises a picture.

A picture is turned upright by its EXIF orientation, made 8-bit RGB, cropped and resized as EfficientNet's authors do
(https://github.com/tensorflow/tpu, models/official/efficientnet/preprocessing.py): the centre square with a side of
res / (res + 32) of the short side, then bicubic to res x res. For a network whose input is no square it is the centre
rectangle of the input's shape, with the short side of both in the place of res. For a network of grey pictures the
picture is made grey first (ITU-R 601 luma, as Keras' load_img does). What is not plain 8-bit RGB:

    transparent          put on white, as a page shows it: the colour under a transparent pixel is arbitrary
    16-bit grayscale     scaled to 8 bits (PIL's own conversion would clip)
    CMYK                 converted without its ICC profile, as TensorFlow's decoder does; Adobe's inversion is undone
    animated, paged      the first frame
    32-bit, float, LAB   refused: there is no agreed range or conversion
    > 179 megapixels     refused: decoding would take gigabytes

JPEG is decoded at full size: the decoder's scaled modes (`Image.draft`) are faster and give other pixels.
"""

import collections
import contextlib
import functools
import hashlib
import io
import math
import os
import warnings
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from edgenet.door import PICTURE_BYTES, open_regular
from edgenet.errors import InputError
from edgenet.images import sample
from edgenet.results import ImageSet

Pixels = NDArray[np.uint8]

MAX_PIXELS = 178_956_970  # 512 MiB as RGB; where PIL, too, refuses a file as a decompression bomb
MAX_SKIPPED_PERCENT = 1
MAX_SIDE_PX = 8192  # of a network's input: a picture is 200 MB then
_CHUNK_BYTES = 1 << 30  # of decoded pictures that a stream hands out at once
_LEAST, _MOST = 1e-12, 1e6  # of standard deviations and means, in 0..255: beyond them float32 makes infinity of pixels

_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "HEIF")  # by content, not by extension
_RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}
_PIL_MODULES = r"PIL\."
CHANNELS = {"rgb": 3, "bgr": 3, "grey": 1}  # by channel order


@dataclass(frozen=True)
class Preprocessing:
    """How a photograph becomes a network's input: (pixel - mean) / std on `resolution_px` rows of `width_px` pixels.

    `mean` and `std` are in 0..255 and, like the pixels, in `channel_order` ("rgb", "bgr" or "grey"): three numbers, of
    grey one. `width_px` None is a square.
    """

    resolution_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_padding_px: int = 32
    interpolation: str = "bicubic"
    channel_order: str = "rgb"
    width_px: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(v) for v in self.mean))
        object.__setattr__(self, "std", tuple(float(v) for v in self.std))
        if self.width_px == self.resolution_px:
            object.__setattr__(self, "width_px", None)
        sides = (self.resolution_px, self.crop_padding_px, *(() if self.width_px is None else (self.width_px,)))
        if (
            not all(isinstance(px, int) and not isinstance(px, bool) for px in sides)
            or min(self.size_px) < 1
            or self.crop_padding_px < 0
        ):
            raise InputError(
                f"preprocessing with resolution {min(self.size_px)} and crop padding {self.crop_padding_px}: "
                "give a resolution of at least 1 px and a padding of at least 0 px"
            )
        if max(sides) > MAX_SIDE_PX:
            raise InputError(f"preprocessing with {max(sides)} px: a side, and a crop, is at most {MAX_SIDE_PX} px")
        if self.channel_order not in CHANNELS:
            raise InputError(f"unknown channel order '{self.channel_order}' (valid: {', '.join(CHANNELS)})")
        if {len(self.mean), len(self.std)} != {self.channels} or not all(_LEAST < v < _MOST for v in self.std):
            n = "one number" if self.channels == 1 else "three numbers"
            raise InputError(f"preprocessing with mean {self.mean} and std {self.std}: give {n} each, std > 0")
        if not all(abs(v) < _MOST for v in self.mean):
            raise InputError(f"preprocessing with mean {self.mean}: give a mean of pixels, which are 0 to 255")
        if self.interpolation not in _RESAMPLING:
            raise InputError(f"unknown interpolation '{self.interpolation}' (valid: {', '.join(_RESAMPLING)})")

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width of the input."""
        return self.resolution_px, self.width_px or self.resolution_px

    @property
    def short_px(self) -> int:
        """The short side of the input."""
        return min(self.size_px)

    @property
    def channels(self) -> int:
        return CHANNELS[self.channel_order]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The input's (H, W, C)."""
        return (*self.size_px, self.channels)

    @property
    def is_plain(self) -> bool:
        """Whether the input is a square in colours."""
        return self.width_px is None and self.channels == 3

    def crop_px(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the part of a picture of this size that the network sees."""
        rows, columns = self.size_px
        kept = self.short_px / (self.short_px + self.crop_padding_px)
        return (
            max(1, int(kept * min(height, width * rows / columns))),
            max(1, int(kept * min(width, height * columns / rows))),
        )

    def to_json(self) -> dict[str, Any]:
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {k: v for k, v in values.items() if k != "width_px" or v is not None}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Preprocessing":
        """Build it from the result of `to_json`; unknown keys are ignored.

        Raises:
            InputError: a key is missing or a value is not valid.
        """
        try:
            return cls(**{k: data[k] for k in cls.__dataclass_fields__ if k in data})
        except (TypeError, ValueError) as e:
            raise InputError(f"not a preprocessing ({e}): it needs resolution_px, mean and std") from None


@dataclass(frozen=True)
class Chunk:
    """Some pictures of a stream: `indices` (n,) into the ImageSet, `pixels` (n, H, W, C) uint8."""

    indices: NDArray[np.int64]
    pixels: Pixels


@dataclass(frozen=True)
class Skipped:
    """A file that could not be decoded, and why."""

    file: str
    why: str


class Replaced(InputError):
    """A picture is not the one any more whose content decided what it is used for."""


def decode(file: str, preprocessing: Preprocessing, digest: str = "", data: bytes | None = None) -> Pixels:
    """Return the picture as the network sees it before normalisation: (H, W, C) uint8, in its channel order.

    Args:
        digest: sha256 of the file's content, hex, where it must still be that.
        data: the content, where somebody else has read the file.

    Raises:
        InputError: the file cannot be decoded; the message starts with its name.
        Replaced: its content is another one.
    """
    picture = _open_rgb(file, (digest,) if digest else None, data)
    if preprocessing.channels == 1:
        picture = picture.convert("L")
    rows, columns = preprocessing.size_px
    # Cropped, then resized, as the authors do: resize(box=...) would filter in pixels from outside of the crop.
    seen = _centre(picture, *preprocessing.crop_px(picture.height, picture.width))
    pixels = np.asarray(seen.resize((columns, rows), _RESAMPLING[preprocessing.interpolation]), np.uint8)
    if preprocessing.channel_order == "bgr":
        return np.ascontiguousarray(pixels[..., ::-1])
    return pixels.reshape(preprocessing.shape)


def normalise(
    pixels: Pixels, preprocessing: Preprocessing, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return (pixels - mean) / std: (N, H, W, C) uint8 -> (N, H, W, C) float32, in `out` where that is given."""
    out = np.empty(pixels.shape, np.float32) if out is None else out
    mean, std = np.asarray(preprocessing.mean, np.float32), np.asarray(preprocessing.std, np.float32)
    for picture, into in zip(pixels, out, strict=True):  # one at a time stays in the cache
        np.copyto(into, picture)
        into -= mean
        into /= std
    return out


def stream(
    images: ImageSet,
    preprocessing: Preprocessing,
    chunk: int = 64,
    workers: int | None = None,
    skipped_before: Sequence[Skipped] = (),
) -> "Stream":
    """Decode a set on all cores ahead of use; see `Stream`."""
    return Stream(images, preprocessing, chunk, workers, skipped_before)


class Stream:
    """The pictures of a set as `Chunk`s, in order, decoded by threads that run ahead of the reader.

    No more than three chunks of decoded pictures exist at a time beside what the reader keeps, so memory does not grow
    with the set. A file that cannot be decoded is left out and listed in `skipped`. Every iteration starts anew.

    Args:
        chunk: places in the set that a Chunk stands for: one without those skipped, and the last, have fewer pictures,
            and all where they are so large that they fill memory. Which pictures come together depends on nothing else.
        workers: decoding threads; by default one for each core this process may use.
        skipped_before: what another part of the same split skipped, so that the 1 % is that of the whole set.

    Raises (while iterating):
        InputError: as soon as more than 1 % of the set was skipped, or when nothing is left.
    """

    def __init__(
        self,
        images: ImageSet,
        preprocessing: Preprocessing,
        chunk: int = 64,
        workers: int | None = None,
        skipped_before: Sequence[Skipped] = (),
    ) -> None:
        if chunk < 1 or (workers is not None and workers < 1):
            raise InputError(f"a stream of chunks of {chunk} by {workers} workers: give at least 1 of each")
        self.images, self.preprocessing = images, preprocessing
        self.chunk = chunk_size(preprocessing, chunk)
        self.workers = workers or cores()
        self.skipped: list[Skipped] = []
        self._skipped_before = tuple(skipped_before)

    def __len__(self) -> int:
        """Pictures in the set, the skipped ones included."""
        return len(self.images)

    def __iter__(self) -> Iterator[Chunk]:
        self.skipped = []
        n_set = self.images.n_set or len(self.images)
        indices: list[int] = []
        pixels: list[Pixels] = []
        n_read = 0
        for i, result in self._decoded():
            if isinstance(result, Skipped):
                self.skipped.append(result)
                refuse_too_many([*self._skipped_before, *self.skipped], n_set)
            else:
                n_read += 1
                indices.append(i)
                pixels.append(result)
            del result  # else the last picture of a chunk lives on while the reader works
            if indices and (i + 1) % self.chunk == 0:
                yield _take(indices, pixels)
        if indices:
            yield _take(indices, pixels)
        if n_read == 0 and self.skipped:
            raise InputError(_unreadable(self.skipped, len(self.images)))

    def _decoded(self) -> Iterator[tuple[int, Pixels | Skipped]]:
        _prepare_pil()  # here, once, before threads do
        ahead = max(self.chunk, 2 * self.workers)
        waiting: collections.deque[Future[Pixels | Skipped]] = collections.deque()
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="decode")
        try:
            for n, file in enumerate(self.images.files):
                waiting.append(pool.submit(decode_or_skip, file, self.preprocessing, self.images.digests[n]))
                if len(waiting) > ahead:
                    yield n - ahead, waiting.popleft().result()
            n = len(self.images) - len(waiting)
            while waiting:
                yield n, waiting.popleft().result()
                n += 1
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def chunk_size(preprocessing: Preprocessing, chunk: int = 64) -> int:
    """Return how many places of a set a Chunk stands for: `chunk`, or fewer where pictures are huge."""
    return max(1, min(chunk, _CHUNK_BYTES // math.prod(preprocessing.shape)))


def chunk_of(indices: Sequence[int], pixels: Sequence[Pixels]) -> Chunk:
    """Return a Chunk of decoded pictures."""
    return Chunk(np.asarray(indices, np.int64), np.stack(pixels))


def load_pixels(images: ImageSet, preprocessing: Preprocessing, workers: int | None = None) -> Pixels:
    """Return all pictures of a small set: (N, H, W, C) uint8, without those that could not be decoded.

    Raises:
        InputError: more than 1 % of them could not be decoded, or they take more memory than there is.
    """
    needed, there = len(images) * math.prod(preprocessing.shape), memory_left_bytes()
    if there is not None and needed > there:
        raise InputError(
            f"{len(images)} pictures of {preprocessing.size_px[1]} x {preprocessing.size_px[0]} px take "
            f"{needed / 1e9:.1f} GB, and {there / 1e9:.1f} GB are free: use fewer pictures, or a smaller input"
        )
    chunks = [c.pixels for c in stream(images, preprocessing, workers=workers)]
    return np.concatenate(chunks) if chunks else np.zeros((0, *preprocessing.shape), np.uint8)


def thumbnail(file: str, side_px: int = 96, known: Collection[str] | None = None) -> bytes:
    """Return the centre square of a picture, upright, as a JPEG of side_px x side_px.

    Args:
        known: sha256 of contents, hex: the file must have one of them, as a results.json may name any file.

    Raises:
        InputError: the file cannot be decoded, or is none of those.
    """
    picture = _open_rgb(file, known)
    square = _centre(picture, *(min(picture.size),) * 2).resize((side_px, side_px), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    square.save(out, "JPEG", quality=85)
    return out.getvalue()


def _take(indices: list[int], pixels: list[Pixels]) -> Chunk:
    out = chunk_of(indices, pixels)
    indices.clear()
    pixels.clear()
    return out


def read_picture(file: str) -> bytes:
    """Return the content of a picture's file. Raises InputError, OSError."""
    with open_regular(file, PICTURE_BYTES) as f:
        data: bytes = f.read(PICTURE_BYTES)
    return data


def decode_or_skip(file: str, preprocessing: Preprocessing, digest: str, data: bytes | None = None) -> Pixels | Skipped:
    """Do what `decode` does, and return a file that cannot be decoded with the reason. Raises Replaced."""
    try:
        return decode(file, preprocessing, digest, data)
    except Replaced:
        raise
    except InputError as e:
        return Skipped(file, str(e).removeprefix(f"{file}: "))


def refuse_too_many(skipped: Sequence[Skipped], n_set: int) -> None:
    """Raise InputError where more than 1 % of a set cannot be read."""
    if len(skipped) * 100 > n_set * MAX_SKIPPED_PERCENT:
        raise InputError(_unreadable(skipped, n_set))


def _unreadable(skipped: Sequence[Skipped], n_set: int) -> str:
    shown = ", ".join(f"{s.file} ({s.why})" for s in skipped[:3]) + (", ..." if len(skipped) > 3 else "")
    allowed = f"at most {MAX_SKIPPED_PERCENT} % may be left out"
    return f"{len(skipped)} or more of {n_set} images cannot be read, {allowed}: {shown}; repair or remove them"


def _open_rgb(file: str, known: Collection[str] | None = None, data: bytes | None = None) -> Image.Image:
    # An upright 8-bit RGB picture that is loaded and holds no open file.
    if sample.is_sample(file):
        return sample.crop(file)
    try:
        data = read_picture(file) if data is None else data
        # What is hashed here is what is decoded; a look at the file's date would miss a swap in between.
        if known is not None and hashlib.sha256(data).hexdigest() not in known:
            raise Replaced(f"{file} was replaced while this command ran: let pictures be until it ends, run it again")
        with Image.open(io.BytesIO(data), formats=_prepare_pil()) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            picture.load()
            return _rgb(_upright(picture))
    except Image.DecompressionBombError:
        why = f"larger than {MAX_PIXELS / 1e6:.0f} megapixels; scale it down"
    except UnidentifiedImageError:
        heif = Path(file).suffix.lower() in (".heic", ".heif")
        why = "HEIC cannot be read; convert it to JPEG" if heif else "not an image, or cut off in its header"
    except InputError as e:
        if isinstance(e, Replaced):
            raise
        why = str(e).removeprefix(f"{file} ")
    except Exception as e:  # PIL's parsers let whatever a broken file provokes through: struct.error, KeyError, ...
        why = (isinstance(e, OSError) and e.strerror) or str(e) or "it is damaged"
        if "truncated" in why.lower() or "create decoder object" in why:  # the latter is WebP's way to say it
            why = "the file is truncated"
    raise InputError(f"{file}: {why}")


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()  # once, before threads need it
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _prepare_pil() -> tuple[str, ...]:
    # PIL warns of odd metadata and of large pictures. What matters ends in `skipped`; a filter of the whole process,
    # since warnings.catch_warnings is not safe in threads.
    entry = warnings.filters[0] if warnings.filters else None
    if entry is None or entry[0] != "ignore" or getattr(entry[3], "pattern", "") != _PIL_MODULES:
        warnings.filterwarnings("ignore", module=_PIL_MODULES)
    return _formats()


def _upright(picture: Image.Image) -> Image.Image:
    with contextlib.suppress(Exception):  # damaged EXIF data does not make the picture unreadable
        ImageOps.exif_transpose(picture, in_place=True)  # a copy would not know its format
    return picture


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PPM"):
        wide = np.asarray(picture).astype(np.uint32)  # 0..65535
        picture = Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    elif picture.mode in ("I", "F", "LAB"):
        raise ValueError(f"pixels of mode {picture.mode} have no agreed range; convert it to 8-bit RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")  # a copy, so that it outlives the open file


def _centre(picture: Image.Image, height: int, width: int) -> Image.Image:
    # The authors round the offset up: ((size - side) + 1) // 2.
    left, top = (picture.width - width + 1) // 2, (picture.height - height + 1) // 2
    return picture.crop((left, top, left + width, top + height))


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_left_bytes() -> int | None:
    """Return the memory that a program can still have, None where the system does not tell."""
    try:
        with open("/proc/meminfo") as f:
            return next((int(line.split()[1]) * 1024 for line in f if line.startswith("MemAvailable:")), None)
    except OSError:
        return None
