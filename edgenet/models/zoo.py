"""The model zoo: one row per variant, with the figures that its authors published.

EfficientNet: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
https://arxiv.org/abs/1905.11946, tables 1 and 2. EfficientNet-Lite: the README of tensorflow/tpu,
models/official/efficientnet/lite.
"""

import math
from dataclasses import dataclass

from edgenet.errors import InputError


@dataclass(frozen=True)
class Block:
    """One stage of the baseline network (table 1 of the paper), before scaling."""

    kernel: int
    stride: int
    expand_ratio: int
    filters: int
    repeats: int


#                k  s  e  filters n
BASELINE_BLOCKS = (
    Block(3, 1, 1, 16, 1),
    Block(3, 2, 6, 24, 2),
    Block(5, 2, 6, 40, 2),
    Block(3, 2, 6, 80, 3),
    Block(5, 1, 6, 112, 3),
    Block(5, 2, 6, 192, 4),
    Block(3, 1, 6, 320, 1),
)
STEM_FILTERS, HEAD_FILTERS = 32, 1280

LITE_MEAN, LITE_STD = (127.0,) * 3, (128.0,) * 3  # (x - 127) / 128
# The mean and standard deviation of ImageNet's training pixels, in 0..255, per channel R, G, B.
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class ModelSpec:
    """A variant: how it is built, how its input is made, and its published figures.

    `params_millions`, `madds_millions`, `top1_percent` and the like are the authors' figures, for 1000 classes at
    `resolution_px`; None where none was published. `madds_millions` counts multiply-adds, which the paper calls FLOPS.
    """

    name: str
    width: float
    depth: float
    resolution_px: int
    dropout: float
    lite: bool  # ReLU6, no squeeze-and-excite, the width of stem and head and the depth of the ends fixed
    params_millions: float
    madds_millions: float
    top1_percent: float | None
    int8_top1_percent: float | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    classes: int = 1000
    # What weights of another project were trained with, see ports.py; the authors' are the defaults.
    symmetric: bool = False  # pads both sides alike, as PyTorch does; else as TensorFlow's "SAME"
    norm_epsilon: float = 1e-3  # of batch norm
    crop_padding_px: int = 32
    interpolation: str = "bicubic"

    @property
    def activation(self) -> str:
        return "relu6" if self.lite else "silu"

    @property
    def squeeze_excite_ratio(self) -> float:
        return 0.0 if self.lite else 0.25


def _lite(name: str, width: float, depth: float, px: int, dropout: float, params: float, madds: float,
          top1: float, int8_top1: float) -> ModelSpec:  # fmt: skip
    return ModelSpec(name, width, depth, px, dropout, True, params, madds, top1, int8_top1, LITE_MEAN, LITE_STD)


def _paper(name: str, width: float, depth: float, px: int, dropout: float, params: float, madds: float,
           top1: float) -> ModelSpec:  # fmt: skip
    return ModelSpec(name, width, depth, px, dropout, False, params, madds, top1)


# fmt: off
MODELS: dict[str, ModelSpec] = {m.name: m for m in (
    #     name               width depth  px   drop  params  madds  top-1 int8 top-1
    _lite("efficientnet-lite0", 1.0, 1.0, 224, 0.2,  4.7,   407, 75.1, 74.4),
    _lite("efficientnet-lite1", 1.0, 1.1, 240, 0.2,  5.4,   631, 76.7, 75.9),
    _lite("efficientnet-lite2", 1.1, 1.2, 260, 0.3,  6.1,   899, 77.6, 77.0),
    _lite("efficientnet-lite3", 1.2, 1.4, 280, 0.3,  8.2,  1440, 79.8, 79.0),
    _lite("efficientnet-lite4", 1.4, 1.8, 300, 0.3, 13.0,  2640, 81.5, 80.2),
    #      name              width depth  px   drop params  madds  top-1
    _paper("efficientnet-b0", 1.0, 1.0, 224, 0.2,  5.3,   390, 77.1),
    _paper("efficientnet-b1", 1.0, 1.1, 240, 0.2,  7.8,   700, 79.1),
    _paper("efficientnet-b2", 1.1, 1.2, 260, 0.3,  9.2,  1000, 80.1),
    _paper("efficientnet-b3", 1.2, 1.4, 300, 0.3, 12.0,  1800, 81.6),
    _paper("efficientnet-b4", 1.4, 1.8, 380, 0.4, 19.0,  4200, 82.9),
    _paper("efficientnet-b5", 1.6, 2.2, 456, 0.4, 30.0,  9900, 83.6),
    _paper("efficientnet-b6", 1.8, 2.6, 528, 0.5, 43.0, 19000, 84.0),
    _paper("efficientnet-b7", 2.0, 3.1, 600, 0.5, 66.0, 37000, 84.3),
)}
# fmt: on


@dataclass(frozen=True)
class ScaledBlock:
    """One MBConv block of a variant. `skip`: its input is added to its output; `stage`, `repeat`: its place, from 0."""

    kernel: int
    stride: int
    expand_ratio: int
    in_filters: int
    out_filters: int
    skip: bool
    stage: int
    repeat: int


