"""What speaks against trusting latencies, in one sentence: warnings of many files, merged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgenet.results import Measurement, Warning


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
