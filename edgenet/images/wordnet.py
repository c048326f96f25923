"""What people call the classes of ImageNet: WordNet 3.0's words for each, for its kinds and for what it is a kind of.

wordnet.csv has a line a meaning: the thousand classes, everything that stands above one in WordNet and everything below
(tests/helpers/wordnet_table.py made it). wordnet.txt is WordNet's licence.
"""

import csv
import functools
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

RARE = "~"  # before a word that usually means something else: "head" is seldom a promontory
_PLURALS = (("ies", "y"), ("ves", "f"), ("ves", "fe"), ("men", "man"), ("es", ""), ("s", ""))


@dataclass(frozen=True)
class Meaning:
    """A meaning of one or several words, a synset. `usual` are those of its words that mostly mean this."""

    id: str
    parents: tuple[str, ...]
    words: tuple[str, ...]
    usual: frozenset[str]


@dataclass(frozen=True)
class WordNet:
    """The table. `by_key` finds meanings by a word without spaces, hyphens, accents and case."""

    meanings: Mapping[str, Meaning]
    by_key: Mapping[str, tuple[str, ...]]

    def means(self, word: str) -> list[Meaning]:
        """Return the meanings of a word, the usual one first; of its singular where the word itself has none."""
        for spelling in (word, *singulars(word)):
            if ids := self.by_key.get(key(spelling)):
                found = [self.meanings[id] for id in ids]
                return sorted(found, key=lambda m: not self.is_usual(m, spelling))
        return []

    def is_usual(self, meaning: Meaning, word: str) -> bool:
        """Whether a word, or its singular, mostly means this."""
        return any(key(spelling) in meaning.usual for spelling in (word, *singulars(word)))

    def above(self, id: str) -> Iterator[str]:
        """Yield what a meaning is a kind of, the nearest first, each once."""
        seen, row = {id}, [id]
        while row:
            row = list(dict.fromkeys(p for m in row for p in self.meanings[m].parents if p not in seen))
            seen.update(row)
            yield from row


@functools.cache
def wordnet() -> WordNet:
    """Return the table, read once."""
    meanings, by_key = {}, dict[str, dict[str, None]]()
    with open(Path(__file__).with_name("wordnet.csv"), newline="", encoding="utf-8") as f:
        for row in csv.DictReader(f):
            id, written = row["wnid"], row["words"].split("|")
            words = tuple(word.removeprefix(RARE) for word in written)
            usual = frozenset(key(word) for word in written if not word.startswith(RARE))
            meanings[id] = Meaning(id, tuple(filter(None, row["parents"].split("|"))), words, usual)
            for word in words:
                by_key.setdefault(key(word), {})[id] = None
    return WordNet(meanings, {k: tuple(ids) for k, ids in by_key.items()})


def key(word: str) -> str:
    """Return a word by its letters and digits alone, without accents: "Cell-Phone" and "cellphone" are the same."""
    return "".join(c for c in unicodedata.normalize("NFKD", word).casefold() if c.isalnum())


def singulars(word: str) -> list[str]:
    """Return what an English noun may be the plural of, itself not included."""
    plain = word.casefold().strip()
    return [plain.removesuffix(end) + one for end, one in _PLURALS if plain.endswith(end) and len(plain) > len(end) + 1]
