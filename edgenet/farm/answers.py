"""What files answer to a block of pictures, as a few numbers a picture: the same program here and on every worker.

A block is a run of places in a set of pictures (`images.chunk_size` of them), and which pictures it holds depends on
nothing but the set. Its answers depend on nothing but the block: blocks may be computed anywhere and in any order, and
put together by their index they give the numbers of one machine, to the bit.
"""

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgenet.cache import store
from edgenet.cache.answers import KIND, Keeping, Kept, Shape, key_of
from edgenet.errors import DeviceError, InputError
from edgenet.images import Chunk, Preprocessing, normalise, stream
from edgenet.images.decode import chunk_size
from edgenet.results import NO_ANSWER, ImageSet
from edgenet.results.records import EvaluationTime
from edgenet.tasks import Task
from edgenet.tasks.measures import signal_of

if TYPE_CHECKING:
    from edgenet.device_bench import Device


_PLACES = 2  # for batches: one is made ready while another is computed


@dataclass(frozen=True)
class Candidate:
    """A file to evaluate, on this machine or on `device`; then `here` is the id of the same file here, given before."""

    id: str
    path: Path
    sha256: str = ""
    device: "Device | None" = None
    here: str = ""


@dataclass(frozen=True)
class Work:
    """What is to be answered: by which files, about what.

    Args:
        reference: id of the candidate that the others are compared with; None compares with nothing.
        threads: cores that each file may use; all of the machine's by default.
        keep: have the reference's answers kept for later, and take them from there; on this machine.
    """

    candidates: tuple[Candidate, ...]
    preprocessing: Preprocessing
    task: Task
    reference: str | None = None
    threads: int | None = None
    keep: bool = False


@dataclass(frozen=True)
class Opened:
    """A file that was loaded: what runs it, the type of its input, and whether its output has 8 bits."""

    runtime: str
    io_dtype: str
    eight_bit: bool


@dataclass
class FileAnswers:
    """What is kept of the answers of one file to one block of n pictures.

    `kept` are numbers that the measures of a task need: of yes and no the score of yes, (n, 1), of several labels and
    of embeddings all, (n, K).
    """

    file: Opened
    top1: np.ndarray | None = None  # (n,) int, NO_ANSWER where a number is not finite
    top5: np.ndarray | None = None  # (n, 5) int, the same
    confidence: np.ndarray | None = None  # (n,) of top-1
    kept: np.ndarray | None = None  # (n, K) float32
    signal: float = 0.0
    noise: float = 0.0
    n_outputs: int = 0  # compared with those of the same file here
    differing: int = 0
    largest: float = 0.0
    nonfinite_outputs: int = 0
    nonfinite_images: int = 0


@dataclass(frozen=True)
class BlockAnswers:
    """What came of one block.

    Attributes:
        indices: (n,) of the pictures that were read, into the set.
        skipped: the others, as (index, why).
        time: where the time of all blocks went, in the last one.
        files: id of a candidate -> its answers; without those that failed.
        failed: id -> why; from then on it answers no more.
    """

    indices: np.ndarray
    files: Mapping[str, FileAnswers]
    failed: Mapping[str, str]
    skipped: tuple[tuple[int, str], ...] = ()
    time: EvaluationTime | None = None  # of all blocks, in the last one


class WorkersLost(DeviceError):
    """The workers of a cluster went, and what they had could not be done by others."""


LOST_REMEDY = "see why workers end (memory?) by `ray status` and Ray's logs there, or leave --cluster out"
Answering = Callable[[Work, ImageSet], Iterator[BlockAnswers]]  # the blocks of a set, in order


