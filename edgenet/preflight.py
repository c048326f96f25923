"""What is looked at before any work: packages, devices and room on the disks, so that nothing fails after an hour.

Nothing is imported, and no device does more than answer: a phone's shell says yes, a board tells what it is. Only those
devices are asked that the user named.
"""

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgenet.device_bench.registry import check_present, parse
from edgenet.errors import DeviceError, EdgenetError, InputError, MissingDependency
from edgenet.export.importers.find import kind_of
from edgenet.export.runtime import READS
from edgenet.farm.cluster import check_present as check_cluster_present
from edgenet.farm.job import farm
from edgenet.files import size_of
from edgenet.images import sample, tfds
from edgenet.images.folders import count_photographs
from edgenet.jobs.devices import forms, unmeasured
from edgenet.models import weights, zoo
from edgenet.options import FinetuneJob, Job, PaperJob, QatJob, ScaleJob
from edgenet.paper.networks import counts
from edgenet.paper.plan import RUNTIMES, SAVED_MODEL, Step, steps, too_large
from edgenet.results import Results
from edgenet.targets import target_of

# What a package on PyPI brings, any one of these modules, and the extra of edgenet that installs it.
PACKAGES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "ai-edge-litert": (("ai_edge_litert",), "tflite"),
    "onnx": (("onnx",), "onnx"),
    "onnxruntime": (("onnxruntime",), "onnx"),
    "openvino": (("openvino",), "openvino"),
    "tensorflow": (("tensorflow",), "export"),
    "tf-keras": (("tf_keras",), "export"),
    "tensorflow-model-optimization": (("tensorflow_model_optimization",), "qat"),
    "tensorflow-datasets": (("tensorflow_datasets",), "tfds"),
    "scipy": (("scipy",), "mat"),
    "ethos-u-vela": (("ethosu",), "ethos-u"),
    "tflite-micro": (("tflite_micro",), "micro"),
    "onnxruntime-qnn": (("onnxruntime_qnn",), "qnn"),
    **{package: ((module,), "sample") for module, package in sample.PACKAGES.items()},
    **{package: ((package.replace("-", "_"),), "weights") for package, _ in weights.PACKAGES.values()},
}
INCLUDES = {"export": ("tflite",), "qat": ("export", "tflite"), "tfds": ("export", "tflite"), "ethos-u": ("tflite",),
            "micro": ("tflite",), "qnn": ("tflite", "onnx")}  # fmt: skip
_ALSO = {"ai-edge-litert": ("tflite_runtime",)}  # modules that run files as well, and read or write none
_WRITES = {"tflite": (), "onnx": ("onnx",), "openvino": ("openvino",), SAVED_MODEL: ("tensorflow",)}  # beside LiteRT
_READS = {"onnx": ("onnx",), "savedmodel": ("tensorflow",), "keras": ("tensorflow",), "h5": ("tensorflow",)}
_RUNS = {"litert": "ai-edge-litert", "onnxruntime": "onnxruntime", "openvino": "openvino", "tensorflow": "tensorflow",
         "edgetpu": "ai-edge-litert"}  # fmt: skip
_BYTES = {"float32": 4.0, "float16": 2.0}  # a weight; of all other precisions one
_MORE = 1.15  # what a file has beside its weights, as a factor: scales, biases, names
_PAGE_BYTES = 5_000_000  # results.json and the report
_CHECKPOINT_BYTES = 2 * 5 * 4  # a weight: it, its average, Adam's two moments and the best so far; old and new at once
_SCALED_BYTES = 100_000_000  # the networks that a search for a latency writes, one after another
_PX = 224  # of a model that does not say it before it is opened


@dataclass(frozen=True)
class Need:
    """A package that work needs. `modules`: any of these serves; those of PACKAGES where it is empty."""

    package: str
    purpose: str  # a noun phrase
    modules: tuple[str, ...] = ()

    @property
    def is_there(self) -> bool:
        return any(importlib.util.find_spec(module) is not None for module in self.modules or PACKAGES[self.package][0])


@dataclass(frozen=True)
class Room:
    """About how many bytes will be written below a folder, whether it is there yet or not."""

    folder: Path
    size_bytes: float
    remedy: str = "give --out on another disk"


