"""`--keep REGEX=PRECISION`: which operators of an integer file keep another precision, and how a mixture is said again.

A pattern names an operator where it is found in the name of its output or of its weights, or where it is the whole of
the operator's kind (`LOGISTIC`). Of several options that name one operator, the last counts.
"""

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgenet.calibration.quantize import INT16_KINDS
from edgenet.errors import InputError
from edgenet.export.graph import WEIGHT_AXIS, Graph, Op
from edgenet.options import KEPT_PRECISIONS
from edgenet.targets import Target

_SHOWN = 4  # names in an error
_EXAMPLE = "e.g. --keep 'classifier=float32'"


@dataclass(frozen=True)
class Keep:
    """One option: `text` is what was given."""

    text: str
    pattern: re.Pattern[str]
    precision: str

    def names(self, op: Op) -> bool:
        """Whether the pattern names this operator."""
        return bool(self.pattern.fullmatch(op.kind)) or any(map(self.pattern.search, _names(op)))


def _names(op: Op) -> list[str]:
    """Return what an operator is called by: its outputs, and the weights that it alone is about."""
    return [*op.outputs, *(str(n) for n in op.inputs[1:] if op.kind in WEIGHT_AXIS and n is not None)]


def parse(options: Iterable[str], target: Target) -> tuple[Keep, ...]:
    """Return the options, read.

    Raises:
        InputError: no REGEX=PRECISION, an unknown precision, no regular expression, or a precision that the target does
            not run.
    """
    return tuple(_parse(text, target) for text in options)


def _parse(text: str, target: Target) -> Keep:
    pattern, equals, precision = text.rpartition("=")
    if not equals or not pattern:
        raise InputError(f"--keep '{text}' is not REGEX=PRECISION: give a part of an operator's name, {_EXAMPLE}")
    if precision not in KEPT_PRECISIONS:
        raise InputError(f"--keep '{text}': unknown precision '{precision}' (valid: {', '.join(KEPT_PRECISIONS)})")
    valid = kept_precisions(target)
    if precision not in valid:
        able = f"valid there: {', '.join(valid)}" if valid else "leave --keep out, or choose another --target"
        raise InputError(f"--keep '{text}': {target.name} runs no {_computed(precision)} operators ({able})")
    try:
        return Keep(text, re.compile(pattern), precision)
    except re.error as e:
        raise InputError(f"--keep '{text}': '{pattern}' is no regular expression ({e}): {_EXAMPLE}") from None


def kept_precisions(target: Target) -> tuple[str, ...]:
    """Return what single operators can be kept in there: an accelerator runs integers alone."""
    return tuple(
        p for p in KEPT_PRECISIONS if (p in target.activation_types if p == "int16" else not target.accelerator)
    )


def _computed(precision: str) -> str:
    return precision if precision == "int16" else "float"


def resolve(keeps: Sequence[Keep], graph: Graph, target: Target) -> dict[str, str]:
    """Return {operator's output: precision} of the operators that are named.

    Raises:
        InputError: an option names none; it asks for int16 of operators that have no kernel for it, or of one on an
            accelerator, which would run it nowhere.
    """
    found: dict[str, str] = {}
    for keep in keeps:
        named = [op for op in graph.ops if keep.names(op)]
        if not named:
            raise InputError(f"--keep '{keep.text}' names no operator of the network: {_near(keep, graph)}")
        lacking = [op for op in named if op.kind not in INT16_KINDS] if keep.precision == "int16" else []
        if lacking and (target.accelerator or len(lacking) == len(named)):
            kinds = ", ".join(dict.fromkeys(op.kind for op in lacking))
            raise InputError(f"--keep '{keep.text}': {kinds} has no int16 form: name other operators, or another type")
        found.update({op.outputs[0]: keep.precision for op in named})
    return found


def _near(keep: Keep, graph: Graph) -> str:
    """Return the names that look most like a pattern, or the first ones."""
    names = [op.outputs[0] for op in graph.ops]
    like = difflib.get_close_matches(keep.pattern.pattern, names, n=_SHOWN, cutoff=0.5)
    words = [w for w in re.findall(r"[A-Za-z0-9]+", keep.pattern.pattern) if len(w) > 2]
    like += [n for n in names if any(w.lower() in n.lower() for w in words) and n not in like]
    what = "near are" if like else f"its {len(names)} operators are called"
    return f"{what} {', '.join((like or names)[:_SHOWN])}{'' if like else ', ...'}"


def as_options(mixture: Mapping[str, str], graph: Graph, target: Target) -> tuple[str, ...]:
    """Return the values of `--keep` that name the operators of a mixture and no others, one a precision.

    Empty where the target does not take them, or no expression can tell the operators apart.
    """
    if not set(mixture.values()) <= set(kept_precisions(target)):
        return ()
    options = []
    for precision in dict.fromkeys(mixture.values()):
        wanted = [op for op in graph.ops if mixture.get(op.outputs[0]) == precision]
        found = [p for p in _patterns(wanted, graph) if _named(p, graph) == wanted]
        if not found:
            return ()
        options.append(f"{min(found, key=len)}={precision}")
    return tuple(options)


def _named(pattern: str, graph: Graph) -> list[Op]:
    keep = Keep(pattern, re.compile(pattern), "")
    return [op for op in graph.ops if keep.names(op)]


def _patterns(wanted: Sequence[Op], graph: Graph) -> Iterator[str]:
    """Yield expressions that may name these operators alone: names, kinds, a word of all, how they begin."""
    outputs = [op.outputs[0] for op in wanted]
    yield f"^({'|'.join(map(re.escape, outputs))})$" if len(outputs) > 1 else f"^{re.escape(outputs[0])}$"
    if len(wanted) > 1:
        yield "|".join(dict.fromkeys(op.kind for op in wanted))
    yield from (re.escape(part) for part in _parts(outputs[0]) if all(part in name for name in outputs))
    others = [n for op in graph.ops if op not in wanted for n in _names(op)]
    yield f"^({'|'.join(dict.fromkeys(_beginning(n, others) for n in outputs))})"


def _parts(name: str) -> list[str]:
    """Return every run of whole words of a name, with what is around them."""
    cuts = [0, *(i for m in re.finditer(r"[_/.]+", name) for i in (m.start(), m.end())), len(name)]
    return [name[a:b] for a, b in itertools.combinations(sorted(set(cuts)), 2) if re.search(r"[^_/.]", name[a:b])]


def _beginning(name: str, others: Sequence[str]) -> str:
    """Return the shortest beginning of a name, in whole words, that no other name has, or all of it and its end."""
    for word in re.finditer(r"[^_/.]+[_/.]+", name):
        if not any(other.startswith(name[: word.end()]) for other in others):
            return re.escape(name[: word.end()])
    return f"{re.escape(name)}$"
