"""Read `--preprocess`: a preset, settings, or a preset with settings changed.

    torch                                                           torchvision's: resize 256, crop 224, ImageNet mean
    mean=127.5 std=127.5                                            the rest as the default
    torch crop=0 size=256
    mean=123.675,116.28,103.53 std=58.395,57.12,57.375 crop=32 order=rgb size=224 interpolation=bilinear

The network's input is (pixel - mean) / std, with pixels, mean and std in 0..255 and in the channel order that `order`
names: rgb, bgr, or grey for a network of one channel. `crop` is what is cut away: the centre square of
size / (size + crop) of the short side is taken. torchvision's "resize 256, centre crop 224" is crop=32 at size=224, and
EfficientNet's own at any; unless told, smaller inputs see the same part of a picture, 7/8: crop=9 at size=64. An input
that is no square has its size as HEIGHTxWIDTH.
"""

import math
from typing import Any

from edgenet.errors import InputError
from edgenet.images import Preprocessing
from edgenet.models.zoo import IMAGENET_MEAN, IMAGENET_STD, LITE_MEAN, LITE_STD, ModelSpec

# Preset -> fields of Preprocessing. tf, torch and caffe are the modes of keras.applications' preprocess_input.
PRESETS: dict[str, dict[str, Any]] = {
    "tf": {"mean": (127.5,) * 3, "std": (127.5,) * 3, "interpolation": "bilinear"},
    "torch": {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "interpolation": "bilinear"},
    "caffe": {
        "mean": (103.939, 116.779, 123.68), "std": (1.0,) * 3, "interpolation": "bilinear", "channel_order": "bgr",
    },
    "raw": {"mean": (0.0,) * 3, "std": (1.0,) * 3, "interpolation": "bilinear"},
    "unit": {"mean": (0.0,) * 3, "std": (255.0,) * 3, "interpolation": "bilinear"},
    "efficientnet": {"mean": IMAGENET_MEAN, "std": IMAGENET_STD},
    "lite": {"mean": LITE_MEAN, "std": LITE_STD},
}  # fmt: skip
_FIELDS = {
    "mean": "mean",
    "std": "std",
    "crop": "crop_padding_px",
    "order": "channel_order",
    "size": "resolution_px",
    "interpolation": "interpolation",
}


def preprocessing_of(spec: ModelSpec, resolution_px: int | None = None) -> Preprocessing:
    """Return how the pictures of a network of the zoo are made, at another resolution where one is given."""
    px = resolution_px or spec.resolution_px
    return Preprocessing(px, spec.mean, spec.std, spec.crop_padding_px, spec.interpolation)


CROP_PX, CROP_PART = 32, 1 / 7  # what is cut away unless told, at most, and of the input's short side

EXAMPLES = "e.g. --preprocess torch, or --preprocess 'mean=127.5 std=127.5'"


def parse_preprocess(text: str, size_px: tuple[int, int] | None, channels: int = 3) -> Preprocessing:
    """Return the preprocessing that `text` describes.

    Args:
        size_px: height and width of the model's input, None where the model leaves them open; then `size` says them.
        channels: of the model's input, 3 or 1.

    Raises:
        InputError: an unknown preset or setting, a value that does not fit it, mean or std missing, a size or an order
            that is not the model's.
    """
    words = text.replace(";", " ").split()
    if not words:
        raise InputError(f"--preprocess is empty: give a preset ({', '.join(PRESETS)}) or settings, {EXAMPLES}")
    fields: dict[str, Any] = {}
    given: set[str] = set()
    for i, word in enumerate(words):
        key, equals, value = word.partition("=")
        if not equals:
            if key not in PRESETS or i > 0:
                where = "comes first" if key in PRESETS else f"is not known (valid: {', '.join(PRESETS)})"
                raise InputError(f"--preprocess '{text}': the preset '{key}' {where}; settings are KEY=VALUE")
            fields.update(PRESETS[key])
            continue
        if key not in _FIELDS:
            raise InputError(f"--preprocess '{text}': unknown setting '{key}' (valid: {', '.join(_FIELDS)})")
        if key in given:
            raise InputError(f"--preprocess '{text}': '{key}' is given twice")
        given.add(key)
        fields[_FIELDS[key]] = _value(text, key, value)
    for key in ("mean", "std"):
        if key not in fields:
            raise InputError(f"--preprocess '{text}': {key} is missing, in 0..255; {EXAMPLES}")
    size = fields.pop("resolution_px", size_px)
    if size is None:
        raise InputError("the model leaves the size of its input open: give it, e.g. --preprocess 'torch size=224'")
    if size_px is not None and size != size_px:
        raise InputError(
            f"--preprocess '{text}': size={_size(size)}, but the model takes {_size(size_px)} px: leave size out"
        )
    _fit_channels(text, fields, channels)
    fields.setdefault("crop_padding_px", min(CROP_PX, round(CROP_PART * min(size))))
    return Preprocessing(size[0], width_px=size[1], **fields)


def _size(size_px: tuple[int, int]) -> str:
    height, width = size_px
    return str(height) if height == width else f"{height}x{width}"


def _fit_channels(text: str, fields: dict[str, Any], channels: int) -> None:
    """Make settings of three equal channels those of one where the network takes one. Raises InputError."""
    if channels == 3:
        if fields.get("channel_order") == "grey":
            raise InputError(f"--preprocess '{text}': order=grey, but the model takes three channels: leave order out")
        return
    if fields.setdefault("channel_order", "grey") != "grey":
        raise InputError(f"--preprocess '{text}': the model takes grey pictures: leave order and such presets out")
    for key in ("mean", "std"):
        if len(set(fields[key])) != 1:
            raise InputError(f"--preprocess '{text}': the model takes grey pictures: give {key} as one number")
        fields[key] = fields[key][:1]


def _value(text: str, key: str, value: str) -> Any:
    try:
        if key in ("mean", "std"):
            numbers = tuple(float(v) for v in value.split(","))
            if not all(math.isfinite(v) for v in numbers) or len(numbers) not in (1, 3):
                raise ValueError
            return numbers * 3 if len(numbers) == 1 else numbers
        if key == "crop":
            return int(value)
        if key == "size":
            sides = [int(v) for v in value.lower().split("x")]
            if len(sides) not in (1, 2):
                raise ValueError
            return sides[0], sides[-1]
    except ValueError:
        pixels = "a whole number of pixels" + (", or HEIGHTxWIDTH" if key == "size" else "")
        wanted = "one number or three, as 1,2,3" if key in ("mean", "std") else pixels
        raise InputError(f"--preprocess '{text}': {key} must be {wanted}, was '{value}'") from None
    return value.lower()
