"""The skeleton of every job that writes results: lock the folder, load, refuse, work, save, write the page."""

import datetime
import errno
import fcntl
import os
import platform
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

from edgenet import __version__
from edgenet.errors import InputError
from edgenet.export import versions
from edgenet.files import LOCK_FILE, delete_parts, hold
from edgenet.results import RESULTS_FILE, ImageSet, Results
from edgenet.results.records import NOTHING_SEEN, Context, ImagesRecord, ImagesUsed, PictureHistory
from edgenet.targets import target

_OUTPUTS = (".tflite", ".onnx", ".xml", ".bin", ".html")  # what a user may have too, by a name that is edgenet's


@contextmanager
def results_in(
    out: Path,
    *,
    command: str = "",
    model: str = "",
    resume: bool = True,
    page: Callable[[Results, Path], object] | None = None,
) -> Iterator[Results]:
    """Hold the output folder of a job, and yield its results, to which the job adds.

    Where the block ends well they are saved, and the page is written from them. A job that is long calls
    `results.save(out)` after each step as well, so that a run that is killed loses one step.

    Args:
        command: refuse a folder that another command filled; "" takes any.
        model: refuse a folder with files of another model; "" takes any.
        resume: begin with what an earlier run left; else with empty results.
        page: writes the page of the job into the folder.

    Raises:
        InputError: another process holds the folder, it cannot be written to, or another command or model filled it.
    """
    with exclusive(out):
        results = Results.load(out) if (out / RESULTS_FILE).exists() else Results()
        if command:
            _refuse_another_command(results, out, command)
        if model:
            _refuse_another_model(results, out, model)
        if not resume:
            results = Results()
        yield results
        results.save(out)
        if page is not None:
            page(results, out)


@contextmanager
def exclusive(out: Path) -> Iterator[None]:
    """Hold the output folder for this process. A lock of the kernel's: it goes with the process, however that ends."""
    made = not out.exists()
    foreign = _foreign_files(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = _lock(out / LOCK_FILE)
    except ValueError:
        raise InputError(f"--out {out} is no name of a folder: it holds NUL") from None
    except BlockingIOError:
        raise _in_use(out) from None
    except OSError as e:
        raise InputError(f"cannot write to --out {out}: {e.strerror}; choose another folder") from None
    with handle:
        delete_parts(out)
        ended, made_here = False, set[str]()
        try:
            with hold(out, foreign) as made_here:
                yield
            ended = True
        finally:
            with suppress(OSError):  # somebody removed the folder, or another run holds a new one of this name
                # What was made and is in no list yet: the lock that stays tells the next run whose it is.
                lost = not ended and {n for n in made_here if n.endswith(_OUTPUTS)} - (_listed(out) or set())
                if not lost and os.path.samestat(os.fstat(handle.fileno()), os.lstat(out / LOCK_FILE)):
                    (out / LOCK_FILE).unlink()
                if made and not any(out.iterdir()):
                    out.rmdir()


def look(out: Path, model: str, files: Collection[str]) -> Results:
    """Return what an earlier run left in an output folder, without holding it or writing anything.

    Args:
        model: that is to fill it.
        files: names that are to be written.

    Raises:
        InputError: another process holds it, another model filled it, one of the files is the user's, or it cannot be
            written to.
    """
    place = next((p for p in (out.absolute(), *out.absolute().parents) if os.path.lexists(p)), Path("/"))
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to --out {out}: {place} is no folder that you may write to; choose another")
    if (out / LOCK_FILE).exists():
        try:
            _lock(out / LOCK_FILE).close()
        except BlockingIOError:
            raise _in_use(out) from None
    results = Results.load(out) if (out / RESULTS_FILE).exists() else Results()
    _refuse_another_model(results, out, model)
    if theirs := sorted(_foreign_files(out) & {*files}):
        raise InputError(
            f"{out / theirs[0]} is there already, and edgenet did not make it: move it, or choose another --out"
        )
    return results


def _in_use(out: Path) -> InputError:
    return InputError(f"--out {out} is in use by another run: wait for it or choose another folder")


def _foreign_files(out: Path) -> frozenset[str]:
    """Return the names of files in a folder that look like outputs, and that no run has made."""
    if (out / LOCK_FILE).exists():  # of a run that was killed: what it made last is in no list
        return frozenset()
    try:
        names = os.listdir(out)
    except (OSError, ValueError):  # there is none; what is wrong is told when it is made
        return frozenset()
    known = _listed(out)
    return frozenset(n for n in names if n.endswith(_OUTPUTS) and known is not None and n not in known)


def _listed(out: Path) -> set[str] | None:
    """Return the names of files that results.json says were made, None where it cannot be read."""
    if not os.path.lexists(out / RESULTS_FILE):
        return set()
    try:
        made = [out / a.path for a in Results.load(out).artifacts]
    except InputError:
        return None
    pages = {p.name for p in out.glob("*.html")}
    return {beside.name for p in made for beside in (p, p.with_suffix(".bin"))} | pages


def _lock(path: Path) -> IO[bytes]:
    """Return the file, locked. Raises BlockingIOError while another process holds it, InputError where it is none."""
    while True:
        # Neither does a FIFO of this name hold us up, nor does a link to a file of the user's lose it.
        flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            handle = os.fdopen(os.open(path, flags, 0o644), "rb", buffering=0)
        except OSError as e:
            if e.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR) or path.is_dir():
                raise InputError(f"{path} is no file: it marks the folder as in use; remove it") from None
            raise
        if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
            handle.close()
            raise InputError(f"{path} is no file: it marks the folder as in use; remove it")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle.fileno()), os.stat(path)):
                    return handle
        except BaseException:
            handle.close()
            raise
        handle.close()  # its owner deleted it between our opening and our locking it: what we hold has no name


