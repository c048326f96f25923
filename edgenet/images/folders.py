"""Which photographs a folder holds and which class each belongs to; no pixel is read here.

class folders    DIR/<class>/**.jpg, <class> a WordNet id, a class name or an index
labels.csv       photographs and a table: file,label; the header is optional, files are relative to DIR
flat             photographs only, without labels

In the first two class-map.txt can say what a folder or a label stands for (class_map.py). For a network of several
labels a picture, labels.csv separates them by |; a line without a label says that the picture has none of them.
"""

import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from edgenet.door import read_rows
from edgenet.errors import InputError
from edgenet.images.class_map import CLASS_MAP_FILE, ClassMap, read_class_map
from edgenet.images.class_names import Classes

LABELS_FILE = "labels.csv"
# .heic is not decodable, and listed all the same: such photographs are to be named, not silently left out.
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm",
              ".avif", ".heic", ".heif")  # fmt: skip
_SHOWN_FOLDERS = 4  # unknown class folders that an error names
_SHOWN_EXTENSIONS = ".jpg, .png, .webp, .bmp, .gif, .tif"

# Path relative to the folder, with /; class index, or several of them.
Entry = tuple[str, int | tuple[int, ...] | None]


def list_folder(root: Path, classes: Classes, *, several: bool = False) -> list[Entry]:
    """Return the photographs of a folder and their classes, in the order of their names.

    Args:
        several: a picture may have several labels: each class is a tuple then.

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
    labels = ClassMap(root / CLASS_MAP_FILE, classes) if several else _class_map(root, classes)
    if (root / LABELS_FILE).is_file():
        return _from_table(root, loose, folders, labels, several)
    if loose and folders:
        raise InputError(
            f"{root} mixes photographs ({min(loose)}) with folders of photographs ({next(iter(folders))}): "
            f"give a folder of class folders, or a flat folder with or without {LABELS_FILE}"
        )
    if folders:
        found = _from_class_folders(root, folders, labels)
        return [(file, (label,)) for file, label in found] if several else [*found]
    if not loose:
        kinds = ", ".join(f"{n} x {kind}" for kind, n in others.most_common(3))
        raise InputError(
            f"no photographs in {root}: {'it holds only ' + kinds if kinds else 'it is empty'}; "
            f"put {_SHOWN_EXTENSIONS} files there, or give 'sample'"
        )
    return [(name, None) for name in sorted(loose)]


def count_photographs(root: Path) -> int:
    """Return how many files below a folder are photographs by their names."""
    return sum(_is_image(name) for _, _, names in os.walk(root) for name in names)


def class_groups(root: Path, classes: Classes) -> dict[str, tuple[int, ...]]:
    """Return the folders, or labels, that stand for several classes. `list_folder` gives each the first as its class.

    Raises:
        InputError: as `list_folder`, for a class map that makes no sense.
    """
    return _class_map(root, classes).groups


def _class_map(root: Path, classes: Classes) -> ClassMap:
    # Where the model's classes are the folder's own, there is nothing to map: it learned the folders as they are.
    if (root / CLASS_MAP_FILE).is_file():
        there = class_names_in(root)
        if set(there) != set(classes.names):
            return read_class_map(root / CLASS_MAP_FILE, classes, there)
    return ClassMap(root / CLASS_MAP_FILE, classes)


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


def _from_class_folders(root: Path, folders: dict[str, list[str]], labels: ClassMap) -> list[tuple[str, int]]:
    entries: list[tuple[str, int]] = []
    unknown: dict[str, str] = {}
    for name, files in folders.items():
        try:
            index = labels.index_of(name)
        except InputError as e:
            unknown[name] = str(e)
            continue
        entries += [(file, index) for file in files]
    if unknown:
        raise InputError(_unknown_folders(root, folders, unknown, labels.classes))
    return sorted(entries)


def _unknown_folders(root: Path, folders: Mapping[str, list[str]], why: Mapping[str, str], classes: Classes) -> str:
    """Return what is wrong with class folders that are no class, and what to do.

    Args:
        why: what `Classes.index_of` says of each, by name.
    """
    first = next(iter(why))
    # ImageNet and most others come as train/ and val/ with the class folders one level down.
    inside = {PurePosixPath(file).parts[1] for file in folders[first] if len(PurePosixPath(file).parts) > 2}
    if inside and all(classes.knows(folder) for folder in inside):
        return f"{root} has its class folders one level down: give {root / first} as the folder of images"
    if len(why) == 1:
        wrong, rename, stand = f"class folder {root / first}: {why[first]}", "rename it", "it stands"
    else:
        some = [text.removesuffix(f"; {classes.valid()}") for text in list(why.values())[:_SHOWN_FOLDERS]]
        more = [f"and {len(why) - len(some)} more"] * (len(why) > len(some))
        wrong = f"{len(why)} class folders of {root}: {', '.join([*some, *more])}; {classes.valid()}"
        rename, stand = "rename them", "they stand"
    if not classes.count:
        return f"{wrong}; {rename}, or give a flat folder to go unlabelled"
    if classes.ids == tuple(map(str, range(classes.count))):  # as export.network.classes_of has it
        return (
            f"{wrong}; the model file does not name its {classes.count} classes: --labels FILE of `edgenet run` does, "
            "one name a line in the order of the outputs; or give a flat folder to go unlabelled"
        )
    line = next((line for name in why if (line := _line_of_map(name, classes))), f"`{first} = class, class`")
    return (
        f"{wrong}; {rename} (`edgenet classes WORD` finds names), or write what {stand} for into "
        f"{root / CLASS_MAP_FILE}, e.g. {line}, or give a flat folder to go unlabelled; "
        "own classes? `edgenet finetune` learns them"
    )


def _line_of_map(name: str, classes: Classes) -> str:
    """Return a line for the class map that makes sense for this folder, "" where there is none."""
    try:
        if classes.all_of(name):
            return f"`{name} = {name}` for all kinds of it"
    except InputError:
        pass
    return next((f"`{name} = {classes.unique_name(m.index)}`" for m in classes.matches(name)), "")


def _from_table(
    root: Path, loose: list[str], folders: dict[str, list[str]], classes: ClassMap, several: bool
) -> list[Entry]:
    path = root / LABELS_FILE
    rows = _read_table(path)
    labels: dict[str, int | tuple[int, ...] | None] = {}
    missing = []
    for line, file, text in rows:
        name = _find(root, file)
        if name is None:
            missing.append(file)
            continue
        try:
            label = _several(text, classes) if several else classes.index_of(text) if text else None
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
    entries: dict[str, int | tuple[int, ...] | None] = dict.fromkeys(loose)
    entries |= labels  # a photograph without a line stays, unlabelled
    if not entries:
        raise InputError(f"no photographs in {root}, and {LABELS_FILE} lists none: write a line file,label for each")
    return sorted(entries.items())


def _several(text: str, classes: ClassMap) -> tuple[int, ...]:
    return tuple(sorted({classes.index_of(label.strip()) for label in text.split("|") if label.strip()}))


def _read_table(path: Path) -> list[tuple[int, str, str]]:
    # (line number, file, label), without the header.
    rows = read_rows(path, ",;\t")  # spreadsheets write ; where the comma is decimal
    file_column, label_column, n_columns = 0, 1, 2
    if rows and not _is_image(rows[0][1][0]) and _find(path.parent, rows[0][1][0]) is None:
        header = [cell.lower() for cell in rows.pop(0)[1]]
        if not rows:
            shown = " ".join(",".join(header).split())[:80]
            raise InputError(f"{path} has no line but '{shown}': write a line file,label for each picture")
        n_columns = len(header)
        if "file" in header and "label" in header:
            file_column, label_column = header.index("file"), header.index("label")
        elif n_columns != 2:
            shown = " ".join(", ".join(header).split())[:200]
            raise InputError(f"{path} has columns {shown}: name two of them file and label")
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
        if os.path.isabs(name):
            name = os.path.relpath(name, os.path.abspath(root))
        if name.split(os.sep)[0] == os.pardir:  # a table says what is in its own folder
            continue
        with suppress(OSError):  # a name that is too long for any file
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
