"""A hand-over of the tiny network, made once."""

import shutil
from pathlib import Path

import pytest

from edgenet.handoff import hand_over
from edgenet.handoff import verify as verify_module


@pytest.fixture(scope="session")
def handed(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hand-over of the tiny int8 file. Copy it before changing it."""
    out = tmp_path_factory.mktemp("handed") / "over"
    hand_over(tiny_files["int8"], out)
    return out


@pytest.fixture
def copy(handed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(handed, tmp_path / "copy"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteRT stands in for MediaPipe, which takes seconds to import; the slow tests take the real one."""
    monkeypatch.setattr(verify_module, "_mediapipe", verify_module._litert)
    monkeypatch.setattr(verify_module, "_has_mediapipe", lambda: True)
