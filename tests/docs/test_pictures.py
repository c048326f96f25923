"""The README's pictures: small, drawn by docs/pictures/make.py from what a terminal really got, 80 columns wide."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest
from PIL import Image

from helpers.places import ROOT

FOLDER = ROOT / "docs" / "pictures"
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_pictures_make", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


def text(make: ModuleType, data: str) -> list[str]:
    """What stands on the screen after a program printed `data`."""
    screen = make.Screen()
    screen.feed(data.encode())
    lines = []
    for spans in screen.frame():
        line = ""
        for column, part, _ in spans:
            line = line.ljust(column) + part
        lines.append(line)
    return lines


@pytest.mark.parametrize(
    ("printed", "seen"),
    [
        ("a\r\nb", ["a", "b"]),
        ("abc\rx", ["xbc"]),
        ("1 %\r\x1b[2K2 %", ["2 %"]),
        ("one\r\ntwo\r\n\x1b[2A\x1b[2Kthree", ["three", "two", ""]),
        ("\x1b[1mbold\x1b[0m  plain \x1b[38;5;197mbar\x1b[0m", ["bold  plain bar"]),
        ("\x1b[?25l\x1b]0;title\x07here\x1b[K", ["here"]),
    ],
    ids=["lines", "carriage return", "a bar anew", "two bars", "colours", "cursor and title"],
)
def test_the_screen_is_what_a_terminal_shows(printed: str, seen: list[str], make: ModuleType) -> None:
    assert text(make, printed) == seen


def test_a_bar_is_green_as_far_as_it_is_done(make: ModuleType) -> None:
    screen = make.Screen()
    screen.feed(b"\x1b[38;5;197m---\x1b[0m\x1b[38;5;237m--\x1b[0m\x1b[38;2;249;38;114m-\x1b[0m\x1b[38;2;58;58;58m-")
    assert [(text, style) for _, text, style in screen.frame()[0]] == [
        ("---", ("c2",)), ("--", ("d",)), ("-", ("c2",)), ("-", ("d",)),
    ]  # fmt: skip


def test_a_recording_ends_with_what_was_printed_last_and_no_frame_waits_longer_than_half_a_second(
    make: ModuleType,
) -> None:
    recorded = [(i * 3.0, f"\r\x1b[2K{i} of 200".encode()) for i in range(201)] + [(700.0, b"\r\x1b[2Kdone\r\n")]
    shown = make.frames(recorded, "edgenet run")
    assert len(shown) <= make.MOST_FRAMES
    assert all(seconds <= 0.5 for seconds, _ in shown)
    assert [span[1] for line in shown[0][1] for span in line] == ["$ edgenet run"]
    assert [span[1] for line in shown[-1][1] for span in line] == ["$ edgenet run", "done"]
    drawn = ET.fromstring(make.svg(shown, "edgenet run"))
    assert drawn.findtext("{http://www.w3.org/2000/svg}title") == "edgenet run"


def test_the_pictures_of_the_readme_are_there_and_small() -> None:
    named = {Path(p).name for p in re.findall(r"docs/pictures/([\w.-]+\.(?:png|svg))", README)}
    assert named == {"report.png", "run.svg"} == {p.name for p in FOLDER.iterdir() if p.suffix in (".png", ".svg")}
    for name in named:
        assert (FOLDER / name).stat().st_size < 300_000
    with Image.open(FOLDER / "report.png") as picture:
        assert picture.width == 1280


def test_the_recording_is_of_the_command_that_the_readme_names_and_has_no_more_than_eighty_columns(
    make: ModuleType,
) -> None:
    root = ET.parse(FOLDER / "run.svg").getroot()
    svg = "{http://www.w3.org/2000/svg}"
    command = root.findtext(f"{svg}title")
    assert command == " ".join(("edgenet", *make.RUN))
    assert command in README
    spans = [(t.attrib["x"], t.text or "") for t in root.iter(f"{svg}text")]
    ends = [(float(x) - make.EDGE_PX) / make.COLUMN_PX + len(said) for x, said in spans]
    assert max(ends) <= make.COLUMNS + 0.01
    assert any("Ship efficientnet-lite0_int8.tflite" in said for _, said in spans)


def test_the_first_screen_of_the_readme_has_the_sentence_the_picture_and_three_ways_in() -> None:
    lines = README.splitlines()
    first = lines[:40]
    assert lines[2].startswith("edgenet ")
    assert "docs/pictures/report.png" in "".join(first[:8])
    assert [line[2:].split("**")[0] for line in first if line.startswith("**")] == [
        "A network of the zoo", "Your own PyTorch or Keras model", "Your own classes",
    ]  # fmt: skip
    ways = re.findall(r"^```sh\n(.*?)^```", "\n".join(lines[:42]), re.MULTILINE | re.DOTALL)
    assert [way.count("\n") for way in ways] == [4, 4, 4]


def test_what_a_terminal_shows_of_the_readme_fits_eighty_columns() -> None:
    wide = [line for line in README.splitlines() if len(line) > 80 and not line.startswith(("<img", "!["))]
    assert wide == []
