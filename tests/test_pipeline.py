"""pipeline.py: a run that is killed anywhere goes on where it was, and nothing half-written is taken for whole.

Every run is a process of its own and is killed by SIGKILL, which nothing can catch: just before and just after each
file is put in its place, and as each stage begins.
"""

import fcntl
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from edgenet.errors import InputError
from edgenet.files import PARTS, sha256_of
from edgenet.jobs.output_folder import _lock, exclusive
from edgenet.jobs.recipe_file import read_recipe
from edgenet.options import Job
from edgenet.results import Results
from helpers import tiny
from helpers.command_line import Edgenet

RUN = ("run", "tiny", "--precision", "float32", "--precision", "int8", "--calibration-images", 10)
FILES = ("tiny_float32.tflite", "tiny_int8.tflite")
# float32, results, int8, results, results (evaluated), results (timed), results (the end), report
N_WRITES = 8


@pytest.fixture(scope="module")
def finished(edgenet: Edgenet, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "OUT"
    done = edgenet(*RUN, "--images", tiny_folder, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def run(edgenet: Edgenet, images: Path, out: Path, kill: str = "") -> int:
    done = edgenet(*RUN, "--images", images, "--out", out, kill=kill)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def state(out: Path) -> dict[str, tuple[int, str]]:
    """Name -> (modification time, sha256) of every model in OUT."""
    return {p.name: (p.stat().st_mtime_ns, sha256_of(p)) for p in out.glob("*.tflite")}


def assert_whole(out: Path, like: Path) -> None:
    results = Results.load(out)
    assert [a.id for a in results.artifacts] == list(FILES)
    for a in results.artifacts:
        assert sha256_of(out / a.path) == a.sha256 == sha256_of(like / a.path)
        assert (out / a.path).stat().st_size == a.size_bytes
    assert {(e.artifact, e.artifact_sha256, e.top1) for e in results.evaluations} == {
        (e.artifact, e.artifact_sha256, e.top1) for e in Results.load(like).evaluations
    }
    assert [m.artifact for m in results.measurements] == list(FILES)
    assert results.failures == []
    assert "</html>" in (out / "report.html").read_text()[-200:]
    assert sorted(p.name for p in out.iterdir()) == sorted([*FILES, "report.html", "results.json"])


def test_a_run_writes_the_files_the_results_and_the_report_and_nothing_else(finished: Path) -> None:
    assert_whole(finished, finished)
    results = Results.load(finished)
    assert [e.top1 for e in results.evaluations] == [1.0, 1.0]
    images = results.context.images
    assert images is not None
    assert images.calibration is not None
    assert images.calibration.n == 10
    assert images.evaluation is not None
    assert images.evaluation.n == 30


@pytest.mark.parametrize("stage", ["export", "evaluate", "bench"])
def test_a_run_killed_as_a_stage_begins_goes_on_there(
    stage: str, edgenet: Edgenet, tiny_folder: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "OUT"
    assert run(edgenet, tiny_folder, out, kill=f"stage {stage}") == -signal.SIGKILL
    before = state(out)
    assert set(before) == (set() if stage == "export" else set(FILES))
    assert not (out / "report.html").exists()
    assert run(edgenet, tiny_folder, out) == 0
    assert {name: state(out)[name] for name in before} == before  # not written again
    assert_whole(out, finished)


KILLS = [f"{when} {n}" for n in range(1, N_WRITES + 1) for when in ("before", "after")]
QUICK = {"before 1", "before 3", "after 3", "before 7", "before 8"}


@pytest.mark.parametrize("kill", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in KILLS])
def test_a_run_killed_at_any_write_is_finished_by_the_same_command(
    kill: str, edgenet: Edgenet, tiny_folder: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "OUT"
    assert run(edgenet, tiny_folder, out, kill=kill) == -signal.SIGKILL
    assert any(out.glob(f"{PARTS}/*")) == kill.startswith("before")  # the half file that the kill left
    known = json.loads((out / "results.json").read_text()) if (out / "results.json").exists() else {"artifacts": []}
    recorded = {a["id"]: state(out)[a["path"]] for a in known["artifacts"]}
    assert run(edgenet, tiny_folder, out) == 0
    assert {name: state(out)[name] for name in recorded} == recorded
    assert_whole(out, finished)


def test_a_run_makes_as_many_writes_as_it_is_killed_at(edgenet: Edgenet, tiny_folder: Path, tmp_path: Path) -> None:
    assert run(edgenet, tiny_folder, tmp_path / "OUT", kill=f"after {N_WRITES + 1}") == 0


def test_a_finished_run_is_not_done_again(edgenet: Edgenet, tiny_folder: Path, finished: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "OUT"))
    before, results = state(out), Results.load(out)
    assert run(edgenet, tiny_folder, out) == 0
    assert state(out) == before
    again = Results.load(out)
    assert again.measurements == results.measurements
    assert again.evaluations == results.evaluations


def test_a_truncated_file_is_made_again_and_evaluated_again(
    edgenet: Edgenet, tiny_folder: Path, finished: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "OUT"))
    before = state(out)
    data = (out / FILES[1]).read_bytes()
    (out / FILES[1]).write_bytes(data[: len(data) // 2])
    assert run(edgenet, tiny_folder, out) == 0
    assert state(out)[FILES[0]] == before[FILES[0]]
    assert_whole(out, finished)


def test_an_altered_byte_is_noticed(edgenet: Edgenet, tiny_folder: Path, finished: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "OUT"))
    data = bytearray((out / FILES[0]).read_bytes())
    data[-40] ^= 1
    (out / FILES[0]).write_bytes(data)
    assert run(edgenet, tiny_folder, out) == 0
    assert_whole(out, finished)


def test_other_pictures_are_evaluated_anew_and_the_float_file_stays(
    edgenet: Edgenet, tiny_folder: Path, finished: Path, tmp_path: Path
) -> None:
    out, folder = (
        Path(shutil.copytree(finished, tmp_path / "OUT")),
        Path(shutil.copytree(tiny_folder, tmp_path / "photos")),
    )
    for photo in sorted(folder.glob("*/0.jpg")):
        photo.unlink()
    before, fingerprint = state(out), Results.load(out).evaluations[0].images
    assert run(edgenet, folder, out) == 0
    assert state(out)[FILES[0]] == before[FILES[0]]
    results = Results.load(out)
    assert all(e.images != fingerprint and e.n_images == 25 for e in results.evaluations)
    assert len(results.evaluations) == 2


def test_another_io_type_makes_the_files_anew(
    edgenet: Edgenet, tiny_folder: Path, finished: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "OUT"))
    done = edgenet(*RUN, "--images", tiny_folder, "--out", out, "--io", "uint8")
    assert done.returncode == 0, done.stderr
    results = Results.load(out)
    assert [a.io_dtype for a in results.artifacts] == ["uint8", "uint8"]
    assert {e.artifact_sha256 for e in results.evaluations} == {a.sha256 for a in results.artifacts}
    assert {m.artifact_sha256 for m in results.measurements} == {a.sha256 for a in results.artifacts}


def test_a_precision_asked_for_later_joins_those_that_are_there(
    edgenet: Edgenet, tiny_folder: Path, finished: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "OUT"))
    before = state(out)
    done = edgenet(*RUN, "--precision", "int16x8", "--images", tiny_folder, "--out", out)
    assert done.returncode == 0, done.stderr
    assert {name: state(out)[name] for name in before} == before
    results = Results.load(out)
    assert [a.precision for a in results.artifacts] == ["float32", "int8", "int16x8"]
    assert (
        {e.artifact for e in results.evaluations}
        == {m.artifact for m in results.measurements}
        == {a.id for a in results.artifacts}
    )


