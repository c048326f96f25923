"""micro: files in tflite-micro itself: memory, answers to the bit, and what becomes of a file that does not run."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from edgenet.calibration import quantize
from edgenet.device_bench import open_device
from edgenet.device_bench.device import Request
from edgenet.device_bench.micro import device as micro
from edgenet.device_bench.micro import interpreter
from edgenet.device_bench.micro.interpreter import LoadError, allocated, interpreter_class
from edgenet.errors import InputError, MissingDependency
from edgenet.export import Network, export_graph
from edgenet.results import Calibration
from helpers.reference_kernels import (
    DENSE,
    by_reference_kernels,
    cut,
    dense,
    kinds,
    taken,
    with_the_dense_layer_in_fixed_point,
)

needs_micro = pytest.mark.skipif(importlib.util.find_spec("tflite_micro") is None, reason="needs edgenet[micro]")
IO = ("float32", "uint8", "int8")


@pytest.fixture(scope="session")
def tiny_micro(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """io -> the tiny network in int8 with that input and output."""
    out, int8 = tmp_path_factory.mktemp("micro"), quantize(tiny_network.graph, "int8", tiny_calibration)
    files = {}
    for io in IO:
        (out / io).mkdir()
        a = export_graph(tiny_network, int8, out / io, format="tflite", precision="int8", io=io)
        files[io] = out / io / a.path
    return files


def in_micro(path: Path, batch: np.ndarray) -> np.ndarray:
    with open_device("micro") as device:
        return device.predict(path, batch)


def pixels(io: str, n: int = 5) -> np.ndarray:
    raw = np.random.default_rng(1).integers(0, 256, (n, 20, 20, 3), np.uint8)
    return raw if io != "float32" else ((raw.astype(np.float32) - 127) / 128)


@needs_micro
@pytest.mark.parametrize("io", IO)
def test_answers_are_those_of_litert_s_reference_kernels_to_the_bit(tiny_micro: dict[str, Path], io: str) -> None:
    batch = pixels(io)
    reference = by_reference_kernels(tiny_micro[io], taken(batch, io))
    assert len(np.unique(reference)) > 5  # they tell pictures apart
    assert np.array_equal(in_micro(tiny_micro[io], batch).view(np.uint32), reference.view(np.uint32))


@needs_micro
@pytest.mark.parametrize("io", IO)
def test_answers_are_those_of_the_reference_kernels_with_the_dense_layer_in_fixed_point(
    tiny_micro: dict[str, Path], io: str
) -> None:
    batch = pixels(io, 20)
    here = with_the_dense_layer_in_fixed_point(tiny_micro[io], taken(batch, io))
    assert np.array_equal(in_micro(tiny_micro[io], batch).view(np.uint32), here.view(np.uint32))


@needs_micro
def test_a_dense_layer_is_rounded_twice_and_litert_s_reference_rounds_it_once(
    tiny_micro: dict[str, Path], tmp_path: Path
) -> None:
    whole = tiny_micro["float32"].read_bytes()
    place = kinds(whole).index(DENSE)
    alone = tmp_path / "dense.tflite"
    alone.write_bytes(cut(whole, place, place + 1))
    it = allocated(alone.read_bytes())
    scale, zero_point = (it.get_output_details(0)["quantization_parameters"][k][0] for k in ("scales", "zero_points"))
    x = np.random.default_rng(0).integers(-128, 127, (4000, 96), np.int8, endpoint=True)
    there = []
    for row in x:
        it.set_input(row[None], 0)
        it.invoke()
        there.append(it.get_output(0)[0].copy())
    assert np.array_equal(np.stack(there), dense(alone.read_bytes(), x))
    once = np.rint(by_reference_kernels(alone, x) / scale + zero_point).astype(np.int64)
    apart = np.abs(once - np.stack(there))
    assert (
        0 < (apart != 0).mean() < 0.01
    )  # none: LiteRT's kernel is another one, and docs/accelerators.md is out of date
    assert apart.max() == 1


@needs_micro
def test_a_file_s_memory_is_told_by_purpose_and_no_time_is(tiny_micro: dict[str, Path]) -> None:
    with open_device("micro") as device:
        (e,), failures = device.bench([("a", tiny_micro["int8"])], Request())
        assert device.info()["emulator"] == e.tool
    assert not failures
    assert (e.n_operators, e.left) == (e.n_accelerated, ())
    assert e.sram_bytes == sum(e.memory_bytes.values())
    assert e.memory_bytes["activations"] >= 20 * 20 * 3  # the picture itself
    assert e.flash_bytes == tiny_micro["int8"].stat().st_size
    assert (e.inference_ms, e.cycles, e.inference_bounds_ms) == (None, None, None)


@needs_micro
def test_the_memory_told_is_the_least_that_suffices(tiny_micro: dict[str, Path]) -> None:
    with open_device("micro") as device:
        (e,), _ = device.bench([("a", tiny_micro["int8"])], Request())
    assert e.sram_bytes is not None
    new, model = interpreter_class(), tiny_micro["int8"].read_bytes()

    def run(size_bytes: int) -> None:
        it = new(model, [], size_bytes)
        it.set_input(np.zeros((1, 20, 20, 3), np.int8), 0)
        it.invoke()
        it.get_output(0)

    run(e.sram_bytes)
    with pytest.raises(RuntimeError):
        run(e.sram_bytes - 64)


@needs_micro
def test_an_arena_that_does_not_suffice_is_grown_up_to_a_limit(
    tiny_micro: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_micro["int8"].read_bytes()
    monkeypatch.setattr(interpreter, "ARENAS_BYTES", (1 << 10, 1 << 20))
    assert allocated(model).get_input_details(0)["shape"].tolist() == [1, 20, 20, 3]
    monkeypatch.setattr(interpreter, "ARENAS_BYTES", (1 << 10,))
    with pytest.raises(LoadError, match="needs an arena of more than"):
        allocated(model)


@needs_micro
@pytest.mark.parametrize(
    ("asked", "named"),
    [({"runtime": "litert"}, "runtime"), ({"delegate": "gpu"}, "delegate"), ({"cores": (0,)}, "cores")],
)
def test_what_it_cannot_do_is_refused(asked: dict[str, object], named: str) -> None:
    with open_device("micro") as device, pytest.raises(InputError, match=named):
        device.bench([], Request(**asked))  # type: ignore[arg-type]


@needs_micro
def test_another_format_and_a_lost_file_are_failures_and_the_others_go_on(
    tiny_micro: dict[str, Path], tmp_path: Path
) -> None:
    onnx = tmp_path / "a.onnx"
    onnx.write_bytes(b"no model")
    damaged = tmp_path / "b.tflite"
    damaged.write_bytes(tiny_micro["int8"].read_bytes()[:2000])
    with open_device("micro") as device:
        found, failures = device.bench(
            [("a", onnx), ("b", damaged), ("c", tmp_path / "no.tflite"), ("d", tiny_micro["int8"])], Request()
        )
    assert [e.artifact for e in found] == ["d"]
    assert [(f.artifact, f.device) for f in failures] == [("a", "micro"), ("b", "micro"), ("c", "micro")]
    assert all("--io int8" in f.remedy for f in failures)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro, "version", lambda: None)
    assert micro.find() == []
    with pytest.raises(MissingDependency, match=r"--device micro needs tflite-micro.*edgenet\[micro\]"):
        open_device("micro")


def test_an_address_is_refused() -> None:
    with pytest.raises(InputError, match="takes no address: write micro"):
        open_device("micro:stm32")
