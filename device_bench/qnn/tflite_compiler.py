"""A .tflite compiled for a Hexagon by LiteRT's plugin for Qualcomm: what a phone's LiteRT loads on its NPU."""

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgenet.device_bench.litert_npu.dispatched import Dispatched
from edgenet.device_bench.litert_npu.plugin import apply
from edgenet.device_bench.qnn.built import FILLED, READ, SPILLED, WRITTEN, Built
from edgenet.device_bench.qnn.chip import Chip
from edgenet.device_bench.qnn.packages import LITERT_PACKAGE, library_folders, litert_folder
from edgenet.errors import DeviceError, MissingDependency
from edgenet.files import atomic_write

MANUFACTURER = "Qualcomm"
# What the plugin links to for chips without an HTP, and the package lacks: any library satisfies the loader.
_STAND_INS = {"libQnnLpai.so": "libQnnSystem.so"}
_MOVED = {"read_total_bytes": READ, "write_total_bytes": WRITTEN, "fill_bytes": FILLED, "spill_bytes": SPILLED}


def compile_tflite(model: Path, name: str, chip: Chip, out: Path, timeout_s: float) -> Built:
    """Compile `model` for `chip` into the folder `out`, as NAME.tflite.

    Raises:
        InputError: the file is damaged.
        MissingDependency: ai-edge-litert is not installed.
        DeviceError: the compiler failed, was killed, or wrote half a file.
    """
    litert = litert_folder()
    if litert is None:
        raise MissingDependency(LITERT_PACKAGE, "tflite", "compiling a .tflite file for a Hexagon")
    compiled = out / f"{name}.tflite"
    with tempfile.TemporaryDirectory(prefix="edgenet-qnn-") as folder:
        links = Path(folder)
        folders = library_folders()
        for missing, there in _STAND_INS.items():
            if not any((f / missing).exists() for f in folders):
                (links / missing).symlink_to(folders[0] / there)
        applied = apply(
            litert,
            model,
            compiled,
            manufacturer=MANUFACTURER,
            soc=chip.soc,
            plugin=litert / "vendors" / "qualcomm" / "compiler",
            libraries=(*folders, links),
            timeout_s=timeout_s,
        )
    moved = moved_bytes(applied.vendor_log)
    return Built((compiled,), applied.n_operators, applied.left, applied.is_whole, moved_bytes=moved)


def moved_bytes(log: str) -> dict[str, int]:
    """Return the bytes between the NPU and DRAM in one inference, by why, from what QNN printed; over all its parts."""
    found = {}
    for theirs, ours in _MOVED.items():
        if numbers := re.findall(rf"\b{theirs}=(\d{{1,18}})\b", log):
            found[ours] = sum(map(int, numbers))
    return found


def as_onnx(part: Dispatched, path: Path) -> None:
    """Write what a compiled .tflite runs on the NPU as an .onnx, with its context binary, that onnxruntime-qnn loads.

    The bytes are the .tflite's own: what an emulator answers for this file is what it answers for the .tflite.

    Raises:
        MissingDependency: the package onnx is not installed.
        DeviceError: it has tensors of types that the NPU does not have.
    """
    try:
        import onnx
    except ImportError:
        raise MissingDependency("onnx", "onnx", "emulating a .tflite file on a Hexagon") from None
    types = {"float32": onnx.TensorProto.FLOAT, "uint8": onnx.TensorProto.UINT8, "int8": onnx.TensorProto.INT8}

    def infos(tensors: Sequence[Any]) -> list[Any]:
        strange = [t.dtype for t in tensors if t.dtype not in types]
        if strange:
            raise DeviceError(f"the compiled file has {strange[0]} tensors at its ends (valid: {', '.join(types)})")
        return [onnx.helper.make_tensor_value_info(t.name, types[t.dtype], t.shape) for t in tensors]

    binary = path.with_suffix(".bin")
    node = onnx.helper.make_node(
        "EPContext",
        [t.name for t in part.inputs],
        [t.name for t in part.outputs],
        part.name,
        domain="com.microsoft",
        main_context=1,
        embed_mode=0,
        ep_cache_context=binary.name,
        partition_name=part.name,
        source="QNNExecutionProvider",
    )
    graph = onnx.helper.make_graph([node], "compiled", infos(part.inputs), infos(part.outputs))
    domains = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=domains, ir_version=10)
    scales = {t.name: [t.scale, t.zero_point] for t in part.outputs if t.scale is not None}
    onnx.helper.set_model_props(model, {"edgenet": json.dumps({"output_scales": scales})})
    with atomic_write(binary) as tmp:
        tmp.write_bytes(part.code)
    with atomic_write(path) as tmp:
        onnx.save(model, str(tmp))
