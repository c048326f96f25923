"""ONNX networks put together as torch.onnx.export writes them: the same operators, names, opsets and shape chains."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class TorchStyle:
    """Collects nodes. Every method takes and returns names of values; weights are drawn from a fixed seed."""

    def __init__(self, px: int | str = 32, opset: int = 17, batch: int | str = "batch", channels: int = 3) -> None:
        self.rng, self.opset = np.random.default_rng(7), opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, channels, px, px])]

    def weight(self, data: Any) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(data), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], n: int = 1, **attributes: Any) -> Any:
        i = len(self.nodes)
        outputs = [f"/{i}/{kind}_output_{j}" for j in range(n)]
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, name=f"/{i}/{kind}", **attributes))
        return outputs[0] if n == 1 else outputs

    def normal(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        return self.rng.normal(0, scale, shape).astype(np.float32)

    def conv(
        self, x: str, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, padding: int | None = None,
        groups: int = 1, bias: bool = False, dilation: int = 1, **attributes: Any,
    ) -> str:  # fmt: skip
        padding = kernel // 2 if padding is None else padding
        fan_in = inputs // groups * kernel * kernel
        names = [x, self.weight(self.normal(outputs, inputs // groups, kernel, kernel, scale=(2 / fan_in) ** 0.5))]
        if bias:
            names.append(self.weight(self.normal(outputs, scale=0.1)))
        attributes = attributes or {"pads": [padding] * 4}
        return self.node(
            "Conv", names, kernel_shape=[kernel] * 2, strides=[stride] * 2, group=groups, dilations=[dilation] * 2,
            **attributes,
        )  # fmt: skip

    def batch_norm(self, x: str, n: int) -> str:
        parameters = [self.rng.uniform(0.5, 1.5, n), self.normal(n, scale=0.2), self.normal(n, scale=0.2)]
        parameters.append(self.rng.uniform(0.5, 1.5, n))
        names = [self.weight(p.astype(np.float32)) for p in parameters]
        return self.node("BatchNormalization", [x, *names], epsilon=1e-5, momentum=0.9)

    def relu6(self, x: str) -> str:
        limits = [self.node("Constant", [], value=numpy_helper.from_array(np.float32(v))) for v in (0, 6)]
        return self.node("Clip", [x, *limits])

    def gemm(self, x: str, inputs: int, outputs: int) -> str:
        names = [x, self.weight(self.normal(outputs, inputs, scale=inputs**-0.5)), self.weight(self.normal(outputs))]
        return self.node("Gemm", names, alpha=1.0, beta=1.0, transB=1)

    def head(self, x: str, channels: int, classes: int) -> str:
        """Average over the picture, flatten and classify."""
        return self.gemm(self.node("Flatten", [self.node("GlobalAveragePool", [x])], axis=1), channels, classes)

    def model(self, out: str, classes: int = 5) -> onnx.ModelProto:
        self.nodes.append(helper.make_node("Identity", [out], ["output"]))
        outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", classes])]
        graph = helper.make_graph(self.nodes, "main_graph", self.inputs, outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        return model

    def save(self, path: Path, out: str, classes: int = 5) -> Path:
        onnx.save(self.model(out, classes), str(path))
        return path


def inverted_residual(t: TorchStyle, x: str, inputs: int, outputs: int, stride: int, expand: int) -> str:
    wide = inputs * expand
    y = t.relu6(t.batch_norm(t.conv(x, inputs, wide, 1), wide)) if expand > 1 else x
    y = t.relu6(t.batch_norm(t.conv(y, wide, wide, 3, stride, groups=wide), wide))
    y = t.batch_norm(t.conv(y, wide, outputs, 1), outputs)
    return t.node("Add", [x, y]) if stride == 1 and inputs == outputs else y


def mobilenet_v2(px: int = 224, classes: int = 1000, width: float = 1.0) -> tuple[TorchStyle, str]:
    """Return MobileNetV2 as torchvision's exports look, with weights drawn at random; `width` is of its blocks."""
    t = TorchStyle(px)
    x = t.relu6(t.batch_norm(t.conv("input", 3, 32, 3, 2), 32))
    n = 32
    for expand, outputs, repeats, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        outputs = int(outputs * width)
        for i in range(repeats):
            x, n = inverted_residual(t, x, n, outputs, stride if i == 0 else 1, expand), outputs
    return t, t.head(t.relu6(t.batch_norm(t.conv(x, n, 1280, 1), 1280)), 1280, classes)
