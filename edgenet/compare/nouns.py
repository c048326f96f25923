"""What a comparison finds: one frozen record a pair of files and thing compared. Sentences are made in text.py."""

from dataclasses import dataclass
from statistics import NormalDist

from edgenet.results.records import CANNOT_TELL, MET, MISSED

ACCURACY, LATENCY, SIZE, OPERATORS = "accuracy", "latency", "size", "operators"
REFUSED, SHOWN = "refused", "shown"  # cannot be compared, for the reason in `how`; nothing is asked of it
ERROR = 0.025  # the chance that all files of a comparison together are called worse in one thing by mistake

__all__ = ["ACCURACY", "CANNOT_TELL", "ERROR", "LATENCY", "MET", "MISSED", "OPERATORS", "REFUSED", "SHOWN", "SIZE",
           "Comparison", "Finding", "Limits", "OperatorChange", "Sure", "verdict_of"]  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """How much worse a file may become; None where nothing is asked. All are fractions of 1.

    `strict`: what the data cannot show to be within its limit fails too.
    """

    max_drop: float | None = None
    max_slowdown: float | None = None
    max_growth: float | None = None
    strict: bool = False

    def of(self, aspect: str) -> float | None:
        """Return the limit of what is compared; of operators there is none."""
        limits = {ACCURACY: self.max_drop, LATENCY: self.max_slowdown, SIZE: self.max_growth}
        return limits.get(aspect)


@dataclass(frozen=True)
class Sure:
    """How sure an interval is: each end is wrong in `error` of all comparisons."""

    error: float

    @classmethod
    def among(cls, n: int) -> "Sure":
        """Return how sure the interval of one file has to be, so that all `n` together keep ERROR (Bonferroni)."""
        return cls(ERROR / max(n, 1))

    @property
    def z(self) -> float:
        """The quantile of the normal distribution."""
        return NormalDist().inv_cdf(1 - self.error)

    @property
    def confidence(self) -> float:
        """Of the interval, a fraction of 1."""
        return 1 - 2 * self.error


@dataclass(frozen=True)
class OperatorChange:
    """`n` operators of one kind that compute otherwise than before: precisions, or where they run (NPU | CPU)."""

    kind: str
    n: int
    was: str
    now: str


@dataclass(frozen=True)
class Finding:
    """What is known of one thing about one pair of files.

    Attributes:
        file: id of the new file; `old_file` that of the old one.
        verdict: met | missed | cannot tell; refused where the two cannot be compared; shown where no limit was given.
        how: accuracy: paired | intervals | same-file; latency: rounds | two-runs | same-file; size: bytes; operators:
            precision | accelerator; or why it is refused: other-labels, no-labels, not-evaluated, not-measured, failed,
            other-machine, unknown-machine, other-clock, other-settings, unsteady, few-runs, unknown.
        old: what it was: a fraction of 1, milliseconds, or bytes; `new` is what it is.
        change: how much worse, below 0 where better: a fraction of 1 that was lost, or by which it became slower or
            larger. `low` and `high` are its interval.
        confidence: of the interval.
        n: pictures, or rounds.
        needed: pictures, or seconds of each file's own time, that would tell; None where no number would.
        lost, won: pictures that only the old file, only the new file answers rightly.
        p: of McNemar's test (mid-p, one side).
        said: what the two say of themselves, where it is refused.
        fails: it is a reason for exit status 1.
    """

    file: str
    aspect: str
    verdict: str
    how: str
    old_file: str = ""
    device: str = ""
    runtime: str = ""
    old: float | None = None
    new: float | None = None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    limit: float | None = None
    n: int | None = None
    needed: int | None = None
    lost: int | None = None
    won: int | None = None
    p: float | None = None
    said: tuple[str, ...] = ()
    changes: tuple[OperatorChange, ...] = ()
    fails: bool = False


@dataclass(frozen=True)
class Comparison:
    """All that was found of OLD and NEW. `only_old` and `only_new` are files without a partner."""

    old: str
    new: str
    findings: tuple[Finding, ...]
    limits: Limits
    only_old: tuple[str, ...] = ()
    only_new: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The reasons for exit status 1."""
        return tuple(f for f in self.findings if f.fails)


def verdict_of(low: float, high: float, limit: float | None) -> str:
    """Return what an interval of a change says of a limit: worse only where the whole interval is above it."""
    if limit is None:
        return SHOWN
    near = 1e-9  # of rounding: 3 of 600 lost are half a point
    return MISSED if low > limit + near else MET if high <= limit + near else CANNOT_TELL
