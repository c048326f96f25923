"""Check the calibration pictures before they decide a network's ranges, and report what is wrong with them.

The checks are for mistakes that users make: a representative dataset normalised twice or not at all, the same picture
over and over, random numbers, pictures taken from the evaluation set. Each threshold is a constant with its reason;
the measured ones come from 500 photographs of ImageNet, of different classes. Nothing here changes a picture.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from edgenet.errors import InputError
from edgenet.images import Chunk, Preprocessing, sample
from edgenet.images.near_duplicates import Glance, glances, looks_alike
from edgenet.results import ImageSet
from edgenet.results.records import Finding

if TYPE_CHECKING:
    from edgenet.export.graph import Graph

CODES = (
    "normalised", "noise", "blank", "duplicates", "few", "overlap", "one-class", "resolution", "aspect", "grayscale",
    "brightness",
)  # fmt: skip
SEVERITIES = ("info", "warning", "danger")

ENOUGH = 100  # TensorFlow's guide says "around 100 to 500"; the quality of lite0 is level from there on
FEW = 20
DANGEROUSLY_FEW = 3  # on one picture lite0 kept 0.79 to 1.0 of its answers, by chance; from two on all but a hundredth
MAX_COMPARED = 2000  # evaluation pictures whose look is compared; content hashes of all are
MOST = 0.5  # a fault of most pictures is one of the set

DARK_LEVEL = 8  # a photograph that was divided by 255, or by its deviation, and saved holds 0, 1, 2, 3
BLANK_STD = 3.0  # gray levels; the flattest of the photographs has 18
NOISE_COARSE_SHARE = 0.1  # of the variance is left in block means: photographs 0.35 to 0.98, noise 0.015 to 0.03
NOISE_BLOCKS, LEAST_BLOCK_PX = 28, 6  # along a side; means of 6 x 6 pixels keep 1/36 of noise's variance
WRAP_JUMP, WRAP_SHARE = 128, 0.012  # neighbours that differ so much: photographs' median 0.0003, wrapped ones' 0.018 up
WRAP_MEAN = (10, 200)  # beyond it: drawings and print on a plain ground, which jump by nature
CRUSHED_SHARE = 0.3  # of the numbers are exactly 0: photographs' median 0.001, those cut at zero 0.55
GRAY_DIFFERENCE = 1.0  # mean difference of the channels; JPEG leaves less in a gray picture
SAME_BRIGHTNESS_STD, SAME_BRIGHTNESS_N = 4.0, 10  # of the pictures' means; photographs have 35
UPSCALED = 2.0  # each pixel of the photograph is blown up to so many
LONG_ASPECT = 2.5  # the centre square leaves out 60 % of it
OVERLAP_SHARE = 0.1  # of either set; below it chance copies in a collected set are likelier than one set used twice

# What a network's input looks like over photographs (pixels have mean 115 and deviation 60): normalised 0 and 1, or
# 0.5 and 0.25; raw 115 and 60. Outside of these nothing was trained.
LEAST_SPREAD, MOST_SPREAD, MOST_MEAN = 0.03, 100.0, 300.0
RAW_SPREAD = 10.0  # above: not normalised before the network
RESCALES = 1 / 30  # a network that multiplies its input by less than this normalises by itself


def lint(
    pixels: np.ndarray | Iterable[Chunk],
    images: ImageSet,
    preprocessing: Preprocessing,
    evaluation: ImageSet | None = None,
    *,
    graph: "Graph | None" = None,
) -> list[Finding]:
    """Return what is wrong with calibration pictures, the dangerous first; nothing where they are good.

    Args:
        pixels: (N, H, W, 3) as decoded, before normalisation, or a `images.stream` of them. Read once.
        images: the files that they come from, with labels and content hashes.
        evaluation: what accuracy is measured on; must share nothing with `images`.
        graph: the float network, to see whether it normalises by itself.
    """
    facts = _facts(pixels, preprocessing, seen := glances(images.files))
    found: list[Finding | None] = [
        *_range(facts, preprocessing),
        _scale(facts, preprocessing),
        _noise(facts),
        _blank(facts),
        *_copies(images, seen),
        _overlap(images, seen, evaluation) if evaluation is not None else None,
        _one_class(images),
        _resolution(seen, preprocessing),
        _aspect(seen),
        _grayscale(facts),
        _brightness(facts),
        *(lint_network(graph, preprocessing) if graph is not None else ()),
    ]
    return sorted((f for f in found if f is not None), key=lambda f: -SEVERITIES.index(f.severity))


def refuse(findings: Iterable[Finding], allowed: Iterable[str] = ()) -> None:
    """Stop where a finding is dangerous and not allowed.

    Raises:
        InputError: what is wrong, what to do, and which --allow goes on all the same.
    """
    allowed = check_allowed(allowed)
    bad = [f for f in findings if f.severity == "danger" and f.code not in allowed]
    if bad:
        anyway = " ".join(f"--allow {code}" for code in dict.fromkeys(f.code for f in bad))
        raise InputError(
            f"calibration pictures: {'. '.join(f'{f.message}; {f.remedy}' for f in bad)}. {anyway} goes on"
        )


def check_allowed(codes: Iterable[str]) -> tuple[str, ...]:
    """Return the codes. Raises InputError where there is none of that name."""
    codes = tuple(codes)
    for code in codes:
        if code not in CODES:
            raise InputError(f"unknown --allow '{code}' (valid: {', '.join(CODES)})")
    return codes


def lint_network(graph: "Graph", preprocessing: Preprocessing) -> list[Finding]:
    """Return whether pictures are normalised twice (before the network and in it), or not at all."""
    inside = _input_factor(graph)
    std = float(np.mean(preprocessing.std))
    spread = 60 / std  # of photographs
    if inside <= RESCALES and spread < RAW_SPREAD:
        return [Finding(
            "normalised", "danger",
            f"pictures are normalised twice: divided by {std:.4g} before the network, "
            f"and multiplied by {inside:.3g} in it",
            "give a --preprocess with mean 0 and std 1",
        )]  # fmt: skip
    if inside > RESCALES and spread >= RAW_SPREAD:
        return [Finding(
            "normalised", "warning",
            f"pictures are not normalised: pixels of 0..255 are divided by {std:.4g}, "
            "and the network does not scale them",
            "give a --preprocess with the mean and std that it was trained with, in 0..255",
        )]  # fmt: skip
    return []


# ------------------------------------------------------------------------------------------------------- measurements


@dataclass(frozen=True)
class _Facts:
    """One number a picture, (N,)."""

    mean: np.ndarray
    std: np.ndarray
    high: np.ndarray  # largest value
    low: np.ndarray
    coarse_share: np.ndarray  # of the variance that is left in block means
    zeros: np.ndarray  # share of numbers that are exactly 0
    jumps: np.ndarray  # share of neighbours that differ by more than WRAP_JUMP
    colour: np.ndarray  # mean difference of the channels, infinity where there is one

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def noise(self) -> np.ndarray:
        return (self.coarse_share < NOISE_COARSE_SHARE) & (self.std >= BLANK_STD)


def _facts(pixels: np.ndarray | Iterable[Chunk], preprocessing: Preprocessing, seen: Sequence[Glance | None]) -> _Facts:
    shorts = [g.short_px for g in seen if g is not None]
    res = preprocessing.short_px
    kept = res / (res + preprocessing.crop_padding_px)
    blown_up = max(1.0, res / max(kept * float(np.median(shorts)), 1)) if shorts else 1.0
    chunks = [pixels] if isinstance(pixels, np.ndarray) else (c.pixels for c in pixels)
    rows = [_measure(p, blown_up) for chunk in chunks for p in chunk]
    return _Facts(*np.array(rows, np.float64).reshape(-1, 8).T)


def _measure(picture: np.ndarray, blown_up: float) -> tuple[float, ...]:
    """The numbers of `_Facts` for one picture, (H, W, 3) of any type, `blown_up` times as wide as its file."""
    height, width, _ = picture.shape
    few = picture[::2, ::2].astype(np.float32)  # a quarter of the pixels tells means and shares as well
    colours = picture.shape[-1] == 3
    gray = picture[..., int(colours)].astype(np.float32)  # green is most of what is seen as brightness
    # Noise that is blown up is smooth over as many pixels: the blocks grow with it.
    block = min(round(max(LEAST_BLOCK_PX, height / NOISE_BLOCKS) * blown_up), max(height // 2, 1))
    rows, columns = height // block, width // block
    blocks = gray[: rows * block, : columns * block].reshape(rows, block, columns, block).mean((1, 3))
    variance = float(gray.var())
    return (
        float(few.mean()), float(few.mean(-1).std()), float(picture.max()), float(picture.min()),
        float(blocks.var()) / variance if variance > 0 else 1.0,
        float(np.mean(few == 0)),
        float(np.mean(np.abs(np.diff(gray, axis=1)) > WRAP_JUMP)),
        float(np.abs(np.diff(few, axis=-1)).mean((0, 1)).sum()) if colours else np.inf,
    )  # fmt: skip


def _input_factor(graph: "Graph") -> float:
    """What the network multiplies its input by before the first layer with weights; 1 where by nothing."""
    name, factor = graph.inputs[0], 1.0
    for op in graph.ops:
        if name not in op.inputs:
            continue
        constants = [c for n in op.inputs if n != name and (c := graph.constant(n)) is not None]
        if op.kind not in ("MUL", "DIV", "ADD", "SUB", "CAST", "DEQUANTIZE", "RESHAPE", "TRANSPOSE", "PAD"):
            return factor
        if op.kind in ("MUL", "DIV") and constants:
            size = float(np.abs(constants[0]).mean())
            factor *= size if op.kind == "MUL" else 1 / max(size, 1e-12)
        name = op.outputs[0]
    return factor


# ------------------------------------------------------------------------------------------------------------- checks


def _share(which: np.ndarray) -> float:
    return float(np.mean(which)) if len(which) else 0.0


def _of(which: np.ndarray) -> str:
    return f"{int(np.sum(which))} of {len(which)}"


def _range(facts: _Facts, preprocessing: Preprocessing) -> list[Finding | None]:
    if not len(facts):
        return []
    if facts.low.min() < 0:
        return [Finding(
            "normalised", "danger",
            f"pixels go down to {facts.low.min():.3g}, below 0: they were normalised already",
            "give pixels of 0..255, which are normalised here, once",
        )]  # fmt: skip
    dark = (facts.high > 0) & (facts.high <= DARK_LEVEL)
    if _share(dark) > MOST:
        return [Finding(
            "normalised", "danger",
            f"{_of(dark)} pictures hold no value over {facts.high[dark].max():.3g} of 255: "
            "they were normalised before they were saved",
            "give the photographs as they were, they are normalised here, once",
        )]  # fmt: skip
    mean, jumps = float(np.median(facts.mean)), np.where(facts.noise, 0.0, facts.jumps)
    if float(np.median(jumps)) > WRAP_SHARE and WRAP_MEAN[0] < mean < WRAP_MEAN[1]:
        return [Finding(
            "normalised", "danger",
            f"{np.median(jumps):.1%} of neighbouring pixels jump by half of the range, as where pictures were "
            "normalised and their negative numbers wrapped round when they were saved",
            "give the photographs as they were, they are normalised here, once",
        )]  # fmt: skip
    if float(np.median(facts.zeros)) > CRUSHED_SHARE:
        return [Finding(
            "normalised", "warning",
            f"{np.median(facts.zeros):.0%} of the values are exactly 0: dark pictures, or normalised ones cut at zero",
            "look at some; give the photographs as they were",
        )]  # fmt: skip
    return []


def _scale(facts: _Facts, preprocessing: Preprocessing) -> Finding | None:
    """The mean and spread of what the network is fed, against what anything is trained with."""
    if not len(facts) or float(np.median(facts.std)) < BLANK_STD:
        return None
    std = float(np.mean(preprocessing.std))
    mean = (float(facts.mean.mean()) - float(np.mean(preprocessing.mean))) / std
    spread = float(np.median(facts.std)) / std
    fed = f"the network would be fed numbers around {mean:.3g}, spread by {spread:.3g}"
    if spread > MOST_SPREAD or abs(mean) > MOST_MEAN:
        return Finding(
            "normalised", "danger", f"{fed}: mean and std look as if meant for pixels of 0..1",
            "give a --preprocess with mean and std in 0..255 (times 255)",
        )  # fmt: skip
    if spread < LEAST_SPREAD:
        return Finding(
            "normalised", "danger", f"{fed}: normalised twice, by a std that is too large or before",
            "give the mean and std that the network was trained with, in 0..255",
        )  # fmt: skip
    return None


def _noise(facts: _Facts) -> Finding | None:
    noise = facts.noise
    if not noise.any():
        return None
    severity = "danger" if _share(noise) > MOST else "warning" if _share(noise) > OVERLAP_SHARE else "info"
    return Finding(
        "noise", severity, f"{_of(noise)} pictures are random noise: neighbouring areas have nothing in common",
        "calibrate with photographs of the kind that the model will see",
    )  # fmt: skip


def _blank(facts: _Facts) -> Finding | None:
    blank = (facts.std < BLANK_STD) & ((facts.high == 0) | (facts.high > DARK_LEVEL))
    if not blank.any():
        return None
    severity = "danger" if _share(blank) > MOST else "warning" if _share(blank) > OVERLAP_SHARE else "info"
    return Finding(
        "blank", severity, f"{_of(blank)} pictures are of one colour: they tell nothing of the ranges",
        "remove them, or repair what wrote them",
    )  # fmt: skip


def _copies(images: ImageSet, seen: Sequence[Glance | None]) -> list[Finding | None]:
    n = len(images)
    first: dict[str, int] = {}
    copies = []
    for i, digest in enumerate(images.digests):
        if first.setdefault(digest, i) != i:
            copies.append(i)
    kept = list(first.values())
    alike = np.triu(looks_alike([seen[i] for i in kept], [seen[i] for i in kept]), 1)
    near = [kept[j] for j in np.flatnonzero(alike.any(0))]
    found: list[Finding | None] = []
    if copies:
        severity = "danger" if len(copies) >= MOST * n else "warning" if len(copies) > 0.05 * n else "info"
        found.append(Finding(
            "duplicates", severity,
            f"{len(copies)} of {n} pictures are copies of others by content ({_names(images, copies)}): "
            f"{len(kept)} tell something",
            "give as many different photographs",
        ))  # fmt: skip
    if near:
        crops = all(sample.is_sample(images.files[i]) for i in near)
        found.append(Finding(
            "duplicates", "warning" if len(near) >= MOST * n and not crops else "info",
            f"{len(near)} of {n} pictures look like another one, scaled or saved again ({_names(images, near)})",
            "give photographs that differ more",
        ))  # fmt: skip
    return [*found, _few(len(kept) - len(near))]


def _few(n: int) -> Finding | None:
    if n >= ENOUGH:
        return None
    severity = "danger" if n < DANGEROUSLY_FEW else "warning" if n < FEW else "info"
    return Finding(
        "few", severity, f"{n} different {'picture' if n == 1 else 'pictures'} to calibrate with, fewer than {ENOUGH}",
        f"give a larger folder (half of it at most calibrates) or a higher --calibration-images, {ENOUGH} or more",
    )  # fmt: skip


def _overlap(images: ImageSet, seen: Sequence[Glance | None], evaluation: ImageSet) -> Finding | None:
    known = set(evaluation.digests)
    same = [i for i, digest in enumerate(images.digests) if digest in known]
    compared = sorted(range(len(evaluation)), key=lambda i: evaluation.digests[i])[:MAX_COMPARED]
    alike = looks_alike(seen, glances([evaluation.files[i] for i in compared]))
    near = sorted(set(np.flatnonzero(alike.any(1)).tolist()) - set(same))
    if not same and not near:
        return None
    share = max((len(same) + len(near)) / max(len(images), 1), float(alike.any(0).sum()) / max(len(compared), 1))
    how = " and ".join(
        text for text in (
            f"{len(same)} by content" if same else "", f"{len(near)} by look, scaled or saved again" if near else "",
        ) if text
    )  # fmt: skip
    return Finding(
        "overlap", "danger" if same or share >= OVERLAP_SHARE else "warning",
        f"{len(same) + len(near)} of {len(images)} calibration pictures are in the evaluation set too: {how} "
        f"({_names(images, [*same, *near])})",
        "remove the copies: accuracy on pictures that calibrated is too good",
    )  # fmt: skip


def _one_class(images: ImageSet) -> Finding | None:
    labels = {label for label in images.labels if label is not None}
    if len(labels) != 1 or images.n_labelled < 2:
        return None
    return Finding(
        "one-class", "warning", f"all {images.n_labelled} labelled pictures are of one class ({next(iter(labels))})",
        "give the folder that holds all classes: other classes drive other channels to their limits",
    )  # fmt: skip


def _resolution(seen: Sequence[Glance | None], preprocessing: Preprocessing) -> Finding | None:
    res = preprocessing.short_px
    shorts = np.array([g.short_px for g in seen if g is not None])
    small = shorts * UPSCALED * res / (res + preprocessing.crop_padding_px) <= res
    if _share(small) <= OVERLAP_SHARE:
        return None
    return Finding(
        "resolution", "warning" if _share(small) > MOST else "info",
        f"{_of(small)} pictures are small (short side {int(np.median(shorts[small]))} px) and blown up to {res} px: "
        "they lack the detail that drives ranges",
        "give photographs at least as large as the network's input",
    )  # fmt: skip


def _aspect(seen: Sequence[Glance | None]) -> Finding | None:
    long = np.array([g.aspect > LONG_ASPECT for g in seen if g is not None])
    if _share(long) <= OVERLAP_SHARE:
        return None
    return Finding(
        "aspect", "warning" if _share(long) > MOST else "info",
        f"{_of(long)} pictures are more than {LONG_ASPECT:g} times as long as wide: the centre square leaves most out",
        "crop them to what the model will see",
    )  # fmt: skip


def _grayscale(facts: _Facts) -> Finding | None:
    gray = (facts.colour < GRAY_DIFFERENCE) & (facts.std >= BLANK_STD)
    if _share(gray) <= MOST:
        return None
    return Finding(
        "grayscale", "warning" if gray.all() else "info",
        f"{'all' if gray.all() else _of(gray)} pictures are grayscale: colours drive channels that these do not",
        "add colour photographs, unless the model will see none",
    )  # fmt: skip


def _brightness(facts: _Facts) -> Finding | None:
    seen = facts.mean[facts.std >= BLANK_STD]
    if len(seen) < SAME_BRIGHTNESS_N or float(seen.std()) >= SAME_BRIGHTNESS_STD:
        return None
    return Finding(
        "brightness", "warning", f"all pictures are equally bright ({seen.mean():.0f} of 255, +-{seen.std():.1f})",
        "add darker and lighter ones, as the camera will take",
    )  # fmt: skip


def _names(images: ImageSet, which: Sequence[int]) -> str:
    shown: list[Any] = [PurePath(images.files[i]).name for i in which[:3]]
    return ", ".join(shown) + (", ..." if len(which) > 3 else "")
