"""The texts of a hand-over: templates in handoff_files/, filled with what is read from the model file."""

import re
from collections.abc import Callable, Mapping, Sequence

from edgenet.handoff.deployed import Deployed
from edgenet.images import Preprocessing
from edgenet.records import Context
from edgenet.report.formatting import interval, megabytes, milliseconds, percent
from edgenet.results import Evaluation, Measurement, TensorInfo

Template = Callable[[str], str]

# What the code was written for. LiteRT is the version that runs the file here; both have the API that is called.
VERSIONS = {
    "com.google.ai.edge.litert:litert": "2.3.0",
    "com.google.mediapipe:tasks-vision": "1.0.0",
    "junit:junit": "4.13.2",
    "androidx.test.ext:junit": "1.2.1",
    "androidx.test:runner": "1.6.2",
}
COMPILE_SDK, MIN_SDK = 35, 24  # MediaPipe Tasks asks for 24, LiteRT for 23
_TEST_ONLY = ("junit:", "androidx.test")
_MEDIAPIPE = "com.google.mediapipe:tasks-vision"

_BYTES = {"float32": 4, "uint8": 1, "int8": 1}
_PUT = {
    "float32": "out.putFloat((channel(pixel, c) - MEAN[c]) / STD[c])",
    "uint8": "out.put(channel(pixel, c).toByte())",
    "int8": "out.put((channel(pixel, c) - 128).toByte())",
}
_READ = {
    "float32": "output.getFloat()",
    "uint8": "((output.get().toInt() and 0xFF) - {zero_point}) * {scale}",
    "int8": "(output.get().toInt() - {zero_point}) * {scale}",
}
# Pillow's kernels: how far each reaches, and its weight at the distance x.
_KERNELS = {
    "bilinear": ("1.0", "return if (x < 1.0) 1.0 - x else 0.0"),
    "bicubic": (
        "2.0",
        "return when {\n"
        "            x < 1.0 -> (1.5 * x - 2.5) * x * x + 1.0\n"
        "            x < 2.0 -> (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5\n"
        "            else -> 0.0\n"
        "        }",
    ),
    "lanczos": (
        "3.0",
        "if (x == 0.0) return 1.0\n"
        "        val a = x * Math.PI\n"
        "        val b = x / 3.0 * Math.PI\n"
        "        return if (x < 3.0) Math.sin(a) / a * (Math.sin(b) / b) else 0.0",
    ),
}


def code(model: Deployed, template: Template, n_cases: int) -> dict[str, str]:
    """Return the files of code, name -> text. Without MediaPipe's where it cannot run the model."""
    p, out = model.preprocessing, model.output
    scaling = template("Nearest.kt") if p.interpolation == "nearest" else template("Scaling.kt")
    support, kernel = _KERNELS.get(p.interpolation, ("", ""))
    with_mediapipe = not model.not_for_mediapipe
    values = {
        "MODEL": model.asset,
        "ASSET": model.asset,
        "SIZE": str(p.resolution_px),
        "CROP": str(p.crop_padding_px),
        "NORMALISATION": _normalisation(p) if model.input.dtype == "float32" else "",
        "INTERPOLATION": p.interpolation.capitalize(),
        "INPUT_BYTES": str(_BYTES[model.input.dtype]),
        "OUTPUT_BYTES": str(_BYTES[out.dtype]),
        "PUT": _PUT[model.input.dtype],
        "READ": _READ[out.dtype].format(zero_point=out.zero_point, scale=_float(out.scale or 1.0)),
        "ORDER": p.channel_order.upper(),
        "SHIFT": "(16 - 8 * c)" if p.channel_order == "rgb" else "(8 * c)",
        "SCALING": _fill(scaling, {"SUPPORT": support, "KERNEL": kernel}),
        "CLASSES": str(len(model.labels)),
        "CASES": str(n_cases),
        "MEDIAPIPE_TEST": template("MediaPipeTest.kt") if with_mediapipe else "",
        "COMPILE_SDK": str(COMPILE_SDK),
        "MIN_SDK": str(MIN_SDK),
        "DEPENDENCIES": dependencies(with_mediapipe, "    "),
    }
    names = ["build.gradle.kts", "Preprocessing.kt", "Bitmaps.kt", "LiteRtClassifier.kt", "GoldenTest.kt"]
    names += ["MediaPipeClassifier.kt"] * with_mediapipe
    return {name: _fill(template(name), values) for name in names}


