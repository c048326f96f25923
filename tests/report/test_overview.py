"""The page: it says what the results say, loads nothing, and nothing breaks it."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgenet.errors import InputError
from edgenet.report import formatting, overview, write_report
from edgenet.report.recommendation import recommend, summary_lines
from edgenet.results import Estimate, Failure, Flip, LeftOperators, Results, Warning
from helpers.browser import layout, needs_chromium
from helpers.hand_built import FILES, NAMES, a_measurement, changed, partial_results, some_flips, some_results
from helpers.html_page import Page

NBSP = formatting.NBSP


@pytest.fixture(autouse=True)
def thumbnails(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for the decoder; a file called gone.jpg cannot be opened."""
    asked: list[str] = []

    def thumbnail(file: str, side_px: int = 96) -> bytes:
        asked.append(file)
        if file.endswith("gone.jpg"):
            raise InputError(f"cannot read {file}")
        return b"jpeg of " + file.encode()

    monkeypatch.setattr("edgenet.images.thumbnail", thumbnail)
    return asked


def page_of(results: Results, tmp_path: Path) -> Page:
    return Page(write_report(results, tmp_path, NAMES).read_text(encoding="utf-8"))


def test_the_page_opens_with_the_answer(tmp_path: Path) -> None:
    page = page_of(some_results(), tmp_path)
    heading = [i for i, (tag, _) in enumerate(page.tags) if tag in ("h1", "h2", "h3")]
    assert page.tags[heading[0]][0] == "h1"
    assert "Ship efficientnet-lite0_int8.tflite" in page.texts
    assert "5.3 MB of 18.6 MB" in page.text
    assert "0.4 points lost" in page.text
    m = next(m for m in some_results().measurements if m.artifact.endswith("_int8"))
    assert f"{m.median_ms:.2f} ms of 13.1 ms" in page.text


@pytest.mark.parametrize("precision", [f[0] for f in FILES])
def test_the_table_says_what_the_results_say(precision: str, tmp_path: Path) -> None:
    results = some_results()
    page = page_of(results, tmp_path)
    name = f"efficientnet-lite0_{precision}.tflite"
    a = results.artifact(f"efficientnet-lite0_{precision}")
    (e,) = [e for e in results.evaluations if e.artifact == a.id]
    (m,) = [m for m in results.measurements if m.artifact == a.id]
    assert e.top1 is not None
    assert page.cell(name, "Size") == f"{a.size_bytes / 1e6:.1f} MB"
    assert page.cell(name, "Top-1").startswith(f"{e.top1 * 100:.1f} %")
    assert page.cell(name, "Top-5") == "97.6 % 95.8 to 98.7"
    assert page.cell(name, "Median") == formatting.milliseconds(m.median_ms).replace(NBSP, " ")
    tail = f"{formatting.milliseconds(m.p90_ms)} {formatting.milliseconds(m.p95_ms)}".replace(NBSP, " ")
    assert page.cell(name, "p90, p95") == tail
    assert page.cell(name, "Load, memory") == "31.4 ms 88.0 MB"
    assert page.cell(name, "Runtime") == "litert 2.3.0"
    assert f"tflite · {precision} · float32 in and out" in page.cell(name, "File")
    if precision == "int8":
        assert page.cell(name, "Points lost") == "0.4 −0.5 to 1.3"
        assert page.cell(name, "Agreement") == "98.4 % 97.0 to 99.3"
        assert page.cell(name, "Fixed / broken") == "3 / 5 p = 0.73"
        assert page.cell(name, "SQNR") == "20.4 dB"
        assert page.cell(name, "Speed-up").startswith("1.34×")
    if precision == "float32":
        missing = {page.cell(name, c) for c in ("Points lost", "Agreement", "Fixed / broken", "SQNR", "Speed-up")}
        assert missing == {"—"}


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
    assert "p/x?y.jpg" in page_of(results, tmp_path).text


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


