"""networks.py, graph_drawing.py, amoebanet.py, resnet_mobilenet.py: the paper's counts, and graphs that compute."""

from functools import cache

import numpy as np
import pytest

from edgenet.calibration.execute import Executor
from edgenet.device_bench import example_picture
from edgenet.errors import InputError
from edgenet.export import export_graph
from edgenet.export.graph import Graph
from edgenet.export.tflite_file import write_tflite
from edgenet.models import zoo
from edgenet.models.amoebanet import amoebanet
from edgenet.models.graph_drawing import Blueprint
from edgenet.models.resnet_mobilenet import efficientnet, mobilenet_v1, mobilenet_v2, resnet
from edgenet.paper import networks, published
from edgenet.paper.keras_applications import KerasNetwork

PRINTED = {row["model"]: row for row in published.printed("2")}
DRAWN = [n for n in networks.NAMES if not isinstance(networks._drawn(n), KerasNetwork)]
FROM_KERAS = [n for n in networks.NAMES if n not in DRAWN]
IN_TABLE = [n for n in networks.NAMES if networks.spec(n).paper_name]

PARAMETERS_DIFFER = {"densenet-264"}  # printed with the moving statistics of its batch norms
MULTIPLY_ADDS_DIFFER = {"densenet-169", "densenet-264"}  # printed 4 % above the count


def marked(names: list[str]) -> list[object]:
    return [pytest.param(n, marks=pytest.mark.long) if n in FROM_KERAS else n for n in names]


def activations(graph: Graph, every: int = 1) -> list[np.ndarray]:
    """Return the activations of a made picture, the output last."""
    names = [op.outputs[0] for op in graph.ops if graph.tensors[op.outputs[0]].dtype == "float32"]
    _, px, _, _ = graph.tensors[graph.inputs[0]].shape
    x = (example_picture(px).astype(np.float32)[None] - 127) / 128
    return Executor(graph, [*names[::every], graph.outputs[0]], 2)(x)


# ------------------------------------------------------------------------------------------------------------ counts


@pytest.mark.parametrize("name", marked([n for n in IN_TABLE if n not in PARAMETERS_DIFFER]))
def test_parameters_are_those_of_table_2_to_the_printed_digit(name: str) -> None:
    figure = PRINTED[networks.spec(name).paper_name]["params_millions"]
    assert published.matches(networks.parameters(name) / 1e6, figure)


@pytest.mark.parametrize("name", marked([n for n in IN_TABLE if n not in MULTIPLY_ADDS_DIFFER]))
def test_multiply_adds_are_those_of_table_2_within_3_percent(name: str) -> None:
    published = networks.spec(name).flops_billions
    if published is None:
        assert name == "amoebanet-b"  # the paper prints none of GPipe's
        return
    assert networks.multiply_adds(name) / 1e9 == pytest.approx(published, rel=0.03)


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(PARAMETERS_DIFFER | MULTIPLY_ADDS_DIFFER))
def test_where_a_count_differs_from_table_2_the_row_says_why_and_it_is_as_said(name: str) -> None:
    row = networks.spec(name)
    assert "4 % fewer" in row.note
    assert 0.955 < networks.multiply_adds(name) / 1e9 / (row.flops_billions or 0) < 0.965
    if name in PARAMETERS_DIFFER:
        assert "moving statistics" in row.note
        assert published.matches(networks.parameters(name) / 1e6, "33")
        network = networks._drawn(name)
        assert isinstance(network, KerasNetwork)
        assert published.matches((network.parameters + network.moving_statistics) / 1e6, "34")


@pytest.mark.parametrize(
    ("cells", "filters", "resolution_px", "parameters_millions", "multiply_adds_billions"),
    [("AmoebaNet-A", 190, 331, 86.7, 23.1), ("AmoebaNet-C", 228, 331, 155.3, 41.1),
     ("AmoebaNet-B", 512, 480, 557, None)],
)  # fmt: skip
def test_amoebanets_cells_give_the_published_sizes(
    cells: str, filters: int, resolution_px: int, parameters_millions: float, multiply_adds_billions: float | None
) -> None:
    net = amoebanet(cells, 18, filters, resolution_px)
    assert net.parameters / 1e6 == pytest.approx(parameters_millions, rel=0.001)
    if multiply_adds_billions:
        assert net.multiply_adds / 1e9 == pytest.approx(multiply_adds_billions, rel=0.002)


@pytest.mark.parametrize("spec", zoo.MODELS.values(), ids=lambda m: m.name)
def test_an_efficientnet_drawn_from_the_zoos_row_counts_as_the_zoo_does(spec: zoo.ModelSpec) -> None:
    net = efficientnet(spec)
    assert (net.parameters, net.multiply_adds) == (zoo.parameters(spec), zoo.multiply_adds(spec))


