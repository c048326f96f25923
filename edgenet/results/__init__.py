"""The nouns of a run, and OUT/results.json, which holds them.

nouns.py has what is measured, records.py how it came about, file.py the file; plain.py turns nouns into plain values
and back, schema1.py reads an older file, warning_codes.py lists the codes; answers.py
packs what a file answered to each picture.
"""

from edgenet.results.answers import PictureAnswers
from edgenet.results.file import RESULTS_FILE, SCHEMA, Results
from edgenet.results.nouns import (
    NO_ANSWER,
    Artifact,
    Calibration,
    CompiledLayer,
    Confusion,
    Estimate,
    Evaluation,
    Explanation,
    Failure,
    Flip,
    ImageSet,
    Layer,
    LeftOperators,
    Measurement,
    OtherPrecision,
    TensorInfo,
    Warning,
)
from edgenet.results.records import Context

__all__ = [
    "NO_ANSWER",
    "RESULTS_FILE",
    "SCHEMA",
    "Artifact",
    "Calibration",
    "CompiledLayer",
    "Confusion",
    "Context",
    "Estimate",
    "Evaluation",
    "Explanation",
    "Failure",
    "Flip",
    "ImageSet",
    "Layer",
    "LeftOperators",
    "Measurement",
    "OtherPrecision",
    "PictureAnswers",
    "Results",
    "TensorInfo",
    "Warning",
]
