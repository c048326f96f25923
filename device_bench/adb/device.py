"""Android phones over `adb`: `adb:SERIAL`. Any number at once, each in a folder of its own that is gone afterwards.

link.py calls adb, phone.py reads what a phone says of itself, bench.py times files with TFLite's
benchmark_model (benchmark_tool.py). What is computed here is the outputs of a file, for `predict`.
"""

import contextlib
import math
import os
import secrets
import shlex
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from edgenet.device_bench.adb import bench, benchmark_tool
from edgenet.device_bench.adb.benchmark_binary import find_binary
from edgenet.device_bench.adb.benchmark_tool import last_words
from edgenet.device_bench.adb.link import Link, Listed, find_adb, parse_devices, run_adb
from edgenet.device_bench.device import Progress, Request
from edgenet.device_bench.worker import describe_exit
from edgenet.errors import DeviceError, EdgenetError, InputError
from edgenet.files import sha256_of
from edgenet.results import Failure, Measurement

ENV_RUNNER = "EDGENET_ADB_RUNNER"
_FIND_TIMEOUT_S = 10.0
_PICTURE_S = 60.0  # loading included, for which a program that is started anew needs most of the time
_PICTURES_A_CALL = 16


def find() -> list[dict[str, Any]]:
    """Return the phones that adb lists, each as {"id", "kind", "name", "state", "runtimes", "abi", "soc", "os"}.

    Waits ten seconds at most for adb and as long for the phones, all at once; a phone that does not answer is listed by
    what adb knows. Empty where adb is missing or does not answer.
    """
    try:
        reply = run_adb("devices", "-l", timeout_s=_FIND_TIMEOUT_S)
    except EdgenetError:
        return []
    listed = parse_devices(reply.out)
    serials = [p.serial for p in listed]

    def describe(p: Listed) -> dict[str, Any]:
        state = p.state if serials.count(p.serial) == 1 else "several of one serial"
        out: dict[str, Any] = {"id": f"adb:{p.serial}", "kind": "adb", "name": p.model, "state": state, "runtimes": {}}
        if state == "device":
            with contextlib.suppress(EdgenetError):
                info = bench.about(Link(p.serial), _FIND_TIMEOUT_S)
                out |= {"name": info["name"] or p.model, "abi": (info["abis"] or [None])[0], "soc": info["soc"]}
                out["os"] = info["os"]
                out["runtimes"] = {"litert": f"benchmark_model {find_binary(info['abis']).sha256[:12]}"}
        return out

    if not listed:
        return []
    with ThreadPoolExecutor(len(listed)) as pool:
        return list(pool.map(describe, listed))


def open_device(address: str) -> "AdbDevice":
    """Return the phone `adb:ADDRESS`. Nothing is asked of it yet.

    Raises:
        InputError: this is no serial number.
        MissingDependency: adb is not installed.
    """
    if not address or not address.isprintable() or any(c.isspace() for c in address):
        raise InputError(f"'adb:{address}' names no phone: give adb:SERIAL, as `adb devices` lists it")
    find_adb()
    return AdbDevice(address)


def check_present(address: str) -> None:
    """Ask the phone's shell for a sign of life.

    Raises:
        InputError, MissingDependency: as `open_device`.
        DeviceError: the phone is not there, or does not let this computer in.
    """
    open_device(address)
    try:
        Link(address).shell(":", timeout_s=_FIND_TIMEOUT_S)
    except DeviceError as e:
        remedy = bench.remedy_of(str(e)) or "`edgenet devices` lists those that are there"
        raise DeviceError(f"adb:{address}: {e}: {remedy}") from None


