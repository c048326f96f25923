"""checkpoints.py: files of every format load under the names of every project, and nothing hostile in one runs."""

import io
import json
import struct
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet.errors import InputError, MissingDependency
from edgenet.files import sha256_of
from edgenet.models import checkpoints, weights, zoo
from helpers.distinct_weights import B0, CLASSES, LITE0, Arrays, distinct, renamed, same
from helpers.distinct_weights import b0 as b0
from helpers.distinct_weights import lite0 as lite0
from helpers.torch_files import bit, save_legacy, save_zip, tensor_pickle

# ---------------------------------------------------------------------------- files as other programs write them


def _save_pickle(path: Path, content: bytes) -> None:
    """Put `content` where a zip .pth has its pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)


def _save_checkpoint(prefix: Path, arrays: Arrays) -> None:
    tf = pytest.importorskip("tensorflow")
    names = sorted(arrays)
    tensors = [tf.constant(arrays[n]) for n in names]
    tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors)


def _official(arrays: Arrays, spec: zoo.ModelSpec) -> Arrays:
    """Return a checkpoint's content as tensorflow/tpu saves it."""
    named = renamed(arrays, "tensorflow/tpu", spec)
    return {f"{spec.name}/{n.replace('batch_norm', 'tpu_batch_norm')}": a for n, a in named.items()}


# --------------------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize("save", [save_legacy, save_zip])
@pytest.mark.parametrize("style", ["efficientnet_pytorch", "timm", "torchvision"])
@pytest.mark.parametrize(("prefix", "wrapper"), [("", None), ("module.", "state_dict")])
def test_torch_files_of_either_format_load(
    tmp_path: Path, b0: Arrays, save: Callable[..., None], style: str, prefix: str, wrapper: str | None
) -> None:
    named = {prefix + name: a for name, a in renamed(b0, style, B0).items()}
    named |= {f"{prefix}bn1.num_batches_tracked": np.array(7)}  # 0 dimensions, int64
    save(tmp_path / "b0.pth", named, wrapper)
    loaded = weights.load(B0, tmp_path / "b0.pth", CLASSES)
    assert same(loaded.arrays, b0)
    assert loaded.sha256 == sha256_of(tmp_path / "b0.pth")
    assert loaded.provenance == f"b0.pth (names of {style})"
    assert ("tf_efficientnet" in "".join(map(str, loaded.findings))) == (style == "timm")


def test_a_torch_view_into_a_shared_storage_is_read_through_its_strides(tmp_path: Path) -> None:
    numbers = np.arange(12, dtype=np.float32)
    content = tensor_pickle({"a": numbers})
    view = content.replace(bit(0) + bit((12,)) + bit((1,)), bit(1) + bit((3, 2)) + bit((2, 5)))
    assert view != content
    with zipfile.ZipFile(tmp_path / "view.pth", "w") as archive:
        archive.writestr("x/data.pkl", view)
        archive.writestr("x/data/0", numbers.tobytes())
    read = checkpoints.read_checkpoint(tmp_path / "view.pth").arrays["a"]
    assert read.tolist() == [[1, 6], [3, 8], [5, 10]]


def test_averaged_weights_in_a_training_checkpoint_are_preferred(tmp_path: Path, lite0: Arrays) -> None:
    save_zip(tmp_path / "x.pth", renamed(lite0, "timm", LITE0), "state_dict_ema")
    loaded = weights.load(LITE0, tmp_path / "x.pth", CLASSES)
    assert same(loaded.arrays, lite0)
    assert "moving averages" in loaded.provenance


@pytest.mark.parametrize("style", ["edgenet", "efficientnet_pytorch", "tensorflow/tpu", "keras.applications"])
def test_npz_loads_under_any_names(tmp_path: Path, lite0: Arrays, style: str) -> None:
    np.savez(tmp_path / "x.npz", **renamed(lite0, style, LITE0))
    assert same(weights.load(LITE0, tmp_path / "x.npz", CLASSES).arrays, lite0)


