"""Photographs: sets of them, and the only place that opens, crops, resizes or normalises a picture."""

from edgenet.images.class_names import Classes, Match
from edgenet.images.decode import (
    Chunk,
    Pixels,
    Preprocessing,
    Skipped,
    Stream,
    decode,
    load_pixels,
    normalise,
    stream,
    thumbnail,
)
from edgenet.images.image_set import (
    divide,
    duplicates,
    group_of,
    hold_back,
    imagenet_classes,
    limit,
    names_in,
    open_images,
    split,
    subset,
)

__all__ = [
    "Chunk",
    "Classes",
    "Match",
    "Pixels",
    "Preprocessing",
    "Skipped",
    "Stream",
    "decode",
    "divide",
    "duplicates",
    "group_of",
    "hold_back",
    "imagenet_classes",
    "limit",
    "load_pixels",
    "names_in",
    "normalise",
    "open_images",
    "split",
    "stream",
    "subset",
    "thumbnail",
]
