"""How the authors of data sets lay them out: which files there are, which class each picture has, and its split.

Each reader takes the folder and the splits that are wanted, and gives the class names and the pictures. Labels are
0-based here, in the order of the data set's own.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from edgenet.door import read_text
from edgenet.errors import InputError
from edgenet.images.official import cifar, mat_file

TEST = "test"
Entry = tuple[str, int]  # a picture's file, and the index of its class
Read = tuple[tuple[str, ...], list[Entry]]  # names of the classes, pictures


@dataclass(frozen=True)
class Layout:
    """A data set as it is handed out.

    Attributes:
        title: what table 5 of the EfficientNet paper calls it.
        page: where it is to be had.
        inside: folders of its archives that the user's folder may hold.
        files: what has to be there, and the archive or file that brings it.
        splits: the official ones; all but the last, `test`, teach and calibrate.
        read: (folder, splits) -> class names and pictures, whose files are whole paths.
        refused: a file that is not read, and why.
    """

    title: str
    page: str
    inside: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    splits: tuple[str, ...]
    read: Callable[[Path, Sequence[str]], Read]
    refused: tuple[tuple[str, str], ...] = ()

    @property
    def learning(self) -> tuple[str, ...]:
        """The splits that teach and calibrate."""
        return tuple(s for s in self.splits if s != TEST)

    def root(self, folder: Path) -> Path:
        """Return the folder that holds the files: the user's, or one inside.

        Raises:
            InputError: no such folder, or files are missing; it says which, and where they are to be had.
        """
        if not folder.is_dir():
            raise InputError(f"no folder {folder}: put {self.title} there, from {self.page}")
        places = [folder, *(folder / name for name in self.inside)]
        for place in places:
            if all((place / name).exists() for name, _ in self.files):
                return place
        for place in places:
            for name, why in self.refused:
                if (place / name).exists():
                    raise InputError(f"{place / name} is {why}, from {self.page}")
        root = next((p for p in places if any((p / name).exists() for name, _ in self.files)), folder)
        missing = [(name, archive) for name, archive in self.files if not (root / name).exists()]
        names = ", ".join(name for name, _ in missing)
        archives = " and ".join(dict.fromkeys(archive for _, archive in missing))
        raise InputError(f"{root} has no {names}: get {archives} from {self.page}")


def _pictures(root: Path, entries: Sequence[tuple[str, int]], archive: str) -> list[Entry]:
    """Return pictures as whole paths. Raises InputError where some are not there, or are outside of the folder."""
    outside = [name for name, _ in entries if not _is_within(name)]
    if outside:
        raise InputError(f"{root}: its list names {outside[0][:80]!r}, which is not inside: get the list again")
    missing = [name for name, _ in entries if not os.path.isfile(root / name)]
    if missing:
        shown = ", ".join(missing[:3]) + ", ..." * (len(missing) > 3)
        raise InputError(f"{root} lacks {len(missing)} of {len(entries)} pictures ({shown}): unpack {archive} again")
    return [(os.path.abspath(root / name), label) for name, label in entries]


def _is_within(name: str) -> bool:
    return bool(name) and "\0" not in name and not PurePosixPath(name).is_absolute() and ".." not in name.split("/")


def _lines(path: Path) -> list[str]:
    """Return the lines of a list that hold something and are no comment."""
    lines = [line.strip() for line in read_text(path).split("\n")]
    return [line for line in lines if line and not line.startswith("#")]


def _label(path: Path, number: int, classes: int, first: int = 1) -> int:
    """Return the 0-based class. Raises InputError where there is none of this number."""
    if not first <= number < first + classes:
        raise InputError(f"{path}: class {number} of {classes}: get it again")
    return number - first


def _flowers(root: Path, splits: Sequence[str]) -> Read:
    """jpg/image_00001.jpg and on; imagelabels.mat has a class for each, setid.mat the numbers of each split."""
    keys = {"train": "trnid", "valid": "valid", "test": "tstid"}
    names = tuple(_lines(Path(__file__).with_name("flowers102.txt")))
    ids_file, labels_file = root / "setid.mat", root / "imagelabels.mat"
    ids = mat_file.whole_numbers(ids_file, tuple(keys.values()))
    labels = mat_file.whole_numbers(labels_file, ["labels"])["labels"]
    entries = []
    for number in (n for split in splits for n in ids[keys[split]]):
        if not 1 <= number <= len(labels):
            raise InputError(f"{ids_file} names picture {number}, and {labels_file} has {len(labels)}: get both again")
        label = _label(labels_file, labels[number - 1], len(names))
        entries.append((f"image_{number:05d}.jpg", label))
    return names, _pictures(root / "jpg", entries, "102flowers.tgz")


def _pets(root: Path, splits: Sequence[str]) -> Read:
    """images/Abyssinian_1.jpg and on; annotations/SPLIT.txt has lines of `Abyssinian_1 1 1 1`.

    That is name, class, kind and breed; the class's name is what stands before the number in a picture's name.
    """
    names: dict[int, str] = {}
    wanted: list[tuple[str, int]] = []
    for split in ("trainval", TEST):  # both, so that the classes do not depend on what is wanted
        path = root / "annotations" / f"{split}.txt"
        for line in _lines(path):
            found = re.fullmatch(r"(\S+)_(\d+) (\d{1,4}) \d \d+", line)
            if not found:
                raise InputError(f"{path}: '{line[:80]}' is no line of name, class, kind and breed: get it again")
            breed, number = found[1].replace("_", " "), int(found[3])
            if names.setdefault(number, breed) != breed:
                raise InputError(f"{path}: class {number} is both {names[number]} and {breed}: get it again")
            if split in splits:
                wanted.append((f"{found[1]}_{found[2]}.jpg", number))
    order = sorted(names)
    entries = [(file, order.index(number)) for file, number in wanted]
    return tuple(names[n] for n in order), _pictures(root / "images", entries, "images.tar.gz")


def _food(root: Path, splits: Sequence[str]) -> Read:
    """images/apple_pie/1005649.jpg and on; meta/SPLIT.txt has lines of `apple_pie/1005649`."""
    folders = _lines(root / "meta" / "classes.txt")
    index = {name: i for i, name in enumerate(folders)}
    entries = []
    for split in splits:
        path = root / "meta" / f"{split}.txt"
        for line in _lines(path):
            name = line.partition("/")[0]
            if name not in index:
                raise InputError(f"{path}: '{line[:80]}' is of no class of meta/classes.txt: get food-101.tar.gz again")
            entries.append((f"{line}.jpg", index[name]))
    names = tuple(name.replace("_", " ") for name in folders)
    return names, _pictures(root / "images", entries, "food-101.tar.gz")


def _aircraft(root: Path, splits: Sequence[str]) -> Read:
    """data/images/0034309.jpg and on; data/images_variant_SPLIT.txt has lines of `1025794 707-320`, its variant."""
    data = root / "data"
    names = tuple(_lines(data / "variants.txt"))
    index = {name: i for i, name in enumerate(names)}
    entries = []
    for split in splits:
        path = data / f"images_variant_{split}.txt"
        for line in _lines(path):
            picture, _, variant = line.partition(" ")
            if variant not in index:
                raise InputError(f"{path}: '{line[:80]}' is of no variant of variants.txt: get it again")
            entries.append((f"{picture}.jpg", index[variant]))
    return names, _pictures(data / "images", entries, "fgvc-aircraft-2013b.tar.gz")


def _cars(root: Path, splits: Sequence[str]) -> Read:
    """cars_train/00001.jpg and on; a .mat file for each split has the name and the class of each."""
    tables = {"train": root / "devkit" / "cars_train_annos.mat", TEST: root / "cars_test_annos_withlabels.mat"}
    names = tuple(mat_file.texts(root / "devkit" / "cars_meta.mat", "class_names"))
    entries: list[Entry] = []
    for split in splits:
        found = mat_file.columns(tables[split], "annotations", ("fname", "class"))
        if not all(isinstance(file, str) for file in found["fname"]):
            raise InputError(f"{tables[split]}: fname is no list of names: get it again")
        labels = [_label(tables[split], number, len(names)) for number in found["class"]]
        here = list(zip(found["fname"], labels, strict=True))
        entries += _pictures(root / f"cars_{split}", here, f"cars_{split}.tgz")
    return names, entries


_CIFAR = "https://www.cs.toronto.edu/~kriz/cifar.html"
_PICKLE = "the version for Python, a pickle, and pickles run code: get {}"
_DEVKIT, _CARS_TEST = "car_devkit.tgz", "cars_test_annos_withlabels.mat"

LAYOUTS: dict[str, Layout] = {
    "flowers102": Layout(
        "Flowers", "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/", ("flowers-102", "102flowers"),
        (("jpg", "102flowers.tgz"), ("imagelabels.mat", "imagelabels.mat"), ("setid.mat", "setid.mat")),
        ("train", "valid", TEST), _flowers,
    ),
    "cifar10": Layout(
        "CIFAR-10", _CIFAR, ("cifar-10-batches-bin", "cifar-10-batches-py"),
        tuple((name, "cifar-10-binary.tar.gz") for name in cifar.CIFAR_10.files),
        ("train", TEST), partial(cifar.read, cifar.CIFAR_10),
        (("data_batch_1", _PICKLE.format("cifar-10-binary.tar.gz")),),
    ),
    "cifar100": Layout(
        "CIFAR-100", _CIFAR, ("cifar-100-binary", "cifar-100-python"),
        tuple((name, "cifar-100-binary.tar.gz") for name in cifar.CIFAR_100.files),
        ("train", TEST), partial(cifar.read, cifar.CIFAR_100),
        (("meta", _PICKLE.format("cifar-100-binary.tar.gz")),),
    ),
    "pets": Layout(
        "Oxford-IIIT Pets", "https://www.robots.ox.ac.uk/~vgg/data/pets/", ("oxford-iiit-pet",),
        (("images", "images.tar.gz"), ("annotations/trainval.txt", "annotations.tar.gz"),
         ("annotations/test.txt", "annotations.tar.gz")),
        ("trainval", TEST), _pets,
    ),
    "food101": Layout(
        "Food-101", "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/", ("food-101",),
        tuple((name, "food-101.tar.gz") for name in ("images", "meta/classes.txt", "meta/train.txt", "meta/test.txt")),
        ("train", TEST), _food,
    ),
    "aircraft": Layout(
        "FGVC Aircraft", "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/", ("fgvc-aircraft-2013b",),
        tuple((f"data/{name}", "fgvc-aircraft-2013b.tar.gz") for name in (
            "images", "variants.txt", "images_variant_train.txt", "images_variant_val.txt", "images_variant_test.txt")),
        ("train", "val", TEST), _aircraft,
    ),
    "cars": Layout(
        "Stanford Cars", "https://ai.stanford.edu/~jkrause/cars/car_dataset.html", ("stanford_cars",),
        (("cars_train", "cars_train.tgz"), ("cars_test", "cars_test.tgz"), ("devkit/cars_meta.mat", _DEVKIT),
         ("devkit/cars_train_annos.mat", _DEVKIT), (_CARS_TEST, _CARS_TEST)),
        ("train", TEST), _cars,
    ),
}  # fmt: skip
