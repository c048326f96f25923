"""OUT/results.json: what a run writes to disk and a later one reads. A reader ignores fields that it does not know.

Schema 1 had warnings and what failed as sentences; schema1.py makes values of them. results.schema.json describes
schema 2.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from edgenet.door import RESULTS_BYTES, read_json
from edgenet.errors import InputError
from edgenet.files import atomic_write
from edgenet.results import schema1
from edgenet.results.nouns import (
    Artifact,
    Estimate,
    Evaluation,
    Explanation,
    Failure,
    Measurement,
)
from edgenet.results.plain import at, read, read_list, write
from edgenet.results.records import Context

SCHEMA = 2
RESULTS_FILE = "results.json"


@dataclass
class Results:
    """What OUT/results.json holds. `put` replaces what was known of the same thing; `save` is atomic."""

    context: Context = field(default_factory=Context)
    artifacts: list[Artifact] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    estimates: list[Estimate] = field(default_factory=list)
    explanations: list[Explanation] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def put(self, item: Artifact | Evaluation | Measurement | Estimate | Explanation | Failure) -> None:
        """Add `item` in the place of an earlier one with the same key."""
        rows, key = self._kept(type(item))
        for i, row in enumerate(rows):
            if key(row) == key(item):
                rows[i] = item
                return
        rows.append(item)

    def _kept(self, kind: type) -> tuple[list[Any], Callable[[Any], object]]:
        """The list that holds items of this kind, and what tells two of them apart."""
        if kind is Artifact:
            return self.artifacts, lambda a: a.id
        if kind is Evaluation:
            return self.evaluations, lambda e: (e.artifact, e.device, e.runtime)
        if kind is Measurement:
            return self.measurements, lambda m: (m.artifact, m.device, m.runtime, m.threads)
        if kind is Estimate:
            return self.estimates, lambda e: (e.artifact, e.device)
        if kind is Explanation:
            return self.explanations, lambda e: (e.artifact, e.device, e.runtime, e.threads)
        return self.failures, lambda f: (f.stage, f.artifact, f.device, f.runtime)

    def artifact(self, id: str) -> Artifact:
        """Return the artifact called `id`. Raises KeyError."""
        for a in self.artifacts:
            if a.id == id:
                return a
        raise KeyError(id)

    def to_json(self) -> dict[str, Any]:
        """Return the content of results.json as plain values."""
        return {
            "schema": SCHEMA,
            "context": write(self.context),
            "artifacts": [write(a) for a in self.artifacts],
            "evaluations": [write(e) for e in self.evaluations],
            "measurements": [m.to_json() for m in self.measurements],
            "estimates": [write(e) for e in self.estimates],
            "explanations": [write(e) for e in self.explanations],
            "failures": [write(f) for f in self.failures],
        }

    def save(self, out: Path) -> Path:
        """Write OUT/results.json whole or not at all; return its path."""
        path = out / RESULTS_FILE
        with atomic_write(path) as tmp:
            tmp.write_text(json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n")
        return path

    @classmethod
    def load(cls, out: Path) -> "Results":
        """Read OUT/results.json; `out` may be a results file itself, by whatever name, if that ends in .json.

        Raises:
            InputError: there is none, it is not JSON, or it has another schema.
        """
        path = out if out.suffix.lower() == ".json" and not out.is_dir() else out / RESULTS_FILE
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            there = f"no file {path}" if path == out else f"no {RESULTS_FILE} in {out}"
            raise InputError(f"{there}: give the --out folder of an earlier run") from None
        except OSError as e:
            raise InputError(f"cannot read {path}: {e.strerror}; give a folder that you may read") from None
        data = read_json(path, RESULTS_BYTES, "a results file", "delete it and run again", finite=False)
        found = data.get("schema") if isinstance(data, dict) else type(data).__name__
        if found not in (1, SCHEMA):
            raise InputError(f"{path} has schema {found!r:.40}, this version reads 1 and 2: use another --out folder")
        try:
            return cls.from_json(schema1.upgraded(data) if found == 1 else data)
        except (ValueError, RecursionError) as e:
            raise InputError(f"{path} is damaged ({str(e).strip()}): delete it and run again") from None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Results":
        """Return what results.json's plain values hold. Raises ValueError, with the place that is wrong."""
        late = ("estimates", "explanations")  # older files lack them
        rows = {
            name: at(f".{name}", partial(read_list, each), data.get(name, [] if name in late else None))
            for name, each in _READERS.items()
        }
        ids = [a.id for a in rows["artifacts"]]
        if len(set(ids)) < len(ids) or len(ids) > _MOST_ARTIFACTS:
            raise ValueError(f".artifacts has {len(ids)} entries; edgenet takes up to {_MOST_ARTIFACTS}, each once")
        return cls(at(".context", partial(read, Context), data.get("context")), **rows)


_MOST_ARTIFACTS = 1000  # of a run: a page shows each, beside each other
_READERS: dict[str, Callable[[Any], Any]] = {
    "artifacts": partial(read, Artifact),
    "evaluations": partial(read, Evaluation),
    "measurements": Measurement.from_json,
    "estimates": partial(read, Estimate),
    "explanations": partial(read, Explanation),
    "failures": partial(read, Failure),
}
