"""class-map.txt in a folder of images: what a class folder, or a label of labels.csv, stands for.

A line is `folder = class, class, ...`; # begins a comment. A class is written as everywhere (class_names.py), and a
wider word takes in all classes that are a kind of it: `dog = dog` accepts every breed. An answer is right if it is one
of the classes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgenet.door import read_text
from edgenet.errors import InputError
from edgenet.images.class_names import Classes, plain

CLASS_MAP_FILE = "class-map.txt"


@dataclass(frozen=True)
class ClassMap:
    """Looks up labels: by the lines of a map, else by the model's classes alone.

    `lines`: folder as `plain` has it -> (as it was written, the classes that it stands for, the lowest first).
    """

    path: Path
    classes: Classes
    lines: Mapping[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)

    @property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """The folders that stand for more than one class."""
        return {name: accepted for name, accepted in self.lines.values() if len(accepted) > 1}

    def index_of(self, text: str) -> int:
        """Return the class of a folder; of several, the first. Raises InputError as `Classes.index_of`."""
        line = self.lines.get(plain(text))
        return line[1][0] if line else self.classes.index_of(text)


def read_class_map(path: Path, classes: Classes, labels: Iterable[str]) -> ClassMap:
    """Read a class map.

    Args:
        labels: the class folders or labels that there are.

    Raises:
        InputError: it cannot be read, a line is none, or names a folder or a class that is not there; folders overlap.
    """
    there = {plain(name): name for name in labels}
    lines: dict[str, tuple[str, tuple[int, ...]]] = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        name, equals, right = (part.strip() for part in text.partition("="))
        words = [word.strip() for word in right.split(",") if word.strip()]
        where = f"{path}, line {number}"
        if not (name and equals and words):
            raise InputError(f"{where}: '{text}' is no line of a class map: write folder = class, class, ...")
        if plain(name) not in there:
            raise InputError(f"{where}: there is no class folder or label '{name}' (there is {_some(there.values())})")
        if plain(name) in lines:
            raise InputError(f"{where}: '{name}' stands there twice: write one line with all its classes")
        lines[plain(name)] = (name, _accepted(words, classes, where))
    _refuse_overlap(path, classes, lines, [name for name in there.values() if plain(name) not in lines])
    return ClassMap(path, classes, lines)


def _refuse_overlap(
    path: Path, classes: Classes, lines: Mapping[str, tuple[str, tuple[int, ...]]], others: Sequence[str]
) -> None:
    """Raise InputError where one class is right for two folders that do not mean the same."""
    alone = [(name, (classes.index_of(name),)) for name in others if classes.knows(name)]
    of_class: dict[int, tuple[str, tuple[int, ...]]] = {}
    for name, accepted in (*lines.values(), *alone):
        for index in accepted:
            other, before = of_class.setdefault(index, (name, accepted))
            if before != accepted:
                raise InputError(
                    f"{path}: {classes.unique_name(index)} would be right for both {other} and {name}: list the "
                    "classes of one of them without it"
                )


def _accepted(words: Sequence[str], classes: Classes, where: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({index for word in words for index in classes.all_of(word)}))
    except InputError as e:
        raise InputError(f"{where}: {e}") from None


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
