"""Table 5: what was measured stands beside what was printed, and what was not is said to be missing."""

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgenet.calibration import Recipe
from edgenet.errors import InputError
from edgenet.jobs import paper, paper_transfer
from edgenet.jobs.file_factory import FileFactory, Interface
from edgenet.models import zoo
from edgenet.options import PaperJob
from edgenet.paper import published
from edgenet.paper.page import headline, write_pages
from edgenet.paper.tables import tables
from edgenet.results import Artifact, Evaluation, Failure, Results
from edgenet.results.records import Context, PaperRecord, Transfer
from edgenet.targets import target
from helpers import official_layouts, tiny
from helpers.browser import layout, needs_chromium
from helpers.html_page import Page

LITE0, B0, OWN, BROKEN = (f"transfer/{i}-x.tflite" for i in range(4))


def some_results() -> Results:
    """A run with Lite0, B0 of unknown training, a network of one's own, and Lite2 that failed."""
    found = (
        Transfer(LITE0, "efficientnet-lite0", 3_501_670, 2040, 224, 1020),
        Transfer(B0, "efficientnet-b0", 4_138_210, None, 224, 1020),
        Transfer(OWN, "", 1_000_000, 100, 96, 1020),
        Transfer(BROKEN, "efficientnet-lite2", 5_000_000, 2040, 260, 1020),
    )
    paper = PaperRecord("f" * 64, tables=("5",), dataset="flowers102", transfers=found)
    results = Results(Context(paper=paper, cpu_model="A CPU", created="2026-11-24T12:00:00"))
    for t, model in zip(found, ("efficientnet-lite0-finetuned", "efficientnet_b0", "mine <b>", "x"), strict=True):
        results.put(Artifact(t.artifact, model, "tflite", "float32", f"files/{t.artifact}", 1, "0" * 64, "float32"))
    for id, n, top1, interval in (
        (LITE0, 1018, 0.896, (0.876, 0.913)), (B0, 1020, 0.889, (0.868, 0.907)), (OWN, 6149, 0.5, (0.48, 0.52)),
    ):  # fmt: skip
        results.put(Evaluation(id, "f" * 64, n, n, top1, interval, None, None, "litert"))
    results.put(Failure("evaluate", BROKEN, why="it answers NaN", remedy="train it again"))
    return results


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("paper")
    some_results().save(out)
    write_pages(Results.load(out), out)
    return out


def figures(out: Path) -> dict[tuple[str, str], dict[str, str]]:
    rows = csv.DictReader(io.StringIO((out / "paper.csv").read_text()))
    return {(r["row"], r["column"]): r for r in rows if r["table"] == "transfer"}


def test_measured_accuracies_have_intervals_and_stand_beside_the_published_ones(written: Path) -> None:
    found = figures(written)
    lite0 = found["efficientnet-lite0 · float32", "Top-1"]
    assert (lite0["kind"], lite0["text"], lite0["note"]) == ("measured", "89.6 %", "87.6 to 91.3, 1018 pictures")
    flowers = next(r for r in published.printed("5") if r["dataset"] == "Flowers")
    paper_s, other = (
        found["EfficientNet-B7 · the paper", "Top-1"],
        found["DAT · the best other, as the paper has it", "Top-1"],
    )
    assert [(c["kind"], c["value"]) for c in (paper_s, other)] == [
        ("quoted", str(float(flowers[k]))) for k in ("top1_percent", "best_top1_percent")
    ]
    assert float(found["EfficientNet-B0 · float32", "Parameters"]["value"]) == pytest.approx(4.13821)


def test_what_was_not_measured_is_an_empty_cell_with_a_word_why(written: Path) -> None:
    found = figures(written)
    gone = found["efficientnet-lite1", "Top-1"]
    assert (gone["text"], gone["value"], gone["note"]) == ("not measured", "", "to be finetuned")
    failed = found["efficientnet-lite2 · float32", "Top-1"]
    assert (failed["text"], failed["value"], failed["note"]) == ("not measured", "", "it answers NaN")
    assert "edgenet finetune efficientnet-lite0 --images flowers102:DIR" in (written / "paper.md").read_text()


