"""What layer of a Keras network reads what: in a circle, or from nowhere, Keras 2 would look for an order for ever."""

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from edgenet.errors import InputError

_NETWORKS = ("Functional", "Model", "Sequential")
_ADVICE = "it is damaged, or made to do harm: save the whole model again"
_Call = tuple[str, int]  # a layer's name, and which of its calls


def check_wires(path: Path, layers: list[dict[str, Any]]) -> None:
    """Raise InputError where no order of a network's layers, by what each reads, exists.

    A layer may be called several times; what counts is the order of calls. The calls of a network inside are counted
    from 0 or from 1, whichever Keras wrote it.
    """
    calls = {str(item.get("name")): _calls(item) for item in layers}
    networks = {str(item.get("name")) for item in layers if item.get("class_name") in _NETWORKS}
    order: TopologicalSorter[_Call] = TopologicalSorter()
    for name, made in calls.items():
        for n, call in enumerate(made):
            for of, which in _reads(call, calls):
                last = max(len(calls[of]) - 1, 0)
                if not 0 <= which <= last + (of in networks):
                    raise InputError(
                        f"{path} has the layer {name[:100]}, which reads call {which} of {of[:100]}: {_ADVICE}"
                    )
                if of not in networks or last == 0:
                    order.add((name, n), (of, min(which, last)))
    try:
        order.prepare()
    except CycleError as e:
        names = dict.fromkeys(name[:100] for name, _ in e.args[1])
        raise InputError(
            f"{path} has layers that read each other in a circle ({', '.join(names)[:300]}): {_ADVICE}"
        ) from None


def _calls(item: dict[str, Any]) -> list[Any]:
    made = item.get("inbound_nodes")
    return made if isinstance(made, list) else []


def _reads(call: Any, names: dict[str, list[Any]]) -> Iterator[_Call]:
    """Yield what a call reads: ["name", call, output, ...] of Keras 2, {"keras_history": [...]} of Keras 3."""
    todo = [call]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            todo.extend(item.values())
        elif isinstance(item, list):
            if (
                len(item) > 2
                and isinstance(item[0], str)
                and item[0] in names
                and type(item[1]) is type(item[2]) is int
            ):
                yield item[0], item[1]
            todo.extend(item)
