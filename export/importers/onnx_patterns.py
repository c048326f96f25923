"""Several ONNX operators that stand for one: exporters spell out what their opset lacks."""

import numpy as np

from edgenet.export.importers.onnx_graph import Importer, Node


def join_patterns(b: Importer, nodes: list[Node]) -> list[Node]:
    """Return the nodes with GELU, `0.5 x (1 + erf(x / sqrt(2)))`, Mish and hard swish as one node each."""
    made = {out: n for n in nodes for out in n.outputs}
    readers: dict[str, list[Node]] = {}
    for n in nodes:
        for name in n.inputs:
            readers.setdefault(name, []).append(n)
    constants = {n.outputs[0] for n in nodes if n.kind == "Constant"}

    def number(name: str) -> float:
        if name in constants and name not in b.constants:
            b.fold(made[name])
        data = b.constants.get(name)
        return float(data.ravel()[0]) if data is not None and data.size == 1 else np.nan

    def only(name: str, kind: str) -> Node | None:
        found = readers.get(name, [])
        return found[0] if len(found) == 1 and found[0].kind == kind else None

    def other(n: Node, name: str) -> str:
        return n.inputs[1] if n.inputs[0] == name else n.inputs[0]

    replaced: dict[str, Node] = {}  # first output of the node that is replaced -> the new one
    gone: set[str] = set()
    for n in nodes:
        if n.kind == "HardSigmoid" and abs(n.attributes.get("alpha", 0.2) - 1 / 6) < 1e-6:
            product = only(n.outputs[0], "Mul")
            if product and other(product, n.outputs[0]) == n.inputs[0] and n.attributes.get("beta", 0.5) == 0.5:
                replaced[product.outputs[0]] = Node("HardSwish", product.name, n.inputs[:1], product.outputs, {})
                gone.add(n.outputs[0])
        if n.kind == "Softplus" and (tanh := only(n.outputs[0], "Tanh")):
            product = only(tanh.outputs[0], "Mul")
            if product and other(product, tanh.outputs[0]) == n.inputs[0]:
                replaced[product.outputs[0]] = Node("Mish", product.name, n.inputs[:1], product.outputs, {})
                gone |= {n.outputs[0], tanh.outputs[0]}
        if n.kind != "Erf" or n.inputs[0] not in made:
            continue
        scaled = made[n.inputs[0]]
        x = scaled.inputs[0] if np.isnan(number(scaled.inputs[0])) else scaled.input(1)
        factor = number(other(scaled, x)) if len(scaled.inputs) == 2 else np.nan
        factor = 1 / factor if scaled.kind == "Div" else factor
        plus = only(n.outputs[0], "Add")
        if abs(factor - 0.5**0.5) > 1e-4 or plus is None or number(other(plus, n.outputs[0])) != 1:
            continue
        first = only(plus.outputs[0], "Mul")
        if first is None:
            continue
        factor_name = other(first, plus.outputs[0])
        half = made.get(factor_name)
        if half and half.kind == "Mul" and x in half.inputs and number(other(half, x)) == 0.5:  # (x / 2) (1 + erf)
            last, parts = first, [scaled, n, plus, half]
        else:
            after = only(first.outputs[0], "Mul")
            if after is None or ({factor_name} != {x} and number(factor_name) != 0.5):
                continue
            rest = other(after, first.outputs[0])
            if not (factor_name == x and number(rest) == 0.5) and not (number(factor_name) == 0.5 and rest == x):
                continue
            last, parts = after, [scaled, n, plus, first]
        replaced[last.outputs[0]] = Node("Gelu", last.name, (x,), last.outputs, {})
        gone |= {p.outputs[0] for p in parts if len(readers.get(p.outputs[0], [])) == 1}
    return [replaced.get(n.outputs[0], n) for n in nodes if n.outputs[0] not in gone]
