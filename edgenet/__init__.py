"""edgenet: take a trained image classifier to a phone, a board or an edge accelerator, and prove what it cost.

    results = edgenet.run("efficientnet-lite0", images="photos", out="OUT")

docs/library.md shows each function. All of it is looked up when it is asked for, so that importing the package loads
nothing; __init__.pyi says the same to type checkers.
"""

import importlib
import os
import sys
from types import ModuleType
from typing import Any

# NumPy's BLAS spins on the cores that the runtimes' own threads compute on: with more than one thread, rounding weights
# took four times as long. It reads this once, when NumPy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"

__all__ = [
    "Artifact",
    "Comparison",
    "DeviceError",
    "EdgenetError",
    "Estimate",
    "Evaluation",
    "Failure",
    "GateFailed",
    "InputError",
    "Inspection",
    "Measurement",
    "MissingDependency",
    "Quantized",
    "Results",
    "bench",
    "compare",
    "evaluate",
    "export",
    "inspect",
    "quantize",
    "run",
]

_ERRORS = ("DeviceError", "EdgenetError", "GateFailed", "InputError", "MissingDependency")
_MODULES = {
    **dict.fromkeys(_ERRORS, "edgenet.errors"),
    **dict.fromkeys(("Artifact", "Estimate", "Evaluation", "Failure", "Measurement", "Results"), "edgenet.results"),
    "Comparison": "edgenet.compare.nouns",
    "Inspection": "edgenet.export.inspect.inspection",
    "Quantized": "edgenet.library.quantized",
}


class _Front(ModuleType):
    """The package. `edgenet.export` is the function, though there is a folder of that name too.

    Importing a module sets it as an attribute of its package, which would hide the functions export, evaluate and
    compare. So that is left out for them; `from edgenet.export import ...` does not need it.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in __all__ or not isinstance(value, ModuleType):
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(_MODULES.get(name, "edgenet.library")), name)
        setattr(self, name, found)
        return found

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Front
