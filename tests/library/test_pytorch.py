"""A PyTorch module in the place of a model: measured files come of it; PyTorch is no part of anything else."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import edgenet
from edgenet.errors import InputError
from edgenet.jobs import bench
from helpers import tiny
from helpers.places import ROOT

PX = 32


def networks(torch: Any) -> dict[str, Any]:
    """Modules with what PyTorch's own networks are made of, weights at random."""
    nn = torch.nn
    torch.manual_seed(5)

    class Gate(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.SiLU())
            self.gate = nn.Sequential(nn.Conv2d(16, 4, 1), nn.Mish(), nn.Conv2d(4, 16, 1), nn.Hardsigmoid())
            self.rest = nn.Sequential(nn.GroupNorm(4, 16), nn.ConvTranspose2d(16, 8, 2, 2), nn.CELU(), nn.Dropout(0.5))
            self.head = nn.Linear(8 + 16, 5)

        def forward(self, x: Any) -> Any:
            x = self.stem(x)
            x = x * self.gate(x.mean((2, 3), keepdim=True))
            y = nn.functional.interpolate(self.rest(x), size=(20, 20), mode="bicubic", align_corners=False)
            y = torch.nn.functional.pad(y, (1, 1, 1, 1), mode="replicate")
            return self.head(torch.cat([y.logsumexp((2, 3)), x.amax((2, 3))], 1))

    class Attend(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.norm = nn.Conv2d(3, 16, 8, 8), nn.LayerNorm(16)
            self.qkv, self.head = nn.Linear(16, 48), nn.Linear(16, 5)

        def forward(self, x: Any) -> Any:
            x = self.patches(x).flatten(2).transpose(1, 2)
            q, k, v = self.qkv(self.norm(x)).reshape(1, -1, 3, 4, 4).permute(2, 0, 3, 1, 4)
            y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            return self.head(nn.functional.gelu(x + y).mean(1)).softmax(-1)

    return {"gate": Gate(), "attend": Attend()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gate", "attend"])
def test_a_module_becomes_measured_files_and_is_left_as_it_was(
    name: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(bench, "RUN_PLAN", tiny.SHORT)
    pytest.importorskip("onnxscript")
    module = networks(torch)[name].train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    results = edgenet.run(
        module, example_input=torch.zeros(1, 3, PX, PX), images=tiny_folder, out=tmp_path / "out", preprocess="torch",
        formats="all", precisions="float32", limit=12, calibration_images=2,
    )  # fmt: skip
    assert [(a.format, a.precision) for a in results.artifacts] == [
        ("tflite", "float32"), ("onnx", "float32"), ("openvino", "float32")
    ]  # fmt: skip
    assert results.failures == []
    # OpenVINO may compute in bfloat16, and random weights give near ties.
    assert all(e.agreement in (None, 1.0) for e in results.evaluations if "openvino" not in e.artifact)
    assert all(e.sqnr_db is None or e.sqnr_db > 20 for e in results.evaluations)
    assert (tmp_path / "out" / "report.html").is_file()
    assert module.training
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


@pytest.mark.slow
def test_the_example_of_the_page_runs(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    page = (ROOT / "docs" / "own-models.md").read_text()
    code, after = page.split("```python\n")[1].split("```", 1)
    (tmp_path / "photos").symlink_to(tiny_folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "RUN_PLAN", tiny.SHORT)
    exec(compile(code, "own-models.md", "exec"), {})
    assert f"`{capsys.readouterr().out.strip()}`" in after
    assert (tmp_path / "out" / "report.html").is_file()


def given(torch: Any, **change: Any) -> dict[str, Any]:
    return {"model": torch.nn.Flatten(), "example_input": torch.zeros(1, 3, 4, 4), "images": "p", "out": "o", **change}


@pytest.mark.slow
def test_arguments_that_do_not_do_are_refused_in_one_line(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")

    class Two(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x, x

    class Random(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x.flatten(1)[:, :5] + float(torch.rand(()))

    for change, message in (
        ({"model": "resnet18.pth"}, r"example_input is for a torch\.nn\.Module"),
        ({"model": 5}, r"takes a torch\.nn\.Module with example_input, was given int"),
        ({"example_input": None}, r"example_input is NoneType: give a tensor"),
        ({"example_input": [1]}, r"example_input is list: give a tensor"),
        ({"example_input": torch.zeros(2, 3, 4, 4)}, r"example_input has the shape \(2, 3, 4, 4\).*one picture"),
        ({"precison": "int8"}, r"no option precison \(valid: .*precisions"),
        ({"model": Two()}, r"the module gives tuple"),
        ({"model": Random()}, r"answers otherwise than the module|Random has the operator RandomUniformLike"),
    ):
        with pytest.raises(InputError, match=message) as e:
            edgenet.run(**given(torch, **change))
        assert "\n" not in str(e.value)


def test_the_package_and_its_help_load_neither_pytorch_nor_the_work() -> None:
    code = (
        "import sys, edgenet; from click.testing import CliRunner; from edgenet.cli import main\n"
        "assert CliRunner().invoke(main, ['run', '--help']).exit_code == 0\n"
        "found = ('torch', 'onnxscript', 'onnx', 'tensorflow', 'edgenet.library.pytorch')\n"
        "print([m for m in found if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_pytorch_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgenet.errors import MissingDependency

    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingDependency, match=r"edgenet\.run needs onnxscript.*pip install onnxscript"):
        edgenet.run(None, example_input=[0], images="p", out="o")