class Evaluator:
    """Holds the files of some work, each in a child process of its own. Use it in a `with` block.

    Pictures lie in memory that the children read, and are made ready, and answers counted, while a file computes: no
    core waits. A file that crashes is in `failed`, with the reason, and the others go on.
    """

    def __init__(self, work: Work, kept: Path | None = None) -> None:
        self.work, self._kept_at = work, kept
        self._kept: Kept | None = None  # the reference's answers, in its place, as long as they fit
        self._kept_id = ""
        self._began_s = time.perf_counter()
        self._inference_s = self._loading_s = self._waited_s = 0.0
        self._keeping: Keeping | None = None
        self.opened: dict[str, Opened] = {}
        self.failed: dict[str, str] = {}
        self._predictors: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
        self._stack = ExitStack()
        self._places: dict[str, list[np.ndarray]] = {}  # dtype -> where batches of this type lie, one after the other

    def __enter__(self) -> "Evaluator":
        from edgenet.device_bench.shared_memory import SharedMemory

        try:
            shape = (chunk_size(self.work.preprocessing), *self.work.preprocessing.shape)
            n_bytes = _PLACES * math.prod(shape)
            self._shared = SharedMemory.of(n_bytes * 5 + 64 * 2 * _PLACES)
            if self._shared is not None:
                self._stack.enter_context(self._shared)
                for dtype in ("float32", "uint8"):  # none of it is there before it is written
                    self._places[dtype] = [self._shared.take(shape, dtype) for _ in range(_PLACES)]
            self._asking = ThreadPoolExecutor(1, thread_name_prefix="ask")
            self._stack.callback(self._asking.shutdown, cancel_futures=True)
            before_s = time.perf_counter()
            for c in self.work.candidates:
                if not (c.id == self.work.reference and self._is_kept(c)):
                    self._open(c)
            self._loading_s = time.perf_counter() - before_s
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _open(self, c: Candidate) -> None:
        from edgenet.device_bench import Worker

        try:
            if c.device is not None:
                if c.here not in self.opened:
                    raise DeviceError("it does not run on this machine, so there is nothing to compare with")
                self.opened[c.id] = self.opened[c.here]
                self._predictors[c.id] = partial(c.device.predict, c.path)
                return
            worker = self._stack.enter_context(Worker(c.path, threads=_threads(self.work), shared=self._shared))
            self._predictors[c.id] = worker.predict
            eight_bit = worker.info.output_dtype != "float32"
            self.opened[c.id] = Opened(worker.info.runtime, worker.info.io_dtype, eight_bit)
        except (DeviceError, InputError) as e:
            self._fail(c.id, e)

    def _is_kept(self, c: Candidate) -> bool:
        """Whether a file's answers are kept, and are to be taken from there; else they will be, where that is asked."""
        if self._kept_at is None:
            return False
        kept = Kept(self._kept_at)
        if kept.shape is None:
            kept.close()
            self._keeping = Keeping(self._kept_at)
            self._stack.callback(self._keeping.close)
            return False
        self._stack.callback(kept.close)
        self._kept, self.opened[c.id] = kept, Opened(**asdict(kept.shape))
        self._kept_id = c.id
        self._predictors[c.id] = lambda batch: batch  # the file is not needed
        return True

    def _from_kept(self, id: str, chunk: Chunk, place: int) -> np.ndarray:
        """Return the kept answers; where pictures can be read that could not, or the other way round, the file's."""
        found = None if self._kept is None else self._kept.outputs(chunk.indices)
        if found is not None:
            return found
        if self._kept is not None:
            self._kept = None
            self._open(next(c for c in self.work.candidates if c.id == id))
            if id in self.failed:
                raise DeviceError(self.failed[id])
        return self._predictors[id](self._batch(chunk, self.opened[id].io_dtype, place))

    def _fail(self, id: str, e: Exception) -> None:
        self._predictors.pop(id, None)
        self.opened.pop(id, None)
        self.failed.setdefault(id, str(e))

    @property
    def is_idle(self) -> bool:
        """Whether no file is left that answers."""
        return not self._predictors

    def answers(self, chunks: Iterable[Chunk]) -> Iterator[tuple[Chunk, dict[str, FileAnswers]]]:
        """Yield the answers of all files that work to each chunk. Raises InputError."""
        before: tuple[Chunk, dict[str, Future[np.ndarray]]] | None = None
        for n, chunk in enumerate(self._awaited(chunks)):
            if self.is_idle:
                return
            asked = self._ask(chunk, n % _PLACES)
            if before is not None:
                yield before[0], self._counted(*before)
            before = chunk, asked
        if before is not None:
            yield before[0], self._counted(*before)
        if self._keeping is not None and (of := self.opened.get(self.work.reference or "")):
            name = next(c.path.name for c in self.work.candidates if c.id == self.work.reference)
            self._keeping.commit(f"answers of {name}", Shape(of.runtime, of.io_dtype, of.eight_bit))

    def _awaited(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """Yield the chunks, and note how long they were waited for."""
        before_s = time.perf_counter()
        for chunk in chunks:
            self._waited_s += time.perf_counter() - before_s
            yield chunk
            before_s = time.perf_counter()

    @property
    def time(self) -> EvaluationTime:
        """Where the time went so far: what was waited for while a file computed cost nothing."""
        total_s = time.perf_counter() - self._began_s
        idle_s = max(0.0, total_s - self._loading_s - self._inference_s)
        seconds = (total_s, self._inference_s, self._loading_s, min(idle_s, self._waited_s))
        return EvaluationTime(*(round(s, 3) for s in seconds))

    def _timed(self, do: Callable[..., np.ndarray], *arguments: Any) -> np.ndarray:
        before_s = time.perf_counter()
        try:
            return do(*arguments)
        finally:
            self._inference_s += time.perf_counter() - before_s

    def _counted(self, chunk: Chunk, asked: Mapping[str, "Future[np.ndarray]"]) -> dict[str, FileAnswers]:
        outputs = self._outputs(asked)
        if self._keeping is not None and self.work.reference in outputs:
            self._keeping.add(chunk.indices, outputs[self.work.reference])
        return self._count(outputs)

    def _ask(self, chunk: Chunk, place: int) -> dict[str, "Future[np.ndarray]"]:
        """Put the pictures in their place, and have each file compute them, one file after another."""
        batches: dict[str, np.ndarray] = {}
        asked = {}
        for id, predict in list(self._predictors.items()):
            if id == self._kept_id:
                asked[id] = self._asking.submit(self._timed, self._from_kept, id, chunk, place)
                continue
            dtype = self.opened[id].io_dtype
            if dtype not in batches:
                batches[dtype] = self._batch(chunk, dtype, place)
            asked[id] = self._asking.submit(self._timed, predict, batches[dtype])
        return asked

    def _batch(self, chunk: Chunk, dtype: str, place: int) -> np.ndarray:
        dtype = "float32" if dtype == "float32" else "uint8"
        into = self._places[dtype][place][: len(chunk.pixels)] if self._places else None
        if dtype == "float32":
            return normalise(chunk.pixels, self.work.preprocessing, into)
        if into is None:
            return chunk.pixels
        np.copyto(into, chunk.pixels)
        return into

    def _outputs(self, asked: Mapping[str, "Future[np.ndarray]"]) -> dict[str, np.ndarray]:
        found = {}
        for id, answer in asked.items():
            try:
                found[id] = answer.result()
            except DeviceError as e:
                self._fail(id, e)
        return {c.id: found[c.id] for c in self.work.candidates if c.id in found}

    def _count(self, outputs: Mapping[str, np.ndarray]) -> dict[str, FileAnswers]:
        task, reference = self.work.task, self.work.reference
        base = outputs.get(reference) if reference else None
        base_logits = None if base is None or not np.isfinite(base).all() else _logits(task, base)
        here = {c.id: c.here for c in self.work.candidates}
        found = {}
        for id, y in outputs.items():  # (n, outputs)
            answers = found[id] = count(task, y, self.opened[id])
            if here[id] in outputs:
                _count_bits(y, outputs[here[id]], answers)
            comparable = not answers.file.eight_bit and not answers.nonfinite_images
            if base_logits is not None and id != reference and comparable:
                answers.signal = float(np.square(base_logits).sum())
                answers.noise = float(np.square(_logits(task, y) - base_logits).sum())
        return found


def answer_here(work: Work, images: ImageSet) -> Iterator[BlockAnswers]:
    """Yield what the files answer to a set of pictures on this machine, block by block in order.

    Pictures are decoded once and streamed past all files, so that memory does not grow with their number.

    Raises:
        InputError: more than 1 % of the pictures cannot be read.
    """
    with Evaluator(work, _kept_at(work, images)) as evaluator:
        if evaluator.failed:
            yield BlockAnswers(np.zeros(0, np.int64), {}, dict(evaluator.failed))
        pictures, n_skipped = stream(images, work.preprocessing), 0

        def skipped() -> tuple[tuple[int, str], ...]:
            nonlocal n_skipped
            new, n_skipped = pictures.skipped[n_skipped:], len(pictures.skipped)
            return tuple((images.files.index(s.file), s.why) for s in new)

        for chunk, files in evaluator.answers(pictures):
            yield BlockAnswers(chunk.indices, files, dict(evaluator.failed), skipped())
        yield BlockAnswers(np.zeros(0, np.int64), {}, {}, skipped(), evaluator.time)


def _threads(work: Work) -> int:
    return work.threads or os.cpu_count() or 1


def _kept_at(work: Work, images: ImageSet) -> Path | None:
    """Return where the reference's answers are kept, None where they are not."""
    reference = next((c for c in work.candidates if c.id == work.reference and c.device is None and c.sha256), None)
    if not work.keep or reference is None or len(work.candidates) == 1 or not store.is_on():
        return None
    key = key_of(reference.path, reference.sha256, images, work.preprocessing.to_json(), _threads(work))
    return store.path_of(KIND, key)


def count(task: Task, y: np.ndarray, file: Opened) -> FileAnswers:
    """Return what is kept of a file's outputs, (n, outputs) float32, to n pictures."""
    finite = np.isfinite(y)
    answered = finite.all(axis=1)
    found = FileAnswers(file, nonfinite_outputs=int((~finite).sum()), nonfinite_images=int((~answered).sum()))
    if task.kind not in ("classes", "binary"):
        found.kept = np.asarray(y, np.float32)
        return found
    if task.kind == "binary":
        y = np.concatenate([1 - y, y], axis=1)
    order = np.argsort(-y, axis=1, kind="stable")[:, :5]  # ties: the lower index first, as argmax has it
    sure = np.take_along_axis(y, order[:, :1], axis=1)[:, 0]
    order = np.where(answered[:, None], order, NO_ANSWER)
    found.top1, found.top5, found.confidence = order[:, 0], order, np.where(answered, sure, 0)
    if y.shape[1] == 2:  # of yes, or of the second class
        found.kept = np.asarray(y[:, 1:], np.float32)
    return found


def _logits(task: Task, y: np.ndarray) -> np.ndarray:
    return centred_logits(y) if task.kind == "classes" else signal_of(task, y)


def _count_bits(y: np.ndarray, base: np.ndarray, answers: FileAnswers) -> None:
    ours, theirs = (np.ascontiguousarray(a, np.float32) for a in (base, y))
    answers.n_outputs = ours.size
    answers.differing = int(np.count_nonzero(ours.view(np.uint32) != theirs.view(np.uint32)))
    with np.errstate(invalid="ignore"):
        apart = float(np.abs(theirs.astype(np.float64) - ours).max(initial=0.0))
    answers.largest = apart if math.isfinite(apart) else math.inf


def centred_logits(y: np.ndarray) -> np.ndarray:
    """Return logits with mean zero a picture, from logits or from probabilities (softmax forgets only their mean).

    y: (N, classes). Returns (N, classes) float64.
    """
    y = y.astype(np.float64)
    if y.min() >= 0 and np.allclose(y.sum(axis=1), 1, atol=1e-2):
        y = np.log(np.maximum(y, np.finfo(np.float32).tiny))
    return y - y.mean(axis=1, keepdims=True)


def concatenated(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Return the blocks' arrays as one, None where there are none."""
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if there else None