def check_run(job: Job, only_export: bool = False) -> None:
    """Look at what `edgenet run` or `edgenet export` will need, whose arguments are checked already.

    Raises:
        MissingDependency: packages are missing; all of them are named.
        DeviceError: a device is not there.
        InputError: the disk is too small.
    """
    if job.cluster is not None:
        check_cluster_present(job.cluster)
    measured = not only_export
    searches = job.max_accuracy_drop is not None or job.min_sqnr is not None
    devices = _not_elsewhere(_unmeasured(job), job.cluster) if measured else ()
    formats = (*job.formats, *(f for f, _ in forms(job) if measured and f not in job.formats))
    _check_packages([
        *_written(formats),
        *(n for f in formats if measured or searches for n in _run_here([RUNTIME_OF[f]], f"format {f}")),
        *_model(job.model, job.weights is None and not job.random_weights),
        *_pictures(job.images),
        *_estimates(devices),
    ])  # fmt: skip
    _check_run_devices(devices)
    check_room(rooms_of_run(job, only_export))


def rooms_of_run(job: Job, only_export: bool = False) -> list[Room]:
    """Return how much `edgenet run` or `edgenet export` will write where; files that are there already take nothing."""
    measured = not only_export
    searches = job.max_accuracy_drop is not None or job.min_sqnr is not None
    weights_of = _weights_of(job.model)
    sizes: dict[tuple[str, str, tuple[str, ...]], float] = {
        (f, p, ()): _file_bytes(weights_of, p) for f in job.formats for p in job.precisions
    }
    if measured:
        sizes |= {(f, "int8", form.devices): _file_bytes(weights_of, "int8") for f, form in forms(job)}
    artifacts = [a for a in _results(job.out).artifacts if (job.out / a.path).exists()]
    there = {(a.format, a.precision, a.made_for): a.size_bytes for a in artifacts}
    left = sum(sizes.values()) - sum(there.get(key, 0) for key in sizes) + max(sizes.values(), default=0) * bool(there)
    rooms = [Room(job.out, max(left, 0) + _PAGE_BYTES)]
    if searches:
        rooms.append(_temporary(2 * _file_bytes(weights_of, "float32")))
    return rooms


def check_qat(job: QatJob) -> None:
    """The same for `edgenet qat`."""
    training = [Need(p, "training") for p in ("tensorflow", "tf-keras", "tensorflow-model-optimization")]
    _check_packages([
        *_written(job.formats),
        *(n for f in job.formats for n in _run_here([RUNTIME_OF[f]], f"format {f}")),
        *_model(job.model, job.weights is None),
        *_pictures(job.images),
        *training,
    ])  # fmt: skip
    n = _weights_of(job.model)
    files = len(job.formats) * (_file_bytes(n, "float32") + 3 * _file_bytes(n, "int8"))
    px = zoo.MODELS[job.model].resolution_px if job.model in zoo.MODELS else _PX
    check_room([Room(job.out, files + _training_bytes(n, job.images, px) + _PAGE_BYTES)])


def check_finetune(job: FinetuneJob) -> None:
    """The same for `edgenet finetune`."""
    training = [Need(p, "training") for p in ("tensorflow", "tf-keras")]
    found = [*_written(["tflite"]), *_run_here(["litert"], "measuring the result"), *_pictures(job.images)]
    _check_packages([*found, *_model(job.model, job.weights is None), *training])
    n = _weights_of(job.model)
    px = job.resolution_px or (zoo.MODELS[job.model].resolution_px if job.model in zoo.MODELS else _PX)
    check_room([Room(job.out, _file_bytes(n, "float32") + _training_bytes(n, job.images, px) + _PAGE_BYTES)])


def check_bench(
    files: Sequence[Path], devices: Sequence[str], runtime: str | None = None, cluster: str | None = None
) -> None:
    """The same for `edgenet bench`; nothing is written."""
    devices = _not_elsewhere(devices, cluster)
    local = files if "local" in devices else ()
    _check_packages([*_files_run_here(local, runtime), *_estimates(devices)])
    check_devices(devices)


def check_evaluate(files: Sequence[Path], images: str, devices: Sequence[str], cluster: str | None = None) -> None:
    """The same for `edgenet evaluate`, which always runs the files here too."""
    if cluster is not None:
        if devices:
            raise InputError("evaluate --device compares with this machine: leave out --cluster, or --device")
        check_cluster_present(cluster)
    inside = [Need("onnx", "reading an .onnx file")] if any(f.suffix == ".onnx" for f in files) else []
    inside += [Need("ai-edge-litert", "reading a .tflite file")] if any(f.suffix == ".tflite" for f in files) else []
    inside += [Need("tflite-micro", f"answers of {d}") for d in devices if parse(d)[0] == "ethos-u"]
    _check_packages([*_files_run_here(files), *inside, *_pictures(images), *_estimates(devices)])
    check_devices(devices)


