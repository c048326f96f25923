"""ports.py: whose weights a file of PyTorch holds, and that they compute here what they computed there."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgenet.errors import InputError
from edgenet.export import find_source
from edgenet.images.preprocess_option import preprocessing_of
from edgenet.models import efficientnet, ports, weights, zoo
from edgenet.models.ports import port_of
from edgenet.models.zoo import ModelSpec
from helpers import tiny
from helpers.distinct_weights import B0, CLASSES, LITE0, Arrays, renamed, same
from helpers.distinct_weights import b0 as b0
from helpers.layers import outputs
from helpers.places import SHARED

B1 = zoo.spec("efficientnet-b1")
HALF = (127.5,) * 3


def named(spec: ModelSpec) -> str:
    return spec.name.removeprefix("efficientnet-")


# ---------------------------------------------------------------------------------------------------- whose they are


def test_torchvisions_names_alone_tell_torchvisions_network(tmp_path: Path, b0: Arrays) -> None:
    np.savez(tmp_path / "best.npz", **renamed(b0, "torchvision", B0))
    loaded = weights.load(B0, tmp_path / "best.npz", None)
    spec = loaded.network(B0)
    assert (spec.symmetric, spec.norm_epsilon, spec.resolution_px, spec.classes) == (True, 1e-5, 224, CLASSES)
    assert loaded.provenance == "best.npz (names of torchvision)"
    assert not loaded.findings


def test_a_classifier_that_replaced_torchvisions_is_found_too(tmp_path: Path, b0: Arrays) -> None:
    named = renamed(b0, "torchvision", B0)
    named = {name.replace("classifier.1.", "classifier."): a for name, a in named.items()}
    np.savez(tmp_path / "best.npz", **named)
    loaded = weights.load(B0, tmp_path / "best.npz", None)
    assert same(loaded.arrays, b0)
    assert loaded.network(B0).symmetric


@pytest.mark.parametrize(
    ("name", "px", "short_side_px", "epsilon"),
    [("b0", 224, 256, 1e-5), ("b1", 240, 256, 1e-5), ("b2", 288, 288, 1e-5), ("b3", 300, 320, 1e-5),
     ("b4", 380, 384, 1e-5), ("b5", 456, 456, 1e-3), ("b6", 528, 528, 1e-3), ("b7", 600, 600, 1e-3)],
)  # fmt: skip
def test_torchvisions_rows_are_those_of_its_weights(name: str, px: int, short_side_px: int, epsilon: float) -> None:
    spec = ports.TORCHVISION[f"efficientnet-{name}"].of(zoo.spec(f"efficientnet-{name}"))
    made = preprocessing_of(spec)
    assert (made.resolution_px, made.resolution_px + made.crop_padding_px) == (px, short_side_px)
    assert (made.mean, made.std, made.interpolation) == (zoo.IMAGENET_MEAN, zoo.IMAGENET_STD, "bicubic")
    assert (spec.symmetric, spec.norm_epsilon) == (True, epsilon)


def test_the_newer_weights_of_torchvisions_b1_have_pictures_of_their_own() -> None:
    newer = port_of(B1, "torchvision", Path("x.pth"), "c27df63c" + "0" * 56).port
    assert newer is not None
    assert (newer.interpolation, newer.resolution_px + newer.crop_padding_px) == ("bilinear", 255)


@pytest.mark.parametrize(
    ("spec", "file", "symmetric", "mean"),
    [
        (B0, "efficientnet_b0_ra-3dd342df.pth", True, zoo.IMAGENET_MEAN),
        (B0, "tf_efficientnet_b0_aa-827b6e33.pth", False, zoo.IMAGENET_MEAN),
        (B0, "tf_efficientnet_b0_ap-f262efe1.pth", False, HALF),
        (B0, "my_efficientnet_b0.in1k.safetensors", True, zoo.IMAGENET_MEAN),
        (LITE0, "efficientnet_lite0_ra-37913777.pth", True, zoo.IMAGENET_MEAN),
        (LITE0, "tf_efficientnet_lite0-0aa007d2.pth", False, zoo.LITE_MEAN),
    ],
)
def test_the_name_of_a_file_of_timms_tells_which_of_its_networks_it_is(
    spec: ModelSpec, file: str, symmetric: bool, mean: tuple[float, ...]
) -> None:
    found = port_of(spec, "timm", Path(file), "")
    assert found.port is not None
    own = found.port.of(spec)
    assert (own.symmetric, own.norm_epsilon, own.mean) == (symmetric, 1e-5 if symmetric else 1e-3, mean)
    assert found.told_by.endswith(f"efficientnet_{named(spec)} by its file's name")


@pytest.mark.parametrize("file", ["best.pth", "model.safetensors", "efficientnet-b0.pth", "efficientnet_b01.pth"])
def test_where_nothing_tells_the_authors_network_is_taken_and_the_doubt_is_said(file: str) -> None:
    found = port_of(B0, "timm", Path(file), "")
    assert (found.port, found.sure) == (None, False)


def test_a_file_that_is_called_as_another_variant_is_refused() -> None:
    with pytest.raises(InputError, match=r"by its file's name these are the weights of tf_efficientnet_b1, not of"):
        port_of(B0, "timm", Path("tf_efficientnet_b1_aa-ea7a6ee0.pth"), "")


def test_a_variant_that_torchvision_does_not_have_is_refused() -> None:
    with pytest.raises(InputError, match="torchvision has no efficientnet-lite0"):
        port_of(LITE0, "torchvision", Path("x.pth"), "")


def _config(folder: Path, architecture: str, **pretrained: object) -> None:
    about = {"input_size": [3, 224, 224], "crop_pct": 0.875, "interpolation": "bicubic",
             "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], **pretrained}  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"architecture": architecture, "pretrained_cfg": about}))


def test_timms_config_beside_the_file_has_the_last_word_on_the_network_and_its_pictures(tmp_path: Path) -> None:
    _config(tmp_path, "tf_efficientnet_b0", mean=[0.5] * 3, std=[0.5] * 3, interpolation="bilinear", crop_pct=0.9)
    port = port_of(B0, "timm", tmp_path / "efficientnet_b0.safetensors", "").port
    assert port == ports.Port(224, 25, False, 1e-3, "bilinear", HALF, HALF)
    _config(tmp_path, "efficientnet_b0", test_input_size=[3, 256, 256], test_crop_pct=1.0)
    port = port_of(B0, "timm", tmp_path / "model.safetensors", "").port
    assert port is not None
    assert (port.resolution_px, port.crop_padding_px, port.symmetric) == (256, 0, True)
    np.testing.assert_allclose(port.mean, zoo.IMAGENET_MEAN)


@pytest.mark.parametrize("wrong", [{"crop_pct": 7}, {"mean": "grey"}, {"std": [0, 1, 1]}, {"input_size": []}])
def test_a_config_that_makes_no_sense_is_refused_in_one_line(tmp_path: Path, wrong: dict[str, object]) -> None:
    _config(tmp_path, "efficientnet_b0", **wrong)
    with pytest.raises(InputError, match=r"config\.json does not say how pictures are made"):
        port_of(B0, "timm", tmp_path / "model.safetensors", "")


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"architecture": 3}', '{"model_type": "bert"}'])
def test_a_config_of_another_program_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert not port_of(B0, "timm", tmp_path / "model.safetensors", "").sure


def test_what_the_name_decides_is_part_of_the_hash(tmp_path: Path, b0: Arrays) -> None:
    arrays = renamed(b0, "timm", B0)
    hashes = set()
    for name in ("best.npz", "tf_efficientnet_b0.npz", "efficientnet_b0.npz"):
        np.savez(tmp_path / name, **arrays)
        hashes.add(weights.load(B0, tmp_path / name, None).sha256)
    assert len(hashes) == 3, "a file that gets another name is another network, whose artifacts are made anew"


# ------------------------------------------------------------------------------------------------- the network itself


def in_numpy(x: np.ndarray, w: np.ndarray, stride: int) -> np.ndarray:
    """A depthwise convolution as PyTorch computes it with padding k // 2: (H, W, C) by (k, k, C)."""
    k = w.shape[0]
    x = np.pad(x, ((k // 2,) * 2, (k // 2,) * 2, (0, 0)))
    n = (x.shape[0] - k) // stride + 1
    return np.stack([
        np.stack([(x[i * stride : i * stride + k, j * stride : j * stride + k] * w).sum((0, 1)) for j in range(n)])
        for i in range(n)
    ])  # fmt: skip


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2)])
def test_zeros_are_put_on_both_sides_alike(size: int, kernel: int, stride: int) -> None:
    from edgenet.export.graph import Padding
    from edgenet.models.graph_drawing import Blueprint

    spec = replace(B0, symmetric=True)
    net = Blueprint("net", size)
    apart = zoo.pads_apart(spec, size, stride)
    x = net.padded(net.image, kernel // 2) if apart else net.image
    net.depthwise(x, kernel, stride, padding=Padding.VALID if apart else Padding.SAME)
    rng = np.random.default_rng(0)
    w, picture = rng.normal(size=(kernel, kernel, 3)), rng.normal(size=(size, size, 3))
    graph = net.graph_of([w[None].astype(np.float32), np.zeros(3, np.float32)])
    found = outputs(graph, [picture[None].astype(np.float32)])
    np.testing.assert_allclose(found[0], in_numpy(picture, w, stride), atol=1e-5)


@pytest.mark.parametrize("px", [48, 50])
def test_both_forms_of_a_port_compute_the_same(px: int) -> None:
    import tf_keras

    spec = replace(ports.TORCHVISION["efficientnet-b0"].of(B0), width=0.25, depth=0.3, classes=7)
    generator = np.random.default_rng(0)
    arrays = {
        name: (generator.normal(0, 0.3, shape) + name.endswith(("gamma", "variance"))).astype(np.float32)
        for name, shape in weights.expected_shapes(spec, 7).items()
    }
    arrays = {n: np.abs(a) if n.endswith("variance") else a for n, a in arrays.items()}
    model = efficientnet.build(spec, 7, px)
    efficientnet.set_weights(model, arrays)
    graph = efficientnet.deploy(spec, arrays, px)
    x = generator.normal(0, 1, (2, px, px, 3)).astype(np.float32)
    expected = tf_keras.Model(model.input, model.get_layer("classifier").output)(x, training=False).numpy()
    found = outputs(graph.with_outputs([graph.logits()]), list(x[:, None]))
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
    names = [op.outputs[0] for op in graph.ops]
    assert names[0] == "stem_pad"
    assert len(set(names)) == len(names)


def test_a_file_of_ones_own_classes_runs_with_their_names_and_its_pictures(tmp_path: Path, b0: Arrays) -> None:
    np.savez(tmp_path / "flowers.npz", **renamed(b0, "torchvision", B0))
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(f"flower {i}" for i in range(CLASSES)))
    source = find_source(B0.name, tmp_path / "flowers.npz", labels=labels, preprocess="torch size=64")
    assert source.class_names[3] == "flower 3"
    assert (source.preprocessing.resolution_px, source.preprocessing.interpolation) == (64, "bilinear")
    graph = source.network().graph
    assert graph.tensors["image"].shape == (1, 64, 64, 3)
    assert graph.tensors["probabilities"].shape == (1, CLASSES)
    assert find_source(B0.name, tmp_path / "flowers.npz").class_names[3] == "class 3"


