"""Where the constants of an .onnx file stand: in it, or beyond 2 GB in a file beside it.

https://onnx.ai/onnx/repo-docs/ExternalData.html
"""

from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

Store = Callable[[str, np.ndarray], Any]  # (name, numbers) -> TensorProto

_ALIGNMENT = 4096  # as the specification advises, so that a constant can be mapped
_KEPT_BYTES = 1024  # smaller constants stay in the model: axes and shapes are needed to read the graph


def inline(onnx: Any) -> Store:
    """Return what makes constants that stand in the model's own file."""

    def store(name: str, data: np.ndarray) -> Any:
        return onnx.numpy_helper.from_array(np.array(data, order="C"), name)

    return store


def beside(onnx: Any, file: BinaryIO, location: str) -> Store:
    """Return what writes constants to `file`, which lies beside the model and is called `location` there."""
    small = inline(onnx)

    def store(name: str, data: np.ndarray) -> Any:
        if data.nbytes < _KEPT_BYTES:
            return small(name, data)
        file.write(bytes(-file.tell() % _ALIGNMENT))
        place = {"location": location, "offset": file.tell(), "length": data.nbytes}
        file.write(np.ascontiguousarray(data, data.dtype.newbyteorder("<")).data)
        return onnx.TensorProto(
            name=name,
            dims=data.shape,
            data_type=onnx.helper.np_dtype_to_tensor_dtype(data.dtype),
            data_location=onnx.TensorProto.EXTERNAL,
            external_data=[onnx.StringStringEntryProto(key=k, value=str(v)) for k, v in place.items()],
        )

    return store
