"""What commands use: this machine or a cluster. Both run the same program, and the numbers are the same."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgenet.door import read_bytes
from edgenet.errors import InputError
from edgenet.export.runtime import READS
from edgenet.farm import cluster as ray_cluster
from edgenet.farm.answers import BlockAnswers, Work, answer_here
from edgenet.farm.schedule import in_order
from edgenet.farm.site import DeviceTask, SentFile, SentPicture, Task
from edgenet.files import files_of, sha256_of
from edgenet.images import Preprocessing, Skipped, sample
from edgenet.images.decode import chunk_size, decode_or_skip, read_picture, refuse_too_many
from edgenet.results import Failure, ImageSet

_DISTRIBUTIONS = {"litert": "ai-edge-litert", "onnxruntime": "onnxruntime", "openvino": "openvino"}
ALWAYS = ("edgenet", "numpy", "Pillow", "ai-edge-litert")  # what everything is computed with
_MODEL_BYTES = 1 << 32  # of a file on its way: no more than a .onnx and the weights beside it


class Farm:
    """Who works: this machine, or the cluster called `cluster`, which is joined when it is first needed.

    `failures` are of machines of the cluster that could not take part.
    """

    def __init__(self, cluster: str | None) -> None:
        self.address, self.failures = cluster, list[Failure]()
        self._stack = ExitStack()
        self._joined: ray_cluster.Cluster | None = None

    def close(self) -> None:
        """Leave the cluster; it is joined again when it is needed."""
        self._joined = None
        self._stack.close()

    def join(self) -> None:
        """Join the cluster now. Raises DeviceError."""
        if self.address is not None:
            self._cluster()

    def _cluster(self) -> ray_cluster.Cluster:
        if self._joined is None:
            assert self.address is not None
            self._joined = self._stack.enter_context(ray_cluster.joined(self.address, self.failures))
        return self._joined

    def answering(self, work: Work, images: ImageSet) -> Iterator[BlockAnswers]:
        """Yield what files answer to pictures, block by block in order; see answers.Answering.

        Raises:
            InputError: more than 1 % of the pictures cannot be read.
            DeviceError: there is no such cluster, or its workers went.
        """
        return answer_here(work, images) if self.address is None else _answer_on(self._cluster(), work, images)

    def each(self, task: Task, arguments: Sequence[Any]) -> Iterator[Any]:
        """Yield task.do(argument, threads) for each argument, in order. Raises DeviceError."""
        if self.address is None:
            return (task.do(argument, os.cpu_count() or 1) for argument in arguments)
        return _each_on(self._cluster(), task, arguments)

    def offers(self, device: str) -> bool:
        """Whether a machine of the cluster has this device. Raises DeviceError."""
        if self.address is None or device == "local":  # this machine is meant
            return False
        return bool(self._cluster().nodes_with(device))

    def on_device(self, device: str, files: Sequence[tuple[str, Path]], do: DeviceTask) -> Any:
        """Return do(device, files) from the machine of the cluster that has the device, which nobody shares meanwhile.

        Raises:
            DeviceError: its machine cannot take part, or was lost.
        """
        sent = [(id, _sent(path)) for id, path in files]
        packages = _packages_of([path for _, path in files])
        return ray_cluster.on_device(self._cluster(), device, sent, do, packages)


HERE = Farm(None)


@contextmanager
def farm(cluster: str | None) -> Iterator[Farm]:
    """Yield who works, this machine (None) or a cluster (auto or ray://HOST:PORT), and leave that in the end."""
    found = Farm(cluster)
    try:
        yield found
    finally:
        found.close()


def _answer_on(cluster: ray_cluster.Cluster, work: Work, images: ImageSet) -> Iterator[BlockAnswers]:
    """Yield what `answer_here` does, from a cluster's workers."""
    files = {c.id: _sent(c.path) for c in work.candidates}
    work = replace(work, candidates=tuple(replace(c, sha256=files[c.id].sha256) for c in work.candidates))
    packages = [*_packages_of([c.path for c in work.candidates]), *_packages_for(images)]
    sites = ray_cluster.Sites(cluster, ("prepare", (work, files)), "answer", packages)
    size = chunk_size(work.preprocessing)
    n_blocks = -(-len(images) // size)
    unread: dict[int, list[tuple[int, str]]] = {}  # block -> what cannot be read here
    skipped: list[Skipped] = []

    def block(index: int) -> list[SentPicture]:
        places = range(index * size, min(len(images), (index + 1) * size))
        pictures, unread[index] = _read(images, places, work.preprocessing)
        return pictures

    try:
        for index, found in enumerate(in_order(n_blocks, block, sites)):
            bad = tuple(sorted([*found.skipped, *unread.pop(index, [])]))
            skipped += [Skipped(images.files[i], why) for i, why in bad]
            refuse_too_many(skipped, images.n_set or len(images))
            yield replace(found, skipped=bad)
    finally:
        sites.close()


def _read(
    images: ImageSet, places: range, preprocessing: Preprocessing
) -> tuple[list[SentPicture], list[tuple[int, str]]]:
    """Return pictures to send, and (index, why) of files that cannot be read."""
    pictures, unread = [], []
    for i in places:
        file, digest = images.files[i], images.digests[i]
        try:
            data = None if sample.is_sample(file) else read_picture(file)
        except (InputError, OSError):
            result = decode_or_skip(file, preprocessing, digest)  # says why in the same words as here
            why = result.why if isinstance(result, Skipped) else "it could not be read when it was to be sent"
            unread.append((i, why))
            continue
        pictures.append(SentPicture(i, file, digest, data))
    return pictures, unread


def _sent(path: Path) -> SentFile:
    files = files_of(path)
    return SentFile(tuple(f.name for f in files), tuple(read_bytes(f, _MODEL_BYTES) for f in files), sha256_of(path))


def _each_on(cluster: ray_cluster.Cluster, task: Task, arguments: Sequence[Any]) -> Iterator[Any]:
    sites = ray_cluster.Sites(cluster, ("take", (task,)), "do", ALWAYS)
    try:
        yield from in_order(len(arguments), lambda i: arguments[i], sites)
    finally:
        sites.close()


def _packages_of(paths: Sequence[Path]) -> Sequence[str]:
    """Return the packages whose versions decide what files answer."""
    suffixes = sorted({path.suffix.lower() for path in paths})
    runtimes = [next((r for r, reads in READS.items() if suffix in reads), "") for suffix in suffixes]
    return (*ALWAYS, *(_DISTRIBUTIONS[r] for r in runtimes if r in _DISTRIBUTIONS))


def _packages_for(images: ImageSet) -> Sequence[str]:
    """Return those that have the pictures."""
    return tuple(sample.PACKAGES.values()) if any(map(sample.is_sample, images.files)) else ()
