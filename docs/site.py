"""What mkdocs runs before it makes the site: the source as one package, so that API pages find `edgenet.export`.

The four source folders stand side by side, and three of them install as sub-packages of edgenet; build/api has a
copy of them where they install. Links to files of the source, which a site has not, become their names.
"""

import re
import shutil
from pathlib import Path
from typing import Any

INSIDE = ("export", "calibration", "device_bench")


def on_startup(**_: Any) -> None:  # before mkdocstrings looks for its paths
    root = Path(__file__).parents[1]
    package = root / "build" / "api" / "edgenet"
    shutil.rmtree(package.parent, ignore_errors=True)
    for source, to in ((root / "edgenet", package), *((root / name, package / name) for name in INSIDE)):
        # Without the stub of `edgenet` itself: to it `export` is the function, and the folder's modules are not found.
        shutil.copytree(source, to, ignore=shutil.ignore_patterns("__pycache__", "*.pyi"))


def on_page_markdown(markdown: str, **_: Any) -> str:
    return re.sub(r"\[([^\]]+)\]\(\.\./([^)#]+)\)", r"\1 (\2)", markdown)
