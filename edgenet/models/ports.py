"""The ports of EfficientNet to PyTorch: what their weights were trained with, which is not what the authors' were.

torchvision and timm's efficientnet_* pad both sides of a picture alike, where TensorFlow's "SAME" puts the odd pixel of
a stride of 2 to the right and below; their batch norm has another epsilon, their pictures other sizes. timm's
tf_efficientnet_* are the authors' own weights. Sources: torchvision/models/efficientnet.py (transforms of the weights,
`norm_layer`), timm/models/efficientnet.py (`default_cfgs`, the test sizes).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from edgenet.errors import InputError
from edgenet.models.zoo import IMAGENET_MEAN, IMAGENET_STD, ModelSpec
from edgenet.results.records import Finding

_INCEPTION = (127.5,) * 3
_TORCH_EPSILON, _TF_EPSILON = 1e-5, 1e-3


@dataclass(frozen=True)
class Port:
    """What of a row of the zoo is another thing in weights of this project. The fields are those of ModelSpec."""

    resolution_px: int
    crop_padding_px: int  # the centre of px / (px + crop_padding_px) of the short side is what the network sees
    symmetric: bool = True
    norm_epsilon: float = _TORCH_EPSILON
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def of(self, spec: ModelSpec) -> ModelSpec:
        """Return the row as this project trained it."""
        return replace(spec, **{f.name: getattr(self, f.name) for f in fields(self)})


def _resized(px: int, short_side_px: int, epsilon: float = _TORCH_EPSILON, interpolation: str = "bicubic") -> Port:
    """The centre of `px`, of a picture whose short side was made `short_side_px`."""
    return Port(px, short_side_px - px, norm_epsilon=epsilon, interpolation=interpolation)


# fmt: off
TORCHVISION = {  # crop_size, resize_size, epsilon
    "efficientnet-b0": _resized(224, 256), "efficientnet-b1": _resized(240, 256), "efficientnet-b2": _resized(288, 288),
    "efficientnet-b3": _resized(300, 320), "efficientnet-b4": _resized(380, 384),
    "efficientnet-b5": _resized(456, 456, 1e-3), "efficientnet-b6": _resized(528, 528, 1e-3),
    "efficientnet-b7": _resized(600, 600, 1e-3),
}
TORCHVISION_B1_V2 = _resized(240, 255, interpolation="bilinear")  # IMAGENET1K_V2, the default today
_B1_V2_SHA256 = "c27df63c"  # its beginning, which is in the file's name
TIMM = {  # px and px / crop_pct
    "efficientnet-b0": _resized(224, 256), "efficientnet-b1": _resized(256, 256), "efficientnet-b2": _resized(288, 288),
    "efficientnet-b3": _resized(320, 320), "efficientnet-b4": _resized(384, 384), "efficientnet-b5": _resized(448, 448),
    "efficientnet-b6": _resized(528, 560), "efficientnet-b7": _resized(600, 632),
    "efficientnet-lite0": _resized(224, 256), "efficientnet-lite1": _resized(240, 272),
    "efficientnet-lite2": _resized(260, 292), "efficientnet-lite3": _resized(300, 332),
    "efficientnet-lite4": _resized(380, 412),
}
# fmt: on
_TIMM_NAME = re.compile(r"(?<![a-z0-9])(tf_)?efficientnet_(b[0-7]|lite[0-4])(?![a-z0-9])(_ap(?![a-z0-9]))?")
UNDECIDED = Finding(
    "unknown-padding", "warning",
    "timm's names fit two networks: these weights are taken for tf_efficientnet_*, and as efficientnet_*, which pads "
    "both sides alike, they lose accuracy here",
    "check the float32 accuracy, or put timm's config.json beside the file, or let its name begin with timm's of the "
    "network",
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """Whose weights a file holds. `port` is None where they are the authors' own; `told_by` is how that was told."""

    port: Port | None = None
    told_by: str = ""
    sure: bool = True


def port_of(spec: ModelSpec, project: str, path: Path, sha256: str) -> Found:
    """Return whose weights of `spec` a file of torchvision's or timm's names holds.

    timm uses the same names for two networks. Its config.json, which the Hugging Face hub puts beside the weights, or
    the file's name, which begins with timm's of the network, tells which.

    Raises:
        InputError: what stands beside the file or its name is of another network, or the project has none like it.
    """
    if project == "torchvision":
        if spec.name not in TORCHVISION:
            raise InputError(f"{path} has torchvision's names, and torchvision has no {spec.name}: give its weights")
        newer = spec.name == "efficientnet-b1" and sha256.startswith(_B1_V2_SHA256)
        return Found(TORCHVISION_B1_V2 if newer else TORCHVISION[spec.name])
    if project != "timm":
        return Found()
    config = _config_beside(path)
    told_by, text = ("config.json", str(config["architecture"])) if config else ("its file's name", path.name)
    match = _TIMM_NAME.search(text)
    if match is None:
        return Found(sure=False)
    name = f"{match[1] or ''}efficientnet_{match[2]}"
    if f"efficientnet-{match[2]}" != spec.name:
        raise InputError(f"{path}: by {told_by} these are the weights of {name}, not of {spec.name}: give its model")
    if match[1] is None:
        port = TIMM.get(spec.name)
    else:
        authors = Port(spec.resolution_px, spec.crop_padding_px, False, _TF_EPSILON, mean=spec.mean, std=spec.std)
        port = replace(authors, mean=_INCEPTION, std=_INCEPTION) if match[3] else authors  # AdvProp's pictures
    if config and port is not None:
        port = replace(port, **_pictures(path.parent / "config.json", config))
    return Found(port, f"{name} by {told_by}")


def _config_beside(path: Path) -> dict[str, Any] | None:
    """Return timm's config.json beside a file; None where there is none, or it is none of timm's."""
    try:
        config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) and isinstance(config.get("architecture"), str) else None


def _pictures(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return how pictures are made by a config.json: at the size that timm's own figures are measured with."""
    about = config.get("pretrained_cfg", config)
    try:
        px = int((about.get("test_input_size") or about["input_size"])[-1])
        part = float(about.get("test_crop_pct") or about["crop_pct"])
        mean, std = (tuple(255 * float(v) for v in about[key]) for key in ("mean", "std"))
        interpolation = str(about.get("interpolation", "bicubic"))
        ok = 32 <= px <= 4096 and 0.1 <= part <= 1 and len(mean) == len(std) == 3 and min(std) > 0
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        ok = False
    if not ok:
        raise InputError(f"{path} does not say how pictures are made: give --preprocess, or take it away")
    return {
        "resolution_px": px,
        "crop_padding_px": round(px / part) - px,
        "interpolation": interpolation,
        "mean": mean,
        "std": std,
    }
