"""What speaks against trusting latencies, in one sentence: warnings of many files, merged."""

import re
from collections.abc import Sequence

from edgenet.results import Measurement

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
# How a warning of timing.warnings_of begins -> what is said of one file, of several.
_OF_FILES = {
    "noisy": ("is noisy", "are noisy"),
    "disturbed": ("was disturbed", "were disturbed"),
    "hardly ever undisturbed": ("was hardly ever undisturbed", "were hardly ever undisturbed"),
    "drift": ("drifted", "drifted"),
    "not settled": ("had not settled", "had not settled"),
    "only": ("got too few runs", "got too few runs"),
}


def latency_note(measured: Sequence[tuple[str, Measurement]]) -> str:
    """Return in one sentence what speaks against the latencies of (file, measurement) pairs, "" where nothing does.

    Warnings that differ by file and number only become one, with the files that it concerns and the worst number.
    """
    alike: dict[str, list[tuple[str, str]]] = {}
    for name, m in measured:
        for warning in m.warnings:
            if not warning.startswith("cannot tell"):  # the table's "≈" says that
                alike.setdefault(_NUMBER.sub("#", warning), []).append((name, warning))
    parts = [_merged(found, len(measured)) for found in alike.values()]
    return f"Read the latencies with care: {'; '.join(parts)}." if parts else ""


def _merged(found: Sequence[tuple[str, str]], n_files: int) -> str:
    worst = max((warning for _, warning in found), key=_largest)
    if len({warning for _, warning in found}) > 1 and "up to" not in worst:
        number = max(_NUMBER.finditer(worst), key=lambda m: float(m[0]))
        worst = f"{worst[: number.start()]}up to {worst[number.start() :]}"
    names = list(dict.fromkeys(name for name, _ in found))
    kind = next((k for k in _OF_FILES if worst.startswith(k)), None)
    if kind is None:  # of the machine, or of something that nobody foresaw
        return worst if len(names) == n_files else f"{who(names, n_files)}: {worst}"
    rest = worst.removeprefix(kind).removeprefix(":").strip() if kind != "only" else worst
    return f"{who(names, n_files)} {_OF_FILES[kind][len(names) > 1]} ({rest})"


def _largest(warning: str) -> float:
    return max(map(float, _NUMBER.findall(warning)), default=0.0)


def who(names: Sequence[str], of: int) -> str:
    """Return one or two files by name, more by number."""
    names = list(dict.fromkeys(names))
    if len(names) == of > 1:
        return "all files"
    return " and ".join(names) if len(names) < 3 else f"{len(names)} of {of} files"
