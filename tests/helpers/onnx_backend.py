"""ONNX's own backend tests run through edgenet's importer and LiteRT.

https://onnx.ai/onnx/repo-docs/OnnxBackendTest.html

    .venv/bin/python tests/helpers/onnx_backend.py        prints the table of docs/own-models.md; -v: every refusal

The inputs of a case that are real numbers are fed in turn, the others stand in the file as constants, as weights do.
Then all of them are fed. Each way has to give the case's own numbers within its own tolerance, or an error that says
what edgenet does not do.
"""

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgenet.calibration.execute import Executor
from edgenet.errors import InputError
from edgenet.export.graph import Graph
from edgenet.export.importers.fuse import fuse
from edgenet.export.importers.onnx_importer import REAL, element_type, import_nodes, prepared

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"


# The reference computes these in their own few bits and edgenet in float32: one step of the type at the largest number.
STEP = {"FLOAT16": 2.0**-10, "BFLOAT16": 2.0**-7}


@dataclass(frozen=True)
class Case:
    """A model with numbers to feed and the numbers that it must give."""

    name: str
    model: Any  # ModelProto
    inputs: dict[str, Any]  # by name: arrays, lists for sequences, None for what an optional leaves out
    outputs: tuple[Any, ...]
    rtol: float = 1e-3
    atol: float = 1e-7

    @property
    def operators(self) -> set[str]:
        functions = {n.op_type for f in self.model.functions for n in f.node}
        return {n.op_type for n in self.model.graph.node} | functions


@dataclass(frozen=True)
class Outcome:
    """What came of a case: "passed", "refused", "wrong" or "broken", and why."""

    kind: str
    text: str = ""


def node_cases(operator: str | None = None) -> list[Case]:
    """Return ONNX's cases of single operators, and of functions that stand for them; of `operator` alone if given."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the reference computes infinities on purpose
        from onnx.backend.test.case.node import collect_testcases

        found = collect_testcases(operator)
    cases = []
    for c in found:
        inputs, outputs = c.data_sets[0]
        cases.append(case_of(c.name, c.model, inputs, outputs, c.rtol, c.atol))
    return cases


def case_of(name: str, model: Any, inputs: Any, outputs: Any, rtol: float, atol: float) -> Case:
    """Return a case of numbers in the order of the model's inputs and outputs, TensorProtos among them."""

    def plain(x: Any) -> Any:
        return numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else x

    names = [i.name for i in model.graph.input]
    fed = {n: plain(x) for n, x in zip(names, inputs, strict=True)}
    return Case(name, model, fed, tuple(map(plain, outputs)), rtol, atol)


def file_cases(folder: str) -> list[Case]:
    """Return the cases that ONNX ships as files: "simple", "pytorch-converted" or "pytorch-operator"."""
    return [_stored(path) for path in sorted((DATA / folder).iterdir()) if path.is_dir()]


def _stored(path: Path) -> Case:
    model, data = onnx.load(str(path / "model.onnx")), path / "test_data_set_0"
    count = len(list(data.glob("input_*.pb")))
    if count < len(model.graph.input):  # the inputs that are not fed are constants
        constants = {t.name for t in model.graph.initializer}
        fed = [i for i in model.graph.input if i.name not in constants]
        del model.graph.input[:]
        model.graph.input.extend(fed)

    def load(kind: str, i: int, info: Any) -> Any:
        stored = (data / f"{kind}_{i}.pb").read_bytes()
        is_tensor = info.type.WhichOneof("value") == "tensor_type"
        return onnx.TensorProto.FromString(stored) if is_tensor else [stored]

    inputs = [load("input", i, info) for i, info in enumerate(model.graph.input)]
    outputs = [load("output", i, info) for i, info in enumerate(model.graph.output)]
    return case_of(path.name, model, inputs, outputs, 1e-3, 1e-7)


def light_cases() -> Iterator[Case]:
    """Yield ONNX's whole networks, with the shapes of the published ones and weights that a formula makes."""
    for path in sorted((DATA / "light").glob("light_*.onnx")):
        model = onnx.load(str(path))
        constants = {t.name for t in model.graph.initializer}
        image = next(i for i in model.graph.input if i.name not in constants)
        shape = [d.dim_value for d in image.type.tensor_type.shape.dim]
        x = (np.arange(np.prod(shape)).reshape(shape) / np.prod(shape)).astype(np.float32)
        want = onnx.TensorProto.FromString(path.with_name(f"{path.stem}_output_0.pb").read_bytes())
        del model.graph.input[:]
        model.graph.input.append(image)
        yield case_of(path.stem, model, [x], [want], 1e-3, 1e-7)


SUITES: dict[str, Callable[[], Iterable[Case]]] = {
    "single operators (`node`)": node_cases,
    "layers from PyTorch (`pytorch-converted`)": lambda: file_cases("pytorch-converted"),
    "operators from PyTorch (`pytorch-operator`)": lambda: file_cases("pytorch-operator"),
    "small models (`simple`)": lambda: file_cases("simple"),
    "whole networks (`light`)": light_cases,
}
KINDS = ("passed", "refused", "wrong", "broken")


def outcomes(suite: str) -> dict[str, Outcome]:
    """Run a suite and return what came of each case by its name."""
    return {case.name: outcome(case) for case in SUITES[suite]()}


def table_row(suite: str, found: Iterable[Outcome]) -> str:
    """Return a suite's line of the table in docs/own-models.md."""
    kinds = [o.kind for o in found]
    return f"| {suite} | {len(kinds):,} | " + " | ".join(f"{kinds.count(k):,}" for k in KINDS) + " |"


