"""What a reader has to know beside the answer: on the pictures, and what speaks against trusting latencies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgenet.report.budget_text import rounded_up
from edgenet.report.formatting import FORMAT_NAMES, counted, interval
from edgenet.report.refusals import NO_OWN_PICTURES, Terms
from edgenet.report.rows import Row
from edgenet.results import Measurement, Results, Warning
from edgenet.results.records import CANNOT_TELL, MEANING_CODES, ROLE_CODES, EvaluationTime, verdict_of
from edgenet.targets import FULL_BITS, detect, target

LONG_S, USUAL = 10.0, 1.15  # an evaluation that takes longer, and more than so much of its inference, is explained
FEW_LABELLED = 200  # below this a 95 % interval of top-1 is wider than some 10 points, and a warning is due


@dataclass(frozen=True)
class Note:
    """Something that the reader has to know; `loud` where the numbers must not be used without it."""

    text: str
    loud: bool = False


def notes(results: Results, table: Sequence[Row], terms: Terms) -> tuple[Note, ...]:
    """Return what a reader has to know beside the answer; the loud notes are warnings."""
    said = []
    by_labels = terms.by_labels
    evaluations = [r.evaluation for r in table if r.evaluation]
    if any(r.artifact.weights == "random" for r in table):
        said.append(
            Note("The weights are random: accuracy and agreement mean nothing. Size and latency are real.", loud=True)
        )
    if evaluations and not by_labels:
        n = max(e.n_images for e in evaluations)
        said.append(Note(_capital(f"{no_label(n)}: agreement with float32 was measured, accuracy was not."), True))
    n = max((e.n_labelled for e in evaluations), default=0)
    counts = picture_counts(results)
    if 0 < n < FEW_LABELLED:
        few = f"{n} labelled picture{'s are' if n != 1 else ' is'} too few to see a loss of a point or two"
        said.append(Note(f"{f'{counts} ' if counts else ''}{few}: read the intervals.", loud=True))
    elif counts and evaluations:
        said.append(Note(counts))
    if 0 < len(terms.missed) < len(terms.search):
        where = " and ".join(FORMAT_NAMES.get(format, format) for format in terms.missed)
        said.append(Note(f"The budget is missed in {where}: {terms.budget}.", loud=True))
    said += [Note(text, loud=True) for r in table if (text := _undecided(r, terms))]
    if table and terms.base is None:
        said.append(Note("There is no float32 file to compare with: export it too (--precision float32)."))
    measured = [r.measurement for r in table if r.measurement]
    cpu = " ".join((*results.context.isa, results.context.cpu_model)).lower()
    if any(m.device == "local" for m in measured) and any(s in cpu for s in ("x86", "avx", "sse", "intel", "amd")):
        said.append(Note("Latency is this computer's, not a phone's. On a phone the order of the files can differ."))
    if saturating := _saturating(results):
        said.append(Note(saturating))
    models = sorted({a.model for a in results.artifacts} - {r.artifact.model for r in table})
    if models:
        said.append(
            Note(f"The recommendation is for {table[0].artifact.model}; the tables also hold {' and '.join(models)}.")
        )
    for finding in results.context.calibration_findings:
        if finding.code in MEANING_CODES or (finding.severity != "info" and finding.code != NO_OWN_PICTURES):
            about = "" if finding.code in (*ROLE_CODES, *MEANING_CODES) else "Calibration pictures: "
            text = _capital(f"{about}{finding.message}; {finding.remedy}")
            said.append(Note(text, loud=finding.severity == "danger"))
    warned: dict[str, list[str]] = {}
    for r in table:
        for warning in r.evaluation.warnings if r.evaluation else ():
            if by_labels or warning.code != "no-labels":  # said above, loudly
                warned.setdefault(warning.text, []).append(r.name)
    for text, names in warned.items():
        said.append(Note(f"{who(names, len(table))}: {text}." if len(names) < len(table) else _capital(text)))
    if text := _slow_evaluation(results.context.evaluation_time):
        said.append(Note(text))
    if text := latency_note([(r.name, r.measurement) for r in table if r.measurement]):
        said.append(Note(text))
    return tuple(said)


def _slow_evaluation(spent: EvaluationTime | None) -> str:
    """Return where the time of an evaluation went that was not inference; "" where that was little."""
    if spent is None or spent.total_s < LONG_S or spent.total_s <= USUAL * spent.inference_s:
        return ""
    rest = spent.total_s - spent.inference_s - spent.pictures_s - spent.loading_s
    parts = {"waiting for pictures to be decoded": spent.pictures_s, "loading files": spent.loading_s}
    parts["counting and the rest"] = max(0.0, rest)
    listed = ", ".join(f"{seconds:.0f} s {what}" for what, seconds in parts.items() if seconds >= 0.5)
    return f"Of the {spent.total_s:.0f} s that the evaluation took, {spent.inference_s:.0f} s were inference; {listed}."


def _saturating(results: Results) -> str:
    """Return which files for a chip lose accuracy on this computer alone; "" where none does."""
    if not {"avx2", "sse4_2"} & set(results.context.isa):
        return ""
    here = target(detect(results.context.isa, "x86_64"))
    exact = (a for a in results.artifacts if a.made_for and a.options.get("weight_bits") == FULL_BITS)
    names = [a.path for a in exact if a.format in here.saturating_formats]
    if not names:
        return ""
    return (
        f"{' and '.join(names)}: made for a chip that multiplies exactly. This computer adds INT8 products in 16 bits, "
        "which saturate: accuracy here is below the chip's."
    )


def _undecided(r: Row, terms: Terms) -> str:
    """Return that the pictures cannot tell whether a file keeps its budget, and how many would; "" where they can."""
    search = terms.search.get(r.artifact.format) if r.artifact.precision == "int8" else None
    if search is None or verdict_of(search) != CANNOT_TELL:
        return ""
    text = f"Whether {r.name} keeps the budget ({search.budget}) cannot be told"
    if (step := search.kept) and step.n_images:
        text += f" from {counted(step.n_images, 'picture')}"
        text += f": the loss may be {interval(step.limits)} points" if step.limits else ""
        text += f"; about {rounded_up(step.pictures_needed)} would tell" if step.pictures_needed else ""
    return f"{text}."


def picture_counts(results: Results) -> str:
    """Return how many pictures measure, what the others do, and why they do not measure; "" if nobody noted it."""
    context = results.context
    if (t := context.training) and t.pictures.evaluation:
        p = t.pictures
        calibrated, measured = p.calibration or 0, p.evaluation
        n = p.train + p.held_back + measured + calibrated
        late = p.held_back if t.again is not None and t.again.kept else 0
        others = [f"{p.train + calibrated + late} learn" + (f", {calibrated} of them calibrate" if calibrated else "")]
        others += [f"{late or p.held_back}{' of them' * bool(late)} decide which epoch is kept"] if p.held_back else []
        why = "A picture that taught does not measure: the file knows it."
    elif context.images and context.images.evaluation and context.images.calibration:
        measured, calibrated = context.images.evaluation.n, context.images.calibration.n
        n, others = measured + calibrated, [f"{calibrated} calibrate"]
        why = "A picture that calibrates does not measure: int8 files are fitted to it."
    else:
        return ""
    verb = "measures" if measured == 1 else "measure"
    left_out = any(f.code in ("seen-before", "copies") for f in context.calibration_findings)  # these are not counted
    of = f"the {counted(n, 'picture')} that were used" if left_out else f"your {counted(n, 'picture')}"
    return f"{measured} of {of} {verb}, {', '.join(others)}. {why}"


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:].rstrip(".") + "."


def no_label(n_images: int) -> str:
    """Return that no picture has a label, as the beginning of a sentence or a part of one."""
    return "the picture has no label" if n_images == 1 else f"none of the {n_images} pictures has a label"


@dataclass(frozen=True)
class _OfFiles:
    """How a warning that each file has of its own is said of one file, of several, and with which number."""

    one: str
    several: str
    number: Callable[[float], str] = lambda value: ""
    detail: str = "{}"
    up_to: str = "up to {}"  # several numbers, by the worst
    worst: Callable[[float], float] = abs


def _drifted(change: float) -> str:
    return f"{abs(change):.0%} {'slower' if change > 0 else 'faster'}"


_PER_CENT: Callable[[float], str] = "{:.0%}".format
_NUMBER: Callable[[float], str] = "{:.0f}".format
# What a machine could do better: `edgenet doctor` says it, and it is nothing for a page.
_FOR_ENGINEERS = ("governor",)
_OF_FILES = {
    "noisy": _OfFiles("is noisy", "are noisy", _PER_CENT, "the middle half of the runs spreads over {} of the median"),
    "disturbed": _OfFiles(
        "was disturbed", "were disturbed", _PER_CENT, "{} of the runs are set aside: the core was shared beside them"
    ),
    "rarely-undisturbed": _OfFiles(
        "was hardly ever undisturbed", "were hardly ever undisturbed", detail="the least disturbed runs count"
    ),
    "drift": _OfFiles("drifted", "drifted", _drifted, "{} from the first round to the last"),
    "not-settled": _OfFiles("had not settled", "had not settled", "{:g} s".format, "after {} of warm-up"),
    "few-runs": _OfFiles(
        "got too few runs", "got too few runs", _NUMBER, "{} were made", "as few as {}", lambda value: -value
    ),
}


def latency_note(measured: Sequence[tuple[str, Measurement]]) -> str:
    """Return in one sentence what speaks against the latencies of (file, measurement) pairs, "" where nothing does.

    Warnings of one code become one, with the files that it concerns and the worst number.
    """
    alike: dict[tuple[str, str], list[tuple[str, Warning]]] = {}
    for name, m in measured:
        for w in m.cautions:  # the table's "≈" says what cannot be told apart
            if w.code in _FOR_ENGINEERS:
                continue
            mergeable = w.value is not None or w.code in _OF_FILES
            alike.setdefault((w.code, "" if mergeable else w.text), []).append((name, w))
    parts = [_merged(found, len(measured)) for found in alike.values()]
    return f"Read the latencies with care: {'; '.join(parts)}." if parts else ""


def _merged(found: Sequence[tuple[str, Warning]], n_files: int) -> str:
    names = list(dict.fromkeys(name for name, _ in found))
    code = found[0][1].code
    kind = _OF_FILES.get(code)
    if kind is None:  # of the machine
        worst = max((w for _, w in found), key=lambda w: abs(w.value or 0))
        texts = {w.text for _, w in found}
        text = worst.text if len(texts) == 1 else f"{worst.text}, at worst"
        return text if len(names) == n_files else f"{who(names, n_files)}: {text}"
    said = f"{who(names, n_files)} {kind.several if len(names) > 1 else kind.one}"
    values = [w.value for _, w in found if w.value is not None]
    if not values:  # of an older results file
        return f"{said} ({kind.detail})" if "{}" not in kind.detail else said
    number = kind.number(max(values, key=kind.worst))
    several = len({kind.number(v) for v in values}) > 1
    return f"{said} ({kind.detail.format(kind.up_to.format(number) if several else number)})"


def who(names: Sequence[str], of: int) -> str:
    """Return one or two files by name, more by number."""
    names = list(dict.fromkeys(names))
    if len(names) == of > 1:
        return "all files"
    return " and ".join(names) if len(names) < 3 else f"{len(names)} of {of} files"
