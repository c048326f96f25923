"""What reads files of others: a row each, with the good files that fuzzing starts from.

A row calls what a command calls. What a command has a child process do is done by the child's own function, in the
process that fuzzes, and its message is packed, unpacked and checked as ever.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edgenet.errors import DeviceError, InputError
from fuzz import seeds
from fuzz.mutate import Files
from fuzz.seeds import constants, named, texts

PREPROCESS = "mean=127 std=128"


@dataclass(frozen=True)
class Reader:
    """A reader, and what it reads.

    Attributes:
        main: the file, of a seed's files, that is given to it; "" for the folder.
        read: raises EdgenetError where it refuses what it is given.
        make: returns good files.
        native: libraries in C++ parse the file: they may end the child that reads, which is a line to the user.
        tensorflow: it needs TensorFlow in the process that reads.
        in_child: a child process with limits reads it, so that memory and time have an end.
    """

    main: str
    read: Callable[[Path], object]
    make: Callable[[Path], list[Files]]
    native: bool = False
    tensorflow: bool = False
    in_child: bool = True


def use_this_process() -> None:
    """Have all that asks a child process ask this one."""
    from edgenet.export.foreign import ask
    from edgenet.export.importers import labels
    from edgenet.export.inspect import read
    from edgenet.models import checkpoints

    for module in (ask, labels, read, checkpoints):
        module.read_apart = _read_here  # type: ignore[attr-defined]


def _read_here(call: str, path: Path, arguments: Mapping[str, Any], effort: Any = None) -> Any:
    """Do what `read_apart` has a child do, and take its message as `read_apart` does."""
    from edgenet.sandbox import apart, child, wire

    asked = json.loads(json.dumps({"call": call, "arguments": dict(arguments)}))
    message = b"".join(child._answer(asked["call"], asked["arguments"]))
    at = 0

    def take(n: int) -> bytearray:
        nonlocal at
        at += n
        return bytearray(message[at - n : at])

    policy = (effort or apart.PARSING).policy(len(message), None)
    return apart._given(wire.unpack(take, len(message)), path, policy)


# -------------------------------------------------------------------------------------------------------------- models


def _inspected(path: Path) -> None:
    from edgenet.export.importers.labels import labels_in
    from edgenet.export.inspect import inspect
    from edgenet.export.inspect.read import lines

    labels_in(path)
    lines(inspect(path))


def _built(path: Path) -> None:
    """Inspect a file that edgenet inspects, and make a network of it."""
    from edgenet.export.importers.find import find_file

    try:
        _inspected(path)
    finally:
        find_file(str(path), PREPROCESS).network()


def _found(path: Path) -> None:
    """Read what a file says of itself, without building it: that loads TensorFlow."""
    from edgenet.export.foreign.ask import read_file
    from edgenet.export.importers.find import kind_of

    read_file(kind_of(path), path, None)


def _weights(path: Path) -> None:
    from edgenet.models.checkpoints import read_checkpoint

    read_checkpoint(path)


# --------------------------------------------------------------------------------------------------------------- texts


def _labels(path: Path) -> None:
    from edgenet.export.importers.labels import read_labels

    read_labels(path, 5)


def _classes() -> Any:
    from edgenet.export.network import classes_of
    from edgenet.images.class_names import Classes

    return Classes(*classes_of(5))


def _class_map(path: Path) -> None:
    from edgenet.images.class_map import read_class_map

    read_class_map(path, _classes(), ("cats", "dogs"))


def _table(path: Path) -> None:
    from edgenet.images.folders import list_folder

    list_folder(path, _classes())


def _recipe(path: Path) -> None:
    from edgenet.cli_options import job_or_recipe

    job_or_recipe({"model": str(path)})


def _report(folder: Path) -> None:
    """Make the report of a folder again, as the command does."""
    from click.testing import CliRunner

    from edgenet import cli

    done = CliRunner().invoke(cli.main, ["report", str(folder)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    if done.exit_code:
        assert done.exit_code in (1, 2, 3), done.exit_code  # 1: it says that a budget was missed
        raise InputError(done.stderr.removesuffix("\n"))
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------------------------------------------ devices' words


def _said(read: Callable[[str], object]) -> Callable[[Path], object]:
    """Return a reader of a file for one of what a program printed."""
    return lambda path: read(path.read_bytes().decode(errors="replace"))


def _vela(folder: Path) -> None:
    from edgenet.device_bench import ethos_u

    log = (folder / "vela.log").read_bytes().decode(errors="replace")
    layers, summary = ethos_u._table(folder, "*_per-layer.csv"), ethos_u._table(folder, "*_summary_*.csv")
    operators = [("CONV_2D", "stem"), ("DEQUANTIZE", "logits_float32"), ("SOFTMAX", "probabilities")]
    ethos_u.make_estimate("a", "ethos-u:x", "vela 5", operators, layers, summary[-1] if summary else {}, log)


def _edgetpu(text: str) -> None:
    from edgenet.device_bench.edgetpu.compiler_log import parse_log

    parse_log(text)


def _rknn(text: str) -> None:
    from edgenet.device_bench.rknn.compiler_log import parse_log

    parse_log(text)


def _micro(text: str) -> None:
    from edgenet.device_bench.micro import arena

    sizes = arena.arena_bytes(text)
    assert all(type(n) is int for n in sizes.values())
    arena.reason(text), arena.wants_more(text)


def _benchmark(text: str) -> None:
    from edgenet.device_bench.adb import benchmark_tool as tool

    tool.last_words(text)
    log = tool.parse(text)
    for delegate in tool.DELEGATES:
        with suppress(DeviceError):  # it took no node
            json.dumps(tool.delegation(log, delegate, 9).to_json(), allow_nan=False)


def _phone(text: str) -> None:
    from edgenet.device_bench.adb import phone
    from edgenet.device_bench.adb.link import parse_devices

    parse_devices(text)
    said = phone.split(text)
    about, state = phone.about(said), phone.state(said)
    json.dumps([about, state], allow_nan=False)
    phone.warnings(about, state, state)
    phone.mask(phone.big_cores({int(core): khz for core, khz in about["max_khz_by_core"].items()}, 4))


def _qnn(folder: Path) -> None:
    from edgenet.device_bench.litert_npu.plugin import refusals
    from edgenet.device_bench.qnn import onnx_compiler as qnn
    from edgenet.device_bench.qnn.tflite_compiler import moved_bytes

    for n_parts in (1, 2):
        qnn.estimate(qnn._profile(folder / "profile.csv"), n_parts)
    node = SimpleNamespace(op_type="Conv", input=["image"], output=["y"], name="stem")
    model = SimpleNamespace(graph=SimpleNamespace(node=[node], output=[SimpleNamespace(name="y")]))
    qnn.operators(model, model, qnn._json(folder / "qnn_op_trace.json"))
    text = (folder / "plugin.log").read_bytes().decode(errors="replace")
    refusals(text), moved_bytes(text)


def _answer(path: Path) -> None:
    """Take the file for what a worker's process answers."""
    from edgenet.device_bench.worker import Launch, Worker

    with Worker("model.tflite", launch=Launch(["cat", str(path)]), timeout_s=1) as worker:
        worker.memory()