def test_notes_say_how_the_measurement_differs_from_the_paper_s(written: Path) -> None:
    text = (written / "paper.md").read_text()
    assert (
        "efficientnet-lite0: measured on 1,018 of the 6,149 official test pictures; 2 test pictures are, or look"
        in text
    )
    assert "EfficientNet-B0: measured on 1,020 of the 6,149 official test pictures; its file does not say which" in text
    assert "mine <b>: taught by 100 pictures, where the paper's had 2,040" in text
    assert "The paper prints EfficientNet-B7 for Flowers" in text
    assert "Table 5 but for Flowers" in text


def test_the_headline_is_the_best_measured_one_with_its_pictures() -> None:
    assert headline(some_results()) == (
        "efficientnet-lite0 is right on 89.6 % of 1,018 test pictures of Flowers (the paper's B7: 98.8 %)"
    )


def test_without_a_data_set_table_5_is_quoted_whole_and_nothing_is_called_measured() -> None:
    results = some_results()
    assert results.context.paper is not None
    results.context = replace(results.context, paper=replace(results.context.paper, dataset="", transfers=()))
    five, gone = tables(results)
    assert (five.id, gone.id) == ("table5", "not-reproduced")
    assert "quoted whole" in str(gone.rows)


def test_the_page_loads_nothing_and_escapes_names(written: Path) -> None:
    html = (written / "paper.html").read_text()
    assert "mine &lt;b&gt;" in html
    assert "Latencies are of networks with random weights" not in html, "none was timed"
    Page(html)
    assert not re.search(r"<(script|link|img|iframe)\b|url\(|@import", html)


@needs_chromium
@pytest.mark.parametrize("width_px", [390, 1280])
def test_the_page_of_table_5_does_not_scroll_sideways_in_a_browser(width_px: int, written: Path) -> None:
    found = layout(written / "paper.html", width_px)
    assert found.scroll_width_px <= found.width_px == width_px
    assert found.sticking_out == 0


# ------------------------------------------------------------------------------------------------------------ the job


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("pets")
    official_layouts.pets(root, {"trainval": 12, "test": 8})
    return f"pets:{root}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny's files as a run leaves them."""
    out = tmp_path_factory.mktemp("trained")
    factory = FileFactory(tiny.source(), None, target("auto"), Recipe(), Interface())
    results = Results(artifacts=[factory.export(out, f, "float32") for f in ("tflite", "onnx")])
    results.save(out)
    return out


def test_folders_and_files_are_measured_on_the_official_test_pictures(pets: str, trained: Path, tmp_path: Path) -> None:
    given = (str(trained), str(trained / "tiny_float32.onnx"))
    said: list[str] = []
    results = paper.run(PaperJob(tmp_path / "out", ("5",), images=pets, trained=given), say=said.append)
    assert [line.split("/")[-1] for line in said] == [
        "tiny_float32.tflite: to be measured on 40 pictures", "tiny_float32.onnx: to be measured on 40 pictures",
    ]  # fmt: skip
    record = results.context.paper
    assert record is not None
    assert (record.dataset, len(record.transfers)) == ("pets", 2)
    own = {t.artifact: t for t in record.transfers}
    for e in results.evaluations:
        assert (e.n_images, e.top1) == (40, pytest.approx(1.0, abs=0.1))
        assert own[e.artifact].parameters > 1000
        assert own[e.artifact].network == ""
    for a in results.artifacts:
        assert (tmp_path / "out" / a.path).is_file()
    text = (tmp_path / "out" / "paper.md").read_text()
    assert "Table 5, measured: Oxford-IIIT Pets" in text
    assert str(tmp_path) not in text
    before = (tmp_path / "out" / "results.json").read_text()
    said.clear()
    paper.run(PaperJob(tmp_path / "out", ("5",), images=pets, trained=given), say=said.append)
    assert said == ["Everything is measured; only the pages are written anew."]
    after = (tmp_path / "out" / "results.json").read_text()
    assert json.loads(before)["evaluations"] == json.loads(after)["evaluations"]


