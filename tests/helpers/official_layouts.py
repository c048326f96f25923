"""Data sets in the layouts in which their authors hand them out, of pictures of tiny's five colours.

Each function writes one and returns what should be found in it: {split: {content of a picture's file: class}}. CIFAR's
content is the pixels, since its pictures are written by the reader.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from helpers import tiny

Found = dict[str, dict[bytes, int]]
COLOURS = ("red", "green", "blue", "yellow", "grey")


def _pictures(splits: Mapping[str, int], px: int = 48) -> list[tuple[str, int, np.ndarray]]:
    """Return (split, class, pixels) of so many pictures a class in each split."""
    rng = np.random.default_rng(5)
    return [(s, c, tiny.picture(c, rng, px)) for s, n in splits.items() for c in range(tiny.CLASSES) for _ in range(n)]


def _save(path: Path, pixels: np.ndarray) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=92)
    return path.read_bytes()


def flowers102(root: Path, per_class: Mapping[str, int] | None = None) -> Found:
    """Flowers: class 0 to 4 of 102."""
    found: Found = {"train": {}, "valid": {}, "test": {}}
    ids: dict[str, list[int]] = {s: [] for s in found}
    pictures = _pictures(per_class or {"train": 4, "valid": 2, "test": 3})
    order = np.random.default_rng(1).permutation(len(pictures))  # numbers do not follow classes
    labels = np.zeros(len(pictures), np.uint8)
    for i, (split, c, pixels) in zip(order, pictures, strict=True):
        content = _save(root / "jpg" / f"image_{i + 1:05d}.jpg", pixels)
        found[split][content] = labels[i] = c
        ids[split].append(int(i) + 1)
    savemat(root / "imagelabels.mat", {"labels": labels[None] + np.uint8(1)}, do_compression=True)
    keys = {"train": "trnid", "valid": "valid", "test": "tstid"}
    savemat(root / "setid.mat", {keys[s]: np.array([n], np.uint16) for s, n in ids.items()}, do_compression=True)
    return found


def flowers_of_folders(train: Path, test: Path, root: Path) -> None:
    """Write the official layout of class folders 000 to 101; every second picture of `train` validates."""
    (root / "jpg").mkdir(parents=True)
    labels, ids = np.ones((1, 8189), np.uint8), dict[str, list[int]](trnid=[], valid=[], tstid=[])
    for folder in (train, test):
        for i, file in enumerate(sorted(folder.glob("*/*.jpg"))):
            number = int(re.findall(r"\d+", file.stem)[-1])
            labels[0, number - 1] = int(file.parent.name) + 1
            ids["tstid" if folder == test else ("trnid", "valid")[i % 2]].append(number)
            shutil.copyfile(file, root / "jpg" / f"image_{number:05d}.jpg")
    savemat(root / "imagelabels.mat", {"labels": labels})
    savemat(root / "setid.mat", {name: np.array([n], np.uint16) for name, n in ids.items()})


def _cifar(root: Path, files: Mapping[str, str], before: bytes, names: str, per_class: Mapping[str, int]) -> Found:
    found: Found = {"train": {}, "test": {}}
    data = dict.fromkeys(files, b"")
    batches: dict[str, list[str]] = {s: [f for f, of in files.items() if of == s] for s in found}
    root.mkdir(parents=True, exist_ok=True)
    for i, (split, c, pixels) in enumerate(_pictures(per_class, 32)):
        found[split][pixels.tobytes()] = c
        data[batches[split][i % len(batches[split])]] += before + bytes([c]) + pixels.transpose(2, 0, 1).tobytes()
    for name, content in data.items():
        (root / name).write_bytes(content)
    (root / names).write_text("\n".join(COLOURS) + "\n\n")
    return found


def cifar10(root: Path) -> Found:
    files = {**{f"data_batch_{i}.bin": "train" for i in range(1, 6)}, "test_batch.bin": "test"}
    return _cifar(root, files, b"", "batches.meta.txt", {"train": 5, "test": 2})


def cifar100(root: Path) -> Found:
    files = {"train.bin": "train", "test.bin": "test"}
    return _cifar(root, files, b"\x13", "fine_label_names.txt", {"train": 4, "test": 2})


def pets(root: Path, per_class: Mapping[str, int] | None = None) -> Found:
    """Pets: breeds of two words, whose numbers are not in the order of their names."""
    found: Found = {"trainval": {}, "test": {}}
    lines: dict[str, list[str]] = {s: [] for s in found}
    for i, (split, c, pixels) in enumerate(_pictures(per_class or {"trainval": 6, "test": 3})):
        name = f"{COLOURS[c]}_cat_{i}"
        found[split][_save(root / "images" / f"{name}.jpg", pixels)] = c
        lines[split].append(f"{name} {c + 1} 1 {c + 1}")
    for split, of in lines.items():
        path = root / "annotations" / f"{split}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("#Image CLASS-ID SPECIES BREED ID\n" + "\n".join(of) + "\n")
    return found


def food101(root: Path) -> Found:
    found: Found = {"train": {}, "test": {}}
    lines: dict[str, list[str]] = {s: [] for s in found}
    folders = [f"{colour}_pie" for colour in COLOURS]
    for i, (split, c, pixels) in enumerate(_pictures({"train": 3, "test": 1})):
        found[split][_save(root / "images" / folders[c] / f"{i}.jpg", pixels)] = c
        lines[split].append(f"{folders[c]}/{i}")
    (root / "meta").mkdir()
    (root / "meta" / "classes.txt").write_text("\n".join(folders))
    for split, of in lines.items():
        (root / "meta" / f"{split}.txt").write_text("\n".join(of))
    return found


def aircraft(root: Path) -> Found:
    found: Found = {"train": {}, "val": {}, "test": {}}
    lines: dict[str, list[str]] = {s: [] for s in found}
    for i, (split, c, pixels) in enumerate(_pictures({"train": 2, "val": 1, "test": 1})):
        found[split][_save(root / "data" / "images" / f"{i:07d}.jpg", pixels)] = c
        lines[split].append(f"{i:07d} {COLOURS[c]} 707-320")
    (root / "data" / "variants.txt").write_text("".join(f"{colour} 707-320\n" for colour in COLOURS))
    for split, of in lines.items():
        (root / "data" / f"images_variant_{split}.txt").write_text("\n".join(of))
    return found


def cars(root: Path) -> Found:
    found: Found = {"train": {}, "test": {}}
    rows: dict[str, list[tuple[int, str]]] = {s: [] for s in found}
    for i, (split, c, pixels) in enumerate(_pictures({"train": 2, "test": 1})):
        found[split][_save(root / f"cars_{split}" / f"{i:05d}.jpg", pixels)] = c
        rows[split].append((c + 1, f"{i:05d}.jpg"))
    (root / "devkit").mkdir()
    names = np.empty((1, len(COLOURS)), object)
    names[0] = [f"{colour} Coupe 2012" for colour in COLOURS]
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": names})
    kinds = [("bbox_x1", "O"), ("class", "O"), ("fname", "O")]
    for split, of in rows.items():
        table = np.array([(7, c, name) for c, name in of], kinds)[None]
        place = "devkit/cars_train_annos.mat" if split == "train" else "cars_test_annos_withlabels.mat"
        savemat(root / place, {"annotations": table})
    return found
