"""Pictures to train on: decoded once with a margin, then flipped, cropped, coloured and mixed by tf.data on all cores.

Everything random comes from (seed, epoch, place in the epoch): the same command gives the same batches in the same
order, also from the middle of an epoch on.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.frameworks import tensorflow
from edgenet.images import Pixels, Preprocessing, stream
from edgenet.images.decode import Skipped
from edgenet.results import ImageSet

IN_MEMORY_BYTES = 2**30  # more than this is kept in a file beside the checkpoints
# Sides of crops, as parts of the side that evaluation cuts out, around it: a network that learned from smaller things
# than it is evaluated on loses accuracy (https://arxiv.org/abs/1906.06423). At 224 px 80 to 100 % of the whole picture.
SMALLEST_CROP, LARGEST_CROP = 0.915, 1.143
BRIGHTNESS, CONTRAST, SATURATION = 0.15, 0.2, 0.2
MIXUP_ALPHA = 0.2


@dataclass(frozen=True)
class Pictures:
    """Decoded pictures: `pixels` (N, P, P, 3) uint8, P at least the network's side; `labels` (N,), -1 for none.

    `skipped`: the files that cannot be read, each with the reason.
    """

    pixels: np.ndarray
    labels: np.ndarray
    preprocessing: Preprocessing
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def margin_px(self) -> int:
        return int(self.pixels.shape[1] - self.preprocessing.resolution_px)

    def subset(self, kept: Sequence[int] | slice | np.ndarray) -> "Pictures":
        return replace(self, pixels=self.pixels[kept], labels=self.labels[kept])


def load_pictures(
    sets: Sequence[ImageSet], preprocessing: Preprocessing, folder: Path, margin: bool = True
) -> Pictures:
    """Decode sets for training, one after another.

    Args:
        folder: where pixels are kept that memory should not hold, in a file without a name: it goes with the process.
        margin: keep what evaluation crops away, for crops elsewhere.

    Raises:
        InputError: more than 1 % of the files cannot be read.
    """
    px = preprocessing.resolution_px + (preprocessing.crop_padding_px if margin else 0)
    whole = replace(preprocessing, resolution_px=px, crop_padding_px=0) if margin else preprocessing
    shape = (sum(map(len, sets)), px, px, 3)
    if np.prod(shape) > IN_MEMORY_BYTES:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            pixels: np.ndarray = np.memmap(file, np.uint8, "w+", shape=shape)
    else:
        pixels = np.empty(shape, np.uint8)
    labels, n, skipped = np.full(shape[0], -1, np.int32), 0, list[Skipped]()
    for images in sets:
        chunks = stream(images, whole)
        for chunk in chunks:
            stop = n + len(chunk.pixels)
            pixels[n:stop] = chunk.pixels
            found = (images.labels[i] for i in chunk.indices)
            labels[n:stop] = [-1 if label is None else label for label in found]
            n = stop
        skipped += chunks.skipped
    return Pictures(pixels[:n], labels[:n], preprocessing, tuple(skipped))


def centre(pictures: Pictures) -> Pixels:
    """Return the pictures as evaluation sees them: (N, H, W, 3) uint8."""
    start, px = pictures.margin_px // 2, pictures.preprocessing.resolution_px
    return np.asarray(pictures.pixels[:, start : start + px, start : start + px])


def order_of(n: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order in which an epoch takes n pictures."""
    return np.random.default_rng((seed, epoch)).permutation(n)


def batches(
    pictures: Pictures,
    batch: int,
    seed: int,
    epoch: int,
    augment: Sequence[str],
    classes: int,
    *,
    smallest_crop: float = SMALLEST_CROP,
    px: int | None = None,
) -> Any:
    """Return one epoch as a tf.data.Dataset of (x, target): x (B, px, px, 3) float32, normalised; target (B, classes).

    A target is one-hot, or zero where a picture has no label. The last pictures that fill no batch are left out.

    Args:
        smallest_crop: the side of the smallest crop, as a part of the side that evaluation cuts out.
        px: side of what the network is given; that of evaluation by default.
    """
    tf = tensorflow()
    labels = tf.constant(pictures.labels)
    data = _changed(pictures, order_of(len(pictures), seed, epoch), (seed, epoch), augment, smallest_crop, px)
    data = data.map(lambda index, x: (x, tf.one_hot(tf.gather(labels, index), classes)))
    data = data.batch(batch, drop_remainder=True)
    return mixed(data, seed, epoch) if "mixup" in augment else data


