"""`edgenet publish`: what it is asked for, where it writes, and what it says of bad places and runs."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgenet import cli
from edgenet.errors import InputError
from edgenet.publish.job import publish
from edgenet.publish.options import PublishJob
from helpers.hand_built import some_results
from helpers.hand_built_runs import a_calibration
from helpers.past_runs import a_run, written

FILES = ("model-card", "benchmark-json", "dvc", "trace")


def invoke(*args: object):
    return CliRunner().invoke(cli.main, list(map(str, args)))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return written(tmp_path / "out", some_results(calibration=a_calibration(5)))


def test_several_files_are_written_by_one_command(out, tmp_path) -> None:
    asked = [x for name in FILES for x in (f"--{name}", tmp_path / f"{name}.txt")]
    done = invoke("publish", out, *asked, "--node-data", tmp_path / "nodes", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert {Path(p).name for p in said["written"]} == {
        *(f"{name}.txt" for name in FILES), "efficientnet-lite0_int8.tflite.precision.json",
        "efficientnet-lite0_int16x8.tflite.precision.json",
    }  # fmt: skip
    assert all(Path(p).stat().st_size > 100 for p in said["written"])
    assert any("bench OUT/FILE --explain" in note for note in said["notes"])


def test_a_file_that_is_named_is_written_again_as_by_compare(out, tmp_path) -> None:
    (tmp_path / "m.json").write_text("an older one")
    assert invoke("publish", out, "--dvc", tmp_path / "m.json").exit_code == 0
    assert json.loads((tmp_path / "m.json").read_text())["efficientnet-lite0_int8"]["size_bytes"] == 5_316_608


def test_a_folder_that_is_not_there_yet_is_made(out, tmp_path) -> None:
    assert invoke("publish", out, "--trace", tmp_path / "a/b/t.json").exit_code == 0
    assert (tmp_path / "a/b/t.json").is_file()
    assert not (tmp_path / "a/b/.edgenet-parts").exists()


@pytest.mark.parametrize("args", [
    ((), "nothing is asked for: give --mlflow URI, or a place for a file: --model-card, --node-data"),
    (("--no-files", "--dvc", "m.json"), "--no-files is of MLflow"),
    (("--experiment", "x", "--dvc", "m.json"), "--experiment is of MLflow"),
    (("--dvc", ""), "is empty"),
    (("--dvc", "."), "--dvc . is a folder: give the name of a file"),
    (("--dvc", "m.json", "--trace", "./m.json"), "--trace and --dvc are the same place"),
    (("--dvc", "out/results.json"), "is a file of the run itself"),
    (("--trace", "out/report.html"), "is a file of the run itself"),
    (("--trace", "out/efficientnet-lite0_int8.tflite"), "is a file of the run itself"),
    (("--dvc", "out/results.json/m.json"), "cannot write out/results.json/m.json"),
    (("--node-data", "one.json"), "one.json is one file, and the run has 2 to write"),
    (("--node-data", "out/report.html"), "report.html is a file: give a folder, or a name that ends in .json"),
    (("--attestation", "a.json"), "no file of out is as it was when it was made"),
], ids=lambda a: " ".join(a[0]) or "nothing")  # fmt: skip
def test_what_cannot_be_done_is_one_line_and_nothing_is_written(args, out, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    done = invoke("publish", "out", *args[0])
    assert done.exit_code == 2
    assert args[1] in done.stderr
    assert done.stderr.count("\n") == 1
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.name != "out"}.keys() == before.keys() - {out}
    assert (out / "results.json").stat().st_mtime_ns == before[out / "results.json"]


def test_a_run_that_is_none_is_one_line(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("other").mkdir()
    Path("other/results.json").write_text('{"some": "thing"}')
    Path("file.tflite").write_text("x")
    for name, says in (("empty", "no results.json in"), ("other", "has schema None"), ("gone", "is no folder"),
                       ("file.tflite", "is no folder")):  # fmt: skip
        done = invoke("publish", name, "--dvc", "m.json")
        assert done.exit_code == 2
        assert says in done.stderr
        assert done.stderr.count("\n") == 1
    assert not Path("m.json").exists()


def test_a_place_that_may_not_be_written_to_is_one_line(out) -> None:
    done = invoke("publish", out, "--dvc", "/proc/edgenet.json")
    assert done.exit_code == 2
    assert "cannot write /proc/edgenet.json" in done.stderr
    assert "choose another place" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_disk_that_is_full_leaves_no_half_file(out, tmp_path, edgenet) -> None:
    done = edgenet("publish", out, "--model-card", tmp_path / "card.md", room_bytes=500)
    assert done.returncode == 2
    assert "cannot write" in done.stderr or "too large" in done.stderr
    assert not (tmp_path / "card.md").exists()
    assert not (tmp_path / ".edgenet-parts").exists()


def test_a_run_without_a_figure_is_refused(tmp_path) -> None:
    from edgenet.results import Results

    with pytest.raises(InputError, match="it has no file and no figure"):
        publish(written(tmp_path / "o", Results()), PublishJob(dvc=tmp_path / "m.json"))


def test_a_run_with_nothing_timed_has_no_trace(tmp_path) -> None:
    run = a_run(0)
    run.measurements.clear()
    with pytest.raises(InputError, match="has no round and no operator to draw: `edgenet run`"):
        publish(written(tmp_path / "o", run), PublishJob(trace=tmp_path / "t.json"))


def test_a_file_of_somebody_elses_among_the_node_data_is_kept(out, tmp_path) -> None:
    place = tmp_path / "nodes"
    assert invoke("publish", out, "--node-data", place).exit_code == 0
    assert invoke("publish", out, "--node-data", place).exit_code == 0  # its own are written again
    theirs = place / "efficientnet-lite0_int8.tflite.precision.json"
    theirs.write_text('{"results": {}}')
    done = invoke("publish", out, "--node-data", place)
    assert done.exit_code == 2
    assert "is there already, and edgenet did not make it" in done.stderr
    assert theirs.read_text() == '{"results": {}}'


def test_no_framework_is_loaded_for_a_file(out, tmp_path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from edgenet.publish.job import publish; "
        "from edgenet.publish.options import PublishJob\n"
        f"publish(Path({str(out)!r}), PublishJob(model_card=Path({str(tmp_path / 'c.md')!r})))\n"
        "heavy = {'tensorflow', 'mlflow', 'onnx', 'openvino', 'ai_edge_litert', 'huggingface_hub'}\n"
        "print(sorted(heavy & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
