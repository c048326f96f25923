"""What `edgenet compare` is asked for, in the way of edgenet.options."""

# ruff: noqa: RUF009 (`option` returns fields, not values)

import re
from dataclasses import dataclass
from pathlib import Path

from edgenet.errors import InputError
from edgenet.option_fields import Range, check_values, option
from edgenet.options import DEVICES

_PERCENT = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?) ?%")
_TIME = re.compile(r"([0-9]{1,5})(s|m)")
_MOST_PERCENT, _MOST_S = 10_000, 3600


@dataclass(frozen=True)
class CompareJob:
    """What `edgenet compare` is asked for; a limit that is not given fails nothing."""

    files: tuple[str, ...] = option(
        "Compare only this file (* stands for anything); OLDNAME=NEWNAME where names differ. May be repeated.",
        (),
        metavar="NAME",
    )
    max_accuracy_drop: float | None = option(
        "Fail what lost more points.", None, metavar="POINTS", within=Range(least=0, most=100)
    )
    max_slowdown: str | None = option("Fail what became slower by more, such as 3%.", None, metavar="P%")
    max_growth: str | None = option("Fail what became larger by more, such as 1%.", None, metavar="P%")
    strict: bool = option("Fail, too, what the data cannot show to be within its limit.", False)
    remeasure: bool = option("Time the files of both side by side now: that tells a few per cent.", False)
    time: str = option("With --remeasure: at most so long for a file.", "1m", metavar="TIME")
    devices: tuple[str, ...] = option(
        "With --remeasure: where; may be repeated.", ("local",), name="device", metavar="D", choices=DEVICES
    )
    junit: Path | None = option("Write the findings as JUnit XML.", None, metavar="FILE")
    markdown: Path | None = option("Write them for a pull request.", None, metavar="FILE")
    github: bool = option("Print GitHub's annotations, and add to the summary of the step.", False)

    def __post_init__(self) -> None:
        check_values(self)
        for name in ("max_slowdown", "max_growth"):
            if (text := getattr(self, name)) is not None:
                fraction_of(f"--{name.replace('_', '-')}", text)
        self.time_s  # noqa: B018 (checks it)
        if self.strict and (self.max_accuracy_drop, self.max_slowdown, self.max_growth) == (None, None, None):
            raise InputError("--strict needs a limit: give --max-accuracy-drop, --max-slowdown or --max-growth")

    @property
    def time_s(self) -> float:
        """Seconds that a file may be timed for. Raises InputError."""
        found = _TIME.fullmatch(self.time)
        seconds = float(found[1]) * (60 if found[2] == "m" else 1) if found else 0.0
        if not 1 <= seconds <= _MOST_S:
            raise InputError(f"--time takes 1s to 60m, such as 90s or 5m; it was {self.time!r:.40}")
        return seconds


def fraction_of(option: str, text: str) -> float:
    """Return "3%" as 0.03. Raises InputError; a number without its % may mean 3 or 300."""
    found = _PERCENT.fullmatch(text.strip())
    if found is None or float(found[1]) > _MOST_PERCENT:
        raise InputError(f"{option} takes per cent, such as 3% or 0.5%, up to {_MOST_PERCENT}%; it was {text!r:.40}")
    return float(found[1]) / 100
