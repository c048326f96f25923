"""Import TensorFlow when it is needed, and quietly: it and LiteRT print from native code, which no setting stops."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edgenet.errors import MissingDependency


@contextmanager
def quiet() -> Iterator[None]:
    """Send what native code prints on stderr to nowhere while the block runs."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def tensorflow() -> Any:
    """Return the module tensorflow. Raises MissingDependency."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with quiet():
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
