"""What each operator of a file takes on this machine, and what the machine could do: measured in a child process.

OpenVINO and onnxruntime have a profiler. LiteRT's Python interpreter has none: there every operator runs as a file of
its own, one after another on each other's outputs, so that the caches see what they see in the network.

`measure` is the parent's side; as a program (`python -m edgenet.device_bench.operator_times`) this module is the child.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.device_bench.roofline import limits
from edgenet.device_bench.tool import run_tool
from edgenet.errors import EdgenetError
from edgenet.export.graph import Graph, Op, multiply_adds
from edgenet.export.runtime import LoadError, load, runtime_for
from edgenet.export.tflite_file import read_tflite, write_tflite
from edgenet.sandbox.policy import Policy, confine

BUILT_IN = "built-in"  # a kernel of LiteRT's own, which the delegate did not take
_MIN_ROUNDS, _MAX_ROUNDS, _MIN_S, _WARM_UP = 20, 500, 1.0, 3
_PRODUCT_RUNS = 500
_TIMEOUT_S = 300.0
Row = dict[str, Any]  # fields of results.Layer


def measure(path: Path, threads: int, runtime: str | None, cores: Sequence[int] = ()) -> dict[str, Any]:
    """Return {"runtime", "how", "layers", "multiply_adds_per_s", "copy_bytes", "copy_bytes_per_s"}: `Explanation`'s.

    Raises:
        DeviceError: the child crashed, hung, or the runtime cannot profile this file; it says why.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "profile.json"
        command = [
            sys.executable,
            "-P",
            "-m",
            __name__,
            str(path.resolve()),
            "--out",
            str(out),
            "--threads",
            str(threads),
        ]
        command += ["--runtime", runtime_for(str(path), runtime)]
        if cores:
            command += ["--cores", ",".join(map(str, cores))]
        run_tool(f"profiling {path}", command, _TIMEOUT_S)
        found: dict[str, Any] = json.loads(out.read_text())
        return found


# ------------------------------------------------------------------------------------------------------------- LiteRT


def _litert(path: str, threads: int) -> dict[str, Any]:
    from ai_edge_litert.interpreter import Interpreter

    def interpreter(model: bytes) -> Any:
        made = Interpreter(model_content=model, num_threads=threads)
        made.allocate_tensors()
        return made

    graph = read_tflite(Path(path).read_bytes())
    steps = [_Step(graph, op, before, interpreter) for op, before in alone(graph)]
    values = {name: _numbers(graph.tensors[name].shape, graph.tensors[name].dtype) for name in graph.inputs}
    samples: list[list[float]] = [[] for _ in steps]

    def parts() -> None:
        for step, found in zip(steps, samples, strict=True):
            found.append(step.run(values))

    _again_and_again(parts)
    rows = [
        _row(step.op.outputs[0], step.op.kind, arithmetic(graph, step.op), step.kernel, _median(us),
             multiply_adds(graph, step.op), moved_bytes(graph, step.op))
        for step, us in zip(steps, samples, strict=True)
    ]  # fmt: skip
    peaks = {}
    for name in ("float32", "int8"):
        model, x = limits.product_tflite(name)
        product = interpreter(model)
        product.set_tensor(product.get_input_details()[0]["index"], x)
        peaks[name] = limits.MULTIPLY_ADDS / limits.fastest_us(product.invoke) * 1e6
    how = "each operator as a file of its own, one after another"
    return {"how": how, "layers": rows, "multiply_adds_per_s": peaks}


class _Step:
    """One operator as a file of its own."""

    def __init__(self, graph: Graph, op: Op, before: Sequence[Op], interpreter: Callable[[bytes], Any]) -> None:
        self.op = op
        made = {out for o in before for out in o.outputs}
        self.fed = tuple(dict.fromkeys(n for n in op.inputs if n and n not in made and graph.constant(n) is None))
        self.made = op.outputs
        one = Graph(op.kind, graph.tensors, (*before, op), self.fed, self.made)
        self._interpreter = interpreter(write_tflite(one, signature=None))
        self._in = [d["index"] for d in self._interpreter.get_input_details()]
        self._out = [d["index"] for d in self._interpreter.get_output_details()]
        kinds = {o["op_name"] for o in self._interpreter._get_ops_details()}
        self.kernel = "XNNPACK" if "DELEGATE" in kinds else BUILT_IN

    def run(self, values: dict[str, np.ndarray]) -> float:
        """Compute the outputs into `values`; return what the operator alone took, in microseconds."""
        for index, name in zip(self._in, self.fed, strict=True):
            self._interpreter.set_tensor(index, values[name])
        before = time.perf_counter_ns()
        self._interpreter.invoke()
        took = (time.perf_counter_ns() - before) / 1e3
        for index, name in zip(self._out, self.made, strict=True):
            values[name] = self._interpreter.get_tensor(index)
        return took


