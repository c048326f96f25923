"""Search for an INT8 file within an accuracy budget: the default one, then with sensitive layers kept better.

The ladder begins with the file that there is without a budget: weights that are only rounded to the nearest make a
worse one, which is no smaller and no faster. Each step is a file, written and measured as the user will run it, and
stays in the results with its reason and its cost. budget_verdict.py decides what is within the budget, and when a
search ends.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgenet import device_bench
from edgenet.calibration import SharedCalibration
from edgenet.calibration.sensitivity import PICTURES, layers, loudest, sensitivity
from edgenet.device_bench import Plan, Request
from edgenet.errors import DeviceError, EdgenetError, GateFailed
from edgenet.evaluate import Candidate, evaluate
from edgenet.farm.job import HERE, Farm
from edgenet.images import limit
from edgenet.jobs.budget_verdict import BROKEN, Budget, Judgement, chosen, is_over, judge, refused_for_sure
from edgenet.jobs.file_factory import FileFactory, Variant
from edgenet.options import Progress
from edgenet.results import Artifact, Evaluation, ImageSet, Measurement, Results
from edgenet.results.records import FAILED, MET, MISSED, SearchRecord, SearchStep, Sensitivity, verdict_of

FIRST_PICTURES = 1000  # that may refuse a file; one that they do not refuse is measured on all
STEP_PLAN = Plan(rounds=3, max_rounds=3, min_time_s=0.5, self_check=False)
GROWTH = 2  # from step to step, of the number of layers that keep a better precision


@dataclass(frozen=True)
class Search:
    """How a budget was met, or not. `variant` and `options` make the file that was kept."""

    format: str
    record: SearchRecord
    variant: Variant
    options: Mapping[str, str]


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
    factory: FileFactory,
    images: ImageSet | None,
    budget: Budget,
    threads: int,
    progress: Progress,
    farm: Farm = HERE,
) -> Callable[[str], Search]:
    """Return a function that searches for a format's file.

    The variant chosen for one format is tried early for the next one with as many bits: its integers are the same.
    """
    found: dict[int, Search] = {}  # by the bits of the weights

    def of(format: str) -> Search:
        assert images is not None  # int8 came with images, or it would have been refused
        bits = factory.bits(format, "int8")
        made = search(factory, format, images, budget, threads, progress, earlier=found.get(bits), farm=farm)
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
    farm: Farm = HERE,
) -> Search:
    """Return the cheapest variant of the INT8 file that is within the budget, or the best one where none is.

    Args:
        earlier: the search for another format with as many bits. Its integers are the same: where the default file is
            not enough, its variant is tried next.
        images: the pictures that steps are measured on.
        farm: who measures accuracy and what layers cost; times are this machine's.

    Raises:
        InputError: there are no pictures, or the format has no int8.
        DeviceError: the default file does not run.
    """
    steps: list[SearchStep] = []
    judged: list[Judgement] = []
    tried: list[_Attempt] = []
    with tempfile.TemporaryDirectory(prefix="edgenet-") as name:
        reference = factory.export(Path(name), format, "float32")
        ruler = _Ruler(Path(name), reference, factory, images, budget, threads, farm)
        for attempt in _attempts(factory, format, earlier, progress, farm):
            why = attempt.why or (_missed(steps[-1], budget) if steps else "the file without a budget")
            step, judgement = _step(ruler, format, attempt, SearchStep(len(steps) + 1, attempt.what, why, False))
            steps.append(step)
            judged.append(judgement)
            tried.append(attempt)
            over = is_over(budget, judged)
            progress(f"search {format}", len(steps), len(steps) + (not over))
            if over:
                break
    k = chosen(judged)
    steps[k] = replace(steps[k], artifact=factory.id(format, "int8"))
    kinds = {op.outputs[0]: op.kind for op in factory.network.graph.ops}
    costs = tuple(Sensitivity(layer[0], kinds.get(layer[0], ""), db) for layer, db in tried[-1].ranked)
    record = SearchRecord(
        budget.text, steps[k].met, tuple(steps), costs, steps[k].verdict, budget.max_drop, budget.min_sqnr_db
    )
    return Search(format, record, tried[k].variant, options_of(budget, images))


def options_of(budget: Budget, images: ImageSet) -> dict[str, str]:
    """Return what decides, beside the options of every file, which file a search ends with."""
    return {"budget": budget.text, "budget_images": images.fingerprint}


def _step(ruler: "_Ruler", format: str, attempt: _Attempt, step: SearchStep) -> tuple[SearchStep, Judgement]:
    """Write and measure one file. Where that fails the search goes on without it, unless it is the default."""
    step = replace(step, exceptions={**attempt.variant.exceptions, **ruler.factory.kept})
    try:
        artifact = ruler.factory.export(ruler.folder, format, "int8", attempt.variant)
        e, m, judgement = ruler.measure(artifact, step.n)
    except EdgenetError as failure:
        if step.n == 1:
            raise
        return replace(step, verdict=FAILED, failure=str(failure)), BROKEN
    counts, limits = judgement.counts, judgement.limits
    return replace(
        step,
        met=judgement.verdict == MET,
        verdict=judgement.verdict,
        drop=e.top1_drop,
        agreement=e.agreement,
        sqnr_db=e.sqnr_db,
        median_ms=m.median_ms if m else None,
        size_bytes=artifact.size_bytes,
        limits=limits,
        n_images=int(counts.n) if counts else e.n_images,
        pictures_needed=judgement.pictures_needed,
    ), judgement


@dataclass(frozen=True)
class _Ruler:
    """What every step is measured with. `folder` holds the files."""

    folder: Path
    reference: Artifact
    factory: FileFactory
    images: ImageSet
    budget: Budget
    threads: int
    farm: Farm

    def measure(self, artifact: Artifact, number: int) -> tuple[Evaluation, Measurement | None, Judgement]:
        """Evaluate and time a file, on all pictures unless the first ones refuse it. Raises DeviceError."""
        e = self._evaluate(artifact, limit(self.images, FIRST_PICTURES))
        judgement = judge(self.budget, e, number)
        if len(self.images) > FIRST_PICTURES and not refused_for_sure(self.budget, judgement):
            e = self._evaluate(artifact, self.images)
            judgement = judge(self.budget, e, number)
        request = Request(self.threads, plan=STEP_PLAN)
        timed, _ = device_bench.bench([(artifact.id, self.folder / artifact.path)], request)
        return e, timed[0] if timed else None, judgement

    def _evaluate(self, artifact: Artifact, images: ImageSet) -> Evaluation:
        candidates = [Candidate(a.id, self.folder / a.path, a.sha256) for a in (self.reference, artifact)]
        preprocessing = self.factory.network.preprocessing
        task = self.factory.network.task
        evaluations, failures = evaluate(
            candidates,
            images,
            preprocessing,
            reference=self.reference.id,
            task=task,
            answering=self.farm.answering,
            keep=True,
        )
        if found := next((e for e in evaluations if e.artifact == artifact.id and e.reference), None):
            return found
        why = failures[0].why if failures else "no picture was read"
        raise DeviceError(f"{artifact.id} could not be measured: {why}")


def _attempts(
    factory: FileFactory, format: str, earlier: "Search | None", progress: Progress, farm: Farm
) -> Iterator[_Attempt]:
    """Yield what to try, the cheapest file first. Each is worked out when it is asked for: the later ones take long."""
    recipe = factory.recipe
    default = "int8" + f" with {', '.join(recipe.corrections)}" * bool(recipe.corrections)
    yield _Attempt(Variant(recipe, {}), default)
    if earlier is not None and earlier.variant.exceptions:
        what = next(s.what for s in earlier.record.steps if s.artifact)
        yield _Attempt(earlier.variant, what, f"the search for {earlier.format} ended with it")
    rest: dict[str, str] = {}  # what the ladder before ended with
    for kept, ranked in _ladders(factory, factory.shared(recipe), factory.bits(format, "int8"), progress, farm):
        for k in _almost_all(len(ranked)) if kept == "float16" else _counts(len(ranked)):
            exceptions = {**rest, **{op: kept for layer, _ in ranked[:k] for op in layer}}
            if earlier is not None and exceptions == earlier.variant.exceptions:
                continue
            what = _mixed(k, len(ranked), kept, next(iter(rest.values()), "int8"))
            yield _Attempt(Variant(recipe, exceptions), what, ranked=ranked)
        rest = {op: kept for layer, _ in ranked for op in layer}


def _ladders(
    factory: FileFactory, shared: SharedCalibration, bits: int, progress: Progress, farm: Farm
) -> Iterator[tuple[str, Layers]]:
    """Yield (precision, layers): what layers are kept in, better each time, and the layers that need it most first."""
    inputs = loudest(shared.graph, shared.inputs(), PICTURES // 2)
    better = "int16" if factory.target.accelerator and "int16" in factory.target.activation_types else "weight-only"
    for kept, without in ((better, None), ("float16", better)):
        yield kept, sensitivity(
            shared.graph, inputs, shared.calibration, shared.weights("int8", bits), groups=layers(shared.graph),
            alone=without, progress=lambda done, total: progress("sensitivity", done, total),
            each=farm.each,
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
    if step.verdict == FAILED:
        return "the file before does not run"
    if budget.min_sqnr_db is not None:
        return f"{step.sqnr_db or 0:.1f} dB is short of {budget.min_sqnr_db:g}"
    if step.verdict != MISSED and step.limits is not None:
        return f"the file before may lose up to {step.limits[1] * 100:.2f} points, {budget.max_drop_points:g} allowed"
    if step.drop is not None:
        return f"{step.drop * 100:.2f} points lost, {budget.max_drop_points:g} allowed"
    return f"{100 - 100 * (step.agreement or 0):.2f} % of the answers differ, {budget.max_drop_points:g} allowed"


def hold(results: Results) -> None:
    """Raise GateFailed where a search missed its budget; that the pictures cannot tell is no failure."""
    missed = [(format, s) for format, s in results.context.search.items() if verdict_of(s) == MISSED]
    if missed:
        format, s = missed[0]
        raise GateFailed(f"no int8 file in {format} has {s.budget}; {len(s.steps)} were tried, the nearest was kept")