def test_pictures_that_taught_do_not_measure_and_where_all_did_the_cell_is_empty(pets: str, tmp_path: Path) -> None:
    from edgenet.images import open_images
    from edgenet.images.roles import history_of

    source = tiny.source()
    teach, test = (open_images(pets + part, (), source.class_names and ()) for part in ("", "#test"))
    for name, seen, left in (("some", teach, 40), ("all", test, 0)):
        taught = replace(source, pictures=history_of(taught=seen))
        made = FileFactory(taught, None, target("auto"), Recipe(), Interface()).export(tmp_path, "tflite", "float32")
        job = PaperJob(tmp_path / name, ("5",), images=pets, trained=(str(tmp_path / made.path),))
        results = paper.run(job)
        assert sum(e.n_images for e in results.evaluations) == left
        assert results.context.paper is not None
        assert results.context.paper.transfers[0].taught == len(seen)
        if not left:
            assert "accuracy is withheld" in results.failures[0].why
            assert "not measured" in (tmp_path / name / "paper.md").read_text()


def test_a_network_of_the_zoo_is_known_by_its_name_and_its_size() -> None:
    lite0 = replace(zoo.spec("efficientnet-lite0"), classes=102)
    found = paper_transfer._network
    for name in ("efficientnet-lite0-finetuned", "EfficientNet_Lite0", "efficientnet-lite0"):
        network = found(name, round(zoo.parameters(lite0) * 0.994), 102)
        assert network is not None
        assert (network.name, network.classes) == ("efficientnet-lite0", 102)
    assert found("efficientnet-lite0-finetuned", 3_000_000, 102) is None
    assert found("efficientnet-lite01", zoo.parameters(lite0), 102) is None
    assert found("mine", zoo.parameters(lite0), 102) is None


@pytest.mark.parametrize(
    ("given", "images", "tables_", "why"),
    [
        ("{trained}", "sample", ("5",), "give it as --images .valid: flowers102:DIR, cifar10:DIR"),
        ("{trained}", "{pets}", ("4",), "--trained is for table 5"),
        ("{trained}", "{pets}#test", ("5",), "divides a data set itself"),
        ("nowhere", "{pets}", ("5",), "no file nowhere"),
        ("{tmp}", "{pets}", ("5",), "has no results.json: give the --out folder of `edgenet finetune`, or a file"),
        ("{unfinished}", "{pets}", ("5",), "holds no finished training"),
        ("{six}", "{pets}", ("5",), r"--trained .*six.*the 5 classes of pets:.* are not the 6 of this model"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_written(
    given: str, images: str, tables_: tuple[str, ...], why: str, pets: str, trained: Path, tmp_path: Path
) -> None:
    places: dict[str, Callable[[], object]] = {
        "{trained}": lambda: trained, "{pets}": lambda: pets, "{tmp}": lambda: tmp_path,
        "{unfinished}": lambda: _unfinished(tmp_path / "unfinished"), "{six}": lambda: _six(tmp_path),
    }  # fmt: skip
    for name, place in places.items():
        given, images = (s.replace(name, str(place())) if name in s else s for s in (given, images))
    with pytest.raises(InputError, match=why) as e:
        paper.run(PaperJob(tmp_path / "out", tables_, images=images, trained=(given,)))
    assert "\n" not in str(e.value)
    assert not (tmp_path / "out").exists()


def _unfinished(folder: Path) -> Path:
    folder.mkdir()
    Results().save(folder)
    return folder


def _six(folder: Path) -> Path:
    names = tuple(f"kind {i}" for i in range(6))
    source = replace(tiny.source(), name="six", class_ids=names, class_names=names, build=lambda: tiny.graph(classes=6))
    made = FileFactory(source, None, target("auto"), Recipe(), Interface()).export(folder, "tflite", "float32")
    return folder / made.path
