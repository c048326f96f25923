"""ResNet, MobileNetV1, MobileNetV2 and EfficientNet, which are scaled: each drawn from a table of stages.

ResNet: https://arxiv.org/abs/1512.03385. MobileNetV1: https://arxiv.org/abs/1704.04861, V2: https://arxiv.org/abs/1801.04381.
Each takes a width, a depth and a resolution; 1, 1 and the network's own give the network as it was published.
EfficientNet is described in zoo.py, and drawn here from the same rows, for networks that are not in it.
"""

from edgenet.export.graph import Padding
from edgenet.models.graph_drawing import RELU, RELU6, Blueprint, Feature
from edgenet.models.zoo import (
    ModelSpec,
    head_filters,
    pads_apart,
    round_filters,
    round_repeats,
    scaled_blocks,
    squeeze_filters,
    stem_filters,
)

RESNETS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}  # blocks of each stage, by depth
_RESNET_FILTERS = (64, 128, 256, 512)
_RESNET_EXPANSION = 4
#                       filters, stride, repeats
_MOBILENET_V1_STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 2, 6), (1024, 2, 2))
#              expand ratio, filters, stride, repeats
_MOBILENET_V2_STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 2, 3), (6, 64, 2, 4), (6, 96, 1, 3), (6, 160, 2, 3), (6, 320, 1, 1)
)  # fmt: skip
_MOBILENET_STEM, _MOBILENET_V2_HEAD = 32, 1280


def resnet(
    layers: int,
    width: float = 1.0,
    depth: float = 1.0,
    resolution_px: int = 224,
    *,
    late_stride: bool = True,
    name: str = "resnet",
    classes: int = 1000,
) -> Blueprint:
    """Draw a bottleneck ResNet.

    Args:
        layers: 50, 101 or 152.
        late_stride: a stage strides in its first 3x3 convolution, as most code does ("v1.5", also the authors' of
            EfficientNet); False strides in the 1x1 before it, as in the ResNet paper, which counts fewer multiply-adds.
    """
    net = Blueprint(name, resolution_px)
    x = net.conv(net.image, round_filters(64, width), 7, 2, RELU)
    x = net.pool(x, "max", 3, 2)
    for stage, (filters, blocks) in enumerate(zip(_RESNET_FILTERS, RESNETS[layers], strict=True)):
        narrow = round_filters(filters, width)
        wide = narrow * _RESNET_EXPANSION
        for block in range(round_repeats(blocks, depth)):
            stride = 2 if stage and block == 0 else 1
            strides = (1, stride) if late_stride else (stride, 1)
            y = net.conv(x, narrow, 1, strides[0], RELU)
            y = net.conv(y, narrow, 3, strides[1], RELU)
            y = net.conv(y, wide)
            shortcut = x if block else net.conv(x, wide, 1, stride)
            x = net.add(y, shortcut, RELU)
    net.classifier(x, classes)
    return net


def mobilenet_v1(
    width: float = 1.0,
    depth: float = 1.0,
    resolution_px: int = 224,
    name: str = "mobilenet-v1",
    classes: int = 1000,
) -> Blueprint:
    """Draw MobileNetV1: depthwise and pointwise convolutions in turns."""
    net = Blueprint(name, resolution_px)
    x = net.conv(net.image, round_filters(_MOBILENET_STEM, width), 3, 2, RELU6)
    for filters, first_stride, repeats in _MOBILENET_V1_STAGES:
        for i in range(round_repeats(repeats, depth)):
            x = net.depthwise(x, 3, 1 if i else first_stride, RELU6)
            x = net.conv(x, round_filters(filters, width), activation=RELU6)
    net.classifier(x, classes)
    return net


def mobilenet_v2(
    width: float = 1.0,
    depth: float = 1.0,
    resolution_px: int = 224,
    name: str = "mobilenet-v2",
    classes: int = 1000,
) -> Blueprint:
    """Draw MobileNetV2: inverted residuals with linear bottlenecks. The head is not made narrower than published."""
    net = Blueprint(name, resolution_px)
    x = net.conv(net.image, round_filters(_MOBILENET_STEM, width), 3, 2, RELU6)
    for expand_ratio, filters, first_stride, repeats in _MOBILENET_V2_STAGES:
        for i in range(round_repeats(repeats, depth)):
            x = _inverted_residual(net, x, expand_ratio, round_filters(filters, width), 1 if i else first_stride)
    x = net.conv(x, round_filters(_MOBILENET_V2_HEAD, max(1.0, width)), activation=RELU6)
    net.classifier(x, classes)
    return net


def _inverted_residual(net: Blueprint, x: Feature, expand_ratio: int, filters: int, stride: int) -> Feature:
    y = net.conv(x, x.channels * expand_ratio, activation=RELU6) if expand_ratio > 1 else x
    y = net.conv(net.depthwise(y, 3, stride, RELU6), filters)
    return net.add(y, x) if stride == 1 and filters == x.channels else y


def efficientnet(spec: ModelSpec) -> Blueprint:
    """Draw a row of the zoo, or one like it."""
    net = Blueprint(spec.name, spec.resolution_px)

    def active(x: Feature) -> Feature:
        return x if spec.lite else net.silu(x)

    def padded(x: Feature, kernel: int, stride: int) -> tuple[Feature, Padding]:
        if not pads_apart(spec, x.size[0], stride):
            return x, Padding.SAME
        return net.padded(x, kernel // 2), Padding.VALID

    fused = RELU6 if spec.lite else None
    x, padding = padded(net.image, 3, 2)
    x = active(net.conv(x, stem_filters(spec), 3, 2, fused, padding=padding))
    for block in scaled_blocks(spec):
        y = x
        if block.expand_ratio > 1:
            y = active(net.conv(y, block.in_filters * block.expand_ratio, activation=fused))
        y, padding = padded(y, block.kernel, block.stride)
        y = active(net.depthwise(y, block.kernel, block.stride, fused, padding=padding))
        if narrow := squeeze_filters(spec, block):
            y = net.squeeze_excite(y, narrow)
        y = net.conv(y, block.out_filters)
        x = net.add(y, x) if block.skip else y
    net.classifier(active(net.conv(x, head_filters(spec), activation=fused)), spec.classes)
    return net
