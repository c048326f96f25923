"""Which pictures a network has seen: kept in its files, so that no later command measures on what taught it.

A picture is known again by its content, and by its look where it was scaled or saved again. In a file a look is
near_duplicates.py's fingerprint on 12 x 12 fields in 4 bits each. Of 3.1 million pairs of 2,500 different photographs
one correlates over SAME_LOOK; of 250 copies at two thirds of the size and JPEG quality 60 all but one do, at a third
and quality 40 all but one.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenet.errors import InputError
from edgenet.images.image_set import group_of, limit, split, subset
from edgenet.images.near_duplicates import SIDE_PX, glances
from edgenet.results import ImageSet
from edgenet.results.plain import read
from edgenet.results.records import UNKNOWN_HISTORY, Finding, PictureHistory, PictureTable

STORED_PX = 12
STORED_BYTES = STORED_PX * STORED_PX // 2
SAME_LOOK = 0.962
MOST_LOOKS = 8192  # of a table, 0.6 MB; of more pictures the others are known by content alone
_ROWS = 1024  # pictures compared at once: 8,192 looks times as many are 32 MB
_SHOWN = 3  # names in a finding


# --------------------------------------------------------------------------------------------------------------- tables


def table_of(images: ImageSet) -> PictureTable:
    """Return what the pictures of a set are known again by."""
    order = sorted({_content(images, i): i for i in range(len(images))}.items())
    contents = np.array([content for content, _ in order], "<u8")
    shown = [i for _, i in order[:MOST_LOOKS]]
    looks = _packed(_looks(images, shown)) if shown else b""
    return PictureTable(len(order), _text(contents.tobytes()), _text(looks))


def history_of(*, complete: bool = True, **roles: ImageSet | None) -> PictureHistory:
    """Return the history of a network whose pictures had these roles; a set that is None or empty had none."""
    return PictureHistory(complete=complete, **{role: table_of(of) for role, of in roles.items() if of})


def merged(*histories: PictureHistory) -> PictureHistory:
    """Return what all of the histories know."""
    tables = {
        role: found[0] if len(found) == 1 else _union(found)
        for role in ROLES
        if (found := [t for h in histories if (t := getattr(h, role)) is not None])
    }
    return PictureHistory(complete=all(h.complete for h in histories), **tables)


ROLES = tuple(f.name for f in fields(PictureHistory) if f.name != "complete")
SEEN = ("taught", "chose", "calibrated")  # what had one of these roles cannot measure
_DID = {"taught": "taught", "chose": "chose the weights of", "calibrated": "calibrated"}


def read_history(about: Mapping[str, Any] | None) -> PictureHistory:
    """Return the history in what edgenet writes into a model file; an incomplete one where nothing whole stands there.

    Args:
        about: the file's own JSON, None where edgenet did not write the file.
    """
    try:
        history = read(PictureHistory, (about or {})["pictures"])
        for role in ROLES:
            if (table := getattr(history, role)) is not None:
                _unpacked_contents(table), _unpacked_looks(table)
        return history
    except (KeyError, TypeError, ValueError):
        return UNKNOWN_HISTORY


def recognised(images: ImageSet, tables: Iterable[PictureTable | None]) -> NDArray[np.bool_]:
    """Return which pictures are in one of the tables, as they are or as copies: (len(images),)."""
    known = np.zeros(len(images), bool)
    given = [t for t in tables if t is not None and t.n]
    if not given or not len(images):
        return known
    contents = np.array([_content(images, i) for i in range(len(images))], "<u8")
    looks = np.concatenate([_unpacked_looks(t) for t in given])
    for table in given:
        known |= np.isin(contents, _unpacked_contents(table))
    for start in range(0, len(images), _ROWS):
        rows = [i for i in range(start, min(start + _ROWS, len(images))) if not known[i]]
        if rows and len(looks):
            known[rows] = (_looks(images, rows) @ looks.T >= SAME_LOOK).any(1)
    return known


def _union(tables: list[PictureTable]) -> PictureTable:
    contents = np.unique(np.concatenate([_unpacked_contents(t) for t in tables]))
    looks = np.unique(np.concatenate([_bytes(t.looks).reshape(-1, STORED_BYTES) for t in tables]), axis=0)
    return PictureTable(len(contents), _text(contents.tobytes()), _text(looks[:MOST_LOOKS].tobytes()))


def _content(images: ImageSet, i: int) -> int:
    """Return the first 8 bytes of the content's hash. Crops of one sample photograph count as one picture."""
    return int.from_bytes(bytes.fromhex(group_of(images, i)[:16]), "little")