def test_a_picture_that_cannot_be_read_and_comes_first_does_not_stop_the_timing(
    edgenet: Edgenet, tmp_path: Path
) -> None:
    folder = tiny.make_folder(tmp_path / "photos", per_class=41)  # one of 205 is less than a hundredth
    first = folder / "class_0" / "0.jpg"
    first.write_bytes(first.read_bytes()[:300])
    done = edgenet(
        "run",
        "tiny",
        "--precision",
        "float32",
        "--calibration-images",
        1,
        "--images",
        folder,
        "--out",
        tmp_path / "OUT",
    )
    assert done.returncode == 0, done.stderr
    results = Results.load(tmp_path / "OUT")
    assert len(results.measurements) == 1
    assert results.evaluations[0].n_images + results.evaluations[0].n_skipped == 204


def test_the_second_of_two_runs_in_one_folder_is_refused(
    edgenet: Edgenet, tiny_folder: Path, finished: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "OUT"))
    with exclusive(out):
        before = sorted((p.name, p.stat().st_mtime_ns) for p in out.iterdir())
        done = edgenet(*RUN, "--images", tiny_folder, "--out", out)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "in use by another run" in done.stderr
        assert sorted((p.name, p.stat().st_mtime_ns) for p in out.iterdir()) == before
    assert run(edgenet, tiny_folder, out) == 0


