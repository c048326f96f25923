"""What a network is to learn in fine-tuning, from which pictures, and the plan of how long."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from edgenet.calibration.training.activations import expected_bytes
from edgenet.calibration.training.augment import Pictures
from edgenet.calibration.training.cut import Cut, head_of, top_cut
from edgenet.calibration.training.loop import differs
from edgenet.door import open_regular, parse_json, reading
from edgenet.errors import InputError
from edgenet.export.graph import Graph
from edgenet.files import atomic_write
from edgenet.options import Settings

PLAN = "plan.json"
# The side that all layers learn at, of networks from 192 px on; smaller ones learn at their own.
SMALLER, SMALLER_FROM_PX, MULTIPLE_PX = 6 / 7, 192, 16
# Operators that take a picture of any size as they are, beside those that only see one number a channel.
_ANY_SIZE = {
    "CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "SUB", "MUL", "MEAN", "SUM", "PAD", "MAX_POOL_2D", "CONCATENATION", "RELU",
    "RELU6", "LEAKY_RELU", "HARD_SWISH", "GELU", "LOGISTIC", "TANH", "FULLY_CONNECTED", "SOFTMAX",
}  # fmt: skip


@dataclass(frozen=True)
class Lesson:
    """What a network is to learn, and how.

    Attributes:
        graph: the network with the head that it had.
        pictures: fingerprint of what trains.
        layers: what learns at most, one of LAYERS.
        views: of each picture, whose activations are kept.
        half: the type of 16 bits to compute in, None for float32.
        time_s: what all of it may take, None for as long as the settings say.
        n_evaluation: pictures that measure in the end, which takes time too.
        both: `train` and `held_back` as one, which the network learns once more from; None where it does not.
        held_back_pictures: fingerprint of what is held back.
    """

    graph: Graph
    classes: int
    train: Pictures
    held_back: Pictures
    pictures: str
    layers: str
    augment: tuple[str, ...]
    views: int
    label_smoothing: float
    first_layer_rate: float
    half: str | None
    settings: Settings
    time_s: float | None = None
    n_evaluation: int = 0
    both: Pictures | None = None
    held_back_pictures: str = ""

    @property
    def features(self) -> str:
        """The activation that the head reads."""
        return str(head_of(self.graph).inputs[0])

    @property
    def cut(self) -> Cut:
        """Where the top begins."""
        return top_cut(self.graph)

    @property
    def kept_bytes(self) -> int:
        """What the activations take on disk, about."""
        n = len(self.both or self.train)
        return 0 if self.layers == "head" else expected_bytes(self.cut.shape, n, self.views)

    @property
    def times_the_pictures(self) -> float:
        """How many pictures there are where it learns once more, for each of `train`; 0 where it does not."""
        return 0.0 if self.both is None else len(self.both) / max(1, len(self.train))


@dataclass(frozen=True)
class Plan:
    """How long the stages are, and their learning rate; kept on disk, so that a run that goes on has the same one."""

    views: int
    epochs: Mapping[str, int]  # of each stage but the head
    learning_rate: float | None  # None where the head alone learns
    again: float | None = None  # which part of the chosen epochs is done once more, None before that is known


def stored_plan(folder: Path, identity: str) -> Plan | None:
    """Return the plan of the run that began in a folder, None where none did. Raises InputError for another run's."""
    path = folder / PLAN
    if not path.exists():
        return None
    with reading(path, "a whole plan", "delete its folder to start anew"), open_regular(path) as f:
        stored = parse_json(f.read().decode())
        other = str(stored["identity"])
        part = stored.get("again")
        plan = Plan(int(stored["views"]), dict(stored["epochs"]), stored["learning_rate"], part)
        if part is not None and not 0 <= part <= 1:
            raise ValueError(f"it does {part} of the epochs again")
    if other != identity:
        raise InputError(differs(path, other, identity))
    return plan


def store_plan(folder: Path, identity: str, plan: Plan) -> None:
    """Write the plan of a run, in the place of an earlier one."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / PLAN) as tmp:
        tmp.write_text(json.dumps({"identity": identity, **asdict(plan)}))


def training_px(graph: Graph) -> int:
    """Return the side of the pictures that all layers learn from: smaller than the network's own where it can be."""
    px = graph.tensors[graph.inputs[0]].shape[1]
    if px < SMALLER_FROM_PX or not _takes_any_size(graph):
        return px
    return round(SMALLER * px / MULTIPLE_PX) * MULTIPLE_PX


def _takes_any_size(graph: Graph) -> bool:
    def is_vector(name: str | None) -> bool:
        return name is None or sum(n > 1 for n in graph.tensors[name].shape) <= 1

    for op in graph.ops:
        if op.kind not in _ANY_SIZE and not all(map(is_vector, (*op.inputs[:1], *op.outputs))):
            return False
        if op.kind in ("ADD", "SUB", "MUL") and not all(
            is_vector(n) for n in op.inputs if graph.constant(n) is not None
        ):
            return False
    return True
