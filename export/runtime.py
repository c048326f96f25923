"""Load a model file of any format and predict with it: one `Predictor` for LiteRT, onnxruntime and OpenVINO.

This file needs the standard library, NumPy and the one runtime that reads the file, and nothing else of edgenet: it
is also copied to boards and run there, so it keeps to Python 3.9. Every runtime is set to one inference at a time on
`threads` threads, and to compute float32 where the file says float32 (OpenVINO would pick bfloat16 by itself on CPUs
that have it, and change the answers).
"""

from __future__ import annotations

import json
import os
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

# runtime: the suffixes that it reads. The first runtime that lists a suffix is its default.
READS = {
    "litert": (".tflite",),
    "onnxruntime": (".onnx",),
    "openvino": (".xml", ".onnx", ".tflite"),
    "edgetpu": (".tflite",),  # LiteRT with Coral's delegate
}
EDGE_TPU_LIBRARY = "libedgetpu.so.1"
EDGE_TPU_OPERATOR = "edgetpu-custom-op"  # what edgetpu_compiler makes of all that it maps
# Images a call where the file leaves the batch open: keeps the cores busy, and the memory flat.
_MAX_BATCH = 8
_PREFERRED_OUTPUT = "probabilities"


class LoadError(RuntimeError):
    """The file cannot be loaded. The message is one line."""


class MissingRuntime(LoadError):
    """The runtime that reads this file is not installed."""


