"""What INT8 and int16x8 cost on many architectures: the table of docs/networks.md.

    python benchmarks/train_networks.py --out NETS           the networks, once
    python benchmarks/architectures.py --nets NETS [--networks resnet18,...] [--shared ../shared]

Each NETS/NAME.onnx is measured as benchmarks/networks.py measures (the same files of edgenet and of the vendors' tools
in one run, SQNR of the logits of the median picture against float32): 100 pictures of NETS/flowers/train calibrate,
those of NETS/flowers/test measure. NETWORKS of benchmarks/networks.py come too, with 200 pictures. What was measured of
a network is in NETS/results/NAME.json and is not measured again while the file stands; a tool that fails, and a network
that edgenet refuses, are kept with what was said. The table is printed from all that is there.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networks
import numpy as np
import vendors
from networks import (
    MIN_DB,
    N_CALIBRATION,
    Made,
    VendorFile,
    answer,
    make_ours,
    measure,
    picture_db,
    source_answers,
    timed,
    vendors_files,
    without_softmax,
)
from train_networks import N_CLASSES, RECIPES

from edgenet.calibration import SharedCalibration
from edgenet.errors import EdgenetError
from edgenet.export import Network, export_graph, find_source
from edgenet.files import atomic_write
from edgenet.images import limit, load_pixels, normalise, open_images

N_PICTURES = 200
BEHIND_DB, BETTER_DB = networks.MAX_BEHIND_DB, networks.BETTER_DB
FORMATS = ("tflite", "onnx", "openvino")
VENDORS = ("nncf", "nncf, for accuracy", "quantize_static u8s8", "ai-edge-quantizer")
SIXTEEN = "quantize_static u16s8"
HEADINGS = (
    "network", "px", "top-1", "float32 against the file", "int8: TFLite / ONNX / OpenVINO", *VENDORS, "lead",
    "int16x8: TFLite / ONNX / OpenVINO", SIXTEEN, "over int8",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A network to measure: a row of the table.

    Attributes:
        model: a file, or a name of edgenet's zoo.
        calibration: folder whose pictures calibrate; it is split where `evaluation` is None.
        n_classes: of the folders' names 000, 001, ...; None: the model knows its classes.
    """

    name: str
    model: str
    preprocess: str | None
    calibration: Path
    evaluation: Path | None
    n_classes: int | None


def cases(nets: Path, shared: Path) -> list[Case]:
    """Return the rows that can be measured: those of networks.py, and each trained network that is there."""
    made = [
        Case(name, str(shared / row.model) if row.model.endswith(".onnx") else row.model, row.preprocess,
             shared / row.calibration, shared / row.evaluation if row.evaluation else None, None)
        for name, row in networks.NETWORKS.items()
    ]  # fmt: skip
    folder = nets / "flowers"
    for name in RECIPES:
        path = nets / f"{name}.onnx"
        if path.exists():
            made.append(Case(name, str(path), "torch crop=0", folder / "train", folder / "test", N_CLASSES))
    return made


def opened(case: Case, source: Any, n: int) -> tuple[Any, Any]:
    """Return the pictures that calibrate, and those that measure."""
    if case.n_classes is None:
        row = networks.NETWORKS[case.name]
        return networks.pictures_of(row, case.calibration.parents[row.calibration.count("/")], source, n)
    names = [f"{i:03d}" for i in range(case.n_classes)]
    assert case.evaluation is not None
    calibration, evaluation = (open_images(folder, names, names) for folder in (case.calibration, case.evaluation))
    return limit(calibration, N_CALIBRATION), limit(evaluation, n)


def written(files: list[VendorFile]) -> tuple[list[Made], dict[str, str]]:
    """Return the vendors' files, and of each tool that failed what it said."""
    made, failures = [], {}
    for tool, format, precision, write in files:
        try:
            made.append(Made(tool, format, precision, *timed(write)))
        except Exception as e:  # whatever it is: it is the tool's, and the row says it
            failures[tool] = one_line(e)
    return made, failures


def one_line(e: BaseException) -> str:
    """Return an exception as one short line."""
    return f"{type(e).__name__}: {' '.join(str(e).split())}"[:200]


def of(case: Case, n: int, known: dict[str, Any], again: tuple[str, ...]) -> dict[str, Any]:
    """Measure a network; return what its file in results/ holds. `known`: what it holds, if only `again` are wanted."""
    task = "classes" if case.model.endswith(".onnx") else "auto"  # SqueezeNet of 20 classes looks like an embedding
    source = find_source(case.model, preprocess=case.preprocess, task=task)
    calibration, evaluation = opened(case, source, n)
    calibrating, pixels = (load_pixels(images, source.preprocessing, 1) for images in (calibration, evaluation))
    labels = np.array(evaluation.labels)
    with vendors.silence():
        network: Network = source.network()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        floating = out / export_graph(network, network.graph, out, format="tflite", precision="float32").path
        reference = answer(floating, pixels, network)
        against_file = None
        if case.model.endswith(".onnx"):
            against_file = float(np.median(picture_db(reference, source_answers(Path(case.model), pixels, network))))
        x = normalise(calibrating, source.preprocessing)
        wanted = [v for v in vendors_files(without_softmax(network, out), x, out) if not again or v[0] in again]
        made, failures = written(wanted)
        if not again or "edgenet" in again:
            made += make_ours(
                SharedCalibration(network, calibrating, calibration.fingerprint), network, out, tuple(MIN_DB)
            )
        rows, refused = measured(made, pixels, network, reference, labels)
    kept = [row for row in known.get("rows", ()) if row["tool"] not in again]
    failed = {t: e for t, e in known.get("failures", {}).items() if t not in again}
    return {
        "size_px": list(source.preprocessing.size_px), "classes": reference.shape[1], "n": len(labels),
        "top1": float((reference.argmax(1) == labels).mean()), "source_db": against_file, "rows": [*rows, *kept],
        "failures": {**failures, **refused, **failed},
    }  # fmt: skip


