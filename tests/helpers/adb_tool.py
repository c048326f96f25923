"""What runs on the test device of adb_device.py: `benchmark_model` as its versions are, and `pkill`."""

import contextlib
import hashlib
import json
import os
import random
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any


def benchmark_model(root: Path, arguments: list[str]) -> int:
    """What the pushed program does: reads ROOT/tool.json, prints a log as its version does, writes outputs."""
    tool: dict[str, Any] = json.loads((root / "tool.json").read_text())
    flags = dict(a[2:].partition("=")[::2] for a in arguments if a.startswith("--"))
    with open(root / "calls.jsonl", "a") as f:
        f.write(json.dumps({"flags": flags, "mask": os.environ.get("MASK")}) + "\n")
    (root / "pid").write_text(f"{os.getpid()} {' '.join(arguments)}")
    graph = Path(flags["graph"])
    content = graph.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if content[4:8] != b"TFL3":
        print(f"ERROR: Failed to load model {graph}\nERROR: Benchmarking failed.")
        return 1
    only = tool.get("only")  # faults that hit one file, or one that is called so many times
    n_call = sum(digest in line for line in (root / "calls.jsonl").read_text().splitlines())
    hit = (only is None or digest.startswith(only)) and n_call >= tool.get("from_call", 1)
    if hit and tool.get("sleep_s"):
        time.sleep(tool["sleep_s"])
    text = log(tool, flags, digest, n_call, hit)
    if hit and "cut" in tool:
        text = text[: text.index(tool["cut"])]
    sys.stderr.write(text)
    sys.stderr.flush()
    if hit and tool.get("crash"):
        os.kill(os.getpid(), getattr(signal, tool["crash"]))
    if "output_filepath" in flags and tool["style"] in ("2.16",):
        import site

        site.main()  # it was left out for a fast start
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(graph), num_threads=1)
        interpreter.allocate_tensors()
        (x,) = interpreter.get_input_details()
        source = flags["input_layer_value_files"].split(":")[1]
        shape = [int(n) for n in flags["input_layer_shape"].split(",")]
        import numpy as np

        interpreter.set_tensor(x["index"], np.fromfile(source, x["dtype"]).reshape(shape))
        interpreter.invoke()
        out = b"".join(interpreter.get_tensor(o["index"]).tobytes() for o in interpreter.get_output_details())
        Path(flags["output_filepath"]).write_bytes(out)
    return 1 if "Benchmarking failed" in text else 0