def test_a_port_is_finetuned_in_its_own_network_whatever_classes_it_was_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgenet.jobs.finetune import finetune
    from edgenet.options import FinetuneJob

    row = replace(B0, name="efficientnet-tiny", width=0.1, depth=0.1, resolution_px=64)
    monkeypatch.setitem(zoo.MODELS, row.name, row)
    monkeypatch.setitem(ports.TORCHVISION, row.name, ports.Port(32, 4))
    np.savez(tmp_path / "w.npz", **renamed(weights.random(row, CLASSES).arrays, "torchvision", row))
    folder = tiny.make_folder(tmp_path / "photos", 12)
    job = FinetuneJob(row.name, tmp_path / "OUT", str(folder), weights=tmp_path / "w.npz", layers="head")
    job = replace(job, settings=replace(job.settings, epochs=1, batch=8))
    assert finetune(job).artifacts[0].preprocessing["resolution_px"] == 32
    source = find_source(str(job.out / "efficientnet-tiny-finetuned.tflite"))
    assert source.preprocessing.crop_padding_px == 4
    graph = source.network().graph
    assert [op.kind for op in graph.ops].count("PAD") == 5
    assert graph.tensors["probabilities"].shape == (1, tiny.CLASSES)


@pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="the trained network is not here")
def test_torchvisions_weights_give_the_logits_of_its_own_onnx_export() -> None:
    """At least 100 dB, which is what float32 itself leaves: 117 dB were measured."""
    import onnxruntime

    from edgenet.images import normalise
    from edgenet.images.decode import decode

    source = find_source(B0.name, SHARED / "models" / "efficientnet_b0_flowers102.pth")
    assert len(source.class_names) == 102
    graph = source.network().graph
    files = sorted((SHARED / "flowers102" / "test").rglob("*.jpg"))[::300]
    x = [normalise(decode(str(f), source.preprocessing)[None], source.preprocessing) for f in files]
    session = onnxruntime.InferenceSession(str(SHARED / "models" / "efficientnet_b0_flowers102.onnx"))
    name = session.get_inputs()[0].name
    theirs = np.concatenate([session.run(None, {name: np.ascontiguousarray(a.transpose(0, 3, 1, 2))})[0] for a in x])
    ours = outputs(graph.with_outputs([graph.logits()]), x)
    noise = np.square(ours.astype(np.float64) - theirs).sum()
    assert 10 * np.log10(np.square(theirs.astype(np.float64)).sum() / noise) >= 100
