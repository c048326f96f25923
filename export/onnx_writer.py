"""Values and nodes of an .onnx file: how a tensor's integers are stored, and what stands for its real numbers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgenet.export.graph import Graph, Op, Quantization, Tensor, packed
from edgenet.export.nchw import real_numbers
from edgenet.export.onnx_constants import Store

# Integers of activations -> how they are stored, and what that adds: the same numbers, for which the kernels are made.
_UNSIGNED = {"int8": ("uint8", 128), "int16": ("uint16", 32768)}


class Writer:
    """Collects nodes and initializers. A value is called as its tensor; dequantized, it ends in `_dequantized`.

    Args:
        weights: tensors that stay int8, since a kernel takes them as they are.
    """

    def __init__(self, onnx: Any, graph: Graph, batch: int | None, store: Store, weights: set[str]) -> None:
        self.onnx, self.graph, self.batch, self.store = onnx, graph, batch, store
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self.done: set[str] = set()
        self.interface = {*graph.inputs, *graph.outputs}
        self.weights = weights

    def info(self, name: str) -> Any:
        t = self.graph.tensors[name]
        shape = ["batch" if self.batch is None else self.batch, *t.shape[1:]]
        return self.onnx.helper.make_tensor_value_info(name, self.type(t.dtype), shape)

    def type(self, dtype: str) -> int:
        return int(self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    # Nodes and values

    def node(self, kind: str, inputs: Sequence[str], outputs: str | Sequence[str], **attributes: Any) -> str:
        outputs = [outputs] if isinstance(outputs, str) else list(outputs)
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), outputs, name=outputs[0], **attributes))
        return outputs[0]

    def initializer(self, name: str, data: np.ndarray) -> str:
        if name not in self.initializers:
            self.initializers[name] = self.store(name, np.asarray(data))
        return name

    def scalar(self, value: float) -> str:
        return self.initializer(f"const_{value:g}", np.array(value, np.float32))

    def integers(self, name: str, values: Sequence[int]) -> str:
        return self.initializer(name, np.array(values, np.int64))

    def once(self, name: str, make: Callable[[str], Any]) -> str:
        if name not in self.done:
            self.done.add(name)
            make(name)
        return name

    def real(self, name: str) -> str:
        """Return the value of real numbers that stands for tensor `name`."""
        t = self.graph.tensors[name]
        if t.data is not None:
            if t.quantization is None:
                return self.initializer(name, t.data)
            if t.dtype == "int64":  # a bias beside int16 activations: no DequantizeLinear takes it
                return self.initializer(f"{name}_dequantized", real_numbers(t))
            return self.once(f"{name}_dequantized", lambda out: self.dequantize(name, out))
        if t.quantization is None:
            return name
        if name in self.interface and t.dtype == "int8":  # inside, all is uint8
            inner = f"{name}_uint8"
            self.once(inner, lambda out: self.quantize(self.dequantize(name, f"{name}_real"), out, t, uint8=True))
            return self.once(f"{name}_dequantized", lambda out: self.dequantize_with(inner, out, inner, t))
        return self.once(f"{name}_dequantized", lambda out: self.dequantize(name, out))

    def parameters(self, name: str, q: Quantization, dtype: str, shift: int) -> list[str]:
        many = len(q.scale) > 1
        scale = self.initializer(f"{name}_scale", q.scale if many else q.scale[0])
        zero = q.zero_point + shift
        if dtype == "int32":  # of a bias; there is no other zero point than 0
            return [scale]
        return [scale, self.initializer(f"{name}_zero_point", (zero if many else zero[0]).astype(dtype))]

    def stored_as(self, t: Tensor) -> tuple[str, int]:
        """Return the type in which `t` is stored and what that adds to its integers."""
        if t.name not in self.interface and t.name not in self.weights and t.dtype in _UNSIGNED:
            return _UNSIGNED[t.dtype]
        return t.dtype, 0

    def dequantize(self, name: str, out: str) -> str:
        t = self.graph.tensors[name]
        if t.data is not None and t.bits is not None:
            return self.dequantize_few(t, out)
        if t.data is not None:
            dtype, shift = self.stored_as(t)
            self.initializer(name, (t.data.astype(np.int32) + shift).astype(dtype) if shift else t.data)
        return self.dequantize_with(name, out, name, t)

    def dequantize_few(self, t: Tensor, out: str) -> str:
        """Weights of 4 bits. onnxruntime folds the Cast when it loads the file, and has its int8 kernels then."""
        assert t.data is not None
        types = self.onnx.TensorProto
        raw = packed(t.data).tobytes()
        self.initializers[t.name] = types(name=t.name, dims=t.data.shape, data_type=types.INT4, raw_data=raw)
        self.node("Cast", [t.name], f"{t.name}_int8", to=self.type("int8"))
        return self.dequantize_with(f"{t.name}_int8", out, t.name, t, weights=True)

    def dequantize_with(self, source: str, out: str, parameters: str, t: Tensor, weights: bool = False) -> str:
        assert t.quantization is not None
        dtype, shift = ("uint8", 128) if source != t.name and not weights else self.stored_as(t)
        axis = {"axis": t.quantization.axis} if len(t.quantization.scale) > 1 else {}
        return self.node(
            "DequantizeLinear", [source, *self.parameters(parameters, t.quantization, dtype, shift)], out, **axis
        )

    def quantize(self, real: str, out: str, t: Tensor, uint8: bool = False) -> str:
        assert t.quantization is not None
        dtype, shift = ("uint8", 128) if uint8 else self.stored_as(t)
        return self.node("QuantizeLinear", [real, *self.parameters(out, t.quantization, dtype, shift)], out)

    # Operators

    def convert(self, op: Op) -> None:
        source, out = self.graph.tensors[str(op.inputs[0])], self.graph.tensors[op.outputs[0]]
        if out.quantization is not None:
            self.quantize(self.real(source.name), out.name, out)
        elif source.data is not None and source.quantization is not None:
            self.unpack(source, out.name)
        elif source.quantization is not None:
            self.dequantize(source.name, out.name)
        else:  # float16 weights
            self.node("Cast", [self.real(source.name)], out.name, to=self.type(out.dtype))

    def unpack(self, source: Tensor, out: str) -> str:
        """int8 weights of a float operator. Not DequantizeLinear, which onnxruntime would run at every inference."""
        q = source.quantization
        assert q is not None
        assert source.data is not None
        scale, _ = q.broadcast(source.data.ndim)
        whole = self.node("Cast", [self.initializer(source.name, source.data)], f"{out}_whole", to=self.type("float32"))
        return self.node("Mul", [whole, self.initializer(f"{source.name}_scale", scale)], out)

    def shape(self, name: str | None) -> tuple[int, ...]:
        return self.graph.tensors[str(name)].shape
