"""TensorFlow SavedModel folders: the signature is read from saved_model.pb without TensorFlow, the graph built later.

Only the few fields that are needed are read, by their numbers in saved_model.proto and meta_graph.proto of
tensorflow/core/protobuf.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

from edgenet.errors import InputError
from edgenet.export.foreign.protobuf import all_of, fields_of
from edgenet.export.foreign.saved_operators import refuse_operators
from edgenet.export.graph import Graph
from edgenet.export.importers.classifier import checked, chosen_output
from edgenet.export.importers.keras_file import converted
from edgenet.export.importers.model_file import ModelFacts, ModelFile, sha256_of_all
from edgenet.frameworks import quiet, tensorflow

SERVING = "serving_default"
_META_GRAPHS, _SIGNATURES, _KEY, _VALUE, _INPUTS, _OUTPUTS, _DTYPE, _SHAPE, _DIM, _SIZE = 2, 5, 1, 2, 1, 2, 2, 3, 2, 1
_UNKNOWN_RANK = 3
# Of GraphDef, NodeDef, FunctionDef and what is in them.
_GRAPH, _NODES, _LIBRARY, _FUNCTIONS = 2, 1, 2, 1
_NODE_NAME, _NODE_OP, _NODE_INPUT, _NODE_ATTRIBUTES, _CALLED = 1, 2, 3, 5, 10
_SIGNATURE, _FUNCTION_NODES, _RETURNED, _OUTPUT_ARGUMENTS = 1, 3, 4, 3
_PASSES_ON = {"Identity", "Reshape", "Squeeze"}
_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
# Operator -> how a network ends with it (classifier.py); what is not here, only the built graph tells.
_ENDINGS = {
    "Softmax": "softmax", "LogSoftmax": "softmax", "Sigmoid": "sigmoid", "BiasAdd": "linear", "MatMul": "linear",
    "Mean": "pooled", "AvgPool": "pooled", "MaxPool": "pooled", "Max": "pooled",
}  # fmt: skip
_FLOAT = 1  # DataType


@dataclass(frozen=True)
class _Tensor:
    name: str
    dtype: int
    shape: tuple[int | None, ...]
    made_by: str  # the graph's name for it


def find_saved_model(path: Path, output: str | None = None) -> ModelFile:
    """Look at a SavedModel. Raises InputError."""
    try:
        data = (path / "saved_model.pb").read_bytes()
        signatures = _signatures(data)
    except OSError as e:
        raise InputError(f"cannot read {path / 'saved_model.pb'}: {e.strerror}") from None
    except (IndexError, ValueError):
        raise InputError(f"{path / 'saved_model.pb'} is damaged: save or copy the model again") from None
    named = {k: v for k, v in signatures.items() if not k.startswith("__saved_model_")}
    key = SERVING if SERVING in named else next(iter(named)) if len(named) == 1 else None
    if key is None:
        has = f"it has {', '.join(sorted(named))}" if named else "it has none"
        raise InputError(f"{path} has no signature {SERVING} ({has}): save it with one, e.g. model.export(folder)")
    refuse_operators(path, data, key)
    inputs, outputs = named[key]
    if len(inputs) != 1:
        names = ", ".join(t.name for t in inputs)
        raise InputError(f"{path} has {len(inputs)} inputs ({names}); an image classifier has one")
    chosen = chosen_output(path, [t.name for t in outputs], output)
    image, out = inputs[0], next(t for t in outputs if t.name == chosen)
    if image.dtype != _FLOAT:
        raise InputError(
            f"{path} takes numbers that are no float32; edgenet feeds normalised pictures: save it for such"
        )
    files = sorted(f for f in path.rglob("*") if f.is_file() and f.suffix != ".pbtxt" and f.name != "fingerprint.pb")
    sizes = out.shape[1:]
    classes = 1
    for n in sizes:
        classes *= n or 0

    def build(shape: tuple[int, int, int]) -> Graph:
        return _build(path, key, image.name, out.name, shape)

    n = classes if sizes and classes else None
    facts = ModelFacts(image.shape, sha256_of_all(files), n, ending=_ending(data, out.made_by))
    return ModelFile(facts, build)


def _build(path: Path, key: str, name: str, out: str, shape: tuple[int, int, int]) -> Graph:
    from edgenet.export.network import INPUT, from_function

    tf = tensorflow()

    def convert() -> Graph:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with quiet():
                loaded = tf.saved_model.load(str(path))  # kept: the signature does not keep its variables alive
            signature = loaded.signatures[key]
            function = tf.function(
                lambda image: signature(**{name: image})[out],
                input_signature=[tf.TensorSpec((1, *shape), tf.float32, INPUT)],
            )
            return from_function(function.get_concrete_function())

    return checked(path, converted(path, convert))


def _signatures(data: bytes) -> dict[str, tuple[list[_Tensor], list[_Tensor]]]:
    found = {}
    for meta_graph in all_of(data, _META_GRAPHS):
        for entry in all_of(meta_graph, _SIGNATURES):
            fields = dict(fields_of(entry))
            definition = bytes(fields[_VALUE])
            tensors = tuple(
                sorted((_tensor(e) for e in all_of(definition, side)), key=lambda t: t.name)
                for side in (_INPUTS, _OUTPUTS)
            )
            found[bytes(fields[_KEY]).decode()] = (tensors[0], tensors[1])
    return found


def _tensor(entry: bytes) -> _Tensor:
    fields = dict(fields_of(entry))
    info = dict(fields_of(bytes(fields[_VALUE])))
    shape = bytes(info.get(_SHAPE, b""))
    dims = [dict(fields_of(d)).get(_SIZE, 0) for d in all_of(shape, _DIM)]
    sizes = tuple(None if not isinstance(n, int) or n >= 1 << 63 else n for n in dims)  # -1 is open
    return _Tensor(bytes(fields[_KEY]).decode(), int(info.get(_DTYPE, 0)), sizes, bytes(info.get(_KEY, b"")).decode())


@dataclass(frozen=True)
class _Node:
    op: str
    inputs: tuple[str, ...]
    calls: str  # the function, where it is a call


@dataclass(frozen=True)
class _Function:
    nodes: dict[str, _Node]
    returned: tuple[str, ...]


def _ending(data: bytes, output: str) -> str:
    """Return how the network ends that makes this tensor, "" where its last operator does not tell, or is not found."""
    try:
        graph = next(g for meta in all_of(data, _META_GRAPHS) for g in all_of(meta, _GRAPH))
        functions = dict(_function(f) for lib in all_of(graph, _LIBRARY) for f in all_of(lib, _FUNCTIONS))
        nodes = dict(_node(n) for n in all_of(graph, _NODES))
        for _ in range(100):
            name, *which = output.split(":")
            node = nodes[name]
            if node.op in _PASSES_ON:
                output = node.inputs[0]
            elif node.op in _CALLS:
                called = functions[node.calls]
                nodes, output = called.nodes, called.returned[int(which[-1]) if which else 0]
            else:
                return _ENDINGS.get(node.op, "")
    except (StopIteration, KeyError, IndexError, ValueError):
        return ""
    return ""


def _node(data: bytes) -> tuple[str, _Node]:
    fields = list(fields_of(data))
    text = {number: bytes(v).decode() for number, v in fields if number in (_NODE_NAME, _NODE_OP)}
    inputs = tuple(v.decode() for v in all_of(data, _NODE_INPUT))
    attributes = (dict(fields_of(entry)) for entry in all_of(data, _NODE_ATTRIBUTES))
    values = (bytes(a[_VALUE]) for a in attributes if bytes(a[_KEY]) == b"f")
    called = next((bytes(dict(fields_of(f))[_KEY]).decode() for v in values for f in all_of(v, _CALLED)), "")
    return text[_NODE_NAME], _Node(text[_NODE_OP], inputs, called)


def _function(data: bytes) -> tuple[str, _Function]:
    signature = next(all_of(data, _SIGNATURE))
    arguments = [bytes(dict(fields_of(a))[_KEY]).decode() for a in all_of(signature, _OUTPUT_ARGUMENTS)]
    entries = [dict(fields_of(entry)) for entry in all_of(data, _RETURNED)]
    returned = {bytes(e[_KEY]).decode(): bytes(e[_VALUE]).decode() for e in entries}
    nodes = dict(_node(n) for n in all_of(data, _FUNCTION_NODES))
    return bytes(next(all_of(signature, _KEY))).decode(), _Function(nodes, tuple(returned[a] for a in arguments))
