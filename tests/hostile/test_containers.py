"""Files that are two things, say that they are larger than they are, link elsewhere or never end."""

import json
import os
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from edgenet import cli
from edgenet.device_bench.worker import Worker
from edgenet.errors import DeviceError, InputError
from edgenet.export import find_source
from edgenet.export.inspect import inspect
from edgenet.models.checkpoints import read_checkpoint

FLOAT, HUGE = TensorProto.FLOAT, 2**62


def refuses(read: Callable[[], object], name: str) -> str:
    with pytest.raises(InputError) as e:
        read()
    line = str(e.value)
    assert name in line
    assert line.isprintable()
    return line


def line_of(read: Callable[[], object]) -> str:
    """Return the one line with which something is refused, "" where it is read."""
    try:
        read()
    except InputError as e:
        line = str(e)
        return line if line.isprintable() else f"several lines: {line}"
    return ""


# -------------------------------------------------------------------------------------------------------------- weights


def safetensors(header: object, data: bytes = bytes(64), size: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def tensor(shape: list[int], end: int, begin: int = 0, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


SAFETENSORS = {
    "a header of 2^63 bytes": safetensors({}, size=2**63),
    "a header of 100 MB that is not there": safetensors({}, size=10**8),
    "a tensor of 10^18": safetensors({"w": tensor([10**9, 10**9], 64)}),
    "a tensor beyond the end": safetensors({"w": tensor([10**6], 4 * 10**6)}),
    "a tensor before the beginning": safetensors({"w": tensor([16], 32, -32)}),
    "a negative side": safetensors({"w": tensor([-4, -4], 64)}),
    "an unknown type": safetensors({"w": tensor([16], 64, dtype="X9")}),
    "10^5 levels": struct.pack("<Q", 10**5) + b"[" * 10**5,
}


@pytest.mark.parametrize("data", SAFETENSORS.values(), ids=SAFETENSORS)
def test_safetensors_that_are_not_what_they_say_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(data)
    said = refuses(lambda: read_checkpoint(tmp_path / "w.safetensors"), "w.safetensors")
    assert "is damaged or cut short, or is not what its name says" in said


def npy(shape: str, descr: str = "'<f4'", data: bytes = bytes(64)) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + data


ARRAYS = {
    "10^18 numbers": npy("(1000000000, 1000000000)"),
    "a negative side": npy("(-4, 4)"),
    "more than there are": npy("(1000,)"),
    "Python objects": npy("(4,)", "'|O'", b"cos\nsystem\n(S'touch harm'\ntR."),
    "a call in the header": npy("(__import__('os').system('touch harm'),)"),
    "a field of fields": npy("(4,)", "[('a', '<f4'), ('b', '|O')]"),
}


@pytest.mark.parametrize("data", ARRAYS.values(), ids=ARRAYS)
def test_arrays_that_are_not_what_they_say_are_refused(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("w.npz", "w") as archive:
        archive.writestr("w.npy", data)
    refuses(lambda: read_checkpoint(tmp_path / "w.npz"), "w.npz")
    assert os.listdir() == ["w.npz"]


def test_an_archive_of_zeros_is_not_unpacked_beyond_what_it_explains(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", npy("(6000000000,)", data=bytes(20 << 20)))
    said = refuses(lambda: read_checkpoint(tmp_path / "w.npz"), "w.npz")
    assert "is damaged or cut short, or is not what its name says" in said


# ----------------------------------------------------------------------------------------------------------- two things


@pytest.mark.parametrize("behind", [b"PK\x05\x06" + bytes(18), b"\x89HDF\r\n\x1a\n" + bytes(600), bytes(3)])
@pytest.mark.parametrize("suffix", [".tflite", ".onnx", ".xml"])
def test_a_model_with_another_file_behind_it_is_read_as_what_it_is_or_refused(
    suffix: str, behind: bytes, nets: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / f"two{suffix}"
    path.write_bytes(nets[suffix].read_bytes() + behind)
    if suffix == ".xml":
        path.with_suffix(".bin").write_bytes(nets[suffix].with_suffix(".bin").read_bytes())
    said = line_of(lambda: inspect(path))
    assert path.name in said if said else inspect(path).operators == inspect(nets[suffix]).operators


@pytest.fixture(scope="module")
def nets(tiny_network: object, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny network in float32, by suffix."""
    from edgenet.export import FORMATS, export_graph

    folder = tmp_path_factory.mktemp("nets")
    found = {}
    for name, kind in FORMATS.items():
        made = export_graph(tiny_network, tiny_network.graph, folder, format=name, precision="float32")  # type: ignore[arg-type,attr-defined]
        found[kind.suffix] = folder / made.path
    return found


# ------------------------------------------------------------------------------------------------ ONNX, links and loops


def network(path: Path, *nodes: onnx.NodeProto, constants: tuple[onnx.TensorProto, ...] = ()) -> None:
    """Write a network that pools a picture, multiplies by `w`, and gives what `nodes` make of it as y."""
    own = [
        helper.make_node("GlobalAveragePool", ["image"], ["p"]), helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["m"]), *nodes,
    ]  # fmt: skip
    weights = [numpy_helper.from_array(np.ones((3, 5), np.float32), "w")]
    weights = [w for w in weights if w.name not in {c.name for c in constants}]
    image, y = (
        helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in (("image", [1, 3, 20, 20]), ("y", [1, 5]))
    )
    graph = helper.make_graph(own, "g", [image], [y], [*weights, *constants])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def scalar(name: str, value: object, dtype: type) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, dtype), name)


def endless(path: Path) -> None:
    """A loop of 2^62 rounds."""
    ends = helper.make_tensor_value_info("c2", TensorProto.BOOL, []), helper.make_tensor_value_info("v2", FLOAT, [1, 5])
    begins = (
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        helper.make_tensor_value_info("v", FLOAT, [1, 5]),
    )
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Neg", ["v"], ["v2"])], "body", begins, ends
    )
    loop = helper.make_node("Loop", ["n", "t", "m"], ["y"], body=body)
    network(path, loop, constants=(scalar("n", HUGE, np.int64), scalar("t", True, np.bool_)))


def branching(path: Path) -> None:
    """An If whose branches hold an If each, 12 deep."""
    made = helper.make_node("Identity", ["m"], ["y"])
    for _ in range(12):
        given = helper.make_tensor_value_info("y", FLOAT, [1, 5])
        branches = {side: helper.make_graph([made], side, [], [given]) for side in ("then_branch", "else_branch")}
        made = helper.make_node("If", ["t"], ["y"], **branches)
    network(path, made, constants=(scalar("t", True, np.bool_),))


@pytest.mark.parametrize("make", [endless, branching])
def test_a_network_with_control_flow_is_refused_by_its_name(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "m.onnx")
    said = refuses(lambda: find_source(str(tmp_path / "m.onnx"), preprocess="torch").network(), "m.onnx")
    assert "control flow" in said


def test_a_file_that_never_answers_is_ended_and_named(tmp_path: Path) -> None:
    endless(tmp_path / "m.onnx")
    with Worker(tmp_path / "m.onnx", timeout_s=2) as worker, pytest.raises(DeviceError, match=r"m\.onnx.*no answer"):
        worker.predict(np.zeros((1, 20, 20, 3), np.float32))


def external(location: str, length: int = 60, offset: int = 0) -> onnx.TensorProto:
    t = TensorProto(name="w", data_type=FLOAT, dims=[3, 5], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("length", str(length)), ("offset", str(offset))):
        t.external_data.add(key=key, value=value)
    return t


def absolute(folder: Path) -> str:
    return str(folder / "secret")


def above(folder: Path) -> str:
    return "../secret"


def by_link(folder: Path) -> str:
    (folder / "in/w.data").symlink_to("../secret")
    return "w.data"


def by_folder(folder: Path) -> str:
    (folder / "in/data").symlink_to("..")
    return "data/secret"


def by_hard_link(folder: Path) -> str:
    os.link(folder / "secret", folder / "in/w.data")
    return "w.data"


def fifo(folder: Path) -> str:
    os.mkfifo(folder / "in/w.data")
    return "w.data"


@pytest.mark.parametrize("place", [absolute, above, by_link, by_folder, by_hard_link, fifo])
def test_weights_of_an_onnx_file_that_lie_elsewhere_are_not_read(place: Callable[[Path], str], tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(np.arange(15, dtype=np.float32).tobytes())
    (tmp_path / "in").mkdir()
    network(tmp_path / "in/m.onnx", helper.make_node("Identity", ["m"], ["y"]), constants=(external(place(tmp_path)),))
    said = refuses(lambda: find_source(str(tmp_path / "in/m.onnx"), preprocess="torch").network(), "m.onnx")
    assert re.search("outside of its folder, where edgenet reads nothing|not beside it|multiple hard links", said)


@pytest.mark.parametrize(("length", "offset"), [(HUGE, 0), (60, HUGE), (-1, 0), (60, -8), (10**9, 0)])
def test_weights_beside_an_onnx_file_that_are_shorter_than_it_says_are_refused(
    length: int, offset: int, tmp_path: Path
) -> None:
    (tmp_path / "w.data").write_bytes(bytes(60))
    given = external("w.data", length, offset)
    network(tmp_path / "m.onnx", helper.make_node("Identity", ["m"], ["y"]), constants=(given,))
    said = line_of(lambda: find_source(str(tmp_path / "m.onnx"), preprocess="torch").network())
    assert "m.onnx" in said or length == -1  # which is for all that there are
    done = CliRunner().invoke(cli.main, ["inspect", str(tmp_path / "m.onnx")], prog_name="edgenet")
    assert done.exit_code in (0, 2)
    assert done.exception is None or isinstance(done.exception, SystemExit)
