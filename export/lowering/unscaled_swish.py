"""Give back to a runtime the SiLU that calibration took apart, where the runtime has a kernel for it."""

from dataclasses import replace

import numpy as np

from edgenet.export.graph import Graph
from edgenet.export.nchw import real_numbers


def unscaled_swishes(graph: Graph) -> tuple[Graph, dict[str, np.ndarray]]:
    """Return `graph`, int8 and in the new layout, with x * sigmoid(x) in the place of (x / s) * sigmoid((x / s) * s).

    Calibration scales the channels of a SiLU so that 8 bits hold all of them. A runtime that computes it in float has
    no use for the multiplication, and a kernel for x * sigmoid(x): the layer's weights take s back, and what reads the
    product divides it. The second result has s, (1, C, 1, 1), of each product that is to be divided.
    """
    consumers, producers = graph.consumers(), graph.producers()
    tensors, dropped, read, divided = dict(graph.tensors), set[str](), dict[str, str](), dict[str, np.ndarray]()
    for op in graph.ops:
        if op.kind != "MUL" or len(op.inputs) != 2 or op.inputs[0] not in producers:
            continue
        (x, scales), unscaled = map(str, op.inputs), op.outputs[0]
        sigmoids = [graph.ops[i] for i in consumers[unscaled]]
        if graph.constant(scales) is None or [s.kind for s in sigmoids] != ["LOGISTIC"]:
            continue
        products = [graph.ops[i] for i in consumers[sigmoids[0].outputs[0]]]
        layer = graph.ops[producers[x]]
        w = graph.tensors[str(layer.inputs[1])] if len(layer.inputs) > 1 else None
        if (
            [p.kind for p in products] != ["MUL"]
            or set(products[0].inputs) != {x, sigmoids[0].outputs[0]}
            or layer.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D")
            or w is None
            or w.quantization is None
            or w.data is None
            or len(consumers[x]) != 2
            or len(w.quantization.scale) != w.shape[0]
        ):
            continue
        scale = real_numbers(graph.tensors[scales])
        for name in [str(n) for n in layer.inputs[1:] if n is not None]:
            t = graph.tensors[name]
            if t.quantization is None:
                assert t.data is not None
                tensors[name] = replace(t, data=(t.data * scale.ravel()).astype(t.data.dtype))
            else:
                grown = (t.quantization.scale * scale.ravel()).astype(np.float32)
                tensors[name] = replace(t, quantization=replace(t.quantization, scale=grown))
        tensors[x] = replace(tensors[x], quantization=None, dtype="float32")
        dropped.add(unscaled)
        read[unscaled] = x
        divided[products[0].outputs[0]] = scale
    ops = tuple(
        replace(op, inputs=tuple(None if n is None else read.get(n, n) for n in op.inputs))
        for op in graph.ops
        if op.outputs[0] not in dropped
    )
    return replace(graph, tensors=tensors, ops=ops), divided
