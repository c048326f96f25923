"""How a run's files were made, as an in-toto statement: the files with their sha256, and SLSA's provenance of them.

The statement is not signed: `cosign attest-blob` and the like sign one.
https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md, https://slsa.dev/spec/v1.0/provenance
"""

from collections.abc import Mapping
from typing import Any

from edgenet.history.kept import content_of
from edgenet.results import Artifact, Results
from edgenet.results.plain import write
from edgenet.results.records import ImagesUsed

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
_BUILD = "urn:edgenet:run:2"  # 2 is the schema of results.json, whose words the parameters have
_UNKNOWN = "0" * 64  # of weights that no file holds


def attestation(results: Results, files: Mapping[str, str], results_sha256: str) -> dict[str, Any]:
    """Return the statement.

    Args:
        files: sha256, in hex, of each file of the run that is there as it was measured, by its path in the folder.
        results_sha256: of results.json.
    """
    c = results.context
    parameters: dict[str, Any] = {
        "command": c.command,
        "target": c.target,
        "models": list(dict.fromkeys(a.model for a in results.artifacts)),
    }
    inside: dict[str, Any] = {"files": {a.path: _how(a) for a in results.artifacts}}
    if c.calibration is not None:
        shared = c.calibration
        inside["calibration"] = {"method": shared.method, "corrections": list(shared.corrections),
                                 "pictures": shared.n_images, "fingerprint": shared.fingerprint}  # fmt: skip
    if c.images is not None and (shown := c.images.evaluation) is not None:
        inside["measured_on"] = _pictures("pictures that measured", shown)
    machine = {"processor": c.cpu_model, "instructions": list(c.isa), "cores": c.cores}
    details: dict[str, Any] = {
        "builder": {"id": "urn:edgenet", "version": {"edgenet": c.edgenet_version, **c.versions}},
        "metadata": {
            "invocationId": f"sha256:{content_of(results)}",
            **({"startedOn": c.created} if c.created else {}),
        },
        "byproducts": [{"name": "results.json", "digest": {"sha256": results_sha256}, "annotations": machine}],
    }
    definition = {
        "buildType": _BUILD,
        "externalParameters": {name: value for name, value in parameters.items() if value},
        "internalParameters": inside,
        "resolvedDependencies": _dependencies(results),
    }
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in files.items()],
        "predicateType": PREDICATE,
        "predicate": {"buildDefinition": definition, "runDetails": details},
    }


def _how(a: Artifact) -> dict[str, Any]:
    return {"format": a.format, "precision": a.precision, "io": a.io_dtype, "calibration": a.calibration,
            "options": write(a.options)}  # fmt: skip


def _dependencies(results: Results) -> list[dict[str, Any]]:
    """Return what went in: weights, pictures and packages. Whose bytes are known has a digest."""
    c = results.context
    found: list[dict[str, Any]] = []
    for provenance, sha256 in dict.fromkeys((a.weights, str(a.options.get("weights", ""))) for a in results.artifacts):
        digest = {"digest": {"sha256": sha256}} if len(sha256) == 64 and sha256 != _UNKNOWN else {}
        found.append({"name": "weights", **digest, "annotations": {"provenance": provenance}})
    roles = (("calibrated", c.images.calibration), ("taught", c.images.taught)) if c.images is not None else ()
    found += [_pictures(f"pictures that {role}", used) for role, used in roles if used is not None]
    found += [{"name": name, "uri": f"pkg:pypi/{name.lower()}@{version}"} for name, version in c.versions.items()]
    return found


def _pictures(name: str, used: ImagesUsed) -> dict[str, Any]:
    # Of the set, not of one file's bytes: an algorithm of its own in the words of in-toto's DigestSet.
    return {"name": name, "digest": {"edgenetImageSet": used.fingerprint}, "annotations": {"pictures": used.n}}
