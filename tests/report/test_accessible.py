"""Every page that edgenet writes can be read by everybody: axe-core finds no fault, light and dark."""

from pathlib import Path

import pytest
from paper import test_page as paper_page
from paper import test_transfer as paper_transfer
from report import test_devices, test_golden, test_kinds

from edgenet.history.job import history
from edgenet.history.options import HistoryJob
from edgenet.paper.page import write_pages
from edgenet.report import write_report
from edgenet.results import Results
from helpers.axe import AXE, Fault, faults, needs_axe
from helpers.hand_built import NAMES
from helpers.past_runs import a_run, written
from helpers.places import ROOT

# The templates of whole pages, each with what is opened below.
PAGES = {
    "edgenet/report/templates/report.html",
    "edgenet/paper/templates/paper.html",
    "edgenet/history/templates/history.html",
}
WIDTHS_PX = (390, 1280)


def test_every_page_that_edgenet_writes_is_looked_at() -> None:
    templates = [p for p in (ROOT / "edgenet").rglob("*.html") if "<html" in p.read_text(encoding="utf-8")]
    assert [p.name for p in templates] == ["page.html"], "a page of its own: open it below"
    extending = [p for p in (ROOT / "edgenet").rglob("*.html") if '"page.html"' in p.read_text(encoding="utf-8")]
    assert {p.relative_to(ROOT).as_posix() for p in extending} == PAGES


def all_pages(root: Path) -> dict[str, Path]:
    """Write a page of each kind, hand-built, with everything that one can show."""
    runs = {name: make() for name, make in test_golden.PAGES.items()}
    runs |= {task: test_kinds.of(task) for task in test_kinds.MEASURES}
    runs["devices"] = test_devices.on_a_chip()[0]
    found = {}
    for name, results in runs.items():
        (root / name).mkdir()
        found[name] = write_report(results, root / name, NAMES)
    for name, make in {"paper": paper_page.some_results, "table 5": paper_transfer.some_results}.items():
        results: Results = make()
        (root / name).mkdir()
        results.save(root / name)
        write_pages(Results.load(root / name), root / name)
        found[name] = root / name / "paper.html"
    past = [a_run(0), a_run(1, slower=1.2), a_run(2, slower=1.2, larger=200_000)]
    outs = tuple(str(written(root / f"run-{n}", run)) for n, run in enumerate(past))
    page = history(root / "runs.db", HistoryJob(add=outs, page=root / "trends")).page
    assert page is not None
    return {**found, "history": page}


@needs_axe
@pytest.mark.slow
def test_axe_core_finds_no_fault_on_any_page_and_the_console_says_nothing(tmp_path: Path) -> None:
    pages = all_pages(tmp_path)
    found, complaints = faults(pages, WIDTHS_PX, tmp_path / "profile")
    assert [str(f) for f in found] == []
    assert {name: said for name, said in complaints.items() if said} == {}


@needs_axe
@pytest.mark.slow
def test_a_page_with_faults_is_not_called_good(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        '<!doctype html><html><title>x</title><p style="color:#999">grey<img src="x.png"><h5>far</h5></html>'
    )
    found, complaints = faults({"bad": page}, (390,), tmp_path / "profile")
    assert {"image-alt", "color-contrast", "html-has-lang"} <= {f.rule for f in found}
    assert all(isinstance(f, Fault) and f.selector for f in found)
    assert any("x.png" in said for said in complaints["bad"])
    assert AXE.is_file()
