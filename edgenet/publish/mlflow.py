"""A run in MLflow: what it was made with as parameters, every figure as a metric, and its files.

A run is known by what it made and measured: published twice, it is one run there. A run that was cut on the way is
gone on with.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgenet.compare.nouns import ACCURACY, LATENCY, SIZE
from edgenet.errors import DeviceError, InputError, MissingDependency
from edgenet.files import files_of
from edgenet.history.figures import ESTIMATE, Figure, figures_of
from edgenet.history.kept import content_of
from edgenet.options import Progress
from edgenet.publish.options import PublishJob
from edgenet.report.refusals import lost_files
from edgenet.results import RESULTS_FILE, Results

CONTENT_TAG = "edgenet.content"
_METRICS = {ACCURACY: "top1", LATENCY: "latency_ms", ESTIMATE: "estimated_ms", SIZE: "size_bytes"}
_REPORT = "report.html"
_MODELS = "models"  # folder of the model files there
_AT_ONCE = 100  # numbers or parameters in a request; the server takes no more of these
_LONGEST_VALUE = 5000  # of a parameter or a tag; the server takes 6,000
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_\-./ ]")
# A command waits for a server that does not answer, but not for a quarter of an hour; and it tells nobody else.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


@dataclass(frozen=True)
class Published:
    """What is in MLflow now. `is_new`: this command put it there. `left`: files that stayed here, and why."""

    run_id: str
    experiment: str
    is_new: bool
    n_metrics: int
    files: tuple[str, ...]
    left: tuple[str, ...]


def publish(out: Path, job: PublishJob, progress: Progress = lambda *_: None) -> Published:
    """Log the run of a folder.

    Raises:
        InputError: the folder has no run.
        MissingDependency: the extra `mlflow` is not installed.
        DeviceError: the server cannot be reached, or refuses.
    """
    if not out.is_dir():
        raise InputError(f"{out} is no folder: give the --out folder of a run")
    results = Results.load(out)
    content = _content(out, results)
    models = tuple(dict.fromkeys(a.model for a in results.artifacts))
    experiment = job.experiment or (models[0] if models else "edgenet")
    files, left = _files(out, results, job.files)
    assert job.mlflow is not None
    with _talking(job.mlflow) as client:
        place = client.get_experiment_by_name(experiment)
        id = place.experiment_id if place is not None else client.create_experiment(experiment)
        found = client.search_runs([id], f"tags.`{CONTENT_TAG}` = '{content}'", max_results=1)
        metrics = metrics_of(figures_of(results))
        if found and found[0].info.status == "FINISHED":
            return Published(found[0].info.run_id, experiment, False, len(metrics), (), left)
        run = found[0] if found else client.create_run(id, run_name=out.resolve().name, tags={CONTENT_TAG: content})
        _log(client, run.info.run_id, results, metrics)
        for n, (path, folder) in enumerate(files):
            progress("upload", n, len(files))
            client.log_artifact(run.info.run_id, str(path), folder or None)
        progress("upload", len(files), len(files))
        client.set_terminated(run.info.run_id, "FINISHED")
    names = tuple(f"{folder}/{path.name}".lstrip("/") for path, folder in files)
    return Published(run.info.run_id, experiment, True, len(metrics), names, left)


def metrics_of(figures: Sequence[Figure]) -> dict[str, float]:
    """Return metrics by their names: FILE/top1, FILE/latency_ms/DEVICE, with _low and _high for their intervals."""
    found: dict[str, float] = {}
    for f in figures:
        s = f.series
        where = [] if s.device in ("", "local") else [s.device]
        name = _NOT_IN_NAMES.sub("_", "/".join([s.file, _METRICS[s.aspect], *where]))
        plain, n = name, 1
        while name in found:  # another runtime, another number of threads
            n += 1
            name = f"{plain} {n}"
        found |= {f"{name}{end}": x for end, x in (("", f.value), ("_low", f.low), ("_high", f.high)) if x is not None}
    return found


def parameters_of(results: Results) -> dict[str, str]:
    """Return what the run was made with, by name."""
    c = results.context
    used = c.images.evaluation if c.images is not None else None
    known: dict[str, Any] = {
        "model": ", ".join(dict.fromkeys(a.model for a in results.artifacts)),
        "weights": ", ".join(dict.fromkeys(a.weights for a in results.artifacts)),
        "precisions": ", ".join(dict.fromkeys(a.precision for a in results.artifacts)),
        "formats": ", ".join(dict.fromkeys(a.format for a in results.artifacts)),
        "target": c.target,
        "images": used.n if used is not None else "",
        "images_fingerprint": used.fingerprint if used is not None else "",
        "calibration_method": c.calibration.method if c.calibration is not None else "",
        "host": c.host,
        "cpu_model": c.cpu_model,
        "edgenet_version": c.edgenet_version,
        **{f"version_{_NOT_IN_NAMES.sub('_', name)}": version for name, version in c.versions.items()},
    }
    return {name: str(value)[:_LONGEST_VALUE] for name, value in known.items() if value not in ("", None)}


def _content(out: Path, results: Results) -> str:
    try:
        return content_of(results)
    except InputError as e:
        raise InputError(f"{out}: {e}") from None


def _files(out: Path, results: Results, with_models: bool) -> tuple[list[tuple[Path, str]], tuple[str, ...]]:
    """Return (file, its folder there), and what is left out: a file that is not as it was measured."""
    files = [(out / name, "") for name in (RESULTS_FILE, _REPORT) if (out / name).is_file()]
    if not with_models:
        return files, ()
    lost = lost_files(results, out)
    left = tuple(f"{a.path} is gone or was altered since it was measured" for a in results.artifacts if a.id in lost)
    whole = [a for a in results.artifacts if a.id not in lost]
    files += [(path, _MODELS) for a in whole for path in files_of(out / a.path)]
    return list(dict.fromkeys(files)), left


def _log(client: Any, run_id: str, results: Results, metrics: dict[str, float]) -> None:
    from mlflow.entities import Metric, Param

    now = 0  # of a metric: the run has one of each, whenever it is published
    numbers = [Metric(name, value, now, 0) for name, value in metrics.items()]
    words = [Param(name, value) for name, value in parameters_of(results).items()]
    for i in range(0, max(len(numbers), len(words)), _AT_ONCE):
        client.log_batch(run_id, metrics=numbers[i : i + _AT_ONCE], params=words[i : i + _AT_ONCE])
    c = results.context
    for name, value in (("edgenet.created", c.created), ("edgenet.command", c.command)):
        if value:
            client.set_tag(run_id, name, value[:_LONGEST_VALUE])


@contextlib.contextmanager
def _talking(uri: str) -> Iterator[Any]:
    """Yield MLflow's client. What it raises is one line, without the password that an address may hold."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ModuleNotFoundError as e:
        if (e.name or "").partition(".")[0] != "mlflow":
            raise
        raise MissingDependency("mlflow-skinny", "mlflow", "publishing to MLflow") from None
    shown = re.sub(r"//[^/@]*@", "//", uri)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # the client likes to print
            yield MlflowClient(tracking_uri=uri)
    except (MlflowException, OSError, ValueError, ImportError) as e:
        said = " ".join(str(e).replace(uri, shown).split())[:300]
        raise DeviceError(f"the MLflow server {shown} failed: {said}; the same command goes on") from None
