"""The page of trends: what it says, that it is safe with anybody's words, and how it opens in a real browser."""

import os
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urljoin, urlparse

import pytest

from edgenet.errors import InputError
from edgenet.history.job import history
from edgenet.history.options import HistoryJob
from edgenet.report.formatting import NBSP
from edgenet.results import Results, Warning
from helpers.browser import needs_chromium
from helpers.chromium import opened
from helpers.html_page import Page
from helpers.past_runs import a_run, many_runs, written


def the_page(tmp_path: Path, *runs: Results, folder: str = "page", **asked: object) -> Path:
    outs = [str(written(tmp_path / f"run-{n}", r)) for n, r in enumerate(runs)]
    done = history(tmp_path / "runs.db", HistoryJob(add=tuple(outs), page=tmp_path / folder, **asked))
    assert done.page is not None
    return done.page


def shown(page: Path) -> Page:
    return Page(page.read_text(encoding="utf-8").replace("<input", "<br").replace("checked>", ">"))


def test_the_page_says_what_got_worse_when_and_by_how_much(tmp_path) -> None:
    text = shown(the_page(tmp_path, a_run(0), a_run(1, slower=1.2), a_run(2, slower=1.2, larger=200_000))).visible
    assert "efficientnet-lite0_int8: size got worse in the newest run" in text
    assert "3 runs from 2026-05-01 to 2026-05-03, 1 model, 5 files." in text
    assert re.search(r"efficientnet-lite0_int8 \| 2 \| 2026-05-02 05:02 \| latency \| 9\.\d+ ms \| 11\.\d ms \| ", text)
    assert re.search(r"efficientnet-lite0_int8 \| 3 \| 2026-05-03 05:02 \| size \| 5\.3 MB \| 5\.5 MB \| 3\.8 %", text)


def test_a_page_without_anything_worse_says_only_what_the_data_can(tmp_path) -> None:
    text = shown(the_page(tmp_path, a_run(0), a_run(1))).visible
    assert "Nothing got worse in the newest runs, as far as the data can tell" in text
    assert "Small steps that each lie within their interval are not marked." in text


def test_a_page_of_one_run_does_not_say_that_nothing_got_worse(tmp_path) -> None:
    text = shown(the_page(tmp_path, a_run(0))).visible
    assert "The first run of each file: there is none before to compare it with" in text
    assert "got worse" not in text.split("Trends")[0].replace("what edgenet compare calls worse", "")


def test_the_page_says_what_cannot_be_compared_and_why(tmp_path) -> None:
    busy = a_run(1)
    busy.measurements = [replace(m, warnings=(Warning("busy", "other programs ran"),)) for m in busy.measurements]
    text = shown(the_page(tmp_path, a_run(0), busy)).visible
    assert "Nothing is known to be worse in the newest runs; 5 figures cannot be compared" in text
    assert "Run 2: efficientnet-lite0_int8: latency: efficientnet-lite0_int8: other programs ran" in text


def test_each_trend_has_its_newest_value_and_a_drawing_with_a_text(tmp_path) -> None:
    page = shown(the_page(tmp_path, a_run(0), a_run(1)))
    drawings = [str(a["aria-label"]).replace(NBSP, " ") for tag, a in page.tags if tag == "svg"]
    assert len(drawings) == 5 * 3
    (said,) = (d for d in drawings if d.startswith("Latency of efficientnet-lite0_int8 in ms, 2 runs: "))
    assert re.search(r"2 runs: 9\.\d\d ms in the first, 9\.\d\d ms in the last$", said)


def test_links_lead_from_the_page_to_each_report_that_is_there(tmp_path) -> None:
    odd = written(tmp_path / "a:b?#%41 ü", a_run(0))
    gone = written(tmp_path / "gone", a_run(1), report=None)
    page = the_page(tmp_path, a_run(2), folder="deep/er", max_growth="5%")
    history(tmp_path / "runs.db", HistoryJob(add=(str(odd), str(gone)), page=page.parent))
    links = [a["href"] for tag, a in shown(page).tags if tag == "a" and "report.html" in (a["href"] or "")]
    assert len(links) == 2
    for href in links:
        assert not urlparse(href).scheme
        assert Path(unquote(urlparse(urljoin(page.as_uri(), href)).path)).is_file()
    assert "no report.html in its folder" in shown(page).visible


def test_a_link_from_a_page_above_the_runs_is_no_address_elsewhere(tmp_path) -> None:
    written(tmp_path / "javascript:alert(1)", a_run(0))
    out = tmp_path / "javascript:alert(1)"
    page = history(tmp_path / "runs.db", HistoryJob(add=(str(out),), page=tmp_path)).page
    assert page is not None
    (href,) = [a["href"] for tag, a in shown(page).tags if tag == "a" and "report" in (a["href"] or "")]
    assert href == "./javascript%3Aalert%281%29/report.html"


