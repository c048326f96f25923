"""What `edgenet.quantize` returns: a network whose integers are chosen, in memory, and how it becomes files."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgenet import pipeline
from edgenet.calibration import NEEDS_CALIBRATION
from edgenet.errors import InputError
from edgenet.export.graph import Graph
from edgenet.export.network import Network
from edgenet.jobs.file_factory import Interface
from edgenet.library.asked import command_text, job_from
from edgenet.options import Job, Progress
from edgenet.results import Calibration, Results
from edgenet.results.records import Finding

_DECIDES_FILES = ("out", "formats", "io", "batch", "logits")


@dataclass(frozen=True, repr=False)
class Quantized:
    """A network in one precision; `edgenet.export` writes it.

    Attributes:
        network: the float network, with what its input and its outputs mean.
        graphs: by format, the graph that its file is written from: integer weights, scales, zero points, and QUANTIZE
            and DEQUANTIZE where precisions meet. Formats have the same one, unless the target's sums saturate in one
            of them: then its weights have 7 bits.
        precision: float32, float16, weight-only, dynamic, int8 or int16x8.
        calibration: the ranges of the activations; None where the precision has none.
        findings: what is doubtful about the model or the calibration pictures.
    """

    network: Network
    graphs: Mapping[str, Graph]
    precision: str
    calibration: Calibration | None
    findings: tuple[Finding, ...]
    _job: Job
    _prepared: pipeline.Prepared

    def __repr__(self) -> str:
        """In a line: the graphs hold millions of numbers."""
        how = ", ".join(f"{format}: {len(graph.ops)} operators" for format, graph in self.graphs.items())
        return f"<Quantized {self.network.name} in {self.precision}; {how}>"

    @property
    def graph(self) -> Graph:
        """The graph of the first format."""
        return next(iter(self.graphs.values()))


def quantized(job: Job, precision: str, progress: Progress) -> Quantized:
    """Do the work of `edgenet.quantize`. The job has one precision, and its folder is not used. Raises InputError."""
    prepared = pipeline.prepare(job, only_export=True)
    factory = prepared.factory
    graphs = {}
    for done, format in enumerate(job.formats):
        progress("quantize", done, len(job.formats))
        graphs[format] = factory.quantized(format, precision)
    progress("quantize", len(job.formats), len(job.formats))
    calibration = factory.shared(factory.recipe).calibration if precision in NEEDS_CALIBRATION else None
    return Quantized(factory.network, graphs, precision, calibration, prepared.findings, job, prepared)


def write(model: Quantized, options: Mapping[str, Any], progress: Progress) -> Results:
    """Do the work of `edgenet.export` on what is quantized already.

    Raises:
        InputError: an option is decided already, or a format is asked for that it was not quantized for.
    """
    decided = [name for name, value in options.items() if value is not None and name not in _DECIDES_FILES]
    if decided:
        raise InputError(
            f"{decided[0]} is decided already: give it to edgenet.quantize (valid here: {', '.join(_DECIDES_FILES)})"
        )
    asked = job_from(Job, {"formats": model._job.formats, **_given(options)}, model=model._job.model)
    others = [f for f in asked.formats if f not in model.graphs]
    if others:
        raise InputError(f"it was not quantized for {others[0]} (valid: {', '.join(model.graphs)}): give formats there")
    job = replace(
        model._job, out=asked.out, formats=asked.formats, io=asked.io, batch=asked.batch, logits=asked.logits,
        command=command_text("export", model, **options),
    )  # fmt: skip
    interface = Interface(job.io, pipeline.batch_of(job.batch), job.logits)
    prepared = replace(model._prepared, factory=model._prepared.factory.with_interface(interface))
    return pipeline.run(job, progress, only_export=True, prepared=prepared)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
