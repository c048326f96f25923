"""`edgenet finetune` as a whole beside the new head alone, EfficientNet-Lite0 on ten flowers at a time.

    .venv/bin/python benchmarks/finetune_stages.py [--flowers DIR] [--seeds N] [--resolution PX] [--out DIR]

Flowers102 in class folders below train/ and test/. Seed s takes the classes 10 s to 10 s + 9, draws 10 pictures of each
from train/ and gives those to finetune, which sets 20 % of them aside to measure and 15 % of the others to choose. What
is compared here are all other pictures of these classes, about 200, which finetune has not seen. With so few pictures
to learn from and to choose by, training more than the head is most likely to hurt. 128 px, so that it takes minutes.

R is (pictures that the returned network has right) / (those that the head alone has right), over all seeds. Bar: R is 1
or more, and in no seed is the returned network worse by more than chance (McNemar's exact test, p < 0.05).
"""

import argparse
import contextlib
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgenet.evaluate import Candidate, evaluate, paired_difference
from edgenet.frameworks import keras
from edgenet.images import Preprocessing, open_images
from edgenet.jobs.finetune import finetune
from edgenet.models.zoo import spec
from edgenet.options import FinetuneJob
from edgenet.report.formatting import points
from edgenet.results.training import TrainingRecord

MODEL, CLASSES, PICTURES = "efficientnet-lite0", 10, 10  # pictures of a class that finetune is given
CHANCE = 0.05


@dataclass(frozen=True)
class Row:
    """What came of a seed, on pictures that finetune was not given."""

    seed: int
    n: int
    head: float  # part that is right
    returned: float
    fixed: int
    broken: int
    p: float
    training: TrainingRecord
    seconds: float

    @property
    def worse(self) -> bool:
        return self.broken > self.fixed and self.p < CHANCE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flowers", type=Path, default=Path(__file__).parents[2] / "shared" / "flowers102")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--out", help="Keep what is made in this folder.")
    given = parser.parse_args()
    if not (given.flowers / "train").is_dir():
        parser.error(f"{given.flowers} has no folder train: give --flowers DIR")
    print("| seed | pictures | head alone | returned | fixed / broken | p | kept | held back, loss | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows = []
    with contextlib.nullcontext(given.out) if given.out else tempfile.TemporaryDirectory() as work:
        for seed in range(given.seeds):
            rows.append(one(seed, given.flowers, Path(work) / f"seed{seed}", given.resolution))
            print(line(rows[-1]), flush=True)
    head, returned = (sum(getattr(r, name) * r.n for r in rows) for name in ("head", "returned"))
    worse = [r.seed for r in rows if r.worse]
    n, fixed, broken = (sum(getattr(r, name) for r in rows) for name in ("n", "fixed", "broken"))
    low, high = paired_difference(fixed, broken, n)
    print(
        f"{n} pictures: {head:.0f} right by the head alone, {returned:.0f} by what is returned; gained "
        f"{points((fixed - broken) / n)} points, 95 %: {points(low)} to {points(high)}"
    )
    print(f"worse by more than chance in seeds: {', '.join(map(str, worse)) or 'none'}")
    ratio = returned / head
    print(f"finetune_stages: {ratio:.4f} x")
    return 0 if ratio >= 1 and not worse else 1


def one(seed: int, flowers: Path, work: Path, px: int) -> Row:
    """Fine-tune on the pictures of a seed, once the head alone and once as it is by default, and compare the two."""
    given, others = pictures_of(seed, flowers, work)
    job = FinetuneJob(MODEL, work / "tuned", str(given), px)
    job = replace(job, settings=replace(job.settings, seed=seed))
    start = time.perf_counter()
    training = finetune(job).context.training
    seconds = time.perf_counter() - start
    assert training is not None
    finetune(replace(job, out=work / "head", layers="head"))
    keras().backend.clear_session()
    files = [Candidate(name, work / name / f"{MODEL}-finetuned.tflite", name) for name in ("head", "tuned")]
    names = sorted(p.name for p in given.iterdir())
    row = spec(MODEL)
    found, failures = evaluate(
        files, open_images(str(others), (), names), Preprocessing(px, row.mean, row.std), reference="head"
    )
    assert not failures, failures
    head, tuned = found
    return Row(
        seed, tuned.n_labelled, head.top1 or 0.0, tuned.top1 or 0.0, tuned.flips_fixed or 0, tuned.flips_broken or 0,
        1.0 if tuned.mcnemar_p is None else tuned.mcnemar_p, training, seconds,
    )  # fmt: skip


def pictures_of(seed: int, flowers: Path, work: Path) -> tuple[Path, Path]:
    """Link the pictures of a seed into two folders of class folders: those given to finetune, and all others."""
    rng = np.random.default_rng(seed)
    given, others = work / "given", work / "others"
    for name in (f"{c:03d}" for c in range(CLASSES * seed, CLASSES * (seed + 1))):
        files = sorted((flowers / "train" / name).iterdir())
        drawn = set(rng.permutation(len(files))[:PICTURES].tolist())
        rest = [f for i, f in enumerate(files) if i not in drawn] + sorted((flowers / "test" / name).iterdir())
        for root, wanted in ((given, [files[i] for i in sorted(drawn)]), (others, rest)):
            (root / name).mkdir(parents=True, exist_ok=True)
            for f in wanted:
                (root / name / f.name).symlink_to(f.resolve())
    return given, others


def line(r: Row) -> str:
    losses = ", ".join(f"{s.layers} {s.held_back_loss:.3f}" for s in r.training.stages)
    return (
        f"| {r.seed} | {r.n} | {100 * r.head:.1f} % | {100 * r.returned:.1f} % | {r.fixed} / {r.broken} | {r.p:.2f} | "
        f"{r.training.kept} | {losses} | {r.seconds:.0f} |"
    )


if __name__ == "__main__":
    sys.exit(main())
