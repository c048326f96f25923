"""Writes the files of one job, from one network and one calibration; both are built when a file first needs them."""

import hashlib
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from edgenet import __version__
from edgenet.calibration import NEEDS_CALIBRATION, SharedCalibration
from edgenet.calibration.float_reasons import float_reasons
from edgenet.calibration.quantize import ACTIVATIONS
from edgenet.export import FORMATS, Network, Source, export_graph
from edgenet.export.graph import Graph
from edgenet.images import Pixels, load_pixels
from edgenet.images.roles import history_of, merged
from edgenet.jobs.keep import Keep, as_options, resolve
from edgenet.options import Recipe
from edgenet.results import Artifact, ImageSet
from edgenet.results.records import PictureHistory
from edgenet.targets import Target, weight_bits

USES_IMAGES = (*NEEDS_CALIBRATION, "weight-only", "dynamic")  # the last two need none, but round better with some


@dataclass(frozen=True)
class Variant:
    """One way to make a file: its recipe, and the operators that keep another precision."""

    recipe: Recipe
    exceptions: Mapping[str, str]  # operator's output -> precision


@dataclass(frozen=True)
class Interface:
    """The inputs and outputs of the files."""

    io: str = "float32"
    batch: int | None = 1  # None: as many as the caller likes
    logits: bool = False


@dataclass(frozen=True)
class Form:
    """The form of the integers that devices ask for: a file beside the job's own, which they take whole."""

    io: str
    target: Target  # the devices'
    devices: tuple[str, ...] = ()  # as the user named them

    @property
    def tag(self) -> str:
        """What tells the file's name from that of the job's own file."""
        return f"_io-{self.io}" + ("" if self.target.dense_per_channel else "-one-scale")