def test_no_value_that_is_not_a_number_is_printed(tmp_path: Path) -> None:
    results = changed(some_results(), "int8", "evaluations", sqnr_db=float("inf"), mcnemar_p=float("nan"), top5=None,
                      top5_ci95=None, agreement_ci95=None, top1_ci95=None, top1_drop_ci95=None)  # fmt: skip
    page = page_of(results, tmp_path)
    assert not re.search(r"\b([nN]a[nN]|inf|None(?! of the))\b", page.text)
    assert page.cell("efficientnet-lite0_int8", "SQNR") == "—"
    assert page.cell("efficientnet-lite0_int8", "Top-5") == "—"


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


def test_the_worst_pictures_come_first_and_no_more_than_24(tmp_path: Path, thumbnails: list[str]) -> None:
    results = some_results()
    page = page_of(results, tmp_path)
    chips = [t for t in page.texts if t in ("broken", "fixed", "changed", "both wrong")]
    assert chips[:8] == ["broken"] * 2 + ["changed"] * 2 + ["both wrong"] * 2 + ["fixed"] * 2
    assert len(chips) == 24
    assert sum(tag == "img" for tag, _ in page.tags) == 24
    assert len(thumbnails) == len(set(thumbnails)), "a picture that flips in two files is decoded once"
    assert "name of 5" in page.text
    assert "the worst 15 of 60" in page.text


def test_a_class_without_a_name_is_shown_by_its_number(tmp_path: Path) -> None:
    page = Page(write_report(some_results(), tmp_path).read_text(encoding="utf-8"))
    assert "class 5" in page.text


def test_a_picture_that_is_gone_leaves_a_box(tmp_path: Path) -> None:
    flips = (Flip("/p/gone.jpg", 1, 1, 2, 0.6, 0.5),)
    results = some_results()
    for precision, *_ in FILES:
        changed(results, precision, "evaluations", flips=flips if precision == "int8" else ())
    page = page_of(results, tmp_path)
    assert "picture not found" in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]


def test_the_folder_of_a_picture_is_shown_but_not_the_whole_path(tmp_path: Path) -> None:
    results = changed(some_results(), "int8", "evaluations", flips=some_flips(1, "/srv/somebody/private"))
    source = write_report(results, tmp_path, NAMES).read_text(encoding="utf-8")
    assert "n00000000/photo_0.jpg" in source
    assert "somebody" not in source


def test_the_page_says_how_the_numbers_were_made(tmp_path: Path) -> None:
    results = some_results()
    page = page_of(
        changed(results, "int8", "measurements", warnings=(Warning("busy", "the machine was busy"),)), tmp_path
    )
    for fact in ("edgenet run efficientnet-lite0 --images '../my photos' --out out", "build-7", "Intel Xeon, 2 cores",
                 "avx2 fma", "numpy 2.4.6", "f" * 64, "c" * 64, results.artifacts[3].sha256, "resolution_px 224",
                 "the machine was busy"):  # fmt: skip
        assert fact in page.text


def test_other_devices_stand_in_a_table_of_their_own(tmp_path: Path) -> None:
    results = some_results()
    results.put(a_measurement(results.artifact("efficientnet-lite0_int8"), 3.0, device="adb:PIXEL", threads=4))
    page = page_of(results, tmp_path)
    assert page.tables[1][1][:3] == ["efficientnet-lite0_int8.tflite", "adb:PIXEL", "4"]
    assert "adb:PIXEL" not in " ".join(" ".join(r) for r in page.tables[0])


def over_time(results: Results, **fields: Any) -> Results:
    """The same with times of the rounds, so that a curve can be drawn."""
    timed = [replace(m, round_s=tuple(1.5 * r for r in sorted(set(m.rounds))), **fields) for m in results.measurements]
    return replace(results, measurements=timed)


def test_the_pace_over_time_is_drawn_with_clock_temperature_and_the_noise_floor(tmp_path: Path) -> None:
    results = over_time(some_results(), round_celsius=(48.0, 55.0), round_mhz=(1800.0, 2400.0), self_ratio=1.004,
                        self_ratio_ci98=(0.991, 1.012))  # fmt: skip
    page = page_of(results, tmp_path)
    assert "Latency over time" in page.text
    assert "Clock 1800 to 2400 MHz. Temperature 48 to 55 °C." in page.text
    assert "took 1.004 times its own time (98 % interval 0.991 to 1.012)" in page.text
    lines = [attrs for tag, attrs in page.tags if tag == "g" and str(attrs.get("class")).startswith("pace")]
    assert len(lines) == 2 * len(results.measurements)  # for a desk and for a phone
    assert "Latency over time" not in page_of(some_results(), tmp_path).text  # results of an earlier version