@pytest.mark.long
@pytest.mark.parametrize(
    ("drawn", "theirs", "options"),
    [
        (mobilenet_v1(), "MobileNet", {}),
        (mobilenet_v1(0.5, resolution_px=160), "MobileNet", {"alpha": 0.5}),
        (mobilenet_v2(), "MobileNetV2", {}),
        (mobilenet_v2(1.4), "MobileNetV2", {"alpha": 1.4}),
        (resnet(152, late_stride=False), "ResNet152", {}),
    ],
)
def test_what_is_drawn_here_counts_as_tf_keras_applications_does(drawn: Blueprint, theirs: str, options: dict) -> None:
    model = KerasNetwork("", drawn.resolution_px, lambda a, **o: getattr(a, theirs)(**o, **options))
    assert model.multiply_adds == drawn.multiply_adds
    # Keras gives ResNet's convolutions a bias as well, which the batch norm after them makes useless.
    biases = [t.shape[0] for n, t in drawn._tensors.items() if n.startswith("bias")][:-1]
    assert model.parameters - (sum(biases) if theirs.startswith("ResNet") else 0) == drawn.parameters


def test_an_unknown_network_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean resnet-152"):
        networks.spec("resnet152")


def test_table_2_is_the_zoo_the_rivals_and_what_is_quoted() -> None:
    built = {networks.spec(n).paper_name for n in IN_TABLE} | {f"EfficientNet-B{i}" for i in range(8)}
    assert built | set(networks.QUOTED) == set(PRINTED)
    assert not built & set(networks.QUOTED)


def test_a_figure_matches_when_it_rounds_to_the_printed_digits() -> None:
    assert published.matches(86.72, "87")
    assert published.matches(0.386, "0.39")
    assert not published.matches(33.34, "34")


# ------------------------------------------------------------------------------------------------------------ graphs


@cache
def small(cells: str) -> Graph:
    return amoebanet(cells, 3, 24, 64).graph()


@pytest.mark.parametrize("cells", ["AmoebaNet-A", "AmoebaNet-B", "AmoebaNet-C"])
def test_an_amoebanet_has_the_numbers_that_were_counted_and_computes(cells: str) -> None:
    net = amoebanet(cells, 3, 24, 64)
    kernels = [t for n, t in small(cells).tensors.items() if n.startswith("weights")]
    norms = sum(2 * k.shape[0] for k in kernels if k.shape[1:3] != (3, 3) or k.shape[0] > 1)
    assert sum(k.data.size for k in kernels) < net.parameters < sum(k.data.size for k in kernels) + norms + 1000
    *inside, output = activations(small(cells))
    assert output.shape == (1, 1000)
    assert output.sum() == pytest.approx(1, abs=1e-4)
    for a in inside[:-2]:  # no activation dies out or explodes
        assert 0.01 < np.sqrt((a**2).mean()) < 5


def test_the_same_seed_gives_the_same_weights_and_another_one_others() -> None:
    again, other = amoebanet("AmoebaNet-A", 3, 24, 64).graph(), amoebanet("AmoebaNet-A", 3, 24, 64).graph(seed=1)
    assert networks.fingerprint(again) == networks.fingerprint(small("AmoebaNet-A"))
    assert networks.fingerprint(other) != networks.fingerprint(again)


def test_a_rival_is_exported_like_any_network(tmp_path) -> None:
    network = networks.network_of("mobilenet-v2")
    artifacts = [
        export_graph(network, network.graph, tmp_path, format=f, precision="float32") for f in ("tflite", "openvino")
    ]
    assert [a.weights for a in artifacts] == ["random", "random"]
    assert artifacts[0].size_bytes == pytest.approx(4 * networks.parameters("mobilenet-v2"), rel=0.02)


def test_shifting_moves_every_pixel_up_and_left_and_lets_zeros_in() -> None:
    net = Blueprint("shift", 9)
    shifted = net.shifted(net.image)
    assert shifted.shape == (1, 9, 9, 3)
    g = Graph("shift", net._tensors, tuple(net._ops), ("image",), (shifted.name,))
    x = np.random.default_rng(0).normal(size=(1, 9, 9, 3)).astype(np.float32)
    (y,) = Executor(g, [shifted.name], 1)(x)
    np.testing.assert_array_equal(y[:, :-1, :-1], x[:, 1:, 1:])
    assert not y[:, -1].any()
    assert not y[:, :, -1].any()


def test_gpipes_network_is_too_large_for_a_flatbuffer_and_that_is_said(monkeypatch) -> None:
    net = amoebanet("AmoebaNet-B", 18, 512, 480)
    # Weights of one number, stretched: their size is real, their memory is not.
    monkeypatch.setattr(
        "edgenet.models.graph_drawing._normal",
        lambda rng, shape, deviation: np.broadcast_to(np.float32(deviation), shape),
    )
    with pytest.raises(InputError, match=r"the weights are 2\.1 GiB and a \.tflite file holds 2"):
        write_tflite(net.graph())


@pytest.mark.long
@pytest.mark.parametrize("name", ["xception", "mobilenet-v3-small"])
def test_a_rivals_activations_are_finite_and_none_is_denormal(name: str) -> None:
    graph = networks.graph(name)
    *inside, output = activations(graph, every=5)
    assert output.shape == (1, 1000)
    assert output.sum() == pytest.approx(1, abs=1e-4)
    for a in inside:
        assert np.isfinite(a).all()
        assert 1e-4 < np.sqrt((a**2).mean()) < 1e4
        assert not ((np.abs(a) < np.finfo(np.float32).tiny) & (a != 0)).any()
