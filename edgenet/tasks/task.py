"""The kinds of classifier, and how a network's last operator tells which one it is.

classes      a softmax: one class of several
binary       one sigmoid: yes or no, as the first network of every Keras tutorial has it
labels       several sigmoids: each label is there or not
embedding    a vector that is near another where two pictures are alike
"""

from dataclasses import dataclass
from typing import Any

from edgenet.errors import InputError

KINDS = ("classes", "binary", "labels", "embedding")
AUTO = "auto"
IMAGENET_CLASSES = 1000  # as many numbers without names are ImageNet's classes


@dataclass(frozen=True)
class Task:
    """What a network's output means. An answer of `binary` or `labels` is yes where its score is above `threshold`."""

    kind: str = "classes"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"unknown --task '{self.kind}' (valid: {AUTO}, {', '.join(KINDS)})")

    def n_names(self, n_outputs: int) -> int:
        """Return how many classes have a name: one sigmoid tells two apart, an embedding none."""
        return {"binary": 2, "embedding": 0}.get(self.kind, n_outputs)

    def n_outputs(self, n_names: int) -> int | None:
        """Return how many numbers the network gives, None where the names do not tell."""
        return {"binary": 1, "embedding": None}.get(self.kind, n_names)

    def output_names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the name of each number that the network gives: of one sigmoid that of yes, of an embedding none."""
        return {"binary": names[1:], "embedding": ()}.get(self.kind, names)

    def to_json(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return what a model file says of it. `names` are those of the classes; a file lists the outputs' names."""
        more = {"negative": names[0]} if self.kind == "binary" else {}
        return {"kind": self.kind, "threshold": self.threshold, **more}

    @classmethod
    def from_json(cls, data: Any) -> "Task | None":
        """Return what `to_json` gave, None where that is not there or damaged."""
        try:
            return cls(str(data["kind"]), float(data["threshold"]))
        except (TypeError, KeyError, ValueError, InputError):
            return None


CLASSES = Task()


def told_from(path: object, ending: str, n_outputs: int, *, asked: str = AUTO, named: bool = False) -> Task:
    """Return the task of a network.

    Args:
        ending: how it ends: softmax | sigmoid | normalised (a vector of length 1) | pooled | linear.
        asked: `--task`.
        named: whether its outputs have names of classes.

    Raises:
        InputError: the network cannot be what was asked for, or it does not tell what it is.
    """
    if asked != AUTO:
        _check(path, Task(asked), ending, n_outputs)
        return Task(asked)
    if n_outputs == 1:
        if ending == "sigmoid":
            return Task("binary")
        if ending == "softmax":
            raise InputError(f"{path} ends in a softmax of one number, which is 1 for every picture: give it a sigmoid")
        raise InputError(
            f"{path} gives 1 number a picture and ends in no sigmoid: for the logit of yes or no give --task binary; "
            "edgenet does not measure other numbers"
        )
    if ending == "sigmoid":
        return Task("labels")
    unnamed = not named and n_outputs != IMAGENET_CLASSES
    return Task("embedding" if ending == "normalised" or (ending == "pooled" and unnamed) else "classes")


def _check(path: object, task: Task, ending: str, n_outputs: int) -> None:
    if (task.kind == "binary") != (n_outputs == 1):
        wanted = "one number" if task.kind == "binary" else "two numbers or more"
        others = ", ".join(k for k in KINDS if (k == "binary") == (n_outputs == 1))
        raise InputError(f"{path} gives {n_outputs} and --task {task.kind} is for {wanted} a picture: give {others}")
    if task.kind in ("binary", "labels") and ending == "softmax":
        raise InputError(
            f"{path} ends in a softmax, whose answers exclude each other: --task {task.kind} is for sigmoids"
        )