def log(tool: dict[str, Any], flags: dict[str, str], digest: str, n_call: int, hit: bool) -> str:
    """Return a log in the format of a version: 2019, 2021, 2.16 or litert."""
    style = tool["style"]
    base = next((v for k, v in tool["latency_us"].items() if digest.startswith(k)), 10_000.0)
    rng = random.Random(f"{digest} {n_call}")
    us = base * (1 + rng.uniform(-0.002, 0.002)) * (1 + tool.get("drift", 0.0) * n_call)
    runs = max(int(flags["num_runs"]), int(max(float(flags["min_secs"]), 0) * 1e6 / us))
    lead = max(int(flags["warmup_runs"]), int(max(float(flags["warmup_min_secs"]), 0) * 1e6 / us))
    tag = "" if style in ("2019", "2021") else "INFO: "
    verbose = "" if style == "2019" else "INFO: " if style == "2021" else "VERBOSE: "
    asked = next((d for d in ("nnapi", "gpu", "npu") if flags.get(f"use_{d}")), "cpu")
    nodes, total = tool.get("delegates", {}).get(asked, (9, 9)) if hit else (9, 9)
    if style == "2019" and asked == "cpu":
        nodes = 0  # it has TFLite's own kernels only
    name = {"cpu": "XNNPACK", "gpu": "GPU", "nnapi": "NNAPI", "npu": "NPU"}[asked]
    kernel = {
        "cpu": "TfLiteXNNPackDelegate",
        "gpu": "TfLiteGpuDelegateV2",
        "nnapi": "TfLiteNnapiDelegate",
        "npu": "DispatchDelegate",
    }[asked]

    def stats(n: int, scale: float) -> str:
        if n == 0:
            return "count=0"
        if n == 1:
            line = f"count=1 curr={us * scale:.0f}"
            return line + (f" p5={us * scale:.0f} median={us * scale:.0f} p95={us * scale:.0f}" if tag else "")
        line = f"count={n} first={us * 1.3:.0f} curr={us:.0f} min={us * 0.98:.0f} max={us * 1.3:.0f}"
        line += f" avg={us * scale:g} std={us * 0.02:.0f}"
        return line + (f" p5={us * 0.985:.0f} median={us:.0f} p95={us * 1.08:.0f}" if tag else "")

    lines = [f"{tag}STARTING!"]
    known = {"2019": {"report_peak_memory_footprint", "use_xnnpack", "disable_nnapi_cpu"}, "2021": set()}
    no_output = {"output_filepath"} if style != "2.16" else set()
    unknown = (known.get(style, set()) | no_output | set(tool.get("unknown_flags", []))) & set(flags)
    if unknown:
        lines.append(
            f"{tag.replace('INFO', 'WARN')}Unconsumed cmdline flags: "
            + " ".join(f"--{f}={flags[f]}" for f in sorted(unknown))
        )
    lines += [f"{tag}Log parameter values verbosely: [0]", f"{tag}Graph: [{flags['graph']}]"]
    lines += [f"{tag}Loaded model {flags['graph']}"]
    if nodes is not None and style != "2019":
        of = f"{nodes} out of {total}" if tag else f"{nodes}"
        if nodes:
            lines.append(
                f"{verbose}Replacing {of} node(s) with delegate ({kernel}) node, yielding 1 partitions for subgraph 0."
            )
        elif asked == "gpu":
            lines += [
                "ERROR: Following operations are not supported by GPU delegate:",
                "CONV_2D: Operation is not supported.",
            ]
            lines += ["No operations will run on the GPU, and all 9 operations will run on the CPU."]
            lines += ["INFO: Created 0 GPU delegate kernels."]
        if asked == "npu" and hit and tool.get("no_runtime"):  # as LiteRT's says it, after it has replaced them
            lines.append("ERROR: [dispatch_delegate.cc:122] Failed to create a dispatch delegate kernel: No runtime")
        if style != "litert":
            how = "completely" if nodes == total else "partially"
            more = "" if nodes == total else " w/ 1 delegate kernels"
            said = (
                f"Explicitly applied {name} delegate, and the model graph will be {how} executed by the delegate{more}."
            )
            none = (
                f"Though {name} delegate is explicitly applied, the model graph will not be executed by the delegate."
            )
            lines.append(tag + (said if nodes else none))
    lines += [f"{tag}The input model file size (MB): 0.012", f"{tag}Initialized session in 3.337ms."]
    for n, scale, least in ((lead, 1.1, flags["warmup_runs"]), (runs, 1.01, flags["num_runs"])):
        lines += [
            f"{tag}Running benchmark for at least {least} iterations and at least 0.1 seconds but terminate if "
            "exceeding 60 seconds."
        ]
        lines += [tag + stats(n, scale), ""]
    avg = us * 1.01
    if style == "2019":
        lines.append(f"Average inference timings in us: Warmup: {us * 1.1:g}, Init: 3337, no stats: {avg:g}")
    elif style == "litert":
        where = "INFO: [litert/tools/benchmark_litert_model.h:82] "
        lines += [f"{where}", "========== BENCHMARK RESULTS ==========", f"{where}Model initialization: 3.34 ms"]
        lines += [
            f"{where}Inference (avg):      {avg / 1000:.2f} ms ({runs} runs)",
            f"{where}Overall footprint:    11.51 MB",
        ]
    else:
        lines.append(
            f"{tag}Inference timings in us: Init: 3337, First inference: {us * 1.3:.0f}, Warmup (avg): {us * 1.1:g}, "
            f"Inference (avg): {avg:g}"
        )
        what = "Memory footprint delta from the start of the tool" if tag else "Peak memory footprint"
        lines.append(f"{tag}{what} (MB): init=2.5 overall=11.25")
        if "report_peak_memory_footprint" in flags:
            lines.append(f"{tag}Overall peak memory footprint (MB) via periodic monitoring: 19.75")
    if "enable_op_profiling" in flags and style != "litert":
        lines += _profile(tag, kernel, nodes, total, us)
    return "\n".join(lines) + "\n"


def _profile(tag: str, kernel: str, nodes: int | None, total: int, us: float) -> list[str]:
    head = "\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]"

    def row(kind: str, ms: float, name: str) -> str:
        return f"\t{kind:>24}\t{ms:9.3f}\t{ms:9.3f}\t 10.000%\t 10.000%\t    0.000\t        1\t{name}"

    order = "============================== Run Order =============================="
    rows = [row(kernel, us / 1000, "[]:10")] if nodes else []
    rows += [row("CONV_2D", 0.1, f"[left {i}]:{i}") for i in range(total - (nodes or 0))]
    out = [
        f"{tag}Profiling Info for Benchmark Initialization:",
        order,
        head,
        row("AllocateTensors", 2.0, "AllocateTensors/0"),
        "",
    ]
    out += [f"{tag}Operator-wise Profiling Info for Regular Benchmark Runs:", order, head, *rows, ""]
    out += ["============================== Top by Computation Time ==============================", head, *rows, ""]
    out += [
        f"Number of nodes executed: {len(rows)}",
        "Timings (microseconds): count=10 first=3 curr=3 min=3 max=3 avg=3 std=0",
    ]
    if nodes:
        out += [
            "Delegate internal: ",
            order,
            head,
            row("Convolution (NHWC, F32) IGEMM", 0.2, "Delegate/Convolution:0"),
            "",
        ]
    return out


def pkill(root: Path, arguments: list[str]) -> int:
    """End the program that runs here, if the pattern fits it: only ever a process of this phone."""
    pid, _, command = (root / "pid").read_text().partition(" ")
    if arguments[0] == "-f" and re.search(arguments[1], command.replace(str(root), "")):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
        (root / "killed").write_text(pid)
        return 0
    return 1


def main() -> None:
    raise SystemExit({"benchmark_model": benchmark_model, "pkill": pkill}[sys.argv[1]](Path(sys.argv[2]), sys.argv[3:]))
