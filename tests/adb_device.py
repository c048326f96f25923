"""A test device: adbd's wire protocol over TCP, before a temporary folder and a shell with a phone's commands.

The real adb client and server talk to it. What comes as a shell command is run by the real /bin/sh, so that quoting is
tried for what it is; /data/local/tmp, /sys and /proc lead into the folder, and PATH holds nothing but what `phone` puts
there. A pushed ELF file is executed as `benchmark_model` below, which prints logs in the format of a version and
computes outputs with LiteRT.

    protocol: https://android.googlesource.com/platform/packages/modules/adb/+/refs/heads/main/protocol.txt
    files:    https://android.googlesource.com/platform/packages/modules/adb/+/refs/heads/main/SYNC.TXT
"""

import contextlib
import hashlib
import json
import os
import queue
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

_HEAD = struct.Struct("<4sIIII4s")
_VERSION, _MAX_DATA = 0x01000001, 256 * 1024
_MAPPED = ("/data/local/tmp", "/sys/", "/proc/")
_BORROWED = ("cat", "mkdir", "rm", "chmod", "uname", "sleep")
MACHINES = {"arm64-v8a": (2, 183), "armeabi-v7a": (1, 40), "x86_64": (2, 62)}


def elf(abi: str, padding: int = 5000) -> bytes:
    """Return what begins as a program for `abi` does."""
    bits, machine = MACHINES[abi]
    return b"\x7fELF" + bytes([bits, 1, 1]) + bytes(9) + struct.pack("<HH", 3, machine) + bytes(padding)


