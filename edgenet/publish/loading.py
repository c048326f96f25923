"""How each format of a run is loaded, as Python that runs: for the model card, whose readers copy it."""

from collections.abc import Sequence

from edgenet.compare.markdown import plain
from edgenet.errors import InputError
from edgenet.images import Preprocessing
from edgenet.report.formatting import FORMAT_NAMES
from edgenet.report.rows import Row
from edgenet.results import Artifact

_ORDERS = {"rgb": "red, green, blue", "bgr": "blue, green, red", "grey": "grey"}
_PACKAGES = {"tflite": "ai-edge-litert", "onnx": "onnxruntime", "openvino": "openvino"}
_RUN = {
    "tflite": """\
from ai_edge_litert.interpreter import Interpreter

model = Interpreter({file})
model.allocate_tensors()
model.set_tensor(model.get_input_details()[0]["index"], pixels("photo.jpg"))
model.invoke()
answer = model.get_tensor(model.get_output_details()[0]["index"])[0]""",
    "onnx": """\
import onnxruntime

model = onnxruntime.InferenceSession({file}, providers=["CPUExecutionProvider"])
answer = model.run(None, {{model.get_inputs()[0].name: pixels("photo.jpg").transpose(0, 3, 1, 2)}})[0][0]""",
    "openvino": """\
import openvino

model = openvino.compile_model({file}, "CPU")
answer = model(pixels("photo.jpg").transpose(0, 3, 1, 2))[0][0]""",
}


def loading(table: Sequence[Row], leader: str | None) -> list[str]:
    """Return Markdown: how the pixels are made, and a block a format with the file to ship or its first one."""
    if not table:
        return ["There is no file."]
    first = next((r.artifact for r in table if r.artifact.id == leader), table[0].artifact)
    lines = [f"Python, with NumPy and Pillow. {plain(_input_text(first))}", "", "```python", *_pixels(first), "```"]
    for format in dict.fromkeys(r.artifact.format for r in table):
        if format not in _RUN:
            continue
        of = [r.artifact for r in table if r.artifact.format == format and r.artifact.io_dtype == first.io_dtype]
        if not of:
            continue
        alike = [a for a in of if a.precision == first.precision]
        a = first if first in of else next(iter(alike or of))
        lines += ["", f"{FORMAT_NAMES.get(format, format)} (`pip install {_PACKAGES[format]}`):", "", "```python",
                  *_RUN[format].format(file=repr(a.path)).splitlines(), "```"]  # fmt: skip
    lines += ["", _output_text(first)]
    return lines


def _preprocessing(a: Artifact) -> Preprocessing | None:
    try:
        return Preprocessing.from_json(a.preprocessing) if a.preprocessing else None
    except InputError:  # results.json of somebody else
        return None


def _input_text(a: Artifact) -> str:
    p = _preprocessing(a)
    if p is None:
        return "The file does not say how its input is made."
    rows, columns = p.size_px
    values = {"float32": f"(pixel - mean) / std, mean {_numbers(p.mean)}, std {_numbers(p.std)}",
              "uint8": "pixels, 0 to 255", "int8": "pixels - 128"}.get(a.io_dtype, a.io_dtype)  # fmt: skip
    return f"The input has {rows} rows and {columns} columns, {_ORDERS[p.channel_order]}: {values}."


def _output_text(a: Artifact) -> str:
    scale = {"uint8": "q / 256", "int8": "(q + 128) / 256"}.get(a.io_dtype)
    probability = f", and its probability is {scale}" if scale else ""
    return f"`answer` has a number q for each class: `answer.argmax()` is the likeliest class{probability}."


def _pixels(a: Artifact) -> list[str]:
    """Return a function in Python that makes the input as edgenet does: (1, H, W, C)."""
    p = _preprocessing(a)
    if p is None or a.io_dtype not in ("float32", "uint8", "int8"):
        return ["# How the input is made is not recorded."]
    rows, columns = p.size_px
    kept = f"{p.short_px} / {p.short_px + p.crop_padding_px}"
    mode, colours = ("L", "[:, :, None]") if p.channels == 1 else ("RGB", "")
    flip = "[:, :, ::-1]" if p.channel_order == "bgr" else colours
    last = {
        "float32": f"return ((x - np.array({_numbers(p.mean)})) / np.array({_numbers(p.std)})).astype(np.float32)",
        "uint8": "return x.astype(np.uint8)",
        "int8": "return (x - 128).astype(np.int8)",
    }[a.io_dtype]
    return [
        "import numpy as np",
        "from PIL import Image, ImageOps",
        "",
        "",
        "def pixels(path):",
        f'    picture = ImageOps.exif_transpose(Image.open(path)).convert("{mode}")',
        "    w, h = picture.size",
        f"    height = max(1, int({kept} * min(h, w * {rows} / {columns})))",
        f"    width = max(1, int({kept} * min(w, h * {columns} / {rows})))",
        "    left, top = (w - width + 1) // 2, (h - height + 1) // 2",
        "    part = picture.crop((left, top, left + width, top + height))",
        f"    part = part.resize(({columns}, {rows}), Image.Resampling.{p.interpolation.upper()})",
        f"    x = np.asarray(part, np.float32){flip}[None]  # (1, {rows}, {columns}, {p.channels})",
        f"    {last}",
    ]


def _numbers(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{v:.6g}' for v in values)}]"
