"""Write a network as files for phones, boards and desktops: formats.py has the table, with one function a format.

What this package offers is looked up when it is asked for: whoever only inspects a file loads no importer, no writer
and no NumPy.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgenet.export.formats import FORMATS, Format, export_graph, versions
    from edgenet.export.importers.find import find_source
    from edgenet.export.network import Network, Source
    from edgenet.options import IO_DTYPES

__all__ = ["FORMATS", "IO_DTYPES", "Format", "Network", "Source", "export_graph", "find_source", "versions"]

_MODULES = {"find_source": "importers.find", "IO_DTYPES": "interface", "Network": "network", "Source": "network"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'formats')}"), name)
