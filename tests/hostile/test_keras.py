"""Keras files whose configuration is made to do harm while a network is built: one line, whatever Keras says."""

import copy
import itertools
import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgenet.errors import InputError
from edgenet.export import find_source
from fuzz.seeds import tensorflow_files
from helpers.fork_server import WITH_TENSORFLOW

Change = Callable[[dict[str, Any]], object]
VERSIONS = ("k2.keras", "k3.keras")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same small network as Keras 2 and 3 save it."""
    return tensorflow_files(tmp_path_factory.mktemp("keras"))


@pytest.fixture
def read(good: Path, tmp_path: Path) -> Callable[[str, Change], str]:
    """Build a file with a changed configuration; return the one line that it is refused with, "" where it is read."""

    def build(version: str, change: Change) -> str:
        with zipfile.ZipFile(good / version) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        config = json.loads(parts["config.json"])
        change(config)
        path = tmp_path / "model.keras"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in parts.items():
                archive.writestr(name, json.dumps(config) if name == "config.json" else data)
        try:
            find_source(str(path), preprocess="mean=127 std=128").network()
        except InputError as e:
            line = str(e)
            assert "model.keras" in line
            assert line.isprintable()
            assert not re.search(r"Traceback|\b[A-Z]\w*(Error|Exception)\b|<class '|\{\{", line), line
            return line
        return ""

    return build


@pytest.fixture
def with_keras(read: Callable[[str, Change], str], monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Change], str]:
    """The same in children that are forked with TensorFlow imported."""
    for name, value in WITH_TENSORFLOW.items():
        monkeypatch.setitem(os.environ, name, value)
    return read


def layer(config: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(item for item in config["config"]["layers"] if item["class_name"] == kind)


def own(kind: str, **values: Any) -> Change:
    return lambda config: layer(config, kind)["config"].update(values)


def outer(kind: str, **values: Any) -> Change:
    return lambda config: layer(config, kind).update(values)


def added(kind: str, module: str = "keras.layers", **values: Any) -> Change:
    """Put a layer behind the first convolution."""

    def change(config: dict[str, Any]) -> None:
        layers = config["config"]["layers"]
        at = next(i for i, item in enumerate(layers) if item["class_name"] == "Conv2D")
        after = layers[at + 1]
        about = {"name": "more", "trainable": True, "dtype": "float32", **values}
        new = {"module": module, "class_name": kind, "config": about, "registered_name": None, "name": "more"}
        layers.insert(at + 1, {**new, "inbound_nodes": copy.deepcopy(after["inbound_nodes"])})
        _rewire(after, layers[at]["name"], "more")

    return change


def _rewire(item: dict[str, Any], old: str, new: str) -> None:
    text = json.dumps(item["inbound_nodes"]).replace(json.dumps(old), json.dumps(new))
    item["inbound_nodes"] = json.loads(text)


def wired(of: int, to: int | str) -> Change:
    """Have a layer read what another one gives, by its number or its name."""

    def change(config: dict[str, Any]) -> None:
        layers = config["config"]["layers"]
        _rewire(layers[of], layers[of - 1]["name"], to if isinstance(to, str) else layers[to]["name"])

    return change


def nested(depth: int) -> Change:
    inner: dict[str, Any] = {"module": "keras.layers", "class_name": "Dropout", "config": {"name": "d", "rate": 0.1}}
    for i in range(depth):
        inner = {"module": "keras", "class_name": "Sequential", "config": {"name": f"s{i}", "layers": [inner]}}
    return added("Sequential", "keras", layers=[inner])


HUGE: dict[str, tuple[Change, str]] = {
    "10^9 units": (own("Dense", units=10**9), ""),
    "2^63 units": (own("Dense", units=2**63), ""),
    "10^30 units": (own("Dense", units=10**30), ""),
    "no units": (own("Dense", units=0), ""),
    "negative units": (own("Dense", units=-1), ""),
    "infinite units": (own("Dense", units=float("inf")), ""),
    "NaN units": (own("Dense", units=float("nan")), ""),
    "units that are a list": (own("Dense", units=[5]), ""),
    "10^9 filters": (own("Conv2D", filters=10**9), ""),
    "no filters": (own("Conv2D", filters=0), ""),
    "a window of 10^9": (own("Conv2D", kernel_size=[10**9, 10**9]), ""),
    "a window of 0": (own("Conv2D", kernel_size=[0, 0]), ""),
    "a window of three sides": (own("Conv2D", kernel_size=[3, 3, 3]), ""),
    "a step of 0": (own("Conv2D", strides=[0, 0]), ""),
    "a dilation of 10^6": (own("Conv2D", dilation_rate=[10**6, 10**6]), ""),
    "7 groups": (own("Conv2D", groups=7), ""),
    "texts": (own("Conv2D", dtype="string"), ""),
    "complex numbers": (own("Conv2D", dtype="complex64"), ""),
    "a picture of 10^6": (own("InputLayer", batch_shape=[None, 10**6, 10**6, 3],
                              batch_input_shape=[None, 10**6, 10**6, 3]), "8192"),
    "a picture of one axis": (own("InputLayer", batch_shape=[None], batch_input_shape=[None]), "takes an input of"),
    "10^9 pictures": (own("InputLayer", batch_shape=[10**9, 20, 20, 3], batch_input_shape=[10**9, 20, 20, 3]),
                      "pictures at once"),
    "enlarged 10^6 times": (added("UpSampling2D", size=[10**6, 10**6], data_format="channels_last",
                                  interpolation="nearest"), "more than a network can hold"),
    "a frame of 10^9": (added("ZeroPadding2D", padding=[[10**9] * 2] * 2, data_format="channels_last"), ""),
    "a reshape of two open axes": (added("Reshape", target_shape=[-1, -1]), ""),
    "a crop of all": (added("Cropping2D", cropping=[[10**9] * 2] * 2, data_format="channels_last"), ""),
    "an embedding of 10^13": (added("Embedding", input_dim=10**10, output_dim=1000), ""),
    "10^9 heads": (added("MultiHeadAttention", num_heads=10**9, key_dim=10**9), ""),
}  # fmt: skip
WIRES: dict[str, tuple[Change, str]] = {
    "a circle": (wired(1, 2), "read each other in a circle"),
    "a layer that reads itself": (wired(1, 1), "read each other in a circle"),
    "a layer that reads nothing there is": (wired(1, "nowhere"), ""),
    "wires that are a text": (lambda c: c["config"]["layers"][1].update(inbound_nodes="x"), ""),
    "wires that are a number": (lambda c: c["config"]["layers"][1].update(inbound_nodes=5), ""),
    "outputs that are none": (lambda c: c["config"].update(output_layers=[["nowhere", 0, 0]]), ""),
    "outputs that are a number": (lambda c: c["config"].update(output_layers=[[5]]), ""),
    "50,000 outputs": (lambda c: c["config"].update(output_layers=[["a", 0, 0]] * 50_000), "choose it|has 50000"),
    "no layers": (lambda c: c["config"].update(layers=[]), "a network without layers"),
    "layers that are a text": (lambda c: c["config"].update(layers="abc"), "a network without layers"),
    "layers that are nothing": (lambda c: c["config"].update(layers=[None, 5]), "a network without layers"),
    "5,001 layers": (lambda c: c["config"]["layers"].extend(c["config"]["layers"][1:2] * 5000), "builds up to"),
    "an empty network inside": (added("Sequential", "keras", layers=[]), "a network without layers"),
    "networks in networks": (nested(150), ""),
}
NAMES: dict[str, tuple[Change, str]] = {
    "a module of the system": (outer("Dense", module="os"), "custom class or function"),
    "a module of Keras that opens files": (outer("Dense", module="keras.src.utils.file_utils"), "custom class"),
    "a function of Keras that opens files": (outer("Dense", class_name="get_file", module="keras.utils"), "custom"),
    "code": (outer("Dense", class_name="__lambda__"), "Python code in a file"),
    "a builtin": (outer("Dense", class_name="function", module="builtins", config="exec"), "custom"),
    "an activation that is a builtin": (own("Dense", activation="exec"), ""),
    "a registered name": (outer("Dense", registered_name="package>Dense"), "custom"),
    "a class that is a list": (outer("Dense", class_name=["Dense"]), "custom"),
    "a module that is a number": (outer("Dense", module=5), "custom"),
    "a network of another module": (lambda c: c.update(module="os"), "custom"),
    "a configuration that is a text": (outer("Dense", config="x"), "Dense without a configuration"),
    "no configuration": (outer("Dense", config=None), "Dense without a configuration"),
    "a name with NUL": (own("Conv2D", name="x\0y"), ""),
    "a name that moves the cursor": (own("Conv2D", name="\x1b[31mred"), ""),
    "a name that is a list": (own("Conv2D", name=[]), ""),
}
CASES = {**HUGE, **WIRES, **NAMES}
EARLY = [name for name, (_, says) in CASES.items() if says and "numbers" not in says and "hold" not in says]
LATE = [name for name in CASES if name not in EARLY]  # Keras itself has to fail, or what it makes is too much


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", EARLY)
def test_a_network_that_no_keras_wrote_is_refused_before_keras_is_loaded(
    name: str, version: str, read: Callable[[str, Change], str]
) -> None:
    change, says = CASES[name]
    assert re.search(says, read(version, change))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "version"), zip(LATE, itertools.cycle(VERSIONS), strict=False))
def test_a_network_that_cannot_be_built_is_refused(name: str, version: str, with_keras: Callable[..., str]) -> None:
    change, says = CASES[name]
    line = with_keras(version, change)
    assert line
    assert re.search(says, line), line


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_the_network_itself_is_read(version: str, with_keras: Callable[[str, Change], str]) -> None:
    assert with_keras(version, lambda config: None) == ""
    assert with_keras(version, own("Conv2D", name="x" if version == "k3.keras" else "../../x")) == ""  # no place