class Tensor(NamedTuple):
    """An input or output. A dimension that the file leaves open is -1; `scale` is None where nothing is quantized."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int = 0


class Predictor:
    """A loaded model. Not for several threads at once; `predict` uses `threads` threads by itself.

    Attributes:
        runtime, version, delegate: what runs the file; `delegate` is "" where none took over.
        input_shape: as the file has it, -1 where it leaves a dimension open.
        layout: "NHWC" or "NCHW", of the file's input; callers always pass NHWC.
        io_dtype: what the file's input takes: "float32", "uint8", "int8", ...
        outputs, output_names: all outputs; `output` is the one that `predict` returns, the one called `probabilities`
            or else the first.
    """

    def __init__(self, path: str, backend: Any, threads: int) -> None:
        self.path, self.threads, self._backend = path, threads, backend
        self.runtime, self.version, self.delegate = backend.runtime, backend.version, backend.delegate
        self.input: Tensor = backend.input
        self.input_shape, self.io_dtype = self.input.shape, self.input.dtype
        self.layout = _layout(path, self.input_shape, prefer_nhwc=path.endswith(".tflite"))
        self.outputs: list[Tensor] = backend.outputs
        self.output_names = [t.name for t in self.outputs]
        found = _PREFERRED_OUTPUT in self.output_names
        self._output = self.output_names.index(_PREFERRED_OUTPUT) if found else 0
        self.output = self.outputs[self._output]
        self._lanes: queue.SimpleQueue[Any] | None = None
        self._pool: ThreadPoolExecutor | None = None

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width of the input, -1 where the file leaves them open."""
        s = self.input_shape
        return (s[1], s[2]) if self.layout == "NHWC" else (s[2], s[3])

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Return the model's output for a batch of images.

        Args:
            batch: (N, H, W, 3). uint8 raw pixels for a file that takes uint8 or int8 (int8 is pixel - 128), float32
                normalised for one that takes floats. float32 for a quantized TFLite input is rounded to its scale.

        Returns:
            (N, classes) float32, dequantized with the file's own scale and zero point. (onnxruntime and OpenVINO do
            not tell the scale of an integer output: the integers of a file that edgenet did not write are returned.)

        Raises:
            ValueError: the batch is not what the file takes.
        """
        n = len(batch)
        if n == 0:
            self._check(batch)
            return np.zeros((0, max(self.output.shape[-1] if self.output.shape else 0, 0)), np.float32)
        step = self.input_shape[0] if self.input_shape[0] > 0 else min(_MAX_BATCH, n)
        blocks = [batch[i : i + step] for i in range(0, n, step)]
        if self.threads > 1 and len(blocks) > 1:
            return np.concatenate(list(self._in_lanes(blocks)))
        return np.concatenate([self._predict_block(self._backend, b, step) for b in blocks])

    def set_input(self, batch: np.ndarray) -> None:
        """Set what `invoke` computes: (N, H, W, 3) as for `predict`, N the file's batch, or 1 where it is open."""
        self._backend.set_input(self.prepare(batch))

    def invoke(self) -> None:
        """Run the network once on what `set_input` was given: this call is what latency means."""
        self._backend.invoke()

    def prepare(self, batch: np.ndarray) -> np.ndarray:
        """Return `batch` in the layout and the type of the file's input. Raises ValueError."""
        self._check(batch)
        want = np.dtype(self.io_dtype)
        x = batch if self.layout == "NHWC" else batch.transpose(0, 3, 1, 2)
        if batch.dtype == want:
            return np.ascontiguousarray(x)
        if batch.dtype == np.uint8:  # raw pixels for int8: the same step, shifted to start at -128
            return np.ascontiguousarray(x ^ np.uint8(128)).view(np.int8)
        if want.kind == "f":
            return np.ascontiguousarray(x, want)
        limits = np.iinfo(want)
        q = np.rint(x / np.float32(self.input.scale)) + self.input.zero_point
        return np.ascontiguousarray(np.clip(q, limits.min, limits.max).astype(want))

    def close(self) -> None:
        """Give back the threads. The predictor is not usable after."""
        if self._pool is not None:
            self._pool.shutdown()
        self._pool = self._lanes = self._backend = None

    def _check(self, batch: np.ndarray) -> None:
        height, width = self.size_px
        channels = self.input_shape[3 if self.layout == "NHWC" else 1]
        ok = batch.ndim == 4
        for have, want in zip(batch.shape[1:], (height, width, channels)):  # noqa: B905 (Python 3.10 has strict=)
            ok = ok and want in (-1, have)
        if not ok:
            raise ValueError(f"{self.path} takes images of {height} x {width} x {channels}, was given {batch.shape}")
        takes = {self.io_dtype}
        if self.io_dtype == "int8":
            takes.add("uint8")
        if np.dtype(self.io_dtype).kind == "f" or self.input.scale is not None:
            takes.add("float32")
        if batch.dtype.name not in takes:
            raise ValueError(f"{self.path} takes {' or '.join(sorted(takes))}, was given {batch.dtype.name}")

    def _predict_block(self, backend: Any, block: np.ndarray, size: int) -> np.ndarray:
        n = len(block)
        if n < size:  # the last one of a fixed batch: fill it up, and cut the answer
            block = np.concatenate([block, np.repeat(block[-1:], size - n, axis=0)])
        backend.set_input(self.prepare(block))
        backend.invoke()
        out = np.array(backend.get_output(self._output), np.float32).reshape(size, -1)[:n]
        if self.output.scale is not None:
            out = (out - np.float32(self.output.zero_point)) * np.float32(self.output.scale)
        return out

    def _in_lanes(self, blocks: Sequence[np.ndarray]) -> Any:
        # One interpreter of one thread for each core does more images a second than one interpreter of all threads;
        # all three runtimes let go of Python's lock while they compute.
        if self._lanes is None:
            self._lanes = queue.SimpleQueue()
            for lane in self._backend.lanes(self.threads):
                self._lanes.put(lane)
            self._pool = ThreadPoolExecutor(self.threads)
        lanes, size = self._lanes, len(blocks[0])

        def work(block: np.ndarray) -> np.ndarray:
            lane = lanes.get()
            try:
                return self._predict_block(lane, block, size)
            finally:
                lanes.put(lane)

        assert self._pool is not None
        return self._pool.map(work, blocks)


def runtime_for(path: str, runtime: str | None = None) -> str:
    """Return the name of the runtime that reads `path`. Raises LoadError for a suffix or a pair that fits nothing."""
    suffix = os.path.splitext(path)[1].lower()
    able = [name for name, suffixes in READS.items() if suffix in suffixes]
    if runtime is not None and runtime not in READS:
        raise LoadError(f"unknown runtime '{runtime}' (valid: {', '.join(READS)})")
    if not able:
        valid = sorted({s for suffixes in READS.values() for s in suffixes})
        raise LoadError(f"{path} is not a model file that can be run (valid: {', '.join(valid)})")
    if runtime is None:
        return able[0]
    if runtime not in able:
        raise LoadError(f"{runtime} does not read {suffix} files (valid for {path}: {', '.join(able)})")
    return runtime


