"""The words of the page, each explained in a sentence or two, for the section where it first stands."""

import html
import re
from dataclasses import dataclass

from edgenet.report.formatting import NBSP


@dataclass(frozen=True)
class Word:
    """A word, how a text is searched for it, and what it means to somebody who reads it for the first time."""

    name: str
    pattern: str
    meaning: str


WORDS = (
    Word("Top-1", r"top-1", "The share of the labelled pictures whose label is the file's first answer."),
    Word("Top-5", r"top-5", "The share of the labelled pictures whose label is among the file's first five answers."),
    Word("Exact match", r"exact match", "The share of the labelled pictures on which every label is decided rightly."),
    Word(
        "Recall@1",
        r"recall@1",
        "The share of the labelled pictures whose nearest other picture, by the embedding, has the same label.",
    ),
    Word(
        "ROC AUC",
        r"roc auc",
        "The chance that a picture of yes gets a higher score than one of no: 0.5 is guessing. No threshold is needed.",
    ),
    Word(
        "Average precision",
        r"average precision",
        "Of the pictures from the highest score down, the share that has the label, averaged over those that have it.",
    ),
    Word("F1", r"f1", "The harmonic mean of how many of the found are right and how many of the right are found."),
    Word(
        "Cosine",
        r"cosine",
        "How alike two embeddings are: 1 where they point the same way, 0 where they have nothing in common.",
    ),
    Word(
        "Agreement",
        r"agreement|same answer as float32|disagree",
        "The share of the pictures to which a file gives the same first answer as the float32 file, right or wrong. It "
        "needs no labels.",
    ),
    Word("Points", r"points?", "Percentage points: from 87.4 % to 87.0 % are 0.4 points."),
    Word(
        "95 % interval",
        r"9[58] % intervals?",
        "A figure of some pictures or runs is near the true one, not on it. The interval is where the true one can be: "
        "such intervals hold it 95 times in 100. Where that of a loss holds zero, there may be no loss.",
    ),
    Word(
        "float32",
        r"float32",
        "The network as it was trained, in 32-bit numbers: the yardstick for the rest.",
    ),
    Word(
        "float16",
        r"float16",
        "Weights in 16-bit floating-point numbers: half the size, and as a rule the same answers.",
    ),
    Word(
        "int8",
        r"int8",
        "Weights and what is computed between the layers in 8-bit integers: a quarter of the size, and fast where the "
        "chip computes with them.",
    ),
    Word(
        "int4",
        r"int4",
        "8-bit numbers between the layers, 4-bit weights where nearly all of them are: about a seventh of the size.",
    ),
    Word("int16x8", r"int16x8", "8-bit weights, 16-bit numbers between the layers: nearer to float32, often slow."),
    Word(
        "Dynamic",
        r"dynamic",
        "8-bit weights; what is computed between the layers is rounded to 8 bits anew for each picture.",
    ),
    Word(
        "Weight-only",
        r"weight-only",
        "8-bit weights that are made float again before use: small, not faster.",
    ),
    Word(
        "SQNR",
        r"SQNR",
        "Signal to quantization noise, in decibels: how large the network's last numbers are beside the error that "
        "quantization made in them. At 20 dB the error is a tenth of them, at 40 dB a hundredth: more is better.",
    ),
    Word("Logits", r"logits", "The network's last numbers, before they are made probabilities."),
    Word(
        "Fixed / broken",
        r"fixed|broken|flipp?(?:s|ed)?",
        "Of the pictures that flipped, whose first answer is another one than float32's: fixed ones became right, "
        "broken ones wrong.",
    ),
    Word(
        "McNemar's p",
        r"McNemar's (?:p|test)",
        "How often chance alone would fix and break pictures at least so unevenly. Below 0.05 chance is a poor "
        "explanation; above, the pictures cannot tell the file from float32.",
    ),
    Word(
        "Median, p90, p95",
        r"median|p9[05]",
        "Half of the runs were faster than the median; 90 and 95 of 100 than these.",
    ),
    Word(
        "Speed-up",
        r"speed-up",
        "How many times as fast as float32; ≈ 1× where the runs cannot tell the two apart.",
    ),
    Word(
        "Calibration",
        r"calibrat(?:ion|e|es|ed)",
        "Some pictures show which range of numbers each layer has to hold in 8 bits. They do not measure: on pictures "
        "that it was fitted to, a file looks better than it is.",
    ),
    Word("Held back", r"held.back", "Pictures that are not trained on while they decide which epoch is kept."),
    Word("Epoch", r"epochs?", "One pass of the training over all its pictures."),
    Word("Post-training", r"post-training", "Quantized as it was trained, without more training."),
)


def new_words(section: str, known: set[str]) -> tuple[Word, ...]:
    """Return the words that a section of the page, in HTML, has and that are not `known` yet; they are added to it."""
    text = _visible(section)
    found = tuple(w for w in WORDS if w.name not in known and re.search(_alone(w.pattern), text, re.IGNORECASE))
    known.update(w.name for w in found)
    return found


def _visible(section: str) -> str:
    """Return what a reader sees of some HTML, drawings by their alternative texts."""
    labels = " ".join(re.findall(r'aria-label="([^"]*)"', section))
    return html.unescape(f"{re.sub(r'<[^>]+>', ' ', section)} {labels}").replace(NBSP, " ")


def _alone(pattern: str) -> str:
    """A word may stand in a file's name, between underscores, and not within another word."""
    return rf"(?<![a-z0-9])(?:{pattern})(?![a-z0-9])"