def test_a_lock_that_its_owner_deletes_while_it_is_being_taken_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else B could lock a file that no longer has a name, and C a new one beside it."""
    path, flock, calls = tmp_path / ".lock", fcntl.flock, []

    def deleting(handle: object, how: int) -> None:
        calls.append(how)
        if len(calls) == 1:
            path.unlink()
        flock(handle, how)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", deleting)
    with _lock(path) as handle:
        assert os.path.samestat(os.fstat(handle.fileno()), path.stat())
        with pytest.raises(BlockingIOError):
            _lock(path)
    assert len(calls) == 3


def test_a_folder_made_for_nothing_is_gone_again(tmp_path: Path) -> None:
    out = tmp_path / "OUT"
    with exclusive(out), pytest.raises(InputError, match="in use"), exclusive(out):
        pass
    assert not out.exists()


def test_a_folder_with_another_models_results_is_refused(
    edgenet: Edgenet, tiny_folder: Path, finished: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "OUT"))
    data = json.loads((out / "results.json").read_text())
    for a in data["artifacts"]:
        a["model"] = "another"
    (out / "results.json").write_text(json.dumps(data))
    before = state(out)
    done = edgenet(*RUN, "--images", tiny_folder, "--out", out)
    assert done.returncode == 2
    assert "another" in done.stderr
    assert "--out" in done.stderr
    assert state(out) == before


def test_a_recipe_says_what_the_command_line_says(edgenet: Edgenet, tiny_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(
        f'model = "tiny"\nimages = "{tiny_folder}"\nprecisions = ["float32", "float16"]\ncalibration_images = 10\n'
    )
    done = edgenet("export", path, "--out", tmp_path / "OUT", "--precision", "float16")
    assert done.returncode == 0, done.stderr
    assert [p.name for p in (tmp_path / "OUT").glob("*.tflite")] == ["tiny_float16.tflite"]  # the last word


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model = ", "not TOML"),
        ('model = "tiny"\nprecision = ["int8"]', "unknown key 'precision'.*precisions"),
        ('model = "tiny"\nthreads = "two"', "threads must be a whole number"),
        ('model = "tiny"\nthreads = true', "threads must be a whole number"),
        ('model = "tiny"\nprecisions = [8]', "precisions must be a list of texts"),
        ("threads = 2", "'model' is missing"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        read_recipe(path)


def test_a_job_has_the_defaults_that_the_help_promises() -> None:
    job = Job("m", Path("out"))
    assert (job.calibration_images, job.threads, job.io, job.formats) == (100, 1, "float32", ("tflite",))


@pytest.mark.parametrize("kill", ["before 1", "after 1", "before 2", "after 2"])
def test_an_openvino_model_is_two_files_and_never_one_of_each_run(kill: str, edgenet: Edgenet, tmp_path: Path) -> None:
    """The weights are put in their place first, then the file that refers to them."""
    pytest.importorskip("openvino")
    out, asked = tmp_path / "OUT", ("export", "tiny", "--format", "openvino", "--precision", "float32")
    assert edgenet(*asked, "--out", out, kill=kill).returncode == -signal.SIGKILL
    assert (out / "tiny_float32.xml").exists() == (kill == "after 2")
    done = edgenet(*asked, "--out", out)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in out.iterdir()) == ["results.json", "tiny_float32.bin", "tiny_float32.xml"]
    (a,) = Results.load(out).artifacts
    assert sha256_of(out / a.path) == a.sha256
    (out / "tiny_float32.bin").write_bytes(b"another's")
    assert edgenet(*asked, "--out", out).returncode == 0
    assert sha256_of(out / a.path) == a.sha256
