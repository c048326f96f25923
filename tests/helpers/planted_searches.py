"""Searches for a budget with known losses: `python tests/helpers/planted_searches.py` prints how often "met" is wrong.

What each file of a search loses on a population of pictures is known; a search sees a sample of it.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgenet.jobs.budget_verdict import Budget, Judgement, chosen, is_over, judge
from edgenet.results import Evaluation

POPULATION, FILES = 20_000, 8
SAMPLES = (60, 200, 500, 1500, 4000)


def evaluation(n: int = 10, **measured: Any) -> Evaluation:
    """Return an evaluation on n pictures, labelled ones where it has flips."""
    figures = {"top1": 0.8, "top1_ci95": None, "top5": None, "top5_ci95": None, **measured}
    labelled = n if "flips_broken" in measured else 0
    return Evaluation("a", "", n, labelled, runtime="litert", **figures)


def counted(lost: int, won: int, n: int, sqnr_db: float | None = 25.0) -> Evaluation:
    """Return an evaluation on n labelled pictures."""
    changed = {"flips_broken": lost, "flips_fixed": won, "top1_drop": (lost - won) / n}
    return evaluation(n, **changed, agreement=1 - (lost + won) / n, sqnr_db=sqnr_db)


@dataclass(frozen=True)
class Planted:
    """The files of a search: what each loses in truth, and what a sample of pictures shows of it."""

    budget: Budget
    true_loss: tuple[float, ...]  # of each file
    sqnr_db: tuple[float, ...]
    sample: tuple[Evaluation, ...]

    def is_within(self, file: int) -> bool:
        return self.true_loss[file] * 100 <= (self.budget.max_drop_points or 0.0)


def plant(seed: int, labelled: bool = True, just_above: bool = False) -> Planted:
    """Return a case whose budget lies at 0.4 to 1.6 times what the default file loses.

    A picture has a margin between its first two classes; a file's noise changes the answer where it is larger. Files
    share most of their noise, as those of a search do.

    Args:
        just_above: no file is better than the default by more than chance, and the budget lies just below the best.
    """
    rng = np.random.default_rng(seed)
    n_sample = int(rng.choice(SAMPLES))
    margin = rng.exponential(1.0, POPULATION)
    right = rng.random(POPULATION) < 1 - 0.5 * np.exp(-margin)
    second = ~right & (rng.random(POPULATION) < 0.6)  # wrong, and the right class is the second
    shared, sample = rng.normal(size=POPULATION), rng.choice(POPULATION, n_sample)
    noise = 10 ** rng.uniform(-1.5, -0.5)
    cooling = 0.999 if just_above else rng.uniform(0.7, 0.98)  # from file to file
    losses, decibels, shown = [], [], []
    for k in range(FILES):
        sigma = noise * cooling**k * (1.0 if just_above else rng.uniform(0.95, 1.05))
        flipped = sigma * (0.9 * shared + 0.44 * rng.normal(size=POPULATION)) > margin
        lost, won = (flipped & right, flipped & second) if labelled else (flipped, np.zeros_like(flipped))
        losses.append(float(lost.mean() - won.mean()))
        decibels.append(-20 * math.log10(sigma))
        n_lost, n_won = int(lost[sample].sum()), int(won[sample].sum())
        unlabelled = evaluation(n_sample, agreement=1 - n_lost / n_sample, sqnr_db=decibels[-1])
        shown.append(counted(n_lost, n_won, n_sample, decibels[-1]) if labelled else unlabelled)
    allowed = min(losses) * 0.999 if just_above else losses[0] * rng.uniform(0.4, 1.6)
    return Planted(Budget(max_drop_points=min(100.0, 100 * allowed)), tuple(losses), tuple(decibels), tuple(shown))


@dataclass(frozen=True)
class Outcome:
    """What a search said, and what is true."""

    verdict: str
    is_within: bool
    is_within_by_point: bool  # of the file that a search would end with that only looked at the loss
    sqnr_db: float
    default_sqnr_db: float


def searched(case: Planted) -> Outcome:
    """Search as accuracy_budget.search does, with evaluations that were drawn."""
    judged: list[Judgement] = []
    for e in case.sample:
        judged.append(judge(case.budget, e, len(judged) + 1))
        if is_over(case.budget, judged):
            break
    kept = chosen(judged)
    within = [i for i, j in enumerate(judged) if j.verdict != "missed"]
    by_point = not within or case.is_within(within[0])
    return Outcome(judged[kept].verdict, case.is_within(kept), by_point, case.sqnr_db[kept], case.sqnr_db[0])


def main() -> None:
    for labelled in (True, False):
        found = [searched(plant(seed, labelled)) for seed in range(100)]
        said = Counter((o.verdict, "within" if o.is_within else "above") for o in found)
        print(f"100 searches {'with' if labelled else 'without'} labels")
        for (verdict, truth), n in sorted(said.items()):
            print(f"  {n:3} {verdict}, the kept file's true loss is {truth} the budget")
        print(
            f"  {sum(not o.is_within_by_point for o in found):3} would be wrong if a loss within the budget were enough"
        )
        print(f"  {sum(o.sqnr_db < o.default_sqnr_db for o in found):3} kept a file noisier than the default")
    above = [searched(plant(seed, just_above=True)) for seed in range(100)]
    print("100 searches where every file is just above the budget")
    print(f"  {sum(o.verdict == 'met' for o in above):3} met")


if __name__ == "__main__":
    main()