def test_a_run_whose_folder_a_later_one_filled_has_no_link(tmp_path) -> None:
    page = the_page(tmp_path, a_run(0))
    (tmp_path / "run-0/results.json").unlink()
    (tmp_path / "run-0/report.html").unlink()
    (tmp_path / "run-0").rmdir()
    page = the_page(tmp_path, a_run(1))
    assert "a later run filled its folder" in shown(page).visible


def test_whatever_a_run_says_is_text_on_the_page(tmp_path) -> None:
    evil = "</title><script>alert(1)</script><img src=x onerror=alert(1)>\"'&"
    runs = []
    for n in (0, 1):
        run = a_run(n, host=evil, slower=1.0 + n)
        run.artifacts = [replace(a, id=f"{evil}{a.id}", model=evil) for a in run.artifacts]
        run.evaluations = [replace(e, artifact=f"{evil}{e.artifact}", emulated=evil) for e in run.evaluations]
        run.measurements = [
            replace(m, artifact=f"{evil}{m.artifact}", device=f"adb:{evil}", delegate=evil) for m in run.measurements
        ]
        run.context = replace(run.context, edgenet_version=evil)
        runs.append(run)
    page = the_page(tmp_path, *runs)
    tags = {tag for tag, _ in shown(page).tags}
    assert not tags & {"script", "img", "iframe", "link", "object", "embed"}
    source = page.read_text(encoding="utf-8")
    assert "alert(1)" in source
    assert not re.search(r"<(script|img)\b", source)


def test_nothing_is_loaded_from_elsewhere(tmp_path) -> None:
    page = the_page(tmp_path, a_run(0), a_run(1))
    source = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in source
    assert not re.search(r"https?://|url\(|@import|<script", source)


def test_a_page_of_somebody_elses_is_never_replaced(tmp_path) -> None:
    (tmp_path / "site").mkdir()
    theirs = tmp_path / "site/index.html"
    theirs.write_text("<h1>my own</h1>")
    with pytest.raises(InputError, match=r"index\.html is there already, and edgenet did not make it"):
        the_page(tmp_path, a_run(0), folder="site")
    assert theirs.read_text() == "<h1>my own</h1>"
    theirs.unlink()
    first = the_page(tmp_path, folder="site")
    assert the_page(tmp_path, folder="site") == first  # one's own is


def test_the_page_folder_is_made_and_a_file_in_its_place_is_a_line(tmp_path) -> None:
    (tmp_path / "page").write_text("x")
    with pytest.raises(InputError, match=r"--page .*page is a file: give a folder"):
        the_page(tmp_path, a_run(0))


# ------------------------------------------------------------------------------------------------------------- Chromium


@pytest.fixture(scope="module")
def page_of_200(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    outs = tuple(str(out) for out in many_runs(root, 200))
    page = history(root / "runs.db", HistoryJob(add=outs, page=root / "page")).page
    assert page is not None
    return page


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("width_px", [390, 1280])
def test_a_page_of_200_runs_opens_whole_without_a_complaint_in_under_a_second_of_work(
    width_px, page_of_200, tmp_path
) -> None:
    # Work, as a busy machine takes any time; the work of starting the page's process is in it.
    found = min((opened(page_of_200, width_px, tmp_path / f"{n}") for n in range(2)), key=lambda o: o.cpu_s)
    assert found.cpu_s < 1.0
    assert found.complaints == ()
    assert found.outside == ()
    assert found.scroll_width_px <= found.width_px == width_px


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("width_px", [390, 1280])
def test_a_page_of_200_runs_opens_in_under_a_second_on_a_machine_at_rest(width_px, page_of_200, tmp_path) -> None:
    if os.getloadavg()[0] > (os.cpu_count() or 1) / 2:
        pytest.skip(f"the machine is busy (load {os.getloadavg()[0]:.1f}): a time would say nothing")
    assert min(opened(page_of_200, width_px, tmp_path / f"{n}").load_ms for n in range(3)) < 1000


_CHOSEN = """(() => {
  const seen = s => [...document.querySelectorAll(s)].filter(e => e.checkVisibility()).length;
  const all = seen(".trend");
  document.querySelector("#show-a-latency").click();
  const one = [seen(".trend.a-latency"), seen(".trend")];
  return all === 15 && one[0] === 5 && one[1] === 5;
})()"""


@needs_chromium
@pytest.mark.slow
def test_a_click_shows_one_kind_of_figure_without_a_script_of_the_page(tmp_path) -> None:
    page = the_page(tmp_path, a_run(0), a_run(1))
    assert opened(page, 1280, tmp_path / "profile", evaluate=_CHOSEN).complaints == ()
