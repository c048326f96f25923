"""A run of the real command with the tiny network, whose operators were timed and whose layers were searched."""

from pathlib import Path

import pytest

from helpers.command_line import Edgenet


@pytest.fixture(scope="session")
def published_run(tiny_folder: Path, edgenet: Edgenet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder OUT of a run in all formats. Read only."""
    out = tmp_path_factory.mktemp("published") / "OUT"
    made = edgenet("run", "tiny", "--images", tiny_folder, "--out", out, "--format", "all", "--precision", "float32",
                   "--precision", "int8", "--calibration-images", 10, "--min-sqnr", 36, timeout_s=300)  # fmt: skip
    assert made.returncode == 0, made.stderr
    done = edgenet("bench", out / "tiny_float32.tflite", out / "tiny_int8.tflite", "--explain", "--out", out)
    assert done.returncode == 0, done.stderr
    return out
