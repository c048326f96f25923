"""What the sections of the page draw from: the results, the rows of the table, and the file that is recommended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgenet.report.formatting import MISSING
from edgenet.report.pieces import Fact, facts
from edgenet.report.recommendation import Recommendation
from edgenet.report.refusals import Refusal
from edgenet.report.rows import Row
from edgenet.results import NO_ANSWER, Results
from edgenet.results.records import Context


@dataclass(frozen=True)
class View:
    """What the sections draw from."""

    results: Results
    rows: list[Row]
    answer: Recommendation
    class_names: Sequence[str]
    lost: Mapping[str, Refusal]  # by id: files that are no longer as they were measured

    @property
    def chosen(self) -> Row | None:
        """The file that the page is about: the one to ship or, with random weights, the one that leads."""
        return next((r for r in self.rows if r.artifact.id == self.answer.leader), None)

    @property
    def baseline(self) -> Row | None:
        model = (self.chosen or self.rows[0]).artifact.model if self.rows else None
        return next((r for r in self.rows if r.is_baseline and r.artifact.model == model), None)

    @property
    def random_weights(self) -> bool:
        """Whether accuracy means nothing."""
        return any(r.artifact.weights == "random" for r in self.rows)

    def kind(self, r: Row) -> str:
        return "chosen" if r is self.chosen else "baseline" if r.is_baseline else "other"

    def label(self, r: Row) -> str:
        """Return the shortest name that tells `r` from the other rows."""

        def named(x: Row, parts: tuple[str, ...]) -> str:
            a = x.artifact
            return " ".join([getattr(a, p) for p in parts] + [f"io {a.io_dtype}"] * bool(a.made_for))

        for parts in (("precision",), ("precision", "format")):
            names = [named(x, parts) for x in self.rows]
            if names.count(named(r, parts)) == 1:
                return named(r, parts)
        return r.name

    def class_name(self, index: int | None) -> str:
        if index is None:
            return MISSING
        if index == NO_ANSWER:
            return "no answer"
        return self.class_names[index] if 0 <= index < len(self.class_names) else f"class {index}"

    def label_name(self, label: int) -> str:
        """Return what a label is called: by its folder, where that stands for several classes, else by its class."""
        images = self.results.context.images
        folders = images.class_map.items() if images else ()
        return next((folder for folder, classes in folders if classes[:1] == (label,)), self.class_name(label))

    def device(self, device: str, threads: int) -> str:
        """Return where something was measured."""
        cpu = self.results.context.cpu_model
        name = f"this computer ({cpu})" if device == "local" and cpu else device
        return f"{name}, {threads} thread{'s' * (threads != 1)}"


def made_with(c: Context) -> tuple[Fact, ...]:
    """Return when, where and with what the results came about."""
    versions = {"edgenet": c.edgenet_version, **c.versions}
    return facts(
        ("Command", c.command),
        ("Created", c.created),
        ("Host", c.host),
        ("CPU", ", ".join(s for s in (c.cpu_model, f"{c.cores} cores" if c.cores else "") if s)),
        ("Instruction sets", " ".join(c.isa)),
        ("Versions", ", ".join(f"{name} {version}" for name, version in versions.items() if version)),
    )
