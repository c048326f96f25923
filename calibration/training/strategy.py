"""Where it trains: the CPU, one or several GPUs, a TPU, or several machines, by tf.distribute; one code for all."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from edgenet.errors import InputError
from edgenet.frameworks import keras, tensorflow
from edgenet.options import STRATEGIES


def check_strategy(name: str) -> None:
    """Raise InputError where `name` is none of STRATEGIES, or is one that its environment does not describe.

    Cheap: TensorFlow is not loaded.
    """
    if name not in STRATEGIES:
        raise InputError(f"unknown --strategy '{name}' (valid: {', '.join(STRATEGIES)})")
    if name == "multiworker":
        try:
            cluster = json.loads(os.environ["TF_CONFIG"])
            workers, index = cluster["cluster"]["worker"], int(cluster["task"]["index"])
            assert 0 <= index < len(workers)
        except KeyError:
            raise InputError(
                "--strategy multiworker needs TF_CONFIG in the environment of each worker, e.g. "
                '\'{"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": {"type": "worker", "index": 0}}\''
            ) from None
        except (ValueError, TypeError, AssertionError):
            raise InputError("TF_CONFIG names no worker of its cluster: see tf.distribute's documentation") from None


def open_strategy(name: str = "auto") -> Any:
    """Return the tf.distribute strategy called `name`.

    "auto" is a TPU where TPU_NAME says there is one, all GPUs where there are some, else the CPU. "mirrored" takes all
    GPUs, or the logical CPUs where TensorFlow was given several.

    Raises:
        InputError: what it needs is not there.
    """
    check_strategy(name)
    tf = tensorflow()
    if name == "multiworker":
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except RuntimeError as e:  # it wants its collective operators set up before anything else of TensorFlow runs
            raise InputError(
                f"--strategy multiworker starts before anything else of TensorFlow, and reading this model was first "
                f"({_first_line(e)}): give it as a float .tflite, from edgenet export --precision float32"
            ) from None
    gpus, cpus = (tf.config.list_logical_devices(kind) for kind in ("GPU", "CPU"))
    if name == "auto":
        name = "tpu" if os.environ.get("TPU_NAME") else "mirrored" if gpus else "cpu"
    if name == "cpu":
        return tf.distribute.OneDeviceStrategy("/cpu:0")
    if name == "mirrored":
        found: Sequence[Any] = gpus or (cpus if len(cpus) > 1 else ())
        if not found:
            raise InputError("--strategy mirrored needs a GPU, and TensorFlow sees none: use --strategy cpu")
        return tf.distribute.MirroredStrategy([d.name for d in found])
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(os.environ.get("TPU_NAME", ""))
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except Exception as e:  # each backend has its own
        raise InputError(
            f"--strategy tpu: no TPU was found ({_first_line(e)}): set TPU_NAME to its name or address, 'local' on the "
            "TPU's own machine, or leave --strategy out"
        ) from None
    return tf.distribute.TPUStrategy(resolver)


def _first_line(e: Exception) -> str:
    lines = str(e).strip().splitlines()
    return lines[0][:120].rstrip(". ") if lines else type(e).__name__


def half_type(mixed: str, strategy: Any) -> str | None:
    """Return the type of 16 bits to compute in, None for float32. "auto": bfloat16 on a TPU, float16 on GPUs."""
    if mixed == "off":
        return None
    if mixed != "auto":
        return mixed
    tf = tensorflow()
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return "bfloat16"
    on_gpus = not isinstance(strategy, tf.distribute.OneDeviceStrategy) and tf.config.list_logical_devices("GPU")
    return "float16" if on_gpus else None


@contextmanager
def policy(half: str | None) -> Iterator[None]:
    """Have Keras make layers that compute in `half` while the block runs; weights stay float32."""
    mixed = keras().mixed_precision
    before = mixed.global_policy()
    if half:
        mixed.set_global_policy(f"mixed_{half}")
    try:
        yield
    finally:
        mixed.set_global_policy(before)