class AdbDevice:
    """A phone, by its serial number. Use it in a `with` block: its folder on the phone is removed at the end."""

    kind = "adb"

    def __init__(self, serial: str) -> None:
        self.id = f"adb:{serial}"
        self._link = Link(serial)

    def __enter__(self) -> "AdbDevice":
        return self

    def __exit__(self, *error: object) -> None:
        self._link.close()

    def info(self) -> dict[str, Any]:
        """Return what the phone is and how it is just now. Raises DeviceError."""
        return bench.about(self._link) | bench.state(self._link)

    def bench(
        self, artifacts: Sequence[tuple[str, Path]], request: Request, progress: Progress | None = None
    ) -> tuple[list[Measurement], list[Failure]]:
        """Time .tflite files against each other, in rounds; a file or a phone that fails is a Failure for each file.

        Raises:
            InputError: the request is not one that a phone can do, or there is no benchmark_model.
        """
        return bench.bench(self._link, self.id, artifacts, request, progress)

    def predict(self, path: Path, batch: np.ndarray) -> np.ndarray:
        """Return (N, classes) float32 for (N, H, W, 3) of what the file takes, computed on the phone.

        By benchmark_model's input and output files, or by the program that $EDGENET_ADB_RUNNER names.

        Raises:
            InputError: the file is no .tflite, or the batch does not fit it.
            DeviceError: the phone failed, or its benchmark_model is too old to write outputs.
        """
        from edgenet.export.inspect import inspect
        from edgenet.export.runtime import Predictor, Tensor

        facts = inspect(bench.tflite(Path(path)))
        tensors = [
            [Tensor(t.name, t.shape, t.dtype, t.scale, t.zero_point or 0) for t in side]
            for side in (facts.inputs, facts.outputs)
        ]
        if len(tensors[0]) != 1:
            raise InputError(f"{path} has {len(tensors[0])} inputs; edgenet runs networks with one image as input")
        backend = SimpleNamespace(runtime="litert", version="", delegate="", input=tensors[0][0], outputs=tensors[1])
        predictor = Predictor(str(path), backend, 1)
        try:
            x = predictor.prepare(batch)
        except ValueError as e:
            raise InputError(str(e)) from None
        n, step = len(x), max(predictor.input_shape[0], 1)
        blocks = [x[i : i + step] for i in range(0, n, step)]
        if blocks and len(blocks[-1]) < step:  # the last one of a fixed batch: fill it up, and cut the answer
            blocks[-1] = np.concatenate([blocks[-1], np.repeat(blocks[-1][-1:], step - len(blocks[-1]), axis=0)])
        digest = sha256_of(Path(path))
        remote = self._link.push(Path(path), digest)
        runner = shlex.split(os.environ.get(ENV_RUNNER, ""))
        program = runner or [bench.push_tool(self._link, bench.about(self._link)["abis"])[1]]
        answers = []
        for i in range(0, len(blocks), _PICTURES_A_CALL):
            answers += self._compute(program, bool(runner), remote, blocks[i : i + _PICTURES_A_CALL])
        classes = max(predictor.output.shape[-1] if predictor.output.shape else 0, 0)
        if not answers:
            return np.zeros((0, classes), np.float32)
        out = np.concatenate([_output(a, predictor.outputs, predictor.output, step) for a in answers])[:n]
        if predictor.output.scale is not None:
            out = (out - np.float32(predictor.output.zero_point)) * np.float32(predictor.output.scale)
        return out

    def _compute(
        self, program: Sequence[str], is_runner: bool, remote: str, blocks: Sequence[np.ndarray]
    ) -> list[bytes]:
        """Return the raw bytes of all outputs, one after another, for each block of raw input."""
        names = [f"{secrets.token_hex(4)}-{i}" for i in range(len(blocks))]
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder)
            for name, block in zip(names, blocks, strict=True):
                (local / f"{name}.in").write_bytes(block.astype(block.dtype.newbyteorder("<")).tobytes())
            sources = [str(local / f"{name}.in") for name in names]
            self._link.transfer("push", *sources, f"{self._link.folder}/", size_bytes=sum(b.nbytes for b in blocks))
            commands = []
            for name, block in zip(names, blocks, strict=True):
                source, target = f"{self._link.folder}/{name}.in", f"{self._link.folder}/{name}.out"
                more = benchmark_tool.predict_arguments(remote, block.shape, source, target)
                if is_runner:
                    more = [source, target, remote]
                commands.append(shlex.join([*program, *more]))
            status, text = self._link.shell(" &&\n".join(commands), timeout_s=_PICTURE_S * len(blocks))
            what = ENV_RUNNER if is_runner else "benchmark_model"
            if status:
                raise DeviceError(f"{what} {describe_exit(status)} on the phone; it said: {last_words(text)}")
            targets = [f"{self._link.folder}/{name}.out" for name in names]
            there, _ = self._link.shell(f"[ -f {shlex.quote(targets[0])} ]")
            if there:
                if is_runner:
                    raise DeviceError(
                        f"{ENV_RUNNER} ended well but wrote no {targets[0]}: it is called as IN OUT MODEL"
                    )
                raise DeviceError(
                    "this benchmark_model is too old to write outputs (it has no --output_filepath): take a recent "
                    f"build of TFLite's own, not of LiteRT's CompiledModel tool, or set {ENV_RUNNER}"
                )
            self._link.transfer("pull", *targets, str(local), size_bytes=0)
            used = " ".join(shlex.quote(f"{self._link.folder}/{name}") + ".*" for name in names)
            self._link.shell(f"rm -f {used}")
            return [(local / f"{name}.out").read_bytes() for name in names]


def _output(raw: bytes, outputs: Sequence[Any], wanted: Any, batch: int) -> np.ndarray:
    """Return (batch, classes) float32 of the output `wanted`, from the bytes of all outputs."""
    offset = 0
    for tensor in outputs:
        dtype = np.dtype(tensor.dtype).newbyteorder("<")
        shape = (batch, *tensor.shape[1:])
        if min(shape) < 1:
            raise InputError(
                f"the output {tensor.name} {tensor.shape} has no fixed size: export it with a static shape"
            )
        n = math.prod(shape)
        if tensor is wanted:
            if len(raw) < offset + n * dtype.itemsize:
                raise DeviceError(
                    f"the phone wrote {len(raw)} bytes of output where the file has more: is it another one?"
                )
            return np.frombuffer(raw, dtype, n, offset).astype(np.float32).reshape(batch, -1)
        offset += n * dtype.itemsize
    raise InputError("the file has no output")
