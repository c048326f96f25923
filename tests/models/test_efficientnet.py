"""efficientnet.py and zoo.py: the networks are those that were published, and both forms compute the same."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from edgenet.errors import InputError
from edgenet.models import efficientnet, weights, zoo
from edgenet.models.zoo import MODELS, ModelSpec
from helpers.layers import outputs

LITE0, LITE1, B0, B1 = (zoo.spec(f"efficientnet-{v}") for v in ("lite0", "lite1", "b0", "b1"))
ROWS = pytest.mark.parametrize("spec", MODELS.values(), ids=lambda m: m.name)
# Building one takes seconds: the rows between are covered by arithmetic.
BUILT = pytest.mark.parametrize(
    "spec",
    [LITE0, B0, *(pytest.param(zoo.spec(f"efficientnet-{v}"), marks=pytest.mark.slow) for v in ("lite4", "b3"))],
    ids=lambda m: m.name,
)


# ------------------------------------------------------------------------------------------------------- the table


@ROWS
def test_parameters_equal_the_published_count(spec: ModelSpec) -> None:
    millions = zoo.parameters(spec) / 1e6
    if spec.name == "efficientnet-b2":  # 9.11, printed 9.2; everybody's B2 has 9.11
        assert millions == pytest.approx(9.2, rel=0.011)
    elif spec.name == "efficientnet-lite0":  # 4.652, or 4.694 with the moving averages, printed 4.7
        assert round(millions, 1) == 4.7
    else:
        tolerance = 0.05 if spec.params_millions % 1 else 0.5  # the printed digits; 5.4167 is printed 5.4
        assert abs(millions - spec.params_millions) <= tolerance


@pytest.mark.parametrize(
    ("name", "stored"),
    [("lite0", 4_694_024), ("lite1", 5_470_344), ("lite2", 6_150_168), ("b0", 5_330_564), ("b7", 66_658_680)],
)
def test_stored_numbers_equal_those_of_the_reference_implementation(name: str, stored: int) -> None:
    shapes = weights.expected_shapes(zoo.spec(f"efficientnet-{name}"))
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == stored


@ROWS
def test_parameters_are_counted_twice_alike(spec: ModelSpec) -> None:
    """By the arithmetic of the zoo, and from the shapes that weights must have."""
    trained = {n: s for n, s in weights.expected_shapes(spec).items() if "/moving_" not in n}
    assert zoo.parameters(spec) == sum(int(np.prod(shape)) for shape in trained.values())


@pytest.mark.parametrize("name", ["b0", "b2", "b3", "b6"])
def test_multiply_adds_equal_the_published_ones_to_their_printed_digits(name: str) -> None:
    billions = {"b0": "0.39", "b2": "1.0", "b3": "1.8", "b6": "19"}[name]
    decimals = len(billions.partition(".")[2])
    assert f"{zoo.multiply_adds(zoo.spec(f'efficientnet-{name}')) / 1e9:.{decimals}f}" == billions


@pytest.mark.parametrize(("name", "ratio"), [("b1", 0.981), ("b4", 1.046), ("b5", 1.037), ("b7", 1.020)])
def test_multiply_adds_differ_from_the_published_ones_as_the_docstring_says(name: str, ratio: float) -> None:
    spec = zoo.spec(f"efficientnet-{name}")
    assert zoo.multiply_adds(spec) / 1e6 / spec.madds_millions == pytest.approx(ratio, abs=0.001)


@pytest.mark.parametrize("name", ["lite0", "lite1", "lite2", "lite3", "lite4"])
def test_the_published_lite_figures_are_the_count_and_the_small_operators(name: str) -> None:
    spec = zoo.spec(f"efficientnet-{name}")
    side = -(-spec.resolution_px // 2)
    outputs = zoo.stem_filters(spec) * side**2
    for b in zoo.scaled_blocks(spec):
        wide = b.in_filters * b.expand_ratio
        outputs += wide * side**2 * (b.expand_ratio != 1)
        side = -(-side // b.stride)
        outputs += (wide + b.out_filters) * side**2
    outputs += zoo.head_filters(spec) * side**2
    millions = (zoo.multiply_adds(spec) + 2.54 * outputs + zoo.parameters(spec)) / 1e6
    assert abs(millions - spec.madds_millions) <= (0.5 if spec.madds_millions < 1000 else 5)  # the printed digits


@pytest.mark.parametrize(("filters", "width", "rounded"), [(32, 1.1, 32), (24, 1.2, 32), (16, 1.4, 24), (40, 1.8, 72)])
def test_widths_are_multiples_of_eight_and_never_a_tenth_too_small(filters: int, width: float, rounded: int) -> None:
    assert zoo.round_filters(filters, width) == rounded


def test_lite_variants_keep_stem_head_and_the_depth_of_the_ends() -> None:
    lite4, b4 = zoo.spec("efficientnet-lite4"), zoo.spec("efficientnet-b4")
    assert (zoo.stem_filters(lite4), zoo.head_filters(lite4)) == (32, 1280)
    assert (zoo.stem_filters(b4), zoo.head_filters(b4)) == (48, 1792)
    assert [sum(b.stage == s for b in zoo.scaled_blocks(lite4)) for s in (0, 6)] == [1, 1]
    assert [sum(b.stage == s for b in zoo.scaled_blocks(b4)) for s in (0, 6)] == [2, 2]


def test_an_unknown_model_gets_the_nearest_name_and_the_list() -> None:
    with pytest.raises(InputError, match=r"did you mean efficientnet-lite0\?.*efficientnet-b7"):
        zoo.spec("efficientnet_lite0")


# -------------------------------------------------------------------------------------------------------- the network


def small(spec: ModelSpec) -> ModelSpec:
    return replace(spec, width=0.25, classes=7)


PX = 48


@dataclass(frozen=True)
class Built:
    """A whole network of seven classes in training form, with weights as after training. Read only."""

    spec: ModelSpec
    arrays: dict[str, np.ndarray]
    model: Any


@pytest.fixture(scope="module")
def built() -> Callable[[ModelSpec], Built]:
    """Build a row of the zoo, once: that takes longer than what is asked of the network."""

    @cache
    def build(spec: ModelSpec) -> Built:
        spec = replace(spec, classes=7)
        arrays = trained_like(spec, 7)
        model = efficientnet.build(spec, 7, PX)
        efficientnet.set_weights(model, arrays)
        return Built(spec, arrays, model)

    return build


def trained_like(spec: ModelSpec, classes: int) -> dict[str, np.ndarray]:
    """Weights whose batch norms are far from the identity, as after training."""
    rng = np.random.default_rng(0)
    arrays = dict(weights.random(spec, classes).arrays)
    for name, a in arrays.items():
        if name.endswith("/gamma"):
            arrays[name] = rng.uniform(0.5, 1.5, a.shape).astype(np.float32)
        elif name.endswith("/moving_variance"):
            arrays[name] = rng.lognormal(0, 0.5, a.shape).astype(np.float32)
        elif name.endswith(("/beta", "/moving_mean", "/bias")):
            arrays[name] = rng.normal(0, 0.3, a.shape).astype(np.float32)
    return arrays


def logits_of(m, x: np.ndarray) -> np.ndarray:
    import tf_keras

    return tf_keras.Model(m.input, m.get_layer("classifier").output)(x, training=False).numpy()


@pytest.mark.parametrize("spec", [LITE0, LITE1, B0, B1], ids=lambda m: m.name)
def test_the_deploy_form_computes_what_the_training_form_does(
    spec: ModelSpec, built: Callable[[ModelSpec], Built]
) -> None:
    whole = built(spec)
    deploy = efficientnet.deploy(whole.spec, whole.arrays, PX)
    x = np.random.default_rng(1).normal(0, 1, (3, PX, PX, 3)).astype(np.float32)
    a, b = logits_of(whole.model, x), outputs(deploy.with_outputs([deploy.logits()]), list(x[:, None]))
    assert a.std(axis=0).min() > 1e-3  # the pictures are told apart: the comparison is worth something
    np.testing.assert_allclose(b, a, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("spec", [LITE0, B0], ids=lambda m: m.name)
def test_the_deploy_form_has_the_operators_that_the_converter_writes(
    spec: ModelSpec, built: Callable[[ModelSpec], Built]
) -> None:
    from edgenet.export.network import from_keras

    whole = built(spec)
    ours, converted = efficientnet.deploy(whole.spec, whole.arrays, PX), from_keras(whole.model)
    assert [op.kind for op in ours.ops] == [op.kind for op in converted.ops]
    assert [op.options.get("fusedActivationFunction") for op in ours.ops] == [
        op.options.get("fusedActivationFunction") for op in converted.ops
    ]
    assert [ours.tensors[op.outputs[0]].shape for op in ours.ops] == [
        converted.tensors[op.outputs[0]].shape for op in converted.ops
    ]


def test_a_network_of_the_zoo_is_made_without_tensorflow() -> None:
    code = (
        "import sys; from edgenet.export import find_source;"
        "print(len(find_source('efficientnet-lite0', random_weights=True).network().graph.ops), end=' ');"
        "print(*(m for m in ('tensorflow', 'tf_keras') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["61"]


def test_what_a_layer_gives_is_called_as_the_layer() -> None:
    spec = small(B0)
    names = [op.outputs[0] for op in efficientnet.deploy(spec, trained_like(spec, 7), 48).ops]
    assert names[:4] == ["stem_conv", "stem_logistic", "stem_mul", "block0_depthwise_conv"]
    assert names[-3:] == ["head_mean", "classifier", "classifier_softmax"]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "spec",
    [
        LITE0,
        B0,
        LITE1,
        B1,
        *(pytest.param(zoo.spec(f"efficientnet-{v}"), marks=pytest.mark.slow) for v in ("lite4", "b3")),
    ],
    ids=lambda m: m.name,
)
def test_every_variant_is_built_with_the_variables_that_weights_expects(
    spec: ModelSpec, built: Callable[[ModelSpec], Built]
) -> None:
    m = built(spec).model
    named = {
        f"{layer.name}/{v.name.rsplit('/', 1)[-1].split(':')[0]}": tuple(v.shape)
        for layer in m.layers
        for v in layer.weights
    }
    assert named == weights.expected_shapes(spec, 7)
    assert m.output_shape == (None, 7)
    assert sum(int(np.prod(v.shape)) for v in m.trainable_weights) == zoo.parameters(replace(spec, classes=7))


@pytest.mark.parametrize(("classes", "px"), [(2, 33), (10, 64), (1001, 40), (None, 32)])
def test_any_resolution_and_any_number_of_classes_can_be_built(classes: int | None, px: int) -> None:
    spec = replace(LITE0, width=0.1, depth=0.1)
    m = efficientnet.build(spec, classes, px)
    y = m(np.zeros((2, px, px, 3), np.float32), training=False).numpy()
    assert y.shape == (2, classes or 1000)
    np.testing.assert_allclose(y.sum(axis=1), 1, atol=1e-5)
    shapes = {name: a.shape for name, a in efficientnet.get_weights(m).items()}
    assert shapes == weights.expected_shapes(spec, classes or 1000)


@pytest.mark.parametrize("spec", [LITE0, B0], ids=lambda m: m.name)
def test_weights_that_were_set_are_read_back(spec: ModelSpec, built: Callable[[ModelSpec], Built]) -> None:
    whole = built(spec)
    back = efficientnet.get_weights(whole.model)
    assert set(back) == set(whole.arrays)
    assert all(np.array_equal(back[name], whole.arrays[name]) for name in whole.arrays)


def test_a_row_of_the_zoo_becomes_a_float_graph_with_canonical_names(tiny_zoo: ModelSpec) -> None:
    from edgenet.export import find_source

    network = find_source(tiny_zoo.name, random_weights=True).network()
    assert network.graph.inputs == ("image",)
    assert network.graph.outputs == ("probabilities",)
    assert network.graph.tensors["image"].shape == (1, 32, 32, 3)
    assert network.graph.logits() == "logits"
    assert {op.kind for op in network.graph.ops} <= {
        "CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED", "SOFTMAX", "RESHAPE",
    }  # fmt: skip
    assert network.weights == "random"


def test_a_row_with_its_own_number_of_classes_gets_weights_for_them(
    tiny_zoo: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgenet.export import find_source

    monkeypatch.setitem(MODELS, tiny_zoo.name, replace(tiny_zoo, classes=6))
    network = find_source(tiny_zoo.name, random_weights=True).network()
    assert network.graph.tensors["probabilities"].shape == (1, 6)
    assert len(network.class_names) == 6


@BUILT
def test_multiply_adds_by_arithmetic_are_those_of_the_file(spec: ModelSpec, tmp_path) -> None:
    """The file's are counted by inspect, operator by operator, from the tensors' shapes; 96 px keep it quick."""
    from edgenet.export.inspect import multiply_adds
    from edgenet.export.tflite_file import write_tflite

    spec = replace(spec, resolution_px=96)
    deploy = efficientnet.deploy(spec, weights.random(spec).arrays)
    path = tmp_path / "net.tflite"
    path.write_bytes(write_tflite(deploy))
    assert multiply_adds(path) == zoo.multiply_adds(spec)
