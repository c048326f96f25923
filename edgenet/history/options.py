"""What `edgenet history` and `edgenet publish` are asked for, in the way of edgenet.options."""

# ruff: noqa: RUF009 (`option` returns fields, not values)

from dataclasses import dataclass
from pathlib import Path

from edgenet.compare.options import CompareJob, fraction_of
from edgenet.errors import InputError
from edgenet.option_fields import Range, check_values, option


@dataclass(frozen=True)
class HistoryJob:
    """What `edgenet history` is asked for. The limits are those of `edgenet compare`: they decide on marks."""

    add: tuple[str, ...] = option("Add the run of this folder; more may follow.", (), metavar="OUT", path=True)
    models: tuple[str, ...] = option(
        "Only this model (* stands for anything); may be repeated.", (), name="model", metavar="NAME"
    )
    devices: tuple[str, ...] = option("Only this device; may be repeated.", (), name="device", metavar="D")
    files: tuple[str, ...] = option("Only this file; may be repeated.", (), name="file", metavar="NAME")
    since: str | None = option("Only runs from this day on.", None, metavar="YYYY-MM-DD")
    page: Path | None = option("Write the trends as a page, DIR/index.html.", None, metavar="DIR")
    max_accuracy_drop: float = option(
        "Mark what lost more points since the run before.", 0.0, metavar="POINTS", within=Range(least=0, most=100)
    )
    max_slowdown: str = option("Mark what became slower by more.", "0%", metavar="P%")
    max_growth: str = option("Mark what became larger by more.", "1%", metavar="P%")

    def __post_init__(self) -> None:
        check_values(self)
        for name in ("max_slowdown", "max_growth"):
            fraction_of(f"--{name.replace('_', '-')}", getattr(self, name))
        if self.since is not None:
            import datetime  # late: not every command needs it

            try:
                datetime.date.fromisoformat(self.since)
            except ValueError:
                raise InputError(f"--since takes a day such as 2026-11-24, it was '{self.since[:40]}'") from None

    @property
    def limits(self) -> CompareJob:
        """What `edgenet compare` would be asked for."""
        return CompareJob(
            max_accuracy_drop=self.max_accuracy_drop, max_slowdown=self.max_slowdown, max_growth=self.max_growth
        )