def _fields() -> NDArray[np.float32]:
    """(STORED_PX, SIDE_PX): how much of each of the look's rows is in each of the stored ones."""
    edges = np.arange(STORED_PX + 1) * SIDE_PX / STORED_PX
    rows = np.arange(SIDE_PX)
    overlap = np.minimum(edges[1:, None], rows + 1) - np.maximum(edges[:-1, None], rows)
    return np.maximum(overlap, 0).astype(np.float32)


_FIELDS = _fields()


def _looks(images: ImageSet, which: list[int]) -> NDArray[np.float32]:
    """Return how pictures look on the stored fields, with mean 0 and length 1, zeros where blank: (len(which), 144)."""
    found = np.zeros((len(which), SIDE_PX, SIDE_PX), np.float32)
    for row, glance in zip(found, glances([images.files[i] for i in which]), strict=True):
        if glance is not None:
            row[:] = glance.look.reshape(SIDE_PX, SIDE_PX)
    return _unit((_FIELDS @ found @ _FIELDS.T).reshape(len(which), -1).astype(np.float32))


def _unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    values = values - values.mean(1, keepdims=True)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.where(length > 1e-6, values / np.maximum(length, 1e-6), 0).astype(np.float32)


def _packed(looks: NDArray[np.float32]) -> bytes:
    """Return looks with 4 bits a field: -7 to 7 times a seventh of the largest, plus 8."""
    largest = np.maximum(np.abs(looks).max(1, keepdims=True), 1e-9)
    levels = (np.rint(looks / largest * 7) + 8).astype(np.uint8)
    return (levels[:, ::2] << 4 | levels[:, 1::2]).tobytes()


def _unpacked_looks(table: PictureTable) -> NDArray[np.float32]:
    """Return the looks of a table: (n, 144). Raises ValueError."""
    packed = _bytes(table.looks).reshape(-1, STORED_BYTES)
    levels = np.stack([packed >> 4, packed & 15], -1).reshape(len(packed), -1)
    return _unit(levels.astype(np.float32))


def _unpacked_contents(table: PictureTable) -> NDArray[np.uint64]:
    """Return the contents of a table: (n,). Raises ValueError."""
    return _bytes(table.contents).view("<u8")


def _bytes(text: str) -> NDArray[np.uint8]:
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    except binascii.Error as e:
        raise ValueError(f" is not base64: {e}") from None


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


# ---------------------------------------------------------------------------------------------------------------- roles


@dataclass(frozen=True)
class Divided:
    """Pictures that calibrate and pictures that measure, which share none, and what there is to say of it."""

    calibration: ImageSet
    evaluation: ImageSet
    findings: tuple[Finding, ...] = ()


def seen_in(history: PictureHistory) -> tuple[PictureTable | None, ...]:
    """Return the tables of those pictures that cannot measure."""
    return tuple(getattr(history, role) for role in SEEN)


def apart(images: ImageSet, history: PictureHistory) -> tuple[ImageSet, ImageSet]:
    """Return the pictures that the network has seen, and those that are new to it."""
    known = recognised(images, seen_in(history))
    return part(images, np.flatnonzero(known)), part(images, np.flatnonzero(~known))


def part(images: ImageSet, kept: Iterable[Any]) -> ImageSet:
    """Return some pictures of a set, which remember how many the whole has: 1 % of those may be unreadable."""
    return replace(subset(images, [int(i) for i in kept]), n_set=images.n_set or len(images))