def round_filters(filters: int, width: float) -> int:
    """Return `filters` times `width` as a multiple of 8, never more than a tenth below it."""
    scaled = filters * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def round_repeats(repeats: int, depth: float) -> int:
    """Return `repeats` times `depth`, rounded up."""
    return math.ceil(repeats * depth)


def stem_filters(spec: ModelSpec) -> int:
    """Return the filters of the first convolution; the lite variants do not scale them."""
    return STEM_FILTERS if spec.lite else round_filters(STEM_FILTERS, spec.width)


def head_filters(spec: ModelSpec) -> int:
    """Return the filters of the last convolution; the lite variants do not scale them."""
    return HEAD_FILTERS if spec.lite else round_filters(HEAD_FILTERS, spec.width)


def squeeze_filters(spec: ModelSpec, block: ScaledBlock) -> int:
    """Return the filters of squeeze-and-excite's reduction, a quarter of the block's input; 0 where there is none."""
    return max(1, int(block.in_filters * spec.squeeze_excite_ratio)) if spec.squeeze_excite_ratio else 0


def pads_apart(spec: ModelSpec, size_px: int, stride: int) -> bool:
    """Whether a convolution of `spec` on a side of `size_px` needs its zeros put on both sides by an operator.

    Where the stride is 1, or 2 and the side is odd, "SAME" pads both sides alike too.
    """
    return spec.symmetric and stride == 2 and size_px % 2 == 0


def scaled_blocks(spec: ModelSpec) -> list[ScaledBlock]:
    """Return all blocks of a variant in order.

    The lite variants keep the first and the last stage's depth (not their width) and the stem's and head's width:
    tensorflow/tpu, models/official/efficientnet/efficientnet_model.py, `fix_head_stem`.
    """
    blocks: list[ScaledBlock] = []
    filters = stem_filters(spec)
    for i, stage in enumerate(BASELINE_BLOCKS):
        fixed = spec.lite and i in (0, len(BASELINE_BLOCKS) - 1)
        out = round_filters(stage.filters, spec.width)
        for j in range(stage.repeats if fixed else round_repeats(stage.repeats, spec.depth)):
            stride = stage.stride if j == 0 else 1
            skip = stride == 1 and filters == out
            blocks.append(ScaledBlock(stage.kernel, stride, stage.expand_ratio, filters, out, skip, i, j))
            filters = out
    return blocks


def parameters(spec: ModelSpec) -> int:
    """Return the numbers that are trained for `spec`, batch norm's scale and shift among them, counted by layer."""
    return sum(weights for weights, _ in _layers(spec))


def multiply_adds(spec: ModelSpec) -> int:
    """Return the multiply-adds of one picture, counted by layer: convolutions, squeeze-and-excite and the last layer.

    Padding is "SAME", and what falls on it counts, as every counter has it. Against the published figures:

    B0, B2, B3 and B6 agree to the printed digits. B1 is 2 % below, B4, B5 and B7 are 5, 4 and 2 % above: other
    counters find what this one does (https://github.com/Lyken17/pytorch-OpCounter/issues/69, which adds batch norm),
    and the parameters agree, so the difference is in how the authors counted.

    The Lite figures are 3 to 6 % higher than this count. For all five the printed digits come out as this count plus
    2.54 for each number that a convolution puts out plus one for each parameter (fitted, not derived): batch norm,
    activations and what touches the weights, which a profiler of the whole TensorFlow graph counts as well.
    """
    return sum(madds for _, madds in _layers(spec))


def _layers(spec: ModelSpec) -> list[tuple[int, int]]:
    """Return (parameters, multiply-adds) of each layer with weights."""
    layers: list[tuple[int, int]] = []

    def conv(side: int, kernel: int, inputs: int, outputs: int) -> None:
        weights = kernel * kernel * inputs * outputs
        layers.append((weights + 2 * outputs, weights * side * side))

    side = math.ceil(spec.resolution_px / 2)  # px of the output: "SAME" padding rounds up
    conv(side, 3, 3, stem_filters(spec))
    blocks = scaled_blocks(spec)
    for block in blocks:
        wide = block.in_filters * block.expand_ratio
        if block.expand_ratio != 1:
            conv(side, 1, block.in_filters, wide)
        side = math.ceil(side / block.stride)
        conv(side, block.kernel, 1, wide)  # depthwise: one input a filter
        if narrow := squeeze_filters(spec, block):
            layers.append((2 * wide * narrow + narrow + wide, 2 * wide * narrow))
        conv(side, 1, wide, block.out_filters)
    conv(side, 1, blocks[-1].out_filters, head_filters(spec))
    layers.append(((head_filters(spec) + 1) * spec.classes, head_filters(spec) * spec.classes))
    return layers


def spec(name: str) -> ModelSpec:
    """Return the row called `name`.

    Raises:
        InputError: no such model; the message names the nearest and lists the valid ones.
    """
    import difflib

    if name in MODELS:
        return MODELS[name]
    near = difflib.get_close_matches(name, MODELS, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InputError(f"unknown model '{name}'{hint} (valid: {', '.join(MODELS)}, or a path to a model file)")
