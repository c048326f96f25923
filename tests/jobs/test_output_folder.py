"""The skeleton of every job: who may go on in a folder, and what is written when the job ends well or badly."""

from pathlib import Path

import pytest

from edgenet.errors import InputError
from edgenet.jobs.output_folder import results_in
from edgenet.results import Artifact, Results
from edgenet.results.records import Context, PaperRecord, ScaleRecord
from edgenet.results.training import TrainingRecord

OF = {
    "run": Context(),
    "qat": Context(training=TrainingRecord(kind="qat")),
    "finetune": Context(training=TrainingRecord(kind="finetune")),
    "paper": Context(paper=PaperRecord()),
    "scale": Context(scale=ScaleRecord(0.0, 1.0, 1.0, 1.0, 224, 385_000_000, 4_700_000)),
}


def filled(out: Path, context: Context = OF["run"]) -> Path:
    a = Artifact("x_int8.tflite", "x", "tflite", "int8", "x_int8.tflite", 1, "0" * 64, "float32")
    Results(context=context, artifacts=[a]).save(out)
    return out


@pytest.mark.parametrize("command", ["qat", "finetune", "paper", "scale"])
@pytest.mark.parametrize("before", OF)
def test_a_command_goes_on_in_its_own_folder_and_leaves_anothers_as_it_is(
    command: str, before: str, tmp_path: Path
) -> None:
    out = filled(tmp_path / "OUT", OF[before])
    data = (out / "results.json").read_bytes()
    if command == before:
        with results_in(out, command=command) as results:
            assert [a.model for a in results.artifacts] == ["x"]
        return
    with pytest.raises(InputError, match=r"holds results of .*choose another --out"), results_in(out, command=command):
        pass
    assert (out / "results.json").read_bytes() == data
    assert [p.name for p in out.iterdir()] == ["results.json"]


def test_a_folder_is_for_one_model(tmp_path: Path) -> None:
    out = filled(tmp_path / "OUT")
    with results_in(out, model="x"):
        pass
    with pytest.raises(InputError, match="holds files of x: one folder is for one model"), results_in(out, model="y"):
        pass


def test_a_job_that_does_not_resume_begins_with_nothing(tmp_path: Path) -> None:
    out = filled(tmp_path / "OUT")
    with results_in(out, model="x", resume=False) as results:
        assert results == Results()
    assert Results.load(out).artifacts == []


def test_results_and_page_are_written_where_the_job_ends_well_and_only_there(tmp_path: Path) -> None:
    pages: list[Path] = []

    def page(results: Results, out: Path) -> None:
        assert Results.load(out).context == results.context == Context(command="edgenet x")
        pages.append(out)

    with pytest.raises(InputError, match="half way"), results_in(tmp_path / "bad", page=page):
        raise InputError("half way")
    assert not (tmp_path / "bad").exists()
    assert pages == []
    with results_in(tmp_path / "good", page=page) as results:
        results.context = Context(command="edgenet x")
    assert pages == [tmp_path / "good"]
    assert [p.name for p in (tmp_path / "good").iterdir()] == ["results.json"]