def import_runtime(path: str, runtime: str | None = None) -> str:
    """Import the runtime that reads `path`, so that loading the model after is only that; return its name.

    Raises MissingRuntime where it is not installed, LoadError where no runtime reads such a file.
    """
    name = runtime_for(path, runtime)
    _IMPORTS[name]()
    return name


def load(path: Any, threads: int = 1, runtime: str | None = None, delegate: str | None = None) -> Predictor:
    """Load a model file.

    Args:
        path: a .tflite, .onnx or OpenVINO .xml file (its .bin beside it).
        threads: threads of one inference; `predict` also uses that many for a batch.
        runtime: one of READS; None takes the format's own.
        delegate: cpu, gpu or npu: the last two are OpenVINO's, where it finds such a device. None is the CPU.

    Raises:
        LoadError: no such file or device, not an image model, or its runtime is missing (MissingRuntime).
    """
    path = os.fspath(path)
    name = runtime_for(path, runtime)
    if not os.path.isfile(path):
        raise LoadError(f"no such file: {path}")
    import_runtime(path, name)
    if delegate not in (None, "cpu", "gpu", "npu"):
        raise LoadError(f"unknown delegate '{delegate}' (valid on this machine: cpu, gpu, npu)")
    try:
        on_device = delegate in ("gpu", "npu")
        backend = _openvino_on(name, str(delegate), path, threads) if on_device else _BACKENDS[name](path, threads)
    except LoadError:
        raise
    except Exception as e:  # each runtime has its own, undocumented set of exceptions
        raise LoadError(f"{name} cannot load {path}: {_reason(e)}") from e
    return Predictor(path, backend, threads)


class _LiteRT:
    runtime = "litert"

    def __init__(self, path: str, threads: int) -> None:
        litert, self.version = _import_litert()
        self._path = path
        self._interpreter = self._load(litert, path, threads)
        self._interpreter.allocate_tensors()
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        _one_input(path, len(inputs))
        self._input_index = inputs[0]["index"]
        self._shape = tuple(int(d) for d in inputs[0]["shape"])
        names = _signature_names(self._interpreter)
        self.input = _litert_tensor(inputs[0], names)
        self.outputs = [_litert_tensor(o, names) for o in outputs]
        self._output_index = [o["index"] for o in outputs]
        self.delegate = _litert_delegate(self._interpreter)

    def _load(self, litert: Any, path: str, threads: int) -> Any:
        return litert.Interpreter(model_path=path, num_threads=threads)

    def lanes(self, n: int) -> list[_LiteRT]:
        return [_LiteRT(self._path, 1) for _ in range(n)]

    def set_input(self, x: np.ndarray) -> None:
        if x.shape != self._shape:  # only where the file leaves the batch or the size open
            self._interpreter.resize_tensor_input(self._input_index, x.shape)
            self._interpreter.allocate_tensors()
            self._shape = x.shape
        self._interpreter.set_tensor(self._input_index, x)

    def invoke(self) -> None:
        self._interpreter.invoke()

    def get_output(self, i: int) -> np.ndarray:
        return np.asarray(self._interpreter.get_tensor(self._output_index[i]))


class _EdgeTpu(_LiteRT):
    runtime = "edgetpu"

    def __init__(self, path: str, threads: int) -> None:
        super().__init__(path, threads)
        self.delegate = "Edge TPU"

    def _load(self, litert: Any, path: str, threads: int) -> Any:
        with open(path, "rb") as f:
            if EDGE_TPU_OPERATOR.encode() not in f.read():  # the delegate would take nothing, without a word
                raise LoadError(f"{path} is not compiled for the Edge TPU: run edgetpu_compiler on it")
        try:
            delegate = litert.load_delegate(EDGE_TPU_LIBRARY)
        except (OSError, ValueError) as e:
            raise LoadError(f"{EDGE_TPU_LIBRARY} does not load, or finds no Edge TPU ({_reason(e)})") from None
        return litert.Interpreter(model_path=path, num_threads=threads, experimental_delegates=[delegate])

    def lanes(self, n: int) -> list[_LiteRT]:
        return [self]  # there is one stick