# --------------------------------------------------------------------------------------------------------- their seeds

_RECIPES = (
    'model = "efficientnet-lite0"\nimages = "sample"\nout = "demo"\nprecisions = ["float32", "int8"]\n'
    'calibration_images = 100\nbatch = "dynamic"\ndevices = ["local"]\nlogits = true\n',
    'model = "x.onnx"\nout = "demo"\npreprocess = "mean=127 std=128"\nthreads = 2\nlimit = 40\nformats = ["onnx"]\n'
    'labels = "names.txt"\ntask = "classes"\ntarget = "pixel-8"\nrandom_weights = false\nio = "uint8"\n',
)
_LABELS = (
    "red\ngreen\nblue\nyellow\ngrey\n",
    "index,wnid,name\n0,n01440764,tench\n1,n01443537,goldfish\n2,n01484850,shark\n3,n01491361,tiger\n4,n01494475,ray\n",
    "n01440764 tench\nn01443537 goldfish\nn01484850 shark\nn01491361 tiger\nn01494475 ray\n",
)
_SUMMARY = (
    "system_config,memory_mode,core_clock,sram_bandwidth,inference_time,cycles_total,sram_memory_used,"
    "dram_memory_used,on_chip_flash_memory_used,off_chip_flash_memory_used\n"
    "High_End,Shared_Sram,500000000.0,3.725,0.014381718,7190859,1474.21875,0.0,0.0,4404.390625\n"
)
_LAYERS = "Target,Name,Cycles\nNPU,stem,100\nCPU,logits_float32,0\nCPU,probabilities,0\n"
_PHONE = (
    "List of devices attached\nemulator-5554          device product:sdk model:Pixel_6 transport_id:1\n\n"
    "edgenet-section:model\nPixel 6\n\nedgenet-section:maker\nGoogle\n\nedgenet-section:android\n14\n\n"
    "edgenet-section:sdk\n34\n\nedgenet-section:abis\narm64-v8a,armeabi-v7a\n\nedgenet-section:meminfo\n"
    "MemTotal:        7712345 kB\n\nedgenet-section:cpuinfo\nFeatures        : fp asimd asimddp i8mm\n\n"
    "edgenet-section:online\n0-7\n\nedgenet-section:max_khz\n"
    "/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq 1803000\n"
    "/sys/devices/system/cpu/cpu7/cpufreq/cpuinfo_max_freq 2802000\n\nedgenet-section:battery\n  level: 88\n"
    "  temperature: 291\n  AC powered: false\n  USB powered: true\n\nedgenet-section:thermal\nThermal Status: 0\n"
    "Current temperatures from HAL:\n\tTemperature{mValue=41.2, mType=0, mName=cpu, mStatus=0}\n\n"
    "edgenet-section:zones\ncpu-0 41200\nbattery 29\n\nedgenet-section:cap_khz\n"
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq 1803000\n\nedgenet-section:load\n1.02 0.90 0.5 1/99 3\n\n"
    "edgenet-section:saver\n0\n"
)
_PROFILE = "Msg Timestamp,Message,Time,Unit of Measurement,Timing Source,Event Level,Event Identifier\n" + "".join(
    f"1,{message},{time},US,BACKEND,ROOT,{event}\n"
    for message, time, event in (
        ("FINALIZE", 1000, "QNN (finalize) time"),
        ("FINALIZE-1", 382500, "Simulated (Accelerator exec cycles)"),
        ("FINALIZE-1", 255, "Simulated (Accelerator exec time us)"),
        ("FINALIZE-1", 204, "Simulated (Accelerator exec time us (lower estimate))"),
        ("FINALIZE-1", 306, "Simulated (Accelerator exec time us (upper estimate))"),
        ("FINALIZE-1", 1000, "Input Fill"),
    )
)
_TRACE = '{"unsupported_nodes": [{"node_name": "stem", "reason": "Failed to add node."}]}'
_PLUGIN = (
    "[qnn] op validation failed: 'stem' (type=Conv2d)\n  Inputs:\n    [0] dtype=QNN_DATATYPE_FLOAT_32\n"
    "  Outputs:\n    [0] dtype=QNN_DATATYPE_SFIXED_POINT_8\n"
    "LiteRT Op #3 'Conv2d' (code=3) is not supported in X\n  Outputs:\n"
    '    [0] name="y"\nread_total_bytes=40\nfill_bytes=2\nspill_bytes=1\nwrite_total_bytes=30\n'
)


