"""Data sets as their authors hand them out: `--images flowers102:DIR` and so on."""

from edgenet.images.official.layouts import LAYOUTS, Layout
from edgenet.images.official.option import Listing, classes_of, indices_in, layout_of, listing

__all__ = ["LAYOUTS", "Layout", "Listing", "classes_of", "indices_in", "layout_of", "listing"]
