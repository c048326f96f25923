"""Import TensorFlow when it is needed, and quietly: it and LiteRT print from native code, which no setting stops."""

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edgenet.errors import MissingDependency

_lock = threading.Lock()
_inside, _stderr = 0, -1  # blocks of all threads that are quiet now, and a copy of stderr as it was before the first


@contextmanager
def quiet() -> Iterator[None]:
    """Send what native code prints on stderr to nowhere while the block, or such a block of another thread, runs."""
    global _inside, _stderr
    try:
        null = os.open(os.devnull, os.O_WRONLY)
    except PermissionError:  # in a child that reads a stranger's file and may write nowhere; nobody hears it
        yield
        return
    with _lock:
        if _inside == 0:
            _stderr = os.dup(2)
            os.dup2(null, 2)
        _inside += 1
    os.close(null)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                os.dup2(_stderr, 2)
                os.close(_stderr)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep what is made in the block out of the collector: a million objects of modules, which stay till the end."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()


def tensorflow() -> Any:
    """Return the module tensorflow. Raises MissingDependency."""
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # tf.keras is then tf-keras, and Keras 3 is not loaded as well
    try:
        with quiet(), _no_garbage_collection():
            import tensorflow as tf
    except ImportError:
        raise MissingDependency("tensorflow", "export", "building or converting a network") from None
    tf.get_logger().setLevel("ERROR")
    return tf


def keras() -> Any:
    """Return tf-keras (Keras 2), which quantization-aware training needs. Raises MissingDependency."""
    tensorflow()
    try:
        with quiet():
            import tf_keras
    except ImportError:
        raise MissingDependency("tf-keras", "export", "building a network") from None
    return tf_keras


def tfmot() -> Any:
    """Return tensorflow_model_optimization.quantization.keras. Raises MissingDependency."""
    keras()
    try:
        with quiet():
            from tensorflow_model_optimization.quantization import keras as quantization
    except ImportError:
        name = "tensorflow-model-optimization"
        raise MissingDependency(name, "qat", "quantization-aware training") from None
    return quantization
