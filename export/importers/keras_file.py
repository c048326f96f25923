"""Whole Keras models, .keras and .h5, of Keras 2 and Keras 3: checked without TensorFlow, built later.

Their configuration names Python functions and classes. Before Keras reads it, every name is checked against a list: a
Lambda layer carries code, and a class outside of Keras is code that edgenet does not have.
"""

import json
import os
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgenet.errors import EdgenetError, InputError, MissingDependency
from edgenet.export.foreign import allowed
from edgenet.export.foreign.containers import check_hdf5, check_keras_zip, check_outside
from edgenet.export.foreign.wires import check_wires
from edgenet.export.graph import Graph
from edgenet.export.importers.classifier import checked, chosen_output
from edgenet.export.importers.model_file import ModelFacts, ModelFile
from edgenet.files import sha256_of
from edgenet.frameworks import keras as tf_keras
from edgenet.frameworks import quiet, tensorflow
from edgenet.images import Preprocessing
from edgenet.images.preprocess_option import parse_preprocess

_PASSES = {
    "Activation", "Softmax", "ReLU", "Dropout", "Flatten", "Reshape", "GlobalAveragePooling2D", "GlobalMaxPooling2D",
    "BatchNormalization", "AveragePooling2D",
}  # fmt: skip
_RECURRENT = {"RNN", "LSTM", "GRU", "SimpleRNN", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"}
_NOISE = re.compile(r"\{\{\w+ [^}]*\}\}\s*|\x1b\[[0-9;]*m")  # TensorFlow's place in its own code, Keras' colours
MAX_CONFIG_BYTES = 2**28
MOST_RESCALED = 8.0  # what 255 becomes: 1 and 2 in practice, some units where it is brought to unit variance
MAX_LAYERS = 5000  # the largest of Keras' own networks have a thousand


def find_keras(path: Path, output: str | None = None) -> ModelFile:
    """Look at a .keras file. Raises InputError."""
    check_outside(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "config.json" not in names:
                torch = any(n.endswith("data.pkl") for n in names)
                what = (
                    "a PyTorch file: export it to ONNX"
                    if torch
                    else "a zip archive, but no .keras model (no config.json)"
                )
                raise InputError(f"{path} is {what}; edgenet never runs what is in it")
            check_keras_zip(path, archive)
            if max(archive.getinfo(n).file_size for n in names if n.endswith(".json")) > MAX_CONFIG_BYTES:
                raise InputError(f"{path} has a configuration of more than {MAX_CONFIG_BYTES} bytes: it is damaged")
            config = json.loads(archive.read("config.json"))
            about = json.loads(archive.read("metadata.json")) if "metadata.json" in names else {}
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, NotImplementedError, OSError) as e:
        raise InputError(f"{path} is not a whole .keras file ({e}): save or copy it again") from None
    return _found(path, config, str(about.get("keras_version", "3")), output)


def find_h5(path: Path, output: str | None = None) -> ModelFile:
    """Look at a .h5 file. Raises InputError, MissingDependency."""
    check_outside(path)
    try:
        import h5py
    except ImportError:
        raise MissingDependency("h5py", "export", "reading a .h5 file") from None
    try:
        with h5py.File(path, "r") as f:
            check_hdf5(path, f)
            stored = f.attrs.get("model_config")
            version = f.attrs.get("keras_version", "2")
            text = stored.decode() if isinstance(stored, bytes) else stored
            version = version.decode() if isinstance(version, bytes) else str(version)
            if text is None:
                raise InputError(
                    f"{path} holds weights only, no network: save the whole model, model.save('model.keras'); for a "
                    "model of the zoo give its name and --weights"
                )
            config = json.loads(text)
    except (OSError, ValueError, KeyError, RuntimeError) as e:
        raise InputError(f"{path} is not a whole .h5 file ({_one_line(e)}): save or copy it again") from None
    return _found(path, config, version, output)


def _found(path: Path, config: Any, version: str, output: str | None) -> ModelFile:
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict | list):
        raise InputError(f"{path} has no network in its configuration: save the whole model, model.save('model.keras')")
    config = {k: v for k, v in config.items() if k != "compile_config"}  # the loss and the optimizer are not needed
    refuse_code(path, config)
    refuse_loops(path, config)
    refuse_odd_layers(path, config)
    names = _ends(config, "input")
    if len(names) > 1:
        raise InputError(f"{path} has {len(names)} inputs ({', '.join(names)}); an image classifier has one")
    names = _ends(config, "output")
    if names or output is not None:
        output = chosen_output(path, names, output)
    shape = _input_shape(config)
    if shape is None:
        shape = (None, None, None, 3)

    def build(shape: tuple[int, int, int]) -> Graph:
        return _build(path, version, shape, names.index(output) if output else 0)

    classes, ending = _last_layers(config, output)
    preprocessing = _of_pixels(shape) if _scales_pixels(config) else None
    return ModelFile(ModelFacts(shape, sha256_of(path), classes, preprocessing, ending=ending), build)