class _OnnxRuntime:
    runtime = "onnxruntime"

    def __init__(self, path: str, threads: int) -> None:
        self.version, self.delegate, self._path = _import_onnxruntime().__version__, "", path
        self._session = session = self._open(path, threads)
        _one_input(path, len(session.get_inputs()))
        self.input, said = _onnx_tensor(session.get_inputs()[0]), session.get_modelmeta().custom_metadata_map
        self.outputs = [_with_scale(_onnx_tensor(o), said.get("edgenet", "")) for o in session.get_outputs()]
        self._names = [o.name for o in self.outputs]
        self._feed, self._results = dict[str, np.ndarray](), list[np.ndarray]()

    def _open(self, path: str, threads: int) -> Any:
        ort = _import_onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def lanes(self, n: int) -> list[_OnnxRuntime]:
        return [_OnnxRuntime(self._path, 1) for _ in range(n)]

    def set_input(self, x: np.ndarray) -> None:
        self._feed = {self.input.name: x}

    def invoke(self) -> None:
        self._results = self._session.run(self._names, self._feed)

    def get_output(self, i: int) -> np.ndarray:
        return np.asarray(self._results[i])


def openvino_devices() -> list[str]:
    """Return the kinds of processor that OpenVINO finds here, as delegates: cpu, gpu, npu. Raises MissingRuntime."""
    return sorted({d.partition(".")[0].lower() for d in _import_openvino().Core().available_devices})


def _openvino_on(runtime: str, delegate: str, path: str, threads: int) -> _OpenVINO:
    if runtime != "openvino":
        raise LoadError(f"delegate {delegate} is OpenVINO's on this machine: add --runtime openvino")
    if delegate not in openvino_devices():
        raise LoadError(f"OpenVINO finds no {delegate.upper()} here (valid: {', '.join(openvino_devices())})")
    return _OpenVINO(path, threads, device=delegate.upper())


