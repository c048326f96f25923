"""What a device is to the rest of edgenet: something that tells what it is, times files and computes answers.

Each kind of device is one module with a function `open_device(address)`, picked by the part of a device's name before
the colon (`devices.KINDS`), and a function `find()` that lists those which are there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from edgenet.device_bench.timing import Plan
from edgenet.errors import EdgenetError, InputError
from edgenet.results import Estimate, Failure, Measurement

Progress = Callable[[int, int, str], None]  # (turns done, turns at most, artifact's id)


@dataclass(frozen=True)
class Request:
    """How files are to be timed, on whatever device.

    `runtime` and `delegate` None take the device's own choice for each format; `cores` are those to pin to, none for
    the system's choice. `pixels`, (H, W, 3) uint8 of any size, is the picture to compute on where a device can choose;
    None takes a made one. A device that cannot do what is asked raises InputError: nothing is silently left out.

    Raises:
        InputError: a value makes no sense anywhere.
    """

    threads: int = 1
    runtime: str | None = None  # litert | onnxruntime | openvino
    delegate: str | None = None  # cpu | gpu | nnapi | npu
    cores: tuple[int, ...] = ()
    plan: Plan = field(default_factory=Plan)
    pixels: np.ndarray | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise InputError(f"threads must be at least 1, was {self.threads}")
        x = self.pixels
        if x is not None and (x.dtype != np.uint8 or x.ndim != 3 or x.shape[2] not in (1, 3)):
            raise InputError(f"pixels must be (H, W, 3 or 1) uint8, was {x.shape} {x.dtype}")


@dataclass(frozen=True)
class Compiled:
    """What a compiler made of a model file for one chip: the files to ship, the first of which is the one to load."""

    device: str  # qnn:SM8750 say
    files: tuple[Path, ...]
    tool: str  # with its version
    n_operators: int
    n_accelerated: int


@runtime_checkable
class Compiler(Protocol):
    """A device, seen by the hand-over: it makes of a model file what its chip loads."""

    def compile(self, path: Path, out: Path) -> Compiled:
        """Compile a model file into the folder `out`, which is there; files appear whole.

        Raises:
            InputError: the chip or its compiler does not take this file.
            DeviceError: the compiler failed, or was killed.
        """


class Device(Protocol):
    """A place where files run. Use it in a `with` block: what it left on the device is cleaned up at the end."""

    id: str  # as the user named it, adb:SERIAL say
    kind: str  # local | adb | ssh | qemu | ethos-u | edgetpu | qnn | litert-npu | rknn | micro

    def info(self) -> dict[str, Any]:
        """Return what the device is and how busy: plain values, None where it does not tell. Raises DeviceError.

        "emulator" is there, with its version, where `predict` is answered by an emulator of the chip.
        """

    def bench(
        self, artifacts: Sequence[tuple[str, Path]], request: Request, progress: Progress | None = None
    ) -> tuple[Sequence[Measurement | Estimate], list[Failure]]:
        """Time (id, path) pairs against each other, in the order given; a file that fails is a Failure.

        A device that is not there but is known by its compiler gives an Estimate. `Results.put` takes either.

        Raises:
            InputError: the request is not one that this device can do.
        """

    def predict(self, path: Path, batch: np.ndarray) -> np.ndarray:
        """Return (N, classes) float32 for (N, H, W, 3) of what the file takes.

        Raises:
            InputError: the device only estimates, or the batch does not fit the file.
            DeviceError: the device or its runtime failed.
        """

    def __enter__(self) -> "Device": ...
    def __exit__(self, *error: object) -> None: ...


def check_only_compiles(id: str, request: Request) -> None:
    """Raise InputError where something is asked of a chip that is not there, which only its compiler knows."""
    if request.runtime is not None or request.delegate not in (None, "npu") or request.cores:
        raise InputError(f"{id} only compiles: leave out the runtime, the delegate and the cores")


def estimate_each(
    device: str,
    artifacts: Sequence[tuple[str, Path]],
    estimate: Callable[[str, Path], Estimate],
    remedies: Mapping[type[EdgenetError], str],
    progress: Progress | None,
) -> tuple[list[Estimate], list[Failure]]:
    """Estimate (id, path) pairs one after another; a file that fails is a Failure, and the others go on.

    Args:
        estimate: of one file. It may raise any EdgenetError.
        remedies: what to do about each kind of error; the first that fits is said.
    """
    estimates: list[Estimate] = []
    failures: list[Failure] = []
    for i, (id, path) in enumerate(artifacts):
        try:
            estimates.append(estimate(id, Path(path)))
        except EdgenetError as e:
            remedy = next((text for kind, text in remedies.items() if isinstance(e, kind)), "")
            failures.append(Failure("bench", id, device, why=str(e), remedy=remedy))
        if progress is not None:
            progress(i + 1, len(artifacts), id)
    return estimates, failures
