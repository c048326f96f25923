"""Fixtures of the pages: pictures that are not decoded."""

from collections.abc import Collection

import pytest

from edgenet.errors import InputError


@pytest.fixture
def thumbnails(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for the decoder, and return the files that it was asked for; one called gone.jpg cannot be opened."""
    asked: list[str] = []

    def thumbnail(file: str, side_px: int = 96, known: Collection[str] | None = None) -> bytes:
        asked.append(file)
        if file.endswith("gone.jpg"):
            raise InputError(f"cannot read {file}")
        return b"jpeg of " + file.encode()

    monkeypatch.setattr("edgenet.images.thumbnail", thumbnail)
    return asked
