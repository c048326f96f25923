"""Names of a model's classes: from the user's file, from the model file itself, or the default."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgenet.door import read_rows, read_text
from edgenet.errors import EdgenetError, InputError
from edgenet.export import metadata
from edgenet.export.network import classes_of
from edgenet.sandbox.apart import printable, read_apart
from edgenet.tasks import CLASSES, Task

NO_YES = ("no", "yes")  # the classes of one sigmoid that nobody named


def class_labels(
    n: int, file: Path | None, inside: Sequence[str] | None = None, task: Task = CLASSES
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return ids and names of `n` classes: the user's file's, or what the model carries, or the default.

    Raises:
        InputError: the file cannot be read, or does not have `n` names.
    """
    ids, names = (NO_YES, NO_YES) if task.kind == "binary" else classes_of(n)
    if file is not None:
        return read_labels(file, n)
    if inside is None or len(inside) != n or tuple(inside) == names:
        return ids, names
    return _ids_and_names(tuple(inside))


def read_labels(file: Path, n: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return ids and names of `n` classes from a text file, a name a line, or CSV index,wnid,name."""
    text = read_text(file, option="--labels", remedy="give one name a line, or CSV index,wnid,name")
    lines = [line.strip() for line in text.strip("\n").split("\n")] if text.strip("\n") else []
    if lines and [c.strip() for c in lines[0].lower().split(",")] == ["index", "wnid", "name"]:
        rows = [cells for _, cells in read_rows(file)[1:]]
        bad = next((r for r in rows if len(r) != 3 or not re.fullmatch("[0-9]{1,9}", r[0])), None)
        if bad is not None or [int(r[0]) for r in rows] != list(range(len(rows))):
            wrong = f"the row '{','.join(bad)[:80]}'" if bad else "rows out of order"
            raise InputError(f"--labels {file} has {wrong}: give index,wnid,name with the indices 0, 1, 2, ...")
        ids, names = tuple(r[1].strip() for r in rows), tuple(r[2].strip() for r in rows)
    else:
        ids, names = _ids_and_names(tuple(lines))
    if len(names) != n:
        raise InputError(
            f"--labels {file} has {len(names)} name{'s' * (len(names) != 1)}, the model {n} classes: give one name for "
            "each, in order"
        )
    if "" in names:
        raise InputError(f"--labels {file}: the name of class {names.index('')} is empty: give one for each class")
    return ids, names


def own_names(own: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a file's classes: those of its outputs, and before one sigmoid's that of no."""
    task = own.get("task")
    before = [task["negative"]] if isinstance(task, dict) and isinstance(task.get("negative"), str) else []
    return (*before, *names)


def _ids_and_names(lines: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Take lines of "n01440764 tench" apart, if all are such."""
    split = [re.fullmatch(r"(n\d{8})(?:[\s,:]+(.*))?", line) for line in lines]
    if lines and all(split):
        return tuple(m[1] for m in split if m), tuple(m[2] or m[1] for m in split if m)
    return lines, lines


def labels_in(path: Path) -> tuple[str, ...] | None:
    """Return the outputs' names that a .tflite, .onnx or OpenVINO .xml file carries, None where there are none."""
    try:
        found = read_apart("edgenet.export.importers.labels:labels_here", path, {"path": str(path)})
    except EdgenetError:  # names are not worth an error
        return None
    whole = isinstance(found, list) and all(isinstance(name, str) for name in found)
    return tuple(map(printable, found)) if whole and found else None


def labels_here(path: str) -> list[str]:
    """Return the same, as a list; read in this process."""
    file, text = Path(path), None
    try:
        if file.suffix.lower() == ".tflite":
            stored = metadata.read_files(file.read_bytes()).get(metadata.LABELS_FILE)
            text = stored.decode("utf-8", "replace") if stored else None
        elif file.suffix.lower() == ".onnx":
            import onnx

            properties = onnx.load(path, load_external_data=False).metadata_props
            text = next((p.value for p in properties if p.key == "labels"), None)
        elif file.suffix.lower() == ".xml":
            from xml.etree import ElementTree

            element = ElementTree.parse(file).find("./rt_info/labels")
            text = "\n".join(json.loads(element.get("value", "[]"))) if element is not None else None
    except (ImportError, OSError, ValueError, SyntaxError):
        return []
    return text.splitlines() if text else []
