"""What tflite-micro prints, read: the memory that a file needs, and why it does not take one. Pure functions."""

import re

# What the allocator calls each part, and what it is to a reader. The rest of the arena is alignment and small tables.
_PARTS = {
    "TfLiteEvalTensor data": "tensors",
    "Persistent TfLiteTensor data": "tensors",
    "Persistent TfLiteTensor quantization data": "tensors",
    "Persistent buffer data": "kernel data",
    "NodeAndRegistration struct": "operators",
}
LACKED = "tflite-micro has no such operator"
ACTIVATIONS, REST = "activations", "other"
_SHORT = ("Failed to resize buffer", "Failed to allocate tail memory", "Failed to allocate memory", "too small")
_NOISE = re.compile(r"^(Node \S+ \(number \d+\) failed|\[RecordingMicroAllocator\]|Failed to initialize)")
_MISSING = re.compile(r"^Didn't find op for builtin opcode '")
_PLACE = re.compile(r"^\S*tensorflow/lite/\S+\.(cc|h)(:\d+)?:?\s*")


def arena_bytes(log: str) -> dict[str, int]:
    """Return the arena by purpose, in bytes, from what `print_allocations` printed last; {} where it is not there.

    The sum is the smallest arena with which the file runs. "activations" are reused from layer to layer; the rest is
    kept: what kernels have worked out ("kernel data"), and a record a tensor and an operator.
    """
    totals = re.findall(r"Arena allocation (total|head) (\d{1,15}) bytes", log)
    last = {name: int(n) for name, n in totals}
    if set(last) != {"total", "head"}:
        return {}
    found = {ACTIVATIONS: last["head"]}
    kinds = {name: int(n) for name, n in re.findall(r"'([^']+)' used (\d{1,15}) bytes", log)}  # the last of each
    for name, n in kinds.items():
        part = _PARTS.get(name, REST)
        found[part] = found.get(part, 0) + n
    found[REST] = last["total"] - sum(n for part, n in found.items() if part != REST)
    return {part: n for part, n in found.items() if n}


def wants_more(log: str) -> bool:
    """Tell whether an arena was too small, from what tflite-micro printed."""
    return any(words in log for words in _SHORT)


def reason(log: str) -> str:
    """Return why tflite-micro does not take an operator or a file, in a line, "" where it did not say."""
    lines = [_PLACE.sub("", line.strip()) for line in log.splitlines() if not _NOISE.match(line.strip())]
    if any(_MISSING.match(line) for line in lines):
        return LACKED
    return "; ".join(dict.fromkeys(line for line in lines if line))[:300]
