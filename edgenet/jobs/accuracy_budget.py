"""The first INT8 file within an accuracy budget: plain, then corrected, then with its sensitive layers kept better.

Each step is a file, written and measured as the user will run it; the first within the budget is kept, and every step
stays in the results with its reason and its cost.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgenet import device_bench
from edgenet.calibration import Recipe, SharedCalibration
from edgenet.calibration.sensitivity import PICTURES, layers, loudest, sensitivity
from edgenet.device_bench import Plan, Request
from edgenet.errors import InputError
from edgenet.evaluate import Candidate, evaluate
from edgenet.images import limit
from edgenet.jobs.file_factory import Making, Variant
from edgenet.records import SearchRecord, SearchStep, Sensitivity
from edgenet.results import Artifact, Evaluation, ImageSet, Measurement

MAX_PICTURES = 1000  # that a step is measured on; the file that is kept is measured on all
STEP_PLAN = Plan(rounds=3, max_rounds=3, min_time_s=0.5, self_check=False)
GROWTH = 2  # of the number of layers that are kept better, from step to step


@dataclass(frozen=True)
class Budget:
    """What a file may lose: points of top-1 (of agreement, where nothing is labelled), or noise in the logits."""

    max_drop_points: float | None = None
    min_sqnr_db: float | None = None

    def __post_init__(self) -> None:
        if self.max_drop_points is not None and not 0 <= self.max_drop_points <= 100:
            raise InputError(f"--max-accuracy-drop is in points, 0 to 100, was {self.max_drop_points:g}")
        if self.max_drop_points is not None and self.min_sqnr_db is not None:
            raise InputError("--max-accuracy-drop and --min-sqnr are two budgets: give one")

    def __bool__(self) -> bool:
        return self.max_drop_points is not None or self.min_sqnr_db is not None

    @property
    def text(self) -> str:
        if self.min_sqnr_db is not None:
            return f"logits of at least {self.min_sqnr_db:g} dB SQNR against float32"
        return f"at most {self.max_drop_points:g} points lost"

    def met_by(self, e: Evaluation) -> bool:
        """Whether an evaluation against float32 is within the budget."""
        if self.min_sqnr_db is not None:
            return e.sqnr_db is not None and e.sqnr_db >= self.min_sqnr_db
        drop = e.top1_drop if e.top1_drop is not None else 1 - (e.agreement or 0.0)
        return self.max_drop_points is not None and drop * 100 <= self.max_drop_points + 1e-9


@dataclass(frozen=True)
class Search:
    """How a budget was met, or not. `variant` makes the file that was kept."""

    format: str
    record: SearchRecord
    variant: Variant


def search(
    making: Making,
    format: str,
    images: ImageSet,
    budget: Budget,
    threads: int = 1,
    progress: Callable[[str, int, int], None] = lambda *_: None,
    *,
    earlier: "Search | None" = None,
) -> Search:
    """Return the first variant of the INT8 file that is within the budget, or the best one where none is.

    Args:
        earlier: what was found for another format with as many bits: its integers are the same, so it is tried first.
        images: the pictures that steps are measured on; at most MAX_PICTURES of them are used.

    Raises:
        InputError: there are no pictures, or the format has no int8.
    """
    pictures = limit(images, MAX_PICTURES) if len(images) > MAX_PICTURES else images
    plain, corrected = Recipe(making.recipe.method, ()), making.recipe
    steps: list[SearchStep] = []
    ranked: list[tuple[tuple[str, ...], float]] = []
    best: tuple[float, Variant] = (float("-inf"), Variant(corrected, {}))
    with tempfile.TemporaryDirectory(prefix="edgenet-") as name:
        folder = Path(name)
        reference = making.export(folder, format, "float32")

        def attempt(variant: Variant, what: str, why: str) -> bool:
            nonlocal best
            artifact = making.export(folder, format, "int8", variant)
            e, m = _measure(folder, reference, artifact, making, pictures, threads)
            met = budget.met_by(e)
            steps.append(
                SearchStep(len(steps) + 1, what, why, met, e.top1_drop, e.agreement, e.sqnr_db,
                     m.median_ms if m else None, artifact.size_bytes, dict(variant.exceptions))
            )  # fmt: skip
            score = e.sqnr_db or 0.0 if budget.min_sqnr_db is not None else -(e.top1_drop or 0.0) + (e.agreement or 0.0)
            if met or score > best[0]:
                best = (float("inf") if met else score, variant)
            progress(f"search {format}", len(steps), len(steps) + (not met))
            return met

        found = earlier is not None and attempt(
            earlier.variant, earlier.record.steps[-1].what, f"the search for {earlier.format} ended with it"
        )
        if not found:
            found = attempt(Variant(plain, {}), "int8, each weight rounded to the nearest", "the cheapest file")
        if not found and corrected.corrections:
            found = attempt(
                Variant(corrected, {}), f"int8 with {', '.join(corrected.corrections)}", _missed(steps[-1], budget)
            )
        if not found:
            rest: dict[str, str] = {}  # what the ladder before ended with
            for kept, ranked in _ladders(making, making.shared(corrected), making.bits(format, "int8"), progress):
                for k in _almost_all(len(ranked)) if kept == "float16" else _counts(len(ranked)):
                    exceptions = {**rest, **{op: kept for layer, _ in ranked[:k] for op in layer}}
                    what = _mixed(k, len(ranked), kept, next(iter(rest.values()), "int8"))
                    found = attempt(Variant(corrected, exceptions), what, _missed(steps[-1], budget))
                    if found:
                        break
                if found:
                    break
                rest = {op: kept for layer, _ in ranked for op in layer}
    kinds = {op.outputs[0]: op.kind for op in making.network.graph.ops}
    costs = tuple(Sensitivity(layer[0], kinds.get(layer[0], ""), db) for layer, db in ranked)
    return Search(format, SearchRecord(budget.text, found, tuple(steps), costs), best[1])


def _ladders(
    making: Making, shared: SharedCalibration, bits: int, progress: Callable[[str, int, int], None]
) -> Iterator[tuple[str, list[tuple[tuple[str, ...], float]]]]:
    """Yield what layers are kept in, better each time, with the layers as that is most needed, worst first."""
    inputs = loudest(shared.graph, shared.inputs(), PICTURES // 2)
    better = "int16" if making.target.accelerator and "int16" in making.target.activation_types else "weight-only"
    for kept, without in ((better, None), ("float16", better)):
        yield kept, sensitivity(
            shared.graph, inputs, shared.calibration, shared.weights("int8", bits), groups=layers(shared.graph),
            alone=without, progress=lambda done, total: progress("sensitivity", done, total),
        )  # fmt: skip


def _mixed(k: int, n: int, kept: str, others: str) -> str:
    which = "all layers" if k == n else f"the {k} most sensitive layers" if k > 1 else "the most sensitive layer"
    return f"{_named(others)} with {which} in {_named(kept)}"


def _counts(n: int) -> Iterator[int]:
    """Yield 1, 2, 4, 8, ... up to n."""
    k = 1
    while k < n:
        yield k
        k *= GROWTH
    yield n


def _almost_all(n: int) -> Iterator[int]:
    """Yield 1, 2, 4, 8, ... up to half of n, then halve what is left, up to n - 1: the last layer stays in int8."""
    k = 1
    while k < n:
        yield k
        k += max(1, min(k, (n - k) // 2))


def _named(precision: str) -> str:
    words = {"weight-only": "int8 weights and float32 activations", "float16": "float16 weights"}
    return words.get(precision, precision)


def _missed(step: SearchStep, budget: Budget) -> str:
    """Why there is a next step."""
    if budget.min_sqnr_db is not None:
        return f"{step.sqnr_db or 0:.1f} dB is short of {budget.min_sqnr_db:g}"
    if step.drop is not None:
        return f"{step.drop * 100:.2f} points lost, {budget.max_drop_points:g} allowed"
    return f"{100 - 100 * (step.agreement or 0):.2f} % of the answers differ, {budget.max_drop_points:g} allowed"


def _measure(
    folder: Path, reference: Artifact, artifact: Artifact, making: Making, pictures: ImageSet, threads: int
) -> tuple[Evaluation, Measurement | None]:
    candidates = [Candidate(a.id, folder / a.path, a.sha256) for a in (reference, artifact)]
    evaluations, failures = evaluate(candidates, pictures, making.network.preprocessing, reference=reference.id)
    found = next((e for e in evaluations if e.artifact == artifact.id), None)
    if found is None:
        raise InputError(
            f"{artifact.id} could not be measured: {failures[0].why if failures else 'no picture was read'}"
        )
    timed, _ = device_bench.bench([(artifact.id, folder / artifact.path)], Request(threads, plan=STEP_PLAN))
    return found, timed[0] if timed else None