def check_paper(job: PaperJob, memory_bytes: int | None) -> None:
    """The same for `edgenet paper`; networks that do not fit into so much memory are not written."""
    runtimes = RUNTIMES if "4" in job.wanted else ("litert",)
    formats = [RUNTIMES[r] for r in runtimes]
    here = _run_here(runtimes, f"--table {'4' if '4' in job.wanted else ' --table '.join(job.wanted)}")
    rivals = [Need(p, "counting the networks of --table 2") for p in ("tensorflow", "tf-keras") if "2" in job.wanted]
    own = [need for file in job.trained if os.path.isfile(file) for need in _model(file, False)]
    _check_packages([*_written(formats), *here, *rivals, *own, *_pictures(job.images), *_estimates(job.devices)])
    check_devices(job.devices)
    sizes = {step: _step_bytes(step, memory_bytes) for step in steps(job)}
    kept = sum(size for step, size in sizes.items() if set(step.networks) <= set(weights.PACKAGES))
    check_room([Room(job.out, kept + max(sizes.values(), default=0) + _PAGE_BYTES)])


def check_scale(job: ScaleJob) -> None:
    """The same for `edgenet scale`."""
    local = _run_here(["litert"], "measuring a network") if job.device == "local" else []
    _check_packages([*_written(["tflite"]), *local, *_estimates([job.device])])
    check_devices([job.device])
    check_room([Room(job.out, _SCALED_BYTES), _temporary(_SCALED_BYTES)])


# ------------------------------------------------------------------------------------------------------------ packages

RUNTIME_OF = {format: runtime for runtime, format in RUNTIMES.items()}


def _check_packages(needs: Sequence[Need]) -> None:
    """Raise one MissingDependency for all that is missing, with one command."""
    missing = dict.fromkeys(need for need in needs if not need.is_there)
    packages = dict[str, str]()  # each with the first purpose that it has
    for need in missing:
        packages.setdefault(need.package, need.purpose)
    if not packages:
        return
    extras = dict.fromkeys(PACKAGES[package][1] for package in packages)
    brought = {inner for extra in extras for inner in INCLUDES.get(extra, ())}
    extra = ",".join(e for e in extras if e not in brought)
    if len(packages) == 1:
        ((package, purpose),) = packages.items()
        raise MissingDependency(package, extra, purpose)
    by_purpose: dict[str, list[str]] = {}
    for package, purpose in packages.items():
        by_purpose.setdefault(purpose, []).append(package)
    raise MissingDependency.of_several([(_listed(found), why) for why, found in by_purpose.items()], extra)


def _written(formats: Iterable[str]) -> list[Need]:
    # LiteRT's schema is how edgenet holds a network, whatever the format.
    return [Need("ai-edge-litert", "writing any file"), *(Need(p, f"format {f}") for f in formats for p in _WRITES[f])]


def _run_here(runtimes: Iterable[str], purpose: str) -> list[Need]:
    return [Need(p, purpose, PACKAGES[p][0] + _ALSO.get(p, ())) for p in (_RUNS[r] for r in runtimes)]


def _files_run_here(files: Sequence[Path], runtime: str | None = None) -> list[Need]:
    found = []
    for suffix in dict.fromkeys(f.suffix for f in files):
        able = [runtime] if runtime else [r for r, suffixes in READS.items() if suffix in suffixes]
        found += _run_here(able[:1], f"running {suffix} files")
    return found


def _model(model: str, pretrained: bool) -> list[Need]:
    if model in zoo.MODELS:
        packages = [weights.PACKAGES[model][0]] if pretrained and model in weights.PACKAGES else []
        return [Need(package, f"pretrained weights of {model}") for package in packages]
    with suppress(EdgenetError):  # whatever is wrong with it is told when it is opened
        return [Need(package, f"reading {model}") for package in _READS.get(kind_of(Path(model)), ())]
    return []


def _pictures(images: str | None) -> list[Need]:
    if images == "sample":
        return [Need(package, "--images sample") for package in sample.PACKAGES.values()]
    if images is not None and tfds.is_tfds(images):
        return [Need(package, f"--images {images}") for package in ("tensorflow-datasets", "tensorflow")]
    if images is not None and images.startswith(("flowers102:", "cars:")):
        return [Need("scipy", f"the .mat files of --images {images}")]
    return []


def _estimates(devices: Iterable[str]) -> list[Need]:
    needed = {"ethos-u": "ethos-u-vela", "micro": "tflite-micro", "qnn": "onnxruntime-qnn"}
    return [Need(needed[kind], f"--device {d}") for d in devices if (kind := parse(d)[0]) in needed]


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


