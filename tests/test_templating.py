"""Templates: what is shown is escaped on a page and only there, and a name that a view lacks is an error."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import jinja2
import pytest
from markupsafe import Markup

from edgenet import templating
from helpers.places import ROOT


@dataclass(frozen=True)
class Named:
    name: str
    drawing: str = ""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "name").write_text("{% if name %}\n<p>{{ name }}</p>\n{% endif %}\n{{ drawing }}\n")
    (tmp_path / "wrong").write_text("{{ nmae }}")
    return tmp_path


def test_a_page_escapes_what_it_shows_but_not_its_drawings(folder: Path) -> None:
    shown = templating.page("name", Named("<b>&", Markup("<svg></svg>")), folder)
    assert shown == "<p>&lt;b&gt;&amp;</p>\n<svg></svg>\n"


def test_a_text_has_its_values_as_they_are_and_no_line_of_its_own_for_a_condition(folder: Path) -> None:
    assert templating.text("name", Named("<b>&", "x"), folder) == "<p><b>&</p>\nx\n"
    assert templating.text("name", Named("", "x"), folder) == "x\n"


@pytest.mark.parametrize("render", [templating.page, templating.text])
def test_a_name_that_the_view_lacks_is_an_error(render: object, folder: Path) -> None:
    assert callable(render)
    with pytest.raises(jinja2.UndefinedError, match="nmae"):
        render("wrong", Named(""), folder)


def test_a_template_is_taken_from_the_first_folder_that_has_it(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "name").write_text("own {{ name }}")
    assert templating.text("name", Named("a"), own, folder) == "own a"
    with pytest.raises(jinja2.UndefinedError):
        templating.text("wrong", Named("a"), own, folder)


# ---------------------------------------------------------------------------------------------- where HTML is written

_HTML = re.compile(r"</[a-z][a-z0-9]*>|<(a|b|br|dd|dl|dt|div|em|figure|h\d|img|li|p|section|small|span|t[drh]|ul)[ >]")


def strings(path: Path) -> list[str]:
    """The strings of a module, those of f-strings too, without docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    told = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    constants = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in told]
    return [n.value for n in constants if isinstance(n.value, str)]


# Of Markdown's ways to quote, <code> alone takes what a stranger wrote with every mark of it as an entity.
MARKDOWN = ROOT / "edgenet" / "compare" / "markdown.py"


def test_html_is_written_in_templates_and_drawings_only() -> None:
    drawings = ROOT / "edgenet" / "report" / "plots"
    assert any(_HTML.search(s) for path in drawings.glob("*.py") for s in strings(path)), "the pattern finds HTML"
    for folder in ("edgenet", "export", "calibration", "device_bench"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.parent != drawings and path != MARKDOWN:
                assert [s for s in strings(path) if _HTML.search(s)] == [], path
