"""Which class of a model a person means: a WordNet id, a class name or an index, or another word for an ImageNet class.

Where the model's classes are ImageNet's, WordNet has more words (wordnet.py): "pig" is another name of hog, "fridge" a
kind of refrigerator, "cat" wider than seven classes. A word stands for a class by itself where that is what it usually
means and no other class is meant; a wider word never does, because which answers are then right is for the user to say.
"""

import difflib
import functools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgenet.errors import InputError
from edgenet.images.wordnet import Meaning, WordNet, key, singulars, wordnet

_WNID_PREFIX = re.compile(r"(n\d{8})[-_ ]", re.IGNORECASE)
_WNID = re.compile(r"n\d{8}")
_SHOWN = 5  # classes that an error names
_NEAR, _NEAR_SPELLING = 3, 0.8  # words, and how alike they are: difflib's ratio
_LONGEST_NAME = 200  # characters of a word that is looked for; the longest of wordnet.csv has 40
_LEAST_MISTYPED = 4  # letters: every word of three is near many
_MOST_OF_A_NEAR_WORD = 12  # classes: "dog" is near "dock", and 118 breeds are no help


@dataclass(frozen=True)
class Match:
    """A class that a word may mean, and why.

    `why`: "name", "synonym", "narrower" (the word is a kind of the class), "wider" (the class is a kind of the word),
    "rare" (by a meaning that the word seldom has), "similar" (it is in a name, or is spelt nearly so).
    """

    index: int
    why: str


