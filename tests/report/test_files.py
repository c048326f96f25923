"""The tables of the page: they have what the results have, number by number."""

from dataclasses import replace

import pytest

from edgenet.report import formatting
from edgenet.report.files import Files, estimates, files
from edgenet.report.overview import view_of
from edgenet.report.pieces import Cell, Chip, Fact, Line
from edgenet.results import Estimate, Failure, LeftOperators, Results, Warning
from helpers.hand_built import FILES, a_measurement, changed, in_three_formats, some_results

NBSP = formatting.NBSP


def of(results: Results) -> Files:
    found = files(view_of(results))
    assert found is not None
    return found


def line(results: Results, name: str) -> dict[str, Cell]:
    """The cells of a file's row by title, no-break spaces as spaces."""
    table = of(results).files
    (found,) = [x for lines in table.groups.values() for x in lines if x.cells[0].text.startswith(name)]
    cells = [replace(c, text=c.text.replace(NBSP, " "), small=c.small.replace(NBSP, " ")) for c in found.cells]
    return dict(zip(table.titles, cells, strict=True))


def chosen(results: Results) -> list[str]:
    return [x.cells[0].text for lines in of(results).files.groups.values() for x in lines if x.chosen]


@pytest.mark.parametrize("precision", [f[0] for f in FILES])
def test_the_table_has_what_the_results_have(precision: str) -> None:
    results = some_results()
    row = line(results, f"efficientnet-lite0_{precision}.tflite")
    a = results.artifact(f"efficientnet-lite0_{precision}")
    (e,) = [e for e in results.evaluations if e.artifact == a.id]
    (m,) = [m for m in results.measurements if m.artifact == a.id]
    assert e.top1 is not None

    def ms(value: float) -> str:
        return formatting.milliseconds(value).replace(NBSP, " ")

    assert row["Size"] == Cell(f"{a.size_bytes / 1e6:.1f} MB")
    assert row["Top-1"].text == f"{e.top1 * 100:.1f} %"
    assert row["Top-5"] == Cell("97.6 %", "95.8 to 98.7")
    assert row["Median"] == Cell(ms(m.median_ms))
    assert row["p90, p95"] == Cell(ms(m.p90_ms), ms(m.p95_ms))
    assert row["Load, memory"] == Cell("31.4 ms", "88.0 MB")
    assert row["Runtime"] == Cell("litert", "2.3.0")
    assert row["File"].small == f"tflite · {precision} · float32 in and out"
    if precision == "int8":
        assert row["Points lost"] == Cell("0.4", "−0.5 to 1.3")
        assert row["Agreement"] == Cell("98.4 %", "97.0 to 99.3")
        assert row["Fixed / broken"] == Cell("3 / 5", "p = 0.73")
        assert row["SQNR"] == Cell("20.4 dB")
        assert row["Speed-up"].text == "1.34×"
    if precision == "float32":
        missing = {row[c] for c in ("Points lost", "Agreement", "Fixed / broken", "SQNR", "Speed-up")}
        assert missing == {Cell("—")}


def test_the_file_to_ship_stands_out_and_the_reference_is_marked() -> None:
    results = some_results()
    assert chosen(results) == ["efficientnet-lite0_int8.tflite"]
    assert line(results, "efficientnet-lite0_int8")["File"].small_chips == (Chip("ship", "good"),)
    assert line(results, "efficientnet-lite0_float32")["File"].small_chips == (Chip("reference"),)
    results.put(Failure("bench", "efficientnet-lite0_dynamic", why="it crashed", remedy="try again"))
    assert line(results, "efficientnet-lite0_dynamic")["File"].small_chips == (Chip("failed", "bad"),)


def test_with_random_weights_the_file_that_leads_stands_out_but_nothing_is_marked_to_ship() -> None:
    results = some_results()
    for precision, *_ in FILES:
        changed(results, precision, "artifacts", weights="random")
    (leader,) = chosen(results)
    assert Chip("ship", "good") not in line(results, leader)["File"].small_chips


def test_a_value_that_is_no_number_leaves_a_dash() -> None:
    results = changed(some_results(), "int8", "evaluations", sqnr_db=float("inf"), mcnemar_p=float("nan"), top5=None,
                      top5_ci95=None, agreement_ci95=None, top1_ci95=None, top1_drop_ci95=None)  # fmt: skip
    row = line(results, "efficientnet-lite0_int8")
    assert row["SQNR"] == row["Top-5"] == Cell("—")
    assert row["Fixed / broken"] == Cell("3 / 5")
    assert [c.small for name, c in row.items() if name in ("Top-1", "Agreement", "Points lost")] == [""] * 3


def test_other_devices_stand_in_a_table_of_their_own() -> None:
    results = some_results()
    results.put(a_measurement(results.artifact("efficientnet-lite0_int8"), 3.0, device="adb:PIXEL", threads=4))
    found = of(results)
    assert found.others is not None
    ((other,),) = found.others.groups.values()
    assert [c.text for c in other.cells][:3] == ["efficientnet-lite0_int8.tflite", "adb:PIXEL", "4"]
    assert "adb:PIXEL" not in str(found.files)
    assert of(some_results()).others is None


def test_twelve_files_are_grouped_by_format() -> None:
    groups = of(in_three_formats()).files.groups
    suffixes = {"TFLite": ".tflite", "ONNX": ".onnx", "OpenVINO": ".xml"}
    assert list(groups) == list(suffixes)
    for name, lines in groups.items():
        assert len(lines) == 4
        assert all(x.cells[0].text.endswith(suffixes[name]) for x in lines)
    assert list(of(some_results()).files.groups) == ["TFLite"]


def test_estimates_have_what_the_compiler_gave_and_dashes_where_it_gave_nothing() -> None:
    results = some_results()
    first = results.artifacts[0]
    left = tuple(LeftOperators(kind, n, "works on <float32>") for kind, n in (("FULLY_CONNECTED", 1), ("SOFTMAX", 2)))
    e = Estimate(
        first.id, "ethos-u:ethos-u55-256", "vela 5.2.0", "compiled by Vela", 64, 61, left, 7_190_859, 5e8, 14.38,
        1_509_600, 0, 4_510_096, warnings=(Warning("left-to-cpu", "2 operators run on the CPU"),),
    )  # fmt: skip
    results.put(e)
    results.put(Estimate(first.id, "edgetpu", "a list", "only a static check", 63, 63))
    found = estimates(view_of(results))
    assert found is not None
    ((full, bare),) = found.table.groups.values()

    def texts(line: Line) -> list[str]:
        return [f"{c.text} {c.small}".replace(NBSP, " ").strip() for c in line.cells]

    assert texts(full) == [
        first.path, "ethos-u:ethos-u55-256", "61 of 64 operators", "—", "1.5 MB", "0.00 MB", "4.5 MB", "7,190,859",
        "14.4 ms an estimate", "vela 5.2.0",
    ]  # fmt: skip
    assert texts(bare)[2:9] == ["63 of 63 operators", "—", "—", "—", "—", "—", "—"]
    assert found.facts == (
        Fact(f"{first.path}, {e.device}",
             ("1 FULLY_CONNECTED, 2 SOFTMAX: works on <float32>", "2 operators run on the CPU")),
        Fact("vela 5.2.0", ("compiled by Vela",)),
        Fact("a list", ("only a static check",)),
    )  # fmt: skip


def test_without_estimates_there_is_no_section_on_them() -> None:
    assert estimates(view_of(some_results())) is None