def alone(graph: Graph) -> list[tuple[Op, tuple[Op, ...]]]:
    """Return each operator that computes something at run time, with those before it that only unpack its constants."""
    constant: dict[str, tuple[Op, ...]] = {}  # tensor that only depends on constants -> what makes it
    found = []
    for op in graph.ops:
        inputs = [n for n in op.inputs if n]
        before: list[Op] = []
        for o in (o for n in inputs for o in constant.get(n, ())):
            if o not in before:
                before.append(o)
        if all(n in constant or graph.constant(n) is not None for n in inputs):
            constant.update(dict.fromkeys(op.outputs, (*before, op)))
        else:
            found.append((op, tuple(before)))
    return found


def moved_bytes(graph: Graph, op: Op) -> int:
    """Return the bytes that an operator has to read and to write at least: inputs, weights and outputs, each once."""
    names = dict.fromkeys(n for n in (*op.inputs, *op.outputs) if n)
    return sum(_count(graph.tensors[n].shape) * np.dtype(graph.tensors[n].dtype).itemsize for n in names)


def arithmetic(graph: Graph, op: Op) -> str:
    """Return "int8" where the products are of 8-bit weights, "float32" where they are of floats."""
    weights = [graph.tensors[n].dtype for n in op.inputs[:2] if n]
    return "int8" if weights and weights[-1] in ("int8", "uint8", "int16") else "float32"


# ----------------------------------------------------------------------------------------------------------- OpenVINO


def _openvino(path: str, threads: int) -> dict[str, Any]:
    import openvino as ov

    core = ov.Core()
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1,
                "INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": True}  # fmt: skip

    def request(model: Any) -> tuple[Any, Any]:
        compiled = core.compile_model(model, "CPU", settings)
        made = compiled.create_infer_request()
        port = compiled.inputs[0]
        made.set_input_tensor(ov.Tensor(_numbers(_static(port.get_partial_shape()), port.element_type.to_dtype().name)))
        return compiled, made

    compiled, profiled = request(core.read_model(path))
    samples: dict[str, list[float]] = {}

    def parts() -> None:
        profiled.infer()
        for p in profiled.get_profiling_info():
            if p.status == ov.ProfilingInfo.Status.EXECUTED:
                samples.setdefault(p.node_name, []).append(p.real_time.total_seconds() * 1e6)

    _again_and_again(parts)
    nodes = {n.get_friendly_name(): n for n in compiled.get_runtime_model().get_ops()}
    rows = [_openvino_row(nodes[name], _median(us)) for name, us in samples.items() if name in nodes]
    peaks = {}
    for name in ("float32", "int8"):
        _, product = request(_openvino_product(name))
        peaks[name] = limits.MULTIPLY_ADDS / _openvino_product_us(product) * 1e6
    return {"how": "OpenVINO's profiler", "layers": rows, "multiply_adds_per_s": peaks}


