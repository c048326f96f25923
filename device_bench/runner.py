"""The child process of a `Worker`: hold one model and answer requests on standard input and output.

Run as a script, here and on boards, with runtime.py beside it or named by --runtime; the two files need NumPy and the
runtime, nothing else of edgenet, and keep to Python 3.9. A message, either way, is

    8 bytes "edgenet1", 4 bytes length of the header, 8 bytes length of the payload (big endian), header (JSON), payload

The payload of "predict" may also stand in memory that both sides have (--shared), "at" so many bytes from its start.

Requests ("do"): load, info, predict, input, run, memory, cpu, quit. An answer has "ok", or "error" and its "kind":
missing (no runtime), load (not a model), input (a batch that does not fit), failed (the runtime threw).
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":  # a file beside this one must not stand in for a module of the standard library
    _here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [p for p in sys.path if os.path.abspath(p or ".") != _here]

import argparse
import contextlib
import gc
import json
import signal
import struct
import time
import zlib
from array import array
from typing import Any, BinaryIO

MAGIC = b"edgenet1"
HEAD = struct.Struct(">8sIQ")

_CLEAR_REFS = "/proc/self/clear_refs"
_peak: int | None = None  # it, opened before this process gave up writing

_WORK = bytes(range(256)) * 64
_PACES = 3  # the first of them brings its data and code back into the caches, which inference has emptied

Header = dict[str, Any]


def pack(header: Header, payload_bytes: int) -> bytes:
    """Return what stands in front of a payload of `payload_bytes`."""
    text = json.dumps(header).encode()
    return HEAD.pack(MAGIC, len(text), payload_bytes) + text


def pace_ns(clock: Any) -> int:
    """Return how long this core takes for a fixed piece of work, a checksum of 16 KiB (some 5 microseconds)."""
    pace: int = 1 << 62
    for _ in range(_PACES):
        before = clock()
        zlib.crc32(_WORK)
        pace = min(pace, clock() - before)
    return pace


def timed_runs(
    invoke: Any,
    runs: int,
    time_ns: int,
    lead_ns: int,
    limit_ns: int,
    clock: Any,
    pace_limit_ns: int | None = None,
    patience_ns: int = 0,
    pace: Any = pace_ns,
) -> tuple[array[int], array[int], int]:
    """Time `invoke` again and again, and the pace of the core before and after each run.

    At first untimed until `lead_ns` have passed, at least once if that is not 0 (another process had the caches).
    Then at least `runs` times and for `time_ns`. With a `pace_limit_ns` over 0 so many runs must have been within that
    pace, but for that at most `patience_ns` more are spent; with None no pace is taken. No run starts after `limit_ns`;
    at least one is timed.

    Returns:
        samples and the slower pace on either side of each (or none), in nanoseconds, and the number of untimed runs.
    """
    lead = 0
    start = clock()
    while lead_ns and (lead == 0 or clock() - start < lead_ns):
        invoke()
        lead += 1
    samples, paces = array("q"), array("q")
    calm_runs = 0
    collecting = gc.isenabled()
    gc.disable()
    try:
        start = clock()
        ahead = behind = 0 if pace_limit_ns is None else pace(clock)
        while True:
            before = clock()
            invoke()
            after = clock()
            samples.append(after - before)
            if pace_limit_ns is not None:
                behind = pace(clock)
                paces.append(max(ahead, behind))
            if not pace_limit_ns or paces[-1] <= pace_limit_ns:
                calm_runs += 1
            ahead, passed = behind, after - start
            enough = len(samples) >= runs and passed >= time_ns
            calm = calm_runs >= runs or passed >= time_ns + patience_ns
            if passed >= limit_ns or (enough and calm):
                return samples, paces, lead
    finally:
        if collecting:
            gc.enable()


def memory_bytes(field: str) -> int:
    """Return VmHWM (peak) or VmRSS (now) of this process; 0 where the system does not tell."""
    try:
        with open("/proc/self/status") as f:
            for line in f:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def serve(requests: BinaryIO, answers: BinaryIO, runtime: Any, shared: Any = None) -> None:
    """Answer requests until the other side closes or says quit.

    Args:
        shared: memory that the other side writes, None where there is none.
    """
    import numpy as np

    predictor: Any = None
    loaded: Header = {}

    def handle(request: Header, payload: bytes) -> tuple[Header, bytes]:
        nonlocal predictor
        do = request["do"]
        if do == "load":
            path = request["path"]
            name = runtime.import_runtime(path, request["runtime"])
            _forget_peak()
            baseline = memory_bytes("VmRSS")
            start = time.perf_counter_ns()
            predictor = runtime.load(path, request["threads"], name, request.get("delegate"))
            loaded.update(
                load_ns=time.perf_counter_ns() - start,
                baseline_rss_bytes=baseline,
                runtime=predictor.runtime,
                version=predictor.version,
                delegate=predictor.delegate,
                io_dtype=predictor.io_dtype,
                input_shape=list(predictor.input_shape),
                layout=predictor.layout,
                size_px=list(predictor.size_px),
                output_names=predictor.output_names,
                output_shape=list(predictor.output.shape),
                output_dtype=predictor.output.dtype,
                python=sys.version.split()[0],
                numpy=np.__version__,
                shares_memory=shared is not None,
            )
            return loaded, b""
        if do == "info":
            return loaded, b""
        if do == "memory":
            return {"peak_rss_bytes": memory_bytes("VmHWM"), "baseline_rss_bytes": loaded["baseline_rss_bytes"]}, b""
        if do == "cpu":
            return {"cpu_ns": time.process_time_ns()}, b""
        if predictor is None:
            raise ValueError(f"no model is loaded, so '{do}' cannot be answered")
        if do == "run":
            limits = (request["runs"], request["time_ns"], request["lead_ns"], request["limit_ns"])
            calm = (request["pace_limit_ns"], request["patience_ns"])
            samples, paces, lead = timed_runs(predictor.invoke, *limits, time.perf_counter_ns, *calm)
            if sys.byteorder == "big":
                samples.byteswap()
                paces.byteswap()
            return {"n": len(samples), "lead_runs": lead}, samples.tobytes() + paces.tobytes()
        if "at" in request:
            batch = np.ndarray(request["shape"], request["dtype"], shared, request["at"])
        else:
            batch = np.frombuffer(payload, request["dtype"]).reshape(request["shape"])
        if do == "input":
            predictor.set_input(batch)
            return {}, b""
        if do == "predict":
            out = np.ascontiguousarray(predictor.predict(batch), "<f4")
            return {"shape": list(out.shape)}, out.tobytes()
        raise ValueError(f"unknown request '{do}'")

    while True:
        message = _read(requests)
        if message is None or message[0]["do"] == "quit":
            return
        try:
            header, payload = handle(*message)
            header = {"ok": True, **header}
        except Exception as e:
            header, payload = {"error": " ".join(str(e).split()) or type(e).__name__, "kind": _kind(e, runtime)}, b""
        answers.write(pack(header, len(payload)))
        answers.write(payload)
        answers.flush()


def _kind(error: Exception, runtime: Any) -> str:
    """Return what went wrong in a word, by which the other side chooses its own exception."""
    for cls, name in ((runtime.MissingRuntime, "missing"), (runtime.LoadError, "load"), (ValueError, "input")):
        if isinstance(error, cls):
            return name
    return "failed"


def main() -> None:
    """Serve requests on standard input until it ends."""
    # Native libraries print on standard output; the answers go to a private copy of it.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    parser = argparse.ArgumentParser(description="hold one model and answer framed requests on standard input")
    parser.add_argument("--runtime", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "runtime.py"))
    parser.add_argument("--cores", help="run on these cores only, such as 2,3")
    parser.add_argument("--parent", type=int, help="end when this process, the parent, ends")
    parser.add_argument("--confine", help="edgenet's policy.py: give up writing, the network and other programs by it")
    parser.add_argument("--writes", help="with --confine: the one folder that may be written in")
    parser.add_argument("--devices", action="store_true", help="with --confine: leave devices open, for a delegate")
    parser.add_argument("--shared", help="memory that the parent writes: a file to read")
    args = parser.parse_args()
    shared = _map(args.shared) if args.shared else None
    if args.cores:
        _pin([int(core) for core in args.cores.split(",")])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if args.parent:
        _die_with(args.parent)
    if args.confine:
        _confine(args.confine, args.devices, args.writes)
    serve(sys.stdin.buffer, answers, _module(args.runtime), shared)


def _read(stream: BinaryIO) -> tuple[Header, bytes] | None:
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    magic, header_bytes, payload_bytes = HEAD.unpack(head)
    if magic != MAGIC:
        raise SystemExit("standard input does not speak edgenet's protocol: this script is started by edgenet")
    header, payload = stream.read(header_bytes), stream.read(payload_bytes)
    if len(header) < header_bytes or len(payload) < payload_bytes:
        return None
    return json.loads(header), payload


def _module(path: str, name: str = "edgenet_runtime") -> Any:
    import importlib.util

    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not os.path.exists(path):
        raise SystemExit(f"no runtime.py at {path}: copy it beside runner.py, or name it with --runtime")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _map(path: str) -> Any:
    """Return a file as memory that is only read; None where it cannot be had: pictures come through the pipe then."""
    import mmap

    try:
        fd = os.open(path, os.O_RDONLY)
        try:
            return mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        finally:
            os.close(fd)
    except (OSError, ValueError, AttributeError):
        return None


def _forget_peak() -> None:
    """Start the peak memory anew, so that importing the runtime does not count; Linux only."""
    with contextlib.suppress(OSError):
        os.write(_peak if _peak is not None else os.open(_CLEAR_REFS, os.O_WRONLY), b"5")


def _confine(policy: str, devices: bool, writes: str | None) -> None:
    """Give up what a model file that takes over its runtime could do harm with; before there are threads."""
    import tempfile

    global _peak
    with contextlib.suppress(OSError):
        _peak = os.open(_CLEAR_REFS, os.O_WRONLY)  # while that may still be opened
    module = _module(policy, "edgenet_policy")
    module.confine(module.Policy(writes_in=writes, devices=devices, file_bytes=None, open_files=4096))
    # TensorFlow asks for it when it is imported, and Python would look for one to write in.
    tempfile.tempdir = writes or "/nowhere"


def _pin(cores: list[int]) -> None:
    """Keep this process, and the threads that it will start, on `cores`."""
    try:
        able = os.sched_getaffinity(0)
    except AttributeError:
        raise SystemExit("this system cannot pin a process to cores: leave the cores to it") from None
    missing = sorted(set(cores) - able)
    if missing:
        raise SystemExit(f"there is no core {missing[0]} (valid: {', '.join(map(str, sorted(able)))})")
    os.sched_setaffinity(0, cores)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, whatever native code is doing; Linux only."""
    import ctypes

    try:
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    except (AttributeError, OSError):
        return
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


if __name__ == "__main__":
    main()
