"""What an evaluation costs beside the inference that it is made of, and its memory as pictures become many.

    .venv/bin/python benchmarks/evaluate.py [--files OUT/...] [--images ../shared/imagenet-mini] [--pictures 500]
        [--rounds 3] [--memory 500,20000]

Speed: five files of EfficientNet-Lite0 (TFLite and ONNX in float32 and int8, OpenVINO in int8; made first if there are
none) answer the pictures of a folder, twice in each round: `inference` gives each file, in its process, the same 64
pictures again and again, which lie ready in memory; `evaluate` is edgenet's whole evaluation, with opening, decoding,
normalising and counting. Both load the files. CPU seconds are those of all processes, as the kernel counts them.

Memory: a small network with Lite0's input answers so many pictures, made for it and all different; the peak is that of
the process that evaluates, with the memory that it shares with the one that runs the file.

Bars: evaluate takes at most 1.15 times as long as inference, in CPU seconds and by the clock (medians of the rounds);
the peak with the most pictures is within 10 % of that with the fewest.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from edgenet.device_bench import Worker
from edgenet.device_bench.shared_memory import SharedMemory
from edgenet.evaluate import Candidate, evaluate
from edgenet.export import export_graph
from edgenet.images import imagenet_classes, limit, normalise, open_images, stream
from edgenet.jobs.evaluate_files import describe
from edgenet.jobs.scale_memory import network_of
from edgenet.models.resnet_mobilenet import mobilenet_v1

BAR, MEMORY_BAR = 1.15, 1.10
MADE = Path("build/evaluate")
NAMES = ("float32.tflite", "int8.tflite", "float32.onnx", "int8.onnx", "int8.xml")


def cpu_s() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


def lite0(images: Path) -> list[Path]:
    """Return the five files, which are made if they are not there."""
    files = [MADE / f"efficientnet-lite0_{name}" for name in NAMES]
    if not all(file.exists() for file in files):
        command = [Path(sys.executable).with_name("edgenet"), "export", "efficientnet-lite0", "--images", images]
        command += ["--precision", "float32", "--precision", "int8", "--format", "all", "--out", MADE]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    return files


def infer(files: Sequence[Path], pixels: np.ndarray, n: int) -> None:
    """Have each file compute n pictures, 64 at a time, which lie in memory that it reads."""
    preprocessing = describe(files[0]).preprocessing
    with SharedMemory(pixels.size * 4) as memory:
        batch = memory.take(pixels.shape, np.float32)
        normalise(pixels, preprocessing, batch)
        for file in files:
            with Worker(file, threads=os.cpu_count() or 1, shared=memory) as worker:
                for start in range(0, n, len(batch)):
                    worker.predict(batch[: n - start])


def speed(files: Sequence[Path], folder: Path, n: int, rounds: int) -> list[float]:
    """Print what both cost, and return the ratios: CPU seconds, and seconds by the clock."""
    images = limit(open_images(folder, *imagenet_classes()), n)
    preprocessing = describe(files[0]).preprocessing
    chunk = next(iter(stream(images, preprocessing)))
    table = Table("round", "inference, CPU s", "evaluate, CPU s", "ratio", "inference, s", "evaluate, s", "ratio")
    ratios: list[list[float]] = [[], []]
    for number in range(1, rounds + 1):
        times = []
        for work in ("inference", "evaluate"):
            cpu, clock = cpu_s(), time.perf_counter()
            if work == "inference":
                infer(files, chunk.pixels, len(images))
            else:
                candidates = [Candidate(f.name, f) for f in files]
                found, failures = evaluate(candidates, images, preprocessing, reference=files[0].name)
                assert not failures, failures
                assert len(found) == len(files)
            times.append((cpu_s() - cpu, time.perf_counter() - clock))
        row = [str(number)]
        for kind, (pure, all_of_it) in enumerate(zip(*times, strict=True)):
            ratios[kind].append(all_of_it / pure)
            row += [f"{pure:.1f}", f"{all_of_it:.1f}", f"{all_of_it / pure:.3f}"]
        table.add_row(*row)
    table.title = f"{len(files)} files, {len(images)} pictures, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    Console(width=120).print(table)
    return [statistics.median(r) for r in ratios]


def make_pictures(folder: Path, n: int) -> None:
    """Write n JPEGs of 48 px, no two of which look alike."""
    for i in range(n):
        coarse = np.random.default_rng(i).integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC).save(folder / f"{i:06}.jpg", quality=80)


def peak_mb(n: int) -> float:
    """Evaluate n made pictures in this process; return its peak."""
    with tempfile.TemporaryDirectory(prefix="edgenet-") as name:
        folder = Path(name)
        (folder / "pictures").mkdir()
        make_pictures(folder / "pictures", n)
        network = network_of(mobilenet_v1(width=0.25))
        a = export_graph(network, network.graph, folder, format="tflite", precision="float32")
        images = open_images(folder / "pictures", [], [])
        (found,), _ = evaluate([Candidate(a.id, folder / a.path)], images, network.preprocessing)
        assert found.n_images == n
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory(counts: Sequence[int]) -> float:
    """Print the peaks for so many pictures, each in a process of its own; return the last by the first."""
    table = Table("pictures", "peak, MB")
    found = []
    for n in counts:
        command = [sys.executable, __file__, "--peak", str(n)]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found.append(json.loads(said))
        table.add_row(f"{n:,}", f"{found[-1]:.0f}")
    Console(width=120).print(table)
    return found[-1] / found[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=Path, nargs="+")
    parser.add_argument("--images", type=Path, default=Path("../shared/imagenet-mini"))
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", default="500,20000")
    parser.add_argument("--peak", type=int, metavar="N", help="measure in this process, and print it as JSON")
    args = parser.parse_args()
    if args.peak:
        print(json.dumps(peak_mb(args.peak)))
        return 0
    grown = memory([int(n) for n in args.memory.split(",")]) if args.memory else 1.0
    cpu, clock = 1.0, 1.0
    if args.rounds:
        cpu, clock = speed(args.files or lite0(args.images), args.images, args.pictures, args.rounds)
    print(f"memory: {grown:.2f} x; CPU: {cpu:.3f} x")
    print(f"evaluate: {clock:.3f} x")
    return 0 if max(cpu, clock) <= BAR and grown <= MEMORY_BAR else 1


if __name__ == "__main__":
    sys.exit(main())