def _openvino_row(node: Any, us: float) -> Row:
    said = {k: str(v.value if hasattr(v, "value") else v) for k, v in node.get_rt_info().items()}
    inputs = [(_static(i.get_partial_shape()), i.get_element_type()) for i in node.inputs()]
    outputs = [(_static(o.get_partial_shape()), o.get_element_type()) for o in node.outputs()]
    kind, weights = said["layerType"], inputs[1][0] if len(inputs) > 1 else ()
    if kind == "Convolution" and len(weights) == 5:  # (G, O, I, H, W)
        kind = "GroupConvolution"
    skipped = {"Convolution": 1, "FullyConnected": 1, "GroupConvolution": 2}.get(kind)  # dimensions of the filters
    adds = 0 if skipped is None else _count(outputs[0][0]) * _count(weights[skipped:])
    moved = sum(_count(shape) * (t.bitwidth // 8 if t.is_static() else 0) for shape, t in (*inputs, *outputs))
    integer = said["primitiveType"].upper().endswith("I8")
    # It is made of several of the file's layers. The last one gives the output its name, the same in all formats.
    names = [n for n in said["originalLayersNames"].split(",") if n]
    name = names[-1].removesuffix("/fq") if names else node.get_friendly_name()
    return _row(name, kind, "int8" if integer else "float32", said["primitiveType"], us, adds, moved)


def _openvino_product(arithmetic: str) -> Any:
    import openvino as ov
    from openvino import opset13 as ops

    weights, x = limits.product_weights()
    w = np.ascontiguousarray(weights.transpose(0, 3, 1, 2))  # (N, K, 1, 1)
    data = ops.parameter([1, x.shape[3], *x.shape[1:3]], np.float32)
    a, b = data, ops.constant(w)
    if arithmetic == "int8":
        span = np.float32(1.27)
        a = ops.fake_quantize(a, np.float32(-1.28), span, np.float32(-1.28), span, 256)
        b = ops.fake_quantize(b, -span, span, -span, span, 255)
    y = ops.convolution(a, b, [1, 1], [0, 0], [0, 0], [1, 1])
    return ov.Model([y], [data], "product")


def _openvino_product_us(request: Any) -> float:
    """Return the time of the convolution alone, without the quantizing of its input."""
    samples = []
    for _ in range(_PRODUCT_RUNS):
        request.infer()
        times = [p.real_time.total_seconds() for p in request.get_profiling_info() if p.node_type == "Convolution"]
        samples.append(sum(times) * 1e6)
    return statistics.quantiles(samples, n=10)[0]


def _static(shape: Any) -> tuple[int, ...]:
    return tuple(d.get_length() if d.is_static else 1 for d in shape)


# -------------------------------------------------------------------------------------------------------- onnxruntime


def _onnxruntime(path: str, threads: int) -> dict[str, Any]:
    import onnx
    import onnxruntime as ort

    def session(model: Any, **settings: Any) -> tuple[Any, Callable[[], Any]]:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        for name, value in settings.items():
            setattr(options, name, value)
        made = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        port = made.get_inputs()[0]
        dtype = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(int8)": "int8"}[port.type]
        feed = {port.name: _numbers(tuple(d if isinstance(d, int) else 1 for d in port.shape), dtype)}
        return made, lambda: made.run(None, feed)

    with tempfile.TemporaryDirectory() as folder:
        optimized = os.path.join(folder, "optimized.onnx")  # the profile leaves out the weights' shapes; it has them
        prefix = os.path.join(folder, "profile")
        profiled, run = session(
            path, enable_profiling=True, profile_file_prefix=prefix, optimized_model_filepath=optimized
        )
        _again_and_again(run)
        events = json.loads(Path(profiled.end_profiling()).read_text())
        graph = onnx.load(optimized).graph
    constants = {t.name: tuple(t.dims) for t in graph.initializer}
    weights = {n.name: [constants[i] for i in n.input if len(constants.get(i, ())) > 1] for n in graph.node}
    samples: dict[str, list[float]] = {}
    said: dict[str, Any] = {}
    for e in events:
        if e.get("cat") == "Node" and e["name"].endswith("_kernel_time"):
            name = e["name"].removesuffix("_kernel_time")
            samples.setdefault(name, []).append(float(e["dur"]))
            said[name] = e["args"]
    rows = [_onnx_row(n, said[n], weights.get(n, []), _median(us)) for n, us in samples.items()]
    peaks = {}
    for name in ("float32", "int8"):
        _, product = session(_onnx_product(name))
        peaks[name] = limits.MULTIPLY_ADDS / limits.fastest_us(product) * 1e6
    return {"how": "onnxruntime's profiler", "layers": rows, "multiply_adds_per_s": peaks}


def _onnx_row(name: str, said: Mapping[str, Any], weights: Sequence[tuple[int, ...]], us: float) -> Row:
    kind = said["op_name"]
    inputs, outputs = ([next(iter(t.items())) for t in said[k]] for k in ("input_type_shape", "output_type_shape"))
    adds = 0
    if weights and ("Conv" in kind or "Gemm" in kind or "MatMul" in kind):
        w = weights[0]
        depthwise = len(w) == 4 and w[1] == 1 and w[0] > 1
        kind += " (depthwise)" if depthwise else ""
        adds = _count(outputs[0][1]) * (_count(w[1:]) if len(w) == 4 else _count(w) // outputs[0][1][-1])
    moved = sum(int(said.get(k) or 0) for k in ("activation_size", "parameter_size", "output_size"))
    listed = sum(_count(w) for w in weights)
    integer = any(t in ("int8", "uint8") for t, _ in (*inputs, *outputs))
    if int(said.get("parameter_size") or 0) < listed:  # packed weights are not counted there
        moved += listed * (1 if integer else 4)
    return _row(name, kind, "int8" if integer else "float32", "", us, adds, moved)  # it does not name its kernels


def _onnx_product(arithmetic: str) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    weights, x = limits.product_weights()
    w = np.ascontiguousarray(weights.transpose(0, 3, 1, 2))  # (N, K, 1, 1)
    dtype = TensorProto.FLOAT if arithmetic == "float32" else TensorProto.UINT8
    data = helper.make_tensor_value_info("x", dtype, [1, x.shape[3], *x.shape[1:3]])
    made = helper.make_tensor_value_info("y", dtype, [1, w.shape[0], *x.shape[1:3]])
    constants: dict[str, Any] = {"w": w}
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    if arithmetic == "int8":
        constants = {"s": np.float32(0.01), "zx": np.uint8(128), "zw": np.int8(0), "so": np.float32(0.1),
                     "w": np.rint(w * 100).astype(np.int8)}  # fmt: skip
        node = helper.make_node("QLinearConv", ["x", "s", "zx", "w", "s", "zw", "so", "zx"], ["y"])
    initializers = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph([node], "product", [data], [made], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


# ------------------------------------------------------------------------------------------------------------- shared


def _again_and_again(run: Callable[[], object]) -> None:
    """Run the network often enough for medians; the first runs, `_WARM_UP`, do not count."""
    start = time.perf_counter()
    rounds = 0
    while rounds < _MIN_ROUNDS + _WARM_UP or (rounds < _MAX_ROUNDS and time.perf_counter() - start < _MIN_S):
        run()
        rounds += 1


def _median(samples_us: Sequence[float]) -> float:
    return statistics.median(samples_us[_WARM_UP:])


def _row(name: str, kind: str, arithmetic: str, kernel: str, us: float, adds: int, moved: int) -> Row:
    return {"name": name, "kind": kind, "arithmetic": arithmetic, "kernel": kernel, "time_us": us,
            "multiply_adds": adds, "moved_bytes": moved}  # fmt: skip


def _numbers(shape: Sequence[int], dtype: str) -> np.ndarray:
    """Return made input: never zeros, which some kernels compute faster."""
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return rng.uniform(-1, 1, tuple(shape)).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(max(info.min, -100), min(info.max, 100), tuple(shape)).astype(dtype)


def _count(shape: Sequence[int]) -> int:
    return int(np.prod(shape, dtype=np.int64))


_PROFILERS: dict[str, Callable[[str, int], dict[str, Any]]] = {
    "litert": _litert,
    "openvino": _openvino,
    "onnxruntime": _onnxruntime,
}
PROFILED = tuple(_PROFILERS)


def main() -> None:
    """Profile one file and write what was found as JSON."""
    parser = argparse.ArgumentParser(description="time each operator of a model file")
    parser.add_argument("file")
    parser.add_argument("--out", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runtime", required=True, choices=sorted(_PROFILERS))
    parser.add_argument("--cores")
    args = parser.parse_args()
    if args.cores:
        os.sched_setaffinity(0, [int(c) for c in args.cores.split(",")])
    tempfile.tempdir = os.path.dirname(args.out)
    confine(Policy(writes_in=tempfile.tempdir, file_bytes=None, open_files=4096))  # whatever the file holds
    try:
        load(args.file, args.threads, args.runtime).close()  # what cannot be loaded is said as everywhere
        found = _PROFILERS[args.runtime](args.file, args.threads)
    except (EdgenetError, LoadError) as e:
        raise SystemExit(str(e)) from None
    rates = limits.copy_rates(args.threads)
    found |= {"runtime": args.runtime, "copy_bytes": list(limits.COPY_BYTES), "copy_bytes_per_s": rates}
    Path(args.out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