def _vela_files(folder: Path) -> list[Files]:
    (log,) = constants("device_bench/test_ethos_u.py", "LOG")
    parts = {"vela.log": log, "model_per-layer.csv": _LAYERS, "model_summary_high.csv": _SUMMARY}
    return [{name: text.encode() for name, text in parts.items()}]


def _qnn_files(folder: Path) -> list[Files]:
    parts = {"profile.csv": _PROFILE, "qnn_op_trace.json": _TRACE, "plugin.log": _PLUGIN}
    return [{name: text.encode() for name, text in parts.items()}]


def _tables(folder: Path) -> list[Files]:
    contents = ("file,label\na.jpg,0\nb.jpg,1\n", "file;label\na.jpg;class_2\nb.jpg;class_3\n", "a.jpg,0\nb.jpg,4\n")
    return [{"labels.csv": text.encode(), "a.jpg": b"a", "b.jpg": b"b"} for text in contents]


def _answers(folder: Path) -> list[Files]:
    from edgenet.device_bench import runner

    loaded = {
        "runtime": "litert", "version": "2", "delegate": "cpu", "io_dtype": "float32", "input_shape": [1, 20, 20, 3],
        "layout": "NHWC", "size_px": [20, 20], "output_names": ["y"], "output_shape": [1, 5],
        "output_dtype": "float32", "load_ns": 5, "baseline_rss_bytes": 9, "python": "3.11", "numpy": "2",
    }  # fmt: skip
    memory = runner.pack({"peak_rss_bytes": 5, "baseline_rss_bytes": 4}, 0)
    error = runner.pack({"error": "model.tflite is no model", "kind": "load"}, 0)
    return [{"answers": runner.pack(loaded, 0) + memory}, {"answers": b"hello\n" + error}]