# ------------------------------------------------------------------------------------------------------------- devices


def _not_elsewhere(devices: Sequence[str], cluster: str | None) -> tuple[str, ...]:
    """Return the devices that no machine of the cluster has."""
    with farm(cluster) as who:
        return tuple(d for d in devices if not who.offers(d))


def check_devices(devices: Iterable[str]) -> None:
    """Ask each device whether it is there.

    Raises:
        InputError: one is written wrongly.
        MissingDependency: the program that talks to one is not installed.
        DeviceError: some are not there; all of them are named.
    """
    absent = []
    for device in dict.fromkeys(devices):
        try:
            check_present(device)
        except DeviceError as e:
            absent.append(str(e) if str(e).startswith(device) else f"{device}: {e}")
    if absent:
        raise DeviceError("; ".join([*absent, "nothing was begun"]))


def _check_run_devices(devices: Sequence[str]) -> None:
    """Ask computers and phones whether they are there; a chip that is not is a failure of the run beside the others."""
    machines = [d for d in devices if target_of(d) is None]
    check_devices(machines)
    chips = [d for d in devices if d not in machines]
    if chips and not machines:
        errors = []
        for chip in chips:
            try:
                check_present(chip)
            except EdgenetError as e:
                errors.append(e)
        if len(errors) == len(chips):
            raise errors[0]


def _unmeasured(job: Job) -> tuple[str, ...]:
    """Return the devices that are still to be measured on: a phone that did its part need not be plugged in again."""
    results = _results(job.out)
    there = {(a.format, a.precision, a.io_dtype if a.made_for else "") for a in results.artifacts}
    wanted = {(f, p, "") for f, p in _possible(job)} | {(f, "int8", form.io) for f, form in forms(job)}
    return tuple(unmeasured(job, results.artifacts, results)) if wanted <= there else job.devices


def _possible(job: Job) -> set[tuple[str, str]]:
    from edgenet.export import FORMATS

    return {(f, p) for f in job.formats for p in job.precisions if p in FORMATS[f].precisions}


def _results(out: Path) -> Results:
    with suppress(EdgenetError):  # a results.json that cannot be read is refused when the folder is opened
        return Results.load(out)
    return Results()


# ---------------------------------------------------------------------------------------------------------------- disk


def check_room(rooms: Sequence[Room]) -> None:
    """Raise InputError where a disk has less room than what will be written; folders of one disk share it."""
    disks: dict[int, list[tuple[Room, Path]]] = {}
    for room in rooms:
        folder = existing(room.folder)
        disks.setdefault(os.stat(folder).st_dev, []).append((room, folder))
    for shared in disks.values():
        needed, (first, folder) = sum(room.size_bytes for room, _ in shared), shared[0]
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise InputError(
                f"the disk of {first.folder} has {free / 1e6:,.0f} MB free, and about {needed / 1e6:,.0f} MB will be "
                f"written: make room, or {first.remedy}"
            )


def existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    return next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())


def _temporary(size_bytes: float) -> Room:
    return Room(Path(tempfile.gettempdir()), size_bytes, "name another folder for temporary files with TMPDIR")


def _weights_of(model: str) -> float:
    """Return about how many weights a model has: counted for the zoo's, by its size for a file."""
    if model in zoo.MODELS:
        return zoo.parameters(zoo.MODELS[model])
    path = Path(model)
    return size_of(path) / 4 if path.exists() else 0.0


def size_bytes_of(model: str, precision: str) -> float:
    """Return about how large a file of a model will be, from its number of weights; 0 where nothing is known."""
    return _file_bytes(_weights_of(model), precision)


def _file_bytes(n_weights: float, precision: str) -> float:
    return n_weights * _BYTES.get(precision, 1.0) * _MORE


def _training_bytes(n_weights: float, images: str, px: int) -> float:
    """Return what a training keeps in OUT/training: its checkpoint, and the pixels that are too many for memory."""
    from edgenet.calibration.training.augment import IN_MEMORY_BYTES

    n = count_photographs(Path(images)) if os.path.isdir(images) else 0
    pixels = n * (px + 32) ** 2 * 3
    return n_weights * _CHECKPOINT_BYTES + (pixels if pixels > IN_MEMORY_BYTES else 0)


def _step_bytes(step: Step, memory_bytes: int | None) -> float:
    formats = dict.fromkeys([*(b.format for b in step.benches), "tflite"])
    fitting = [n for n in step.networks for f in formats if not too_large(n, f, memory_bytes)]
    return sum(_file_bytes(counts(n).parameters, p) for n in fitting for p in step.precisions)