class Phone:
    """A device that `adb connect` finds at `address`. Change `tool` and `faults` as you like, then `save()`.

    Attributes:
        tool: how benchmark_model behaves: style, latency_us, delegates, cut, crash, sleep_s, ...
        unplug_after_bytes, unplug_at_run: the connection breaks in a push, or in the n-th call of benchmark_model.
        disk_bytes: a push beyond that fails as a full disk does.
    """

    def __init__(
        self,
        root: Path,
        *,
        abis: str = "arm64-v8a,armeabi-v7a,armeabi",
        model: str = "Test Phone",
        shell_v2: bool = True,
        authorized: bool = True,
        silent: bool = False,
        clusters: tuple[tuple[int, int], ...] = ((4, 1_800_000), (3, 2_400_000), (1, 2_800_000)),
        missing: tuple[str, ...] = (),
    ) -> None:
        self.root, self.shell_v2, self.authorized, self.silent, self.model = root, shell_v2, authorized, silent, model
        self.tool: dict[str, Any] = {"style": "2.16", "latency_us": {}}
        self.unplug_after_bytes: int | None = None
        self.unplug_at_run: int | None = None
        self.damage = False
        self.disk_bytes = 1 << 40
        self.commands: list[str] = []
        self.pushes: list[tuple[str, int]] = []
        self.lock = threading.Lock()
        self._connections: list[_Connection] = []
        _furnish(root, abis, model, clusters, missing)
        self.save()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._open = True
        threading.Thread(target=self._accept, daemon=True).start()

    def save(self) -> None:
        (self.root / "tool.json").write_text(json.dumps(self.tool))

    @property
    def folders(self) -> list[str]:
        """What is left in /data/local/tmp."""
        return sorted(p.name for p in (self.root / "data/local/tmp").iterdir())

    def file(self, relative: str, text: str) -> None:
        """Change what a file of the phone says: sys/..., proc/..., dumpsys/battery, props."""
        (self.root / relative).write_text(text)

    def here(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def unplug(self) -> None:
        self._open = False
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for connection in self._connections:
            connection.close()

    def _accept(self) -> None:
        while self._open:
            try:
                s, _ = self._server.accept()
            except OSError:
                return
            connection = _Connection(self, s)
            self._connections.append(connection)
            threading.Thread(target=connection.run, daemon=True).start()


def _furnish(
    root: Path, abis: str, model: str, clusters: tuple[tuple[int, int], ...], missing: tuple[str, ...]
) -> None:
    for folder in ("data/local/tmp", "bin", "elf", "dumpsys", "proc/self", "sys/devices/system/cpu"):
        (root / folder).mkdir(parents=True)
    core = 0
    for n, khz in clusters:
        for _ in range(n):
            cpufreq = root / f"sys/devices/system/cpu/cpu{core}/cpufreq"
            cpufreq.mkdir(parents=True)
            for name, value in (("cpuinfo_max_freq", khz), ("scaling_max_freq", khz), ("scaling_cur_freq", khz // 2)):
                (cpufreq / name).write_text(f"{value}\n")
            (cpufreq / "scaling_governor").write_text("schedutil\n")
            core += 1
    (root / "sys/devices/system/cpu/online").write_text(f"0-{core - 1}\n")
    for i, (name, value) in enumerate((("cpu-0-0", 41200), ("battery", 28300), ("odd one", 512))):
        zone = root / f"sys/class/thermal/thermal_zone{i}"
        zone.mkdir(parents=True)
        (zone / "type").write_text(f"{name}\n")
        (zone / "temp").write_text(f"{value}\n")
    (root / "proc/loadavg").write_text("0.52 0.61 0.70 1/1234 5678\n")
    (root / "proc/meminfo").write_text("MemTotal:        7654321 kB\nMemFree:          123456 kB\n")
    (root / "proc/cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd aes asimdhp asimddp\nHardware\t: Test\n")
    (root / "props").write_text(
        f"ro.product.model={model}\nro.product.manufacturer=Edgenet\nro.build.version.release=14\n"
        f"ro.build.version.sdk=34\nro.build.fingerprint=edgenet/test/test:14/X/1:user/release-keys\n"
        f"ro.product.cpu.abilist={abis}\nro.product.cpu.abi={abis.split(',')[0]}\nro.soc.model=SM-TEST\n"
    )
    (root / "dumpsys/battery").write_text(
        "Current Battery Service state:\n  AC powered: false\n  USB powered: true\n  Wireless powered: false\n"
        "  status: 2\n  health: 2\n  present: true\n  level: 87\n  scale: 100\n  voltage: 4321\n  temperature: 283\n"
    )
    (root / "dumpsys/thermalservice").write_text(
        "IsStatusOverride: false\nThermal Status: 0\nCached temperatures:\n"
        "\tTemperature{mValue=55.0, mType=3, mName=SKIN, mStatus=0}\nHAL Ready: true\n"
        "Current temperatures from HAL:\n\tTemperature{mValue=31.5, mType=3, mName=SKIN, mStatus=0}\n"
        "\tTemperature{mValue=-99.9, mType=6, mName=PA, mStatus=0}\nCurrent cooling devices from HAL:\n"
        "\tCoolingDevice{mValue=0, mType=2, mName=CPU}\n"
    )
    scripts = {
        "getprop": f'while IFS="=" read -r k v; do [ "$k" = "$1" ] && echo "$v"; done < {root}/props',
        "dumpsys": f'exec cat "{root}/dumpsys/$1"',
        "settings": "echo 0",
        "taskset": f'echo "Cpus_allowed:\t$1" > {root}/proc/self/status; mask=$1; shift; MASK=$mask exec "$@"',
        "sha256sum": f'f={root}/elf/${{1##*/}}; [ -f "$f" ] || f=$1; exec {shutil.which("sha256sum")} "$f"',
        "pkill": f'exec {sys.executable} -I {__file__} pkill {root} "$@"',
    }
    for name, body in scripts.items():
        if name not in missing:
            (root / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
            (root / "bin" / name).chmod(0o755)
    for name in _BORROWED:
        (root / "bin" / name).symlink_to(str(shutil.which(name)))


class _Unplugged(Exception):
    pass


class _Stream:
    """One end of a stream: what comes in waits in `data`, and each packet out waits until the last was taken."""

    def __init__(self, connection: "_Connection", ours: int, theirs: int) -> None:
        self.connection, self.ours, self.theirs = connection, ours, theirs
        self.data: queue.Queue[bytes | None] = queue.Queue()
        self.taken = threading.Semaphore(0)
        self.closed = threading.Event()
        self._rest = b""

    def send(self, data: bytes) -> None:
        for i in range(0, len(data), _MAX_DATA):
            self.connection.send(b"WRTE", self.ours, self.theirs, data[i : i + _MAX_DATA])
            while not self.taken.acquire(timeout=0.1):
                if self.closed.is_set():
                    raise _Unplugged
        if self.closed.is_set():
            raise _Unplugged

    def read(self, n: int) -> bytes:
        while len(self._rest) < n:
            data = self.data.get()
            if data is None:
                raise _Unplugged
            self._rest += data
        out, self._rest = self._rest[:n], self._rest[n:]
        return out

    def close(self) -> None:
        self.connection.send(b"CLSE", self.ours, self.theirs)


class _Connection:
    def __init__(self, phone: Phone, s: socket.socket) -> None:
        self.phone, self._socket, self._lock = phone, s, threading.Lock()
        self._streams: dict[int, _Stream] = {}

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for stream in list(self._streams.values()):
            stream.closed.set()
            stream.data.put(None)

    def send(self, command: bytes, a: int, b: int, data: bytes = b"") -> None:
        magic = bytes(c ^ 0xFF for c in command)
        with self._lock, contextlib.suppress(OSError):
            self._socket.sendall(_HEAD.pack(command, a, b, len(data), sum(data) & 0xFFFFFFFF, magic) + data)

    def run(self) -> None:
        with contextlib.suppress(OSError, _Unplugged):
            while True:
                command, a, b, n, _, _ = _HEAD.unpack(self._read(_HEAD.size))
                self._take(command, a, b, self._read(n))
        self.close()

    def _read(self, n: int) -> bytes:
        data = b""
        while len(data) < n:
            chunk = self._socket.recv(n - len(data))
            if not chunk:
                raise _Unplugged
            data += chunk
        return data

    def _take(self, command: bytes, theirs: int, ours: int, data: bytes) -> None:
        if command in (b"CNXN", b"AUTH"):
            if self.phone.silent:
                return
            if not self.phone.authorized:
                if command == b"CNXN" or theirs == 2:  # a signature, by a key that this phone does not know
                    self.send(b"AUTH", 1, 0, os.urandom(20))
                return
            features = "shell_v2,cmd" if self.phone.shell_v2 else "cmd"
            about = (
                f"ro.product.name=test;ro.product.model={self.phone.model};ro.product.device=test;features={features}"
            )
            self.send(b"CNXN", _VERSION, _MAX_DATA, f"device::{about}".encode())
        elif command == b"OPEN":
            stream = self._streams[len(self._streams) + 1] = _Stream(self, len(self._streams) + 1, theirs)
            service = data.rstrip(b"\0").decode()
            threading.Thread(target=self._serve, args=(stream, service), daemon=True).start()
        elif command == b"WRTE":
            self._streams[ours].data.put(data)
            self.send(b"OKAY", ours, theirs)
        elif command == b"OKAY":
            self._streams[ours].taken.release()
        elif command == b"CLSE" and ours in self._streams:
            self._streams[ours].closed.set()
            self._streams[ours].data.put(None)

    def _serve(self, stream: _Stream, service: str) -> None:
        kind, _, argument = service.partition(":")
        serve = {"shell": self._shell, "sync": self._sync}.get(kind.split(",")[0])
        if serve is None:
            return self.send(b"CLSE", 0, stream.theirs)
        self.send(b"OKAY", stream.ours, stream.theirs)
        with contextlib.suppress(_Unplugged):
            serve(stream, argument, ",v2" in kind)
            stream.close()
        return None

    # -------------------------------------------------------------------------------------------------------- shell

    def _shell(self, stream: _Stream, command: str, v2: bool) -> None:
        phone, root = self.phone, str(self.phone.root)
        phone.commands.append(command)
        mapped = command
        for path in _MAPPED:
            mapped = mapped.replace(path, root + path)
        process = subprocess.Popen(
            ["/bin/sh", "-c", mapped],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if v2 else subprocess.STDOUT,
            env={"PATH": f"{root}/bin", "LANG": "C"},
            cwd=root,
            start_new_session=True,
        )
        if "--num_runs" in command:
            with phone.lock:
                if phone.unplug_at_run is not None:
                    phone.unplug_at_run -= 1
                    if phone.unplug_at_run == 0:
                        time.sleep(0.05)
                        phone.unplug()
        while True:
            try:
                out, err = process.communicate(timeout=0.05)
                break
            except subprocess.TimeoutExpired:
                if stream.closed.is_set():  # as adbd does, leave it alone; its output goes nowhere
                    continue
        if v2:
            for id, data in ((1, out), (2, err)):
                if data := data.replace(root.encode(), b""):
                    stream.send(struct.pack("<BI", id, len(data)) + data)
            stream.send(struct.pack("<BIB", 3, 1, process.returncode & 0xFF))
        elif out := out.replace(root.encode(), b"").replace(b"\n", b"\r\n"):
            stream.send(out)

    # --------------------------------------------------------------------------------------------------------- files

    def _sync(self, stream: _Stream, _: str, v2: bool) -> None:
        while True:
            id, n = struct.unpack("<4sI", stream.read(8))
            if id == b"QUIT":
                return
            path = stream.read(n).decode()
            if id in (b"STAT", b"LSTAT"):
                here = self.phone.here(path)
                found = here.stat() if here.exists() else None
                numbers = (found.st_mode, found.st_size, int(found.st_mtime)) if found else (0, 0, 0)
                stream.send(b"STAT" + struct.pack("<III", *numbers))
            elif id == b"SEND":
                self._store(stream, path.rpartition(",")[0])
            elif id == b"RECV":
                here = self.phone.here(path)
                if not here.is_file():
                    self._fail(stream, "open failed: No such file or directory")
                    continue
                program = self.phone.root / "elf" / here.name
                content = (program if program.is_file() else here).read_bytes()
                for i in range(0, len(content), 65536):
                    chunk = content[i : i + 65536]
                    stream.send(b"DATA" + struct.pack("<I", len(chunk)) + chunk)
                stream.send(b"DONE" + struct.pack("<I", 0))

    def _store(self, stream: _Stream, path: str) -> None:
        content = b""
        while True:
            id, n = struct.unpack("<4sI", stream.read(8))
            if id == b"DONE":
                break
            content += stream.read(n)
            limit = self.phone.unplug_after_bytes
            if limit is not None and len(content) > limit:
                self.phone.unplug()
                raise _Unplugged
        self.phone.pushes.append((path, len(content)))
        if sum(n for _, n in self.phone.pushes) > self.phone.disk_bytes:
            return self._fail(stream, "couldn't create file: No space left on device")
        here = self.phone.here(path)
        if self.phone.damage:
            content = content[:-1] + bytes([content[-1] ^ 1])  # of the same size
        if content[:4] == b"\x7fELF":
            (self.phone.root / "elf" / here.name).write_bytes(content)
            launch = f'exec {sys.executable} -I {__file__} benchmark_model {self.phone.root} "$@"'
            content = f"#!/bin/sh\n{launch}\n".encode()
        here.write_bytes(content)
        here.chmod(0o644)
        stream.send(b"OKAY" + struct.pack("<I", 0))
        return None

    def _fail(self, stream: _Stream, why: str) -> None:
        stream.send(b"FAIL" + struct.pack("<I", len(why)) + why.encode())


# ------------------------------------------------------------------------------------------------- the phone's commands


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
    asked = "nnapi" if flags.get("use_nnapi") else "gpu" if flags.get("use_gpu") else "cpu"
    nodes, total = tool.get("delegates", {}).get(asked, (9, 9)) if hit else (9, 9)
    if style == "2019" and asked == "cpu":
        nodes = 0  # it has TFLite's own kernels only
    name = {"cpu": "XNNPACK", "gpu": "GPU", "nnapi": "NNAPI"}[asked]
    kernel = {"cpu": "TfLiteXNNPackDelegate", "gpu": "TfLiteGpuDelegateV2", "nnapi": "TfLiteNnapiDelegate"}[asked]

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
    import re

    pid, _, command = (root / "pid").read_text().partition(" ")
    if arguments[0] == "-f" and re.search(arguments[1], command.replace(str(root), "")):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
        (root / "killed").write_text(pid)
        return 0
    return 1


if __name__ == "__main__":
    raise SystemExit({"benchmark_model": benchmark_model, "pkill": pkill}[sys.argv[1]](Path(sys.argv[2]), sys.argv[3:]))