def _exported(format: str) -> Callable[[Path], list[Files]]:
    return lambda folder: seeds.exported(format, folder)


def _of_weights(kind: str) -> Callable[[Path], list[Files]]:
    return lambda folder: seeds.weights(kind, folder)


def _rknn_logs(folder: Path) -> list[Files]:
    logs = sorted((seeds.TESTS / "device_bench/rknn").glob("*.log"))
    return [{"rknn.log": log.read_bytes()} for log in logs]


def _logs(module: str, *names: str) -> Callable[[Path], list[Files]]:
    return lambda folder: texts("said.log", *constants(module, *names))(folder)


_BENCHMARKS = "LOG_2019", "LOG_2020_GPU", "LOG_2023_NNAPI", "LOG_2025", "LOG_LITERT", "LOG_FELL_BACK"

READERS: dict[str, Reader] = {
    "tflite": Reader("model.tflite", _built, _exported("tflite")),
    "onnx": Reader("model.onnx", _built, _exported("onnx"), native=True),
    "openvino": Reader("model.xml", _inspected, _exported("openvino"), native=True),
    "keras": Reader("model.keras", _found, named("k2.keras", "k3.keras", main="model.keras"), native=True),
    "h5": Reader("model.h5", _found, named("model.h5", main="model.h5"), native=True),
    "savedmodel": Reader("", _found, seeds.tree("saved")),
    "pth": Reader("model.pth", _weights, _of_weights(".pth")),
    "npz": Reader("model.npz", _weights, _of_weights(".npz")),
    "safetensors": Reader("model.safetensors", _weights, _of_weights(".safetensors")),
    "keras-weights": Reader("model.h5", _weights, named("model.h5", "only.weights.h5", main="model.h5"), native=True),
    "checkpoint": Reader("model.index", _weights, seeds.tree("ckpt"), native=True, tensorflow=True),
    "tar": Reader("model.tar.gz", _weights, seeds.archive, native=True, tensorflow=True),
    "labels": Reader("labels.txt", _labels, texts("labels.txt", *_LABELS), in_child=False),
    "class-map": Reader("map.txt", _class_map, texts("map.txt", "cats = 0, 1\ndogs = class_2 # all\n"), in_child=False),
    "table": Reader("", _table, _tables, in_child=False),
    "recipe": Reader("recipe.toml", _recipe, texts("recipe.toml", *_RECIPES), in_child=False),
    "results": Reader("", _report, seeds.results, in_child=False),
    "vela": Reader("", _vela, _vela_files, in_child=False),
    "edgetpu": Reader(
        "said.log", _said(_edgetpu), _logs("device_bench/edgetpu/test_device.py", "ALL_MAPPED", "TOO_NEW", "CRASHED"),
        in_child=False,
    ),
    "rknn": Reader("rknn.log", _said(_rknn), _rknn_logs, in_child=False),
    "micro": Reader("said.log", _said(_micro), _logs("device_bench/micro/test_arena.py", "LOG"), in_child=False),
    "benchmark": Reader(
        "said.log", _said(_benchmark), _logs("device_bench/adb/test_benchmark_tool.py", *_BENCHMARKS), in_child=False
    ),
    "phone": Reader("said.log", _said(_phone), texts("said.log", _PHONE), in_child=False),
    "qnn": Reader("", _qnn, _qnn_files, in_child=False),
    "worker": Reader("answers", _answer, _answers, in_child=False),
}  # fmt: skip
