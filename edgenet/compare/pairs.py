"""Two runs and which of their files belong together."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from edgenet.errors import InputError
from edgenet.results import Artifact, Results

_LISTED = 5  # names in a message


@dataclass(frozen=True)
class Run:
    """One side of the comparison: `name` as it was typed, `folder` holds its files."""

    name: str
    folder: Path
    results: Results

    @property
    def files(self) -> tuple[str, ...]:
        """The ids of all files that it says something of."""
        r = self.results
        ids = [a.id for a in r.artifacts] + [e.artifact for e in r.evaluations] + [m.artifact for m in r.measurements]
        return tuple(dict.fromkeys(ids))

    def artifact(self, id: str) -> Artifact | None:
        """Return what is known of the file itself; None where only its figures are there (`bench --json`)."""
        return next((a for a in self.results.artifacts if a.id == id), None)


@dataclass(frozen=True)
class Pair:
    """A file of OLD and the one of NEW that takes its place. `named`: the user put them together."""

    old: str
    new: str
    named: bool = False


def open_run(path: Path) -> Run:
    """Return the run of a folder, or of a results file itself. Raises InputError."""
    is_file = path.suffix.lower() == ".json" and not path.is_dir()
    return Run(str(path), path.parent if is_file else path, Results.load(path))


def match(old: Run, new: Run, wanted: Sequence[str]) -> tuple[tuple[Pair, ...], tuple[str, ...], tuple[str, ...]]:
    """Return the pairs, in the order of NEW, and the files that only OLD, only NEW has.

    Args:
        wanted: names, with * and ?, that both have; or OLDNAME=NEWNAME. Nothing wants all.

    Raises:
        InputError: a name fits nothing, or no file is in both.
    """
    pairs: dict[str, Pair] = {}
    common = [id for id in new.files if id in old.files]
    for text in wanted:
        before, equals, after = text.partition("=")
        if equals and text not in common:
            for run, name in ((old, before), (new, after)):
                if name not in run.files:
                    raise InputError(f"--files {text}: {run.name} has no file '{name}' (it has {_listed(run.files)})")
            pairs[after] = Pair(before, after, True)
            continue
        found = [id for id in common if id == text or fnmatchcase(id, text)]
        if not found:
            raise InputError(
                f"--files {text} fits no file that both have (both have {_listed(common)}); where names differ give "
                "--files OLDNAME=NEWNAME"
            )
        pairs |= {id: Pair(id, id) for id in found}
    if not wanted:
        pairs = {id: Pair(id, id) for id in common}
    if not pairs:
        raise InputError(
            f"no file is in both: {old.name} has {_listed(old.files)}, {new.name} has {_listed(new.files)}; give "
            "--files OLDNAME=NEWNAME"
        )
    for pair in pairs.values():
        _check(old, new, pair)
    in_order = tuple(pairs[id] for id in new.files if id in pairs)
    if wanted:
        return in_order, (), ()
    return in_order, tuple(i for i in old.files if i not in common), tuple(i for i in new.files if i not in common)


def _check(old: Run, new: Run, pair: Pair) -> None:
    """Raise InputError where two files are of other models, tasks or classes."""
    a, b = old.artifact(pair.old), new.artifact(pair.new)
    about = f"{pair.old} of {old.name} and {pair.new} of {new.name} cannot be compared"
    if a is not None and b is not None:
        if a.model != b.model and not pair.named:
            raise InputError(
                f"{about}: one is of the model '{a.model}', the other of '{b.model}'; if that is meant, give --files "
                f"{pair.old}={pair.new}"
            )
        classes = [x.outputs[0].shape[-1] if x.outputs and x.outputs[0].shape else 0 for x in (a, b)]
        if all(classes) and classes[0] != classes[1]:
            raise InputError(f"{about}: one has {classes[0]} classes, the other {classes[1]}; compare like with like")
        labels = [x.options.get("labels") for x in (a, b)]
        if all(labels) and labels[0] != labels[1]:
            raise InputError(f"{about}: their classes have other names; export both with the same --labels")
    tasks = [_task(run, id) for run, id in ((old, pair.old), (new, pair.new))]
    if all(tasks) and tasks[0] != tasks[1]:
        raise InputError(f"{about}: one was evaluated as '{tasks[0]}', the other as '{tasks[1]}'; give both one --task")


def _task(run: Run, id: str) -> str:
    return next((e.task for e in run.results.evaluations if e.artifact == id), "")


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _LISTED} more" if len(ids) > _LISTED else ""
    return (", ".join(ids[:_LISTED]) or "none") + more