def test_safetensors_as_the_library_writes_them_load(tmp_path: Path, lite0: Arrays) -> None:
    library = pytest.importorskip("safetensors.numpy")
    library.save_file(renamed(lite0, "timm", LITE0), tmp_path / "x.safetensors", {"format": "pt"})
    assert same(weights.load(LITE0, tmp_path / "x.safetensors", CLASSES).arrays, lite0)


def _save_safetensors(path: Path, header: Mapping[str, object], data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_safetensors_of_half_precision_are_widened(tmp_path: Path) -> None:
    header = {
        "b": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]},
        "h": {"dtype": "F16", "shape": [1, 1], "data_offsets": [4, 6]},
    }
    data = b"\x80\x3f\x40\xc0" + np.float16(0.5).tobytes()  # bfloat16 1.0, -3.0
    _save_safetensors(tmp_path / "x.safetensors", header, data)
    arrays = checkpoints.read_checkpoint(tmp_path / "x.safetensors").arrays
    assert arrays["b"].tolist() == [1.0, -3.0]
    assert arrays["h"].tolist() == [[0.5]]


@pytest.fixture(scope="module")
def our_network(b0: Arrays) -> Any:
    """The network with these weights, as tf-keras has it. Read only."""
    pytest.importorskip("tf_keras")
    from edgenet.models import efficientnet

    built = efficientnet.build(B0, CLASSES, 32)
    efficientnet.set_weights(built, b0)
    return built


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5", ".keras"])
def test_files_that_our_own_network_saves_load(tmp_path: Path, b0: Arrays, our_network: Any, suffix: str) -> None:
    path = tmp_path / f"b0{suffix}"
    if suffix == ".weights.h5":
        our_network.save_weights(path)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras calls its HDF5 format legacy
            our_network.save(path)
    assert same(weights.load(B0, path, CLASSES).arrays, b0)


def test_the_hdf5_layouts_of_keras_applications_load(tmp_path: Path, b0: Arrays) -> None:
    h5py = pytest.importorskip("h5py")
    named = renamed(b0, "keras.applications", B0)
    with h5py.File(tmp_path / "keras2.h5", "w") as file:  # "layer/layer/variable:0"
        for name, a in (named | {"normalization/mean": np.zeros(3, np.float32)}).items():
            file[f"{name.split('/')[0]}/{name}:0"] = a
    with h5py.File(tmp_path / "keras3.h5", "w") as file:  # a depthwise kernel is called kernel
        for name, a in named.items():
            file[f"model_weights/{name.split('/')[0]}/{name.replace('depthwise_kernel', 'kernel')}"] = a
        file["optimizer_weights/adam/iteration"] = 3
    for path in tmp_path.iterdir():
        assert same(weights.load(B0, path, CLASSES).arrays, b0), path.name


def test_keras_3_files_that_keep_layer_names_are_read_by_them(tmp_path: Path, lite0: Arrays) -> None:
    h5py = pytest.importorskip("h5py")
    order = {"bias": 1, "beta": 1, "moving_mean": 2, "moving_variance": 3}  # the others come first
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        for name, a in lite0.items():
            layer, variable = name.split("/")
            group = file.require_group(f"layers/shuffled_{layer[::-1]}/vars")
            group.attrs["name"] = layer
            group[str(order.get(variable, 0))] = a
    assert same(weights.load(LITE0, tmp_path / "x.weights.h5", CLASSES).arrays, lite0)


def test_an_hdf5_file_that_points_to_another_file_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    (tmp_path / "secret.bin").write_bytes(bytes(4000))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("a/kernel", (10,), "f4", external=[(str(tmp_path / "secret.bin"), 0, 40)])
    with pytest.raises(InputError, match="points to another file"):
        checkpoints.read_checkpoint(tmp_path / "x.h5")


@pytest.mark.parametrize("spec", [LITE0, B0], ids=["lite0", "b0"])
def test_a_tensorflow_checkpoint_loads_by_prefix_file_folder_and_tar(tmp_path: Path, spec: zoo.ModelSpec) -> None:
    arrays = distinct(spec)
    folder = tmp_path / spec.name
    folder.mkdir()
    extra = {
        "global_step": np.array(9),
        f"{spec.name}/stem/conv2d/kernel/RMSProp_1": np.zeros((3, 3, 3, 32), np.float32),
    }
    _save_checkpoint(folder / "model.ckpt-9", _official(arrays, spec) | extra)
    (folder / "checkpoint").write_text('model_checkpoint_path: "/gone/model.ckpt-9"\n')
    with tarfile.open(tmp_path / f"{spec.name}.tar.gz", "w:gz") as archive:
        archive.add(folder, spec.name)
    for path in (folder, folder / "model.ckpt-9", folder / "model.ckpt-9.index", tmp_path / f"{spec.name}.tar.gz"):
        assert same(weights.load(spec, path, CLASSES).arrays, arrays), path.name


