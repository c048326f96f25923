"""The Kotlin of a hand-over compiles, and its preprocessing gives the pixels that decode.py gives, bit for bit."""

import subprocess
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgenet.handoff import Deployed, hand_over, read_deployed
from edgenet.handoff.templates import code
from edgenet.handoff.write import N_CASES
from edgenet.images import Preprocessing, decode
from edgenet.results import TensorInfo
from helpers import kotlin

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not kotlin.KOTLINC or not kotlin.KOTLIN, reason="needs kotlinc: apt-get install kotlin"),
]
INPUTS = {
    "float32": TensorInfo("image", (1, 20, 20, 3), "float32"),
    "uint8": TensorInfo("image", (1, 20, 20, 3), "uint8", 1 / 128, 127),
    "int8": TensorInfo("image", (1, 20, 20, 3), "int8", 1 / 128, -1),
}


def picture(width: int, height: int) -> np.ndarray:
    """Return (height, width, 3) uint8 with sharp edges, which overshoot, and with noise."""
    rng = np.random.default_rng(width)
    blocks = rng.integers(0, 2, (height // 7 + 1, width // 7 + 1, 3)) * 255
    big = blocks.repeat(7, axis=0).repeat(7, axis=1)[:height, :width]
    return np.clip(big + rng.normal(0, 9, big.shape), 0, 255).astype(np.uint8)


def test_all_files_of_a_hand_over_compile(
    tiny_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgenet.handoff.write.N_CASES", 1)  # photographs take long to compress
    hand_over(tiny_files["float32"], tmp_path / "out")
    wrong = tmp_path / "Wrong.kt"  # shows that the stubs let nothing pass that is not there
    wrong.write_text("fun wrong(c: edgenet.classifier.MediaPipeClassifier) = c.clasify()")
    sources = [*kotlin.write_stubs(tmp_path / "stubs"), *(tmp_path / "out").rglob("*.kt"), wrong]
    (error,) = kotlin.compile_kotlin(sources, tmp_path / "classes").splitlines()
    assert "Wrong.kt" in error
    assert "unresolved reference: clasify" in error


def test_kotlin_scales_bit_for_bit_as_pillow(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    tiny = read_deployed(tiny_files["float32"])
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    models: list[Deployed] = []
    for interpolation, (dtype, order) in product(
        ("bicubic", "bilinear", "lanczos", "nearest"), (("float32", "rgb"), ("uint8", "bgr"), ("int8", "rgb"))
    ):
        size = {"float32": 224, "uint8": 20, "int8": 260}[dtype]
        how = Preprocessing(size, mean, std, 32, interpolation, order)
        models.append(replace(tiny, input=INPUTS[dtype], preprocessing=how))
    of_grey = TensorInfo("image", (1, 20, 20, 1), "float32")
    for interpolation in ("bicubic", "nearest"):
        grey = Preprocessing(64, mean[:1], std[:1], 8, interpolation, "grey")
        wide = Preprocessing(96, mean, std, 32, interpolation, width_px=192)
        models += [replace(tiny, input=of_grey, preprocessing=grey), replace(tiny, preprocessing=wide)]
    sources = []
    for i, model in enumerate(models):
        sources.append(tmp_path / f"p{i}.kt")
        text = code(model, N_CASES)["Preprocessing.kt"]
        sources[-1].write_text(text.replace("package edgenet.classifier", f"package p{i}"))
    sources.append(tmp_path / "runner.kt")
    sources[-1].write_text(kotlin.runner([f"p{i}" for i in range(len(models))]))
    assert kotlin.compile_kotlin(sources, tmp_path / "classes") == ""
    sizes = ((451, 300), (299, 640), (256, 300), (37, 19))  # 256: nothing to scale at 224
    for width, height in sizes:
        pixels = picture(width, height)
        Image.fromarray(pixels).save(tmp_path / f"{width}.png")
        argb = 0xFF000000 | (pixels.astype(np.uint32) << np.array([16, 8, 0], np.uint32)).sum(axis=2, dtype=np.uint32)
        header = np.array([width, height], ">u4").tobytes()
        (tmp_path / str(width)).write_bytes(header + argb.astype(">u4").tobytes())
    program = [str(kotlin.KOTLIN), "-classpath", str(tmp_path / "classes"), "RunnerKt"]
    files = [str(tmp_path / str(width)) for width, _ in sizes]
    done = subprocess.run([*program, *files], capture_output=True, text=True, timeout=120, env=kotlin.ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    for width, height in sizes:
        got, start = (tmp_path / f"{width}.out").read_bytes(), 0
        for model in models:
            pixels = decode(str(tmp_path / f"{width}.png"), model.preprocessing)[None]
            want = np.ascontiguousarray(model.input_of(pixels)).tobytes()
            have = got[start : start + len(want)]
            start += len(want)
            dtype = model.input.dtype
            differ = np.frombuffer(have, dtype) != np.frombuffer(want, dtype)
            assert not differ.any(), f"{model.preprocessing} at {width} x {height}: {differ.sum()} of {differ.size}"
        assert start == len(got)
