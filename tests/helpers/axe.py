"""axe-core, which finds what keeps people from reading a page, in a real Chromium. https://github.com/dequelabs/axe-core

.ci/run and `make axe` install it from npm into build/node; it is no part of the project.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.browser import CHROMIUM
from helpers.chromium import chromium, complaints_of, go, tab
from helpers.places import ROOT

AXE = ROOT / "build" / "node" / "node_modules" / "axe-core" / "axe.min.js"
needs_axe = pytest.mark.skipif(
    CHROMIUM is None or not AXE.is_file(),
    reason="needs chromium, and axe-core: make axe (apt-get install chromium npm)",
)
SCHEMES = ("light", "dark")
# What is folded away is opened first: a reader may do that too.
_RUN = """(async () => {
  document.querySelectorAll("details").forEach(d => d.open = true);
  const found = await axe.run(document, {resultTypes: ["violations"]});
  return found.violations.flatMap(v => v.nodes.map(n => [v.impact, v.id, n.target.join(" "), n.failureSummary]));
})()"""


@dataclass(frozen=True)
class Fault:
    """What axe-core found. `impact`: minor | moderate | serious | critical."""

    page: str
    width_px: int
    scheme: str
    impact: str
    rule: str
    selector: str
    says: str

    def __str__(self) -> str:
        said = " ".join(self.says.split())[:200]
        return f"{self.page} at {self.width_px} px, {self.scheme}: {self.impact} {self.rule} at {self.selector}: {said}"


def faults(
    pages: dict[str, Path], widths_px: Sequence[int], profile: Path
) -> tuple[list[Fault], dict[str, tuple[str, ...]]]:
    """Return what axe-core finds on each page, light and dark, and what the console said of each."""
    source = AXE.read_text(encoding="utf-8")
    found: list[Fault] = []
    complaints: dict[str, tuple[str, ...]] = {}
    with chromium(profile) as pipe:
        session = tab(pipe)
        for name, page in pages.items():
            for width_px in widths_px:
                for scheme in SCHEMES:
                    feature = {"name": "prefers-color-scheme", "value": scheme}
                    pipe.call("Emulation.setEmulatedMedia", session, features=[feature])
                    go(pipe, session, page, width_px)
                    # The page forbids scripts; those of the protocol run all the same.
                    loaded = pipe.call("Runtime.evaluate", session, expression=f"{source}\n;typeof axe")
                    assert loaded["result"].get("value") == "object", loaded
                    said = pipe.call(
                        "Runtime.evaluate", session, expression=_RUN, awaitPromise=True, returnByValue=True
                    )
                    assert "exceptionDetails" not in said, said
                    found += [Fault(name, width_px, scheme, *row) for row in said["result"]["value"]]
            complaints[name] = complaints_of(pipe)
            pipe.events.clear()
    return found, complaints
