"""Whether TFLite itself takes a stranger's graph: it computes every shape anew and checks every option.

It runs in the child (edgenet/sandbox): what its native code makes of a hostile graph ends the child alone.
"""

from pathlib import Path
from typing import Any

from edgenet.errors import InputError
from edgenet.export.graph import Graph
from edgenet.export.tflite_file import write_tflite

_ADVICE = "it is damaged; save or convert it again"


def tried(path: Path, graph: Graph) -> Graph:
    """Return the graph, of which TFLite has allocated every tensor in the shape that it is declared with.

    Raises:
        InputError: an operator lacks inputs or options, has some that cannot be, or gives another shape.
    """
    interpreter = _allocated(path, graph)
    if interpreter is None:
        return graph
    found = {d["name"]: tuple(int(n) for n in d["shape"]) for d in interpreter.get_tensor_details()}
    for op in graph.ops:
        for name in op.outputs:
            shape = graph.tensors[name].shape
            if found.get(name, shape) != shape:
                raise InputError(
                    f"{path} declares {_shown(shape)} for what {op.kind} gives, {_shown(found[name])}: {_ADVICE}"
                )
    return graph


def _allocated(path: Path, graph: Graph) -> Any:
    """Return TFLite's interpreter of a graph, None where it is not installed."""
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError:  # whoever runs files has it; the other checks hold
        return None
    try:
        data = write_tflite(graph)
        # A delegate would repack all weights, to be fast at what is not asked for.
        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = Interpreter(model_content=data, experimental_op_resolver_type=plain)
        interpreter.allocate_tensors()
    except MemoryError:
        raise
    except Exception as e:  # of the writer: what an operator lacks; of TFLite: what it says of one
        said = " ".join(str(e).split())[:200].rstrip(".")
        raise InputError(f"{path} holds an operator that TFLite does not take ({said}): {_ADVICE}") from None
    return interpreter


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"
