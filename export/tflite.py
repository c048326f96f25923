"""Write a graph as a .tflite file for Android: a named signature, a static batch, metadata and labels inside.

Weights of 4 bits: XNNPACK takes those of dense layers, and is as fast as with 8; of convolutions it does not, and the
kernel that does unpacks them for each picture (measured with ai-edge-litert 2.3). A pointwise convolution without a
stride is a dense layer over the channels, and is written as one.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgenet.export import metadata
from edgenet.export.graph import FUSED, Graph, Op
from edgenet.export.lowering.split_channels import split_channels
from edgenet.export.network import Network
from edgenet.export.tflite_file import write_tflite

EDGENET_METADATA = "edgenet"
SUFFIX = ".tflite"
PRECISIONS = ("float32", "float16", "weight-only", "dynamic", "int8", "int16x8", "int4")


def to_tflite(network: Network, graph: Graph, path: Path, about: dict[str, Any]) -> Path:
    """Write `graph`, a quantized form of `network`, to `path`.

    Args:
        about: precision, io_dtype and provenance, kept in the file as JSON; `edgenet inspect` reads it.

    The signature `serving_default` names the input and the output. The metadata is what MediaPipe Tasks reads:
    normalization, labels, author, version.
    """
    names = network.task.output_names(network.class_names)
    mediapipe = metadata.ClassifierMetadata(
        name=network.name,
        description=f"{network.name}, {about['precision']}; weights: {network.weights}",
        version=str(about["edgenet_version"]),
        author="edgenet",
        license="as the weights'",
        mean=network.preprocessing.mean,
        std=network.preprocessing.std,
        input_name=graph.inputs[0],
        output_name=graph.outputs[0],
        float_input=about["io_dtype"] == "float32",
        n_classes=len(names),
        grey=network.preprocessing.channels == 1,
    )
    entries = {
        "min_runtime_version": b"2.16.0".ljust(16, b"\0"),
        metadata.BUFFER_NAME: metadata.build_metadata(mediapipe),
        EDGENET_METADATA: json.dumps(about, sort_keys=True).encode(),
    }
    model = write_tflite(
        with_dense_kernels(split_channels(graph)),
        few_bits=True,
        description=f"edgenet {about['edgenet_version']}",
        metadata=entries,
    )
    labels = "".join(f"{name}\n" for name in names).encode()
    path.write_bytes(metadata.append_files(model, {metadata.LABELS_FILE: labels} if names else {}))
    return path


def stored_bits(graph: Graph, format: str) -> int | None:
    """Return the bits in which weights of 4 bits are stored: 4, or 8 where one layer has no kernel for that.

    None where no weight has so few.
    """
    few = [op for op in graph.ops if _has_few(graph, op)]
    if not few:
        return None
    return 8 if format == "tflite" and not all(_as_dense(graph, op) for op in few) else 4


def weight_bits(graph: Graph) -> int | None:
    """Return the bits of those weights that have fewer than 8 and may be stored so, None where there are none."""
    return min((t.bits for t in graph.tensors.values() if t.bits is not None), default=None)


def with_dense_kernels(graph: Graph) -> Graph:
    """Return the graph with pointwise convolutions of 4-bit weights as dense layers; others store theirs in 8 bits."""
    tensors, ops = dict(graph.tensors), []
    for op in graph.ops:
        if _has_few(graph, op):
            t = tensors[str(op.inputs[1])]
            if not _as_dense(graph, op):
                tensors[t.name] = replace(t, bits=None)
            elif op.kind == "CONV_2D":
                assert t.data is not None
                shape = (t.shape[0], t.shape[3])
                tensors[t.name] = replace(t, shape=shape, data=t.data.reshape(shape))
                options = {
                    FUSED: op.activation.value, "weightsFormat": 0, "keepNumDims": True,
                    "asymmetricQuantizeInputs": False,
                }  # fmt: skip
                op = replace(
                    op, kind="FULLY_CONNECTED", options=options, options_type="FullyConnectedOptions", version=1
                )
        ops.append(op)
    return replace(graph, tensors=tensors, ops=tuple(ops))


def _has_few(graph: Graph, op: Op) -> bool:
    return len(op.inputs) > 1 and op.inputs[1] is not None and graph.tensors[op.inputs[1]].bits is not None


def _as_dense(graph: Graph, op: Op) -> bool:
    """Whether an operator is a dense layer, or a convolution that one can compute."""
    if op.kind != "CONV_2D":
        return op.kind == "FULLY_CONNECTED"
    w, x = (graph.tensors[str(n)].shape for n in (op.inputs[1], op.inputs[0]))
    return w[1:3] == (1, 1) and w[3] == x[3] and op.window.strides == (1, 1)
