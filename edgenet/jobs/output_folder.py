"""An output folder: held by one process at a time, with the results of an earlier run and how this one is made."""

import datetime
import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

from edgenet import __version__
from edgenet.errors import InputError
from edgenet.export import versions
from edgenet.records import Context, ImagesRecord, ImagesUsed
from edgenet.results import RESULTS_FILE, ImageSet, Results
from edgenet.targets import target

LOCK_FILE = ".edgenet.lock"


@contextmanager
def exclusive(out: Path) -> Iterator[None]:
    """Hold the output folder for this process. A lock of the kernel's: it goes with the process, however that ends."""
    made = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = _lock(out / LOCK_FILE)
    except BlockingIOError:
        raise InputError(f"--out {out} is in use by another run: wait for it or choose another folder") from None
    except OSError as e:
        raise InputError(f"cannot write to --out {out}: {e.strerror}; choose another folder") from None
    with handle:
        for part in out.rglob(".*.part*"):  # what a killed run left
            part.unlink(missing_ok=True)
        try:
            yield
        finally:
            (out / LOCK_FILE).unlink(missing_ok=True)
            if made and not any(out.iterdir()):
                out.rmdir()


def _lock(path: Path) -> IO[str]:
    """Return the file, locked. Raises BlockingIOError while another process holds it."""
    while True:
        handle = open(path, "a")  # noqa: SIM115
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle.fileno()), os.stat(path)):
                    return handle
        except BaseException:
            handle.close()
            raise
        handle.close()  # its owner deleted it between our opening and our locking it: what we hold has no name


def earlier(out: Path) -> Results:
    """Return what an earlier run left in `out`, empty results where there was none. Raises InputError."""
    return Results.load(out) if (out / RESULTS_FILE).exists() else Results()


def refuse_another_model(results: Results, out: Path, model: str) -> None:
    """Raise InputError where `out` holds files of another model."""
    others = sorted({a.model for a in results.artifacts} - {model})
    if others:
        raise InputError(f"--out {out} holds files of {others[0]}: one folder is for one model, choose another --out")


def refuse_another_command(results: Results, out: Path, kind: str) -> None:
    """Raise InputError where `out` holds what another command than the training one called `kind` made."""
    training = results.context.training
    if results.artifacts and (training is None or training.kind != kind):
        raise InputError(f"--out {out} is of another command: one folder is for one, choose another --out")


def machine_context(command: str) -> Context:
    """Return what every command notes: when, where, with which versions."""
    from edgenet.device_bench import local_info

    machine = local_info()
    return Context(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        host=platform.node(),
        cpu_model=machine["cpu_model"],
        isa=tuple(machine["isa"]),
        cores=machine["cores"],
        edgenet_version=__version__,
        versions=versions("tensorflow", "tf-keras", "ai-edge-litert", "onnxruntime", "openvino", "numpy", "Pillow"),
        command=command,
    )


def context_of(command: str, target_name: str, calibration: ImageSet | None, evaluation: ImageSet | None) -> Context:
    """Return what a command that makes files notes: `machine_context`, for what, on which pictures."""
    return replace(
        machine_context(command), target=target(target_name).name, images=images_record(calibration, evaluation)
    )


def images_record(calibration: ImageSet | None, evaluation: ImageSet | None) -> ImagesRecord | None:
    """Return which pictures calibrated and which measured, None where none measured."""
    if evaluation is None:
        return None
    used = calibration and ImagesUsed(len(calibration), calibration.fingerprint, calibration.digests)
    return ImagesRecord(evaluation.root, ImagesUsed(len(evaluation), evaluation.fingerprint), used or None)