def readme(model: Deployed, template: Template, n_cases: int, accuracy: Sequence[str], latency: Sequence[str]) -> str:
    """Return README.md; `accuracy` and `latency` are sentences, none where nothing was measured."""
    why_not = model.not_for_mediapipe
    example = "MediaPipeClassifier(context).use { it.classify(bitmap)[0].categoryName() }"
    rows = "| `LiteRtClassifier.kt` | by LiteRT: the scores of all classes |"
    if why_not:
        example = "LiteRtClassifier(context).use { it.classify(bitmap) }"
    else:
        rows = f"| `MediaPipeClassifier.kt` | by MediaPipe Tasks: the best classes by name |\n{rows}"
    nothing_is = "random weights: it means nothing" if model.weights == "random" else "not measured"
    values = {
        "MODEL": model.name,
        "WHAT": f"A .tflite image classifier, {model.precision},",
        "ASSET": model.asset,
        "SIZE_TEXT": megabytes(model.size_bytes),
        "SHA256": model.sha256,
        "INPUT_TEXT": _input_text(model),
        "OUTPUT_TEXT": f"{len(model.labels)} scores, {_quantized(model.output)}",
        "WEIGHTS": _cell(model.weights),
        "ACCURACY": nothing_is if model.weights == "random" else "; ".join(map(_cell, accuracy)) or "not measured",
        "LATENCY": "; ".join(map(_cell, latency)) or "not measured",
        "DEPENDENCIES": dependencies(not why_not, "        "),
        "CLASSES": str(len(model.labels)),
        "CLASSIFIER_ROWS": rows,
        "EXAMPLE": example,
        "PREPROCESSING_TEXT": _preprocessing_text(model),
        "CASES": str(n_cases),
        "CHECKED_BY": "LiteRT's answers are" if why_not else "LiteRT's and MediaPipe's answers are each",
        "TOLERANCE": f"{model.tolerance:g}",
        "TOLERANCE_WHY": "kernels for other processors sum in another order"
        if model.tolerance < 0.01
        else "kernels for other processors round integers in other places",
        "NOTES": f"\n{why_not}.\n" if why_not else "",
    }
    return _fill(template("README.md"), values).rstrip() + "\n"


def dependencies(with_mediapipe: bool, indent: str) -> str:
    """Return the lines for Gradle, with versions."""
    lines = []
    for package, version in VERSIONS.items():
        if package != _MEDIAPIPE or with_mediapipe:
            how = "androidTestImplementation" if package.startswith(_TEST_ONLY) else "implementation"
            lines.append(f'{indent}{how}("{package}:{version}")')
    return "\n".join(lines)


def accuracy_sentence(e: Evaluation) -> str:
    """Return what was measured of a file's answers."""
    said = []
    if e.top1 is not None:
        said.append(f"top-1 {percent(e.top1)} (95 %: {interval(e.top1_ci95)}) on {e.n_labelled} labelled pictures")
    if e.agreement is not None:
        said.append(f"{percent(e.agreement)} of {e.n_images} pictures have the top-1 of {e.reference}")
    return f"{', '.join(said) or f'{e.n_images} pictures without labels'} by {e.runtime}"


def latency_sentence(m: Measurement, context: Context) -> str:
    """Return what was measured of a file's time."""
    where = f"a computer ({context.cpu_model})".replace(" ()", "") if m.device == "local" else m.device
    threads = f"{m.threads} thread{'s' * (m.threads != 1)}"
    beware = "; ".join(w.text for w in m.cautions)
    care = f" (with care: {beware})" if beware else ""
    return (
        f"{milliseconds(m.median_ms)} median, {milliseconds(m.p90_ms)} p90, by {m.runtime} on {where}, {threads}{care}"
    )


def _preprocessing_text(model: Deployed) -> str:
    p = model.preprocessing
    share = f"{p.resolution_px} / {p.resolution_px + p.crop_padding_px} of the short side"
    crop = "the centre square" if not p.crop_padding_px else f"the centre square of {share}"
    last = "raw pixels: the file normalises them itself"
    if model.input.dtype == "float32":
        last = f"(pixel - {_numbers(p.mean)}) / {_numbers(p.std)}"
    text = (
        f"A picture is made the model's input as in its evaluation: {crop}, scaled to {p.resolution_px} px "
        f"({p.interpolation}), {p.channel_order.upper()}, {last}. `Preprocessing.kt` scales bit for bit as the "
        "evaluation did; Android's `createScaledBitmap` gives other pixels."
    )
    if model.assumed:
        text += " The file says nothing of crop and interpolation: the whole centre square and bilinear are assumed."
    return text


def _input_text(model: Deployed) -> str:
    return (
        f"1 x {model.preprocessing.resolution_px} x {model.preprocessing.resolution_px} x 3, {_quantized(model.input)}"
    )


def _quantized(t: TensorInfo) -> str:
    return t.dtype if t.scale is None else f"{t.dtype}, scale {t.scale:.6g}, zero point {t.zero_point}"


def _normalisation(p: Preprocessing) -> str:
    order = p.channel_order.upper()
    mean, std = (", ".join(map(_float, values)) for values in (p.mean, p.std))
    return (
        f"    /** Of the pixels, 0..255, in the order {order}: (pixel - MEAN) / STD. */\n"
        f"    val MEAN = floatArrayOf({mean})\n"
        f"    val STD = floatArrayOf({std})\n"
    )


def _float(value: float) -> str:
    """Return a Kotlin Float that is exactly the nearest one to `value`."""
    import numpy as np

    text = str(np.float32(value))
    return f"{text if set(text) & set('.e') else text + '.0'}f"


def _numbers(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else f"[{', '.join(f'{v:g}' for v in values)}]"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())


def _fill(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda m: values[m[1]], text)
