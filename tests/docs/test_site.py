"""`make docs`: the site is made without a warning, has every page, and asks nobody for fonts or scripts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helpers.places import ROOT

PAGES = {p.name for p in (ROOT / "docs").glob("*.md")}


class _Loader(yaml.SafeLoader):
    """Passes over what only Python can build, as mkdocs.yml has it in one place."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)
CONFIG = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), _Loader)


def test_every_page_stands_in_the_navigation_once() -> None:
    def pages(nav: object) -> list[str]:
        if isinstance(nav, str):
            return [nav]
        inner = nav.values() if isinstance(nav, dict) else nav
        assert not isinstance(inner, str)
        return [page for each in inner for page in pages(each)]  # type: ignore[union-attr]

    found = pages(CONFIG["nav"])
    assert len(found) == len(set(found))
    assert set(found) == PAGES


def test_the_readers_browser_fetches_no_font() -> None:
    assert CONFIG["theme"]["font"] is False


@pytest.mark.slow
def test_the_site_is_made_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    pages = {p.stem: p.read_text(encoding="utf-8") for p in (tmp_path / "site").glob("*.html")}
    assert {Path(name).stem for name in PAGES} <= set(pages)
    for name, text in pages.items():
        loaded = re.findall(r"<(?:script|img|source)[^>]*\ssrc=\"?([^\s\">]+)", text)
        loaded += re.findall(r"<link[^>]*rel=\"?(?:stylesheet|preload|icon)\"?[^>]*href=\"?([^\s\">]+)", text)
        assert [address for address in loaded if re.match(r"(https?:)?//", address)] == [], name
    assert "example_input" in pages["api"]  # from a docstring
    assert "results in this file" not in pages["api"]
    for made in ("Results", "InputError", "SharedCalibration", "export_graph"):
        assert f'id="edgenet.{made}' in pages["api"] or re.search(rf'id="edgenet\.[\w.]*\.{made}"', pages["api"]), made
