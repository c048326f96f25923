"""rknn.py: a hand-over for Rockchip by a double of rknn-toolkit2; the samples run against doubles of the runtime.

The doubles of the board take what the samples give them for the network's own int8 input, and answer by onnxruntime or
with the golden scores. The real compiler and simulator are under the mark `device`.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgenet.calibration import quantize
from edgenet.device_bench.rknn import environment
from edgenet.errors import InputError
from edgenet.export import Network, export_graph
from edgenet.handoff import rknn
from edgenet.images import decode, sample
from edgenet.results import Calibration
from helpers.rknn_environment import make_environment

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("skimage")

PYTHON_DOUBLE = """
import os
import numpy as np
import onnxruntime

class RKNNLite:
    def load_rknn(self, path):
        self.ok = open(path, "rb").read(4) == b"RKNN"
        return 0 if self.ok else -1
    def init_runtime(self):
        self.session = onnxruntime.InferenceSession(os.environ["RKNN_ONNX"], providers=["CPUExecutionProvider"])
        return 0
    def inference(self, inputs, data_format, inputs_pass_through):
        (x,) = inputs
        assert x.dtype == np.int8 and data_format == ["nhwc"] and inputs_pass_through == [1]
        y = self.session.run(None, {"image": (x.view(np.uint8) ^ 128).transpose(0, 3, 1, 2)})[0]
        return [y.astype(np.float32) / 256]
    def release(self):
        pass
"""
# The calls of Rockchip's rknn_api.h that the sample makes, as it declares them.
HEADER = """
#pragma once
#include <cstdint>
typedef std::uint64_t rknn_context;
enum { RKNN_QUERY_INPUT_ATTR = 1, RKNN_QUERY_OUTPUT_ATTR = 2 };
typedef enum { RKNN_TENSOR_FLOAT32 = 0, RKNN_TENSOR_INT8 = 2 } rknn_tensor_type;
typedef enum { RKNN_TENSOR_NCHW = 0, RKNN_TENSOR_NHWC = 1 } rknn_tensor_format;
struct rknn_tensor_attr {
  std::uint32_t n_elems, size_with_stride, w_stride;
  rknn_tensor_type type;
  rknn_tensor_format fmt;
  std::int32_t zp;
  float scale;
  std::uint8_t pass_through;
};
struct rknn_tensor_mem { void* virt_addr; };
extern "C" {
int rknn_init(rknn_context*, void*, std::uint32_t, std::uint32_t, void*);
int rknn_query(rknn_context, int, void*, std::uint32_t);
rknn_tensor_mem* rknn_create_mem(rknn_context, std::uint32_t);
int rknn_set_io_mem(rknn_context, rknn_tensor_mem*, rknn_tensor_attr*);
int rknn_run(rknn_context, void*);
int rknn_destroy_mem(rknn_context, rknn_tensor_mem*);
int rknn_destroy(rknn_context);
}
"""
# A board whose rows are 4 pixels longer than the picture, and which knows the golden pictures only.
BOARD = """
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>
#include "rknn_api.h"
namespace {
constexpr int kRows = 20, kColumns = 20, kStride = 24, kClasses = 5;
std::int8_t in[kRows * kStride * 3], out[kClasses];
rknn_tensor_mem memories[2] = {{in}, {out}};
int made = 0;
std::vector<char> read(const std::string& p) {
  std::ifstream f(p, std::ios::binary);
  return {std::istreambuf_iterator<char>(f), std::istreambuf_iterator<char>()};
}
}
int rknn_init(rknn_context* c, void* m, std::uint32_t n, std::uint32_t, void*) {
  *c = 1;
  return n > 4 && !std::memcmp(m, "RKNN", 4) ? 0 : -1;
}
int rknn_query(rknn_context, int what, void* to, std::uint32_t) {
  auto* a = static_cast<rknn_tensor_attr*>(to);
  a->type = RKNN_TENSOR_INT8;
  if (what == RKNN_QUERY_INPUT_ATTR) {
    a->n_elems = kRows * kColumns * 3; a->size_with_stride = sizeof(in); a->w_stride = kStride;
    a->scale = INPUT_SCALE; a->zp = INPUT_ZERO_POINT;
  } else {
    a->n_elems = kClasses; a->size_with_stride = kClasses; a->scale = 1.0f / 256; a->zp = -128;
  }
  return 0;
}
rknn_tensor_mem* rknn_create_mem(rknn_context, std::uint32_t) { return &memories[made++]; }
int rknn_set_io_mem(rknn_context, rknn_tensor_mem* m, rknn_tensor_attr* a) {
  return m == &memories[0] && !(a->pass_through == 1 && a->fmt == RKNN_TENSOR_NHWC) ? -1 : 0;
}
int rknn_run(rknn_context, void*) {
  for (int i = 0; i < 10; ++i) {
    const std::string place = "golden/" + std::to_string(i);
    const std::vector<char> pixels = read(place + "_pixels.bin"), raw = read(place + "_scores.bin");
    bool same = true;
    for (int y = 0; y < kRows && same; ++y)
      for (int x = 0; x < kColumns * 3 && same; ++x)
        same = in[y * kStride * 3 + x] == static_cast<unsigned char>(pixels[y * kColumns * 3 + x]) - 128;
    if (!same) continue;
    for (int k = 0; k < kClasses; ++k) {
      float score;
      std::memcpy(&score, raw.data() + 4 * k, 4);
      out[k] = static_cast<std::int8_t>(std::lround(score * 256) - 128 + OFF);
    }
    return 0;
  }
  return -7;
}
int rknn_destroy_mem(rknn_context, rknn_tensor_mem*) { return 0; }
int rknn_destroy(rknn_context) { return 0; }
"""


@pytest.fixture(scope="module")
def tiny_onnx(tiny_network: Network, tiny_calibration: Calibration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("onnx")
    g = quantize(tiny_network.graph, "int8", tiny_calibration)
    return out / export_graph(tiny_network, g, out, format="onnx", precision="int8", io="uint8").path


@pytest.fixture(scope="module")
def handed_over(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hand-over for an RK3588. Copy it before changing it."""
    folder = tmp_path_factory.mktemp("rknn")
    place = make_environment(folder / "environment")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(environment.FOLDER_VARIABLE, str(place))
        rknn.hand_over(tiny_onnx, folder / "handover", "rknn:RK3588")
    return folder / "handover"