class _OpenVINO:
    runtime = "openvino"

    def __init__(self, path: str, threads: int, compiled: Any = None, device: str = "CPU") -> None:
        ov = _import_openvino()
        self.version, self._device, self.delegate = ov.__version__, device, "" if device == "CPU" else device
        self._ov, self._path, self._said = ov, path, ""
        self._compiled = compiled or self._compile("LATENCY", threads, streams=1)
        _one_input(path, len(self._compiled.inputs))
        self.input = _openvino_tensor(self._compiled.inputs[0])
        self.outputs = [_with_scale(_openvino_tensor(o), self._said) for o in self._compiled.outputs]
        self._request = self._compiled.create_infer_request()

    def _compile(self, hint: str, threads: int, streams: int) -> Any:
        settings: dict[str, Any] = {"PERFORMANCE_HINT": hint}
        if self._device == "CPU":
            settings |= {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": streams, "INFERENCE_PRECISION_HINT": "f32"}
        core = self._ov.Core()
        model = core.read_model(self._path)
        self._said = model.get_rt_info("edgenet").astype(str) if model.has_rt_info("edgenet") else ""
        return core.compile_model(model, self._device, settings)

    def lanes(self, n: int) -> list[_OpenVINO]:
        # Streams of one compiled model, which it spreads over the cores: several models could pin the same core.
        compiled = self._compile("THROUGHPUT", n, streams=n)
        return [_OpenVINO(self._path, n, compiled, self._device) for _ in range(n)]

    def set_input(self, x: np.ndarray) -> None:
        self._request.set_input_tensor(self._ov.Tensor(x, shared_memory=False))

    def invoke(self) -> None:
        self._request.infer(share_outputs=True)

    def get_output(self, i: int) -> np.ndarray:
        return np.array(self._request.get_output_tensor(i).data)


def _import_litert() -> tuple[Any, str]:
    """Return the module with `Interpreter` and `load_delegate`, of either package, and the package's version."""
    from importlib.metadata import version

    try:
        from ai_edge_litert import interpreter

        return interpreter, version("ai-edge-litert")
    except ImportError:
        pass
    try:
        from tflite_runtime import interpreter
    except ImportError:
        raise _missing(".tflite", "ai-edge-litert (or tflite-runtime)", "tflite") from None
    return interpreter, version("tflite-runtime")


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise _missing(".onnx", "onnxruntime", "onnx") from None
    return onnxruntime


def _import_openvino() -> Any:
    try:
        import openvino
    except ImportError:
        raise _missing("OpenVINO", "openvino", "openvino") from None
    return openvino


_IMPORTS: dict[str, Callable[[], Any]] = {
    "litert": _import_litert, "edgetpu": _import_litert, "onnxruntime": _import_onnxruntime,
    "openvino": _import_openvino,
}  # fmt: skip
_BACKENDS: dict[str, Callable[[str, int], Any]] = {
    "litert": _LiteRT, "onnxruntime": _OnnxRuntime, "openvino": _OpenVINO, "edgetpu": _EdgeTpu,
}  # fmt: skip


def _missing(files: str, package: str, extra: str) -> MissingRuntime:
    message = f"running {files} files needs {package}, which is not installed: pip install 'edgenet[{extra}]'"
    return MissingRuntime(message)


def _one_input(path: str, n: int) -> None:
    if n != 1:
        raise LoadError(f"{path} takes {n} inputs; an image classifier takes one")


def _layout(path: str, shape: tuple[int, ...], prefer_nhwc: bool) -> str:
    if len(shape) == 4:
        nhwc, nchw = (shape[axis] in (1, 3, 4) for axis in (3, 1))  # grey, RGB or RGBA
        if nhwc or nchw:
            return "NHWC" if nhwc and (prefer_nhwc or not nchw) else "NCHW"
    raise LoadError(f"{path} takes an input of shape {shape}, which is no image: (N, H, W, 3) or (N, 3, H, W) is")


def _signature_names(interpreter: Any) -> dict[int, str]:
    """Return tensor index -> the name in the file's signature, which is what users see; empty without one."""
    try:
        signatures = interpreter.get_signature_list()
        if not signatures:
            return {}
        runner = interpreter.get_signature_runner(next(iter(signatures)))
        tensors = [*runner.get_input_details().items(), *runner.get_output_details().items()]
    except (AttributeError, KeyError, ValueError):  # old tflite-runtime, or a signature of another subgraph
        return {}
    return {int(d["index"]): str(name) for name, d in tensors}


def _litert_tensor(detail: dict[str, Any], names: dict[int, str]) -> Tensor:
    q = detail["quantization_parameters"]
    shape = tuple(int(d) for d in detail.get("shape_signature", detail["shape"]))
    name = names.get(int(detail["index"]), detail["name"])
    dtype = np.dtype(detail["dtype"]).name
    if len(q["scales"]) and np.dtype(dtype).kind in "iu":
        return Tensor(name, shape, dtype, float(q["scales"][0]), int(q["zero_points"][0]))
    return Tensor(name, shape, dtype)


def _litert_delegate(interpreter: Any) -> str:
    try:
        ops = [op["op_name"] for op in interpreter._get_ops_details()]
    except Exception:  # a private method: without it the delegate is not told, and nothing else is lost
        return ""
    return "XNNPACK" if "DELEGATE" in ops else ""


_ONNX_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}


def _onnx_tensor(arg: Any) -> Tensor:
    dtype = _ONNX_DTYPES.get(arg.type, arg.type[len("tensor(") : -1])
    return Tensor(arg.name, tuple(d if isinstance(d, int) else -1 for d in arg.shape), dtype)


def _with_scale(t: Tensor, said: str) -> Tensor:
    """Add the scale of an integer output, which these runtimes do not tell, from what edgenet noted in the file."""
    try:
        noted = json.loads(said)["output_scales"][t.name]
    except (ValueError, KeyError, TypeError):
        return t
    return t._replace(scale=float(noted[0]), zero_point=int(noted[1]))


def _openvino_tensor(port: Any) -> Tensor:
    names = sorted(port.get_names())
    shape = tuple(d.get_length() if d.is_static else -1 for d in port.get_partial_shape())
    name = _PREFERRED_OUTPUT if _PREFERRED_OUTPUT in names else names[0] if names else port.get_node().friendly_name
    return Tensor(name, shape, np.dtype(port.get_element_type().to_dtype()).name)


def _reason(e: BaseException) -> str:
    """Return what an exception says as one line, without the source positions that OpenVINO puts in front."""
    lines = [line.strip() for line in str(e).splitlines()]
    lines = [line for line in lines if line and not line.startswith(("Exception from ", "Check '"))]
    return " ".join(lines)[:300] or "no reason told"
