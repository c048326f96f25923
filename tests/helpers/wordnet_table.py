"""The words for ImageNet's classes, from WordNet 3.0: `python tests/helpers/wordnet_table.py FOLDER` prints the table.

FOLDER holds data.noun and index.noun of WordNet 3.0, whose offsets are ImageNet's ids. Debian's package has them:
`apt-get download wordnet-base && dpkg -x wordnet-base_*.deb .`, then usr/share/wordnet. edgenet/images/wordnet.csv is
what this printed last. Its licence, which allows that, stands beside it in wordnet.txt.
"""

import csv
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgenet.images import imagenet_classes
from edgenet.images.wordnet import RARE


@dataclass(frozen=True)
class Noun:
    words: tuple[str, ...]
    parents: tuple[str, ...]
    is_name: bool  # of one person or place: WordNet calls it an instance


def nouns(folder: Path) -> dict[str, Noun]:
    """Read data.noun; its format is described in wndb(5WN)."""
    found = {}
    for line in _lines(folder / "data.noun"):
        fields = line.split(" | ")[0].split()
        n = int(fields[3], 16)
        pointers = fields[5 + 2 * n :]
        above = [(pointers[i], "n" + pointers[i + 1]) for i in range(0, len(pointers), 4)]
        words = tuple(word.replace("_", " ") for word in fields[4 : 4 + 2 * n : 2])
        parents = tuple(id for symbol, id in above if symbol == "@")
        found["n" + fields[0]] = Noun(words, parents, any(symbol == "@i" for symbol, _ in above))
    return found


def usual_meanings(folder: Path, of: dict[str, Noun]) -> dict[str, str]:
    """Return the first meaning of each word: index.noun has them in the order of how often they were met in texts."""
    found = {}
    for line in _lines(folder / "index.noun"):
        fields = line.split()
        meanings = ["n" + offset for offset in fields[-int(fields[2]) :]]
        things = [id for id in meanings if not of[id].is_name]  # Stephen Crane is no crane
        if things:
            found[fields[0].replace("_", " ")] = things[0]
    return found


def _lines(path: Path) -> Iterable[str]:
    with open(path, encoding="ascii") as f:
        return [line for line in f if not line.startswith("  ")]  # the licence


def _reach(start: Iterable[str], step: Callable[[str], Iterable[str]]) -> set[str]:
    seen, left = set(start), list(start)
    while left:
        new = set(step(left.pop())) - seen
        seen |= new
        left += new
    return seen


def main(folder: Path, classes: Sequence[str]) -> None:
    of = nouns(folder)
    usual = usual_meanings(folder, of)
    below: dict[str, list[str]] = {}
    for id, noun in of.items():
        for parent in noun.parents:
            below.setdefault(parent, []).append(id)
    kept = _reach(classes, lambda id: of[id].parents) | _reach(classes, lambda id: below.get(id, ()))
    # What shares a word with a class: the television receiver, which is a "tv", with the television.
    names = {word for id in classes for word in of[id].words}
    kept |= {id for id, noun in of.items() if names & set(noun.words) and not noun.is_name}
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(("wnid", "parents", "words"))
    for id in sorted(kept):
        words = [w if usual.get(w.lower()) == id else RARE + w for w in of[id].words]
        out.writerow((id, "|".join(p for p in of[id].parents if p in kept), "|".join(words)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), imagenet_classes()[0])
