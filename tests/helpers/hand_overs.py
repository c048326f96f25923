"""What tests read of a hand-over, and a change that spoils it."""

from pathlib import Path

import numpy as np

from edgenet.handoff.verify import verify
from edgenet.handoff.write import GOLDEN

KOTLIN = Path("src/main/kotlin/edgenet/classifier")


def read(folder: Path, name: str) -> str:
    return (folder / name).read_text(encoding="utf-8")


def outcome(folder: Path) -> dict[str, bool | None]:
    return {c.what: c.ok for c in verify(folder)}


def golden_scores(copy: Path, tiny_files: dict[str, Path]) -> None:
    np.roll(np.fromfile(copy / GOLDEN / "3_scores.bin", "<f4"), 1).tofile(copy / GOLDEN / "3_scores.bin")
