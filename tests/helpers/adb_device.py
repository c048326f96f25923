"""A test device: adbd's wire protocol over TCP, before a temporary folder and a shell with a phone's commands.

The real adb client and server talk to it. What comes as a shell command is run by the real /bin/sh, so that quoting is
tried for what it is; /data/local/tmp, /sys and /proc lead into the folder, and PATH holds nothing but what `phone` puts
there. A pushed ELF file is executed as adb_tool.py, which prints logs in the format of a version and computes outputs.

    protocol: https://android.googlesource.com/platform/packages/modules/adb/+/refs/heads/main/protocol.txt
    files:    https://android.googlesource.com/platform/packages/modules/adb/+/refs/heads/main/SYNC.TXT
"""

import contextlib
import json
import os
import queue
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

# It starts fast: without site-packages, and imported, which has it compiled once.
_START = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import adb_tool; adb_tool.main()"
_TOOL = [sys.executable, "-I", "-S", "-c", _START]
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
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # small packets, each waited for
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
        "pkill": f'exec {shlex.join(_TOOL)} pkill {root} "$@"',
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
            launch = f'exec {shlex.join(_TOOL)} benchmark_model {self.phone.root} "$@"'
            content = f"#!/bin/sh\n{launch}\n".encode()
        here.write_bytes(content)
        here.chmod(0o644)
        stream.send(b"OKAY" + struct.pack("<I", 0))
        return None

    def _fail(self, stream: _Stream, why: str) -> None:
        stream.send(b"FAIL" + struct.pack("<I", len(why)) + why.encode())
