"""What a file takes or gives. Alone here, so that whoever reads one file need not load all that results are."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a file; `scale` and `zero_point` are None where it is not quantized."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None
