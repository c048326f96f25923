"""The notebook of the documentation runs from its first cell to its last, and is kept without outputs."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.places import ROOT

PATH = ROOT / "docs" / "first_quarter_of_an_hour.ipynb"
TEXT = PATH.read_text(encoding="utf-8")
CELLS: list[dict[str, Any]] = json.loads(TEXT)["cells"]


def test_the_notebook_holds_no_output_and_nothing_of_the_machine_that_wrote_it() -> None:
    code = [c for c in CELLS if c["cell_type"] == "code"]
    assert len(code) >= 8
    assert all(c["outputs"] == [] and c["execution_count"] is None for c in code)
    assert re.findall(r"(?:/work|/home|/root|/tmp|/Users)\b", TEXT) == []
    assert set(json.loads(TEXT)["metadata"]) == {"kernelspec", "language_info"}


def test_its_links_lead_to_pages() -> None:
    said = "".join("".join(c["source"]) for c in CELLS if c["cell_type"] == "markdown")
    links = re.findall(r"\]\(([\w.-]+)\)", said)
    assert links
    assert all((PATH.parent / link).is_file() for link in links)


@pytest.mark.slow
def test_the_notebook_runs_from_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    missing = [
        p for p in ("ipykernel", "matplotlib", "keras", "sklearn", "onnx") if importlib.util.find_spec(p) is None
    ]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: make setup")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    notebook = nbformat.read(PATH, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=1200, kernel_name="python3",
                                     resources={"metadata": {"path": str(tmp_path)}})  # fmt: skip
    client.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(o.get("text", "") for o in outputs)
    top1 = [float(x) for x in re.findall(r"^digits_\w+\.tflite +[\d.]+ kB +([\d.]+)%", printed, re.MULTILINE)]
    assert len(top1) == 3
    assert min(top1) > 85  # it reads digits
    assert [o for o in outputs if o.output_type == "display_data" and "image/png" in o.data]
    assert any("'worse'" in o.data["text/plain"] for o in outputs if o.output_type == "execute_result")
    assert (tmp_path / "digits" / "OUT" / "report.html").is_file()
    assert sys.executable not in printed
