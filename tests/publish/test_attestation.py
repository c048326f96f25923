"""The statement: in-toto's own library reads and validates it, and its hashes are those of the files."""

import hashlib
import json

import pytest

from edgenet.files import files_of
from edgenet.publish.attestation import attestation
from edgenet.publish.job import publish
from edgenet.publish.options import PublishJob
from edgenet.results import Results
from helpers.hand_built import some_results
from helpers.hand_built_runs import a_calibration

FILES = {"efficientnet-lite0_int8.tflite": "a" * 64}


def validated(text: str):
    """Return the statement and its provenance as in-toto's library reads them; it raises for what is none."""
    pytest.importorskip("in_toto_attestation", reason="needs pip install in-toto-attestation==0.9.3")
    from google.protobuf import json_format
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
    from in_toto_attestation.v1.statement import Statement
    from in_toto_attestation.v1.statement_pb2 import Statement as Wire

    statement = Statement.copy_from_pb(json_format.Parse(text, Wire()))
    statement.validate()
    provenance = json_format.Parse(json.dumps(json.loads(text)["predicate"]), provenance_pb2.Provenance())
    return statement.pb, provenance


def test_in_totos_library_validates_the_statement() -> None:
    pictures = {"evaluation": {"n": 500, "fingerprint": "e" * 64}, "calibration": {"n": 100, "fingerprint": "f" * 64}}
    run = some_results(calibration=a_calibration(), images={"root": "photos", **pictures}, target="auto")
    statement, provenance = validated(json.dumps(attestation(run, FILES, "b" * 64)))
    assert [(s.name, dict(s.digest)) for s in statement.subject] == [
        ("efficientnet-lite0_int8.tflite", {"sha256": "a" * 64})
    ]
    assert statement.predicate_type == "https://slsa.dev/provenance/v1"
    definition = provenance.build_definition
    assert definition.external_parameters["command"].startswith("edgenet run efficientnet-lite0")
    assert definition.internal_parameters["calibration"]["method"] == "mse"
    assert provenance.run_details.metadata.started_on.ToJsonString() == "2026-11-24T05:02:11Z"
    names = [d.name for d in definition.resolved_dependencies]
    assert names == ["weights", "pictures that calibrated", "numpy", "ai-edge-litert"]
    assert definition.resolved_dependencies[2].uri == "pkg:pypi/numpy@2.4.6"


def test_a_run_of_which_little_is_known_is_valid_too() -> None:
    run = some_results()
    run.context = Results().context
    statement, provenance = validated(json.dumps(attestation(run, FILES, "b" * 64)))
    assert {s.name: s.digest["sha256"] for s in statement.subject} == FILES
    assert set(provenance.build_definition.external_parameters) == {"models"}  # what is not known is not there
    assert set(provenance.build_definition.internal_parameters) == {"files"}


@pytest.mark.slow
def test_the_hashes_are_of_the_files_themselves_both_of_a_model_in_two(published_run, tmp_path) -> None:
    publish(published_run, PublishJob(attestation=tmp_path / "a.json"))
    statement, provenance = validated((tmp_path / "a.json").read_text())
    made = {p.name for a in Results.load(published_run).artifacts for p in files_of(published_run / a.path)}
    assert {s.name for s in statement.subject} == made >= {"tiny_int8.xml", "tiny_int8.bin"}
    for s in statement.subject:
        assert s.digest["sha256"] == hashlib.sha256((published_run / s.name).read_bytes()).hexdigest()
    (results,) = provenance.run_details.byproducts
    assert results.digest["sha256"] == hashlib.sha256((published_run / "results.json").read_bytes()).hexdigest()


@pytest.mark.slow
def test_a_file_that_was_altered_is_not_attested(published_run, tmp_path) -> None:
    import shutil

    out = shutil.copytree(published_run, tmp_path / "out")
    (out / "tiny_int8.tflite").write_bytes(b"another")
    done = publish(out, PublishJob(attestation=tmp_path / "a.json"))
    assert "tiny_int8.tflite" not in {s["name"] for s in json.loads((tmp_path / "a.json").read_text())["subject"]}
    assert any(note.startswith("tiny_int8.tflite was left out. It was altered") for note in done.notes)
