"""Which photographs a folder holds and which class each belongs to; no pixel is read here.

class folders    DIR/<class>/**.jpg, <class> a WordNet id, a class name or an index
labels.csv       photographs and a table: file,label; the header is optional, files are relative to DIR
flat             photographs only, without labels
"""

import csv
import difflib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from edgenet.errors import InputError

LABELS_FILE = "labels.csv"
# .heic is not decodable, and listed all the same: such photographs are to be named, not silently left out.
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm",
              ".avif", ".heic", ".heif")  # fmt: skip
_SHOWN_EXTENSIONS = ".jpg, .png, .webp, .bmp, .gif, .tif"
_WNID_PREFIX = re.compile(r"(n\d{8})[-_ ]", re.IGNORECASE)

Entry = tuple[str, int | None]  # path relative to the folder, with /; class index


class Classes:
    """Looks up a class by what a person may write for it: WordNet id, class name or index, in this order."""

    def __init__(self, ids: Sequence[str], names: Sequence[str]) -> None:
        self.ids, self.names = tuple(ids), tuple(names)
        self.count = max(len(self.ids), len(self.names))
        self._by_id = {name.lower(): i for i, name in enumerate(self.ids)}
        self._by_name: dict[str, list[int]] = {}
        for i, name in enumerate(self.names):
            self._by_name.setdefault(_plain(name), []).append(i)

    def index_of(self, text: str) -> int:
        """Return the class index. Case does not matter, and underscores are spaces.

        Raises:
            InputError: no such class, or a name that two classes share. The message starts with the quoted text.
        """
        text = text.strip()
        if text.lower() in self._by_id:
            return self._by_id[text.lower()]
        found = self._by_name.get(_plain(text), [])
        if len(found) == 1:
            return found[0]
        if found:
            instead = " or ".join(self.ids[i] if i < len(self.ids) else str(i) for i in found)
            raise InputError(f"'{text}' is the name of {len(found)} classes: write {instead} instead")
        if text.isascii() and text.isdecimal() and (int(text) < self.count or not self.count):
            return int(text)
        prefix = _WNID_PREFIX.match(text)  # n02085620-Chihuahua, as Stanford Dogs has it
        if prefix and prefix[1].lower() in self._by_id:
            return self._by_id[prefix[1].lower()]
        raise InputError(f"'{text}' is not a class of this model{self._near(text)}; {self.valid()}")

    def knows(self, text: str) -> bool:
        try:
            self.index_of(text)
        except InputError:
            return False
        return True

    def valid(self) -> str:
        if not self.count:
            return "the model has no label list, so a class is written as its index"
        kinds = ["a WordNet id"] * bool(self.ids) + ["a class name"] * bool(self.names)
        return f"valid is {', '.join(kinds)} or an index 0 to {self.count - 1}"

    def _near(self, text: str) -> str:
        spelled = {key: self.names[i[0]] for key, i in self._by_name.items()} | {key: key for key in self._by_id}
        # "dog" is far from "golden retriever" in letters: near are also the names that hold it as a word.
        near = difflib.get_close_matches(_plain(text), spelled, n=3, cutoff=0.7)
        near += [key for key in self._by_name if _plain(text) in key.split() and key not in near]
        return f" (near: {', '.join(spelled[key] for key in near[:3])})" if near else ""


def list_folder(root: Path, classes: Classes) -> list[Entry]:
    """Return the photographs of a folder and their classes, in the order of their names.

    Raises:
        InputError: not a folder, nothing in it, kinds mixed, or a label that the model does not know.
    """
    if not os.path.exists(root):
        raise InputError(f"no folder {root}: --images takes a folder of photographs, or 'sample'")
    if not os.path.isdir(root):
        raise InputError(f"{root} is a file, not a folder: --images takes a folder of photographs, or 'sample'")
    loose, others = [], Counter[str]()
    folders: dict[str, list[str]] = {}
    for entry in _scan(root):
        if _is_dir(entry):
            folders[entry.name] = _walk(root, entry.name, others, frozenset())
        elif _is_image(entry.name):
            loose.append(entry.name)
        else:
            others[PurePosixPath(entry.name).suffix.lower() or "no extension"] += 1
    folders = {name: files for name, files in sorted(folders.items()) if files}
    if (root / LABELS_FILE).is_file():
        return _from_table(root, loose, folders, classes)
    if loose and folders:
        raise InputError(
            f"{root} mixes photographs ({min(loose)}) with folders of photographs ({next(iter(folders))}): "
            f"give a folder of class folders, or a flat folder with or without {LABELS_FILE}"
        )
    if folders:
        return _from_class_folders(root, folders, classes)
    if not loose:
        kinds = ", ".join(f"{n} x {kind}" for kind, n in others.most_common(3))
        raise InputError(
            f"no photographs in {root}: {'it holds only ' + kinds if kinds else 'it is empty'}; "
            f"put {_SHOWN_EXTENSIONS} files there, or give 'sample'"
        )
    return [(name, None) for name in sorted(loose)]


