"""The rows of docs/networks.md: benchmarks/architectures.py turns what it measured into a table."""

import importlib
import re
import sys
from typing import Any

import pytest

from helpers.places import ROOT


@pytest.fixture
def architectures(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "benchmarks")])
    return importlib.import_module("architectures")


def result(ours: float, theirs: float, sixteen: float) -> dict[str, Any]:
    rows = [("edgenet", f, p, db) for f in ("tflite", "onnx", "openvino") for p, db in
            (("int8", ours), ("int16x8", sixteen))]  # fmt: skip
    rows += [("nncf", "openvino", "int8", theirs), ("quantize_static u16s8", "onnx", "int16x8", sixteen - 1)]
    return {
        "size_px": [64, 64], "top1": 0.5, "source_db": 100.0, "failures": {"ai-edge-quantizer": "ValueError: no"},
        "rows": [{"tool": t, "format": f, "precision": p, "median_db": db} for t, f, p, db in rows],
    }  # fmt: skip


def test_a_row_is_first_where_its_worst_format_is_at_most_half_a_decibel_behind(architectures: Any) -> None:
    assert architectures.line("a", result(20.0, 20.4, 30.0))[1] is True
    behind = result(20.0, 20.4, 30.0)
    behind["rows"][2]["median_db"] = 19.8
    assert architectures.line("a", behind)[1] is False


def test_sixteen_bits_have_to_be_six_decibels_better_in_every_format(architectures: Any) -> None:
    assert architectures.line("a", result(20.0, 10.0, 26.5))[2] is True
    close = result(20.0, 10.0, 26.5)
    close["rows"][5]["median_db"] = 25.0
    assert architectures.line("a", close)[2] is False


def test_a_tool_that_failed_and_a_network_that_was_refused_stand_in_the_table(architectures: Any) -> None:
    text = architectures.line("a", result(20.0, 10.0, 30.0))[0]
    assert text.count("|") == len(architectures.HEADINGS) + 1
    assert "fails" in text
    assert architectures.line("b", {"refused": "InputError: STFT"}) == ("| b | refused: InputError: STFT |", None, None)


def test_every_network_of_the_table_can_be_trained_or_has_weights_of_its_own(architectures: Any) -> None:
    page = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")
    names = set(re.findall(r"^\| ([a-z][\w-]*) \| \d", page, re.MULTILINE))
    known = {*architectures.RECIPES, *architectures.networks.NETWORKS}
    assert names
    assert names <= known
