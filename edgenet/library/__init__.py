"""The functions of `edgenet` in Python: the commands without a command line. docs/library.md shows them.

`calls` has the functions, whose options `asked` takes from the dataclasses of the commands; `in_memory` makes files of
models that are objects, with `pytorch`; `quantized` is what `quantize` returns; `bench_job` is the work of `bench`.
"""

from edgenet.library.calls import bench, compare, evaluate, export, inspect, quantize, run

__all__ = ["bench", "compare", "evaluate", "export", "inspect", "quantize", "run"]
