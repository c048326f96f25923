"""Show a network more than the calibration pictures: mirrored, and cut closer.

Many channels of a trained network fire on a few pictures only. What 6 pictures, or 100, make of a channel is less than
what it reaches on others, and int8 cuts that off. Another view of a picture moves what is on it to other channels and
makes it larger. Views only tell how far activations reach: weights are corrected on the pictures as they are.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

# Each view: mirrored or not; the side that is kept, as a part of the whole; where it lies, down and across, 0 to 1.
VIEWS = (
    (True, 1.0, 0.0, 0.0),
    (False, 0.8, 0.0, 0.0),
    (True, 0.8, 0.0, 0.0),
    (False, 0.8, 1.0, 1.0),
    (True, 0.8, 1.0, 1.0),
    (False, 0.6, 0.5, 0.5),
    (False, 0.9, 0.5, 0.5),
)


def more_views(pictures: Sequence[np.ndarray], most: int) -> Iterator[np.ndarray]:
    """Yield at most so many views of pictures, (H, W, C) uint8, of the same shape: one of each, then another."""
    for n, (view, picture) in enumerate(itertools.product(VIEWS, pictures)):
        if n >= most:
            return
        yield _view(picture, *view)


def _view(picture: np.ndarray, mirrored: bool, part: float, down: float, across: float) -> np.ndarray:
    height, width = picture.shape[:2]
    rows, columns = round(height * part), round(width * part)
    top, left = round((height - rows) * down), round((width - columns) * across)
    cut = picture[top : top + rows, left : left + columns]
    if mirrored:
        cut = cut[:, ::-1]
    if part == 1:
        return np.ascontiguousarray(cut)
    channels = (Image.fromarray(c).resize((width, height), Image.Resampling.BILINEAR) for c in _channels(cut))
    return np.stack([np.asarray(c) for c in channels], axis=-1)


def _channels(picture: np.ndarray) -> Iterable[np.ndarray]:
    return (np.ascontiguousarray(picture[..., i]) for i in range(picture.shape[-1]))
