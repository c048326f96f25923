"""INT8 files of EfficientNet-Lite on a Snapdragon's NPU, as Qualcomm's emulator answers, beside onnxruntime's own.

    .venv/bin/python benchmarks/hexagon.py [--models lite0,lite1,lite2] [--soc SM8750] [--images DIR] [--limit N]

100 pictures of the folder calibrate, N of the rest measure. edgenet's file is the .tflite that `edgenet export
--precision int8 --io uint8` writes; onnxruntime's is quantize_static of edgenet's float32 .onnx, 8 bits, weights per
channel. Both are compiled for the chip, and what was compiled runs in the emulator of the NPU, a second or more a
picture on a core. The reference is the float32 .tflite on this machine.

--made DIR takes int8 and float32 files from there, as `edgenet export --format tflite --format onnx --precision int8
--precision float32 --io uint8 --images` with the same folder wrote them. --alone leaves onnxruntime's file out.

R is the smallest of (pictures on which onnxruntime's file disagrees with float32) / (those on which edgenet's does).
Bar: R >= 1, and each of edgenet's files agrees on 97 % of the pictures and is on the NPU with all its operators.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import vendors
from rich.console import Console
from rich.table import Table

from edgenet.calibration import SharedCalibration
from edgenet.device_bench import Worker
from edgenet.device_bench.device import Request
from edgenet.device_bench.qnn.device import Hexagon, open_device
from edgenet.evaluate import wilson
from edgenet.export import Network, export_graph, find_source
from edgenet.images import limit, load_pixels, normalise, open_images, split
from edgenet.results import Estimate

N_CALIBRATION, MIN_AGREEMENT = 100, 0.97


def make(network: Network, pixels: np.ndarray, fingerprint: str, out: Path) -> None:
    """Write int8 and float32 files with uint8 input and output. pixels: (N, H, W, 3) uint8."""
    shared = SharedCalibration(network, pixels, fingerprint)
    for precision in ("int8", "float32"):
        for format in ("tflite", "onnx"):
            graph = shared.quantized(precision)
            export_graph(network, graph, out, format=format, precision=precision, io="uint8")


def theirs(model: str, network: Network, pixels: np.ndarray, out: Path) -> Path:
    """Write onnxruntime's own INT8 file. pixels: (N, H, W, 3) uint8."""
    from onnxruntime.quantization import QuantType

    # A file with uint8 ends would have its normalisation quantized as well: theirs starts from float32 ends.
    floating = out / f"{model}_ends.onnx"
    export_graph(network, network.graph, out / "ends", format="onnx", precision="float32", io="float32")
    (out / "ends" / f"{model}_float32.onnx").rename(floating)
    settings = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
    pictures = normalise(pixels, network.preprocessing)
    return vendors.quantize_static(floating, pictures, out / f"{model}_onnxruntime.onnx", **settings)


def emulated(device: Hexagon, path: Path, pixels: np.ndarray, network: Network) -> tuple[np.ndarray, Estimate]:
    """Return the emulator's answers, (N, classes), and what the compiler said of the file."""
    (estimate,), failures = device.bench([(path.name, path)], Request())
    if failures:
        raise SystemExit(failures[0].why)
    integer = path.name.endswith("_int8.tflite")
    answers = []
    for i in range(0, len(pixels), 20):
        chunk = pixels[i : i + 20]
        answers.append(device.predict(path, chunk if integer else normalise(chunk, network.preprocessing)))
        print(f"\r{path.name}: {min(i + 20, len(pixels))} of {len(pixels)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return np.concatenate(answers), estimate


def run(model: str, args: argparse.Namespace, out: Path) -> tuple[float, list[str]]:
    """Measure one network; return the ratio and what does not hold the bar."""
    network = find_source(model).network()
    images = open_images(args.images, network.class_ids, network.class_names)
    calibration, rest = split(images, N_CALIBRATION)
    pixels = load_pixels(limit(rest, args.limit), network.preprocessing)
    calibrating = load_pixels(calibration, network.preprocessing)
    if args.made is None:
        make(network, calibrating, calibration.fingerprint, out)
    folder = args.made or out
    with Worker(folder / f"{model}_float32.tflite", threads=2) as worker:
        reference = worker.predict(pixels).argmax(1)
    files = [("edgenet", folder / f"{model}_int8.tflite")]
    if not args.alone:
        files.append(("onnxruntime", theirs(model, network, calibrating, out)))
    table = Table("file", "on the NPU", "pictures", "agree with float32", "95 % interval", "minutes", title=model)
    differ, faults = {}, []
    with open_device(args.soc) as device:
        for tool, path in files:
            start = time.perf_counter()
            y, e = emulated(device, path, pixels, network)
            same = int((y.argmax(1) == reference).sum())
            differ[tool] = len(y) - same
            low, high = wilson(same, len(y))
            minutes = (time.perf_counter() - start) / 60
            table.add_row(
                tool, f"{e.n_accelerated} of {e.n_operators}", str(len(y)), f"{100 * same / len(y):.1f} %",
                f"{100 * low:.1f} to {100 * high:.1f}", f"{minutes:.1f}",
            )  # fmt: skip
            if tool == "edgenet" and same < MIN_AGREEMENT * len(y):
                faults.append(f"{model} agrees on {100 * same / len(y):.1f} %")
            if tool == "edgenet" and e.left:
                faults.append(f"{model} leaves {e.left} to the CPU")
    Console(width=120).print(table)
    if args.alone:
        return float("inf"), faults
    return (differ["onnxruntime"] + 1e-9) / (differ["edgenet"] + 1e-9), faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="lite0,lite1,lite2")
    parser.add_argument("--soc", default="SM8750")
    parser.add_argument("--images", default="../shared/imagenet-mini")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--made", type=Path)
    parser.add_argument("--alone", action="store_true")
    args = parser.parse_args()
    smallest, faults = float("inf"), []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.models.split(","):
            model = name if name.startswith("efficientnet") else f"efficientnet-{name}"
            r, found = run(model, args, Path(folder))
            smallest, faults = min(smallest, r), faults + found
    for fault in faults:
        print(f"  below the bar: {fault}")
    print(f"hexagon: {smallest:.2f} x")
    return 0 if smallest >= 1 and not faults else 1


if __name__ == "__main__":
    sys.exit(main())