class Classes:
    """Looks up a class by what a person may write for it: WordNet id, class name or index, in this order.

    Then come spellings of a name without spaces, hyphens and accents, and WordNet's other words.
    """

    def __init__(self, ids: Sequence[str], names: Sequence[str]) -> None:
        self.ids, self.names = tuple(ids), tuple(names)
        self.count = max(len(self.ids), len(self.names))
        self._by_id = {name.lower(): i for i, name in enumerate(self.ids)}
        self._by_name: dict[str, list[int]] = {}
        for i, name in enumerate(self.names):
            self._by_name.setdefault(plain(name), []).append(i)

    def index_of(self, text: str) -> int:
        """Return the class index. Case does not matter, and underscores are spaces.

        Raises:
            InputError: no such class, or a word that fits several. The message starts with the quoted text.
        """
        text = text.strip()
        index = self._written(text)
        if index is None:
            index = self._meant(text)
        if index is None:
            raise InputError(f"'{text}' is not a class of this model{self._near(text)}; {self.valid()}")
        return index

    def knows(self, text: str) -> bool:
        try:
            self.index_of(text)
        except InputError:
            return False
        return True

    def all_of(self, text: str) -> tuple[int, ...]:
        """Return the classes that a word in a class map stands for: one, or all that are a kind of a wider word.

        Raises:
            InputError: none, or it is not clear which.
        """
        text = text.strip()
        if self._written(text) is None:
            for meaning in self._meanings(text)[:1]:
                if self._is_usual(meaning, text) and meaning.id not in self._by_id and meaning.id in self._below:
                    return self._below[meaning.id]
        return (self.index_of(text),)

    def matches(self, word: str) -> list[Match]:
        """Return the classes that a word may mean, the likeliest first; none where nothing is near."""
        word = word.strip()
        if len(word) > _LONGEST_NAME:  # comparing it with each word that there is would take minutes
            return []
        found = dict.fromkeys(self._named(word), "name")
        for meaning in self._meanings(word):
            for index, why in self._of(meaning):
                found.setdefault(index, why if self._is_usual(meaning, word) else "rare")
        for index in self._similar(word, any(found)):
            found.setdefault(index, "similar")
        return [Match(index, why) for index, why in found.items()]

    def _similar(self, word: str, known: bool) -> list[int]:
        """Return classes with the word in a name, with a name in common or, if it is not known, spelt nearly so."""
        wanted = {plain(word), *singulars(word)}
        found = [
            i
            for i in range(self.count)
            if any(wanted & set(re.split(r"[\s-]+", plain(name))) for name in (self.name(i), *self.synonyms(i)))
        ]
        # A "tv" is a television receiver or just a television, and that is a class.
        found += [i for m in self._meanings(word) if not self._of(m) for name in m.words for i in self._named(name)]
        head, unknown = " ".join(plain(word).split()[1:]), not found and not known
        for words in (self._own_keys, self._keys) if unknown and len(key(word)) >= _LEAST_MISTYPED else ():
            spelt = [k for k in words if k[:1] == key(word)[:1]]  # who mistypes a word begins it right
            for near in () if found else difflib.get_close_matches(key(word), spelt, n=_NEAR, cutoff=_NEAR_SPELLING):
                found += words[near] if len(words[near]) <= _MOST_OF_A_NEAR_WORD else ()
        if unknown and head:
            found += [m.index for m in self.matches(head)]  # an "Abyssinian cat" is a cat
        return found

    def synonyms(self, index: int) -> tuple[str, ...]:
        """Return WordNet's other words for a class."""
        meaning = self._meaning_of(index)
        return tuple(w for w in meaning.words if plain(w) != plain(self.name(index))) if meaning else ()

    def kind_of(self, index: int) -> str:
        """Return what a class is a kind of, in WordNet's first word for it; "" where that is not known."""
        meaning = self._meaning_of(index)
        return self._wordnet.meanings[meaning.parents[0]].words[0] if meaning else ""

    def name(self, index: int) -> str:
        """Return the name of a class, else its id, else its index."""
        return next((names[index] for names in (self.names, self.ids) if index < len(names)), str(index))

    def unique_name(self, index: int) -> str:
        """Return what stands for this class and no other: its name, or its id or index where classes share the name."""
        if index < len(self.names) and len(self._by_name[plain(self.names[index])]) == 1:
            return self.names[index]
        return self.ids[index] if index < len(self.ids) else str(index)

    def valid(self) -> str:
        if not self.count:
            return "the model has no label list, so a class is written as its index"
        kinds = ["a WordNet id"] * bool(self.ids) + ["a class name"] * bool(self.names)
        return f"valid is {', '.join(kinds)} or an index 0 to {self.count - 1}"

    @functools.cached_property
    def _wordnet(self) -> WordNet:
        """WordNet's words where the classes have its ids, else none."""
        return wordnet() if any(_WNID.fullmatch(id) for id in self.ids) else WordNet({}, {})

    def _meaning_of(self, index: int) -> Meaning | None:
        return self._wordnet.meanings.get(self.ids[index]) if index < len(self.ids) else None

    @functools.cached_property
    def _below(self) -> Mapping[str, tuple[int, ...]]:
        """WordNet id -> the classes that are it or a kind of it, in their order."""
        found: dict[str, list[int]] = {}
        for index, id in enumerate(self.ids):
            if id in self._wordnet.meanings:
                for above in (id, *self._wordnet.above(id)):
                    found.setdefault(above, []).append(index)
        return {id: tuple(indices) for id, indices in found.items()}

    @functools.cached_property
    def _own_keys(self) -> Mapping[str, Sequence[int]]:
        """Spelling without spaces -> classes, of their names and other words: what a mistyped word is compared with."""
        found: dict[str, list[int]] = {}
        for i in range(self.count):
            for name in (self.name(i), *self.synonyms(i)):
                found.setdefault(key(name), []).append(i)
        return found

    @functools.cached_property
    def _keys(self) -> Mapping[str, Sequence[int]]:
        """The same of all words that lead to a class."""
        found = {}
        for spelling, ids in self._wordnet.by_key.items():
            found[spelling] = list(dict.fromkeys(i for id in ids for i, _ in self._of(self._wordnet.meanings[id])))
        return found

    def _written(self, text: str) -> int | None:
        """Return the class that is written exactly. Raises InputError where two classes share the name."""
        found = self._named(text)
        if len(found) > 1:
            self._refuse_shared(text, found)
        return found[0] if found else None

    def _named(self, text: str) -> list[int]:
        if text.lower() in self._by_id:
            return [self._by_id[text.lower()]]
        if found := self._by_name.get(plain(text)):
            return found
        if text.isascii() and text.isdecimal() and len(text) < 10 and (int(text) < self.count or not self.count):
            return [int(text)]
        prefix = _WNID_PREFIX.match(text)  # n02085620-Chihuahua, as Stanford Dogs has it
        if prefix and prefix[1].lower() in self._by_id:
            return [self._by_id[prefix[1].lower()]]
        for spelling in (text, *singulars(text)) if key(text) else ():
            if found := [i for i, name in enumerate(self._name_keys) if name == key(spelling)]:
                return found
        return []

    @functools.cached_property
    def _name_keys(self) -> tuple[str, ...]:
        return tuple(map(key, self.names))

    def _meanings(self, word: str) -> list[Meaning]:
        if word.lower() in self._wordnet.meanings:
            return [self._wordnet.meanings[word.lower()]]
        return self._wordnet.means(word) if key(word) else []

    def _is_usual(self, meaning: Meaning, word: str) -> bool:
        return word.lower() == meaning.id or self._wordnet.is_usual(meaning, word)

    def _of(self, meaning: Meaning) -> list[tuple[int, str]]:
        """Return the classes that belong to a meaning: itself, those below it, or the nearest one above it."""
        if meaning.id in self._by_id:
            return [(self._by_id[meaning.id], "synonym")]
        if below := self._below.get(meaning.id):
            return [(index, "wider") for index in below]
        nearest = (
            next((id for id in self._wordnet.above(meaning.id) if id in self._by_id), None) if self._wordnet else None
        )
        return [] if nearest is None else [(self._by_id[nearest], "narrower")]

    def _meant(self, text: str) -> int | None:
        """Return the class that another word means. Raises InputError where it is not clear which."""
        meanings = self._meanings(text)
        if not meanings:
            return None
        named = list(dict.fromkeys(self._by_id[m.id] for m in meanings if m.id in self._by_id))
        if len(named) > 1:
            self._refuse_shared(text, named)
        found, usual = self._of(meanings[0]), self._is_usual(meanings[0], text)
        indices = [index for index, _ in found]
        if usual and [why for _, why in found] in (["synonym"], ["narrower"]) and set(named) <= set(indices):
            return indices[0]
        every = list(dict.fromkeys([*named, *(i for m in meanings for i, _ in self._of(m))]))
        if not every:
            return None
        if usual and found and found[0][1] == "wider":
            has = f"'{text}' is wider than a class of this model, which has {self.listed(indices)}"
            raise InputError(f"{has}; {self.valid()}")
        raise InputError(f"'{text}' is no class by itself, it may mean {self.listed(every, 'or')}; {self.valid()}")

    def _refuse_shared(self, text: str, found: Sequence[int]) -> None:
        about = {i: f" ({self.name(i)}, a kind of {self.kind_of(i)})" if self.kind_of(i) else "" for i in found}
        instead = " or ".join((self.ids[i] if i < len(self.ids) else str(i)) + about[i] for i in found)
        raise InputError(f"'{text}' is the name of {len(found)} classes: write {instead} instead")

    def listed(self, indices: Sequence[int], word: str = "and") -> str:
        """Return the names of classes as a person lists them, the first few of many."""
        names = [self.unique_name(i) for i in indices[:_SHOWN]]
        more = len(indices) - len(names)
        names += [f"{more} more"] * (more > 0)
        return f" {word} ".join(filter(None, (", ".join(names[:-1]), names[-1])))

    def _near(self, text: str) -> str:
        near = [self.unique_name(m.index) for m in self.matches(text)[:_NEAR]] if text else []
        if near:
            return f" (near: {', '.join(near)})"
        return " (names are English)" if self._wordnet.meanings and text else ""


def plain(name: str) -> str:
    """Return a name as it is compared: case does not matter, and underscores are spaces."""
    return " ".join(unicodedata.normalize("NFC", name).casefold().replace("_", " ").split())