def view(pictures: Pictures, seed: int, number: int, augment: Sequence[str], smallest_crop: float) -> Any:
    """Return the pictures in their order, seen anew, as a tf.data.Dataset of x (H, W, 3) float32, normalised.

    View 0 is what evaluation sees. The views of a seed are none of its epochs.
    """
    changes = [a for a in augment if a != "mixup"] if number else []
    data = _changed(pictures, np.arange(len(pictures)), (seed, -number), changes, smallest_crop, None)
    return data.map(lambda _, x: x).prefetch(16)


def mixed(data: Any, seed: int, epoch: int) -> Any:
    """Return batches of (x, target) of which each is mixed with itself in the opposite order."""
    tf = tensorflow()

    def mix(number: Any, x: Any, target: Any) -> Any:
        key = tf.stack([tf.constant(seed * 1_000_003 + epoch, tf.int64), -1 - tf.cast(number, tf.int64)])
        a, b = tf.unstack(tf.random.stateless_gamma((2,), key, MIXUP_ALPHA))
        share = tf.maximum(a, b) / tf.maximum(a + b, 1e-6)
        return tuple(share * v + (1 - share) * v[::-1] for v in (x, target))

    return data.enumerate().map(lambda number, pair: mix(number, *pair))


def _changed(
    pictures: Pictures,
    order: np.ndarray,
    of: tuple[int, int],
    augment: Sequence[str],
    smallest_crop: float,
    px: int | None,
) -> Any:
    """Return a tf.data.Dataset of (index, x), x (px, px, 3) float32, normalised. of: (seed, epoch)."""
    tf = tensorflow()
    own = pictures.preprocessing.resolution_px
    px = px or own
    mean, std = (tf.constant(v, tf.float32) for v in (pictures.preprocessing.mean, pictures.preprocessing.std))
    stack, side = pictures.pixels, pictures.pixels.shape[1]

    def change(place: Any, index: Any) -> Any:
        picture = tf.numpy_function(lambda i: stack[i], [index], tf.uint8, stateful=False)
        x = tf.cast(tf.ensure_shape(picture, (side, side, 3)), tf.float32)
        key = tf.stack([tf.constant(of[0] * 1_000_003 + of[1], tf.int64), tf.cast(place, tf.int64)])
        u = tf.random.stateless_uniform((8,), key)
        if "crop" in augment:
            least, most = round(smallest_crop * own), min(round(LARGEST_CROP * own), side)
            size = tf.minimum(tf.cast(least + (most - least + 1) * u[0], tf.int32), most)
            top, left = (tf.cast(u[k] * tf.cast(side - size + 1, tf.float32), tf.int32) for k in (1, 2))
            x = tf.image.resize(tf.image.crop_to_bounding_box(x, top, left, size, size), (px, px))
        else:
            x = tf.image.resize_with_crop_or_pad(x, own, own)
            x = x if px == own else tf.image.resize(x, (px, px))
        if "flip" in augment:
            x = tf.where(u[3] < 0.5, x, x[:, ::-1])
        if "colour" in augment:
            gray = tf.reduce_mean(x, -1, keepdims=True)
            x = gray + (x - gray) * (1 + SATURATION * (2 * u[4] - 1))
            level = tf.reduce_mean(x)
            x = level + (x - level) * (1 + CONTRAST * (2 * u[5] - 1))
            x = tf.clip_by_value(x + 255 * BRIGHTNESS * (2 * u[6] - 1), 0.0, 255.0)
        return index, (x - mean) / std

    data = tf.data.Dataset.from_tensor_slices(order.astype(np.int64)).enumerate()
    return data.map(change, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
