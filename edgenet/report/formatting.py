"""Numbers -> text, for the terminal and for the page: one place decides on units, digits and signs.

A value that is missing or not finite becomes an em dash; a unit hangs on its number by a no-break space.
"""

import math

from edgenet.results import Failure

MISSING = "—"
FORMAT_NAMES = {"tflite": "TFLite", "onnx": "ONNX", "openvino": "OpenVINO"}
NBSP = "\u00a0"


def number(value: float | None, digits: int) -> str:
    """Return `value` with `digits` decimals and a true minus sign, or an em dash where there is none."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def _with_unit(text: str, unit: str) -> str:
    return text if text == MISSING else f"{text}{NBSP}{unit}"


def failed(f: Failure) -> str:
    """Return what a failure is about: "X", "X on adb:Y", "X in openvino", or the device alone."""
    if not f.artifact:
        return f"{f.device} in {f.runtime}" if f.device and f.runtime else f.device or f.runtime
    where = f" on {f.device}" if f.device not in ("", "local") else ""
    return f.artifact + where + (f" in {f.runtime}" if f.runtime else "")


def megabytes(size_bytes: float | None) -> str:
    """Return a size in decimal megabytes, as stores and phones count them; below a tenth of one, in kilobytes."""
    if size_bytes is not None and 0 < size_bytes < 1e5:
        kb = size_bytes / 1e3
        return _with_unit(number(kb, 1 if kb < 10 else 0), "kB")
    mb = None if size_bytes is None else size_bytes / 1e6
    return _with_unit(number(mb, 1 if mb is None or mb >= 1 else 2), "MB")


def percent(fraction: float | None, digits: int = 1) -> str:
    """Return a fraction of 1 as a percentage, an em dash where there is none."""
    return _with_unit(number(None if fraction is None else fraction * 100, digits), "%")


def points(fraction: float | None) -> str:
    """Return a difference of two fractions in percentage points, without the unit."""
    return number(None if fraction is None else fraction * 100, 1)


def interval(ci95: tuple[float, float] | None) -> str:
    """Return an interval of fractions as percentages, without the unit."""
    return MISSING if ci95 is None else f"{points(ci95[0])} to {points(ci95[1])}"


def milliseconds(ms: float | None) -> str:
    """Return milliseconds with three significant digits."""
    digits = 0 if ms is None or ms >= 99.95 else 1 if ms >= 9.995 else 2
    return _with_unit(number(ms, digits), "ms")


def decibels(db: float | None) -> str:
    """Return decibels with one decimal."""
    return _with_unit(number(db, 1), "dB")


def times(ratio: float | None) -> str:
    """Return a ratio as "1.8×"."""
    return number(ratio, 2 if ratio is None or ratio < 9.995 else 1) + ("" if ratio is None else "×")


def p_value(p: float | None) -> str:
    """Return a p value, never as zero."""
    if p is None or not math.isfinite(p):
        return MISSING
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.995 else "p = 1"


def counted(n: int, noun: str) -> str:
    """Return "1 picture", "12 pictures"."""
    return f"{n} {noun}{'s' * (n != 1)}"