def report_page(class_names: Sequence[str]) -> Callable[[Results, Path], object]:
    """Return the page of most jobs, report.html, for `results_in`."""

    def write(results: Results, out: Path) -> None:
        from edgenet.report import lost_files, write_report

        write_report(results, out, class_names, lost_files(results, out))

    return write


def _refuse_another_model(results: Results, out: Path, model: str) -> None:
    others = sorted({a.model for a in results.artifacts} - {model})
    if others:
        raise InputError(f"--out {out} holds files of {others[0]}: one folder is for one model, choose another --out")


def _refuse_another_command(results: Results, out: Path, command: str) -> None:
    if results.artifacts and _command_of(results) != command:
        other = f"`edgenet {_command_of(results)}`" if _command_of(results) else "another command"
        raise InputError(f"--out {out} holds results of {other}, not of `edgenet {command}`: choose another --out")


def _command_of(results: Results) -> str:
    """Return "qat", "finetune", "paper" or "scale", "" where it was another command."""
    noted = results.context
    if noted.training is not None:
        return noted.training.kind
    return "paper" if noted.paper is not None else "scale" if noted.scale is not None else ""


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


def context_of(command: str, target_name: str, images: ImagesRecord | None) -> Context:
    """Return what a command that makes files notes: `machine_context`, the target, and the pictures."""
    return replace(machine_context(command), target=target(target_name).name, images=images)


def images_record(
    evaluation: ImageSet,
    *,
    calibration: ImageSet | None = None,
    taught: ImageSet | None = None,
    chose: ImageSet | None = None,
    history: PictureHistory = NOTHING_SEEN,
) -> ImagesRecord:
    """Return which pictures had which role in this run, and in those before."""
    used = {
        role: ImagesUsed(len(of), of.fingerprint, of.digests)
        for role, of in (("calibration", calibration), ("taught", taught), ("chose", chose))
        if of
    }
    measured = ImagesUsed(len(evaluation), evaluation.fingerprint, evaluation.digests)
    told = None if history == NOTHING_SEEN else history
    return ImagesRecord(evaluation.root, measured, **used, history=told, class_map=evaluation.groups)
