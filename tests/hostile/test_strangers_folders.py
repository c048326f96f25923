"""A folder that somebody else filled, given as --out or to be read: results.json, hand-overs, parts, locks."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hostile.test_own_files import kept as kept

from edgenet import cli
from edgenet.files import LOCK_FILE, PARTS, atomic_write, delete_parts
from edgenet.results import Results

TEXTS: dict[str, bytes] = {
    "nested": b"[" * 100_000,
    "a list": b"[]",
    "not a number": b'{"schema": 2, "context": {"x": NaN}}',
    "bytes": b'{"schema": "\xff"}',
    "cut": b'{"schema": 2, "cont',
}
COMMANDS: dict[str, tuple[str, ...]] = {
    "report": ("report", "OUT"),
    "run": ("run", "tiny", "--images", "photos", "--out", "OUT"),
    "export": ("export", "tiny", "--precision", "float32", "--out", "OUT"),
    "finetune": ("finetune", "efficientnet-lite0", "--images", "photos", "--out", "OUT"),
    "paper": ("paper", "--quick", "--out", "OUT"),
    "scale": ("scale", "--device", "local", "--budget", "30ms", "--out", "OUT"),
    "explain": ("bench", "x.tflite", "--explain", "--out", "OUT"),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_strangers_results_are_refused_by_every_command(
    command: tuple[str, ...], text: bytes, tiny_folder: Path, tiny_files: Any, tmp_path: Path, kept: Any
) -> None:
    shutil.copytree(tiny_folder, tmp_path / "photos")
    shutil.copy(tiny_files["float32"], tmp_path / "x.tflite")
    (tmp_path / "OUT").mkdir()
    (tmp_path / "OUT/results.json").write_bytes(text)
    assert "results.json" in kept(*command)


@pytest.mark.parametrize("name", ["\u202egnp.x", "a\u200bb", "<script>alert(1)</script>", "\x1b]0;x\x07", "\u2066x"])
def test_names_in_a_strangers_results_do_nothing_to_a_page_or_a_terminal(
    name: str, a_run: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = a_run.to_json()
    for artifact in data["artifacts"]:
        artifact["model"] = name
    data["context"]["model"] = name
    (tmp_path / "OUT/results.json").write_text(json.dumps(data))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.main, ["report", "OUT"], prog_name="edgenet")
    assert done.exit_code == 0, done.output
    assert not set(done.output) & set("\x1b\x07\u202e\u2066")
    page = (tmp_path / "OUT/report.html").read_text()
    assert not set(page) & set("\x1b\x07\u202e\u2066\u200b")
    assert "<script>alert" not in page


# ---------------------------------------------------------------------------------------------- half written files


USERS = ("mine.txt", "photo.jpg", "model.tflite", "notes.2026-12-01.md", "archive.tar.gz", ".hidden", "a.b_c")


@pytest.mark.parametrize("where", [".", "sub", "sub/deeper"])
def test_files_of_the_users_in_a_folder_for_parts_stay(where: str, tmp_path: Path) -> None:
    parts = tmp_path / where / PARTS
    parts.mkdir(parents=True)
    for name in USERS:
        (parts / name).write_text("mine")
    (parts / "folder").mkdir()
    delete_parts(tmp_path)
    assert sorted(p.name for p in parts.iterdir()) == sorted([*USERS, "folder"])


def test_a_run_below_another_ones_folder_keeps_its_parts(tmp_path: Path) -> None:
    """Two runs, one in a folder of the other's: what the inner one is writing is no other run's to delete."""
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / LOCK_FILE).touch()
    with atomic_write(inner / "x.tflite") as part:
        part.write_bytes(b"half")
        delete_parts(tmp_path)
        assert part.read_bytes() == b"half"
    assert (inner / "x.tflite").read_bytes() == b"half"


def test_two_runs_beside_each_other_write_in_folders_of_their_own(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a/x.tflite") as first:
        first.write_bytes(b"first")
        delete_parts(tmp_path / "b")
        with atomic_write(tmp_path / "b/x.tflite") as second:
            second.write_bytes(b"second")
            assert first.exists()
    assert (tmp_path / "a/x.tflite").read_bytes() == b"first"
