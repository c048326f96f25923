"""The comparison's page: its numbers are those of results.json, each says where it comes from, nothing is loaded."""

import csv
import dataclasses
import io
import json
import re
import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet.device_bench.comparison import compare
from edgenet.errors import InputError
from edgenet.paper import published
from edgenet.paper.networks import scaled_counts
from edgenet.paper.page import doubt, headline, write_pages
from edgenet.paper.plan import LADDER, RUNTIMES, file_id, paper_of
from edgenet.paper.tables import speedups, tables
from edgenet.results import Artifact, Evaluation, Failure, Measurement, Results, Warning
from edgenet.results.plain import read
from edgenet.results.records import Context
from helpers.browser import layout, needs_chromium
from helpers.golden import assert_golden
from helpers.html_page import Page

PHONE = "adb:<b>&"


def timed(id: str, device: str, runtime: str, threads: int, ms: float, seed: int = 0) -> Measurement:
    noise = np.random.default_rng([seed, len(id), int(ms * 10)]).standard_normal(20)
    samples = tuple(int(v) for v in ms * 1e6 * (1 + 0.02 * noise))
    return Measurement(id, device, runtime, threads, samples, tuple(i // 2 for i in range(20)))


def some_results() -> Results:
    """A whole run as results.json has it: GPipe's network in OpenVINO only, two devices, accuracy of Lite0."""
    counts = {"resnet-152": (60_192_808, 11_300_000_000), "efficientnet-b1": (7_794_184, 690_000_000),
              "efficientnet-b0": (5_288_548, 386_000_000)}  # fmt: skip
    for table in ("3", "7"):
        counts |= {k: (c.parameters, c.multiply_adds) for k, c in scaled_counts(table).items()}
    paper = {
        "tables": ["2", "3", "4", "5", "7", "lite", "ladder"], "quick": False, "images": "f" * 64,
        "counts": {n: {"parameters": p, "multiply_adds": m} for n, (p, m) in counts.items()},
    }  # fmt: skip
    about = {"paper": paper, "cpu_model": "A CPU", "created": "2026-11-24T12:00:00", "isa": ["avx2"]}
    results = Results(read(Context, about))
    for runtime, format in RUNTIMES.items():
        for name, ms in (("resnet-152", 300.0), ("efficientnet-b1", 60.0 if runtime == "onnxruntime" else 40.0)):
            results.put(timed(file_id(name, format, "float32", "table4"), "local", runtime, 1, ms))
    for name, ms in (("amoebanet-b", 9000.0), ("efficientnet-b7", 1200.0)):
        results.put(timed(file_id(name, "openvino", "float32", "table4"), "local", "openvino", 1, ms))
    results.put(Failure("fit", "table4/amoebanet-b_float32.tflite", why="its weights are 2.2 GB", remedy="another"))
    for i, name in enumerate(LADDER):
        for precision, factor in (("float32", 1.0), ("int8", 0.6)):
            id = file_id(name, "tflite", precision)
            for device, threads in (("local", 1), ("local", 2), (PHONE, 1)):
                results.put(timed(id, device, "litert", threads, 20 * 1.4**i * factor / threads))
            results.put(Artifact(id, name, "tflite", precision, f"files/{id}", 5_000_000, "0" * 64, "float32"))
    lite0 = file_id("efficientnet-lite0", "tflite", "int8")
    results.put(Evaluation(lite0, "f" * 64, 500, 500, 0.874, (0.84, 0.9), 0.97, None, "litert"))
    return results


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("paper")
    results = some_results()
    results.save(out)
    write_pages(Results.load(out), out)
    return out


def figures(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((out / "paper.csv").read_text())))


def measurement(out: Path, artifact: str, runtime: str, device: str = "local", threads: int = 1) -> dict[str, Any]:
    found = json.loads((out / "results.json").read_text())["measurements"]
    key = (artifact, runtime, device, threads)
    return next(m for m in found if (m["artifact"], m["runtime"], m["device"], m["threads"]) == key)


def test_the_numbers_of_table_4_are_those_of_the_results_file(written: Path) -> None:
    names = {"ResNet-152": "resnet-152", "EfficientNet-B1": "efficientnet-b1", "GPipe": "amoebanet-b",
             "EfficientNet-B7": "efficientnet-b7"}  # fmt: skip
    runtimes = {"TensorFlow": "tensorflow", "TFLite": "litert", "OpenVINO": "openvino", "onnxruntime": "onnxruntime"}
    checked = 0
    for f in figures(written):
        if f["table"] == "table4" and f["kind"] == "measured" and f["column"] in ("Median", "Mean of 20 runs", "Runs"):
            name, runtime = f["row"].split(" · ")
            id = file_id(names[name], RUNTIMES[runtimes[runtime]], "float32", "table4")
            m = measurement(written, id, runtimes[runtime])
            mean = statistics.fmean(m["samples_ms"])
            want = {"Median": m["median_ms"], "Mean of 20 runs": mean, "Runs": m["n_runs"]}[f["column"]]
            assert float(f["value"]) == pytest.approx(want, rel=1e-9)
            checked += 1
    assert checked == 3 * 10


def test_the_numbers_of_the_ladder_are_those_of_the_results_file(written: Path) -> None:
    ladder = [f for f in figures(written) if f["table"] == "ladder" and " on " in f["column"] and f["value"]]
    timed_ = [f for f in ladder if not f["column"].startswith("INT8 faster")]
    assert len(timed_) == len(LADDER) * 4
    for f in timed_:
        precision, device = f["column"].split(" on ")
        id = file_id(f["row"].lower(), "tflite", precision.lower())
        assert float(f["value"]) == measurement(written, id, "litert", device)["median_ms"]
        assert f["kind"] == "measured"


def test_a_speedup_is_the_ratio_round_by_round_with_its_interval() -> None:
    results = some_results()
    found = {(s.network, s.runtime): s for s in speedups(results)}
    assert set(found) == {("efficientnet-b1", r) for r in RUNTIMES} | {("efficientnet-b7", "openvino")}
    s = found["efficientnet-b1", "litert"]
    a, b = s.rival_measurement, s.network_measurement
    assert s.comparison == compare(a, b)
    assert s.interval[0] < s.ratio < s.interval[1]


def test_the_headline_has_both_speedups_beside_the_paper_s() -> None:
    said = headline(some_results())
    found = re.search(
        r"EfficientNet-B1 is (\S+)× to (\S+)× as fast as ResNet-152 in 4 runtimes \(the paper: 5\.7×\)", said
    )
    assert found
    ratios = [s.ratio for s in speedups(some_results()) if s.network == "efficientnet-b1"]
    assert [float(n) for n in found.groups()] == pytest.approx([min(ratios), max(ratios)], abs=0.05)
    assert re.search(r"EfficientNet-B7 is 7\.\d\d× as fast as GPipe in OpenVINO \(the paper: 6\.1×\)", said)


def test_where_a_runtime_gives_less_than_the_paper_the_page_says_why(written: Path) -> None:
    text = (written / "paper.md").read_text()
    assert "EfficientNet-B1 in onnxruntime" in text
    assert "less than the paper's 5.7×" in text
    assert "EfficientNet-B1 in TFLite:" not in text


def test_quoted_figures_are_the_published_ones_and_nothing_quoted_is_called_measured(written: Path) -> None:
    printed = {r["model"]: r for r in published.printed("2")}
    quoted = [f for f in figures(written) if f["table"] == "table2" and f["kind"] == "quoted"]
    columns = {"Top-1": "top1_percent", "Parameters, paper": "params_millions", "FLOPS, paper": "flops_billions"}
    assert {f["column"] for f in quoted} == set(columns)
    for f in quoted:
        assert f["text"].split()[0] == printed[f["row"].split(" · ")[0]][columns[f["column"]]]
    five = [f for f in figures(written) if f["table"] == "table5" and f["value"]]
    assert {f["kind"] for f in five} == {"quoted"}
    numbers = [v for r in published.printed("5") for k, v in r.items() if v and re.search(r"percent|millions", k)]
    assert sorted(f["text"].split()[0] for f in five) == sorted(numbers)


def test_every_figure_says_where_it_comes_from(written: Path) -> None:
    for f in figures(written):
        assert (f["kind"] != "") == (f["value"] != ""), f


def test_computed_figures_are_those_of_the_results_file(written: Path) -> None:
    known = json.loads((written / "results.json").read_text())["context"]["paper"]["counts"]
    for row, name in (("ResNet-152", "resnet-152"), ("EfficientNet-B0", "efficientnet-b0")):
        found = {f["column"]: f for f in figures(written) if f["table"] == "table2" and f["row"] == row}
        assert float(found["Parameters"]["value"]) == known[name]["parameters"] / 1e6
        assert float(found["Multiply-adds"]["value"]) == known[name]["multiply_adds"] / 1e9
        assert found["Multiply-adds"]["kind"] == "computed"


def test_what_does_not_fit_is_a_row_that_says_so(written: Path) -> None:
    found = next(f for f in figures(written) if f["table"] == "table4" and f["row"] == "GPipe · TFLite")
    assert (found["text"], found["note"]) == ("does not fit", "its weights are 2.2 GB")
    assert "its weights are 2.2 GB" in (written / "paper.html").read_text()


def test_page_markdown_and_csv_say_the_same(written: Path) -> None:
    page, markdown = Page((written / "paper.html").read_text()), (written / "paper.md").read_text()
    cells = [cell for table in page.tables for row in table[1:] for cell in row[1:]]
    said = figures(written)
    assert len(cells) == len(said)
    for cell, f in zip(cells, said, strict=True):
        assert cell.startswith(f["text"])
        assert f["kind"] in cell
    assert all(f["text"] in markdown for f in said)


def test_the_page_reads_as_the_golden_one(written: Path) -> None:
    shown = Page((written / "paper.html").read_text(encoding="utf-8")).visible
    assert_golden(shown, Path(__file__).with_name("golden") / "paper.txt")


def test_the_page_loads_nothing_and_a_device_s_name_is_text(written: Path) -> None:
    source = (written / "paper.html").read_text()
    tags = Page(source).tags
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in tags}
    assert "default-src 'none'" in source
    assert PHONE not in source
    assert PHONE in (written / "paper.md").read_text()


