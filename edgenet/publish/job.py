"""The work of `edgenet publish`: a run is read once, written as every file that was asked for, and sent to a server."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgenet.door import TEXT_BYTES, read_json
from edgenet.errors import InputError
from edgenet.files import atomic_write, files_of, sha256_of
from edgenet.history.kept import content_of
from edgenet.options import Progress
from edgenet.publish.mlflow import Published
from edgenet.publish.mlflow import publish as log_run
from edgenet.publish.node_data import MADE_BY, missing, node_data
from edgenet.publish.options import PublishJob
from edgenet.report.refusals import Refusal, lost_files
from edgenet.results import RESULTS_FILE, Results

_PAGE = "report.html"


@dataclass(frozen=True)
class Run:
    """A run that is published. `lost`: files, by id, that are no longer as they were measured."""

    out: Path
    results: Results
    lost: Mapping[str, Refusal]


@dataclass(frozen=True)
class Done:
    """What was published: `written` are the files here, `notes` what is not in them, and why."""

    written: tuple[Path, ...]
    notes: tuple[str, ...]
    mlflow: Published | None = None


def publish(out: Path, job: PublishJob, progress: Progress = lambda *_: None) -> Done:
    """Write the run of a folder in each format that was asked for; the files first, then the server.

    Raises:
        InputError: the folder has no run, or a place cannot be written to, or is the run's own.
        MissingDependency: the extra `mlflow` is not installed.
        DeviceError: the server cannot be reached, or refuses.
    """
    if not out.is_dir():
        raise InputError(f"{out} is no folder: give the --out folder of a run")
    results = Results.load(out)
    try:
        content_of(results)
    except InputError as e:
        raise InputError(f"{out}: {e}") from None
    _check_places(out, results, job)
    run = Run(out, results, lost_files(results, out) if job.places else {})
    notes: list[str] = []
    texts: dict[Path, str] = {}  # all are made before the first is written
    for option, path in job.places.items():
        if option == "node-data":
            texts |= _node_data(run, path)
            notes += missing(results)
        else:
            texts[path] = _MAKE[option](run)
    for path, text in texts.items():
        with atomic_write(path, "place") as part:
            part.write_text(text, encoding="utf-8")
    if {"attestation", "model-card"} & set(job.places):
        notes += [f"{a.path} was left out. {run.lost[a.id].why}" for a in results.artifacts if a.id in run.lost]
    sent = log_run(out, job, progress) if job.mlflow is not None else None
    return Done(tuple(texts), tuple(notes), sent)


def _check_places(out: Path, results: Results, job: PublishJob) -> None:
    """Raise InputError where what is written would take the place of the run's own files, or of each other."""
    own = {(out / name).resolve() for name in (RESULTS_FILE, _PAGE)}
    own |= {file.resolve() for a in results.artifacts for file in files_of(out / a.path)}
    taken: dict[Path, str] = {}
    for option, path in job.places.items():
        folder = option == "node-data" and path.suffix.lower() != ".json"
        if folder and path.exists() and not path.is_dir():
            raise InputError(f"--{option} {path} is a file: give a folder, or a name that ends in .json")
        if not folder and path.is_dir():
            raise InputError(f"--{option} {path} is a folder: give the name of a file")
        place = path.resolve()
        if place in own:
            raise InputError(f"--{option} {path} is a file of the run itself: give another name")
        if place in taken:
            raise InputError(f"--{option} and --{taken[place]} are the same place: give each its own")
        taken[place] = option


def _node_data(run: Run, place: Path) -> dict[Path, str]:
    """Return the files of node data. Raises InputError: there is nothing, too much for one, or a file is not ours."""
    found = {name: _json(content) for name, content in node_data(run.results).items()}
    if not found:
        raise InputError(f"{run.out} has nothing to show of single operators: {'; '.join(missing(run.results))}")
    if place.suffix.lower() == ".json":
        if len(found) > 1:
            raise InputError(
                f"--node-data {place} is one file, and the run has {len(found)} to write ({', '.join(sorted(found))}): "
                "give a folder"
            )
        return dict.fromkeys([place], *found.values())
    for name in found:
        if (place / name).exists() and not _is_ours(place / name):
            raise InputError(
                f"{place / name} is there already, and edgenet did not make it: move it, or give another folder"
            )
    return {place / name: text for name, text in found.items()}


def _is_ours(path: Path) -> bool:
    try:
        content = read_json(path, TEXT_BYTES, "node data")
    except InputError:
        return False
    return isinstance(content, dict) and str(content.get(MADE_BY, "")).startswith("edgenet")


def _attestation(run: Run) -> str:
    from edgenet.publish.attestation import attestation

    whole = [a for a in run.results.artifacts if a.id not in run.lost]
    if not whole:
        raise InputError(
            f"no file of {run.out} is as it was when it was made: there is nothing to attest; run it again"
        )
    files = {path.relative_to(run.out).as_posix(): path for a in whole for path in files_of(run.out / a.path)}
    # A hash of its own for each: what the results have of a model in two files is of both.
    return _json(attestation(run.results, {name: _sha256(path) for name, path in files.items()},
                             _sha256(run.out / RESULTS_FILE)))  # fmt: skip


def _sha256(path: Path) -> str:
    """Return the sha256 of one file alone, in hex."""
    return sha256_of(path, alone=True)


def _model_card(run: Run) -> str:
    from edgenet.publish.model_card import model_card

    return model_card(run.results, run.lost)


def _benchmark_json(run: Run) -> str:
    from edgenet.publish.benchmark_json import benchmark_json

    return _json(benchmark_json(run.results))


def _dvc(run: Run) -> str:
    from edgenet.publish.dvc import dvc_metrics

    return _json(dvc_metrics(run.results))


def _trace(run: Run) -> str:
    from edgenet.publish.trace import trace

    found = trace(run.results)
    if not found["traceEvents"]:
        raise InputError(
            f"{run.out} has no round and no operator to draw: `edgenet run`, or `edgenet bench --explain --out OUT`, "
            "measures them"
        )
    return json.dumps(found) + "\n"  # thousands of runs: a line


def _json(content: Any) -> str:
    return json.dumps(content, indent=2) + "\n"


_MAKE: Mapping[str, Callable[[Run], str]] = {
    "model-card": _model_card,
    "benchmark-json": _benchmark_json,
    "dvc": _dvc,
    "trace": _trace,
    "attestation": _attestation,
}
