"""What a file answered to each picture, small enough for results.json: a bit for right, a bit for wrong, a class.

Pictures stand in the order of their content's sha256, whatever they are called and however a folder lists them: two
runs on the same pictures pair them by their place alone. 50,000 pictures take 150 kB a file.
"""

import base64
import binascii
from dataclasses import dataclass

import numpy as np

_NO_CLASS = -1  # nouns.NO_ANSWER
_MOST = 1 << 27  # pictures: more than results.json has room for


@dataclass(frozen=True)
class PictureAnswers:
    """Right or wrong, and the class, of `n` pictures; neither right nor wrong is one without a label, or not read.

    Attributes:
        right: base64 of a bit a picture, the first one in the highest place of the first byte.
        wrong: the same of those that have a label and another answer.
        top1: base64 of each first class, little endian, 16 or 32 bits signed; -1 is no answer; "" where the task has
            no class.
    """

    n: int
    right: str
    wrong: str
    top1: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.n <= _MOST:
            raise ValueError(f".n must be from 0 to {_MOST}, was {self.n}")
        for name in ("right", "wrong"):
            if len(_bytes(f".{name}", getattr(self, name))) != -(-self.n // 8):
                raise ValueError(f".{name} must hold a bit for each of {self.n} pictures")
        if self.top1 and len(_bytes(".top1", self.top1)) not in (2 * self.n, 4 * self.n):
            raise ValueError(f".top1 must hold 2 or 4 bytes for each of {self.n} pictures")
        if (self.right_each & self.wrong_each).any():
            raise ValueError(".right and .wrong exclude each other")

    @property
    def right_each(self) -> np.ndarray:
        """(n,) bool."""
        return _bits(self.right, self.n)

    @property
    def wrong_each(self) -> np.ndarray:
        """(n,) bool."""
        return _bits(self.wrong, self.n)

    @property
    def top1_each(self) -> np.ndarray | None:
        """(n,) int; None where the task has no class."""
        if not self.top1:
            return None
        data = base64.b64decode(self.top1)
        return np.frombuffer(data, "<i2" if len(data) == 2 * self.n else "<i4").astype(np.int64)


def pack(right: np.ndarray, wrong: np.ndarray, top1: np.ndarray | None) -> PictureAnswers:
    """Return the answers to pictures that are already in order. right, wrong: (n,) bool; top1: (n,) int."""
    classes = ""
    if top1 is not None:
        kind = "<i2" if top1.max(initial=_NO_CLASS) < 1 << 15 else "<i4"
        classes = _text(top1.astype(kind).tobytes())
    return PictureAnswers(len(right), _text(np.packbits(right).tobytes()), _text(np.packbits(wrong).tobytes()), classes)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(place: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):  # of a character that is not ASCII
        raise ValueError(f"{place} must be base64, was {text[:40]!r}") from None


def _bits(text: str, n: int) -> np.ndarray:
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=n).astype(bool)
