"""A new head: a softmax regression on the features of the frozen network, fitted in seconds."""

import numpy as np

STEPS, RATE = 300, 0.01
PRIOR = 0.5  # weight decay times pictures: 1 / variance of the weights' prior
LEAST_SPREAD = 0.1  # of the mean: a feature that hardly varies would have huge weights


def fit_head(
    x: np.ndarray, labels: np.ndarray, classes: int, smoothing: float = 0.0, views: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel (C, classes) and bias (classes,) of a softmax regression: features (N, C) float32, labels (N,).

    Adam on all features at once, features brought to unit variance meanwhile; nothing in it is random. The weights have
    a Gaussian prior: few pictures can be told apart by ever larger weights, which make the answers on others too sure
    and each later step of the layers below a large one.

    Args:
        smoothing: of the labels: this much of each is spread over all classes.
        views: how many of the N are of one picture. Views of a picture tell no more of the weights than it does.
    """
    mean, spread = x.mean(0), x.std(0)
    spread = spread + LEAST_SPREAD * max(float(spread.mean()), 1e-6)
    z = np.c_[(x - mean) / spread, np.ones(len(x), np.float32)].astype(np.float32)
    target = ((1 - smoothing) * np.eye(classes)[labels] + smoothing / classes).astype(np.float32)
    decay = np.r_[np.full(x.shape[1], PRIOR * views / len(x)), 0.0][:, None].astype(np.float32)  # none of the bias
    w, m, v = (np.zeros((z.shape[1], classes), np.float32) for _ in range(3))
    for t in range(1, STEPS + 1):
        y = z @ w
        p = np.exp(y - y.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        g = z.T @ (p - target) / len(z) + decay * w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w -= np.float32(RATE) * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    kernel = w[:-1] / spread[:, None]
    return kernel.astype(np.float32), (w[-1] - mean @ kernel).astype(np.float32)
