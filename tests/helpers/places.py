"""Where the project stands, and the pictures and models beside it that some tests need and skip without."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
SHARED = ROOT.parent / "shared"
IMAGENET_MINI = SHARED / "imagenet-mini"
