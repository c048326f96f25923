"""The README's pictures, from one real run: a recording of the terminal (run.svg), the top of its report (report.png).

    python docs/pictures/make.py

runs `edgenet run efficientnet-lite0 --images sample` in a terminal of 80 columns, keeps what it prints with the time of
each byte, and draws that; then it opens the report in headless Chromium. The sample photographs are not shown: the
top of the page has none. Waiting is shortened: no frame of the recording stands
longer than half a second, but the last one.
"""

import argparse
import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

HERE = Path(__file__).parent
COLUMNS, ROWS = 80, 46
MOST_FRAMES, FRAME_S = 48, 0.5
COLUMN_PX, ROW_PX, EDGE_PX = 8.4, 18, 16
TIMEOUT_S = 900
RUN = ("run", "efficientnet-lite0", "--images", "sample", "--out", "OUT")

Style = tuple[str, ...]  # CSS classes
Span = tuple[int, str, Style]  # column, text
Line = tuple[Span, ...]
Frame = tuple[Line, ...]

_SGR = {1: "b", 2: "d", **{30 + n: f"c{n}" for n in range(8)}, **{90 + n: f"c{n}" for n in range(8)}}
_CONTROL = re.compile(rb"\x1b\[([\d;?]*)([A-Za-z])|\x1b\].*?(?:\x07|\x1b\\)|([\r\n])", re.DOTALL)


@dataclass
class Screen:
    """As much of a terminal as a progress bar and a table need: text, colours, erasing, and the cursor up and down."""

    lines: list[list[tuple[str, Style]]] = field(default_factory=lambda: [[]])
    row: int = 0
    column: int = 0
    style: Style = ()

    def feed(self, data: bytes) -> None:
        at = 0
        for found in _CONTROL.finditer(data):
            self._write(data[at : found.start()].decode("utf-8", "replace"))
            at = found.end()
            if found[3] == b"\r":
                self.column = 0
            elif found[3] == b"\n":
                self._down(1)
            elif found[2]:
                self._obey(found[2].decode(), found[1].decode())
        self._write(data[at:].decode("utf-8", "replace"))

    def frame(self) -> Frame:
        """Return what is seen: spans of one style a line, without the blanks at the ends."""
        return tuple(_spans(line) for line in self.lines)

    def _write(self, text: str) -> None:
        for c in text:
            line = self.lines[self.row]
            line.extend([(" ", ())] * (self.column + 1 - len(line)))
            line[self.column] = (c, self.style)
            self.column += 1

    def _down(self, n: int) -> None:
        self.row += n
        self.lines.extend([] for _ in range(self.row + 1 - len(self.lines)))

    def _obey(self, command: str, numbers: str) -> None:
        n = [int(x) for x in numbers.split(";") if x.isdecimal()]
        if command == "m":
            self._paint(n or [0])
        elif command == "A":
            self.row = max(self.row - (n[0] if n else 1), 0)
        elif command == "B":
            self._down(n[0] if n else 1)
        elif command == "K":
            line = self.lines[self.row]
            self.lines[self.row] = [] if n[:1] == [2] else line[: self.column]

    def _paint(self, numbers: Sequence[int]) -> None:
        left = list(numbers)
        while left:
            n = left.pop(0)
            if n == 0:
                self.style = ()
            elif n == 38:  # of 256 colours, or of all: a bar is green as far as it is done, the rest is grey
                colour, left = (left[1:2], left[2:]) if left[:1] == [5] else (left[1:4], left[4:])
                grey = colour[0] >= 232 if len(colour) == 1 else max(colour) - min(colour) < 30
                self.style = (*self.style, "d" if grey else "c2")
            elif n in (22, 39):
                self.style = tuple(s for s in self.style if (s in ("b", "d")) == (n == 39))
            elif n in _SGR:
                self.style = (*self.style, _SGR[n])


def _spans(line: Iterable[tuple[str, Style]]) -> Line:
    spans: list[Span] = []
    for column, (c, style) in enumerate(line):
        if spans and spans[-1][2] == style:
            spans[-1] = (spans[-1][0], spans[-1][1] + c, style)
        else:
            spans.append((column, c, style))
    return tuple((column, text.rstrip(), style) for column, text, style in spans if text.strip())


