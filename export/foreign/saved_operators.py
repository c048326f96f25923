"""Which operators of a SavedModel run, when it is loaded or asked, and whether all of them only compute.

Numbers of fields: saved_model.proto, meta_graph.proto, saved_object_graph.proto of tensorflow/core/protobuf, and
graph.proto, node_def.proto, attr_value.proto, function.proto of tensorflow/core/framework.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgenet.errors import InputError
from edgenet.export.foreign import allowed
from edgenet.export.foreign.protobuf import all_of, fields_of

_META_GRAPHS = 2
_GRAPH, _SAVER, _COLLECTIONS, _SIGNATURES, _OBJECTS = 2, 3, 4, 5, 7  # of MetaGraphDef
_KEY, _VALUE = 1, 2  # of a map's entry
_NODES, _LIBRARY, _FUNCTIONS = 1, 2, 1
_NODE_NAME, _NODE_OP, _NODE_INPUT, _NODE_ATTRIBUTES = 1, 2, 3, 5
_LIST, _FUNCTION, _LISTED_FUNCTIONS, _FUNCTION_NAME = 1, 10, 9, 1  # of AttrValue, its ListValue, NameAttrList
_FUNCTION_SIGNATURE, _FUNCTION_NODES = 1, 3
_OUTPUTS, _TENSOR_NAME = 2, 1
_NODE_LIST, _NODE_LIST_VALUES = 1, 1
_RESTORE_OPERATOR = 3
_INITIALISERS = ("saved_model_main_op", "legacy_init_op")
_INITIALISING = "__saved_model_init_op"
# Of SavedObject: what is run, or read from another file, while a model is loaded.
_HARMFUL = {5: "an asset file", 10: "a table or another resource", 11: "functions that restore it", 16: "a saver"}
# `export` of a Keras model leaves RandomFlip and its like switched on: they draw numbers and note how many.
_RANDOM = "a random layer (RandomFlip, ...) may be on: give the .keras or .h5 file, or export the model without it"
_REMEDIES = {"AssignVariableOp": _RANDOM, "RngReadAndSkip": _RANDOM}


@dataclass(frozen=True)
class _Node:
    op: str
    inputs: tuple[str, ...]  # names of nodes, those that only have to run before it too
    calls: tuple[str, ...]  # names of functions


_Nodes = dict[str, _Node]


def refuse_operators(path: Path, data: bytes, signature: str) -> None:
    """Raise InputError where loading a SavedModel, or asking a signature, would do more than compute."""
    try:
        for meta_graph in all_of(data, _META_GRAPHS):
            _refuse_objects(path, meta_graph)
            graph = next(all_of(meta_graph, _GRAPH), b"")
            nodes = dict(_node(n) for n in all_of(graph, _NODES))
            functions = dict(_function(f) for lib in all_of(graph, _LIBRARY) for f in all_of(lib, _FUNCTIONS))
            asked = _outputs(meta_graph, (signature,))
            _refuse(path, nodes, functions, asked, allowed.OPERATORS)
            starting = [*_outputs(meta_graph, (_INITIALISING,)), *_collected(meta_graph)]
            if not any(all_of(meta_graph, _OBJECTS)):  # as TensorFlow 1 wrote it: its graph fills the variables
                saver = dict(fields_of(next(all_of(meta_graph, _SAVER), b"")))
                starting.append(_text(saver.get(_RESTORE_OPERATOR, b"")))
            _refuse(path, nodes, functions, starting, allowed.RESTORING)
    except (IndexError, ValueError, KeyError, StopIteration):
        raise InputError(f"{path / 'saved_model.pb'} is damaged: save or copy the model again") from None


def _refuse_objects(path: Path, meta_graph: bytes) -> None:
    for objects in all_of(meta_graph, _OBJECTS):
        for saved in all_of(objects, 1):
            for number, _ in fields_of(saved):
                if number in _HARMFUL:
                    raise InputError(
                        f"{path} holds {_HARMFUL[number]}, which no network of pictures needs: save the network alone"
                    )


def _refuse(path: Path, nodes: _Nodes, functions: dict[str, _Nodes], start: list[str], good: frozenset[str]) -> None:
    """Walk from `start` through inputs and called functions; raise InputError at an operator that is not `good`."""
    todo = [(nodes, name) for name in start if name in nodes]
    seen: set[tuple[int, str]] = set()
    called: set[str] = set()
    while todo:
        where, name = todo.pop()
        if (id(where), name) in seen or name not in where:
            continue
        seen.add((id(where), name))
        node = where[name]
        if node.op not in good and node.op not in functions:
            advice = _REMEDIES.get(node.op, "save a network without it")
            raise InputError(f"{path} has the operator {node.op[:100]}, which is none that only computes: {advice}")
        todo += [(where, n) for n in node.inputs]
        for function in (node.op, *node.calls):
            if function in functions and function not in called:
                called.add(function)
                todo += [(functions[function], n) for n in functions[function]]  # what has an effect runs too


def _outputs(meta_graph: bytes, keys: tuple[str, ...]) -> list[str]:
    """Return the nodes that make the outputs of signatures."""
    found = []
    for entry in all_of(meta_graph, _SIGNATURES):
        fields = dict(fields_of(entry))
        if _text(fields[_KEY]) in keys:
            for output in all_of(bytes(fields[_VALUE]), _OUTPUTS):
                info = dict(fields_of(output)).get(_VALUE, b"")
                found.append(_base(_text(dict(fields_of(bytes(info))).get(_TENSOR_NAME, b""))))
    return found


def _collected(meta_graph: bytes) -> list[str]:
    """Return the nodes that are run when a model is loaded."""
    found = []
    for entry in all_of(meta_graph, _COLLECTIONS):
        fields = dict(fields_of(entry))
        if _text(fields[_KEY]) in _INITIALISERS:
            for listed in all_of(bytes(fields[_VALUE]), _NODE_LIST):
                found += [_base(v.decode()) for v in all_of(listed, _NODE_LIST_VALUES)]
    return found


def _function(data: bytes) -> tuple[str, _Nodes]:
    name = next(all_of(next(all_of(data, _FUNCTION_SIGNATURE)), _KEY)).decode()
    return name, dict(_node(n) for n in all_of(data, _FUNCTION_NODES))


def _node(data: bytes) -> tuple[str, _Node]:
    fields = list(fields_of(data))
    text = {number: _text(v) for number, v in fields if number in (_NODE_NAME, _NODE_OP)}
    inputs = tuple(_base(_text(v)) for number, v in fields if number == _NODE_INPUT)
    calls = tuple(name for number, v in fields if number == _NODE_ATTRIBUTES for name in _called(bytes(v)))
    return text.get(_NODE_NAME, ""), _Node(text.get(_NODE_OP, ""), inputs, calls)


def _called(attribute: bytes) -> Iterator[str]:
    for value in all_of(attribute, _VALUE):
        named = list(all_of(value, _FUNCTION))
        for listed in all_of(value, _LIST):
            named += all_of(listed, _LISTED_FUNCTIONS)
        for function in named:
            yield from (n.decode() for n in all_of(function, _FUNCTION_NAME))


def _base(tensor: str) -> str:
    """Return the node that makes a tensor: "^name" is to run before, "name:output:0" is one of its outputs."""
    return tensor.removeprefix("^").split(":")[0]


def _text(value: int | bytes) -> str:
    if isinstance(value, int):
        raise ValueError("a number in the place of a text")
    return value.decode()
