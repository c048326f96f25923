"""What runs on a worker: it takes files by their hash, checks them, and answers blocks by the program of `answers`."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgenet.errors import DeviceError, EdgenetError, InputError
from edgenet.farm.answers import BlockAnswers, Evaluator, Work
from edgenet.files import sha256_of
from edgenet.images import Pixels, Preprocessing, Skipped
from edgenet.images.decode import chunk_of, cores, decode_or_skip

_PREFIX, _LOCK = "edgenet-farm-", "lock"


@dataclass(frozen=True)
class SentFile:
    """A model on its way: the names of its files without folders, their contents, and the sha256 of all of them."""

    names: tuple[str, ...]
    contents: tuple[bytes, ...]
    sha256: str


@dataclass(frozen=True)
class SentPicture:
    """A picture on its way. `data` None: it is one that every installation has, by this name."""

    index: int
    file: str
    digest: str
    data: bytes | None


@dataclass(frozen=True)
class Refused:
    """What a worker cannot do whoever asks: an error that would be the same here, as the user is to read it."""

    why: str
    is_input: bool  # InputError, else DeviceError


class Task(Protocol):
    """Work that travels: a value with a method that computes one part of it."""

    def do(self, argument: Any, threads: int) -> Any:
        """Return the part that an argument names. Raises EdgenetError."""


DeviceTask = Callable[[str, Sequence[tuple[str, Path]]], Any]  # (device, (id, path) pairs) -> what came of it


class Site:
    """A worker's side. It keeps files in a folder of its own, which goes with it.

    Args:
        threads: cores that it may use.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._folder, self._lock = _own_folder()
        self._evaluator: Evaluator | None = None
        self._asked: dict[str, str] = {}  # path here -> path there
        self._task: Task | None = None
        self._pool = ThreadPoolExecutor(min(threads, cores()), thread_name_prefix="decode")

    def prepare(self, work: Work, files: Mapping[str, SentFile]) -> Refused | None:
        """Load the files of some work; those of other work go.

        Args:
            files: by the id of a candidate, whose path is that on the machine that asks.
        """
        self._end_work()
        try:
            candidates = tuple(replace(c, path=self._put(files[c.id])) for c in work.candidates)
            self._asked = {str(here.path): str(c.path) for here, c in zip(candidates, work.candidates, strict=True)}
            work = replace(work, candidates=candidates, threads=work.threads or self.threads)
            self._evaluator = Evaluator(work).__enter__()
        except EdgenetError as e:
            return self._refused(e)
        return None

    def answer(self, pictures: Sequence[SentPicture]) -> BlockAnswers | Refused:
        """Return what the files answer to a block of pictures, whose contents are checked by their hashes."""
        if self._evaluator is None:
            return Refused("the worker has no work", False)
        evaluator = self._evaluator
        preprocessing = evaluator.work.preprocessing
        try:
            decode = partial(_decode, preprocessing=preprocessing)
            results = list(zip(pictures, self._pool.map(decode, pictures), strict=True))
            read = [(p.index, r) for p, r in results if not isinstance(r, Skipped)]
            skipped = tuple((p.index, r.why) for p, r in results if isinstance(r, Skipped))
            if not read:
                return BlockAnswers(np.zeros(0, np.int64), {}, self._failed(), skipped)
            chunk = chunk_of([i for i, _ in read], [r for _, r in read])
            files = next((found for _, found in evaluator.answers([chunk])), {})
            return BlockAnswers(chunk.indices, files, self._failed(), skipped)
        except EdgenetError as e:
            return self._refused(e)

    def take(self, task: Task) -> None:
        """Keep a task, parts of which will be asked for."""
        self._task = task

    def do(self, argument: Any) -> Any:
        """Return a part of the task."""
        assert self._task is not None
        try:
            return self._task.do(argument, self.threads)
        except EdgenetError as e:
            return self._refused(e)

    def on_device(self, device: str, sent: Sequence[tuple[str, SentFile]], do: DeviceTask) -> Any:
        """Return do(device, files), of files that are checked by their hashes."""
        try:
            return do(device, [(id, self._put(file)) for id, file in sent])
        except EdgenetError as e:
            return self._refused(e)

    def close(self) -> None:
        """End the files' processes and delete what was kept."""
        self._end_work()
        self._pool.shutdown(wait=False, cancel_futures=True)
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)

    def _end_work(self) -> None:
        if self._evaluator is not None:
            self._evaluator.__exit__()
        self._evaluator = None

    def _failed(self) -> dict[str, str]:
        assert self._evaluator is not None
        return {id: self._as_asked(why) for id, why in self._evaluator.failed.items()}

    def _refused(self, e: EdgenetError) -> Refused:
        return Refused(self._as_asked(str(e)), isinstance(e, InputError))

    def _as_asked(self, text: str) -> str:
        """Return a message with the files called as they are where the work comes from."""
        for here, there in self._asked.items():
            text = text.replace(here, there)
        return text

    def _put(self, sent: SentFile) -> Path:
        """Write a model into the folder of its hash, once, and return where it is. Raises DeviceError."""
        folder = self._folder / sent.sha256
        path = folder / sent.names[0]
        if not folder.exists():
            folder.mkdir()
            for name, content in zip(sent.names, sent.contents, strict=True):
                if name != os.path.basename(name) or name in (".", ".."):
                    raise DeviceError(f"a file called '{name}' is not taken by a worker")
                (folder / name).write_bytes(content)
            if sha256_of(path) != sent.sha256:
                shutil.rmtree(folder)
                raise DeviceError(f"{sent.names[0]} arrived at a worker with other bytes than it was sent with")
        return path


def _decode(p: SentPicture, preprocessing: Preprocessing) -> Pixels | Skipped:
    return decode_or_skip(p.file, preprocessing, p.digest if p.data is not None else "", p.data)


def _own_folder() -> tuple[Path, int]:
    """Return a new folder, and the lock on it that ends with this process; delete those that nobody holds any more."""
    for old in Path(tempfile.gettempdir()).glob(_PREFIX + "*"):
        with suppress(OSError):
            handle = os.open(old / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old)
            finally:
                os.close(handle)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    return folder, handle