def record(command: Sequence[str], folder: Path) -> list[tuple[float, bytes]]:
    """Run a command in a terminal of 80 columns; return what it printed, with the seconds since it began."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.environ |= {"TERM": "xterm-256color", "LINES": str(ROWS), "COLUMNS": str(COLUMNS), "PYTHONSAFEPATH": "1"}
        os.execv(command[0], list(command))
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    began, got = time.monotonic(), []
    while True:
        try:
            data = os.read(terminal, 1 << 16)
        except OSError:  # Linux: the other side is closed
            break
        if not data:
            break
        got.append((time.monotonic() - began, data))
        if got[-1][0] > TIMEOUT_S:
            sys.exit(f"{command[0]} is not done after {TIMEOUT_S} s")
    os.close(terminal)
    if status := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        sys.exit(f"{' '.join(command)} ended with {status}: {b''.join(d for _, d in got).decode()[-2000:]}")
    return got


def frames(recorded: Sequence[tuple[float, bytes]], typed: str) -> list[tuple[float, Frame]]:
    """Return the screens to show with the seconds for each: evenly chosen, and the last one, which stays."""
    screen, seen = Screen(), list[tuple[float, Frame]]()
    screen.feed(f"\x1b[1m$ {typed}\x1b[0m\r\n".encode())
    seen.append((0.0, screen.frame()))
    for at, data in recorded:
        screen.feed(data)
        if (frame := screen.frame()) != seen[-1][1]:
            seen.append((at, frame))
    step = max(1.0, (len(seen) - 1) / (MOST_FRAMES - 1))
    kept = [seen[round(i * step)] for i in range(int((len(seen) - 1) / step) + 1)]
    kept = kept if kept[-1] == seen[-1] else [*kept[: MOST_FRAMES - 1], seen[-1]]
    return [
        (min(then - at, FRAME_S), frame)
        for (at, frame), then in zip(kept, [*(t for t, _ in kept[1:]), kept[-1][0]], strict=True)
    ]


def svg(shown: Sequence[tuple[float, Frame]], title: str) -> str:
    """Return the recording as a picture that plays once; where motion is unwanted it is the last frame."""
    rows = max(len(frame) for _, frame in shown)
    width, height = COLUMNS * COLUMN_PX + 2 * EDGE_PX, rows * ROW_PX + 2 * EDGE_PX
    numbers: dict[Line, int] = {}
    for _, frame in shown:
        for line in frame:
            if line:
                numbers.setdefault(line, len(numbers))
    total, at, steps = sum(s for s, _ in shown), 0.0, list[str]()
    for i, (seconds, _) in enumerate(shown):
        steps.append(f"{100 * at / total:.2f}%{{transform:translateY({-i * height}px)}}")
        at += seconds
    last = f"transform:translateY({-(len(shown) - 1) * height}px)"
    defs = "".join(f'<g id="l{n}">{"".join(map(_text, line))}</g>' for line, n in numbers.items())
    drawn = "".join(
        f'<use href="#l{numbers[line]}" y="{i * height + EDGE_PX + r * ROW_PX}"/>'
        for i, (_, frame) in enumerate(shown)
        for r, line in enumerate(frame)
        if line
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img">
<title>{escape(title)}</title>
<style>
text{{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#d7dbe0;white-space:pre}}
.b{{font-weight:700;fill:#fff}}.d{{fill:#6d7680}}.c1{{fill:#ff8f85}}.c2{{fill:#5cc8b0}}.c3{{fill:#f3cf85}}
.c4{{fill:#7aa8ff}}.c5{{fill:#d69cff}}.c6{{fill:#6fd3e0}}
@keyframes play{{{"".join(steps)}100%{{{last}}}}}
#film{{animation:play {total:.1f}s step-end 1 forwards}}
@media (prefers-reduced-motion:reduce),print{{#film{{animation:none;{last}}}}}
</style>
<defs>{defs}</defs>
<rect width="100%" height="100%" rx="10" fill="#15181c"/>
<g id="film">{drawn}</g>
</svg>
"""


def _text(span: Span) -> str:
    column, text, style = span
    kind = f' class="{" ".join(style)}"' if style else ""
    x = EDGE_PX + column * COLUMN_PX
    return (
        f'<text x="{x:g}" y="14" textLength="{len(text) * COLUMN_PX:g}" lengthAdjust="spacingAndGlyphs"{kind}>'
        f"{escape(text)}</text>"
    )


def photograph(page: Path, to: Path, width_px: int = 1280, height_px: int = 750) -> None:
    """Keep the top of a page as a PNG of few colours."""
    from PIL import Image

    browser = shutil.which("chromium") or sys.exit("chromium is missing: apt install chromium")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        subprocess.run(
            [browser, "--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={folder}/profile",
             f"--screenshot={shot}", f"--window-size={width_px},{height_px}", page.as_uri()],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        with Image.open(shot) as picture:
            picture.convert("RGB").quantize(64).save(to, optimize=True)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--edgenet", default=str(Path(sys.executable).with_name("edgenet")), help="the program")
    program = asked.parse_args().edgenet
    with tempfile.TemporaryDirectory() as folder:
        recorded = record((program, *RUN), Path(folder))
        typed = " ".join(("edgenet", *RUN))
        (HERE / "run.svg").write_text(svg(frames(recorded, typed), typed), encoding="utf-8")
        photograph(Path(folder) / "OUT" / "report.html", HERE / "report.png")
    for name in ("run.svg", "report.png"):
        print(f"{name}: {(HERE / name).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
