"""docs/library.md: its code runs as it stands, and it explains each field of the records that have no other page."""

import dataclasses
import inspect
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import edgenet
from edgenet import pipeline
from edgenet.compare.nouns import Finding
from edgenet.export.inspect.inspection import Inspection, WeightQuantization
from edgenet.jobs import bench
from helpers import tiny
from helpers.places import ROOT

PAGE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_every_block_of_code_runs_one_after_another(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In an empty folder with photographs; the tests' own small network stands for EfficientNet-Lite0."""
    pytest.importorskip("onnx")

    def source(model: str, *args: Any, **options: Any) -> Any:
        return replace(tiny.source(), name=model) if model == "efficientnet-lite0" else tiny.source(model, *args)

    monkeypatch.setattr(pipeline, "find_source", source)
    monkeypatch.setattr(bench, "RUN_PLAN", tiny.SHORT)
    monkeypatch.setattr(bench, "BENCH_PLAN", tiny.SHORT)
    monkeypatch.setattr(pipeline, "check_run", lambda *_: None)  # the package with its weights is not needed
    tiny.shorten_timing(monkeypatch.setattr)
    (tmp_path / "photos").symlink_to(tiny_folder)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(compile(block, "library.md", "exec"), names)
    said = capsys.readouterr().out
    assert "efficientnet-lite0_int8.tflite" in said
    assert "unknown model 'efficientnet-lite9'" in said
    assert names["made"].artifacts[0].io_dtype == "uint8"
    assert {p.name for p in Path("INT8").glob("*int8*")} >= {
        "efficientnet-lite0_int8.tflite",
        "efficientnet-lite0_int8.onnx",
    }


@pytest.mark.parametrize("record", [edgenet.Comparison, edgenet.Quantized, Finding, Inspection, WeightQuantization])
def test_every_field_of_a_record_is_explained(record: type) -> None:
    names = [f.name for f in dataclasses.fields(record) if f.name[0] != "_"]
    assert [n for n in names if f"`{n}`" not in PAGE] == []


def test_every_function_and_error_is_on_the_page() -> None:
    public = [n for n in edgenet.__all__ if inspect.isfunction(getattr(edgenet, n)) or n.endswith("Error")]
    assert [n for n in public if f"`edgenet.{n}" not in PAGE and f"`{n}`" not in PAGE] == []