def outcome(case: Case) -> Outcome:
    """Run a case in every way. "passed" and "refused" go by the first way, "wrong" and "broken" by any."""
    if _beyond_float32(case):
        return Outcome("refused", f"{case.name} has DOUBLE numbers beyond float32's")
    found = [_run(case, fed) for fed in _ways(case)]
    bad = [o for o in found if o.kind in ("wrong", "broken")]
    return bad[0] if bad else found[0]


def _ways(case: Case) -> Iterator[tuple[str, ...]]:
    """Yield the names of the inputs to feed: each of real numbers alone, the last time all of them."""
    real = [i.name for i in case.model.graph.input if element_type(i) in REAL]
    constant = {t.name for t in case.model.graph.initializer}
    real = [n for n in real if n not in constant]
    yield from ((n,) for n in real)
    if len(real) != 1:
        yield tuple(real)


def _run(case: Case, fed: Sequence[str]) -> Outcome:
    try:
        graph, names = converted(case, fed)
    except InputError as e:
        if e.__cause__ is not None:
            return Outcome("broken", f"{fed}: {e!r} from {e.__cause__!r}")
        if "\n" in str(e) or not _says_why(case, str(e)):
            return Outcome("broken", f"{fed}: the message does not say what it is: {e}")
        return Outcome("refused", str(e))
    except Exception as e:
        return Outcome("broken", f"{fed}: {type(e).__name__}: {e}")
    try:
        return _compared(case, fed, graph, names)
    except Exception as e:
        return Outcome("broken", f"{fed}: LiteRT: {type(e).__name__}: {e}")


def _beyond_float32(case: Case) -> bool:
    """Whether a case of DOUBLE numbers has some that float32, in which edgenet computes, does not hold."""
    numbers = [np.asarray(x) for x in (*case.inputs.values(), *case.outputs) if isinstance(x, np.ndarray | np.generic)]
    limit = float(np.finfo(np.float32).max)
    return any(x.dtype == np.float64 and bool(np.any(np.isfinite(x) & (np.abs(x) > limit))) for x in numbers)


def _says_why(case: Case, message: str) -> bool:
    kinds = {element_type(i) for i in case.model.graph.input}
    return any(k in message for k in case.operators | kinds)


def converted(case: Case, fed: Sequence[str]) -> tuple[Graph, list[str]]:
    """Return the graph of a case, and the names of the inputs that it reads.

    Raises:
        InputError: it has no form here.
    """
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    del model.graph.input[:]
    for info in case.model.graph.input:
        if info.name in fed:
            model.graph.input.append(info)
        elif isinstance(case.inputs.get(info.name), np.ndarray | np.generic):
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(case.inputs[info.name]), info.name))
        elif info.name in case.inputs:
            raise InputError(f"{case.name} takes a {element_type(info)}; edgenet handles tensors")
    if not fed:
        taken = ", ".join(element_type(i) for i in case.model.graph.input) or "nothing"
        raise InputError(f"{case.name} takes {taken}; edgenet feeds real numbers to {', '.join(case.operators)}")
    model = prepared(model, case.name)
    b = import_nodes(model, {n: tuple(np.shape(case.inputs[n])) for n in fed})
    outs = []
    for info in case.model.graph.output:
        if info.name not in b.values:
            raise InputError(f"the output {info.name} does not depend on what {', '.join(case.operators)} is fed")
        value = b.in_order(b.plain(b.values[info.name]))
        assert value.numbers == _numbers(info), f"{info.name} gives {value.numbers} numbers for {element_type(info)}"
        outs.append(value.name)
    feeds = [b.values[n].name for n in fed]
    # An output that is the input itself is no operator's: LiteRT wants one.
    return fuse(Graph("main", b.tensors, tuple(b.ops), tuple(feeds), tuple(outs))), list(fed)


def _numbers(info: Any) -> str:
    """Return what Value.numbers says of the type of an output."""
    kind = element_type(info)
    return "real" if kind in REAL else "truth" if kind == "BOOL" else "whole"


def _compared(case: Case, fed: Sequence[str], graph: Graph, names: Sequence[str]) -> Outcome:
    run = Executor(graph, graph.outputs, 1)
    feeds = []
    for name, tensor in zip(names, graph.inputs, strict=True):
        x = np.asarray(case.inputs[name]).astype(np.float32)
        stored = graph.tensors[tensor].shape
        feeds.append(x.transpose(0, 2, 3, 1) if x.ndim == 4 and x.shape[3] != 3 else x)
        assert feeds[-1].shape == stored
    made = run(*feeds)
    for got, want, info in zip(made, case.outputs, case.model.graph.output, strict=True):
        want = np.asarray(want)
        if got.shape != want.shape:
            return Outcome("wrong", f"{fed}: shape {got.shape}, not {want.shape}")
        wide = want.astype(np.float64)
        largest = np.max(np.abs(wide[np.isfinite(wide)]), initial=0)
        atol = max(case.atol, STEP.get(element_type(info), 0.0) * largest)
        if not np.allclose(got, wide, rtol=case.rtol, atol=atol, equal_nan=True):
            off = np.nanmax(np.abs(got - wide))
            return Outcome("wrong", f"{fed}: off by {off:.3g} where the largest is {np.nanmax(np.abs(wide)):.3g}")
    return Outcome("passed")


if __name__ == "__main__":
    print("| ONNX's tests | cases | passed | refused | wrong | crashed |\n|---|---|---|---|---|---|")
    for suite in SUITES:
        found = outcomes(suite)
        print(table_row(suite, found.values()), flush=True)
        for name, o in found.items():
            if o.kind in ("wrong", "broken") or (o.kind == "refused" and "-v" in sys.argv):
                print(f"{o.kind}: {name}: {o.text}")