def test_a_file_that_slows_down_without_a_pause_is_named_below_its_curve(tmp_path: Path) -> None:
    results = over_time(some_results(), sustained_s=60.0)
    hot, *rest = results.measurements
    n = len(hot.samples_ns)
    samples = tuple(10_000_000 if i < n // 2 else 14_000_000 for i in range(n))
    page = page_of(replace(results, measurements=[replace(hot, samples_ns=samples), *rest]), tmp_path)
    assert re.search(r"Without a pause, slower in the end: \S+ by 40 % after \d+ s", page.text)


def test_runs_that_were_set_aside_are_kept_left_out_of_the_dots_and_drawn_over_time(tmp_path: Path) -> None:
    results = over_time(some_results())
    shared, *rest = results.measurements
    late = max(shared.rounds) + 1
    shared = replace(shared, pace_ns=(20_000,) * shared.n_runs, round_s=(*shared.round_s, 99.0),
                     disturbed_ns=(50_000_000,) * 9, disturbed_rounds=(late,) * 9,
                     disturbed_pace_ns=(31_000,) * 9)  # fmt: skip
    results = replace(results, measurements=[shared, *rest])
    results.save(tmp_path)
    back = Results.load(tmp_path).measurements[0]
    assert back == shared
    assert back.every_run_median_ms > back.median_ms
    page = page_of(results, tmp_path)
    assert "Runs beside which the core was shared are left out." in page.text
    assert "Every run is in it, those that were set aside too." in page.text
    assert f"{shared.n_runs} runs a file" in page.text
    assert "are left out" not in page_of(over_time(some_results()), tmp_path).text


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


def test_every_section_has_one_signature_and_may_have_nothing_to_say() -> None:
    view = overview.View(Results(), [], recommend(Results()), ())
    assert [section.__name__ for section in overview.SECTIONS if section(view)] == ["answer"]


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


def test_estimates_have_a_table_that_says_what_they_are(tmp_path: Path) -> None:
    results = some_results()
    first = results.artifacts[0]
    left = tuple(LeftOperators(kind, n, "works on <float32>") for kind, n in (("FULLY_CONNECTED", 1), ("SOFTMAX", 2)))
    e = Estimate(
        first.id, "ethos-u:ethos-u55-256", "vela 5.2.0", "compiled by Vela", 64, 61, left, 7_190_859, 5e8, 14.38,
        1_509_600, 0, 4_510_096, warnings=(Warning("left-to-cpu", "2 operators run on the CPU", 2),),
    )  # fmt: skip
    results.put(e)
    results.put(Estimate(first.id, "edgetpu", "a list", "only a static check", 63, 63))
    page = Page(write_report(results, tmp_path).read_text())
    (table,) = [t for t in page.tables if "Estimated time" in t[0]]
    full, bare = ([" ".join(cell.replace(NBSP, " ").split()) for cell in row] for row in table[1:])
    assert full == [
        first.path, "ethos-u:ethos-u55-256", "61 of 64 operators", "1.5 MB", "0.00 MB", "4.5 MB", "7,190,859",
        "14.4 ms an estimate", "vela 5.2.0",
    ]  # fmt: skip
    assert bare[2:8] == ["63 of 63 operators", "—", "—", "—", "—", "—"]
    assert "Left to the CPU, and why" in page.text
    assert "1 FULLY_CONNECTED, 2 SOFTMAX: works on <float32> 2 operators run on the CPU" in page.text
    assert "a list only a static check" in page.text
    assert "Nothing here was run" in page.text


def test_without_estimates_nothing_is_said_of_them(tmp_path: Path) -> None:
    assert "estimate" not in Page(write_report(some_results(), tmp_path).read_text()).text.lower()
