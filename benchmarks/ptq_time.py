"""All float and INT8 files of EfficientNet-Lite0 in three formats: one `edgenet export` against the vendors' commands.

    .venv/bin/python benchmarks/ptq_time.py [--images DIR] [--model efficientnet-lite0]

Both sides are timed from the start to the last file, with the same 100 pictures. edgenet: the whole command, with
loading TensorFlow, building, calibrating, correcting, writing nine files. The vendors: loading all of their packages,
the network as a Keras object and the pictures once, in one process, then their calls one after another:

    TFLite      TFLiteConverter float32, float16, int8; ai-edge-quantizer int8 from the float32 file
    ONNX        tf2onnx float32; onnxruntime.transformers.float16; quant_pre_process and quantize_static int8
    OpenVINO    openvino.convert_model and save_model float32 and float16; nncf.quantize int8

Without tf2onnx the ONNX rows start from edgenet's float32 file, which costs the vendors nothing. Bar: edgenet takes at
most a third.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import vendors
from rich.console import Console
from rich.table import Table

from edgenet.export import FORMATS

PRECISIONS = ("float32", "float16", "int8")
BAR = 3.0
LOADING = "loading packages, network, pictures"


def edgenet_seconds(model: str, images: str) -> float:
    """Return the seconds of one command that writes all nine."""
    with tempfile.TemporaryDirectory() as out:
        command = [str(Path(sys.executable).with_name("edgenet")), "export", model, "--format", "all"]
        for precision in PRECISIONS:
            command += ["--precision", precision]
        command += ["--images", images, "--out", out]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.perf_counter() - start
        for format in FORMATS.values():
            n = len(list(Path(out).glob(f"*{format.suffix}")))
            assert n == len(PRECISIONS), f"{n} files {format.suffix}"
        return seconds


def vendor_seconds(model_name: str, images: str, out: Path) -> dict[tuple[str, str], float]:
    """Return the seconds of each call, by (tool, what it writes)."""
    from edgenet.export import find_source
    from edgenet.images import load_pixels, normalise, open_images, split

    start = time.perf_counter()
    source = find_source(model_name)
    calibration = split(open_images(images, source.class_ids, source.class_names), 100)[0]
    pictures = normalise(load_pixels(calibration, source.preprocessing), source.preprocessing)
    to_onnx = tf2onnx_or_none()
    with vendors.silence():
        import nncf  # noqa: F401
        import onnxruntime.quantization  # noqa: F401
        import openvino
        from ai_edge_quantizer import quantizer  # noqa: F401
        from onnxruntime.transformers import float16  # noqa: F401

        model = vendors.keras_model(model_name)
    seconds = {(LOADING, ""): time.perf_counter() - start}
    print(f"  {LOADING}: {seconds[LOADING, '']:.1f} s", flush=True)

    def timed(tool: str, what: str, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        with vendors.silence():
            result = call()
        seconds[tool, what] = time.perf_counter() - start
        print(f"  {tool} {what}: {seconds[tool, what]:.1f} s", flush=True)
        return result

    for p in PRECISIONS:
        timed("TFLiteConverter", p, lambda p=p: vendors.tflite_converter(model, p, pictures, out / f"{p}.tflite"))
    timed("ai-edge-quantizer", "int8", lambda: vendors.ai_edge_quantizer(out / "float32.tflite", pictures, out / "aeq"))

    floating = out / "float32.onnx"
    if to_onnx is not None:
        timed("tf2onnx", "float32", lambda: to_onnx(model, pictures, floating))
    else:
        floating = edgenet_onnx(source, out)
        print("  tf2onnx is not installed: ONNX starts from edgenet's float32 file, in no time")
    timed("onnxruntime", "float16", lambda: half_onnx(floating, out / "float16.onnx"))
    timed("onnxruntime", "int8", lambda: vendors.quantize_static(floating, pictures, out / "int8.onnx"))

    def convert() -> Any:
        converted = openvino.convert_model(model, input=[1, *pictures.shape[1:]])
        openvino.save_model(converted, out / "float32.xml", compress_to_fp16=False)
        return converted

    converted = timed("openvino", "float32", convert)
    timed("openvino", "float16", lambda: openvino.save_model(converted, out / "float16.xml"))
    timed("nncf", "int8", lambda: vendors.nncf_quantize(converted, pictures, out / "int8.xml"))
    return seconds


def tf2onnx_or_none() -> Callable[[Any, np.ndarray, Path], None] | None:
    """Return what converts a Keras model to ONNX, None where tf2onnx is not installed."""
    from edgenet.frameworks import tensorflow

    tf = tensorflow()
    try:
        with vendors.silence():
            import tf2onnx
    except ImportError:
        return None

    def convert(model: Any, pictures: np.ndarray, path: Path) -> None:
        signature = [tf.TensorSpec((1, *pictures.shape[1:]), tf.float32, "image")]
        tf2onnx.convert.from_keras(model, signature, output_path=str(path))

    return convert


def edgenet_onnx(source: Any, out: Path) -> Path:
    from edgenet.export import export_graph

    with vendors.silence():
        network = source.network()
        return out / export_graph(network, network.graph, out, format="onnx", precision="float32").path


def half_onnx(source: Path, path: Path) -> None:
    """Write a float32 .onnx in float16, its input and output float32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", default="../shared/imagenet-mini")
    parser.add_argument("--model", default="efficientnet-lite0")
    args = parser.parse_args()
    ours = edgenet_seconds(args.model, args.images)
    print(f"  edgenet, all nine: {ours:.1f} s", flush=True)
    with tempfile.TemporaryDirectory() as out:
        theirs = vendor_seconds(args.model, args.images, Path(out))
    ours_again = edgenet_seconds(args.model, args.images)
    table = Table("tool", *PRECISIONS, "all, s")
    for tool in dict.fromkeys(tool for tool, _ in theirs):
        cells = [f"{theirs[tool, p]:.1f}" if (tool, p) in theirs else "" for p in PRECISIONS]
        table.add_row(tool, *cells, f"{sum(s for (t, _), s in theirs.items() if t == tool):.1f}")
    total = sum(theirs.values())
    table.add_row("all vendors, one after another", "", "", "", f"{total:.1f}", end_section=True)
    table.add_row("edgenet export (before, after)", "", "", "", f"{ours:.1f}, {ours_again:.1f}")
    Console(width=120).print(table)
    ratio = total / max(ours, ours_again)
    print(f"ptq_time: {ratio:.1f} x")
    return 0 if ratio >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