def test_moving_averages_in_a_tensorflow_checkpoint_are_preferred(tmp_path: Path, lite0: Arrays) -> None:
    official = _official(lite0, LITE0)
    mixed = {name: np.zeros_like(a) for name, a in official.items()}
    mixed |= {f"{name}/ExponentialMovingAverage": a for name, a in official.items()}
    _save_checkpoint(tmp_path / "m.ckpt", mixed)
    loaded = weights.load(LITE0, tmp_path / "m.ckpt", CLASSES)
    assert same(loaded.arrays, lite0)
    assert "moving averages" in loaded.provenance


def test_a_tensorflow_checkpoint_of_a_keras_model_loads_by_order(tmp_path: Path, lite0: Arrays) -> None:
    layers = list(dict.fromkeys(name.split("/")[0] for name in lite0))
    ends = {n: (n.split("/")[0], n.split("/")[1]) for n in lite0}
    _save_checkpoint(
        tmp_path / "ck",
        {
            f"layer_with_weights-{layers.index(a)}/{v}/.ATTRIBUTES/VARIABLE_VALUE": lite0[n]
            for n, (a, v) in ends.items()
        },
    )
    assert same(weights.load(LITE0, tmp_path / "ck", CLASSES).arrays, lite0)


# ----------------------------------------------------------------------------------------------- hostile and broken


def test_a_pickle_that_calls_os_system_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    call = b"cos\nsystem\n(" + bit(f"touch {trace}") + b"tR."
    _save_pickle(tmp_path / "zip.pth", b"\x80\x02" + call)
    (tmp_path / "legacy.pth").write_bytes(b"\x80\x02" + call)
    _save_pickle(
        tmp_path / "stack_global.pth", b"\x80\x04\x8c\x02os\x8c\x06system\x93(" + bit(f"touch {trace}") + b"tR."
    )
    for path in list(tmp_path.glob("*.pth")):
        with pytest.raises(InputError, match=r"refused: the pickle names os\.system"):
            weights.load(LITE0, path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "name", ["builtins eval", "builtins getattr", "torch.storage _load_from_bytes", "collections OrderedDict.fromkeys"]
)
def test_any_other_name_in_a_pickle_is_refused(tmp_path: Path, name: str) -> None:
    module, attribute = name.split()
    _save_pickle(tmp_path / "x.pth", f"c{module}\n{attribute}\n.".encode())
    with pytest.raises(InputError, match="refused: the pickle names " + f"{module}.{attribute}".replace(".", r"\.")):
        checkpoints.read_checkpoint(tmp_path / "x.pth")