def class_names_in(root: Path) -> tuple[str, ...]:
    """Return the class names of a folder, sorted: its class folders, or the labels of its labels.csv.

    Raises:
        InputError: not a folder, or no photographs in it.
    """
    if (root / LABELS_FILE).is_file():
        return tuple(sorted({text for _, _, text in _read_table(root / LABELS_FILE) if text}))
    folders = [e.name for e in _scan(root) if _is_dir(e)] if os.path.isdir(root) else []
    names = tuple(sorted(name for name in folders if _walk(root, name, Counter(), frozenset())))
    if not names:
        list_folder(root, Classes((), ()))  # raises the fitting error
    return names


def _from_class_folders(root: Path, folders: dict[str, list[str]], classes: Classes) -> list[Entry]:
    entries: list[Entry] = []
    unknown: list[tuple[str, str]] = []
    for name, files in folders.items():
        try:
            index = classes.index_of(name)
        except InputError as e:
            unknown.append((name, str(e)))
            continue
        entries += [(file, index) for file in files]
    if unknown:
        name, why = unknown[0]
        more = [other for other, _ in unknown[1:]]
        also = f" (nor is {', '.join(more[:3])}{', ...' if len(more) > 3 else ''})" if more else ""
        # ImageNet and most others come as train/ and val/ with the class folders one level down.
        inside = {PurePosixPath(file).parts[1] for file in folders[name] if len(PurePosixPath(file).parts) > 2}
        if inside and all(classes.knows(folder) for folder in inside):
            raise InputError(f"{root} has its class folders one level down: give {root / name} as the folder of images")
        raise InputError(f"class folder {root / name}: {why}{also}; rename it, or give a flat folder to go unlabelled")
    return sorted(entries)


def _from_table(root: Path, loose: list[str], folders: dict[str, list[str]], classes: Classes) -> list[Entry]:
    path = root / LABELS_FILE
    rows = _read_table(path)
    labels: dict[str, int | None] = {}
    missing = []
    for line, file, text in rows:
        name = _find(root, file)
        if name is None:
            missing.append(file)
            continue
        try:
            label = classes.index_of(text) if text else None
        except InputError as e:
            raise InputError(f"{path}, line {line}: {e}") from None
        if labels.setdefault(name, label) != label:
            raise InputError(f"{path}, line {line}: {file} has two different labels; leave one")
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise InputError(
            f"{path} names {len(missing)} files that are not in {root}: {shown}; "
            "add them or delete their lines (files are relative to that folder)"
        )
    stray = [file for files in folders.values() for file in files if file not in labels]
    if stray:
        raise InputError(
            f"{root} has a {LABELS_FILE} and folders of photographs that it does not list ({stray[0]}): "
            f"list them there, or delete {LABELS_FILE} to go by class folders"
        )
    entries = dict.fromkeys(loose) | labels  # a photograph without a line stays, unlabelled
    if not entries:
        raise InputError(f"no photographs in {root}, and {LABELS_FILE} lists none: write a line file,label for each")
    return sorted(entries.items())


def _read_table(path: Path) -> list[tuple[int, str, str]]:
    # (line number, file, label), without the header.
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text: save it as 'CSV UTF-8'") from None
    except OSError as e:
        raise InputError(f"cannot read {path}: {e.strerror}; give a file that you may read") from None
    first = text.partition("\n")[0]
    delimiter = next((d for d in ",;\t" if d in first), ",")  # spreadsheets write ; where the comma is decimal
    reader = csv.reader(text.splitlines(), delimiter=delimiter, skipinitialspace=True)
    rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(cell.strip() for cell in row)]
    file_column, label_column, n_columns = 0, 1, 2
    if rows and not _is_image(rows[0][1][0]) and _find(path.parent, rows[0][1][0]) is None:
        header = [cell.lower() for cell in rows.pop(0)[1]]
        n_columns = len(header)
        if "file" in header and "label" in header:
            file_column, label_column = header.index("file"), header.index("label")
        elif n_columns != 2:
            raise InputError(f"{path} has columns {', '.join(header)}: name two of them file and label")
    out = []
    for line, row in rows:
        if len(row) != n_columns or n_columns < 2:
            raise InputError(
                f"{path}, line {line}: {len(row)} fields where {max(n_columns, 2)} belong (file,label); "
                "quote a label that holds a comma"
            )
        out.append((line, row[file_column], row[label_column]))
    return out


def _find(root: Path, file: str) -> str | None:
    for name in (file, file.replace("\\", "/")):
        name = os.path.normpath(name)
        if file and "\0" not in name and (root / name).is_file():
            return name
    return None


def _walk(root: Path, folder: str, others: "Counter[str]", above: frozenset[str]) -> list[str]:
    # The photographs below root/folder, relative to root.
    real = os.path.realpath(root / folder)
    if real in above:  # a link to a folder above
        return []
    files = []
    for entry in _scan(root / folder):
        name = f"{folder}/{entry.name}"
        if _is_dir(entry):
            files += _walk(root, name, others, above | {real})
        elif _is_image(entry.name):
            files.append(name)
        else:
            others[PurePosixPath(entry.name).suffix.lower() or "no extension"] += 1
    return sorted(files)


def _scan(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return [e for e in entries if not e.name.startswith(".") and e.name != "__MACOSX"]
    except OSError as e:
        raise InputError(f"cannot read folder {folder}: {e.strerror}; give a folder that you may read") from None


def _is_dir(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; with the name of an image it is one that cannot be read
        return False


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).casefold().replace("_", " ").split())
