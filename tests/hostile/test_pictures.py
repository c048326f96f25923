"""Pictures that are odd, damaged or made to do harm: each is decoded as its format says, or is a line."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgenet.errors import InputError
from edgenet.images.decode import Preprocessing, decode

PREPROCESSING = Preprocessing(32, (127,) * 3, (128,) * 3, crop_padding_px=0, interpolation="nearest")
RED = Image.new("RGB", (40, 40), (200, 30, 20))


def saved(format: str, picture: Image.Image = RED, **more: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, format, **more)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colours: int, pixels: bytes, *more: tuple[bytes, bytes]) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0))
    body = b"".join(chunk(*c) for c in more) + chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


def with_exif(*entries: tuple[int, int, int, int], follows: int = 0) -> bytes:
    """A red JPEG whose EXIF has these entries: tag, type, count, value."""
    table = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries)
    body = b"Exif\0\0II*\0\x08\0\0\0" + table + struct.pack("<I", follows)
    jpeg = saved("JPEG")
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


SHORT, LONG, ORIENTATION, EXIF, GPS = 3, 4, 0x0112, 0x8769, 0x8825
BLUE = Image.new("RGB", (40, 40), (0, 0, 255))
RED_ROWS = b"".join(b"\0" + bytes((200, 0, 30, 0, 20, 0)) * 40 for _ in range(40))
READ: dict[str, Callable[[], bytes]] = {
    "16 bits a colour": lambda: png(40, 40, 16, 2, RED_ROWS),
    "CMYK": lambda: saved("JPEG", RED.convert("CMYK")),
    "a palette": lambda: saved("PNG", RED.quantize(4)),
    "transparency": lambda: saved("PNG", RED.convert("RGBA")),
    "an animated GIF": lambda: saved("GIF", save_all=True, append_images=[BLUE] * 30),
    "an animated WEBP": lambda: saved("WEBP", save_all=True, append_images=[BLUE] * 3, lossless=True),
    "an animated PNG": lambda: saved("PNG", save_all=True, append_images=[BLUE] * 3),
    "a TIFF of many pages": lambda: saved("TIFF", save_all=True, append_images=[BLUE] * 9),
    "a colour profile that is none": lambda: saved("JPEG", icc_profile=b"x" * 60_000),
    "a colour profile of 1 MB": lambda: saved("PNG", icc_profile=bytes(10**6)),
    "EXIF of 2 billion values": lambda: with_exif((ORIENTATION, SHORT, 2**31, 8)),
    "EXIF of an orientation that is none": lambda: with_exif((ORIENTATION, SHORT, 1, 99)),
    "EXIF that holds itself": lambda: with_exif((EXIF, LONG, 1, 8), (GPS, LONG, 1, 8), follows=8),
    "EXIF of 5,000 entries": lambda: with_exif(*[(ORIENTATION, SHORT, 1, 1)] * 5000),
    "a JPEG with a zip archive behind": lambda: saved("JPEG") + b"PK\x05\x06" + bytes(18),
    "one pixel": lambda: saved("PNG", RED.resize((1, 1))),
    "a line of 10^6 pixels": lambda: png(10**6, 1, 8, 2, b"\0" + bytes((200, 30, 20)) * 10**6),
    "a column of 10^6 pixels": lambda: png(1, 10**6, 8, 2, (b"\0" + bytes((200, 30, 20))) * 10**6),
}
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "an SVG": (lambda: b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "not an image"),
    "a page": (lambda: b"<!DOCTYPE html><html></html>", "not an image"),
    "nothing": (lambda: b"", "not an image"),
    "half a JPEG": (lambda: saved("JPEG", RED.resize((400, 400)))[:1500], "truncated"),
    "half a PNG": (lambda: saved("PNG", Image.effect_noise((99, 99), 50))[:2000], "truncated"),
    "a text of 60 MB in a PNG": (
        lambda: png(40, 40, 16, 2, RED_ROWS, (b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(60_000_000)))), "too large"
    ),
    "a profile of 300 MB in a PNG": (
        lambda: png(40, 40, 16, 2, RED_ROWS, (b"iCCP", b"k\0\0" + zlib.compress(bytes(300_000_000)))), "too large"
    ),
    "a JPEG of 65,535 pixels a side": (
        lambda: saved("JPEG").replace(b"\x08\0\x28\0\x28\x03", b"\x08\xff\xff\xff\xff\x03"), "megapixels"
    ),
    "numbers with a point": (lambda: saved("TIFF", Image.new("F", (20, 20))), "no agreed range"),
    "a PPM whose white is 0": (lambda: b"P6 3 3 0\n" + bytes(27), "maxval"),
    "a BMP that unpacks to 169 megapixels": (
        lambda: b"BM" + bytes(8) + struct.pack("<IIiiHHIIiiII", 62, 40, 13000, 13000, 1, 8, 1, 0, 0, 0, 2, 0) + bytes(8)
        + b"\xff\1" * 10, "not enough image data"
    ),
}  # fmt: skip


@pytest.mark.parametrize("make", READ.values(), ids=READ)
def test_an_odd_picture_has_the_colours_that_its_format_says(make: Callable[[], bytes], tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(make())
    pixels = decode(str(tmp_path / "x.jpg"), PREPROCESSING)
    assert pixels.shape == (32, 32, 3)
    assert np.abs(pixels.astype(int) - (200, 30, 20)).max() <= 12  # of a palette, and of JPEG


@pytest.mark.parametrize(("make", "says"), REFUSED.values(), ids=REFUSED)
def test_a_picture_that_is_none_is_a_line(make: Callable[[], bytes], says: str, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(make())
    with pytest.raises(InputError, match=says) as e:
        decode(str(tmp_path / "x.jpg"), PREPROCESSING)
    assert str(e.value).startswith(f"{tmp_path}/x.jpg: ")
    assert str(e.value).isprintable()