def test_a_pickle_leaves_no_attribute_behind_in_the_process(tmp_path: Path) -> None:
    _save_pickle(tmp_path / "x.pth", b"\x80\x02ccollections\nOrderedDict\n}" + bit("__setstate__") + bit(1) + b"sb.")
    with pytest.raises(InputError):
        checkpoints.read_checkpoint(tmp_path / "x.pth")
    save_zip(tmp_path / "good.pth", {"a": np.ones(3, np.float32)})
    assert checkpoints.read_checkpoint(tmp_path / "good.pth").arrays["a"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02]r\xff\xff\xff\x7f.",  # a memo of two thousand million entries
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a string of 2**63 bytes
        b"\x80\x02" + b"(" * 200_000 + b"t" * 200_000 + b".",
        b"\x80\x02" + bit(1) + b"Q.",  # a reference that is no storage
        b"\x80\x02N.",
        b"",
    ],
)
def test_a_pickle_bomb_is_an_input_error(tmp_path: Path, content: bytes) -> None:
    _save_pickle(tmp_path / "x.pth", content)
    with pytest.raises(InputError):
        checkpoints.read_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("shape", "strides", "offset"), [((10**6, 10**6), (0, 0), 0), ((4,), (2,), 0), ((4,), (1,), 1), ((4,), (-1,), 3)]
)
def test_a_tensor_that_reaches_beyond_its_storage_is_refused(
    tmp_path: Path, shape: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> None:
    content = tensor_pickle({"a": np.ones(4, np.float32)})
    forged = content.replace(bit(0) + bit((4,)) + bit((1,)), bit(offset) + bit(shape) + bit(strides))
    assert forged != content
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("x/data.pkl", forged)
        archive.writestr("x/data/0", np.ones(4, np.float32).tobytes())
    with pytest.raises(InputError, match="is damaged"):
        checkpoints.read_checkpoint(tmp_path / "x.pth")


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("whole")
    arrays = {"a": np.arange(200, dtype=np.float32), "b": np.ones((4, 5), np.float32)}
    save_legacy(folder / "legacy.pth", arrays)
    save_zip(folder / "zip.pth", arrays)
    np.savez(folder / "x.npz", **arrays)
    header = {"a": {"dtype": "F32", "shape": [200], "data_offsets": [0, 800]}}
    _save_safetensors(folder / "x.safetensors", header, arrays["a"].tobytes())
    return sorted(folder.iterdir())


def test_a_file_cut_short_anywhere_is_an_input_error(tmp_path: Path, whole_files: list[Path]) -> None:
    for whole in whole_files:
        data = whole.read_bytes()
        assert checkpoints.read_checkpoint(whole).arrays["a"].shape == (200,)
        for n in {0, 1, 7, 30, 100, len(data) // 2, len(data) - 300, len(data) - 1}:
            (tmp_path / whole.name).write_bytes(data[:n])
            with pytest.raises(InputError, match=r"damaged or cut short|holds no state dict"):
                checkpoints.read_checkpoint(tmp_path / whole.name)


def test_a_file_of_flipped_bytes_is_read_or_refused_and_never_crashes(tmp_path: Path, whole_files: list[Path]) -> None:
    generator = np.random.default_rng(0)
    refused = 0
    for whole in whole_files:
        for _ in range(60):
            data = bytearray(whole.read_bytes())
            for i in generator.integers(0, min(len(data), 700), 3):
                data[i] = generator.integers(256)
            (tmp_path / whole.name).write_bytes(data)
            try:
                checkpoints.read_checkpoint(tmp_path / whole.name)
            except InputError:
                refused += 1
    assert refused > 60


@pytest.mark.parametrize("suffix", [".pth", ".npz", ".safetensors", ".h5", ".keras", ".index", ".tar.gz"])
def test_text_under_any_suffix_is_an_input_error(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"x{suffix}").write_text("<html>404 not found</html>\n" * 40)
    with pytest.raises(InputError, match=r"damaged|not a whole TensorFlow checkpoint"):
        weights.load(LITE0, tmp_path / f"x{suffix}")


def test_an_npz_with_pickled_objects_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="damaged"):
        checkpoints.read_checkpoint(tmp_path / "x.npz")


@pytest.mark.parametrize("name", ["../outside.index", "/outside.index"])
def test_a_tar_that_would_leave_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(InputError, match="would leave the folder"):
        weights.load(LITE0, tmp_path / "x.tar.gz")


@pytest.mark.parametrize(("name", "says"), [("gone.pth", "no weights file"), ("x.xyz", "cannot tell the format")])
def test_a_missing_or_unknown_file_lists_the_valid_kinds(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "x.xyz").touch()
    with pytest.raises(InputError, match=rf"{says}.*\.safetensors"):
        weights.load(LITE0, tmp_path / name)


@pytest.mark.parametrize(("name", "package"), [("x.h5", "h5py"), ("x.ckpt", "tensorflow")])
def test_a_reader_without_its_library_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    for file in ("x.h5", "x.ckpt.index", "x.ckpt.data-00000-of-00001"):
        (tmp_path / file).touch()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=rf"needs {package}.*edgenet\[export\]"):
        checkpoints.read_here(tmp_path / name)  # as the child does, which has this process's packages
