"""How a page is laid out in a window of a given width, as headless Chromium has it."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

_PROBE = """<script>
function probe(frame) {
  const root = frame.contentDocument.documentElement, view = frame.contentWindow;
  const shown = (s) => [...root.querySelectorAll(s)].filter(e => view.getComputedStyle(e).display !== "none").length;
  const wide = [...root.querySelectorAll("main *")].filter(e => e.getBoundingClientRect().right > view.innerWidth + 1
    && !e.closest(".scroll") && !e.closest("svg")).length;
  document.title = [root.scrollWidth, view.innerWidth, shown("svg.wide"), shown("svg.narrow"), wide,
    root.querySelector("h1").getBoundingClientRect().top < 200].join(" ");
}
</script>"""


class Layout(NamedTuple):
    """What the window shows."""

    scroll_width_px: int
    width_px: int  # of the window
    wide_plots: int
    narrow_plots: int
    sticking_out: int  # elements that reach beyond the window
    answer_on_top: bool


def layout(page: Path, width_px: int) -> Layout:
    """Return how `page` is laid out `width_px` wide. Its folder gets a profile and a frame."""
    assert CHROMIUM is not None
    # A window of headless Chromium cannot be as narrow as a phone; a frame in it can.
    frame = page.with_name("frame.html")
    frame.write_text(
        f'{_PROBE}<iframe src="{page.name}" style="border:0;width:{width_px}px;height:900px" onload="probe(this)">'
    )
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
               f"--user-data-dir={page.with_name('profile')}", "--window-size=1400,1000", "--virtual-time-budget=3000",
               "--dump-dom", frame.as_uri()]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout
    match = re.search(r"<title>(\d+) (\d+) (\d+) (\d+) (\d+) (\w+)</title>", dom)
    assert match, dom[:500]
    *numbers, on_top = match.groups()
    return Layout(*map(int, numbers), on_top == "true")