class FileFactory:
    """Writes the files of a job, and tells what decides their bytes.

    Args:
        images: the pictures to calibrate with, None where there are none.
        set_aside: pictures that measure, where the files are to remember them: those of a training.
        keep: which operators of the integer files keep another precision, whatever a variant says.
    """

    def __init__(
        self,
        source: Source,
        images: ImageSet | None,
        target: Target,
        recipe: Recipe,
        interface: Interface,
        *,
        set_aside: ImageSet | None = None,
        keep: Sequence[Keep] = (),
    ) -> None:
        self.source, self.images, self.target, self.recipe = source, images, target, recipe
        self.interface, self.set_aside, self.keep = interface, set_aside, tuple(keep)
        self._shared: dict[Recipe, SharedCalibration] = {}

    def id(self, format: str, precision: str, form: Form | None = None) -> str:
        """Return the id of a file, which is its name."""
        return f"{self.source.name}_{precision}{form.tag if form else ''}{FORMATS[format].suffix}"

    @cached_property
    def network(self) -> Network:
        """The float network. One with random weights takes its batch statistics from the calibration pictures."""
        pixels = None
        if self.images is not None and self.source.build_on is not None:
            pixels = load_pixels(self.images, self.source.preprocessing)
        return self.source.network(pixels)

    @cached_property
    def kept(self) -> dict[str, str]:
        """Which operators `keep` names: output -> precision. Raises InputError where an option names none."""
        return resolve(self.keep, self.network.graph, self.target) if self.keep else {}

    @cached_property
    def pixels(self) -> Pixels | None:
        """The calibration pictures: (N, H, W, 3) uint8."""
        return None if self.images is None else load_pixels(self.images, self.network.preprocessing)

    def shared(self, recipe: Recipe) -> SharedCalibration:
        """Return the calibration that all formats share under this recipe."""
        if recipe not in self._shared:
            fingerprint = self.images.fingerprint if self.images else ""
            self._shared[recipe] = SharedCalibration(self.network, self.pixels, fingerprint, recipe)
        return self._shared[recipe]

    def calibration_of(self, artifact: Artifact) -> SharedCalibration | None:
        """Return the calibration that a file was made with in this run; None where it needed none."""
        measured = (s for s in self._shared.values() if "calibration" in vars(s))
        return next((s for s in measured if s.calibration.fingerprint == artifact.calibration), None)

    def options(
        self, format: str, precision: str, search: Mapping[str, str] | None = None, form: Form | None = None
    ) -> dict[str, Any]:
        """Return everything that decides the bytes of a file. A file is written again where one of these changed.

        Args:
            search: what decides beside these which int8 file a search for a budget ends with.
            form: what devices ask for; the job's own where it is None.
        """
        names = self.source.task.output_names(self.source.class_names)
        options: dict[str, Any] = {
            "weights": self.source.sha256,
            "io": form.io if form else self.interface.io,
            "edgenet_version": __version__,
            "preprocessing": self.source.preprocessing.to_json(),
            "task": self.source.task.to_json(self.source.class_names),
            "labels": hashlib.sha256("\n".join(names).encode()).hexdigest(),
        }
        if not FORMATS[format].fixed:
            options["batch"], options["logits"] = self.interface.batch, self.interface.logits
        if self.images is not None and (precision in USES_IMAGES or self.source.build_on is not None):
            options["calibration_images"] = self.images.fingerprint
        if self.images is not None and precision in USES_IMAGES:
            options["calibration_method"], options["corrections"] = self.recipe.method, list(self.recipe.corrections)
            options["weight_bits"] = self.bits(format, precision, form)
            options["dense_per_channel"] = (form or self).target.dense_per_channel
        if self.keep and precision in NEEDS_CALIBRATION:
            options["keep"] = [k.text for k in self.keep]
        if search and precision == "int8":
            options |= search
        return options

    def pictures(self, precision: str) -> PictureHistory:
        """Return which pictures had a role in a file of this precision."""
        calibrated = self.images if precision in USES_IMAGES else None
        return merged(self.network.pictures, history_of(calibrated=calibrated, measured=self.set_aside))

    def bits(self, format: str, precision: str, form: Form | None = None) -> int:
        """Return how many bits weights may have, of int4 those that keep more: fewer where sums would saturate."""
        return weight_bits((form or self).target, format) if precision in ("int8", "int4") else 8

    def with_interface(self, interface: Interface) -> "FileFactory":
        """Return a factory for files with other inputs and outputs, from the same network and calibration."""
        other = copy(self)
        other.interface = interface
        return other

    def _exceptions(self, precision: str, variant: Variant) -> dict[str, str]:
        return {**variant.exceptions, **(self.kept if precision in NEEDS_CALIBRATION else {})}

    def quantized(self, format: str, precision: str, variant: Variant | None = None, form: Form | None = None) -> Graph:
        """Return the graph that a file is written from; the format, on a target, decides the bits of the weights."""
        variant = variant or Variant(self.recipe, {})
        bits, per_channel = self.bits(format, precision, form), (form or self).target.dense_per_channel
        exceptions = self._exceptions(precision, variant)
        return self.shared(variant.recipe).quantized(precision, bits, exceptions, per_channel)

    def export(
        self,
        out: Path,
        format: str,
        precision: str,
        variant: Variant | None = None,
        search: Mapping[str, str] | None = None,
        form: Form | None = None,
    ) -> Artifact:
        """Write one file into `out` and return what it is. `search` and `form` as in `options`."""
        variant = variant or Variant(self.recipe, {})
        shared, exceptions = self.shared(variant.recipe), self._exceptions(precision, variant)
        graph = self.quantized(format, precision, variant, form)
        artifact = export_graph(
            self.network,
            graph,
            out,
            format=format,
            precision=precision,
            tag=form.tag if form else "",
            io=form.io if form else self.interface.io,
            batch=self.interface.batch,
            logits=self.interface.logits,
            calibration=shared.calibration if precision in NEEDS_CALIBRATION else None,
            pictures=self.pictures(precision),
            options=self.options(format, precision, search, form),
            reasons=float_reasons(graph, precision, exceptions),
        )
        mixture = _mixture(graph, exceptions, precision)
        keep = as_options(mixture, self.network.graph, self.target)
        return replace(artifact, mixture=mixture, keep=keep, made_for=form.devices if form else ())


def _mixture(graph: Graph, exceptions: Mapping[str, str], precision: str) -> dict[str, str]:
    """Return the operators of a quantized graph that really have another precision than the file."""
    own = ACTIVATIONS.get(precision)
    # An operator that has no integer kernel for int16 is computed in float32.
    unable = {n for n, p in exceptions.items() if p == "int16" and graph.tensors[n].dtype == "float32"}
    really = {n: "float32" if n in unable else p for n, p in exceptions.items()}
    return {n: p for n, p in really.items() if p != own}