def measured(
    files: list[Made], pixels: np.ndarray, network: Network, reference: np.ndarray, labels: np.ndarray
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return a row a file, and of each vendor's tool whose file no runtime takes what was said."""
    rows, refused = [], {}
    for made in files:
        slow = made.format == "tflite" and made.precision == "int16x8"
        try:
            y = answer(made.path, pixels[: networks.SLOW_PICTURES] if slow else pixels, network)
        except EdgenetError as e:
            if made.ours:
                raise
            refused[made.tool] = one_line(e)
            continue
        m = measure(made, y, reference, labels)
        rows.append(
            {"tool": made.tool, "format": made.format, "precision": made.precision, "n": m.n, "median_db": m.median_db,
             "whole_db": m.whole_db, "agreement": m.agreement, "drop": m.drop}
        )  # fmt: skip
    return rows, refused


def best_of(result: dict[str, Any], precision: str, tools: tuple[str, ...]) -> dict[str, float]:
    """Return the median dB of the files of some tools, by "tool" for vendors and by format for edgenet."""
    ours = tools == ("edgenet",)
    return {
        r["format"] if ours else r["tool"]: r["median_db"]
        for r in result["rows"]
        if r["precision"] == precision and r["tool"] in tools
    }


def line(name: str, result: dict[str, Any]) -> tuple[str, bool | None, bool | None]:
    """Return a row of the table, whether INT8 is first or close to it, and whether 16 bits are 6 dB better."""
    if "refused" in result:
        return f"| {name} | refused: {result['refused']} |", None, None
    eight, sixteen = best_of(result, "int8", ("edgenet",)), best_of(result, "int16x8", ("edgenet",))
    theirs = best_of(result, "int8", VENDORS)
    lead = min(eight.values()) - max(theirs.values())
    better = min(sixteen[f] - eight[f] for f in FORMATS)
    own = "" if result["source_db"] is None else f"{result['source_db']:.0f}"
    cells = [
        name, "x".join(dict.fromkeys(str(s) for s in result["size_px"])), f"{100 * result['top1']:.0f} %", own,
        " / ".join(f"{eight[f]:.1f}" for f in FORMATS),
        *(f"{theirs[t]:.1f}" if t in theirs else "fails" for t in VENDORS), f"{lead:+.1f}",
        " / ".join(f"{sixteen[f]:.1f}" for f in FORMATS),
        *(f"{x:.1f}" for x in best_of(result, "int16x8", (SIXTEEN,)).values()),
        f"{better:+.1f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |", lead >= -BEHIND_DB, better >= BETTER_DB


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", type=Path, required=True, help="folder that train_networks.py filled")
    parser.add_argument("--networks", help="some of them, with commas between")
    parser.add_argument("--limit", type=int, default=N_PICTURES, help="pictures to measure on")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--again", default="", help="tools to measure again, with semicolons between")
    parser.add_argument("--show", action="store_true", help="measure nothing, print what is there")
    args = parser.parse_args()
    results = args.nets / "results"
    results.mkdir(exist_ok=True)
    wanted = args.networks.split(",") if args.networks else None
    again = tuple(tool for tool in args.again.split(";") if tool)
    for case in cases(args.nets, args.shared):
        path = results / f"{case.name}.json"
        if args.show or (path.exists() and not again) or (wanted is not None and case.name not in wanted):
            continue
        known = json.loads(path.read_text()) if path.exists() else {}
        try:
            result = of(case, args.limit, known, again if known else ())
        except EdgenetError as e:
            result = {"refused": one_line(e)}
        with atomic_write(path) as part:
            part.write_text(json.dumps(result, indent=1))
        print(line(case.name, result)[0], flush=True)
    return show(results)


def show(results: Path) -> int:
    """Print the table of what is there; return 0 where the bars hold."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))}
    print(f"| {' | '.join(HEADINGS)} |")
    print(f"|{'---|' * len(HEADINGS)}")
    lines = [line(name, result) for name, result in found.items()]
    print("\n".join(text for text, _, _ in lines))
    judged = [(first, better) for _, first, better in lines if first is not None]
    n_first, n_better = sum(f for f, _ in judged if f), sum(b for _, b in judged if b)
    print(f"\nint8 first or within {BEHIND_DB} dB of it: {n_first} of {len(judged)}")
    print(f"int16x8 at least {BETTER_DB:.0f} dB better than int8: {n_better} of {len(judged)}")
    return 0 if judged and n_first >= 0.9 * len(judged) and n_better == len(judged) else 1


if __name__ == "__main__":
    sys.exit(main())
