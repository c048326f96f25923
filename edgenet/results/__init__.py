"""The nouns of a run, and OUT/results.json, which holds them.

nouns.py has what is measured, records.py how it came about, file.py the file; plain.py turns nouns into plain values
and back, schema1.py reads an older file, warning_codes.py lists the codes; answers.py packs what a file answered to
each picture. What this package offers is looked up when it is asked for: plain.py and tensor_info.py alone are a
tenth of it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
        Warning,
    )
    from edgenet.results.records import Context
    from edgenet.results.tensor_info import TensorInfo

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

_MODULES = {
    "RESULTS_FILE": "file", "SCHEMA": "file", "Results": "file", "Context": "records", "TensorInfo": "tensor_info",
    "PictureAnswers": "answers",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'nouns')}"), name)
