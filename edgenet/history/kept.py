"""Which part of a run the database keeps: what has a trend, and what `edgenet compare` needs to judge it.

Pictures that flipped, calibration, searches and training stay in results.json, which the row names.
"""

import hashlib
import json
from dataclasses import replace
from typing import Any

from edgenet.errors import InputError
from edgenet.results import Results
from edgenet.results.records import Context, ImagesRecord


def kept(results: Results) -> Results:
    """Return the part of a run that is kept."""
    return replace(
        results,
        context=_context(results.context),
        evaluations=[
            replace(e, flips=(), classes={}, class_flips={}, confusions=(), measures=None) for e in results.evaluations
        ],
        estimates=[replace(e, layers=()) for e in results.estimates],
        explanations=[],
    )


def _context(c: Context) -> Context:
    used = c.images.evaluation if c.images is not None else None
    return Context(
        created=c.created,
        host=c.host,
        cpu_model=c.cpu_model,
        isa=c.isa,
        cores=c.cores,
        edgenet_version=c.edgenet_version,
        versions=c.versions,
        command=c.command,
        target=c.target,
        images=None if used is None else ImagesRecord(evaluation=used),
    )


def content_of(results: Results) -> str:
    """Return the sha256 of what a run made and measured, in hex: the same run has it wherever its folder is.

    When a command was given again and found everything done, this stays: so the time is no part of it.

    Raises:
        InputError: the run made and measured nothing.
    """
    r = results
    facts: dict[str, Any] = {
        "artifacts": [(a.id, a.sha256, a.size_bytes, a.export_s) for a in r.artifacts],
        "evaluations": [
            (e.artifact, e.device, e.runtime, e.artifact_sha256, e.images, e.n_images, e.n_labelled, e.top1, e.top5,
             e.agreement, e.sqnr_db)
            for e in r.evaluations
        ],
        "measurements": [
            (m.artifact, m.device, m.runtime, m.threads, m.samples_ns, m.disturbed_ns) for m in r.measurements
        ],
        "estimates": [(e.artifact, e.device, e.tool, e.inference_ms, e.n_accelerated) for e in r.estimates],
        "failures": [(f.stage, f.artifact, f.device, f.runtime, f.why) for f in r.failures],
    }  # fmt: skip
    if not any(facts[kind] for kind in ("artifacts", "evaluations", "measurements", "estimates")):
        raise InputError("it has no file and no figure: add the folder of a run that made or measured something")
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