def divide_by_role(
    images: ImageSet,
    n_calibration: int,
    history: PictureHistory,
    *,
    model: str,
    test: ImageSet | None = None,
    at_most: int | None = None,
) -> Divided:
    """Divide pictures into those that calibrate and those that measure, which are new to the network.

    What the network has seen before calibrates first. Copies of what calibrates do not measure.

    Args:
        n_calibration: pictures that calibrate; fewer where that would be more than half.
        model: what the network is called in findings.
        test: pictures that only measure; then all of `images` may calibrate.
        at_most: how many pictures are used in all.

    Raises:
        InputError: there are too few pictures.
    """
    if (test is None and len(images) < 2) or not len(images):
        raise InputError(
            f"{images.root} holds {len(images)} picture{'s' * (len(images) != 1)}, and those that calibrate "
            "do not measure: give two or more, some hundreds to tell files apart"
        )
    known, new = apart(images, history)
    total = min(at_most or len(images), len(images))
    findings: list[Finding] = []
    if test is not None:
        calibration = limit(images, min(n_calibration, total))
        candidates, n_evaluation = test, at_most or len(test)
    elif not known:
        calibration, candidates = split(limit(images, total), n_calibration)
        n_evaluation = len(candidates)
    else:
        findings.append(_seen_before(known, images, history, model, "some calibrate"))
        calibration, candidates = limit(known, min(n_calibration, total // 2)), new
        if (lacking := min(n_calibration, total // 2) - len(calibration)) > 0:
            added, candidates = split(new, lacking)
            calibration = joined(calibration, added)
        n_evaluation = total - len(calibration)
    evaluation, more = new_pictures(candidates, history, model, calibration)
    if len(evaluation) > n_evaluation > 0:
        evaluation = replace(limit(evaluation, n_evaluation), n_set=evaluation.n_set)
    return Divided(calibration, evaluation, (*findings, *more))


def new_pictures(
    images: ImageSet, history: PictureHistory, model: str, *used: ImageSet
) -> tuple[ImageSet, tuple[Finding, ...]]:
    """Return those pictures of a set that may measure, and what there is to say of the others.

    Args:
        used: sets that teach, choose or calibrate in this run, beside what `history` tells of earlier ones.
    """
    known, rest = apart(images, history)
    copies = recognised(rest, [table_of(u) for u in used if len(u)])
    left = part(rest, np.flatnonzero(~copies))
    found = [_seen_before(known, images, history, model, "none measures")] if len(known) else []
    if copies.any():
        found.append(Finding(
            "copies", "warning",
            f"{copies.sum()} of the {len(images)} pictures of {images.root} that could measure are copies of pictures "
            f"that teach or calibrate, perhaps scaled or saved again ({_names(part(rest, np.flatnonzero(copies)))})",
            "they do not measure: remove the copies",
        ))  # fmt: skip
    if not len(left):
        found.append(Finding(
            "no-own-pictures", "warning",
            f"accuracy is withheld, because no picture of {images.root} is new to {model}",
            "give pictures that it has not seen, --images-test DIR",
        ))  # fmt: skip
    elif not history.complete:
        found.append(Finding(
            "unknown-training", "warning",
            f"whether {model} learned from these pictures cannot be known: its file does not say which taught it",
            "accuracy is that of new pictures only if you know that they are new to it",
        ))  # fmt: skip
    return left, tuple(found)


def _seen_before(known: ImageSet, images: ImageSet, history: PictureHistory, model: str, use: str) -> Finding:
    did = " or ".join(_DID[role] for role in SEEN if getattr(history, role) is not None)
    return Finding(
        "seen-before", "warning",
        f"{len(known)} of the {len(images)} pictures of {images.root} {did} {model} ({_names(known)}): {use}",
        f"the {len(images) - len(known)} others can measure",
    )  # fmt: skip


def joined(a: ImageSet, b: ImageSet) -> ImageSet:
    """Return the pictures of two sets as one."""
    both = ImageSet(a.root, (*a.files, *b.files), (*a.labels, *b.labels), (*a.digests, *b.digests), "",
                    groups={**a.groups, **b.groups}, label_sets=(*a.label_sets, *b.label_sets))  # fmt: skip
    return replace(subset(both, range(len(both))), n_set=max(a.n_set, b.n_set))


def _names(images: ImageSet) -> str:
    names = [file.rsplit("/", 1)[-1] for file in images.files[:_SHOWN]]
    return ", ".join(names) + ", ..." * (len(images) > _SHOWN)
