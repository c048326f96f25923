"""Write a graph as a .tflite file for Android: a named signature, a static batch, metadata and labels inside."""

import json
from pathlib import Path
from typing import Any

from edgenet.export import metadata
from edgenet.export.graph import Graph
from edgenet.export.network import Network
from edgenet.export.tflite_file import write_tflite

EDGENET_METADATA = "edgenet"
SUFFIX = ".tflite"
PRECISIONS = ("float32", "float16", "weight-only", "dynamic", "int8", "int16x8")


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
    model = write_tflite(graph, description=f"edgenet {about['edgenet_version']}", metadata=entries)
    labels = "".join(f"{name}\n" for name in names).encode()
    path.write_bytes(metadata.append_files(model, {metadata.LABELS_FILE: labels} if names else {}))
    return path
