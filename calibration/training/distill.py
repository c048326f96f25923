"""The distillation loss: the student learns from the teacher and from labels, https://arxiv.org/abs/1503.02531."""

from collections.abc import Callable
from typing import Any

import numpy as np

from edgenet.frameworks import tensorflow


def distillation(teacher: Any | None, temperature: float, labels_weight: float) -> Callable[[Any, Any, Any], Any]:
    """Return a loss (logits, x, target) -> (B,).

    T^2 KL(softmax(teacher / T) || softmax(student / T)), and with `labels_weight` w: (1 - w) of that and w of the
    cross-entropy with the target, for pictures that have a label.

    Args:
        teacher: the float network. None: the second half of a target is what it answered.
    """
    tf = tensorflow()

    def loss(logits: Any, x: Any, target: Any) -> Any:
        if teacher is None:
            target, told = tf.split(target, 2, -1)
        else:
            told = tf.stop_gradient(tf.cast(teacher(x, training=False), tf.float32))
        told = told / temperature
        logits = tf.cast(logits, tf.float32)
        p = tf.nn.softmax(told)
        kl = tf.reduce_sum(p * (tf.nn.log_softmax(told) - tf.nn.log_softmax(logits / temperature)), -1)
        kl = kl * temperature**2
        if not labels_weight:
            return kl
        weight = labels_weight * tf.reduce_sum(target, -1)
        cross = -tf.reduce_sum(target * tf.nn.log_softmax(logits), -1)
        return (1 - weight) * kl + labels_weight * cross

    return loss


def divergence(teacher: np.ndarray, student: np.ndarray) -> float:
    """Return the mean of KL(softmax(teacher) || softmax(student)) over pictures; (N, classes) logits each."""
    a, b = (_log_softmax(v.astype(np.float64)) for v in (teacher, student))
    return float(np.mean(np.sum(np.exp(a) * (a - b), -1)))


def cross_entropy(labels: np.ndarray, logits: np.ndarray) -> float:
    """Return the mean cross entropy of logits (N, classes) with labels (N,), of the pictures that have one."""
    known = np.flatnonzero(labels >= 0)
    return -float(np.mean(_log_softmax(logits[known].astype(np.float64))[np.arange(len(known)), labels[known]]))


def _log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(-1, keepdims=True)
    logs: np.ndarray = x - np.log(np.exp(x).sum(-1, keepdims=True))
    return logs