def refuse_code(path: Path, config: Any) -> None:
    """Raise InputError where a configuration names what only Keras itself may be asked for; see allowed.py."""
    for item in _dicts(config):
        kind = item.get("class_name")
        if "class_name" not in item:
            continue
        inner = item.get("config")
        name = inner.get("name") if isinstance(inner, dict) else None
        named = f"{kind} '{name}'" if name else str(kind)
        if kind in ("Lambda", "__lambda__"):
            raise InputError(f"{path} has the layer {named}, Python code in a file, which edgenet never runs")
        if kind in ("DTypePolicy", "Policy") and isinstance(name, str) and "float16" in name:
            raise InputError(
                f"{path} is of mixed precision ({name}): build the network with the policy float32, load the weights "
                "into it and save that"
            )
        module, registered = item.get("module"), item.get("registered_name")
        if not _is_allowed(kind, module, inner) or (isinstance(registered, str) and ">" in registered):
            if module is None and isinstance(kind, str) and name and kind not in _CALLS_FUNCTION:
                raise InputError(_custom(path, f"layer {kind}"))  # of an .h5 file, which names no modules
            where = f" of {module}" if isinstance(module, str) and module != "builtins" else ""
            shown = inner if module == "builtins" and isinstance(inner, str) else named
            function = inner.get("function") if isinstance(inner, dict) and kind in _CALLS_FUNCTION else None
            raise InputError(_custom(path, f"class or function {function or shown}{where}"))


_CALLS_FUNCTION = ("TFOpLambda", "SlicingOpLambda")  # layers of Keras 2 for a function of TensorFlow


def _is_allowed(kind: Any, module: Any, config: Any) -> bool:
    """Whether an object of a configuration is of a class, and a module, that is known to compute and no more."""
    if not isinstance(kind, str) or not (module is None or isinstance(module, str)):
        return False
    if kind in _CALLS_FUNCTION:
        function = config.get("function") if isinstance(config, dict) else None
        return isinstance(function, str) and allowed.is_function(function)
    if kind == "function":
        names = isinstance(config, str) and config in allowed.ACTIVATIONS
        return names and (module is None or allowed.ACTIVATION_MODULES.match(module) is not None)
    if kind == "LayerScale" and re.match(r"^(tf_)?keras(\.src)?\.applications\.\w+$", str(module)):
        return True  # ConvNeXt's own layer
    if module is not None and allowed.is_operation(module, kind):
        return True
    known = module in (None, "builtins") if kind.startswith("__") else module is None
    return kind in allowed.CLASSES and (known or allowed.MODULES.match(str(module)) is not None)


def refuse_loops(path: Path, config: Any) -> None:
    """Raise InputError for a recurrent layer, unless it was built with `unroll=True`: it is a loop."""
    for item in _dicts(config):
        kind, inner = item.get("class_name"), item.get("config")
        if kind not in _RECURRENT or not isinstance(inner, dict):
            continue
        holds = inner.get("cell") or inner.get("layer")
        holds = holds if isinstance(holds, dict) else {}
        deeper: Any = holds.get("config")
        if not (inner.get("unroll") or (isinstance(deeper, dict) and deeper.get("unroll"))):
            of = f" of {holds['class_name']}" if isinstance(holds.get("class_name"), str) else ""
            raise InputError(
                f"{path} has the layer {kind} '{inner.get('name')}'{of}, a loop, which edgenet does not handle: build "
                "it with unroll=True where it has that"
            )


def refuse_odd_layers(path: Path, config: Any) -> None:
    """Raise InputError where Keras would build for minutes, or fail without a reason."""
    n = 0
    for item in _dicts(config):
        layers = item.get("layers")
        n += len(layers) if isinstance(layers, list) else 0
        if item.get("class_name") in ("Sequential", "Functional", "Model") and isinstance(item.get("config"), dict):
            inside = item["config"].get("layers")
            if not isinstance(inside, list) or not inside or not all(isinstance(i, dict) for i in inside):
                raise InputError(
                    f"{path} has a network without layers in it: it is damaged; save the whole model again"
                )
            bare = next((i for i in inside if not isinstance(i.get("config"), dict | list)), None)
            if bare is not None:
                raise InputError(
                    f"{path} has the layer {str(bare.get('class_name'))[:100]} without a configuration: it is damaged; "
                    "save the whole model again"
                )
            check_wires(path, inside)
    if n > MAX_LAYERS:
        raise InputError(f"{path} has {n} layers; edgenet builds up to {MAX_LAYERS}")


