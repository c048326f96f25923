"""What a training notes of itself, of finetune and of qat: part of results.json's "context", a noun a class."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgenet.results.plain import absent


@dataclass(frozen=True)
class Epoch:
    """A point of the training curve; epoch 0 is before training, and has what is known of the held-back pictures."""

    epoch: int = 0
    held_back_loss: float | None = absent(None)
    held_back_agreement: float | None = absent(None)
    held_back_accuracy: float | None = absent(None)
    loss: float | None = absent(None)
    held_back_learned: int | None = absent(None)  # finetune: pictures that are right and were not before the stage
    held_back_forgotten: int | None = absent(None)  # and the other way round
    learning_rate: float | None = absent(None)
    images_per_s: float | None = absent(None)
    seconds: float | None = absent(None)  # without validation


@dataclass(frozen=True)
class Score:
    """What was measured of a network before or after training; fractions of 1."""

    agreement: float | None = None
    agreement_ci95: tuple[float, float] | None = None
    top1: float | None = None
    sqnr_db: float | None = None
    n_images: int | None = None
    held_back_accuracy_of_the_new_head: float | None = absent(None)  # of `finetune`, before all layers learned


@dataclass(frozen=True)
class TrainedFile:
    """Which file of one format `qat` returned. `after` is None where no epoch was better than post-training."""

    format: str = ""
    kept: str = ""  # "ptq" or "qat"
    why: str = ""
    before: Score | None = None
    after: Score | None = None


@dataclass(frozen=True)
class TrainedStage:
    """A stage of `finetune`, and what the held-back pictures said of its best epoch.

    Attributes:
        layers: "head", "top" or "all".
        epochs: that it took; the head is fitted without any.
        gain: by how much their loss fell since the stage that was kept before, None for the head.
        gain_error: standard error of `gain`, from the differences picture by picture.
        learned: held-back pictures that are right since this stage and were not before; `forgotten` the other way
            round.
    """

    layers: str = ""
    held_back_accuracy: float | None = None
    held_back_loss: float | None = None
    epochs: int = 0
    seconds: float | None = None
    gain: float | None = None
    gain_error: float | None = None
    learned: int | None = absent(None)
    forgotten: int | None = absent(None)


@dataclass(frozen=True)
class KeptActivations:
    """What `finetune` computed once: `views` of each of `pictures`, as they are at activation `at` of the network.

    `work_saved`: part of the network's multiply-adds below it, which training the layers above did not repeat.
    """

    views: int = 0
    pictures: int = 0
    size_bytes: int = 0
    at: str = ""
    work_saved: float = 0.0


@dataclass(frozen=True)
class LearnedAgain:
    """How the network of `finetune` learned once more: the stages and epochs that were chosen, from all pictures.

    Attributes:
        pictures: those that taught before and those that were held back.
        epochs: of all stages together; none where nothing but the head learns.
        held_back_loss: of pictures that it has learned by then, so that it measures nothing.
        kept: whether that network is returned; else the one that was chosen is.
        why: it is not kept: "time" (none was left, nothing learned), "loss" (it is no lower than before) or "diverged".
    """

    pictures: int = 0
    epochs: int = 0
    seconds: float | None = None
    held_back_loss: float | None = None
    kept: bool = False
    why: str = absent("")


@dataclass(frozen=True)
class PictureCounts:
    """How many pictures learned, decided which epoch is the best, and measured."""

    train: int = 0
    held_back: int = 0
    evaluation: int = 0
    calibration: int | None = absent(None)


@dataclass(frozen=True)
class Likeness:
    """On which part of the held-back pictures the trained simulation and the file have one first answer."""

    before: float | None = None
    after: float | None = None


@dataclass(frozen=True)
class Step:
    """One of the files that `finetune --then` went through: what it is, and what it is worth on the same pictures."""

    name: str = ""  # "float before" (the new head alone), "float after", "INT8", "trained INT8"
    artifact: str = ""
    top1: float | None = None
    top1_ci95: tuple[float, float] | None = None
    agreement: float | None = None  # with "float after"
    size_bytes: int = 0


@dataclass(frozen=True)
class ChangedConfusion:
    """A wrong answer whose number is not the same in all steps. `n`: pictures with this label that got it, by step."""

    label: int = 0
    answer: int = 0
    n: tuple[int, ...] = ()


@dataclass(frozen=True)
class ThenRecord:
    """What followed `finetune` in the same command.

    Attributes:
        what: "int8" or "qat".
        confusions: those that changed most since "float after", at most 20 of `n_confusions`.
        curve: of the training in int8, as the record of `qat` has it; empty where there was none.
        kept: "ptq" or "qat": which of the int8 files is returned, and `why`.
    """

    what: str = ""
    steps: tuple[Step, ...] = ()
    confusions: tuple[ChangedConfusion, ...] = ()
    n_confusions: int = 0
    curve: tuple[Epoch, ...] = absent(())
    best_epoch: int = absent(0)
    seconds: float | None = absent(None)
    kept: str = absent("")
    why: str = absent("")


@dataclass(frozen=True)
class TrainingRecord:
    """How a training went, and what it brought. Those fields that one of the two commands lacks are left out."""

    kind: str = ""  # "qat" or "finetune"
    curve: tuple[Epoch, ...] = ()
    best_epoch: int = 0
    stopped_early: bool = False
    seconds: float | None = None  # without what was spent on validation
    images_per_s: float | None = None
    before: Score | None = None
    after: Score | None = None
    pictures: PictureCounts = field(default_factory=PictureCounts)
    settings: Mapping[str, Any] = field(default_factory=dict)  # calibration/training/loop.py's Settings
    classes: int | None = absent(None)  # finetune
    stages: tuple[TrainedStage, ...] = absent(())  # finetune, those that were tried
    activations: KeptActivations | None = absent(None)  # finetune
    again: LearnedAgain | None = absent(None)  # finetune, but for --no-refit
    kept: str = absent("")  # finetune: the stage; qat: "ptq" or "qat", of the first file
    why: str = absent("")
    files: tuple[TrainedFile, ...] = absent(())
    simulated_like_file: Likeness | None = absent(None)
    distillation: Mapping[str, Any] | None = absent(None)  # calibration/training/qat.py's Distillation
    weight_bits: int | None = absent(None)
    then: ThenRecord | None = absent(None)  # finetune --then


# ------------------------------------------------------------------------------------------------------ scale and paper