def test_figures_1_and_5_and_a_plot_for_each_device_are_drawn(written: Path) -> None:
    source = (written / "paper.html").read_text()
    for caption in ("Figure 1 of the paper", "Figure 5 of the paper", "measured on local", "measured on adb:"):
        assert caption in source
    assert source.count('class="whisker"') == 2 * 5  # an interval on each bar, drawn for a desk and for a phone


def test_only_the_tables_that_were_asked_for_are_on_the_page() -> None:
    results = some_results()
    paper = dataclasses.replace(paper_of(results), tables=("4",))
    results.context = dataclasses.replace(results.context, paper=paper)
    assert [t.id for t in tables(results)] == ["table4", "not-reproduced"]


def test_other_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="edgenet paper"):
        write_pages(Results(), tmp_path)


@needs_chromium
@pytest.mark.parametrize("width_px", [390, 1280])
def test_the_page_does_not_scroll_sideways_in_a_browser(width_px: int, written: Path, tmp_path: Path) -> None:
    shutil.copy(written / "paper.html", tmp_path)
    found = layout(tmp_path / "paper.html", width_px)
    assert found.scroll_width_px <= found.width_px == width_px
    assert found.sticking_out == 0
    assert (found.wide_plots > 0, found.narrow_plots > 0) == (width_px == 1280, width_px == 390)


def test_measurements_with_a_warning_are_said_on_top(tmp_path: Path) -> None:
    results = some_results()
    assert doubt(results) == ""
    results.put(
        dataclasses.replace(
            results.measurements[0], warnings=(Warning("noisy", "noisy: <x>"), Warning("cannot-tell", "from y"))
        )
    )
    write_pages(results, tmp_path)
    assert f"1 of {len(results.measurements)} measurements have a warning (noisy: <x>" in doubt(results)
    page = (tmp_path / "paper.html").read_text()
    assert page.index("have a warning (noisy: &lt;x&gt;") < page.index("<section")
    assert "have a warning" in (tmp_path / "paper.md").read_text()