def manifest(folder: Path) -> dict:
    return json.loads((folder / "handoff.json").read_text())


def test_it_has_the_compiled_file_the_samples_and_the_simulators_answers(handed_over: Path, tiny_onnx: Path) -> None:
    there = {p.relative_to(handed_over).as_posix() for p in handed_over.rglob("*") if p.is_file()}
    assert {"README.md", "labels.txt", "handoff.json", "tiny_int8_rk3588.rknn", "tiny_int8.onnx", "classify.py",
            "classify.cc", "CMakeLists.txt", "golden/golden.json", "golden/9_scores.bin"} <= there  # fmt: skip
    assert set(manifest(handed_over)["files"]) == there - {"handoff.json"}
    assert (handed_over / "tiny_int8.onnx").read_bytes() == tiny_onnx.read_bytes()
    readme = (handed_over / "README.md").read_text()
    assert "61 of 62 layers run on\nthe NPU" in readme
    assert "{{" not in readme


def test_the_python_sample_runs_the_golden_pictures_and_fails_where_an_answer_is_another(
    handed_over: Path, tmp_path: Path
) -> None:
    (tmp_path / "rknnlite").mkdir()
    (tmp_path / "rknnlite/__init__.py").touch()
    (tmp_path / "rknnlite/api.py").write_text(PYTHON_DOUBLE)
    folder = tmp_path / "handover"
    shutil.copytree(handed_over, folder)
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "RKNN_ONNX": str(folder / "tiny_int8.onnx")}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(folder / "classify.py"), *words]
        return subprocess.run(command, env=env, capture_output=True, text=True)

    done = run("--verify")
    assert (done.returncode, done.stdout.count("ok ")) == (0, 10), done.stderr
    done = run(str(folder / "golden/0.png"))
    labels = (folder / "labels.txt").read_text().splitlines()
    top1 = json.loads((folder / "golden/golden.json").read_text())["cases"][0]["top1"]
    assert f"0.png: {labels[top1]} " in done.stdout.splitlines()[0]
    scores = folder / "golden/3_scores.bin"
    scores.write_bytes(np.fromfile(scores, "<f4")[::-1].tobytes())
    done = run("--verify")
    assert (done.returncode, done.stdout.count("FAILED")) == (1, 1)


