"""Search for the first INT8 file within an accuracy budget: plain, corrected, then with sensitive layers kept better.

Each step is a file, written and measured as the user will run it; the first within the budget is kept, and every step
stays in the results with its reason and its cost.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgenet import device_bench
from edgenet.calibration import SharedCalibration
from edgenet.calibration.sensitivity import PICTURES, layers, loudest, sensitivity
from edgenet.device_bench import Plan, Request
from edgenet.errors import InputError
from edgenet.evaluate import Candidate, evaluate
from edgenet.images import limit
from edgenet.jobs.file_factory import FileFactory, Variant
from edgenet.options import Progress, Recipe
from edgenet.records import SearchRecord, SearchStep, Sensitivity
from edgenet.results import Artifact, Evaluation, ImageSet, Measurement

MAX_PICTURES = 1000  # for each step; the file that is kept is measured on all
STEP_PLAN = Plan(rounds=3, max_rounds=3, min_time_s=0.5, self_check=False)
GROWTH = 2  # from step to step, of the number of layers that keep a better precision


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

    def score(self, e: Evaluation) -> float:
        """Return how good an evaluation is; the best of those that are not within the budget is kept."""
        if self.min_sqnr_db is not None:
            return e.sqnr_db or 0.0
        return -(e.top1_drop or 0.0) + (e.agreement or 0.0)


@dataclass(frozen=True)
class Search:
    """How a budget was met, or not. `variant` makes the file that was kept."""

    format: str
    record: SearchRecord
    variant: Variant


# (outputs of a layer's operators, SQNR of the logits in dB where this layer alone is rounded), worst first.
Layers = list[tuple[tuple[str, ...], float]]


@dataclass(frozen=True)
class _Attempt:
    """A file to try. `ranked`: the layers, where some of them are kept better in it."""

    variant: Variant
    what: str
    why: str = ""  # by default by how much the step before missed the budget
    ranked: Layers = field(default_factory=list)


def searches(
    factory: FileFactory, images: ImageSet | None, budget: Budget, threads: int, progress: Progress
) -> Callable[[str], Search]:
    """Return a function that searches for a format's file.

    The variant chosen for one format is tried first for the next one with as many bits: its integers are the same.
    """
    found: dict[int, Search] = {}  # by the bits of the weights

    def of(format: str) -> Search:
        assert images is not None  # int8 came with images, or it would have been refused
        bits = factory.bits(format, "int8")
        made = search(factory, format, images, budget, threads, progress, earlier=found.get(bits))
        found.setdefault(bits, made)
        return made

    return of


def search(
    factory: FileFactory,
    format: str,
    images: ImageSet,
    budget: Budget,
    threads: int = 1,
    progress: Progress = lambda *_: None,
    *,
    earlier: "Search | None" = None,
) -> Search:
    """Return the first variant of the INT8 file that is within the budget, or the best one where none is.

    Args:
        earlier: the search for another format with as many bits. Its integers are the same: its variant is tried first.
        images: the pictures that steps are measured on; at most MAX_PICTURES of them are used.

    Raises:
        InputError: there are no pictures, or the format has no int8.
    """
    pictures = limit(images, MAX_PICTURES) if len(images) > MAX_PICTURES else images
    steps: list[SearchStep] = []
    ranked: Layers = []
    best: tuple[float, Variant] = (float("-inf"), Variant(factory.recipe, {}))
    with tempfile.TemporaryDirectory(prefix="edgenet-") as name:
        folder = Path(name)
        reference = factory.export(folder, format, "float32")
        for attempt in _attempts(factory, format, earlier, progress):
            artifact = factory.export(folder, format, "int8", attempt.variant)
            e, m = _measure(folder, reference, artifact, factory, pictures, threads)
            met = budget.met_by(e)
            why = attempt.why or _missed(steps[-1], budget)
            steps.append(
                SearchStep(len(steps) + 1, attempt.what, why, met, e.top1_drop, e.agreement, e.sqnr_db,
                     m.median_ms if m else None, artifact.size_bytes, dict(attempt.variant.exceptions))
            )  # fmt: skip
            progress(f"search {format}", len(steps), len(steps) + (not met))
            ranked = attempt.ranked
            if met or budget.score(e) > best[0]:
                best = (budget.score(e), attempt.variant)
            if met:
                break
    kinds = {op.outputs[0]: op.kind for op in factory.network.graph.ops}
    costs = tuple(Sensitivity(layer[0], kinds.get(layer[0], ""), db) for layer, db in ranked)
    return Search(format, SearchRecord(budget.text, steps[-1].met, tuple(steps), costs), best[1])


def _attempts(factory: FileFactory, format: str, earlier: "Search | None", progress: Progress) -> Iterator[_Attempt]:
    """Yield what to try, the cheapest file first. Each is worked out when it is asked for: the later ones take long."""
    corrected = factory.recipe
    if earlier is not None:
        what = earlier.record.steps[-1].what
        yield _Attempt(earlier.variant, what, f"the search for {earlier.format} ended with it")
    plain = Variant(Recipe(corrected.method, ()), {})
    yield _Attempt(plain, "int8, each weight rounded to the nearest", "the cheapest file")
    if corrected.corrections:
        yield _Attempt(Variant(corrected, {}), f"int8 with {', '.join(corrected.corrections)}")
    rest: dict[str, str] = {}  # what the ladder before ended with
    for kept, ranked in _ladders(factory, factory.shared(corrected), factory.bits(format, "int8"), progress):
        for k in _almost_all(len(ranked)) if kept == "float16" else _counts(len(ranked)):
            exceptions = {**rest, **{op: kept for layer, _ in ranked[:k] for op in layer}}
            what = _mixed(k, len(ranked), kept, next(iter(rest.values()), "int8"))
            yield _Attempt(Variant(corrected, exceptions), what, ranked=ranked)
        rest = {op: kept for layer, _ in ranked for op in layer}


def _ladders(
    factory: FileFactory, shared: SharedCalibration, bits: int, progress: Progress
) -> Iterator[tuple[str, Layers]]:
    """Yield (precision, layers): what layers are kept in, better each time, and the layers that need it most first."""
    inputs = loudest(shared.graph, shared.inputs(), PICTURES // 2)
    better = "int16" if factory.target.accelerator and "int16" in factory.target.activation_types else "weight-only"
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
    """Return why there is a next step."""
    if budget.min_sqnr_db is not None:
        return f"{step.sqnr_db or 0:.1f} dB is short of {budget.min_sqnr_db:g}"
    if step.drop is not None:
        return f"{step.drop * 100:.2f} points lost, {budget.max_drop_points:g} allowed"
    return f"{100 - 100 * (step.agreement or 0):.2f} % of the answers differ, {budget.max_drop_points:g} allowed"


def _measure(
    folder: Path, reference: Artifact, artifact: Artifact, factory: FileFactory, pictures: ImageSet, threads: int
) -> tuple[Evaluation, Measurement | None]:
    candidates = [Candidate(a.id, folder / a.path, a.sha256) for a in (reference, artifact)]
    evaluations, failures = evaluate(candidates, pictures, factory.network.preprocessing, reference=reference.id)
    found = next((e for e in evaluations if e.artifact == artifact.id), None)
    if found is None:
        raise InputError(
            f"{artifact.id} could not be measured: {failures[0].why if failures else 'no picture was read'}"
        )
    timed, _ = device_bench.bench([(artifact.id, folder / artifact.path)], Request(threads, plan=STEP_PLAN))
    return found, timed[0] if timed else None
