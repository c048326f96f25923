"""Templates: what is shown is escaped on a page and only there, and a name that a view lacks is an error."""

from dataclasses import dataclass
from pathlib import Path

import jinja2
import pytest
from markupsafe import Markup

from edgenet import templating


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