@pytest.mark.parametrize("size", [(300, 200), (201, 333), (224, 224), (40, 23)])
def test_the_python_sample_sees_of_a_photograph_what_edgenet_sees(
    handed_over: Path, tmp_path: Path, tiny_network: Network, size: tuple[int, int]
) -> None:
    photograph = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)).save(photograph)
    sample_code: dict = {"__file__": str(handed_over / "classify.py"), "__name__": "classify"}
    exec((handed_over / "classify.py").read_text(), sample_code)
    np.testing.assert_array_equal(sample_code["read"](photograph), decode(str(photograph), tiny_network.preprocessing))


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_cpp_sample_compiles_and_runs_the_golden_pictures(handed_over: Path, tmp_path: Path) -> None:
    (tmp_path / "rknn_api.h").write_text(HEADER)
    (tmp_path / "board.cc").write_text(BOARD)
    scale, zero_point = rknn.input_of_chip(rknn.read_model(handed_over / "tiny_int8.onnx"))

    def run(*words: str, off: int = 0, zero: int = zero_point) -> subprocess.CompletedProcess[str]:
        program = tmp_path / f"classify_{off}_{zero}"
        command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-I", str(tmp_path), f"-DOFF={off}"]
        command += [f"-DINPUT_SCALE={scale:.9g}f", f"-DINPUT_ZERO_POINT={zero}", "-o", str(program)]
        subprocess.run([*command, str(handed_over / "classify.cc"), str(tmp_path / "board.cc")], check=True)
        return subprocess.run([str(program), *words], cwd=handed_over, capture_output=True, text=True)

    done = run("--verify")
    assert (done.returncode, done.stdout.count("ok ")) == (0, 10), done.stdout + done.stderr
    done = run("golden/0_pixels.bin")
    top1 = json.loads((handed_over / "golden/golden.json").read_text())["cases"][0]["top1"]
    assert done.stdout.startswith((handed_over / "labels.txt").read_text().splitlines()[top1])
    assert run("--verify", off=-25).returncode == 1  # a score that is a tenth off
    other = run("--verify", zero=zero_point + 1)
    assert (other.returncode, "is not the file that was handed over" in other.stderr) == (3, True)


def test_verify_replays_it_in_the_simulator_and_tells_a_changed_file(
    handed_over: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.FOLDER_VARIABLE, str(make_environment(tmp_path / "environment")))
    folder = tmp_path / "handover"
    shutil.copytree(handed_over, folder)
    checks = rknn.verify(folder, manifest(folder))
    assert [(c.what, c.ok) for c in checks] == [("files", True), ("simulator", True)]
    assert "10 pictures: scores differ by at most 0, allowed" in checks[1].said
    (folder / "tiny_int8_rk3588.rknn").write_bytes(b"RKNN")
    (check,) = rknn.verify(folder, manifest(folder))
    assert (check.ok, "tiny_int8_rk3588.rknn" in check.said) == (False, True)


def test_a_file_that_not_every_chip_takes_is_refused(
    tiny_network: Network, tiny_calibration: Calibration, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    g = quantize(tiny_network.graph, "int8", tiny_calibration)
    path = tmp_path / export_graph(tiny_network, g, tmp_path, format="onnx", precision="int8", io="float32").path
    with pytest.raises(InputError, match=r"every Rockchip chip takes int8 with integer input and output.*--io uint8"):
        rknn.read_model(path)
    with pytest.raises(InputError, match=r"takes edgenet's \.onnx"):
        rknn.read_model(tiny_files["int8"])


def test_the_golden_photographs_are_the_samples(handed_over: Path) -> None:
    cases = json.loads((handed_over / "golden/golden.json").read_text())["cases"]
    assert len(cases) == 10
    assert sample.names()
    assert len({(handed_over / "golden" / c["photograph"]).read_bytes() for c in cases}) == 10
