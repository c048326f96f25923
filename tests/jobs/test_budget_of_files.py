"""Searches for a budget over real files, of networks whose losses are known: "met" is true, and nothing is made worse.

A population of pictures is the truth. A search sees a sample of it; what the kept file loses is then counted on all.
"""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgenet import device_bench
from edgenet.device_bench import Worker
from edgenet.export.graph import Graph
from edgenet.images import Pixels, load_pixels, normalise
from edgenet.images.image_set import open_images, subset
from edgenet.jobs.accuracy_budget import search
from edgenet.jobs.budget_verdict import Budget
from edgenet.jobs.file_factory import FileFactory, Interface, Variant
from edgenet.options import Recipe
from edgenet.results import ImageSet
from edgenet.results.records import SearchRecord
from edgenet.targets import target
from helpers import tiny

PICTURES, CALIBRATION = 1000, 16
SAMPLES = (60, 500, 2000)  # drawn with repeats, as from a population without an end
RIGHT = 0.85  # of the float network's answers: as often the label is what it says


@pytest.fixture(autouse=True)
def _no_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_bench, "bench", lambda *args: ([], []))


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageSet, Pixels]:
    """Pictures between two of the classes' colours: a little noise changes the answer on many of them."""
    folder, rng = tmp_path_factory.mktemp("population"), np.random.default_rng(0)
    colours, side = np.array(tiny.COLOURS), tiny.PX // 4
    for i in range(PICTURES + CALIBRATION):
        blotches = rng.dirichlet(np.ones(tiny.CLASSES)) @ colours + rng.normal(0, 25, (side, side, 3))
        picture = np.kron(blotches, np.ones((4, 4, 1))) + rng.normal(0, 6, (tiny.PX, tiny.PX, 3))
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(folder / f"{i:04}.png")
    images = open_images(str(folder), *tiny.classes_of(tiny.CLASSES))
    return images, load_pixels(images, tiny.PREPROCESSING)


@dataclass(frozen=True)
class Found:
    """What a search said, and what is true: losses in points, SQNR on the population."""

    record: SearchRecord
    budget: float
    true_loss: float
    sqnr_db: float
    default_sqnr_db: float

    @property
    def verdict(self) -> str:
        return self.record.verdict


def network(seed: int) -> Graph:
    """Return a network whose classes share a large part of their logits: int8's steps drown what tells them apart."""
    graph, rng = tiny.graph(seed), np.random.default_rng(seed)
    weights = graph.tensors["logits_w"].data
    assert weights is not None
    shared = 10 ** rng.uniform(0, 1.2) * rng.normal(0, 0.2, (1, weights.shape[1]))
    graph.tensors["logits_w"] = replace(graph.tensors["logits_w"], data=(weights + shared).astype(np.float32))
    return graph


def searched(seed: int, population: tuple[ImageSet, Pixels], out: Path) -> Found:
    """Search with a network of random weights, a sample of the pictures, and a budget near the default's true loss."""
    images, pixels = population
    rng = np.random.default_rng(seed)
    shown = np.arange(CALIBRATION, len(images))
    source = replace(tiny.source(), sha256=f"{seed:064}", build_on=None, build=lambda: network(seed))
    made = FileFactory(source, subset(images, range(CALIBRATION)), target("generic"), Recipe(), Interface())

    def answers(precision: str, variant: Variant | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The first class of each picture, (N,), and the probabilities, (N, classes)."""
        artifact = made.export(out, "tflite", precision, variant)
        with Worker(out / artifact.path, threads=1) as worker:
            y = worker.predict(normalise(pixels[shown], tiny.PREPROCESSING))
        return y.argmax(axis=1), y

    floating, expected = answers("float32")
    labels = np.where(rng.random(len(shown)) < RIGHT, floating, rng.integers(tiny.CLASSES, size=len(shown)))

    def truth(variant: Variant | None) -> tuple[float, float]:
        top1, y = answers("int8", variant)
        lost = (floating == labels).mean() - (top1 == labels).mean()
        clean, noisy = (np.log(np.maximum(p, 1e-30)) for p in (expected, y))
        clean, noisy = (z - z.mean(axis=1, keepdims=True) for z in (clean, noisy))
        return 100 * float(lost), float(10 * np.log10(np.square(clean).sum() / np.square(noisy - clean).sum()))

    default_loss, default_db = truth(None)
    budget = max(0.05, default_loss) * rng.uniform(0.4, 1.6)
    labelled = replace(images, labels=(*[None] * CALIBRATION, *map(int, labels)))
    sample = subset(labelled, sorted(rng.choice(shown, int(rng.choice(SAMPLES)))))
    found = search(made, "tflite", sample, Budget(max_drop_points=budget))
    loss, db = truth(found.variant)
    return Found(found.record, budget, loss, db, default_db)


def said(found: list[Found]) -> Counter[str]:
    """How often a search said what, after the promise was held to each."""
    for f in found:
        assert f.sqnr_db >= f.default_sqnr_db - 0.3, (
            f
        )  # a sample's figures decide, which are not quite the population's
    return Counter("wrongly met" if f.verdict == "met" and f.true_loss > f.budget else f.verdict for f in found)


def test_a_search_over_real_files_keeps_none_that_is_noisier_than_the_default(
    population: tuple[ImageSet, Pixels], tmp_path: Path
) -> None:
    assert said([searched(seed, population, tmp_path) for seed in (0, 1)])["wrongly met"] == 0


@pytest.mark.long
def test_in_100_searches_over_real_files_met_is_wrong_in_fewer_than_5(
    population: tuple[ImageSet, Pixels], tmp_path: Path
) -> None:
    counts = said([searched(seed, population, tmp_path) for seed in range(100)])
    print(dict(counts))
    assert counts["wrongly met"] < 5
    assert counts["met"] >= 10
    assert counts["cannot tell"] >= 10