def _custom(path: Path, what: str) -> str:
    return (
        f"{path} has the custom {what}, which edgenet does not have: save a network of Keras' own layers, or export it "
        "to ONNX"
    )


def _dicts(item: Any) -> Iterator[dict[str, Any]]:
    stack = [item]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            yield item
            stack.extend(reversed(list(item.values())))
        elif isinstance(item, list):
            stack.extend(reversed(item))


def _layers(model: dict[str, Any]) -> list[dict[str, Any]]:
    inner = model["config"]
    layers = inner.get("layers", []) if isinstance(inner, dict) else inner
    return [layer for layer in layers if isinstance(layer, dict)]


def _own(layer: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a layer; a network's may be a list, of its layers."""
    config = layer.get("config")
    return config if isinstance(config, dict) else {}


def _ends(model: dict[str, Any], what: str) -> list[str]:
    """Return the names of a functional model's input or output layers; nothing for a sequential one."""
    found = model["config"].get(f"{what}_layers") if isinstance(model["config"], dict) else None
    if isinstance(found, dict):
        return [str(n) for n in found]
    if not isinstance(found, list) or not found:
        return []
    return [str(found[0])] if isinstance(found[0], str) else [str(f[0]) for f in found if isinstance(f, list) and f]


def _input_shape(model: dict[str, Any]) -> tuple[int | None, ...] | None:
    """Return the shape of a model's input, None where the configuration does not say."""
    wanted = _ends(model, "input")
    inner = model["config"] if isinstance(model["config"], dict) else {}
    for layer in _layers(model):
        config = layer.get("config")
        if not isinstance(config, dict) or (wanted and config.get("name", layer.get("name")) != wanted[0]):
            continue
        shape = config.get("batch_shape") or config.get("batch_input_shape")
        if isinstance(shape, dict):  # {"class_name": "__tuple__", "items": [...]}
            shape = shape.get("items")
        if shape is None and "layers" in config:
            return _input_shape(layer)
        if shape is not None:
            return tuple(n if isinstance(n, int) else None for n in shape)
        break
    built = inner.get("build_input_shape") or (model.get("build_config") or {}).get("input_shape")
    return tuple(n if isinstance(n, int) else None for n in built) if isinstance(built, list) else None


def _scales_pixels(model: dict[str, Any]) -> bool:
    """Whether the first layer that computes is a Rescaling of 0..255, so that pixels go in as they are."""
    for layer in _layers(model):
        kind, config = str(layer.get("class_name")), layer.get("config")
        if kind == "InputLayer" or kind.startswith("Random"):  # what augments does nothing in inference
            continue
        if not isinstance(config, dict):
            return False
        if "layers" in config:
            inner = [str(one.get("class_name")) for one in _layers(layer)]
            if all(name == "InputLayer" or name.startswith("Random") for name in inner):
                continue
            return _scales_pixels(layer)
        scale = config.get("scale")
        return kind == "Rescaling" and isinstance(scale, int | float) and 0 < scale * 255 <= MOST_RESCALED
    return False


def _of_pixels(shape: tuple[int | None, ...]) -> Preprocessing | None:
    """Return the preprocessing of a network that takes pixels 0..255; None where its input's size is open."""
    height, width, channels = shape[1:4] if len(shape) == 4 else (None, None, None)
    if height is None or width is None or channels not in (1, 3):
        return None
    return parse_preprocess("raw", (height, width), channels)


def _last_layers(model: dict[str, Any], output: str | None) -> tuple[int | None, str]:
    """Return the number of classes and how the network ends (see classifier.py), if its last layers say so plainly.

    None and "" are for what only the built network can tell.
    """
    layers, ending = _layers(model), ""
    if not layers or (output and _own(layers[-1]).get("name") != output):
        return None, ""
    for layer in reversed(layers):
        config, kind = _own(layer), layer.get("class_name")
        if kind in ("Dense", "Conv2D"):
            n = config.get("units" if kind == "Dense" else "filters")
            activation = config.get("activation")
            ending = ending or {"softmax": "softmax", "sigmoid": "sigmoid", "linear": "linear"}.get(str(activation), "")
            return (n if isinstance(n, int) else None), ending
        if kind not in _PASSES:
            return None, ""
        if not ending and kind == "Softmax":
            ending = "softmax"
        elif not ending and kind == "Activation":
            ending = {"softmax": "softmax", "sigmoid": "sigmoid"}.get(str(config.get("activation")), "")
        if not ending and kind not in ("Dropout", "Flatten", "Reshape"):
            return None, ""
    return None, ""


def _build(path: Path, version: str, shape: tuple[int, int, int], output: int) -> Graph:
    from edgenet.export.network import from_keras

    model = _load(path, version)
    if len(getattr(model, "inputs", None) or [0]) > 1:
        raise InputError(f"{path} has {len(model.inputs)} inputs; an image classifier has one")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns of what users cannot change here
        return checked(path, converted(path, lambda: from_keras(model, (1, *shape), output)))


def _load(path: Path, version: str) -> Any:
    """Load a model with the Keras that its file names, or else with the other one."""
    loaders = {"Keras 3": _keras3, "Keras 2 (tf-keras)": tf_keras}
    order = sorted(loaders, key=lambda name: (version[:1] == "2") != ("2" in name))
    reasons = []
    for name in order:
        try:
            module = loaders[name]()
            with warnings.catch_warnings(), quiet():
                warnings.simplefilter("ignore")
                if path.suffix.lower() in (".keras", ".h5", ".hdf5"):
                    return _load_with(module, path)
                return _load_renamed(module, path)
        except MissingDependency as e:
            reasons.append(f"{name}: {e}")
        except Exception as e:  # Keras raises whatever the broken part of a file provokes
            if unknown := re.search(r"Unknown (\w+):? '?(?:\w+>)?(\w+)'?", str(e)):
                raise InputError(_custom(path, f"{unknown[1]} {unknown[2]}")) from None
            reasons.append(f"{name}: {_one_line(e)}")
    raise InputError(
        f"{path}, saved by Keras {version}, cannot be loaded: save it as a SavedModel (model.export) or as ONNX. "
        f"{'; '.join(reasons)}"
    )


def _load_with(module: Any, path: Path) -> Any:
    if zipfile.is_zipfile(path):
        import h5py

        with zipfile.ZipFile(path) as archive:
            for name in (n for n in archive.namelist() if n.endswith(".h5")):
                with archive.open(name) as stream, h5py.File(stream, "r") as weights:
                    check_hdf5(path, weights)
    return module.models.load_model(str(path), compile=False, safe_mode=True)


def _load_renamed(module: Any, path: Path) -> Any:
    """Keras goes by the suffix, edgenet by the content."""
    import tempfile

    suffix = ".keras" if zipfile.is_zipfile(path) else ".h5"
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"model{suffix}"
        link.symlink_to(path.absolute())
        return _load_with(module, link)


def _keras3() -> Any:
    tensorflow()
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        with quiet():
            import keras
    except ImportError:
        raise MissingDependency("keras", "export", "loading a Keras model") from None
    if not keras.__version__.startswith("3"):
        raise MissingDependency("keras 3", "export", "loading a model of Keras 3")
    if keras.backend.backend() != "tensorflow":
        raise InputError(f"Keras is set to the backend {keras.backend.backend()}: set KERAS_BACKEND=tensorflow")
    return keras


def converted(path: Path, convert: Any) -> Graph:
    """Return what `convert` gives, TFLite's converter's complaints as one line."""
    try:
        graph: Graph = convert()
        return graph
    except EdgenetError as e:
        raise InputError(f"{path}: {e}") from None
    except Exception as e:  # the converter's errors are MLIR's diagnostics, pages of them
        text = str(e)
        flex = re.search(r"(?:Flex|Custom) ops: ([^\n]*)", text)
        ops = re.findall(r"'tf\.(\w+)' op is neither a custom op nor a flex op", text)
        ops += re.findall(r"\b(?:tf\.)?([A-Z]\w+)\b", flex[1]) if flex else []
        if ops:
            named = ", ".join(dict.fromkeys(ops))
            raise InputError(f"{path} has operators that TFLite does not have: {named}; replace them") from None
        raise InputError(f"{path} cannot be converted: {_one_line(e)}") from None


def _one_line(e: BaseException) -> str:
    said = _NOISE.sub("", re.sub(r"<class '([\w.]+)'>", r"\1", str(e)))
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    text = " ".join(lines)[:300] if lines else "no reason told"
    return text.rstrip(".")
